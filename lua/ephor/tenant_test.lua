local t = require "ephor.test"
local tenant = require "ephor.tenant"

local UUID = "9b2e1f4c-7a3d-4e5f-8a6b-1c2d3e4f5a6b"

t.case("UUIDs of version 4 in their one form", function()
  t.equal(tenant.uuid4(UUID), UUID)
  t.equal(tenant.uuid4(UUID:upper()), UUID)
  for _, text in ipairs { "", "acme", "{" .. UUID .. "}", "urn:uuid:" .. UUID, UUID:gsub("%-", ""), UUID .. "0", " " .. UUID, "00000000-0000-0000-0000-000000000000",
                          "9b2e1f4c-7a3d-1e5f-8a6b-1c2d3e4f5a6b", "9b2e1f4c-7a3d-4e5f-ca6b-1c2d3e4f5a6b", "9b2e1f4c-7a3d-4e5f-8a6b-1c2d3e4f5a6g" } do
    t.ok(tenant.uuid4(text) == nil, text)
  end
  t.ok(tenant.uuid4(nil) == nil and tenant.uuid4(5) == nil)
end)

t.case("comparing", function()
  t.ok(tenant.same("acme", "acme") and tenant.same(UUID, UUID:upper()))
  t.ok(not tenant.same("acme", "Acme") and not tenant.same("acme", "acme ") and not tenant.same("", "") and not tenant.same(nil, nil))
  t.ok(not tenant.same("a b", "a b") and not tenant.same("acme,other", "acme,other"), "a malformed name is nobody's")
  t.ok(not tenant.same("acme", "acme", true) and tenant.same(UUID, UUID, true))
  t.ok(tenant.name(("x"):rep(100)) and not tenant.name(("x"):rep(101)))
end)

t.case("the tenant in an identity", function()
  local of = tenant.template "spiffe://cluster.local/ns/tenant-{tenant}/sa/*"
  t.equal(of "spiffe://cluster.local/ns/tenant-acme/sa/planner", "acme")
  for _, id in ipairs { "", "spiffe://cluster.local/ns/tenant-/sa/x", "spiffe://other/ns/tenant-acme/sa/x", "spiffe://cluster.local/ns/tenant-acme/sa/x/y",
                        "spiffe://cluster.local/ns/tenant-a/b/sa/x", "xspiffe://cluster.local/ns/tenant-acme/sa/x", "spiffe://clusterxlocal/ns/tenant-a/sa/x" } do
    t.ok(of(id) == nil, id)
  end
  for _, template in ipairs { "spiffe://a/b", "{tenant}", "spiffe://a/{tenant}/{tenant}" } do
    t.ok(not pcall(tenant.template, template), template)
  end
end)

local function call(peer, header)
  return { peer = { id = peer }, headers = { ["x-tenant-id"] = header } }
end

local of = tenant.rule {
  identity = { "spiffe://a/ns/{tenant}/sa/agent", "spiffe://a/t/{tenant}" },
  speakers = { "spiffe://a/ns/edge/sa/gateway" },
}

local function refused(c, why)
  local id, reason = of(c)
  t.ok(id == nil and reason:find(why, 1, true), tostring(reason))
end

t.case("the identity decides", function()
  t.equal({ of(call("spiffe://a/ns/acme/sa/agent")) }, { "acme", "identity" })
  t.equal({ of(call("spiffe://a/t/beta", "beta")) }, { "beta", "identity" })
  refused(call("spiffe://a/ns/acme/sa/agent", "other"), "another tenant")
  refused(call("spiffe://a/ns/acme/sa/agent", "acme,other"), "another tenant")
  refused(call("spiffe://a/ns/acme/sa/stranger", "acme"), "no tenant")
  refused(call("", "acme"), "no verified identity")
end)

t.case("a header is believed from those alone who may speak for others", function()
  t.equal({ of(call("spiffe://a/ns/edge/sa/gateway", "beta")) }, { "beta", "header" })
  refused(call("spiffe://a/ns/edge/sa/gateway"), "no tenant")
  refused(call("spiffe://a/ns/edge/sa/gateway", ""), "no tenant")
  refused(call("spiffe://a/ns/edge/sa/gateway", "beta,acme"), "malformed")
  refused(call("spiffe://a/ns/edge/sa/gateway2", "beta"), "no tenant")
end)

t.case("strict: UUIDs only", function()
  local strict = tenant.rule { identity = "spiffe://a/t/{tenant}", strict = true }
  t.equal(strict(call("spiffe://a/t/" .. UUID:upper())), UUID)
  t.ok(strict(call("spiffe://a/t/acme")) == nil)
end)

t.case("rules that are none raise", function()
  t.ok(not pcall(tenant.rule, {}))
  t.ok(not pcall(tenant.rule, { identity = "x" }))
  t.ok(not pcall(tenant.rule, { identity = "spiffe://a/{tenant}", speeker = {} }))
end)
