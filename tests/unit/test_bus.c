/* link: ep_filters */
/* The agent bus's message: every hash that it names is told, in each place, and what can't be followed is malformed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "agent/bus_hash.h"

struct told {
    char text[256];
    unsigned n, stop_at;
};

static bool note(void *user, struct ep_str given)
{
    struct told *t = user;
    size_t used = strlen(t->text);

    assert_true(used + given.n + 2 < sizeof t->text);
    memcpy(t->text + used, given.p, given.n);
    memcpy(t->text + used + given.n, " ", 2);
    return ++t->n != t->stop_at;
}

static void test_json(void **state)
{
    static const struct {
        const char *text;
        enum ep_bus_result result;
        const char *told, *impact;
    } rows[] = {
        {"{}", EP_BUS_OK, "", ""},
        {"[ ]", EP_BUS_OK, "", ""},
        {"{\"constitutional_hash\":\"a\",\"impact_score\":0.8}", EP_BUS_OK, "a ", "0.8"},
        {"{\"impact_score\":\"0.8\",\"x\":[{\"constitutional_hash\":\"no\"}]}", EP_BUS_OK, "", ""},
        {" {\"CONSTITUTIONAL_HASH\" : \"\\u0061\\n\" }", EP_BUS_OK, "a\n ", ""},
        {"{\"constitutional\\u005fhash\":\"a\"}", EP_BUS_OK, "a ", ""},
        {"{\"routing\":{\"a\":{},\"constitutional_hash\":\"b\"},\"constitutional_hash\":\"c\"}", EP_BUS_OK, "b c ", ""},
        {"{\"routing\":{\"routing\":{\"constitutional_hash\":\"deep\"}}}", EP_BUS_OK, "", ""},
        {"{\"constitutional_hash\":null}", EP_BUS_OK, "", ""},
        {"{\"constitutional_hash\":{\"a\":1}}", EP_BUS_OK, "{\"a\":1} ", ""},
        {"[{\"constitutional_hash\":\"a\"},7,{\"constitutional_hash\":\"b\",\"impact_score\":1}]", EP_BUS_OK, "a b ", ""},
        {"{\"constitutional_hash\":\"a\"", EP_BUS_MALFORMED, "a ", ""},
        {"{\"x\":1,,\"constitutional_hash\":\"a\"}", EP_BUS_MALFORMED, "", ""},
        {"7", EP_BUS_MALFORMED, "", ""},
        {"", EP_BUS_MALFORMED, "", ""},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct told t = {.n = 0};
        struct ep_str impact = {NULL, 0};
        if (ep_bus_json(ep_str(rows[i].text), note, &t, &impact) != rows[i].result)
            fail_msg("row %zu", i);
        assert_string_equal(t.text, rows[i].told);
        assert_true(ep_str_eq(impact, ep_str(rows[i].impact)));
    }
    struct told once = {.stop_at = 1};
    struct ep_str impact = {NULL, 0};
    assert_int_equal(ep_bus_json(EP_STR("[{\"constitutional_hash\":\"a\"},{\"constitutional_hash\":\"b\"}]"), note, &once,
                                 &impact),
                     EP_BUS_STOPPED);
    assert_string_equal(once.text, "a ");
}

static void test_proto(void **state)
{
    static const struct {
        struct ep_str text;
        enum ep_bus_result result;
        const char *told;
    } rows[] = {
        {EP_STR_INIT(""), EP_BUS_OK, ""},
        {EP_STR_INIT("\x7a\x01"
                     "a"),
         EP_BUS_OK, "a "},
        {EP_STR_INIT("\x7a\x00"), EP_BUS_OK, ""}, /* an empty string is absence */
        {EP_STR_INIT("\x0a\x02id\x68\x02\x4a\x03\x42\x01"
                     "b\x7a\x01"
                     "c\x7a\x01"
                     "d"),
         EP_BUS_OK, "b c d "},
        {EP_STR_INIT("\xc1\x01"
                     "12345678\x7a\x01"
                     "a"),
         EP_BUS_OK, "a "}, /* a double in front */
        {EP_STR_INIT("\x78\x01"), EP_BUS_MALFORMED, ""},         /* the field as a number */
        {EP_STR_INIT("\x7a\x02"
                     "a"),
         EP_BUS_MALFORMED, ""},                                  /* longer than what is there */
        {EP_STR_INIT("\x7b"), EP_BUS_MALFORMED, ""},             /* a group */
        {EP_STR_INIT("\x02\x00"), EP_BUS_MALFORMED, ""},         /* field 0 */
        {EP_STR_INIT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), EP_BUS_MALFORMED, ""},
        {EP_STR_INIT("\x4a\x02\x42\x05"), EP_BUS_MALFORMED, ""}, /* inside of routing */
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct told t = {.n = 0};
        if (ep_bus_proto(rows[i].text, note, &t) != rows[i].result)
            fail_msg("row %zu", i);
        assert_string_equal(t.text, rows[i].told);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_json), cmocka_unit_test(test_proto)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
