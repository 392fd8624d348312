-- The app's errors get a page of ours, with a reason phrase; details stay in the log.
local reasons = {["500"] = "Internal Trouble", ["502"] = "Backend Gone"}

function envoy_on_response(response_handle)
  local status = response_handle:headers():get(":status")
  if tonumber(status) < 500 then
    return
  end
  local body = response_handle:body(true)
  response_handle:logErr("the app said: " .. body:getBytes(0, math.min(body:length(), 100)))
  response_handle:headers():replace("content-type", "text/html")
  response_handle:headers():replace("content-length", body:setBytes("<h1>" .. status .. "</h1>"))
  if reasons[status] then
    response_handle:headers():setHttp1ReasonPhrase(reasons[status])
  end
  response_handle:headers():replace("x-path-was", response_handle:downstreamRequestHeaders():get(":path"))
end
