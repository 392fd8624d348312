/* Runs one file of Lua's own test suite in the sandbox, with a wide budget: lua_run DIRECTORY FILE [paused]. Prints what went
 * wrong, and ends with 1 then. `paused`: it pauses at each of the host's hooks, as a policy that has run for long does, and at each step of a match. Beside the sandbox the file gets what the suite is written with and scripts never get: load (of
 * text, into the sandbox), collectgarbage, debug. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua/host.h"

static const struct ep_lua_budget wide = {4000000000u, 60u << 20, 120 * EP_S, 0};

/* Runs outside of the sandbox; the environment is its argument. */
static const char tools[] = "local env, debug, userdata = ...\n"
                            "local load, collect, require = load, collectgarbage, env.require\n"
                            "function env.load(chunk, name, mode, ...)\n"
                            "  if select('#', ...) > 0 then return load(chunk, name, 't', ...) end\n"
                            "  return load(chunk, name, 't', env)\n"
                            "end\n"
                            "function env.collectgarbage(what, ...)\n"
                            "  if what == nil or what == 'collect' or what == 'count' then return collect(what) end\n"
                            "  return 0\n"
                            "end\n"
                            "local function nothing() end\n"
                            "local given = {debug = debug, tracegc = {start = nothing, stop = nothing}}\n"
                            "function env.require(name) return given[name] or require(name) end\n"
                            "env.debug, env.io = debug, {stdin = userdata, stderr = {write = nothing}}\n"
                            "env._port, env._soft, env._nomsg = true, true, true\n";

struct job {
    const char *directory, *file;
};

static int trace(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static int prepare(lua_State *L)
{
    const struct job *job = lua_touserdata(L, 1);

    int env = lua_gettop(L) + 1;
    ep_lua_env_push(L, EP_LUA_POLICY, job->directory);
    if (luaL_loadstring(L, tools) != LUA_OK)
        return lua_error(L);
    lua_pushvalue(L, env);
    luaopen_debug(L);
    lua_newuserdatauv(L, 1, 0);
    lua_call(L, 3, 0);
    lua_settop(L, env);
    ep_lua_read_file(L, lua_pushfstring(L, "%s/%s", job->directory, job->file));
    lua_pushfstring(L, "@%s", job->file);
    ep_lua_compile(L, ep_lua_check_str(L, -2), lua_tostring(L, -1), env);
    return 1;
}

static int run(lua_State *L)
{
    lua_pushcfunction(L, trace);
    prepare(L);
    if (lua_pcall(L, 0, 0, 2) != LUA_OK)
        return lua_error(L);
    return 0;
}

static enum ep_lua_status run_paused(struct ep_lua *l)
{
    struct ep_lua_budget b = wide;
    struct ep_lua_thread t = ep_lua_thread_take(l);
    enum ep_lua_status status = ep_lua_call(l, l->thread, 1, 1, &wide, ep_clock_ns());
    int n;

    if (status != EP_LUA_OK)
        return status;
    b.slice_ns = 1;
    l->match_steps = 1;
    lua_xmove(l->thread, t.L, 1);
    for (n = 0; (status = ep_lua_resume(l, t.L, 0, &n, &b, ep_clock_ns())) == EP_LUA_PAUSED;)
        ;
    if (status != EP_LUA_OK) {
        luaL_traceback(l->thread, t.L, lua_tostring(t.L, -1), 0);
        return status;
    }
    ep_lua_thread_give(l, t, true);
    return status;
}

int main(int argc, char **argv)
{
    struct job job = {argc > 1 ? argv[1] : "", argc > 2 ? argv[2] : ""};
    struct ep_worker worker;
    struct ep_error err = {""};
    struct ep_lua *l;

    ep_log_set_level(EP_LOG_OFF);
    memset(&worker, 0, sizeof worker);
    l = ep_lua_ref(&worker, &err);
    if (!l) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    bool paused = argc > 3 && strcmp(argv[3], "paused") == 0;
    lua_pushcfunction(l->thread, paused ? prepare : run);
    lua_pushlightuserdata(l->thread, &job);
    enum ep_lua_status status = paused ? run_paused(l) : ep_lua_call(l, l->thread, 1, 0, &wide, ep_clock_ns());
    if (status != EP_LUA_OK) {
        struct ep_str e = ep_lua_error(l->thread);
        fprintf(stderr, "%.*s\n", EP_STR_ARG(e));
    }
    lua_settop(l->thread, 0);
    ep_lua_unref(l);
    return status != EP_LUA_OK;
}
