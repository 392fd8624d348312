/* `ephor test --record FILE DIR`: what was recorded (record.c) is judged by the policies of DIR, and what differs is told.
 *
 * Each line goes through the filter `policies` (test_play.c) as the proxy would take it there: the calls, in the order of the
 * policies, until one refuses; then the reply, whole or event by event. A policy's decision is compared with the recorded
 * one when both were asked; of its replies and of its events the first that was not good. Delays take no time, and c:http gets
 * the answer that the same question (replay_http.c) got then.
 *
 * Where a policy looked at something that the record has not as it was (`lost`: masked, cut), or at what no record has (what
 * policies remember), the two can't be compared: that is counted apart, with why, and never as the same. Nor can what has
 * no input here: a question that nobody asked then, the reply to a request that was refused. That is "not replayable". */
#include "lua/replay.h"

#include <stdlib.h>

#include "http_call.h"

#define GROUPS_MAX 1000u
#define NAME_NONE  "no match"

static const struct ep_lua_budget line_budget = {200000000, 64 << 20, 30 * EP_S, 0};

struct group { /* the same change of the same policy */
    struct ep_str policy, was, is, reason;
    size_t n, line; /* the first */
};

struct groups {
    struct group *v;
    size_t n;
};

struct counts {
    size_t judged, same, different, unsure, missing;
};

/* How a policy judged the replies of one line, or its events. */
struct later {
    bool heard;
    struct ep_policy_verdict verdict;
    struct ep_str read, missing;
};

struct replay {
    struct ep_replay_http http;
    struct ep_policy_hearing hearing;
    struct ep_tests *t;
    struct counts policies[EP_POLICIES_MAX];
    struct groups groups, unsure, missing;
    size_t line, requests, bad_lines;
    size_t now_refused, now_passed, same, different, unsure_requests, missing_requests;
    /* of the line */
    lua_State *L;
    int table; /* the decoded line */
    struct ep_arena *arena;
    bool differs, is_unsure, lacks;
    bool matched[EP_POLICIES_MAX];
    struct later later[EP_POLICIES_MAX][2]; /* replies, events */
    /* of the policy that is asked */
    struct ep_str read; /* why it can't be compared; empty: it can */
    struct lost {
        struct ep_str name;
        const char *why;
    } lost[EP_HEADERS_MAX_COUNT * 4];
    size_t n_lost;
};

static struct ep_str keep(struct replay *r, struct ep_str s)
{
    return ep_arena_str(&r->t->arena, s);
}

static void add(struct replay *r, struct groups *groups, const struct group *g)
{
    for (size_t i = 0; i < groups->n; i++) {
        struct group *k = &groups->v[i];
        if (ep_str_eq(k->policy, g->policy) && ep_str_eq(k->was, g->was) && ep_str_eq(k->is, g->is) &&
            ep_str_eq(k->reason, g->reason)) {
            k->n++;
            return;
        }
    }
    if (groups->n == GROUPS_MAX) {
        groups->v[groups->n - 1].n++; /* the last stands for the rest */
        return;
    }
    groups->v = ep_realloc(groups->v, (groups->n + 1) * sizeof *groups->v);
    groups->v[groups->n++] = (struct group){.policy = keep(r, g->policy),
                                       .was = keep(r, g->was),
                                       .is = keep(r, g->is),
                                       .reason = keep(r, g->reason),
                                       .n = 1,
                                       .line = r->line};
}

/* --- what a policy looks at --- */

/* The name, behind the prefix, stands in `lost`: its value is not the one that the proxy had. No Lua here: a policy runs. */
static void look(struct replay *r, const char *prefix, struct ep_str name)
{
    char full[192];
    size_t n = strlen(prefix);

    if (n + name.n > sizeof full)
        return;
    memcpy(full, prefix, n);
    for (size_t i = 0; i < name.n; i++)
        full[n + i] = ep_lower(name.p[i]);
    for (size_t i = 0; !r->read.n && i < r->n_lost; i++)
        if (ep_str_eq(r->lost[i].name, ep_str_n(full, n + name.n)))
            r->read = ep_arena_printf(r->arena, "%.*s is not in the record as it was (%s)", EP_STR_ARG(r->lost[i].name),
                                      r->lost[i].why);
}

