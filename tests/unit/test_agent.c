/* link: ep_filters */
/* What the filter `agent` makes of a request: the call record, what it can't see, what it refuses. */
#include "agent/agent.h"
#include "filter_play.h"

#include <zlib.h>

#include "lua/possible.h"

extern const struct ep_filter ep_filter_agent;
const struct ep_filter *const play_filter = &ep_filter_agent;

#define MCP_HEADERS "content-type: application/json|accept: application/json, text/event-stream|"

static void post(struct play *p, const char *path, const char *headers, const char *body)
{
    play_request(p, "POST", path, headers, body, strlen(body), 100000);
}

static bool replied(const struct play *p, const char *part)
{
    return strstr(p->body, part) != NULL;
}

/* --- whose call it is --- */

static void test_tenants(void **state)
{
    static const struct {
        const char *pattern, *id, *tenant; /* "": none */
    } rows[] = {
        {"spiffe://*/ns/{tenant}/sa/*", "spiffe://cluster.local/ns/acme/sa/planner", "acme"},
        {"spiffe://*/ns/{tenant}/sa/*", "spiffe://cluster.local/ns//sa/planner", ""},
        {"spiffe://*/ns/{tenant}/sa/*", "spiffe://cluster.local/ns/acme/sa/planner/more", ""},
        {"spiffe://*/ns/{tenant}/sa/*", "spiffe://cluster.local/ns/acme", ""},
        {"spiffe://*/ns/{tenant}/sa/*", "spiffe://a/b/ns/acme/sa/x", ""},
        {"spiffe://td/ns/tenant-{tenant}-x/sa/p*", "spiffe://td/ns/tenant-acme-x/sa/planner", "acme"},
        {"spiffe://td/ns/tenant-{tenant}-x/sa/p*", "spiffe://td/ns/tenant--x/sa/planner", ""},
        {"spiffe://td/ns/tenant-{tenant}-x/sa/p*", "spiffe://td/ns/tenant-x/sa/planner", ""},
        {"spiffe://td/ns/tenant-{tenant}/sa/p*", "spiffe://td/ns/tenant-a/sa/other", ""},
        {"spiffe://td/{tenant}", "spiffe://td/a", "a"},
        {"spiffe://td/{tenant}", "", ""},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_str tenant = ep_agent_tenant_of(ep_str(rows[i].pattern), ep_str(rows[i].id));
        if (!ep_str_eq(tenant, ep_str(rows[i].tenant)))
            fail_msg("row %zu: '%.*s'", i, EP_STR_ARG(tenant));
    }
}

/* --- MCP --- */

static void test_a_tool_call(void **state)
{
    static const char body[] = "{\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"arguments\":{\"text\":\"hi\"}},"
                               "\"jsonrpc\":\"2.0\",\"id\":3}";
    static const size_t pieces[] = {100000, 0, 1, 7, 64};
    struct play *p = *state;

    p->config.tenant.header = EP_STR("x-tenant-id");
    for (size_t i = 0; i < EP_COUNT(pieces); i++) {
        play_request(p, "POST", "/mcp", MCP_HEADERS "mcp-session-id: s1|mcp-protocol-version: 2025-06-18|x-tenant-id: t1", body,
                     sizeof body - 1, pieces[i]);
        const struct ep_call *c = &p->s->call;
        assert_true(p->passed && p->body_passed);
        assert_str(c->protocol, "mcp");
        assert_str(c->version, "2025-06-18");
        assert_str(c->method, "tools/call");
        assert_str(c->tool, "echo");
        assert_str(c->arguments, "{\"text\":\"hi\"}");
        assert_str(c->id_raw, "3");
        assert_str(c->session, "s1");
        assert_str(c->tenant, "t1");
        assert_str(c->body, body);
        assert_true(c->visible == EP_VISIBLE_FULL && c->blind == EP_BLIND_NOT && !c->notification && !c->batch && !c->next);
        assert_true(c->wants_json && c->wants_sse);
        play_end(p);
    }
}

