/* The filter `agent`: what is called.
 *
 * From the head alone it can tell gRPC, and guess the others; who sends JSON, by whatever method, is asked for the whole
 * body, which is scanned once (agent/json.h) and offered to the protocols. A body that is compressed is decoded for that
 * (agent/body.c); what goes on is what came. What can't be seen is said, not guessed: a body that can't be decoded, is
 * too large or of no known kind leaves the call `visible: headers` with the reason, and policies decide what to make of
 * that. Where the head alone says for sure what is called (gRPC) it is `full`, and `blind` says
 * why the body itself was not read. A decision is always by the body; headers that name the call are only compared with
 * it. DESIGN.md section 9, AGENTS.md section 8. */
#include "agent/agent.h"
#include "agent/grpc.h"

#include <stdlib.h>

#include "agent/events.h"
#include "agent/mcp_sessions.h"

#include "authorize.h"
#include "observe/json.h"
#include "observe/observe.h"

struct agent {
    struct ep_authorize authorize;
    struct ep_scanner *scanner; /* made with the first body */
    bool tenant_by_route;       /* some route has a `tenant` */
    uint64_t *blind[EP_BLIND_REASONS]; /* ephor_call_blind_total; NULL: none yet */
};

struct state {
    struct ep_agent_head head;
    const struct ep_agent_protocol *claimed; /* by the head; NULL: nobody */
    bool asked;                              /* for the whole body */
    bool message;                            /* which is one of gRPC */
    bool begun;                              /* the first byte of a body that passes was seen */
    struct ep_agent_live *live;              /* of a response of events; NULL: it is none */
};

static const struct ep_agent_protocol *const protocols[] = {
#define X(symbol) &ep_agent_##symbol,
#include "agent/protocols.def"
#undef X
};

const struct ep_agent_protocol *ep_agent_protocol_find(struct ep_str name)
{
    for (size_t i = 0; i < EP_COUNT(protocols); i++)
        if (ep_str_eq(name, ep_str(protocols[i]->how.name)))
            return protocols[i];
    return NULL;
}

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    const struct ep_listener_config *c = i->chain->config;
    struct agent *a = ep_calloc(1, sizeof *a);

    ep_authorize_load(&a->authorize, i);
    for (size_t k = 0; k < c->routes.n; k++)
        a->tenant_by_route |= ((const struct ep_route_config *)c->routes.v)[k].tenant != NULL;
    i->data = a;
    if (a->authorize.n && !ep_chain_has(c, EP_STR("identity"))) {
        free(a);
        i->data = NULL;
        return ep_error_set(err, "listener %.*s: authorize rules need the filter 'identity'", EP_STR_ARG(c->name));
    }
    return true;
}

static void unload(struct ep_filter_instance *i)
{
    struct agent *a = i->data;

    if (a)
        ep_scanner_free(a->scanner);
    free(a);
}

/* --- the head --- */

static struct ep_str target(struct ep_str path)
{
    ptrdiff_t query = ep_str_find(path, '?', 0);

    if (query >= 0)
        path.n = (size_t)query;
    if (path.n > 1 && path.p[path.n - 1] == '/')
        path.n--;
    return path;
}

static void take_accept(struct ep_call *c, struct ep_agent_head *h, struct ep_str value)
{
    struct ep_str item;

    c->wants_json |= ep_accepts(value, EP_STR("application/json"));
    c->wants_sse |= ep_accepts(value, EP_STR("text/event-stream"));
    while (ep_str_next(&value, ',', &item)) {
        struct ep_str type = ep_media_type(item);
        h->names_json |= ep_str_caseeq(type, EP_STR("application/json"));
        h->names_sse |= ep_str_caseeq(type, EP_STR("text/event-stream"));
        h->names_a2a |= ep_str_caseeq(type, EP_STR("application/a2a+json"));
    }
}

/* No escape, no backslash, no empty segment, none that begins with a dot. */
static bool is_plain_path(struct ep_str path)
{
    char before = '\0';

    for (size_t i = 0; i < path.n; before = path.p[i++])
        if (path.p[i] == '%' || path.p[i] == '\\' || (before == '/' && (path.p[i] == '/' || path.p[i] == '.')))
            return false;
    return true;
}

/* Most paths are what they say. */
static struct ep_str meant(struct ep_arena *arena, struct ep_str path)
{
    char *out;

    if (EP_LIKELY(is_plain_path(path)))
        return path;
    out = ep_arena_alloc(arena, path.n);
    return target(ep_str_n(out, ep_path_meant(path, out)));
}

