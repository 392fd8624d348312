--- Tests of policies, run by `ephor test DIR` from the files *_test.lua beside them.
--
--     local t = require "ephor.test"
--     t.policy "no-shell-tools"
--     t.case("shell is refused", function()
--       local d = t.call { protocol = "mcp", method = "tools/call", tool = "shell", peer = { id = "spiffe://a/b" } }
--       t.denied(d, "shell")
--     end)
--
-- policy(name)           the policy that the following calls are judged by; without it, all policies of the directory.
-- case(name, fn)         one test: fails when fn raises.
-- call(fields)           judges a made-up call. Fields: those of a policy's `c` (arguments: a table or JSON text),
--                        and headers = {name = value or list of values}, path, http_method, host, peer = {id = ...},
--                        listener, direction, visible = "full" | "headers" | "none", blind = reason, batch = a list
--                        of further calls. Returns a decision: denied, policy, principle, reason, code, status,
--                        matched, decision ("allow", "deny", "shadow_deny", "error", "overrun"), blind, error, headers
--                        (of the request as it would go on), tags.
-- reply(fields)          the same for the head of a response: status, headers, and call = the fields of the request.
-- denied(d[, text])      fails unless d is denied, with `text` somewhere in its reason.
-- allowed(d)             fails when d is denied.
-- equal(given, wanted)   fails unless they are equal; tables are compared by their members.
-- ok(value[, text])      fails unless value is true.
local native = require("ephor.native").test

local t = { cases = {} }
local policy

function t.policy(name)
  native.find(name)
  policy = name
end

function t.case(name, fn)
  assert(type(name) == "string" and type(fn) == "function", "case(name, function)")
  t.cases[#t.cases + 1] = { name = name, fn = fn, policy = policy }
end

function t.call(fields)
  return native.call(fields, policy)
end

function t.reply(fields)
  return native.reply(fields, policy)
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
    error("expected a denial, got " .. describe(d), 2)
  end
  if text and not d.reason:find(text, 1, true) then
    error(("expected a reason with '%s', got %s"):format(text, describe(d)), 2)
  end
end

function t.allowed(d)
  if d.denied then
    error("expected it to pass, got " .. describe(d), 2)
  end
end

function t.ok(value, text)
  if not value then
    error(text or "expected a true value", 2)
  end
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

local json = require "ephor.json"

local function show(value)
  local good, text = pcall(json.encode, value)
  return good and text or tostring(value)
end

function t.equal(given, wanted)
  if not same(given, wanted) then
    error(("expected %s, got %s"):format(show(wanted), show(given)), 2)
  end
end

-- Runs all cases; `tell(number, name, error or nil)` hears of each. Called by `ephor test`.
function t.run(tell, from)
  local failed = 0
  for i, case in ipairs(t.cases) do
    policy = case.policy
    local good, err = pcall(case.fn)
    if not good then
      failed = failed + 1
    end
    tell(from + i, case.name, not good and tostring(err) or nil)
  end
  return #t.cases, failed
end

return t
