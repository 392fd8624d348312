-- Arguments of the query become headers; numbers are checked, the key is taken out.
local function unescape(s)
  s = string.gsub(s, "+", " ")
  return (string.gsub(s, "%%(%x%x)", function(h) return string.char(tonumber(h, 16)) end))
end

function envoy_on_request(request_handle)
  local path, query = string.match(request_handle:headers():get(":path"), "^([^?]+)%??(.*)$")
  local kept = {}
  for name, value in string.gmatch(query, "([^&=]+)=([^&]*)") do
    if name == "key" then
      request_handle:headers():replace("x-api-key", unescape(value))
    else
      if name == "page" and not tonumber(value) then
        request_handle:respond({[":status"] = "400"}, string.format("page is no number: %q", value))
      end
      table.insert(kept, name .. "=" .. value)
    end
  end
  table.sort(kept)
  request_handle:headers():replace(":path", path .. (#kept > 0 and "?" .. table.concat(kept, "&") or ""))
  request_handle:headers():add("x-args", string.format("%d", #kept / 1))
end
