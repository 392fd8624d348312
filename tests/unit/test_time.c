/* Time as text against the C library, and the random numbers' ranges and repeatability. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <stdio.h>
#include <time.h>

#include "base/base.h"

static void rfc3339_agrees_with_the_c_library(void **state)
{
    struct ep_rng rng;
    char text[32], expected[32];

    (void)state;
    ep_rng_seed(&rng, 1);
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t ns = i == 0 ? 0 : ep_rng_below(&rng, 8000000000u * EP_S); /* to the year 2223 */
        time_t seconds = (time_t)(ns / EP_S);
        struct tm tm;

        assert_non_null(gmtime_r(&seconds, &tm));
        (void)strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S", &tm);
        assert_int_equal(ep_time_rfc3339(ns, text), 27);
        assert_memory_equal(text, expected, 19);
        assert_int_equal(strtoul(text + 20, NULL, 10), ns % EP_S / 1000);
        assert_string_equal(text + 26, "Z");
    }
    (void)ep_time_rfc3339(1709164800 * EP_S + 123456789, text);
    assert_string_equal(text, "2024-02-29T00:00:00.123456Z");
}

static void clocks_run(void **state)
{
    uint64_t a = ep_clock_ns();

    (void)state;
    assert_true(ep_clock_ns() >= a);
    assert_true(ep_clock_wall_ns() > 1700000000 * EP_S);
}

static void chance_repeats_and_stays_in_range(void **state)
{
    struct ep_rng a, b;
    unsigned seen[7] = {0};

    (void)state;
    ep_rng_seed(&a, 42);
    ep_rng_seed(&b, 42);
    for (unsigned i = 0; i < 70000; i++) {
        double unit;

        assert_int_equal(ep_rng_u64(&a), ep_rng_u64(&b));
        seen[ep_rng_below(&a, 7)]++;
        (void)ep_rng_below(&b, 7);
        unit = ep_rng_unit(&a);
        assert_true(unit >= 0 && unit < 1);
        (void)ep_rng_unit(&b);
    }
    for (unsigned i = 0; i < 7; i++)
        assert_in_range(seen[i], 9500, 10500);
    assert_int_equal(ep_rng_below(&a, 1), 0);
    ep_rng_seed_random(&a);
    ep_rng_seed_random(&b);
    assert_true(ep_rng_u64(&a) != ep_rng_u64(&b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc3339_agrees_with_the_c_library),
        cmocka_unit_test(clocks_run),
        cmocka_unit_test(chance_repeats_and_stays_in_range),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
