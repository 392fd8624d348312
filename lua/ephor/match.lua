--- Globs, lists, addresses, paths, hosts and URLs: what rules compare with.
--
--     local match = require "ephor.match"
--     local tools = match.globs { "search", "calendar.*" }
--     tools("calendar.read")                               --> true, "calendar.*"
--     local inside = match.cidrs { "10.0.0.0/8", "fd00::/8" }
--     inside("10.1.2.3")                                   --> true
--     match.normalise("/data/%2e%2e/etc/passwd")           --> "/etc/passwd"
--     match.under("/data/../etc/passwd", { "/data" })      --> false, "it is not below /data"
--     match.url("https://api.example.com/v1")              --> {scheme = "https", host = "api.example.com", ...}
--
-- Functions that take a list (globs, cidrs, hosts) compile it once, when the policy is loaded, and raise for a bad entry;
-- those that look at what a caller sent never raise for a string: they return nil or false, and why.
local native = require("ephor.native").text
local json = require "ephor.json"

local match = {}

local function check_list(name, list)
  if type(list) ~= "table" then
    error(("match.%s: a list is needed, not a %s"):format(name, type(list)), 3)
  end
  local n = 0
  for key, entry in pairs(list) do
    n = n + 1
    if type(entry) ~= "string" or entry == "" or math.type(key) ~= "integer" then
      error(("match.%s: entries are strings with something in them"):format(name), 3)
    end
  end
  if n ~= #list then
    error(("match.%s: the list has a hole"):format(name), 3)
  end
end

--- True when `text` fits `pattern`: '*' is any run of bytes (also of '/' and '.'), '?' one byte.
-- @param pattern, text strings; `text` nil: false
-- @return boolean
-- Example: match.glob("plan.*", "plan.create")  --> true
function match.glob(pattern, text)
  return type(text) == "string" and native.glob(pattern, text)
end

