-- Sessions stay with their endpoint, whose address the session's cookie carries.
function envoy_on_request(request_handle)
  local cookie = request_handle:headers():get("cookie") or ""
  local host = cookie:match("endpoint=([%d.]+:%d+)")
  if host then
    request_handle:setUpstreamOverrideHost(host, false)
  end
end

function envoy_on_response(response_handle)
  local endpoint = response_handle:headers():get("x-endpoint")
  if endpoint then
    response_handle:headers():add("set-cookie", "endpoint=" .. endpoint)
  end
end
