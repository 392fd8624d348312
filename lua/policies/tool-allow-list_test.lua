local t = require "ephor.test"

t.policy "tool-allow-list"

local function call(account, tool)
  local id = account and ("spiffe://cluster.local/ns/agents/sa/" .. account) or ""
  return t.call { protocol = "mcp", method = "tools/call", tool = tool, peer = { id = id } }
end

t.case("a tool of the list passes", function()
  local d = call("planner", "search")
  t.allowed(d)
  t.equal(d.tags["tool-allow-list"], "listed")
end)

t.case("a tool of another agent's list is refused", function()
  t.denied(call("planner", "document.write"), "document.write")
end)

t.case("an unknown agent has no tools", function()
  t.denied(call("stranger", "search"), "not on the list")
  t.denied(call(nil, "search"), "not on the list")
end)

t.case("a call without a tool is refused", function()
  t.denied(call("planner", nil), "'?'")
end)

t.case("listing the tools passes", function()
  t.allowed(t.call { protocol = "mcp", method = "tools/list" })
end)
