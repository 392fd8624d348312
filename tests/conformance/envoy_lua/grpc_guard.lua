-- Refuses methods by name; a gRPC caller sees a gRPC status.
local closed = {["/orders.Orders/Delete"] = "403", ["/orders.Orders/Slow"] = "503", ["/orders.Orders/Who"] = "401"}

function envoy_on_request(request_handle)
  local status = closed[request_handle:headers():get(":path")]
  if status then
    request_handle:respond({[":status"] = status}, "method is closed: 100%")
  end
end
