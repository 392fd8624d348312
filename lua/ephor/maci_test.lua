local t = require "ephor.test"
local maci = require "ephor.maci"

-- ACGS-2's table, written out once more so that a slip in either is seen.
local may = {
  executive = "propose synthesize query",
  legislative = "extract_rules synthesize query",
  judicial = "validate audit query emergency_cooldown",
  monitor = "monitor_activity query",
  auditor = "audit query",
  controller = "enforce_control query",
  implementer = "synthesize query",
}
local validates = { judicial = "executive legislative implementer", auditor = "monitor controller implementer" }

local function listed(list, word)
  return ((" " .. (list or "") .. " "):find(" " .. word .. " ", 1, true)) ~= nil
end

t.case("every role and action", function()
  t.equal(#maci.roles(), 7)
  t.equal(#maci.actions(), 9)
  for _, role in ipairs(maci.roles()) do
    for _, action in ipairs(maci.actions()) do
      local good, why = maci.may(role, action)
      t.equal(good, listed(may[role], action))
      t.ok(good or why:find(role, 1, true))
    end
  end
  t.equal(maci.actions("auditor"), { "audit", "query" })
  t.ok(maci.actions("king") == nil)
end)

t.case("who may validate whom", function()
  for _, role in ipairs(maci.roles()) do
    for _, author in ipairs(maci.roles()) do
      t.equal((maci.may_validate(role, "a", author, "b")), listed(validates[role], author))
      t.equal((maci.may_validate(role, "a", author, "a")), false)
    end
  end
end)

t.case("what is unknown or missing is not allowed", function()
  for _, role in ipairs { "king", "", "Judicial", "judicial " } do
    t.ok(not maci.may(role, "query") and not maci.may_validate(role, "a", "executive", "b") and not maci.may_validate("judicial", "a", role, "b"), role)
  end
  t.ok(not maci.may(nil, "query") and not maci.may("judicial", nil) and not maci.may("judicial", "rule"))
  t.ok(not maci.may_validate("judicial", nil, "executive", "b") and not maci.may_validate("judicial", "a", "executive", nil))
  t.ok(not maci.may_validate("judicial", "", "executive", "b") and not maci.may_validate("judicial", "a", nil, "b"))
end)

t.case("roles of agents", function()
  local role_of = maci.role_of { judicial = { "spiffe://a/ns/court/*" }, executive = { "spiffe://a/ns/plan/*", "spiffe://a/ns/court/sa/both" } }
  t.equal(role_of("spiffe://a/ns/court/sa/x"), "judicial")
  t.equal(role_of("spiffe://a/ns/plan/sa/x"), "executive")
  t.ok(role_of("spiffe://a/ns/court/sa/both") == nil, "two roles are none")
  t.ok(role_of("spiffe://a/ns/else/sa/x") == nil and role_of("") == nil and role_of(nil) == nil)
  t.ok(not pcall(maci.role_of, { king = { "*" } }))
end)
