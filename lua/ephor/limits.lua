--- Limits of rate, over the table that policies share: c:remember, c:recall, c:count.
--
--     local limits = require "ephor.limits"
--     local calls = limits.window { name = "calls", limit = 100, seconds = 60 }
--     local burst = limits.bucket { name = "burst", rate = 100, burst = 200 }
--
--     call = function(c)
--       local good, left, retry = calls(c, c.peer.id)
--       if not good then
--         return c:deny(("over the limit; again in %d s"):format(retry), { status = 429, code = "limit.calls" })
--       end
--     end
--
-- The table is shared by all workers of one ephor and not by other pods; it is bounded and forgets. Keys are `name`, then the key
-- given, so two limits of one policy need two names.
local crypto = require "ephor.crypto"

local limits = {}

local KEY_BYTES_MAX = 128
local WINDOW_MAX = 302400 -- half of the longest time for which a value is kept

local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

local function check(rule, known)
  for key, value in pairs(rule) do
    if not known[key] then
      error(("limits: there is no key '%s'"):format(tostring(key)), 3)
    end
    if type(value) ~= known[key] then
      error(("limits: %s must be a %s"):format(key, known[key]), 3)
    end
    if type(value) == "number" and not (value > 0 and value < 1e12) then
      error(("limits: %s must be more than 0"):format(key), 3)
    end
  end
  for key in pairs(known) do
    if rule[key] == nil then
      error(("limits: %s is missing"):format(key), 3)
    end
  end
end

local function check_call(key, n)
  if type(key) ~= "string" or key == "" then
    error("limits: the key must be a string with something in it: whose limit is it?", 3)
  end
  if math.type(n) ~= "integer" or n < 1 then
    error("limits: n must be an integer, 1 or more", 3)
  end
  return #key > KEY_BYTES_MAX and crypto.to_base64url(crypto.sha256(key)) or key
end

--- A sliding window: at most `limit` in any `seconds`, estimated from two fixed windows (this one, and the part of the one
-- before that still counts, as if its calls had come evenly). Counting is exact among workers. What is refused counts too, so
-- who keeps on trying stays out.
-- @param rule {name = string, limit = how many, seconds = length of the window}; all are required;
--             at most 3.5 days
-- @return function(c, key[, n]): counts n (1, an integer) for key and answers true or false, how much is left (0 at least), and after how many
--         seconds trying again makes sense (0 when true). Raises for an empty key: no caller must share a limit with strangers by
--         accident.
function limits.window(rule)
  check(rule, { name = "string", limit = "number", seconds = "number" })
  if rule.seconds > WINDOW_MAX then
    error(("limits: a window has at most %d seconds"):format(WINDOW_MAX), 2)
  end
  local limit, seconds, name = rule.limit, rule.seconds, rule.name
  return function(c, key, n)
    n = n or 1
    local now = c.now
    local window = floor(now / seconds)
    local prefix = name .. ":" .. check_call(key, n) .. ":"
    local here = c:count(("%s%d"):format(prefix, window), n, 2 * seconds)
    local before = tonumber(c:recall(("%s%d"):format(prefix, window - 1))) or 0
    local passed = now / seconds - window
    local used = here + before * (1 - passed)
    if used <= limit then
      return true, floor(limit - used), 0
    end
    return false, 0, max(1, ceil((1 - passed) * seconds))
  end
end

--- A token bucket: `rate` a second on average, `burst` at once. The state is read and written in two steps, so that of calls
-- that arrive at the very same moment at several workers, one a worker may pass for the same token; where the count must be exact,
-- use limits.window.
-- @param rule {name = string, rate = tokens a second, burst = tokens at most}; all are required
-- @return function(c, key[, n]): takes n (1) tokens and answers true, or takes none and answers false; how many are left; and after
--         how many seconds there will be enough (0 when true). More than `burst` at once never pass. Raises for an empty key.
function limits.bucket(rule)
  check(rule, { name = "string", rate = "number", burst = "number" })
  local rate, burst, name = rule.rate, rule.burst, rule.name
  local ttl = ceil(burst / rate) + 1
  if ttl > 2 * WINDOW_MAX then
    error("limits: the bucket must be full again within 7 days", 2)
  end
  return function(c, key, n)
    n = n or 1
    local now, where = c.now, name .. ":" .. check_call(key, n)
    local tokens, at = burst, now
    local state = c:recall(where)
    if state then
      local left, since = state:match("^(%S+) (%S+)$")
      left, since = tonumber(left), tonumber(since)
      -- A clock that was set back must not fill the bucket, nor stop it for long.
      tokens = min(burst, left + max(0, now - since) * rate)
    end
    if n > tokens then
      local retry = n > burst and math.huge or max(1, ceil((n - tokens) / rate))
      return false, floor(tokens), retry
    end
    tokens = tokens - n
    c:remember(where, ("%.9g %.6f"):format(tokens, at), ttl)
    return true, floor(tokens), 0
  end
end

return limits