static void look_at_all(struct replay *r, const char *prefix)
{
    for (size_t i = 0; !r->read.n && i < r->n_lost; i++)
        if (ep_str_starts(r->lost[i].name, ep_str(prefix)))
            r->read = EP_STR("it goes through all headers, and some are not in the record as they were");
}

static void on_read(struct ep_policy_object *o, enum ep_policy_read kind, struct ep_str name)
{
    struct replay *r = o->reader;
    bool of_reply = o->phase != EP_POLICY_CALL;

    switch (kind) {
    case EP_POLICY_READ_FIELD:
        if (of_reply && ep_str_eq(name, EP_STR("body")))
            look(r, "reply.", name);
        else
            look(r, "", ep_str_eq(name, EP_STR("request_body")) ? EP_STR("body") : name);
        break;
    case EP_POLICY_READ_HEADER:
        look(r, of_reply ? "reply.headers." : "headers.", name);
        break;
    case EP_POLICY_READ_HEADERS:
        look_at_all(r, of_reply ? "reply.headers." : "headers.");
        break;
    case EP_POLICY_READ_REQUEST_HEADER:
        look(r, "headers.", name);
        break;
    case EP_POLICY_READ_REQUEST_HEADERS:
        look_at_all(r, "headers.");
        break;
    case EP_POLICY_READ_ANSWER:
        if (!r->read.n)
            r->read = ep_replay_http_lost_header(&r->http, name);
        break;
    case EP_POLICY_READ_WORLD:
        if (!r->read.n && !(r->http.known && ep_str_eq(name, EP_STR("http"))))
            r->read = ep_arena_printf(r->arena, "%.*s: what it had from there then is not in the record", EP_STR_ARG(name));
        break;
    }
}

/* --- what was decided then --- */

struct then {
    bool asked, refused; /* the policy; by it, at this or an earlier call of the batch */
    struct ep_str decision, code;
};

static struct ep_str string_at(lua_State *L, int table, const char *key)
{
    struct ep_str s = {NULL, 0};

    if (lua_getfield(L, table, key) == LUA_TSTRING)
        s = ep_lua_check_str(L, -1); /* the table keeps it */
    lua_pop(L, 1);
    return s;
}

static bool refuses(struct ep_str decision)
{
    return ep_str_eq(decision, EP_STR("deny")) || ep_str_eq(decision, EP_STR("error")) ||
           ep_str_eq(decision, EP_STR("overrun"));
}

static const char *const phases[] = {[EP_POLICY_REPLY] = "reply", [EP_POLICY_EVENT] = "event"};

/* `line` is the index of the decoded line. */
static struct then then_of(lua_State *L, int line, struct ep_str policy, enum ep_policy_phase phase, unsigned call)
{
    struct then then = {.decision = EP_STR(NAME_NONE)};
    int top = lua_gettop(L);

    if (lua_getfield(L, line, "decisions") == LUA_TTABLE) {
        for (lua_Integer i = 1; lua_rawgeti(L, top + 1, i) == LUA_TTABLE; i++) {
            int d = lua_gettop(L);
            if (ep_str_eq(string_at(L, d, "policy"), policy) && ep_str_eq(string_at(L, d, "phase"), ep_str(phases[phase]))) {
                lua_getfield(L, d, "call");
                lua_Integer of = lua_tointeger(L, -1);
                lua_pop(L, 1);
                then.asked = true;
                if (of < (lua_Integer)call && refuses(string_at(L, d, "decision"))) {
                    then.asked = false; /* it had refused before it came to this call */
                    break;
                }
                if (of == (lua_Integer)call) {
                    then.decision = string_at(L, d, "decision");
                    then.code = string_at(L, d, "code");
                    break;
                }
            }
            lua_settop(L, top + 1);
        }
    }
    lua_settop(L, top);
    if (phase == EP_POLICY_CALL && !then.asked && lua_getfield(L, line, "unmatched") == LUA_TTABLE) {
        for (lua_Integer i = 1; !then.asked && lua_rawgeti(L, top + 1, i) == LUA_TSTRING; i++) {
            then.asked = ep_str_eq(ep_lua_check_str(L, -1), policy);
            lua_settop(L, top + 1);
        }
    }
    lua_settop(L, top);
    return then;
}

