/* link: ep_filters */
/* Agent2Agent: recognised in each binding and version, one record for all of them, refused in each one's form. */
#include "agent/a2a.h"
#include "agent/grpc.h"
#include "agent/parts.h"
#include "filter_play.h"

#include <openssl/evp.h>

extern const struct ep_filter ep_filter_agent;
const struct ep_filter *const play_filter = &ep_filter_agent;

#define JSON "content-type: application/json|accept: application/json"
#define MCP  "content-type: application/json|accept: application/json, text/event-stream|mcp-session-id: s"

static void post(struct play *p, const char *path, const char *headers, const char *body)
{
    play_request(p, "POST", path, headers, body, strlen(body), 7);
}

static struct ep_str prompt(struct play *p)
{
    return ep_parts_text(p->s->call.parts, &p->s->arena);
}

/* --- JSON-RPC --- */

#define RPC(method, params) "{\"jsonrpc\":\"2.0\",\"method\":\"" method "\",\"params\":" params ",\"id\":7}"
#define MESSAGE                                                                                                                \
    "{\"message\":{\"messageId\":\"m\",\"role\":\"user\",\"taskId\":\"t1\",\"contextId\":\"c1\",\"metadata\":{\"skillId\":"     \
    "\"book\"},\"parts\":[{\"kind\":\"text\",\"text\":\"hello \\u00e9\"},{\"kind\":\"data\",\"data\":{\"parts\":[{\"text\":"   \
    "\"inner\"}],\"n\":5}},{\"kind\":\"file\",\"file\":{\"name\":\"a.txt\",\"mimeType\":\"text/plain\",\"bytes\":\"AAAA\"}}]}}"
#define TEXT "hello \xc3\xa9\nparts\ntext\ninner\nn\n5\na.txt"

static void test_json_rpc(void **state)
{
    static const struct {
        const char *headers, *body, *protocol, *version, *method, *task, *context, *tool;
        bool stream;
    } rows[] = {
        {JSON, RPC("message/send", MESSAGE), "a2a", "0.3", "message/send", "t1", "c1", "book", false},
        {JSON, RPC("message/stream", MESSAGE), "a2a", "0.3", "message/stream", "t1", "c1", "book", true},
        {JSON "|a2a-version: 1.0", RPC("SendMessage", MESSAGE), "a2a", "1.0", "message/send", "t1", "c1", "book", false},
        {JSON, RPC("SendStreamingMessage", MESSAGE), "a2a", "1.0", "message/stream", "t1", "c1", "book", true},
        {MCP, RPC("message/send", MESSAGE), "a2a", "0.3", "message/send", "t1", "c1", "book", false},
        {JSON, RPC("tasks/get", "{\"id\":\"t2\"}"), "a2a", "0.3", "tasks/get", "t2", "", "", false},
        {JSON, RPC("GetTask", "{\"id\":\"t2\"}"), "a2a", "1.0", "tasks/get", "t2", "", "", false},
        {JSON, RPC("ListTasks", "{\"contextId\":\"c2\"}"), "a2a", "1.0", "tasks/list", "", "c2", "", false},
        {JSON, RPC("tasks/resubscribe", "{\"id\":\"t2\"}"), "a2a", "0.3", "tasks/resubscribe", "t2", "", "", true},
        {JSON, RPC("tasks/pushNotificationConfig/set", "{\"taskId\":\"t3\"}"), "a2a", "0.3",
         "tasks/pushNotificationConfig/set", "t3", "", "", false},
        {JSON, RPC("tasks/pushNotificationConfig/get", "{\"id\":\"t3\",\"taskId\":\"no\"}"), "a2a", "0.3",
         "tasks/pushNotificationConfig/get", "t3", "", "", false},
        {JSON, RPC("GetTaskPushNotificationConfig", "{\"id\":\"no\",\"taskId\":\"t3\"}"), "a2a", "1.0",
         "tasks/pushNotificationConfig/get", "t3", "", "", false},
        {JSON, RPC("agent/getAuthenticatedExtendedCard", "{}"), "a2a", "0.3", "agent/getAuthenticatedExtendedCard", "", "", "",
         false},
        {JSON "|a2a-version: 1.0", RPC("Unheard", "{}"), "a2a", "1.0", "Unheard", "", "", "", false},
        {JSON, RPC("SendMessage", "{\"metadata\":{\"skill\":\"s\"}}"), "a2a", "1.0", "message/send", "", "", "s", false},
        /* whose is it? the body decides */
        {JSON "|a2a-version: 1.0", RPC("tools/call", "{\"name\":\"x\"}"), "mcp", "", "tools/call", "", "", "x", false},
        {MCP, RPC("tasks/get", "{\"taskId\":\"t4\"}"), "mcp", "", "tasks/get", "t4", "", "", false},
        {JSON, RPC("tasks/cancel", "{\"taskId\":\"t4\"}"), "mcp", "", "tasks/cancel", "t4", "", "", false},
        {MCP, RPC("tasks/cancel", "{\"id\":\"t4\"}"), "a2a", "0.3", "tasks/cancel", "t4", "", "", false},
        {MCP, RPC("tasks/list", "{}"), "mcp", "", "tasks/list", "", "", "", false},
        {JSON "|a2a-version: 1.0", "{\"x\":1}", "http", NULL, "POST", "", "", "", false},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_call *c;
        post(p, "/rpc", rows[i].headers, rows[i].body);
        c = &p->s->call;
        assert_str(c->protocol, rows[i].protocol);
        if (rows[i].version)
            assert_str(c->version, rows[i].version);
        assert_str(c->method, rows[i].method);
        assert_str(c->task, rows[i].task);
        assert_str(c->context, rows[i].context);
        assert_str(c->tool, rows[i].tool);
        assert_true(c->stream == rows[i].stream && p->body_passed && c->visible == EP_VISIBLE_FULL);
        if (rows[i].context[0] && c->parts.n)
            assert_str(prompt(p), TEXT);
        play_end(p);
    }
    post(p, "/rpc", JSON, "[" RPC("message/send", MESSAGE) "," RPC("GetTask", "{\"id\":\"b\"}") "]");
    assert_true(p->body_passed && p->s->call.batch && p->s->call.next && !p->s->call.next->next);
    assert_str(p->s->call.next->protocol, "a2a"); /* which only the body says here */
    assert_str(p->s->call.task, "t1");
    assert_str(p->s->call.next->task, "b");
    play_end(p);
}

