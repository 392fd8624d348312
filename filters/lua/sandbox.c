/* The sandbox: environments made of what guards.c lists, chunks, and `require`.
 *
 * The prototype (one a state) holds the library tables; an environment is a copy of them, so that a script that
 * changes `string.format` changes its own. The methods of strings (("x"):upper()) are a table of nobody's. */
#include "lua/host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lua/bundle.h"
#include "lua/compiled.h"
#include "lua/embedded.h"
#include "lua/guards.h"
#include "lua/object.h"

/* --- the prototype --- */

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
static void push_entry(lua_State *L, const struct ep_lua_entry *e, int globals)
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
    for (size_t i = 0; ep_lua_entries[i].name; i++) {
        const struct ep_lua_entry *e = &ep_lua_entries[i];

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
    if (ep_lua_compiled_load(ep_lua_of(L)->worker->compiled, L, text, chunk) != LUA_OK)
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
    if (ep_lua_of(L)->bundle) {
        lua_pushfstring(L, "%s.lua", lua_tostring(L, -1));
        const struct ep_policy_bundle_file *f = ep_policy_bundle_find(ep_lua_of(L)->bundle, ep_lua_check_str(L, -1));
        if (!f)
            luaL_error(L, "%s: %s", lua_tostring(L, -1), strerror(ENOENT));
        ep_lua_push(L, f->text);
        lua_pushfstring(L, "@%s.lua", lua_tostring(L, -3));
        return;
    }
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
        if (failed)
            ep_lua_caught(L, failed);
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
