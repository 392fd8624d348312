/* link: ep_filters */
/* How refusals look: statuses, plain HTTP, and each agent protocol, as values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "agent/agent.h"

struct scene {
    struct ep_chunk_pool pool;
    struct ep_arena arena;
    struct ep_answer a;
};

static int setup(void **state)
{
    struct scene *s = ep_calloc(1, sizeof *s);

    ep_chunk_pool_init(&s->pool, 4);
    ep_arena_init(&s->arena, &s->pool);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    ep_arena_fini(&s->arena);
    ep_chunk_pool_fini(&s->pool);
    free(s);
    return 0;
}

#define assert_str(slice, text)                                                                                       \
    do {                                                                                                               \
        struct ep_str slice_ = (slice);                                                                                \
        if (!ep_str_eq(slice_, ep_str(text)))                                                                          \
            fail_msg("'%.*s' is not '%s'", EP_STR_ARG(slice_), text);                                                  \
    } while (0)

static bool has(struct ep_str s, const char *part)
{
    return ep_str_search(s, ep_str(part)) >= 0;
}

static struct ep_str header(const struct ep_answer *a, const char *name)
{
    for (size_t i = 0; i < a->n_extra; i++)
        if (ep_str_eq(a->extra[i].name, ep_str(name)))
            return a->extra[i].value;
    return (struct ep_str){NULL, 0};
}

static const struct ep_refusal denied = {.kind = EP_REFUSE_POLICY,
                                         .policy = EP_STR_INIT("no-shell"),
                                         .principle = EP_STR_INIT("P3"),
                                         .reason = EP_STR_INIT("shell is not for \"you\"\n"),
                                         .code = "policy.denied",
                                         .grpc_status = -1};
static const struct ep_refusal limited = {.kind = EP_REFUSE_LIMIT,
                                          .policy = EP_STR_INIT("rate"),
                                          .reason = EP_STR_INIT("too many"),
                                          .code = "limit.rate",
                                          .grpc_status = -1,
                                          .retry_after_s = 7};

static void test_statuses(void **state)
{
    static const struct {
        enum ep_refusal_kind kind;
        unsigned status;
        int grpc;
        unsigned http, want;
    } rows[] = {
        {EP_REFUSE_POLICY, 0, -1, 403, 7},       {EP_REFUSE_UNAUTHORIZED, 0, -1, 403, 7},
        {EP_REFUSE_LIMIT, 0, -1, 429, 8},        {EP_REFUSE_TOO_LARGE, 0, -1, 413, 8},
        {EP_REFUSE_BAD_REQUEST, 0, -1, 400, 3},  {EP_REFUSE_NO_ROUTE, 0, -1, 404, 12},
        {EP_REFUSE_UNAVAILABLE, 0, -1, 503, 14}, {EP_REFUSE_UPSTREAM, 0, -1, 502, 14},
        {EP_REFUSE_TIMEOUT, 0, -1, 504, 4},      {EP_REFUSE_FAULT, 0, -1, 503, 14},
        {EP_REFUSE_INTERNAL, 0, -1, 500, 13},    {EP_REFUSE_FAULT, 429, -1, 429, 8},
        {EP_REFUSE_FAULT, 599, -1, 599, 14},     {EP_REFUSE_UPSTREAM, 0, 5, 502, 5},
        {EP_REFUSE_POLICY, 0, 0, 403, 7},        {EP_REFUSE_POLICY, 400, 9, 400, 9},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_refusal r = {.kind = rows[i].kind, .status = rows[i].status, .grpc_status = rows[i].grpc};
        assert_int_equal(ep_refusal_status(&r), rows[i].http);
        assert_int_equal(ep_refusal_grpc_status(&r), rows[i].want);
    }
    assert_string_equal(ep_blind_reason_name(EP_BLIND_TOO_LARGE), "too_large");
    for (int i = 0; i < EP_BLIND_REASONS; i++)
        assert_non_null(ep_blind_reason_name((enum ep_blind_reason)i));
}

static void test_accept(void **state)
{
    static const struct {
        const char *accept, *type;
        bool yes;
    } rows[] = {
        {"application/json", "application/json", true},
        {"text/html, Application/JSON;q=0.5", "application/json", true},
        {"*/*", "application/json", true},
        {"application/*", "application/json", true},
        {"text/*", "application/json", false},
        {"text/html", "application/json", false},
        {"", "application/json", false},
        {"application/json;q=0", "application/json", false},
        {"application/json;q=0.0, */*", "application/json", false},
        {"application/json;q=0.01", "application/json", true},
        {"*/*;q=0, text/event-stream", "application/json", false},
        {"application/json, text/event-stream", "text/event-stream", true},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++)
        if (ep_accepts(ep_str(rows[i].accept), ep_str(rows[i].type)) != rows[i].yes)
            fail_msg("row %zu: %s", i, rows[i].accept);
}