static void test_what_two_would_read_differently(void **state)
{
    static const struct {
        const char *path, *body, *code;
    } rows[] = {
        {"/rpc", RPC("tasks/get", "{\"id\":\"a\",\"taskId\":\"b\"}"), "\"id\":7,\"error\":{\"code\":-32600"},
        {"/rpc", RPC("message/send", "{\"message\":{\"parts\":[],\"Parts\":[]}}"), "-32600"},
        {"/rpc", RPC("message/send", "{\"message\":{\"parts\":[],\"content\":[]}}"), "-32600"},
        {"/rpc", RPC("message/send", "{\"message\":{\"parts\":[]},\"Message\":{}}"), "-32600"},
        {"/rpc", RPC("SendMessage", "{\"message\":{\"taskId\":\"a\",\"task_id\":\"b\",\"parts\":[]}}"), "-32600"},
        {"/rpc", RPC("SendMessage", "{\"message\":{\"metadata\":{\"skill\":\"a\"}},\"metadata\":{\"skill\":\"b\"}}"), "-32600"},
        {"/rpc", "{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"method\":\"message/send\",\"id\":1}", "-32600"},
        {"/rpc", "{\"jsonrpc\":\"2.0\",\"method\":\"message/send\",\"id\":{}}", "-32600"},
        {"/rpc", "[" RPC("message/send", MESSAGE) "," RPC("tools/call", "{\"name\":\"x\"}") "]", "-32600"},
        {"/message:send", "{\"message\":{\"parts\":[]},\"request\":{\"parts\":[]}}", "INVALID_ARGUMENT"},
        {"/message:send", RPC("tools/call", "{\"name\":\"x\"}"), "INVALID_ARGUMENT"},
        {"/message:send", "{\"message\":{},\"message\":{}}", "INVALID_ARGUMENT"},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        post(p, rows[i].path, JSON, rows[i].body);
        if (p->body_passed || p->status != 400 || !strstr(p->body, rows[i].code))
            fail_msg("row %zu: %u %s", i, p->status, p->body);
    }
}

