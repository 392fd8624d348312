-- An example: everybody has the small models, the planner a large one too.
return {
  agents = {
    ["*"] = { "gpt-4o-mini", "claude-haiku-*" },
    ["spiffe://cluster.local/ns/agents/sa/planner"] = { "gpt-4o", "claude-sonnet-*" },
  },
}
