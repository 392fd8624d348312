/* link: ep_filters */
/* The agent bus's message: every hash that it names is told, in each place, and what can't be followed is malformed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "agent/bus.h"

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
        bool unnamed;
    } rows[] = {
        {"{}", EP_BUS_OK, "", "", false},
        {"[ ]", EP_BUS_OK, "", "", false},
        {"{\"constitutional_hash\":\"a\",\"impact_score\":0.8}", EP_BUS_OK, "a ", "0.8", false},
        {"{\"impact_score\":\"0.8\",\"x\":[{\"constitutional_hash\":\"no\"}]}", EP_BUS_OK, "", "", false},
        {" {\"CONSTITUTIONAL_HASH\" : \"\\u0061\\n\" }", EP_BUS_OK, "a\n ", "", false},
        {"{\"constitutional\\u005fhash\":\"a\"}", EP_BUS_OK, "a ", "", false},
        {"{\"routing\":{\"a\":{},\"constitutional_hash\":\"b\"},\"constitutional_hash\":\"c\"}", EP_BUS_OK, "b c ", "", false},
        {"{\"routing\":{\"routing\":{\"constitutional_hash\":\"deep\"}}}", EP_BUS_OK, "", "", false},
        {"{\"constitutional_hash\":null}", EP_BUS_OK, "", "", false},
        {"{\"constitutional_hash\":{\"a\":1}}", EP_BUS_OK, "{\"a\":1} ", "", false},
        {"[{\"constitutional_hash\":\"a\"},7,{\"constitutional_hash\":\"b\",\"impact_score\":1}]", EP_BUS_OK, "a b ", "", true},
        {"[{\"constitutional_hash\":\"a\"},{\"routing\":{\"constitutional_hash\":\"b\"}}]", EP_BUS_OK, "a b ", "", false},
        {"[{\"constitutional_hash\":\"a\"},{\"constitutional_hash\":null}]", EP_BUS_OK, "a ", "", true},
        {"{\"constitutional_hash\":\"a\"", EP_BUS_MALFORMED, "a ", "", false},
        {"{\"x\":1,,\"constitutional_hash\":\"a\"}", EP_BUS_MALFORMED, "", "", false},
        {"7", EP_BUS_MALFORMED, "", "", false},
        {"", EP_BUS_MALFORMED, "", "", false},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct told t = {.n = 0};
        struct ep_str impact = {NULL, 0};
        bool unnamed;
        if (ep_bus_json(ep_str(rows[i].text), note, &t, &impact, &unnamed) != rows[i].result || unnamed != rows[i].unnamed)
            fail_msg("row %zu", i);
        assert_string_equal(t.text, rows[i].told);
        assert_true(ep_str_eq(impact, ep_str(rows[i].impact)));
    }
    struct told once = {.stop_at = 1};
    struct ep_str impact = {NULL, 0};
    bool unnamed;
    assert_int_equal(ep_bus_json(EP_STR("[{\"constitutional_hash\":\"a\"},{\"constitutional_hash\":\"b\"}]"), note, &once,
                                 &impact, &unnamed),
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

static void test_decode(void **state)
{
    static const char good[] = "\x0a\x02id"                  /* message_id */
                               "\x1a\x04\x0a\x02\xff\xff"    /* content: not looked into */
                               "\x2a\x01" "a" "\x32\x02" "b\0" /* from, to, with a NUL */
                               "\x40\x01\x40\x0b"            /* message_type, twice */
                               "\x4a\x06\x0a\x01s\x12\x01t"  /* routing */
                               "\x5a\x02t1\x68\x03\x7a\x01h" /* tenant, priority, hash */
                               "\xc1\x01\x00\x00\x00\x00\x00\x00\xe8\x3f"; /* 0.75 */
    static const struct ep_str bad[] = {
        EP_STR_INIT("\x08\x01"),                                  /* message_id as a number */
        EP_STR_INIT("\x0a\x01\xff"),                              /* no UTF-8 */
        EP_STR_INIT("\x0a\x03\xed\xa0\x80"),                      /* half of a surrogate pair */
        EP_STR_INIT("\xc1\x01\x00\x00\x00\x00\x00\x00\xf0\x7f"), /* infinite */
        EP_STR_INIT("\xc1\x01\x00\x00\x00\x00\x00\x00\xf8\x7f"), /* not a number */
        EP_STR_INIT("\x4a\x02\x0a\x05"),                          /* inside of routing */
        EP_STR_INIT("\x48\x01"),                                  /* routing as a number */
        EP_STR_INIT("\x0a\x05id"),
    };
    struct ep_bus_message m;

    (void)state;
    assert_true(ep_bus_decode(ep_str_n(good, sizeof good - 1), &m));
    assert_true(ep_str_eq(m.message_id, EP_STR("id")) && ep_str_eq(m.from_agent, EP_STR("a")));
    assert_int_equal(m.to_agent.n, 2);
    assert_true(ep_str_eq(m.source_agent_id, EP_STR("s")) && ep_str_eq(m.target_agent_id, EP_STR("t")));
    assert_true(ep_str_eq(m.tenant_id, EP_STR("t1")) && ep_str_eq(m.constitutional_hash, EP_STR("h")));
    assert_true(m.message_type == 11 && m.priority == 3 && m.has_impact && m.impact_score == 0.75);
    assert_true(ep_bus_decode(EP_STR(""), &m) && !m.has_impact && !m.message_id.n);
    for (size_t i = 0; i < EP_COUNT(bad); i++)
        if (ep_bus_decode(bad[i], &m))
            fail_msg("row %zu", i);
    for (size_t n = 0; n < sizeof good - 1; n++)
        (void)ep_bus_decode(ep_str_n(good, n), &m); /* cut anywhere: no read past the end */
}

