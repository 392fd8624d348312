local t = require "ephor.test"

t.policy "tool-allow-list"

local function call(id, tool)
  if id ~= "" and not id:find("://", 1, true) then
    id = "spiffe://cluster.local/ns/agents/sa/" .. id
  end
  return t.call { protocol = "mcp", method = "tools/call", tool = tool, peer = { id = id } }
end

t.case("a tool of the list passes", function()
  local d = call("planner", "search")
  t.allowed(d)
  t.equal(d.tags["tool-allow-list"], "listed")
  t.allowed(call("planner", "plan.create"))
  t.allowed(call("spiffe://cluster.local/ns/research-7/sa/reader", "search"))
end)

t.case("a tool of another agent's list is refused", function()
  t.denied(call("planner", "document.write"), "document.write")
end)

t.case("names that only look like those of the list are refused", function()
  for _, tool in ipairs { "Search", "search ", "search\0", "research", "searc", "plan", "planx", "\u{455}earch", "search/../shell" } do
    t.denied(call("planner", tool), "not on the list")
  end
end)

t.case("an unknown agent has no tools", function()
  t.denied(call("stranger", "search"), "not on the list")
  t.denied(call("", "search"), "no verified identity")
end)

t.case("the same account elsewhere is another agent", function()
  for _, id in ipairs {
    "spiffe://evil.example/ns/agents/sa/planner", "spiffe://cluster.local/ns/evil/sa/planner", "spiffe://cluster.local/ns/agents/sa/planner2",
    "spiffe://cluster.local/ns/agents/sa/planner/x", "spiffe://cluster.local/ns/agents/sa/Planner",
  } do
    t.denied(call(id, "search"), "not on the list")
  end
end)

t.case("a call without a tool is refused", function()
  t.denied(call("planner", nil), "'?'")
end)

t.case("in a batch each call is judged", function()
  t.denied(t.call {
    protocol = "mcp", method = "tools/call", tool = "search", peer = { id = "spiffe://cluster.local/ns/agents/sa/planner" },
    batch = { { protocol = "mcp", method = "tools/call", tool = "shell" } },
  }, "shell")
end)

t.case("listing the tools passes", function()
  t.allowed(t.call { protocol = "mcp", method = "tools/list" })
end)

t.case("a call that can't be seen is refused", function()
  t.denied(t.call { protocol = "http", visible = "headers", blind = "too_large" }, "can't see")
end)
