-- What the request was, told to the response: through dynamic metadata, since each hook has its own locals.
function envoy_on_request(request_handle)
  local headers = request_handle:headers()
  request_handle:streamInfo():dynamicMetadata():set("envoy.filters.http.lua", "request.info", {
    path = headers:get(":path"),
    method = headers:get(":method"),
    agents = {headers:get("user-agent") or "none"},
    started = request_handle:timestamp(),
  })
end

function envoy_on_response(response_handle)
  local meta = response_handle:streamInfo():dynamicMetadata():get("envoy.filters.http.lua")["request.info"]
  local took = response_handle:timestamp() - meta.started
  response_handle:headers():add("x-request", meta.method .. " " .. meta.path .. " by " .. meta.agents[1])
  response_handle:headers():add("x-took", took >= 0 and took < 60000 and "some" or "wrong")
  for namespace in pairs(response_handle:streamInfo():dynamicMetadata()) do
    response_handle:headers():add("x-namespace", namespace)
  end
end
