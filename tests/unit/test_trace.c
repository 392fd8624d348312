/* link: ep_filter */
/* W3C Trace Context by its own examples and its test suite, and the URL of a collector. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "filter/trace.h"

#define TRACE  "4bf92f3577b34da6a3ce929d0e0e4736"
#define PARENT "00f067aa0ba902b7"

/* https://www.w3.org/TR/trace-context/ sections 3.2.2 and 3.2.4, and what its own test suite tries. */
static void test_traceparent(void **state)
{
    static const struct {
        const char *value;
        int flags; /* -1: it starts a new trace */
    } rows[] = {
        {"00-" TRACE "-" PARENT "-01", 1},
        {"00-" TRACE "-" PARENT "-00", 0},
        {"00-" TRACE "-" PARENT "-ff", 255},
        {"00-" TRACE "-" PARENT "-01-", -1}, /* version 00 has nothing behind */
        {"00-" TRACE "-" PARENT "-01.", -1},
        {"00-" TRACE "-" PARENT "-01-what", -1},
        {"cc-" TRACE "-" PARENT "-01", 1}, /* later versions may */
        {"cc-" TRACE "-" PARENT "-01-what-the-future-holds", 1},
        {"cc-" TRACE "-" PARENT "-01.what", -1},
        {"01-" TRACE "-" PARENT "-01what", -1},
        {"ff-" TRACE "-" PARENT "-01", -1},
        {".0-" TRACE "-" PARENT "-01", -1},
        {"0--" TRACE "-" PARENT "-01", -1},
        {"0-" TRACE "-" PARENT "-01", -1},
        {"CC-" TRACE "-" PARENT "-01", -1},
        {"00-4BF92F3577b34da6a3ce929d0e0e4736-" PARENT "-01", -1},
        {"00-.bf92f3577b34da6a3ce929d0e0e4736-" PARENT "-01", -1},
        {"00-4bf92f3577b34da6a3ce929d0e0e473-" PARENT "-01", -1},
        {"00-00000000000000000000000000000000-" PARENT "-01", -1},
        {"00-" TRACE "-0000000000000000-01", -1},
        {"00-" TRACE "-00F067aa0ba902b7-01", -1},
        {"00-" TRACE "-00f067aa0ba902b-01", -1},
        {"00-" TRACE "-" PARENT "-0", -1},
        {"00-" TRACE "-" PARENT "-.0", -1},
        {"00-" TRACE "-" PARENT "-0F", -1},
        {"00-" TRACE "-" PARENT "-", -1},
        {"00-" TRACE "-" PARENT, -1},
        {"00_" TRACE "-" PARENT "-01", -1},
        {"00-" TRACE "_" PARENT "-01", -1},
        {"00-" TRACE "-" PARENT "_01", -1},
        {"", -1},
        {"nonsense", -1},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_traceparent t;
        bool good = ep_traceparent_parse(ep_str(rows[i].value), &t);
        if (good != (rows[i].flags >= 0))
            fail_msg("%s", rows[i].value);
        if (!good)
            continue;
        assert_true(ep_str_eq(t.trace_id, EP_STR(TRACE)) && ep_str_eq(t.parent_id, EP_STR(PARENT)));
        assert_int_equal(t.flags, rows[i].flags);
    }
}

static void test_collector(void **state)
{
    static const struct {
        const char *url, *host, *authority, *path;
        unsigned port;
        bool https;
    } rows[] = {
        {"http://otel-collector:4318", "otel-collector", "otel-collector:4318", "", 4318, false},
        {"http://otel-collector:4318/", "otel-collector", "otel-collector:4318", "", 4318, false},
        {"HTTPS://api.example.com/otlp/", "api.example.com", "api.example.com", "/otlp", 443, true},
        {"http://10.0.0.1", "10.0.0.1", "10.0.0.1", "", 80, false},
        {"http://[::1]:4318/a/b", "::1", "[::1]:4318", "/a/b", 4318, false},
        {"https://[2001:db8::1]", "2001:db8::1", "[2001:db8::1]", "", 443, true},
        {"otel-collector:4318", NULL, NULL, NULL, 0, false},
        {"grpc://otel-collector:4317", NULL, NULL, NULL, 0, false},
        {"http://", NULL, NULL, NULL, 0, false},
        {"http://:4318", NULL, NULL, NULL, 0, false},
        {"http://host:0", NULL, NULL, NULL, 0, false},
        {"http://host:65536", NULL, NULL, NULL, 0, false},
        {"http://host:http", NULL, NULL, NULL, 0, false},
        {"http://me:secret@host:4318", NULL, NULL, NULL, 0, false},
        {"http://host/?key=1", NULL, NULL, NULL, 0, false},
        {"http://host/#x", NULL, NULL, NULL, 0, false},
        {"http://ho st", NULL, NULL, NULL, 0, false},
        {"http://ho\\st", NULL, NULL, NULL, 0, false},
        {"", NULL, NULL, NULL, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_collector c;
        if (ep_collector_parse(ep_str(rows[i].url), &c) != (rows[i].host != NULL))
            fail_msg("%s", rows[i].url);
        if (!rows[i].host)
            continue;
        assert_true(ep_str_eq(c.host, ep_str(rows[i].host)) && ep_str_eq(c.authority, ep_str(rows[i].authority)));
        assert_true(ep_str_eq(c.path, ep_str(rows[i].path)) && c.port == rows[i].port && c.https == rows[i].https);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traceparent),
        cmocka_unit_test(test_collector),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
