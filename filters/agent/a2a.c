/* Agent2Agent 0.3 and 1.0 over JSON-RPC, REST and gRPC: recognised, and the call record filled.
 *
 * All bindings are one protocol to who judges them: a method has one name (the table below), and a message's parts are
 * where `parts` says, whatever they came in. In JSON-RPC the body decides: a message of A2A is one whatever its headers
 * name, and a batch must be of one protocol. In REST the path decides, taken as a lenient server may take it; with
 * JSON-RPC in the body too it is refused, since somebody might read that. What two readers could read differently is
 * refused as well. Sources: a2a-protocol.org 0.3.0 and 1.0.0, AGENTS.md sections 3 and 8. */
#include "agent/a2a.h"
#include "agent/grpc.h"
#include "agent/mcp.h"

#define ID_MAX_BYTES    16384u
#define SERVICE_1       EP_STR("lf.a2a.v1.A2AService")
#define SERVICE_03      EP_STR("a2a.v1.A2AService")

static const struct ep_str none = {NULL, 0};

#define M(name, one, grpc03, stream, shared) \
    {EP_STR_INIT(name), EP_STR_INIT(one), EP_STR_INIT(grpc03), stream, shared}
static const struct ep_a2a_method methods[] = {
    M("message/send", "SendMessage", "", false, false),
    M("message/stream", "SendStreamingMessage", "", true, false),
    M("tasks/get", "GetTask", "", false, true),
    M("tasks/list", "ListTasks", "", false, true),
    M("tasks/cancel", "CancelTask", "", false, true),
    M("tasks/resubscribe", "SubscribeToTask", "TaskSubscription", true, false),
    M("tasks/pushNotificationConfig/set", "CreateTaskPushNotificationConfig", "", false, false),
    M("tasks/pushNotificationConfig/get", "GetTaskPushNotificationConfig", "", false, false),
    M("tasks/pushNotificationConfig/list", "ListTaskPushNotificationConfigs", "ListTaskPushNotificationConfig", false, false),
    M("tasks/pushNotificationConfig/delete", "DeleteTaskPushNotificationConfig", "", false, false),
    M("agent/getAuthenticatedExtendedCard", "GetExtendedAgentCard", "GetAgentCard", false, false),
};
#undef M
enum { SEND, STREAM, GET, LIST, CANCEL, RESUBSCRIBE, PUSH_SET, PUSH_GET, PUSH_LIST, PUSH_DELETE, CARD };

static bool is(struct ep_str name, struct ep_str s)
{
    return name.n && ep_str_eq(s, name);
}

const struct ep_a2a_method *ep_a2a_by_name(struct ep_str name)
{
    for (size_t i = 0; i < EP_COUNT(methods); i++)
        if (is(methods[i].name, name) || is(methods[i].one, name))
            return &methods[i];
    return NULL;
}

const struct ep_a2a_method *ep_a2a_by_rpc(struct ep_str rpc)
{
    for (size_t i = 0; i < EP_COUNT(methods); i++)
        if (is(methods[i].one, rpc) || is(methods[i].grpc03, rpc))
            return &methods[i];
    return NULL;
}

bool ep_a2a_is_service(struct ep_str service, bool *old)
{
    *old = ep_str_eq(service, SERVICE_03);
    return *old || ep_str_eq(service, SERVICE_1);
}

static struct ep_str text_of(const struct ep_scan_value *v)
{
    return v->kind == EP_SCAN_STRING ? ep_agent_str(v->text) : none;
}

static struct ep_str raw_of(const struct ep_scan_value *v)
{
    return v->kind > EP_SCAN_NULL ? ep_agent_str(v->raw) : none;
}

static void named(struct ep_call *c, const struct ep_a2a_method *m, enum ep_binding binding)
{
    c->binding = binding;
    c->method = m->name;
    c->stream = m->stream;
}

/* --- the head: gRPC --- */