--- Compiles a list of patterns.
-- @param list of globs; an empty list fits nothing
-- @return function(text): true and the pattern that fits, or false. What is no string fits nothing.
-- Example: match.globs { "gpt-4o*", "o3" } "o3"  --> true, "o3"
function match.globs(list)
  check_list("globs", list)
  local exact, patterns = {}, {}
  for _, entry in ipairs(list) do
    if entry:find("[*?]") then
      patterns[#patterns + 1] = entry
    else
      exact[entry] = true
    end
  end
  return function(text)
    if type(text) ~= "string" then
      return false
    end
    if exact[text] then
      return true, text
    end
    for i = 1, #patterns do
      if native.glob(patterns[i], text) then
        return true, patterns[i]
      end
    end
    return false
  end
end

--- A set of a list: set[value] is true for what is in it.
-- @param list of strings
-- @return table
function match.set(list)
  check_list("set", list)
  local set = {}
  for _, entry in ipairs(list) do
    set[entry] = true
  end
  return set
end

-- --- fast looks at long texts: a pattern takes some steps a byte, these next to none ---

--- Where the first of some bytes is.
-- @param text string
-- @param bytes string: each byte of it is looked for
-- @param from position to begin at (1)
-- @return position, or nil
-- Example: match.first("a;b|c", "|;")  --> 2
match.first = native.first

--- A text without some bytes.
-- @param text string
-- @param bytes string: each byte of it is taken out
-- @return string
-- Example: match.strip("c'u'rl", "'")  --> "curl"
match.strip = native.strip

--- Which of some texts is in a text.
-- @param text string
-- @param list of strings, taken as they are: no patterns
-- @return the first of the list that is there, or nil
-- Example: match.any("a $(id)", { "`", "$(" })  --> "$("
match.any = native.any

-- --- addresses ---

--- The bytes of a numeric address.
-- @param text "192.0.2.1" or "2001:db8::1"; only full spellings (no "127.1", no "0x7f000001", no leading zeros, no brackets,
--             no zone). IPv4 inside IPv6 (::ffff:192.0.2.1) counts as IPv4.
-- @return a string of 4 or 16 bytes, or nil
function match.address(text)
  return type(text) == "string" and native.address(text) or nil
end

local function network(entry)
  local text, bits = entry:match("^([^/]+)/(%d%d?%d?)$")
  local bytes = native.address(text or entry)
  if not bytes then
    error(("match.cidrs: '%s' is no network"):format(entry), 3)
  end
  if text and text:find(":", 1, true) and #bytes == 4 then
    error(("match.cidrs: write '%s' as an IPv4 network"):format(entry), 3)
  end
  bits = bits and math.tointeger(tonumber(bits)) or #bytes * 8
  if bits > #bytes * 8 then
    error(("match.cidrs: '%s' has more bits than its address"):format(entry), 3)
  end
  local whole, rest = bits // 8, bits % 8
  local mask = rest > 0 and (0xff << (8 - rest)) & 0xff or nil
  if (mask and bytes:byte(whole + 1) & ~mask & 0xff ~= 0) or bytes:find("[^\0]", whole + (mask and 2 or 1)) then
    error(("match.cidrs: '%s' has bits behind its prefix"):format(entry), 3)
  end
  return { n = #bytes, head = bytes:sub(1, whole), whole = whole, mask = mask, last = mask and bytes:byte(whole + 1) }
end

--- Compiles a list of networks.
-- @param list "10.0.0.0/8", "2001:db8::/32", or single addresses. Raises for bits behind the prefix ("10.0.0.1/8").
-- @return function(address): true when one of the networks has it; false for what is no address
-- Example: match.cidrs { "127.0.0.0/8", "::1" } "127.0.0.1"  --> true
function match.cidrs(list)
  check_list("cidrs", list)
  local networks = {}
  for i, entry in ipairs(list) do
    networks[i] = network(entry)
  end
  return function(address)
    local bytes = match.address(address)
    if not bytes then
      return false
    end
    for i = 1, #networks do
      local n = networks[i]
      if n.n == #bytes and bytes:sub(1, n.whole) == n.head
        and (not n.mask or bytes:byte(n.whole + 1) & n.mask == n.last) then
        return true
      end
    end
    return false
  end
end

-- --- percent-encoding and paths ---

local function byte_of(digits)
  return string.char(tonumber(digits, 16))
end

--- Undoes percent-encoding, once. What is still encoded afterwards was encoded twice, to get past a check like this one.
-- @param text string
-- @return the decoded text; or nil and why: a '%' without two digits, something encoded twice, a control character, bytes that
--         are no UTF-8 (overlong forms of '/' and '.' are none)
-- Example: match.decode("a%20b")  --> "a b"
-- Example: match.decode("%252e")  --> nil, "it is encoded twice"
function match.decode(text)
  if text:find("%", 1, true) then
    if text:gsub("%%%x%x", ""):find("%", 1, true) then
      return nil, "a '%' without two digits"
    end
    text = text:gsub("%%(%x%x)", byte_of)
    if text:find("%%%x%x") then
      return nil, "it is encoded twice"
    end
  end
  if text:find("%c") then
    return nil, "a control character"
  end
  if text:find("[\x80-\xff]") and not utf8.len(text) then
    return nil, "bytes that are no UTF-8"
  end
  return text
end

-- Characters that some systems turn into '.', '/' or '\': full-width and small forms, leaders, other slashes.
local lookalikes = {
  "\u{2024}", "\u{2025}", "\u{2026}", "\u{2044}", "\u{2215}", "\u{2216}", "\u{29F8}", "\u{FE52}", "\u{FE68}", "\u{FF0E}",
  "\u{FF0F}", "\u{FF3C}",
}

--- A path as the file system will read it: decoded once, '\' as '/', without empty and '.' segments, '..' applied.
-- @param path string, relative or absolute, of a file or of a URL (without the query)
-- @return the path ("/a/b", "a/b", "" for the relative root); or nil and why: what match.decode refuses, a '..' that
--         leaves the root or the start, segments like '..;x' and '...' that some servers take for '..', characters that look
--         like '.' or '/', a drive ("c:"), a share ("//host"), a home ("~")
-- Example: match.normalise("/a/./b//../c")  --> "/a/c"
-- Example: match.normalise("../x")          --> nil, "it leaves its root"
function match.normalise(path)
  local decoded, why = match.decode(path)
  if not decoded then
    return nil, why
  end
  if decoded:find("[\xe2\xef]") then
    for i = 1, #lookalikes do
      if decoded:find(lookalikes[i], 1, true) then
        return nil, "a character that looks like '.' or '/'"
      end
    end
  end
  decoded = decoded:gsub("\\", "/")
  if decoded:find("^//") then
    return nil, "a network share"
  end
  if decoded:find("^%a:") then
    return nil, "a drive"
  end
  if decoded:find("^~") then
    return nil, "a home directory"
  end
  local out = {}
  for segment in decoded:gmatch("[^/]+") do
    if segment == ".." then
      if #out == 0 then
        return nil, "it leaves its root"
      end
      out[#out] = nil
    elseif segment:find("^%.%.+%s*;") or segment:find("^%.%.[%. ]+$") or segment:find("^%. +$") then
      return nil, ("the segment '%s'"):format(segment)
    elseif segment ~= "." then
      out[#out + 1] = segment
    end
  end
  return (decoded:sub(1, 1) == "/" and "/" or "") .. table.concat(out, "/")
end

--- True when a path is one of the roots or below one, after match.normalise; never by half a segment.
-- @param path string
-- @param roots list of normalised paths, such as { "/data", "/tmp/agent" }; "/" is the root of all absolute paths
-- @return true; or false and why
-- Example: match.under("/database/x", { "/data" })  --> false, "it is not below /data"
function match.under(path, roots)
  local normal, why = match.normalise(path)
  if not normal then
    return false, why
  end
  for i = 1, #roots do
    local root = roots[i]
    if normal == root or (root == "/" and normal:sub(1, 1) == "/") or normal:sub(1, #root + 1) == root .. "/" then
      return true
    end
  end
  return false, "it is not below " .. table.concat(roots, " or ")
end

-- --- hosts and URLs ---

-- A name or numeric address in lower case, without brackets and the last dot; nil and why.
local function check_host(host)
  host = host:lower()
  local inner = host:match("^%[(.*)%]$")
  if inner then
    local bytes = native.address(inner)
    if not bytes or not inner:find(":", 1, true) then
      return nil, "no IPv6 address in the brackets"
    end
    return inner
  end
  host = host:gsub("%.$", "")
  if host == "" or #host > 253 or host:find("[^%w%.%-_]") then
    return nil, "no name of a host"
  end
  if host:find("^[%.%-]") or host:find("..", 1, true) or host:find("%-$") then
    return nil, "no name of a host"
  end
  -- A last part that is a number makes it an address for many a resolver: 2130706433, 0x7f.1, 010.0.0.1.
  local last = host:match("[^%.]+$")
  if (last:find("^%d+$") or last:find("^0x%x*$")) and not native.address(host) then
    return nil, "a number in place of an address"
  end
  return host
end

--- Compiles a list of hosts.
-- @param list "example.com" is that name alone, "*.example.com" each name below it (not itself); numeric addresses are
--             compared by what they mean. Raises for other uses of '*'.
-- @return function(host): true and the entry, or false. `host` in any case, with or without a last dot, without a port.
-- Example: match.hosts { "*.example.com" } "API.example.com"  --> true, "*.example.com"
function match.hosts(list)
  check_list("hosts", list)
  local exact, below = {}, {}
  for _, entry in ipairs(list) do
    local wild, name = entry:match("^(%*%.)(.+)$")
    local good = native.address(entry) and entry or check_host(name or entry)
    if not good or (wild and native.address(good)) then
      error(("match.hosts: '%s' is neither a host nor '*.' and a domain"):format(entry), 2)
    end
    if wild then
      below[good] = entry
    else
      exact[native.address(good) or good] = entry
    end
  end
  return function(host)
    local good = type(host) == "string" and check_host(host)
    if not good then
      return false
    end
    local address = native.address(good)
    local hit = exact[address or good]
    if hit then
      return true, hit
    end
    local rest = not address and good:match("^[^%.]+%.(.+)$")
    while rest do
      if below[rest] then
        return true, below[rest]
      end
      rest = rest:match("^[^%.]+%.(.+)$")
    end
    return false
  end
end

--- Takes a URL apart, and refuses what two programs could read in two ways.
-- @param text an absolute URL with "://"
-- @return {scheme = lower case, host = lower case, port = number or nil, path, query = text or nil}; or nil and why: white
--         space, control characters, '\', user names and passwords, an encoded or non-ASCII host, a number for a host, a bad port
-- Example: match.url("https://good.example@evil.example/")  --> nil, "a user name"
function match.url(text)
  local scheme, rest = text:match("^(%a[%w+.-]*)://(.*)$")
  if not scheme then
    return nil, "no absolute URL"
  end
  if rest:find("[%c%s\\]") then
    return nil, "white space, a control character or a '\\'"
  end
  local authority, tail = rest:match("^([^/?#]*)(.*)$")
  if authority:find("@", 1, true) then
    return nil, "a user name"
  end
  local host, port = authority, nil
  local name, digits = authority:match("^(.*):(%d*)$")
  if name and (not name:find(":", 1, true) or name:find("%]$")) then
    host, port = name, math.tointeger(tonumber(digits))
    if not port or port > 65535 then
      return nil, "a bad port"
    end
  end
  local good, why = check_host(host)
  if not good then
    return nil, why
  end
  local path, query = tail:match("^([^?#]*)%??([^#]*)")
  return { scheme = scheme:lower(), host = good, port = port, path = path == "" and "/" or path,
           query = query ~= "" and query or nil }
end

--- All URLs in a text, also without a scheme ("//host/") and with one that hides behind white space or is written strangely
-- ("https:/host", "https:\\host"), each up to where prose goes on.
-- @param text string
-- @return a list of strings, at most 1000; each to be given to match.url
-- Example: match.urls("see https://a.example/x, or //b.example")  --> { "https://a.example/x", "//b.example" }
function match.urls(text)
  local found, at = {}, native.first(text, "/\\")
  while at and #found < 1000 do -- two slashes, either way round
    local run = text:match("^[/\\][/\\][^%s\"'<>`%)%]}|,]+", at)
    if run then
      local scheme = text:sub(math.max(1, at - 32), at - 1):match("(%a[%w+.-]*):[%s%c]*$")
      if scheme or at == 1 or not text:find("^[%w_.)%-]", at - 1) then -- "a//b" is no host
        found[#found + 1] = (scheme and scheme .. ":" or "") .. run
      end
    end
    at = native.first(text, "/\\", at + (run and #run or 1))
  end
  at = native.first(text, ":")
  while at and #found < 1000 do -- one slash or none: browsers and many a library take them for two
    local scheme = text:sub(math.max(1, at - 5), at - 1):lower():match("%a+$")
    if scheme and (scheme:find("https?$") or scheme:find("wss?$") or scheme:find("ftp$")) then
      local rest = text:match("^[^%s\"'<>`%)%]}|,]+", at + 1)
      if rest and not rest:find("^[/\\][/\\]") then
        found[#found + 1] = scheme .. ":" .. rest
      end
    end
    at = native.first(text, ":", at + 1)
  end
  return found
end

-- Where a member is: "a.b[2]".
local function place(path, key)
  if type(key) ~= "string" then
    return ("%s[%d]"):format(path, key)
  end
  return path == "" and key or path .. "." .. key
end

local function check_depth(depth)
  if depth > 64 then
    error("nested deeper than 64")
  end
end

local function plain(name)
  return (name:lower():gsub("[_%-]", ""))
end

--- Compiles a list of names of members. They are compared without case, '_' and '-': "tenantId", "tenant_id" and "Tenant-ID" are one
-- name.
-- @param list of names
-- @return function(name): true when it is one of them
-- Example: match.names { "file_path" } "filePath"  --> true
function match.names(list)
  check_list("names", list)
  local set = {}
  for _, name in ipairs(list) do
    set[plain(name)] = true
  end
  return function(name)
    return set[plain(name)] or false
  end
end

--- Calls `judge(text, where, as)` for each string in a JSON value, values and keys, however deep (64 at most; deeper raises). What the
-- name of a member says holds for all that is below it.
-- @param value what ephor.json.decode returns, such as c.arguments; what is no table or string has none
-- @param named function(key): true: what is there and below is judged as "named"; false: a text there is prose, and not judged; nil:
--        the name says nothing
-- @param judge function(text, where, as): where is like "a.b[2]", as is "key", "named" or nil; a true result ends the walk
-- @return what judge returned, or nil
-- Example: match.walk(c.arguments, match.names { "cmd" }, function(text, where, as) return as == "named" and where end)
function match.walk(value, named, judge)
  local function walk(v, where, as, depth)
    if type(v) == "string" then
      return judge(v, where, as)
    elseif type(v) ~= "table" then
      return nil
    end
    check_depth(depth)
    for key, member in pairs(v) do
      local there, says, result = place(where, key)
      if type(key) == "string" then
        says = named(key)
        result = judge(key, there, "key")
      end
      if not result and (says ~= false or type(member) ~= "string") then
        result = walk(member, there, says and "named" or as, depth + 1)
      end
      if result then
        return result
      end
    end
  end
  return walk(value, "", nil, 0)
end

local function says_nothing() end

--- Calls `visit(text, path)` for each string in a JSON value: values and keys, however deep (64 at most; deeper raises).
-- @param value as in match.walk
-- @param visit function(text, path): path is like "a.b[2]"; a true result ends the walk
-- @return what visit returned, or nil
-- Example: match.strings({ a = { "x" } }, function(s, path) print(path, s) end)  -- a[1] x; a (a key) is visited too
function match.strings(value, visit)
  return match.walk(value, says_nothing, visit)
end

--- Calls `visit(value, path)` for each member of an object, however deep (64 at most), whose key is one of `names` (as match.names
-- compares them).
-- @param value as in match.walk
-- @param names list of names
-- @param visit function(value, path); a true result ends the walk
-- @return what visit returned, or nil
-- Example: match.members(c.arguments, { "tenant_id" }, function(v) return v ~= "acme" and "another tenant" end)
function match.members(value, names, visit)
  local wanted = match.names(names)
  local function walk(v, path, depth)
    if type(v) ~= "table" then
      return nil
    end
    check_depth(depth)
    for key, member in pairs(v) do
      local where = place(path, key)
      local result = type(key) == "string" and wanted(key) and visit(member, where) or walk(member, where, depth + 1)
      if result then
        return result
      end
    end
  end
  return walk(value, "", 0)
end

--- What a call carries, as a Lua value: its arguments, or else its body: decoded when it begins like an object or a list of JSON,
-- as text when it doesn't.
-- @param c the call; the policy must name "arguments" (and "body") in its `needs`, so that it is never asked about what can't be seen
-- @return the value, or nil when there is none. Raises for a body that begins like JSON and is none, or has a key twice.
function match.content(c)
  if c.arguments ~= nil then
    return c.arguments
  end
  local body = c.body
  if body and body:find("^[\xef\xbb\xbf \t\r\n]*[{%[]") then
    return json.decode((body:gsub("^\xef\xbb\xbf", "")))
  end
  return body
end

return match
