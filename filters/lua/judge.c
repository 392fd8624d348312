/* Judging one call by one policy: match, blind, Lua, counting. policy.h has the picture. */
#include <stdio.h>

#include "agent/parts.h"
#include "filter/chain.h"
#include "filter/decision.h"
#include "lua/object.h"

/* --- fields --- */

static struct ep_str without_port(struct ep_str authority)
{
    ptrdiff_t bracket = ep_str_find(authority, ']', 0);
    ptrdiff_t colon = ep_str_find(authority, ':', bracket < 0 ? 0 : (size_t)bracket);

    return colon < 0 ? authority : ep_str_n(authority.p, (size_t)colon);
}

static struct ep_str without_query(struct ep_str path)
{
    ptrdiff_t question = ep_str_find(path, '?', 0);

    return question < 0 ? path : ep_str_n(path.p, (size_t)question);
}

static struct ep_arena *arena_of(const struct ep_stream *s)
{
    return &((struct ep_stream *)(uintptr_t)s)->arena;
}

const struct ep_model_names *ep_policy_field_list(enum ep_policy_field f, const struct ep_stream *s, const struct ep_call *c)
{
    if (!c->to_model || (f != EP_POLICY_TOOLS && f != EP_POLICY_SERVERS))
        return NULL;
    return f == EP_POLICY_TOOLS ? ep_model_tools(c->to_model, arena_of(s)) : ep_model_servers(c->to_model, arena_of(s));
}

static struct ep_str first_of(const struct ep_model_names *names)
{
    return names && names->n ? names->v[0] : (struct ep_str){NULL, 0};
}

struct ep_str ep_policy_field_value(enum ep_policy_field f, const struct ep_stream *s, struct ep_call *c)
{
    switch (f) {
    case EP_POLICY_PROTOCOL:
        return c->protocol.n ? c->protocol : EP_STR("http");
    case EP_POLICY_METHOD:
        return c->method.n || c->protocol.n ? c->method : ep_stream_method(s);
    case EP_POLICY_TOOL:
        return c->tool;
    case EP_POLICY_MODEL:
        return c->model;
    case EP_POLICY_AGENT:
        return c->agent;
    case EP_POLICY_TASK:
        return c->task;
    case EP_POLICY_SESSION:
        return c->session;
    case EP_POLICY_TENANT:
        return c->tenant;
    case EP_POLICY_SERVICE:
        return c->service;
    case EP_POLICY_URI:
        return c->uri;
    case EP_POLICY_PROMPT:
        if (c->parts.n && !c->parts_text.p)
            c->parts_text = ep_parts_text(c->parts, arena_of(s));
        return c->parts.n                           ? c->parts_text
               : c->prompt_name.n || !c->to_model ? c->prompt_name
                                                    : ep_model_prompt(c->to_model, arena_of(s));
    case EP_POLICY_TOOLS:
    case EP_POLICY_SERVERS:
        return first_of(ep_policy_field_list(f, s, c));
    case EP_POLICY_USER:
        return c->to_model ? c->to_model->user : (struct ep_str){NULL, 0};
    case EP_POLICY_RECIPIENT:
        return c->recipient;
    case EP_POLICY_PRIORITY:
        return c->priority;
    case EP_POLICY_IMPACT:
        return c->impact;
    case EP_POLICY_ARGUMENTS:
        return c->arguments;
    case EP_POLICY_BODY:
        return c->body;
    case EP_POLICY_PATH:
        return without_query(ep_stream_path(s));
    case EP_POLICY_HOST:
        return without_port(ep_stream_authority(s));
    case EP_POLICY_LISTENER:
        return s->chain && s->chain->config ? s->chain->config->name : (struct ep_str){NULL, 0};
    case EP_POLICY_DIRECTION:
        return s->direction == EP_OUTBOUND ? EP_STR("outbound") : EP_STR("inbound");
    case EP_POLICY_PEER:
        return s->peer_id;
    case EP_POLICY_FIELD_COUNT:
        break;
    }
    return (struct ep_str){NULL, 0};
}

/* What a message of the agent bus says, and not the head of the gRPC call that carries it. */
static bool of_bus_message(enum ep_policy_field f)
{
    return f == EP_POLICY_METHOD || f == EP_POLICY_AGENT || f == EP_POLICY_RECIPIENT || f == EP_POLICY_PRIORITY ||
           f == EP_POLICY_IMPACT;
}

/* Of a body that wasn't read nothing is known for sure: a head that names a protocol, method or tool is a claim of the
 * caller, and who decides by it can be walked around. */