static void read_head(struct ep_stream *s, struct ep_agent_head *h)
{
    const struct ep_headers *t = &s->request.headers;
    bool accept = false;

    for (uint32_t i = 0; i < t->n; i++) {
        struct ep_str value = t->v[i].value;
        switch (t->v[i].id) {
        case EP_HDR_METHOD:
            h->method = value;
            break;
        case EP_HDR_PATH:
            h->path = target(value);
            h->meant = meant(&s->arena, h->path);
            break;
        case EP_HDR_ACCEPT:
            accept = true;
            take_accept(&s->call, h, value);
            break;
        case EP_HDR_CONTENT_TYPE:
            h->content_types_differ |= h->content_type.p && !ep_str_eq(h->content_type, value);
            h->content_type = value;
            break;
        case EP_HDR_CONTENT_ENCODING:
            h->coding_unknown |= !ep_codings_add(&h->codings, value);
            break;
        case EP_HDR_MCP_PROTOCOL_VERSION:
            h->mcp_version = value;
            break;
        case EP_HDR_MCP_SESSION_ID:
            h->mcp_session = value;
            break;
        case EP_HDR_MCP_METHOD:
            h->mcp_method = value;
            break;
        case EP_HDR_MCP_NAME:
            h->mcp_name = value;
            break;
        case EP_HDR_A2A_VERSION:
            h->a2a_version = ep_str_trim(value);
            break;
        case EP_HDR_ANTHROPIC_VERSION:
            h->anthropic_version = value;
            break;
        case EP_HDR_X_SESSION_ID:
            s->call.session = value;
            break;
        default:
            break;
        }
    }
    if (!accept)
        s->call.wants_json = true;
    h->post = ep_str_eq(h->method, EP_STR("POST"));
}

/* --- whether and how the body can be read --- */

enum body_kind { BODY_OTHER, BODY_MAYBE_JSON, BODY_JSON };

static enum body_kind kind_of(struct ep_str content_type)
{
    struct ep_str type = ep_media_type(content_type);

    if (ep_str_caseeq(type, EP_STR("application/json")) || ep_str_caseeq(type, EP_STR("text/json")))
        return BODY_JSON;
    if (type.n > 5 && ep_str_caseeq(ep_str_n(type.p + type.n - 5, 5), EP_STR("+json")))
        return BODY_JSON;
    /* A server that doesn't look at the type would take JSON under these too. */
    if (type.n == 0 || ep_str_caseeq(type, EP_STR("text/plain")))
        return BODY_MAYBE_JSON;
    return BODY_OTHER;
}

static bool charset_good(struct ep_str content_type)
{
    struct ep_str part;

    ep_str_next(&content_type, ';', &part);
    while (ep_str_next(&content_type, ';', &part)) {
        if (!ep_str_casestarts(part, EP_STR("charset")))
            continue;
        ptrdiff_t equals = ep_str_find(part, '=', 0);
        struct ep_str value =
            equals < 0 ? part : ep_str_trim(ep_str_n(part.p + equals + 1, part.n - (size_t)equals - 1));
        if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"')
            value = ep_str_n(value.p + 1, value.n - 2);
        if (!ep_str_caseeq(value, EP_STR("utf-8")) && !ep_str_caseeq(value, EP_STR("utf8")) &&
            !ep_str_caseeq(value, EP_STR("us-ascii")))
            return false;
    }
    return true;
}

/* Why the body won't be read; EP_BLIND_NOT: it will. */
static enum ep_blind_reason unreadable(const struct ep_stream *s, const struct ep_agent_head *h)
{
    struct ep_str length = ep_headers_get_id(&s->request.headers, EP_HDR_CONTENT_LENGTH);
    enum body_kind kind = kind_of(h->content_type);
    uint64_t n;

    if (s->tunnel)
        return EP_BLIND_STREAMED;
    if (h->coding_unknown)
        return EP_BLIND_ENCODING;
    if (kind == BODY_OTHER || h->content_types_differ || !charset_good(h->content_type))
        return EP_BLIND_UNKNOWN;
    if (ep_str_u64(length, &n))
        return n > s->chain->config->max_body_bytes ? EP_BLIND_TOO_LARGE : EP_BLIND_NOT;
    if (!h->post && !h->content_type.n) /* mostly there is nothing, and only its end comes late */
        return EP_BLIND_NOT;
    return kind == BODY_JSON ? EP_BLIND_NOT : EP_BLIND_STREAMED;
}

static void count(struct ep_stream *s, enum ep_blind_reason why)
{
    struct agent *a = ep_filter_data(s);

    if (!s->worker->stats)
        return;
    if (!a->blind[why])
        a->blind[why] = ep_stats_cell(s->worker->stats, EP_METRIC_CALL_BLIND,
                                      EP_LABELS(s->chain->config->name, ep_str(ep_blind_reason_name(why))));
    ep_cell_add(a->blind[why], 1);
}

