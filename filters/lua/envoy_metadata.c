/* metadata(), route(), virtualHost() and filterContext() of Envoy's API: what the configuration says for scripts,
 * read-only.
 *
 * It is JSON text there (EP_TYPE_JSON) and decoded when it is asked for: scripts of one worker may not share a table
 * that one of them could change. */
#include "filter/chain.h"
#include "lua/envoy.h"

#define FALLBACK EP_STR("envoy.filters.http.lua")

/* Pushes the object that is seen, a table; empty when there is none. */
static void push_table(lua_State *L, struct ep_str json)
{
    if (!json.n) {
        lua_newtable(L);
        return;
    }
    ep_lua_charge(L, json.n / 8);
    ep_lua_json_decode(L, json);
}

/* Pushes what the route says to this filter: by its own name, else by the name that Envoy's own filter has. */
static void push_route_metadata(lua_State *L, struct ep_envoy_handle *h)
{
    const struct ep_route *route = ep_stream_route(h->s);

    push_table(L, route && route->config ? route->config->metadata : (struct ep_str){NULL, 0});
    ep_lua_push(L, h->script->name);
    if (lua_rawget(L, -2) != LUA_TTABLE) {
        lua_pop(L, 1);
        ep_lua_push(L, FALLBACK);
        if (lua_rawget(L, -2) != LUA_TTABLE) {
            lua_pop(L, 1);
            lua_newtable(L);
        }
    }
    lua_remove(L, -2);
}

/* The class of the object at 1 is an upvalue. */
static void push_object(lua_State *L)
{
    enum ep_envoy_class class = (enum ep_envoy_class)lua_tointeger(L, lua_upvalueindex(1));
    struct ep_envoy_handle *h = ep_envoy_check(L, class);

    if (class == EP_ENVOY_METADATA)
        push_route_metadata(L, h);
    else if (class == EP_ENVOY_CONTEXT)
        push_table(L, h->script->context);
    else
        lua_newtable(L); /* ephor has no virtual hosts */
}

static int get(lua_State *L)
{
    push_object(L);
    ep_lua_push(L, ep_lua_check_str(L, 2));
    lua_rawget(L, -2);
    return 1;
}

static int all_pairs(lua_State *L)
{
    ep_envoy_push_next(L);
    push_object(L);
    return 2;
}

/* context["key"], as Envoy's documentation has it, beside context:get("key"). */
static int context_index(lua_State *L)
{
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL)
        return 1;
    return get(L);
}

EP_ENVOY_GIVES(route_metadata, EP_ENVOY_ROUTE, EP_ENVOY_METADATA)
EP_ENVOY_GIVES(host_metadata, EP_ENVOY_VIRTUAL_HOST, EP_ENVOY_HOST_METADATA)

static void open_class(lua_State *L, enum ep_envoy_class class)
{
    ep_envoy_class(L, class, NULL, NULL);
    ep_envoy_push_metatable(L, class);
    lua_pushinteger(L, (lua_Integer) class);
    lua_pushcclosure(L, all_pairs, 1);
    lua_setfield(L, -2, "__pairs");
    lua_getfield(L, -1, "__index"); /* the methods */
    lua_pushinteger(L, (lua_Integer) class);
    lua_pushcclosure(L, get, 1);
    lua_setfield(L, -2, "get");
    if (class == EP_ENVOY_CONTEXT) {
        lua_pushinteger(L, (lua_Integer) class);
        lua_insert(L, -2);
        lua_pushcclosure(L, context_index, 2);
        lua_setfield(L, -2, "__index");
        lua_pop(L, 1);
    } else {
        lua_pop(L, 2);
    }
}

void ep_envoy_metadata_open(lua_State *L)
{
    static const luaL_Reg route[] = {{"metadata", route_metadata}, {NULL, NULL}};
    static const luaL_Reg host[] = {{"metadata", host_metadata}, {NULL, NULL}};

    open_class(L, EP_ENVOY_METADATA);
    open_class(L, EP_ENVOY_HOST_METADATA);
    open_class(L, EP_ENVOY_CONTEXT);
    ep_envoy_class(L, EP_ENVOY_ROUTE, route, NULL);
    ep_envoy_class(L, EP_ENVOY_VIRTUAL_HOST, host, NULL);
}
