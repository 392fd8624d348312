/* streamInfo(), connectionStreamInfo(), dynamicMetadata(), filterState() and connection() of Envoy's API.
 *
 * Dynamic metadata is the stream's tags (filter/stream.h): a JSON value by namespace and key. So it is copied in and
 * out as in Envoy, later scripts see what earlier ones set, and the access log can have it. */
#include "filter/chain.h"
#include "lua/envoy.h"
#include "lua/object.h"

#define DEPTH_MAX 16
#define DRAIN_NS  EP_S /* between the first GOAWAY and the last */

/* --- streamInfo --- */

static struct ep_conn *conn_of(const struct ep_envoy_handle *h)
{
    return h->s->down ? h->s->down->conn : NULL;
}

static const struct ep_tls_info *tls_of(const struct ep_envoy_handle *h)
{
    struct ep_conn *c = conn_of(h);

    return c ? ep_conn_tls_info(c) : NULL;
}

static int info_protocol(lua_State *L)
{
    static const char *const names[] = {
        [EP_HTTP_NONE] = "",    [EP_HTTP_1_0] = "HTTP/1.0", [EP_HTTP_1_1] = "HTTP/1.1",
        [EP_HTTP_2] = "HTTP/2", [EP_HTTP_TCP] = "",
    };
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_STREAM_INFO);

    lua_pushstring(L, h->s->down ? names[h->s->down->version] : "");
    return 1;
}

static int info_route_name(lua_State *L)
{
    const struct ep_route *route = ep_stream_route(ep_envoy_check(L, EP_ENVOY_STREAM_INFO)->s);

    ep_lua_push(L, route ? route->name : (struct ep_str){NULL, 0});
    return 1;
}

static void push_address(lua_State *L, const struct ep_addr *a)
{
    char text[128] = "";

    if (a && a->len)
        ep_addr_format(a, text);
    lua_pushstring(L, text);
}

static int info_local_address(lua_State *L)
{
    struct ep_conn *c = conn_of(ep_envoy_check(L, EP_ENVOY_STREAM_INFO));

    push_address(L, c ? &c->local : NULL);
    return 1;
}

static int info_remote_address(lua_State *L)
{
    struct ep_conn *c = conn_of(ep_envoy_check(L, EP_ENVOY_STREAM_INFO));

    push_address(L, c ? &c->peer : NULL);
    return 1;
}

static int info_requested_server_name(lua_State *L)
{
    const struct ep_tls_info *tls = tls_of(ep_envoy_check(L, EP_ENVOY_STREAM_INFO));

    ep_lua_push(L, tls ? tls->sni : (struct ep_str){NULL, 0});
    return 1;
}

static int info_dynamic_metadata(lua_State *L)
{
    ep_envoy_push(L, ep_envoy_check(L, EP_ENVOY_STREAM_INFO), EP_ENVOY_DYNAMIC_METADATA);
    return 1;
}

static void push_ssl(lua_State *L, struct ep_envoy_handle *h)
{
    if (tls_of(h))
        ep_envoy_push(L, h, EP_ENVOY_SSL);
    else
        lua_pushnil(L);
}

static int info_ssl(lua_State *L)
{
    push_ssl(L, ep_envoy_check(L, EP_ENVOY_STREAM_INFO));
    return 1;
}

/* --- dynamicMetadata --- */

/* Pushes a table of all keys of a namespace, or nil. */
static void push_space(lua_State *L, const struct ep_stream *s, struct ep_str space)
{
    bool any = false;

    for (const struct ep_tag *t = s->tags; t; t = t->next) {
        if (!ep_str_eq(t->space, space))
            continue;
        if (!any)
            lua_newtable(L);
        any = true;
        ep_lua_push(L, t->key);
        ep_lua_json_decode(L, t->value);
        lua_rawset(L, -3);
    }
    if (!any)
        lua_pushnil(L);
}

static int dynamic_get(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_DYNAMIC_METADATA);

    push_space(L, h->s, ep_lua_check_str(L, 2));
    return 1;
}

