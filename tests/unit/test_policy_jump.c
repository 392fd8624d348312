/* link: ep_config */
/* When a new version of the policies is taken back: time and counts are given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "config/policy_jump.h"

static const struct ep_policies_rollback limits = {
    .errors = 0.05, .denials = 0.20, .window_ns = 30 * EP_S, .minimum = 100};

/* The version before: `requests`, `denied` and `failed` within the last window. */
static struct ep_policy_totals lead(struct ep_policy_watch *w, uint64_t requests, uint64_t denied, uint64_t failed)
{
    struct ep_policy_totals zero = {0}, t = {requests, denied, failed};

    *w = (struct ep_policy_watch){0};
    ep_policy_watch_begin(w, &limits, &zero, 0, false);
    ep_policy_watch_look(w, &limits, &zero, 0);
    ep_policy_watch_look(w, &limits, &t, 29 * EP_S);
    ep_policy_watch_begin(w, &limits, &t, 30 * EP_S, true);
    return zero; /* each version is counted from nothing */
}

static enum ep_policy_jump look(struct ep_policy_watch *w, struct ep_policy_totals t, uint64_t requests, uint64_t denied,
                                uint64_t failed, uint64_t second)
{
    t.requests += requests;
    t.denied += denied;
    t.failed += failed;
    return ep_policy_watch_look(w, &limits, &t, (30 + second) * EP_S);
}

static void test_table(void **state)
{
    static const struct {
        uint64_t before[3], now[3];
        enum ep_policy_jump jump;
    } rows[] = {
        {{1000, 0, 0}, {100, 0, 0}, EP_POLICY_JUMP_NONE},
        {{1000, 0, 0}, {99, 99, 99}, EP_POLICY_JUMP_NONE}, /* too few */
        {{1000, 0, 0}, {100, 20, 0}, EP_POLICY_JUMP_NONE}, /* just so */
        {{1000, 0, 0}, {100, 21, 0}, EP_POLICY_JUMP_DENIALS},
        {{1000, 500, 0}, {100, 69, 0}, EP_POLICY_JUMP_NONE}, /* half were refused before */
        {{1000, 500, 0}, {100, 71, 0}, EP_POLICY_JUMP_DENIALS},
        {{1000, 0, 0}, {100, 0, 5}, EP_POLICY_JUMP_NONE},
        {{1000, 0, 0}, {100, 0, 6}, EP_POLICY_JUMP_ERRORS},
        {{1000, 0, 100}, {100, 0, 14}, EP_POLICY_JUMP_NONE},
        {{1000, 0, 100}, {100, 0, 16}, EP_POLICY_JUMP_ERRORS},
        {{1000, 0, 0}, {100, 100, 100}, EP_POLICY_JUMP_ERRORS}, /* the graver is named */
        {{10, 10, 0}, {100, 30, 0}, EP_POLICY_JUMP_DENIALS},    /* ten say nothing */
        {{0, 0, 0}, {100, 30, 0}, EP_POLICY_JUMP_DENIALS},
        {{1000, 1000, 0}, {100, 0, 0}, EP_POLICY_JUMP_NONE}, /* it does better */
    };
    struct ep_policy_watch w;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_policy_totals t = lead(&w, rows[i].before[0], rows[i].before[1], rows[i].before[2]);
        assert_true(w.watching);
        assert_int_equal(look(&w, t, rows[i].now[0], rows[i].now[1], rows[i].now[2], 1), rows[i].jump);
        assert_int_equal(w.watching, rows[i].jump == EP_POLICY_JUMP_NONE);
    }
}

static void test_it_is_said_once(void **state)
{
    struct ep_policy_watch w;
    struct ep_policy_totals t = lead(&w, 1000, 0, 0);

    (void)state;
    assert_int_equal(look(&w, t, 100, 100, 0, 1), EP_POLICY_JUMP_DENIALS);
    assert_int_equal(look(&w, t, 200, 200, 0, 2), EP_POLICY_JUMP_NONE);
}

static void test_after_the_window_nothing_is_taken_back(void **state)
{
    struct ep_policy_watch w;
    struct ep_policy_totals t = lead(&w, 1000, 0, 0);

    (void)state;
    assert_int_equal(look(&w, t, 500, 0, 0, 29), EP_POLICY_JUMP_NONE);
    assert_true(w.watching);
    assert_int_equal(look(&w, t, 500, 0, 0, 31), EP_POLICY_JUMP_NONE);
    assert_false(w.watching);
    assert_int_equal(look(&w, t, 9000, 8500, 0, 40), EP_POLICY_JUMP_NONE);
}

static void test_too_few_requests_are_waited_for_beyond_the_window(void **state)
{
    struct ep_policy_watch w;
    struct ep_policy_totals t = lead(&w, 1000, 0, 0);

    (void)state;
    assert_int_equal(look(&w, t, 50, 50, 0, 3600), EP_POLICY_JUMP_NONE);
    assert_true(w.watching);
    assert_int_equal(look(&w, t, 100, 100, 0, 7200), EP_POLICY_JUMP_DENIALS);
}

static void test_the_last_window_counts_not_all_time(void **state)
{
    struct ep_policy_totals zero = {0}, quiet = {100000, 0, 0}, storm = {101000, 900, 0};
    struct ep_policy_watch w = {0};

    (void)state;
    ep_policy_watch_begin(&w, &limits, &zero, 0, false);
    for (uint64_t s = 0; s < 3000; s++)
        assert_int_equal(ep_policy_watch_look(&w, &limits, &quiet, s * EP_S), EP_POLICY_JUMP_NONE);
    ep_policy_watch_look(&w, &limits, &storm, 3001 * EP_S);
    ep_policy_watch_begin(&w, &limits, &storm, 3002 * EP_S, true);
    assert_true(w.denials > 0.89 && w.denials < 0.91); /* callers were refused before it came, too */
}

static void test_without_comparison_or_limits_nothing_is_watched(void **state)
{
    struct ep_policy_watch w = {0};
    struct ep_policy_totals t = {1000, 1000, 1000};

    (void)state;
    ep_policy_watch_begin(&w, &limits, &t, 0, false);
    assert_int_equal(look(&w, t, 1000, 1000, 1000, 1), EP_POLICY_JUMP_NONE);
    ep_policy_watch_begin(&w, NULL, &t, 0, true);
    assert_false(w.watching);
}

static void test_ticks_are_at_most_a_second(void **state)
{
    struct ep_policies_rollback short_window = limits;

    (void)state;
    assert_int_equal(ep_policy_watch_tick(&limits), EP_S);
    short_window.window_ns = EP_S;
    assert_int_equal(ep_policy_watch_tick(&short_window), EP_S / EP_POLICY_JUMP_SAMPLES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_it_is_said_once),
        cmocka_unit_test(test_after_the_window_nothing_is_taken_back),
        cmocka_unit_test(test_too_few_requests_are_waited_for_beyond_the_window),
        cmocka_unit_test(test_the_last_window_counts_not_all_time),
        cmocka_unit_test(test_without_comparison_or_limits_nothing_is_watched),
        cmocka_unit_test(test_ticks_are_at_most_a_second),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
