/* Messages of the ACGS-2 agent bus in JSON: an object with a message_type, or one with a sender that is posted to the bus's
 * path; or an array of such, each of which is a call and is judged. ACGS2.md has the fields.
 *
 * A refusal is the bus's own ValidationResult, and in the same object the members of its API's error, so that who reads
 * either finds it. A wrong constitution is 400 there, a policy's no 403, a limit 429. The hash in force is never shown: who
 * named a wrong one must not learn the right one. Messages over gRPC are agent/bus_grpc.c. */
#include "agent/bus.h"

#include "agent/agent.h"
#include "base/time.h"
#include "filter/chain.h"
#include "observe/json.h"
#include "observe/observe.h"

static struct ep_str text_of(const struct ep_scan_value *v)
{
    return v->kind == EP_SCAN_STRING ? ep_agent_str(v->text) : (struct ep_str){NULL, 0};
}

static struct ep_str first_of(const struct ep_scan_value *a, const struct ep_scan_value *b, const struct ep_scan_value *c)
{
    struct ep_str s = text_of(a);

    if (!s.n)
        s = text_of(b);
    return s.n ? s : text_of(c);
}

struct ep_str ep_bus_priority(uint64_t n)
{
    static const char *const names[] = {"low", "normal", "high", "critical"};

    return n < EP_COUNT(names) ? ep_str(names[n]) : (struct ep_str){NULL, 0};
}

/* The bus's API says low, normal, high, critical; its messages 0 to 3, of which 1 is called medium. */
static struct ep_str priority_of(const struct ep_scan_value *v)
{
    struct ep_str s = ep_agent_str(v->text), name;
    uint64_t n;

    if (v->kind == EP_SCAN_NUMBER) {
        name = ep_str_u64(s, &n) ? ep_bus_priority(n) : (struct ep_str){NULL, 0};
        return name.n ? name : s;
    }
    if (v->kind != EP_SCAN_STRING)
        return (struct ep_str){NULL, 0};
    if (ep_str_caseeq(s, EP_STR("medium")))
        return ep_bus_priority(1);
    for (n = 0; ep_bus_priority(n).n; n++)
        if (ep_str_caseeq(s, ep_bus_priority(n)))
            return ep_bus_priority(n);
    return s;
}

struct ep_str ep_bus_type(uint64_t n)
{
    static const char *const names[] = {"command", "query", "response", "event", "notification", "heartbeat",
                                        "governance_request", "governance_response", "constitutional_validation",
                                        "task_request", "task_response", "audit_log"};

    return n < EP_COUNT(names) ? ep_str(names[n]) : (struct ep_str){NULL, 0};
}

/* A label has no more values than the bus has types: what a sender makes up is "other". */
static struct ep_str type_label(struct ep_str method)
{
    for (uint64_t n = 0; ep_bus_type(n).n; n++)
        if (ep_str_eq(method, ep_bus_type(n)))
            return method;
    return EP_STR("other");
}

static struct ep_str priority_label(struct ep_str priority)
{
    for (uint64_t n = 0; ep_bus_priority(n).n; n++)
        if (ep_str_eq(priority, ep_bus_priority(n)))
            return priority;
    return priority.n ? EP_STR("other") : EP_STR("none");
}

void ep_bus_count(const struct ep_stream *s, const struct ep_call *c)
{
    if (s->worker->stats)
        ep_stats_add(s->worker->stats, EP_METRIC_BUS_MESSAGES,
                     EP_LABELS(s->chain->config->name, type_label(c->method), priority_label(c->priority)), 1);
}

static enum ep_agent_claim head(struct ep_stream *s, const struct ep_agent_head *h)
{
    (void)s;
    (void)h;
    return EP_AGENT_NO; /* the body decides */
}

static bool is_message(const struct ep_agent_head *h, const struct ep_scan_message *m)
{
    if (!m->is_object || m->jsonrpc.kind)
        return false;
    if (m->message_type.kind == EP_SCAN_STRING)
        return true;
    return ep_agent_path_ends(h->meant, EP_STR("/messages")) && (m->content.kind || m->payload.kind) &&
           first_of(&m->from_agent, &m->sender_id, &m->sender).n;
}

static void fill(struct ep_call *c, const struct ep_scan_message *m)
{
    c->method = text_of(&m->message_type);
    c->agent = first_of(&m->from_agent, &m->sender_id, &m->sender);
    if (!c->agent.n)
        c->agent = text_of(&m->source_agent_id);
    c->recipient = first_of(&m->to_agent, &m->recipient, &m->target_agent_id);
    c->id_text = text_of(&m->message_id);
    c->conversation = text_of(&m->conversation_id);
    c->priority = priority_of(&m->priority);
    c->claimed_tenant = text_of(&m->tenant_id);
    c->hash = text_of(&m->constitutional_hash);
    c->impact = m->impact_score.kind == EP_SCAN_NUMBER ? ep_agent_str(m->impact_score.raw) : (struct ep_str){NULL, 0};
}

