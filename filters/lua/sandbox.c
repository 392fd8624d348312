/* The sandbox: which functions of the standard library scripts get, and guarded ones in place of those that could run
 * long in C, where no hook counts. host.h says why each of them.
 *
 * The prototype (one a state) holds the library tables; an environment is a copy of them, so that a script that
 * changes `string.format` changes its own. The methods of strings (("x"):upper()) are a table of nobody's. */
#include "lua/host.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lua/embedded.h"
#include "lua/object.h"

/* --- guards --- */

/* Calls the function of the standard library that a guard stands for, on the same stack. */
static int original(lua_State *L)
{
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* For what takes time in proportion to the length of its first argument. */
static int guard_length(lua_State *L)
{
    ep_lua_charge(L, lua_rawlen(L, 1) / 64);
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

    ep_lua_charge(L, span(luaL_optinteger(L, 3, 1), luaL_optinteger(L, 4, n)) / 4);
    return original(L);
}

static int guard_insert(lua_State *L)
{
    lua_Integer n = raw_length(L, 1);

    if (lua_gettop(L) >= 3)
        ep_lua_charge(L, span(luaL_checkinteger(L, 2), n) / 4);
    return original(L);
}

static int guard_remove(lua_State *L)
{
    lua_Integer n = raw_length(L, 1);

    if (lua_gettop(L) >= 2)
        ep_lua_charge(L, span(luaL_checkinteger(L, 2), n) / 4);
    return original(L);
}

static int guard_move(lua_State *L)
{
    ep_lua_charge(L, span(luaL_checkinteger(L, 2), luaL_checkinteger(L, 3)) / 4);
    return original(L);
}

static int guard_sort(lua_State *L)
{
    lua_Integer n = raw_length(L, 1);
    uint64_t log2n = 1;

    while (log2n < 63 && (n >> log2n) > 0)
        log2n++;
    ep_lua_charge(L, (uint64_t)n * log2n / 4);
    return original(L);
}

static int guard_unpack(lua_State *L)
{
    lua_Integer from = luaL_optinteger(L, 2, 1);

    ep_lua_charge(L, span(from, lua_isnoneornil(L, 3) ? raw_length(L, 1) : luaL_checkinteger(L, 3)) / 4);
    return original(L);
}

/* A coroutine's instructions are counted from its own 1000 on, so a short one costs a flat fee. */
static int guard_coroutine(lua_State *L)
{
    ep_lua_charge(L, EP_LUA_HOOK_EVERY / 2);
    return original(L);
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
    return guard_length(L);
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
    size_t total = (size_t)times * n + ((size_t)times - 1) * n_sep;
    ep_lua_charge(L, total / 64 + (uint64_t)times / 4);
    char *out = luaL_buffinitsize(L, &b, total);
    for (lua_Integer i = 0; i < times; i++) {
        memcpy(out, s, n);
        out += n;
        if (i + 1 < times && n_sep) {
            memcpy(out, sep, n_sep);
            out += n_sep;
        }
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

    ep_lua_charge(L, n / 64);
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
    if (status == LUA_ERRMEM && ep_lua_of(L)->run.active)
        ep_lua_of(L)->run.overrun = EP_LUA_MEMORY;
    ep_lua_check(L);
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
    if (status == LUA_ERRMEM && ep_lua_of(L)->run.active)
        ep_lua_of(L)->run.overrun = EP_LUA_MEMORY;
    ep_lua_check(L);
    lua_pushvalue(L, 1);
    lua_insert(L, -2);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK)
        ep_lua_check(L);
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

static int resume(lua_State *L)
{
    int n = original(L);

    ep_lua_check(L);
    return n;
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

/* --- the prototype --- */

struct entry {
    const char *library; /* NULL: of the base library */
    const char *name;
    lua_CFunction guard; /* NULL: the standard function itself */
};

static const struct entry entries[] = {
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
    {"coroutine", "close", resume},
    {"coroutine", "create", guard_coroutine},
    {"coroutine", "isyieldable", NULL},
    {"coroutine", "resume", resume},
    {"coroutine", "running", running},
    {"coroutine", "status", NULL},
    {"coroutine", "wrap", guard_coroutine},
    {"coroutine", "yield", NULL},
    {"math", "randomseed", random_seed},
    {"os", "clock", NULL},
    {"os", "date", guard_date},
    {"os", "difftime", NULL},
    {"os", "time", guard_time},
    {"string", "byte", NULL},
    {"string", "char", NULL},
    {"string", "format", format},
    {"string", "len", NULL},
    {"string", "lower", guard_length},
    {"string", "pack", guard_length},
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
    {"utf8", "char", NULL},
    {"utf8", "charpattern", NULL},
    {"utf8", "codepoint", guard_length},
    {"utf8", "codes", NULL},
    {"utf8", "len", guard_length},
    {"utf8", "offset", guard_length},
};

static const char *const libraries[] = {"coroutine", "math", "os", "string", "table", "utf8"};

/* Copies all of the table at `from` into the one on top. */
static void copy_into_top(lua_State *L, int from)
{
    from = lua_absindex(L, from);
    lua_pushnil(L);
    while (lua_next(L, from)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -4);
    }
}

/* Pushes the function of entry e; the globals of the standard library are at `globals`. */
static void push_entry(lua_State *L, const struct entry *e, int globals)
{
    lua_pushvalue(L, globals);
    if (e->library) {
        lua_getfield(L, -1, e->library);
        lua_remove(L, -2);
    }
    lua_getfield(L, -1, e->name);
    lua_remove(L, -2);
    if (e->guard)
        lua_pushcclosure(L, e->guard, 1);
}

void ep_lua_sandbox_open(lua_State *L)
{
    static const luaL_Reg standard[] = {
        {LUA_GNAME, luaopen_base},       {LUA_COLIBNAME, luaopen_coroutine}, {LUA_MATHLIBNAME, luaopen_math},
        {LUA_OSLIBNAME, luaopen_os},     {LUA_STRLIBNAME, luaopen_string},   {LUA_TABLIBNAME, luaopen_table},
        {LUA_UTF8LIBNAME, luaopen_utf8},
    };
    int globals, prototype;

    for (size_t i = 0; i < EP_COUNT(standard); i++) {
        luaL_requiref(L, standard[i].name, standard[i].func, 1);
        lua_pop(L, 1);
    }
    lua_pushglobaltable(L);
    globals = lua_gettop(L);
    lua_newtable(L);
    prototype = lua_gettop(L);
    for (size_t i = 0; i < EP_COUNT(libraries); i++) {
        lua_newtable(L);
        lua_setfield(L, prototype, libraries[i]);
    }
    lua_getfield(L, prototype, "math"); /* the one library that is taken as it is */
    lua_getfield(L, globals, "math");
    lua_insert(L, -2);
    copy_into_top(L, -2);
    lua_pop(L, 2);
    for (size_t i = 0; i < EP_COUNT(entries); i++) {
        const struct entry *e = &entries[i];

        if (e->library)
            lua_getfield(L, prototype, e->library);
        else
            lua_pushvalue(L, prototype);
        push_entry(L, e, globals);
        lua_setfield(L, -2, e->name);
        lua_pop(L, 1);
    }
    lua_getfield(L, prototype, "string");
    ep_lua_pattern_open(L);
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1); /* of all strings */
    lua_newtable(L);
    copy_into_top(L, prototype + 1);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_settop(L, prototype);
    lua_pushliteral(L, LUA_VERSION);
    lua_setfield(L, prototype, "_VERSION");
    ep_lua_of(L)->prototype_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);
}