static void test_mcp_messages(void **state)
{
    static const struct {
        const char *body, *method, *tool, *prompt, *uri, *id, *version;
        bool notification;
    } rows[] = {
        {"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\"}}", "initialize",
         "", "", "", "0", "2025-11-25", false},
        {"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}", "notifications/initialized", "", "", "", "", "", true},
        {"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"prompts/get\",\"params\":{\"name\":\"x\"}}", "prompts/get", "", "x", "",
         "\"a\"", "", false},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/read\",\"params\":{\"uri\":\"file:///x\"}}", "resources/read", "",
         "", "file:///x", "1", "", false},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", "", "", "", "", "", "", true},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"custom/thing\",\"params\":{\"name\":\"x\",\"Name\":\"y\"}}", "custom/thing",
         "", "", "", "1", "", false},
        {"\r\n {\"jsonrpc\":\"2.0\",\"id\":1,\"m\\u0065thod\":\"tools\\u002fcall\",\"params\":{\"name\":\"sh\\u0065ll\"}}",
         "tools/call", "shell", "", "", "1", "", false},
        {"\xef\xbb\xbf{\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"shell\"}}", "tools/call", "shell", "", "", "1",
         "", false},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        post(p, "/mcp", MCP_HEADERS, rows[i].body);
        const struct ep_call *c = &p->s->call;
        assert_true(p->passed);
        assert_str(c->protocol, "mcp");
        assert_str(c->method, rows[i].method);
        assert_str(c->tool, rows[i].tool);
        assert_str(c->prompt_name, rows[i].prompt);
        assert_str(c->uri, rows[i].uri);
        assert_str(c->id_raw, rows[i].id);
        assert_str(c->version, rows[i].version);
        assert_int_equal(c->notification, rows[i].notification);
        assert_int_equal(c->visible, EP_VISIBLE_FULL);
        play_end(p);
    }
}

static void test_a_batch(void **state)
{
    struct play *p = *state;
    const struct ep_call *c;

    post(p, "/mcp", MCP_HEADERS "mcp-session-id: s",
         "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"},{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"},"
         "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"shell\"}}]");
    c = &p->s->call;
    assert_true(c->batch);
    assert_str(c->method, "tools/list");
    c = c->next;
    assert_true(c->notification && c->batch);
    c = c->next;
    assert_str(c->tool, "shell");
    assert_str(c->id_raw, "2");
    assert_str(c->session, "s");
    assert_null(c->next);
    play_end(p);
    /* one bad element, and nobody knows what the server makes of the others */
    post(p, "/mcp", MCP_HEADERS, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"},5]");
    assert_int_equal(p->s->call.visible, EP_VISIBLE_HEADERS);
}

static void test_a_batch_of_the_bus(void **state)
{
    static const char *const others[] = {"[]", "[{\"content\":1}]", "[{\"message_type\":7}]", "[\"message_type\"]"};
    struct play *p = *state;
    const struct ep_call *c;

    post(p, "/any", "content-type: application/json|",
         "[{\"message_type\":\"command\",\"message_id\":\"m1\",\"to_agent\":\"a\"},"
         "{\"message_type\":\"audit_log\",\"message_id\":\"m2\",\"impact_score\":0.5,\"priority\":3}]");
    c = &p->s->call;
    assert_true(p->body_passed && c->batch && c->visible == EP_VISIBLE_FULL && c->blind == EP_BLIND_NOT);
    assert_str(c->protocol, "acgs2");
    assert_str(c->method, "command");
    assert_str(c->recipient, "a");
    c = c->next;
    assert_str(c->protocol, "acgs2");
    assert_str(c->method, "audit_log");
    assert_str(c->id_text, "m2");
    assert_str(c->recipient, "");
    assert_str(c->impact, "0.5");
    assert_str(c->priority, "critical");
    assert_true(c->batch && !c->next);
    play_end(p);
    /* an element that is no message: the others are judged, and what it says is open */
    post(p, "/api/v1/messages", "content-type: application/json|", "[7,{\"sender\":\"a\",\"content\":\"hi\"}]");
    c = &p->s->call;
    assert_str(c->protocol, "acgs2");
    assert_true(c->visible == EP_VISIBLE_HEADERS && c->blind == EP_BLIND_UNKNOWN);
    assert_str(c->next->agent, "a");
    assert_true(c->next->visible == EP_VISIBLE_HEADERS);
    play_end(p);
    post(p, "/any", "content-type: application/json|", "[{\"message_type\":\"event\"},{\"x\":1,\"x\":2}]");
    assert_true(!p->body_passed && replied(p, "\"is_valid\":false") && replied(p, "duplicate key"));
    for (size_t i = 0; i < EP_COUNT(others); i++) {
        play_end(p);
        post(p, "/any", "content-type: application/json|", others[i]);
        assert_str(p->s->call.protocol, "http");
        assert_true(!p->s->call.batch);
    }
}

