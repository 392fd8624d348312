/* The guards: in place of functions of the standard library that could run long in C, where no hook counts.
 *
 * Each charges for what it is about to do before it does it, an instruction for about 10 ns of work: so a call that the
 * budget doesn't allow never begins, and one that it allows ends in time. host.h says why some are gone. */
#include "lua/guards.h"

#include <math.h>

#define CAUGHT_COST 30 /* an error that was raised and caught */

/* Calls the function of the standard library that a guard stands for, on the same stack. */
static int original(lua_State *L)
{
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* For what takes time in proportion to the length of its first argument. */
static int guard_length(lua_State *L)
{
    ep_lua_charge(L, lua_rawlen(L, 1) / 16);
    return original(L);
}

/* For what takes any number of arguments and makes numbers of them. */
static int guard_arguments(lua_State *L)
{
    ep_lua_charge_arguments(L, 1);
    return original(L);
}

static uint64_t span(lua_Integer from, lua_Integer to)
{
    return to < from ? 0 : (uint64_t)to - (uint64_t)from + 1;
}

/* The raw length of a table that has no __len: that could say anything, and the loops below believe it. */
static lua_Integer raw_length(lua_State *L, int index)
{
    luaL_checktype(L, index, LUA_TTABLE);
    if (luaL_getmetafield(L, index, "__len") != LUA_TNIL)
        luaL_error(L, "a table with __len can't be given to this function");
    return (lua_Integer)lua_rawlen(L, index);
}

static int guard_concat(lua_State *L)
{
    lua_Integer n = raw_length(L, 1);

    ep_lua_charge(L, span(luaL_optinteger(L, 3, 1), luaL_optinteger(L, 4, n)));
    return original(L);
}

static int guard_insert(lua_State *L)
{
    lua_Integer n = raw_length(L, 1);

    if (lua_gettop(L) >= 3)
        ep_lua_charge(L, span(luaL_checkinteger(L, 2), n));
    return original(L);
}

static int guard_remove(lua_State *L)
{
    lua_Integer n = raw_length(L, 1);

    if (lua_gettop(L) >= 2)
        ep_lua_charge(L, span(luaL_checkinteger(L, 2), n));
    return original(L);
}

static int guard_move(lua_State *L)
{
    ep_lua_charge(L, span(luaL_checkinteger(L, 2), luaL_checkinteger(L, 3)));
    return original(L);
}

/* a < b of the library's own sort, when there are strings of some length. Lua compares them by strcoll, from one zero byte
 * to the next; in the C locale, which ephor stays in, that is the order of their bytes, found much faster at once. */
static int less(lua_State *L)
{
    bool is;

    if (lua_type(L, 1) == LUA_TSTRING && lua_type(L, 2) == LUA_TSTRING) {
        size_t n, m;
        const char *a = lua_tolstring(L, 1, &n), *b = lua_tolstring(L, 2, &m);
        ep_lua_charge(L, EP_MIN(n, m) / 64);
        int order = memcmp(a, b, EP_MIN(n, m));
        is = order < 0 || (order == 0 && n < m);
    } else {
        is = lua_compare(L, 1, 2, LUA_OPLT);
    }
    lua_pushboolean(L, is);
    return 1;
}

static bool has_long_strings(lua_State *L, lua_Integer n)
{
    bool has = false;

    for (lua_Integer i = 1; !has && i <= n; i++) {
        has = lua_rawgeti(L, 1, i) == LUA_TSTRING && lua_rawlen(L, -1) > 256;
        lua_pop(L, 1);
    }
    return has;
}

static int guard_sort(lua_State *L)
{
    lua_Integer n = raw_length(L, 1);
    uint64_t log2n = 1;

    while (log2n < 63 && (n >> log2n) > 0)
        log2n++;
    ep_lua_charge(L, (uint64_t)n * log2n);
    if (lua_isnoneornil(L, 2) && has_long_strings(L, n)) {
        lua_settop(L, 1);
        lua_pushcfunction(L, less);
    }
    return original(L);
}

static int guard_unpack(lua_State *L)
{
    lua_Integer from = luaL_optinteger(L, 2, 1);
    uint64_t n = span(from, lua_isnoneornil(L, 3) ? raw_length(L, 1) : luaL_checkinteger(L, 3));

    if (n < LUAI_MAXSTACK) /* else it is an error at once */
        ep_lua_charge(L, n);
    return original(L);
}

/* A coroutine's instructions are counted from its own 1000 on, so a short one costs a flat fee. */
static int guard_create(lua_State *L)
{
    ep_lua_charge(L, EP_LUA_HOOK_EVERY / 2);
    return original(L);
}

static int guard_close(lua_State *L)
{
    ep_lua_charge(L, 10);
    return ep_lua_coroutine(L, lua_tothread(L, 1), lua_tocfunction(L, lua_upvalueindex(1)));
}

/* Resumes the coroutine at `index` with what is above `below`. True: its results are there now; false: its error is. When
 * it pauses so does L, and `again` is called later. */
static bool resume_inner(lua_State *L, int index, int below, lua_KFunction again)
{
    lua_State *co = lua_tothread(L, index);
    int n = lua_gettop(L) - below, status;

    if (ep_lua_is_held(L, index)) {
        lua_pushliteral(L, "cannot resume non-suspended coroutine");
        return false;
    }
    if (!lua_checkstack(co, n)) {
        lua_pushliteral(L, "too many arguments to resume");
        return false;
    }
    lua_xmove(L, co, n);
    status = ep_lua_resume_inner(L, co, n, &n);
    if (status == LUA_YIELD && ep_lua_of(L)->run.paused) {
        ep_lua_hold(L, index, true);
        ep_lua_pause(L, again); /* does not return */
    }
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        return false;
    }
    if (!lua_checkstack(L, n + 1)) {
        lua_pop(co, n);
        lua_pushliteral(L, "too many results to resume");
        return false;
    }
    lua_xmove(co, L, n);
    return true;
}

