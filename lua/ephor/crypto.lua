--- Hashes, base64 and constant-time comparison. All work is charged to the policy's budget.
--
--     local crypto = require "ephor.crypto"
--     crypto.hex(crypto.sha256("abc"))     --> ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
--     crypto.from_base64url("_w")          --> "\xff"
--
-- sha256(text)              the 32 bytes of the digest.
-- hmac_sha256(key, text)    the 32 bytes of the code (RFC 2104).
-- equal(a, b)               true when both strings are the same; takes as long for any two of the same length.
-- hex(bytes)                lower-case hexadecimal.
-- to_base64(bytes), to_base64url(bytes)      RFC 4648; the second without padding.
-- from_base64(text), from_base64url(text)    the bytes, or nil for what is not exactly what the function above writes:
--                                            no white space, no missing or needless padding, no bits left over.
--
-- Arguments that are no strings raise. Signatures are verified by ephor.jwt.
local native = require("ephor.native").crypto

return {
  sha256 = native.sha256,
  hmac_sha256 = native.hmac_sha256,
  equal = native.equal,
  hex = native.hex,
  to_base64 = native.to_base64,
  to_base64url = native.to_base64url,
  from_base64 = native.from_base64,
  from_base64url = native.from_base64url,
}
