--- JSON to Lua values and back.
--
--     local json = require "ephor.json"
--     json.decode('{"a": [1, null]}').a[1]     --> 1
--     json.encode({ a = json.array {} })       --> {"a":[]}
--     json.canonical({ b = 1.0, a = "x" })     --> {"a":"x","b":1}
--
-- decode(text)   raises for what is no JSON (RFC 8259), is nested deeper than 64, or has an object with a key twice.
-- encode(value)  raises for functions, nesting or cycles deeper than 64, keys that are no strings, NaN and infinities.
--                A table with the keys 1 to n is an array, any other an object; an empty one an object.
-- canonical(value)  the one spelling of a value, to be hashed and compared: RFC 8785 (keys sorted, no white space,
--                numbers as JavaScript writes them). Two differences: keys are sorted by code point, not by UTF-16 unit,
--                and integers beyond 2^53 keep all their digits. Raises as encode does.
-- array(table)   marks a table as an array, so that an empty one is written as []. Returns it.
-- null           what null becomes: true in a condition, equal to itself.
local json = require("ephor.native").json

local DEPTH_MAX = 64
local short = { ["\\u0008"] = "\\b", ["\\u0009"] = "\\t", ["\\u000c"] = "\\f", ["\\u000d"] = "\\r" }

local function text_of(s)
  local quoted = json.encode(s)
  if quoted:find("\\u00", 1, true) then
    -- An escaped backslash before the 'u' is another thing: pairs of backslashes are stepped over.
    quoted = quoted:gsub("\\(.)(%w?%w?%w?%w?)", function(c, digits)
      local whole = "\\" .. c .. digits
      return c == "u" and short[whole] or whole
    end)
  end
  return quoted
end

-- ECMA-262, Number::toString: the shortest digits that read back as the same number.
local function number_of(x)
  if math.type(x) == "integer" then
    return ("%d"):format(x)
  end
  if x ~= x or x == math.huge or x == -math.huge then
    error("json: a number that is not finite can't be written", 0)
  end
  if x == 0 then
    return "0"
  end
  local digits, exponent
  for precision = 0, 16 do
    local short_form = ("%." .. precision .. "e"):format(x)
    if tonumber(short_form) == x then
      local whole, fraction, power = short_form:match("^%-?(%d)%.?(%d*)e([+-]%d+)$")
      digits, exponent = whole .. fraction, math.tointeger(tonumber(power)) + 1
      break
    end
  end
  local sign, n = x < 0 and "-" or "", #digits
  if n <= exponent and exponent <= 21 then
    return sign .. digits .. ("0"):rep(exponent - n)
  elseif 0 < exponent and exponent <= 21 then
    return sign .. digits:sub(1, exponent) .. "." .. digits:sub(exponent + 1)
  elseif -6 < exponent and exponent <= 0 then
    return sign .. "0." .. ("0"):rep(-exponent) .. digits
  end
  local power = exponent - 1
  return sign .. digits:sub(1, 1) .. (n > 1 and "." .. digits:sub(2) or "") .. "e" .. (power < 0 and "-" or "+")
    .. ("%d"):format(math.abs(power))
end

local write

local function write_table(value, out, depth)
  if depth > DEPTH_MAX then
    error("json: nested deeper than 64", 0)
  end
  local keys, n = {}, #value
  for key in pairs(value) do
    keys[#keys + 1] = key
  end
  if #keys == n and (n > 0 or json.encode(value) == "[]") then
    for i = 1, n do
      out[#out + 1] = i == 1 and "[" or ","
      write(value[i], out, depth)
    end
    out[#out + 1] = n == 0 and "[]" or "]"
    return
  end
  for _, key in ipairs(keys) do
    if type(key) ~= "string" then
      error("json: a key of an object must be a string, not a " .. type(key), 0)
    end
  end
  table.sort(keys)
  out[#out + 1] = "{"
  for i, key in ipairs(keys) do
    out[#out + 1] = (i > 1 and "," or "") .. text_of(key) .. ":"
    write(value[key], out, depth)
  end
  out[#out + 1] = "}"
end

function write(value, out, depth)
  local kind = type(value)
  if kind == "table" then
    write_table(value, out, depth + 1)
  elseif kind == "number" then
    out[#out + 1] = number_of(value)
  elseif kind == "string" then
    out[#out + 1] = text_of(value)
  else
    out[#out + 1] = json.encode(value)
  end
end

function json.canonical(value)
  local out = {}
  write(value, out, 0)
  return table.concat(out)
end

return json
