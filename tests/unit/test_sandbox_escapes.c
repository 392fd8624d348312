/* link: ep_filters */
/* Known ways out of Lua sandboxes, each tried: what the script sees of the attempt, and a witness, another script on the
 * same state, which must see nothing of it. */
#include "lua_fixture.h"

#include "lua/host.h"

static const struct row {
    const char *name;
    const char *attempt; /* its result or error … */
    const char *seen;    /* … has this in it */
    const char *witness; /* must run without an error afterwards */
} rows[] = {
    {"bytecode by load", "return load('\\27Lua')", "attempt to call a nil value (global 'load')", ""},
    {"bytecode by string.dump", "return string.dump(function() end)", "nil value (field 'dump')", ""},
    {"bytecode in a file", "return require '_bytecode'", "attempt to load a binary chunk", ""},
    {"loadstring, dofile, loadfile", "return tostring(loadstring) .. tostring(dofile) .. tostring(loadfile)", "nilnilnil",
     ""},
    {"debug", "return debug.getregistry()", "nil value (global 'debug')", ""},
    {"require debug", "return require 'debug'", "No such file or directory", ""},
    {"debug by an error handler", "return select(2, xpcall(error, function(...) return tostring(debug) .. select('#', ...) end))",
     "nil1", ""},
    {"package.loaded", "return package.loaded.io", "nil value (global 'package')", ""},
    {"require io, os", "return tostring(pcall(require, 'io')) .. tostring(require('os').execute)", "falsenil", ""},
    {"require upwards", "return require '..secret'", "is no name of a module", ""},
    {"require by a slash", "return require '../secret'", "is no name of a module", ""},
    {"require of an absolute path", "return require '/etc/passwd'", "is no name of a module", ""},
    {"require with a NUL", "return require '_lib\\0/../../etc/passwd'", "is no name of a module", ""},
    {"require of a link out of the directory", "return require '_link'", "_link.lua:1:", ""},
    {"require of a device", "return require '_device'", "not a regular file", ""},
    {"require by LUA_PATH", "LUA_PATH = '/etc/?' package = {path = '/etc/?'} return require 'passwd'", "passwd.lua", ""},
    {"a module's environment is the script's own", "leak = 1 require '_lib' return tostring(leak) .. tostring(lib_global)",
     "12", "assert(leak == nil and lib_global == nil)"},
    {"the methods of strings by their metatable", "return getmetatable('').__index", "attempt to index a boolean value", ""},
    {"the metatable of strings", "return tostring(pcall(setmetatable, 'x', {}))", "false", ""},
    {"the methods of strings by the library", "string.upper = function() return 'poisoned' end string.evil = print",
     "nil", "assert(('a'):upper() == 'A' and string.upper('a') == 'A' and not ('').evil)"},
    {"the methods of strings by rawset", "rawset(string, 'len', function() return 0 end) return ('abc'):len()", "3",
     "assert(string.len('abc') == 3)"},
    {"globals by _G", "_G.print = nil _G.assert = error _G._G = nil", "nil", "assert(print and _G.assert == assert)"},
    {"globals by _ENV", "local _ENV = {} x = 1 return tostring(x) .. type(_ENV)", "attempt to call a nil value",
     "assert(x == nil)"},
    {"a metatable on _G", "setmetatable(_G, {__index = function() return 'everything' end}) return undefined", "everything",
     "assert(undefined == nil)"},
    {"a metatable on a library", "setmetatable(math, {__index = function() return 1 end}) return math.undefined", "1",
     "assert(math.undefined == nil and not getmetatable(math))"},
    {"libraries by next", "for k in next, table do table[k] = nil end return tostring(table.concat)", "nil",
     "assert(table.concat({1, 2}) == '12')"},
    {"ephor's own modules", "local j = require 'ephor.json' j.decode = nil j.null = 1", "nil",
     "assert(require('ephor.json').decode('null') == require('ephor.json').null)"},
    {"JSON's metatable of arrays", "return getmetatable(require('ephor.json').decode('[]'))", "false", ""},
    {"__gc", "setmetatable({}, {__gc = print})", "__gc can't be used", ""},
    {"__gc by a second setmetatable", "local m = {} local t = setmetatable({}, m) m.__gc = print setmetatable(t, m)",
     "__gc can't be used", ""},
    {"__metatable is kept", "return tostring(pcall(setmetatable, setmetatable({}, {__metatable = 1}), {}))", "false", ""},
    {"__close with another's value", "local x <close> = 42", "got a non-closable value", ""},
    {"__mode sees no others' objects",
     "kept = setmetatable({}, {__mode = 'kv'}) for k, v in pairs(_G) do kept[k] = v end return type(next(kept))", "string",
     "assert(kept == nil)"},
    {"the collector", "return collectgarbage('stop')", "nil value (global 'collectgarbage')", ""},
    {"the host's threads", "return tostring((coroutine.running()))", "nil", ""},
    {"yield out of the host", "return coroutine.yield()", "attempt to yield", ""},
    {"pcall around an overrun", "pcall(function() while true do end end) return 'went on'", "over the budget", ""},
    {"xpcall around an overrun", "xpcall(function() while true do end end, print) return 'went on'", "over the budget", ""},
    {"a coroutine around an overrun",
     "coroutine.resume(coroutine.create(function() while true do end end)) return 'went on'", "over the budget", ""},
    {"wrap around an overrun", "pcall(coroutine.wrap(function() while true do end end)) return 'went on'",
     "over the budget", ""},
    {"close around an overrun",
     "local co = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() while true do end "
     "end}) coroutine.yield() end) coroutine.resume(co) coroutine.close(co) return 'went on'",
     "over the budget", ""},
    {"pcall around too much memory", "pcall(string.rep, 'x', 5e7) return 'went on'", "over the budget of memory", ""},
    {"os", "return tostring(os.execute) .. tostring(os.exit) .. tostring(os.getenv) .. tostring(os.remove)", "nilnilnilnil",
     ""},
    {"io", "return io.open('/etc/passwd')", "nil value (global 'io')", ""},
    {"the locale", "return os.setlocale('C')", "nil value (field 'setlocale')", ""},
    {"others' random numbers by a seed", "math.randomseed(1) first = math.random(0) math.randomseed(1) return tostring(first == "
     "math.random(0))", "false", "math.randomseed(1) assert(first == nil)"},
    {"userdata: its metatable", "return getmetatable(policy_object or require('ephor.policy'))", "nil", ""},
    {"functions are no tables", "return print.upvalue", "attempt to index a function value", ""},
    {"upvalues of guarded functions", "return tostring(pcall(next, string.rep))", "false", ""},
    {"a huge stack", "return select('#', table.unpack({}, 1, 1e8))", "too many results to unpack", ""},
    {"a string longer than memory", "return #('x'):rep(1 << 40)", "resulting string too large", ""},
    {"sort with an order that lies", "local t = {} for i = 1, 100 do t[i] = i end table.sort(t, function() return true end)",
     "invalid order function", ""},
    {"a length that lies", "return table.concat(setmetatable({}, {__len = function() return 1e9 end}))",
     "a table with __len can't be given", ""},
    {"deep syntax", "return require '_deep'", "C stack overflow", ""},
    {"errors carry no object of the host", "local ok, e = pcall(require, 'nowhere') return type(e)", "string", ""},
};

