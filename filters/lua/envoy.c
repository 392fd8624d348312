/* The handle that envoy_on_request and envoy_on_response get, and the body. envoy.h has the design. */
#include "lua/envoy.h"

#include <stdio.h>
#include <stdlib.h>

/* --- objects --- */

struct ep_envoy_handle *ep_envoy_check(lua_State *L, enum ep_envoy_class class)
{
    const struct ep_envoy_object *o = lua_type(L, 1) == LUA_TUSERDATA ? lua_touserdata(L, 1) : NULL;

    if (!o || lua_rawlen(L, 1) < sizeof *o || o->class != (uint32_t) class || !o->handle->s)
        luaL_error(L, EP_ENVOY_SCOPE);
    return o->handle;
}

static const char *class_name(enum ep_envoy_class class)
{
    static const char *const names[] = {
        "ephor.envoy.handle",   "ephor.envoy.headers",    "ephor.envoy.trailers",
        "ephor.envoy.body",     "ephor.envoy.streamInfo", "ephor.envoy.dynamicMetadata",
        "ephor.envoy.metadata", "ephor.envoy.connection", "ephor.envoy.ssl",
    };
    return names[class - EP_ENVOY_HANDLE];
}

void ep_envoy_push(lua_State *L, struct ep_envoy_handle *h, enum ep_envoy_class class)
{
    int value = (int)(class - EP_ENVOY_HANDLE);
    struct ep_envoy_object *o;

    lua_rawgeti(L, LUA_REGISTRYINDEX, h->ref);
    if (lua_getiuservalue(L, -1, value) == LUA_TNIL) {
        lua_pop(L, 1);
        o = lua_newuserdatauv(L, sizeof *o, 1);
        o->class = (uint32_t) class;
        o->handle = h;
        lua_pushvalue(L, -2); /* an object that a script keeps keeps its handle */
        lua_setiuservalue(L, -2, 1);
        luaL_setmetatable(L, class_name(class));
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

static int not_here(lua_State *L)
{
    return luaL_error(L, "%s() is not in this version of ephor", lua_tostring(L, lua_upvalueindex(1)));
}

void ep_envoy_class(lua_State *L, enum ep_envoy_class class, const luaL_Reg *methods, const char *const *absent,
                    const luaL_Reg *meta)
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
    for (; absent && *absent; absent++) {
        lua_pushstring(L, *absent);
        lua_pushcclosure(L, not_here, 1);
        lua_setfield(L, -2, *absent);
    }
    lua_pop(L, 2);
}

/* --- the handle: what it gives out --- */

#define GIVES(function, class_)                                                                                        \
    static int function(lua_State *L)                                                                                  \
    {                                                                                                                  \
        ep_envoy_push(L, ep_envoy_check(L, EP_ENVOY_HANDLE), class_);                                                  \
        return 1;                                                                                                      \
    }
GIVES(headers, EP_ENVOY_HEADERS)
GIVES(stream_info, EP_ENVOY_STREAM_INFO)
GIVES(metadata, EP_ENVOY_METADATA)
GIVES(connection, EP_ENVOY_CONNECTION)

/* Stops the script until the message is whole; it goes on in `then`. */
static int wait_for(lua_State *L, struct ep_envoy_handle *h, enum ep_envoy_wait what, lua_KContext extra,
                    lua_KFunction then)
{
    if (L != h->thread.L)
        return luaL_error(L, "%s can't wait inside a coroutine of the script",
                          what == EP_ENVOY_WAITS_BODY ? "body()" : "trailers()");
    h->wait = what;
    return lua_yieldk(L, 0, extra, then);
}

static int give_body(lua_State *L, int status, lua_KContext always)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);

    (void)status;
    if (h->body.n == 0 && !always)
        lua_pushnil(L);
    else
        ep_envoy_push(L, h, EP_ENVOY_BODY);
    return 1;
}

static int body(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);
    bool always = false;

    if (!lua_isnoneornil(L, 2)) {
        luaL_checktype(L, 2, LUA_TBOOLEAN);
        always = lua_toboolean(L, 2);
    }
    if (h->over)
        return luaL_error(L, "cannot call body() after body has been streamed");
    if (!h->whole)
        return wait_for(L, h, EP_ENVOY_WAITS_BODY, always, give_body);
    return give_body(L, LUA_OK, always);
}

static int give_trailers(lua_State *L, int status, lua_KContext extra)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);

    (void)status;
    (void)extra;
    if (ep_envoy_message(h)->has_trailers)
        ep_envoy_push(L, h, EP_ENVOY_TRAILERS);
    else
        lua_pushnil(L);
    return 1;
}

static int trailers(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);

    if (!h->whole && !h->over)
        return wait_for(L, h, EP_ENVOY_WAITS_TRAILERS, 0, give_trailers);
    return give_trailers(L, LUA_OK, 0);
}

/* --- respond --- */

struct response {
    struct ep_stream *s;
    unsigned status;
    struct ep_str content_type;
    struct ep_reply_header *v;
    size_t n;
};

