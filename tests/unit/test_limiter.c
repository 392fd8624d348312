/* link: ep_filter
 * The token buckets: arithmetic by time passed in, the table and its bound, and many threads at one bucket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "filter/limiter.h"

#define START (1000 * EP_S)

static const struct ep_limit_rate ten_a_second = {.count = 10, .per_ns = EP_S, .burst = 10};

static uint64_t key_of(struct ep_limiter *l, unsigned i)
{
    return ep_limiter_key(l, 0, ep_str_n(&i, sizeof i));
}

static enum ep_limit_result take(struct ep_limiter *l, const struct ep_limit_rate *r, uint64_t n, uint64_t now,
                                 struct ep_limit_state *state)
{
    return ep_limiter_take(l, 77, r, n, now, state);
}

static void test_a_burst_then_the_rate(void **context)
{
    struct ep_limiter *l = ep_limiter_new(16);
    struct ep_limit_state s;

    (void)context;
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(take(l, &ten_a_second, 1, START, &s), EP_LIMIT_TAKEN);
        assert_int_equal(s.left, 9 - i);
    }
    assert_int_equal(take(l, &ten_a_second, 1, START, &s), EP_LIMIT_EMPTY);
    assert_int_equal(s.wait_ns, 100 * EP_MS); /* exactly when the next one is there */
    assert_int_equal(take(l, &ten_a_second, 1, START + 100 * EP_MS - 1, &s), EP_LIMIT_EMPTY);
    assert_int_equal(s.wait_ns, 1);
    assert_int_equal(take(l, &ten_a_second, 1, START + 100 * EP_MS, &s), EP_LIMIT_TAKEN);
    assert_int_equal(s.left, 0);
    assert_int_equal(take(l, &ten_a_second, 3, START + 350 * EP_MS, &s), EP_LIMIT_EMPTY); /* 2.5 are there */
    assert_int_equal(s.wait_ns, 50 * EP_MS);
    assert_int_equal(take(l, &ten_a_second, 10, START + 60 * EP_S, &s),
                     EP_LIMIT_TAKEN); /* and never more than a burst */
    assert_int_equal(take(l, &ten_a_second, 1, START + 60 * EP_S, &s), EP_LIMIT_EMPTY);
    assert_int_equal(take(l, &ten_a_second, 11, START + 999 * EP_S, &s), EP_LIMIT_NEVER);
    assert_int_equal(s.left, 10); /* what is there, not nothing */
    ep_limiter_free(l);
}

static void test_what_is_refused_takes_nothing(void **context)
{
    struct ep_limiter *l = ep_limiter_new(16);
    struct ep_limit_state s;

    (void)context;
    assert_int_equal(take(l, &ten_a_second, 9, START, &s), EP_LIMIT_TAKEN);
    for (int i = 0; i < 100; i++)
        assert_int_equal(take(l, &ten_a_second, 2, START, &s), EP_LIMIT_EMPTY);
    assert_int_equal(s.left, 1);
    assert_int_equal(take(l, &ten_a_second, 1, START, &s), EP_LIMIT_TAKEN);
    ep_limiter_free(l);
}

static void test_the_clock_steps_back_and_far_ahead(void **context)
{
    struct ep_limiter *l = ep_limiter_new(16);
    struct ep_limit_state s;

    (void)context;
    assert_int_equal(take(l, &ten_a_second, 10, START, &s), EP_LIMIT_TAKEN);
    assert_int_equal(take(l, &ten_a_second, 1, START - 5 * EP_S, &s), EP_LIMIT_EMPTY); /* no gain by it */
    assert_int_equal(s.wait_ns, 5 * EP_S + 100 * EP_MS);
    assert_int_equal(take(l, &ten_a_second, 10, START + 300ull * 365 * 86400 * EP_S, &s), EP_LIMIT_TAKEN);
    assert_int_equal(take(l, &ten_a_second, 1, START + 300ull * 365 * 86400 * EP_S, &s), EP_LIMIT_EMPTY);
    ep_limiter_free(l);
}

