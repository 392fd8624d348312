local t = require "ephor.test"
local time = require "ephor.time"

t.case("RFC 3339 is read", function()
  for text, wanted in pairs {
    ["1970-01-01T00:00:00Z"] = 0, ["1985-04-12T23:20:50Z"] = 482196050, ["1996-12-19T16:39:57-08:00"] = 851042397,
    ["1990-12-31T23:59:60Z"] = 662688000, ["1937-01-01T12:00:27+00:20"] = -1041337173, ["2024-02-29t12:00:00z"] = 1709208000,
    ["2000-02-29 00:00:00+00:00"] = 951782400, ["0001-01-01T00:00:00Z"] = -62135596800, ["9999-12-31T23:59:59Z"] = 253402300799,
  } do
    t.equal(time.parse(text), wanted)
  end
  t.equal(time.parse("1970-01-01T00:00:00.25Z"), 0.25)
end)

t.case("what is no RFC 3339 is refused", function()
  for _, text in ipairs {
    "", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04Z", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
    "2026-04-31T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-01-01T00:00:61Z", "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00+01:60", "2026-01-01T00:00:00+0100", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00Z ", "26-01-01T00:00:00Z", "0000-01-01T00:00:00Z",
    "2026-01-01T00:00:00.1", "2026-01-01T00:00:00Z\0",
  } do
    local seconds, why = time.parse(text)
    t.ok(seconds == nil and why, text)
  end
  t.ok(time.parse(nil) == nil and time.parse(5) == nil)
end)

t.case("RFC 3339 is written, and comes back", function()
  t.equal(time.format(0), "1970-01-01T00:00:00Z")
  t.equal(time.format(482196050.529, { digits = 2 }), "1985-04-12T23:20:50.52Z")
  t.equal(time.format(0, { zone = "+05:30" }), "1970-01-01T05:30:00+05:30")
  t.equal(time.format(0, { zone = "-08:00" }), "1969-12-31T16:00:00-08:00")
  t.equal(time.format(-1), "1969-12-31T23:59:59Z")
  for day = -720000, 2900000, 997 do
    if day * 86400 > -62135596800 and day * 86400 < 253402300799 then
      t.equal(time.parse(time.format(day * 86400 + 4321)), day * 86400 + 4321)
    end
  end
  t.ok(not pcall(time.format, 1e15))
end)

t.case("durations", function()
  for text, wanted in pairs { ["7d"] = 604800, ["5ms"] = 0.005, ["1h30m"] = 5400, ["1.5s"] = 1.5, ["0s"] = 0, ["2w1d"] = 1296000, ["250us"] = 250e-6 } do
    t.equal(time.duration(text), wanted)
  end
  for _, text in ipairs { "", "5", "5x", "-5s", "5 s", "s", "1m1h", "1s1s", "1..5s", ".5s", "5s ", "1e3s" } do
    t.ok(time.duration(text) == nil, text)
  end
  t.ok(time.duration(5) == nil and time.duration(nil) == nil)
end)

local function offset(zone, text)
  return time.zone(zone)(time.parse(text)) // 60
end

t.case("summer time of the European Union", function()
  t.equal(offset("Europe/Berlin", "2026-03-29T00:59:59Z"), 60)
  t.equal(offset("Europe/Berlin", "2026-03-29T01:00:00Z"), 120)
  t.equal(offset("Europe/Berlin", "2026-10-25T00:59:59Z"), 120)
  t.equal(offset("Europe/Berlin", "2026-10-25T01:00:00Z"), 60)
  t.equal(offset("Europe/London", "2024-03-31T01:00:00Z"), 60)
  t.equal(offset("+02:00 EU", "2026-07-01T00:00:00Z"), 180)
end)

t.case("summer time of the United States", function()
  t.equal(offset("America/New_York", "2026-03-08T06:59:59Z"), -300)
  t.equal(offset("America/New_York", "2026-03-08T07:00:00Z"), -240)
  t.equal(offset("America/New_York", "2026-11-01T05:59:59Z"), -240)
  t.equal(offset("America/New_York", "2026-11-01T06:00:00Z"), -300)
  t.equal(offset("America/Los_Angeles", "2025-03-09T10:00:00Z"), -420)
  t.equal(offset("America/Phoenix", "2026-07-01T00:00:00Z"), -420)
end)

t.case("an unknown zone is an error, not UTC", function()
  for _, zone in ipairs { "Mars/Olympus", "CET", "", "01:00", "+1:00", "+01:00 XX", "europe/berlin" } do
    t.ok(not pcall(time.zone, zone), zone)
  end
  t.ok(not pcall(time.zone, nil))
end)

t.case("the wall", function()
  t.equal(time.wall(0), { year = 1970, month = 1, day = 1, hour = 0, minute = 0, second = 0, weekday = "thu", minute_of_day = 0, offset = 0 })
  local wall = time.wall(time.parse("2026-07-04T22:30:00Z"), "Europe/Berlin")
  t.equal({ wall.weekday, wall.day, wall.hour, wall.minute }, { "sun", 5, 0, 30 })
end)

t.case("hours of the week", function()
  local office = time.hours { days = "mon-fri", from = "09:00", to = "17:30", zone = "Europe/Berlin" }
  local function at(hours, text)
    return hours(time.parse(text))
  end
  t.ok(at(office, "2026-07-06T07:00:00Z") and at(office, "2026-07-10T15:29:59Z"))
  t.ok(not at(office, "2026-07-06T06:59:59Z") and not at(office, "2026-07-06T15:30:00Z") and not at(office, "2026-07-11T10:00:00Z"))
  local night = time.hours { days = "fri", from = "22:00", to = "06:00", zone = "Z" }
  t.ok(at(night, "2026-07-10T22:00:00Z") and at(night, "2026-07-11T05:59:59Z"))
  t.ok(not at(night, "2026-07-10T05:00:00Z") and not at(night, "2026-07-11T06:00:00Z") and not at(night, "2026-07-11T22:00:00Z"))
  local weekend = time.hours { days = "sat-mon, wed", from = "00:00", to = "24:00", zone = "Z" }
  t.ok(at(weekend, "2026-07-11T23:59:59Z") and at(weekend, "2026-07-13T00:00:00Z") and at(weekend, "2026-07-15T12:00:00Z"))
  t.ok(not at(weekend, "2026-07-14T12:00:00Z"))
end)

t.case("hours that are none raise", function()
  local good = { days = "mon", from = "09:00", to = "17:00", zone = "Z" }
  for key, value in pairs { days = "monday", from = "9:00", to = "25:00", zone = "?" } do
    local rule = {}
    for k, v in pairs(good) do
      rule[k] = v
    end
    rule[key] = value
    t.ok(not pcall(time.hours, rule), key)
    rule[key] = nil
    t.ok(not pcall(time.hours, rule), key .. " missing")
  end
end)
