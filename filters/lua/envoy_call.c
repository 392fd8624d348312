/* httpCall() of Envoy's API: a request to a cluster, waited for or not.
 *
 * Whatever goes wrong on the way is, as in Envoy, an answer 503 with the body "upstream failure", never an error of the
 * script. An error is what was wrong in the call itself. */
#include "filter/chain.h"
#include "lua/envoy.h"

#define CALL_COST     2000u /* instructions */
#define CALL_TIME_MAX (3600 * EP_S)

struct call {
    struct ep_envoy_handle *h;
    struct ep_http_call_request q;
    struct ep_reply_header *v;
    size_t n;
    bool traced; /* the script gave a traceparent of its own */
    bool asynchronous, duplicates, trace;
};

static void take_header(lua_State *L, void *user, struct ep_str name)
{
    struct call *c = user;
    struct ep_arena *arena = &c->h->s->arena;
    struct ep_str value = ep_lua_check_text(L, lua_gettop(L));
    struct ep_str *pseudo = ep_str_eq(name, EP_STR(":path"))        ? &c->q.path
                            : ep_str_eq(name, EP_STR(":method"))    ? &c->q.method
                            : ep_str_eq(name, EP_STR(":authority")) ? &c->q.authority
                                                                    : NULL;

    ep_lua_charge(L, 10 + value.n / 16);
    if (pseudo) {
        *pseudo = ep_arena_str(arena, value);
        return;
    }
    if (ep_str_eq(name, EP_STR(":scheme")))
        return; /* the cluster says whether it is TLS */
    if (c->n == EP_HEADERS_MAX_COUNT)
        luaL_error(L, "more than %d headers", (int)EP_HEADERS_MAX_COUNT);
    c->traced |= ep_str_caseeq(name, EP_STR("traceparent"));
    c->v[c->n++] = (struct ep_reply_header){ep_arena_str(arena, name), ep_arena_str(arena, value)};
}

static void read_timeout(lua_State *L, struct call *c, int index)
{
    lua_Number ms = luaL_checknumber(L, index);

    if (!(ms >= 0))
        luaL_error(L, "http call timeout must be >= 0");
    c->q.timeout_ns = ms < (lua_Number)(CALL_TIME_MAX / EP_MS) ? (uint64_t)(ms * (lua_Number)EP_MS) : CALL_TIME_MAX;
}

static bool check_flag(lua_State *L, struct ep_str key)
{
    if (!lua_isboolean(L, -1))
        luaL_error(L, "httpCall() option '%s' must be a boolean, not a %s", key.p, luaL_typename(L, -1));
    return lua_toboolean(L, -1);
}

static void read_options(lua_State *L, struct call *c, int index)
{
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        struct ep_str key = lua_type(L, -2) == LUA_TSTRING ? ep_lua_check_str(L, -2) : EP_STR("?");
        if (ep_str_eq(key, EP_STR("asynchronous")))
            c->asynchronous = check_flag(L, key);
        else if (ep_str_eq(key, EP_STR("timeout_ms")))
            read_timeout(L, c, lua_gettop(L));
        else if (ep_str_eq(key, EP_STR("trace_sampled")))
            c->trace = check_flag(L, key);
        else if (ep_str_eq(key, EP_STR("return_duplicate_headers")))
            c->duplicates = check_flag(L, key);
        else if (ep_str_eq(key, EP_STR("send_xff")))
            check_flag(L, key); /* ephor adds no x-forwarded-for of its own */
        else
            luaL_error(L, "\"%s\" is not valid key for httpCall() options", key.p);
    }
}

/* The stream's own trace goes on, so that the call is seen as a part of it. */
static void add_trace(struct call *c)
{
    struct ep_str trace = ep_headers_get_id(&c->h->s->request.headers, EP_HDR_TRACEPARENT);

    if (trace.n && c->trace && !c->traced && c->n < EP_HEADERS_MAX_COUNT)
        c->v[c->n++] = (struct ep_reply_header){EP_STR("traceparent"), trace};
}

/* --- the answer --- */

