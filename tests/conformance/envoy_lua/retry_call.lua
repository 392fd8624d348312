-- A call that is tried again, three times at most, on whatever went wrong.
function envoy_on_request(request_handle)
  local headers, body
  for try = 1, 3 do
    headers, body = request_handle:httpCall("auth", {
      [":method"] = "GET", [":path"] = "/flaky", [":authority"] = "auth.internal", ["x-try"] = tostring(try),
    }, nil, {timeout_ms = 5000})
    if tonumber(headers[":status"]) < 500 then
      break
    end
    request_handle:logWarn("try " .. try .. " gave " .. headers[":status"])
  end
  request_handle:headers():add("x-quota", body or "none")
end
