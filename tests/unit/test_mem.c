/* Size classes: contents survive, alignment holds, memory is used again and the count comes back to zero. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/base.h"

static void random_use_keeps_contents(void **state)
{
    enum { N = 200 };
    struct ep_mem m;
    struct ep_rng rng;
    unsigned char *p[N] = {NULL};
    size_t size[N] = {0};

    (void)state;
    ep_mem_init(&m, 16);
    ep_rng_seed(&rng, 3);
    for (unsigned step = 0; step < 20000; step++) {
        size_t i = ep_rng_below(&rng, N), n = ep_rng_below(&rng, ep_rng_below(&rng, 4) ? 300 : 9000), kept;

        switch (ep_rng_below(&rng, 3)) {
        case 0:
            ep_mem_free(&m, p[i]);
            p[i] = ep_mem_alloc(&m, n);
            kept = 0;
            break;
        case 1:
            ep_mem_free(&m, p[i]);
            p[i] = ep_mem_calloc(&m, n, 1);
            for (size_t k = 0; k < n; k++)
                assert_int_equal(p[i][k], 0);
            kept = 0;
            break;
        default:
            kept = p[i] ? EP_MIN(size[i], n) : 0;
            p[i] = ep_mem_realloc(&m, p[i], n);
        }
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (size_t k = 0; k < kept; k++)
            assert_int_equal(p[i][k], i);
        memset(p[i], (int)i, n);
        size[i] = n;
    }
    for (size_t i = 0; i < N; i++) {
        for (size_t k = 0; p[i] && k < size[i]; k++)
            assert_int_equal(p[i][k], i);
        ep_mem_free(&m, p[i]);
    }
    assert_int_equal(m.live_bytes, 0);
    ep_mem_fini(&m);
}

static void each_size_gets_the_tightest_class(void **state)
{
    struct ep_mem m;

    (void)state;
    ep_mem_init(&m, 4);
    for (size_t n = 1; n <= 4096 && !EP_ASAN; n++) {
        void *p = ep_mem_alloc(&m, n);

        assert_true(m.live_bytes >= n);
        assert_true(n <= 16 || m.live_bytes * 2 <= n * 3 + 32); /* steps of 4/3 and 3/2 */
        ep_mem_free(&m, p);
        assert_ptr_equal(ep_mem_alloc(&m, n), p); /* used again */
        ep_mem_free(&m, p);
    }
    ep_mem_fini(&m);
}

static void keeps_no_more_than_it_may_and_refuses_overflow(void **state)
{
    struct ep_mem m;
    void *p[10];

    (void)state;
    ep_mem_init(&m, 4);
    for (unsigned i = 0; i < EP_COUNT(p); i++)
        p[i] = ep_mem_alloc(&m, 100);
    for (unsigned i = 0; i < EP_COUNT(p); i++)
        ep_mem_free(&m, p[i]);
    for (unsigned i = 0; i < EP_MEM_CLASSES; i++)
        assert_true(m.n_free[i] <= 4);
    assert_null(ep_mem_calloc(&m, SIZE_MAX / 2, 3));
    ep_mem_free(&m, NULL);
    assert_int_equal(m.live_bytes, 0);
    ep_mem_fini(&m);
}

static void the_helpers_copy(void **state)
{
    char *a = ep_strdup("abc"), *b = ep_strndup("abcdef", 2), *c = ep_strndup(NULL, 0);

    (void)state;
    assert_string_equal(a, "abc");
    assert_string_equal(b, "ab");
    assert_string_equal(c, "");
    a = ep_realloc(a, 100);
    assert_string_equal(a, "abc");
    free(a);
    free(b);
    free(c);
    free(ep_malloc(0));
    free(ep_calloc(0, 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_use_keeps_contents),
        cmocka_unit_test(each_size_gets_the_tightest_class),
        cmocka_unit_test(keeps_no_more_than_it_may_and_refuses_overflow),
        cmocka_unit_test(the_helpers_copy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