/* Sets a header in the table on top; with `duplicates` several values become a list. */
static void give_header(lua_State *L, const struct ep_header *e, bool duplicates)
{
    ep_lua_push(L, e->name);
    if (!duplicates) {
        ep_lua_push(L, e->value);
        lua_rawset(L, -3); /* the last one stays */
        return;
    }
    lua_pushvalue(L, -1);
    int type = lua_rawget(L, -3);
    if (type == LUA_TNIL) {
        lua_pop(L, 1);
        ep_lua_push(L, e->value);
        lua_rawset(L, -3);
        return;
    }
    if (type == LUA_TSTRING) { /* table name first */
        lua_createtable(L, 2, 0);
        lua_insert(L, -2);
        lua_rawseti(L, -2, 1);
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_rawset(L, -5);
    }
    ep_lua_push(L, e->value);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pop(L, 2);
}

static int give_failure(lua_State *L)
{
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "503");
    lua_setfield(L, -2, ":status");
    lua_pushliteral(L, "upstream failure");
    return 2;
}

static int give_answer(lua_State *L, int status, lua_KContext duplicates)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);
    const struct ep_http_call_reply *r = h->answer;

    (void)status;
    if (!r || r->failure)
        return give_failure(L);
    ep_lua_charge(L, r->headers->n * 10 + r->body.n / 64);
    lua_createtable(L, 0, (int)r->headers->n);
    for (uint32_t i = 0; i < r->headers->n; i++)
        give_header(L, &r->headers->v[i], duplicates);
    if (r->body.n)
        ep_lua_push(L, r->body);
    else
        lua_pushnil(L);
    return 2;
}

int ep_envoy_http_call(lua_State *L)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, EP_ENVOY_HANDLE);
    struct call c = {.h = h, .trace = true};
    struct ep_str cluster = ep_lua_check_str(L, 2), body = {NULL, 0};
    struct ep_error err = {""};

    luaL_checktype(L, 3, LUA_TTABLE);
    if (!lua_isnoneornil(L, 4)) {
        body = ep_lua_check_text(L, 4);
        c.q.body = body.n ? body : EP_STR("");
    }
    if (!lua_isnoneornil(L, 6) && !lua_isboolean(L, 6))
        return luaL_error(L, "http call asynchronous flag must be 'true', 'false', or empty");
    c.asynchronous = lua_toboolean(L, 6);
    if (lua_istable(L, 5))
        read_options(L, &c, 5);
    else
        read_timeout(L, &c, 5);
    c.q.cluster = ep_http_call_cluster(h->s->view, cluster);
    if (!c.q.cluster)
        return luaL_error(L, "http call cluster invalid. Must be configured");
    if (h->n_calls >= EP_ENVOY_CALLS_MAX)
        return luaL_error(L, "more than %d httpCall() for one stream", (int)EP_ENVOY_CALLS_MAX);
    ep_lua_charge(L, CALL_COST + body.n / 64);
    c.v = lua_newuserdatauv(L, EP_HEADERS_MAX_COUNT * sizeof *c.v, 0);
    ep_envoy_each_header(L, 3, take_header, &c);
    if (!c.q.path.n || !c.q.method.n || !c.q.authority.n)
        return luaL_error(L, "http call headers must include ':path', ':method', and ':authority'");
    if (!c.asynchronous && L != h->thread.L)
        return luaL_error(L, "httpCall() can't wait inside a coroutine of the script");
    add_trace(&c);
    c.q.view = h->s->view;
    c.q.owner = h->script->name;
    c.q.headers = c.v;
    c.q.n_headers = c.n;
    c.q.done = c.asynchronous ? NULL : ep_script_answered;
    c.q.user = h;
    h->n_calls++;
    struct ep_http_call *call = ep_http_call_start(&c.q, &err);
    if (!call)
        return luaL_error(L, "http call: %s", err.text);
    if (c.asynchronous)
        return 0;
    h->call = call;
    return ep_envoy_suspend(L, h, EP_ENVOY_WAITS_CALL, "httpCall", c.duplicates, give_answer);
}
