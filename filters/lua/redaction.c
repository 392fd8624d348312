/* What a policy's redactions do to a call or a reply: redact.c finds and replaces, here the message gets its new body, and
 * what was done (or, in shadow, would have been) is counted and audited. */
#include "lua/redact.h"

#include "filter/chain.h"
#include "filter/decision.h"
#include "lua/object.h"

/* --- counting --- */

bool ep_policy_redacted(struct ep_stream *s, struct ep_policy *p, const unsigned found[], bool shadow, const char *code,
                        unsigned *audited)
{
    struct ep_str mode = shadow ? EP_STR("shadow") : EP_STR("enforce");
    struct ep_str what = {NULL, 0};

    for (int k = 0; k <= EP_SENSITIVE_KINDS; k++) {
        struct ep_str name = k < EP_SENSITIVE_KINDS ? ep_str(ep_sensitive_name((enum ep_sensitive)k)) : EP_STR("pattern");
        if (!found[k])
            continue;
        if (s->worker->stats)
            ep_stats_add(s->worker->stats, EP_METRIC_POLICY_REDACTIONS, EP_LABELS(p->name, name, mode), found[k]);
        if (audited && *audited & 1u << k)
            continue;
        if (audited)
            *audited |= 1u << k;
        what = ep_arena_printf(ep_stream_brief(s), "%.*s%s%.*s: %u", EP_STR_ARG(what), what.n ? ", " : "", EP_STR_ARG(name),
                               found[k]);
    }
    return !what.n || ep_stream_audit(s, &(struct ep_decision){.decision = shadow ? "shadow_redact" : "redact",
                                                                         .policy = p->name,
                                                                         .policy_version = p->version,
                                                                         .principle = p->principle,
                                                                         .reason = what,
                                                                         .code = code});
}

/* --- one text --- */

/* Runs the job. True: there is a result. False: v has the decision. */
static bool redacted(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, struct ep_redact_job *j,
                     struct ep_policy_verdict *v)
{
    lua_State *L = set->lua->thread;
    bool good = ep_redact(set->lua, L, j, &set->budget);

    if (!good)
        ep_policy_failed(set, p, s, L, v);
    else if (j->refused)
        ep_policy_blinded(set, p, s, EP_BLIND_UNKNOWN, v);
    lua_settop(L, 0);
    if (good && j->refused)
        ep_info("policy", "%.*s can't redact: %s", EP_STR_ARG(p->name), j->refused);
    return good && !j->refused;
}

static size_t bytes_max(const struct ep_stream *s)
{
    uint64_t held = s->chain && s->chain->config ? s->chain->config->max_body_bytes : 0;

    return EP_MAX(2 * held, (uint64_t)1 << 20);
}

/* --- a call --- */

/* Parts of the body that the call record shows: the same rules give the same result in them. */
static bool redact_part(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, const struct ep_redact_job *of,
                        struct ep_str *part, struct ep_policy_verdict *v)
{
    struct ep_redact_job j = {.arena = of->arena, .rules = of->rules, .bytes_max = of->bytes_max, .as = EP_REDACT_JSON};

    j.text = *part;
    if (!part->n)
        return true;
    if (!redacted(set, p, s, &j, v))
        return false;
    *part = j.result;
    return true;
}

static bool redact_asked(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, const struct ep_redact_job *of,
                         struct ep_model_request *asked, struct ep_policy_verdict *v)
{
    for (int i = 0; asked && i < EP_MODEL_PARTS; i++)
        if (!redact_part(set, p, s, of, &asked->raw[i], v))
            return false;
    if (asked)
        ep_model_forget(asked);
    return true;
}

/* MCP repeats arguments in headers, for who trusts them. */
static bool redact_params(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, const struct ep_redact_job *of,
                          struct ep_policy_verdict *v)
{
    struct ep_headers *h = &s->request.headers;

