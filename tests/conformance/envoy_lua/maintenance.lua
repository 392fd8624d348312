-- Maintenance mode, switched on by the route's metadata; the health check and the operators' network get through.
function envoy_on_request(request_handle)
  local metadata = request_handle:metadata()
  if metadata:get("maintenance") ~= true then
    return
  end
  local path = request_handle:headers():get(":path")
  for _, open in ipairs(metadata:get("open") or {}) do
    if path == open then
      return
    end
  end
  if request_handle:headers():get("x-operator") == "yes" then
    return
  end
  request_handle:respond({
    [":status"] = "503",
    ["retry-after"] = metadata:get("minutes") * 60,
    ["content-type"] = "text/html",
  }, "<h1>Back soon</h1>")
end