/* One header of the table, its value on top of the stack. */
static void add_header(lua_State *L, struct response *r, struct ep_str name)
{
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

static void read_response(lua_State *L, struct response *r)
{
    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "names of headers are strings, not a %s", luaL_typename(L, -2));
        struct ep_str name = ep_lua_check_str(L, -2);
        if (lua_type(L, -1) != LUA_TTABLE) {
            add_header(L, r, name);
            continue;
        }
        size_t n = lua_rawlen(L, -1);
        for (size_t i = 1; i <= n; i++) {
            lua_rawgeti(L, -1, (lua_Integer)i);
            add_header(L, r, name);
            lua_pop(L, 1);
        }
    }
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
    if (h->over)
        return luaL_error(L, "respond() cannot be called if headers have been continued");
    if (L != h->thread.L)
        return luaL_error(L, "respond() can't be called inside a coroutine of the script");
    luaL_checktype(L, 2, LUA_TTABLE);
    if (!lua_isnoneornil(L, 3))
        text = ep_lua_check_text(L, 3);
    r.v = ep_arena_alloc(&h->s->arena, EP_HEADERS_MAX_COUNT * sizeof *r.v);
    read_response(L, &r);
    if (r.status < 200 || r.status > 599)
        return luaL_error(L, ":status must be between 200-599");
    if (!r.content_type.n && text.n)
        r.content_type = EP_STR("text/plain");
    struct ep_str type = ep_headers_get_id(&h->s->request.headers, EP_HDR_CONTENT_TYPE);
    if (ep_str_casestarts(type, EP_STR("application/grpc")))
        ep_stream_reply_grpc(h->s, grpc_status_of(r.status), text);
    else
        ep_stream_reply(h->s, r.status, r.content_type, text, r.v, r.n);
    h->wait = EP_ENVOY_RESPONDED; /* the script doesn't go on */
    return lua_yield(L, 0);
}

/* --- small things --- */

static int clear_route_cache(lua_State *L)
{
    ep_stream_clear_route(ep_envoy_check(L, EP_ENVOY_HANDLE)->s);
    return 0;
}

static int base64_escape(lua_State *L)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct ep_str s;
    luaL_Buffer b;

    ep_envoy_check(L, EP_ENVOY_HANDLE);
    s = ep_lua_check_text(L, 2);
    ep_lua_charge(L, s.n / 16);
    size_t n = (s.n + 2) / 3 * 4;
    char *out = luaL_buffinitsize(L, &b, n);
    for (size_t i = 0; i < s.n; i += 3) {
        uint32_t v = (uint32_t)(unsigned char)s.p[i] << 16;
        if (i + 1 < s.n)
            v |= (uint32_t)(unsigned char)s.p[i + 1] << 8;
        if (i + 2 < s.n)
            v |= (unsigned char)s.p[i + 2];
        *out++ = digits[v >> 18];
        *out++ = digits[(v >> 12) & 63];
        *out++ = i + 1 < s.n ? digits[(v >> 6) & 63] : '=';
        *out++ = i + 2 < s.n ? digits[v & 63] : '=';
    }
    luaL_pushresultsize(&b, n);
    return 1;
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

/* --- the body --- */

static struct ep_envoy_handle *check_body(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_BODY);

    if (h->over) /* the bytes have gone on */
        luaL_error(L, EP_ENVOY_SCOPE);
    return h;
}

static int body_length(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check_body(L)->body.n);
    return 1;
}

static int body_get_bytes(lua_State *L)
{
    struct ep_envoy_handle *h = check_body(L);
    lua_Integer index = luaL_checkinteger(L, 2), n = luaL_checkinteger(L, 3), size = (lua_Integer)h->body.n;

    if (index < 0 || n < 0 || index > size || n > size - index)
        return luaL_error(L, "index/length must be >= 0 and (index + length) must be <= buffer size");
    ep_lua_charge(L, (uint64_t)n / 64);
    lua_pushlstring(L, n ? h->body.p + index : "", (size_t)n);
    return 1;
}

static int body_set_bytes(lua_State *L)
{
    struct ep_envoy_handle *h = check_body(L);
    struct ep_str given = ep_lua_check_text(L, 2);

    if (given.n > 16u << 20)
        return luaL_error(L, "a body has at most 16 MiB");
    ep_lua_charge(L, given.n / 64); /* copied to where the allocator doesn't count */
    h->body = ep_arena_str(&h->s->arena, given);
    if (h->request)
        ep_stream_set_request_body(h->s, h->body);
    else
        ep_stream_set_response_body(h->s, h->body);
    lua_pushinteger(L, (lua_Integer)given.n);
    return 1;
}

void ep_envoy_open(lua_State *L)
{
    static const luaL_Reg handle_methods[] = {
        {"headers", headers},
        {"body", body},
        {"trailers", trailers},
        {"metadata", metadata},
        {"streamInfo", stream_info},
        {"requestInfo", stream_info},
        {"connection", connection},
        {"respond", respond},
        {"clearRouteCache", clear_route_cache},
        {"base64Escape", base64_escape},
        {"timestamp", timestamp},
        {"timestampString", timestamp_string},
        {NULL, NULL},
    };
    static const char *const absent[] = {
        "bodyChunks",
        "httpCall",
        "importPublicKey",
        "verifySignature",
        "connectionStreamInfo",
        "virtualHost",
        "route",
        "filterContext",
        "setUpstreamOverrideHost",
        "stats",
        "downstreamRequestHeaders",
        NULL,
    };
    static const luaL_Reg body_methods[] = {
        {"length", body_length},
        {"getBytes", body_get_bytes},
        {"setBytes", body_set_bytes},
        {NULL, NULL},
    };
    static const luaL_Reg body_meta[] = {{"__len", body_length}, {NULL, NULL}};

    if (luaL_getmetatable(L, class_name(EP_ENVOY_HANDLE)) != LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    lua_pop(L, 1);
    ep_envoy_class(L, EP_ENVOY_HANDLE, handle_methods, absent, NULL);
    ep_envoy_class(L, EP_ENVOY_BODY, body_methods, NULL, body_meta);
    ep_envoy_headers_open(L);
    ep_envoy_info_open(L);
}
