-- What identifies people is masked on its way to tools and back; what opens doors goes nowhere. docs/policies.md
local policy = require "ephor.policy"
local match = require "ephor.match"
local redact = require "ephor.redact"
local settings = require "ephor.settings"

local own = settings.of("pii-redaction", {
  match = { protocol = "mcp", method = "tools/call" }, -- {}: all calls; { protocol = { "openai", "anthropic" } }: prompts
  call = { "ssn", "credit_card", "iban", "email", "phone" }, -- masked in what is asked
  reply = { "ssn", "credit_card", "iban", "email", "phone", "api_key", "jwt", "private_key" }, -- masked in what comes back
  deny = { "private_key", "api_key", "bearer" }, -- refused when they are asked with
  exempt = {}, -- globs of tools that need such data
})

local exempt = match.globs(own.exempt)
redact.find("", own.deny) -- raises for an unknown kind

return policy {
  name = "pii-redaction",
  principle = "P7",
  description = "Personal data is masked by pattern; secrets don't leave.",
  match = next(own.match) and own.match or nil,
  needs = { "tool", "arguments", "body" },
  call = function(c)
    if exempt(c.tool) then
      return
    end
    if #own.deny > 0 then
      local counts, n = redact.count(match.content(c), own.deny)
      if n > 0 then
        return c:deny(("the call holds a secret (%s)"):format(next(counts)), { code = "pii.secret" })
      end
    end
    if #own.call > 0 then
      c:redact(own.call)
    end
  end,
  reply = #own.reply > 0 and function(r)
    if not exempt(r.tool) then
      r:redact(own.reply)
    end
  end or nil,
}
