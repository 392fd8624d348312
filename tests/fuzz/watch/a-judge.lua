-- fuzz_watch.c: denies a stream in which a text says a word, wherever its events cut it.
local policy = require "ephor.policy"

return policy {
  name = "judge",
  event = function(e)
    if e.text and e.text:find("BANNED", 1, true) then
      return e:deny("no such word")
    end
  end,
}