bool ep_policy_field_visible(enum ep_policy_field f, const struct ep_call *c)
{
    static const bool of_call[] = {
#define X(id, name, of_call_) of_call_,
        EP_POLICY_FIELDS(X)
#undef X
    };

    if (f == EP_POLICY_ARGUMENTS || f == EP_POLICY_BODY) /* gRPC is named for sure by its head, and its body isn't read */
        return c->visible == EP_VISIBLE_FULL && c->blind == EP_BLIND_NOT;
    if (c->protocol.n && ep_str_eq(c->protocol, EP_STR("acgs2")) && c->blind != EP_BLIND_NOT && of_bus_message(f))
        return false;
    if (f == EP_POLICY_MODEL && c->to_model && !c->model.n) /* a stored prompt brings its own */
        return false;
    return c->visible == EP_VISIBLE_FULL || !of_call[f];
}

/* --- match --- */

static bool any_hit(const struct ep_policy_rule *r, struct ep_str value)
{
    for (unsigned i = 0; i < r->n; i++) {
        const struct ep_policy_pattern *p = &r->v[i];
        if (p->glob ? ep_str_glob(p->text, value) : ep_str_eq(p->text, value))
            return true;
    }
    return false;
}

static bool list_hit(const struct ep_policy_rule *r, const struct ep_model_names *names)
{
    for (unsigned i = 0; i < names->n; i++)
        if (any_hit(r, names->v[i]))
            return true;
    return false;
}

static bool host_hit(const struct ep_policy_rule *r, struct ep_str value)
{
    char lower[256];

    if (value.n > sizeof lower)
        return false;
    for (size_t i = 0; i < value.n; i++)
        lower[i] = ep_lower(value.p[i]);
    return any_hit(r, ep_str_n(lower, value.n));
}

bool ep_policy_rule_holds(const struct ep_policy_rule *r, const struct ep_stream *s, struct ep_call *c)
{
    const struct ep_model_names *list = ep_policy_field_list(r->field, s, c);
    struct ep_str value;

    if (list)
        return list_hit(r, list);
    value = ep_policy_field_value(r->field, s, c);
    return value.n && (r->field == EP_POLICY_HOST ? host_hit(r, value) : any_hit(r, value));
}

/* A rule that says no decides; else what can't be seen makes the whole unseen. */
static enum ep_policy_match match(const struct ep_policy *p, const struct ep_stream *s, struct ep_call *c)
{
    enum ep_policy_match m = EP_POLICY_MATCHES;

    for (unsigned i = 0; i < p->n_rules; i++) {
        const struct ep_policy_rule *r = &p->rules[i];
        if (!ep_policy_field_visible(r->field, c)) {
            if (r->field != EP_POLICY_PROTOCOL || !ep_str_eq(c->protocol, EP_STR("tcp")) || !any_hit(r, c->protocol))
                m = EP_POLICY_UNSEEN; /* that it is opaque is known */
            continue;
        }
        if (!ep_policy_rule_holds(r, s, c))
            return EP_POLICY_NO_MATCH;
    }
    return m;
}

static bool needs_met(const struct ep_policy *p, const struct ep_call *c)
{
    for (unsigned f = 0; p->needs >> f; f++)
        if ((p->needs & (1u << f)) && !ep_policy_field_visible((enum ep_policy_field)f, c))
            return false;
    return true;
}

enum ep_policy_match ep_policy_matches(const struct ep_policy *p, const struct ep_stream *s, struct ep_call *c)
{
    enum ep_policy_match m = match(p, s, c);

    return m == EP_POLICY_MATCHES && p->needs && !needs_met(p, c) ? EP_POLICY_UNSEEN : m;
}

/* --- counting --- */

static void decided(struct ep_policy *p, struct ep_policy_verdict *v, enum ep_policy_decision d)
{
    v->decision = d;
    p->count[d]++;
    if (p->cells[d])
        ep_cell_add(p->cells[d], 1);
}

/* False: it can't be recorded and must be; the stream was refused for that. */
static bool audit_shadow(struct ep_stream *s, const struct ep_policy *p, const struct ep_policy_verdict *v)
{
    return ep_stream_audit(s, &(struct ep_decision){.decision = "shadow_deny",
                                                    .policy = p->name,
                                                    .policy_version = p->version,
                                                    .principle = p->principle,
                                                    .reason = v->reason,
                                                    .code = v->code});
}

