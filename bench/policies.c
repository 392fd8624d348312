/* What one decision costs, by kind: `bench_policies ROW N` does it N times and prints the nanoseconds of one; `bench_policies
 * list` names the rows; `bench_policies pause MIB [generational]` tells what the collector takes. bench/policies.py runs it plainly, and under callgrind for the instructions. */
#include "../tests/unit/lua_fixture.h"

#include "lua/policy.h"

extern const struct ep_filter ep_filter_policies, ep_filter_constitution;

#define HEAD "local policy = require 'ephor.policy' return policy { name = 'p', "

static const char arguments[] = "{\"query\":\"the weather in Athens\",\"limit\":10,\"tags\":[\"a\",\"b\"],\"deep\":{\"x\":true}}";

static const struct row {
    const char *name, *policy; /* NULL: no policy is in it */
} rows[] = {
    {"none", NULL},
    {"prefilter miss", HEAD "match = {tool = 'shell'}, call = function(c) return c:deny('no') end }"},
    {"tool rule", HEAD "call = function(c) if c.tool == 'shell' then return c:deny('no') end end }"},
    {"header rule", HEAD "call = function(c) if c.headers['x-tenant'] ~= 'acme' then return c:deny('no') end end }"},
    {"JSON argument rule", HEAD "call = function(c) if c.arguments.limit > 100 then return c:deny('no') end end }"},
    {"4 KiB body", HEAD "call = function(c) if c.body:find('password', 1, true) then return c:deny('no') end end }"},
    {"denial", HEAD "call = function(c) return c:deny('no') end }"},
    {"constitution", NULL},
    {"audit record", NULL},
};

struct scene {
    struct play play;
    struct fake_stream stream;
    const struct row *row;
};

static void audit(struct scene *s)
{
    struct ep_audit_field fields[] = {
        {"decision", EP_STR("deny"), false},
        {"decision_id", EP_STR("0123456789abcdef"), false},
        {"policy", EP_STR("p"), false},
        {"principle", EP_STR("P3"), false},
        {"code", EP_STR("policy.denied"), false},
        {"reason", EP_STR("not for you"), false},
        {"agent_id", s->stream.s.peer_id, false},
        {"tenant_id", EP_STR("acme"), false},
        {"protocol", EP_STR("mcp"), false},
        {"method", EP_STR("tools/call"), false},
        {"tool", EP_STR("search"), false},
    };

    ep_audit_record(s->play.worker.audit, s->play.worker.stats, "decision", fields, EP_COUNT(fields), NULL);
}

/* callgrind counts from here. */
__attribute__((noinline, noclone, used, externally_visible)) void measured(struct scene *s, unsigned n)
{
    const struct ep_filter *f = s->play.instance.filter;

    for (unsigned i = 0; i < n; i++) {
        if (strcmp(s->row->name, "audit record") == 0)
            audit(s);
        else if (s->row->policy || strcmp(s->row->name, "constitution") == 0)
            f->request_headers(&s->stream.s, s->stream.state, true);
        s->stream.s.refused = false;
    }
}

static void set_up(struct scene *s, const struct row *row)
{
    static char body[4097];
    const struct ep_filter *f = row->policy ? &ep_filter_policies : &ep_filter_constitution;
    struct ep_error err = {""};

    memset(body, 'x', sizeof body - 1);
    ep_log_set_level(EP_LOG_OFF);
    play_init(&s->play);
    s->row = row;
    s->play.constitution.hash = EP_STR("cdd01ef066bc6cf2");
    if (row->policy)
        play_file(&s->play, "p.lua", row->policy);
    if (!play_load(&s->play, f, NULL, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    if (strcmp(row->name, "audit record") == 0) {
        struct ep_audit_config config = {.directory = ep_str(s->play.directory), .sync_ns = EP_S};
        s->play.worker.audit = ep_audit_new(&config, &err);
    }
    stream_init(&s->stream, &s->play);
    ep_headers_add(&s->stream.s.request.headers, EP_STR("x-constitutional-hash"), EP_STR("cdd01ef066bc6cf2"));
    s->stream.s.call.visible = EP_VISIBLE_FULL;
    s->stream.s.call.arguments = ep_str(arguments);
    s->stream.s.call.body = ep_str_n(body, sizeof body - 1);
}

/* A policy that keeps `mib` of tables alive and leaves some 40 KiB of garbage at each call. What the collector takes at
 * most at once: ours between calls, or Lua's generational one within them (`generational`), where only the longest call
 * can be told, and the usual one with it. */
static void collector_pause(struct scene *s, int mib, bool generational)
{
    static char policy[1024];
    static uint64_t ns[20000];
    struct row row = {"pause", policy};
    uint64_t longest = 0, sum = 0;

    snprintf(policy, sizeof policy,
             "local kept = {} for i = 1, %d do kept[i] = {i, tostring(i)} end\n" HEAD
             "call = function(c) local t = {} for i = 1, 300 do t[i] = {i, 'x' .. i} end kept[300 + #t] = t end }",
             mib * 7000);
    set_up(s, &row);
    struct ep_lua *l = s->play.worker.lua;
    lua_gc(l->L, LUA_GCCOLLECT);
    l->collect_at = l->bytes;
    l->pause_longest_ns = 0;
    if (generational) {
        l->collect_at = SIZE_MAX;
        lua_gc(l->L, LUA_GCRESTART);
        lua_gc(l->L, LUA_GCGEN, 0, 0);
    }
    for (size_t i = 0; i < EP_COUNT(ns); i++) {
        uint64_t start = ep_clock_ns();
        ep_filter_policies.request_headers(&s->stream.s, s->stream.state, true);
        ns[i] = ep_clock_ns() - start;
        longest = EP_MAX(longest, ns[i]);
        sum += ns[i];
    }
    printf("%.1f MiB live, %s: the longest call %.0f us, the mean %.0f us, the longest slice %.0f us\n",
           (double)l->bytes / (1 << 20), generational ? "generational" : "ours", (double)longest / 1e3,
           (double)sum / EP_COUNT(ns) / 1e3, (double)l->pause_longest_ns / 1e3);
}

static void tear_down(struct scene *s)
{
    if (s->play.worker.audit)
        ep_audit_free(s->play.worker.audit);
    s->play.worker.audit = NULL;
    stream_fini(&s->stream);
    play_fini(&s->play);
}

int main(int argc, char **argv)
{
    static struct scene s;
    unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 1000;

    if (argc < 2 || strcmp(argv[1], "list") == 0) {
        for (size_t i = 0; i < EP_COUNT(rows); i++)
            printf("%s\n", rows[i].name);
        return 0;
    }
    if (strcmp(argv[1], "pause") == 0) {
        collector_pause(&s, (int)n, argc > 3);
        tear_down(&s);
        return 0;
    }
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        if (strcmp(rows[i].name, argv[1]) != 0)
            continue;
        set_up(&s, &rows[i]);
        for (unsigned warm = 0; warm < 100; warm++)
            measured(&s, 1);
        uint64_t start = ep_clock_ns();
        measured(&s, n);
        printf("%.1f\n", (double)(ep_clock_ns() - start) / n);
        tear_down(&s);
        return 0;
    }
    fprintf(stderr, "there is no row '%s'\n", argv[1]);
    return 1;
}
