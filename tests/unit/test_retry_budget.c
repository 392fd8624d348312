/* link: ep_upstream */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "upstream/retry_budget.h"

static unsigned take_all(struct ep_retry_budget *b, double share, uint32_t active, uint64_t now)
{
    unsigned n = 0;

    while (n < 1000 && ep_retry_budget_take(b, share, active, now))
        n++;
    return n;
}

static void test_floor(void **state)
{
    struct ep_retry_budget b = {0};

    (void)state;
    assert_int_equal(take_all(&b, 0.2, 0, 5 * EP_S), EP_RETRY_FLOOR);
    assert_int_equal(take_all(&b, 0.2, 0, 5 * EP_S + EP_MS), 0);
    assert_int_equal(take_all(&b, 0.2, 0, 6 * EP_S), EP_RETRY_FLOOR); /* of each second */
    assert_int_equal(take_all(&b, 0.0, 0, 7 * EP_S), EP_RETRY_FLOOR);
}

static void test_share(void **state)
{
    struct ep_retry_budget b = {0};

    (void)state;
    for (int i = 0; i < 1000; i++)
        ep_retry_budget_request(&b, 3 * EP_S);
    assert_int_equal(take_all(&b, 0.2, 0, 3 * EP_S), 200);
    assert_int_equal(take_all(&b, 0.2, 50, 3 * EP_S), 10);             /* those in flight count too */
    assert_int_equal(take_all(&b, 0.2, 50, 4 * EP_S), EP_RETRY_FLOOR); /* the window is used up, the floor is not */
}

static void test_window_slides(void **state)
{
    struct ep_retry_budget b = {0};
    uint64_t t;

    (void)state;
    for (t = 100; t < 110; t++)
        for (int i = 0; i < 100; i++)
            ep_retry_budget_request(&b, t * EP_S);
    assert_int_equal(b.sum_requests, 1000);
    ep_retry_budget_request(&b, 110 * EP_S); /* the slot of second 100 is gone */
    assert_int_equal(b.sum_requests, 901);
    ep_retry_budget_request(&b, 114 * EP_S + 999 * EP_MS);
    assert_int_equal(b.sum_requests, 502);
    ep_retry_budget_request(&b, 3600 * EP_S); /* a long sleep: everything is */
    assert_int_equal(b.sum_requests, 1);
    assert_int_equal(b.sum_retries, 0);
    ep_retry_budget_request(&b, 3599 * EP_S); /* a reading from before does no harm */
    assert_int_equal(b.sum_requests, 2);
    ep_retry_budget_request(&b, 4000 * EP_S);
    assert_int_equal(b.sum_requests, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floor),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_window_slides),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
