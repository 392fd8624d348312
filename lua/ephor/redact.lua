--- Finds and masks what identifies people or opens doors, in texts and in JSON values.
--
--     local redact = require "ephor.redact"
--     redact.text("mail ann@example.com", { "email" })      --> "mail [email]", 1, { email = 1 }
--     redact.value(c.arguments, { "ssn", "credit_card" })   --> a copy with masks, how many, how many of each
--     redact.find("4111 1111 1111 1111")                    --> { { kind = "credit_card", from = 1, to = 19 } }
--
-- These are for judging. To change what goes on, a policy says c:redact(kinds) or r:redact(kinds), which know all but the last
-- two kinds.
--
-- | kind        | what is found |
-- |-------------|---------------|
-- | ssn         | a US social security number written 123-45-6789 or with spaces |
-- | email       | an address with a domain that has a dot |
-- | credit_card | 13 to 19 digits, also in groups, that pass the check of Luhn |
-- | iban        | an IBAN in capitals that passes the check of ISO 7064; spaces between groups may be there |
-- | phone       | an international number: `+` and 8 to 15 digits |
-- | api_key     | keys with known beginnings: OpenAI, Anthropic, AWS, GitHub, GitLab, Slack, Google, Hugging Face and others |
-- | jwt         | JSON Web Tokens |
-- | private_key | a PEM block of a private key, up to its end or that of the text |
-- | bearer      | the token behind "Bearer", of 16 characters or more |
-- | ip          | an IPv4 or IPv6 address |
--
-- What it can't see: names, addresses of houses, phone numbers without a country, numbers in words, other alphabets' digits, text that
-- is encoded (base64) or in pictures, and a secret that is split over two values. All patterns take time in proportion to the
-- text, and are charged.
local native = require("ephor.native").text
local match = require "ephor.match"

local redact = {}

local detectors = {}

-- In C, shared with c:redact.
for _, kind in ipairs(native.sensitive_kinds) do
  detectors[kind] = function(text, add)
    local from, to = native.sensitive(kind, text, 1)
    while from do
      add(from, to)
      from, to = native.sensitive(kind, text, to + 1)
    end
  end
end

