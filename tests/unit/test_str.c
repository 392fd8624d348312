/* Slices: every function, with the empty slice and with bytes above 127 where they could matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/base.h"

static void compares(void **state)
{
    (void)state;
    assert_true(ep_str_eq(ep_str(NULL), EP_STR("")));
    assert_true(ep_str_caseeq(EP_STR("Content-TYPE"), EP_STR("content-type")));
    assert_false(ep_str_caseeq(EP_STR("a@"), EP_STR("a`")));
    assert_false(ep_str_caseeq(EP_STR("\xc3\x84"), EP_STR("\xe3\x84"))); /* ASCII only */
    assert_true(ep_str_equal_ct(EP_STR("cdd01ef066bc6cf2"), EP_STR("cdd01ef066bc6cf2")));
    assert_false(ep_str_equal_ct(EP_STR("cdd01ef066bc6cf2"), EP_STR("cdd01ef066bc6cf3")));
    assert_false(ep_str_equal_ct(EP_STR("a"), EP_STR("")));
    assert_true(ep_str_equal_ct(ep_str(NULL), EP_STR("")));
    assert_true(ep_str_starts(EP_STR("/mcp/x"), EP_STR("/mcp")) && ep_str_starts(EP_STR("x"), ep_str(NULL)));
    assert_false(ep_str_starts(EP_STR("/m"), EP_STR("/mcp")));
    assert_true(ep_str_ends(EP_STR("a.svc"), EP_STR(".svc")) && ep_str_ends(ep_str(NULL), EP_STR("")));
    assert_false(ep_str_ends(EP_STR("svc"), EP_STR(".svc")));
    assert_true(ep_str_casestarts(EP_STR("BEARER x"), EP_STR("bearer ")));
}

static void finds_and_splits(void **state)
{
    struct ep_str rest = EP_STR(" a ,b,, c"), part;
    static const char *const parts[] = {"a", "b", "", "c"};
    size_t n = 0;

    (void)state;
    assert_int_equal(ep_str_find(EP_STR("a.b.c"), '.', 2), 3);
    assert_int_equal(ep_str_find(EP_STR("abc"), '.', 0), -1);
    assert_int_equal(ep_str_find(EP_STR("abc"), 'a', 9), -1);
    assert_int_equal(ep_str_find(ep_str(NULL), 'a', 0), -1);
    assert_int_equal(ep_str_search(EP_STR("hay needle"), EP_STR("needle")), 4);
    assert_int_equal(ep_str_search(EP_STR("hay"), EP_STR("needle")), -1);
    assert_int_equal(ep_str_search(ep_str(NULL), EP_STR("")), 0);
    assert_true(ep_str_eq(ep_str_trim(EP_STR(" \t x y\t ")), EP_STR("x y")));
    assert_int_equal(ep_str_trim(EP_STR(" \t ")).n, 0);
    while (ep_str_next(&rest, ',', &part))
        assert_true(n < EP_COUNT(parts) && ep_str_eq(part, ep_str(parts[n++])));
    assert_int_equal(n, EP_COUNT(parts));
}

static void reads_numbers(void **state)
{
    static const char *const bad[] = {"", "-1", "+1", "1 ", "0x1", "18446744073709551616", "99999999999999999999"};
    uint64_t v = 7;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(bad); i++)
        assert_false(ep_str_u64(ep_str(bad[i]), &v));
    assert_int_equal(v, 7);
    assert_true(ep_str_u64(EP_STR("18446744073709551615"), &v) && v == UINT64_MAX);
    assert_true(ep_str_u64(EP_STR("000"), &v) && v == 0);
}

static void matches_globs(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool matches;
    } rows[] = {
        {"", "", true},
        {"*", "", true},
        {"*", "a/b.c", true},
        {"?", "", false},
        {"a*c", "abc", true},
        {"a*c", "ac", true},
        {"a*c", "acb", false},
        {"a?c", "abc", true},
        {"*.svc", "x.svc", true},
        {"*.svc", "svc", false},
        {"**a**", "bab", true},
        {"a", "A", false},
        {"*ab*ab*", "abab", true},
        {"*ab*ab*", "aba", false},
        {"spiffe://*/ns/*", "spiffe://d/ns/x/sa/y", true},
    };
    char many[200];

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++)
        assert_int_equal(ep_str_glob(ep_str(rows[i].pattern), ep_str(rows[i].text)), rows[i].matches);
    memset(many, 'a', sizeof(many)); /* what makes a backtracking matcher exponential */
    assert_false(ep_str_glob(EP_STR("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"), ep_str_n(many, sizeof(many))));
}

static void knows_utf8(void **state)
{
    static const struct {
        const char *text;
        size_t length;
    } rows[] = {
        {"a", 1},
        {"\xc3\xa4", 2},
        {"\xe2\x82\xac", 3},
        {"\xf0\x9f\x98\x80", 4},
        {"\x80", 0},
        {"\xc0\x80", 0},
        {"\xc1\xbf", 0},
        {"\xe0\x80\x80", 0},
        {"\xed\xa0\x80", 0},
        {"\xed\x9f\xbf", 3},
        {"\xf4\x90\x80\x80", 0},
        {"\xf4\x8f\xbf\xbf", 4},
        {"\xf5\x80\x80\x80", 0},
        {"\xe2\x82", 0},
        {"\xff", 0},
        {"\xf0\x80\x80\x80", 0},
        {"\xc3", 0},
        {"\xe2\x82"
         "a",
         0},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++)
        assert_int_equal(ep_utf8_length(rows[i].text, strlen(rows[i].text)), rows[i].length);
    assert_int_equal(ep_utf8_length("", 0), 0);
}

static void errors_grow_at_the_front(void **state)
{
    struct ep_error err;
    char big[3000];

    (void)state;
    assert_false(ep_error_set(&err, "port %d", 7));
    assert_false(ep_error_prefix(&err, "listener %s", "in"));
    assert_string_equal(err.text, "listener in: port 7");
    assert_false(ep_error_set(NULL, "x") || ep_error_prefix(NULL, "y"));
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    (void)ep_error_set(&err, "%s", big);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    (void)ep_error_prefix(&err, "file");
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_memory_equal(err.text, "file: xxx", 9);
    (void)ep_error_prefix(&err, "%s", big);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compares),      cmocka_unit_test(finds_and_splits), cmocka_unit_test(reads_numbers),
        cmocka_unit_test(matches_globs), cmocka_unit_test(knows_utf8),       cmocka_unit_test(errors_grow_at_the_front),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