/* Counts and times over 32 bits, and products over 64. */
static void test_large_numbers(void **context)
{
    static const struct {
        struct ep_limit_rate rate;
        uint64_t n, ns;
    } rows[] = {
        {{10, EP_S, 10}, 1, 100 * EP_MS},
        {{3, EP_S, 3}, 1, 333333334},                             /* rounded up: never more than the rate */
        {{10ull << 30, EP_S, 10ull << 30}, 5ull << 30, EP_S / 2}, /* 10 GiB/s */
        {{5ull * 1000000000, 86400 * EP_S, 5000000000}, 2500000000, 43200 * EP_S}, /* 5 of money a day, in billionths */
        {{1, 366ull * 86400 * EP_S, 1}, 1, EP_LIMIT_DEBT_MAX},
        {{1, EP_S, 1}, UINT64_MAX, EP_LIMIT_DEBT_MAX}, /* as long as a debt may be */
        {{1000000000000000000u, 1, 1000000000000000000u}, 1, 1},
    };
    struct ep_limiter *l = ep_limiter_new(16);
    struct ep_limit_state s;

    (void)context;
    for (size_t i = 0; i < EP_COUNT(rows); i++)
        assert_int_equal(ep_limit_time(&rows[i].rate, rows[i].n), rows[i].ns);
    const struct ep_limit_rate huge = {10ull << 30, EP_S, 20ull << 30};
    assert_int_equal(take(l, &huge, 15ull << 30, START, &s), EP_LIMIT_TAKEN);
    assert_int_equal(s.left, 5ull << 30);
    assert_int_equal(s.full_ns, 1500 * EP_MS);
    ep_limiter_free(l);
}

static void test_settling(void **context)
{
    struct ep_limiter *l = ep_limiter_new(16);
    struct ep_limit_state s;

    (void)context;
    assert_int_equal(take(l, &ten_a_second, 8, START, &s), EP_LIMIT_TAKEN);
    ep_limiter_settle(l, 77, &ten_a_second, 8, 3, START); /* five come back */
    assert_int_equal(take(l, &ten_a_second, 7, START, &s), EP_LIMIT_TAKEN);
    assert_int_equal(s.left, 0);
    ep_limiter_settle(l, 77, &ten_a_second, 7, 27, START); /* twenty are owed: two seconds */
    assert_int_equal(take(l, &ten_a_second, 1, START + 2 * EP_S, &s), EP_LIMIT_EMPTY);
    assert_int_equal(s.wait_ns, 100 * EP_MS);
    assert_int_equal(s.left, 0);
    assert_int_equal(take(l, &ten_a_second, 1, START + 2100 * EP_MS, &s), EP_LIMIT_TAKEN);
    ep_limiter_settle(l, 77, &ten_a_second, 5, 0,
                      START + 60 * EP_S); /* into a bucket that is full: it doesn't run over */
    assert_int_equal(take(l, &ten_a_second, 10, START + 60 * EP_S, &s), EP_LIMIT_TAKEN);
    assert_int_equal(take(l, &ten_a_second, 1, START + 60 * EP_S, &s), EP_LIMIT_EMPTY);
    ep_limiter_settle(l, 77, &ten_a_second, 0, UINT64_MAX, START); /* a debt has an end */
    assert_int_equal(take(l, &ten_a_second, 1, START, &s), EP_LIMIT_EMPTY);
    assert_true(s.wait_ns <= EP_LIMIT_DEBT_MAX);
    assert_int_equal(ep_limiter_settle(l, 78, &ten_a_second, 0, 10, START),
                     EP_LIMIT_TAKEN); /* of a key that was let go */
    assert_int_equal(ep_limiter_take(l, 78, &ten_a_second, 1, START, &s), EP_LIMIT_EMPTY);
    ep_limiter_free(l);
}

static void test_keys(void **context)
{
    struct ep_limiter *l = ep_limiter_new(16), *other = ep_limiter_new(16);
    uint64_t ab = ep_limiter_key(l, ep_limiter_key(l, 0, EP_STR("a")), EP_STR("b"));

    (void)context;
    assert_true(ab == ep_limiter_key(l, ep_limiter_key(l, 0, EP_STR("a")), EP_STR("b")));
    assert_true(ab != ep_limiter_key(l, ep_limiter_key(l, 0, EP_STR("b")), EP_STR("a")));
    assert_true(ab != ep_limiter_key(l, ep_limiter_key(l, 0, EP_STR("ab")), EP_STR("")));
    assert_true(ab != ep_limiter_key(l, 0, EP_STR("ab")));
    assert_true(
        ab != ep_limiter_key(other, ep_limiter_key(other, 0, EP_STR("a")), EP_STR("b"))); /* nobody can work them out */
    ep_limiter_free(l);
    ep_limiter_free(other);
}

/* A key that may lie in either of the two sets of sixteen slots, as most do but not all. */
static uint64_t of_both_sets(unsigned i)
{
    return (uint64_t)(i + 1) << 33 | 1;
}

