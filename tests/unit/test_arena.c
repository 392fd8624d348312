/* Arenas and their chunks: alignment, large pieces, and that everything comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/base.h"

static void hands_out_distinct_aligned_memory(void **state)
{
    struct ep_chunk_pool pool;
    struct ep_arena a;
    unsigned char *p[300];

    (void)state;
    ep_chunk_pool_init(&pool, 8);
    ep_arena_init(&a, &pool);
    assert_non_null(ep_arena_alloc(&a, 0));
    for (unsigned i = 0; i < EP_COUNT(p); i++) {
        p[i] = ep_arena_alloc(&a, i * 7);
        assert_int_equal((uintptr_t)p[i] % 8, 0);
        memset(p[i], (int)(i & 0xff), i * 7);
    }
    for (unsigned i = 0; i < EP_COUNT(p); i++) {
        for (unsigned k = 0; k < i * 7; k++)
            assert_int_equal(p[i][k], i & 0xff);
    }
    ep_arena_fini(&a);
    ep_chunk_pool_fini(&pool);
}

static void a_large_piece_leaves_the_chunk_in_use(void **state)
{
    struct ep_chunk_pool pool;
    struct ep_arena a;
    char *before, *large, *after;

    (void)state;
    ep_chunk_pool_init(&pool, 8);
    ep_arena_init(&a, &pool);
    large = ep_arena_zalloc(&a, 100000); /* first of all */
    assert_int_equal(large[99999], 0);
    before = ep_arena_alloc(&a, 8);
    large = ep_arena_alloc(&a, 5000);
    memset(large, 1, 5000);
    after = ep_arena_alloc(&a, 8);
    assert_ptr_equal(after, before + 8);
    assert_true(a.bytes >= 100000 + 5000 + EP_CHUNK_BYTES);
    ep_arena_fini(&a);
    assert_int_equal(a.bytes, 0);
    assert_non_null(ep_arena_alloc(&a, 16)); /* usable again */
    ep_arena_fini(&a);
    ep_chunk_pool_fini(&pool);
}

static void the_pool_keeps_no_more_than_it_may(void **state)
{
    struct ep_chunk_pool pool;
    struct ep_arena a;

    (void)state;
    ep_chunk_pool_init(&pool, 2);
    ep_arena_init(&a, &pool);
    for (unsigned i = 0; i < 5; i++)
        (void)ep_arena_alloc(&a, 4000);
    ep_arena_fini(&a);
    assert_int_equal(pool.n_free, EP_ASAN ? 0 : 2);
    (void)ep_arena_alloc(&a, 1);
    assert_int_equal(pool.n_free, EP_ASAN ? 0 : 1);
    ep_arena_fini(&a);
    ep_chunk_pool_fini(&pool);
    assert_null(pool.free);
}

static void prints_of_any_length(void **state)
{
    struct ep_chunk_pool pool;
    struct ep_arena a;
    struct ep_str s;

    (void)state;
    ep_chunk_pool_init(&pool, 2);
    ep_arena_init(&a, &pool);
    s = ep_arena_printf(&a, "%s-%d", "x", 7);
    assert_string_equal(s.p, "x-7");
    assert_int_equal(s.n, 3);
    s = ep_arena_printf(&a, "%9000d", 1);
    assert_int_equal(s.n, 9000);
    assert_int_equal(s.p[9000], 0);
    s = ep_arena_str(&a, ep_str(NULL));
    assert_true(s.n == 0 && s.p && s.p[0] == 0);
    ep_arena_fini(&a);
    ep_chunk_pool_fini(&pool);
}

static void lists_keep_their_order(void **state)
{
    struct item {
        int v;
        struct ep_list node;
    } v[4] = {{.v = 0}, {.v = 1}, {.v = 2}, {.v = 3}};
    struct ep_list a, b;
    int expected = 0;

    (void)state;
    ep_list_init(&a);
    ep_list_init(&b);
    assert_false(ep_list_linked(&v[0].node));
    ep_list_push(&a, &v[1].node);
    ep_list_push_front(&a, &v[0].node);
    ep_list_push(&b, &v[2].node);
    ep_list_push(&b, &v[3].node);
    ep_list_splice(&a, &b);
    assert_true(ep_list_empty(&b));
    EP_LIST_FOREACH(node, &a)
    {
        assert_int_equal(EP_CONTAINER(node, struct item, node)->v, expected++);
        ep_list_remove(node);
    }
    assert_int_equal(expected, 4);
    assert_true(ep_list_empty(&a) && !ep_list_pop(&a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hands_out_distinct_aligned_memory),
        cmocka_unit_test(a_large_piece_leaves_the_chunk_in_use),
        cmocka_unit_test(the_pool_keeps_no_more_than_it_may),
        cmocka_unit_test(prints_of_any_length),
        cmocka_unit_test(lists_keep_their_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
