--- Signed tokens: JSON Web Tokens (RFC 7519) in the compact form, verified by a set of public keys (JWKS, RFC 7517).
--
--     local jwt = require "ephor.jwt"
--     local keys = jwt.keys(require "_issuer_keys")          -- a file beside the policy: return [[{"keys": [...]}]]
--     local claims, why = jwt.verify(token, {
--       keys = keys, algorithms = { "ES256" }, issuer = "https://login.example", audience = "agents", now = c.now,
--     })
--     if not claims then return c:deny(why) end
--
-- jwt.remote fetches the keys from the issuer instead.
--
-- Algorithms: RS256, RS384, RS512, PS256 (RSA of 2048 to 8192 bits), ES256 (P-256), ES384 (P-384), EdDSA (Ed25519). There is no
-- `none` and no HS256: a public key never makes a signature. The key's type decides which algorithms it verifies, so a token
-- can't choose another use for it; a key's `alg`, `use` and `key_ops` are kept to. Headers that point to keys (jku, x5u, jwk, x5c)
-- are not looked at; `crit` is refused.
--
-- Reasons are for people, and never hold the token. Not supported: encrypted tokens, the JSON serialisation, ES512 and ES256K.
local native = require("ephor.native").crypto
local json = require "ephor.json"

local jwt = {}

local TOKEN_BYTES_MAX = 16384
local KEYS_MAX = 100

-- By the type of key in C: which `alg` it may verify.
local algorithms_of = {
  ["RSA"] = { RS256 = true, RS384 = true, RS512 = true, PS256 = true },
  ["P-256"] = { ES256 = true },
  ["P-384"] = { ES384 = true },
  ["Ed25519"] = { EdDSA = true },
}

local known = {}
for _, of_type in pairs(algorithms_of) do
  for name in pairs(of_type) do
    known[name] = true
  end
end

local function bytes_of(jwk, member)
  local value = jwk[member]
  return type(value) == "string" and native.from_base64url(value) or nil
end

local function type_of(jwk)
  if jwk.kty == "RSA" then
    return "RSA", "n", "e"
  elseif jwk.kty == "EC" and (jwk.crv == "P-256" or jwk.crv == "P-384") then
    return jwk.crv, "x", "y"
  elseif jwk.kty == "OKP" and jwk.crv == "Ed25519" then
    return "Ed25519", "x"
  end
end

local function may_verify(jwk)
  if jwk.use ~= nil and jwk.use ~= "sig" then
    return false
  end
  if jwk.key_ops == nil then
    return true
  end
  for _, operation in ipairs(type(jwk.key_ops) == "table" and jwk.key_ops or {}) do
    if operation == "verify" then
      return true
    end
  end
  return false
end

