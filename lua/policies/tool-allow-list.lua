-- Which agent may call which tools: what is not on the list is refused. docs/policies.md
local policy = require "ephor.policy"
local match = require "ephor.match"
local settings = require "ephor.settings"

local own = settings.of("tool-allow-list", {
  agents = settings.required "table", -- glob of SPIFFE IDs = list of globs of tools
})

local lists = {}
for agent, tools in pairs(own.agents) do
  lists[#lists + 1] = { is = match.globs { agent }, allows = match.globs(tools) }
end

local function listed(peer, tool)
  for i = 1, #lists do
    if lists[i].is(peer) and lists[i].allows(tool) then
      return true
    end
  end
  return false
end

return policy {
  name = "tool-allow-list",
  principle = "P1",
  description = "Each agent has the tools of its task and no others.",
  match = { protocol = "mcp", method = "tools/call" },
  needs = { "tool" },
  call = function(c)
    local peer = c.peer.id
    if peer == "" then
      return c:deny("the caller has no verified identity, so no tools")
    end
    if not listed(peer, c.tool) then
      return c:deny(("the tool '%s' is not on the list of %s"):format(c.tool or "?", peer))
    end
    c:tag("tool-allow-list", "listed")
  end,
}