/* --- REST --- */

static void test_rest(void **state)
{
    static const struct {
        const char *http_method, *path, *headers, *body, *version, *method, *task, *context; /* version NULL: plain HTTP */
    } rows[] = {
        {"POST", "/message:send", JSON, MESSAGE, "1.0", "message/send", "t1", "c1"},
        {"POST", "/a2a/tenant-1/message:stream?x=1", JSON, MESSAGE, "1.0", "message/stream", "t1", "c1"},
        {"POST", "/v1/message:send", JSON, "{\"request\":{\"content\":[{\"text\":\"x\"}],\"task_id\":\"t\"}}", "0.3",
         "message/send", "t", ""},
        {"POST", "/x/message%3asend", JSON, MESSAGE, "1.0", "message/send", "t1", "c1"},
        {"POST", "//x/./MESSAGE:SEND/", JSON, MESSAGE, "1.0", "message/send", "t1", "c1"},
        {"POST", "/message:send", "content-type: application/a2a+json|a2a-version: 1.0|mcp-session-id: s", MESSAGE, "1.0",
         "message/send", "t1", "c1"},
        {"GET", "/v1/tasks/t5", "accept: application/json", "", "0.3", "tasks/get", "t5", ""},
        {"GET", "/tasks/t5?historyLength=1", "a2a-version: 1.0", "", "1.0", "tasks/get", "t5", ""},
        {"GET", "/tasks", "accept: application/a2a+json, application/json", "", "1.0", "tasks/list", "", ""},
        {"GET", "/tasks", "accept: application/json", "", NULL, "GET", "", ""},
        {"POST", "/tasks", JSON, "{}", NULL, "POST", "", ""},
        {"POST", "/tasks/t5:cancel", JSON, "{}", "1.0", "tasks/cancel", "t5", ""},
        {"POST", "/tasks/t5:cancel", "", "", "1.0", "tasks/cancel", "t5", ""},
        {"GET", "/tasks/t5:subscribe", "", "", "1.0", "tasks/resubscribe", "t5", ""},
        {"POST", "/v1/tasks/t5:subscribe", "", "", "0.3", "tasks/resubscribe", "t5", ""},
        {"POST", "/tasks/t5/pushNotificationConfigs", JSON, "{}", "1.0", "tasks/pushNotificationConfig/set", "t5", ""},
        {"GET", "/tasks/t5/pushNotificationConfigs", "", "", "1.0", "tasks/pushNotificationConfig/list", "t5", ""},
        {"DELETE", "/tasks/t5/pushNotificationConfigs/c", "", "", "1.0", "tasks/pushNotificationConfig/delete", "t5", ""},
        {"GET", "/extendedAgentCard", "", "", "1.0", "agent/getAuthenticatedExtendedCard", "", ""},
        {"GET", "/v1/card", "a2a-version: 0.3", "", "0.3", "agent/getAuthenticatedExtendedCard", "", ""},
        {"GET", "/v1/card", "", "", NULL, "GET", "", ""},
        {"GET", "/.well-known/agent-card.json", "a2a-version: 1.0", "", NULL, "GET", "", ""},
        {"PUT", "/tasks/t5", "", "", NULL, "PUT", "", ""},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        const char *body = rows[i].body;
        play_request(p, rows[i].http_method, rows[i].path, rows[i].headers, body[0] ? body : NULL, strlen(body), 9);
        assert_str(p->s->call.protocol, rows[i].version ? "a2a" : "http");
        if (rows[i].version)
            assert_str(p->s->call.version, rows[i].version);
        assert_str(p->s->call.method, rows[i].method);
        assert_str(p->s->call.task, rows[i].task);
        assert_str(p->s->call.context, rows[i].context);
        if (p->s->call.visible != EP_VISIBLE_FULL || !p->passed)
            fail_msg("row %zu", i);
        play_end(p);
    }
    /* what can't be read is said */
    post(p, "/message:send", "content-type: text/csv", "a,b");
    assert_true(p->s->call.visible == EP_VISIBLE_HEADERS && p->s->call.blind == EP_BLIND_UNKNOWN);
    play_end(p);
    post(p, "/message:send", JSON, "[1]");
    assert_true(p->s->call.visible == EP_VISIBLE_HEADERS && ep_str_eq(p->s->call.protocol, EP_STR("a2a")));
    play_end(p);
}