static bool was_refused(lua_State *L, int line)
{
    int top = lua_gettop(L);
    bool was = false;

    if (lua_getfield(L, line, "decisions") == LUA_TTABLE)
        for (lua_Integer i = 1; lua_rawgeti(L, top + 1, i) == LUA_TTABLE; i++) {
            was |= refuses(string_at(L, top + 2, "decision"));
            lua_settop(L, top + 1);
        }
    lua_settop(L, top);
    return was;
}

/* --- comparing --- */

static struct ep_str title(struct replay *r, const struct ep_policy *p, enum ep_policy_phase phase)
{
    return phase == EP_POLICY_CALL ? p->name : ep_arena_printf(r->arena, "%.*s, %s", EP_STR_ARG(p->name), phases[phase]);
}

static void lacks(struct replay *r, unsigned i, enum ep_policy_phase phase, struct ep_str why)
{
    r->policies[i].missing++;
    r->lacks = true;
    add(r, &r->missing, &(struct group){.policy = title(r, r->t->set->v[i], phase), .reason = why});
}

/* What it was with, and why the two can't be compared: `read`, or, when it had no input, `missing`. */
static void compare(struct replay *r, unsigned i, enum ep_policy_phase phase, unsigned call, const struct ep_policy_verdict *v,
                    struct ep_str read, struct ep_str missing)
{
    const struct ep_policy *p = r->t->set->v[i];
    struct then then = then_of(r->L, r->table, p->name, phase, call);
    struct ep_str is = v->matched || phase != EP_POLICY_CALL ? ep_str(ep_policy_decision_name(v->decision)) : EP_STR(NAME_NONE);
    struct group g = {.policy = title(r, p, phase), .was = then.decision, .is = is, .reason = v->reason};

    r->policies[i].judged++;
    if (missing.n) {
        lacks(r, i, phase, missing);
        return;
    }
    if (read.n) {
        g.reason = read;
        r->policies[i].unsure++;
        r->is_unsure = true;
        add(r, &r->unsure, &g);
        return;
    }
    if (!then.asked) {
        g.was = EP_STR("not asked");
        if (!v->refuse && v->decision != EP_POLICY_SHADOW_DENY)
            return; /* it has nothing against it, and nobody knows what it had */
    } else if (ep_str_eq(then.decision, is) && (!v->code || ep_str_eq(then.code, ep_str(v->code)))) {
        r->policies[i].same++;
        return;
    }
    r->policies[i].different++;
    r->differs = true;
    add(r, &r->groups, &g);
}

/* `match` is compiled to C, so nobody sees it look. */
static void look_at_rules(struct replay *r, const struct ep_policy *p)
{
    for (unsigned k = 0; k < p->n_rules; k++)
        look(r, "", ep_str(ep_policy_field_name(p->rules[k].field)));
}

/* Of many events the first that was not good stands for all, as in the record. */
static void note(struct replay *r, struct later *x, const struct ep_policy_verdict *v)
{
    if (!x->heard || x->verdict.decision == EP_POLICY_ALLOW)
        x->verdict = *v;
    x->heard = true;
    if (!x->read.n)
        x->read = r->read;
    if (!x->missing.n)
        x->missing = r->http.missing;
}

static void on_decided(struct ep_policy_hearing *h, const struct ep_policy *p, enum ep_policy_phase phase, unsigned call,
                       const struct ep_policy_verdict *v)
{
    struct replay *r = EP_CONTAINER(h, struct replay, hearing);
    unsigned i = 0;

    while (r->t->set->v[i] != p)
        i++;
    if (phase == EP_POLICY_CALL) {
        look_at_rules(r, p);
        r->matched[i] |= v->matched;
        compare(r, i, phase, call, v, r->read, r->http.missing);
    } else {
        if (v->blind) /* to a body that isn't here, perhaps */
            look(r, "reply.", EP_STR("body"));
        note(r, &r->later[i][phase == EP_POLICY_EVENT], v);
    }
    r->read = r->http.missing = (struct ep_str){NULL, 0};
}

