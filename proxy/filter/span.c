/* A stream as a span: OpenTelemetry's semantic conventions for HTTP, RPC, GenAI and MCP, and what is ephor's own.
 *
 * Never in a span: queries, header values but the user agent, bodies, prompts, arguments, reasons (policies write them). */
#include "filter/span.h"

#include <stdio.h>

#include "filter/private.h"
#include "filter/trace.h"

#define BATCH_EVENTS_MAX 32u

/* --- the queue --- */

static struct ep_span_batch *at(struct ep_span_queue *q, unsigned i)
{
    return &q->batch[(q->first + i) % EP_SPAN_BATCHES];
}

void ep_span_batch_free(struct ep_span_batch *b)
{
    ep_otlp_fini(&b->bytes);
    b->n = 0;
}

bool ep_span_queue_take(struct ep_span_queue *q, struct ep_span_batch *out)
{
    if (q->n == 0)
        return false;
    *out = *at(q, 0);
    *at(q, 0) = (struct ep_span_batch){.n = 0};
    q->first = (q->first + 1) % EP_SPAN_BATCHES;
    q->n--;
    return true;
}

static void drop_oldest(struct ep_span_queue *q)
{
    struct ep_span_batch b;

    if (!ep_span_queue_take(q, &b))
        return;
    ep_cell_add(q->dropped, b.n);
    ep_span_batch_free(&b);
}

void ep_span_queue_clear(struct ep_span_queue *q)
{
    while (q->n)
        drop_oldest(q);
}

/* The batch that the next span goes into. */
static struct ep_span_batch *open_batch(struct ep_span_queue *q)
{
    struct ep_span_batch *last = q->n ? at(q, q->n - 1) : NULL;

    if (last && last->bytes.n < EP_SPAN_BATCH_BYTES)
        return last;
    if (q->n == EP_SPAN_BATCHES)
        drop_oldest(q);
    q->n++;
    q->wall_ns = ep_clock_wall_ns() - ep_clock_ns();
    return at(q, q->n - 1);
}

/* --- attributes --- */

static void text(struct ep_otlp *o, struct ep_str key, struct ep_str value)
{
    ep_otlp_attribute(o, EP_OTLP_SPAN_ATTRIBUTES, key, value);
}

static void number(struct ep_otlp *o, struct ep_str key, uint64_t value)
{
    ep_otlp_attribute_int(o, EP_OTLP_SPAN_ATTRIBUTES, key, (int64_t)value);
}

static void seconds(struct ep_otlp *o, struct ep_str key, uint64_t ns)
{
    ep_otlp_attribute_double(o, EP_OTLP_SPAN_ATTRIBUTES, key, (double)ns / 1e9);
}

/* "host:port", "[::1]:443" or "host" as an address and, when it is there, a port. */
static void address(struct ep_otlp *o, struct ep_str key, struct ep_str port_key, struct ep_str s)
{
    size_t colon = s.n;
    uint64_t port;

    while (colon && s.p[colon - 1] != ':' && s.p[colon - 1] != ']')
        colon--;
    if (colon > 1 && s.p[colon - 1] == ':' && ep_str_u64(ep_str_n(s.p + colon, s.n - colon), &port)) {
        if (port_key.n)
            number(o, port_key, port);
        s.n = colon - 1;
    }
    if (s.n > 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
        s = ep_str_n(s.p + 1, s.n - 2);
    text(o, key, s);
}

static struct ep_str without_query(struct ep_str path)
{
    ptrdiff_t n = ep_str_find(path, '?', 0);

    return n < 0 ? path : ep_str_n(path.p, (size_t)n);
}

/* Methods that are known have their names, others would be as many as callers like. */
static struct ep_str http_method(const struct ep_stream *s)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    struct ep_str method = ep_stream_method(s);

    for (size_t i = 0; i < EP_COUNT(known); i++)
        if (ep_str_eq(method, ep_str(known[i])))
            return method;
    return EP_STR("_OTHER");
}

static void http(struct ep_otlp *o, struct ep_stream *s)
{
    struct ep_str path = without_query(ep_stream_path(s)), authority = ep_stream_authority(s);
    struct ep_str scheme = ep_headers_get_id(&s->request.headers, EP_HDR_SCHEME);

    text(o, EP_STR("http.request.method"), http_method(s));
    if (s->status)
        number(o, EP_STR("http.response.status_code"), s->status);
    text(o, EP_STR("url.scheme"), scheme);
    text(o, EP_STR("url.path"), path);
    if (s->direction == EP_OUTBOUND) {
        if (scheme.n && authority.n)
            text(o, EP_STR("url.full"),
                 ep_arena_printf(&s->arena, "%.*s://%.*s%.*s", EP_STR_ARG(scheme), EP_STR_ARG(authority), EP_STR_ARG(path)));
        if (s->attempts > 1)
            number(o, EP_STR("http.request.resend_count"), s->attempts - 1);
    }
    text(o, EP_STR("user_agent.original"), ep_headers_get_id(&s->request.headers, EP_HDR_USER_AGENT));
    text(o, EP_STR("network.protocol.version"), s->down->version == EP_HTTP_2 ? EP_STR("2") : EP_STR("1.1"));
    address(o, EP_STR("server.address"), EP_STR("server.port"), authority);
}