/* A denial: enforced, or only counted and audited. */
static void denied(struct ep_policy *p, struct ep_stream *s, bool shadow, struct ep_policy_verdict *v)
{
    decided(p, v, shadow ? EP_POLICY_SHADOW_DENY : EP_POLICY_DENY);
    v->refuse = !shadow;
    if (shadow)
        ep_policy_cover(p, s)->shadow_denied++;
    else
        ep_policy_cover(p, s)->denied++;
    if (shadow && !audit_shadow(s, p, v))
        v->refuse = true;
}

void ep_policy_blinded(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, enum ep_blind_reason reason,
                       struct ep_policy_verdict *v)
{
    bool shadow = ep_policy_shadow(set, p, s);
    const char *why = ep_blind_reason_name(reason == EP_BLIND_NOT ? EP_BLIND_UNKNOWN : reason);

    v->blind = true;
    p->blinded++;
    p->blind_by[reason == EP_BLIND_NOT ? EP_BLIND_UNKNOWN : reason]++;
    ep_policy_cover(p, s)->blind++;
    if (s->worker->stats)
        ep_stats_add(s->worker->stats, EP_METRIC_POLICY_BLIND, EP_LABELS(p->name, ep_str(why)), 1);
    if (p->blind == EP_POLICY_BLIND_ALLOW) {
        decided(p, v, EP_POLICY_ALLOW);
        return;
    }
    v->code = "policy.blind";
    v->reason = ep_arena_printf(ep_stream_brief(s), "the policy can't see what it judges (%s)", why);
    denied(p, s, shadow || p->blind == EP_POLICY_BLIND_SHADOW, v);
}

static void failed(struct ep_policy *p, struct ep_stream *s, lua_State *L, enum ep_lua_status status, bool shadow,
                   struct ep_policy_verdict *v)
{
    bool overrun = status == EP_LUA_OVERRUN;

    v->error = ep_arena_str(&s->arena, ep_lua_error(L));
    v->code = overrun ? "policy.overrun" : "policy.error";
    v->reason = overrun ? EP_STR("the policy went over its budget") : EP_STR("the policy failed");
    v->refuse = !shadow;
    decided(p, v, overrun ? EP_POLICY_OVERRUN : EP_POLICY_ERROR);
    ep_policy_cover(p, s)->failed++;
    if (ep_lua_of(L)->test) /* the case tells, if it didn't want that */
        return;
    if (++p->failures < EP_POLICY_UNHEALTHY)
        ep_warn("policy", "%.*s failed: %.*s", EP_STR_ARG(p->name), EP_STR_ARG(v->error));
    else if (p->failures == EP_POLICY_UNHEALTHY)
        ep_warn("policy", "%.*s is unhealthy: it failed %u times in a row, and is silent until it works again: %.*s",
                EP_STR_ARG(p->name), EP_POLICY_UNHEALTHY, EP_STR_ARG(v->error));
}

void ep_policy_allowed(struct ep_policy *p, struct ep_policy_verdict *v)
{
    decided(p, v, EP_POLICY_ALLOW);
}

void ep_policy_failed(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, lua_State *L,
                      struct ep_policy_verdict *v)
{
    failed(p, s, L, EP_LUA_ERROR, ep_policy_shadow(set, p, s), v);
}

/* --- the call --- */

static void worked(struct ep_policy *p)
{
    if (EP_UNLIKELY(p->failures >= EP_POLICY_UNHEALTHY))
        ep_info("policy", "%.*s works again", EP_STR_ARG(p->name));
    p->failures = 0;
}

void ep_policy_ended(struct ep_policy_set *set, struct ep_policy_object *o, lua_State *L, enum ep_lua_status status,
                     uint64_t spent_ns, struct ep_policy_verdict *v)
{
    struct ep_policy *p = o->policy;

    if (p->duration)
        ep_histogram_record(p->duration, spent_ns);
    if (EP_UNLIKELY(status != EP_LUA_OK)) {
        if (status == EP_LUA_YIELDED)
            lua_pushliteral(L, "the policy yielded, and not to wait");
        failed(p, o->s, L, status, o->shadow, v);
        ep_lua_thread_reset(set->lua, L);
    } else {
        worked(p);
        if (o->denied) {
            v->code = o->code ? o->code : "policy.denied";
            v->reason = o->reason;
            v->status = o->status;
            denied(p, o->s, o->shadow, v);
        } else if (EP_UNLIKELY(o->redactions != NULL)) {
            ep_policy_redact(set, o, v);
        } else {
            decided(p, v, EP_POLICY_ALLOW);
        }
    }
    ep_policy_object_clear(o, set->lua->thread); /* its own may be gone */
}