/* --- gRPC --- */

struct bytes {
    char v[2048];
    size_t n;
};

static void put(struct bytes *b, unsigned number, const void *p, size_t n)
{
    assert_true(n < 128 * 128);
    b->v[b->n++] = (char)(number << 3 | EP_PROTO_BYTES);
    if (n >= 128)
        b->v[b->n++] = (char)(n | 0x80);
    b->v[b->n++] = (char)(n >= 128 ? n >> 7 : n);
    memcpy(b->v + b->n, p, n);
    b->n += n;
}

static void puts_(struct bytes *b, unsigned number, const char *text)
{
    put(b, number, text, strlen(text));
}

/* A Value that is a Struct of one string. */
static void put_struct(struct bytes *out, unsigned number, const char *key, const char *text, bool as_value)
{
    struct bytes value = {.n = 0}, entry = {.n = 0}, object = {.n = 0}, wrapped = {.n = 0};

    puts_(&value, 3, text);
    puts_(&entry, 1, key);
    put(&entry, 2, value.v, value.n);
    put(&object, 1, entry.v, entry.n);
    put(&wrapped, 5, object.v, object.n);
    if (as_value)
        put(out, number, wrapped.v, wrapped.n);
    else
        put(out, number, object.v, object.n);
}

static struct bytes framed(const struct bytes *message)
{
    struct bytes out = {.n = 5};

    out.v[3] = (char)(message->n >> 8);
    out.v[4] = (char)message->n;
    memcpy(out.v + 5, message->v, message->n);
    out.n += message->n;
    return out;
}

static void call(struct play *p, const char *path, const char *headers, const struct bytes *message)
{
    struct bytes b = framed(message);

    play_request(p, "POST", path, headers, b.v, b.n, 11);
}

static void send_1(struct bytes *out, const char *text)
{
    struct bytes message = {.n = 0}, part = {.n = 0}, data = {.n = 0};

    *out = (struct bytes){.n = 0};
    puts_(&part, 1, text);
    put_struct(&data, 4, "deep", "word", true);
    puts_(&message, 1, "m");
    puts_(&message, 2, "c1");
    put(&message, 5, part.v, part.n);
    puts_(&message, 3, "t1"); /* between the parts, as protobuf allows */
    put(&message, 5, data.v, data.n);
    put_struct(&message, 6, "skillId", "book", false);
    put(out, 2, message.v, message.n);
}

#define GRPC "content-type: application/grpc|te: trailers"
#define ONE  "/lf.a2a.v1.A2AService/"
#define OLD  "/a2a.v1.A2AService/"

static void test_grpc(void **state)
{
    struct play *p = *state;
    struct bytes m, name = {.n = 0};
    struct ep_call *c;

    send_1(&m, "hi \"you\"");
    call(p, ONE "SendStreamingMessage", GRPC, &m);
    c = &p->s->call;
    assert_true(p->body_passed && c->visible == EP_VISIBLE_FULL && c->blind == EP_BLIND_NOT && c->stream);
    assert_str(c->protocol, "a2a");
    assert_str(c->version, "1.0");
    assert_str(c->method, "message/stream");
    assert_str(c->service, "lf.a2a.v1.A2AService");
    assert_str(c->task, "t1");
    assert_str(c->context, "c1");
    assert_str(c->tool, "book");
    assert_str(c->parts, "[{\"text\":\"hi \\\"you\\\"\"},{\"data\":{\"deep\":\"word\"}}]");
    assert_str(prompt(p), "hi \"you\"\ndeep\nword");
    play_end(p);

    puts_(&name, 1, "tasks/t9/pushNotificationConfigs/c");
    call(p, OLD "GetTaskPushNotificationConfig", GRPC, &name);
    assert_str(p->s->call.version, "0.3");
    assert_str(p->s->call.method, "tasks/pushNotificationConfig/get");
    assert_str(p->s->call.task, "t9");
    play_end(p);
    call(p, OLD "TaskSubscription", "content-type: application/grpc-web+proto", &name);
    assert_str(p->s->call.method, "tasks/resubscribe");
    assert_str(p->s->call.task, "t9");
    play_end(p);
    /* unknown methods and other codecs are not read, and say so */
    call(p, ONE "Unheard", GRPC, &name);
    assert_true(p->body_passed && p->s->call.visible == EP_VISIBLE_HEADERS && p->s->call.blind == EP_BLIND_UNKNOWN);
    assert_str(p->s->call.protocol, "a2a");
    play_end(p);
    play_request(p, "POST", ONE "SendMessage", GRPC "|grpc-encoding: snappy", "\1\0\0\0\1x", 6, 3);
    assert_true(p->body_passed && p->s->call.visible == EP_VISIBLE_HEADERS && p->s->call.blind == EP_BLIND_ENCODING);
    play_end(p);
    call(p, "/other.Service/SendMessage", GRPC, &m);
    assert_str(p->s->call.protocol, "grpc");
    play_end(p);
}

