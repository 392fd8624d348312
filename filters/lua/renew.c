/* A policy that kept too much in Lua begins anew: its file is run again, by the thread that ran it, between two calls.
 *
 * Its functions are taken from what the file returns now; all else (counts, mode, trial) stays. What it kept hangs on the old
 * functions, and is garbage when the last call that uses them is over. Loading has less time here than off the data path: a
 * policy that needs more has no functions from then on, and refuses what it matches. */
#include "lua/policy.h"

/* `ref`, when it is one, becomes what is on top; which is popped. */
static void replace(lua_State *L, int ref)
{
    if (ref == LUA_NOREF)
        lua_pop(L, 1);
    else
        lua_rawseti(L, LUA_REGISTRYINDEX, ref);
}

static int load(lua_State *L)
{
    struct ep_policy_set *scratch = lua_touserdata(L, 1);
    struct ep_policy *p = lua_touserdata(L, 2), *again;

    ep_policy_run_text(L, scratch, p->constitutional ? NULL : p->set->directory);
    again = ep_policy_check(L, -1);
    if (!again)
        return luaL_error(L, "it returns another thing than before");
    const int refs[][2] = {
        {p->call_ref, again->call_ref}, {p->reply_ref, again->reply_ref}, {p->event_ref, again->event_ref}};
    for (size_t i = 0; i < EP_COUNT(refs); i++) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, refs[i][1]);
        replace(L, refs[i][0]);
    }
    return 0;
}

/* What its functions are when there are none. */
static int gone(lua_State *L)
{
    return luaL_error(L, "the policy kept too much memory, and could not be loaded anew");
}

void ep_policy_renew(void *policy)
{
    struct ep_policy *p = policy;
    struct ep_lua *l = p->set->lua;
    struct ep_policy_set scratch = {.lua = l, .bundle = p->set->bundle, .file = p->file.p, .text = p->text};
    lua_State *L = l->L;
    struct ep_policy_set *loading = l->loading; /* it may be between two files */
    int top = lua_gettop(L);

    ep_chunk_pool_init(&scratch.chunks, 0);
    ep_arena_init(&scratch.arena, &scratch.chunks);
    ep_list_init(&scratch.defined);
    const int refs[] = {p->call_ref, p->reply_ref, p->event_ref};
    for (size_t i = 0; i < EP_COUNT(refs); i++) {
        lua_pushcfunction(L, gone); /* now, so that there is room for the new ones */
        replace(L, refs[i]);
    }
    lua_pushcfunction(L, load);
    lua_pushlightuserdata(L, &scratch);
    lua_pushlightuserdata(L, p);
    l->loading = &scratch;
    ep_lua_charge_to(l, p->owner);
    if (ep_lua_call(l, L, 2, 0, &ep_lua_budget_renew, ep_clock_ns()) != EP_LUA_OK) {
        struct ep_str e = ep_lua_error(L);
        ep_fail("policy", "%.*s can't be loaded anew, and refuses what it matches: %.*s", EP_STR_ARG(p->name), EP_STR_ARG(e));
    }
    l->loading = loading;
    lua_settop(L, top);
    EP_LIST_FOREACH(node, &scratch.defined)
    {
        struct ep_policy *again = EP_CONTAINER(node, struct ep_policy, node);
        luaL_unref(L, LUA_REGISTRYINDEX, again->call_ref);
        luaL_unref(L, LUA_REGISTRYINDEX, again->reply_ref);
        luaL_unref(L, LUA_REGISTRYINDEX, again->event_ref);
    }
    ep_arena_fini(&scratch.arena);
    ep_chunk_pool_fini(&scratch.chunks);
}
