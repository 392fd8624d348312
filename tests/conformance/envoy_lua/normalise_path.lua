-- One spelling for each path: no doubled slashes, no dot segments, unreserved bytes decoded, nothing that climbs out.
local function normalise(path)
  path = path:gsub("%%(%x%x)", function(hex)
    local c = string.char(tonumber(hex, 16))
    if c:match("[%w%-%._~]") then
      return c
    end
    return "%" .. hex:upper()
  end)
  local out = {}
  for segment in path:gmatch("[^/]+") do
    if segment == ".." then
      if #out == 0 then
        return nil
      end
      table.remove(out)
    elseif segment ~= "." then
      table.insert(out, segment)
    end
  end
  return "/" .. table.concat(out, "/") .. (path:sub(-1) == "/" and #out > 0 and "/" or "")
end

function envoy_on_request(request_handle)
  local path, query = request_handle:headers():get(":path"):match("^([^?]*)(.*)$")
  local clean = normalise(path)
  if clean == nil then
    request_handle:respond({[":status"] = "400"}, "bad path")
    return
  end
  request_handle:headers():replace(":path", clean .. query)
end
