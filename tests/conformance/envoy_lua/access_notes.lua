-- Notes for the log, at every level, with what the stream knows.
function envoy_on_request(request_handle)
  local info = request_handle:streamInfo()
  request_handle:logTrace("trace")
  request_handle:logDebug("debug")
  request_handle:logInfo(string.format("%s %s from %s by %s on %s", request_handle:headers():get(":method"),
    request_handle:headers():get(":path"), info:downstreamRemoteAddress(), info:protocol(), info:routeName()))
  request_handle:logWarn(42)
  request_handle:logErr("an error, only noted")
  request_handle:headers():logCritical("from a header object")
end
