/* link: ep_upstream */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "upstream/outlier.h"

static const struct ep_outlier_rules rules = {.consecutive = 3, .ejection_ns = 30 * EP_S, .max_ejected = 0.5};

static void test_only_in_a_row(void **state)
{
    struct ep_outlier o = {0};

    (void)state;
    for (int i = 0; i < 10; i++) {
        assert_false(ep_outlier_record(&o, &rules, true));
        assert_false(ep_outlier_record(&o, &rules, true));
        assert_false(ep_outlier_record(&o, &rules, false));
    }
    assert_false(ep_outlier_record(&o, &rules, true));
    assert_false(ep_outlier_record(&o, &rules, true));
    assert_true(ep_outlier_record(&o, &rules, true));
    assert_true(ep_outlier_record(&o, &rules, true)); /* and again while the caller finds no room */
}

static void test_off(void **state)
{
    struct ep_outlier_rules off = rules;
    struct ep_outlier o = {0};

    (void)state;
    off.consecutive = 0;
    for (int i = 0; i < 100; i++)
        assert_false(ep_outlier_record(&o, &off, true));
}

static uint64_t eject(struct ep_outlier *o, uint64_t now)
{
    ep_outlier_eject(o, &rules, now);
    return o->until_ns - now;
}

static void test_times_grow_and_shrink(void **state)
{
    struct ep_outlier o = {0};
    uint64_t now = 100 * EP_S;

    (void)state;
    assert_int_equal(eject(&o, now), 30 * EP_S);
    assert_false(ep_outlier_record(&o, &rules, true)); /* late answers of an ejected one change nothing */
    assert_false(ep_outlier_expire(&o, now + 30 * EP_S - 1));
    assert_true(ep_outlier_expire(&o, now + 30 * EP_S));
    assert_false(ep_outlier_expire(&o, now + 30 * EP_S));
    assert_int_equal(o.streak, 0);
    now = o.until_ns + EP_S; /* again at once: longer */
    assert_int_equal(eject(&o, now), 60 * EP_S);
    assert_true(ep_outlier_expire(&o, o.until_ns));
    now = o.until_ns + 30 * EP_S; /* one base time of calm takes one off */
    assert_int_equal(eject(&o, now), 60 * EP_S);
    assert_true(ep_outlier_expire(&o, o.until_ns));
    now = o.until_ns + 3600 * EP_S;
    assert_int_equal(eject(&o, now), 30 * EP_S);
    for (int i = 0; i < 50; i++) {
        assert_true(ep_outlier_expire(&o, o.until_ns));
        eject(&o, o.until_ns);
    }
    assert_int_equal(o.times, EP_OUTLIER_MAX_TIMES);
    assert_int_equal(o.ejections, 54);
}

static void test_room(void **state)
{
    static const struct {
        double share;
        size_t ejected, total;
        bool room;
    } table[] = {
        {0.5, 0, 1, false}, {0.5, 0, 2, true},  {0.5, 1, 2, false},  {0.5, 1, 3, false}, {0.5, 1, 4, true},
        {1.0, 0, 1, true},  {1.0, 1, 1, false}, {0.0, 0, 10, false}, {0.1, 0, 10, true}, {0.1, 1, 10, false},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(table); i++) {
        struct ep_outlier_rules r = rules;
        r.max_ejected = table[i].share;
        assert_int_equal(ep_outlier_room(&r, table[i].ejected, table[i].total), table[i].room);
    }
}

static void test_panic(void **state)
{
    (void)state;
    assert_false(ep_outlier_panic(2, 4, 0.5));
    assert_true(ep_outlier_panic(1, 4, 0.5));
    assert_true(ep_outlier_panic(0, 1, 0.5));
    assert_false(ep_outlier_panic(0, 1, 0)); /* 0: never */
    assert_false(ep_outlier_panic(0, 0, 0.5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_in_a_row),
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_times_grow_and_shrink),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_panic),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
