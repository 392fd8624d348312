local t = require "ephor.test"

t.policy "working-hours"

local function at(when, peer)
  t.clock.set(when)
  return t.call { protocol = "mcp", method = "tools/call", tool = "search", peer = { id = peer or "spiffe://cluster.local/ns/agents/sa/planner" } }
end

t.case("within the hours calls pass, in summer and winter time", function()
  t.allowed(at "2026-07-06T06:00:00Z")
  t.allowed(at "2026-07-06T15:59:59Z")
  t.allowed(at "2026-01-05T07:00:00Z")
  t.allowed(at "2026-01-05T16:59:59Z")
  t.allowed(at "2026-07-10T23:59:59Z") -- Friday night in Berlin
end)

t.case("outside they don't", function()
  local d = at "2026-07-06T05:59:59Z"
  t.denied(d, "working hours")
  t.equal(d.code, "hours.closed")
  t.denied(at "2026-07-06T16:00:00Z")
  t.denied(at "2026-01-05T06:59:59Z")
  t.denied(at "2026-07-11T10:00:00Z") -- Saturday
  t.denied(at "2026-07-11T00:00:00Z") -- two o'clock in Berlin
end)

t.case("on a day that is closed neither", function()
  t.denied(at "2026-12-25T10:00:00Z")
  t.allowed(at "2026-12-24T10:00:00Z")
end)

t.case("who is exempt may always, and nobody who only looks like it", function()
  t.allowed(at("2026-07-11T10:00:00Z", "spiffe://cluster.local/ns/agents/sa/on-call"))
  t.denied(at("2026-07-11T10:00:00Z", "spiffe://cluster.local/ns/agents/sa/on-call2"))
  t.denied(at("2026-07-11T10:00:00Z", ""))
end)

t.case("a header can't move the clock", function()
  t.clock.set "2026-07-11T10:00:00Z"
  t.denied(t.call { protocol = "mcp", method = "tools/call", tool = "x", headers = { date = "Mon, 06 Jul 2026 10:00:00 GMT", ["x-now"] = "1" } })
end)