static void peer(struct ep_otlp *o, const struct ep_stream *s)
{
    char name[128];
    struct ep_str downstream = {NULL, 0};

    if (s->down->conn)
        downstream = ep_str_n(name, (size_t)ep_addr_format(&s->down->conn->peer, name));
    if (s->direction == EP_INBOUND) {
        address(o, EP_STR("client.address"), EP_STR(""), downstream);
        address(o, EP_STR("network.peer.address"), EP_STR("network.peer.port"), downstream);
    } else {
        address(o, EP_STR("network.peer.address"), EP_STR("network.peer.port"), s->endpoint);
    }
}

static const char *const grpc_codes[] = {
    "OK",        "CANCELLED",          "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",   "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",     "UNIMPLEMENTED",     "INTERNAL",    "UNAVAILABLE",    "DATA_LOSS",
    "UNAUTHENTICATED"};

static struct ep_str grpc_code(const struct ep_stream *s)
{
    return s->grpc_status >= 0 && (size_t)s->grpc_status < EP_COUNT(grpc_codes) ? ep_str(grpc_codes[s->grpc_status])
                                                                                 : (struct ep_str){NULL, 0};
}

/* gen_ai.operation.name of a model's call; empty: none that the conventions name. */
static struct ep_str model_operation(const struct ep_call *c)
{
    static const char *const names[][2] = {{"chat/completions", "chat"},
                                           {"responses", "chat"},
                                           {"messages", "chat"},
                                           {"completions", "text_completion"},
                                           {"embeddings", "embeddings"}};

    for (size_t i = 0; i < EP_COUNT(names); i++)
        if (ep_str_eq(c->method, ep_str(names[i][0])))
            return ep_str(names[i][1]);
    return (struct ep_str){NULL, 0};
}

/* "tools/call search", "chat gpt-5", "POST" … Two parts, of which the second may be empty. */
struct name {
    struct ep_str what, of;
};

/* The JSON-RPC id as text, without quotes. */
static struct ep_str request_id(const struct ep_call *c)
{
    struct ep_str id = c->id_raw;

    return id.n > 2 && id.p[0] == '"' ? ep_str_n(id.p + 1, id.n - 2) : id;
}

static struct name mcp(struct ep_otlp *o, const struct ep_call *c)
{
    struct ep_str of = c->tool.n ? c->tool : c->prompt_name;

    text(o, EP_STR("mcp.method.name"), c->method);
    text(o, EP_STR("mcp.protocol.version"), c->version);
    text(o, EP_STR("mcp.session.id"), c->session);
    text(o, EP_STR("mcp.resource.uri"), without_query(c->uri));
    text(o, EP_STR("jsonrpc.request.id"), request_id(c));
    if (c->tool.n)
        text(o, EP_STR("gen_ai.operation.name"), EP_STR("execute_tool"));
    text(o, EP_STR("gen_ai.tool.name"), c->tool);
    text(o, EP_STR("gen_ai.prompt.name"), c->prompt_name);
    return (struct name){c->method, of};
}

static struct name grpc(struct ep_otlp *o, const struct ep_stream *s)
{
    struct ep_str path = ep_stream_path(s), method = path.n ? ep_str_n(path.p + 1, path.n - 1) : path;

    text(o, EP_STR("rpc.system.name"), EP_STR("grpc"));
    text(o, EP_STR("rpc.method"), method);
    text(o, EP_STR("rpc.response.status_code"), grpc_code(s));
    return (struct name){method, {NULL, 0}};
}

/* What the provider says of it; an estimate of ours is none of the conventions' numbers. */
static void usage(struct ep_otlp *o, const struct ep_usage *u)
{
    if (!u || !u->answered)
        return;
    text(o, EP_STR("gen_ai.response.model"), ep_str_n(u->model, u->model_n));
    if (u->input_known)
        number(o, EP_STR("gen_ai.usage.input_tokens"), u->input);
    if (u->output_known)
        number(o, EP_STR("gen_ai.usage.output_tokens"), u->output);
}

static struct name model(struct ep_otlp *o, const struct ep_stream *s)
{
    const struct ep_call *c = &s->call;
    struct ep_str operation = model_operation(c);