/* application/grpc-web-text: in one piece, or as often padded as its sender flushed. */
static void test_grpc_text(void **state)
{
    struct bytes name = {.n = 0}, b;
    struct play *p = *state;
    char text[400];

    puts_(&name, 1, "tasks/t9");
    b = framed(&name);
    for (size_t first = 0; first < 8; first += 7) { /* bytes of a piece in front */
        size_t n = EVP_EncodeBlock((unsigned char *)text, (unsigned char *)b.v, first);
        n += EVP_EncodeBlock((unsigned char *)text + n, (unsigned char *)b.v + first, b.n - first);
        play_request(p, "POST", OLD "CancelTask", "content-type: application/grpc-web-text", text, n, 5);
        assert_true(p->body_passed && p->s->call.visible == EP_VISIBLE_FULL && p->s->call.blind == EP_BLIND_NOT);
        assert_str(p->s->call.method, "tasks/cancel");
        assert_str(p->s->call.task, "t9");
        play_end(p);
    }
    play_request(p, "POST", OLD "CancelTask", "content-type: application/grpc-web-text", "AAAAAA", 6, 100);
    assert_true(!p->body_passed && strstr(p->head, "grpc-status: 3"));
    play_end(p);
    play_request(p, "POST", OLD "CancelTask", "content-type: application/grpc-web-text", "AAAAAAA=", 8, 100);
    assert_true(p->body_passed && p->s->call.visible == EP_VISIBLE_FULL);
}

static void call_json(struct play *p, const char *path, const char *type, const char *json)
{
    struct bytes m = {.n = strlen(json)};

    memcpy(m.v, json, m.n);
    call(p, path, type, &m);
}

/* application/grpc+json: the same object as in REST, whatever names protobuf's mapping has for a field. */
static void test_grpc_json(void **state)
{
    static const char *const bad[] = {
        "{}, \"x\": {}",  "{\"id\": 1}}", "[1]", "7", "{\"id\": \"a\", \"id\": \"b\"}", "{\"message\": {\"taskId\": \"a\", \"task_id\": \"b\"}}",
        "{\"message\": {\"parts\": [], \"content\": []}}", "{\"message\": {\"Parts\": []}}",
    };
    struct play *p = *state;

    call_json(p, ONE "SendMessage", "content-type: application/grpc+json",
              "{\"message\":{\"taskId\":\"t1\",\"parts\":[{\"text\":\"hi\"}],\"metadata\":{\"skill\":\"book\"}}} \n");
    assert_true(p->body_passed && p->s->call.visible == EP_VISIBLE_FULL && p->s->call.blind == EP_BLIND_NOT);
    assert_str(p->s->call.method, "message/send");
    assert_str(p->s->call.task, "t1");
    assert_str(p->s->call.tool, "book");
    assert_str(p->s->call.parts, "[{\"text\":\"hi\"}]");
    play_end(p);
    call_json(p, OLD "SendMessage", "content-type: application/grpc-web+json",
              "{\"request\":{\"task_id\":\"t2\",\"content\":[{\"text\":\"hi\"}]}}");
    assert_str(p->s->call.task, "t2");
    assert_str(p->s->call.parts, "[{\"text\":\"hi\"}]");
    play_end(p);
    call_json(p, OLD "GetTask", "content-type: application/grpc+json", "{\"name\":\"tasks/t3\"}");
    assert_str(p->s->call.task, "t3");
    play_end(p);
    for (size_t i = 0; i < EP_COUNT(bad); i++) {
        call_json(p, ONE "SendMessage", "content-type: application/grpc+json", bad[i]);
        if (p->body_passed != (bad[i][0] != '{') || (!p->body_passed && !strstr(p->head, "grpc-status: 3")))
            fail_msg("row %zu", i);
        assert_true(!p->body_passed || p->s->call.visible == EP_VISIBLE_HEADERS);
        play_end(p);
    }
    /* what could be protobuf too, to a server that doesn't look at the type, is not said to be seen */
    call_json(p, ONE "SendMessage", "content-type: application/grpc+json", "{\"message\":{\"parts\":[{\"text\":\"a|b\"}]}}");
    assert_true(p->body_passed && p->s->call.visible == EP_VISIBLE_HEADERS && p->s->call.blind == EP_BLIND_UNKNOWN);
    play_end(p);
    call_json(p, ONE "SendMessage", "content-type: application/grpc+json", "\n{\"message\":{}}");
    assert_true(p->body_passed && p->s->call.visible == EP_VISIBLE_HEADERS);
}

