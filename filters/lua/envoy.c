/* The handle that envoy_on_request and envoy_on_response get, and the body. envoy.h has the design. */
#include "lua/envoy.h"

#include <stdio.h>
#include <stdlib.h>

#define GRPC_MESSAGE_MAX 1024u

/* --- objects --- */

static const struct ep_envoy_object *object_at_1(lua_State *L, enum ep_envoy_class class)
{
    const struct ep_envoy_object *o = lua_type(L, 1) == LUA_TUSERDATA ? lua_touserdata(L, 1) : NULL;

    if (!o || lua_rawlen(L, 1) < sizeof *o || o->class != (uint32_t) class || !o->handle->s)
        luaL_error(L, EP_ENVOY_SCOPE);
    return o;
}

struct ep_envoy_handle *ep_envoy_check(lua_State *L, enum ep_envoy_class class)
{
    return object_at_1(L, class)->handle;
}

void *ep_envoy_check_object(lua_State *L, enum ep_envoy_class class)
{
    object_at_1(L, class);
    return lua_touserdata(L, 1);
}

static const char *class_name(enum ep_envoy_class class)
{
    static const char *const names[] = {
        "ephor.envoy.handle",
        "ephor.envoy.headers",
        "ephor.envoy.trailers",
        "ephor.envoy.downstreamRequestHeaders",
        "ephor.envoy.body",
        "ephor.envoy.streamInfo",
        "ephor.envoy.connectionStreamInfo",
        "ephor.envoy.dynamicMetadata",
        "ephor.envoy.connectionMetadata",
        "ephor.envoy.filterState",
        "ephor.envoy.metadata",
        "ephor.envoy.route",
        "ephor.envoy.virtualHost",
        "ephor.envoy.virtualHostMetadata",
        "ephor.envoy.filterContext",
        "ephor.envoy.connection",
        "ephor.envoy.ssl",
        "ephor.envoy.subject",
        "ephor.envoy.stats",
        "ephor.envoy.chunk",
        "ephor.envoy.publicKey",
        "ephor.envoy.counter",
        "ephor.envoy.gauge",
        "ephor.envoy.histogram",
    };
    static_assert(EP_COUNT(names) == EP_ENVOY_END - EP_ENVOY_HANDLE, "a name for each class");

    return names[class - EP_ENVOY_HANDLE];
}

void ep_envoy_push_metatable(lua_State *L, enum ep_envoy_class class)
{
    luaL_getmetatable(L, class_name(class));
}

void ep_envoy_push_next(lua_State *L)
{
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, LUA_GNAME);
    lua_getfield(L, -1, "next");
    lua_replace(L, -3);
    lua_pop(L, 1);
}

void *ep_envoy_push_new(lua_State *L, struct ep_envoy_handle *h, enum ep_envoy_class class, size_t bytes)
{
    struct ep_envoy_object *o = lua_newuserdatauv(L, bytes, 1);

    memset(o, 0, bytes);
    o->class = (uint32_t) class;
    o->handle = h;
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->ref);
    lua_setiuservalue(L, -2, 1); /* an object that a script keeps keeps its handle */
    luaL_setmetatable(L, class_name(class));
    return o;
}

void ep_envoy_push(lua_State *L, struct ep_envoy_handle *h, enum ep_envoy_class class)
{
    int value = (int)(class - EP_ENVOY_HANDLE);

    lua_rawgeti(L, LUA_REGISTRYINDEX, h->ref);
    if (lua_getiuservalue(L, -1, value) == LUA_TNIL) {
        lua_pop(L, 1);
        ep_envoy_push_new(L, h, class, sizeof(struct ep_envoy_object));
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, -3, value);
    }
    lua_remove(L, -2);
}

struct ep_envoy_handle *ep_envoy_handle_new(lua_State *L)
{
    struct ep_envoy_handle *h = lua_newuserdatauv(L, sizeof *h, EP_ENVOY_OBJECTS);

    memset(h, 0, sizeof *h);
    h->object.class = EP_ENVOY_HANDLE;
    h->object.handle = h;
    h->ref = LUA_NOREF;
    luaL_setmetatable(L, class_name(EP_ENVOY_HANDLE));
    return h;
}

