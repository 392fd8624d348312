/* `ephor test DIR`: runs the *_test.lua beside the policies.
 *
 * The policies are loaded as in the proxy and judged by the same code (judge.c); only the stream is made up
 * (test_stream.c) and the world stands still (test_world.c). Each test file has an environment of its own; its top level
 * says which cases there are, and each of them then runs by itself, with a budget of its own: one that loops fails, and
 * the next one runs. */
#include "lua/policy_test.h"

#include <dirent.h>
#include <stdlib.h>

#include "lua/bundle.h"
#include "lua/testing.h"

static const struct ep_lua_budget case_budget = {100000000, 64 << 20, 10 * EP_S, 0};
#define REQUIRED_TIME (20 * EP_S) /* of all tests together, when a configuration waits for them */
#define POLICY_TIME (2 * EP_S) /* of a call: a busy machine must not fail a test, and what loops runs out of instructions */

/* --- what there is and what came out --- */

void ep_tests_add_case(struct ep_tests *t, struct ep_str name, int line, int ref)
{
    if (t->n_cases == t->cap_cases) {
        t->cap_cases = EP_MAX(t->cap_cases * 2, 64u);
        t->cases = ep_realloc(t->cases, t->cap_cases * sizeof *t->cases);
    }
    t->cases[t->n_cases++] = (struct ep_test_case){ep_arena_str(&t->arena, name), line, ref};
}

struct ep_test_result *ep_tests_add_result(struct ep_tests *t, struct ep_str file, struct ep_str name)
{
    struct ep_test_result *r;

    if (t->n_results == t->cap_results) {
        t->cap_results = EP_MAX(t->cap_results * 2, 64u);
        t->results = ep_realloc(t->results, t->cap_results * sizeof *t->results);
    }
    r = &t->results[t->n_results++];
    *r = (struct ep_test_result){.file = ep_arena_str(&t->arena, file), .name = ep_arena_str(&t->arena, name)};
    return r;
}

static void broken(struct ep_tests *t, struct ep_test_result *r, struct ep_str error)
{
    r->error = ep_arena_str(&t->arena, error);
    r->broken = true;
    t->n_bad++;
}

/* --- one case --- */

/* Where the error was raised stands in front of it, unless it comes from our own C. */
static struct ep_str placed(struct ep_tests *t, const struct ep_test_case *k, struct ep_str error)
{
    if (ep_str_search(error, EP_STR(".lua:")) >= 0)
        return ep_arena_str(&t->arena, error);
    return ep_arena_printf(&t->arena, "%.*s:%d: %.*s", EP_STR_ARG(t->file), k->line, EP_STR_ARG(error));
}

static void run_case(struct ep_tests *t, const struct ep_test_case *k)
{
    struct ep_lua *l = t->set->lua;
    struct ep_lua_thread thread = ep_lua_thread_take(l); /* the policies have another one */
    struct ep_test_result *r = ep_tests_add_result(t, t->file, k->name);
    uint64_t start = ep_clock_ns();
    enum ep_lua_status status;

    if (t->deadline_ns && start > t->deadline_ns) {
        broken(t, r, ep_arena_printf(&t->arena, "%.*s:%d: no time is left: required tests have %llus in all",
                                     EP_STR_ARG(t->file), k->line, REQUIRED_TIME / EP_S));
        ep_lua_thread_give(l, thread, false);
        return;
    }
    memset(t->touched, 0, sizeof t->touched);
    t->expected = (struct ep_str){NULL, 0};
    ep_test_world_reset(l);
    lua_rawgeti(thread.L, LUA_REGISTRYINDEX, k->ref);
    status = ep_lua_call(l, thread.L, 0, 0, &case_budget, start);
    r->ns = ep_clock_ns() - start;
    if (status == EP_LUA_OK) {
        for (unsigned i = 0; i < t->set->n; i++)
            t->tested[i] |= t->touched[i];
    } else {
        r->error = placed(t, k, ep_lua_error(thread.L));
        r->failed = t->expected.n && ep_str_search(r->error, t->expected) >= 0;
        r->broken = !r->failed;
        t->n_bad++;
    }
    ep_lua_thread_give(l, thread, false);
}

static bool wanted(const struct ep_tests *t, const struct ep_test_case *k)
{
    struct ep_str full;
    char text[512];

    if (!t->pattern.n)
        return true;
    full = ep_str_n(text, EP_MIN(sizeof text - 1, (size_t)snprintf(text, sizeof text, "%.*s: %.*s",
                                                                   EP_STR_ARG(t->file), EP_STR_ARG(k->name))));
    return ep_str_search(full, t->pattern) >= 0 || ep_str_glob(t->pattern, full);
}

/* --- one file --- */