static enum ep_agent_claim grpc_head(struct ep_stream *s, const struct ep_agent_head *h)
{
    struct ep_call *c = &s->call;
    const struct ep_a2a_method *m;
    bool old, text, web = ep_grpc_is_web_type(h->content_type, &text);

    if ((!web && !ep_grpc_is_type(h->content_type)) || !ep_grpc_name(s, h->path) ||
        !ep_a2a_is_service(c->service, &old))
        return EP_AGENT_NO;
    m = ep_a2a_by_rpc(c->method);
    c->version = old ? EP_STR("0.3") : EP_STR("1.0");
    c->binding = EP_BINDING_GRPC;
    c->blind = EP_BLIND_UNKNOWN;
    c->visible = EP_VISIBLE_HEADERS;
    if (m)
        named(c, m, EP_BINDING_GRPC);
    return m ? EP_AGENT_MESSAGE : EP_AGENT_HEAD;
}

/* --- the head: REST --- */

#define SEGMENTS 4u /* of a path's end, the last first */

static void split(struct ep_str path, struct ep_str last[SEGMENTS])
{
    for (unsigned i = 0; i < SEGMENTS; i++) {
        size_t n = path.n;
        while (n > 0 && path.p[n - 1] != '/')
            n--;
        last[i] = ep_str_n(path.p + n, path.n - n);
        path.n = n ? n - 1 : 0;
    }
}

/* The ID in front of ":cancel". */
static bool ends(struct ep_str segment, const char *verb, struct ep_str *id)
{
    struct ep_str end = ep_str(verb);

    if (segment.n <= end.n || !ep_str_caseeq(ep_str_n(segment.p + segment.n - end.n, end.n), end))
        return false;
    *id = ep_str_n(segment.p, segment.n - end.n);
    return true;
}

/* The method that a path names, and the task; NULL: none. What other APIs have too (/tasks, /v1/card) needs a mark of
 * A2A. */
static const struct ep_a2a_method *rest_method(const struct ep_agent_head *h, bool marked, struct ep_str *task)
{
    bool get = ep_str_eq(h->method, EP_STR("GET")), delete = ep_str_eq(h->method, EP_STR("DELETE"));
    struct ep_str v[SEGMENTS];

    *task = none;
    if (EP_LIKELY(!marked && h->meant.n < sizeof "/tasks/x" - 1))
        return NULL;
    split(h->meant, v);
    if (h->post && ep_str_caseeq(v[0], EP_STR("message:send")))
        return &methods[SEND];
    if (h->post && ep_str_caseeq(v[0], EP_STR("message:stream")))
        return &methods[STREAM];
    if (get && (ep_str_caseeq(v[0], EP_STR("extendedAgentCard")) ||
                (marked && ep_str_caseeq(v[0], EP_STR("card")) && ep_str_caseeq(v[1], EP_STR("v1")))))
        return &methods[CARD];
    if (get && marked && ep_str_caseeq(v[0], EP_STR("tasks")))
        return &methods[LIST];
    if (ep_str_caseeq(v[1], EP_STR("tasks"))) {
        if (h->post && ends(v[0], ":cancel", task))
            return &methods[CANCEL];
        if ((h->post || get) && ends(v[0], ":subscribe", task))
            return &methods[RESUBSCRIBE];
        *task = v[0];
        return get && v[0].n ? &methods[GET] : NULL;
    }
    if (ep_str_caseeq(v[0], EP_STR("pushNotificationConfigs")) && ep_str_caseeq(v[2], EP_STR("tasks"))) {
        *task = v[1];
        return h->post ? &methods[PUSH_SET] : get ? &methods[PUSH_LIST] : NULL;
    }
    if (ep_str_caseeq(v[1], EP_STR("pushNotificationConfigs")) && ep_str_caseeq(v[3], EP_STR("tasks"))) {
        *task = v[2];
        return get ? &methods[PUSH_GET] : delete ? &methods[PUSH_DELETE] : NULL;
    }
    return NULL;
}

