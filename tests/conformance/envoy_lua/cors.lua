-- CORS by hand: preflights are answered here, origins are checked against a list.
local allowed = {["https://app.example"] = true, ["https://admin.example"] = true}

function envoy_on_request(request_handle)
  local headers = request_handle:headers()
  local origin = headers:get("origin")
  if origin == nil then
    return
  end
  if not allowed[origin] then
    if headers:get(":method") == "OPTIONS" then
      request_handle:respond({[":status"] = "403"})
    end
    return
  end
  request_handle:streamInfo():dynamicMetadata():set("cors", "origin", origin)
  if headers:get(":method") == "OPTIONS" and headers:get("access-control-request-method") then
    request_handle:respond({
      [":status"] = "204",
      ["access-control-allow-methods"] = "GET, POST, PUT",
      ["access-control-allow-headers"] = headers:get("access-control-request-headers") or "",
      ["access-control-max-age"] = 600,
    })
  end
end

-- The answer to a preflight comes by here too: one place for the origin.
function envoy_on_response(response_handle)
  local cors = response_handle:streamInfo():dynamicMetadata():get("cors")
  if cors then
    response_handle:headers():replace("access-control-allow-origin", cors["origin"])
    response_handle:headers():add("vary", "origin")
  end
end
