-- What came by http is sent to https, with path and query; the acme challenge stays.
function envoy_on_request(request_handle)
  local headers = request_handle:headers()
  local proto = headers:get("x-forwarded-proto") or headers:get(":scheme")
  local path = headers:get(":path")
  if proto == "https" or path:sub(1, 28) == "/.well-known/acme-challenge/" then
    return
  end
  local host = headers:get(":authority"):gsub(":%d+$", "")
  request_handle:respond({[":status"] = "301", ["location"] = "https://" .. host .. path,
    ["set-cookie"] = {"seen=1", "from=http"}})
end
