/* Decisions on record: the members of a record, which are those of ACGS-2's decision log (trace_id, span_id, agent_id,
 * tenant_id, policy_version, risk_score, decision, constitutional_hash, timestamp, compliance_tags, metadata) and ours
 * beside them. DESIGN.md section 14. */
#include "filter/decision.h"

#include "filter/constitution_config.h"
#include "filter/private.h"
#include "filter/trace.h"

/* --- the record --- */

static void member(struct ep_json *j, const char *key, struct ep_str value)
{
    if (value.n)
        ep_json_kstr(j, key, value);
}

static struct ep_str without_query(struct ep_str path)
{
    ptrdiff_t n = ep_str_find(path, '?', 0);

    return n < 0 ? path : ep_str_n(path.p, (size_t)n);
}

/* Where it happened; secrets hide in queries. */
static struct ep_str metadata(struct ep_stream *s)
{
    struct ep_json j;
    struct ep_str text;

    ep_json_init(&j);
    ep_json_object(&j);
    member(&j, "listener", s->listener->name);
    ep_json_kstr(&j, "direction", s->direction == EP_INBOUND ? EP_STR("inbound") : EP_STR("outbound"));
    member(&j, "host", ep_stream_authority(s));
    member(&j, "path", without_query(ep_stream_path(s)));
    member(&j, "request_id", ep_headers_get_id(&s->request.headers, EP_HDR_X_REQUEST_ID));
    ep_json_kstr(&j, "peer_constitution", ep_str(ep_constitution_peer_name(s->peer_constitution)));
    ep_json_object_end(&j);
    text = ep_arena_str(ep_stream_brief(s), ep_json_text(&j));
    ep_json_fini(&j);
    return text;
}

/* Of a stream that was refused in the middle: what it had used. */
static struct ep_str count(struct ep_stream *s, uint64_t n)
{
    return n ? ep_arena_printf(ep_stream_brief(s), "%llu", (unsigned long long)n) : (struct ep_str){NULL, 0};
}

static bool record(struct ep_stream *s, struct ep_audit *a, const struct ep_decision *d)
{
    const struct ep_call *c = d->call ? d->call : &s->call;
    const struct ep_principle *p = ep_constitution_principle(s->view->constitution_config, d->principle);
    struct ep_audit_field fields[] = {
        {.key = "decision", .value = ep_str(d->decision)},
        {.key = "decision_id", .value = ep_stream_decision(s)},
        {.key = "trace_id", .value = ep_stream_trace(s)},
        {.key = "span_id", .value = ep_stream_span_on_record(s)},
        {.key = "agent_id", .value = s->peer_id},
        {.key = "tenant_id", .value = c->tenant},
        {.key = "policy", .value = d->policy},
        {.key = "policy_version", .value = d->policy_version},
        {.key = "principle", .value = d->principle},
        {.key = "code", .value = ep_str(d->code)},
        {.key = "reason", .value = d->reason},
        {.key = "protocol", .value = c->protocol},
        {.key = "method", .value = c->method},
        {.key = "tool", .value = c->tool},
        {.key = "message_id", .value = ep_str_eq(c->protocol, EP_STR("acgs2")) ? c->id_text : (struct ep_str){NULL, 0}},
        {.key = "model", .value = c->model},
        {.key = "risk_score", .value = c->impact, .json = true},
        {.key = "constitutional_hash", .value = s->view->constitution},
        {.key = "compliance_tags", .value = p ? p->tags_json : (struct ep_str){NULL, 0}, .json = true},
        {.key = "tokens_input", .value = count(s, s->usage ? s->usage->input : 0), .json = true},
        {.key = "tokens_output", .value = count(s, s->usage ? s->usage->output : 0), .json = true},
        d->more,
        {.key = "metadata", .json = true},
    };
    uint64_t seq = 0;

    fields[EP_COUNT(fields) - 1].value = metadata(s);
    if (ep_audit_record(a, s->worker->stats, d->event ? d->event : "decision", fields, EP_COUNT(fields), &seq) != 0)
        return !ep_audit_required(a);
    if (ep_audit_waits(a)) {
        s->audit_seq = seq;
        if (ep_list_linked(&s->audit_node))
            ep_list_remove(&s->audit_node);
        ep_list_push(&s->worker->unsettled, &s->audit_node); /* in the order of their numbers */
    }
    return true;
}

/* For the span: a denial before anything else, else what was first. */
static void note(struct ep_stream *s, const struct ep_decision *d)
{
    if (s->decision && strcmp(d->decision, "deny") != 0)
        return;
    ep_stream_decision(s);
    s->decision = d->decision;
    if (ep_str_eq(s->decision_policy, d->policy) && ep_str_eq(s->decision_principle, d->principle))
        return; /* of many of one stream */
    s->decision_policy = ep_arena_str(&s->arena, d->policy);
    s->decision_principle = ep_arena_str(&s->arena, d->principle);
}

bool ep_stream_audit_try(struct ep_stream *s, const struct ep_decision *d)
{
    if (s->worker->spans)
        note(s, d);
    if (!s->worker->audit)
        return true;
    return record(s, s->worker->audit, d);
}

static const struct ep_refusal unaudited = {
    .kind = EP_REFUSE_UNAVAILABLE,
    .policy = EP_STR_INIT("audit"),
    .reason = EP_STR_INIT("what is decided here can't be recorded now"),
    .code = "audit.unavailable",
    .grpc_status = -1,
};

void ep_refusal_unaudited(struct ep_refusal *r)
{
    *r = unaudited;
}

bool ep_stream_audit(struct ep_stream *s, const struct ep_decision *d)
{
    if (ep_stream_audit_try(s, d))
        return true;
    ep_stream_refuse(s, &unaudited);
    return false;
}
