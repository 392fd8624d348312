local driver = require "_driver"
return require "ephor.policy" {
  name = "first",
  blind = "allow",
  call = function(c) return driver.run(c, c.headers["x-program"]) end,
  reply = function(r) return driver.run(r, r.request_headers["x-program"]) end,
}
