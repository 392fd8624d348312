-- Tools get at files below the roots only, whichever way a path is written. docs/policies.md
local policy = require "ephor.policy"
local match = require "ephor.match"
local settings = require "ephor.settings"

local own = settings.of("path-guard", {
  roots = { "/workspace", "/tmp" },
  relative = true, -- paths without a leading '/' may be used, when they don't leave where they start
  -- Members of the arguments that are paths, in any spelling (file_path, filePath).
  names = {
    "path", "paths", "file", "files", "filename", "filepath", "file_path", "dir", "directory", "folder", "cwd", "root", "src", "dst",
    "source", "destination", "source_path", "target_path", "output_path", "input_path", "log_file", "workdir",
  },
  -- Members that are prose or code: not looked at.
  texts = { "content", "contents", "text", "body", "prompt", "message", "query", "description", "code", "old_text", "new_text" },
  -- What no argument may begin with, whatever its name.
  forbidden = {
    "/etc", "/proc", "/sys", "/dev", "/boot", "/root", "/home", "/var/run", "/run", "/var/lib/kubelet", "/var/log", "~",
  },
})

-- What may hide a '..': encoding, control characters, and the first bytes of look-alikes.
local hiding = { "%" }
for byte = 0, 255 do
  if byte < 32 or byte == 127 or byte >= 0xc0 then
    hiding[#hiding + 1] = string.char(byte)
  end
end
hiding = table.concat(hiding)

-- A '..' as any decoder may come to see it: encoded once or more often, with '\' or a look-alike for '/'.
local function leaves(text)
  if not match.first(text, hiding) then
    return text:find("..", 1, true) and ("/" .. text .. "/"):find("[/\\]%.%.[;/\\]")
  end
  for _ = 1, 4 do
    local plain = text:gsub("[%c]", ""):gsub("\\", "/"):gsub("\u{FF0E}", "."):gsub("\u{2024}", "."):gsub("\u{2025}", "..")
      :gsub("\u{FF0F}", "/"):gsub("\u{2215}", "/"):gsub("\u{2044}", "/"):gsub("\u{FF3C}", "/"):gsub("\xc0\xae", "."):gsub("\xc0\xaf", "/")
    if ("/" .. plain .. "/"):find("/%.%.[;/]") then
      return true
    end
    local decoded = text:gsub("%%(%x%x)", function(digits)
      return string.char(tonumber(digits, 16))
    end)
    if decoded == text then
      return false
    end
    text = decoded
  end
  return true -- encoded five times: nobody means well
end

local function of_file_url(text)
  local rest = text:match("^%s*[Ff][Ii][Ll][Ee]:(.*)$")
  return rest and (rest:match("^//[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt](/.*)$") or rest:match("^//(/.*)$") or rest)
end

local function is_forbidden(path)
  for i = 1, #own.forbidden do
    local root = own.forbidden[i]
    if path:sub(1, #root) == root and (root == "~" or #path == #root or path:find("^/", #root + 1)) then
      return true
    end
  end
  return false
end

-- What is wrong with a path, or nil.
local function judge_path(text)
  local path = of_file_url(text) or text
  local normal, why = match.normalise(path)
  if not normal then
    return why
  end
  if normal:sub(1, 1) ~= "/" then
    return not own.relative and "it is relative" or nil
  end
  local good
  good, why = match.under(path, own.roots)
  return not good and why or nil
end

-- What is wrong with a string whose name says nothing.
local function judge_text(text)
  if leaves(text) then
    return "it has a '..'"
  end
  local path = of_file_url(text)
  if path then
    return judge_path(text)
  end
  if text:find("^%s*[/~]") then
    local start = text:match("^%s*(.*)$"):gsub("//+", "/"):gsub("/%./", "/")
    return is_forbidden(start) and "it is not for agents" or nil
  end
end

local function show(text)
  return #text > 80 and text:sub(1, 80) .. "..." or text
end

local is_path, is_text = match.names(own.names), match.names(own.texts)

local function named(key)
  if is_path(key) then
    return true
  elseif is_text(key) then
    return false
  end
end

local function judge(text, where, as)
  if as == "key" then
    return leaves(text) and "a name with '..' in the arguments"
  end
  local why
  if as == "named" then
    why = judge_path(text)
  else
    why = judge_text(text)
  end
  return why and ("the path '%s' in '%s' is refused: %s"):format(show(text), where, why)
end

return policy {
  name = "path-guard",
  principle = "P3",
  description = "Tools read and write files below the roots only.",
  match = { protocol = "mcp", method = { "tools/call", "resources/read", "resources/subscribe" } },
  needs = { "arguments", "uri" },
  call = function(c)
    local why = match.walk(c.arguments, named, judge) or c.uri and judge(c.uri, "uri")
    if why then
      return c:deny(why)
    end
  end,
}