/* coroutine.resume, written anew since it may pause. At 2: whether it worked. */
static int resume_on(lua_State *L, int status, lua_KContext unused);

static int resume_run(lua_State *L)
{
    lua_pushboolean(L, resume_inner(L, 1, 2, resume_on));
    lua_replace(L, 2);
    return lua_gettop(L) - 1;
}

static int resume_on(lua_State *L, int status, lua_KContext unused)
{
    (void)status, (void)unused;
    ep_lua_hold(L, 1, false);
    return resume_run(L);
}

static int resume(lua_State *L)
{
    ep_lua_charge(L, 10);
    luaL_argexpected(L, lua_isthread(L, 1), 1, "coroutine");
    lua_pushnil(L);
    lua_insert(L, 2);
    return resume_run(L);
}

/* What coroutine.wrap gives, written anew: the library's closes a coroutine that failed, and in one that a hook's
 * error killed no hook would stop its __close methods. Upvalue 1: the coroutine. */
static int wrapped_on(lua_State *L, int status, lua_KContext unused);

static int wrapped_run(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));

    if (resume_inner(L, lua_upvalueindex(1), 0, wrapped_on))
        return lua_gettop(L);
    if (lua_status(co) != LUA_OK && lua_status(co) != LUA_YIELD) { /* it failed, else it could not be resumed */
        ep_lua_close_inner(L, co);
        lua_xmove(co, L, 1);
    }
    if (lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int wrapped_on(lua_State *L, int status, lua_KContext unused)
{
    (void)status, (void)unused;
    ep_lua_hold(L, lua_upvalueindex(1), false);
    return wrapped_run(L);
}

static int wrapped(lua_State *L)
{
    ep_lua_charge(L, 10);
    return wrapped_run(L);
}

static int guard_wrap(lua_State *L)
{
    guard_create(L);
    lua_getupvalue(L, -1, 1);
    lua_pushcclosure(L, wrapped, 1);
    return 1;
}

/* The step of utf8.codes looks for the end of the character, which may be far. Upvalue 1: the library's. */
static int codes_step(lua_State *L)
{
    lua_Integer before = lua_tointeger(L, 2);
    int n = original(L);

    if (n > 0 && lua_tointeger(L, -2) - before > 64)
        ep_lua_charge(L, (uint64_t)(lua_tointeger(L, -2) - before) / 16);
    return n;
}

static int guard_codes(lua_State *L)
{
    ep_lua_charge(L, 10);
    original(L);
    lua_pushvalue(L, -3);
    lua_pushcclosure(L, codes_step, 1);
    lua_replace(L, -4);
    return 3;
}

/* os.time() and os.date(format): now, which in a test is the test's. */
static int guard_time(lua_State *L)
{
    if (lua_isnoneornil(L, 1)) {
        lua_pushinteger(L, (lua_Integer)(ep_lua_wall_ns(ep_lua_of(L)) / EP_S));
        return 1;
    }
    return original(L);
}

static int guard_date(lua_State *L)
{
    if (lua_isnoneornil(L, 2)) {
        if (lua_isnone(L, 1))
            lua_pushliteral(L, "%c");
        lua_settop(L, 1);
        lua_pushinteger(L, (lua_Integer)(ep_lua_wall_ns(ep_lua_of(L)) / EP_S));
    }
    ep_lua_charge(L, lua_rawlen(L, 1) * 4); /* "%c" is half a microsecond */
    return original(L);
}

static int rep(lua_State *L)
{
    size_t n, n_sep;
    const char *s = luaL_checklstring(L, 1, &n);
    lua_Integer times = luaL_checkinteger(L, 2);
    const char *sep = luaL_optlstring(L, 3, "", &n_sep);
    luaL_Buffer b;

    if (times <= 0 || n + n_sep == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    if ((uint64_t)times > EP_LUA_STATE_BYTES_MAX / (n + n_sep))
        return luaL_error(L, "resulting string too large");
    size_t unit = n + n_sep, total = (size_t)times * unit - n_sep, have = EP_MIN(unit, total);
    ep_lua_charge(L, total / 64);
    char *out = luaL_buffinitsize(L, &b, total);
    memcpy(out, s, n);
    memcpy(out + n, sep, have - n);
    while (have < total) { /* twice as much each time */
        size_t more = EP_MIN(have, total - have);
        memcpy(out + have, out, more);
        have += more;
    }
    luaL_pushresultsize(&b, total);
    return 1;
}

/* string.format in which floats with an integral value are written as integers, and %d truncates: as LuaJIT does,
 * so as scripts written for Envoy expect. */
static int format(lua_State *L)
{
    size_t n;
    const char *f = luaL_checklstring(L, 1, &n);
    int arg = 1;

    ep_lua_charge(L, n);
    ep_lua_charge_arguments(L, 2);
    for (size_t i = 0; i + 1 < n; i++) {
        if (f[i] != '%')
            continue;
        if (f[++i] == '%')
            continue;
        while (i + 1 < n && (strchr("-+ #0.", f[i]) || (f[i] >= '0' && f[i] <= '9')))
            i++;
        arg++;
        if (lua_type(L, arg) != LUA_TNUMBER || lua_isinteger(L, arg) || !f[i] || !strchr("dicxXos", f[i]))
            continue;
        double x = lua_tonumber(L, arg), whole = trunc(x);
        if ((x == whole || f[i] != 's') && fabs(whole) < 9.2e18) {
            lua_pushinteger(L, (lua_Integer)whole);
            lua_replace(L, arg);
        }
    }
    return original(L);
}

static int set_metatable(lua_State *L)
{
    if (lua_type(L, 2) == LUA_TTABLE) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL)
            return luaL_error(L, "__gc can't be used in ephor's sandbox");
        lua_pop(L, 1);
    }
    return original(L);
}

