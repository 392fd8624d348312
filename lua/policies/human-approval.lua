-- What has much impact waits for a human: refused with a hint where to approve, and passed with a signed approval of this very
-- call. docs/policies.md says what an approval holds.
local policy = require "ephor.policy"
local crypto = require "ephor.crypto"
local json = require "ephor.json"
local jwt = require "ephor.jwt"
local match = require "ephor.match"
local settings = require "ephor.settings"

local own = settings.of("human-approval", {
  match = { protocol = "mcp", method = "tools/call" }, -- for the bus: { path = "/api/v1/messages" }; {}: all calls
  keys = settings.required "string", -- JWKS of who may approve: the text
  issuer = settings.required "string", -- `iss` of approvals
  where = settings.required "string", -- where to approve: shown to the caller
  audience = "ephor",
  threshold = 0.8, -- ACGS-2's; 0.1 to 0.95
  scores = {}, -- glob of tools (or message_types) = impact 0 to 1; the highest that fits counts
  unlisted = 1.0, -- of what no glob fits
  impact_header = "x-impact-score", -- the caller's own word: it can raise the impact, never lower it
  approval_header = "x-approval",
  lifetime = 900, -- seconds that an approval may be good for at most
  single_use = true, -- an approval is good for one call; false: for any number of the same call until it expires
})

local function is_score(value)
  return type(value) == "number" and value >= 0 and value <= 1
end

local keys = jwt.keys(own.keys)
if not (own.threshold >= 0.1 and own.threshold <= 0.95) or not is_score(own.unlisted) then
  error("_human-approval_config.lua: the threshold is 0.1 to 0.95, scores are 0 to 1")
end
if not (own.lifetime >= 1 and own.lifetime <= 86400) then
  error("_human-approval_config.lua: the lifetime is 1 to 86400 seconds")
end
for name, score in pairs(own.scores) do
  if not is_score(score) then
    error(("_human-approval_config.lua: the score of '%s' is not 0 to 1"):format(tostring(name)))
  end
end

local function listed_score(name)
  local found
  for pattern, score in pairs(own.scores) do
    if match.glob(pattern, name) and (not found or score > found) then
      found = score
    end
  end
  return found or own.unlisted
end

-- What is claimed, in a header or in the message: 1 when it is malformed.
local function claimed_score(c, content)
  local highest = 0
  local header = c.headers[own.impact_header]
  if header then
    local score = header:find("^[01]%.?%d*$") and tonumber(header)
    highest = is_score(score) and score or 1
  end
  local of_message = type(content) == "table" and content.impact_score
  if of_message ~= nil and of_message ~= false and of_message ~= json.null then
    highest = math.max(highest, is_score(of_message) and of_message or 1)
  end
  return highest
end

-- In the header, or in MCP's _meta, as a client of MCP can't set headers call by call.
local function approval_in(c)
  local token = c.headers[own.approval_header]
  if token or c.protocol ~= "mcp" or c.batch or not c.body then
    return token
  end
  local body = json.decode(c.body)
  local meta = type(body) == "table" and type(body.params) == "table" and body.params._meta
  return type(meta) == "table" and meta["ephor.dev/approval"] or nil
end

-- Why the approval isn't good for this call, or nil.
local function judge_approval(c, token, name, digest)
  local claims, why = jwt.verify(token, {
    keys = keys, algorithms = { "EdDSA" }, issuer = own.issuer, audience = own.audience, now = c.now, leeway = 0, lifetime = own.lifetime,
    required = { "sub", "jti" }, type = "approval+jwt",
  })
  if not claims then
    return why
  end
  if claims.digest ~= digest then
    return "the approval is of another call"
  end
  if claims.tool ~= name or claims.method ~= c.method or claims.agent ~= c.peer.id then
    return "the approval is of another tool, method or agent"
  end
  if type(claims.sub) ~= "string" or claims.sub == "" or claims.sub == c.peer.id then
    return "nobody approves their own calls"
  end
  if type(claims.jti) ~= "string" or claims.jti == "" or #claims.jti > 128 then
    return "the approval has no number"
  end
  if own.single_use and c:count("used:" .. claims.jti, 1, own.lifetime + 1) > 1 then
    return "the approval was used already"
  end
  c:tag("approved_by", claims.sub:sub(1, 200))
end

return policy {
  name = "human-approval",
  principle = "P6",
  description = "What has much impact needs the signed approval of a human.",
  match = next(own.match) and own.match or nil,
  needs = { "tool", "arguments", "body" },
  call = function(c)
    local content = match.content(c)
    local name = c.tool or (type(content) == "table" and content.message_type) or nil
    local impact = math.max(type(name) == "string" and listed_score(name) or 1, claimed_score(c, content))
    local token = approval_in(c)
    c:header(own.approval_header, nil) -- it is for us, and no business of who is called
    if impact < own.threshold then
      return
    end
    if c.peer.id == "" then
      return c:deny("the caller has no verified identity, so nobody can approve it", { code = "approval.identity" })
    end
    local call = { method = c.method, tool = name, arguments = content == nil and json.null or content }
    local digest = "sha256:" .. crypto.hex(crypto.sha256(json.canonical(call)))
    local why = "none was given"
    if token ~= nil then
      why = judge_approval(c, token, name, digest)
      if not why then
        return
      end
    end
    return c:deny(("an impact of %.2f needs a human's approval (%s). Ask for it at %s with the digest %s"):format(impact, why, own.where, digest),
      { code = "approval.required" })
  end,
}
