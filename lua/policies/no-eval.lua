-- No features that run text as a program, and none that are deprecated (ACGS-2: eval, legacy_sync). docs/policies.md
local policy = require "ephor.policy"
local match = require "ephor.match"
local settings = require "ephor.settings"

local own = settings.of("no-eval", {
  match = { protocol = "mcp", method = "tools/call" }, -- for the bus: { path = "/api/v1/messages" }; {}: all calls
  features = { "eval", "exec", "legacy_sync" }, -- as a tool, a message_type, a member, or an entry of a list of features
  lists = { "features", "capabilities", "flags", "modes", "mode", "feature" },
  exempt = {}, -- globs of tools that are meant to get code
  -- Members that are prose: not looked at for code.
  texts = { "prompt", "message", "description", "query" },
  code = true, -- look for code in the other strings
})

local function plain(name)
  return (name:lower():gsub("[^%w]", ""))
end

local features = {}
for _, name in ipairs(own.features) do
  features[plain(name)] = name
end
local exempt = match.globs(own.exempt)
local is_text = {}
for _, name in ipairs(own.texts) do
  is_text[plain(name)] = true
end

-- Calls of what runs text or commands, in the languages of agents. White space is taken out before.
local calls = {
  "__import__", "newfunction(", "function('", 'function("', "os.system", "os.popen", "os.exec", "subprocess.", "pty.spawn", "child_process", "execsync", "spawnsync",
  "vm.runin", "settimeout('", 'settimeout("', "setinterval('", 'setinterval("', "getruntime(", "processbuilder", "loadstring(", "instance_eval", "class_eval", "shell_exec(",
  "passthru(", "proc_open(", "pickle.loads", "yaml.unsafe_load", "__builtins__", "__globals__", "constructor.constructor", "javascript:",
}
-- Those that other words end with.
local words = { "eval(", "exec(", "execfile(", "compile(", "dofile(" }

local function judge_code(text)
  local squeezed = match.strip(text:lower(), " \t\r\n\v\f\\")
  if match.any(squeezed, calls) then
    return true
  end
  local word = match.any(squeezed, words)
  return word and (squeezed:find("%f[%w_]eval%(") or squeezed:find("%f[%w_]exec%(") or squeezed:find("%f[%w_]execfile%(")
    or squeezed:find("%f[%w_]compile%(") or squeezed:find("%f[%w_]dofile%("))
end

local function is_feature(value)
  return type(value) == "string" and features[plain(value)]
end

-- A feature that is asked for: {eval = true}, features = {"eval"}, mode = "legacy_sync". {eval = false} asks for none.
local function feature_in(content)
  local by_key = match.members(content, own.features, function(value)
    return value ~= false and "a member asks for a feature that is not allowed"
  end)
  if by_key then
    return by_key
  end
  return match.members(content, own.lists, function(value)
    if is_feature(value) then
      return ("the feature '%s' is not allowed"):format(is_feature(value))
    end
    return match.strings(value, function(text)
      return is_feature(text) and ("the feature '%s' is not allowed"):format(is_feature(text)) or nil
    end)
  end)
end

local function code_in(value, depth)
  if type(value) == "string" then
    return judge_code(value)
  elseif type(value) ~= "table" then
    return false
  end
  if depth > 64 then
    error("nested deeper than 64")
  end
  for key, member in pairs(value) do
    local prose = type(key) == "string" and type(member) == "string" and is_text[plain(key)]
    if (type(key) == "string" and judge_code(key)) or (not prose and code_in(member, depth + 1)) then
      return true
    end
  end
  return false
end

return policy {
  name = "no-eval",
  principle = "P3",
  description = "Nothing that runs text as a program, and no deprecated features.",
  match = next(own.match) and own.match or nil,
  needs = { "tool", "arguments", "body" },
  call = function(c)
    if exempt(c.tool) then
      return
    end
    local content = match.content(c)
    local name = c.tool or (type(content) == "table" and content.message_type) or nil
    if is_feature(name) then
      return c:deny(("'%s' is not allowed: it runs text as a program, or is deprecated"):format(name), { code = "feature.forbidden" })
    end
    local why = feature_in(content)
    if why then
      return c:deny(why, { code = "feature.forbidden" })
    end
    if own.code and code_in(content, 0) then
      return c:deny("the arguments hold code that runs text as a program", { code = "feature.code" })
    end
  end,
}
