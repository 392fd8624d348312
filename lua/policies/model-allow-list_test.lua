local t = require "ephor.test"

t.policy "model-allow-list"

local PLANNER = "spiffe://cluster.local/ns/agents/sa/planner"

local function call(model, peer, protocol)
  return t.call { protocol = protocol or "openai", method = "chat/completions", model = model, peer = { id = peer or "" } }
end

t.case("models of the list pass", function()
  t.allowed(call("gpt-4o-mini"))
  t.allowed(call("claude-haiku-4-5", nil, "anthropic"))
  t.allowed(call("gpt-4o", PLANNER))
  t.allowed(call("gpt-4o-mini", PLANNER))
end)

t.case("others don't", function()
  t.denied(call("gpt-4o"), "not on the list")
  t.denied(call("o3", PLANNER), "not on the list")
  t.denied(call("gpt-4o", "spiffe://evil.example/ns/agents/sa/planner"), "not on the list")
end)

t.case("names that a server may take for another are refused", function()
  for _, model in ipairs { "GPT-4O-MINI", " gpt-4o-mini", "gpt-4o-mini ", "gpt-4o-mini\0", "openai/gpt-4o-mini", "gpt-4o-mini,gpt-4o", "ft:gpt-4o-mini:x", "gpt-4o-mini-2024-07-18" } do
    t.denied(call(model), "not on the list")
  end
end)

t.case("a call without a model, which a stored prompt brings, is refused", function()
  t.denied(call(nil), "can't see")
end)

t.case("what can't be seen is refused, what is no model's call is none of its business", function()
  t.denied(t.call { protocol = "http", visible = "headers", blind = "encoding" }, "can't see")
  t.allowed(t.call { protocol = "mcp", method = "tools/call", tool = "x" })
end)