    usage(o, s->usage);
    text(o, EP_STR("gen_ai.provider.name"), c->protocol);
    text(o, EP_STR("gen_ai.operation.name"), operation);
    text(o, EP_STR("gen_ai.request.model"), c->model);
    return (struct name){operation, c->model};
}

static struct name protocol(struct ep_otlp *o, const struct ep_stream *s)
{
    const struct ep_call *c = &s->call;

    if (ep_str_eq(c->protocol, EP_STR("mcp")))
        return mcp(o, c);
    if (ep_str_eq(c->protocol, EP_STR("grpc")))
        return grpc(o, s);
    if (c->model.n)
        return model(o, s);
    return (struct name){{NULL, 0}, {NULL, 0}};
}

static void own(struct ep_otlp *o, const struct ep_stream *s, const struct ep_span_times *t)
{
    const struct ep_call *c = &s->call;

    text(o, EP_STR("ephor.listener"), s->listener->name);
    text(o, EP_STR("ephor.direction"), s->direction == EP_INBOUND ? EP_STR("inbound") : EP_STR("outbound"));
    text(o, EP_STR("ephor.cluster"), s->cluster_name);
    text(o, EP_STR("ephor.protocol"), c->protocol);
    if (!ep_str_eq(c->method, ep_stream_method(s)))
        text(o, EP_STR("ephor.call.method"), c->method);
    text(o, EP_STR("ephor.peer.id"), s->peer_id);
    text(o, EP_STR("ephor.upstream.peer.id"), s->upstream_peer_id);
    text(o, EP_STR("ephor.tenant"), c->tenant);
    text(o, EP_STR("ephor.response_flag"), ep_str(s->response_flag));
    if (s->fault_injected)
        ep_otlp_attribute_bool(o, EP_OTLP_SPAN_ATTRIBUTES, EP_STR("ephor.fault"), true);
    seconds(o, EP_STR("ephor.stage.self"), t->self);
    seconds(o, EP_STR("ephor.stage.filter"), t->filter);
    seconds(o, EP_STR("ephor.stage.queue"), t->queue);
    seconds(o, EP_STR("ephor.stage.upstream"), t->upstream);
}

static void decision(struct ep_otlp *o, const struct ep_stream *s)
{
    text(o, EP_STR("ephor.decision.id"), s->decision_id);
    text(o, EP_STR("ephor.decision"), ep_str(s->decision));
    text(o, EP_STR("ephor.policy"), s->decision ? s->decision_policy : s->denied_by);
    text(o, EP_STR("ephor.principle"), s->decision_principle);
    text(o, EP_STR("ephor.code"), s->denied_code);
}

/* --- the calls of a batch --- */

static void call(struct ep_otlp *o, const struct ep_call *c, uint64_t time_ns, bool refused)
{
    bool is_mcp = ep_str_eq(c->protocol, EP_STR("mcp"));
    const struct {
        struct ep_str key, value;
    } said[] = {
        {is_mcp ? EP_STR("mcp.method.name") : EP_STR("ephor.call.method"), c->method},
        {EP_STR("jsonrpc.request.id"), request_id(c)},
        {EP_STR("mcp.resource.uri"), without_query(c->uri)},
        {EP_STR("gen_ai.tool.name"), c->tool},
        {EP_STR("gen_ai.prompt.name"), c->prompt_name},
        {EP_STR("gen_ai.request.model"), c->model},
    };
    size_t in = ep_otlp_open(o, EP_OTLP_SPAN_EVENTS);

    ep_otlp_fixed64(o, EP_OTLP_EVENT_TIME, time_ns);
    ep_otlp_text(o, EP_OTLP_EVENT_NAME, EP_STR("ephor.call"));
    for (size_t i = 0; i < EP_COUNT(said); i++)
        ep_otlp_attribute(o, EP_OTLP_EVENT_ATTRIBUTES, said[i].key, said[i].value);
    if (refused)
        ep_otlp_attribute_bool(o, EP_OTLP_EVENT_ATTRIBUTES, EP_STR("ephor.refused"), true);
    ep_otlp_close(o, in);
}

/* An event for each of the first, and for the one that was refused. */
static void batch(struct ep_otlp *o, const struct ep_stream *s, uint64_t wall_ns)
{
    uint64_t n = 0;

    for (const struct ep_call *c = &s->call; c; c = c->next)
        if (n++ < BATCH_EVENTS_MAX || c == s->denied_call)
            call(o, c, s->time.body_end + wall_ns, c == s->denied_call);
    number(o, EP_STR("ephor.batch.calls"), n);
}

/* --- the status --- */