static enum ep_step judge(struct ep_stream *s)
{
    const struct agent *a = ep_filter_data(s);

    if (s->call.visible != EP_VISIBLE_FULL)
        count(s, s->call.blind);
    return ep_authorize_check(s, &a->authorize, EP_AUTHORIZE_CALL) ? EP_NEXT : EP_REPLIED;
}

static enum ep_step blind(struct ep_stream *s, enum ep_visible visible, enum ep_blind_reason why)
{
    s->call.visible = visible;
    s->call.blind = why;
    return judge(s);
}

static enum ep_step ask(struct ep_stream *s, struct state *state)
{
    s->call.visible = EP_VISIBLE_HEADERS; /* until it was read: a refusal on the way there knows no id */
    s->call.blind = EP_BLIND_TOO_LARGE;
    state->asked = true;
    return EP_BUFFER;
}

static enum ep_step request_headers(struct ep_stream *s, void *state_, bool end)
{
    const struct agent *a = ep_filter_data(s);
    struct state *state = state_;
    struct ep_agent_head *h = &state->head;
    enum ep_agent_claim claim = EP_AGENT_NO;
    enum ep_blind_reason why;

    if (s->down->version == EP_HTTP_TCP) {
        bool sealed = s->down->conn && s->down->conn->sealed;
        s->call.protocol = EP_STR("tcp");
        ep_agent_tenant(s, a->tenant_by_route);
        return blind(s, EP_VISIBLE_NONE, sealed ? EP_BLIND_ENCRYPTED : EP_BLIND_UNKNOWN);
    }
    read_head(s, h);
    if (!ep_agent_tenant(s, a->tenant_by_route))
        return EP_REPLIED;
    h->end = end;
    s->call.protocol = EP_STR("http");
    s->call.method = h->method;
    for (size_t i = 0; i < EP_COUNT(protocols) && !claim; i++) {
        claim = protocols[i]->head(s, h);
        if (claim)
            state->claimed = protocols[i];
    }
    if (claim) {
        s->protocol = &state->claimed->how;
        s->call.protocol = ep_str(s->protocol->name);
    }
    if (claim == EP_AGENT_HEAD)
        return judge(s);
    if (end && !s->tunnel)
        return blind(s, EP_VISIBLE_FULL, EP_BLIND_NOT);
    if (claim == EP_AGENT_MESSAGE) {
        state->message = true;
        return ask(s, state);
    }
    why = unreadable(s, h);
    return why ? blind(s, EP_VISIBLE_HEADERS, why) : ask(s, state);
}

/* --- the body --- */

