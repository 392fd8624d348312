local t = require "ephor.test"

t.policy "tenant-isolation"

local ACME = "spiffe://cluster.local/ns/tenant-acme/sa/planner"
local GATEWAY = "spiffe://cluster.local/ns/edge/sa/gateway"

local function call(peer, header, arguments, more)
  local fields = { protocol = "mcp", method = "tools/call", tool = "search", peer = { id = peer }, headers = { ["x-tenant-id"] = header }, arguments = arguments }
  for key, value in pairs(more or {}) do
    fields[key] = value
  end
  return t.call(fields)
end

t.case("its own tenant's things pass, and the verified tenant goes on", function()
  local d = call(ACME, nil, { q = "x" })
  t.allowed(d)
  t.equal(d.headers["x-tenant-id"], "acme")
  t.equal(d.tags.tenant, "acme")
  t.allowed(call(ACME, "acme", { tenant_id = "acme", deep = { { tenantId = "acme" } } }))
  t.allowed(call(GATEWAY, "beta", { tenant_id = "beta" }))
end)

t.case("another tenant's are refused, wherever it is named", function()
  t.denied(call(ACME, "beta"), "another tenant")
  t.denied(call(ACME, { "acme", "beta" }), "another tenant")
  for _, arguments in ipairs {
    { tenant_id = "beta" }, { tenantId = "beta" }, { ["Tenant-ID"] = "beta" }, { TENANT = "beta" }, { deep = { { { tenant = "beta" } } } }, { tenant_id = { "acme", "beta" } },
    { tenant_id = 5 }, { tenant_id = "Acme" }, { tenant_id = "acme " }, { tenant_id = "" }, { tenant_id = { tenant_id = "beta" } },
  } do
    local d = call(ACME, nil, arguments)
    t.denied(d, "names another tenant")
    t.equal(d.code, "tenant.mismatch")
  end
  t.denied(call(ACME, nil, '{"tenant_id":null}'), "names another tenant")
end)

t.case("a body of plain JSON is looked at as arguments are", function()
  local function post(body)
    return t.call { protocol = "http", method = "POST", peer = { id = ACME }, body = body }
  end
  t.allowed(post '{"tenant_id":"acme"}')
  t.allowed(post "tenant_id=beta is no JSON")
  t.denied(post '{"metadata":{"tenant_id":"beta"}}', "names another tenant")
  t.denied(post '{"tenant_id":"acme","tenant_id":"beta"}')
  t.denied(post '\u{FEFF}{"tenant_id":"beta"}', "names another tenant")
end)

t.case("who has no tenant gets nowhere", function()
  t.denied(call("", "acme"), "no verified identity")
  t.denied(call("spiffe://cluster.local/ns/agents/sa/planner", "acme"), "no tenant")
  t.denied(call("spiffe://evil.example/ns/tenant-acme/sa/planner", "acme"), "no tenant")
  t.denied(call("spiffe://cluster.local/ns/tenant-acme/sa/planner/more", "acme"), "no tenant")
  t.denied(call(GATEWAY), "no tenant")
  t.denied(call(GATEWAY, "beta,acme"), "malformed")
end)

t.case("what can't be seen is refused", function()
  t.denied(t.call { protocol = "http", peer = { id = ACME }, visible = "headers", blind = "too_large" }, "can't see")
end)
