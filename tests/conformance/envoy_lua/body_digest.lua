-- CRC-32 of the body, in base64, for the app to compare; by LuaJIT's bit library.
local bit = require("bit")
local crc_table = {}
for i = 0, 255 do
  local c = i
  for _ = 1, 8 do
    if bit.band(c, 1) == 1 then
      c = bit.bxor(0xEDB88320, bit.rshift(c, 1))
    else
      c = bit.rshift(c, 1)
    end
  end
  crc_table[i] = c
end

local function crc32(text, crc)
  crc = bit.bnot(crc or 0)
  for i = 1, #text do
    crc = bit.bxor(crc_table[bit.band(bit.bxor(crc, text:byte(i)), 0xFF)], bit.rshift(crc, 8))
  end
  return bit.bnot(crc)
end

function envoy_on_request(request_handle)
  local body = request_handle:body()
  if not body then
    return
  end
  local crc = crc32(body:getBytes(0, body:length()))
  local bytes = string.char(bit.band(bit.rshift(crc, 24), 255), bit.band(bit.rshift(crc, 16), 255),
    bit.band(bit.rshift(crc, 8), 255), bit.band(crc, 255))
  request_handle:headers():add("x-crc32", request_handle:base64Escape(bytes))
  request_handle:headers():add("x-crc32-hex", bit.tohex(crc))
end
