/* How refusals look: statuses of each kind, and the answers of plain HTTP and TCP. The agent protocols have theirs in
 * filters/agent. Sources: RFC 9457 (problem details), RFC 9110 section 12.5.1 (Accept), gRPC's status codes. */
#include "filter/refusal.h"

#include "observe/json.h"

#define PRINCIPLE_TEXT_MAX 200u /* in a sentence; a longer one is told where there is a member for it */

static const struct {
    unsigned status, grpc;
    const char *title, *lead;
} kinds[EP_REFUSE_KINDS] = {
    [EP_REFUSE_POLICY] = {403, 7, "Refused by policy", "Refused by policy"},
    [EP_REFUSE_UNAUTHORIZED] = {403, 7, "Caller not authorized", "Refused: the caller is not authorized"},
    [EP_REFUSE_LIMIT] = {429, 8, "Limit reached", "Refused by limit"},
    [EP_REFUSE_TOO_LARGE] = {413, 8, "Message too large", "Refused: the message is too large"},
    [EP_REFUSE_BAD_REQUEST] = {400, 3, "Bad request", "Bad request"},
    [EP_REFUSE_NO_ROUTE] = {404, 12, "No route", "There is no route for this request"},
    [EP_REFUSE_UNAVAILABLE] = {503, 14, "Service unavailable", "The service is unavailable"},
    [EP_REFUSE_UPSTREAM] = {502, 14, "Upstream failed", "The service failed"},
    [EP_REFUSE_TIMEOUT] = {504, 4, "Upstream timed out", "The service took too long"},
    [EP_REFUSE_FAULT] = {503, 14, "Injected fault", "Injected fault"},
    [EP_REFUSE_INTERNAL] = {500, 13, "Internal error", "Internal error"},
};

static const struct {
    unsigned status, grpc;
} by_status[] = {
    {400, 3}, {401, 16}, {403, 7},  {404, 12}, {408, 4},  {409, 10}, {412, 9}, {413, 8},
    {429, 8}, {499, 1},  {500, 13}, {501, 12}, {502, 14}, {503, 14}, {504, 4},
};

static const char *const blind_names[EP_BLIND_REASONS] = {
    [EP_BLIND_NOT] = "",
    [EP_BLIND_ENCRYPTED] = "encrypted",
    [EP_BLIND_ENCODING] = "encoding",
    [EP_BLIND_TOO_LARGE] = "too_large",
    [EP_BLIND_STREAMED] = "streamed",
    [EP_BLIND_UNKNOWN] = "unknown",
};

const char *ep_blind_reason_name(enum ep_blind_reason r)
{
    assert(r < EP_BLIND_REASONS);
    return blind_names[r];
}

unsigned ep_refusal_status(const struct ep_refusal *r)
{
    assert(r->kind < EP_REFUSE_KINDS);
    return r->status ? r->status : kinds[r->kind].status;
}

/* 0 would be OK, which a refusal never is: it counts as "from the kind" like -1. */
unsigned ep_refusal_grpc_status(const struct ep_refusal *r)
{
    assert(r->kind < EP_REFUSE_KINDS);
    if (r->grpc_status > 0)
        return (unsigned)r->grpc_status;
    for (size_t i = 0; r->status && i < EP_COUNT(by_status); i++)
        if (by_status[i].status == r->status)
            return by_status[i].grpc;
    return kinds[r->kind].grpc;
}

bool ep_refusal_is_decision(const struct ep_refusal *r)
{
    return r->kind == EP_REFUSE_POLICY || r->kind == EP_REFUSE_UNAUTHORIZED || r->kind == EP_REFUSE_LIMIT;
}

struct ep_str ep_refusal_text(const struct ep_refusal *r, struct ep_arena *arena)
{
    const char *lead = kinds[r->kind].lead;
    bool named = ep_refusal_is_decision(r) && r->kind != EP_REFUSE_UNAUTHORIZED && r->policy.n;

    struct ep_str says = r->principle_text.n <= PRINCIPLE_TEXT_MAX ? r->principle_text : (struct ep_str){NULL, 0};

    if (ep_str_ends(says, EP_STR(".")))
        says.n--; /* a sentence of its own, within ours */
    return ep_arena_printf(arena, "%s%s%.*s%s%.*s%s%.*s%s%.*s%s", lead, named ? " " : "", named ? (int)r->policy.n : 0,
                           named ? r->policy.p : "", r->reason.n ? ": " : "", EP_STR_ARG(r->reason),
                           r->principle.n ? " (principle " : "", EP_STR_ARG(r->principle), says.n ? ": " : "",
                           EP_STR_ARG(says), r->principle.n ? ")" : "");
}

/* --- answers --- */

void ep_answer_header(struct ep_answer *a, struct ep_str name, struct ep_str value)
{
    assert(a->n_extra < EP_ANSWER_HEADERS);
    a->extra[a->n_extra++] = (struct ep_reply_header){name, value};
}

