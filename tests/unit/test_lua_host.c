/* link: ep_filters */
/* The Lua host: the patterns against those of the standard library, JSON, the sandbox, the pool of threads. */
#include "lua_fixture.h"

#include "lua/host.h"

struct chunk {
    const char *code;
    enum ep_lua_dialect dialect;
};

static int compile(lua_State *L)
{
    const struct chunk *c = lua_touserdata(L, 1);

    ep_lua_env_push(L, c->dialect, NULL);
    ep_lua_compile(L, ep_str(c->code), "@chunk", 2);
    lua_call(L, 0, 1);
    return 1;
}

/* Runs the code in the sandbox; its result is on the stack of the thread. */
static enum ep_lua_status run(struct ep_lua *l, const char *code, const struct ep_lua_budget *b)
{
    struct chunk c = {code, EP_LUA_POLICY};

    lua_settop(l->thread, 0);
    lua_pushcfunction(l->thread, compile);
    lua_pushlightuserdata(l->thread, &c);
    return ep_lua_call(l, l->thread, 1, 1, b, ep_clock_ns());
}

static void good(struct ep_lua *l, const char *code)
{
    if (run(l, code, &ep_lua_budget_load) != EP_LUA_OK)
        fail_msg("%s: %s", code, lua_tostring(l->thread, -1));
}

static void bad(struct ep_lua *l, const char *code, const char *error)
{
    if (run(l, code, &ep_lua_budget_load) == EP_LUA_OK)
        fail_msg("no error: %s", code);
    assert_contains(lua_tostring(l->thread, -1), error);
}

/* --- patterns --- */

/* Every combination of these is given to both libraries; results and errors must be the same. */
static const char *const subjects[] = {
    "",
    "a",
    "hello world",
    "key = value",
    "  trim me  ",
    "THE (quick) fox",
    "a,b,,c,",
    "x^y$z%w",
    "[set]-]",
    "\\0\\1\\0",
    "aaaaaaaab",
    "f(a(b)c)d)",
    "2024-01-31T10:20:30Z",
    "spiffe://cluster.local/ns/a/sa/b",
    "abcabc",
    "áé",
};
static const char *const patterns[] = {
    "",
    "a",
    "l+",
    "^%s*(.-)%s*$",
    "(%w+)%s*=%s*(%w+)",
    "%((%a+)%)",
    "[^,]*",
    "%b()",
    "%f[%a]%a+",
    "%f[%z]",
    "()",
    "(a*(.)%w(%s*))",
    "[%a_][%w_]*",
    "^a",
    "a$",
    "^",
    "$",
    "a-b",
    "a?b?c?",
    "[]]",
    "[^]]",
    "[a-z-]",
    "[%]-]",
    "(.)%1",
    "(a)(b)(c)%3",
    "%d%d%d%d%-%d%d",
    "/sa/[^/]+$",
    ".",
    ".-",
    ".*",
    "%",
    "[a",
    "(a",
    "a)",
    "%1",
    "%b",
    "%f",
    "[%a",
    "%bx",
    "(()",
    "^^",
    "$$",
    "%z",
    "\\0",
    "[\\0]",
    "%%",
    "%^",
    "%$",
    "((a)(b))",
    "[%s%p]",
    "%S+",
    "%W",
    "x*",
    "[^%s]+()",
    "%x%x",
    "%u%l",
    "(a)(",
    "(a%1)",
    "[[:]",
    "a*a*a*$",
    "-",
    "*a",
    "+",
    "?",
    "a**",
    "[a-]",
    "[-a]",
    "[%d-x]",
    "[b-a]",
    "^(.-)$",
    "%c",
    "%g+",
    "(%",
    "[^",
    "[^]",
    "[]",
    "[%",
    "%f[a",
};

static const char *const calls[] = {
    "find(s, p)",
    "find(s, p, 3)",
    "find(s, p, -3)",
    "find(s, p, 100)",
    "find(s, p, 1, true)",
    "match(s, p)",
    "match(s, p, 2)",
    "gsub(s, p, '<%0>')",
    "gsub(s, p, '%1')",
    "gsub(s, p, '%%', 2)",
    "gsub(s, p, {a = 'A', b = false})",
    "gsub(s, p, '%2')",
    "gsub(s, p, function(a, b) return b or nil end)",
    "gsub(s, p, '%')",
    "gsub(s, p, '%x')",
    "gsub(s, p, {}, 0)",
};

