-- A caller gets at its own tenant's things only: the tenant is what its identity says, and everything else must agree. docs/policies.md
local policy = require "ephor.policy"
local match = require "ephor.match"
local settings = require "ephor.settings"
local tenant = require "ephor.tenant"

local own = settings.of("tenant-isolation", {
  identity = settings.required "table", -- templates of SPIFFE IDs with {tenant}
  speakers = {}, -- globs of SPIFFE IDs whose header is believed, such as a gateway's
  header = "x-tenant-id",
  strict = false, -- true: tenants are UUIDs of version 4
  arguments = true, -- false: arguments and bodies are not looked at, so calls that hide them pass
  names = { "tenant", "tenant_id" }, -- members of the arguments that name a tenant
})

local tenant_of = tenant.rule { identity = own.identity, speakers = own.speakers, header = own.header, strict = own.strict }

return policy {
  name = "tenant-isolation",
  principle = "P2",
  description = "Nothing crosses from one tenant to another.",
  needs = own.arguments and { "arguments", "body" } or nil,
  call = function(c)
    local id, why = tenant_of(c)
    if not id then
      return c:deny(why, { code = "tenant.unknown" })
    end
    if own.arguments then
      local foreign = match.members(match.content(c), own.names, function(value, path)
        return not tenant.same(value, id, own.strict) and path
      end)
      if foreign then
        return c:deny(("'%s' names another tenant than the caller's"):format(foreign), { code = "tenant.mismatch" })
      end
    end
    c:header(own.header, id) -- what goes on is the verified one
    c:tag("tenant", id)
  end,
}
