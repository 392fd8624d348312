-- Iterates over headers: internal ones are stripped, the rest is counted; both ways.
local function each(handle, prefix)
  local gone, names = {}, 0
  for key, value in pairs(handle:headers()) do
    names = names + 1
    if key:sub(1, #prefix) == prefix then
      gone[#gone + 1] = key
    end
    if value == "" then
      handle:logDebug(key .. " is empty")
    end
  end
  for i = 1, table.getn(gone) do
    handle:headers():remove(gone[i])
  end
  return names
end

function envoy_on_request(request_handle)
  request_handle:headers():add("x-count", each(request_handle, "x-internal-"))
  local headers = request_handle:headers()
  local n = headers:getNumValues("x-list")
  for i = 0, n - 1 do
    headers:add("x-copy", headers:getAtIndex("x-list", i))
  end
end

function envoy_on_response(response_handle)
  each(response_handle, "x-got-x-secret")
end
