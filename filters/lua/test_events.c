/* t.stream of `ephor test`: a reply of server-sent events, event by event, and what the client gets of it.
 *
 * Each event of the test is one piece of the body; what leaves with it is cut into events again, by the same code, and
 * noted with where it is from: an event as it was given, changed, or one that was made for what had been held back. */
#include "agent/events.h"
#include "agent/texts.h"
#include "lua/testing.h"

struct given {
    struct ep_str name, data, id;
};

struct got {
    struct got *next;
    struct ep_str name, data, id;
    unsigned from; /* of the given ones, from 1; 0: none */
    bool changed, refusal;
};

struct play {
    struct ep_policy_hearing hearing;
    struct ep_tests *t;
    struct ep_test_stream *f;
    struct given *given;
    unsigned n, at;
    struct ep_events out;
    struct got *first, **last;
    /* What is worth most to see: a refusal, else the last that matched. */
    struct ep_policy_verdict verdict;
    const struct ep_policy *by;
    bool matched;
};

/* --- what the test gives --- */

/* One line of a field; a line break would begin another. */
static struct ep_str one_line(lua_State *L, int table, const char *key, struct ep_arena *arena)
{
    struct ep_str s = ep_test_text(L, table, key, arena);

    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '\n' || s.p[i] == '\r')
            luaL_error(L, "the %s of an event is one line", key);
    return s;
}

static struct ep_str data_of(lua_State *L, int index, struct ep_arena *arena)
{
    switch (lua_type(L, index)) {
    case LUA_TSTRING:
        return ep_arena_str(arena, ep_lua_check_str(L, index));
    case LUA_TTABLE:
        ep_lua_json_encode(L, index);
        break;
    default:
        luaL_error(L, "the data of an event is a text, or a table to be JSON, not a %s", luaL_typename(L, index));
    }
    struct ep_str s = ep_arena_str(arena, ep_lua_check_str(L, -1));
    lua_pop(L, 1);
    return s;
}

/* A table with `data` has name, data and id; any other, or a text, is the data itself. */
static struct given read_event(lua_State *L, int index, struct ep_arena *arena)
{
    static const char *const keys[] = {"name", "data", "id"};
    struct given g = {.name = {NULL, 0}};

    if (lua_type(L, index) != LUA_TTABLE || lua_getfield(L, index, "data") == LUA_TNIL) {
        lua_settop(L, index);
        g.data = data_of(L, index, arena);
        return g;
    }
    lua_settop(L, index);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        struct ep_str key = lua_type(L, -2) == LUA_TSTRING ? ep_lua_check_str(L, -2) : EP_STR("");
        bool known = false;
        for (size_t i = 0; i < EP_COUNT(keys); i++)
            known |= ep_str_eq(key, ep_str(keys[i]));
        if (!known)
            luaL_error(L, "an event has name, data and id, and no '%s'", luaL_tolstring(L, -2, NULL));
    }
    g.name = one_line(L, index, "name", arena);
    g.id = one_line(L, index, "id", arena);
    lua_getfield(L, index, "data");
    g.data = data_of(L, lua_gettop(L), arena);
    lua_pop(L, 1);
    return g;
}