/* pcall and xpcall let an overrun through. */
static int finish_pcall(lua_State *L, int status, lua_KContext extra)
{
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - (int)extra;
    ep_lua_caught(L, status);
    ep_lua_charge(L, CAUGHT_COST);
    lua_pushboolean(L, false);
    lua_insert(L, -2);
    return 2;
}

static int protected_call(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_pushboolean(L, true);
    lua_insert(L, 1);
    return finish_pcall(L, lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, finish_pcall), 0);
}

/* The handler is called after the stack was unwound: inside, it would run with the hook off. At 1: the handler. */
static int finish_xpcall(lua_State *L, int status, lua_KContext extra)
{
    (void)extra;
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - 1;
    ep_lua_caught(L, status);
    ep_lua_charge(L, CAUGHT_COST);
    lua_pushvalue(L, 1);
    lua_insert(L, -2);
    ep_lua_caught(L, lua_pcall(L, 1, 1, 0));
    lua_pushboolean(L, false);
    lua_insert(L, -2);
    return 2;
}

static int protected_xcall(lua_State *L)
{
    int n = lua_gettop(L);

    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushvalue(L, 2); /* handler, true, f, arguments */
    lua_insert(L, 1);
    lua_remove(L, 3);
    lua_pushboolean(L, true);
    lua_insert(L, 2);
    return finish_xpcall(L, lua_pcallk(L, n - 2, LUA_MULTRET, 0, 0, finish_xpcall), 0);
}