static bool is_a2a_type(struct ep_str type)
{
    return ep_str_caseeq(ep_media_type(type), EP_STR("application/a2a+json"));
}

static enum ep_agent_claim head(struct ep_stream *s, const struct ep_agent_head *h)
{
    bool marked = h->a2a_version.n || h->names_a2a || is_a2a_type(h->content_type);
    const struct ep_a2a_method *m;
    struct ep_call *c = &s->call;
    struct ep_str task;

    if (h->post && ep_str_casestarts(h->content_type, EP_STR("application/grpc")))
        return grpc_head(s, h);
    m = rest_method(h, marked, &task);
    if (m) {
        named(c, m, EP_BINDING_REST);
        c->task = task;
        c->version = h->a2a_version.n                               ? h->a2a_version
                     : ep_str_search(h->meant, EP_STR("/v1/")) >= 0 ? EP_STR("0.3")
                                                                    : EP_STR("1.0");
        c->visible = EP_VISIBLE_FULL;
        return h->post || !h->end ? EP_AGENT_BODY : EP_AGENT_HEAD;
    }
    if (!marked || (h->end && !h->post) || h->mcp_session.p || h->mcp_version.p || h->mcp_method.p)
        return EP_AGENT_NO;
    c->binding = EP_BINDING_JSONRPC;
    c->method = none; /* only the body can tell */
    c->version = h->a2a_version;
    return EP_AGENT_BODY;
}

/* --- the body: whose is it --- */

/* MCP's tasks/get and tasks/cancel have params.taskId, ours params.id; with both it is refused later. */
static bool is_a2a(const struct ep_scan_message *m, const struct ep_agent_head *h, bool claimed)
{
    struct ep_str name = text_of(&m->method);
    const struct ep_a2a_method *row = ep_a2a_by_name(name);
    bool mcp = h->mcp_session.p || h->mcp_version.p || h->mcp_method.p || (h->names_json && h->names_sse);

    if (!m->is_object || !m->method.kind)
        return false;
    if (!row)
        return claimed && !ep_mcp_is_method(name);
    if (!row->shared || is(row->one, name))
        return true;
    if (row == &methods[LIST])
        return claimed || !mcp;
    return m->a2a_id.kind || (!m->task_id.kind && (claimed || !mcp));
}

/* --- the call record --- */

static void unseen(struct ep_call *c)
{
    c->visible = EP_VISIBLE_HEADERS;
    c->blind = EP_BLIND_UNKNOWN;
}

/* "tasks/ID", "tasks/ID/pushNotificationConfigs/ID": 0.3's names. */
static struct ep_str task_in(struct ep_str name)
{
    ptrdiff_t slash;

    if (!ep_str_starts(name, EP_STR("tasks/")))
        return none;
    name = ep_str_n(name.p + 6, name.n - 6);
    slash = ep_str_find(name, '/', 0);
    return slash < 0 ? name : ep_str_n(name.p, (size_t)slash);
}

/* The task that a method of JSON-RPC or gRPC is about. In 1.0 `id` is the configuration's own where there is a
 * `taskId`. */
static struct ep_str task_of(const struct ep_a2a_method *row, const struct ep_scan_message *m, bool one)
{
    size_t at = row ? (size_t)(row - methods) : SEND;

    if (at <= STREAM)
        return text_of(&m->message_task_id);
    if (m->name.kind && !m->a2a_id.kind && !m->task_id.kind)
        return task_in(text_of(&m->name));
    if (at == PUSH_SET || (one && at >= PUSH_GET && at <= PUSH_DELETE))
        return text_of(m->task_id.kind ? &m->task_id : &m->a2a_task_id);
    return text_of(&m->a2a_id);
}

/* What stands in a request, whatever it came in. */
static void fill_request(struct ep_call *c, const struct ep_scan_message *m)
{
    struct ep_str context = text_of(&m->context_id);

    c->parts = raw_of(m->parts.kind ? &m->parts : &m->message_content);
    c->context = context.n ? context : text_of(&m->list_context_id);
    c->tool = m->skill.kind ? text_of(&m->skill) : text_of(&m->request_skill);
}