--- Reads a set of keys, once, when the policy is loaded.
-- @param set the text of a JWKS, or the same as a table {keys = {...}}; at most 100 keys
-- @return the keys, for jwt.verify. Keys of another use or an unknown type are left out, as RFC 7517 asks. Raises when the set is
--         none, when no key is left, when two keys have the same `kid`, when a key of a known type is malformed or too weak, and
--         when one is private or symmetric: such a file should not be there.
-- Example: jwt.keys('{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}')
function jwt.keys(set)
  if type(set) == "string" then
    set = json.decode(set)
  end
  if type(set) ~= "table" or type(set.keys) ~= "table" then
    error("jwt.keys: a set of keys is needed: {\"keys\": [...]}", 2)
  end
  local keys = { by_kid = {}, list = {} }
  for i, jwk in ipairs(set.keys) do
    if i > KEYS_MAX or type(jwk) ~= "table" then
      error(("jwt.keys: at most %d keys, each a table"):format(KEYS_MAX), 2)
    end
    local name = type(jwk.kid) == "string" and jwk.kid or "#" .. i
    if jwk.d ~= nil or jwk.p ~= nil or jwk.k ~= nil or jwk.kty == "oct" then
      error(("jwt.keys: the key '%s' is private or symmetric"):format(name), 2)
    end
    local kind, first, second = type_of(jwk)
    if kind and may_verify(jwk) then
      local a, b = bytes_of(jwk, first), second and bytes_of(jwk, second) or nil
      local key = a and (b or not second) and native.key(kind, a, b)
      if not key then
        error(("jwt.keys: the key '%s' is no good key of %s"):format(name, kind), 2)
      end
      if jwk.alg ~= nil and not algorithms_of[kind][jwk.alg] and known[jwk.alg] then
        error(("jwt.keys: the key '%s' of %s can't be of %s"):format(name, kind, tostring(jwk.alg)), 2)
      end
      if jwk.kid ~= nil then
        if type(jwk.kid) ~= "string" or keys.by_kid[jwk.kid] then
          error(("jwt.keys: the kid '%s' is there twice, or no string"):format(name), 2)
        end
      end
      if jwk.alg == nil or algorithms_of[kind][jwk.alg] then
        local entry = { key = key, kind = kind, kid = jwk.kid, alg = jwk.alg }
        keys.list[#keys.list + 1] = entry
        if jwk.kid then
          keys.by_kid[jwk.kid] = entry
        end
      end
    end
  end
  if #keys.list == 0 then
    error("jwt.keys: there is no key that verifies signatures", 2)
  end
  return keys
end

local function fits(entry, alg)
  return algorithms_of[entry.kind][alg] and (entry.alg == nil or entry.alg == alg)
end

-- With a `kid` the key of that name; without one, the only key that could have made it.
local function choose(keys, header)
  if header.kid ~= nil then
    local entry = type(header.kid) == "string" and keys.by_kid[header.kid]
    if not entry then
      return nil, "the token's key is not known"
    end
    if not fits(entry, header.alg) then
      return nil, "the token's algorithm is not that of its key"
    end
    return entry
  end
  local found
  for i = 1, #keys.list do
    if fits(keys.list[i], header.alg) then
      if found then
        return nil, "the token names no key, and there are several"
      end
      found = keys.list[i]
    end
  end
  return found, not found and "there is no key for the token's algorithm" or nil
end

local function part(text)
  local bytes = native.from_base64url(text)
  local good, value = pcall(json.decode, bytes or "")
  -- An array and an object are both tables here; '{' tells them apart.
  return good and type(value) == "table" and bytes:find("^[ \t\r\n]*{") and value or nil
end

--- Verifies the signature alone.
-- @param token the compact form; at most 16 KiB
-- @param keys of jwt.keys
-- @param algorithms list of what is accepted; raises for one that is not in the list above
-- @return the payload's claims and the header; or nil and why
function jwt.verify_signature(token, keys, algorithms)
  if type(algorithms) ~= "table" or #algorithms == 0 then
    error("jwt: a list of algorithms is needed", 2)
  end
  if type(token) ~= "string" or #token > TOKEN_BYTES_MAX then
    return nil, "no token, or one over 16 KiB"
  end
  local head, payload, signature = token:match("^([%w_%-]+)%.([%w_%-]+)%.([%w_%-]+)$")
  if not head then
    return nil, "the token is not of three parts"
  end
  local header = part(head)
  local bytes = native.from_base64url(signature)
  if not header or not bytes then
    return nil, "the token is malformed"
  end
  local accepted = false
  for _, name in ipairs(algorithms) do
    if not known[name] then
      error(("jwt: there is no algorithm '%s'"):format(tostring(name)), 2)
    end
    accepted = accepted or name == header.alg
  end
  if not accepted then
    return nil, "the token's algorithm is not accepted"
  end
  if header.crit ~= nil or header.b64 ~= nil then
    return nil, "the token asks for extensions"
  end
  local entry, why = choose(keys, header)
  if not entry then
    return nil, why
  end
  if not entry.key:verify(header.alg, head .. "." .. payload, bytes) then
    return nil, "the token's signature is wrong"
  end
  local claims = part(payload)
  if not claims then
    return nil, "the token's claims are malformed"
  end
  return claims, header
end

-- A time claim: a finite number, or nothing.
local function time_claim(claims, name)
  local value = claims[name]
  if value == nil then
    return nil, true
  end
  return value, type(value) == "number" and value == value and value > -1e15 and value < 1e15
end

local function has_audience(claims, wanted)
  if type(claims.aud) == "string" then
    return claims.aud == wanted
  end
  for _, audience in ipairs(type(claims.aud) == "table" and claims.aud or {}) do
    if audience == wanted then
      return true
    end
  end
  return false
end

local options_known = {
  keys = true, algorithms = true, now = true, leeway = true, issuer = true, audience = true, required = true, lifetime = true,
  type = true,
}

--- Verifies a token: its signature, its times, and who it is from and for.
-- @param token the compact form
-- @param options
--   keys        of jwt.keys; required
--   algorithms  list of what is accepted; required
--   now         seconds since 1970, c.now; required
--   issuer      the `iss` it must have; required, or false: any
--   audience    what `aud` must be or hold; required, or false: any
--   leeway      seconds by which clocks may differ (30)
--   required    list of further claims that must be there; `exp` always must
--   lifetime    seconds that may be at most between `iat` and `exp`; then `iat` is required
--   type        what the header's `typ` must be, in any case; nil: not looked at
-- @return claims and header; or nil and why. Raises for an option that is missing or unknown.
function jwt.verify(token, options)
  for name in pairs(options) do
    if not options_known[name] then
      error(("jwt.verify: there is no option '%s'"):format(tostring(name)), 2)
    end
  end
  if type(options.now) ~= "number" or not options.keys or options.issuer == nil or options.audience == nil then
    error("jwt.verify: keys, now, issuer and audience are required", 2)
  end
  local claims, header = jwt.verify_signature(token, options.keys, options.algorithms)
  if not claims then
    return nil, header
  end
  local leeway, now = options.leeway or 30, options.now
  local exp, exp_good = time_claim(claims, "exp")
  local nbf, nbf_good = time_claim(claims, "nbf")
  local iat, iat_good = time_claim(claims, "iat")
  if not (exp and exp_good and nbf_good and iat_good) then
    return nil, "the token's times are malformed, or it never expires"
  end
  if now >= exp + leeway then
    return nil, "the token has expired"
  end
  if (nbf and now < nbf - leeway) or (iat and now < iat - leeway) then
    return nil, "the token is not valid yet"
  end
  if options.lifetime and (not iat or exp - iat > options.lifetime) then
    return nil, "the token is valid for too long"
  end
  if options.issuer and claims.iss ~= options.issuer then
    return nil, "the token is of another issuer"
  end
  if options.audience and not has_audience(claims, options.audience) then
    return nil, "the token is for another audience"
  end
  if options.type and (type(header.typ) ~= "string" or header.typ:lower() ~= options.type:lower()) then
    return nil, "the token is of another type"
  end
  for _, name in ipairs(options.required or {}) do
    if claims[name] == nil or claims[name] == json.null then
      return nil, ("the token has no claim '%s'"):format(name)
    end
  end
  return claims, header
end

--- Keys that an issuer publishes: fetched by c:http through a cluster of the configuration when they are first needed, then kept, by
-- each worker for itself.
-- @param source
--   cluster  name of the cluster, over TLS: who answers here decides whose signatures are good; required
--   path     such as "/.well-known/jwks.json"; required
--   host     the :authority of the request (the cluster's name)
--   every    seconds after which the keys are fetched anew (300)
--   stale    seconds for which old keys are still good while none can be fetched (3600)
--   timeout  seconds (2)
--   unknown  seconds between two fetches for a kid that isn't among the keys (30)
--   failed   seconds for which a failure is remembered (10)
-- @return function(c[, kid]): the keys for jwt.verify, or nil and why. With a kid that isn't among the keys they are fetched anew, but
--         not more often than `unknown` says. One call of a worker fetches at a time: others go on with the keys that there are, or,
--         where there are none or not the right one, wait for it. Raises, when it is made, for what is missing or unknown.
-- Example: local keys, why = issuer_keys(c, jwt.kid(token))
function jwt.remote(source)
  local known_options = {
    cluster = "string", path = "string", host = "string", every = "number", stale = "number", timeout = "number",
    unknown = "number", failed = "number",
  }
  for name, value in pairs(source) do
    if type(value) ~= known_options[name] then
      error(("jwt.remote: '%s' is unknown, or no %s"):format(tostring(name), known_options[name] or "option"), 2)
    end
  end
  if not source.cluster or not source.path then
    error("jwt.remote: cluster and path are required", 2)
  end
  local every, stale, timeout = source.every or 300, source.stale or 3600, source.timeout or 2
  local between, pause = source.unknown or 30, source.failed or 10
  local keys, fetched, asked = nil, -math.huge, -math.huge
  local failed, why -- when, and why
  local busy -- since when a call fetches

  local function ask(c)
    local reply, reason = c:http { cluster = source.cluster, path = source.path, host = source.host, timeout = timeout }
    if not reply then
      return "the issuer's keys can't be fetched: " .. reason
    end
    if reply.status ~= 200 then
      return ("the issuer's keys can't be fetched: status %d"):format(reply.status)
    end
    local good, fresh = pcall(jwt.keys, reply.body)
    if not good then
      return "the issuer's keys are no good set"
    end
    keys, fetched = fresh, c.now
  end

  -- Whether a call is on its way to the issuer. One whose client has gone never comes back, so it is believed for its time.
  local function under_way(now)
    return busy and now >= busy and now - busy < timeout + 0.5
  end

  local function wanted(now, kid)
    return now - fetched >= every or (keys and kid ~= nil and not keys.by_kid[kid] and now - asked >= between)
  end

  local function fetch(c)
    local since = c.now
    busy, asked = since, since
    why = ask(c)
    failed = why and c.now or nil
    if busy == since then
      busy = nil
    end
  end

  -- While it is under way, for a call that can't do without.
  local function wait(c)
    local step, most = 0.01, math.max(0.5, timeout / 8) -- a call may wait 16 times
    while under_way(c.now) do
      c:delay(step)
      step = math.min(step * 2, most)
    end
  end

  return function(c, kid)
    if under_way(c.now) and not (keys and (kid == nil or keys.by_kid[kid])) then
      wait(c)
    end
    local now = c.now
    if wanted(now, kid) and not under_way(now) and not (failed and now >= failed and now - failed < pause) then
      fetch(c)
      now = c.now
    end
    if keys and now - fetched < every + stale then
      return keys
    end
    return nil, why or "the issuer's keys are too old"
  end
end

--- The `kid` that a token names, before anything of it is verified: good for choosing and fetching keys, and for nothing else.
-- @param token the compact form
-- @return string, or nil
function jwt.kid(token)
  local head = type(token) == "string" and #token <= TOKEN_BYTES_MAX and token:match("^([%w_%-]+)%.")
  local header = head and part(head)
  return header and type(header.kid) == "string" and header.kid or nil
end

--- The token of an Authorization header.
-- @param value the header's value, or nil
-- @return the token, or nil: another scheme, several values, no token
-- Example: jwt.bearer(c.headers.authorization)
function jwt.bearer(value)
  return type(value) == "string" and value:match("^[Bb][Ee][Aa][Rr][Ee][Rr] +([%w_%-]+%.[%w_%-]+%.[%w_%-]+)$") or nil
end

return jwt
