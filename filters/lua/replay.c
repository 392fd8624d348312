/* `ephor test --record FILE DIR`: what was recorded (record.c) is judged by the policies of DIR, and what differs is told.
 *
 * Each line is judged as the proxy would: in the order of the policies, call by call, until one refuses. A policy's
 * decision is compared with the recorded one when both were asked. Where it looked at something that the record has not
 * as it was (`lost`: masked, cut), or at what no record has (what policies remember, an answer from the network), the two
 * can't be compared: that is counted apart, with why, and never as the same. */
#include "lua/testing.h"

#include <stdlib.h>

#define GROUPS_MAX 1000u
#define NAME_NONE  "no match"

static const struct ep_lua_budget line_budget = {20000000, 64 << 20, 10 * EP_S, 0};

struct group { /* the same change of the same policy */
    struct ep_str policy, was, is, reason;
    size_t n, line; /* the first */
};

struct counts {
    size_t judged, same, different, unsure;
};

struct replay {
    struct ep_tests *t;
    struct counts policies[EP_POLICIES_MAX];
    struct group *groups, *unsure;
    size_t n_groups, n_unsure;
    size_t line, requests, bad_lines, calls;
    size_t now_refused, now_passed, same, different, unsure_requests;
    bool line_differs, line_unsure;
    /* of the policy that is asked */
    struct ep_str read; /* why it can't be compared; empty: it can */
    struct lost {
        struct ep_str name;
        const char *why;
    } lost[EP_HEADERS_MAX_COUNT * 2];
    size_t n_lost;
};

static struct ep_str keep(struct replay *r, struct ep_str s)
{
    return ep_arena_str(&r->t->arena, s);
}

static void add(struct replay *r, struct group **groups, size_t *n, const struct group *g)
{
    for (size_t i = 0; i < *n; i++) {
        struct group *k = &(*groups)[i];
        if (ep_str_eq(k->policy, g->policy) && ep_str_eq(k->was, g->was) && ep_str_eq(k->is, g->is) &&
            ep_str_eq(k->reason, g->reason)) {
            k->n++;
            return;
        }
    }
    if (*n == GROUPS_MAX) {
        (*groups)[*n - 1].n++; /* the last stands for the rest */
        return;
    }
    *groups = ep_realloc(*groups, (*n + 1) * sizeof **groups);
    (*groups)[(*n)++] = (struct group){.policy = keep(r, g->policy),
                                       .was = keep(r, g->was),
                                       .is = keep(r, g->is),
                                       .reason = keep(r, g->reason),
                                       .n = 1,
                                       .line = r->line};
}

/* --- what a policy looks at --- */

/* The name stands in `lost`: its value is not the one that the proxy had. No Lua here: a policy runs. */
static void look(struct replay *r, struct ep_str name)
{
    for (size_t i = 0; !r->read.n && i < r->n_lost; i++)
        if (ep_str_eq(r->lost[i].name, name))
            r->read = ep_arena_printf(&r->t->arena, "%.*s is not in the record as it was (%s)", EP_STR_ARG(name),
                                      r->lost[i].why);
}

static void look_at_all_headers(struct replay *r)
{
    for (size_t i = 0; !r->read.n && i < r->n_lost; i++)
        if (ep_str_starts(r->lost[i].name, EP_STR("headers.")))
            r->read = EP_STR("it goes through all headers, and some are not in the record as they were");
}

