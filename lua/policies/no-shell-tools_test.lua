local t = require "ephor.test"

t.policy "no-shell-tools"

local function call(tool, peer)
  return t.call {
    protocol = "mcp",
    method = "tools/call",
    tool = tool,
    peer = { id = peer or "spiffe://cluster.local/ns/agents/sa/planner" },
  }
end

t.case("a shell is refused", function()
  local d = call("shell")
  t.denied(d, "shell")
  t.equal(d.principle, "P3")
  t.equal(d.code, "policy.denied")
end)

t.case("in any case and dress", function()
  for _, tool in ipairs { "Bash", "SHELL", "run-shell", "runShell", "os.shell", "shell_v2", "mcp__terminal__open", "runCommand", "run_command", "sh" } do
    t.denied(call(tool), "runs shell commands")
  end
end)

t.case("a word in a word is none", function()
  for _, tool in ipairs { "search", "refresh", "shellfish-prices", "finish", "cash" } do
    t.allowed(call(tool))
  end
end)

t.case("a call without a tool's name is refused", function()
  t.denied(call(nil), "without")
end)

t.case("an administrator may", function()
  t.allowed(call("shell", "spiffe://cluster.local/ns/agents/sa/admin"))
end)

t.case("who is only called like an administrator may not", function()
  t.denied(call("shell", "spiffe://cluster.local/ns/agents/sa/admin/x"))
  t.denied(call("shell", "spiffe://cluster.local/ns/agents/sa/not-admin"))
  t.denied(call("shell", "x/sa/admin"))
end)

t.case("nobody in particular may not", function()
  t.denied(call("shell", ""))
end)

t.case("other methods are none of its business", function()
  local d = t.call { protocol = "mcp", method = "tools/list" }
  t.allowed(d)
  t.ok(not d.matched, "tools/list must not match")
end)

t.case("a call that can't be seen is refused", function()
  local d = t.call { protocol = "http", visible = "headers", blind = "encoding" }
  t.denied(d, "can't see")
  t.equal(d.code, "policy.blind")
end)
