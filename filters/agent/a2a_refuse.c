/* How Agent2Agent says no, in the forms that the SDKs of 0.3 and 1.0 make an error of their own of (tried:
 * AGENTS.md 3.2).
 *
 *   JSON-RPC            200, an error with the id's own bytes; asked for a stream: one event with it
 *   REST                the status; one body with `code` and `message` for 0.3 and `error` (google.rpc.Status) for 1.0
 *   gRPC                trailers alone, with an ErrorInfo in grpc-status-details-bin
 *   begun event stream  one more event; REST's is named error, without which 1.0 takes it for an empty one
 *
 * A2A has no code for "forbidden": decisions are UnsupportedOperation, which has a class of its own in each SDK. */
#include "agent/a2a.h"
#include "agent/grpc.h"
#include "observe/json.h"

#include <openssl/evp.h>

#define UNSUPPORTED_OPERATION (-32004)
#define INTERNAL_ERROR        (-32603)
#define DOMAIN                "a2a-protocol.org" /* SDKs look for no other */
#define ERROR_INFO            "type.googleapis.com/google.rpc.ErrorInfo"

/* By kind: the code of A2A, the reason of its ErrorInfo. */
static void code_of(const struct ep_refusal *r, int *code, const char **reason)
{
    if (r->jsonrpc_code) {
        *code = r->jsonrpc_code;
        bool invalid = *code == EP_JSONRPC_INVALID_REQUEST || *code == EP_JSONRPC_PARSE_ERROR;
        *reason = invalid ? "INVALID_REQUEST" : "INTERNAL_ERROR";
    } else if (r->kind == EP_REFUSE_POLICY || r->kind == EP_REFUSE_UNAUTHORIZED) {
        *code = UNSUPPORTED_OPERATION;
        *reason = "UNSUPPORTED_OPERATION";
    } else if (r->kind == EP_REFUSE_LIMIT) {
        *code = 429; /* outside of JSON-RPC's own */
        *reason = "RESOURCE_EXHAUSTED";
    } else if (r->kind == EP_REFUSE_BAD_REQUEST || r->kind == EP_REFUSE_TOO_LARGE) {
        *code = EP_JSONRPC_INVALID_REQUEST;
        *reason = "INVALID_REQUEST";
    } else {
        *code = INTERNAL_ERROR;
        *reason = "INTERNAL_ERROR";
    }
}

/* The name of a gRPC status. */
static struct ep_str status_name(unsigned grpc)
{
    static const char *const names[] = {
        "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED"};

    return ep_str(grpc < EP_COUNT(names) ? names[grpc] : "UNKNOWN");
}

/* --- the facts, as a map of strings in all forms --- */

#define FACTS_MAX 6u
struct fact {
    const char *key;
    struct ep_str value;
};

static size_t facts_of(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena,
                       struct fact out[FACTS_MAX])
{
    const struct fact all[FACTS_MAX] = {
        {"policy", r->policy},
        {"principle", r->principle},
        {"principleText", r->principle_text},
        {"code", ep_str(r->code)},
        {"decision", decision},
        {"retryAfter", r->retry_after_s ? ep_arena_printf(arena, "%u", r->retry_after_s) : (struct ep_str){NULL, 0}},
    };
    size_t n = 0;

    for (size_t i = 0; i < FACTS_MAX; i++)
        if (all[i].value.n)
            out[n++] = all[i];
    return n;
}

static void write_facts(struct ep_json *j, const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    struct fact facts[FACTS_MAX];
    size_t n = facts_of(r, decision, arena, facts);

    ep_json_object(j);
    for (size_t i = 0; i < n; i++)
        ep_json_kstr(j, facts[i].key, facts[i].value);
    ep_json_object_end(j);
}

