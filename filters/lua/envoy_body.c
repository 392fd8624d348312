/* body(), bodyChunks() and trailers() of Envoy's API.
 *
 * The bytes stay where they are, in the slices of the message: a script gets copies of what it asks for, and a stream
 * of any length costs no more memory than what is on its way. */
#include "lua/envoy.h"

#define BODY_MAX (16u << 20)

struct chunk {
    struct ep_envoy_object object;
    uint32_t number;
};

/* --- body --- */

static int give_body(lua_State *L, int status, lua_KContext always)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);

    (void)status;
    if (ep_envoy_message(h)->body.bytes == 0 && !always)
        lua_pushnil(L);
    else
        ep_envoy_push(L, h, EP_ENVOY_BODY);
    return 1;
}

int ep_envoy_body(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);
    bool always = false;

    if (!lua_isnoneornil(L, 2)) {
        luaL_checktype(L, 2, LUA_TBOOLEAN);
        always = lua_toboolean(L, 2);
    }
    if (h->has_chunks)
        return luaL_error(L, "cannot call body() after body streaming has started");
    if (h->over || h->continued)
        return luaL_error(L, "cannot call body() after body has been streamed");
    if (h->whole || h->has_body) {
        h->has_body = true;
        return give_body(L, LUA_OK, always);
    }
    h->has_body = true;
    return ep_envoy_suspend(L, h, EP_ENVOY_WAITS_BODY, "body", always, give_body);
}

/* --- chunks --- */

static int give_chunk(lua_State *L, int status, lua_KContext extra)
{
    struct ep_envoy_handle *h = lua_touserdata(L, lua_upvalueindex(1));
    struct chunk *c;

    (void)status;
    (void)extra;
    if (!h->chunk) { /* the end */
        lua_pushnil(L);
        return 1;
    }
    c = ep_envoy_push_new(L, h, EP_ENVOY_CHUNK, sizeof *c);
    c->number = ++h->n_chunks;
    return 1;
}

/* The iterator; its upvalue is the handle. */
static int next_chunk(lua_State *L)
{
    struct ep_envoy_handle *h = lua_touserdata(L, lua_upvalueindex(1));

    if (!h->s)
        return luaL_error(L, EP_ENVOY_SCOPE);
    h->n_chunks++; /* the one before is dead */
    if (h->whole || h->over) {
        h->chunk = NULL;
        return give_chunk(L, LUA_OK, 0);
    }
    return ep_envoy_suspend(L, h, EP_ENVOY_WAITS_CHUNK, "bodyChunks", 0, give_chunk);
}

int ep_envoy_body_chunks(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);

    if (h->has_body || h->has_chunks || h->continued || h->over)
        return luaL_error(L, "cannot call bodyChunks after body processing has begun");
    h->has_chunks = true;
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, next_chunk, 1);
    return 1;
}

/* --- trailers --- */

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

int ep_envoy_trailers(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);

    if (!h->whole && !h->over)
        return ep_envoy_suspend(L, h, EP_ENVOY_WAITS_TRAILERS, "trailers", 0, give_trailers);
    return give_trailers(L, LUA_OK, 0);
}

/* --- bytes --- */

struct access {
    struct ep_envoy_handle *h;
    struct ep_body *bytes;
    bool chunk;
};

/* The bytes of the body or of the current chunk; those that have gone on are out of reach. */
static struct access check(lua_State *L)
{
    const struct ep_envoy_object *o = lua_type(L, 1) == LUA_TUSERDATA ? lua_touserdata(L, 1) : NULL;
    struct access a = {.chunk = o && lua_rawlen(L, 1) >= sizeof(struct chunk) && o->class == EP_ENVOY_CHUNK};

    a.h = ep_envoy_check(L, a.chunk ? EP_ENVOY_CHUNK : EP_ENVOY_BODY);
    if (a.h->over || (a.chunk && (((const struct chunk *)o)->number != a.h->n_chunks || !a.h->chunk)))
        luaL_error(L, EP_ENVOY_SCOPE);
    a.bytes = a.chunk ? a.h->chunk : &ep_envoy_message(a.h)->body;
    return a;
}

static int body_length(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)check(L).bytes->bytes);
    return 1;
}

static int body_get_bytes(lua_State *L)
{
    struct access a = check(L);
    lua_Integer index = luaL_checkinteger(L, 2), n = luaL_checkinteger(L, 3), size = (lua_Integer)a.bytes->bytes;
    size_t skip, left;
    luaL_Buffer b;

    if (index < 0 || n < 0 || index > size || n > size - index)
        return luaL_error(L, "index/length must be >= 0 and (index + length) must be <= buffer size");
    ep_lua_charge(L, (uint64_t)n / 64 + a.bytes->count);
    skip = (size_t)index;
    left = (size_t)n;
    char *out = luaL_buffinitsize(L, &b, left);
    for (uint32_t i = 0; left; i++) {
        const struct ep_slice *s = ep_body_at(a.bytes, i);
        if (skip >= s->n) {
            skip -= s->n;
            continue;
        }
        size_t some = EP_MIN(left, s->n - skip);
        memcpy(out, s->p + skip, some);
        out += some;
        left -= some;
        skip = 0;
    }
    luaL_pushresultsize(&b, (size_t)n);
    return 1;
}

static int body_set_bytes(lua_State *L)
{
    struct access a = check(L);
    struct ep_str given = ep_lua_check_text(L, 2);
    struct ep_stream *s = a.h->s;

    if (given.n > BODY_MAX)
        return luaL_error(L, "a body has at most 16 MiB");
    ep_lua_charge(L, given.n / 64); /* copied to where the allocator doesn't count */
    if (a.chunk) {
        if (given.n != a.bytes->bytes && ep_headers_find_id(&ep_envoy_message(a.h)->headers, EP_HDR_CONTENT_LENGTH))
            return luaL_error(
                L, "a chunk can't change its length: content-length has gone on; remove it before bodyChunks()");
        ep_body_fini(a.bytes);
        ep_body_push_copy(a.bytes, given.p, given.n, &s->worker->slabs);
    } else if (a.h->request) {
        ep_stream_set_request_body(s, given);
    } else {
        ep_stream_set_response_body(s, given);
    }
    lua_pushinteger(L, (lua_Integer)given.n);
    return 1;
}

void ep_envoy_body_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"length", body_length},
        {"getBytes", body_get_bytes},
        {"setBytes", body_set_bytes},
        {NULL, NULL},
    };
    static const luaL_Reg meta[] = {{"__len", body_length}, {NULL, NULL}};

    ep_envoy_class(L, EP_ENVOY_BODY, methods, meta);
    ep_envoy_class(L, EP_ENVOY_CHUNK, methods, meta);
}