static int log_at(lua_State *L)
{
    struct ep_str text = ep_lua_check_text(L, 2);
    enum ep_log_level level = (enum ep_log_level)lua_tointeger(L, lua_upvalueindex(1));

    if (!EP_LOG_ON(level))
        return 0;
    ep_lua_charge(L, EP_LUA_LOG_COST);
    ep_log(level, "lua", "script log: %.*s", (int)EP_MIN(text.n, 4096u), text.p);
    return 0;
}

void ep_envoy_class(lua_State *L, enum ep_envoy_class class, const luaL_Reg *methods, const luaL_Reg *meta)
{
    static const struct {
        const char *name;
        enum ep_log_level level;
    } logs[] = {
        {"logTrace", EP_LOG_TRACE}, {"logDebug", EP_LOG_DEBUG}, {"logInfo", EP_LOG_INFO},
        {"logWarn", EP_LOG_WARN},   {"logErr", EP_LOG_ERROR},   {"logCritical", EP_LOG_ERROR},
    };

    ep_lua_class(L, class_name(class), methods, meta);
    lua_getfield(L, -1, "__index");
    for (size_t i = 0; i < EP_COUNT(logs); i++) {
        lua_pushinteger(L, logs[i].level);
        lua_pushcclosure(L, log_at, 1);
        lua_setfield(L, -2, logs[i].name);
    }
    lua_pop(L, 2);
}

/* --- the handle: what it gives out --- */

EP_ENVOY_GIVES(headers, EP_ENVOY_HANDLE, EP_ENVOY_HEADERS)
EP_ENVOY_GIVES(stream_info, EP_ENVOY_HANDLE, EP_ENVOY_STREAM_INFO)
EP_ENVOY_GIVES(connection_info, EP_ENVOY_HANDLE, EP_ENVOY_CONNECTION_INFO)
EP_ENVOY_GIVES(metadata, EP_ENVOY_HANDLE, EP_ENVOY_METADATA)
EP_ENVOY_GIVES(route, EP_ENVOY_HANDLE, EP_ENVOY_ROUTE)
EP_ENVOY_GIVES(virtual_host, EP_ENVOY_HANDLE, EP_ENVOY_VIRTUAL_HOST)
EP_ENVOY_GIVES(filter_context, EP_ENVOY_HANDLE, EP_ENVOY_CONTEXT)
EP_ENVOY_GIVES(connection, EP_ENVOY_HANDLE, EP_ENVOY_CONNECTION)
EP_ENVOY_GIVES(stats, EP_ENVOY_HANDLE, EP_ENVOY_STATS)

static int downstream_request_headers(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);

    if (h->request)
        return luaL_error(L, "downstreamRequestHeaders() is of the response path");
    if (h->s->request.has_headers)
        ep_envoy_push(L, h, EP_ENVOY_REQUEST_HEADERS);
    else
        lua_pushnil(L);
    return 1;
}

int ep_envoy_suspend(lua_State *L, struct ep_envoy_handle *h, enum ep_envoy_wait what, const char *method,
                     lua_KContext extra, lua_KFunction then)
{
    if (L != h->thread.L)
        return luaL_error(L, "%s() can't wait inside a coroutine of the script", method);
    h->wait = what;
    return lua_yieldk(L, 0, extra, then);
}

/* --- respond --- */

struct response {
    struct ep_stream *s;
    unsigned status;
    struct ep_str content_type;
    struct ep_reply_header *v;
    size_t n;
};

void ep_envoy_each_header(lua_State *L, int table, void (*take)(lua_State *L, void *user, struct ep_str name),
                          void *user)
{
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "names of headers are strings, not a %s", luaL_typename(L, -2));
        struct ep_str name = ep_lua_check_str(L, -2);
        if (lua_type(L, -1) != LUA_TTABLE) {
            take(L, user, name);
            continue;
        }
        size_t n = lua_rawlen(L, -1);
        for (size_t i = 1; i <= n; i++) {
            lua_rawgeti(L, -1, (lua_Integer)i);
            take(L, user, name);
            lua_pop(L, 1);
        }
    }
}