static void on_read(struct ep_policy_object *o, enum ep_policy_read kind, struct ep_str name)
{
    struct replay *r = o->reader;
    char header[160];

    switch (kind) {
    case EP_POLICY_READ_FIELD:
        look(r, name);
        break;
    case EP_POLICY_READ_HEADER:
        if (name.n > 128)
            break;
        memcpy(header, "headers.", 8);
        for (size_t i = 0; i < name.n; i++)
            header[8 + i] = ep_lower(name.p[i]);
        look(r, ep_str_n(header, 8 + name.n));
        break;
    case EP_POLICY_READ_HEADERS:
        look_at_all_headers(r);
        break;
    case EP_POLICY_READ_WORLD:
        if (!r->read.n)
            r->read = ep_arena_printf(&r->t->arena, "%.*s: what it had from there then is not in the record", EP_STR_ARG(name));
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

/* `line` is the index of the decoded line. */
static struct then then_of(lua_State *L, int line, struct ep_str policy, unsigned call)
{
    struct then then = {.decision = EP_STR(NAME_NONE)};
    int top = lua_gettop(L);

    if (lua_getfield(L, line, "decisions") == LUA_TTABLE) {
        for (lua_Integer i = 1; lua_rawgeti(L, top + 1, i) == LUA_TTABLE; i++) {
            int d = lua_gettop(L);
            if (ep_str_eq(string_at(L, d, "policy"), policy)) {
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
    if (!then.asked && lua_getfield(L, line, "unmatched") == LUA_TTABLE) {
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

static void compare(struct replay *r, unsigned i, const struct then *then, const struct ep_policy_verdict *v)
{
    const struct ep_policy *p = r->t->set->v[i];
    struct ep_str is = v->matched ? ep_str(ep_policy_decision_name(v->decision)) : EP_STR(NAME_NONE);
    struct group g = {.policy = p->name, .was = then->decision, .is = is, .reason = v->reason};

    r->policies[i].judged++;
    if (r->read.n) {
        g.reason = r->read;
        r->policies[i].unsure++;
        r->line_unsure = true;
        add(r, &r->unsure, &r->n_unsure, &g);
        return;
    }
    if (!then->asked) {
        g.was = EP_STR("not asked");
        if (!v->refuse && v->decision != EP_POLICY_SHADOW_DENY)
            return; /* it has nothing against it, and nobody knows what it had */
    } else if (ep_str_eq(then->decision, is) && (!v->code || ep_str_eq(then->code, ep_str(v->code)))) {
        r->policies[i].same++;
        return;
    }
    r->policies[i].different++;
    r->line_differs = true;
    add(r, &r->groups, &r->n_groups, &g);
}

/* `match` is compiled to C, so nobody sees it look. */
static void look_at_rules(struct replay *r, const struct ep_policy *p)
{
    for (unsigned k = 0; k < p->n_rules; k++)
        look(r, ep_str(ep_policy_field_name(p->rules[k].field)));
}

/* Whether the policies of now refuse it. */
static bool judge(struct replay *r, lua_State *L, int line, struct ep_test_stream *f)
{
    struct ep_policy_set *set = r->t->set;
    struct ep_policy_object *o = set->lua->object;
    struct ep_policy_verdict v;

    for (unsigned i = 0; i < set->n; i++) {
        unsigned number = 0;
        for (struct ep_call *c = &f->s.call; c; c = c->next, number++) {
            struct then then = then_of(L, line, set->v[i]->name, number);
            uint64_t now = ep_clock_ns();
            r->read = (struct ep_str){NULL, 0};
            look_at_rules(r, set->v[i]);
            o->on_read = on_read;
            o->reader = r;
            ep_policy_judge(set, set->v[i], &f->s, c, EP_POLICY_CALL, NULL, &now, &v);
            o->on_read = NULL;
            r->calls++;
            compare(r, i, &then, &v);
            if (v.refuse)
                return true;
        }
    }
    return false;
}

/* --- one line --- */

static void read_lost(struct replay *r, lua_State *L, int line, struct ep_arena *arena)
{
    r->n_lost = 0;
    if (lua_getfield(L, line, "lost") == LUA_TTABLE) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            if (r->n_lost == EP_COUNT(r->lost))
                luaL_error(L, "more is lost than a request can have");
            struct ep_str name = ep_arena_str(arena, ep_lua_check_str(L, -2));
            r->lost[r->n_lost++] = (struct lost){name, ep_arena_str(arena, ep_lua_check_str(L, -1)).p};
        }
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
                r->line_differs = true;
                add(r, &r->groups, &r->n_groups, &g);
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
    read_lost(r, L, 1, &f->s.arena);
    ep_lua_of(L)->test_wall_ns = (uint64_t)(now * 1e6) * 1000;
    r->t->set->mode = ep_str_eq(string_at(L, 1, "mode"), EP_STR("shadow")) ? EP_MODE_SHADOW : EP_MODE_ENFORCE;
    r->line_differs = r->line_unsure = false;
    bool was = was_refused(L, 1), is = judge(r, L, 1, f);
    compare_gone(r, L, 1);
    ep_test_stream_close(f);
    r->requests++;
    if (r->line_differs)
        r->different++;
    else if (r->line_unsure)
        r->unsure_requests++;
    else
        r->same++;
    r->now_refused += is && !was && !r->line_unsure;
    r->now_passed += was && !is && !r->line_unsure;
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

static void tell_groups(FILE *out, const struct group *g, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fprintf(out, "  %zu x %.*s: %.*s -> %.*s%s%.*s (line %zu)\n", g[i].n, EP_STR_ARG(g[i].policy),
                EP_STR_ARG(g[i].was), EP_STR_ARG(g[i].is), g[i].reason.n ? ": " : "", EP_STR_ARG(g[i].reason),
                g[i].line);
}

static void tell(const struct replay *r, FILE *out)
{
    fprintf(out, "%zu requests: %zu as before, %zu differ, %zu can't be told\n", r->requests, r->same, r->different,
            r->unsure_requests);
    fprintf(out, "%zu that passed are refused now, %zu that were refused pass\n", r->now_refused, r->now_passed);
    for (unsigned i = 0; i < r->t->set->n; i++) {
        const struct counts *c = &r->policies[i];
        fprintf(out, "policy %.*s: %zu judged, %zu as before, %zu differ, %zu can't be told\n",
                EP_STR_ARG(r->t->set->v[i]->name), c->judged, c->same, c->different, c->unsure);
    }
    if (r->n_groups)
        fputs("what differs:\n", out);
    tell_groups(out, r->groups, r->n_groups);
    if (r->n_unsure)
        fputs("what can't be told:\n", out);
    tell_groups(out, r->unsure, r->n_unsure);
    if (r->bad_lines)
        fprintf(out, "%zu lines were left out: no records\n", r->bad_lines);
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
        rc = o->fail_on_difference && r->different ? 1 : 0;
    }
    fclose(in);
    free(line);
    free(r->groups);
    free(r->unsure);
    free(r);
    return rc;
}