/* --- environments, chunks, require --- */

void ep_lua_compile(lua_State *L, struct ep_str text, const char *chunk, int env)
{
    env = lua_absindex(L, env);
    if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0)
        text = ep_str_n(text.p + 3, text.n - 3);
    if (luaL_loadbufferx(L, text.n ? text.p : "", text.n, chunk, "t") != LUA_OK)
        lua_error(L);
    lua_pushvalue(L, env);
    if (!lua_setupvalue(L, -2, 1)) /* _ENV; a chunk that uses no global has none */
        lua_pop(L, 1);
}

/* Reads what fits into `buffer`; the length, or -errno. */
static ssize_t read_whole(const char *path, char *buffer, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    size_t n = 0;
    ssize_t got = 1;

    if (fd < 0)
        return -errno;
    while (n < size && (got = read(fd, buffer + n, size - n)) > 0)
        n += (size_t)got;
    int error = errno;
    close(fd);
    return got < 0 ? -error : (ssize_t)n;
}

void ep_lua_read_file(lua_State *L, const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0)
        luaL_error(L, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        luaL_error(L, "%s: not a regular file", path);
    if ((uint64_t)st.st_size > EP_LUA_FILE_BYTES_MAX)
        luaL_error(L, "%s: larger than %d KiB", path, (int)(EP_LUA_FILE_BYTES_MAX / 1024));
    size_t size = (size_t)st.st_size;
    char *buffer = lua_newuserdatauv(L, size + 1, 0);
    ssize_t n = read_whole(path, buffer, size + 1);
    if (n < 0)
        luaL_error(L, "%s: %s", path, strerror((int)-n));
    if ((size_t)n > size)
        luaL_error(L, "%s: changed while it was read", path);
    lua_pushlstring(L, buffer, (size_t)n);
    lua_remove(L, -2);
}

