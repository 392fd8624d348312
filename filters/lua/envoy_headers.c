/* headers(), trailers() and downstreamRequestHeaders() of Envoy's API: get, getAtIndex, getNumValues, add, replace,
 * remove, pairs.
 *
 * pairs goes over a picture of the table, so that a script may change it meanwhile (Envoy raises an error there).
 * What says where a message ends is ephor's own: a script's content-length, transfer-encoding and connection headers
 * are not taken, so that no script can smuggle a request. */
#include "filter/chain.h"
#include "lua/envoy.h"

#define NAME_MAX_BYTES   256u
#define REASON_MAX_BYTES 256u

struct access {
    struct ep_envoy_handle *h;
    struct ep_headers *table;
    bool trailers;
};

static struct access check(lua_State *L)
{
    const struct ep_envoy_object *o = lua_type(L, 1) == LUA_TUSERDATA ? lua_touserdata(L, 1) : NULL;
    uint32_t class = o && lua_rawlen(L, 1) >= sizeof *o ? o->class : 0;
    struct access a = {.trailers = class == EP_ENVOY_TRAILERS};

    if (class == EP_ENVOY_REQUEST_HEADERS) {
        a.h = ep_envoy_check(L, EP_ENVOY_REQUEST_HEADERS);
        a.table = &a.h->s->request.headers;
        return a;
    }
    a.h = ep_envoy_check(L, a.trailers ? EP_ENVOY_TRAILERS : EP_ENVOY_HEADERS);
    a.table = a.trailers ? &ep_envoy_message(a.h)->trailers : &ep_envoy_message(a.h)->headers;
    return a;
}

static struct access check_mutable(lua_State *L)
{
    struct access a = check(L);

    if (a.h->over || (a.h->continued && !a.trailers))
        luaL_error(L, "header map can no longer be modified");
    return a;
}

/* Lower case, in `lower`. */
static struct ep_str check_name(lua_State *L, char lower[NAME_MAX_BYTES])
{
    struct ep_str name = ep_lua_check_text(L, 2);

    if (name.n == 0 || name.n > NAME_MAX_BYTES)
        luaL_error(L, "the name of a header has 1 to %d bytes", (int)NAME_MAX_BYTES);
    for (size_t i = 0; i < name.n; i++)
        lower[i] = ep_lower(name.p[i]);
    return ep_str_n(lower, name.n);
}

static int headers_get(lua_State *L)
{
    struct access a = check(L);

    ep_lua_push_header(L, a.table, ep_lua_check_text(L, 2));
    return 1;
}

static int headers_get_at_index(lua_State *L)
{
    struct access a = check(L);
    char lower[NAME_MAX_BYTES];
    struct ep_str name = check_name(L, lower);
    lua_Integer index = luaL_checkinteger(L, 3);

    for (uint32_t i = 0; index >= 0 && i < a.table->n; i++) {
        if (!ep_str_eq(a.table->v[i].name, name) || index-- > 0)
            continue;
        ep_lua_push_or_nil(L, a.table->v[i].value);
        return 1;
    }
    lua_pushnil(L);
    return 1;
}

static int headers_get_num_values(lua_State *L)
{
    struct access a = check(L);
    char lower[NAME_MAX_BYTES];
    struct ep_str name = check_name(L, lower);
    lua_Integer n = 0;

    for (uint32_t i = 0; i < a.table->n; i++)
        n += ep_str_eq(a.table->v[i].name, name);
    lua_pushinteger(L, n);
    return 1;
}

/* True when the header may be set to this value by a script; false when it is ephor's own; raises when it is bad. */
static bool check_settable(lua_State *L, const struct access *a, struct ep_str name, struct ep_str value)
{
    static const char *const own[] = {"connection", "content-length", "keep-alive",       "te",
                                      "trailer",    "upgrade",        "proxy-connection", "transfer-encoding"};

    if (!ep_header_value_valid(value))
        luaL_error(L, "the value of '%s' has a control character", lua_tostring(L, 2));
    if (!ep_header_name_valid(name))
        luaL_error(L, "'%s' is no name of a header", lua_tostring(L, 2));
    for (size_t i = 0; i < EP_COUNT(own); i++)
        if (ep_str_eq(name, ep_str(own[i])))
            return false;
    if (a->table->n >= EP_HEADERS_MAX_COUNT * 2)
        luaL_error(L, "too many headers");
    return true;
}

static void changed(lua_State *L, const struct access *a)
{
    ep_lua_charge(L, 10 + lua_rawlen(L, 3) / 16); /* copied to where the allocator doesn't count */
    if (a->h->request && !a->trailers)
        ep_stream_clear_route(a->h->s);
}

