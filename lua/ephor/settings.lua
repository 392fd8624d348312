--- The settings of a ready policy: defaults in the policy, changed by a file beside it.
--
--     -- working-hours.lua
--     local settings = require "ephor.settings"
--     local own = settings.of("working-hours", { days = "mon-fri", zone = settings.required "string" })
--
--     -- _working-hours_config.lua, in the same directory
--     return { zone = "Europe/Berlin" }
--
-- The file holds what differs. A name that the policy doesn't know, a value of another type, a required one that is missing and
-- a file that fails to load are errors, so that the policy is not loaded: a slip of the pen must not open a door.
local settings = {}

local required_class = {}

--- A setting that has no default.
-- @param kind the type that it must have: "string", "number", "table", "boolean"
-- @return a mark for settings.of
function settings.required(kind)
  return setmetatable({ kind = kind }, required_class)
end

local function read(name)
  local good, value = pcall(require, "_" .. name .. "_config")
  if good then
    if type(value) ~= "table" then
      error(("_%s_config.lua must return a table, not a %s"):format(name, type(value)), 3)
    end
    return value
  end
  if type(value) == "string" and value:find("_" .. name .. "_config.lua: No such file or directory", 1, true) then
    return {}
  end
  error(value, 0)
end

--- Reads the settings.
-- @param name of the policy; the file is `_NAME_config.lua`
-- @param defaults table: setting = default, or settings.required(type)
-- @return table with all settings. Tables are taken as a whole, not merged.
function settings.of(name, defaults)
  local given, out = read(name), {}
  for key, value in pairs(given) do
    local default = defaults[key]
    if default == nil then
      error(("_%s_config.lua: there is no setting '%s'"):format(name, tostring(key)), 2)
    end
    local kind = getmetatable(default) == required_class and default.kind or type(default)
    if type(value) ~= kind then
      error(("_%s_config.lua: '%s' must be a %s, not a %s"):format(name, key, kind, type(value)), 2)
    end
    out[key] = value
  end
  for key, default in pairs(defaults) do
    if out[key] == nil then
      if getmetatable(default) == required_class then
        error(("_%s_config.lua must say '%s'"):format(name, key), 2)
      end
      out[key] = default
    end
  end
  return out
end

return settings