    for (uint32_t i = 0; i < h->n; i++) {
        struct ep_redact_job j = {.arena = of->arena, .rules = of->rules, .bytes_max = of->bytes_max, .as = EP_REDACT_PLAIN};
        if (!ep_str_starts(h->v[i].name, EP_STR("mcp-param-")))
            continue;
        j.text = h->v[i].value;
        if (ep_str_casestarts(ep_str_trim(j.text), EP_STR("=?base64?"))) {
            ep_policy_blinded(set, p, s, EP_BLIND_ENCODING, v);
            return false;
        }
        if (!redacted(set, p, s, &j, v))
            return false;
        if (j.total)
            ep_headers_set(h, h->v[i].name, j.result);
    }
    return true;
}

static void redact_call(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, struct ep_call *c,
                        const struct ep_redaction *rules, struct ep_policy_verdict *v)
{
    struct ep_redact_job j = {.arena = &s->arena, .rules = rules, .call = &s->call, .bytes_max = bytes_max(s)};
    bool shadow = ep_policy_shadow(set, p, s);

    j.text = s->call.body;
    if (!ep_policy_field_visible(EP_POLICY_BODY, c)) {
        ep_policy_blinded(set, p, s, c->blind, v);
        return;
    }
    if (!j.text.n) {
        ep_policy_allowed(p, v);
        return;
    }
    if (!ep_redact_readable(&s->request.headers, j.text, &j.as)) {
        ep_policy_blinded(set, p, s, EP_BLIND_UNKNOWN, v);
        return;
    }
    if (!redacted(set, p, s, &j, v))
        return;
    if (j.total && !shadow) {
        for (struct ep_call *i = &s->call; i; i = i->next) {
            if (!redact_part(set, p, s, &j, &i->arguments, v) || !redact_asked(set, p, s, &j, i->to_model, v) ||
                !redact_part(set, p, s, &j, &i->parts, v))
                return;
            i->parts_text = (struct ep_str){NULL, 0};
            i->body = j.result;
        }
        if (!redact_params(set, p, s, &j, v))
            return;
        ep_headers_body_changed(&s->request.headers);
        ep_stream_set_request_body(s, j.result);
    }
    v->refuse = j.total && !ep_policy_redacted(s, p, j.found, shadow, "policy.redacted_call", NULL);
    ep_policy_allowed(p, v);
}

/* --- a reply --- */

void ep_policy_redact_reply(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s,
                            const struct ep_redaction *rules, struct ep_policy_reply *reply, struct ep_policy_verdict *v)
{
    struct ep_redact_job j = {.arena = &s->arena, .rules = rules, .bytes_max = bytes_max(s)};
    bool shadow = ep_policy_shadow(set, p, s);

    if (!reply->whole) {
        ep_policy_blinded(set, p, s, reply->why, v);
        return;
    }
    j.text = reply->body;
    if (!j.text.n) {
        ep_policy_allowed(p, v);
        return;
    }
    /* Of a part of a text, what is to be found may be cut in two. */
    if (s->status == 206 || !ep_redact_readable(&s->response.headers, j.text, &j.as)) {
        ep_policy_blinded(set, p, s, EP_BLIND_UNKNOWN, v);
        return;
    }
    if (!redacted(set, p, s, &j, v))
        return;
    if (j.total && !shadow) {
        reply->body = j.result;
        ep_headers_body_changed(&s->response.headers);
        ep_stream_set_response_body(s, j.result);
    }
    v->refuse = j.total && !ep_policy_redacted(s, p, j.found, shadow, "policy.redacted_reply", NULL);
    ep_policy_allowed(p, v);
}

void ep_policy_redact(struct ep_policy_set *set, struct ep_policy_object *o, struct ep_policy_verdict *v)
{
    if (o->phase == EP_POLICY_CALL) {
        redact_call(set, o->policy, o->s, o->call, o->redactions, v);
    } else if (o->phase == EP_POLICY_EVENT || o->reply->events) {
        v->redactions = o->redactions; /* done as the events pass: watch.c */
        ep_policy_allowed(o->policy, v);
    } else if (o->reply->whole || o->reply->why != EP_BLIND_NOT) {
        ep_policy_redact_reply(set, o->policy, o->s, o->redactions, o->reply, v);
    } else {
        v->redactions = o->redactions;
    }
}
