/* link: ep_filters */
/* Random calls of the sandbox's library and of Lua's own: the same results, or the same errors.
 *
 * The calls are made up by Lua code that both run, from a seed: so a difference can be made again. What differs by
 * intention is left out: floats with an integral value in string.format, and ranges that no budget allows. */
#include "lua_fixture.h"

#include "lua/host.h"

#define CASES 20000
#define BATCH 100

static const char *const parts[] = {
    "local x\n"
    "local function random(n) x = x * 6364136223846793005 + 1442695040888963407 return (x >> 33) % n + 1 end\n"
    "local function any(t) return t[random(#t)] end\n"
    "local function maybe(n, v) return random(n) == 1 and v or '' end\n"
    "local plain = {'a', 'b', 'c', 'A', '1', ' '}\n"
    "local letters = {'a', 'b', 'c', 'A', 'F', '1', '9', ' ', '.', '(', ')', '-', '%', ']', '[', '^', '$', '\\0', '\\n', "
    "'\\xe9'}\n"
    "local classes = {'a', 'c', 'd', 'g', 'l', 'p', 's', 'u', 'w', 'x', 'z', 'A', 'D', 'L', 'P', 'S', 'W', 'X', 'q', '%', "
    "'.', '(', '-', ']'}\n"
    "local function set()\n"
    "  local t = '[' .. maybe(3, '^')\n"
    "  for _ = 1, random(3) do\n"
    "    local k = random(6)\n"
    "    if k == 1 then t = t .. 'a-c' elseif k == 2 then t = t .. '%' .. any(classes)\n"
    "    elseif k == 3 then t = t .. any(letters) elseif k == 4 then t = t .. any(letters) .. '-' .. any(letters)\n"
    "    else t = t .. any(plain) end\n"
    "  end\n"
    "  return random(25) == 1 and t or t .. ']'\n"
    "end\n"
    "local function single()\n"
    "  local k = random(9)\n"
    "  if k <= 4 then return any(plain) elseif k == 5 then return '.' elseif k <= 7 then return '%' .. any(classes)\n"
    "  else return set() end\n"
    "end\n"
    "local sequence\n"
    "local function item(depth)\n"
    "  local k = random(24)\n"
    "  if k == 1 then return '%b' .. any(letters) .. any(letters) elseif k == 2 then return '%f' .. set()\n"
    "  elseif k == 3 then return '()' elseif k <= 7 and depth < 3 then return '(' .. sequence(depth + 1) .. ')'\n"
    "  elseif k == 8 then return '%' .. random(3) elseif k == 9 then return any(letters)\n"
    "  else return single() .. any {'', '', '', '*', '+', '-', '?'} end\n"
    "end\n"
    "function sequence(depth)\n"
    "  local t = ''\n"
    "  for _ = 1, random(4) - 1 do t = t .. item(depth) end\n"
    "  return t\n"
    "end\n"
    "local function pattern() return maybe(4, '^') .. item(0) .. sequence(0) .. maybe(5, '$') .. maybe(40, '%') end\n"
    "local function subject(of, n)\n"
    "  local t = ''\n"
    "  for _ = 1, random(n or 14) - 1 do t = t .. any(random(3) == 1 and letters or of or plain) end\n"
    "  return t\n"
    "end\n",
    "local function template()\n"
    "  local t = ''\n"
    "  for _ = 1, random(4) - 1 do t = t .. any {'x', '<', '%0', '%0', '%1', '%1', '%2', '%%', '\\0'} end\n"
    "  return t .. maybe(20, '%') .. maybe(30, '%x')\n"
    "end\n"
    "local function number() return random(24) - 12 end\n"
    "local function list()\n"
    "  local t = {}\n"
    "  for i = 1, random(6) - 1 do t[i] = any {i, 'v' .. i, i + 0.5} end\n"
    "  if random(20) == 1 then t[#t + 1] = true end\n"
    "  return t\n"
    "end\n"
    "local function utf()\n"
    "  local t = ''\n"
    "  for _ = 1, random(6) - 1 do t = t .. any {'a', 'é', '€', '😀', '\\u{7ff}', '\\u{ffff}', '\\u{10ffff}'} end\n"
    "  if random(3) == 1 then t = t .. any {'\\x80', '\\xff', '\\xc0\\x80', '\\xed\\xa0\\x80', '\\u{110000}', '\\xe2\\x82'} "
    ".. maybe(2, 'a') end\n"
    "  return t\n"
    "end\n"
    /* Each makes up its arguments and says what they are, then calls: no tail calls, whose names are lost. */
    "local out\n"
    "local function say(...)\n"
    "  local t = table.pack(...)\n"
    "  for i = 1, t.n do out[#out + 1] = type(t[i]) == 'string' and string.format('%q', t[i]) or tostring(t[i]) end\n"
    "end\n"
    "local function all(t) for i = 1, #t do say(t[i]) end say(#t) end\n"
    "local patterns = {\n"
    "  function(s, p) say(string.find(s, p)) end,\n"
    "  function(s, p) local i = number() say(i) say(string.find(s, p, i)) end,\n"
    "  function(s, p) local i = number() say(i) say(string.find(s, s:sub(i, i + 2), i, true)) end,\n"
    "  function(s, p) say(string.match(s, p)) end,\n"
    "  function(s, p) local i = number() say(i) say(string.match(s, p, i)) end,\n"
    "  function(s, p) for a, b, c in string.gmatch(s, p) do say(a, b, c) end end,\n"
    "  function(s, p) local i = number() say(i) for a, b in string.gmatch(s, p, i) do say(a, b) end end,\n"
    "  function(s, p) local r = template() say(r) say(string.gsub(s, p, r)) end,\n"
    "  function(s, p) local r, n = template(), number() say(r, n) say(string.gsub(s, p, r, n)) end,\n"
    "  function(s, p) say(string.gsub(s, p, {a = 'X', b = false, c = 3, A = 1.5, ['1'] = s == 'a' and {} or nil})) end,\n"
    "  function(s, p) say(string.gsub(s, p, function(a, b) say(a, b) return b or nil end)) end,\n"
    "}\n",
    "local others = {\n"
    "  function()\n"
    "    local kind = any {'d', 'i', 'x', 'X', 'o', 'c', 's', 'q', 'g', 'f', 'e', 'a', 'y', ''}\n"
    "    local f = maybe(3, 'v=') .. '%' .. maybe(4, any {'-', '+', ' ', '#', '0'}) .. maybe(3, tostring(random(120))) ..\n"
    "      maybe(4, '.' .. random(12)) .. kind .. maybe(4, '%%')\n"
    "    local v = any {7, -3, 0, 255, 1 << 40, math.mininteger, 2.5, -0.125, 1e300 + 0.5, 'text', '12', 'a\\0b', true}\n"
    "    if v == 1e300 + 0.5 or (v == 2.5 or v == -0.125) and string.find('dixXoc', kind, 1, true) then v = 11 end\n"
    "    say(f, v) say(string.format(f, v)) end,\n"
    "  function() say(string.format('%s %d')) end,\n"
    "  function() local s, n, sep = subject(), number(), maybe(2, ', ') say(s, n) say(string.rep(s, n, sep)) end,\n"
    "  function() local s, i, k = subject(), number(), number() say(s, i, k) say(string.sub(s, i, k), string.byte(s, i, k)) "
    "end,\n"
    "  function() local t, i, k = list(), number(), number() all(t) say(i, k) say(table.concat(t, any {'', ', '}, i, k)) end,\n"
    "  function() local t = list() all(t) say(table.concat(t, maybe(2, '-'))) end,\n"
    "  function() local t, i = list(), number() all(t) say(i) table.insert(t, i, 'new') all(t) end,\n"
    "  function() local t = list() table.insert(t, 'last') all(t) end,\n"
    "  function() local t = list() table.insert(t) end,\n"
    "  function() local t, i = list(), number() all(t) say(i) say(table.remove(t, i)) all(t) end,\n"
    "  function() local t = list() say(table.remove(t)) all(t) end,\n"
    "  function() local t, i, k = list(), number(), number() all(t) say(i, k) say(table.unpack(t, i, k)) end,\n"
    "  function() local t = list() say(table.unpack(t, 1, any {1 << 30, math.maxinteger})) end,\n"
    "  function() local t, f, e, d = list(), number(), number(), number() say(f, e, d) all(table.move(t, f, e, d)) end,\n"
    "  function() local t = list() for i = 1, #t do t[i] = tostring(t[i]) end table.sort(t) all(t) end,\n"
    "  function() local t = list() all(t) table.sort(t) all(t) end,\n"
    "  function() local s, i, k = utf(), number(), number() say(s, i, k) say(utf8.len(s, i, k)) end,\n"
    "  function() local s, lax = utf(), random(2) == 1 say(s, lax) say(utf8.len(s, 1, -1, lax)) end,\n"
    "  function() local s, i, k = utf(), number(), number() say(s, i, k) say(utf8.codepoint(s, i, k)) end,\n"
    "  function() local s, n, i = utf(), number(), number() say(s, n, i) say(utf8.offset(s, n, i)) end,\n"
    "  function() local s, n = utf(), number() say(s, n) say(utf8.offset(s, n)) end,\n"
    "  function() local s, lax = utf(), random(2) == 1 say(s, lax) for p, c in utf8.codes(s, lax) do say(p, c) end end,\n"
    "  function() local c = random(1 << random(32)) - 2 say(c) say(utf8.char(65, c)) end,\n"
    "  function() local b = random(300) - 20 say(b) say(string.char(65, b)) end,\n"
    "  function() local s = any {'0x1p4', ' 12 ', '1e2', 'z', '', '0x', '1 2', '7fffffffffffffffff'} local b = random(40) "
    "say(s, b) say(tonumber(s)) say(tonumber(s, b)) end,\n"
    "  function() local f = any {'<i4', '>I2', 's1', 'z', '!4 i1 i4', 'j', 'd', 'i17', 'y', '<i3'} say(f) "
    "local b = string.pack(f, 5, 6) say(b, string.packsize(f)) say(string.unpack(f, b, random(3))) end,\n"
    "}\n",
    "return function(seed, n)\n"
    "  local lines = {}\n"
    "  for i = 1, n do\n"
    "    x = seed + i\n"
    "    random(2)\n"
    "    out = {}\n"
    "    local ok, e\n"
    "    if random(4) > 1 then\n"
    "      local s, p, f = subject(), pattern(), any(patterns)\n"
    "      say(s, p)\n"
    "      ok, e = pcall(f, s, p)\n"
    "    else\n"
    "      ok, e = pcall(any(others))\n"
    "    end\n"
    "    say(ok, e)\n"
    "    lines[i] = seed + i .. ': ' .. string.gsub(table.concat(out, ' '), '\\n', 'n')\n"
    "  end\n"
    "  return table.concat(lines, '\\n')\n"
    "end\n",
};
static char code[16384];