static int running(lua_State *L)
{
    if (!ep_lua_is_host_thread(ep_lua_of(L), L))
        return original(L);
    lua_pushnil(L);
    lua_pushboolean(L, true);
    return 2;
}

static int random_seed(lua_State *L)
{
    (void)L; /* the generator is shared and was seeded from the system */
    return 0;
}

static int print(lua_State *L)
{
    int n = lua_gettop(L);
    luaL_Buffer b;

    luaL_buffinit(L, &b);
    for (int i = 1; i <= n; i++) {
        if (i > 1)
            luaL_addchar(&b, '\t');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    ep_lua_charge(L, EP_LUA_LOG_COST);
    ep_info("lua", "print: %.4096s", lua_tostring(L, -1));
    return 0;
}

const struct ep_lua_entry ep_lua_entries[] = {
    {NULL, "assert", NULL},
    {NULL, "error", NULL},
    {NULL, "getmetatable", NULL},
    {NULL, "ipairs", NULL},
    {NULL, "next", NULL},
    {NULL, "pairs", NULL},
    {NULL, "pcall", protected_call},
    {NULL, "print", print},
    {NULL, "rawequal", NULL},
    {NULL, "rawget", NULL},
    {NULL, "rawlen", NULL},
    {NULL, "rawset", NULL},
    {NULL, "select", NULL},
    {NULL, "setmetatable", set_metatable},
    {NULL, "tonumber", guard_length},
    {NULL, "tostring", NULL},
    {NULL, "type", NULL},
    {NULL, "xpcall", protected_xcall},
    {"coroutine", "close", guard_close},
    {"coroutine", "create", guard_create},
    {"coroutine", "isyieldable", NULL},
    {"coroutine", "resume", resume},
    {"coroutine", "running", running},
    {"coroutine", "status", NULL},
    {"coroutine", "wrap", guard_wrap},
    {"coroutine", "yield", NULL},
    {"math", "max", guard_arguments},
    {"math", "min", guard_arguments},
    {"math", "randomseed", random_seed},
    {"os", "clock", NULL},
    {"os", "date", guard_date},
    {"os", "difftime", NULL},
    {"os", "time", guard_time},
    {"string", "byte", NULL},
    {"string", "char", guard_arguments},
    {"string", "format", format},
    {"string", "len", NULL},
    {"string", "lower", guard_length},
    {"string", "pack", guard_arguments},
    {"string", "packsize", guard_length},
    {"string", "rep", rep},
    {"string", "reverse", guard_length},
    {"string", "sub", NULL},
    {"string", "unpack", guard_length},
    {"string", "upper", guard_length},
    {"table", "concat", guard_concat},
    {"table", "insert", guard_insert},
    {"table", "move", guard_move},
    {"table", "pack", NULL},
    {"table", "remove", guard_remove},
    {"table", "sort", guard_sort},
    {"table", "unpack", guard_unpack},
    {"utf8", "char", guard_arguments},
    {"utf8", "charpattern", NULL},
    {"utf8", "codepoint", guard_length},
    {"utf8", "codes", guard_codes},
    {"utf8", "len", guard_length},
    {"utf8", "offset", guard_length},
    {NULL, NULL, NULL},
};
