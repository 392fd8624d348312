local t = require "ephor.test"

t.policy "no-eval"

local function call(arguments, tool)
  return t.call { protocol = "mcp", method = "tools/call", tool = tool or "calculate", arguments = arguments }
end

t.case("ordinary calls pass", function()
  t.allowed(call { expression = "2 + 2", features = { "async", "evaluation" }, mode = "sync", eval = false, evaluate = true })
  t.allowed(call { prompt = "what does eval(x) do?", text = "the executive summary (exec) and evals" })
  t.allowed(t.call { protocol = "mcp", method = "tools/call", tool = "now" })
end)

t.case("the features themselves are refused, in any spelling", function()
  for _, name in ipairs { "eval", "Eval", "EXEC", "legacy_sync", "legacySync", "legacy-sync", "e_val" } do
    t.denied(call({}, name), "not allowed")
    t.denied(call { features = { "async", name } }, "not allowed")
    t.denied(call { options = { { Features = name } } }, "not allowed")
    t.denied(call { mode = name }, "not allowed")
    t.denied(call { capabilities = { [name] = {} } }, "not allowed")
  end
  t.denied(call { eval = true }, "member")
  t.denied(call { eval = "x" }, "member")
  t.denied(call '{"eval":null}', "member")
end)

t.case("code that runs text is refused", function()
  for _, code in ipairs {
    "eval(x)", "eval (x)", "e\\\nval(x)", "x = EVAL\n(x)", "exec('x')", "__import__('os')", "new Function('x')", "Function('return this')()", "os.system('id')",
    "subprocess.run(x)", "require('child_process')", "setTimeout('x', 1)", "Runtime.getRuntime().exec(x)", "pickle.loads(x)", "().__class__.__globals__", "javascript:alert(1)",
    "load = loadstring(x)", "''.constructor.constructor('x')()",
  } do
    t.denied(call { expression = code }, "code")
    t.denied(call { deep = { { any = { code } } } }, "code")
    t.denied(call { [code] = 1 }, "code")
  end
end)

t.case("prose is a string: an object of that name is looked at", function()
  t.denied(call { prompt = { x = "eval(y)" } }, "code")
end)

t.case("what can't be seen is refused", function()
  t.denied(call "{oops")
  t.denied(t.call { protocol = "mcp", method = "tools/call", tool = "x", visible = "headers", blind = "encoding" }, "can't see")
end)

t.case("32 KiB of arguments are within the budget", function()
  t.allowed(call { notes = { ("the kings rule by the law, "):rep(600), ("and the law rules by the kings; "):rep(512) } })
end)
