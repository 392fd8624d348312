--- Finds and masks what identifies people or opens doors, in texts and in JSON values.
--
--     local redact = require "ephor.redact"
--     redact.text("mail ann@example.com", { "email" })      --> "mail [email]", 1, { email = 1 }
--     redact.value(c.arguments, { "ssn", "credit_card" })   --> a copy with masks, how many, how many of each
--     redact.find("4111 1111 1111 1111")                    --> { { kind = "credit_card", from = 1, to = 19 } }
--
-- | kind        | what is found |
-- |-------------|---------------|
-- | email       | an address with a domain that has a dot |
-- | phone       | `+` and 8 to 15 digits, or ten digits written in the North American way with separators |
-- | ssn         | a US social security number written 123-45-6789 or with spaces; not the numbers that are never given out |
-- | credit_card | 13 to 19 digits, also in groups, that begin like a card and pass the check of Luhn |
-- | iban        | an IBAN of a country's right length that passes the check of ISO 7064; spaces between groups may be there |
-- | api_key     | keys with known beginnings: OpenAI, Anthropic, AWS, GitHub, GitLab, Slack, Google, Hugging Face, npm, PyPI, Stripe, SendGrid |
-- | bearer      | the token behind "Bearer" |
-- | jwt         | JSON Web Tokens |
-- | private_key | a PEM block of a private key, up to its end or that of the text |
-- | ip          | an IPv4 or IPv6 address |
--
-- What it can't see: names, addresses of houses, numbers in words, other alphabets' digits, text that is encoded (base64) or in
-- pictures, and a secret that is split over two values. All patterns take time in proportion to the text, and are charged.
local native = require("ephor.native").text

local redact = {}

local detectors = {}

-- True when the byte before `at` is one of `class`.
local function behind_one(text, at, class)
  return at > 1 and text:find(class, at - 1) == at - 1
end

-- Calls check(from) for each place where `plain` begins; it answers where to go on.
local function each(text, plain, check)
  local at = text:find(plain, 1, true)
  while at do
    at = text:find(plain, check(at), true)
  end
end

