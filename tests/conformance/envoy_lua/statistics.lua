-- Counts of the script's own, for the dashboard.
function envoy_on_request(request_handle)
  local stats = request_handle:stats()
  stats:counter("requests"):inc()
  local length = tonumber(request_handle:headers():get("content-length") or 0)
  stats:counter("bytes"):add(length)
  stats:histogram("length", "bytes"):recordValue(length)
  stats:gauge("inside"):inc()
end

function envoy_on_response(response_handle)
  response_handle:stats():gauge("inside"):dec()
  response_handle:headers():add("x-requests", response_handle:stats():counter("requests"):value())
end
