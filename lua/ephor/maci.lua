--- MACI: the separation of powers among agents, as ACGS-2 has it. Roles, what each may do, and who may validate whom.
--
--     local maci = require "ephor.maci"
--     maci.may("executive", "propose")          --> true
--     maci.may("executive", "validate")         --> false, "the role executive may not validate"
--     maci.may_validate("judicial", "judge-1", "executive", "planner-1")   --> true
--
-- | role        | actions                                     | validates what these made          |
-- |-------------|---------------------------------------------|------------------------------------|
-- | executive   | propose, synthesize, query                  |                                    |
-- | legislative | extract_rules, synthesize, query            |                                    |
-- | judicial    | validate, audit, query, emergency_cooldown  | executive, legislative, implementer |
-- | monitor     | monitor_activity, query                     |                                    |
-- | auditor     | audit, query                                | monitor, controller, implementer   |
-- | controller  | enforce_control, query                      |                                    |
-- | implementer | synthesize, query                           |                                    |
--
-- Nobody validates what they made themselves, whatever their role. What is not in the table is not allowed: an unknown role, an
-- unknown action, a missing name.
local match = require "ephor.match"

local maci = {}

local function set(...)
  return match.set { ... }
end

local actions = {
  executive = set("propose", "synthesize", "query"),
  legislative = set("extract_rules", "synthesize", "query"),
  judicial = set("validate", "audit", "query", "emergency_cooldown"),
  monitor = set("monitor_activity", "query"),
  auditor = set("audit", "query"),
  controller = set("enforce_control", "query"),
  implementer = set("synthesize", "query"),
}

local validates = {
  judicial = set("executive", "legislative", "implementer"),
  auditor = set("monitor", "controller", "implementer"),
}

local known_actions = {}
for _, of_role in pairs(actions) do
  for action in pairs(of_role) do
    known_actions[action] = true
  end
end

local function sorted(of)
  local list = {}
  for key in pairs(of) do
    list[#list + 1] = key
  end
  table.sort(list)
  return list
end

--- The names of all roles, or of all actions (of one role), sorted.
-- @param role string or nil
-- @return list; of an unknown role nil
-- Example: maci.actions("auditor")  --> { "audit", "query" }
function maci.roles()
  return sorted(actions)
end
function maci.actions(role)
  if role == nil then
    return sorted(known_actions)
  end
  return actions[role] and sorted(actions[role])
end

--- May a role do that?
-- @param role, action strings; nil is nobody and nothing
-- @return true; or false and why
function maci.may(role, action)
  local of_role = role ~= nil and actions[role]
  if not of_role then
    return false, ("'%s' is no role"):format(tostring(role))
  end
  if action == nil or not known_actions[action] then
    return false, ("'%s' is no action"):format(tostring(action))
  end
  if not of_role[action] then
    return false, ("the role %s may not %s"):format(role, action)
  end
  return true
end

--- May one agent validate what another made? Who may are the judicial and, as ACGS-2's constraints have it, the auditor, whose
-- action for it is `audit`.
-- @param role of who validates
-- @param agent its name (an agent's id or SPIFFE ID)
-- @param author_role, author the same of who made it
-- @return true; or false and why: an unknown role, a missing name, their own output, a role that is not theirs to validate
function maci.may_validate(role, agent, author_role, author)
  if type(agent) ~= "string" or agent == "" or type(author) ~= "string" or author == "" then
    return false, "it is not known who made what is to be validated, or who validates"
  end
  if agent == author then
    return false, "nobody validates what they made themselves"
  end
  if role == nil or not actions[role] then
    return false, ("'%s' is no role"):format(tostring(role))
  end
  if author_role == nil or not actions[author_role] then
    return false, ("'%s' is no role"):format(tostring(author_role))
  end
  local of_role = validates[role]
  if not of_role or not of_role[author_role] then
    return false, ("the role %s may not validate what the role %s made"):format(role, author_role)
  end
  return true
end

--- Compiles who has which role. An agent has one role: who fits patterns of two has none.
-- @param list {role = list of globs of SPIFFE IDs (or of agents' names), ...}; raises for an unknown role
-- @return function(id): the role; or nil and why
-- Example: maci.role_of { judicial = { "spiffe://cluster.local/ns/court/sa/*" } } (c.peer.id)
function maci.role_of(list)
  local roles = {}
  for role, patterns in pairs(list) do
    if not actions[role] then
      error(("maci.role_of: '%s' is no role"):format(tostring(role)), 2)
    end
    roles[role] = match.globs(patterns)
  end
  return function(id)
    local found
    if type(id) ~= "string" or id == "" then
      return nil, "the caller has no verified identity, so no role"
    end
    for role, fits in pairs(roles) do
      if fits(id) then
        if found then
          return nil, ("%s has two roles"):format(id)
        end
        found = role
      end
    end
    return found, not found and ("%s has no role"):format(id) or nil
  end
end

return maci