static void fill_rpc(struct ep_call *c, const struct ep_scan_message *m, struct ep_str version)
{
    struct ep_str name = text_of(&m->method);
    const struct ep_a2a_method *row = ep_a2a_by_name(name);
    bool one = row && is(row->one, name);

    c->method = name;
    if (row)
        named(c, row, EP_BINDING_JSONRPC);
    c->binding = EP_BINDING_JSONRPC;
    c->version = version.n ? version : one ? EP_STR("1.0") : EP_STR("0.3");
    c->notification = m->id.kind == EP_SCAN_ABSENT;
    if (!c->notification) {
        c->id_raw = ep_agent_str(m->id.raw);
        c->id_text = ep_agent_str(m->id.text);
    }
    c->arguments = raw_of(&m->params);
    c->task = task_of(row, m, one);
    fill_request(c, m);
    if (!name.n)
        unseen(c);
}

/* --- what is refused for its form --- */

static const char *malformed_request(const struct ep_scan_message *m)
{
    bool skills = m->skill.kind && m->request_skill.kind;

    if (m->ambiguous_a2a)
        return "ambiguous key: it differs from one of the protocol by case only, or names the same in two ways";
    if (m->parts.kind && m->message_content.kind)
        return "a message has `parts` or `content`, not both";
    if (skills && !ep_str_eq(text_of(&m->skill), text_of(&m->request_skill)))
        return "two skills are named";
    return NULL;
}

static const char *malformed_rpc(const struct ep_scan_message *m)
{
    const struct ep_a2a_method *row = ep_a2a_by_name(text_of(&m->method));

    if (m->ambiguous || m->ambiguous_params)
        return "ambiguous key: it differs from one of the protocol by case only";
    if (m->id.kind == EP_SCAN_BOOL || m->id.kind == EP_SCAN_ARRAY || m->id.kind == EP_SCAN_OBJECT)
        return "the id must be a string or a number";
    if (m->id.raw.n > ID_MAX_BYTES)
        return "the id is too long";
    if (row && row->shared && m->a2a_id.kind && m->task_id.kind)
        return "both `id` and `taskId`: A2A goes by one, MCP by the other";
    return malformed_request(m);
}

static enum ep_agent_verdict malformed(struct ep_stream *s, const struct ep_scan *json, const char *why)
{
    return ep_agent_bad_request(s, json->duplicate ? "agent.duplicate_key" : "agent.malformed",
                                ep_str(json->duplicate ? "duplicate key" : why), EP_JSONRPC_INVALID_REQUEST);
}

static enum ep_agent_verdict rest_body(struct ep_stream *s, const struct ep_scan *json)
{
    const struct ep_scan_message *m = json->first;
    const char *why;

    if (json->duplicate)
        return malformed(s, json, NULL);
    if (json->batch || !m->is_object) {
        unseen(&s->call);
        return EP_AGENT_MINE;
    }
    why = malformed_request(m);
    if (m->method.kind || m->jsonrpc.kind)
        why = "a message of JSON-RPC on a path of REST";
    if (why)
        return malformed(s, json, why);
    s->call.arguments = s->call.body;
    if (!s->call.task.n)
        s->call.task = text_of(&m->message_task_id);
    fill_request(&s->call, m);
    return EP_AGENT_MINE;
}

