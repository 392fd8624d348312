/* A stream made of a table, and how policies judge it: t.call and t.reply of `ephor test`, and each line of a replay.
 *
 * The policies are judged by the code of the proxy (judge.c); what a connection would have filled in is filled in
 * here from the fields that a test or a record gives. */
#include "lua/testing.h"

/* --- a stream made of a table --- */

struct ep_str ep_test_text(lua_State *L, int table, const char *key, struct ep_arena *arena)
{
    struct ep_str s = {NULL, 0};
    int type = lua_getfield(L, table, key);

    if (type == LUA_TTABLE && strcmp(key, "arguments") == 0) {
        ep_lua_json_encode(L, -1);
        lua_remove(L, -2);
        type = LUA_TSTRING;
    }
    if (type == LUA_TSTRING || type == LUA_TNUMBER)
        s = ep_arena_str(arena, ep_lua_check_text(L, lua_gettop(L)));
    else if (type != LUA_TNIL)
        luaL_error(L, "%s must be a string, not a %s", key, luaL_typename(L, -1));
    lua_pop(L, 1);
    return s;
}

static bool flag(lua_State *L, int table, const char *key)
{
    lua_getfield(L, table, key);
    bool is = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return is;
}

/* {{"name", "value"}, ...}: in that order, as a record has them. */
static void read_header_list(lua_State *L, int list, struct ep_headers *h)
{
    for (lua_Integer i = 1; lua_rawgeti(L, list, i) != LUA_TNIL; i++) {
        luaL_checktype(L, -1, LUA_TTABLE);
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        ep_headers_add(h, ep_lua_check_str(L, -2), ep_lua_check_text(L, lua_gettop(L)));
        lua_pop(L, 3);
    }
    lua_pop(L, 1);
}

/* {name = value or list of values}. */
static void read_header_map(lua_State *L, int map, struct ep_headers *h)
{
    for (lua_pushnil(L); lua_next(L, map); lua_pop(L, 1)) {
        struct ep_str name = ep_lua_check_str(L, -2);
        size_t n = lua_type(L, -1) == LUA_TTABLE ? lua_rawlen(L, -1) : 0;
        for (size_t i = 1; i <= n; i++) {
            lua_rawgeti(L, -1, (lua_Integer)i);
            ep_headers_add(h, name, ep_lua_check_str(L, -1));
            lua_pop(L, 1);
        }
        if (lua_type(L, -1) != LUA_TTABLE)
            ep_headers_add(h, name, ep_lua_check_text(L, lua_gettop(L)));
    }
}

void ep_test_read_headers(lua_State *L, int table, struct ep_headers *h)
{
    if (lua_getfield(L, table, "headers") == LUA_TTABLE) {
        int top = lua_gettop(L);
        if (lua_rawlen(L, top) > 0)
            read_header_list(L, top, h);
        else
            read_header_map(L, top, h);
    }
    lua_pop(L, 1);
}

static void read_visible(lua_State *L, int table, struct ep_call *c, struct ep_arena *arena)
{
    struct ep_str visible = ep_test_text(L, table, "visible", arena), blind = ep_test_text(L, table, "blind", arena);

    if (ep_str_eq(visible, EP_STR("headers")))
        c->visible = EP_VISIBLE_HEADERS;
    else if (ep_str_eq(visible, EP_STR("none")))
        c->visible = EP_VISIBLE_NONE;
    else if (visible.n && !ep_str_eq(visible, EP_STR("full")))
        luaL_error(L, "visible is 'full', 'headers' or 'none', not '%s'", visible.p);
    for (int r = EP_BLIND_NOT; r < EP_BLIND_REASONS; r++)
        if (blind.n && ep_str_eq(blind, ep_str(ep_blind_reason_name((enum ep_blind_reason)r))))
            c->blind = (enum ep_blind_reason)r;
}

