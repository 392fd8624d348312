/* c:http: a request of a policy's own. The policy yields until the answer is there; wait.c has how. */
#include "lua/object.h"

#include "http_call.h"

#define TIMEOUT_NS      (5 * EP_S)
#define TIMEOUT_MAX_NS  (30 * EP_S)
#define REPLY_BYTES_MAX ((size_t)512 << 10)
#define HEADERS_MAX     64u

static void on_done(void *user, const struct ep_http_call_reply *reply)
{
    struct ep_policy_object *o = user;

    o->http = NULL;
    o->http_reply = reply;
    o->waiting->woken(o->waiting);
}

/* --- the question --- */

static void check_keys(lua_State *L)
{
    static const char *const keys[] = {"cluster", "method", "path", "host", "headers", "body", "json", "timeout"};

    for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
        bool known = false;
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "http: keys are names");
        struct ep_str key = ep_lua_check_str(L, -2);
        for (size_t i = 0; i < EP_COUNT(keys); i++)
            known |= ep_str_eq(key, ep_str(keys[i]));
        const char *near = known ? NULL : ep_nearest(key, keys, EP_COUNT(keys));
        if (!known)
            luaL_error(L, "http: there is no key '%s'%s%s%s", key.p, near ? "; did you mean '" : "", near ? near : "",
                       near ? "'?" : "");
    }
}

/* A text of the table; it stays on the stack, so that it stays. */
static struct ep_str text(lua_State *L, const char *key, struct ep_str preset)
{
    if (lua_getfield(L, 2, key) == LUA_TNIL)
        return preset;
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "http: %s must be a string, not a %s", key, luaL_typename(L, -1));
    return ep_lua_check_str(L, -1);
}

static void add_header(lua_State *L, struct ep_reply_header *v, size_t *n, struct ep_str name)
{
    if (*n == HEADERS_MAX)
        luaL_error(L, "http: more than %d headers", (int)HEADERS_MAX);
    v[(*n)++] = (struct ep_reply_header){name, ep_lua_check_text(L, lua_gettop(L))};
}

static size_t read_headers(lua_State *L, struct ep_reply_header *v)
{
    size_t n = 0;
    int type = lua_getfield(L, 2, "headers"), table = lua_gettop(L);

    if (type == LUA_TNIL)
        return 0;
    luaL_argexpected(L, type == LUA_TTABLE, 2, "headers as a table");
    luaL_checkstack(L, (int)HEADERS_MAX + 16, NULL);
    for (lua_pushnil(L); lua_next(L, table);) {
        int key = lua_gettop(L) - 1;
        if (lua_type(L, key) != LUA_TSTRING)
            luaL_error(L, "http: names of headers are strings");
        struct ep_str name = ep_lua_check_str(L, key);
        if (lua_type(L, -1) != LUA_TTABLE) {
            add_header(L, v, &n, name);
        } else {
            int list = lua_gettop(L);
            for (lua_Integer i = 1; lua_rawgeti(L, list, i) != LUA_TNIL; i++)
                add_header(L, v, &n, name);
        }
        lua_pushvalue(L, key); /* what was read stays below: it is borrowed until the call has begun */
    }
    return n;
}

static struct ep_str read_body(lua_State *L, struct ep_reply_header *v, size_t *n)
{
    struct ep_str body = text(L, "body", (struct ep_str){NULL, 0});
    bool typed = false;

    if (lua_getfield(L, 2, "json") == LUA_TNIL)
        return body;
    if (body.p)
        luaL_error(L, "http: give either body or json");
    ep_lua_json_encode(L, lua_gettop(L));
    for (size_t i = 0; i < *n; i++)
        typed |= ep_str_caseeq(v[i].name, EP_STR("content-type"));
    if (!typed && *n < HEADERS_MAX)
        v[(*n)++] = (struct ep_reply_header){EP_STR("content-type"), EP_STR("application/json")};
    return ep_lua_check_str(L, -1);
}

/* --- the answer --- */

/* Of a replay: headers that look like secrets are not in a record. Who looks for one that isn't there is noted. */
static int absent_header(lua_State *L)
{
    if (lua_type(L, 2) == LUA_TSTRING)
        ep_policy_reads(ep_lua_of(L)->object, EP_POLICY_READ_ANSWER, ep_lua_check_str(L, 2));
    lua_pushnil(L);
    return 1;
}

static int next_header(lua_State *L)
{
    lua_settop(L, 2);
    if (lua_next(L, 1))
        return 2;
    lua_pushnil(L);
    return 1;
}

static int all_headers(lua_State *L)
{
    ep_policy_reads(ep_lua_of(L)->object, EP_POLICY_READ_ANSWER, EP_STR(""));
    lua_pushcfunction(L, next_header);
    lua_pushvalue(L, 1);
    return 2;
}

