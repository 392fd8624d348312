/* What one decision costs, by kind: `bench_policies ROW N` does it N times and prints the nanoseconds of one;
 * `bench_policies list` names the rows; `bench_policies pause MIB [HEAP [generational]]` tells what the collector takes.
 * bench/policies.py runs the rows plainly, and under callgrind for the instructions. */
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

static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * EP_S + (uint64_t)t.tv_nsec;
}

struct longest {
    uint64_t wall, cpu, wall_start, cpu_start;
};

static void start(struct longest *l)
{
    l->wall_start = ep_clock_ns();
    l->cpu_start = cpu_ns();
}

static void stop(struct longest *l)
{
    l->cpu = EP_MAX(l->cpu, cpu_ns() - l->cpu_start);
    l->wall = EP_MAX(l->wall, ep_clock_ns() - l->wall_start);
}

#define GARBAGE(n) \
    HEAD "call = function(c) local t = {} for i = 1, " n " do t[i] = {i, 'x' .. i} end kept[300 + #t] = t end }"

static const struct heap {
    const char *name, *policy; /* %d: of what there is much */
    int a_mib;                 /* %d for 1 MiB */
} heaps[] = {
    /* small tables, 40 KiB of garbage a call */
    {"tables", "local kept = {} for i = 1, %d do kept[i] = {i, tostring(i)} end\n" GARBAGE("300"), 7000},
    /* the same with 700 KiB of garbage a call, which is about what its budget allows */
    {"heavy", "local kept = {} for i = 1, %d do kept[i] = {i, tostring(i)} end\n" GARBAGE("4500"), 7000},
    /* one table, which Lua traverses at once, and again at the end of the cycle when it was written to */
    {"array", "local kept = {} for i = 1, %d do kept[i] = true end\n" GARBAGE("300"), 65536},
    {"hash", "local kept = {} for i = 1, %d do kept['k' .. i] = true end\n" GARBAGE("300"), 13000},
    /* strings: their table is made smaller at once, at the end of a cycle */
    {"strings", "local kept = {} for i = 1, %d do kept[i] = 'k' .. i end\n" GARBAGE("300"), 20000},
};

/* The longest step that Lua doesn't divide, in some cycles. */
static struct longest longest_step(struct ep_lua *l)
{
    struct longest step = {0};

    for (int cycle = 0; cycle < 20; cycle++) {
        int done;
        do {
            start(&step);
            done = lua_gc(l->L, LUA_GCSTEP, 0);
            stop(&step);
        } while (!done);
    }
    return step;
}

/* A policy that keeps `mib` alive and leaves garbage at each call: what the collector takes at most at once, ours
 * between calls or Lua's generational one within them, where only the longest call can be told. Ours is kept from
 * running at the end of the call and run by an empty one after it, so that it can be clocked alone. */
static int collector_pause(struct scene *s, int mib, const char *kind, bool generational)
{
    static char policy[1024];
    struct row row = {"pause", policy};
    const struct heap *h = heaps;
    struct longest call = {0}, slice = {0};
    unsigned n = 20000, slices = 0, over = 0;
    uint64_t spent = 0;
    size_t most = 0;

    while (h < heaps + EP_COUNT(heaps) && strcmp(h->name, kind) != 0)
        h++;
    if (h == heaps + EP_COUNT(heaps)) {
        fprintf(stderr, "there is no heap '%s'\n", kind);
        return 1;
    }
    snprintf(policy, sizeof policy, h->policy, mib * h->a_mib);
    set_up(s, &row);
    struct ep_lua *l = s->play.worker.lua;
    l->kept_max = SIZE_MAX; /* what keeps more than the default begins anew: here it is to be seen what that would cost */
    ep_lua_collect_all(l);
    size_t live = l->bytes, collect_at = l->bytes;
    if (generational) {
        lua_gc(l->L, LUA_GCRESTART);
        lua_gc(l->L, LUA_GCGEN, 0, 0);
    }
    for (unsigned i = 0; i < n; i++) {
        struct ep_lua_run saved;
        collect_at = l->collect_at == SIZE_MAX ? collect_at : l->collect_at;
        l->collect_at = SIZE_MAX;
        start(&call);
        ep_filter_policies.request_headers(&s->stream.s, s->stream.state, true);
        stop(&call);
        most = EP_MAX(most, l->bytes);
        if (s->stream.s.refused) /* by the budget of time: the machine was busy */
            over++;
        s->stream.s.refused = false;
        if (generational)
            continue;
        /* A run that began when the call did, so that the slice is as long as after the call. */
        l->collect_at = collect_at;
        slices += l->bytes >= collect_at;
        ep_lua_begin(l, &ep_lua_budget_call, call.wall_start, &saved);
        start(&slice);
        ep_lua_end(l, &saved);
        stop(&slice);
        spent += cpu_ns() - slice.cpu_start;
        struct ep_list *later = ep_list_pop(&s->play.worker.later);
        if (later) { /* the next turn */
            struct ep_task *t = EP_CONTAINER(later, struct ep_task, node);
            slices++;
            start(&slice);
            t->run(t);
            stop(&slice);
            spent += cpu_ns() - slice.cpu_start;
        }
    }
    printf("%s, %.1f MiB live, %s: the longest call %.0f us (CPU %.0f), the heap at most %.1f MiB, %u of %u over budget\n",
           kind, (double)live / (1 << 20), generational ? "generational" : "ours", (double)call.wall / 1e3,
           (double)call.cpu / 1e3, (double)most / (1 << 20), over, n);
    if (!generational) {
        struct longest step = longest_step(l), whole = {0};
        l->collect_at = SIZE_MAX;
        for (size_t full = l->bytes + (1 << 20); l->bytes < full;)
            ep_filter_policies.request_headers(&s->stream.s, s->stream.state, true);
        start(&whole);
        lua_gc(l->L, LUA_GCCOLLECT); /* as at a call's limit of memory */
        stop(&whole);
        printf("  with 1 MiB of garbage all at once CPU %.0f us, wall %.0f us\n", (double)whole.cpu / 1e3,
               (double)whole.wall / 1e3);
        printf("  %u slices, %.0f us of CPU each, the longest CPU %.0f us, wall %.0f us; one step at most CPU %.0f us, wall "
               "%.0f us\n",
               slices, slices ? (double)spent / slices / 1e3 : 0, (double)slice.cpu / 1e3, (double)slice.wall / 1e3,
               (double)step.cpu / 1e3, (double)step.wall / 1e3);
    }
    return 0;
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
        int rc = collector_pause(&s, (int)n, argc > 3 ? argv[3] : "tables", argc > 4);
        tear_down(&s);
        return rc;
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
