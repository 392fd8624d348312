-- No agent but an administrator's may start a shell by way of a tool.
local policy = require "ephor.policy"

local shells = { bash = true, exec = true, run_command = true, sh = true, shell = true, terminal = true }

return policy {
  name = "no-shell-tools",
  principle = "P3",
  description = "Tools that run commands are for administrators only.",
  match = { protocol = "mcp", method = "tools/call" },
  needs = { "tool" },
  call = function(c)
    if c.tool and shells[c.tool:lower()] and not c.peer.id:find("/sa/admin$") then
      return c:deny("the tool '" .. c.tool .. "' runs shell commands, which only administrators may")
    end
  end,
}
