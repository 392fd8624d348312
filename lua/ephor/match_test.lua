local t = require "ephor.test"
local match = require "ephor.match"

t.case("globs", function()
  local fits = match.globs { "search", "plan.*", "?at" }
  t.ok(fits("search") and fits("plan.create") and fits("plan.") and fits("cat"))
  t.ok(not fits("searching") and not fits("plan") and not fits("Search") and not fits("at") and not fits("") and not fits(nil))
  t.ok(not fits(5) and not fits({}))
  t.equal(select(2, fits("plan.x")), "plan.*")
  t.ok(not match.globs {} "x", "an empty list fits nothing")
  t.ok(match.glob("a*b*c", "a1b2c") and not match.glob("a*", nil))
end)

t.case("bad lists raise when they are compiled", function()
  t.ok(not pcall(match.globs, "search"))
  t.ok(not pcall(match.globs, { "" }))
  t.ok(not pcall(match.globs, { 1 }))
  t.ok(not pcall(match.globs, { search = true }))
  t.ok(not pcall(match.globs, { "a", nil, "b" }))
end)

t.case("networks", function()
  local inside = match.cidrs { "10.0.0.0/8", "192.168.4.0/22", "2001:db8::/33", "::1", "203.0.113.7", "0.0.0.0/32" }
  for _, address in ipairs { "10.0.0.0", "10.255.255.255", "192.168.7.255", "2001:db8::1", "2001:DB8:7fff::1", "::1",
                             "0:0:0:0:0:0:0:1", "::ffff:10.1.1.1", "203.0.113.7" } do
    t.ok(inside(address), address)
  end
  for _, address in ipairs { "11.0.0.0", "192.168.8.0", "192.168.3.255", "2001:db8:8000::1", "::2", "203.0.113.8", "10.1", "010.0.0.1",
                             "10.0.0.1 ", "10.0.0.1/8", "[::1]", "::1%lo", "", "0x0a000001", "167772161", "10.0.0.1\0" } do
    t.ok(not inside(address), address)
  end
  t.ok(not inside(nil))
  t.ok(match.cidrs { "0.0.0.0/0" } "1.2.3.4" and not match.cidrs { "0.0.0.0/0" } "::1")
  t.ok(match.cidrs { "::/0" } "::1" and not match.cidrs { "::/0" } "1.2.3.4")
end)