static void replace_pseudo(lua_State *L, struct access *a, struct ep_str name, struct ep_str value)
{
    uint16_t id = ep_header_id(name);
    uint64_t status;

    if (!EP_HDR_IS_PSEUDO(id) || a->trailers || !ep_headers_find_id(a->table, id))
        luaL_error(L, "there is no header '%s' here", lua_tostring(L, 2));
    if (!ep_header_value_valid(value) || memchr(value.p, ' ', value.n))
        luaL_error(L, "the value of '%s' has a space or a control character", lua_tostring(L, 2));
    if (id == EP_HDR_STATUS) {
        if (!ep_str_u64(value, &status) || status < 200 || status > 599)
            luaL_error(L, ":status must be between 200-599");
        a->h->s->status = (unsigned)status;
    } else if (value.n == 0) {
        luaL_error(L, "'%s' can't be empty", lua_tostring(L, 2));
    } else if (id == EP_HDR_PATH && value.p[0] != '/') {
        luaL_error(L, "':path' must begin with '/'");
    } else if (id == EP_HDR_METHOD && !ep_header_name_valid(value)) {
        luaL_error(L, "':method' must be a token");
    }
    ep_headers_set_id(a->table, id, value);
}

static int headers_add(lua_State *L)
{
    struct access a = check_mutable(L);
    char lower[NAME_MAX_BYTES];
    struct ep_str name = check_name(L, lower), value = ep_lua_check_text(L, 3);

    if (name.p[0] == ':') {
        replace_pseudo(L, &a, name, value); /* there can be only one */
    } else if (check_settable(L, &a, name, value)) {
        ep_headers_add(a.table, name, value);
    }
    changed(L, &a);
    return 0;
}

static int headers_replace(lua_State *L)
{
    struct access a = check_mutable(L);
    char lower[NAME_MAX_BYTES];
    struct ep_str name = check_name(L, lower), value = ep_lua_check_text(L, 3);

    if (name.p[0] == ':')
        replace_pseudo(L, &a, name, value);
    else if (check_settable(L, &a, name, value))
        ep_headers_set(a.table, name, value);
    changed(L, &a);
    return 0;
}

static int headers_remove(lua_State *L)
{
    struct access a = check_mutable(L);
    char lower[NAME_MAX_BYTES];
    struct ep_str name = check_name(L, lower);

    if (name.p[0] == ':')
        return luaL_error(L, "'%s' can't be removed", lua_tostring(L, 2));
    ep_headers_remove(a.table, name);
    changed(L, &a);
    return 0;
}

static int set_reason_phrase(lua_State *L)
{
    struct access a = check_mutable(L);
    struct ep_str phrase = ep_lua_check_text(L, 2);

    if (a.h->request)
        return luaL_error(L, "setHttp1ReasonPhrase() is of the response path");
    if (phrase.n > REASON_MAX_BYTES || !ep_header_value_valid(phrase))
        return luaL_error(L, "a reason phrase has at most %d bytes and no control character", (int)REASON_MAX_BYTES);
    if (a.h->s->down)
        a.h->s->down->reason = ep_arena_str(&a.h->s->arena, phrase);
    return 0;
}

/* Upvalues: names and values one after the other, and the place of the next. */
static int headers_next(lua_State *L)
{
    lua_Integer i = lua_tointeger(L, lua_upvalueindex(2));

    if (lua_rawgeti(L, lua_upvalueindex(1), i) == LUA_TNIL)
        return 1;
    lua_rawgeti(L, lua_upvalueindex(1), i + 1);
    lua_pushinteger(L, i + 2);
    lua_replace(L, lua_upvalueindex(2));
    return 2;
}

static int headers_pairs(lua_State *L)
{
    struct access a = check(L);

    ep_lua_charge(L, a.table->n);
    lua_createtable(L, (int)a.table->n * 2, 0);
    for (uint32_t i = 0; i < a.table->n; i++) {
        ep_lua_push(L, a.table->v[i].name);
        lua_rawseti(L, -2, (lua_Integer)i * 2 + 1);
        ep_lua_push(L, a.table->v[i].value);
        lua_rawseti(L, -2, (lua_Integer)i * 2 + 2);
    }
    lua_pushinteger(L, 1);
    lua_pushcclosure(L, headers_next, 2);
    return 1;
}

void ep_envoy_headers_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"add", headers_add},
        {"get", headers_get},
        {"getAtIndex", headers_get_at_index},
        {"getNumValues", headers_get_num_values},
        {"remove", headers_remove},
        {"replace", headers_replace},
        {"setHttp1ReasonPhrase", set_reason_phrase},
        {NULL, NULL},
    };
    static const luaL_Reg read_only[] = {
        {"get", headers_get},
        {"getAtIndex", headers_get_at_index},
        {"getNumValues", headers_get_num_values},
        {NULL, NULL},
    };
    static const luaL_Reg meta[] = {{"__pairs", headers_pairs}, {NULL, NULL}};

    ep_envoy_class(L, EP_ENVOY_HEADERS, methods, meta);
    ep_envoy_class(L, EP_ENVOY_TRAILERS, methods, meta);
    ep_envoy_class(L, EP_ENVOY_REQUEST_HEADERS, read_only, meta);
}
