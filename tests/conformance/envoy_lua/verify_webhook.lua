-- A webhook's signature over its timestamp and body, verified with the sender's public key, which the operator put into the
-- filter's context in hexadecimal.
local function unhex(text)
  return (text:gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end))
end

function envoy_on_request(request_handle)
  local headers = request_handle:headers()
  local signature = unhex(headers:get("x-signature") or "")
  local stamp = headers:get("x-timestamp") or ""
  local body = request_handle:body(true)
  local text = stamp .. "." .. body:getBytes(0, body:length())
  local der = unhex(request_handle:filterContext()["public_key"])
  local key = request_handle:importPublicKey(der, string.len(der)):get()
  if key == nil then
    request_handle:respond({[":status"] = "500"}, "bad key")
  end
  local ok, err = request_handle:verifySignature("SHA256", key, signature, string.len(signature), text, string.len(text))
  if not ok then
    request_handle:logWarn(err)
    request_handle:respond({[":status"] = "401"}, err)
  end
  request_handle:headers():add("x-verified", tostring(ok) .. " " .. tostring(err))
end
