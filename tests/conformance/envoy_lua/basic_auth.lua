-- HTTP basic authentication, with a decoder for base64 such as people paste.
local b = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function decode(data)
  data = string.gsub(data, "[^" .. b .. "=]", "")
  return (data:gsub(".", function(x)
    if x == "=" then return "" end
    local r, f = "", (b:find(x, 1, true) - 1)
    for i = 6, 1, -1 do r = r .. (f % 2 ^ i - f % 2 ^ (i - 1) > 0 and "1" or "0") end
    return r
  end):gsub("%d%d%d?%d?%d?%d?%d?%d?", function(x)
    if #x ~= 8 then return "" end
    local c = 0
    for i = 1, 8 do c = c + (x:sub(i, i) == "1" and 2 ^ (8 - i) or 0) end
    return string.char(c)
  end))
end

local users = {alice = "wonder land", bob = "builder:1"}

function envoy_on_request(request_handle)
  local given = request_handle:headers():get("authorization") or ""
  local user, password = decode(given:match("^Basic (.+)$") or ""):match("^([^:]*):(.*)$")
  if user == nil or users[user] ~= password then
    request_handle:respond({[":status"] = "401", ["WWW-Authenticate"] = 'Basic realm="ephor"'}, "who are you?")
    return
  end
  request_handle:headers():replace("x-user", user)
  request_handle:headers():remove("authorization")
end
