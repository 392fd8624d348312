-- Takes a claim out of a bearer token (whose signature another filter has verified) and hands it to the app as a header.
local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

local function base64url_decode(text)
  local bits, n, out = 0, 0, {}
  for c in text:gmatch("[%w_-]") do
    bits = bits * 64 + alphabet:find(c, 1, true) - 1
    n = n + 6
    if n >= 8 then
      n = n - 8
      local byte = math.floor(bits / 2 ^ n)
      table.insert(out, string.char(byte))
      bits = bits - byte * 2 ^ n
    end
  end
  return table.concat(out)
end

function envoy_on_request(request_handle)
  local authorization = request_handle:headers():get("authorization")
  request_handle:headers():remove("x-jwt-sub")
  if authorization == nil then
    return
  end
  local payload = string.match(authorization, "^[Bb]earer [%w_-]+%.([%w_-]+)%.")
  if payload == nil then
    request_handle:logWarn("no JWT in authorization")
    return
  end
  local claims = base64url_decode(payload)
  local sub = claims:match('"sub"%s*:%s*"([^"]*)"')
  if sub then
    request_handle:headers():replace("x-jwt-sub", sub)
  end
end