struct chunk {
    const char *code, *directory;
};

static int run_chunk(lua_State *L)
{
    const struct chunk *c = lua_touserdata(L, 1);

    ep_lua_env_push(L, EP_LUA_POLICY, c->directory);
    ep_lua_compile(L, ep_str(c->code), "@attempt", 2);
    lua_call(L, 0, 1);
    luaL_tolstring(L, -1, NULL);
    return 1;
}

static enum ep_lua_status run(struct ep_lua *l, const char *code, const char *directory, char out[512])
{
    struct chunk c = {code, directory};
    enum ep_lua_status status;

    lua_pushcfunction(l->thread, run_chunk);
    lua_pushlightuserdata(l->thread, &c);
    status = ep_lua_call(l, l->thread, 1, 1, &ep_lua_budget_load, ep_clock_ns());
    snprintf(out, 512, "%.*s", EP_STR_ARG(ep_lua_error(l->thread)));
    lua_settop(l->thread, 0);
    return status;
}

static void files(struct play *p)
{
    char path[256], *deep = malloc(20000);

    play_file(p, "_lib.lua", "lib_global = 2 return true");
    play_file(p, "_bytecode.lua", "\x1bLuaT");
    memset(deep, '(', 10000);
    deep[10000] = '\0';
    memmove(deep + 7, deep, 10001);
    memcpy(deep, "return ", 7);
    play_file(p, "_deep.lua", deep);
    free(deep);
    snprintf(path, sizeof path, "%s/_link.lua", p->directory);
    assert_int_equal(symlink("/etc/passwd", path), 0); /* links are followed: a ConfigMap is made of them; only Lua is read */
    snprintf(path, sizeof path, "%s/_device.lua", p->directory);
    assert_int_equal(symlink("/dev/zero", path), 0);
}

