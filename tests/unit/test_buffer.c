/* Bodies: whatever is pushed, moved and dropped, the bytes stay in order and every slab comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/base.h"

struct fixture {
    struct ep_slab_pool slabs;
    struct ep_chunk_pool chunks;
    struct ep_arena arena;
};

static void begin(struct fixture *f)
{
    ep_slab_pool_init(&f->slabs, 4);
    ep_chunk_pool_init(&f->chunks, 4);
    ep_arena_init(&f->arena, &f->chunks);
}

static void end(struct fixture *f)
{
    assert_int_equal(f->slabs.n_live, 0);
    ep_arena_fini(&f->arena);
    ep_chunk_pool_fini(&f->chunks);
    ep_slab_pool_fini(&f->slabs);
}

static void assert_body(struct fixture *f, struct ep_body *b, const char *text, size_t n)
{
    struct ep_str s = ep_body_flatten(b, &f->arena);

    assert_int_equal(b->bytes, n);
    assert_int_equal(s.n, n);
    if (n)
        assert_memory_equal(s.p, text, n);
}

static void slabs_are_counted_and_used_again(void **state)
{
    struct fixture f;
    struct ep_slab *a, *big;

    (void)state;
    begin(&f);
    a = ep_slab_new(&f.slabs);
    assert_int_equal(a->size, EP_SLAB_BYTES);
    big = ep_slab_new_sized(&f.slabs, 3 * EP_SLAB_BYTES + 1);
    assert_int_equal(f.slabs.n_live, 5);
    ep_slab_unref(ep_slab_ref(a));
    assert_int_equal(f.slabs.n_live, 5);
    ep_slab_unref(big);
    ep_slab_unref(a);
    assert_int_equal(f.slabs.n_live, 0);
    assert_int_equal(f.slabs.n_free, EP_ASAN ? 0 : 1);
    a = ep_slab_new_sized(&f.slabs, 10);
    assert_int_equal(a->size, EP_SLAB_BYTES);
    ep_slab_unref(a);
    end(&f);
}

static void push_takes_the_reference_over(void **state)
{
    struct fixture f;
    struct ep_body b;
    struct ep_slab *slab;

    (void)state;
    begin(&f);
    ep_body_init(&b);
    slab = ep_slab_new(&f.slabs);
    memcpy(slab->data, "hello world", 11);
    ep_body_push(&b, ep_slice_ref((struct ep_slice){slab, slab->data, 5}), &f.slabs);
    ep_body_push(&b, ep_slice_ref((struct ep_slice){slab, slab->data + 5, 0}), &f.slabs); /* nothing: given back */
    assert_int_equal(slab->refs, 2);
    ep_body_push(&b, (struct ep_slice){slab, slab->data + 5, 6}, &f.slabs);
    ep_body_push(&b, (struct ep_slice){NULL, (const unsigned char *)"!", 1}, &f.slabs);
    assert_int_equal(slab->refs, 2);
    assert_body(&f, &b, "hello world!", 12);
    assert_ptr_equal(ep_body_front(&b)->p, slab->data); /* no copy */
    ep_body_drop(&b, 3);
    assert_body(&f, &b, "lo world!", 9);
    ep_body_drop(&b, 2);
    assert_int_equal(slab->refs, 1);
    ep_body_fini(&b);
    assert_body(&f, &b, "", 0);
    assert_null(ep_body_front(&b));
    end(&f);
}

static void move_splits_a_slice(void **state)
{
    struct fixture f;
    struct ep_body a, b;

    (void)state;
    begin(&f);
    ep_body_init(&a);
    ep_body_init(&b);
    ep_body_push_copy(&a, "abcdef", 6, &f.slabs);
    ep_body_move(&b, &a, 2, &f.slabs);
    assert_body(&f, &a, "cdef", 4);
    assert_body(&f, &b, "ab", 2);
    assert_int_equal(f.slabs.n_live, 1);     /* both look into one slab */
    ep_body_push_copy(&b, "X", 1, &f.slabs); /* which is shared, so this byte goes elsewhere */
    assert_body(&f, &a, "cdef", 4);
    ep_body_move(&b, &a, 4, &f.slabs);
    assert_body(&f, &b, "abXcdef", 7);
    assert_int_equal(a.count, 0);
    ep_body_fini(&b);
    end(&f);
}

static void single_bytes_do_not_pin_a_slab_each(void **state)
{
    struct fixture f;
    struct ep_body b;
    enum { N = 40000 };
    char *expected = malloc(N);

    (void)state;
    begin(&f);
    ep_body_init(&b);
    for (unsigned i = 0; i < N; i++) {
        struct ep_slab *slab = ep_slab_new(&f.slabs);

        expected[i] = (char)('a' + i % 26);
        slab->data[100] = (unsigned char)expected[i];
        ep_body_push(&b, (struct ep_slice){slab, slab->data + 100, 1}, &f.slabs);
    }
    assert_true(f.slabs.n_live < 40);
    assert_true(b.count < 40);
    assert_body(&f, &b, expected, N);
    ep_body_drop(&b, N - 5);
    assert_body(&f, &b, expected + N - 5, 5);
    ep_body_fini(&b);
    free(expected);
    end(&f);
}

static void agrees_with_a_plain_string(void **state)
{
    enum { CAP = 1 << 20 };
    struct fixture f;
    struct ep_body a, b;
    struct ep_rng rng;
    char *model = malloc(CAP);
    size_t from = 0, middle = 0, to = 0; /* b holds [from, middle), a holds [middle, to) */

    (void)state;
    begin(&f);
    ep_body_init(&a);
    ep_body_init(&b);
    ep_rng_seed(&rng, 11);
    for (unsigned step = 0; to < CAP - 40000; step++) {
        size_t n = ep_rng_below(&rng, ep_rng_below(&rng, 50) == 0 ? 20000 : 60);
        struct ep_slab *slab;

        switch (ep_rng_below(&rng, 6)) {
        case 0:
        case 1:
            slab = ep_slab_new_sized(&f.slabs, n);
            for (size_t i = 0; i < n; i++)
                slab->data[i] = (unsigned char)(model[to + i] = (char)ep_rng_u64(&rng));
            ep_body_push(&a, (struct ep_slice){slab, slab->data, n}, &f.slabs);
            to += n;
            break;
        case 2:
            for (size_t i = 0; i < n; i++)
                model[to + i] = (char)ep_rng_u64(&rng);
            ep_body_push_copy(&a, model + to, n, &f.slabs);
            to += n;
            break;
        case 3:
        case 4:
            n = ep_rng_below(&rng, a.bytes + 1);
            ep_body_move(&b, &a, n, &f.slabs);
            middle += n;
            break;
        default:
            n = ep_rng_below(&rng, b.bytes + 1);
            ep_body_drop(&b, n);
            from += n;
        }
        assert_int_equal(a.bytes, to - middle);
        assert_int_equal(b.bytes, middle - from);
        if (step % 16 == 0) {
            assert_body(&f, &a, model + middle, to - middle);
            assert_body(&f, &b, model + from, middle - from);
            ep_arena_fini(&f.arena);
        }
    }
    ep_body_fini(&a);
    ep_body_fini(&b);
    free(model);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slabs_are_counted_and_used_again),
        cmocka_unit_test(push_takes_the_reference_over),
        cmocka_unit_test(move_splits_a_slice),
        cmocka_unit_test(single_bytes_do_not_pin_a_slab_each),
        cmocka_unit_test(agrees_with_a_plain_string),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
