-- Reads bytes as a program: calls of any method with any arguments on any object, those of streams that are over included.
--
-- What a call gives is kept and may be the object or an argument of a later one, in another hook or stream. Nothing here
-- knows what is allowed: every error is caught, and what matters is that the proxy is sound afterwards.
local driver = {}

local POOL_MAX, STEPS_MAX = 48, 60
local pool, program, at = {}, "", 1
local names

-- Methods and fields of policies' c and r, headers and peer; and of all of Envoy's objects.
local of_policies = {
  "deny", "allow", "header", "tag", "log", "redact", "route_to", "delay", "meter", "remember", "recall", "count", "http", "body", "protocol", "version",
  "method", "tool", "arguments", "model", "agent", "task", "session", "tenant", "service", "uri", "prompt", "id", "peer", "headers", "request_headers",
  "path", "host", "route", "cluster", "listener", "direction", "now", "visible", "blind", "notification", "batch", "status", "policy", "priority",
  "impact", "x-twice", ":path", ":status",
}
local of_envoy = {
  "headers", "body",
  "bodyChunks", "trailers", "respond", "httpCall", "logTrace", "logDebug", "logInfo", "logWarn", "logErr", "logCritical", "metadata", "streamInfo",
  "requestInfo", "connection", "connectionStreamInfo", "clearRouteCache", "base64Escape", "timestamp", "timestampString", "importPublicKey",
  "verifySignature", "setUpstreamOverrideHost", "virtualHost", "filterContext", "stats", "downstreamRequestHeaders", "get", "getAtIndex", "getNumValues",
  "add", "replace", "remove", "setHttp1ReasonPhrase", "length", "getBytes", "setBytes", "routeName", "virtualClusterName", "downstreamLocalAddress",
  "downstreamDirectLocalAddress", "downstreamRemoteAddress", "downstreamDirectRemoteAddress", "requestedServerName", "dynamicMetadata",
  "dynamicTypedMetadata", "filterState", "downstreamSslConnection", "drainConnectionUponCompletion", "set", "ssl", "peerCertificatePresented",
  "peerCertificateValidated", "uriSanPeerCertificate", "uriSanLocalCertificate", "sha256PeerCertificateDigest", "serialNumberPeerCertificate",
  "issuerPeerCertificate", "subjectPeerCertificate", "parsedSubjectPeerCertificate", "subjectLocalCertificate", "dnsSansPeerCertificate",
  "urlEncodedPemEncodedPeerCertificate", "validFromPeerCertificate", "expirationPeerCertificate", "sessionId", "ciphersuiteId", "ciphersuiteString",
  "tlsVersion", "commonName", "counter", "gauge", "histogram", "inc", "dec", "sub", "record", "recordValue", "value",
}

local strings = {
  "", "x", "x-a", "X-Twice", ":path", ":method", ":authority", ":status", "content-length", "transfer-encoding", "x-ephor-a", "cookie", "/", "/x?y=1",
  "200", "403", "-1", "app", "other", "nobody", "POST", "5m", "250ms", "1e9", "a\0b", "a\r\nb: c", "\xff\xfe", "é", "{", "[1,{\"a\":null}]", "sha256", "sha1",
  ("k"):rep(300), ("v"):rep(5000), ("w"):rep(70000), "ssn", "email", "123-45-6789 a@b.cd", "%s%d%n", "envoy.filters.http.lua", "ephor.tags",
  "-----BEGIN PUBLIC KEY-----", "127.0.0.1:1", "text/event-stream", "(a*)*b", "[", "%",
}

local numbers = { 0, 1, 2, -1, 3, 200, 204, 403, 599, 600, 4096, 70000, 1 << 31, 1 << 53, math.mininteger, math.maxinteger, 0.5, 1e308, -1e308, 0 / 0 }

local function byte()
  local b = program:byte(at)
  at = at + 1
  return b or 0
end

local function keep(value)
  local kind = type(value)
  if kind == "userdata" or kind == "table" or kind == "function" or kind == "thread" then
    pool[#pool < POOL_MAX and #pool + 1 or byte() % POOL_MAX + 1] = value
  end
end

local function kept()
  return pool[#pool > 0 and byte() % #pool + 1 or 1]
end

local value

local function list()
  local t = {}
  for i = 1, byte() % 5 do
    t[byte() % 2 == 0 and i or strings[byte() % #strings + 1]] = value(1)
  end
  if byte() % 8 == 0 then
    t.self = t
  end
  return t
end

function value(depth)
  local kind = byte() % 12
  if kind < 4 then
    return strings[byte() % #strings + 1]
  elseif kind < 6 then
    return numbers[byte() % #numbers + 1]
  elseif kind == 6 then
    return nil
  elseif kind == 7 then
    return byte() % 2 == 0
  elseif kind == 8 and not depth then
    return list()
  elseif kind == 9 then
    return { [":method"] = "POST", [":path"] = "/x", [":authority"] = "a", [":status"] = "200", ["x-a"] = strings[byte() % #strings + 1],
      url = "http://a/b", cluster = "other", timeout = 0.05 }
  elseif kind == 10 and not depth then
    return function(...)
      keep((...))
      return value(1)
    end
  end
  return kept()
end

local function arguments()
  local n = byte() % 6
  return table.unpack({ value(), value(), value(), value(), value() }, 1, n)
end

-- Results of a call that went well.
local function take(good, ...)
  if good then
    for i = 1, math.min(select("#", ...), 4) do
      keep((select(i, ...)))
    end
  end
end

local odd = {
  function(o) return #o end,
  function(o) return tostring(o) .. "" end,
  function(o) o[strings[byte() % #strings + 1]] = value() end,
  function(o) return o(arguments()) end,
  function(o) return getmetatable(o) end,
  function(o) return setmetatable(o, {}) end,
  function(o) return o .. o end,
  function(o) return o < o, o == kept() end,
  function(o) return -o end,
  function(o) return rawget(o, 1), rawlen(o) end,
  function(o) return next(o) end,
  function(o) return table.concat(o, ",") end,
  function(o) return string.format("%s", o) end,
  function(o) return require("ephor.json").encode(o) end,
  function(o) for k, v in pairs(o) do keep(k) keep(v) if byte() % 4 == 0 then return k end end end,
  function(o) for chunk in o:bodyChunks() do keep(chunk) if byte() % 3 == 0 then break end end end,
}

local function step(object)
  local what = byte()
  local o = what % 5 < 4 and object or kept() or object
  if what < 200 then
    local list_of = byte() % 8 > 0 and names or (names == of_envoy and of_policies or of_envoy)
    local name = list_of[byte() % #list_of + 1]
    local good, method = pcall(function() return o[name] end)
    if not good then
      return
    end
    keep(method)
    if type(method) == "function" then
      local self = byte() % 8 > 0 and o or value()
      if byte() % 16 == 0 then
        local co = coroutine.wrap(method)
        keep(co)
        take(pcall(co, self, arguments()))
      elseif byte() % 16 == 0 then
        return method(self, arguments()) -- and the hook fails
      else
        take(pcall(method, self, arguments()))
      end
    end
  else
    take(pcall(odd[byte() % #odd + 1], o))
  end
end

-- Goes on where the last hook of this program stopped; a new one begins at its first byte.
function driver.run(object, hex, envoy)
  names = envoy and of_envoy or of_policies
  if hex and hex ~= driver.hex then
    driver.hex = hex
    program = hex:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end)
    at = 1
  end
  keep(object)
  for _ = 1, STEPS_MAX do
    if at > #program or byte() == 0 then
      return
    end
    step(object)
  end
end

return driver