/* The bus's own form: 400 for the constitution alone, and never the hash that would have been right. */
static void test_answer(void **state)
{
    static const struct {
        enum ep_refusal_kind kind;
        const char *code, *type;
        unsigned status;
    } rows[] = {
        {EP_REFUSE_POLICY, "constitution.mismatch", "ConstitutionalError", 400},
        {EP_REFUSE_POLICY, "policy.denied", "PolicyViolationError", 403},
        {EP_REFUSE_UNAUTHORIZED, "authorize.denied", "MACIError", 403},
        {EP_REFUSE_LIMIT, "limit.rate", "RateLimitExceeded", 429},
        {EP_REFUSE_TIMEOUT, "upstream.timeout", "MessageTimeoutError", 504},
        {EP_REFUSE_UNAVAILABLE, "upstream.none", "BusUnavailableError", 503},
        {EP_REFUSE_BAD_REQUEST, "agent.duplicate_key", "MessageValidationError", 400},
    };
    struct ep_chunk_pool pool;
    struct ep_arena arena;
    struct ep_answer a;

    (void)state;
    ep_chunk_pool_init(&pool, 4);
    ep_arena_init(&arena, &pool);
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_refusal r = {.kind = rows[i].kind, .policy = EP_STR("p"), .reason = EP_STR("why"), .code = rows[i].code,
                               .grpc_status = -1, .retry_after_s = 7};
        ep_bus_answer(&r, EP_STR("d1"), 1764000000000000000u, &arena, &a);
        struct ep_str want = ep_arena_printf(&arena, "\"error\":\"%s\"", rows[i].type);
        assert_int_equal(a.status, rows[i].status);
        assert_true(ep_str_starts(a.body, EP_STR("{\"is_valid\":false,\"errors\":[\"")));
        assert_true(ep_str_search(a.body, want) > 0 && ep_str_search(a.body, EP_STR("\"decision\":\"DENY\"")) > 0);
        assert_true(ep_str_search(a.body, EP_STR("\"timestamp\":\"2025-11-24T16:00:00")) > 0);
        assert_true(ep_str_search(a.body, EP_STR("constitutional_hash")) < 0);
        assert_true(ep_str_search(a.body, EP_STR("\"metadata\":{\"code\":")) > 0 &&
                    ep_str_search(a.body, EP_STR("\"decision_id\":\"d1\"}")) > 0);
        assert_true(a.n_extra == 2 && ep_str_eq(a.extra[1].name, EP_STR("retry-after")));
    }
    ep_arena_fini(&arena);
    ep_chunk_pool_fini(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_json), cmocka_unit_test(test_proto), cmocka_unit_test(test_decode),
                                       cmocka_unit_test(test_answer)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
