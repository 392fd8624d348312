-- A small JSON reader in Lua, as scripts carry it with them: the order is checked and one field of it changed.
local json = {}

local function skip(s, i)
  return s:find("[^ \t\r\n]", i) or #s + 1
end

local function read(s, i)
  i = skip(s, i)
  local c = s:sub(i, i)
  if c == "{" or c == "[" then
    local out, close = {}, c == "{" and "}" or "]"
    i = skip(s, i + 1)
    while s:sub(i, i) ~= close do
      local key, value
      if c == "{" then
        key, i = read(s, i)
        i = skip(s, i)
        if s:sub(i, i) ~= ":" then error("no colon at " .. i) end
        i = i + 1
      end
      value, i = read(s, i)
      if key == nil then key = #out + 1 end
      out[key] = value
      i = skip(s, i)
      if s:sub(i, i) == "," then i = skip(s, i + 1) elseif s:sub(i, i) ~= close then error("no comma at " .. i) end
    end
    return out, i + 1
  elseif c == '"' then
    local j = s:find('"', i + 1, true)
    while s:sub(j - 1, j - 1) == "\\" do j = s:find('"', j + 1, true) end
    return s:sub(i + 1, j - 1), j + 1
  end
  local word = s:match("^[%w+.-]+", i)
  if word == nil then error("nothing at " .. i) end
  local value = tonumber(word)
  if value == nil then value = ({["true"] = true, ["false"] = false})[word] end
  return value, i + #word
end

function json.decode(s)
  return (read(s, 1))
end

function envoy_on_request(request_handle)
  local body = request_handle:body()
  if body == nil then return end
  local ok, order = pcall(json.decode, body:getBytes(0, body:length()))
  if not ok then
    request_handle:respond({[":status"] = "400", ["content-type"] = "application/json"}, '{"error":"no JSON"}')
  end
  if order.total > 1000 then
    request_handle:respond({[":status"] = "403", ["content-type"] = "application/json"},
      string.format('{"error":"limit","total":%d}', order.total))
  end
  body:setBytes(string.format('{"total":%s,"items":%d,"first":"%s"}', order.total, #order.items, order.items[1].name))
end
