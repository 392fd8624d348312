-- Agents act while people are there to watch. docs/policies.md
local policy = require "ephor.policy"
local match = require "ephor.match"
local settings = require "ephor.settings"
local time = require "ephor.time"

local own = settings.of("working-hours", {
  match = { protocol = "mcp", method = "tools/call" }, -- {}: all calls
  hours = settings.required "table", -- list of {days, from, to, zone}: lua/ephor/time.lua
  closed = {}, -- days in the zone of the first of the hours: "2026-12-25"
  exempt = {}, -- globs of SPIFFE IDs that may always
})

if #own.hours == 0 then
  error("_working-hours_config.lua: at least one of the hours is needed")
end
local hours = {}
for i, rule in ipairs(own.hours) do
  hours[i] = time.hours(rule)
end
local zone = time.zone(own.hours[1].zone)
local closed = match.set(own.closed)
for _, day in ipairs(own.closed) do
  if not time.parse(day .. "T00:00:00Z") then
    error(("_working-hours_config.lua: '%s' is no day such as 2026-12-25"):format(day))
  end
end
local exempt = match.globs(own.exempt)

return policy {
  name = "working-hours",
  principle = "P5",
  description = "Outside of working hours agents rest.",
  match = next(own.match) and own.match or nil,
  call = function(c)
    local now = c.now
    if exempt(c.peer.id) then
      return
    end
    local wall = time.wall(now, zone)
    if not closed[("%04d-%02d-%02d"):format(wall.year, wall.month, wall.day)] then
      for i = 1, #hours do
        if hours[i](now) then
          return
        end
      end
    end
    return c:deny("outside of working hours", { code = "hours.closed" })
  end,
}
