local t = require "ephor.test"
local redact = require "ephor.redact"
local json = require "ephor.json"

local function masked(kind, cases)
  for given, wanted in pairs(cases) do
    t.equal(redact.text(given, { kind }), wanted)
  end
end

local function untouched(kind, texts)
  for _, text in ipairs(texts) do
    t.equal(redact.text(text, { kind }), text)
  end
end

t.case("email", function()
  masked("email", {
    ["to ann@example.com."] = "to [email].", ["<a.b+c_d@sub.example.co.uk>"] = "<[email]>", ["a@b.cd,e@f.gh"] = "[email],[email]",
    ["mailto:ann@xn--bcher-kva.example"] = "mailto:[email]",
  })
  untouched("email", { "a@b", "@example.com", "a @ b.cd", "ann@example.1", "user@host:", "@@@@" })
end)

t.case("phone", function()
  masked("phone", {
    ["call +49 (30) 1234-5678 now"] = "call [phone] now", ["+15551234567"] = "[phone]", ["tel:+49/30/123456."] = "tel:[phone].",
  })
  untouched("phone", { "1 + 2", "+1234567", "+1234567890123456", "5551234567", "1-2-3", "version 1.2.3", "+ + + +" })
end)

t.case("ssn", function()
  masked("ssn", { ["ssn 123-45-6789!"] = "ssn [ssn]!", ["123 45 6789"] = "[ssn]" })
  untouched("ssn", { "1123-45-6789", "123-45-67890", "123456789", "123-45 6789" })
end)

t.case("credit cards", function()
  masked("credit_card", {
    ["4111 1111 1111 1111"] = "[credit_card]", ["pay 5500-0000-0000-0004 now"] = "pay [credit_card] now", ["378282246310005"] = "[credit_card]",
    ["id 12 4111111111111111 x"] = "id 12 [credit_card] x", ["4111111111111111,4012888888881881"] = "[credit_card],[credit_card]",
    ["4111 1111 1111 1111 5500 0000 0000 0004"] = "[credit_card] [credit_card]",
  })
  untouched("credit_card", { "4111 1111 1111 1112", "1111111111111111", "411111111111", "00004111111111111111", "4111.1111.1111.1111",
                             ("4"):rep(16), ("12345678901234567890"):rep(3) })
end)

t.case("iban", function()
  masked("iban", {
    ["DE89 3704 0044 0532 0130 00 is mine"] = "[iban] is mine", ["GB82WEST12345698765432"] = "[iban]", ["(FR1420041010050500013M02606)"] = "([iban])",
  })
  untouched("iban", { "DE88370400440532013000", "DE8937040044053201300", "DE893704004405320130000", "ZZ89370400440532013000", "an12 word" })
end)

t.case("keys and tokens", function()
  masked("api_key", {
    ["key=sk-proj-abcdefghijklmnopqrstuvwx"] = "key=[api_key]", ["AKIAIOSFODNN7EXAMPLE"] = "[api_key]", ["ghp_abcdefghijklmnopqrstuvwxyz0123456789"] = "[api_key]",
    ["xoxb-123456789012-abcdef"] = "[api_key]",
  })
  untouched("api_key", { "sk-short", "task-abcdefghijklmnopqrstuvwxyz", "AKIA", "risk-free" })
  masked("bearer", {
    ["Authorization: Bearer abcdefghijklmnop=="] = "Authorization: Bearer [bearer]" })
  untouched("bearer", { "the bearer of this letter", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0." })
  masked("jwt", { ["x eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."] = "x [jwt]", ["eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln,"] = "[jwt]," })
  untouched("jwt", { "eyJ", "eyJabc.def", "xeyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0." })
end)

t.case("private keys", function()
  masked("private_key", {
    ["a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b"] = "a\n[private_key] b",
    ["-----BEGIN PRIVATE KEY-----\nMIIE and no end"] = "[private_key]",
  })
  untouched("private_key", { "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----" })
end)

t.case("addresses", function()
  masked("ip", { ["from 10.1.2.3, ::1 and 2001:db8::5."] = "from [ip], [ip] and [ip].", ["x 10.1.2.3, 10.1.2.4"] = "x [ip], [ip]", ["10.1.2.3:80"] = "[ip]:80", ["[2001:db8::1]:80"] = "[[ip]]:80" })
  untouched("ip", { "1.2.3", "1.2.3.4.5", "256.1.1.1", "12:30:45", "a::b::c", "v1.2.3.4", "::" .. ("1:"):rep(30) })
end)

t.case("several kinds: masks don't overlap, and nothing between is lost", function()
  local out, n, counts = redact.text("ann@example.com 4111111111111111 +15551234567", { "email", "credit_card", "phone" })
  t.equal(out, "[email] [credit_card] [phone]")
  t.equal(n, 3)
  t.equal(counts, { email = 1, credit_card = 1, phone = 1 })
  t.equal(redact.text("nothing here"), "nothing here")
end)

t.case("JSON values: strings, keys and numbers", function()
  local value = json.decode '{"to":"ann@example.com","n":4111111111111111,"deep":[{"bob@example.com":1}],"ok":5,"none":null,"list":[]}'
  local out, n, counts = redact.value(value, { "email", "credit_card" })
  t.equal(json.canonical(out), '{"deep":[{"[email]":1}],"list":[],"n":"[credit_card]","none":null,"ok":5,"to":"[email]"}')
  t.equal(n, 3)
  t.equal(counts, { email = 2, credit_card = 1 })
  t.equal(value.to, "ann@example.com")
  local same = { a = { "x" } }
  t.ok(redact.value(same) == same, "the very value when nothing was found")
  t.equal(redact.count { "123-45-6789" }, { ssn = 1 })
end)

t.case("an unknown kind is an error, not a mask that is missing", function()
  t.ok(not pcall(redact.text, "x", { "emial" }))
  t.ok(not pcall(redact.value, "x", { "emial" }))
  t.ok(not pcall(redact.find, "x", { "emial" }))
  t.equal(#redact.kinds(), 10)
end)

t.case("texts made to take long take no longer than others", function()
  for _, piece in ipairs { "a@", "@", "1-", "1 ", "+", "(", "eyJ", "sk-", "-----BEGIN ", "1.", ":", "DE89 ", "bearer ", "a.", "4111 " } do
    local text = piece:rep(20000 // #piece)
    local before = os.clock()
    redact.find(text)
    t.ok(os.clock() - before < 2, piece)
  end
end)