/* Raises for a value on top that Envoy would not take. */
static void check_value(lua_State *L, int depth)
{
    int type = lua_type(L, -1);

    if (type == LUA_TNIL || type == LUA_TBOOLEAN || type == LUA_TNUMBER || type == LUA_TSTRING)
        return;
    if (type != LUA_TTABLE)
        luaL_error(L, "unexpected type '%s' in dynamicMetadata", lua_typename(L, type));
    if (depth > DEPTH_MAX)
        luaL_error(L, "dynamicMetadata is nested deeper than %d", DEPTH_MAX);
    luaL_checkstack(L, 4, NULL);
    bool array = lua_rawlen(L, -1) > 0;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (!array && lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "unexpected type %s in table key (only string keys are supported)", luaL_typename(L, -2));
        check_value(L, depth + 1);
    }
}

static int dynamic_set(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_DYNAMIC_METADATA);
    struct ep_str space = ep_lua_check_str(L, 2), key = ep_lua_check_str(L, 3);

    luaL_checkany(L, 4);
    lua_settop(L, 4);
    check_value(L, 0);
    ep_lua_json_encode(L, 4);
    struct ep_str value = ep_lua_check_str(L, -1);
    if (space.n + key.n > 512 || value.n > 64u * 1024)
        return luaL_error(L, "dynamicMetadata: a name has at most 512 bytes, a value at most 64 KiB");
    ep_lua_charge(L, EP_TAGS_MAX / 4 + value.n / 16);
    if (!ep_stream_tag(h->s, space, key, value))
        return luaL_error(L, "dynamicMetadata: a stream has at most %d entries", (int)EP_TAGS_MAX);
    return 0;
}

/* All namespaces in one table; `next` goes over it. */
static int dynamic_pairs(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_DYNAMIC_METADATA);

    ep_envoy_push_next(L);
    lua_newtable(L);
    for (const struct ep_tag *t = h->s->tags; t; t = t->next) {
        ep_lua_push(L, t->space);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, -3) != LUA_TNIL) {
            lua_pop(L, 2);
            continue;
        }
        lua_pop(L, 1);
        push_space(L, h->s, t->space);
        lua_rawset(L, -3);
    }
    return 2;
}

/* --- filterState: strings by name, of scripts; and what ephor knows of the caller --- */

#define STATE_SPACE EP_STR("ephor.filterState")

/* Pushes an object's text, or nil. */
static bool push_state(lua_State *L, const struct ep_stream *s, struct ep_str name)
{
    const struct ep_tag *t = ep_stream_tag_find(s, STATE_SPACE, name);

    if (t)
        ep_lua_json_decode(L, t->value);
    else if (ep_str_eq(name, EP_STR("ephor.peer_id")) && s->peer_id.n)
        ep_lua_push(L, s->peer_id);
    else
        lua_pushnil(L);
    return !lua_isnil(L, -1);
}

static int state_get(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_FILTER_STATE);
    struct ep_str name = ep_lua_check_str(L, 2);

    lua_settop(L, 3);
    if (!push_state(L, h->s, name) || lua_isnil(L, 3))
        return 1;
    luaL_checkstring(L, 3);
    lua_pushnil(L); /* a string has no fields */
    return 1;
}

static int state_set(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_FILTER_STATE);
    struct ep_str name = ep_lua_check_str(L, 2), factory = ep_lua_check_str(L, 3);
    struct ep_str value;

    if (!ep_str_eq(factory, EP_STR("envoy.string")) && !ep_str_eq(factory, EP_STR("envoy.hashable_string")))
        return luaL_error(L, "'%s' is not an object factory that ephor has: envoy.string, envoy.hashable_string",
                          factory.p);
    ep_lua_check_text(L, 4);
    lua_settop(L, 4);
    ep_lua_json_encode(L, 4);
    value = ep_lua_check_str(L, -1);
    if (name.n > 512 || value.n > 64u * 1024)
        return luaL_error(L, "filterState: a name has at most 512 bytes, a value at most 64 KiB");
    ep_lua_charge(L, EP_TAGS_MAX / 4 + value.n / 16);
    if (!ep_stream_tag(h->s, STATE_SPACE, name, value))
        return luaL_error(L, "filterState: a stream has at most %d entries", (int)EP_TAGS_MAX);
    return 0;
}

/* --- connectionStreamInfo: ephor has no network filters that could set anything --- */