static void test_grpc_malformed(void **state)
{
    struct play *p = *state;
    struct bytes m, twice, bad = {.n = 0};

    send_1(&m, "x");
    twice = m;
    memcpy(twice.v + twice.n, m.v, m.n); /* a message given twice: one parser merges, another takes the last */
    twice.n += m.n;
    call(p, ONE "SendMessage", GRPC, &twice);
    assert_true(!p->body_passed && strstr(p->head, "grpc-status: 3"));
    puts_(&bad, 2, "\x0b");
    call(p, ONE "SendMessage", GRPC, &bad);
    assert_true(!p->body_passed && strstr(p->head, "grpc-status: 3"));
    bad.n = 0;
    puts_(&bad, 2, "\xff\xfe");
    call(p, ONE "GetTask", GRPC, &bad); /* no UTF-8 */
    assert_true(!p->body_passed && strstr(p->head, "grpc-status: 3"));
    play_request(p, "POST", ONE "GetTask", GRPC, "\0\0\0\0\0\0\0\0\0\0", 10, 3); /* two messages */
    assert_true(!p->body_passed && strstr(p->head, "grpc-status: 3"));
    play_request(p, "POST", ONE "Unheard", GRPC, "{\"jsonrpc\"", 10, 3);
    assert_true(!p->body_passed && strstr(p->head, "grpc-status: 3"));
}

/* --- refusals --- */

static const struct ep_refusal denied = {.kind = EP_REFUSE_POLICY, .policy = EP_STR_INIT("no-x"), .principle = EP_STR_INIT("P1"),
                                         .reason = EP_STR_INIT("not \"that\""), .code = "policy.denied", .grpc_status = -1};

#define SAYS "Refused by policy no-x: not \\\"that\\\" (principle P1)"
#define INFO                                                                                                                   \
    "[{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"reason\":\"UNSUPPORTED_OPERATION\",\"domain\":"                \
    "\"a2a-protocol.org\",\"metadata\":{\"policy\":\"no-x\",\"principle\":\"P1\",\"code\":\"policy.denied\",\"decision\":\"d\"}}]"