static void write_details(struct ep_json *j, const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    const char *reason;
    int code;

    code_of(r, &code, &reason);
    ep_json_array(j);
    ep_json_object(j);
    ep_json_kstr(j, "@type", EP_STR(ERROR_INFO));
    ep_json_kstr(j, "reason", ep_str(reason));
    ep_json_kstr(j, "domain", EP_STR(DOMAIN));
    ep_json_key(j, "metadata");
    write_facts(j, r, decision, arena);
    ep_json_object_end(j);
    ep_json_array_end(j);
}

/* --- JSON-RPC --- */

static void write_rpc(struct ep_json *j, const struct ep_call *c, const struct ep_refusal *r, struct ep_str decision,
                      struct ep_arena *arena)
{
    const char *reason;
    int code;

    code_of(r, &code, &reason);
    ep_json_object(j);
    ep_json_kstr(j, "jsonrpc", EP_STR("2.0"));
    ep_json_key(j, "id");
    ep_json_raw(j, c->id_raw.n ? c->id_raw : EP_STR("null"));
    ep_json_key(j, "error");
    ep_json_object(j);
    ep_json_kint(j, "code", code);
    ep_json_kstr(j, "message", ep_refusal_text(r, arena));
    ep_json_key(j, "data");
    if (ep_str_starts(c->version, EP_STR("0.")))
        write_facts(j, r, decision, arena);
    else
        write_details(j, r, decision, arena);
    ep_json_object_end(j);
    ep_json_object_end(j);
}

struct ep_str ep_a2a_rpc_error(const struct ep_call *c, const struct ep_refusal *r, struct ep_str decision,
                               struct ep_arena *arena)
{
    struct ep_json j;

    ep_json_init(&j);
    write_rpc(&j, c, r, decision, arena);
    return ep_json_take(&j, arena);
}

static struct ep_str rpc_errors(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                                struct ep_arena *arena)
{
    struct ep_json j;

    if (!call->batch)
        return ep_a2a_rpc_error(call, r, decision, arena);
    ep_json_init(&j);
    ep_json_array(&j);
    for (const struct ep_call *c = call; c; c = c->next)
        if (c->id_raw.n)
            write_rpc(&j, c, r, decision, arena);
    ep_json_array_end(&j);
    return ep_json_take(&j, arena);
}

/* --- REST --- */

struct ep_str ep_a2a_rest_error(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    struct ep_str text = ep_refusal_text(r, arena);
    const char *reason;
    struct ep_json j;
    int code;

    code_of(r, &code, &reason);
    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_kint(&j, "code", code);
    ep_json_kstr(&j, "message", text);
    ep_json_key(&j, "error");
    ep_json_object(&j);
    ep_json_kuint(&j, "code", ep_refusal_status(r));
    ep_json_kstr(&j, "status", status_name(ep_refusal_grpc_status(r)));
    ep_json_kstr(&j, "message", text);
    ep_json_key(&j, "details");
    write_details(&j, r, decision, arena);
    ep_json_object_end(&j);
    ep_json_object_end(&j);
    return ep_json_take(&j, arena);
}

/* --- gRPC --- */

/* protobuf in front of what was written: from the inside out, lengths are known. */
struct proto {
    unsigned char v[4096];
    size_t n; /* from the end */
};

static bool put(struct proto *p, const void *bytes, size_t n)
{
    if (n > sizeof p->v - p->n)
        return false;
    p->n += n;
    memcpy(p->v + sizeof p->v - p->n, bytes, n);
    return true;
}

static bool put_varint(struct proto *p, uint64_t value)
{
    unsigned char out[10];
    size_t n = 0;

    do
        out[n++] = (unsigned char)(value & 0x7f) | (value > 0x7f ? 0x80 : 0);
    while ((value >>= 7) != 0);
    return put(p, out, n);
}

/* The tag and length of what was written since `from`. */
static bool put_field(struct proto *p, unsigned number, size_t from)
{
    return put_varint(p, p->n - from) && put_varint(p, number << 3 | EP_PROTO_BYTES);
}

