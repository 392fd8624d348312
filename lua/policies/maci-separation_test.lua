local t = require "ephor.test"

t.policy "maci-separation"

local id = {
  planner = "spiffe://cluster.local/ns/agents/sa/planner", lawyer = "spiffe://cluster.local/ns/agents/sa/lawyer",
  builder = "spiffe://cluster.local/ns/agents/sa/builder", judge = "spiffe://cluster.local/ns/court/sa/judge",
  judge2 = "spiffe://cluster.local/ns/court/sa/judge-2", watcher = "spiffe://cluster.local/ns/watch/sa/w",
  auditor = "spiffe://cluster.local/ns/audit/sa/a", controller = "spiffe://cluster.local/ns/control/sa/c",
}

local function call(who, tool, arguments)
  return t.call { protocol = "mcp", method = "tools/call", tool = tool, arguments = arguments, peer = { id = id[who] or who } }
end

t.case("each does what its role may", function()
  local d = call("planner", "proposal.create", {})
  t.allowed(d)
  t.equal(d.tags.maci, "executive/propose")
  t.allowed(call("lawyer", "rules.extract"))
  t.allowed(call("builder", "code.write"))
  t.allowed(call("judge", "cooldown.start"))
  t.allowed(call("watcher", "activity.watch"))
  t.allowed(call("controller", "control.enforce"))
  for who in pairs(id) do
    t.allowed(call(who, "query.state"))
  end
end)

t.case("and nothing else", function()
  for _, case in ipairs { { "planner", "rules.extract" }, { "planner", "output.validate" }, { "judge", "proposal.create" }, { "auditor", "output.validate" },
                          { "watcher", "audit.read" }, { "builder", "control.enforce" }, { "lawyer", "cooldown.start" } } do
    local d = call(case[1], case[2], { author = "builder" })
    t.denied(d, "may not")
    t.equal(d.code, "maci.action")
  end
end)

t.case("who may validate whom", function()
  t.allowed(call("judge", "output.validate", { author = "planner" }))
  t.allowed(call("judge", "output.validate", { author = id.lawyer }))
  t.allowed(call("judge", "output.validate", { author = "builder" }))
  t.allowed(call("auditor", "audit.read", { author = id.watcher }))
  t.allowed(call("auditor", "audit.read", {}))
  t.denied(call("judge", "output.validate", { author = id.controller }), "may not validate")
  t.denied(call("judge", "output.validate", { author = id.judge2 }), "may not validate")
  t.denied(call("auditor", "audit.read", { author = id.planner }), "may not validate")
end)

t.case("nobody validates their own", function()
  t.denied(call("judge", "output.validate", { author = id.judge }), "themselves")
end)

t.case("who made it must be said, once, and be known", function()
  for _, arguments in ipairs { {}, { author = "" }, { author = "stranger" }, { author = "spiffe://cluster.local/ns/x/sa/y" }, { author = 5 }, { author = { "planner" } },
                               { author = "planner", made_by = "builder" } } do
    t.denied(call("judge", "output.validate", arguments))
  end
  t.denied(call("judge", "output.validate"))
end)

t.case("a lie about who made it is found out", function()
  t.allowed(call("builder", "code.write", { output_id = "lie-1" }))
  t.denied(call("judge", "output.validate", { output_id = "lie-1", author = "planner" }), "made by another")
  t.allowed(call("judge", "output.validate", { output_id = "lie-1" }))
  t.allowed(call("judge", "output.validate", { output_id = "lie-1", author = "builder" }))
  t.denied(call("planner", "proposal.create", { output_id = "lie-1" }), "made by another")
  t.denied(call("judge", "output.validate", { output_id = "lie-1", target_output_id = "lie-2" }), "not clear")
  t.denied(call("judge", "output.validate", { output_id = 5, author = "builder" }), "not clear")
end)

t.case("the sender is the caller", function()
  t.allowed(call("planner", "query.state", { from_agent = "planner" }))
  t.denied(call("planner", "query.state", { from_agent = "builder" }), "not the caller")
  t.denied(call("planner", "query.state", { from_agent = "planner", sender_id = "builder" }), "not the caller")
  t.denied(call("planner", "query.state", { sender = 5 }), "not the caller")
end)

t.case("what is unknown is refused", function()
  t.denied(call("spiffe://cluster.local/ns/agents/sa/stranger", "query.state"), "no role")
  t.denied(call("", "query.state"), "no verified identity")
  t.denied(call("spiffe://evil.example/ns/court/sa/judge", "output.validate", { author = "planner" }), "no role")
  t.denied(call("planner", "shell"), "no action")
  t.denied(call("planner", nil), "no tool")
  t.denied(call("planner", "query.state", "[1"))
  t.denied(t.call { protocol = "mcp", method = "tools/call", tool = "query.x", visible = "headers", blind = "encoding", peer = { id = id.planner } }, "can't see")
end)
