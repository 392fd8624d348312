-- A service token, fetched once a worker and kept until it expires.
local cached, expires = nil, 0

local function token(handle)
  if cached and os.time() < expires then
    return cached
  end
  local headers, body = handle:httpCall("auth",
    {[":method"] = "POST", [":path"] = "/token", [":authority"] = "auth.internal", ["content-type"] = "text/plain"},
    "client=ephor", 5000)
  if headers[":status"] ~= "200" then
    return nil
  end
  cached, expires = body, os.time() + 3600
  return cached
end

function envoy_on_request(request_handle)
  local value = token(request_handle)
  if value == nil then
    request_handle:respond({[":status"] = "502"}, "no token")
  end
  request_handle:headers():replace("authorization", "Bearer " .. value)
end