/* Runs the top level of the file, which registers its cases. */
static int run_file(lua_State *L)
{
    struct ep_tests *t = ep_tests_of(L);

    ep_lua_env_push(L, EP_LUA_POLICY, t->directory);
    if (t->bundle) {
        ep_lua_push(L, ep_policy_bundle_find(t->bundle, t->file)->text);
    } else {
        lua_pushfstring(L, "%s/%s", t->directory, t->file.p);
        ep_lua_read_file(L, lua_tostring(L, -1));
    }
    lua_pushfstring(L, "@%s", t->file.p);
    ep_lua_compile(L, ep_lua_check_str(L, -2), lua_tostring(L, -1), 1);
    lua_call(L, 0, 0);
    return 0;
}

static void test_file(struct ep_tests *t, const char *file)
{
    struct ep_lua *l = t->set->lua;
    struct ep_lua_thread thread = ep_lua_thread_take(l);

    t->file = ep_arena_str(&t->arena, ep_str(file));
    t->n_cases = 0;
    ep_test_world_reset(l);
    lua_pushcfunction(thread.L, run_file);
    if (ep_lua_call(l, thread.L, 0, 0, &ep_lua_budget_load, ep_clock_ns()) != EP_LUA_OK)
        broken(t, ep_tests_add_result(t, t->file, EP_STR("the file loads")), ep_lua_error(thread.L));
    ep_lua_thread_give(l, thread, false);
    for (size_t i = 0; i < t->n_cases; i++) {
        struct ep_test_case k = t->cases[i]; /* a case that makes cases moves the array */
        if (wanted(t, &k))
            run_case(t, &k);
    }
    for (size_t i = 0; i < t->n_cases; i++)
        luaL_unref(l->L, LUA_REGISTRYINDEX, t->cases[i].ref);
}

/* --- ephor.native.test --- */

static int add_case(lua_State *L)
{
    struct ep_tests *t = ep_tests_of(L);
    struct ep_str name = ep_lua_check_str(L, 1);
    int line = 0;
    lua_Debug ar;

    luaL_checktype(L, 2, LUA_TFUNCTION);
    if (lua_getstack(L, 2, &ar) && lua_getinfo(L, "l", &ar)) /* 1 is t.case */
        line = ar.currentline;
    lua_settop(L, 2);
    int ref = luaL_ref(L, LUA_REGISTRYINDEX);
    ep_tests_add_case(t, name, line, ref);
    return 0;
}

/* expected(text): an expectation is not met, and the error that follows will say this. */
static int expected(lua_State *L)
{
    struct ep_tests *t = ep_tests_of(L);

    t->expected = ep_arena_str(&t->arena, ep_lua_check_str(L, 1));
    return 0;
}

/* What lua/ephor/test.lua needs. */
static int push_native(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"call", ep_test_call},       {"reply", ep_test_reply},         {"stream", ep_test_events},
        {"find", ep_test_find},       {"case", add_case},
        {"expected", expected},       {"clock", ep_test_clock},         {"set_clock", ep_test_set_clock},
        {"advance", ep_test_advance}, {"http", ep_test_http}, {NULL, NULL},
    };

    luaL_newlib(L, functions);
    return 1;
}

/* --- all of them --- */

static void tests_init(struct ep_tests *t, struct ep_worker *w, const char *directory)
{
    *t = (struct ep_tests){.worker = w, .directory = directory};
    ep_chunk_pool_init(&w->chunks, 64);
    ep_slab_pool_init(&w->slabs, 4);
    ep_rng_seed_random(&w->rng);
    w->memory = ep_memory_new();
    w->stats = ep_stats_new(); /* which refusals count in */
    ep_list_init(&w->tasks);
    ep_chunk_pool_init(&t->chunks, 0);
    ep_arena_init(&t->arena, &t->chunks);
}

static void tests_fini(struct ep_tests *t)
{
    struct ep_lua *l = t->worker->lua;

    if (l) {
        l->test = NULL;
        l->test_wall_ns = 0;
        ep_test_coverage_free(t->coverage, l);
    }
    if (t->set)
        ep_policy_set_unref(t->set);
    if (l)
        ep_lua_unref(l);
    free(t->cases);
    free(t->results);
    free(t->covered);
    ep_arena_fini(&t->arena);
    ep_chunk_pool_fini(&t->chunks);
    ep_memory_free(t->worker->memory);
    ep_stats_free(t->worker->stats);
    ep_slab_pool_fini(&t->worker->slabs);
    ep_chunk_pool_fini(&t->worker->chunks);
}

/* Loads the policies. False with err when one is wrong. */
static bool tests_load(struct ep_tests *t, const struct ep_policies_config *config, bool coverage, struct ep_error *err)
{
    struct ep_lua *l = ep_lua_ref(t->worker, err);

    if (!l)
        return false;
    l->bundle = t->bundle;
    if (coverage)
        t->coverage = ep_test_coverage_new(l);
    t->set = ep_policy_set_ref(t->worker, NULL, config, err);
    if (!t->set)
        return false;
    t->set->budget.time_ns = POLICY_TIME;
    l->test_native = push_native;
    l->test = t; /* only now: a policy must not find ephor.test, which isn't there in the proxy */
    return true;
}