/* Letters, digits, _ and -, in parts joined by dots: never a way out of the directory. */
static bool module_name_good(struct ep_str name)
{
    bool part = false;

    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i], l = ep_lower(c);
        if (c == '.') {
            if (!part)
                return false;
            part = false;
        } else if ((l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-') {
            part = true;
        } else {
            return false;
        }
    }
    return part && name.n <= 128;
}

enum { REQUIRE_LOADED = 1, REQUIRE_ENV, REQUIRE_DIRECTORY }; /* upvalues */

static void push_module_source(lua_State *L, struct ep_str name)
{
    const struct ep_lua_embedded *e;

    if (ep_str_starts(name, EP_STR("ephor."))) {
        e = ep_lua_embedded_find(name);
        if (!e)
            luaL_error(L, "there is no module '%s'", name.p);
        lua_pushlstring(L, (const char *)e->text, e->n);
        lua_pushfstring(L, "@%s.lua", name.p);
        return;
    }
    if (lua_type(L, lua_upvalueindex(REQUIRE_DIRECTORY)) != LUA_TSTRING)
        luaL_error(L, "there is no module '%s': only ephor.* can be required here", name.p);
    luaL_gsub(L, name.p, ".", "/");
    lua_pushfstring(L, "%s/%s.lua", lua_tostring(L, lua_upvalueindex(REQUIRE_DIRECTORY)), lua_tostring(L, -1));
    ep_lua_read_file(L, lua_tostring(L, -1));
    lua_pushfstring(L, "@%s.lua", lua_tostring(L, -3));
}

static int require(lua_State *L)
{
    struct ep_str name = ep_lua_check_str(L, 1);

    lua_settop(L, 1);
    if (!module_name_good(name))
        return luaL_error(L, "'%s' is no name of a module", name.p);
    lua_pushvalue(L, 1);
    if (lua_rawget(L, lua_upvalueindex(REQUIRE_LOADED)) != LUA_TNIL) {
        if (lua_type(L, -1) == LUA_TLIGHTUSERDATA)
            return luaL_error(L, "module '%s' requires itself", name.p);
        return 1;
    }
    lua_pop(L, 1);
    if (ep_str_eq(name, EP_STR("ephor.native"))) {
        ep_policy_native(L);
    } else {
        push_module_source(L, name);
        struct ep_str text = ep_lua_check_str(L, -2);
        ep_lua_compile(L, text, lua_tostring(L, -1), lua_upvalueindex(REQUIRE_ENV));
        lua_pushvalue(L, 1);
        lua_pushlightuserdata(L, L);
        lua_rawset(L, lua_upvalueindex(REQUIRE_LOADED));
        lua_pushvalue(L, 1);
        int failed = lua_pcall(L, 1, 1, 0);
        if (failed || lua_isnil(L, -1)) {
            lua_pushvalue(L, 1);
            if (failed)
                lua_pushnil(L);
            else
                lua_pushboolean(L, true);
            lua_rawset(L, lua_upvalueindex(REQUIRE_LOADED));
            if (failed)
                return lua_error(L);
            lua_pushboolean(L, true);
        }
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -2);
    lua_rawset(L, lua_upvalueindex(REQUIRE_LOADED));
    return 1;
}

void ep_lua_env_push(lua_State *L, enum ep_lua_dialect dialect, const char *directory)
{
    int env;

    luaL_checkstack(L, 10, NULL);
    lua_newtable(L);
    env = lua_gettop(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, ep_lua_of(L)->prototype_ref);
    lua_pushvalue(L, env);
    copy_into_top(L, env + 1);
    lua_pop(L, 1);
    lua_newtable(L); /* what require has loaded; the libraries too, as require "bit" and the like are common */
    for (size_t i = 0; i < EP_COUNT(libraries); i++) {
        lua_getfield(L, env + 1, libraries[i]);
        lua_newtable(L);
        copy_into_top(L, -2);
        lua_remove(L, -2);
        lua_pushvalue(L, -1);
        lua_setfield(L, env, libraries[i]);
        lua_setfield(L, env + 2, libraries[i]);
    }
    lua_pushvalue(L, env);
    lua_setfield(L, env, "_G");
    if (dialect == EP_LUA_ENVOY) {
        lua_pushvalue(L, env);
        ep_lua_shim51(L);
        lua_getfield(L, -1, "bit");
        lua_setfield(L, env + 2, "bit");
        lua_pop(L, 1);
    }
    lua_pushvalue(L, env);
    if (directory)
        lua_pushstring(L, directory);
    else
        lua_pushboolean(L, false);
    lua_pushcclosure(L, require, 3);
    lua_setfield(L, env, "require");
    lua_settop(L, env);
}