static void read_events(lua_State *L, struct play *p)
{
    struct ep_arena *arena = &p->f->s.arena;

    if (lua_getfield(L, 1, "events") != LUA_TTABLE)
        luaL_error(L, "a stream has events = { ... }");
    int list = lua_gettop(L);
    p->n = (unsigned)lua_rawlen(L, list);
    p->given = ep_arena_zalloc(arena, (p->n + 1) * sizeof *p->given);
    for (unsigned i = 0; i < p->n; i++) {
        lua_rawgeti(L, list, (lua_Integer)i + 1);
        p->given[i] = read_event(L, lua_gettop(L), arena);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void put(struct ep_body *b, const char *key, struct ep_str value, struct ep_slab_pool *slabs)
{
    ep_body_push_copy(b, key, strlen(key), slabs);
    ep_body_push_copy(b, value.p, value.n, slabs);
    ep_body_push_copy(b, "\n", 1, slabs);
}

static void write_event(struct ep_body *b, const struct given *g, struct ep_slab_pool *slabs)
{
    struct ep_str rest = g->data;
    ptrdiff_t end;

    if (g->name.n)
        put(b, "event: ", g->name, slabs);
    if (g->id.n)
        put(b, "id: ", g->id, slabs);
    while ((end = ep_str_find(rest, '\n', 0)) >= 0) {
        put(b, "data: ", ep_str_n(rest.p, (size_t)end), slabs);
        rest = ep_str_n(rest.p + end + 1, rest.n - (size_t)end - 1);
    }
    put(b, "data: ", rest, slabs);
    ep_body_push_copy(b, "\n", 1, slabs);
}

/* --- what comes out --- */

static enum ep_event_verdict on_out(void *user, const struct ep_event *e, struct ep_str *replacement)
{
    struct play *p = user;
    struct ep_arena *arena = &p->f->s.arena;
    struct got *g = EP_ARENA_NEW(arena, struct got);

    (void)replacement;
    *g = (struct got){.name = ep_arena_str(arena, e->name), .data = ep_arena_str(arena, e->data), .id = ep_arena_str(arena, e->id)};
    *p->last = g;
    p->last = &g->next;
    return EP_EVENT_DROP;
}

/* Cuts what leaves. The last event of it is the given one; those in front of it were made for what had been held back. */
static void take(struct play *p, struct ep_body *b, bool with_given)
{
    struct got **before = p->last, *g;

    ep_events_pass(&p->out, b, false, &p->f->s.worker->slabs, on_out, p);
    ep_body_fini(b);
    for (g = *before; g; g = g->next) {
        const struct given *given = &p->given[p->at];
        g->changed = true;
        if (g->next || !with_given)
            continue;
        g->from = p->at + 1;
        g->changed = !ep_str_eq(g->data, given->data) || !ep_str_eq(g->name, given->name);
    }
}

/* What the client is told when the stream was refused. */
static void take_refusal(struct play *p)
{
    struct ep_stream *s = &p->f->s;
    struct ep_str told = s->midway ? s->last_words : ep_headers_are_events(&s->response.headers) ? s->reply_body : EP_STR("");
    struct got **before = p->last;
    struct ep_body b;

    ep_body_init(&b);
    ep_body_push_copy(&b, told.p, told.n, &s->worker->slabs);
    ep_events_pass(&p->out, &b, true, &s->worker->slabs, on_out, p);
    ep_body_fini(&b);
    for (struct got *g = *before; g; g = g->next)
        g->refusal = true;
}

static void on_decided(struct ep_policy_hearing *h, const struct ep_policy *policy, enum ep_policy_phase phase, unsigned call,
                       const struct ep_policy_verdict *v)
{
    struct play *p = EP_CONTAINER(h, struct play, hearing);
    const struct ep_policy_set *set = p->t->set;

    (void)call;
    if (phase == EP_POLICY_CALL && !v->matched)
        return;
    for (unsigned i = 0; i < set->n; i++)
        if (set->v[i] == policy)
            p->t->touched[i] |= (uint8_t)(1u << phase);
    p->matched = true;
    if (p->verdict.refuse || (!v->refuse && p->by && p->verdict.decision != EP_POLICY_ALLOW && v->decision == EP_POLICY_ALLOW))
        return; /* a shadow that said no has said it of the stream */
    p->verdict = *v;
    p->by = policy;
}

/* True: to the end. */
static bool pass(struct play *p)
{
    struct ep_stream *s = &p->f->s;
    struct ep_slab_pool *slabs = &s->worker->slabs;
    bool whole = ep_test_play_head(p->f, false) != EP_REPLIED;

    for (p->at = 0; whole && p->at <= p->n; p->at++) {
        if (p->at < p->n)
            write_event(&s->response.body, &p->given[p->at], slabs);
        whole = ep_test_play_body(p->f, &s->response.body, p->at == p->n);
        take(p, &s->response.body, whole && p->at < p->n);
    }
    return whole;
}

/* --- what the test gets --- */

static void set_string(lua_State *L, const char *key, struct ep_str s)
{
    if (!s.n)
        return;
    ep_lua_push(L, s);
    lua_setfield(L, -2, key);
}

static void set_flag(lua_State *L, const char *key, bool is)
{
    lua_pushboolean(L, is);
    lua_setfield(L, -2, key);
}

/* Appends to the lists of texts by kind, at `said`. */
static void push_texts(lua_State *L, int said, const struct ep_call *c, const struct got *g)
{
    const struct ep_event e = {.name = g->name, .data = g->data};
    struct ep_event_texts t;

    ep_event_texts(c->protocol, c->method, &e, &t);
    for (unsigned i = 0; i < t.n; i++) {
        if (!t.v[i].raw.n)
            continue;
        lua_getfield(L, said, ep_text_kind_name(t.v[i].kind));
        if (t.v[i].plain)
            ep_lua_push(L, t.v[i].raw);
        else
            ep_lua_json_decode(L, t.v[i].raw);
        lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
        lua_pop(L, 1);
    }
}

/* Adds `events` and `said` to the decision on top. */
static void push_events(lua_State *L, const struct play *p)
{
    int decision = lua_gettop(L), said, list;
    lua_Integer n = 0;

    lua_newtable(L);
    said = lua_gettop(L);
    for (int k = 0; k < EP_TEXT_KINDS; k++) {
        lua_newtable(L);
        lua_setfield(L, said, ep_text_kind_name((enum ep_text_kind)k));
    }
    lua_newtable(L);
    list = lua_gettop(L);
    for (const struct got *g = p->first; g; g = g->next) {
        lua_newtable(L);
        set_string(L, "name", g->name);
        ep_lua_push(L, g->data);
        lua_setfield(L, -2, "data");
        set_string(L, "id", g->id);
        if (g->from) {
            lua_pushinteger(L, (lua_Integer)g->from);
            lua_setfield(L, -2, "from");
        }
        set_flag(L, "changed", g->changed);
        set_flag(L, "refusal", g->refusal);
        lua_rawseti(L, list, ++n);
        if (!g->refusal)
            push_texts(L, said, &p->f->s.call, g);
    }
    lua_setfield(L, decision, "events");
    lua_setfield(L, decision, "said");
    set_flag(L, "cut", p->f->cut);
    lua_pushnil(L); /* a stream has no body to show */
    lua_setfield(L, decision, "body");
}

/* The set with one policy alone. Good as long as the stream. */
static struct ep_policy_set *set_of(struct play *p, const struct ep_policy *only)
{
    struct ep_policy_set *set = EP_ARENA_NEW(&p->f->s.arena, struct ep_policy_set);

    *set = *p->t->set;
    set->hearing = &p->hearing;
    for (unsigned i = 0; only && i < p->t->set->n; i++)
        if (p->t->set->v[i] == only) {
            set->v[0] = p->t->set->v[i];
            set->n = 1;
        }
    return set;
}

int ep_test_events(lua_State *L)
{
    struct ep_tests *t = ep_tests_of(L);
    const struct ep_policy *only = ep_test_named(L, t, 2);
    struct ep_test_stream *f = ep_test_stream_new(L, t->worker);
    struct play *p = EP_ARENA_NEW(&f->s.arena, struct play);
    struct ep_headers *h = &f->s.response.headers;

    *p = (struct play){.hearing.decided = on_decided, .t = t, .f = f, .verdict.decision = EP_POLICY_ALLOW};
    p->last = &p->first;
    ep_test_read_reply(L, 1, f);
    if (!ep_headers_find_id(h, EP_HDR_CONTENT_TYPE))
        ep_headers_add_id(h, EP_HDR_CONTENT_TYPE, EP_STR("text/event-stream"));
    if (f->s.status != 200 || !ep_headers_are_events(h))
        return luaL_error(L, "a stream of events is a reply with status 200 and text/event-stream; for others there is t.reply");
    read_events(L, p);
    f->s.call.wants_sse = true;
    ep_events_init(&p->out, EP_EVENT_BYTES_MAX * 2);
    if (!ep_test_play_request(f, set_of(p, only)) || !pass(p))
        take_refusal(p);
    ep_test_play_end(f);
    ep_events_fini(&p->out);
    ep_test_push_decision(L, f, p->by, &p->verdict, p->matched, h);
    push_events(L, p);
    return 1;
}