function detectors.email(text, add)
  local behind = 1
  each(text, "@", function(at)
    local left = text:sub(math.max(behind, at - 64), at - 1):reverse():match("^[%w._%%+%-]+")
    local domain = left and text:match("^[%w.%-]+", at + 1)
    domain = domain and domain:gsub("[.%-]+$", "")
    if domain and #domain <= 253 and domain:find("^%w.*%.%a[%w%-]*%w$") then
      add(at - #left, at + #domain)
      behind = at + #domain + 1
    end
    return at + 1
  end)
end

function detectors.phone(text, add)
  each(text, "+", function(at)
    local run = text:sub(at, at + 27):match("^%+[%d ().%-]+")
    run = run and run:gsub("[ ().%-]+$", "")
    local digits = run and select(2, run:gsub("%d", ""))
    if digits and digits >= 8 and digits <= 15 then
      add(at, at + #run - 1)
      return at + #run
    end
    return at + 1
  end)
  local at = 1
  while true do
    local from, to = text:find("%(?%f[%d]%d%d%d%)?[ .%-]? ?%d%d%d[ .%-]%d%d%d%d%f[%D]", at)
    if not from then
      break
    end
    add(from, to)
    at = to + 1
  end
end

function detectors.ssn(text, add)
  local at = 1
  while true do
    local from, to, area, a, group, b, serial = text:find("%f[%d](%d%d%d)([ %-])(%d%d)([ %-])(%d%d%d%d)%f[%D]", at)
    if not from then
      break
    end
    if a == b and area ~= "000" and area ~= "666" and area < "900" and group ~= "00" and serial ~= "0000" then
      add(from, to)
    end
    at = from + 3
  end
end

--- True when digits pass the check of Luhn.
-- @param digits string of digits only
-- @return boolean
-- Example: redact.luhn("4111111111111111")  --> true
function redact.luhn(digits)
  local sum, double = 0, false
  for i = #digits, 1, -1 do
    local d = digits:byte(i) - 48
    if double then
      d = d * 2
      if d > 9 then
        d = d - 9
      end
    end
    sum, double = sum + d, not double
  end
  return sum % 10 == 0
end

local function is_card(digits)
  return #digits >= 13 and #digits <= 19 and digits:find("^[2-6]") and not digits:find("^(%d)%1+$") and redact.luhn(digits)
end

-- Groups of digits with one space or hyphen in between: each group may be where a card begins.
local function cards_in(groups, add)
  local i = 1
  while i <= #groups do
    local digits, hit = "", nil
    for k = i, #groups do
      digits = digits .. groups[k].text
      if #digits > 19 then
        break
      end
      if is_card(digits) then
        hit = k
      end
    end
    if hit then
      add(groups[i].from, groups[hit].to)
    end
    i = (hit or i) + 1
  end
end

function detectors.credit_card(text, add)
  local groups, behind, n = {}, -1, 0
  for from, digits, to in text:gmatch("()(%d+)()") do
    local joined = from - behind == 1 and behind_one(text, from, "^[ %-]")
    if not joined and n > 0 then
      if n >= 13 then
        cards_in(groups, add)
      end
      groups, n = {}, 0
    end
    if #digits <= 19 then
      groups[#groups + 1] = { from = from, text = digits, to = to - 1 }
      n = n + #digits
    elseif n > 0 then
      cards_in(groups, add)
      groups, n = {}, 0
    end
    behind = to
  end
  if n >= 13 then
    cards_in(groups, add)
  end
end

local iban_lengths = {
  AD = 24, AE = 23, AL = 28, AT = 20, AZ = 28, BA = 20, BE = 16, BG = 22, BH = 22, BR = 29, BY = 28, CH = 21, CR = 22, CY = 28,
  CZ = 24, DE = 22, DK = 18, DO = 28, EE = 20, EG = 29, ES = 24, FI = 18, FO = 18, FR = 27, GB = 22, GE = 22, GI = 23, GL = 18,
  GR = 27, GT = 28, HR = 21, HU = 28, IE = 22, IL = 23, IQ = 23, IS = 26, IT = 27, JO = 30, KW = 30, KZ = 20, LB = 28, LC = 32,
  LI = 21, LT = 20, LU = 20, LV = 21, LY = 25, MC = 27, MD = 24, ME = 22, MK = 19, MR = 27, MT = 31, MU = 30, NL = 18, NO = 15,
  PK = 24, PL = 28, PS = 29, PT = 25, QA = 29, RO = 24, RS = 22, SA = 24, SC = 31, SE = 24, SI = 19, SK = 24, SM = 27, ST = 25,
  SV = 28, TL = 23, TN = 24, TR = 26, UA = 29, VA = 22, VG = 24, XK = 20,
}

--- True when a text is an IBAN: of its country's length, and with the right check digits.
-- @param text without spaces, in any case
-- @return boolean
-- Example: redact.iban("DE89370400440532013000")  --> true
function redact.iban(text)
  text = text:upper()
  if iban_lengths[text:sub(1, 2)] ~= #text or text:find("[^%u%d]") then
    return false
  end
  local rest = 0
  for c in (text:sub(5) .. text:sub(1, 4)):gmatch(".") do
    local value = tonumber(c, 36)
    rest = (rest * (value > 9 and 100 or 10) + value) % 97
  end
  return rest == 1
end

function detectors.iban(text, add)
  local at = 1
  while true do
    local from, to, country = text:find("%f[%w](%a%a)%d%d", at)
    if not from then
      break
    end
    at = to + 1
    local want = iban_lengths[country:upper()]
    if want then
      local packed, last = {}, nil
      for position, c in text:sub(from, from + 48):gmatch("()(.)") do
        if c:find("%w") then
          packed[#packed + 1] = c
          if #packed == want then
            last = from + position - 1
            break
          end
        elseif c ~= " " and c ~= "-" then
          break
        end
      end
      if last and not text:find("^%w", last + 1) and redact.iban(table.concat(packed)) then
        add(from, last)
        at = last + 1
      end
    end
  end
end

-- Beginning, and how many of [A-Za-z0-9_-] (and '.', where said) follow at least.
local key_beginnings = {
  { "sk-", 20 }, { "sk_live_", 16 }, { "sk_test_", 16 }, { "rk_live_", 16 }, { "AKIA", 16 }, { "ASIA", 16 }, { "ghp_", 30 },
  { "gho_", 30 }, { "ghu_", 30 }, { "ghs_", 30 }, { "ghr_", 30 }, { "github_pat_", 30 }, { "glpat-", 20 }, { "xoxb-", 10 },
  { "xoxp-", 10 }, { "xoxa-", 10 }, { "xoxr-", 10 }, { "xoxs-", 10 }, { "AIza", 35 }, { "hf_", 30 }, { "npm_", 36 },
  { "pypi-", 50 }, { "SG.", 40 },
}

function detectors.api_key(text, add)
  for i = 1, #key_beginnings do
    local beginning, least = key_beginnings[i][1], key_beginnings[i][2]
    each(text, beginning, function(at)
      local tail = text:match(beginning == "SG." and "^[%w_.%-]*" or "^[%w_%-]*", at + #beginning)
      if #tail >= least and not behind_one(text, at, "^%w") then
        add(at, at + #beginning + #tail - 1)
      end
      return at + #beginning + #tail
    end)
  end
end

function detectors.bearer(text, add)
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

function detectors.jwt(text, add)
  each(text, "eyJ", function(from)
    local head = text:match("^[%w_%-]+", from)
    local rest = text:match("^%.[%w_%-]+%.[%w_%-]*", from + #head)
    if rest and not behind_one(text, from, "^[%w_%-]") then
      add(from, from + #head + #rest - 1)
    end
    return from + #head + (rest and #rest or 0)
  end)
end

function detectors.private_key(text, add)
  each(text, "-----BEGIN ", function(from)
    if not text:match("^[%u%d ]*PRIVATE KEY", from + 11) then
      return from + 11
    end
    local _, to = text:find("-----END ", from + 11, true)
    if to then
      _, to = text:find("-----", to, true)
    end
    add(from, to or #text)
    return (to or #text) + 1
  end)
end

function detectors.ip(text, add)
  for from, run in text:gmatch("()([%x:.]+)") do
    local whole = run:gsub("%.+$", "")
    local v4 = whole:match("^(%d+%.%d+%.%d+%.%d+):?%d*$")
    local address = v4 or (#whole <= 45 and whole:find(":.*:") and whole)
    if address and native.address(address) and not behind_one(text, from, "^[%w_]") and not text:find("^[%w_]", from + #run) then
      add(from, from + #address - 1)
    end
  end
end

local all = { "api_key", "bearer", "credit_card", "email", "iban", "ip", "jwt", "phone", "private_key", "ssn" }

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
