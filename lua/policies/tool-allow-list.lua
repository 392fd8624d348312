-- Which agent may call which tools: what is not on the list is refused.
local policy = require "ephor.policy"

-- The end of the caller's SPIFFE ID, and its tools.
local allowed = {
  ["/sa/planner"] = { search = true, calendar = true, ["plan.create"] = true },
  ["/sa/writer"] = { search = true, ["document.read"] = true, ["document.write"] = true },
}

local function tools_of(peer)
  local account = peer:match("/sa/[^/]+$")
  return account and allowed[account] or {}
end

return policy {
  name = "tool-allow-list",
  principle = "P1",
  description = "Each agent has the tools of its task and no others.",
  match = { protocol = "mcp", method = "tools/call" },
  needs = { "tool" },
  call = function(c)
    if not tools_of(c.peer.id)[c.tool or ""] then
      return c:deny(("the tool '%s' is not on the list of %s"):format(c.tool or "?", c.peer.id))
    end
    c:tag("tool-allow-list", "listed")
  end,
}
