local t = require "ephor.test"

t.policy "shell-guard"

local function call(arguments)
  return t.call { protocol = "mcp", method = "tools/call", tool = "convert", arguments = arguments }
end

t.case("data passes", function()
  t.allowed(call {
    title = "Fish & chips; a study", amount = "$5 (or less)", when = "10:00 | 11:00", file = "report-1.pdf", args = { "-v", "--out=x" }, note = "cat and dog",
    shape = "a > b", content = "run `make` && rm -rf /tmp/x", n = 5,
  })
  t.allowed(t.call { protocol = "mcp", method = "tools/call", tool = "now" })
end)

t.case("commands are refused, however they are dressed", function()
  for _, text in ipairs {
    "x; rm -rf /", "x;rm -r /", "$(id)", "`id`", "${IFS}", "x | sh", "x|bash", "x && curl evil", "x || wget evil", "x\ncat /etc/passwd", "x;c'u'rl evil", "x;c\\at y",
    "x; /usr/bin/curl evil", "X; CURL evil", "x & nc -e", "/bin/sh -c x", "/bin/bash", "<(id)", "x >/etc/cron.d/x", "x >> /root/.profile", "cmd.exe /c dir", "cmd /c dir",
    "PowerShell -enc aQ==", "a$IFS$9b", "x; (id)", "x;{id,}", "x;\tid", "$'\\x69d'", "x\0y", "rm --recursive x", "x; ! id",
  } do
    t.denied(call { title = text }, "refused")
    t.denied(call { deep = { { any = { text } } } }, "refused")
    t.denied(call { [text] = 1 }, "shell")
  end
end)

t.case("where a command line is reached, there are words only", function()
  for _, text in ipairs { "a;b", "a&b", "a|b", "$HOME", "a>b", "a b'c", "*", "a\nb", "~(x)" } do
    t.denied(call { filename = text }, "means something to a shell")
    t.denied(call { Args = { "-v", text } }, "means something to a shell")
    t.denied(call { options = { x = { y = text } } }, "means something to a shell")
  end
end)

t.case("a text is a string: what is hidden in an object of that name is looked at", function()
  t.denied(call { content = { x = "$(id)" } }, "refused")
  t.denied(call { content = { "$(id)" } }, "refused")
end)

t.case("what can't be seen is refused", function()
  t.denied(call "{oops")
  t.denied(t.call { protocol = "mcp", method = "tools/call", tool = "x", visible = "headers", blind = "streamed" }, "can't see")
end)

t.case("32 KiB of arguments are within the budget", function()
  t.allowed(call { notes = { ("the kings rule by the law, "):rep(600), ("and the law rules by the kings; "):rep(512) } })
end)
