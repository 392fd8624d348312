-- Where calls may go, and which places their arguments may name. docs/policies.md
local policy = require "ephor.policy"
local match = require "ephor.match"
local settings = require "ephor.settings"

local own = settings.of("outbound-domains", {
  hosts = settings.required "table", -- "api.example.com", "*.example.com", numeric addresses
  schemes = { "https", "http" },
  arguments = true, -- false: URLs in arguments and bodies are not looked at, so calls that hide them pass
  texts = {}, -- members that are prose: not looked at
})

local allows = match.hosts(own.hosts)
local schemes = match.set(own.schemes)
local is_text = match.names(own.texts)

local function judge_url(text)
  local url, why = match.url(text:find("^[/\\][/\\]") and "https:" .. text or text)
  if not url then
    return why
  end
  if not schemes[url.scheme] then
    return "its scheme is not allowed"
  end
  return not allows(url.host) and "its host is not on the list" or nil
end

-- All URLs of a text, and those in the path and query of each.
local function judge_urls(text)
  for _, url in ipairs(match.urls(text)) do
    local why = judge_url(url)
    if why then
      return ("the URL '%s' is refused: %s"):format(url:sub(1, 100), why)
    end
    why = judge_urls(url:match("^[^/\\]*[/\\]+(.*)$") or "")
    if why then
      return why
    end
  end
end

-- Also those that are encoded once or more often.
local function judge_text(text)
  for _ = 1, 4 do
    local why = judge_urls(text)
    if why then
      return why
    end
    local decoded = text:gsub("%%(%x%x)", function(digits)
      return string.char(tonumber(digits, 16))
    end)
    if decoded == text then
      return nil
    end
    text = decoded
  end
end

local function named(key)
  if is_text(key) then
    return false
  end
end

return policy {
  name = "outbound-domains",
  principle = "P2",
  description = "Agents talk to the hosts of the list, and have tools talk to no others.",
  needs = own.arguments and { "arguments", "body", "uri" } or nil,
  call = function(c)
    if c.direction == "outbound" and not allows(c.host) then
      return c:deny(("the host '%s' is not on the list"):format((c.host or "?"):sub(1, 100)), { code = "domain.host" })
    end
    if own.arguments then
      local why = match.walk(match.content(c), named, judge_text)
      if not why and c.uri and not c.uri:find("^file:") then
        why = judge_text(c.uri)
      end
      if why then
        return c:deny(why, { code = "domain.url" })
      end
    end
  end,
}