static void run(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, struct ep_call *c,
                enum ep_policy_phase phase, struct ep_policy_reply *reply, bool shadow, uint64_t *now_ns,
                struct ep_policy_verdict *v)
{
    struct ep_lua *l = set->lua;
    lua_State *L = l->thread;
    struct ep_policy_object *o = l->object;
    const int functions[] = {
        [EP_POLICY_CALL] = p->call_ref, [EP_POLICY_REPLY] = p->reply_ref, [EP_POLICY_EVENT] = p->event_ref};
    const struct ep_lua_budget *budget = &set->budget;
    enum ep_lua_status status;
    uint64_t start = *now_ns;
    int n_results;

    o->s = s;
    o->call = c;
    o->policy = p;
    o->phase = phase;
    o->reply = reply;
    o->shadow = shadow;
    o->denied = false;
    o->code = NULL;
    o->status = 0;
    o->wait = EP_POLICY_WAIT_NOT;
    o->waits = 0;
    o->delayed_ns = 0;
    o->http = NULL;
    o->hearing = set->hearing;
    o->redactions = reply ? (struct ep_redaction *)(uintptr_t)reply->rules : NULL; /* more are put in front */
    lua_rawgeti(L, LUA_REGISTRYINDEX, functions[phase]);
    lua_rawgeti(L, LUA_REGISTRYINDEX, o->ref);
    if (EP_UNLIKELY(phase != EP_POLICY_CALL) &&
        (phase == EP_POLICY_EVENT || reply->events || (!reply->whole && reply->why == EP_BLIND_NOT)))
        budget = &set->at_once; /* an event can't wait, and who waits can't ask for the body any more */
    ep_lua_charge_to(l, p->owner);
    status = ep_lua_resume(l, L, 1, &n_results, budget, start);
    *now_ns = ep_clock_ns();
    if (EP_UNLIKELY(status == EP_LUA_PAUSED))
        o->wait = EP_POLICY_WAIT_TURN;
    if (EP_UNLIKELY(o->wait && (status == EP_LUA_YIELDED || status == EP_LUA_PAUSED))) {
        v->wait = ep_policy_wait_new(set, o, *now_ns - start);
        return;
    }
    ep_policy_ended(set, o, L, status, *now_ns - start, v);
    if (L == l->thread) /* it didn't overrun */
        lua_settop(L, 0);
}

void ep_policy_judge(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, struct ep_call *c,
                     enum ep_policy_phase phase, struct ep_policy_reply *reply, uint64_t *now_ns,
                     struct ep_policy_verdict *v)
{
    enum ep_mode mode = p->constitutional ? p->mode : EP_MAX(p->mode, set->mode);
    bool shadow = ep_policy_shadow(set, p, s);
    struct ep_policy_cover *cover;
    enum ep_policy_match m;

    *v = (struct ep_policy_verdict){.decision = EP_POLICY_ALLOW};
    if (mode == EP_MODE_OFF)
        return;
    if (phase == EP_POLICY_CALL) {
        if (EP_UNLIKELY(!s->route_known)) /* coverage is by route, and the policy before may have changed it */
            ep_stream_route(s);
        cover = ep_policy_cover(p, s);
        p->seen++;
        cover->seen++;
        m = ep_policy_matches(p, s, c);
        if (m == EP_POLICY_NO_MATCH)
            return;
        v->matched = true;
        if (EP_UNLIKELY(p->matched++ == 0) && !p->duration && s->worker->stats)
            ep_policy_add_statistics(p, s->worker->stats);
        cover->matched++;
        if (m == EP_POLICY_UNSEEN) {
            ep_policy_blinded(set, p, s, c->blind, v);
            return;
        }
        if (p->call_ref == LUA_NOREF)
            return;
    } else if (phase == EP_POLICY_REPLY && p->needs_reply_body && !reply->whole) {
        ep_policy_blinded(set, p, s, reply->why, v);
        return;
    }
    run(set, p, s, c, phase, reply, shadow, now_ns, v);
}

struct ep_refusal ep_policy_refusal(const struct ep_policy *p, const struct ep_policy_verdict *v)
{
    return (struct ep_refusal){.kind = EP_REFUSE_POLICY,
                               .policy = p->name,
                               .policy_version = p->version,
                               .principle = p->principle,
                               .reason = v->reason,
                               .code = v->code,
                               .status = v->status,
                               .grpc_status = -1};
}

void ep_policy_refuse(struct ep_stream *s, const struct ep_policy *p, const struct ep_call *call,
                      const struct ep_policy_verdict *v)
{
    struct ep_refusal r = ep_policy_refusal(p, v);

    r.call = call;
    ep_stream_refuse(s, &r);
}