static void test_http(void **state)
{
    struct scene *s = *state;

    ep_http_answer(&denied, true, EP_STR("d1"), &s->arena, &s->a);
    assert_int_equal(s->a.status, 403);
    assert_str(s->a.content_type, "application/problem+json");
    assert_str(s->a.body, "{\"type\":\"urn:ephor:policy.denied\",\"title\":\"Refused by policy\",\"status\":403,"
                          "\"detail\":\"Refused by policy no-shell: shell is not for \\\"you\\\"\\n (principle P3)\","
                          "\"code\":\"policy.denied\",\"policy\":\"no-shell\",\"principle\":\"P3\",\"decision\":\"d1\"}");
    assert_str(header(&s->a, "x-ephor-decision"), "d1");
    assert_null(header(&s->a, "retry-after").p);
    ep_http_answer(&limited, false, EP_STR("d2"), &s->arena, &s->a);
    assert_int_equal(s->a.status, 429);
    assert_str(s->a.content_type, "text/plain; charset=utf-8");
    assert_str(s->a.body, "Refused by limit rate: too many\ndecision d2\n");
    assert_str(header(&s->a, "retry-after"), "7");
    ep_http_answer(&(struct ep_refusal){.kind = EP_REFUSE_UNAVAILABLE}, true, EP_STR(""), &s->arena, &s->a);
    assert_str(s->a.body, "{\"type\":\"about:blank\",\"title\":\"Service unavailable\",\"status\":503,"
                          "\"detail\":\"The service is unavailable\"}");
    assert_int_equal(s->a.n_extra, 0);
}

/* --- MCP --- */

static struct ep_call call(const char *method, const char *id)
{
    return (struct ep_call){.protocol = EP_STR("mcp"), .method = ep_str(method), .id_raw = ep_str(id), .wants_json = true,
                            .wants_sse = true, .visible = EP_VISIBLE_FULL, .notification = !id};
}

static void test_mcp_tool(void **state)
{
    struct scene *s = *state;
    struct ep_call c = call("tools/call", "\"\\u00e9\"");

    ep_mcp_answer(&c, &denied, EP_STR("d1"), &s->arena, &s->a);
    assert_int_equal(s->a.status, 200);
    assert_str(s->a.content_type, "application/json");
    assert_str(s->a.body,
               "{\"jsonrpc\":\"2.0\",\"id\":\"\\u00e9\",\"result\":{\"resultType\":\"complete\",\"content\":[{\"type\":\"text\","
               "\"text\":\"Refused by policy no-shell: shell is not for \\\"you\\\"\\n (principle P3). The same call will be "
               "refused again.\"}],\"isError\":true,\"_meta\":{\"ephor.dev/refusal\":{\"policy\":\"no-shell\","
               "\"principle\":\"P3\",\"code\":\"policy.denied\",\"decision\":\"d1\"}}}}");
    assert_null(header(&s->a, "mcp-session-id").p);
    ep_mcp_answer(&c, &limited, EP_STR("d1"), &s->arena, &s->a);
    assert_int_equal(s->a.status, 200);
    assert_true(has(s->a.body, "Try again in 7 s.") && has(s->a.body, "\"isError\":true"));
    /* a failure is told the same way: any other status is a transport error to the SDKs */
    ep_mcp_answer(&c, &(struct ep_refusal){.kind = EP_REFUSE_UPSTREAM, .code = "upstream.connect"}, EP_STR(""), &s->arena,
                  &s->a);
    assert_true(s->a.status == 200 && has(s->a.body, "\"isError\":true") && has(s->a.body, "The service failed"));
}

