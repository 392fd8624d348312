/* link: ep_filters */
/* Chaos: the choices (pure, by the seed), and the filter that keeps to them. */
#include "filter_play.h"

#include "chaos/schedule.h"

/* The binder's, which stands above the filters. */
void ep_check_error(struct ep_checker *c, const void *object, const char *key, const char *format, ...)
{
    (void)c, (void)object, (void)key, (void)format;
}

extern const struct ep_filter ep_filter_chaos;
const struct ep_filter *const play_filter = &ep_filter_chaos;

/* --- choices --- */

static struct ep_chaos_experiment tenth(void)
{
    return (struct ep_chaos_experiment){.name = EP_STR("slow"), .percent = 0.1, .duration_ns = EP_S, .seed = 42,
                                        .radius = {.percent = 1.0, .concurrent = 1000000, .total = 1000000}};
}

static void test_the_same_seed(void **state)
{
    struct ep_chaos_delay d = {.distribution = EP_CHAOS_UNIFORM, .minimum_ns = EP_MS, .maximum_ns = 9 * EP_MS};
    struct ep_chaos_experiment a = tenth(), b = tenth();
    unsigned hit = 0, differ = 0;

    (void)state;
    a.fault.delay = b.fault.delay = &d;
    for (uint64_t i = 0; i < 10000; i++) {
        struct ep_chaos_counts counts = {.seen = i};
        struct ep_chaos_choice x = ep_chaos_choose(&a, 0, &counts), y = ep_chaos_choose(&b, 5, &counts);
        assert_int_equal(x.verdict, y.verdict);
        assert_int_equal(x.delay_ns, y.delay_ns);
        hit += x.verdict == EP_CHAOS_HIT;
        if (x.verdict == EP_CHAOS_HIT)
            assert_true(x.delay_ns >= EP_MS && x.delay_ns <= 9 * EP_MS);
        b.seed = 43;
        differ += ep_chaos_choose(&b, 0, &counts).verdict != x.verdict;
        b.seed = 42;
    }
    assert_in_range(hit, 850, 1150);
    assert_in_range(differ, 1000, 2500);
}

static void test_limits(void **state)
{
    struct ep_chaos_experiment x = tenth();

    (void)state;
    x.percent = 1.0;
    x.radius.total = 10;
    x.radius.concurrent = 3;
    assert_int_equal(ep_chaos_choose(&x, 0, &(struct ep_chaos_counts){0, 0, 0}).verdict, EP_CHAOS_HIT);
    assert_int_equal(ep_chaos_choose(&x, EP_S - 1, &(struct ep_chaos_counts){0, 0, 0}).verdict, EP_CHAOS_HIT);
    assert_int_equal(ep_chaos_choose(&x, EP_S, &(struct ep_chaos_counts){0, 0, 0}).verdict, EP_CHAOS_OVER);
    assert_int_equal(ep_chaos_choose(&x, 0, &(struct ep_chaos_counts){20, 10, 0}).verdict, EP_CHAOS_SPENT);
    assert_int_equal(ep_chaos_choose(&x, 0, &(struct ep_chaos_counts){20, 9, 3}).verdict, EP_CHAOS_FULL);
    assert_int_equal(ep_chaos_choose(&x, 0, &(struct ep_chaos_counts){20, 9, 2}).verdict, EP_CHAOS_HIT);
    x.percent = 0;
    assert_int_equal(ep_chaos_choose(&x, 0, &(struct ep_chaos_counts){0, 0, 0}).verdict, EP_CHAOS_MISS);
}

static void test_the_share_is_never_passed(void **state)
{
    struct ep_chaos_experiment x = tenth();
    struct ep_chaos_counts counts = {0, 0, 0};

    (void)state;
    x.percent = 0.5;
    x.radius.percent = 0.2;
    for (; counts.seen < 5000; counts.seen++) {
        counts.injected += ep_chaos_choose(&x, 0, &counts).verdict == EP_CHAOS_HIT;
        assert_true((double)counts.injected <= 0.2 * (double)(counts.seen + 1) + 1);
    }
    assert_in_range(counts.injected, 950, 1001);
}

