/* What c:http was answered then. replay.h has the contract. */
#include "http_call.h"
#include "lua/replay.h"

struct ep_replay_answer {
    struct ep_replay_answer *next;
    bool used;
    struct ep_str policy, cluster, method, host, path, digest, failure, body;
    unsigned status;
    struct ep_headers headers; /* those that are as they were */
    struct ep_str lost_body;   /* why; empty: it is not */
    struct lost {
        struct lost *next;
        struct ep_str name, why;
    } *lost;
};

static void read_lost(struct ep_replay_http *h, lua_State *L, int table, struct ep_replay_answer *a)
{
    if (lua_getfield(L, table, "lost") == LUA_TTABLE)
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            struct ep_str name = ep_lua_check_str(L, -2), why = ep_arena_str(h->arena, ep_lua_check_str(L, -1));
            struct lost *lost;
            if (ep_str_eq(name, EP_STR("body")))
                a->lost_body = why;
            if (!ep_str_starts(name, EP_STR("headers.")))
                continue;
            lost = EP_ARENA_NEW(h->arena, struct lost);
            *lost = (struct lost){a->lost, ep_arena_str(h->arena, ep_str_n(name.p + 8, name.n - 8)), why};
            a->lost = lost;
            ep_headers_remove(&a->headers, lost->name);
        }
    lua_pop(L, 1);
}

static struct ep_replay_answer *read_answer(struct ep_replay_http *h, lua_State *L, int table)
{
    struct ep_replay_answer *a = EP_ARENA_NEW(h->arena, struct ep_replay_answer);
    struct {
        const char *key;
        struct ep_str *to;
    } const texts[] = {{"policy", &a->policy}, {"cluster", &a->cluster}, {"method", &a->method},   {"host", &a->host},
                       {"path", &a->path},     {"digest", &a->digest},   {"failure", &a->failure}, {"body", &a->body}};

    for (size_t i = 0; i < EP_COUNT(texts); i++)
        *texts[i].to = ep_test_text(L, table, texts[i].key, h->arena);
    lua_getfield(L, table, "status");
    a->status = (unsigned)lua_tointeger(L, -1);
    lua_pop(L, 1);
    ep_headers_init(&a->headers, h->arena);
    ep_test_read_headers(L, table, &a->headers);
    read_lost(h, L, table, a);
    return a;
}

void ep_replay_http_read(struct ep_replay_http *h, lua_State *L, int table, struct ep_arena *arena)
{
    struct ep_replay_answer **last = &h->answers;

    *h = (struct ep_replay_http){.arena = arena};
    h->known = lua_getfield(L, table, "http") == LUA_TTABLE;
    int list = lua_gettop(L);
    for (lua_Integer i = 1; h->known && lua_rawgeti(L, list, i) == LUA_TTABLE; i++) {
        *last = read_answer(h, L, lua_gettop(L));
        last = &(*last)->next;
        lua_settop(L, list);
    }
    lua_settop(L, list - 1);
}

static bool is_answer_to(const struct ep_replay_answer *a, struct ep_str policy, const struct ep_record_question *q)
{
    return !a->used && ep_str_eq(a->policy, policy) && ep_str_eq(a->cluster, q->cluster) && ep_str_eq(a->method, q->method) &&
           ep_str_eq(a->host, q->host) && ep_str_eq(a->path, q->path) &&
           ep_str_eq(a->digest, ep_str_n(q->digest, sizeof q->digest));
}

bool ep_replay_http_answer(struct ep_replay_http *h, struct ep_str policy, struct ep_str cluster,
                           const struct ep_http_call_request *request, struct ep_http_call_reply *out)
{
    struct ep_replay_answer *a = h->answers;
    struct ep_record_question q;

    ep_record_question(h->arena, cluster, request, &q);
    while (a && !is_answer_to(a, policy, &q))
        a = a->next;
    h->given = a;
    if (!a) {
        if (!h->missing.n)
            h->missing = ep_arena_printf(h->arena, "the record has no answer to %.*s %.*s of %.*s", EP_STR_ARG(q.method),
                                         EP_STR_ARG(q.path), EP_STR_ARG(q.cluster));
        return false;
    }
    a->used = true;
    *out = (struct ep_http_call_reply){.failure = a->failure.n ? a->failure.p : NULL,
                                       .status = a->status,
                                       .headers = &a->headers,
                                       .trailers = NULL,
                                       .body = a->body};
    return true;
}

struct ep_str ep_replay_http_lost_body(const struct ep_replay_http *h)
{
    const struct ep_replay_answer *a = h->given;

    if (!a || !a->lost_body.n)
        return (struct ep_str){NULL, 0};
    return ep_arena_printf(h->arena, "the answer of %.*s is not in the record as it was (%.*s)", EP_STR_ARG(a->cluster),
                           EP_STR_ARG(a->lost_body));
}

struct ep_str ep_replay_http_lost_header(const struct ep_replay_http *h, struct ep_str name)
{
    for (const struct ep_replay_answer *a = h->answers; a; a = a->next)
        for (const struct lost *l = a->lost; a->used && l; l = l->next)
            if (!name.n || ep_str_caseeq(l->name, name))
                return ep_arena_printf(h->arena, "%.*s of an answer is not in the record as it was (%.*s)", EP_STR_ARG(l->name),
                                       EP_STR_ARG(l->why));
    return (struct ep_str){NULL, 0};
}