static void test_no_way_out(void **state)
{
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);
    char out[512];
    unsigned wrong = 0;

    files(p);
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        const struct row *r = &rows[i];

        run(l, r->attempt, p->directory, out);
        if (!strstr(out, r->seen)) {
            print_error("%s: '%s' is not in '%s'\n", r->name, r->seen, out);
            wrong++;
        }
        if (*r->witness && run(l, r->witness, p->directory, out) != EP_LUA_OK) {
            print_error("%s: the witness saw it: %s\n", r->name, out);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
    ep_lua_unref(l);
}

/* What scripts are given, by name. A new function there must be thought about: can it loop, does it reach out? */
static void test_the_list_of_what_is_there(void **state)
{
    static const char list[] =
        "local out = {} for _, name in ipairs {'_G', 'coroutine', 'math', 'os', 'string', 'table', 'utf8'} do\n"
        "local keys = {} for k in pairs(_G[name]) do keys[#keys + 1] = k end table.sort(keys)\n"
        "out[#out + 1] = name .. ': ' .. table.concat(keys, ' ') end return table.concat(out, '\\n')";
    static const char *const wanted[] = {
        "_G: _G _VERSION assert coroutine error getmetatable ipairs math next os pairs pcall print rawequal rawget rawlen "
        "rawset require select setmetatable string table tonumber tostring type utf8 xpcall",
        "coroutine: close create isyieldable resume running status wrap yield",
        "math: abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp huge ldexp log log10 max maxinteger min "
        "mininteger modf pi pow rad random randomseed sin sinh sqrt tan tanh tointeger type ult",
        "os: clock date difftime time",
        "string: byte char find format gmatch gsub len lower match pack packsize rep reverse sub unpack upper",
        "table: concat insert move pack remove sort unpack",
        "utf8: char charpattern codepoint codes len offset",
    };
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);
    struct chunk c = {list, NULL};

    lua_pushcfunction(l->thread, run_chunk);
    lua_pushlightuserdata(l->thread, &c);
    assert_int_equal(ep_lua_call(l, l->thread, 1, 1, &ep_lua_budget_load, ep_clock_ns()), EP_LUA_OK);
    for (size_t i = 0; i < EP_COUNT(wanted); i++)
        assert_contains(lua_tostring(l->thread, -1), wanted[i]);
    lua_settop(l->thread, 0);
    ep_lua_unref(l);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, play_setup, play_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_no_way_out), TEST(test_the_list_of_what_is_there)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
