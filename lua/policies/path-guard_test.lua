local t = require "ephor.test"

t.policy "path-guard"

local function call(arguments)
  return t.call { protocol = "mcp", method = "tools/call", tool = "read_file", arguments = arguments }
end

t.case("paths below the roots pass, and relative ones", function()
  for _, path in ipairs { "/workspace/a.txt", "/workspace", "/tmp/x/../y", "notes/a.txt", "./a..b", "", "file:///workspace/a", "100%25.txt" } do
    t.allowed(call { path = path })
  end
  t.allowed(call { paths = { "/workspace/a", "b" }, content = "import x from '../x'; see /etc/passwd", n = 5, deep = { list = {} } })
  t.allowed(t.call { protocol = "mcp", method = "tools/call", tool = "now" })
end)

t.case("all others are refused, whatever they are called and however they are written", function()
  for _, path in ipairs {
    "/etc/passwd", "/workspace/../etc/passwd", "/workspaces/x", "../x", "a/../../x", "/workspace/%2e%2e/etc", "/workspace/%252e%252e/etc",
    "/workspace/..%2fetc", "..\\x", "/workspace\\..\\..\\etc", "/workspace/..%00/x", "/workspace/\0/../../etc", "C:\\Windows", "\\\\host\\share", "//host/x",
    "~/.ssh/id_rsa", "/workspace/..;/x", "/workspace/\u{FF0E}\u{FF0E}/x", "/workspace/\xc0\xae\xc0\xae/x", "/workspace/%c0%ae%c0%ae/x", "file:///etc/passwd",
    "FILE://localhost/etc/passwd", "file:/etc/passwd", "file://evil/etc", "/proc/self/environ", "/", "/Workspace/x",
  } do
    t.denied(call { path = path }, "is refused")
    t.denied(call { filePath = path }, "is refused")
    t.denied(call { options = { { Target_Path = { path } } } }, "is refused")
  end
end)

t.case("a name that says nothing hides no way out", function()
  for _, text in ipairs {
    "../x", "a/../../b", "..", "a/..", "%2e%2e%2fx", "%252e%252e%252fx", "%25252e%25252e/", "..\\x", ".\n./x", "a/..;/b", "\u{2025}/x", "/etc/passwd", " /etc/passwd",
    "//etc/passwd", "/./etc/passwd", "/proc/1/environ", "~/.aws/credentials", "/var/run/secrets/kubernetes.io/serviceaccount/token", "file:///etc/shadow",
  } do
    t.denied(call { whatever = text }, "is refused")
    t.denied(call { list = { { text } } }, "is refused")
  end
  t.denied(call { ["../x"] = 1 }, "name")
end)

t.case("ordinary values pass", function()
  for _, text in ipairs { "3..5", "wait...", "a/b", "https://example.com/a", "50% of", "etc/passwd", "/etcetera", "x..y/z" } do
    t.allowed(call { value = text })
  end
end)

t.case("a text is a string: what is hidden in an object of that name is looked at", function()
  t.denied(call { content = { path = "/etc/passwd" } }, "is refused")
end)

t.case("resources are read below the roots only", function()
  local function read(uri)
    return t.call { protocol = "mcp", method = "resources/read", uri = uri }
  end
  t.allowed(read "file:///workspace/a")
  t.allowed(read "https://example.com/a")
  for _, uri in ipairs { "file:///etc/passwd", "file:///workspace/../etc/passwd", "file:///workspace/%2e%2e/etc", "../x", "test://a/../../b" } do
    t.denied(read(uri), "is refused")
  end
end)

t.case("arguments that are no JSON, or can't be seen, are refused", function()
  t.denied(call "{oops")
  t.denied(call '{"path":"a","path":"/etc/passwd"}')
  t.denied(t.call { protocol = "mcp", method = "tools/call", tool = "x", visible = "headers", blind = "encoding" }, "can't see")
end)

t.case("32 KiB of arguments are within the budget", function()
  t.allowed(call { notes = { ("the kings rule by the law, "):rep(600), ("and the law rules by the kings; "):rep(512) } })
end)
