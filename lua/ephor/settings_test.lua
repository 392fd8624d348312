local t = require "ephor.test"
local settings = require "ephor.settings"

-- The files _a_config.lua and so on are made by tests/unit/test_lua_library.c.
t.case("without a file there are the defaults", function()
  t.equal(settings.of("none", { x = 1, list = { "a" } }), { x = 1, list = { "a" } })
end)

t.case("a file changes what it names", function()
  t.equal(settings.of("good", { x = 1, list = { "a" }, name = settings.required "string" }), { x = 1, list = { "b" }, name = "n" })
end)

local function refused(name, defaults, why)
  local good, err = pcall(settings.of, name, defaults)
  t.ok(not good and tostring(err):find(why, 1, true), ("expected '%s', got '%s'"):format(why, tostring(err)))
end

t.case("a slip of the pen is an error", function()
  refused("good", { x = 1, list = {} }, "no setting 'name'")
  refused("good", { x = 1, list = "", name = "" }, "'list' must be a string")
  refused("none", { x = settings.required "number" }, "must say 'x'")
  refused("broken", {}, "_broken_config.lua")
  refused("text", {}, "must return a table")
  refused("chain", {}, "_missing.lua")
end)
