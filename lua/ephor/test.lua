--- Tests of policies, run by `ephor test DIR` from the files *_test.lua beside them.
--
--     local t = require "ephor.test"
--     t.policy "no-shell-tools"
--     t.case("shell is refused", function()
--       local d = t.call { protocol = "mcp", method = "tools/call", tool = "shell", peer = { id = "spiffe://a/b" } }
--       t.denied(d, "shell")
--     end)
--
-- policy(name)           the policy that the following cases' calls are judged by; without it, all of the directory.
-- case(name, fn)         one test: fails when fn raises, or goes over its budget. Each case finds the world anew: the
--                        clock, the peer.
-- call(fields)           judges a made-up call. Fields: those of a policy's `c` (arguments: a table or JSON text),
--                        and headers = {name = value or list of values}, path, http_method, host, peer = {id = ...},
--                        listener, direction, route, cluster, visible = "full" | "headers" | "none", blind = reason,
--                        batch = a list of further calls. Returns a decision: denied, policy, principle, reason, code,
--                        status, matched, decision ("allow", "deny", "shadow_deny", "error", "overrun"), blind, error,
--                        headers (of the request as it would go on), tags, body (likewise), routed_to. c:delay only moves
--                        the clock.
-- reply(fields)          the same for a response: status, headers, body, and call = the fields of the request.
-- stream(fields)         a reply of server-sent events, played event by event: events = a list of { name =, data = text or a
--                        table to be JSON, id = }, or of the data alone; headers, and call, which is judged first: an `event`
--                        is asked when its policy matched. Returns a decision as reply does, and in it
--                        events: what the client gets, a list of { name, data, id, json (data, when it is JSON), from (which
--                        of the given ones it is; nil: made, of what had been held back, or the refusal), changed, refusal
--                        (it says that the stream was refused, in the protocol's own form) };
--                        said: the texts in them, put together: text, arguments, reasoning;
--                        cut: the stream was broken off, since its protocol has no event that could say why.
-- http(fn)               answers c:http in this case: fn(request) returns {status =, body =, headers =}, or nil and why not.
-- peer(id)               who makes the calls that follow in this case and say nothing else: a SPIFFE ID.
-- clock.now()            seconds since 1970, as c.now and os.time see it. It stands still until it is moved.
-- clock.set(when)        seconds since 1970, or a text like "2026-11-25T10:00:00Z". Returns the time.
-- clock.advance(by)      seconds, or a text like "250ms", "5m", "7d". Returns the time.
-- denied(d[, text])      fails unless d is denied, with `text` somewhere in its reason.
-- allowed(d)             fails when d is denied.
-- equal(given, wanted)   fails unless they are equal; tables are compared by their members.
-- ok(value[, text])      fails unless value is true.
-- raises(fn[, text])     fails unless fn raises an error, with `text` somewhere in it. Returns the error.
local native = require("ephor.native").test
local json = require "ephor.json"

local t = { clock = {} }
local policy, peer

-- Fails the case, at the line that called the function that calls this one.
local function fail(text)
  native.expected(text)
  error(text, 3)
end

-- Calls what is written in C; an error in what it was given is one of the line that called the function that calls this one.
local function checked(fn, ...)
  local good, result = pcall(fn, ...)
  if not good then
    error(result, 3)
  end
  return result
end

function t.policy(name)
  checked(native.find, name)
  policy = name
end

function t.case(name, fn)
  assert(type(name) == "string" and type(fn) == "function", "case(name, function)")
  local of_case = policy
  native.case(name, function()
    policy, peer = of_case, nil
    fn()
  end)
end

local function with_peer(fields)
  if not peer or type(fields) ~= "table" or fields.peer ~= nil then
    return fields
  end
  local copy = { peer = { id = peer } }
  for k, v in pairs(fields) do
    copy[k] = v
  end
  return copy
end

function t.call(fields)
  local d = checked(native.call, with_peer(fields), policy)
  return d
end

-- The fields of a reply, whose call has the case's peer.
local function with_call(fields)
  if type(fields) == "table" and fields.call ~= nil then
    local copy = {}
    for k, v in pairs(fields) do
      copy[k] = v
    end
    copy.call = with_peer(fields.call)
    return copy
  end
  return fields
end

function t.reply(fields)
  local d = checked(native.reply, with_call(fields), policy)
  return d
end

function t.stream(fields)
  local d = checked(native.stream, with_call(fields), policy)
  for kind, texts in pairs(d.said) do
    d.said[kind] = table.concat(texts)
  end
  for _, event in ipairs(d.events) do
    local good, value = pcall(json.decode, event.data)
    event.json = good and value or nil
  end
  return d
end

function t.peer(id)
  assert(id == nil or type(id) == "string", "peer(id)")
  peer = id
end

-- Seconds since 1970 of a day of the Gregorian calendar (Howard Hinnant's days_from_civil).
local function day(year, month, of_month)
  if month <= 2 then
    year = year - 1
  end
  local era = year // 400
  local of_era = year - era * 400
  local of_year = (153 * ((month + 9) % 12) + 2) // 5 + of_month - 1
  return (era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468) * 86400
end

local function seconds_of(when)
  if type(when) ~= "string" then
    return when
  end
  local y, mo, d, h, mi, s, sign, zh, zm = when:match "^(%d%d%d%d)-(%d%d)-(%d%d)[T ](%d%d):(%d%d):(%d%d%.?%d*)([Zz+-])(%d*):?(%d*)$"
  if not y then
    error(("'%s' is no time like 2026-11-25T10:00:00Z"):format(when), 3)
  end
  local offset = (tonumber(zh) or 0) * 3600 + (tonumber(zm) or 0) * 60
  if sign == "-" then
    offset = -offset
  end
  y, mo, d = tonumber(y), tonumber(mo), tonumber(d)
  return day(y, mo, d) + tonumber(h) * 3600 + tonumber(mi) * 60 + tonumber(s) - offset
end

function t.http(fn)
  native.http(fn)
end

function t.clock.now()
  return native.clock()
end

function t.clock.set(when)
  local now = checked(native.set_clock, seconds_of(when))
  return now
end

function t.clock.advance(by)
  local now = checked(native.advance, by)
  return now
end

local function describe(d)
  local text = d.decision .. (d.policy and (" by " .. d.policy) or "")
  if d.reason then
    text = text .. ": " .. d.reason
  end
  if d.error then
    text = text .. " (" .. d.error .. ")"
  end
  return text
end

function t.denied(d, text)
  if not d.denied then
    fail("expected a denial, got " .. describe(d))
  end
  if text and not d.reason:find(text, 1, true) then
    fail(("expected a reason with '%s', got %s"):format(text, describe(d)))
  end
end

function t.allowed(d)
  if d.denied then
    fail("expected it to pass, got " .. describe(d))
  end
end

function t.ok(value, text)
  if not value then
    fail(text or "expected a true value")
  end
end

function t.raises(fn, text)
  local good, err = pcall(fn)
  if good then
    fail("expected an error, and there was none")
  end
  err = tostring(err)
  if text and not err:find(text, 1, true) then
    fail(("expected an error with '%s', got %s"):format(text, err))
  end
  return err
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for k, v in pairs(a) do
    if not same(v, b[k]) then
      return false
    end
  end
  for k in pairs(b) do
    if a[k] == nil then
      return false
    end
  end
  return true
end

local function show(value)
  local good, text = pcall(json.encode, value)
  return good and text or tostring(value)
end

function t.equal(given, wanted)
  if not same(given, wanted) then
    fail(("expected %s, got %s"):format(show(wanted), show(given)))
  end
end

return t
