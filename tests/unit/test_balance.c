/* link: ep_upstream */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "upstream/balance.h"

#define MAX 32

struct set {
    struct ep_load loads[MAX];
    struct ep_load *v[MAX];
    struct ep_rng rng;
};

static void set_init(struct set *s)
{
    memset(s, 0, sizeof *s);
    for (size_t i = 0; i < MAX; i++)
        s->v[i] = &s->loads[i];
    ep_rng_seed(&s->rng, 42);
}

static size_t index_of(const struct set *s, const struct ep_load *l)
{
    return (size_t)(l - s->loads);
}

static void test_empty_and_single(void **state)
{
    struct set s;

    (void)state;
    set_init(&s);
    for (int how = EP_BALANCE_ROUND_ROBIN; how <= EP_BALANCE_RANDOM; how++) {
        struct ep_balancer b = {.how = how};
        assert_null(ep_balance_pick(&b, s.v, 0, NULL, &s.rng, 0));
        assert_ptr_equal(ep_balance_pick(&b, s.v, 1, NULL, &s.rng, 0), s.v[0]);
        /* the one to avoid is taken when there is no other */
        assert_ptr_equal(ep_balance_pick(&b, s.v, 1, s.v[0], &s.rng, 0), s.v[0]);
    }
}

static void test_avoided_is_never_taken(void **state)
{
    struct set s;

    (void)state;
    set_init(&s);
    for (int how = EP_BALANCE_ROUND_ROBIN; how <= EP_BALANCE_RANDOM; how++) {
        struct ep_balancer b = {.how = how};
        for (size_t n = 2; n <= MAX; n += 7)
            for (int i = 0; i < 200; i++) {
                struct ep_load *l = ep_balance_pick(&b, s.v, n, s.v[1], &s.rng, 0);
                assert_ptr_not_equal(l, s.v[1]);
                assert_true(index_of(&s, l) < n);
            }
    }
}

static void test_round_robin(void **state)
{
    struct ep_balancer b = {.how = EP_BALANCE_ROUND_ROBIN, .next = UINT32_MAX - 1};
    struct set s;
    size_t counts[4] = {0};

    (void)state;
    set_init(&s);
    for (int i = 0; i < 400; i++)
        counts[index_of(&s, ep_balance_pick(&b, s.v, 4, NULL, &s.rng, 0))]++;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(counts[i], 100);
}

static void test_every_one_is_reached(void **state)
{
    struct set s;

    (void)state;
    for (int how = EP_BALANCE_ROUND_ROBIN; how <= EP_BALANCE_RANDOM; how++) {
        struct ep_balancer b = {.how = how};
        size_t counts[5] = {0};
        set_init(&s);
        for (int i = 0; i < 5000; i++)
            counts[index_of(&s, ep_balance_pick(&b, s.v, 5, NULL, &s.rng, 0))]++;
        for (size_t i = 0; i < 5; i++)
            assert_in_range(counts[i], 800, 1200);
    }
}

static void test_least_request(void **state)
{
    struct ep_balancer b = {.how = EP_BALANCE_LEAST_REQUEST};
    struct set s;
    size_t busiest = 0;

    (void)state;
    set_init(&s);
    for (size_t i = 0; i < 8; i++)
        s.loads[i].active = (uint32_t)(10 + i);
    s.loads[5].active = 2;
    assert_int_equal(index_of(&s, ep_balance_pick(&b, s.v, 8, NULL, &s.rng, 0)), 5);
    assert_int_equal(index_of(&s, ep_balance_pick(&b, s.v, 8, s.v[5], &s.rng, 0)), 0);
    for (size_t i = 0; i < MAX; i++) /* many: two by chance; the busiest loses against every other */
        s.loads[i].active = i == 7 ? 100 : 1;
    for (int i = 0; i < 2000; i++)
        busiest += index_of(&s, ep_balance_pick(&b, s.v, MAX, NULL, &s.rng, 0)) == 7;
    assert_int_equal(busiest, 0);
}

static void test_peak_is_believed_at_once(void **state)
{
    struct ep_load l = {0};

    (void)state;
    assert_true(ep_load_cost(&l, 0) == 0); /* unmeasured and idle: worth a try */
    l.active = 1;
    assert_true(ep_load_cost(&l, 0) >= EP_LOAD_UNKNOWN_NS);
    l.active = 0;
    ep_load_observe(&l, 10 * EP_MS, EP_S);
    ep_load_observe(&l, 500 * EP_MS, EP_S);
    assert_true(l.cost_ns == 500.0 * EP_MS);
    ep_load_observe(&l, 10 * EP_MS, EP_S);
    assert_true(l.cost_ns > 400.0 * EP_MS); /* forgotten slowly … */
    for (int i = 0; i < 400; i++)
        ep_load_observe(&l, 10 * EP_MS, EP_S);
    assert_true(l.cost_ns < 11.0 * EP_MS); /* … but by many answers even within one instant */
    ep_load_observe(&l, 500 * EP_MS, EP_S);
    assert_true(ep_load_cost(&l, EP_S + EP_LOAD_TAU_NS) < 251.0 * EP_MS); /* and by time alone */
    l.active = 3;
    assert_true(ep_load_cost(&l, EP_S) == 4 * 500.0 * EP_MS);
    assert_true(ep_load_cost(&l, 0) == 4 * 500.0 * EP_MS); /* an older clock reading does no harm */
}

static void test_fast_failure_is_no_speed(void **state)
{
    struct ep_balancer b = {.how = EP_BALANCE_P2C_EWMA};
    struct set s;

    (void)state;
    set_init(&s);
    ep_load_observe(&s.loads[0], 20 * EP_MS, EP_S);
    ep_load_observe_failure(&s.loads[1], 10 * EP_US, EP_S);
    for (int i = 0; i < 100; i++)
        assert_int_equal(index_of(&s, ep_balance_pick(&b, s.v, 2, NULL, &s.rng, EP_S)), 0);
}

/* One endpoint of eight is ten times slower: it must get much less than its eighth. */
static void test_slow_endpoint_is_avoided(void **state)
{
    struct ep_balancer b = {.how = EP_BALANCE_P2C_EWMA};
    struct set s;
    uint64_t now = EP_S;
    size_t slow = 0;

    (void)state;
    set_init(&s);
    for (int i = 0; i < 8000; i++) {
        struct ep_load *l = ep_balance_pick(&b, s.v, 8, NULL, &s.rng, now);
        now += 100 * EP_US;
        ep_load_observe(l, l == s.v[3] ? 100 * EP_MS : 10 * EP_MS, now);
        slow += l == s.v[3];
    }
    assert_true(slow < 8000 / 8 / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_and_single),
        cmocka_unit_test(test_avoided_is_never_taken),
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_every_one_is_reached),
        cmocka_unit_test(test_least_request),
        cmocka_unit_test(test_peak_is_believed_at_once),
        cmocka_unit_test(test_fast_failure_is_no_speed),
        cmocka_unit_test(test_slow_endpoint_is_avoided),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
