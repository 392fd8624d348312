local driver = require "policies._driver"

function envoy_on_request(handle)
  driver.run(handle, handle:headers():get("x-program"), true)
end

function envoy_on_response(handle)
  driver.run(handle, nil, true)
end