static void compare(struct ep_lua *l, lua_State *real, const char *code)
{
    char ours[4096], theirs[4096];

    if (run(l, code, &ep_lua_budget_load) != EP_LUA_OK)
        fail_msg("ours failed: %s: %s", code, lua_tostring(l->thread, -1));
    snprintf(ours, sizeof ours, "%s", lua_tostring(l->thread, -1));
    lua_settop(real, 0);
    if (luaL_loadbufferx(real, code, strlen(code), "@chunk", "t") != LUA_OK || lua_pcall(real, 0, 1, 0) != LUA_OK)
        fail_msg("theirs failed: %s: %s", code, lua_tostring(real, -1));
    snprintf(theirs, sizeof theirs, "%s", lua_tostring(real, -1));
    if (strcmp(ours, theirs) != 0)
        fail_msg("\nours:   %s\ntheirs: %s\n%.300s", ours, theirs, code);
}

static void test_patterns_are_as_the_standard_ones(void **state)
{
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);
    lua_State *real = luaL_newstate();
    char code[4096];

    luaL_openlibs(real);
    for (size_t i = 0; i < EP_COUNT(subjects); i++) {
        for (size_t k = 0; k < EP_COUNT(patterns); k++) {
            /* All calls of one pair in one chunk. Values become text; an error is its message. */
            int n = snprintf(code, sizeof code,
                             "local s, p, out = '%s', '%s', {}\nlocal function note(...)\n"
                             "local r = table.pack(...) for i = 1, r.n do out[#out + 1] = tostring(r[i]) end "
                             "out[#out + 1] = ';' end\n",
                             subjects[i], patterns[k]);
            for (size_t c = 0; c < EP_COUNT(calls); c++)
                n += snprintf(code + n, sizeof code - (size_t)n, "note(pcall(function() return string.%s end))\n",
                              calls[c]);
            snprintf(
                code + n, sizeof code - (size_t)n,
                "note(pcall(function() local n = 0 for a, b in s:gmatch(p) do note(a, b) n = n + 1 end return n end))\n"
                "return table.concat(out, ' ')");
            compare(l, real, code);
        }
    }
    lua_close(real);
    ep_lua_unref(l);
}

static void test_pattern_errors(void **state)
{
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);

    bad(l, "return (('a'):rep(300)):find(('a?'):rep(300))", "pattern too complex");
    bad(l, "return ('x'):find(('()'):rep(40))", "too many captures");
    bad(l, "return ('x'):gsub('x', function() return {} end)", "invalid replacement value (a table)");
    bad(l, "return ('x'):gsub('x', true)", "string/function/table expected");
    bad(l, "return string.find()", "string expected");
    good(l, "assert(('x'):gsub('x', 5) == '5')");
    good(l, "local s = ('a'):rep(200000) assert(s:find('b') == nil and s:match('a*$') == s and #s:gsub('a', 'bb') == "
            "400000)");
    ep_lua_unref(l);
}

/* --- JSON --- */

static void test_json(void **state)
{
    static const char *const same[] = {
        "{}",
        "[]",
        "[1,2,3]",
        "{\"a\":[]}",
        "[[],{}]",
        "true",
        "null",
        "\"x\"",
        "-1",
        "0",
        "9007199254740993",
        "1.5",
        "1e+100",
        "-0.25",
        "\"\\\"\\\\\\n\"",
        "\"\\u0001\"",
        "[null,false]",
        "\"ü\"",
    };
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"", "unexpected end at byte 1"},
        {"{", "expected a key at byte 2"},
        {"[1", "unfinished array"},
        {"[1,]", "unexpected character at byte 4"},
        {"{\"a\":1,}", "expected a key"},
        {"{\"a\" 1}", "expected :"},
        {"{\"a\":1,\"a\":2}", "the same key twice"},
        {"{\"a\":null,\"a\":2}", "the same key twice"},
        {"01", "bad number"},
        {"-", "bad number"},
        {"1.", "bad number"},
        {"1e", "bad number"},
        {"tru", "unexpected character"},
        {"nullx", "text behind the value"},
        {"\"a", "unfinished string"},
        {"\"\\q\"", "bad escape"},
        {"\"\\u12\"", "short \\u escape"},
        {"\"\\u12x4\"", "bad \\u escape"},
        {"\"\\ud800\"", "lone surrogate"},
        {"\"\\udc00\"", "lone surrogate"},
        {"\"\\ud800\\u0041\"", "lone surrogate"},
        {"\"a\nb\"", "control character"},
        {"1 2", "text behind the value at byte 3"},
        {"'a'", "unexpected character"},
        {"NaN", "unexpected character"},
    };
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);
    char code[512];

    for (size_t i = 0; i < EP_COUNT(same); i++) {
        snprintf(code, sizeof code,
                 "local j = require 'ephor.json' local t = j.encode(j.decode([==[%s]==])) "
                 "if t ~= [==[%s]==] then error(t) end",
                 same[i], same[i]);
        good(l, code);
    }
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        snprintf(code, sizeof code, "require('ephor.json').decode([==[%s]==])", rows[i].text);
        bad(l, code, rows[i].error);
    }
    good(l, "local j = require 'ephor.json' assert(j.decode('\"\\\\ud83d\\\\ude00\\\\/\"') == '😀/')");
    good(l, "local j = require 'ephor.json' assert(j.decode('[1e2]')[1] == 100.0 and math.type(j.decode('7')) == "
            "'integer')");
    good(l,
         "local j = require 'ephor.json' assert(j.decode(' { \"a\" : null } ').a == j.null and j.encode({}) == '{}')");
    good(
        l,
        "local j = require 'ephor.json' assert(j.encode(j.array {}) == '[]' and j.encode({a = 0.1}) == '{\"a\":0.1}')");
    good(l, "local j = require 'ephor.json' local s = ('x'):rep(5000) assert(j.decode(j.encode({s, s}))[2] == s)");
    good(l, "local j = require 'ephor.json' assert(j.decode('123456789012345678901') == 123456789012345678901.0)");
    good(l, "local j = require 'ephor.json' assert(pcall(j.decode, ('['):rep(64) .. (']'):rep(64)))");
    bad(l, "require('ephor.json').decode(('['):rep(65) .. (']'):rep(65))", "nested deeper than 64");
    bad(l, "require('ephor.json').encode(print)", "a function can't be written");
    bad(l, "require('ephor.json').encode({[1] = 1, [3] = 3})", "a key of an object must be a string");
    bad(l, "require('ephor.json').encode(0/0)", "no number in JSON");
    bad(l, "local t = {} t.t = t require('ephor.json').encode(t)", "nested deeper than 64");
    ep_lua_unref(l);
}

