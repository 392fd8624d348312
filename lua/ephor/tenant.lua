--- Whose call it is: the tenant, from the peer's verified identity first, and from a header only where that is said.
--
--     local tenant = require "ephor.tenant"
--     local of = tenant.rule {
--       identity = "spiffe://*/ns/tenant-{tenant}/sa/*",      -- a peer that fits speaks for that tenant and no other
--       header = "x-tenant-id",
--       speakers = { "spiffe://cluster.local/ns/edge/sa/gateway" },   -- may name any tenant in the header
--     }
--     local id, why = of(c)
--     if not id then return c:deny(why) end
--
-- A header is the caller's word. It is believed from the peers in `speakers` alone; from all others it may only repeat what
-- their identity says.
local match = require "ephor.match"

local tenant = {}

--- A UUID of version 4 (RFC 9562) in its one form: lower case, with hyphens.
-- @param text string of 36 characters, in any case
-- @return the text in lower case; or nil: another length, braces, urn:, another version or variant, the nil UUID
-- Example: tenant.uuid4("9B2E1F4C-7A3D-4E5F-8A6B-1C2D3E4F5A6B")  --> "9b2e1f4c-7a3d-4e5f-8a6b-1c2d3e4f5a6b"
function tenant.uuid4(text)
  if type(text) ~= "string" or #text ~= 36 then
    return nil
  end
  local lower = text:lower()
  if lower:find("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$") then
    return lower
  end
  return nil
end

--- The form in which names of tenants are compared: a UUID in lower case, everything else as it is.
-- @param text string
-- @param strict true: UUIDs of version 4 only
-- @return the name; or nil and why: empty, over 100 bytes, or a byte beyond letters, digits, '.', '_', ':' and '-'
-- Example: tenant.name("acme")  --> "acme"
function tenant.name(text, strict)
  if type(text) ~= "string" or text == "" then
    return nil, "no tenant"
  end
  local uuid = tenant.uuid4(text)
  if uuid then
    return uuid
  end
  if strict then
    return nil, "the tenant is no UUID of version 4"
  end
  if #text > 100 or text:find("[^%w%._:%-]") then
    return nil, "a tenant's name that is malformed"
  end
  return text
end

--- True when both name the same tenant. A name that is missing or malformed is nobody's, so also not the same as itself.
-- @param a, b strings or nil
-- @param strict as in tenant.name
-- @return boolean
-- Example: tenant.same(c.arguments.tenant_id, "acme")
function tenant.same(a, b, strict)
  local name = tenant.name(a, strict)
  return name ~= nil and name == tenant.name(b, strict)
end

--- Compiles a template of SPIFFE IDs into a function that finds the tenant in one.
-- @param template an ID in which `{tenant}` stands once for what is looked for, and `*` for any run; neither goes over a '/'
-- @return function(id): the text in place of `{tenant}`, or nil when the ID doesn't fit as a whole. Raises for a template that has
--         no `{tenant}`, or doesn't begin with spiffe://
-- Example: tenant.template "spiffe://*/tenant/{tenant}/*" "spiffe://a/tenant/acme/planner"  --> "acme"
function tenant.template(template)
  if type(template) ~= "string" or not template:find("^spiffe://") then
    error("a template of identities begins with spiffe://", 2)
  end
  local before, after = template:match("^(.-){tenant}(.*)$")
  if not before or after:find("{tenant}", 1, true) then
    error(("'%s' must have {tenant} once"):format(template), 2)
  end
  local function pattern_of(text)
    return (text:gsub("[^%w]", "%%%0"):gsub("%%%*", "[^/]*"))
  end
  local pattern = "^" .. pattern_of(before) .. "([^/]+)" .. pattern_of(after) .. "$"
  return function(id)
    return type(id) == "string" and id:match(pattern) or nil
  end
end

local known = { identity = true, header = true, speakers = true, strict = true }

--- Compiles how the tenant of a call is found.
-- @param rule {identity = a template or a list of them, tried in order; header = the header's name ("x-tenant-id"); speakers = globs
--             of SPIFFE IDs whose header is believed (none); strict = true: UUIDs of version 4 only}
-- @return function(c): the tenant's name and "identity" or "header"; or nil and why. Who has no identity has no tenant, several
--         values in the header are none, and a header that contradicts the identity is an error.
-- Example: tenant.rule { identity = "spiffe://*/ns/{tenant}/sa/*" } (c)  --> "acme", "identity"
function tenant.rule(rule)
  for key in pairs(rule) do
    if not known[key] then
      error(("tenant.rule: there is no key '%s'"):format(tostring(key)), 2)
    end
  end
  local templates = {}
  for _, text in ipairs(type(rule.identity) == "table" and rule.identity or { rule.identity }) do
    templates[#templates + 1] = tenant.template(text)
  end
  local header = rule.header or "x-tenant-id"
  local speaks = match.globs(rule.speakers or {})
  if #templates == 0 and not rule.speakers then
    error("tenant.rule: identity or speakers is needed", 2)
  end
  return function(c)
    local peer = c.peer.id
    if peer == "" then
      return nil, "the caller has no verified identity, so no tenant"
    end
    local given = c.headers[header]
    if given == "" then
      given = nil
    end
    local own
    for i = 1, #templates do
      own = own or templates[i](peer)
    end
    if own then
      local name, why = tenant.name(own, rule.strict)
      if name and given and not tenant.same(given, name, rule.strict) then
        return nil, "the header names another tenant than the caller's identity"
      end
      return name, name and "identity" or why
    end
    if not speaks(peer) then
      return nil, "the caller's identity belongs to no tenant"
    end
    local name, why = tenant.name(given, rule.strict)
    return name, name and "header" or why
  end
end

return tenant
