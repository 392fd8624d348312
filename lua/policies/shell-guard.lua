-- No command rides on an argument: what a shell would run instead of read is refused. docs/policies.md
local policy = require "ephor.policy"
local match = require "ephor.match"
local settings = require "ephor.settings"

local own = settings.of("shell-guard", {
  exempt = {}, -- globs of tools that are meant to get such arguments
  -- Members of the arguments that reach a command line: nothing in them but words.
  names = { "command", "cmd", "args", "argv", "arguments", "options", "flags", "filename", "file", "path", "host", "hostname", "branch" },
  -- Members that are prose or code: not looked at.
  texts = { "content", "contents", "text", "body", "prompt", "message", "query", "description", "code", "old_text", "new_text" },
  -- What makes a command of a text that follows ';', '&', '|' or a new line.
  commands = {
    "awk", "base64", "bash", "busybox", "cat", "chmod", "chown", "cmd", "cp", "crontab", "curl", "dash", "dd", "dig", "echo", "env", "eval",
    "exec", "export", "find", "ftp", "gcc", "head", "id", "kill", "ksh", "ln", "ls", "mkfifo", "mkfs", "mv", "nc", "ncat", "netcat", "node",
    "nohup", "nslookup", "perl", "php", "ping", "pip", "powershell", "printf", "ps", "pwd", "pwsh", "python", "python2", "python3", "reboot", "rm", "ruby",
    "scp", "sed", "sh", "shutdown", "sleep", "socat", "source", "ssh", "su", "sudo", "tail", "tar", "tee", "telnet", "tftp", "touch", "uname", "wget",
    "whoami", "xargs", "xxd", "zsh",
  },
})

local exempt = match.globs(own.exempt)
local commands = match.set(own.commands)

-- What is a substitution or a shell in any text.
local signs = { "$(", "${", "`", "<(", ">(", "$ifs", "$'", "\0", "powershell", "cmd.exe" }
-- What may be one: looked at closer, by patterns of bounded length.
local hints = { "/bin/", "cmd ", "rm ", ">", "&&", "||" }
local patterns = { "/bin/%l*sh%f[%W]", "%f[%w]cmd +/c", "%f[%w]rm +%-%-?%l*[rf]", ">>? ?/", "&& ?%l", "|| ?%l" }

-- Quotes and backslashes change nothing for a shell: ;c'u'rl is ;curl.
local function judge_text(text)
  local lower = text:lower()
  if match.any(lower, signs) then
    return "it holds what a shell would run"
  end
  if match.any(lower, hints) then
    for i = 1, #patterns do
      if lower:find(patterns[i]) then
        return "it holds what a shell would run"
      end
    end
  end
  local at = match.first(lower, ";&|\r\n")
  if at then
    local bare = match.strip(lower:sub(at), "'\"\\")
    at = 1
    while at do
      local word = bare:match("^[;&|\r\n%s({!]+([%w_./-]+)", at)
      if word and (commands[word] or commands[word:match("[^/]+$") or ""]) then
        return ("it would run '%s'"):format(word:sub(1, 40))
      end
      at = match.first(bare, ";&|\r\n", at + 1)
    end
  end
end

local function judge_word(text)
  if text:find("[;&|`$<>(){}!*?\\'\"\r\n\0]") then
    return "it has a character that means something to a shell"
  end
  return judge_text(text)
end

local is_word, is_text = match.names(own.names), match.names(own.texts)

local function named(key)
  if is_word(key) then
    return true
  elseif is_text(key) then
    return false
  end
end

local function judge(text, where, as)
  if as == "key" then
    return judge_text(text) and "a name in the arguments holds what a shell would run"
  end
  local why
  if as == "named" then
    why = judge_word(text)
  else
    why = judge_text(text)
  end
  return why and ("the argument '%s' is refused: %s"):format(where, why)
end

return policy {
  name = "shell-guard",
  principle = "P3",
  description = "Arguments are data: what a shell would run is refused.",
  match = { protocol = "mcp", method = "tools/call" },
  needs = { "tool", "arguments" },
  call = function(c)
    if exempt(c.tool) then
      return
    end
    local why = match.walk(c.arguments, named, judge)
    if why then
      return c:deny(why)
    end
  end,
}