static int select_test(const struct dirent *d)
{
    return d->d_name[0] != '.' && ep_str_ends(ep_str(d->d_name), EP_STR("_test.lua"));
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* A case is about the rule, not about how far it is rolled out: it says the same in shadow as when it is enforced. */
static void enforce_all(struct ep_policy_set *set)
{
    set->mode = EP_MODE_ENFORCE;
    for (unsigned i = 0; i < set->n; i++) {
        if (set->v[i]->mode == EP_MODE_SHADOW)
            set->v[i]->mode = EP_MODE_ENFORCE;
        set->v[i]->share = 1.0;
    }
}

static void test_directory(struct ep_tests *t)
{
    struct dirent **files = NULL;
    int n = t->bundle ? 0 : scandir(t->directory, &files, select_test, by_name);

    enforce_all(t->set);
    for (unsigned i = 0; t->bundle && i < t->bundle->n; i++)
        if (ep_policy_bundle_is_test(t->bundle->files[i].name))
            test_file(t, t->bundle->files[i].name.p);
    for (int i = 0; i < n; i++) {
        test_file(t, files[i]->d_name);
        free(files[i]);
    }
    free(files);
}

/* --- coverage --- */

static int measure(lua_State *L)
{
    struct ep_tests *t = ep_tests_of(L);

    for (unsigned i = 0; i < t->set->n; i++) {
        const struct ep_policy *p = t->set->v[i];
        struct ep_test_covered *c = &t->covered[t->n_covered];
        *c = (struct ep_test_covered){.policy = p->name, .file = p->file};
        ep_test_coverage_of(L, t->coverage, t->directory, p->file, &c->lines);
        t->n_covered++;
    }
    return 0;
}

static void cover(struct ep_tests *t, double minimum)
{
    struct ep_lua *l = t->set->lua;
    struct ep_lua_thread thread = ep_lua_thread_take(l);

    t->covered = ep_calloc(t->set->n + 1, sizeof *t->covered);
    ep_lua_watch_lines(l, NULL);
    lua_pushcfunction(thread.L, measure);
    if (ep_lua_call(l, thread.L, 0, 0, &case_budget, ep_clock_ns()) != EP_LUA_OK)
        broken(t, ep_tests_add_result(t, EP_STR("coverage"), EP_STR("coverage")), ep_lua_error(thread.L));
    ep_lua_thread_give(l, thread, false);
    for (size_t i = 0; minimum >= 0 && i < t->n_covered; i++) {
        const struct ep_test_covered *c = &t->covered[i];
        struct ep_test_result *r = ep_tests_add_result(
            t, EP_STR("coverage"),
            ep_arena_printf(&t->arena, "%.*s is covered to %.0f%%", EP_STR_ARG(c->policy), 100 * minimum));
        if (ep_test_covered_share(c) >= minimum)
            continue;
        r->error = ep_arena_printf(&t->arena, "%.*s: %u of %u lines, %.1f%%; not run: %s", EP_STR_ARG(c->file),
                                   c->lines.hit, c->lines.n, 100 * ep_test_covered_share(c), c->lines.missing);
        r->failed = true;
        t->n_bad++;
    }
}

/* --- the two ways in --- */

static void run(struct ep_tests *t, const struct ep_policy_test_options *o)
{
    struct ep_policies_config config = {.directory = ep_str(o->directory)};
    struct ep_error err;

    t->pattern = ep_str(o->pattern);
    if (!tests_load(t, &config, o->coverage, &err)) {
        broken(t, ep_tests_add_result(t, ep_str(o->directory), EP_STR("the policies load")), ep_str(err.text));
        return;
    }
    test_directory(t);
    if (t->n_results == 0)
        broken(t, ep_tests_add_result(t, ep_str(o->directory), EP_STR("there are tests")),
               t->pattern.n ? EP_STR("no case fits --run") : EP_STR("no *_test.lua there has a case"));
    if (t->coverage)
        cover(t, o->coverage_minimum);
}

static int tell(FILE *f, const struct ep_tests *t, const struct ep_policy_test_options *o)
{
    if (o->format == EP_TEST_JUNIT)
        ep_test_report_junit(f, t);
    else
        ep_test_report_tap(f, t);
    if (!o->output)
        return 0;
    for (size_t i = 0; i < t->n_covered; i++)
        ep_test_report_coverage(stdout, &t->covered[i]);
    printf("%zu tests, %zu failed: %s\n", t->n_results, t->n_bad, o->output);
    return 0;
}

static bool can_read(const char *directory)
{
    DIR *d = opendir(directory);

    if (!d) {
        fprintf(stderr, "ephor test: %s: %s\n", directory, strerror(errno));
        return false;
    }
    closedir(d);
    return true;
}

static int replay(struct ep_tests *t, const struct ep_policy_test_options *o, FILE *f)
{
    struct ep_policies_config config = {.directory = ep_str(o->directory)};
    struct ep_error err;

    if (!tests_load(t, &config, false, &err)) {
        fprintf(stderr, "ephor test: %s\n", err.text);
        return 1;
    }
    return ep_test_replay(t, o, f);
}

int ep_policy_test(const struct ep_policy_test_options *o)
{
    struct ep_worker *w;
    struct ep_tests *t;
    FILE *f = stdout;
    int rc = 0;

    if (!can_read(o->directory))
        return 3;
    if (o->output && !(f = fopen(o->output, "we"))) {
        fprintf(stderr, "ephor test: %s: %s\n", o->output, strerror(errno));
        return 3;
    }
    w = ep_calloc(1, sizeof *w);
    t = ep_calloc(1, sizeof *t);
    tests_init(t, w, o->directory);
    if (o->record) {
        rc = replay(t, o, f);
    } else {
        run(t, o);
        tell(f, t, o);
        rc = t->n_bad ? 1 : 0;
    }
    tests_fini(t);
    free(t);
    free(w);
    bool bad = fflush(f) != 0 || ferror(f);
    if (o->output)
        bad |= fclose(f) != 0;
    if (bad)
        fprintf(stderr, "ephor test: %s: %s\n", o->output ? o->output : "standard output", strerror(errno));
    return bad ? 3 : rc;
}

/* The first of the policy's functions that no passing case got to; NULL: all were. */
static const char *untested_of(const struct ep_policy *p, unsigned tested)
{
    if (p->call_ref != LUA_NOREF && !(tested & 1u << EP_POLICY_CALL))
        return "call";
    if (p->reply_ref != LUA_NOREF && !(tested & 1u << EP_POLICY_REPLY))
        return "reply (t.reply)";
    return p->event_ref != LUA_NOREF && !(tested & 1u << EP_POLICY_EVENT) ? "event (t.stream)" : NULL;
}

/* What is said when a directory doesn't pass: the first thing that is wrong. */
static bool all_pass(const struct ep_tests *t, struct ep_error *err)
{
    for (size_t i = 0; i < t->n_results; i++) {
        const struct ep_test_result *r = &t->results[i];
        if (r->failed || r->broken)
            return ep_error_set(err, "policies in %s: %zu of %zu tests fail; '%.*s': %.*s", t->directory, t->n_bad,
                                t->n_results, EP_STR_ARG(r->name), EP_STR_ARG(r->error));
    }
    for (unsigned i = 0; i < t->set->n; i++) {
        const struct ep_policy *p = t->set->v[i];
        const char *untested = p->mode == EP_MODE_OFF ? NULL : untested_of(p, t->tested[i]);
        if (untested)
            return ep_error_set(err, "policies in %s: %.*s:%d: '%.*s' has no passing test of its %s, and policies.require_tests is set",
                                t->directory, EP_STR_ARG(p->file), p->line, EP_STR_ARG(p->name), untested);
    }
    return true;
}

bool ep_policies_want_tests(const struct ep_policies_config *config)
{
    return config->require_tests && config->directory.n && config->mode != EP_MODE_OFF;
}

bool ep_policy_tests_pass(const struct ep_policies_config *config, struct ep_error *err)
{
    char *directory = ep_strndup(config->directory.p, config->directory.n);
    struct ep_policy_bundle *b = ep_policy_bundle_read(directory, err);
    bool good = b && ep_policy_bundle_tests_pass(config, b, err);

    ep_policy_bundle_unref(b);
    free(directory);
    return good;
}

bool ep_policy_bundle_tests_pass(const struct ep_policies_config *config, struct ep_policy_bundle *bundle,
                                 struct ep_error *err)
{
    struct ep_worker *w = ep_calloc(1, sizeof *w);
    struct ep_tests *t = ep_calloc(1, sizeof *t);
    char *directory = ep_strndup(config->directory.p, config->directory.n);
    struct ep_policies_config alone = *config;
    bool good;

    alone.record = NULL; /* tests are no requests */
    alone.mode = EP_MODE_ENFORCE;
    alone.enforce = 1;
    tests_init(t, w, directory);
    t->bundle = bundle;
    t->deadline_ns = ep_clock_ns() + REQUIRED_TIME;
    good = tests_load(t, &alone, false, err);
    if (good) {
        test_directory(t);
        good = all_pass(t, err);
    }
    tests_fini(t);
    free(directory);
    free(t);
    free(w);
    return good;
}
