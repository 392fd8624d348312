-- Looks at an upload as it passes, never holding it: refuses what is too long or has a signature of malware in it, also
-- when the signature is cut in two by a border of chunks.
local MAX = 100000
local SIGNATURE = "EICAR-STANDARD"

function envoy_on_request(request_handle)
  local size, tail = 0, ""
  for chunk in request_handle:bodyChunks() do
    local n = chunk:length()
    size = size + n
    if size > MAX then
      request_handle:respond({[":status"] = "413"}, "too long")
    end
    local text = tail .. chunk:getBytes(0, n)
    if text:find(SIGNATURE, 1, true) then
      request_handle:respond({[":status"] = "422", ["x-reason"] = "malware"}, "malware")
    end
    tail = text:sub(-#SIGNATURE + 1)
  end
  request_handle:logInfo("clean upload of " .. size .. " bytes")
end