static void test_mcp_requests(void **state)
{
    struct scene *s = *state;
    struct ep_call c = call("prompts/get", "3");

    ep_mcp_answer(&c, &denied, EP_STR("d1"), &s->arena, &s->a);
    assert_int_equal(s->a.status, 200);
    assert_str(s->a.body, "{\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{\"code\":403,\"message\":\"Refused by policy no-shell: shell is "
                          "not for \\\"you\\\"\\n (principle P3)\",\"data\":{\"policy\":\"no-shell\",\"principle\":\"P3\","
                          "\"code\":\"policy.denied\",\"decision\":\"d1\"}}}");
    ep_mcp_answer(&c, &limited, EP_STR(""), &s->arena, &s->a);
    assert_true(has(s->a.body, "\"code\":429") && has(s->a.body, "\"retryAfter\":7"));
    c.wants_json = false; /* events only */
    ep_mcp_answer(&c, &denied, EP_STR(""), &s->arena, &s->a);
    assert_str(s->a.content_type, "text/event-stream");
    assert_true(ep_str_starts(s->a.body, EP_STR("event: message\ndata: {\"jsonrpc\"")) && ep_str_ends(s->a.body, EP_STR("}\n\n")));
}

static void test_mcp_others(void **state)
{
    struct scene *s = *state;
    struct ep_call c = call("notifications/initialized", NULL);

    ep_mcp_answer(&c, &denied, EP_STR("d1"), &s->arena, &s->a);
    assert_int_equal(s->a.status, 202);
    assert_int_equal(s->a.body.n + s->a.content_type.n, 0);
    ep_mcp_answer(&c, &(struct ep_refusal){.kind = EP_REFUSE_UNAVAILABLE}, EP_STR(""), &s->arena, &s->a);
    assert_int_equal(s->a.status, 503); /* not delivered, and said so */
    c = call("", NULL);                 /* GET, DELETE */
    c.notification = false;
    ep_mcp_answer(&c, &denied, EP_STR("d1"), &s->arena, &s->a);
    assert_int_equal(s->a.status, 405);
    assert_str(header(&s->a, "allow"), "POST");
    ep_mcp_answer(&c, &(struct ep_refusal){.kind = EP_REFUSE_UPSTREAM}, EP_STR(""), &s->arena, &s->a);
    assert_int_equal(s->a.status, 502);
    c.visible = EP_VISIBLE_HEADERS; /* a POST whose body was not read has no id to answer to */
    ep_mcp_answer(&c, &denied, EP_STR(""), &s->arena, &s->a);
    assert_int_equal(s->a.status, 403);
    assert_str(s->a.content_type, "application/problem+json");
}

static void test_mcp_malformed_and_faults(void **state)
{
    struct scene *s = *state;
    struct ep_call c = call("tools/call", "1"), none = call("", NULL);
    struct ep_refusal bad = {.kind = EP_REFUSE_BAD_REQUEST, .reason = EP_STR("duplicate key"), .jsonrpc_code = -32600};

    ep_mcp_answer(&c, &bad, EP_STR(""), &s->arena, &s->a);
    assert_int_equal(s->a.status, 400);
    assert_str(s->a.body, "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32600,\"message\":\"Bad request: duplicate key\","
                          "\"data\":{}}}");
    ep_mcp_answer(&none, &bad, EP_STR(""), &s->arena, &s->a);
    assert_true(s->a.status == 400 && has(s->a.body, "\"id\":null"));
    ep_mcp_answer(&c, &(struct ep_refusal){.kind = EP_REFUSE_FAULT, .status = 418}, EP_STR(""), &s->arena, &s->a);
    assert_int_equal(s->a.status, 418);
    ep_mcp_answer(&c, &(struct ep_refusal){.kind = EP_REFUSE_FAULT, .jsonrpc_code = -32603}, EP_STR(""), &s->arena, &s->a);
    assert_true(s->a.status == 200 && has(s->a.body, "\"error\":{\"code\":-32603"));
}