static void test_distributions(void **state)
{
    struct ep_chaos_delay fixed = {.fixed_ns = 7}, uniform = {.distribution = EP_CHAOS_UNIFORM, .minimum_ns = 10, .maximum_ns = 20},
                          exponential = {.distribution = EP_CHAOS_EXPONENTIAL, .mean_ns = 1000, .maximum_ns = 3000},
                          pareto = {.distribution = EP_CHAOS_PARETO, .minimum_ns = 100, .maximum_ns = 5000, .shape = 1.5};
    double sum = 0;

    (void)state;
    assert_int_equal(ep_chaos_delay(&fixed, 0.9), 7);
    assert_int_equal(ep_chaos_delay(&uniform, 0), 10);
    assert_int_equal(ep_chaos_delay(&uniform, 0.5), 15);
    assert_int_equal(ep_chaos_delay(&exponential, 0), 0);
    assert_int_equal(ep_chaos_delay(&exponential, 0.5), 693); /* ln 2 */
    assert_int_equal(ep_chaos_delay(&exponential, 0.9999999), 3000);
    assert_int_equal(ep_chaos_delay(&pareto, 0), 100);
    assert_int_equal(ep_chaos_delay(&pareto, 0.5), 158); /* 100 · 2^(2/3) */
    assert_int_equal(ep_chaos_delay(&pareto, 0.999999), 5000);
    exponential.maximum_ns = 1000000;
    for (int i = 0; i < 1000; i++)
        sum += (double)ep_chaos_delay(&exponential, i / 1000.0);
    assert_in_range((uint64_t)(sum / 1000), 950, 1010);
}

/* --- the filter --- */

static struct ep_chaos_delay a_delay;
static struct ep_chaos_abort an_abort;
static struct ep_chaos_experiment all;
static struct ep_chaos_config config;

static int setup(void **state)
{
    struct play *p = play_new();

    a_delay = (struct ep_chaos_delay){.fixed_ns = 200 * EP_MS};
    an_abort = (struct ep_chaos_abort){.status = 503};
    all = tenth();
    all.percent = 1.0;
    all.duration_ns = 3600 * EP_S;
    config = (struct ep_chaos_config){.enabled = true, .experiments = {&all, 1}};
    p->view.chaos_config = &config;
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    play_free(*state);
    return 0;
}

static uint64_t injections(struct play *p, const char *fault)
{
    return *ep_stats_cell(p->w.stats, EP_METRIC_CHAOS_INJECTIONS, EP_LABELS(EP_STR("slow"), ep_str(fault)));
}

static void get(struct play *p, const char *path)
{
    play_request(p, "GET", path, "", NULL, 0, 0);
}

static void test_delay(void **state)
{
    struct play *p = *state;
    uint64_t began;

    all.fault.delay = &a_delay;
    play_chain(p);
    began = p->w.now_ns; /* by which timers go */
    get(p, "/");
    assert_false(p->passed);
    assert_int_equal(atomic_load(&all.run.concurrent), 1);
    while (!p->passed)
        ep_worker_turn(&p->w, true); /* wakes for the timer */
    assert_true(ep_clock_ns() - began >= a_delay.fixed_ns);
    assert_true(p->s->fault_injected && injections(p, "delay") == 1 && injections(p, "abort") == 0);
    assert_string_equal(p->s->response_flag, "DI");
    play_end(p);
    assert_int_equal(atomic_load(&all.run.concurrent), 0);
    assert_int_equal(atomic_load(&all.run.injected), 1);
}