t.case("networks that are none raise", function()
  for _, entry in ipairs { "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "x", "10.0.0.0/8/8", "::ffff:10.0.0.0/104", "10.0.0.128/24" } do
    t.ok(not pcall(match.cidrs, { entry }), entry)
  end
end)

t.case("paths are read as the file system reads them", function()
  for given, wanted in pairs {
    ["/a/b"] = "/a/b", ["/a/./b//../c"] = "/a/c", ["a/b/"] = "a/b", ["/"] = "/", [""] = "", ["."] = "", ["a/.."] = "",
    ["/data/%2e%2e/etc/passwd"] = "/etc/passwd", ["/data%2f..%2fetc"] = "/etc", ["\\data\\..\\etc"] = "/etc", ["/a%20b"] = "/a b",
    ["/.hidden/..x/x..y"] = "/.hidden/..x/x..y", ["/\u{e9}t\u{e9}"] = "/\u{e9}t\u{e9}",
  } do
    t.equal(match.normalise(given), wanted)
  end
end)

t.case("paths that are read in two ways are refused", function()
  for _, path in ipairs {
    "..", "../x", "/..", "a/../../b", "/a/../../etc", "%2e%2e/x", "/a/%252e%252e/b", "/a%25%32%65", "/a/..%00/b", "/a\0b", "/a%0ab", "/a%",
    "/a%zz", "/a/..;/b", "/a/..;x=1/b", "/a/.../b", "/a/.. /b", "/%c0%ae%c0%ae/etc", "/a/%c0%af", "/\xc0\xae\xc0\xae/etc", "\u{FF0E}\u{FF0E}/etc",
    "/a/\u{2025}/b", "/a\u{2215}..", "\\\\host\\share", "//host/share", "C:\\x", "c:x", "~/x", "~root/x", "%7e/x", "/a/..\u{FF0F}b",
  } do
    local normal, why = match.normalise(path)
    t.ok(normal == nil and type(why) == "string", path)
  end
end)

t.case("below a root, and never by half a segment", function()
  local roots = { "/data", "/tmp/agent", "work" }
  for _, path in ipairs { "/data", "/data/", "/data/x/y", "/data/a/../b", "/tmp/agent/1", "work/x", "./work/x", "/x/../data/y" } do
    t.ok(match.under(path, roots), path)
  end
  for _, path in ipairs { "/", "/database", "/data/../etc/passwd", "/data/%2e%2e/etc", "/tmp", "/tmp/agents", "data", "workshop", "../work", "",
                          "/data/..%2f..%2fetc", "/data\\..\\..\\etc", "/DATA/x" } do
    local good, why = match.under(path, roots)
    t.ok(not good and why, path)
  end
  t.ok(match.under("/anything", { "/" }) and not match.under("anything", { "/" }))
end)

t.case("hosts", function()
  local fits = match.hosts { "example.com", "*.tools.example", "127.0.0.1", "::1" }
  for _, host in ipairs { "example.com", "EXAMPLE.com.", "a.tools.example", "a.b.tools.example", "127.0.0.1", "[::1]" } do
    t.ok(fits(host), host)
  end
  for _, host in ipairs { "example.com.evil.org", "xexample.com", "a.example.com", "tools.example", "xtools.example", ".tools.example", "127.1",
                          "0x7f.0.0.1", "2130706433", "", "example.com:80", "exam\u{440}le.com", "a..tools.example", "[127.0.0.1]", "example.com%2e",
                          "127.0.0.1.evil.org", "::2" } do
    t.ok(not fits(host), host)
  end
  t.ok(not fits(nil))
  for _, entry in ipairs { "*", "*.", "a.*.b", "exa*mple.com", "*example.com", "*.127.0.0.1", "http://x" } do
    t.ok(not pcall(match.hosts, { entry }), entry)
  end
end)

t.case("URLs", function()
  t.equal(match.url("HTTPS://API.example.com:8443/v1/x?q=1#f"),
    { scheme = "https", host = "api.example.com", port = 8443, path = "/v1/x", query = "q=1" })
  t.equal(match.url("http://[::1]:80").host, "::1")
  t.equal(match.url("http://x.example").path, "/")
  for _, text in ipairs {
    "https://good.example@evil.example/", "https://good.example:x@evil.example/", "https://good.example\\@evil.example", "https://evil.example\\.good.example",
    "https://good.example%2eevil.example", "https://good.example%00.evil.example", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/", "https://127.1/",
    "https://good.example\n.evil.example", "https://good.example\t/", "https:/good.example", "https:good.example", "//good.example", "good.example",
    "https://", "https:///x", "https://x:99999/", "https://x:/", "https://::1/", "https://[::1/", "https://[fe80::1%25eth0]/", "https://exampl\u{435}.com/",
  } do
    local url, why = match.url(text)
    t.ok(url == nil and type(why) == "string", text)
  end
end)

t.case("URLs in a text", function()
  t.equal(match.urls("see https://a.example/x, or (//b.example) 'http://c.example'."),
    { "https://a.example/x", "//b.example", "http://c.example" })
  for _, text in ipairs { "https:/evil.example", "https:\\\\evil.example", "HTTPS:evil.example", "https:\n//evil.example", "x https:/\\evil.example" } do
    local found = match.urls(text)
    t.ok(#found == 1 and found[1]:find("evil.example", 1, true), text)
  end
  t.equal(match.urls("a/b/c, 1/2 and time: now"), {})
end)

t.case("all strings of a value", function()
  local seen = {}
  match.strings({ a = { "x", { b = "y" } }, n = 5 }, function(text, path)
    seen[path .. "=" .. text] = true
  end)
  t.equal(seen, { ["a=a"] = true, ["a[1]=x"] = true, ["a[2].b=b"] = true, ["a[2].b=y"] = true, ["n=n"] = true })
  t.equal(match.strings({ "p", "q" }, function(text)
    return text == "q" and "found" or nil
  end), "found")
  local loop = {}
  loop[1] = loop
  t.ok(not pcall(match.strings, loop, function() end))
  t.ok(match.strings(nil, error) == nil and match.strings(5, error) == nil)
end)

t.case("a walk that knows what names say", function()
  local is_path = match.names { "file_path", "Paths" }
  local function named(key)
    if is_path(key) then
      return true
    elseif key == "text" then
      return false
    end
  end
  local seen = {}
  local value = { filePath = "p", PATHS = { "q", { x = "r" } }, text = "prose", other = { text = { "s" }, n = 1 }, ["File-Path"] = { text = "t" } }
  t.ok(match.walk(value, named, function(text, where, as)
    seen[where .. "=" .. text] = as or "plain"
  end) == nil)
  t.equal(seen, {
    ["filePath=filePath"] = "key", ["filePath=p"] = "named", ["PATHS=PATHS"] = "key", ["PATHS[1]=q"] = "named", ["PATHS[2].x=x"] = "key",
    ["PATHS[2].x=r"] = "named", ["text=text"] = "key", ["other=other"] = "key", ["other.text=text"] = "key", ["other.text[1]=s"] = "plain",
    ["other.n=n"] = "key", ["File-Path=File-Path"] = "key", ["File-Path.text=text"] = "key",
  })
  t.equal(match.walk("whole", named, function(text, where)
    return where .. text
  end), "whole")
  t.equal(match.walk({ "p", { file_path = "q" } }, named, function(text, where, as)
    return as == "named" and where .. text
  end), "[2].file_pathq")
  local deep = { "x" }
  for _ = 1, 70 do
    deep = { deep }
  end
  t.ok(not pcall(match.walk, deep, named, function() end))
  t.ok(match.walk(nil, named, error) == nil and match.walk(true, named, error) == nil)
  t.ok(not pcall(match.names, { "a", 5 }) and not pcall(match.names, "a") and not match.names {} "a")
end)

t.case("members by name, in any spelling", function()
  local seen = {}
  match.members({ a = { { tenantId = "x" }, { ["Tenant-ID"] = { tenant_id = 5 } } }, tenant = "no" }, { "tenant_id" }, function(v, path)
    seen[path] = type(v)
  end)
  t.equal(seen, { ["a[1].tenantId"] = "string", ["a[2].Tenant-ID"] = "table", ["a[2].Tenant-ID.tenant_id"] = "number" })
end)

t.case("what a call carries", function()
  t.equal(match.content { arguments = { a = 1 }, body = "x" }, { a = 1 })
  t.equal(match.content { body = ' {"a":1}' }, { a = 1 })
  t.equal(match.content { body = '\xef\xbb\xbf[1]' }, { 1 })
  t.equal(match.content { body = "text" }, "text")
  t.ok(match.content {} == nil)
  t.ok(not pcall(match.content, { body = "{oops" }) and not pcall(match.content, { body = '{"a":1,"a":2}' }))
end)

t.case("fast looks", function()
  t.equal(match.first("a;b|c", "|;"), 2)
  t.equal(match.first("a;b|c", "|;", 3), 4)
  t.equal(match.first("a\0", "\0", -5), 2)
  t.ok(match.first("abc", "|;") == nil and match.first("", "a") == nil and match.first("a", "") == nil and match.first("a", "a", 2) == nil)
  t.ok(match.first("a", "a", math.maxinteger) == nil and match.first("a", "a", math.mininteger) == 1)
  t.equal(match.strip("c'u\\rl\xff", "'\\\xff"), "curl")
  t.equal(match.strip("", "a"), "")
  t.equal(match.any("a $(id)", { "`", "$(", "id" }), "$(")
  t.ok(match.any("a", {}) == nil and match.any("", { "a" }) == nil and match.any("a", { "" }) == nil and match.any("a", { "ab" }) == nil)
  t.ok(not pcall(match.any, "a", { {} }) and not pcall(match.any, "a", "a") and not pcall(match.first, "a"))
end)
