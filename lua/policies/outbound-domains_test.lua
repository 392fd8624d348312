local t = require "ephor.test"

t.policy "outbound-domains"

local function call(arguments, host, direction)
  return t.call { protocol = "mcp", method = "tools/call", tool = "fetch", arguments = arguments, host = host or "tools.agents.svc.cluster.local:8080",
                  direction = direction or "outbound" }
end

t.case("hosts of the list pass", function()
  for _, host in ipairs { "api.openai.com", "API.OpenAI.com:443", "tools.agents.svc.cluster.local", "a.b.example.com", "example.com" } do
    t.allowed(call({}, host))
  end
end)

t.case("others don't, on the way out", function()
  for _, host in ipairs { "evil.example", "api.openai.com.evil.example", "xapi.openai.com", "agents.svc.cluster.local", "169.254.169.254", "[::1]", "2130706433", "example.com@evil.example",
                          "127.0.0.2", "127.1" } do
    local d = call({}, host)
    t.denied(d, "not on the list")
    t.equal(d.code, "domain.host")
  end
  t.allowed(call({}, "my-service", "inbound"))
end)

t.case("URLs in arguments are held to the same list, in both directions", function()
  t.allowed(call { url = "https://www.example.com/a?b=c", note = "see http://example.com." })
  for _, text in ipairs {
    "https://evil.example/", "http://169.254.169.254/latest/meta-data", "see https://evil.example/x, please", "//evil.example/x", "HTTPS://EVIL.EXAMPLE", "https:/evil.example",
    "https:\\\\evil.example", "https://example.com@evil.example/", "https://example.com\\@evil.example/", "https://example.com.evil.example/", "https://[::1]/", "http://0x7f.1/",
    "http://2130706433/", "ftp://example.com/", "gopher://example.com/", "https://example.com/?next=https://evil.example/", "https://example.com/?next=https%3A%2F%2Fevil.example%2F",
    "https://example.com/?next=https%253A%252F%252Fevil.example", "https://exampl\u{435}.com/", "https://example.com%2eevil.example/", "https:\n//evil.example/",
  } do
    for _, direction in ipairs { "outbound", "inbound" } do
      local d = call({ url = text }, nil, direction)
      t.ok(d.denied, text)
      t.denied(d, "is refused")
      t.equal(d.code, "domain.url")
    end
    t.denied(call { deep = { { any = { text } } } }, "is refused")
    t.denied(call { [text] = 1 }, "is refused")
  end
end)

t.case("ordinary texts pass", function()
  t.allowed(call { text = "1/2, a//b is a comment? no: and/or; time: 10:00", n = 5, list = {} })
end)

t.case("resources and plain bodies too", function()
  t.denied(t.call { protocol = "mcp", method = "resources/read", uri = "https://evil.example/x", host = "localhost" }, "is refused")
  t.allowed(t.call { protocol = "mcp", method = "resources/read", uri = "file:///workspace/x", host = "localhost" })
  t.denied(t.call { protocol = "http", method = "POST", body = "callback=https://evil.example/", host = "localhost" }, "is refused")
  t.denied(t.call { protocol = "openai", method = "chat/completions", body = '{"image_url":"https://evil.example/x.png"}', host = "api.openai.com", direction = "outbound" },
    "is refused")
end)

t.case("what can't be seen is refused", function()
  t.denied(call "{oops")
  t.denied(t.call { protocol = "http", visible = "headers", blind = "too_large", host = "example.com", direction = "outbound" }, "can't see")
end)

t.case("32 KiB of arguments are within the budget", function()
  t.allowed(call { notes = { ("the kings rule by the law, "):rep(600), ("and the law rules by the kings; "):rep(512) } })
end)