/* --- the sandbox --- */

static void test_library_works_as_ever(void **state)
{
    static const char *const chunks[] = {
        "assert(('ab'):rep(3, ',') == 'ab,ab,ab' and ('x'):rep(0) == '' and ('x'):rep(-1) == '' and (''):rep(5) == '')",
        "local t = {3, 1, 2} table.sort(t) assert(table.concat(t, ',') == '1,2,3')",
        "local t = {} table.insert(t, 'b') table.insert(t, 1, 'a') assert(table.remove(t, 1) == 'a' and "
        "table.remove(t) == 'b')",
        "assert(select('#', table.unpack({1, nil, 3}, 1, 3)) == 3 and #table.move({1, 2}, 1, 2, 3, {0, 0}) == 4)",
        "local ok, a, b = pcall(function(x, y) return x, y end, 1, 2) assert(ok and a == 1 and b == 2)",
        "local ok, e = pcall(error, 'x') assert(not ok and e == 'x')",
        "local ok, e = pcall(error, {1}) assert(not ok and e[1] == 1)",
        "local ok, a, b = xpcall(function(x, y) return x, y end, print, 1, 2) assert(ok and a == 1 and b == 2)",
        "local ok, e = xpcall(function() error('x', 0) end, function(m) return m .. '!' end) assert(not ok and e == "
        "'x!')",
        "local ok, e = xpcall(function() error('x', 0) end, function(m) error('y', 0) end) assert(not ok and e == 'y')",
        "local co = coroutine.wrap(function() for i = 1, 3 do pcall(coroutine.yield, i) end end) assert(co() + co() + "
        "co() == 6)",
        "local co = coroutine.wrap(function() xpcall(function() coroutine.yield(1) error('x') end, type) return 2 end) "
        "assert(co() == 1 and co() == 2)",
        "local co, main = coroutine.running() assert(co == nil and main)",
        "assert(coroutine.wrap(function() local co, main = coroutine.running() return co ~= nil and not main end)())",
        "assert(utf8.len('äöü') == 3 and utf8.char(228) == 'ä' and math.max(1, 2) == 2 and math.type(1) == 'integer')",
        "local t = setmetatable({}, {__index = function(_, k) return k end}) assert(t.x == 'x' and getmetatable(t))",
        "local n = 0 do local x <close> = setmetatable({}, {__close = function() n = n + 1 end}) end assert(n == 1)",
        "assert(string.pack('>I2', 258) == '\\1\\2' and string.unpack('>I2', '\\1\\2') == 258)",
        "assert(_G._G == _G and _VERSION == 'Lua 5.4' and tostring(1.0) == '1.0')",
        "x = 1 assert(_G.x == 1) print('to the log')",
    };
    static const char *const gone[] = {"io",        "debug",      "package",        "load",       "loadstring",
                                       "loadfile",  "dofile",     "collectgarbage", "warn",       "os.execute",
                                       "os.exit",   "os.remove",  "os.rename",      "os.tmpname", "os.setlocale",
                                       "os.getenv", "string.dump"};
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);
    char code[128];

    for (size_t i = 0; i < EP_COUNT(chunks); i++)
        good(l, chunks[i]);
    for (size_t i = 0; i < EP_COUNT(gone); i++) {
        snprintf(code, sizeof code, "assert(%s == nil)", gone[i]);
        good(l, code);
    }
    good(l, "for name, v in pairs(getmetatable('') or {}) do error(name) end assert(getmetatable('') == false)");
    bad(l, "setmetatable({}, {__gc = print})", "__gc can't be used");
    bad(l, "return require 'ephor.policy' {}", "policy {...} is for files of the policies' directory");
    bad(l, "\x1bLua", "attempt to load a binary chunk");
    bad(l, "table.insert(setmetatable({}, {__len = print}), 1, 1)", "a table with __len can't be given");
    ep_lua_unref(l);
}