static enum ep_agent_verdict body(struct ep_stream *s, const struct ep_agent_head *h, const struct ep_scan *json,
                                  bool claimed)
{
    struct ep_call *c = &s->call, common;
    unsigned n = 0;

    (void)claimed;
    for (const struct ep_scan_message *m = json->first; m; m = m->next)
        n += is_message(h, m);
    if (n == 0)
        return EP_AGENT_NOT_MINE;
    if (json->duplicate)
        return ep_agent_bad_request(s, "agent.duplicate_key", EP_STR("duplicate key"), 0);
    c->batch = json->batch;
    if (n != json->n) { /* what a bus makes of an element that is no message is open */
        c->visible = EP_VISIBLE_HEADERS;
        c->blind = EP_BLIND_UNKNOWN;
    }
    common = *c;
    for (const struct ep_scan_message *m = json->first; m; m = m->next) {
        if (m != json->first) {
            c = c->next = ep_arena_alloc(&s->arena, sizeof *c);
            *c = common;
        }
        fill(c, m);
        if (is_message(h, m))
            ep_bus_count(s, c);
    }
    return EP_AGENT_MINE;
}

/* --- refusals --- */

static bool about_the_constitution(const struct ep_refusal *r)
{
    return ep_str_starts(ep_str(r->code), EP_STR("constitution."));
}

static const char *type_of(const struct ep_refusal *r)
{
    static const struct {
        enum ep_refusal_kind kind;
        const char *type;
    } types[] = {
        {EP_REFUSE_POLICY, "PolicyViolationError"},     {EP_REFUSE_UNAUTHORIZED, "MACIError"},
        {EP_REFUSE_LIMIT, "RateLimitExceeded"},         {EP_REFUSE_TIMEOUT, "MessageTimeoutError"},
        {EP_REFUSE_UNAVAILABLE, "BusUnavailableError"}, {EP_REFUSE_BAD_REQUEST, "MessageValidationError"},
    };

    if (about_the_constitution(r))
        return "ConstitutionalError";
    for (size_t i = 0; i < EP_COUNT(types); i++)
        if (types[i].kind == r->kind)
            return types[i].type;
    return "AgentBusError";
}

static void facts(struct ep_json *j, const char *key, const struct ep_refusal *r, struct ep_str decision)
{
    const struct ep_call *c = r->call;
    const struct {
        const char *key;
        struct ep_str value;
    } members[] = {{"code", ep_str(r->code)},   {"policy", r->policy},     {"policy_version", r->policy_version},
                   {"principle", r->principle}, {"decision_id", decision}, {"message_id", c ? c->id_text : (struct ep_str){NULL, 0}}};

    ep_json_key(j, key);
    ep_json_object(j);
    for (size_t i = 0; i < EP_COUNT(members); i++)
        if (members[i].value.n)
            ep_json_kstr(j, members[i].key, members[i].value);
    ep_json_object_end(j);
}

void ep_bus_answer(const struct ep_refusal *r, struct ep_str decision, uint64_t wall_ns, struct ep_arena *arena,
                   struct ep_answer *out)
{
    struct ep_str text = ep_refusal_text(r, arena);
    char time[32];
    struct ep_str timestamp = ep_str_n(time, (size_t)ep_time_rfc3339(wall_ns, time));
    struct ep_json j;

    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_kbool(&j, "is_valid", false);
    ep_json_key(&j, "errors");
    ep_json_array(&j);
    ep_json_str(&j, text);
    ep_json_array_end(&j);
    ep_json_key(&j, "warnings");
    ep_json_array(&j);
    ep_json_array_end(&j);
    facts(&j, "metadata", r, decision);
    ep_json_kstr(&j, "decision", EP_STR("DENY"));
    ep_json_kstr(&j, "timestamp", timestamp);
    ep_json_kstr(&j, "error", ep_str(type_of(r)));
    ep_json_kstr(&j, "message", text);
    facts(&j, "details", r, decision);
    ep_json_kstr(&j, "correlation_id", decision);
    ep_json_object_end(&j);
    *out = (struct ep_answer){.status = about_the_constitution(r) ? 400 : ep_refusal_status(r),
                              .content_type = EP_STR("application/json"),
                              .body = ep_json_take(&j, arena)};
    ep_answer_common(out, r, decision, arena);
}

static void refuse(struct ep_stream *s, const struct ep_refusal *r)
{
    struct ep_answer a;

    ep_bus_answer(r, s->decision_id, ep_clock_wall_ns(), &s->arena, &a);
    ep_answer_send(s, &a);
}

const struct ep_agent_protocol ep_agent_bus = {
    .how = {.name = "acgs2", .refuse = refuse},
    .head = head,
    .body = body,
};