static int compile(lua_State *L)
{
    ep_lua_env_push(L, EP_LUA_POLICY, NULL);
    ep_lua_compile(L, ep_str(code), "@chunk", 1);
    lua_call(L, 0, 1);
    return 1;
}

/* The first lines that differ. */
static void tell(const char *ours, const char *theirs)
{
    while (*ours && *theirs) {
        size_t n = strcspn(ours, "\n"), m = strcspn(theirs, "\n");
        if (n != m || memcmp(ours, theirs, n) != 0)
            fail_msg("\nours:   %.*s\ntheirs: %.*s", (int)n, ours, (int)m, theirs);
        ours += n + (ours[n] == '\n');
        theirs += m + (theirs[m] == '\n');
    }
    fail_msg("one gave more than the other");
}

/* In one piece, or with a pause after each step of a match. */
static enum ep_lua_status run(struct ep_lua *l, lua_State *L, bool paused, unsigned *pauses)
{
    static const struct ep_lua_budget one = {UINT64_MAX, 16 << 20, 60 * EP_S, 1};
    enum ep_lua_status status;
    int n;

    if (!paused)
        return ep_lua_call(l, L, 2, 1, &ep_lua_budget_load, ep_clock_ns());
    for (n = 2; (status = ep_lua_resume(l, L, n, &n, &one, ep_clock_ns())) == EP_LUA_PAUSED; n = 0)
        ++*pauses;
    return status;
}