/* Of gRPC's codes those that are the server's fault; a client's span has more (semantic conventions, rpc/grpc). */
static bool grpc_failed(const struct ep_stream *s)
{
    const unsigned server = 1u << 2 | 1u << 4 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 15;

    return s->grpc_status > 0 && (s->direction == EP_OUTBOUND || (server >> s->grpc_status & 1u));
}

/* The flag of what went wrong; a client that left ("DC") is no error, and usual where streams are long. */
static struct ep_str failure(const struct ep_stream *s)
{
    return s->response_flag && strcmp(s->response_flag, "DC") != 0 ? ep_str(s->response_flag) : (struct ep_str){NULL, 0};
}

/* Why the span is an error; empty: it is none. Of a refusal its code, whatever the protocol made of it on the wire. */
static struct ep_str error_type(struct ep_stream *s)
{
    if (s->refused)
        return s->denied_code.n ? s->denied_code : EP_STR("refused");
    if (grpc_failed(s))
        return grpc_code(s);
    if (s->status >= (s->direction == EP_OUTBOUND ? 400u : 500u))
        return ep_arena_printf(&s->arena, "%u", s->status);
    return failure(s);
}

static void status(struct ep_otlp *o, struct ep_str type)
{
    size_t in;

    if (!type.n)
        return;
    text(o, EP_STR("error.type"), type);
    in = ep_otlp_open(o, EP_OTLP_SPAN_STATUS);
    ep_otlp_text(o, EP_OTLP_STATUS_MESSAGE, type);
    ep_otlp_varint(o, EP_OTLP_STATUS_CODE, EP_OTLP_STATUS_ERROR);
    ep_otlp_close(o, in);
}

/* --- the span --- */

static void name(struct ep_otlp *o, struct ep_stream *s, struct name n)
{
    bool tcp = s->down->version == EP_HTTP_TCP;

    if (!n.what.n)
        n.what = tcp ? EP_STR("tcp") : ep_str_eq(http_method(s), EP_STR("_OTHER")) ? EP_STR("HTTP") : ep_stream_method(s);
    ep_otlp_text(o, EP_OTLP_SPAN_NAME,
                 n.of.n ? ep_arena_printf(&s->arena, "%.*s %.*s", EP_STR_ARG(n.what), EP_STR_ARG(n.of)) : n.what);
}

static void encode(struct ep_otlp *o, struct ep_stream *s, const struct ep_span_times *t, uint64_t wall_ns)
{
    size_t in = ep_otlp_open(o, EP_OTLP_SCOPE_SPANS_SPANS);

    ep_otlp_hex(o, EP_OTLP_SPAN_TRACE_ID, ep_stream_trace(s));
    ep_otlp_hex(o, EP_OTLP_SPAN_ID, ep_stream_span(s));
    if (s->parent_id.n) {
        ep_otlp_hex(o, EP_OTLP_SPAN_PARENT_ID, s->parent_id);
        ep_otlp_text(o, EP_OTLP_SPAN_TRACE_STATE, ep_headers_get_id(&s->request.headers, EP_HDR_TRACESTATE));
    }
    ep_otlp_fixed32(o, EP_OTLP_SPAN_FLAGS, s->trace_flags | (s->parent_id.n ? EP_OTLP_PARENT_IS_REMOTE : 0));
    ep_otlp_varint(o, EP_OTLP_SPAN_KIND, s->direction == EP_INBOUND ? EP_OTLP_KIND_SERVER : EP_OTLP_KIND_CLIENT);
    ep_otlp_fixed64(o, EP_OTLP_SPAN_START, s->time.accepted + wall_ns);
    ep_otlp_fixed64(o, EP_OTLP_SPAN_END, s->time.flushed + wall_ns);
    if (s->down->version != EP_HTTP_TCP)
        http(o, s);
    peer(o, s);
    name(o, s, protocol(o, s));
    own(o, s, t);
    if (s->call.batch)
        batch(o, s, wall_ns);
    decision(o, s);
    status(o, error_type(s));
    ep_otlp_close(o, in);
}

void ep_span_record(struct ep_stream *s, const struct ep_span_times *t)
{
    struct ep_span_queue *q = s->worker->spans;
    bool notable = s->refused || s->decision || s->status >= 500 || failure(s).n;
    struct ep_span_batch *b;
    bool was_empty = q->n == 0;

    if (!(notable && s->view->trace_decisions == EP_TRACE_DECISIONS_ALWAYS) && !ep_stream_traced(s))
        return;
    b = open_batch(q);
    encode(&b->bytes, s, t, q->wall_ns);
    b->n++;
    if (was_empty || b->bytes.n >= EP_SPAN_BATCH_BYTES)
        q->ready(q, b->bytes.n >= EP_SPAN_BATCH_BYTES);
}