static enum ep_agent_verdict body(struct ep_stream *s, const struct ep_agent_head *h, const struct ep_scan *json,
                                  bool claimed)
{
    struct ep_call *c = &s->call, common;
    const char *why = NULL;
    bool seen = true;
    unsigned n = 0;

    if (claimed && c->binding == EP_BINDING_REST)
        return rest_body(s, json);
    for (const struct ep_scan_message *m = json->first; m; m = m->next)
        n += is_a2a(m, h, claimed);
    if (n == 0)
        return EP_AGENT_NOT_MINE;
    c->visible = EP_VISIBLE_FULL;
    c->blind = EP_BLIND_NOT;
    c->batch = json->batch;
    common = *c;
    for (const struct ep_scan_message *m = json->first; m; m = m->next) {
        if (m != json->first) {
            c = c->next = ep_arena_alloc(&s->arena, sizeof *c);
            *c = common;
        }
        fill_rpc(c, m, h->a2a_version);
        seen &= c->visible == EP_VISIBLE_FULL;
        why = why ? why : malformed_rpc(m);
    }
    if (n != json->n)
        why = "a batch of more than one protocol";
    if (why || json->duplicate)
        return malformed(s, json, why);
    for (c = &s->call; c && !seen; c = c->next)
        unseen(c);
    return EP_AGENT_MINE;
}

/* --- a message of gRPC --- */

static void *from_arena(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

/* +json: the message is JSON, to servers that look at the type. Others read it as protobuf, to which `{` begins a group that
 * only a `|` can end: with one the same bytes could be two requests. */
static bool is_json_only(struct ep_str text)
{
    return text.n && text.p[0] == '{' && !memchr(text.p, '|', text.n);
}

#define PARAMS "{\"params\":"

/* Whether `text`, made by as_params, has its one object there and nothing else: what came was one. */
static bool is_one_object(struct ep_str text, struct ep_str params)
{
    size_t at = sizeof PARAMS - 1 + params.n;

    while (at + 1 < text.n && memchr(" \t\r\n", text.p[at], 4))
        at++;
    return at + 1 == text.n;
}

/* The same object that ep_a2a_json makes of protobuf. */
static struct ep_str as_params(struct ep_str text, struct ep_arena *arena)
{
    struct ep_str open = EP_STR(PARAMS);
    char *copy = ep_arena_alloc(arena, open.n + text.n + 1 + EP_SCAN_PADDING);

    memcpy(copy, open.p, open.n);
    memcpy(copy + open.n, text.p, text.n);
    copy[open.n + text.n] = '}';
    memset(copy + open.n + text.n + 1, 0, EP_SCAN_PADDING);
    return ep_str_n(copy, open.n + text.n + 1);
}

static enum ep_agent_verdict message(struct ep_stream *s, struct ep_str bytes, struct ep_scanner *scanner)
{
    const struct ep_a2a_method *row = ep_a2a_by_name(s->call.method);
    struct ep_call *c = &s->call;
    struct ep_str text;
    struct ep_scan json;
    bool old, is_json = ep_grpc_is_json_type(ep_headers_get_id(&s->request.headers, EP_HDR_CONTENT_TYPE));
    const char *why = "this is no message of A2A";

    ep_a2a_is_service(c->service, &old);
    if (is_json && !is_json_only(bytes)) {
        unseen(c);
        return EP_AGENT_MINE;
    }
    text = is_json ? as_params(bytes, &s->arena) : ep_a2a_json(old, row, bytes, &s->arena);
    if (text.n && ep_scan_json(scanner, text.p, text.n, from_arena, &s->arena, &json) == EP_SCAN_OK && !json.duplicate &&
        (!is_json || is_one_object(text, raw_of(&json.first->params))))
        why = is_json ? malformed_rpc(json.first) : NULL;
    if (why)
        return ep_agent_bad_request(s, "agent.malformed", ep_str(why), EP_JSONRPC_INVALID_REQUEST);
    c->arguments = raw_of(&json.first->params);
    c->task = task_of(row, json.first, !old);
    fill_request(c, json.first);
    return EP_AGENT_MINE;
}

const struct ep_agent_protocol ep_agent_a2a = {
    .how = {.name = "a2a", .refuse = ep_a2a_refuse, .refuse_midstream = ep_a2a_refuse_midstream},
    .head = head,
    .body = body,
    .message = message,
};