static void add_header(lua_State *L, void *user, struct ep_str name)
{
    struct response *r = user;
    struct ep_arena *arena = &r->s->arena;
    struct ep_str value = ep_lua_check_text(L, lua_gettop(L));
    uint64_t status;

    if (ep_str_eq(name, EP_STR(":status"))) {
        r->status = ep_str_u64(value, &status) && status <= 999 ? (unsigned)status : 0;
        return;
    }
    if (!ep_header_name_valid(name))
        luaL_error(L, "'%s' is no name of a header", name.p);
    if (!ep_header_value_valid(value))
        luaL_error(L, "the value of '%s' has a control character", name.p);
    if (ep_str_caseeq(name, EP_STR("content-type"))) {
        r->content_type = ep_arena_str(arena, value);
        return;
    }
    if (ep_str_caseeq(name, EP_STR("content-length")) || ep_str_caseeq(name, EP_STR("transfer-encoding")) ||
        ep_str_caseeq(name, EP_STR("connection")))
        return; /* ephor frames its messages itself */
    if (r->n == EP_HEADERS_MAX_COUNT)
        luaL_error(L, "more than %d headers", (int)EP_HEADERS_MAX_COUNT);
    r->v[r->n++] = (struct ep_reply_header){ep_arena_str(arena, name), ep_arena_str(arena, value)};
}

static unsigned grpc_status_of(unsigned status)
{
    static const struct {
        unsigned http, grpc;
    } rows[] = {{400, 13}, {401, 16}, {403, 7}, {404, 12}, {429, 14}, {502, 14}, {503, 14}, {504, 14}};

    for (size_t i = 0; i < EP_COUNT(rows); i++)
        if (rows[i].http == status)
            return rows[i].grpc;
    return 2;
}

static int respond(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);
    struct response r = {.s = h->s};
    struct ep_str text = {NULL, 0};

    if (!h->request)
        return luaL_error(L, "respond not currently supported in the response path");
    if (h->s->response_started || h->s->reply_pending) /* Envoy: once the request's head has gone on */
        return luaL_error(L, "respond() cannot be called if headers have been continued");
    if (L != h->thread.L)
        return luaL_error(L, "respond() can't be called inside a coroutine of the script");
    luaL_checktype(L, 2, LUA_TTABLE);
    if (!lua_isnoneornil(L, 3))
        text = ep_lua_check_text(L, 3);
    r.v = ep_arena_alloc(&h->s->arena, EP_HEADERS_MAX_COUNT * sizeof *r.v);
    ep_envoy_each_header(L, 2, add_header, &r);
    if (r.status < 200 || r.status > 599)
        return luaL_error(L, ":status must be between 200-599");
    if (!r.content_type.n && text.n)
        r.content_type = EP_STR("text/plain");
    struct ep_str type = ep_headers_get_id(&h->s->request.headers, EP_HDR_CONTENT_TYPE);
    if (ep_str_casestarts(type, EP_STR("application/grpc")))
        ep_stream_reply_grpc(h->s, grpc_status_of(r.status),
                             ep_grpc_encode(&h->s->arena, ep_str_n(text.p, EP_MIN(text.n, (size_t)GRPC_MESSAGE_MAX))));
    else
        ep_stream_reply(h->s, r.status, r.content_type, text, r.v, r.n);
    if (h->s->reply_pending)
        h->s->reply_from = (int8_t)h->index; /* as in Envoy, the filter's own envoy_on_response sees it */
    h->wait = EP_ENVOY_RESPONDED;            /* the script doesn't go on */
    return lua_yield(L, 0);
}

/* --- small things --- */

static int clear_route_cache(lua_State *L)
{
    ep_stream_clear_route(ep_envoy_check(L, EP_ENVOY_HANDLE)->s);
    return 0;
}

enum { MILLISECOND, MICROSECOND };