static int connection_metadata_get(lua_State *L)
{
    ep_envoy_check(L, EP_ENVOY_CONNECTION_METADATA);
    luaL_checkstring(L, 2);
    lua_pushnil(L);
    return 1;
}

static int connection_metadata_pairs(lua_State *L)
{
    ep_envoy_check(L, EP_ENVOY_CONNECTION_METADATA);
    ep_envoy_push_next(L);
    lua_newtable(L);
    return 2;
}

static int typed_metadata(lua_State *L)
{
    const struct ep_envoy_object *o = lua_touserdata(L, 1);

    if (lua_type(L, 1) != LUA_TUSERDATA || lua_rawlen(L, 1) < sizeof *o || o->class != EP_ENVOY_CONNECTION_INFO)
        ep_envoy_check(L, EP_ENVOY_STREAM_INFO);
    else
        ep_envoy_check(L, EP_ENVOY_CONNECTION_INFO);
    luaL_checkstring(L, 2);
    lua_pushnil(L); /* no filter of ephor makes protobuf messages */
    return 1;
}

EP_ENVOY_GIVES(connection_metadata, EP_ENVOY_CONNECTION_INFO, EP_ENVOY_CONNECTION_METADATA)
EP_ENVOY_GIVES(filter_state, EP_ENVOY_STREAM_INFO, EP_ENVOY_FILTER_STATE)

/* --- the others --- */

static int info_virtual_cluster_name(lua_State *L)
{
    ep_envoy_check(L, EP_ENVOY_STREAM_INFO);
    lua_pushliteral(L, ""); /* none matched: ephor has none */
    return 1;
}

static int info_drain(lua_State *L)
{
    struct ep_conn *c = conn_of(ep_envoy_check(L, EP_ENVOY_STREAM_INFO));

    if (c)
        ep_codec_drain(c, DRAIN_NS);
    return 0;
}

static int connection_ssl(lua_State *L)
{
    push_ssl(L, ep_envoy_check(L, EP_ENVOY_CONNECTION));
    return 1;
}

void ep_envoy_info_open(lua_State *L)
{
    static const luaL_Reg info[] = {
        {"protocol", info_protocol},
        {"routeName", info_route_name},
        {"virtualClusterName", info_virtual_cluster_name},
        {"downstreamLocalAddress", info_local_address},
        {"downstreamDirectLocalAddress", info_local_address},
        {"downstreamRemoteAddress", info_remote_address},
        {"downstreamDirectRemoteAddress", info_remote_address},
        {"requestedServerName", info_requested_server_name},
        {"dynamicMetadata", info_dynamic_metadata},
        {"dynamicTypedMetadata", typed_metadata},
        {"filterState", filter_state},
        {"downstreamSslConnection", info_ssl},
        {"drainConnectionUponCompletion", info_drain},
        {NULL, NULL},
    };
    static const luaL_Reg connection_info[] = {
        {"dynamicMetadata", connection_metadata},
        {"dynamicTypedMetadata", typed_metadata},
        {NULL, NULL},
    };
    static const luaL_Reg dynamic[] = {{"get", dynamic_get}, {"set", dynamic_set}, {NULL, NULL}};
    static const luaL_Reg dynamic_meta[] = {{"__pairs", dynamic_pairs}, {NULL, NULL}};
    static const luaL_Reg of_connection[] = {{"get", connection_metadata_get}, {NULL, NULL}};
    static const luaL_Reg of_connection_meta[] = {{"__pairs", connection_metadata_pairs}, {NULL, NULL}};
    static const luaL_Reg state[] = {{"get", state_get}, {"set", state_set}, {NULL, NULL}};
    static const luaL_Reg connection[] = {{"ssl", connection_ssl}, {NULL, NULL}};

    ep_envoy_class(L, EP_ENVOY_STREAM_INFO, info, NULL);
    ep_envoy_class(L, EP_ENVOY_CONNECTION_INFO, connection_info, NULL);
    ep_envoy_class(L, EP_ENVOY_DYNAMIC_METADATA, dynamic, dynamic_meta);
    ep_envoy_class(L, EP_ENVOY_CONNECTION_METADATA, of_connection, of_connection_meta);
    ep_envoy_class(L, EP_ENVOY_FILTER_STATE, state, NULL);
    ep_envoy_class(L, EP_ENVOY_CONNECTION, connection, NULL);
}