/* What was heard of the reply; `cut`: more of its events may have come. */
static void compare_later(struct replay *r, bool cut)
{
    for (unsigned i = 0; i < r->t->set->n; i++)
        for (int k = 0; k < 2; k++) {
            struct later *x = &r->later[i][k];
            enum ep_policy_phase phase = k ? EP_POLICY_EVENT : EP_POLICY_REPLY;
            if (!x->heard)
                continue;
            if (cut && k && x->verdict.decision == EP_POLICY_ALLOW && !x->read.n)
                x->read = EP_STR("reply.body is not in the record to its end (cut)");
            compare(r, i, phase, 0, &x->verdict, x->read, x->missing);
        }
}

static void lack_reply(struct replay *r, struct ep_str why)
{
    for (unsigned i = 0; i < r->t->set->n; i++) {
        const struct ep_policy *p = r->t->set->v[i];
        if (r->matched[i] && p->reply_ref != LUA_NOREF)
            lacks(r, i, EP_POLICY_REPLY, why);
        if (r->matched[i] && p->event_ref != LUA_NOREF)
            lacks(r, i, EP_POLICY_EVENT, why);
    }
}

/* Whether the reply is refused. `reply` is the index of the record of it. */
static bool replay_reply(struct replay *r, struct ep_test_stream *f, int reply)
{
    struct ep_body *b = &f->s.response.body;
    lua_State *L = r->L;
    struct ep_str body;
    enum ep_step step;
    bool cut = false, refused;

    body = ep_test_text(L, reply, "body", &f->s.arena);
    if (lua_getfield(L, reply, "head") != LUA_TTABLE)
        luaL_error(L, "no record of a reply");
    ep_test_read_head(L, lua_gettop(L), f);
    lua_pop(L, 1);
    if (lua_getfield(L, reply, "decoded") == LUA_TBOOLEAN)
        ep_headers_remove_id(&f->s.response.headers, EP_HDR_CONTENT_ENCODING);
    lua_pop(L, 1);
    for (size_t i = 0; i < r->n_lost; i++)
        cut |= ep_str_eq(r->lost[i].name, EP_STR("reply.body")) && strcmp(r->lost[i].why, "cut") == 0;
    step = ep_test_play_head(f, !body.n && !cut);
    refused = step == EP_REPLIED;
    if (!refused && (step == EP_BUFFER || f->s.live)) {
        ep_body_push_copy(b, body.p, body.n, &f->s.worker->slabs);
        refused = !ep_test_play_body(f, b, step == EP_BUFFER || !cut);
    }
    compare_later(r, cut);
    return refused;
}

/* Whether the policies of now refuse it, the request or the reply. */
static bool judge(struct replay *r, struct ep_test_stream *f, bool was_refused)
{
    struct ep_policy_set *set = r->t->set;
    struct ep_policy_object *o = set->lua->object;
    bool refused;
    int kind;

    o->on_read = on_read;
    o->reader = r;
    set->hearing = &r->hearing;
    refused = !ep_test_play_request(f, set);
    kind = lua_getfield(r->L, r->table, "reply");
    if (!refused && kind == LUA_TTABLE)
        refused = replay_reply(r, f, lua_gettop(r->L));
    else if (!refused && was_refused)
        lack_reply(r, EP_STR("it was refused then, so there is no reply to judge"));
    else if (!refused && kind == LUA_TNIL && !r->http.known)
        lack_reply(r, EP_STR("the record is of a version that had no replies"));
    lua_pop(r->L, 1);
    set->hearing = NULL;
    o->on_read = NULL;
    return refused;
}

/* --- one line --- */

