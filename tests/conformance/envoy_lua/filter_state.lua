-- Filter state: strings shared by the filters of a stream.
function envoy_on_request(request_handle)
  local state = request_handle:streamInfo():filterState()
  if state:get("tenant") == nil then
    state:set("tenant", "envoy.string", request_handle:headers():get("x-tenant") or "nobody")
  end
end

function envoy_on_response(response_handle)
  local state = response_handle:streamInfo():filterState()
  response_handle:headers():add("x-tenant-was", state:get("tenant"))
  response_handle:headers():add("x-absent", tostring(state:get("absent")) .. tostring(state:get("tenant", "field")))
end
