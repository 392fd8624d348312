/* link: ep_filter */
/* What policies remember: expiry, limits, eviction, counting by many threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>

#include "filter/memory.h"

#define SHARDS 16

static int setup(void **state)
{
    *state = ep_memory_new();
    return 0;
}

static int teardown(void **state)
{
    ep_memory_free(*state);
    return 0;
}

static struct ep_str get(struct ep_memory *m, const char *key, uint64_t now)
{
    static char value[64];
    size_t n;

    if (!ep_memory_get(m, ep_str(key), value, sizeof value, &n, now))
        return (struct ep_str){NULL, 0};
    return ep_str_n(value, n);
}

static void test_set_and_get(void **state)
{
    struct ep_memory *m = *state;
    struct ep_memory_change c = {0};

    assert_null(get(m, "a", 1).p);
    assert_true(ep_memory_set(m, EP_STR("a"), EP_STR("one"), 10, 1, &c));
    assert_true(ep_memory_set(m, EP_STR("a"), EP_STR("two"), 10, 2, &c));
    assert_true(ep_str_eq(get(m, "a", 11), EP_STR("two")));
    assert_null(get(m, "a", 12).p);
    assert_int_equal(c.entries, 1);
    assert_true(c.bytes > 0);
    ep_memory_remove(m, EP_STR("a"), &c);
    ep_memory_remove(m, EP_STR("never"), &c);
    assert_int_equal(c.entries, 0);
    assert_int_equal(c.bytes, 0);
    assert_int_equal(c.evicted, 0);
}

static void test_counts(void **state)
{
    struct ep_memory *m = *state;
    struct ep_memory_change c = {0};
    int64_t sum;

    assert_true(ep_memory_add(m, EP_STR("n"), 2, 10, 1, &sum, &c));
    assert_int_equal(sum, 2);
    assert_true(ep_memory_add(m, EP_STR("n"), -5, 10, 10, &sum, &c));
    assert_int_equal(sum, -3);
    assert_true(ep_str_eq(get(m, "n", 10), EP_STR("-3")));
    assert_true(ep_memory_add(m, EP_STR("n"), 1, 10, 11, &sum, &c)); /* the window began at 1, and is over */
    assert_int_equal(sum, 1);
    assert_true(ep_memory_add(m, EP_STR("n"), INT64_MAX, 10, 12, &sum, &c));
    assert_true(sum == INT64_MAX);
    assert_int_equal(c.entries, 1);
    assert_true(ep_memory_set(m, EP_STR("text"), EP_STR("x"), 10, 1, &c));
    assert_false(ep_memory_add(m, EP_STR("text"), 1, 10, 2, &sum, &c));
}

static void test_limits(void **state)
{
    struct ep_memory *m = *state;
    struct ep_memory_change c = {0};
    char key[32], big[4096] = {0};

    ep_memory_limit(m, 64 * SHARDS, 1 << 20);
    for (int i = 0; i < 20000; i++) {
        snprintf(key, sizeof key, "key %d", i);
        assert_true(ep_memory_set(m, ep_str(key), EP_STR("value"), 1000000, (uint64_t)i, &c));
        assert_true(c.entries <= 64 * SHARDS);
    }
    assert_int_equal(c.entries, 64 * SHARDS);
    assert_int_equal(c.evicted, 20000 - 64 * SHARDS);
    assert_true(ep_str_eq(get(m, "key 19999", 20000), EP_STR("value")));
    assert_null(get(m, "key 1", 20000).p);
    ep_memory_limit(m, 64 * SHARDS, 64 * 1024); /* 4 KiB a shard */
    assert_false(ep_memory_set(m, EP_STR("big"), ep_str_n(big, sizeof big), 10, 20000, &c));
    for (int i = 0; i < 2000; i++) {
        snprintf(key, sizeof key, "next %d", i);
        assert_true(ep_memory_set(m, ep_str(key), ep_str_n(big, 1000), 10, 20000, &c));
    }
    assert_true(c.bytes <= 64 * 1024);
}

/* What is asked for stays, what nobody asks for goes first; what has expired goes without being counted as evicted. */
static void test_eviction_order(void **state)
{
    struct ep_memory *m = *state;
    struct ep_memory_change c = {0};
    char key[32];

    ep_memory_limit(m, 8 * SHARDS, 1 << 20);
    ep_memory_set(m, EP_STR("kept"), EP_STR("1"), 1000000, 0, &c);
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "k%d", i);
        ep_memory_set(m, ep_str(key), EP_STR("v"), 1000000, 1, &c);
        assert_non_null(get(m, "kept", 1).p);
    }
    c = (struct ep_memory_change){0};
    for (int i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "later %d", i);
        ep_memory_set(m, ep_str(key), EP_STR("v"), 1, 2000000 + 10 * (uint64_t)i, &c);
    }
    assert_int_equal(c.evicted, 0);
}

static void *add_many(void *m)
{
    struct ep_memory_change c = {0};
    int64_t sum;

    for (int i = 0; i < 20000; i++) {
        assert_true(ep_memory_add(m, EP_STR("shared"), 1, EP_S, 1, &sum, &c));
        assert_true(ep_memory_set(m, EP_STR("other"), EP_STR("x"), EP_S, 1, &c));
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t thread[4];
    struct ep_memory_change c = {0};
    int64_t sum;

    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, add_many, *state), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    assert_true(ep_memory_add(*state, EP_STR("shared"), 0, EP_S, 1, &sum, &c));
    assert_int_equal(sum, 80000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_set_and_get), TEST(test_counts), TEST(test_limits),
                                       TEST(test_eviction_order), TEST(test_threads)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
