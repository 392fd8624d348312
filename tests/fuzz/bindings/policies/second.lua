local driver = require "_driver"
return require "ephor.policy" {
  name = "second",
  mode = "shadow",
  blind = "allow",
  match = { path = "/mcp*" },
  call = function(c) return driver.run(c, c.headers["x-second"]) end,
  reply = function(r) return driver.run(r) end,
}
