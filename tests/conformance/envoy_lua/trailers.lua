-- Trailers: those of the request are read and become visible to the app; the response's get one more.
function envoy_on_request(request_handle)
  local trailers = request_handle:trailers()
  if trailers then
    trailers:replace("x-checked", "sum " .. (trailers:get("x-sum") or "missing"))
  end
end

function envoy_on_response(response_handle)
  local n = 0
  for chunk in response_handle:bodyChunks() do
    n = n + chunk:length()
  end
  local trailers = response_handle:trailers()
  if trailers then
    trailers:add("x-bytes", n)
  end
end
