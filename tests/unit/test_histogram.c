/* link: ep_observe */
/* Histograms: the promised relative error over the whole range, and what a record costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <stdio.h>

#include "observe/observe.h"

struct fixture {
    struct ep_stats *stats;
    struct ep_histogram *h, *other;
};

static void begin(struct fixture *f)
{
    f->stats = ep_stats_new();
    f->h = ep_stats_histogram(f->stats, EP_METRIC_POLICY_DURATION, EP_LABELS(EP_STR("a")));
    f->other = ep_stats_histogram(f->stats, EP_METRIC_POLICY_DURATION, EP_LABELS(EP_STR("b")));
}

static uint64_t quantile(const struct ep_histogram *h, double q)
{
    return ep_histogram_quantile(&h, 1, q);
}

/* One value and one far above it: the lower quantile is that of the bucket, not the exact maximum. */
static void error_is_at_most_three_percent(void **state)
{
    struct ep_rng rng;

    (void)state;
    ep_rng_seed(&rng, 5);
    for (unsigned i = 0; i < 2000; i++) {
        unsigned power = 10 + (unsigned)ep_rng_below(&rng, 32); /* 1 µs to 1.2 h */
        uint64_t v = (UINT64_C(1) << power) + ep_rng_below(&rng, UINT64_C(1) << power), seen;
        struct fixture f;

        if (i < 32)
            v = UINT64_C(1) << (10 + i);
        else if (i < 64)
            v = (UINT64_C(2) << (i - 22)) - 1;
        begin(&f);
        ep_histogram_record(f.h, v);
        ep_histogram_record(f.h, UINT64_MAX / 4);
        seen = quantile(f.h, 0.5);
        assert_true(seen >= v - v * 3 / 100 && seen <= v + v * 3 / 100);
        assert_int_equal(quantile(f.h, 1), UINT64_MAX / 4);
        ep_stats_free(f.stats);
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void quantiles_agree_with_sorted_values(void **state)
{
    enum { N = 20000 };
    static const double qs[] = {0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
    uint64_t *v = malloc(N * sizeof(*v));
    struct ep_rng rng;
    struct fixture f;
    const struct ep_histogram *both[2];

    (void)state;
    begin(&f);
    ep_rng_seed(&rng, 6);
    assert_int_equal(quantile(f.h, 0.5), 0);
    for (unsigned i = 0; i < N; i++) {
        v[i] = 1000 + (ep_rng_u64(&rng) >> (64 - 10 - ep_rng_below(&rng, 30)));
        ep_histogram_record(i % 3 ? f.h : f.other, v[i]);
    }
    qsort(v, N, sizeof(*v), by_value);
    both[0] = f.h;
    both[1] = f.other;
    for (size_t i = 0; i < EP_COUNT(qs); i++) {
        size_t rank = qs[i] <= 0 ? 1 : (size_t)(qs[i] * N + 0.999999);
        double exact = (double)v[rank - 1], seen = (double)ep_histogram_quantile(both, 2, qs[i]);

        assert_true(seen > exact * 0.97 && seen < exact * 1.03);
    }
    assert_int_equal(ep_histogram_count(f.h) + ep_histogram_count(f.other), N);
    free(v);
    ep_stats_free(f.stats);
}

static void the_ends_are_kept(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    ep_histogram_record(f.h, 0);
    assert_int_equal(quantile(f.h, 0.5), 0);
    ep_histogram_record(f.h, UINT64_MAX);
    assert_int_equal(ep_histogram_count(f.h), 2);
    assert_int_equal(quantile(f.h, 1), UINT64_MAX);
    ep_stats_free(f.stats);
}

/* The budget is 100 ns; ten times that fails only when something is badly wrong, on any machine. */
static void a_record_is_cheap(void **state)
{
    enum { N = 1000000 };
    struct fixture f;
    struct ep_rng rng;
    uint64_t start, took;

    (void)state;
    begin(&f);
    ep_rng_seed(&rng, 7);
    start = ep_clock_ns();
    for (unsigned i = 0; i < N; i++)
        ep_histogram_record(f.h, ep_rng_u64(&rng) >> 36);
    took = ep_clock_ns() - start;
    print_message("a record takes %.1f ns\n", (double)took / N);
    assert_true(took / N < 1000);
    ep_stats_free(f.stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_is_at_most_three_percent),
        cmocka_unit_test(quantiles_agree_with_sorted_values),
        cmocka_unit_test(the_ends_are_kept),
        cmocka_unit_test(a_record_is_cheap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