static void test_sessions(void **state)
{
    static const char shell[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"shell\"}}";
    struct play *p = *state;

    play_request(p, "GET", "/mcp", "accept: text/event-stream|mcp-session-id: s|mcp-protocol-version: 2025-06-18", NULL, 0, 0);
    assert_str(p->s->call.protocol, "mcp");
    assert_str(p->s->call.method, "");
    assert_true(p->s->call.stream && p->s->call.visible == EP_VISIBLE_FULL && p->passed);
    play_end(p);
    play_request(p, "DELETE", "/mcp", "mcp-session-id: s", NULL, 0, 0);
    assert_str(p->s->call.protocol, "mcp");
    assert_true(!p->s->call.stream && p->passed);
    play_end(p);
    play_request(p, "GET", "/", "accept: text/event-stream", NULL, 0, 0);
    assert_str(p->s->call.protocol, "http");
    assert_str(p->s->call.method, "GET");
    assert_int_equal(p->s->call.visible, EP_VISIBLE_FULL);
    play_end(p);
    /* what is called is in the body, if there is one */
    play_request(p, "DELETE", "/mcp", MCP_HEADERS "mcp-session-id: s", shell, sizeof shell - 1, 7);
    assert_str(p->s->call.method, "tools/call");
    assert_str(p->s->call.tool, "shell");
    play_end(p);
    play_request(p, "GET", "/v1/tasks/7", "content-type: application/json|a2a-version: 1.0", "{\"x\":1,\"x\":2}", 13, 7);
    assert_true(p->status == 400 && replied(p, "INVALID_REQUEST"));
}

static void test_what_must_be_json_and_is_none_is_refused(void **state)
{
    static const struct {
        const char *path, *headers, *body, *part;
    } rows[] = {
        {"/mcp", MCP_HEADERS "mcp-session-id: s", "{\"a\":\"\xff\"}", "\"id\":null,\"error\":{\"code\":-32700"},
        {"/mcp", MCP_HEADERS "mcp-session-id: s", "{\"jsonrpc\":\"2.0\",}", "-32700"},
        {"/mcp", "mcp-session-id: s", "\xff\xfe{", "-32700"},
        {"/mcp", MCP_HEADERS "mcp-session-id: s",
         "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
         "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", "the JSON is nested too deep"},
        {"/rpc", "content-type: application/json|a2a-version: 1.0", "{\"a\":\"\xff\"}", "-32700"},
        {"/v1/message:send", "content-type: application/json", "{\"a\":\"\xff\"}", "\"status\":\"INVALID_ARGUMENT\""},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        char headers[300];
        snprintf(headers, sizeof headers, "%s|content-length: %zu", rows[i].headers, strlen(rows[i].body));
        post(p, rows[i].path, headers, rows[i].body);
        if (p->passed || p->status != 400 || !replied(p, rows[i].part))
            fail_msg("row %zu: %u %s", i, p->status, p->body);
        play_end(p);
    }
}

static void test_what_two_would_read_differently_is_refused(void **state)
{
    static const char *const rows[] = {
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"m\\u0065thod\":\"tools/call\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"name\":\"b\"}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"Name\":\"b\"}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"Params\":{\"name\":\"b\"},\"params\":{\"name\":\"a\"}}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"arguments\":{\"p\":1,\"p\":2}}}",
        "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"ping\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"ping\"}",
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        post(p, "/mcp", MCP_HEADERS, rows[i]);
        assert_false(p->passed);
        assert_int_equal(p->status, 400);
        assert_true(replied(p, "\"code\":-32600"));
        play_end(p);
    }
}

static void test_headers_must_agree(void **state)
{
    static const struct {
        const char *headers, *body;
        bool good;
    } rows[] = {
#define CALL(meta) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\"" meta "}}"
#define NEW        ",\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}"
        {"mcp-method: tools/call", CALL(""), true},
        {"mcp-method: tools/list", CALL(""), false}, /* an old body runs by what it says, whatever the header */
        {"mcp-method: tools/call|mcp-method: tools/list", CALL(""), false},
        {"mcp-method: tools/call|mcp-name: echo|mcp-protocol-version: 2026-07-28", CALL(NEW), true},
        {"mcp-method: tools/call|mcp-name: =?base64?ZWNobw==?=|mcp-protocol-version: 2026-07-28", CALL(NEW), true},
        {"mcp-method: tools/call|mcp-name: ls|mcp-protocol-version: 2026-07-28", CALL(NEW), false},
        {"mcp-method: tools/call|mcp-name: =?base64?!?=|mcp-protocol-version: 2026-07-28", CALL(NEW), false},
        {"mcp-name: echo|mcp-protocol-version: 2026-07-28", CALL(NEW), false},
        {"mcp-method: tools/call|mcp-protocol-version: 2026-07-28", CALL(NEW), false},
        {"mcp-method: tools/call|mcp-name: echo|mcp-protocol-version: 2025-11-25", CALL(NEW), false},
        {"mcp-method: tools/call|mcp-name: echo", CALL(NEW), true},
        {"mcp-method: tools/list|mcp-protocol-version: 2026-07-28",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{}}", true},
        {"mcp-protocol-version: 2025-06-18", CALL(""), true},
#define ARGS(arguments) CALL(",\"arguments\":{" arguments "}")
        {"mcp-param-region: eu", ARGS("\"region\":\"eu\""), true},
        {"mcp-param-region: us", ARGS("\"region\":\"eu\""), false},
        {"mcp-param-region: eu", ARGS("\"Reg\\u0069on\":\"us\""), false}, /* as its own name is written, or not */
        {"mcp-param-region: =?base64?w6l0w6k=?=", ARGS("\"region\":\"\\u00e9t\xc3\xa9\""), true},
        {"mcp-param-region: =?base64?w6l0w6k=?=", ARGS("\"region\":\"ete\""), false},
        {"mcp-param-region: =?base64?!?=", ARGS("\"region\":\"!\""), false},
        {"mcp-param-n: 42.0", ARGS("\"n\":42"), true},
        {"mcp-param-n: 43", ARGS("\"n\":42"), false},
        {"mcp-param-on: true", ARGS("\"on\":true"), true},
        {"mcp-param-on: 1", ARGS("\"on\":true"), false},
        {"mcp-param-region: us", ARGS("\"place\":{\"region\":\"eu\"},\"region\":null"), true}, /* of another, that the schema names */
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        char headers[300];
        snprintf(headers, sizeof headers, MCP_HEADERS "%s", rows[i].headers);
        post(p, "/mcp", headers, rows[i].body);
        if (p->passed != rows[i].good)
            fail_msg("row %zu: %s", i, rows[i].headers);
        if (!rows[i].good)
            assert_true(p->status == 400 && replied(p, "\"code\":-32020"));
        play_end(p);
    }
}

/* --- what can't be seen --- */

static void test_blind(void **state)
{
    static const char call[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}";
    static const struct {
        const char *method, *headers, *body, *protocol;
        enum ep_visible visible;
        enum ep_blind_reason blind;
    } rows[] = {
        {"POST", "content-type: application/json|content-encoding: gzip", call, "http", EP_VISIBLE_HEADERS, EP_BLIND_ENCODING},
        {"POST", MCP_HEADERS "mcp-session-id: s|content-encoding: br", call, "mcp", EP_VISIBLE_HEADERS, EP_BLIND_ENCODING},
        {"POST", "content-type: application/json|content-encoding: identity", call, "mcp", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", "content-type: application/json; charset=utf-16", call, "http", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", "content-type: Application/JSON; charset=\"UTF-8\"", call, "mcp", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", "content-type: application/vnd.x+json", call, "mcp", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", "content-type: application/json|content-type: text/plain", call, "http", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", "content-type: application/octet-stream", call, "http", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", "content-type: application/json|content-length: 5000", call, "http", EP_VISIBLE_HEADERS, EP_BLIND_TOO_LARGE},
        {"POST", "content-type: text/plain", call, "http", EP_VISIBLE_HEADERS, EP_BLIND_STREAMED},
        {"POST", "content-type: text/plain|content-length: 66", call, "mcp", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", "content-length: 5", "hello", "http", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", "content-length: 5", "/help", "http", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", "content-length: 9", "//\n{a:1}", "http", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", "content-length: 5", "{a:1}", "http", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", "content-length: 4", "h\0i\0", "http", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", "content-type: application/json", "{\"a\":1}", "http", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", "content-type: application/json", "{\"a\":1}x", "http", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", "content-type: application/json", "{\"a\":1,\"a\":2}", "http", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", "content-type: application/json", "{\"Method\":\"tools/call\"}", "http", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", "content-type: application/json", "{\"ID\":1}", "http", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", "content-type: application/json", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"message/send\"}", "a2a",
         EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", MCP_HEADERS, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"SendMessage\"}", "a2a", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"POST", MCP_HEADERS "mcp-session-id: s", "no", "mcp", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", MCP_HEADERS, "{\"a\":\"\xff\"}", "http", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", MCP_HEADERS "mcp-session-id: s", "{}", "mcp", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", MCP_HEADERS "mcp-session-id: s", "[]", "mcp", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"POST", MCP_HEADERS, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":5}}", "mcp",
         EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        /* whatever the method */
        {"PUT", "content-type: application/json", call, "mcp", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"PATCH", "content-length: 66", call, "mcp", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"GET", "content-type: application/json", call, "mcp", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"GET", MCP_HEADERS "mcp-session-id: s", call, "mcp", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"DELETE", MCP_HEADERS "mcp-session-id: s", call, "mcp", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"DELETE", MCP_HEADERS "mcp-session-id: s", "{}", "mcp", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"GET", "content-type: application/json", "{\"query\":{}}", "http", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"PUT", "content-type: application/octet-stream", call, "http", EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN},
        {"PUT", "", call, "mcp", EP_VISIBLE_FULL, EP_BLIND_NOT},
        {"PUT", "content-type: text/plain", call, "http", EP_VISIBLE_HEADERS, EP_BLIND_STREAMED},
        {"PUT", "content-type: application/json|content-length: 5000", call, "http", EP_VISIBLE_HEADERS, EP_BLIND_TOO_LARGE},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        play_request(p, rows[i].method, "/x", rows[i].headers, rows[i].body, strlen(rows[i].body), 100000);
        const struct ep_call *c = &p->s->call;
        if (!p->passed || c->visible != rows[i].visible || c->blind != rows[i].blind ||
            !ep_str_eq(c->protocol, ep_str(rows[i].protocol)))
            fail_msg("row %zu: %s: %s: %.*s %d %d", i, rows[i].headers, rows[i].body, EP_STR_ARG(c->protocol), (int)c->visible,
                     (int)c->blind);
        if (ep_str_eq(c->protocol, EP_STR("mcp")) && c->visible != EP_VISIBLE_FULL && c->blind != EP_BLIND_UNKNOWN)
            assert_str(c->method, ""); /* "POST" is no method of MCP */
        play_end(p);
    }
}

static void test_too_large_without_a_length(void **state)
{
    struct play *p = *state;
    char *body = ep_malloc(6000);

    memset(body, ' ', 6000);
    for (size_t piece = 10; piece < 10000; piece *= 10) { /* goes on, and policies know that it wasn't seen */
        play_request(p, "POST", "/mcp", MCP_HEADERS "mcp-session-id: s", body, 6000, piece);
        assert_true(p->passed && p->body_passed);
        assert_true(p->s->call.visible == EP_VISIBLE_HEADERS && p->s->call.blind == EP_BLIND_TOO_LARGE);
        assert_str(p->s->call.protocol, "mcp");
        play_end(p);
    }
    free(body);
}

/* What is said never to be on calls of a protocol is never on them: else policies about it would be refused. */
static void test_calls_have_what_may_be(void **state)
{
    static const struct {
        const char *method, *path, *headers, *body, *protocol;
    } rows[] = {
        {"POST", "/mcp", MCP_HEADERS "mcp-session-id: s|x-tenant-id: t",
         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\",\"arguments\":{}}}", "mcp"},
        {"POST", "/mcp", MCP_HEADERS, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"prompts/get\",\"params\":{\"name\":\"x\"}}", "mcp"},
        {"POST", "/mcp", MCP_HEADERS, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/read\",\"params\":{\"uri\":\"x\"}}", "mcp"},
        {"POST", "/mcp", MCP_HEADERS, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tasks/get\",\"params\":{\"taskId\":\"x\"}}", "mcp"},
        {"POST", "/a.B/C", "content-type: application/grpc|x-tenant-id: t|x-session-id: s", "\1\1", "grpc"},
        {"POST", "/v1/chat/completions", "content-type: application/json|x-session-id: s",
         "{\"model\":\"m\",\"messages\":[],\"name\":\"x\",\"arguments\":\"y\",\"uri\":\"z\"}", "openai"},
        {"POST", "/v1/messages", "content-type: application/json|anthropic-version: 1", "{\"model\":\"m\",\"messages\":[]}", "anthropic"},
        {"POST", "/x", "content-type: application/json|x-tenant-id: t", "{\"name\":\"x\",\"model\":\"m\",\"uri\":\"z\"}", "http"},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        play_request(p, rows[i].method, rows[i].path, rows[i].headers, rows[i].body, strlen(rows[i].body), 100000);
        assert_str(p->s->call.protocol, rows[i].protocol);
        for (unsigned f = 0; f < EP_POLICY_FIELD_COUNT; f++)
            if (ep_policy_field_value((enum ep_policy_field)f, p->s, &p->s->call).n &&
                !ep_policy_field_possible(p->s->call.protocol, (enum ep_policy_field)f))
                fail_msg("%s has %s", rows[i].protocol, ep_policy_field_name((enum ep_policy_field)f));
        play_end(p);
    }
}

/* --- what is decoded --- */

static struct ep_str deflated(const char *text, size_t n, int window_bits, char out[8192])
{
    z_stream z = {.next_in = (unsigned char *)(uintptr_t)text, .avail_in = (unsigned)n, .next_out = (unsigned char *)out, .avail_out = 8192};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return ep_str_n(out, 8192 - z.avail_out);
}

static void test_a_compressed_call(void **state)
{
    static const char call[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}";
    static const struct {
        const char *headers;
        int window_bits;
        bool twice;
    } rows[] = {
        {MCP_HEADERS "content-encoding: gzip", 31, false},
        {MCP_HEADERS "content-encoding: deflate", 15, false},
        {MCP_HEADERS "content-encoding: deflate", -15, false},
        {MCP_HEADERS "content-encoding: gzip|content-encoding: gzip", 31, true},
        {MCP_HEADERS "content-encoding: identity, gzip|content-encoding: x-gzip", 31, true},
        {"content-type: application/x+json|content-encoding: GZIP", 31, false},
    };
    static const size_t pieces[] = {100000, 0, 1, 7};
    struct play *p = *state;
    char once[8192], twice[8192];

    for (size_t i = 0; i < EP_COUNT(rows); i++)
        for (size_t k = 0; k < EP_COUNT(pieces); k++) {
            struct ep_str body = deflated(call, sizeof call - 1, rows[i].window_bits, once);
            if (rows[i].twice)
                body = deflated(body.p, body.n, rows[i].window_bits, twice);
            play_request(p, "POST", "/mcp", rows[i].headers, body.p, body.n, pieces[k]);
            const struct ep_call *c = &p->s->call;
            assert_true(p->passed && p->body_passed);
            assert_true(c->visible == EP_VISIBLE_FULL && c->blind == EP_BLIND_NOT);
            assert_str(c->protocol, "mcp");
            assert_str(c->tool, "x");
            assert_str(c->body, call);
            play_end(p);
        }
}

static void test_a_compressed_call_that_stays_unseen(void **state)
{
    static const char call[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}";
    enum what { PLAIN, GZIP, CUT, TAIL, LARGE, STORED };
    static const struct {
        const char *headers;
        enum what what;
        enum ep_blind_reason blind;
    } rows[] = {
        {MCP_HEADERS "content-encoding: gzip", PLAIN, EP_BLIND_ENCODING},
        {MCP_HEADERS "content-encoding: gzip", CUT, EP_BLIND_ENCODING},
        {MCP_HEADERS "content-encoding: gzip", TAIL, EP_BLIND_ENCODING},
        {MCP_HEADERS "content-encoding: gzip", LARGE, EP_BLIND_TOO_LARGE},
        {MCP_HEADERS "content-encoding: br", GZIP, EP_BLIND_ENCODING},
        {MCP_HEADERS "content-encoding: compress", GZIP, EP_BLIND_ENCODING},
        {MCP_HEADERS "content-encoding: gzip|content-encoding: aes128gcm", GZIP, EP_BLIND_ENCODING},
        {MCP_HEADERS "content-encoding: gzip, gzip, gzip, gzip", GZIP, EP_BLIND_ENCODING},
        {"content-type: application/json; charset=utf-16|content-encoding: gzip", GZIP, EP_BLIND_UNKNOWN},
        {"content-type: image/png|content-encoding: gzip", GZIP, EP_BLIND_UNKNOWN},
        {"content-type: text/plain|content-encoding: gzip", GZIP, EP_BLIND_STREAMED},
    };
    struct play *p = *state;
    char out[8192], large[6000];

    memset(large, ' ', sizeof large); /* the listener's max_body is less */
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_str body = rows[i].what == LARGE ? deflated(large, sizeof large, 31, out)
                                                   : deflated(call, sizeof call - 1, 31, out);
        if (rows[i].what == PLAIN)
            body = ep_str_n(call, sizeof call - 1);
        if (rows[i].what == CUT)
            body.n -= 3;
        if (rows[i].what == TAIL)
            out[body.n++] = ' ';
        play_request(p, "POST", "/mcp", rows[i].headers, body.p, body.n, 20);
        const struct ep_call *c = &p->s->call;
        if (!p->passed || !p->body_passed || c->visible != EP_VISIBLE_HEADERS || c->blind != rows[i].blind)
            fail_msg("row %zu: %s: %d %d", i, rows[i].headers, (int)c->visible, (int)c->blind);
        assert_str(c->tool, "");
        assert_str(c->body, "");
        play_end(p);
    }
}

static void test_a_stream_that_begins_like_an_array(void **state)
{
    struct play *p = *state;

    /* brotli: 0x5b is '[', and how larger streams really begin; that alone is no reason */
    play_request(p, "POST", "/mcp", MCP_HEADERS "content-encoding: br",
                 "\x5b\x3f\x42\x0f\x40\x22\x2c\x1e\x0b\x24\x3f\xe7\x01", 13, 100);
    assert_int_equal(p->s->call.blind, EP_BLIND_TOO_LARGE);
    play_end(p);
}

/* --- the other protocols --- */

static void test_grpc(void **state)
{
    static const struct {
        const char *type, *path, *protocol, *service, *method;
    } rows[] = {
        {"application/grpc", "/pkg.Svc/Do", "grpc", "pkg.Svc", "Do"},
        {"application/grpc+proto", "/pkg.Svc/Do", "grpc", "pkg.Svc", "Do"},
        {"Application/gRPC;x=y", "/a/b/c", "grpc", "a", "b/c"},
        {"application/grpc", "/odd", "grpc", "", "/odd"},
        {"application/grpc-web", "/pkg.Svc/Do", "grpc", "pkg.Svc", "Do"},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        char headers[100];
        snprintf(headers, sizeof headers, "content-type: %s|te: trailers", rows[i].type);
        play_request(p, "POST", rows[i].path, headers, "\0\0\0\0\0", 5, 100);
        assert_str(p->s->call.protocol, rows[i].protocol);
        assert_str(p->s->call.service, rows[i].service);
        assert_str(p->s->call.method, rows[i].method);
        assert_true(p->passed && p->body_passed && p->s->call.blind == EP_BLIND_UNKNOWN);
        assert_int_equal(p->s->call.visible, rows[i].service[0] ? EP_VISIBLE_FULL : EP_VISIBLE_HEADERS);
        play_end(p);
    }
    /* JSON under the name of gRPC, for a server that doesn't look at types */
    play_request(p, "POST", "/api/mcp", "content-type: application/grpc", "{\"method\":\"tools/call\"}", 23, 100);
    assert_false(p->body_passed);
    assert_non_null(strstr(p->head, "grpc-status: 3"));
}

static void test_models(void **state)
{
    struct play *p = *state;

    post(p, "/v1/chat/completions?x=1", "content-type: application/json|authorization: Bearer k",
         "{\n  \"model\": \"gpt\",\n \"stream\": true, \"messages\": []}");
    assert_str(p->s->call.protocol, "openai");
    assert_str(p->s->call.method, "chat/completions");
    assert_str(p->s->call.model, "gpt");
    assert_true(p->s->call.stream);
    play_end(p);
    post(p, "/x/v1/messages", "content-type: application/json|anthropic-version: 2023-06-01", "{\"model\":\"claude\",\"max_tokens\":1}");
    assert_str(p->s->call.protocol, "anthropic");
    assert_str(p->s->call.version, "2023-06-01");
    assert_str(p->s->call.model, "claude");
    play_end(p);
    post(p, "/survey/responses", "content-type: application/json", "{\"answers\":[1]}"); /* a path, and no model */
    assert_str(p->s->call.protocol, "http");
    assert_str(p->s->call.method, "POST");
    assert_ptr_equal(p->s->protocol, &ep_protocol_http);
    play_end(p);
    /* what the body says goes before the path */
    post(p, "/v1/responses", "content-type: application/json", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":"
                                                               "{\"name\":\"x\"}}");
    assert_str(p->s->call.protocol, "mcp");
    play_end(p);
    post(p, "/v1/embeddings", "content-type: application/json", "{\"model\":\"a\",\"model\":\"b\"}");
    assert_true(p->status == 400 && replied(p, "{\"error\":{\"message\":\"Bad request: duplicate key\""));
}

/* --- refusing while a response is under way --- */

static void respond(struct play *p, const char *type, const char *data)
{
    struct ep_headers h;

    ep_headers_init(&h, &p->s->arena);
    ep_headers_add_id(&h, EP_HDR_STATUS, EP_STR("200"));
    ep_headers_add_id(&h, EP_HDR_CONTENT_TYPE, ep_str(type));
    ep_stream_response_headers(p->s, &h, false);
    ep_stream_response_data(p->s, (struct ep_slice){NULL, (const unsigned char *)data, strlen(data)}, false);
    ep_stream_refuse(p->s, &(struct ep_refusal){.kind = EP_REFUSE_POLICY, .policy = EP_STR("dlp"), .reason = EP_STR("a secret"),
                                                .code = "policy.denied", .grpc_status = -1});
    play_turn(p);
}

static void test_midstream(void **state)
{
    struct play *p = *state;

    post(p, "/mcp", MCP_HEADERS, "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"tools/call\",\"params\":{\"name\":\"a\"}}");
    respond(p, "text/event-stream", "data: {\"half");
    assert_true(replied(p, "\n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"x\",\"error\":{\"code\":403"));
    assert_true(!p->reset && p->released);
    post(p, "/mcp", MCP_HEADERS, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\"}}");
    respond(p, "application/json", "{\"half"); /* nothing can be said any more */
    assert_true(p->reset);
    post(p, "/v1/messages", "content-type: application/json", "{\"model\":\"claude\"}");
    respond(p, "text/event-stream; charset=utf-8", "event: ping\n\n");
    assert_true(replied(p, "\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"permission_error\""));
    play_request(p, "POST", "/a.B/C", "content-type: application/grpc", "\1\0\0\0\0", 5, 10);
    respond(p, "application/grpc", "x");
    assert_non_null(strstr(p->trailers, "grpc-status: 7|grpc-message: Refused by policy dlp: a secret"));
    assert_false(p->reset);
}

static void test_grpc_refusal(void **state)
{
    struct play *p = *state;

    play_request(p, "POST", "/a.B/C", "content-type: application/grpc", "\1\0\0\0\0", 5, 10);
    ep_stream_refuse(p->s, &(struct ep_refusal){.kind = EP_REFUSE_LIMIT, .reason = EP_STR("50% used"), .code = "limit", .grpc_status = -1});
    play_turn(p);
    assert_int_equal(p->status, 200);
    assert_non_null(strstr(p->head, "content-type: application/grpc|grpc-status: 8|grpc-message: Refused by limit: 50%25 used"));
}

/* --- authorize rules that need the call --- */

static void test_authorize(void **state)
{
    static struct ep_str echo[] = {EP_STR_INIT("echo*")};
    static struct ep_authorize_config rule[] = {{.tools = {echo, 1}}};
    struct play *p = play_new();
    struct ep_error err = {""};

    (void)state;
    p->config.authorize = (struct ep_vec){rule, 1};
    assert_null(ep_chain_new(&p->view, &p->w, &p->config, play_lookup, p, &err)); /* who calls must be known */
    assert_non_null(strstr(err.text, "need the filter 'identity'"));
    p->uses[1] = p->uses[0];
    p->uses[0].name = EP_STR("identity");
    p->config.filters.n = 2;
    play_chain(p);
    post(p, "/mcp", MCP_HEADERS, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\"}}");
    assert_true(p->passed);
    play_end(p);
    post(p, "/mcp", MCP_HEADERS, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}");
    assert_true(p->passed);
    play_end(p);
    post(p, "/mcp", MCP_HEADERS, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"shell\"}}");
    assert_true(!p->passed && p->status == 200 && replied(p, "\"isError\":true") && replied(p, "authorize.denied"));
    play_end(p);
    post(p, "/mcp", MCP_HEADERS, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"},{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":"
                                 "\"tools/call\",\"params\":{\"name\":\"shell\"}}]"); /* each call of a batch */
    assert_false(p->passed);
    play_end(p);
    post(p, "/mcp", MCP_HEADERS "content-encoding: gzip", "x"); /* what can't be seen is not allowed */
    assert_true(!p->passed && p->status == 403);
    play_end(p);
    play_request(p, "GET", "/", "", NULL, 0, 0);
    assert_false(p->passed);
    play_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tenants),
#define T(f) cmocka_unit_test_setup_teardown(f, play_setup, play_teardown)
        T(test_a_tool_call), T(test_mcp_messages), T(test_a_batch), T(test_a_batch_of_the_bus), T(test_sessions),
        T(test_what_must_be_json_and_is_none_is_refused),
        T(test_what_two_would_read_differently_is_refused), T(test_headers_must_agree), T(test_blind),
        T(test_too_large_without_a_length), T(test_calls_have_what_may_be), T(test_a_compressed_call), T(test_a_compressed_call_that_stays_unseen),
        T(test_a_stream_that_begins_like_an_array), T(test_grpc), T(test_models), T(test_midstream), T(test_grpc_refusal),
        cmocka_unit_test(test_authorize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
