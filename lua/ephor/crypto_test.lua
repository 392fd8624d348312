local t = require "ephor.test"
local crypto = require "ephor.crypto"

t.case("digests (FIPS 180-4, RFC 4231)", function()
  t.equal(crypto.hex(crypto.sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
  t.equal(crypto.hex(crypto.sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  t.equal(crypto.hex(crypto.hmac_sha256("Jefe", "what do ya want for nothing?")),
    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
end)

t.case("base64 (RFC 4648 section 10)", function()
  local vectors = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=", foobar = "Zm9vYmFy" }
  for plain, text in pairs(vectors) do
    t.equal(crypto.to_base64(plain), text)
    t.equal(crypto.from_base64(text), plain)
    t.equal(crypto.to_base64url(plain), (text:gsub("=", "")))
    t.equal(crypto.from_base64url((text:gsub("=", ""))), plain)
  end
  t.equal(crypto.to_base64("\xfb\xff"), "+/8=")
  t.equal(crypto.to_base64url("\xfb\xff"), "-_8")
end)

t.case("base64 is read in one spelling only", function()
  for _, text in ipairs { "Zg", "Zg=", "Zg===", "Zh==", "Z", "Zm9v\n", " Zm9v", "Zm-v", "Zm9=", "====", "Z===", "Zg==Zg==", "\0\0\0\0" } do
    t.ok(crypto.from_base64(text) == nil, text)
  end
  for _, text in ipairs { "Zg==", "Zh", "Z", "Zm+v", "Zm9v=", "Zm9v.", "\0\0\0\0" } do
    t.ok(crypto.from_base64url(text) == nil, text)
  end
  t.ok(crypto.from_base64url("Zm9") == nil, "bits left over")
end)

t.case("every byte comes back", function()
  local all = {}
  for i = 0, 255 do
    all[#all + 1] = string.char(i)
  end
  all = table.concat(all)
  t.equal(crypto.from_base64(crypto.to_base64(all)), all)
  t.equal(crypto.from_base64url(crypto.to_base64url(all)), all)
end)

t.case("equal", function()
  t.ok(crypto.equal("", "") and crypto.equal("a\0b", "a\0b"))
  t.ok(not crypto.equal("a", "b") and not crypto.equal("a", "aa") and not crypto.equal("a\0b", "a\0c"))
end)

t.case("what is no string raises", function()
  for _, name in ipairs { "sha256", "hex", "to_base64", "from_base64", "from_base64url" } do
    t.ok(not pcall(crypto[name], {}), name)
    t.ok(not pcall(crypto[name]), name)
  end
end)