/* Sixteen slots: all are taken, then there is none until the first bucket is full again; none is ever lost before. */
static void test_the_bound(void **context)
{
    struct ep_limiter *l = ep_limiter_new(16);
    struct ep_limit_state s;

    (void)context;
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(ep_limiter_take(l, of_both_sets(i), &ten_a_second, i == 5 ? 1 : 10, START, &s), EP_LIMIT_TAKEN);
    assert_int_equal(ep_limiter_used(l), 16);
    assert_int_equal(ep_limiter_take(l, of_both_sets(16), &ten_a_second, 1, START, &s), EP_LIMIT_FULL);
    assert_int_equal(s.wait_ns, 100 * EP_MS + 1); /* the sixth's is full again */
    assert_int_equal(ep_limiter_settle(l, of_both_sets(16), &ten_a_second, 0, 1, START), EP_LIMIT_FULL);
    assert_int_equal(ep_limiter_take(l, of_both_sets(16), &ten_a_second, 10, START + 100 * EP_MS + 1, &s), EP_LIMIT_TAKEN);
    for (unsigned i = 0; i < 16; i++) /* the others know what they have taken: after 0.2 s two are there, not three */
        if (i != 5)
            assert_int_equal(ep_limiter_take(l, of_both_sets(i), &ten_a_second, 3, START + 200 * EP_MS, &s),
                             EP_LIMIT_EMPTY);
    assert_int_equal(ep_limiter_take(l, of_both_sets(5), &ten_a_second, 1, START + 200 * EP_MS, &s), EP_LIMIT_FULL);
    assert_int_equal(ep_limiter_used(l), 16);
    ep_limiter_free(l);
}

/* A table of the size that is used holds more than half as many keys as it has slots, whatever the secret: of 3000 the worst
 * held 64 %. */
static void test_it_fills_up(void **context)
{
    struct ep_limiter *l = ep_limiter_new(EP_LIMITER_SLOTS);
    struct ep_limit_state s;
    unsigned i = 0;

    (void)context;
    while (ep_limiter_take(l, key_of(l, i), &ten_a_second, 1, START, &s) == EP_LIMIT_TAKEN)
        i++;
    assert_true(i > EP_LIMITER_SLOTS / 2);
    assert_int_equal(ep_limiter_used(l), i);
    assert_int_equal(ep_limiter_take(l, key_of(l, 0), &ten_a_second, 9, START, &s),
                     EP_LIMIT_TAKEN); /* it is there still */
    assert_int_equal(ep_limiter_take(l, key_of(l, 0), &ten_a_second, 1, START, &s), EP_LIMIT_EMPTY);
    ep_limiter_free(l);
}

/* --- many threads --- */

#define THREADS 4
#define TRIES   20000

struct crowd {
    struct ep_limiter *l;
    unsigned keys, self;
    uint64_t taken[64];
};

static const struct ep_limit_rate slow = {.count = 1000, .per_ns = 1000 * EP_S, .burst = 1000};

/* Two in one take, one of which is put back; and made-up keys in between that come and go by the same few slots. */
static void *hammer(void *user)
{
    struct crowd *c = user;
    struct ep_limit_state s;

    for (unsigned i = 0; i < TRIES; i++) {
        unsigned k = i % c->keys;
        if (ep_limiter_take(c->l, key_of(c->l, k), &slow, 2, START, &s) == EP_LIMIT_TAKEN) {
            c->taken[k]++;
            ep_limiter_settle(c->l, key_of(c->l, k), &slow, 2, 1, START);
        }
        ep_limiter_take(c->l, key_of(c->l, 1000000 + i * THREADS + c->self), &ten_a_second, 1, START - 60 * EP_S, &s);
    }
    return NULL;
}

static void test_many_threads_take_what_is_there_and_no_more(void **context)
{
    struct ep_limiter *l = ep_limiter_new(64);
    struct crowd crowd[THREADS];
    pthread_t threads[THREADS];

    (void)context;
    for (unsigned i = 0; i < THREADS; i++) {
        crowd[i] = (struct crowd){.l = l, .keys = 8, .self = i};
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, &crowd[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (unsigned k = 0; k < 8; k++) {
        uint64_t sum = 0;
        struct ep_limit_state s;
        for (unsigned i = 0; i < THREADS; i++)
            sum += crowd[i].taken[k];
        assert_int_equal(sum, 999); /* the last one can't be had by twos */
        assert_int_equal(ep_limiter_take(l, key_of(l, k), &slow, 1, START, &s), EP_LIMIT_TAKEN);
        assert_int_equal(ep_limiter_take(l, key_of(l, k), &slow, 1, START, &s), EP_LIMIT_EMPTY);
    }
    ep_limiter_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_burst_then_the_rate),
        cmocka_unit_test(test_what_is_refused_takes_nothing),
        cmocka_unit_test(test_the_clock_steps_back_and_far_ahead),
        cmocka_unit_test(test_large_numbers),
        cmocka_unit_test(test_settling),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_the_bound),
        cmocka_unit_test(test_it_fills_up),
        cmocka_unit_test(test_many_threads_take_what_is_there_and_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