static void push_headers(lua_State *L, const struct ep_policy_object *o, const struct ep_headers *h)
{
    static const luaL_Reg noting[] = {{"__index", absent_header}, {"__pairs", all_headers}, {NULL, NULL}};

    lua_createtable(L, 0, (int)h->n);
    for (uint32_t i = 0; i < h->n; i++) {
        if (h->v[i].name.n && h->v[i].name.p[0] == ':')
            continue;
        ep_lua_push(L, h->v[i].name);
        ep_lua_push_header(L, h, h->v[i].name);
        lua_rawset(L, -3);
    }
    if (EP_LIKELY(!o->on_read))
        return;
    if (luaL_newmetatable(L, "ephor.policy.answer"))
        luaL_setfuncs(L, noting, 0);
    lua_setmetatable(L, -2);
}

static int push_answer(lua_State *L, struct ep_policy_object *o, const struct ep_http_call_reply *r)
{
    if (r->failure) {
        lua_pushnil(L);
        lua_pushstring(L, r->failure);
        return 2;
    }
    ep_lua_charge(L, 100 + r->body.n / 64);
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, (lua_Integer)r->status);
    lua_setfield(L, -2, "status");
    ep_lua_push(L, r->body);
    lua_setfield(L, -2, "body");
    push_headers(L, o, r->headers);
    lua_setfield(L, -2, "headers");
    return 1;
}

static int answered(lua_State *L, int status, lua_KContext context)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    const struct ep_http_call_reply *r = o->http_reply;

    (void)status;
    (void)context;
    o->http_reply = NULL;
    if (!r)
        return luaL_error(L, "http: resumed without an answer");
    if (EP_UNLIKELY(o->http_token != NULL))
        o->hearing->answered(o->hearing, o->http_token, o->policy, r);
    o->http_token = NULL;
    return push_answer(L, o, r);
}

/* `ephor test --record`: what was answered then. */
static int of_record(lua_State *L, struct ep_policy_object *o, struct ep_str cluster, const struct ep_http_call_request *q)
{
    struct ep_http_call_reply r;

    o->waits++;
    if (!o->hearing->answer(o->hearing, o->policy, cluster, q, &r))
        return luaL_error(L, "http: the record has no answer to this");
    return push_answer(L, o, &r);
}

/* `ephor test`: what the test gave by t.http answers. */
static int of_test(lua_State *L)
{
    if (lua_getfield(L, LUA_REGISTRYINDEX, EP_POLICY_TEST_HTTP) != LUA_TFUNCTION)
        return luaL_error(L, "http: the test must say who answers: t.http(function(request) return {status = 200} end)");
    lua_pushvalue(L, 2);
    lua_call(L, 1, 2);
    return 2;
}

int ep_policy_http(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    struct ep_reply_header headers[HEADERS_MAX];
    struct ep_http_call_request q = {.view = o->s->view, .owner = o->policy->name, .reply_bytes = REPLY_BYTES_MAX};
    struct ep_error err;
    struct ep_str cluster;
    bool replay;

    luaL_checktype(L, 2, LUA_TTABLE);
    ep_policy_reads(o, EP_POLICY_READ_WORLD, EP_STR("http"));
    if (o->foresee)
        return luaL_error(L, "http: not now");
    check_keys(L);
    ep_lua_charge(L, EP_LUA_LOG_COST);
    cluster = text(L, "cluster", (struct ep_str){NULL, 0});
    if (!cluster.n)
        return luaL_error(L, "http: which cluster?");
    replay = o->hearing && o->hearing->answer;
    if (ep_lua_of(L)->test && !replay)
        return of_test(L);
    ep_policy_wait_check(L, o, "http");
    q.cluster = replay ? NULL : ep_http_call_cluster(q.view, cluster);
    if (!q.cluster && !replay)
        return luaL_error(L, "http: there is no cluster '%s' for HTTP", cluster.p);
    q.headers = headers;
    q.n_headers = read_headers(L, headers);
    q.body = read_body(L, headers, &q.n_headers);
    q.method = text(L, "method", q.body.p ? EP_STR("POST") : EP_STR("GET"));
    q.path = text(L, "path", EP_STR("/"));
    q.authority = text(L, "host", cluster);
    q.timeout_ns = TIMEOUT_NS;
    if (lua_getfield(L, 2, "timeout") != LUA_TNIL)
        q.timeout_ns = ep_policy_duration(L, lua_gettop(L));
    if (q.timeout_ns == 0 || q.timeout_ns > TIMEOUT_MAX_NS)
        return luaL_error(L, "http: a timeout is more than 0s and at most 30s");
    if (replay)
        return of_record(L, o, cluster, &q);
    q.done = on_done;
    q.user = o;
    o->http = ep_http_call_start(&q, &err);
    if (!o->http)
        return luaL_error(L, "http: %s", err.text);
    o->http_token = o->hearing && o->hearing->asked ? o->hearing->asked(o->hearing, cluster, &q) : NULL;
    o->wait = EP_POLICY_WAIT_HTTP;
    o->waits++;
    return lua_yieldk(L, 0, 0, answered);
}