function detectors.bearer(text, add)
  if not match.any(text:lower(), { "bearer" }) then
    return
  end
  local at = 1
  while true do
    local _, to = text:find("[Bb][Ee][Aa][Rr][Ee][Rr][%s:]+", at)
    if not to then
      break
    end
    local token = text:match("^[%w._~+/%-]+=*", to + 1) or ""
    if #token >= 16 then
      add(to + 1, to + #token)
    end
    at = to + #token + 1
  end
end

-- From one '.' or ':' between two digits, or '::', to the next: prose has few of them.
function detectors.ip(text, add)
  local at = match.first(text, ".:")
  local behind = 0
  while at do
    if at > behind and text:find("^[%x:][.:][%x:]", at - 1) or (at == 1 and text:find("^::")) then
      local left = text:sub(math.max(behind + 1, at - 45), at - 1):reverse():match("^[%x:.]*")
      local from = at - #left
      local run = text:match("^[%x:.]+", from)
      local whole = run:gsub("%.+$", "")
      local v4 = whole:match("^(%d+%.%d+%.%d+%.%d+):?%d*$")
      local address = v4 or (#whole <= 45 and whole:find(":.*:") and whole)
      if address and match.address(address) and not (from > 1 and text:find("^[%w_]", from - 1)) and not text:find("^[%w_]", from + #run) then
        add(from, from + #address - 1)
      end
      behind = from + #run - 1
    end
    at = match.first(text, ".:", math.max(at, behind) + 1)
  end
end

local all = {}
for kind in pairs(detectors) do
  all[#all + 1] = kind
end
table.sort(all)

--- The names of all kinds, sorted.
-- @return list of strings
function redact.kinds()
  return { table.unpack(all) }
end

local function check_kinds(kinds)
  if kinds == nil then
    return all
  end
  for _, kind in ipairs(kinds) do
    if not detectors[kind] then
      error(("redact: there is no kind '%s'"):format(tostring(kind)), 3)
    end
  end
  return kinds
end

-- The first in the text wins, of those that begin together the longest.
local function scan(text, kinds)
  local hits = {}
  for i = 1, #kinds do
    local kind = kinds[i]
    detectors[kind](text, function(from, to)
      hits[#hits + 1] = { kind = kind, from = from, to = to }
    end)
  end
  if #hits < 2 then
    return hits
  end
  table.sort(hits, function(a, b)
    if a.from ~= b.from then
      return a.from < b.from
    end
    if a.to ~= b.to then
      return a.to > b.to
    end
    return a.kind < b.kind
  end)
  local kept, behind = {}, 0
  for i = 1, #hits do
    if hits[i].from > behind then
      kept[#kept + 1] = hits[i]
      behind = hits[i].to
    elseif hits[i].to > behind then -- half covered: the mask grows over it
      kept[#kept].to = hits[i].to
      behind = hits[i].to
    end
  end
  return kept
end

--- Where in a text something is.
-- @param text string
-- @param kinds list of kinds, or nil for all; raises for an unknown one
-- @return list of {kind, from, to}: positions of bytes, in order, without overlaps
function redact.find(text, kinds)
  return scan(text, check_kinds(kinds))
end

local function mask(text, kinds, counts)
  local hits = scan(text, kinds)
  if #hits == 0 then
    return text, 0
  end
  local out, behind = {}, 1
  for i = 1, #hits do
    local hit = hits[i]
    out[#out + 1] = text:sub(behind, hit.from - 1)
    out[#out + 1] = "[" .. hit.kind .. "]"
    counts[hit.kind] = (counts[hit.kind] or 0) + 1
    behind = hit.to + 1
  end
  out[#out + 1] = text:sub(behind)
  return table.concat(out), #hits
end

--- A text with each find in it replaced by its kind in brackets.
-- @param text string
-- @param kinds list of kinds, or nil for all; raises for an unknown one
-- @return the text, how many were found, and a table of how many of each kind
function redact.text(text, kinds)
  local counts = {}
  local out, n = mask(text, check_kinds(kinds), counts)
  return out, n, counts
end

--- A JSON value with each find in its strings, keys and numbers replaced: a number becomes the text of its kind.
-- @param value what ephor.json.decode returns; it is not changed
-- @param kinds list of kinds, or nil for all; raises for an unknown one, and for nesting deeper than 64
-- @return a copy (the very value when nothing was found), how many, and a table of how many of each kind
function redact.value(value, kinds)
  local counts, total = {}, 0
  local list = check_kinds(kinds)
  local function walk(v, depth)
    local kind = type(v)
    if kind == "string" then
      local out, n = mask(v, list, counts)
      total = total + n
      return out
    elseif kind == "number" then
      local text = math.type(v) == "integer" and tostring(v) or ("%.17g"):format(v)
      local out, n = mask(text, list, counts)
      total = total + n
      return n > 0 and out or v
    elseif kind ~= "table" then
      return v
    end
    if depth > 64 then
      error("redact: nested deeper than 64")
    end
    local copy, before = {}, total
    for key, member in pairs(v) do
      copy[type(key) == "string" and walk(key, depth) or key] = walk(member, depth + 1)
    end
    return total > before and copy or v
  end
  local out = walk(value, 1)
  return out, total, counts
end

--- The kinds that are in a JSON value, without a copy of it.
-- @param value, kinds as in redact.value
-- @return table of how many of each kind; how many in all
-- Example: redact.count({ to = "ann@example.com" })  --> { email = 1 }, 1
function redact.count(value, kinds)
  local _, total, counts = redact.value(value, kinds)
  return counts, total
end

return redact