static void test_answers(void **state)
{
    struct play *p = *state;
    struct ep_call c = {.method = EP_STR("message/send"), .version = EP_STR("0.3"), .id_raw = EP_STR("\"\\u00e9\""),
                        .binding = EP_BINDING_JSONRPC, .visible = EP_VISIBLE_FULL};
    struct ep_refusal failed = {.kind = EP_REFUSE_UPSTREAM, .code = "upstream.connect", .grpc_status = -1};
    struct ep_refusal limit = {.kind = EP_REFUSE_LIMIT, .code = "limit", .grpc_status = -1, .retry_after_s = 3};
    struct ep_answer a;

    post(p, "/rpc", JSON, RPC("message/send", MESSAGE)); /* for its arena */
    ep_a2a_answer(&c, &denied, EP_STR("d"), &p->s->arena, &a);
    assert_int_equal(a.status, 200);
    assert_str(a.content_type, "application/json");
    assert_str(a.body, "{\"jsonrpc\":\"2.0\",\"id\":\"\\u00e9\",\"error\":{\"code\":-32004,\"message\":\"" SAYS "\",\"data\":"
                       "{\"policy\":\"no-x\",\"principle\":\"P1\",\"code\":\"policy.denied\",\"decision\":\"d\"}}}");
    c.version = EP_STR("1.0");
    c.stream = true;
    ep_a2a_answer(&c, &denied, EP_STR("d"), &p->s->arena, &a);
    assert_int_equal(a.status, 200);
    assert_str(a.content_type, "text/event-stream");
    assert_str(a.body, "data: {\"jsonrpc\":\"2.0\",\"id\":\"\\u00e9\",\"error\":{\"code\":-32004,\"message\":\"" SAYS
                       "\",\"data\":" INFO "}}\n\n");
    c.stream = false;
    ep_a2a_answer(&c, &failed, EP_STR("d"), &p->s->arena, &a);
    assert_true(a.status == 200 && ep_str_search(a.body, EP_STR("\"code\":-32603")) >= 0);
    ep_a2a_answer(&c, &limit, EP_STR("d"), &p->s->arena, &a);
    assert_true(a.status == 200 && ep_str_search(a.body, EP_STR("\"code\":429")) >= 0 &&
                ep_str_search(a.body, EP_STR("\"retryAfter\":\"3\"")) >= 0);
    c.id_raw = EP_STR(""); /* the body was not read */
    ep_a2a_answer(&c, &denied, EP_STR("d"), &p->s->arena, &a);
    assert_true(a.status == 403 && ep_str_starts(a.body, EP_STR("{\"jsonrpc\":\"2.0\",\"id\":null,\"error\"")));
    c.binding = EP_BINDING_REST;
    c.stream = true;
    ep_a2a_answer(&c, &denied, EP_STR("d"), &p->s->arena, &a);
    assert_int_equal(a.status, 403);
    assert_str(a.body, "{\"code\":-32004,\"message\":\"" SAYS "\",\"error\":{\"code\":403,\"status\":\"PERMISSION_DENIED\","
                       "\"message\":\"" SAYS "\",\"details\":" INFO "}}");
    ep_a2a_answer(&c, &failed, EP_STR("d"), &p->s->arena, &a);
    assert_true(a.status == 502 && ep_str_search(a.body, EP_STR("\"status\":\"UNAVAILABLE\"")) >= 0);
    play_end(p);
    /* a batch: an error for each id */
    post(p, "/rpc", JSON, "[" RPC("message/send", MESSAGE) ",{\"jsonrpc\":\"2.0\",\"method\":\"GetTask\",\"id\":\"x\"}]");
    ep_a2a_answer(&p->s->call, &denied, EP_STR("d"), &p->s->arena, &a);
    assert_true(a.status == 200 && ep_str_starts(a.body, EP_STR("[{\"jsonrpc\":\"2.0\",\"id\":7,\"error\"")) &&
                ep_str_search(a.body, EP_STR(",{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"error\"")) >= 0);
    play_end(p);
}

static void respond(struct play *p, const char *type, const char *data, size_t n)
{
    struct ep_headers h;

    ep_headers_init(&h, &p->s->arena);
    ep_headers_add_id(&h, EP_HDR_STATUS, EP_STR("200"));
    ep_headers_add_id(&h, EP_HDR_CONTENT_TYPE, ep_str(type));
    ep_stream_response_headers(p->s, &h, false);
    ep_stream_response_data(p->s, (struct ep_slice){NULL, (const unsigned char *)data, n}, false);
    ep_stream_refuse(p->s, &denied);
    play_turn(p);
}