static bool put_string(struct proto *p, unsigned number, struct ep_str s)
{
    size_t from = p->n;

    return put(p, s.p, s.n) && put_field(p, number, from);
}

static bool put_status(struct proto *p, const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    struct fact facts[FACTS_MAX];
    size_t n = facts_of(r, decision, arena, facts), from;
    const char *reason;
    bool good = true;
    int code;

    code_of(r, &code, &reason);
    while (good && n-- > 0) { /* ErrorInfo.metadata = 3: entries of key = 1, value = 2 */
        from = p->n;
        good = put_string(p, 2, facts[n].value) && put_string(p, 1, ep_str(facts[n].key)) && put_field(p, 3, from);
    }
    return good && put_string(p, 2, EP_STR(DOMAIN)) && put_string(p, 1, ep_str(reason)) && /* ErrorInfo */
           put_field(p, 2, 0) && put_string(p, 1, EP_STR(ERROR_INFO)) &&                   /* Any: value, type_url */
           /* Status: details, message (grpcio takes none that is not grpc-message's), code */
           put_field(p, 3, 0) && put_string(p, 2, ep_grpc_text(r, decision, arena)) &&
           put_varint(p, ep_refusal_grpc_status(r)) && put_varint(p, 1 << 3 | EP_PROTO_VARINT);
}

struct ep_str ep_a2a_grpc_details(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    struct proto p = {.n = 0};
    unsigned char *out;
    size_t n;

    if (!put_status(&p, r, decision, arena))
        return (struct ep_str){NULL, 0}; /* longer than a header should be: the message says enough */
    out = ep_arena_alloc(arena, p.n / 3 * 4 + 5);
    n = EVP_EncodeBlock(out, p.v + sizeof p.v - p.n, p.n);
    while (n && out[n - 1] == '=')
        n--;
    return ep_str_n(out, n);
}

/* --- answers --- */

void ep_a2a_answer(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                   struct ep_arena *arena, struct ep_answer *out)
{
    bool unread = !call->id_raw.n && !call->batch;

    *out = (struct ep_answer){.status = ep_refusal_status(r), .content_type = EP_STR("application/json")};
    if (call->binding == EP_BINDING_REST || r->kind == EP_REFUSE_FAULT) {
        out->body = ep_a2a_rest_error(r, decision, arena);
    } else if (call->stream && !call->batch && !unread) {
        out->status = 200;
        out->content_type = EP_STR("text/event-stream");
        out->body = ep_arena_printf(arena, "data: %.*s\n\n", EP_STR_ARG(ep_a2a_rpc_error(call, r, decision, arena)));
    } else {
        if (!unread && r->kind != EP_REFUSE_BAD_REQUEST)
            out->status = 200;
        out->body = rpc_errors(call, r, decision, arena);
    }
    ep_answer_common(out, r, decision, arena);
}

void ep_a2a_refuse(struct ep_stream *s, const struct ep_refusal *r)
{
    struct ep_answer a;

    if (s->call.binding == EP_BINDING_GRPC) {
        ep_grpc_refuse_with(s, r, ep_a2a_grpc_details(r, s->decision_id, &s->arena));
        return;
    }
    ep_a2a_answer(&s->call, r, s->decision_id, &s->arena, &a);
    ep_answer_send(s, &a);
}

void ep_a2a_refuse_midstream(struct ep_stream *s, const struct ep_refusal *r)
{
    if (s->call.binding == EP_BINDING_GRPC)
        ep_grpc_refuse_midstream_with(s, r, ep_a2a_grpc_details(r, s->decision_id, &s->arena));
    else if (!ep_agent_midstream_events(s))
        return;
    else if (s->call.binding == EP_BINDING_REST)
        ep_agent_end_by_event(s, EP_STR("error"), ep_a2a_rest_error(r, s->decision_id, &s->arena));
    else
        ep_agent_end_by_event(s, EP_STR(""), ep_a2a_rpc_error(&s->call, r, s->decision_id, &s->arena));
}
