/* link: ep_observe */
/* The JSON writer: commas, escapes, numbers at their ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <math.h>

#include "observe/json.h"

static void assert_text(const struct ep_json *j, const char *expected)
{
    struct ep_str s = ep_json_text(j);

    assert_int_equal(s.n, strlen(expected));
    assert_memory_equal(s.p, expected, s.n);
}

static void nests_with_commas(void **state)
{
    struct ep_json j;

    (void)state;
    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_key(&j, "a");
    ep_json_array(&j);
    ep_json_uint(&j, 0);
    ep_json_int(&j, -1);
    ep_json_array(&j);
    ep_json_array_end(&j);
    ep_json_object(&j);
    ep_json_object_end(&j);
    ep_json_null(&j);
    ep_json_array_end(&j);
    ep_json_kbool(&j, "b", true);
    ep_json_kbool(&j, "c", false);
    ep_json_key(&j, "d");
    ep_json_z(&j, NULL);
    ep_json_key(&j, "e");
    ep_json_raw(&j, EP_STR("{\"x\":1}"));
    ep_json_kstr(&j, "f", ep_str(NULL));
    ep_json_object_end(&j);
    assert_text(&j, "{\"a\":[0,-1,[],{},null],\"b\":true,\"c\":false,\"d\":null,\"e\":{\"x\":1},\"f\":\"\"}");
    ep_json_reset(&j);
    ep_json_z(&j, "again");
    assert_text(&j, "\"again\"");
    ep_json_fini(&j);
}

static void escapes_what_must_be(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"", "\"\""},
        {"plain/\x7f", "\"plain/\x7f\""},
        {"\"\\", "\"\\\"\\\\\""},
        {"\b\f\n\r\t\x01\x1f", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\""},
        {"\xc3\xa4\xf0\x9f\x98\x80", "\"\xc3\xa4\xf0\x9f\x98\x80\""},
        {"a\xff"
         "b\xc3",
         "\"a\xef\xbf\xbd"
         "b\xef\xbf\xbd\""},
        {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    };
    struct ep_json j;

    (void)state;
    ep_json_init(&j);
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        ep_json_reset(&j);
        ep_json_z(&j, rows[i].in);
        assert_text(&j, rows[i].out);
    }
    ep_json_reset(&j);
    ep_json_str(&j, ep_str_n("a\0b", 3));
    assert_text(&j, "\"a\\u0000b\"");
    ep_json_fini(&j);
}

static void writes_numbers_that_read_back(void **state)
{
    static const struct {
        double v;
        const char *text;
    } rows[] = {{0, "0"},           {0.1, "0.1"}, {-1.5, "-1.5"}, {1e300, "1e+300"}, {1.0 / 3, "0.33333333333333331"},
                {INFINITY, "null"}, {NAN, "null"}};
    struct ep_json j;

    (void)state;
    ep_json_init(&j);
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        ep_json_reset(&j);
        ep_json_double(&j, rows[i].v);
        assert_text(&j, rows[i].text);
    }
    ep_json_reset(&j);
    ep_json_array(&j);
    ep_json_uint(&j, UINT64_MAX);
    ep_json_int(&j, INT64_MIN);
    ep_json_array_end(&j);
    assert_text(&j, "[18446744073709551615,-9223372036854775808]");
    ep_json_fini(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nests_with_commas),
        cmocka_unit_test(escapes_what_must_be),
        cmocka_unit_test(writes_numbers_that_read_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