static void test_mcp_batch(void **state)
{
    struct scene *s = *state;
    struct ep_call third = call("tools/call", "9"), second = call("notifications/x", NULL), first = call("tools/list", "8");

    first.batch = second.batch = third.batch = true;
    first.next = &second;
    second.next = &third;
    ep_mcp_answer(&first, &denied, EP_STR(""), &s->arena, &s->a);
    assert_int_equal(s->a.status, 200);
    assert_true(ep_str_starts(s->a.body, EP_STR("[{\"jsonrpc\":\"2.0\",\"id\":8,\"error\"")));
    assert_true(has(s->a.body, "},{\"jsonrpc\":\"2.0\",\"id\":9,\"result\"") && ep_str_ends(s->a.body, EP_STR("}]")));
    second.next = NULL;
    ep_mcp_answer(&second, &denied, EP_STR(""), &s->arena, &s->a); /* notifications only */
    assert_int_equal(s->a.status, 202);
}

static void test_mcp_events(void **state)
{
    struct scene *s = *state;
    struct ep_call c = call("tools/call", "4"), other = call("ping", "5");

    c.next = &other;
    struct ep_str events = ep_mcp_events(&c, &denied, EP_STR("d"), &s->arena);
    assert_true(ep_str_starts(events, EP_STR("event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":4,\"error\":{\"code\":403")));
    assert_true(has(events, "}\n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":5") && ep_str_ends(events, EP_STR("}\n\n")));
}

static void test_mcp_headers(void **state)
{
    static const struct {
        const char *value, *is; /* NULL: broken */
    } rows[] = {
        {"echo", "echo"},          {" echo ", "echo"},         {"=?base64?w6k=?=", "\xc3\xa9"}, {"=?base64?w6k?=", "\xc3\xa9"},
        {"=?base64?IGE=?=", " a"}, {"=?base64?" "?=", ""},        {"=?base64?w6!=?=", NULL},       {"=?base64?w?=", NULL},
        {"=?base64?w6l=?=", NULL}, {"=?base64?YWI", "=?base64?YWI"}, {"=?utf-8?q?a?=", "=?utf-8?q?a?="},
    };
    struct scene *s = *state;
    struct ep_str out;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        bool good = ep_mcp_decode_header(ep_str(rows[i].value), &s->arena, &out);
        if (good != (rows[i].is != NULL))
            fail_msg("row %zu: %s", i, rows[i].value);
        if (good)
            assert_str(out, rows[i].is);
    }
}

/* --- the others --- */

static void test_grpc(void **state)
{
    struct scene *s = *state;

    assert_str(ep_grpc_message(&denied, EP_STR("d1"), &s->arena),
               "Refused by policy no-shell: shell is not for \"you\"%0A (principle P3) [decision d1]");
    assert_str(ep_grpc_message(&(struct ep_refusal){.kind = EP_REFUSE_LIMIT, .reason = EP_STR("100% \xc3\xa9")}, EP_STR(""),
                               &s->arena),
               "Refused by limit: 100%25 %C3%A9");
}

static void test_llm(void **state)
{
    struct scene *s = *state;

    assert_str(ep_openai_error(&denied, EP_STR("d1"), &s->arena),
               "{\"error\":{\"message\":\"Refused by policy no-shell: shell is not for \\\"you\\\"\\n (principle P3)\","
               "\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"policy.denied\",\"decision\":\"d1\"}}");
    assert_str(ep_anthropic_error(&limited, EP_STR("d1"), &s->arena),
               "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"Refused by limit rate: too many\"},"
               "\"request_id\":\"d1\"}");
    ep_agent_llm_answer(&denied, EP_STR("{}"), EP_STR("request-id"), EP_STR("d1"), &s->arena, &s->a);
    assert_int_equal(s->a.status, 403);
    assert_null(header(&s->a, "x-should-retry").p); /* 403 is not retried anyway */
    assert_str(header(&s->a, "request-id"), "d1");
    ep_agent_llm_answer(&limited, EP_STR("{}"), EP_STR("request-id"), EP_STR("d1"), &s->arena, &s->a);
    assert_str(header(&s->a, "x-should-retry"), "false");
    ep_agent_llm_answer(&(struct ep_refusal){.kind = EP_REFUSE_UNAVAILABLE}, EP_STR("{}"), EP_STR("request-id"), EP_STR(""),
                        &s->arena, &s->a);
    assert_null(header(&s->a, "x-should-retry").p); /* a failure may be retried */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_statuses),   T(test_accept),     T(test_http),        T(test_mcp_tool), T(test_mcp_requests),
        T(test_mcp_others), T(test_mcp_malformed_and_faults), T(test_mcp_batch), T(test_mcp_events), T(test_mcp_headers),
        T(test_grpc),       T(test_llm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
