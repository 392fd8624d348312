-- Adds a banner to HTML pages, and lets everything else alone. The app must not compress.
function envoy_on_request(request_handle)
  request_handle:headers():remove("accept-encoding")
end

function envoy_on_response(response_handle)
  local content_type = response_handle:headers():get("content-type") or ""
  if not string.find(content_type, "text/html", 1, true) then
    return
  end
  local body = response_handle:body(true)
  local page = body:getBytes(0, body:length())
  local new = page:gsub("</body>", "<p>staging</p></body>")
  response_handle:headers():replace("content-length", body:setBytes(new))
end
