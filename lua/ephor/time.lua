--- Times: RFC 3339, durations, days and hours in a zone.
--
--     local time = require "ephor.time"
--     time.parse("2026-01-02T03:04:05.5+01:00")            --> 1767319445.5
--     time.format(1767319445.5, { digits = 1 })            --> "2026-01-02T02:04:05.5Z"
--     time.duration("7d")                                  --> 604800
--     local office = time.hours { days = "mon-fri", from = "09:00", to = "17:30", zone = "Europe/Berlin" }
--     office(c.now)                                        --> true or false
--
-- Times are seconds since 1970-01-01T00:00:00Z without leap seconds, as c.now; durations are seconds. The years are 1 to 9999.
--
-- Zones are fixed offsets and two rules, not the time-zone database: see time.zone. There are no holidays, and no times before
-- the rules of today (European Union 1996, United States 2007).
local time = {}

local DAY = 86400
local floor = math.floor
local month_days = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }
local weekdays = { "mon", "tue", "wed", "thu", "fri", "sat", "sun" }

local function is_leap(year)
  return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end

local function days_in(year, month)
  return month == 2 and is_leap(year) and 29 or month_days[month]
end

-- Days from 1970-01-01 in the proleptic Gregorian calendar: years are counted from March, so that the leap day is the last.
local function days_from(year, month, day)
  if month <= 2 then
    year = year - 1
  end
  local era = year // 400
  local year_of_era = year - era * 400
  local day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
  return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468
end

