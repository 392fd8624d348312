local t = require "ephor.test"

t.policy "pii-redaction"

local function call(arguments, tool)
  return t.call { protocol = "mcp", method = "tools/call", tool = tool or "note", arguments = arguments }
end

t.case("ordinary calls pass", function()
  t.allowed(call { text = "The bearer of this letter, sk-8, AKIA", n = 5 })
  t.allowed(t.call { protocol = "mcp", method = "tools/call", tool = "now" })
end)

t.case("secrets are refused, wherever they are", function()
  for kind, text in pairs {
    api_key = "use sk-proj-abcdefghijklmnopqrstuvwxyz now", bearer = "Authorization: Bearer abcdefghijklmnopqrstuv",
    private_key = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
  } do
    for _, arguments in ipairs { { text = text }, { deep = { { any = { text } } } }, { [text] = 1 } } do
      local d = call(arguments)
      t.denied(d, kind)
      t.equal(d.code, "pii.secret")
      t.ok(not d.reason:find(text, 1, true), "the reason must not tell the secret")
    end
  end
  t.denied(call '{"text":"AKI\\u0041IOSFODNN7EXAMPLE"}', "api_key")
end)

t.case("what can't be seen is refused", function()
  t.denied(call "{oops")
  t.denied(t.call { protocol = "mcp", method = "tools/call", tool = "x", visible = "headers", blind = "streamed" }, "can't see")
end)

-- An event of MCP: the result of the tool.
local function result(text)
  return { jsonrpc = "2.0", id = 1, result = { content = { { type = "text", text = text } } } }
end

local function asked(tool)
  return { protocol = "mcp", method = "tools/call", tool = tool or "note", arguments = { text = "hello" } }
end

t.case("what comes back is masked, whole and in events", function()
  local d = t.reply { call = asked(), headers = { ["content-type"] = "application/json" },
    body = [[{"result":{"content":[{"type":"text","text":"call 555-12-3456 or a@example.com"}]}}]] }
  t.ok(not d.body:find("555-12", 1, true) and d.body:find("[ssn]", 1, true) and d.body:find("[email]", 1, true))
  d = t.stream { call = asked(), events = { result "nothing here", result "SSN 555-12-3456, key sk-proj-abcdefghijklmnopqrstuvwxyz" } }
  t.allowed(d)
  t.equal(#d.events, 2)
  t.ok(not d.events[1].changed and d.events[2].changed)
  t.equal(d.events[2].json.result.content[1].text, "SSN [ssn], key [api_key]")
end)

t.case("other methods are none of its business", function()
  t.allowed(t.call { protocol = "mcp", method = "tools/list" })
end)

t.case("32 KiB of arguments are within the budget", function()
  t.allowed(call { notes = { ("the kings rule by the law, "):rep(600), ("and the law rules by the kings; "):rep(512) } })
end)
