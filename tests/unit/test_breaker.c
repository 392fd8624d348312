/* link: ep_upstream */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "upstream/breaker.h"

static void test_takes_up_to_the_limit(void **state)
{
    struct ep_breaker b;

    (void)state;
    ep_breaker_init(&b, (const int64_t[]){2, 1, 3}, 0);
    assert_true(ep_breaker_take(&b, EP_BREAKER_CONNECTIONS));
    assert_true(ep_breaker_take(&b, EP_BREAKER_CONNECTIONS));
    assert_false(ep_breaker_take(&b, EP_BREAKER_CONNECTIONS));
    assert_int_equal(b.overflows[EP_BREAKER_CONNECTIONS], 1);
    assert_int_equal(b.now[EP_BREAKER_CONNECTIONS], 2);
    ep_breaker_give(&b, EP_BREAKER_CONNECTIONS);
    assert_true(ep_breaker_take(&b, EP_BREAKER_CONNECTIONS));
    /* the limits know nothing of each other */
    assert_true(ep_breaker_take(&b, EP_BREAKER_PENDING));
    assert_false(ep_breaker_take(&b, EP_BREAKER_PENDING));
    assert_true(ep_breaker_take(&b, EP_BREAKER_REQUESTS));
}

static void test_share_of_workers(void **state)
{
    static const struct {
        int64_t total;
        unsigned workers;
        uint32_t share;
    } table[] = {
        {1024, 0, 1024}, {1024, 1, 1024}, {1024, 2, 512}, {1024, 3, 342},
        {1, 8, 1},       {0, 4, 0},       {-5, 2, 0},     {INT64_MAX, 1, UINT32_MAX},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(table); i++) {
        struct ep_breaker b;
        ep_breaker_init(&b, (const int64_t[]){table[i].total, 1, 1}, table[i].workers);
        assert_int_equal(b.limit[0], table[i].share);
    }
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(ep_breaker_limit_name(EP_BREAKER_CONNECTIONS), "connections");
    assert_string_equal(ep_breaker_limit_name(EP_BREAKER_PENDING), "pending");
    assert_string_equal(ep_breaker_limit_name(EP_BREAKER_REQUESTS), "requests");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_takes_up_to_the_limit),
        cmocka_unit_test(test_share_of_workers),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