static void test_midstream(void **state)
{
    struct play *p = *state;
    struct bytes m;

    post(p, "/rpc", JSON, RPC("message/stream", MESSAGE));
    respond(p, "text/event-stream", "data: {\"half", 12);
    assert_non_null(strstr(p->body, "\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"error\":{\"code\":-32004"));
    assert_true(!p->reset && p->released);
    post(p, "/message:stream", JSON, MESSAGE);
    respond(p, "text/event-stream", "data: {}\n\n", 10);
    assert_non_null(strstr(p->body, "\n\nevent: error\ndata: {\"code\":-32004"));
    assert_non_null(strstr(p->body, "\"error\":{\"code\":403"));
    send_1(&m, "x");
    call(p, ONE "SendStreamingMessage", GRPC, &m);
    respond(p, "application/grpc", "\0\0\0\0\1x", 6);
    assert_non_null(strstr(p->trailers, "grpc-status: 7|grpc-message: Refused by policy no-x"));
    assert_non_null(strstr(p->trailers, "grpc-status-details-bin: CAcS"));
}

static void test_grpc_before(void **state)
{
    struct play *p = *state;
    struct bytes m;

    send_1(&m, "x");
    call(p, ONE "SendMessage", GRPC, &m);
    ep_stream_refuse(p->s, &denied);
    play_turn(p);
    assert_non_null(strstr(p->head, "content-type: application/grpc|grpc-status: 7|grpc-message: Refused by policy no-x"));
    assert_non_null(strstr(p->head, "grpc-status-details-bin: CAcS"));
    assert_null(strstr(p->head, "content-length"));
}

/* --- gRPC-Web --- */

static void test_web_refusals(void **state)
{
    struct play *p = *state;
    char *found;

    play_request(p, "POST", "/a.B/C", "content-type: application/grpc-web+proto", "\0\0\0\0\0", 5, 10);
    assert_str(p->s->call.protocol, "grpc");
    assert_true(p->body_passed && p->s->call.visible == EP_VISIBLE_FULL);
    ep_stream_refuse(p->s, &denied);
    play_turn(p);
    assert_int_equal(p->status, 200);
    assert_non_null(strstr(p->head, "content-type: application/grpc-web+proto|grpc-status: 7|grpc-message: Refused"));
    assert_int_equal(p->body_n, 0);
    /* behind a whole frame: one more, with the trailers */
    play_request(p, "POST", "/a.B/C", "content-type: application/grpc-web", "\0\0\0\0\0", 5, 10);
    respond(p, "application/grpc-web", "\0\0\0\0\1x", 6);
    assert_false(p->reset);
    assert_memory_equal(p->body, "\0\0\0\0\1x\x80\0\0", 9);
    found = p->body + 11;
    assert_memory_equal(found, "grpc-status:7\r\ngrpc-message:Refused by policy no-x: not \"that\" (principle P1)", 74);
    assert_int_equal((unsigned char)p->body[10] + 11, p->body_n);
    assert_memory_equal(p->body + p->body_n - 2, "\r\n", 2);
    /* in the middle of a frame nothing can be said */
    play_request(p, "POST", "/a.B/C", "content-type: application/grpc-web", "\0\0\0\0\0", 5, 10);
    respond(p, "application/grpc-web", "\0\0\0\0\2x", 6);
    assert_true(p->reset);
    /* base64, padded after the first frame */
    play_request(p, "POST", "/a.B/C", "content-type: application/grpc-web-text", "AAAAAAA=", 8, 10);
    assert_true(p->body_passed);
    respond(p, "application/grpc-web-text", "AAAAAAF4AAAAAAA=", 16);
    assert_false(p->reset);
    assert_memory_equal(p->body + 16, "gAAA", 4);
    assert_int_equal(p->body_n % 4, 0);
    play_request(p, "POST", "/a.B/C", "content-type: application/grpc-web-text", "AAAAAAA=", 8, 10);
    respond(p, "application/grpc-web-text", "AAAAAA", 6);
    assert_true(p->reset);
    /* JSON by that name */
    play_request(p, "POST", "/a.B/C", "content-type: application/grpc-web-text", "{\"jsonrpc\"", 10, 10);
    assert_false(p->body_passed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, play_setup, play_teardown)
        T(test_json_rpc),       T(test_what_two_would_read_differently),
        T(test_rest),           T(test_grpc),
        T(test_grpc_malformed), T(test_answers),
        T(test_grpc_text),      T(test_grpc_json),
        T(test_midstream),      T(test_grpc_before),
        T(test_web_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