static void test_given_up_while_delayed(void **state)
{
    struct play *p = *state;

    all.fault.delay = &a_delay;
    play_chain(p);
    get(p, "/");
    play_end(p);
    assert_int_equal(p->w.wheel.running, 0);
    assert_int_equal(atomic_load(&all.run.concurrent), 0);
}

static void test_abort(void **state)
{
    struct play *p = *state;

    all.fault.abort = &an_abort;
    play_chain(p);
    get(p, "/");
    assert_true(!p->passed && p->status == 503 && injections(p, "abort") == 1);
    assert_non_null(strstr(p->body, "chaos.abort"));
    play_end(p);
}

static void test_delay_then_abort(void **state)
{
    struct play *p = *state;

    all.fault.delay = &a_delay;
    all.fault.abort = &an_abort;
    play_chain(p);
    get(p, "/");
    assert_int_equal(p->status, 0);
    while (!p->released)
        ep_worker_turn(&p->w, true);
    assert_true(!p->passed && p->status == 503);
}

static void test_off(void **state)
{
    struct play *p = *state;

    config.enabled = false;
    all.fault.abort = &an_abort;
    play_chain(p);
    get(p, "/");
    assert_true(p->passed);
}

static void test_match(void **state)
{
    struct play *p = *state;
    static struct ep_str billing[] = {EP_STR_INIT("*/sa/billing")};
    struct {
        struct ep_chaos_match match;
        bool hit;
    } rows[] = {
        {{.path = EP_STR("/victim")}, true},
        {{.path = EP_STR("/other")}, false},
        {{.direction = EP_CHAOS_INBOUND}, true},
        {{.direction = EP_CHAOS_OUTBOUND}, false},
        {{.cluster = EP_STR("too*")}, true},
        {{.cluster = EP_STR("x")}, false},
        {{.method = EP_STR("GET")}, true},
        {{.method = EP_STR("tools/call")}, false},
        {{.tool = EP_STR("*")}, false},
        {{.principal = EP_STR("*")}, false},
    };

    all.fault.abort = &an_abort;
    play_chain(p);
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        all.match = rows[i].match;
        get(p, "/victim?x");
        if (p->passed == rows[i].hit)
            fail_msg("row %zu", i);
        play_end(p);
    }
    all.match = (struct ep_chaos_match){.direction = 0};
    all.radius.exclude.principals = (struct ep_vec){billing, 1};
    get(p, "/");
    assert_false(p->passed); /* an unknown caller is not the one excluded */
}

static void test_radius(void **state)
{
    struct play *p = *state;
    unsigned hit = 0;

    all.fault.abort = &an_abort;
    all.radius.total = 3;
    play_chain(p);
    for (int i = 0; i < 10; i++) {
        get(p, "/");
        hit += !p->passed;
        play_end(p);
    }
    assert_int_equal(hit, 3);
    atomic_store(&all.run.injected, 0);
    atomic_store(&all.run.concurrent, (uint64_t)all.radius.concurrent); /* others hold all places */
    get(p, "/");
    assert_true(p->passed);
    play_end(p);
    atomic_store(&all.run.concurrent, 0);
    atomic_store(&all.run.started_ns, ep_clock_ns() - all.duration_ns);
    get(p, "/");
    assert_true(p->passed); /* over */
}

static void test_constitution(void **state)
{
    struct play *p = *state;
    struct ep_error err = {""};

    all.fault.abort = &an_abort;
    all.constitution = EP_STR("0000000000000000");
    assert_null(ep_chain_new(&p->view, &p->w, &p->config, play_lookup, p, &err));
    assert_non_null(strstr(err.text, "another constitution"));
    assert_null(strstr(err.text, "cdd01ef0"));
    all.constitution = p->view.constitution;
    play_chain(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_seed),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_the_share_is_never_passed),
        cmocka_unit_test(test_distributions),
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_delay), T(test_given_up_while_delayed), T(test_abort), T(test_delay_then_abort), T(test_off), T(test_match),
        T(test_radius), T(test_constitution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