static void read_lost(struct replay *r, lua_State *L, int table, const char *prefix)
{
    if (lua_getfield(L, table, "lost") == LUA_TTABLE) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            if (r->n_lost == EP_COUNT(r->lost))
                luaL_error(L, "more is lost than a request can have");
            struct ep_str name = ep_arena_printf(r->arena, "%s%.*s", prefix, EP_STR_ARG(ep_lua_check_str(L, -2)));
            r->lost[r->n_lost++] = (struct lost){name, ep_arena_str(r->arena, ep_lua_check_str(L, -1)).p};
        }
    }
    lua_pop(L, 1);
}

static void read_all_lost(struct replay *r)
{
    lua_State *L = r->L;

    r->n_lost = 0;
    read_lost(r, L, r->table, "");
    if (lua_getfield(L, r->table, "reply") == LUA_TTABLE) {
        read_lost(r, L, lua_gettop(L), "reply.");
        if (lua_getfield(L, -1, "head") == LUA_TTABLE)
            read_lost(r, L, lua_gettop(L), "reply.");
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* What policies that are no more had against it. */
static void compare_gone(struct replay *r, lua_State *L, int line)
{
    const struct ep_policy_set *set = r->t->set;
    int top = lua_gettop(L);

    if (lua_getfield(L, line, "decisions") == LUA_TTABLE)
        for (lua_Integer i = 1; lua_rawgeti(L, top + 1, i) == LUA_TTABLE; i++) {
            struct group g = {.policy = string_at(L, top + 2, "policy"), .was = string_at(L, top + 2, "decision"),
                              .is = EP_STR("no such policy")};
            bool there = ep_str_eq(g.was, EP_STR("allow"));
            for (unsigned k = 0; k < set->n; k++)
                there |= ep_str_eq(set->v[k]->name, g.policy);
            if (!there) {
                r->differs = true;
                add(r, &r->groups, &g);
            }
            lua_settop(L, top + 1);
        }
    lua_settop(L, top);
}

static int replay_line(lua_State *L)
{
    struct replay *r = lua_touserdata(L, 1);
    const struct ep_str *text = lua_touserdata(L, 2);
    struct ep_test_stream *f;
    double now;

    lua_settop(L, 0);
    ep_lua_json_decode(L, *text); /* 1 */
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "v");
    if (lua_tointeger(L, -1) != 1)
        return luaL_error(L, "no record of version 1");
    lua_getfield(L, 1, "now");
    now = luaL_checknumber(L, -1);
    lua_settop(L, 1);
    if (!(now > 0 && now < 253402300800.0))
        return luaL_error(L, "no time of a record");
    lua_getfield(L, 1, "request"); /* 2 */
    f = ep_test_stream_new(L, r->t->worker);
    ep_test_stream_read(L, 2, f);
    r->L = L;
    r->table = 1;
    r->arena = &f->s.arena;
    r->read = (struct ep_str){NULL, 0};
    memset(r->matched, 0, sizeof r->matched);
    memset(r->later, 0, sizeof r->later);
    read_all_lost(r);
    ep_replay_http_read(&r->http, L, 1, r->arena);
    ep_lua_of(L)->test_wall_ns = (uint64_t)(now * 1e6) * 1000;
    r->t->set->mode = ep_str_eq(string_at(L, 1, "mode"), EP_STR("shadow")) ? EP_MODE_SHADOW : EP_MODE_ENFORCE;
    r->differs = r->is_unsure = r->lacks = false;
    bool was = was_refused(L, 1), is = judge(r, f, was);
    compare_gone(r, L, 1);
    ep_test_stream_close(f);
    r->requests++;
    if (r->differs)
        r->different++;
    else if (r->lacks)
        r->missing_requests++;
    else if (r->is_unsure)
        r->unsure_requests++;
    else
        r->same++;
    r->now_refused += is && !was && !r->is_unsure && !r->lacks;
    r->now_passed += was && !is && !r->is_unsure && !r->lacks;
    return 0;
}

static void take_line(struct replay *r, struct ep_str text)
{
    struct ep_lua *l = r->t->set->lua;
    struct ep_lua_thread thread = ep_lua_thread_take(l);

    lua_pushcfunction(thread.L, replay_line);
    lua_pushlightuserdata(thread.L, r);
    lua_pushlightuserdata(thread.L, &text);
    if (ep_lua_call(l, thread.L, 2, 0, &line_budget, ep_clock_ns()) != EP_LUA_OK) {
        struct ep_str e = ep_lua_error(thread.L);
        if (r->bad_lines++ < 5)
            fprintf(stderr, "ephor test: line %zu is left out: %.*s\n", r->line, EP_STR_ARG(e));
    }
    ep_lua_thread_give(l, thread, false);
}

/* --- telling --- */

static void tell_groups(FILE *out, const char *what, const struct groups *g)
{
    if (g->n)
        fprintf(out, "%s:\n", what);
    for (size_t i = 0; i < g->n; i++) {
        const struct group *k = &g->v[i];
        fprintf(out, "  %zu x %.*s: ", k->n, EP_STR_ARG(k->policy));
        if (k->was.n)
            fprintf(out, "%.*s -> %.*s%s", EP_STR_ARG(k->was), EP_STR_ARG(k->is), k->reason.n ? ": " : "");
        fprintf(out, "%.*s (line %zu)\n", EP_STR_ARG(k->reason), k->line);
    }
}

static void tell(const struct replay *r, FILE *out)
{
    fprintf(out, "%zu requests: %zu as before, %zu differ, %zu can't be told, %zu not replayable\n", r->requests, r->same,
            r->different, r->unsure_requests, r->missing_requests);
    fprintf(out, "%zu that passed are refused now, %zu that were refused pass\n", r->now_refused, r->now_passed);
    for (unsigned i = 0; i < r->t->set->n; i++) {
        const struct counts *c = &r->policies[i];
        fprintf(out, "policy %.*s: %zu judged, %zu as before, %zu differ, %zu can't be told, %zu not replayable\n",
                EP_STR_ARG(r->t->set->v[i]->name), c->judged, c->same, c->different, c->unsure, c->missing);
    }
    tell_groups(out, "what differs", &r->groups);
    tell_groups(out, "what can't be told", &r->unsure);
    tell_groups(out, "not replayable", &r->missing);
    if (r->bad_lines)
        fprintf(out, "%zu lines were left out: no records\n", r->bad_lines);
}

static bool on_answer(struct ep_policy_hearing *h, const struct ep_policy *p, struct ep_str cluster,
                      const struct ep_http_call_request *q, struct ep_http_call_reply *out)
{
    struct replay *r = EP_CONTAINER(h, struct replay, hearing);

    if (!ep_replay_http_answer(&r->http, p->name, cluster, q, out))
        return false;
    if (!r->read.n)
        r->read = ep_replay_http_lost_body(&r->http);
    return true;
}

int ep_test_replay(struct ep_tests *t, const struct ep_policy_test_options *o, FILE *out)
{
    FILE *in = fopen(o->record, "re");
    struct replay *r;
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    int rc = 0;

    if (!in) {
        fprintf(stderr, "ephor test: %s: %s\n", o->record, strerror(errno));
        return 3;
    }
    r = ep_calloc(1, sizeof *r);
    r->t = t;
    r->hearing = (struct ep_policy_hearing){.decided = on_decided, .answer = on_answer};
    while ((n = getline(&line, &size, in)) > 0) {
        struct ep_str text = ep_str_n(line, (size_t)n - (line[n - 1] == '\n'));
        r->line++;
        if (text.n)
            take_line(r, text);
    }
    if (ferror(in)) {
        fprintf(stderr, "ephor test: %s: %s\n", o->record, strerror(errno));
        rc = 3;
    } else if (r->requests == 0) {
        fprintf(stderr, "ephor test: %s: no record in it\n", o->record);
        rc = 1;
    } else {
        tell(r, out);
        if (o->fail_on_difference)
            rc = r->different ? 1 : r->missing_requests ? 4 : 0;
    }
    fclose(in);
    free(line);
    free(r->groups.v);
    free(r->unsure.v);
    free(r->missing.v);
    free(r);
    return rc;
}