static void play(struct play *p, bool paused)
{
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);
    lua_State *L = l->thread, *real = luaL_newstate();
    unsigned worked = 0, pauses = 0;

    if (paused)
        l->match_steps = 1;
    for (size_t i = 0, n = 0; i < EP_COUNT(parts); i++)
        n += (size_t)snprintf(code + n, sizeof code - n, "%s", parts[i]);
    luaL_openlibs(real);
    assert_int_equal(luaL_loadbufferx(real, code, strlen(code), "@chunk", "t"), LUA_OK);
    assert_int_equal(lua_pcall(real, 0, 1, 0), LUA_OK);
    lua_pushcfunction(L, compile);
    if (ep_lua_call(l, L, 0, 1, &ep_lua_budget_load, ep_clock_ns()) != EP_LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    for (int seed = 0; seed < CASES; seed += BATCH) {
        lua_State *both[] = {L, real};
        for (size_t i = 0; i < EP_COUNT(both); i++) {
            lua_pushvalue(both[i], 1);
            lua_pushinteger(both[i], seed);
            lua_pushinteger(both[i], BATCH);
        }
        if (run(l, L, paused, &pauses) != EP_LUA_OK)
            fail_msg("ours, from %d: %s", seed, lua_tostring(L, -1));
        if (lua_pcall(real, 2, 1, 0) != LUA_OK)
            fail_msg("theirs, from %d: %s", seed, lua_tostring(real, -1));
        const char *ours = lua_tostring(L, -1), *theirs = lua_tostring(real, -1);
        if (strcmp(ours, theirs) != 0)
            tell(ours, theirs);
        for (const char *at = ours; (at = strstr(at, " true nil\n")); at++)
            worked++;
        lua_pop(L, 1);
        lua_pop(real, 1);
    }
    /* The generator is worth something: neither all nonsense nor all harmless. */
    if (worked < CASES / 2)
        fail_msg("%u of %d worked", worked, CASES);
    assert_true(worked < CASES * 9 / 10);
    if (paused)
        assert_true(pauses > CASES * 4);
    lua_settop(L, 0);
    lua_close(real);
    ep_lua_unref(l);
}

static void test_random_calls(void **state)
{
    play(*state, false);
}

static void test_random_calls_that_pause_at_each_step_of_a_match(void **state)
{
    play(*state, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random_calls, play_setup, play_teardown),
        cmocka_unit_test_setup_teardown(test_random_calls_that_pause_at_each_step_of_a_match, play_setup, play_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
