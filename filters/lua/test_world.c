/* The world of a test: a clock that stands still until the test moves it.
 *
 * It is the clock of c.now, of os.time and of all that grows old in what policies keep. Budgets go by the world's. */
#include "lua/testing.h"

#define YEAR_9999 253402300799.0

void ep_test_world_reset(struct ep_lua *l)
{
    l->test_wall_ns = ep_clock_wall_ns();
    lua_pushnil(l->L);
    lua_setfield(l->L, LUA_REGISTRYINDEX, EP_POLICY_TEST_HTTP);
    ep_memory_free(l->worker->memory);
    l->worker->memory = ep_memory_new();
}

static int push_clock(lua_State *L)
{
    lua_pushnumber(L, (double)ep_lua_wall_ns(ep_lua_of(L)) / 1e9);
    return 1;
}

/* http(function(request)): answers c:http of the policies; nil: nobody does. */
int ep_test_http(lua_State *L)
{
    if (!lua_isnil(L, 1))
        luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, EP_POLICY_TEST_HTTP);
    return 0;
}

int ep_test_clock(lua_State *L)
{
    return push_clock(L);
}

static void set(lua_State *L, double seconds)
{
    if (!(seconds > 0 && seconds <= YEAR_9999))
        luaL_error(L, "a clock shows a time between 1970 and 9999");
    ep_lua_of(L)->test_wall_ns = (uint64_t)(seconds * 1e6) * 1000; /* a double has the microseconds */
}

int ep_test_set_clock(lua_State *L)
{
    set(L, luaL_checknumber(L, 1));
    return push_clock(L);
}

int ep_test_advance(lua_State *L)
{
    uint64_t now_ns = ep_lua_wall_ns(ep_lua_of(L)), ns;

    if (lua_type(L, 1) == LUA_TSTRING) {
        if (!ep_parse_duration(ep_lua_check_str(L, 1), &ns))
            return luaL_error(L, "'%s' is no duration: 250ms, 5s, 2m, 1h, 7d", lua_tostring(L, 1));
    } else {
        double seconds = luaL_checknumber(L, 1);
        if (!(seconds >= 0 && seconds <= YEAR_9999))
            return luaL_error(L, "a clock goes forward; t.clock.set puts it back");
        ns = (uint64_t)(seconds * 1e9);
    }
    if (ns > (uint64_t)YEAR_9999 * EP_S - EP_MIN(now_ns, (uint64_t)YEAR_9999 * EP_S))
        return luaL_error(L, "a clock shows a time between 1970 and 9999");
    ep_lua_of(L)->test_wall_ns = now_ns + ns;
    return push_clock(L);
}