static int timestamp(lua_State *L)
{
    ep_envoy_check(L, EP_ENVOY_HANDLE);
    if (luaL_optinteger(L, 2, MILLISECOND) != MILLISECOND)
        return luaL_error(L, "timestamp format must be MILLISECOND.");
    lua_pushinteger(L, (lua_Integer)(ep_clock_wall_ns() / EP_MS));
    return 1;
}

static int timestamp_string(lua_State *L)
{
    char text[24];
    lua_Integer unit;

    ep_envoy_check(L, EP_ENVOY_HANDLE);
    unit = luaL_optinteger(L, 2, MILLISECOND);
    if (unit != MILLISECOND && unit != MICROSECOND)
        return luaL_error(L, "timestamp format must be MILLISECOND or MICROSECOND.");
    snprintf(text, sizeof text, "%llu",
             (unsigned long long)(ep_clock_wall_ns() / (unit == MILLISECOND ? EP_MS : EP_US)));
    lua_pushstring(L, text);
    return 1;
}

/* --- the upstream's address --- */

/* "10.0.0.1:80", or without a port: then any port of that address will do. */
static bool parse_host(struct ep_str host, struct ep_addr *addr, bool *any_port)
{
    char text[128];

    *any_port = false;
    if (ep_addr_parse(host, addr))
        return addr->u.sa.sa_family != AF_UNIX;
    *any_port = true;
    if (host.n > 64 || memchr(host.p, '[', host.n) || memchr(host.p, '/', host.n))
        return false;
    snprintf(text, sizeof text, memchr(host.p, ':', host.n) ? "[%.*s]:1" : "%.*s:1", EP_STR_ARG(host));
    return ep_addr_parse(ep_str(text), addr) && addr->u.sa.sa_family != AF_UNIX;
}

static int set_upstream_override_host(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);
    struct ep_str host = ep_lua_check_str(L, 2);
    struct ep_upstream_override *o;
    struct ep_addr addr;
    bool any_port;

    if (!lua_isnoneornil(L, 3))
        luaL_checktype(L, 3, LUA_TBOOLEAN);
    if (!h->request)
        return luaL_error(L, "setUpstreamOverrideHost() is of the request path");
    if (!parse_host(host, &addr, &any_port))
        return luaL_error(L, "host is not a valid IP address");
    o = ep_arena_zalloc(&h->s->arena, sizeof *o);
    *o = (struct ep_upstream_override){.addr = addr, .any_port = any_port, .strict = lua_toboolean(L, 3)};
    ep_lua_charge(L, 100);
    h->s->upstream_override = o;
    return 0;
}

void ep_envoy_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"headers", headers},
        {"body", ep_envoy_body},
        {"bodyChunks", ep_envoy_body_chunks},
        {"trailers", ep_envoy_trailers},
        {"httpCall", ep_envoy_http_call},
        {"respond", respond},
        {"metadata", metadata},
        {"route", route},
        {"virtualHost", virtual_host},
        {"filterContext", filter_context},
        {"streamInfo", stream_info},
        {"requestInfo", stream_info},
        {"connectionStreamInfo", connection_info},
        {"connection", connection},
        {"stats", stats},
        {"downstreamRequestHeaders", downstream_request_headers},
        {"clearRouteCache", clear_route_cache},
        {"setUpstreamOverrideHost", set_upstream_override_host},
        {"importPublicKey", ep_envoy_import_public_key},
        {"verifySignature", ep_envoy_verify_signature},
        {"base64Escape", ep_envoy_base64_escape},
        {"timestamp", timestamp},
        {"timestampString", timestamp_string},
        {NULL, NULL},
    };

    if (luaL_getmetatable(L, class_name(EP_ENVOY_HANDLE)) != LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    lua_pop(L, 1);
    ep_envoy_class(L, EP_ENVOY_HANDLE, methods, NULL);
    ep_envoy_body_open(L);
    ep_envoy_crypto_open(L);
    ep_envoy_headers_open(L);
    ep_envoy_info_open(L);
    ep_envoy_metadata_open(L);
    ep_envoy_ssl_open(L);
    ep_envoy_stats_open(L);
}