static void read_call(lua_State *L, int table, struct ep_call *c, struct ep_arena *arena)
{
    c->protocol = ep_test_text(L, table, "protocol", arena);
    c->version = ep_test_text(L, table, "version", arena);
    c->method = ep_test_text(L, table, "method", arena);
    c->service = ep_test_text(L, table, "service", arena);
    c->tool = ep_test_text(L, table, "tool", arena);
    c->uri = ep_test_text(L, table, "uri", arena);
    c->prompt_name = ep_test_text(L, table, "prompt", arena);
    c->model = ep_test_text(L, table, "model", arena);
    c->priority = ep_test_text(L, table, "priority", arena);
    c->impact = ep_test_text(L, table, "impact", arena);
    c->agent = ep_test_text(L, table, "agent", arena);
    c->task = ep_test_text(L, table, "task", arena);
    c->session = ep_test_text(L, table, "session", arena);
    c->tenant = ep_test_text(L, table, "tenant", arena);
    c->id_text = ep_test_text(L, table, "id", arena);
    c->arguments = ep_test_text(L, table, "arguments", arena);
    c->body = ep_test_text(L, table, "body", arena);
    c->notification = flag(L, table, "notification");
    ep_policy_read_message_fields(L, table, c, arena);
    read_visible(L, table, c, arena);
}