void ep_answer_common(struct ep_answer *a, const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    if (decision.n)
        ep_answer_header(a, EP_STR("x-ephor-decision"), decision);
    if (r->retry_after_s)
        ep_answer_header(a, EP_STR("retry-after"), ep_arena_printf(arena, "%u", r->retry_after_s));
    if (r->limit.n) {
        ep_answer_header(a, EP_STR("ratelimit"), r->limit);
        ep_answer_header(a, EP_STR("ratelimit-policy"), r->limit_policy);
    }
}

void ep_answer_send(struct ep_stream *s, const struct ep_answer *a)
{
    ep_stream_reply(s, a->status, a->content_type, a->body, a->extra, a->n_extra);
}

struct ep_str ep_json_take(struct ep_json *j, struct ep_arena *arena)
{
    struct ep_str text = ep_arena_str(arena, ep_json_text(j));

    ep_json_fini(j);
    return text;
}

static void member(struct ep_json *j, const char *key, struct ep_str value)
{
    if (value.n)
        ep_json_kstr(j, key, value);
}

static struct ep_str problem(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    struct ep_str code = ep_str(r->code);
    struct ep_json j;

    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_kstr(&j, "type", code.n ? ep_arena_printf(arena, "urn:ephor:%s", r->code) : EP_STR("about:blank"));
    ep_json_kstr(&j, "title", ep_str(kinds[r->kind].title));
    ep_json_kuint(&j, "status", ep_refusal_status(r));
    ep_json_kstr(&j, "detail", ep_refusal_text(r, arena));
    member(&j, "code", code);
    member(&j, "policy", r->policy);
    member(&j, "principle", r->principle);
    member(&j, "principle_text", r->principle_text);
    member(&j, "decision", decision);
    ep_json_object_end(&j);
    return ep_json_take(&j, arena);
}

void ep_http_answer(const struct ep_refusal *r, bool json, struct ep_str decision, struct ep_arena *arena,
                    struct ep_answer *out)
{
    *out = (struct ep_answer){.status = ep_refusal_status(r)};
    if (json) {
        out->content_type = EP_STR("application/problem+json");
        out->body = problem(r, decision, arena);
    } else {
        struct ep_str text = ep_refusal_text(r, arena);
        out->content_type = EP_STR("text/plain; charset=utf-8");
        out->body = ep_arena_printf(arena, "%.*s\n%s%.*s%s", EP_STR_ARG(text), decision.n ? "decision " : "",
                                    EP_STR_ARG(decision), decision.n ? "\n" : "");
    }
    ep_answer_common(out, r, decision, arena);
}

/* --- Accept --- */

/* "q=0", "q=0.0", "q=0.000": never. */
static bool excluded(struct ep_str parameters)
{
    struct ep_str p;

    while (ep_str_next(&parameters, ';', &p)) {
        if (!ep_str_casestarts(p, EP_STR("q=")))
            continue;
        for (size_t i = 2; i < p.n; i++)
            if (p.p[i] != '0' && p.p[i] != '.')
                return false;
        return p.n > 2;
    }
    return false;
}

bool ep_accepts(struct ep_str accept, struct ep_str type)
{
    ptrdiff_t slash = ep_str_find(type, '/', 0);
    struct ep_str item, range, family = ep_str_n(type.p, slash < 0 ? type.n : (size_t)slash + 1);
    bool found = false;

    while (ep_str_next(&accept, ',', &item)) {
        range = ep_media_type(item);
        bool named = ep_str_caseeq(range, type);
        bool any = ep_str_eq(range, EP_STR("*/*")) || (range.n == family.n + 1 && range.p[range.n - 1] == '*' &&
                                                       ep_str_caseeq(ep_str_n(range.p, family.n), family));
        if (!named && !any)
            continue;
        if (excluded(ep_str_n(range.p + range.n, (size_t)(item.p + item.n - (range.p + range.n))))) {
            if (named)
                return false; /* the most specific range decides */
            continue;
        }
        found = true;
    }
    return found;
}

bool ep_stream_accepts(const struct ep_stream *s, struct ep_str type)
{
    const struct ep_headers *h = &s->request.headers;
    bool any = false;

    for (uint32_t i = 0; i < h->n; i++) {
        if (h->v[i].id != EP_HDR_ACCEPT)
            continue;
        any = true;
        if (ep_accepts(h->v[i].value, type))
            return true;
    }
    return !any;
}

/* --- plain HTTP and TCP --- */

static void http_refuse(struct ep_stream *s, const struct ep_refusal *r)
{
    bool json =
        ep_stream_accepts(s, EP_STR("application/json")) || ep_stream_accepts(s, EP_STR("application/problem+json"));
    struct ep_answer a;

    ep_http_answer(r, json, s->decision_id, &s->arena, &a);
    ep_answer_send(s, &a);
}

/* There is no way to say it in bytes of an unknown protocol. */
static void tcp_refuse(struct ep_stream *s, const struct ep_refusal *r)
{
    (void)r;
    ep_stream_abort(s, EP_RESET_REFUSED);
}

const struct ep_protocol ep_protocol_http = {.name = "http", .refuse = http_refuse};
const struct ep_protocol ep_protocol_tcp = {.name = "tcp", .refuse = tcp_refuse};
