local t = require "ephor.test"
local limits = require "ephor.limits"

-- What c:remember, c:recall and c:count do, with a clock that the test moves.
local function fake()
  local entries = {}
  local c = { now = 1000 }
  local function live(key)
    local e = entries[key]
    if e and e.till > c.now then
      return e
    end
    entries[key] = nil
  end
  function c:remember(key, value, ttl)
    entries[key] = { value = value, till = self.now + ttl }
  end
  function c:recall(key)
    local e = live(key)
    return e and e.value
  end
  function c:count(key, n, ttl)
    local e = live(key)
    if not e then
      e = { value = 0, till = self.now + ttl }
      entries[key] = e
    end
    assert(#key <= 256 and math.type(n) == "integer", "as the real one asks")
    e.value = e.value + n
    return e.value
  end
  return c
end

t.case("a window lets its limit pass, and no more", function()
  local c, calls = fake(), limits.window { name = "calls", limit = 3, seconds = 10 }
  for left = 2, 0, -1 do
    t.equal({ calls(c, "ann") }, { true, left, 0 })
  end
  local good, left, retry = calls(c, "ann")
  t.equal({ good, left, retry }, { false, 0, 10 })
  t.ok(calls(c, "bob"), "another key has its own")
end)

t.case("a window slides", function()
  local c, calls = fake(), limits.window { name = "calls", limit = 10, seconds = 10 }
  c.now = 1009
  for _ = 1, 10 do
    t.ok(calls(c, "ann"))
  end
  c.now = 1010.5 -- a fixed window would let ten more pass here
  t.ok(not calls(c, "ann"))
  c.now = 1025
  for _ = 1, 9 do
    t.ok(calls(c, "ann"))
  end
end)

t.case("in any ten seconds at most twice the limit passes, whatever the timing", function()
  local c, calls = fake(), limits.window { name = "calls", limit = 10, seconds = 10 }
  local passed = {}
  for i = 0, 400 do
    c.now = 1000 + i * 0.1
    if calls(c, "ann") then
      passed[#passed + 1] = c.now
    end
  end
  for i = 1, #passed do
    local n = 0
    for k = i, #passed do
      n = n + (passed[k] < passed[i] + 10 and 1 or 0)
    end
    t.ok(n <= 20, n .. " passed within ten seconds")
  end
end)

t.case("a bucket: a burst, then the rate", function()
  local c, calls = fake(), limits.bucket { name = "b", rate = 2, burst = 5 }
  for left = 4, 0, -1 do
    t.equal({ calls(c, "ann") }, { true, left, 0 })
  end
  t.equal({ calls(c, "ann") }, { false, 0, 1 })
  c.now = c.now + 0.5
  t.ok(calls(c, "ann") and not calls(c, "ann"))
  c.now = c.now + 1000
  t.equal({ calls(c, "ann", 5) }, { true, 0, 0 })
end)

t.case("a bucket over a long time gives its rate", function()
  local c, calls = fake(), limits.bucket { name = "b", rate = 2, burst = 5 }
  local n = 0
  for _ = 1, 1000 do
    c.now = c.now + 0.1
    n = n + (calls(c, "ann") and 1 or 0)
  end
  t.ok(n >= 200 and n <= 205, n .. " passed")
end)

t.case("more than the burst never passes, and a refusal costs nothing", function()
  local c, calls = fake(), limits.bucket { name = "b", rate = 1, burst = 5 }
  local good, _, retry = calls(c, "ann", 6)
  t.ok(not good and retry == math.huge)
  t.ok(calls(c, "ann", 5))
end)

t.case("a clock that goes back fills no bucket", function()
  local c, calls = fake(), limits.bucket { name = "b", rate = 1, burst = 1 }
  t.ok(calls(c, "ann"))
  c.now = c.now - 100
  t.ok(not calls(c, "ann"))
end)

t.case("nobody's key, and rules that are none, raise", function()
  local c, calls = fake(), limits.window { name = "w", limit = 1, seconds = 1 }
  t.ok(not pcall(calls, c, "") and not pcall(calls, c, nil) and not pcall(calls, c, "a", 0) and not pcall(calls, c, "a", -1))
  t.ok(calls(c, ("x"):rep(10000)) and not calls(c, ("x"):rep(10000)) and calls(c, ("x"):rep(10001)), "long keys are hashed")
  t.ok(not pcall(calls, c, "a", 1.5))
  for _, rule in ipairs { { name = "x", limit = 1, seconds = 400000 }, {}, { name = "x", limit = 1 }, { name = "x", limit = 0, seconds = 1 }, { name = "x", limit = 1, seconds = 1, burst = 1 },
                          { name = "x", limit = "1", seconds = 1 }, { name = "x", limit = 0 / 0, seconds = 1 } } do
    t.ok(not pcall(limits.window, rule))
  end
  t.ok(not pcall(limits.bucket, { name = "x", rate = 1 }))
end)
