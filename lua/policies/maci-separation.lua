-- MACI: each agent does what its role may, and nobody validates what they made. docs/policies.md
local policy = require "ephor.policy"
local maci = require "ephor.maci"
local match = require "ephor.match"
local settings = require "ephor.settings"

local own = settings.of("maci-separation", {
  match = { protocol = "mcp", method = "tools/call" }, -- for the bus: { path = "/api/v1/messages" }; {}: all calls
  roles = settings.required "table", -- role = list of globs of SPIFFE IDs
  actions = settings.required "table", -- glob of a tool, or of the bus's message_type = action
  agents = {}, -- short name = SPIFFE ID, for names in arguments that are not SPIFFE IDs
  sender = { "from_agent", "sender", "sender_id" }, -- members that say who calls: they must say the truth
  author = { "author", "author_id", "made_by" }, -- members that name who made what is validated
  output = { "output_id", "target_output_id" }, -- members that name what is made, and then validated
})

local role_of = maci.role_of(own.roles)
local makes = match.set { "propose", "synthesize", "extract_rules" }
local judges = match.set { "validate", "audit" }
local MEMORY = "7d"

local exact, patterns = {}, {}
for name, action in pairs(own.actions) do
  local known = false
  for _, other in ipairs(maci.actions()) do
    known = known or other == action
  end
  if not known then
    error(("_maci-separation_config.lua: '%s' is no action"):format(tostring(action)))
  end
  if name:find("[*?]") then
    patterns[name] = action
  else
    exact[name] = action
  end
end

-- The action of a tool or message: of its very name, else of the patterns that fit, which must agree.
local function action_of(name)
  if type(name) ~= "string" then
    return nil, "the call says no tool and no message_type"
  end
  local action = exact[name]
  if action then
    return action
  end
  for pattern, other in pairs(patterns) do
    if match.glob(pattern, name) then
      if action and action ~= other then
        return nil, ("'%s' is two actions"):format(name)
      end
      action = other
    end
  end
  return action, not action and ("'%s' is no action of any role"):format(name) or nil
end

-- The one name in the members `names` at the top of the arguments, as a SPIFFE ID; nil when there is none; false when there are
-- two, or it is no agent's.
local function agent_in(content, names)
  local found
  for _, name in ipairs(names) do
    local value = content[name]
    if value ~= nil then
      local id = type(value) == "string" and (own.agents[value] or value)
      if not id or not id:find("^spiffe://") or (found and found ~= id) then
        return false
      end
      found = id
    end
  end
  return found
end

local function output_in(content)
  local found
  for _, name in ipairs(own.output) do
    local value = content[name]
    if value ~= nil then
      if type(value) ~= "string" or value == "" or #value > 128 or (found and found ~= value) then
        return false
      end
      found = value
    end
  end
  return found
end

-- Why it may not be, or nil.
local function judge_maker(c, output)
  local maker = output and c:recall("made:" .. output)
  if maker and maker ~= c.peer.id then
    return "what has that name was made by another"
  end
  if output then
    c:remember("made:" .. output, c.peer.id, MEMORY)
  end
end

local function judge_validation(c, role, action, content, output)
  local author = agent_in(content, own.author)
  if author == false then
    return "it is not clear who made what is to be validated"
  end
  local maker = output and c:recall("made:" .. output)
  if maker and author and maker ~= author then
    return "what is to be validated was made by another than the call says"
  end
  author = author or maker
  if not author and action == "audit" and not output then
    return nil -- of the whole, not of an output
  end
  local author_role, why = role_of(author or "")
  if not author_role then
    return "who made what is to be validated has no role: " .. why
  end
  local good
  good, why = maci.may_validate(role, c.peer.id, author_role, author)
  return not good and why or nil
end

return policy {
  name = "maci-separation",
  principle = "P4",
  description = "Separation of powers: roles, and who may validate whom.",
  match = next(own.match) and own.match or nil,
  needs = { "tool", "arguments", "body" },
  call = function(c)
    local peer, content = c.peer.id, match.content(c)
    content = type(content) == "table" and content or {}
    local role, why = role_of(peer)
    if not role then
      return c:deny(why, { code = "maci.role" })
    end
    local sender = agent_in(content, own.sender)
    if sender == false or (sender and sender ~= peer) then
      return c:deny("the sender that the call names is not the caller", { code = "maci.sender" })
    end
    local action
    action, why = action_of(c.tool or content.message_type)
    if not action then
      return c:deny(why, { code = "maci.action" })
    end
    local good
    good, why = maci.may(role, action)
    if not good then
      return c:deny(why, { code = "maci.action" })
    end
    local output = output_in(content)
    if output == false then
      return c:deny("it is not clear which output the call is about", { code = "maci.validation" })
    end
    if judges[action] then
      why = judge_validation(c, role, action, content, output)
    else
      why = makes[action] and judge_maker(c, output) or nil
    end
    if why then
      return c:deny(why, { code = "maci.validation" })
    end
    c:tag("maci", role .. "/" .. action)
  end,
}
