/* Values as people write them, there and back; and what must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/base.h"

static void durations(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns;
        const char *back;
    } rows[] = {
        {"0", 0, "0s"},
        {"250us", 250000, "250us"},
        {"5ms", 5000000, "5ms"},
        {"30s", 30 * EP_S, "30s"},
        {"2m", 120 * EP_S, "2m"},
        {"1h", 3600 * EP_S, "1h"},
        {"7d", 604800 * EP_S, "7d"},
        {"90s", 90 * EP_S, "90s"},
        {"1.5s", 1500000000, "1500ms"},
        {"0.25ms", 250000, "250us"},
        {"24h", 86400 * EP_S, "1d"},
        {"1ns", 1, "1ns"},
        {"1.500s", 1500000000, "1500ms"},
        {"365d", 365 * 86400 * EP_S, "365d"},
    };
    static const char *const bad[] = {"",     "5",     "ms",           "-5s", "5 s",     "1.5ns",
                                      ".5s",  "1.s",   "1..5s",        "5S",  "213504d", "99999999999999999999s",
                                      "1e3s", "1h30m", "0.0000000001s"};
    uint64_t v, w;
    char text[32];

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        assert_true(ep_parse_duration(ep_str(rows[i].text), &v));
        assert_int_equal(v, rows[i].ns);
        assert_int_equal(ep_format_duration(v, text), strlen(rows[i].back));
        assert_string_equal(text, rows[i].back);
        assert_true(ep_parse_duration(ep_str(text), &w) && v == w);
    }
    for (size_t i = 0; i < EP_COUNT(bad); i++)
        assert_false(ep_parse_duration(ep_str(bad[i]), &v));
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
        const char *back;
    } rows[] = {
        {"0", 0, "0B"},          {"100", 100, "100B"},      {"64KiB", 65536, "64KiB"},
        {"1MB", 1000000, "1MB"}, {"1.5KiB", 1536, "1536B"}, {"2GiB", 2147483648, "2GiB"},
        {"10B", 10, "10B"},      {"3KB", 3000, "3KB"},
    };
    static const char *const bad[] = {"", "KiB", "1kb", "1Mi", "0.1B", "17179869184GiB", "1 MB", "-1"};
    uint64_t v;
    char text[32];

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        assert_true(ep_parse_size(ep_str(rows[i].text), &v));
        assert_int_equal(v, rows[i].bytes);
        (void)ep_format_size(v, text);
        assert_string_equal(text, rows[i].back);
    }
    for (size_t i = 0; i < EP_COUNT(bad); i++)
        assert_false(ep_parse_size(ep_str(bad[i]), &v));
}

static void percents(void **state)
{
    static const char *const bad[] = {"", "%", "-1%", "101%", "1%%", "x", "100.1"};
    double v;

    (void)state;
    assert_true(ep_parse_percent(EP_STR("20%"), &v));
    assert_true(v > 0.1999 && v < 0.2001);
    assert_true(ep_parse_percent(EP_STR("0.5"), &v));
    assert_true(v > 0.00499 && v < 0.00501);
    assert_true(ep_parse_percent(EP_STR("100%"), &v));
    for (size_t i = 0; i < EP_COUNT(bad); i++)
        assert_false(ep_parse_percent(ep_str(bad[i]), &v));
}

static void addresses(void **state)
{
    static const struct {
        const char *text, *back;
        int family;
        uint16_t port;
    } rows[] = {
        {"127.0.0.1:80", "127.0.0.1:80", AF_INET, 80},      {"[::1]:8443", "[::1]:8443", AF_INET6, 8443},
        {":15006", "[::]:15006", AF_INET6, 15006},          {"unix:/run/e.sock", "unix:/run/e.sock", AF_UNIX, 0},
        {"unix:@abstract", "unix:@abstract", AF_UNIX, 0},   {"0.0.0.0:0", "0.0.0.0:0", AF_INET, 0},
        {"[::ffff:10.0.0.1]:9", "10.0.0.1:9", AF_INET6, 9},
    };
    static const char *const bad[] = {"",
                                      "80",
                                      "127.0.0.1",
                                      "127.0.0.1:",
                                      "127.0.0.1:65536",
                                      "::1:80",
                                      "[127.0.0.1]:1",
                                      "localhost:80",
                                      "[::1]",
                                      "[]:1",
                                      "unix:",
                                      "unix:@",
                                      "1.2.3:4",
                                      "127.0.0.1:+1",
                                      "127.0.0.1:00080x",
                                      "[::1%lo]:1"};
    struct ep_addr a, b;
    char text[128], path[200];

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        assert_true(ep_addr_parse(ep_str(rows[i].text), &a));
        assert_int_equal(a.u.sa.sa_family, rows[i].family);
        assert_int_equal(ep_addr_port(&a), rows[i].port);
        assert_int_equal(ep_addr_format(&a, text), strlen(rows[i].back));
        assert_string_equal(text, rows[i].back);
        assert_true(ep_addr_parse(ep_str(text), &b) && ep_addr_equal(&a, &b));
    }
    for (size_t i = 0; i < EP_COUNT(bad); i++)
        assert_false(ep_addr_parse(ep_str(bad[i]), &a));
    memset(path, 'a', sizeof(path));
    memcpy(path, "unix:/", 6);
    assert_false(ep_addr_parse(ep_str_n(path, 6 + 107), &a));
    assert_true(ep_addr_parse(ep_str_n(path, 6 + 106), &a));
    assert_int_equal(ep_addr_format(&a, text), 6 + 106);
    a.len = 0;
    assert_int_equal(ep_addr_format(&a, text), 0);
    assert_string_equal(text, "");
    assert_true(ep_addr_parse(EP_STR("1.2.3.4:5"), &a));
    ep_addr_set_port(&a, 6);
    assert_int_equal(ep_addr_port(&a), 6);
    assert_true(ep_addr_parse(EP_STR("1.2.3.4:5"), &b) && !ep_addr_equal(&a, &b));
}

static void cidrs(void **state)
{
    static const struct {
        const char *cidr, *address;
        bool inside;
    } rows[] = {
        {"10.0.0.0/8", "10.255.1.2:1", true},
        {"10.0.0.0/8", "11.0.0.1:1", false},
        {"10.1.2.3/8", "10.9.9.9:1", true},
        {"0.0.0.0/0", "8.8.8.8:1", true},
        {"0.0.0.0/0", "[::1]:1", false},
        {"::1/128", "[::1]:1", true},
        {"::1", "[::2]:1", false},
        {"fd00::/7", "[fc12::1]:1", true},
        {"10.0.0.4/30", "10.0.0.7:1", true},
        {"10.0.0.4/30", "10.0.0.8:1", false},
        {"10.0.0.0/8", "[::ffff:10.1.1.1]:1", true},
        {"127.0.0.1", "127.0.0.1:99", true},
        {"0.0.0.0/0", "unix:/x", false},
    };
    static const char *const bad[] = {"", "/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "10.0.0.0/-1", "x/8"};
    struct ep_cidr c;
    struct ep_addr a;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        assert_true(ep_cidr_parse(ep_str(rows[i].cidr), &c));
        assert_true(ep_addr_parse(ep_str(rows[i].address), &a));
        assert_int_equal(ep_cidr_contains(&c, &a), rows[i].inside);
    }
    for (size_t i = 0; i < EP_COUNT(bad); i++)
        assert_false(ep_cidr_parse(ep_str(bad[i]), &c));
    c = (struct ep_cidr){0}; /* an absent range holds nothing, an absent address least of all */
    a.len = 0;
    assert_false(ep_cidr_contains(&c, &a));
}

static void nearest_names(void **state)
{
    static const char *const names[] = {"listeners", "clusters", "timeout", "retry", "tls"};

    (void)state;
    assert_string_equal(ep_nearest(EP_STR("listner"), names, EP_COUNT(names)), "listeners");
    assert_string_equal(ep_nearest(EP_STR("cluster"), names, EP_COUNT(names)), "clusters");
    assert_string_equal(ep_nearest(EP_STR("tiemout"), names, EP_COUNT(names)), "timeout");
    assert_string_equal(ep_nearest(EP_STR("TLS"), names, EP_COUNT(names)), "tls");
    assert_null(ep_nearest(EP_STR("banana"), names, EP_COUNT(names)));
    assert_null(ep_nearest(EP_STR(""), names, EP_COUNT(names)));
    assert_null(ep_nearest(EP_STR("x"), names, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations), cmocka_unit_test(sizes), cmocka_unit_test(percents),
        cmocka_unit_test(addresses), cmocka_unit_test(cidrs), cmocka_unit_test(nearest_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
