local t = require "ephor.test"
local json = require "ephor.json"

local function canonical(text)
  return json.canonical(json.decode(text))
end

t.case("one spelling: keys sorted, no white space", function()
  t.equal(canonical ' { "b" : [ 1 , { "z":null, "a":true } ], "a": {} , "c": [] } ', '{"a":{},"b":[1,{"a":true,"z":null}],"c":[]}')
  t.equal(canonical '"x"', '"x"')
  t.equal(canonical '{"peach":1,"p\\u00eache":2,"":3}', '{"":3,"peach":1,"p\u{ea}che":2}')
end)

t.case("numbers as JavaScript writes them (RFC 8785, appendix B)", function()
  for text, wanted in pairs {
    ["0.0"] = "0", ["-0.0"] = "0", ["-0"] = "0", ["1.0"] = "1", ["1e0"] = "1", ["10e-1"] = "1", ["100"] = "100", ["1e21"] = "1e+21",
    ["1e20"] = "100000000000000000000", ["0.000001"] = "0.000001", ["1e-7"] = "1e-7", ["1.5e-9"] = "1.5e-9", ["0.1"] = "0.1",
    ["333333333.33333329"] = "333333333.3333333", ["1.7976931348623157e308"] = "1.7976931348623157e+308", ["-5e-324"] = "-5e-324",
    ["9007199254740993"] = "9007199254740993", ["123.456"] = "123.456", ["-1e3"] = "-1000", ["4.35"] = "4.35",
  } do
    t.equal(canonical(text), wanted)
  end
end)

t.case("strings have the short escapes", function()
  t.equal(canonical [["\u0008\u0009\u000a\u000c\u000d\u001f\"\\\/\u0041"]], [["\b\t\n\f\r\u001f\"\\/A"]])
  t.equal(canonical [["\\u0008 \\\\u0009"]], [["\\u0008 \\\\u0009"]])
end)

t.case("two texts of one value are the same, of two values not", function()
  t.equal(canonical '{"a":1,"b":"\\u0065"}', canonical '{ "b":"e", "a":1.0 }')
  t.ok(canonical '{"a":"1"}' ~= canonical '{"a":1}')
  t.ok(canonical '[]' ~= canonical '{}')
  t.ok(canonical '{"a":null}' ~= canonical '{}')
end)

t.case("what JSON can't say raises", function()
  t.ok(not pcall(json.canonical, { [1] = 1, x = 2 }))
  t.ok(not pcall(json.canonical, 0 / 0))
  t.ok(not pcall(json.canonical, 1 / 0))
  t.ok(not pcall(json.canonical, print))
  local loop = {}
  loop.loop = loop
  t.ok(not pcall(json.canonical, loop))
end)
