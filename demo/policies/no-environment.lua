-- The tool server would show its whole environment to whoever asks. Not to agents.
local policy = require "ephor.policy"

return policy {
  name = "no-environment",
  principle = "secrets stay where they are",
  match = { protocol = "mcp", method = "tools/call" },
  call = function(c)
    if c.tool == "get-env" then
      return c:deny("the environment of a server is not for agents; use a tool that answers your question")
    end
  end,
}
