/* link: ep_filter */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "filter/pinned.h"
#include "observe/json.h"

#define HOUR (3600 * EP_S)

static const struct ep_str a = EP_STR_INIT("a.test"), b = EP_STR_INIT("b.test");

static struct ep_addr from(const char *text)
{
    struct ep_addr addr;

    assert_true(ep_addr_parse(ep_str(text), &addr));
    return addr;
}

static void test_an_alert_is_sure_for_its_time_host_and_source(void **state)
{
    struct ep_pinned *p = ep_pinned_new();
    struct ep_addr one = from("10.0.0.1:4000"), again = from("10.0.0.1:5000"), other = from("10.0.0.2:4000");

    (void)state;
    assert_false(ep_pinned_refuses(p, a, &one, HOUR, EP_S));
    assert_true(ep_pinned_note(p, a, &one, EP_PINNED_ALERT, EP_S));
    assert_true(ep_pinned_refuses(p, a, &again, HOUR, 2 * EP_S));
    assert_false(ep_pinned_refuses(p, a, &other, HOUR, 2 * EP_S));
    assert_false(ep_pinned_refuses(p, b, &one, HOUR, 2 * EP_S));
    assert_true(ep_pinned_refuses(p, a, &one, HOUR, HOUR + EP_S - 1));
    assert_false(ep_pinned_refuses(p, a, &one, HOUR, HOUR + EP_S));
    ep_pinned_free(p);
}

static void test_closes_count_in_a_row_only(void **state)
{
    struct ep_pinned *p = ep_pinned_new();
    struct ep_addr one = from("[2001:db8::1]:4000");

    (void)state;
    for (int round = 0; round < 5; round++) {
        for (unsigned i = 1; i < EP_PINNED_CLOSES; i++)
            assert_false(ep_pinned_note(p, a, &one, EP_PINNED_CLOSED, EP_S));
        ep_pinned_good(p, a, &one);
    }
    assert_false(ep_pinned_refuses(p, a, &one, HOUR, EP_S));
    for (unsigned i = 1; i < EP_PINNED_CLOSES; i++)
        assert_false(ep_pinned_note(p, a, &one, EP_PINNED_CLOSED, EP_S));
    assert_true(ep_pinned_note(p, a, &one, EP_PINNED_CLOSED, EP_S));
    assert_true(ep_pinned_refuses(p, a, &one, HOUR, EP_S));
    ep_pinned_free(p);
}

static void test_a_line_in_the_log_an_hour_and_host(void **state)
{
    struct ep_pinned *p = ep_pinned_new();
    struct ep_addr one = from("10.0.0.1:1"), two = from("10.0.0.2:1");

    (void)state;
    assert_true(ep_pinned_note(p, a, &one, EP_PINNED_ALERT, EP_S));
    assert_false(ep_pinned_note(p, a, &two, EP_PINNED_ALERT, 2 * EP_S));
    assert_true(ep_pinned_note(p, b, &two, EP_PINNED_ALERT, 2 * EP_S));
    assert_true(ep_pinned_note(p, a, &two, EP_PINNED_ALERT, HOUR + EP_S));
    assert_false(ep_pinned_note(p, a, &one, EP_PINNED_ALERT, HOUR + 2 * EP_S));
    ep_pinned_free(p);
}

static void test_the_oldest_leaves_when_it_is_full(void **state)
{
    struct ep_pinned *p = ep_pinned_new();
    struct ep_json j;
    size_t rows = 0;

    (void)state;
    for (unsigned i = 0; i <= EP_PINNED_MAX; i++) {
        char text[32];
        struct ep_addr source;
        snprintf(text, sizeof text, "10.1.%u.%u:1", i >> 8, i & 255u);
        source = from(text);
        ep_pinned_note(p, a, &source, EP_PINNED_ALERT, i * EP_S);
    }
    struct ep_addr first = from("10.1.0.0:9"), second = from("10.1.0.1:9"), last = from("10.1.1.0:9");
    assert_false(ep_pinned_refuses(p, a, &first, HOUR, 300 * EP_S));
    assert_true(ep_pinned_refuses(p, a, &second, HOUR, 300 * EP_S));
    assert_true(ep_pinned_refuses(p, a, &last, HOUR, 300 * EP_S));
    ep_json_init(&j);
    ep_pinned_json(p, 300 * EP_S, &j);
    struct ep_str text = ep_json_text(&j);
    for (size_t i = 0; i < text.n; i++)
        rows += text.p[i] == '{';
    assert_int_equal(rows, EP_PINNED_MAX);
    assert_true(ep_str_search(text, EP_STR("\"source\":\"10.1.1.0\"")) >= 0);
    ep_json_fini(&j);
    ep_pinned_free(p);
}

static void test_which_alerts_are_about_certificates(void **state)
{
    (void)state;
    for (unsigned alert = 0; alert < 256; alert++)
        assert_int_equal(ep_pinned_alert(alert), alert == 42 || alert == 43 || alert == 44 || alert == 45 || alert == 46 || alert == 48);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_alert_is_sure_for_its_time_host_and_source),
        cmocka_unit_test(test_closes_count_in_a_row_only),
        cmocka_unit_test(test_a_line_in_the_log_an_hour_and_host),
        cmocka_unit_test(test_the_oldest_leaves_when_it_is_full),
        cmocka_unit_test(test_which_alerts_are_about_certificates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
