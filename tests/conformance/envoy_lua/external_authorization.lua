-- Asks a service whether the request may pass, and takes the identity from its answer.
function envoy_on_request(request_handle)
  local headers, body = request_handle:httpCall("auth", {
    [":method"] = "GET",
    [":path"] = "/check" .. request_handle:headers():get(":path"),
    [":authority"] = "auth.internal",
    ["authorization"] = request_handle:headers():get("authorization") or "",
  }, nil, 5000)
  local status = headers[":status"]
  if status == "200" then
    request_handle:headers():replace("x-user", headers["x-user"])
    request_handle:headers():remove("authorization")
    return
  end
  request_handle:respond({[":status"] = status == "503" and "503" or "401", ["www-authenticate"] = "Bearer"},
    body or "unauthorized")
end