static void *from_arena(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

static struct ep_scanner *scanner_of(struct ep_stream *s)
{
    struct agent *a = ep_filter_data(s);

    if (!a->scanner)
        a->scanner = ep_scanner_new(ep_rng_u64(&s->worker->rng));
    return a->scanner;
}

static enum ep_agent_verdict offer(struct ep_stream *s, struct state *state, const struct ep_scan *json)
{
    enum ep_agent_verdict v = EP_AGENT_NOT_MINE;

    for (size_t i = 0; i < EP_COUNT(protocols) && v == EP_AGENT_NOT_MINE; i++) {
        const struct ep_agent_protocol *p = protocols[i];
        const struct ep_protocol *before = s->protocol;
        if (!p->body)
            continue;
        s->protocol = &p->how; /* so that it refuses in its own form */
        v = p->body(s, &state->head, json, p == state->claimed);
        if (v == EP_AGENT_NOT_MINE) {
            s->protocol = before;
            continue;
        }
        for (struct ep_call *c = &s->call; c; c = c->next)
            c->protocol = ep_str(p->how.name);
    }
    return v;
}

/* The bytes as they came are JSON too: a server that looks at no Content-Encoding would read another body. */
static bool is_json_as_it_came(struct ep_stream *s, struct ep_body *b)
{
    struct ep_scan json;
    struct ep_str text;

    if (!ep_agent_may_be_json(b))
        return false;
    text = ep_agent_body(s, b);
    return ep_scan_json(scanner_of(s), text.p, text.n, from_arena, &s->arena, &json) != EP_SCAN_NOT_JSON;
}

/* No message to us, but one to a parser that doesn't look at case. */
static bool looks_like_a_call(const struct ep_scan *json)
{
    for (const struct ep_scan_message *m = json->first; m; m = m->next)
        if (m->ambiguous_method)
            return true;
    return false;
}

/* Not JSON to the most lenient reader either (JSON5 with its comments, or UTF-16 found by its zeros). */
static bool is_plain_text(struct ep_str text)
{
    size_t at = text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    char first, next;

    while (at < text.n && (unsigned char)text.p[at] <= ' ')
        if (text.p[at++] == '\0')
            return false;
    if (at == text.n)
        return false;
    first = text.p[at];
    next = at + 1 < text.n ? text.p[at + 1] : ' ';
    return (unsigned char)first < 0x80 && first != '{' && first != '[' && next != '\0' &&
           !(first == '/' && (next == '/' || next == '*'));
}

/* No JSON, or more than is read of it. What the head calls a message of its protocol must be one, and text that no reader
 * takes for JSON is no call of anybody else's; what is left may be a call to a reader that is less strict. */
static enum ep_step not_json(struct ep_stream *s, const struct state *state, enum ep_scan_result why, struct ep_str text)
{
    static const char *const reasons[] = {[EP_SCAN_NOT_JSON] = "the body is no JSON in UTF-8",
                                          [EP_SCAN_TOO_DEEP] = "the JSON is nested too deep",
                                          [EP_SCAN_TOO_MANY] = "too many messages in a batch"};
    bool plain = is_plain_text(text);

    if (plain && !state->claimed && kind_of(state->head.content_type) == BODY_MAYBE_JSON)
        return judge(s);
    if (plain || !state->claimed)
        return blind(s, EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN);
    ep_agent_bad_request(s, "agent.malformed", ep_str(reasons[why]),
                         why == EP_SCAN_NOT_JSON ? EP_JSONRPC_PARSE_ERROR : EP_JSONRPC_INVALID_REQUEST);
    return EP_REPLIED;
}

/* A body that was not asked for. What said by its head that it is gRPC was judged by that: it must begin like gRPC (a
 * flag of 0 or 1, in base64 an A), so that no JSON goes by under that name to a server that doesn't look at types. */
static enum ep_step pass(struct ep_stream *s, struct state *state, struct ep_body *b)
{
    const struct ep_slice *first = ep_body_front(b);
    struct ep_str type = state->head.content_type;
    bool text = false;

    if (state->begun || !first || !first->n)
        return EP_NEXT;
    state->begun = true;
    if (!state->claimed || (!ep_grpc_is_type(type) && !ep_grpc_is_web_type(type, &text)) ||
        (text ? first->p[0] == 'A' : first->p[0] <= EP_GRPC_COMPRESSED))
        return EP_NEXT;
    ep_agent_bad_request(s, "agent.malformed", EP_STR("this is no gRPC message"), 0);
    return EP_REPLIED;
}

/* A body that is one message of gRPC: read by its protocol. In base64 it is that which was encoded, here and to all who judge. */
static enum ep_step read_message(struct ep_stream *s, struct state *state, struct ep_body *b)
{
    struct ep_str body = ep_agent_body(s, b), text;
    enum ep_agent_verdict verdict = EP_AGENT_REFUSED;
    enum ep_blind_reason why = EP_BLIND_NOT;
    bool malformed, base64;

    ep_grpc_is_web_type(state->head.content_type, &base64);
    malformed = base64 && !ep_grpc_from_text(body, &s->arena, &body);
    if (!malformed)
        why = ep_grpc_single(&s->request.headers, body, s->chain->config->max_body_bytes, &s->arena, &text, &malformed);
    if (!malformed && (why || !scanner_of(s)))
        return blind(s, EP_VISIBLE_HEADERS, why ? why : EP_BLIND_UNKNOWN);
    s->call.visible = EP_VISIBLE_FULL;
    s->call.blind = EP_BLIND_NOT;
    s->call.body = body;
    if (malformed)
        ep_agent_bad_request(s, "agent.malformed", EP_STR("this is not one gRPC message"), 0);
    else
        verdict = state->claimed->message(s, text, scanner_of(s));
    return verdict == EP_AGENT_REFUSED ? EP_REPLIED : judge(s);
}

static enum ep_step request_body(struct ep_stream *s, void *state_, struct ep_body *b, bool end)
{
    struct state *state = state_;
    enum ep_scan_result result;
    struct ep_scan json;
    struct ep_str text;

    if (!state->asked)
        return pass(s, state, b);
    if (!end)
        return EP_NEXT;
    state->asked = false;
    if (state->message)
        return read_message(s, state, b);
    s->call.visible = EP_VISIBLE_FULL;
    s->call.blind = EP_BLIND_NOT;
    if (b->bytes == 0)
        return judge(s);
    if (!scanner_of(s))
        return blind(s, EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN);
    if (EP_UNLIKELY(state->head.codings.n)) {
        enum ep_blind_reason why = ep_agent_decoded(s, &state->head.codings, b, &text);
        if (why || is_json_as_it_came(s, b))
            return blind(s, EP_VISIBLE_HEADERS, why ? why : EP_BLIND_ENCODING);
        if (text.n == 0)
            return judge(s);
    } else {
        text = ep_agent_body(s, b);
    }
    s->call.body = text;
    result = ep_scan_json(scanner_of(s), text.p, text.n, from_arena, &s->arena, &json);
    if (result != EP_SCAN_OK)
        return not_json(s, state, result, text);
    switch (offer(s, state, &json)) {
    case EP_AGENT_REFUSED:
        return EP_REPLIED;
    case EP_AGENT_MINE:
        return judge(s);
    case EP_AGENT_NOT_MINE:
        break;
    }
    if (state->claimed) { /* a path like a model's; the body says that it is none */
        s->protocol = &ep_protocol_http;
        s->call.protocol = EP_STR("http");
        s->call.method = state->head.method;
    }
    if (json.duplicate || looks_like_a_call(&json)) /* two readers would read two bodies */
        return blind(s, EP_VISIBLE_HEADERS, EP_BLIND_UNKNOWN);
    return judge(s);
}

/* Longer than it said, or it said nothing: it goes on in pieces, and policies decide what to make of it. */
static enum ep_step request_too_large(struct ep_stream *s, void *state_)
{
    struct state *state = state_;

    state->asked = false;
    return blind(s, EP_VISIBLE_HEADERS, EP_BLIND_TOO_LARGE);
}

/* --- the response --- */

static enum ep_step response_headers(struct ep_stream *s, void *state_, bool end)
{
    struct state *state = state_;
    bool text;

    if (EP_UNLIKELY(s->live) && !end)
        state->live = ep_agent_live_new(s);
    if (EP_UNLIKELY(state->claimed && ep_grpc_is_web_type(state->head.content_type, &text)))
        s->grpc_web = ep_grpc_web_new(s);
    if (EP_LIKELY(!state->live && !s->grpc_web))
        ep_stream_leave_response_body(s);
    return EP_NEXT;
}

static enum ep_step response_body(struct ep_stream *s, void *state_, struct ep_body *b, bool end)
{
    struct state *state = state_;

    if (EP_UNLIKELY(s->mcp_session != NULL) && !end) /* only whole events came with b */
        ep_body_move(b, &s->mcp_session->say, s->mcp_session->say.bytes, &s->worker->slabs);
    if (EP_UNLIKELY(state->live != NULL))
        ep_agent_live_pass(state->live, s, b, end);
    if (EP_UNLIKELY(s->grpc_web != NULL))
        ep_grpc_web_pass(s->grpc_web, b);
    return EP_NEXT;
}

static void finish(struct ep_stream *s, void *state_)
{
    struct state *state = state_;

    (void)s;
    ep_agent_live_free(state->live);
}

/* --- shared by the protocols --- */

bool ep_agent_midstream_events(const struct ep_stream *s)
{
    return ep_stream_response_is_events(s) && !ep_headers_find_id(&s->response.headers, EP_HDR_CONTENT_LENGTH);
}

void ep_agent_end_by_event(struct ep_stream *s, struct ep_str name, struct ep_str json)
{
    ep_stream_end_midway(s, ep_arena_printf(&s->arena, "\n\n%s%.*s%sdata: %.*s\n\n", name.n ? "event: " : "",
                                            EP_STR_ARG(name), name.n ? "\n" : "", EP_STR_ARG(json)));
}

enum ep_agent_verdict ep_agent_bad_request(struct ep_stream *s, const char *code, struct ep_str reason,
                                           int jsonrpc_code)
{
    ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_BAD_REQUEST,
                                             .policy = EP_STR("agent"),
                                             .reason = reason,
                                             .code = code,
                                             .grpc_status = -1,
                                             .jsonrpc_code = jsonrpc_code});
    return EP_AGENT_REFUSED;
}

bool ep_agent_path_ends(struct ep_str path, struct ep_str suffix)
{
    return path.n >= suffix.n && ep_str_caseeq(ep_str_n(path.p + path.n - suffix.n, suffix.n), suffix);
}

const struct ep_filter ep_filter_agent = {
    .name = "agent",
    .help = "What is called: recognises MCP, gRPC and language models, and fills the call record for all that follow.",
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .request_body = request_body,
    .request_too_large = request_too_large,
    .response_headers = response_headers,
    .response_body = response_body,
    .finish = finish,
};
