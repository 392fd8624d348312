-- No agent but an administrator's may start a shell by way of a tool. docs/policies.md
local policy = require "ephor.policy"
local match = require "ephor.match"
local settings = require "ephor.settings"

local own = settings.of("no-shell-tools", {
  administrators = { "spiffe://*/sa/admin" },
  -- A tool is known by the words of its name: "Run-Shell", "os.shell" and "shell_v2" all have the word "shell".
  words = {
    "bash", "cmd", "exec", "execute", "powershell", "pwsh", "sh", "shell", "spawn", "subprocess", "sudo", "terminal", "tty", "zsh",
  },
  names = { "*run*command*", "*runcommand*", "*system*command*" },
})

local words = match.set(own.words)
local fits = match.globs(own.names)
local is_administrator = match.globs(own.administrators)

local function is_shell(tool)
  local lower = tool:gsub("(%l)(%u)", "%1 %2"):lower()
  if fits(tool:lower()) then
    return true
  end
  for word in lower:gmatch("%a+") do
    if words[word] then
      return true
    end
  end
  return false
end

return policy {
  name = "no-shell-tools",
  principle = "P3",
  description = "Tools that run commands are for administrators only.",
  match = { protocol = "mcp", method = "tools/call" },
  needs = { "tool" },
  call = function(c)
    if not c.tool then
      return c:deny("a call without a tool's name")
    end
    if is_shell(c.tool) and not is_administrator(c.peer.id) then
      return c:deny("the tool '" .. c.tool .. "' runs shell commands, which only administrators may")
    end
  end,
}
