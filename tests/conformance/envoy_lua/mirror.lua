-- A copy of each request to another cluster, which nobody waits for.
function envoy_on_request(request_handle)
  local body = request_handle:body()
  local headers = {}
  for key, value in pairs(request_handle:headers()) do
    headers[key] = value
  end
  headers[":authority"] = "shadow"
  headers["x-shadow"] = "1"
  request_handle:httpCall("auth", headers, body and body:getBytes(0, body:length()) or nil, 5000, true)
end