static void read_batch(lua_State *L, int table, struct ep_call *c, struct ep_arena *arena)
{
    if (lua_getfield(L, table, "batch") == LUA_TTABLE) {
        size_t n = lua_rawlen(L, -1);
        c->batch = true;
        for (size_t i = 1; i <= n; i++) {
            lua_rawgeti(L, -1, (lua_Integer)i);
            luaL_checktype(L, -1, LUA_TTABLE);
            c->next = EP_ARENA_NEW(arena, struct ep_call);
            c = c->next;
            c->batch = true;
            read_call(L, lua_gettop(L), c, arena);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

void ep_test_check_fields(lua_State *L, int table)
{
    static const char *const known[] = {
        "protocol", "version",     "method", "service",   "tool",   "uri",          "prompt",
        "model",    "agent",       "task",   "session",   "tenant", "id",           "body",
        "headers",  "arguments",   "path",   "host",      "peer",   "call",         "listener",
        "visible",  "http_method", "blind",  "direction", "batch",  "notification", "status",
        "route",    "cluster",     "priority", "impact",
        "user",     "recipient",   "events",
#define X(id, name) name,
        EP_POLICY_MESSAGE_FIELDS(X)
#undef X
    };

    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        struct ep_str key = ep_lua_check_str(L, -2);
        bool found = false;
        for (size_t i = 0; i < EP_COUNT(known); i++)
            found |= ep_str_eq(key, ep_str(known[i]));
        const char *near = found ? NULL : ep_nearest(key, known, EP_COUNT(known));
        if (!found)
            luaL_error(L, "a call has no field '%s'%s%s%s", key.p, near ? "; did you mean '" : "", near ? near : "",
                       near ? "'?" : "");
    }
}

static struct ep_str or_else(struct ep_str s, struct ep_str preset)
{
    return s.n ? s : preset;
}

void ep_test_stream_close(struct ep_test_stream *f)
{
    if (!f->open)
        return;
    f->open = false;
    ep_test_play_end(f);
    ep_headers_fini(&f->s.request.headers);
    ep_headers_fini(&f->s.response.headers);
    ep_body_fini(&f->s.request.body);
    ep_body_fini(&f->s.response.body);
    ep_arena_fini(&f->s.arena);
}

static int stream_gc(lua_State *L)
{
    ep_test_stream_close(lua_touserdata(L, 1));
    return 0;
}

struct ep_test_stream *ep_test_stream_new(lua_State *L, struct ep_worker *w)
{
    struct ep_test_stream *f = lua_newuserdatauv(L, sizeof *f, 0);

    memset(f, 0, sizeof *f);
    f->s.worker = w;
    f->s.chain = &f->chain;
    f->chain.config = &f->listener;
    f->route.config = &f->route_config;
    f->s.route_known = true;
    ep_arena_init(&f->s.arena, &w->chunks);
    ep_headers_init(&f->s.request.headers, &f->s.arena);
    ep_headers_init(&f->s.response.headers, &f->s.arena);
    ep_body_init(&f->s.request.body);
    ep_body_init(&f->s.response.body);
    f->s.down = &f->leg;
    f->open = true;
    if (luaL_newmetatable(L, "ephor.test.stream")) {
        lua_pushcfunction(L, stream_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return f;
}

void ep_test_stream_read(lua_State *L, int table, struct ep_test_stream *f)
{
    struct ep_arena *arena = &f->s.arena;
    struct ep_headers *h = &f->s.request.headers;

    luaL_checktype(L, table, LUA_TTABLE);
    ep_test_check_fields(L, table);
    ep_headers_add_id(h, EP_HDR_METHOD, or_else(ep_test_text(L, table, "http_method", arena), EP_STR("POST")));
    bool no_host = lua_getfield(L, table, "host") == LUA_TSTRING && lua_rawlen(L, -1) == 0; /* HTTP/1.0 */
    lua_pop(L, 1);
    if (!no_host)
        ep_headers_add_id(h, EP_HDR_AUTHORITY, or_else(ep_test_text(L, table, "host", arena), EP_STR("localhost")));
    ep_headers_add_id(h, EP_HDR_PATH, or_else(ep_test_text(L, table, "path", arena), EP_STR("/")));
    ep_test_read_headers(L, table, h);
    read_call(L, table, &f->s.call, arena);
    read_batch(L, table, &f->s.call, arena);
    f->listener.name = or_else(ep_test_text(L, table, "listener", arena), EP_STR("inbound"));
    f->s.direction = ep_str_eq(ep_test_text(L, table, "direction", arena), EP_STR("outbound")) ? EP_OUTBOUND : EP_INBOUND;
    f->chain.direction = f->s.direction;
    if (lua_getfield(L, table, "peer") == LUA_TTABLE)
        f->s.peer_id = ep_test_text(L, lua_gettop(L), "id", arena);
    lua_pop(L, 1);
    f->route.name = ep_test_text(L, table, "route", arena);
    f->route_config.cluster = ep_test_text(L, table, "cluster", arena);
    f->s.route = f->route.name.n || f->route_config.cluster.n ? &f->route : NULL;
}

/* --- judging it --- */

static void set_text(lua_State *L, const char *key, struct ep_str s)
{
    if (!s.n)
        return;
    ep_lua_push(L, s);
    lua_setfield(L, -2, key);
}

void ep_test_push_decision(lua_State *L, const struct ep_test_stream *f, const struct ep_policy *p,
                           const struct ep_policy_verdict *v, bool matched, const struct ep_headers *h)
{
    lua_newtable(L);
    lua_pushboolean(L, v->refuse);
    lua_setfield(L, -2, "denied");
    lua_pushboolean(L, matched);
    lua_setfield(L, -2, "matched");
    lua_pushboolean(L, v->blind);
    lua_setfield(L, -2, "blind");
    set_text(L, "decision", ep_str(ep_policy_decision_name(v->decision)));
    if (p) {
        set_text(L, "policy", p->name);
        set_text(L, "principle", p->principle);
    }
    set_text(L, "reason", v->reason);
    set_text(L, "code", ep_str(v->code));
    set_text(L, "error", v->error);
    set_text(L, "body", f->reply.whole ? f->reply.body : f->s.call.body);
    set_text(L, "routed_to", f->s.routed_to_name);
    if (v->status) {
        lua_pushinteger(L, (lua_Integer)v->status);
        lua_setfield(L, -2, "status");
    }
    lua_newtable(L);
    for (uint32_t i = 0; i < h->n; i++) {
        ep_lua_push(L, h->v[i].name);
        ep_lua_push_header(L, h, h->v[i].name);
        lua_rawset(L, -3);
    }
    lua_setfield(L, -2, "headers");
    lua_newtable(L);
    for (const struct ep_tag *t = f->s.tags; t; t = t->next) {
        ep_lua_push(L, t->key);
        ep_lua_json_decode(L, t->value);
        lua_rawset(L, -3);
    }
    lua_setfield(L, -2, "tags");
}

const struct ep_policy *ep_test_named(lua_State *L, const struct ep_tests *t, int index)
{
    if (lua_isnoneornil(L, index))
        return NULL;
    struct ep_str name = ep_lua_check_str(L, index);
    for (unsigned i = 0; i < t->set->n; i++)
        if (ep_str_eq(t->set->v[i]->name, name))
            return t->set->v[i];
    luaL_error(L, "there is no policy '%s' in %s", name.p, t->directory);
    return NULL;
}

/* All policies, or the one named, until one refuses. What is worth most to see is reported: a refusal, else the last
 * that matched. */
static void judge(lua_State *L, struct ep_tests *t, struct ep_test_stream *f, const struct ep_policy *only,
                  enum ep_policy_phase phase)
{
    struct ep_policy_verdict best = {.decision = EP_POLICY_ALLOW}, v;
    const struct ep_policy *by = NULL;
    bool matched = false;

    for (unsigned i = 0; i < t->set->n && !best.refuse; i++) {
        struct ep_policy *p = t->set->v[i];
        if (only && p != only)
            continue;
        if (phase == EP_POLICY_REPLY && p->reply_ref == LUA_NOREF)
            continue;
        for (struct ep_call *c = &f->s.call; c && !best.refuse; c = c->next) {
            uint64_t now = ep_clock_ns();
            ep_policy_judge(t->set, p, &f->s, c, phase, &f->reply, &now, &v);
            matched |= v.matched;
            if (v.matched || phase == EP_POLICY_REPLY) {
                t->touched[i] |= (uint8_t)(1u << phase);
                best = v;
                by = p;
            }
            if (phase == EP_POLICY_REPLY)
                break;
        }
    }
    ep_test_push_decision(L, f, by, &best, matched, phase == EP_POLICY_CALL ? &f->s.request.headers : &f->s.response.headers);
}

int ep_test_call(lua_State *L)
{
    struct ep_tests *t = ep_tests_of(L);
    const struct ep_policy *only = ep_test_named(L, t, 2);
    struct ep_test_stream *f = ep_test_stream_new(L, t->worker);

    ep_test_stream_read(L, 1, f);
    judge(L, t, f, only, EP_POLICY_CALL);
    return 1;
}

void ep_test_read_head(lua_State *L, int table, struct ep_test_stream *f)
{
    lua_getfield(L, table, "status");
    f->s.status = (unsigned)luaL_optinteger(L, -1, 200);
    ep_headers_add_id(&f->s.response.headers, EP_HDR_STATUS, ep_arena_printf(&f->s.arena, "%u", f->s.status));
    ep_test_read_headers(L, table, &f->s.response.headers);
    lua_pop(L, 1);
}

void ep_test_read_reply(lua_State *L, int table, struct ep_test_stream *f)
{
    luaL_checktype(L, table, LUA_TTABLE);
    ep_test_check_fields(L, table);
    if (lua_getfield(L, table, "call") == LUA_TTABLE)
        ep_test_stream_read(L, lua_gettop(L), f);
    ep_test_read_head(L, table, f);
    lua_pop(L, 1);
}

int ep_test_reply(lua_State *L)
{
    struct ep_tests *t = ep_tests_of(L);
    const struct ep_policy *only = ep_test_named(L, t, 2);
    struct ep_test_stream *f = ep_test_stream_new(L, t->worker);

    ep_test_read_reply(L, 1, f);
    f->reply = (struct ep_policy_reply){.whole = true, .body = ep_test_text(L, 1, "body", &f->s.arena)};
    judge(L, t, f, only, EP_POLICY_REPLY);
    return 1;
}

int ep_test_find(lua_State *L)
{
    luaL_checkstring(L, 1);
    ep_test_named(L, ep_tests_of(L), 1);
    return 0;
}
