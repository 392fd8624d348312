-- Which agent may use which models. docs/policies.md
local policy = require "ephor.policy"
local match = require "ephor.match"
local settings = require "ephor.settings"

local own = settings.of("model-allow-list", {
  agents = settings.required "table", -- glob of SPIFFE IDs = list of globs of models; "*" is everybody, also who has no identity
})

local lists = {}
for agent, models in pairs(own.agents) do
  lists[#lists + 1] = { is = match.globs { agent }, allows = match.globs(models) }
end

local function listed(peer, model)
  for i = 1, #lists do
    if lists[i].is(peer) and lists[i].allows(model) then
      return true
    end
  end
  return false
end

return policy {
  name = "model-allow-list",
  principle = "P1",
  description = "Each agent has the models that are on its list.",
  match = { protocol = { "openai", "anthropic" } },
  needs = { "model" },
  call = function(c)
    if not listed(c.peer.id, c.model) then
      return c:deny(("the model '%s' is not on the list"):format(c.model:sub(1, 80)))
    end
    c:tag("model", c.model:sub(1, 200))
  end,
}