static void test_budgets_are_exact_enough(void **state)
{
    struct ep_lua_budget b = {10000, 1 << 20, 10 * EP_S, 0};
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);

    assert_int_equal(run(l, "for i = 1, 1000 do end", &b), EP_LUA_OK);
    assert_int_equal(run(l, "for i = 1, 100000 do end", &b), EP_LUA_OVERRUN);
    assert_contains(lua_tostring(l->thread, -1), "over the budget of instructions");
    b.instructions = 1000000000;
    b.time_ns = 20 * EP_MS;
    assert_int_equal(run(l, "for i = 1, 1e12 do end", &b), EP_LUA_OVERRUN);
    assert_contains(lua_tostring(l->thread, -1), "over the budget of time");
    b.time_ns = 10 * EP_S;
    assert_int_equal(run(l, "local t = {} for i = 1, 10000 do t[i] = i end", &b), EP_LUA_OK);
    assert_int_equal(run(l, "local t = {} for i = 1, 1000000 do t[i] = i end", &b), EP_LUA_OVERRUN);
    assert_string_equal(lua_tostring(l->thread, -1), "over the budget of memory");
    lua_settop(l->thread, 0);
    lua_gc(l->L, LUA_GCCOLLECT, 0);
    assert_true(l->bytes < 1 << 20); /* nothing stays behind */
    ep_lua_unref(l);
}

static void test_state_has_a_ceiling(void **state)
{
    struct ep_lua_budget b = {1000000000, 1ull << 40, 60 * EP_S, 0};
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);

    assert_int_equal(run(l, "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1 << 20) .. i end", &b), EP_LUA_OVERRUN);
    lua_settop(l->thread, 0);
    assert_true(l->bytes <= EP_LUA_STATE_BYTES_MAX);
    ep_lua_unref(l);
}

static void test_threads_are_pooled(void **state)
{
    struct ep_lua_thread t[EP_LUA_IDLE_THREADS + 8];
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < EP_COUNT(t); i++) {
            t[i] = ep_lua_thread_take(l);
            assert_true(ep_lua_is_host_thread(l, t[i].L));
            lua_pushinteger(t[i].L, 1);
        }
        for (size_t i = 0; i < EP_COUNT(t); i++)
            ep_lua_thread_give(l, t[i], i % 2);
        assert_int_equal(l->n_idle, EP_LUA_IDLE_THREADS);
    }
    struct ep_lua_thread one = ep_lua_thread_take(l);
    assert_int_equal(lua_gettop(one.L), 0);
    assert_int_equal(lua_status(one.L), LUA_OK);
    ep_lua_thread_give(l, one, true);
    ep_lua_unref(l);
}

/* 150 MiB of garbage in small pieces beside 1 MiB that stays: the collector keeps up, without a collection at the ceiling. */
static void test_garbage_is_collected_as_fast_as_made(void **state)
{
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);
    size_t most = 0;

    good(l, "local kept = {} for i = 1, 7000 do kept[i] = {i, tostring(i)} end "
            "return function() local t = {} for i = 1, 300 do t[i] = {i, 'x' .. i} end kept[300 + #t] = t end");
    for (unsigned i = 0; i < 4000; i++) {
        lua_pushvalue(l->thread, 1);
        assert_int_equal(ep_lua_call(l, l->thread, 0, 0, &ep_lua_budget_load, ep_clock_ns()), EP_LUA_OK);
        most = EP_MAX(most, l->bytes);
    }
    if (most > (size_t)28 << 20)
        fail_msg("%zu bytes", most);
    ep_lua_unref(l);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, play_setup, play_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_patterns_are_as_the_standard_ones),
        TEST(test_pattern_errors),
        TEST(test_json),
        TEST(test_library_works_as_ever),
        TEST(test_budgets_are_exact_enough),
        TEST(test_state_has_a_ceiling),
        TEST(test_threads_are_pooled),
        TEST(test_garbage_is_collected_as_fast_as_made),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