local function date_of(days)
  days = days + 719468
  local era = days // 146097
  local n = days - era * 146097
  local year_of_era = (n - n // 1460 + n // 36524 - n // 146096) // 365
  local day_of_year = n - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
  local m = (5 * day_of_year + 2) // 153
  local month = m < 10 and m + 3 or m - 9
  return year_of_era + era * 400 + (month <= 2 and 1 or 0), month, day_of_year - (153 * m + 2) // 5 + 1
end

-- "+02:00" in seconds, or nil.
local function offset_of(text)
  if text == "Z" or text == "z" then
    return 0
  end
  local sign, hours, minutes = text:match("^([+-])(%d%d):(%d%d)$")
  hours, minutes = math.tointeger(tonumber(hours)), math.tointeger(tonumber(minutes))
  if not hours or hours > 23 or minutes > 59 then
    return nil
  end
  return (sign == "-" and -1 or 1) * (hours * 3600 + minutes * 60)
end

--- Reads a time as RFC 3339 has it: date, 'T' (or 't', or a space), time, an optional fraction, and an offset, which must be there.
-- @param text "2026-01-02T03:04:05Z"
-- @return seconds (an integer without a fraction); or nil and why. Second 60 counts as the next one's 0.
function time.parse(text)
  if type(text) ~= "string" or #text > 40 then
    return nil, "no RFC 3339 time"
  end
  local year, month, day, hour, minute, second, rest =
    text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$")
  if not year then
    return nil, "no RFC 3339 time"
  end
  year, month, day = math.tointeger(tonumber(year)), math.tointeger(tonumber(month)), math.tointeger(tonumber(day))
  hour, minute, second = math.tointeger(tonumber(hour)), math.tointeger(tonumber(minute)), math.tointeger(tonumber(second))
  if year < 1 or month < 1 or month > 12 or day < 1 or day > days_in(year, month) then
    return nil, "no such day"
  end
  if hour > 23 or minute > 59 or second > 60 then
    return nil, "no such time of day"
  end
  local fraction, zone = rest:match("^%.(%d+)(.+)$")
  local offset = offset_of(zone or rest)
  if not offset then
    return nil, "no offset such as Z or +01:00"
  end
  local seconds = days_from(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset
  return fraction and seconds + tonumber("0." .. fraction) or seconds
end

--- Writes a time as RFC 3339 has it.
-- @param seconds since 1970
-- @param options {zone = a zone (UTC), digits = 0 to 9 of the fraction (0); what is beyond is cut off}, or nil
-- @return text. Raises for a year beyond 1 to 9999.
-- Example: time.format(0, { zone = "+01:00" })  --> "1970-01-01T01:00:00+01:00"
function time.format(seconds, options)
  local zone = time.zone(options and options.zone or "Z")
  local digits = options and options.digits or 0
  local whole = floor(seconds)
  local offset = zone(whole)
  local year, month, day = date_of((whole + offset) // DAY)
  if year < 1 or year > 9999 then
    error("time.format: the year is not within 1 to 9999", 2)
  end
  local left = (whole + offset) % DAY
  local fraction = digits > 0 and ("." .. ("%0" .. digits .. "d"):format(floor((seconds - whole) * 10 ^ digits))) or ""
  local ending = "Z"
  if offset ~= 0 then
    local minutes = math.abs(offset) // 60
    ending = ("%s%02d:%02d"):format(offset < 0 and "-" or "+", minutes // 60, minutes % 60)
  end
  return ("%04d-%02d-%02dT%02d:%02d:%02d%s%s"):format(year, month, day, left // 3600, left // 60 % 60, left % 60, fraction, ending)
end

local units = { ns = 1e-9, us = 1e-6, ms = 1e-3, s = 1, m = 60, h = 3600, d = DAY, w = 7 * DAY }

--- Reads a duration as the configuration writes it.
-- @param text numbers with units, largest first: ns us ms s m h d w; "7d", "5ms", "1h30m", "1.5s"
-- @return seconds; or nil and why. A bare number has no unit, and is refused.
function time.duration(text)
  if type(text) ~= "string" then
    return nil, "a duration is text such as '5s'"
  end
  local total, at, last = 0, 1, math.huge
  while at <= #text do
    local from, to, number, unit = text:find("^(%d+%.?%d*)(%a+)", at)
    local size = from and units[unit]
    if not size or size >= last then
      return nil, ("'%s' is no duration such as '5s' or '1h30m'"):format(text)
    end
    total, at, last = total + tonumber(number) * size, to + 1, size
  end
  if at == 1 then
    return nil, "an empty duration"
  end
  return math.tointeger(total) or total
end

-- Seconds since 1970 of a Sunday of a month at midnight UTC: the nth from the start, or the last for n = -1.
local function sunday(year, month, n)
  local first = days_from(year, month, 1)
  if n < 0 then
    local last = first + days_in(year, month) - 1
    return (last - (last + 4) % 7) * DAY -- 1970-01-01 was a Thursday; Sunday is 0
  end
  return (first + (3 - first) % 7 + (n - 1) * 7) * DAY
end

-- When summer time begins and ends in a year, in UTC.
local rules = {
  EU = function(year)
    return sunday(year, 3, -1) + 3600, sunday(year, 10, -1) + 3600
  end,
  US = function(year, offset)
    return sunday(year, 3, 2) + 7200 - offset, sunday(year, 11, 1) + 7200 - offset - 3600
  end,
}

-- Standard offset in minutes, and the rule of summer time.
local names = {
  ["UTC"] = { 0 }, ["Europe/London"] = { 0, "EU" }, ["Europe/Dublin"] = { 0, "EU" }, ["Europe/Lisbon"] = { 0, "EU" },
  ["Europe/Berlin"] = { 60, "EU" }, ["Europe/Paris"] = { 60, "EU" }, ["Europe/Madrid"] = { 60, "EU" },
  ["Europe/Rome"] = { 60, "EU" }, ["Europe/Vienna"] = { 60, "EU" }, ["Europe/Zurich"] = { 60, "EU" },
  ["Europe/Amsterdam"] = { 60, "EU" }, ["Europe/Brussels"] = { 60, "EU" }, ["Europe/Stockholm"] = { 60, "EU" },
  ["Europe/Warsaw"] = { 60, "EU" }, ["Europe/Prague"] = { 60, "EU" }, ["Europe/Athens"] = { 120, "EU" },
  ["Europe/Helsinki"] = { 120, "EU" }, ["Europe/Bucharest"] = { 120, "EU" }, ["Europe/Kyiv"] = { 120, "EU" },
  ["America/New_York"] = { -300, "US" }, ["America/Toronto"] = { -300, "US" }, ["America/Chicago"] = { -360, "US" },
  ["America/Denver"] = { -420, "US" }, ["America/Phoenix"] = { -420 }, ["America/Los_Angeles"] = { -480, "US" },
  ["America/Vancouver"] = { -480, "US" }, ["America/Sao_Paulo"] = { -180 }, ["Asia/Tokyo"] = { 540 }, ["Asia/Seoul"] = { 540 },
  ["Asia/Shanghai"] = { 480 }, ["Asia/Singapore"] = { 480 }, ["Asia/Kolkata"] = { 330 }, ["Asia/Dubai"] = { 240 },
  ["Australia/Brisbane"] = { 600 },
}

--- A zone: a function from a time to its offset.
-- @param text "Z"; a fixed offset "+05:30"; a standard offset with a rule of summer time, "+01:00 EU" (last Sunday of March to last
--             Sunday of October, at 01:00 UTC) or "-05:00 US" (second Sunday of March to first Sunday of November, at 02:00 local
--             time); or one of the names listed in lua/ephor/time.lua, which are such offsets and rules
-- @return function(seconds): the offset in seconds, east is positive. Raises for any other text: an unknown zone must not silently
--         be UTC.
-- Example: time.zone("Europe/Berlin")(time.parse("2026-07-01T00:00:00Z"))  --> 7200
function time.zone(text)
  if type(text) == "function" then
    return text
  end
  local offset, rule
  if names[text] then
    offset, rule = names[text][1] * 60, names[text][2]
  elseif type(text) == "string" then
    local fixed, name = text:match("^(%S+) (%u%u)$")
    offset, rule = offset_of(fixed or text), name
  end
  if not offset or (rule and not rules[rule]) then
    error(("'%s' is no zone known here: write an offset (+01:00), or one with a rule (+01:00 EU)"):format(tostring(text)), 2)
  end
  if not rule then
    return function()
      return offset
    end
  end
  return function(seconds)
    local year = date_of((floor(seconds) + offset) // DAY)
    local from, to = rules[rule](year, offset)
    return seconds >= from and seconds < to and offset + 3600 or offset
  end
end

--- What the clock and the calendar on the wall say.
-- @param seconds since 1970
-- @param zone what time.zone takes (UTC)
-- @return {year, month, day, hour, minute, second, weekday = "mon" to "sun", minute_of_day, offset}
-- Example: time.wall(0).weekday  --> "thu"
function time.wall(seconds, zone)
  local whole = floor(seconds)
  local offset = time.zone(zone or "Z")(whole)
  local days, left = (whole + offset) // DAY, (whole + offset) % DAY
  local year, month, day = date_of(days)
  return { year = year, month = month, day = day, hour = left // 3600, minute = left // 60 % 60, second = left % 60,
           weekday = weekdays[(days + 3) % 7 + 1], minute_of_day = left // 60, offset = offset }
end

local function weekday_index(name)
  for i, weekday in ipairs(weekdays) do
    if weekday == name then
      return i
    end
  end
end

-- "mon-fri, sun" as a set of indices.
local function days_of(text)
  local set = {}
  for part in (type(text) == "string" and text or ""):gmatch("[^,%s]+") do
    local from, to = part:match("^(%l+)%-?(%l*)$")
    local a = from and weekday_index(from)
    local b = a and (to == "" and a or weekday_index(to))
    if not b or (to == "" and part ~= from) then
      error(("'%s' is no day such as mon, or mon-fri"):format(part), 3)
    end
    while true do
      set[a] = true
      if a == b then
        break
      end
      a = a % 7 + 1
    end
  end
  if not next(set) then
    error("days: at least one is needed, such as 'mon-fri'", 3)
  end
  return set
end

local function minute_of(text)
  local hour, minute = tostring(text):match("^(%d%d):(%d%d)$")
  hour, minute = math.tointeger(tonumber(hour)), math.tointeger(tonumber(minute))
  if not hour or minute > 59 or hour * 60 + minute > 1440 then
    error(("'%s' is no time of day such as 09:30 (24:00 is the end of the day)"):format(tostring(text)), 3)
  end
  return hour * 60 + minute
end

--- Compiles hours of the week.
-- @param rule {days = "mon-fri, sun", from = "09:00", to = "17:30" (not included), zone = what time.zone takes}; all are required.
--             When `to` is not after `from`, the hours go over midnight and belong to the day on which they began. Raises for what
--             is none of this.
-- @return function(seconds): true within the hours
-- Example: time.hours { days = "fri", from = "22:00", to = "06:00", zone = "Z" } (c.now)  -- Friday night, till Saturday at six
function time.hours(rule)
  local days, from, to, zone = days_of(rule.days), minute_of(rule.from), minute_of(rule.to), time.zone(rule.zone)
  return function(seconds)
    local whole = floor(seconds)
    local at = whole + zone(whole)
    local day, minute = (at // DAY + 3) % 7 + 1, at % DAY // 60
    if from < to then
      return days[day] == true and minute >= from and minute < to
    end
    return (days[day] == true and minute >= from) or (days[(day + 5) % 7 + 1] == true and minute < to)
  end
end

return time
