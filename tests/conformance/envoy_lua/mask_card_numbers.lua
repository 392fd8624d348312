-- Masks card numbers in requests and in responses.
local function mask(handle)
  local body = handle:body()
  if body == nil then
    return
  end
  local text = body:getBytes(0, body:length())
  local masked, n = text:gsub("(%d%d%d%d)[ -]?(%d%d%d%d)[ -]?(%d%d%d%d)[ -]?(%d%d%d%d)", "****-****-****-%4")
  if n > 0 then
    local length = body:setBytes(masked)
    handle:headers():replace("content-length", length)
    handle:headers():add("x-masked", n)
  end
end

function envoy_on_request(request_handle)
  mask(request_handle)
end

function envoy_on_response(response_handle)
  mask(response_handle)
end
