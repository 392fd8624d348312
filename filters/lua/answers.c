/* Policies on a session's stream. lua/answers.h has the picture. */
#include "lua/answers.h"

#include "agent/mcp_sessions.h"
#include "filter/chain.h"

#define KEY(text)                                                                                                      \
    {                                                                                                                  \
        .key = EP_STR_INIT(text)                                                                                       \
    }

struct ep_policy_answers {
    struct ep_policy_set *set;
    struct ep_stream *s;
    struct ep_events events;
    struct ep_arena arena; /* of the event that passes now */
};

struct ep_policy_answers *ep_policy_answers_new(struct ep_policy_set *set, struct ep_stream *s)
{
    struct ep_policy_answers *a = EP_ARENA_NEW(&s->arena, struct ep_policy_answers);

    a->set = set;
    a->s = s;
    ep_events_init(&a->events, EP_MAX(s->chain->config->max_body_bytes, EP_EVENT_BYTES_MAX));
    ep_arena_init(&a->arena, &s->worker->chunks);
    return a;
}

void ep_policy_answers_free(struct ep_policy_answers *a)
{
    if (!a)
        return;
    ep_events_fini(&a->events);
    ep_arena_fini(&a->arena);
}

/* --- whose answer it is --- */

/* False: it is no answer. What can't be read for sure is nobody's. */
static bool is_answer(struct ep_policy_answers *a, const struct ep_event *e, struct ep_call *call)
{
    enum { ID, METHOD, RESULT, ERROR };
    struct ep_texts_member m[] = {KEY("id"), KEY("method"), KEY("result"), KEY("error")};
    struct ep_mcp_session *session = a->s->mcp_session->session;
    struct ep_event_texts t = {0};

    if (e->name.n && !ep_str_eq(e->name, EP_STR("message")))
        return false; /* clients read no message from events of another name */
    ep_texts_members(&t, e->data, m, EP_COUNT(m));
    if (!t.unsure && !ep_str_starts(ep_str_trim(e->data), EP_STR("[")) &&
        (m[METHOD].value.n || (!m[RESULT].value.n && !m[ERROR].value.n)))
        return false;
    if (!t.unsure && session && m[ID].value.n && ep_mcp_session_answered(session, m[ID].value, &a->arena, call))
        return true;
    *call = a->s->call;
    call->id_raw = t.unsure ? (struct ep_str){NULL, 0} : m[ID].value;
    call->visible = EP_VISIBLE_HEADERS;
    call->blind = EP_BLIND_UNKNOWN;
    return true;
}

/* That it is MCP's is known of every call here. */
static enum ep_policy_match matches(const struct ep_policy *p, struct ep_stream *s)
{
    for (unsigned i = 0; i < p->n_rules; i++)
        if (p->rules[i].field == EP_POLICY_PROTOCOL && !ep_policy_rule_holds(&p->rules[i], s, &s->call))
            return EP_POLICY_NO_MATCH;
    return ep_policy_matches(p, s, &s->call);
}

/* --- judging --- */

/* What the policy makes of the answer: a stage of `w`, or a verdict at once. */
static void ask(struct ep_policy_answers *a, struct ep_policy *p, struct ep_policy_watch *w,
                struct ep_policy_verdict *v)
{
    struct ep_policy_reply reply = {.why = EP_BLIND_STREAMED, .events = true};
    bool asked = p->reply_ref != LUA_NOREF && !(p->needs_reply_body && p->event_ref != LUA_NOREF);
    uint64_t now = ep_clock_ns();

    *v = (struct ep_policy_verdict){.decision = EP_POLICY_ALLOW};
    if (matches(p, a->s) == EP_POLICY_UNSEEN) {
        ep_policy_blinded(a->set, p, a->s, a->s->call.blind, v);
        return;
    }
    if (asked)
        ep_policy_judge(a->set, p, a->s, &a->s->call, EP_POLICY_REPLY, &reply, &now, v);
    if (v->wait) { /* nothing waits for it here: the answers behind are others' */
        ep_policy_wait_drop(v->wait);
        *v = (struct ep_policy_verdict){.decision = EP_POLICY_ALLOW};
        ep_policy_blinded(a->set, p, a->s, EP_BLIND_STREAMED, v);
    } else if (!v->refuse && (p->event_ref != LUA_NOREF || v->redactions)) {
        ep_policy_watch_add(w, p, v->redactions);
    }
}

bool ep_policy_judges_answers(const struct ep_policy_set *set, const struct ep_policy *p)
{
    enum ep_mode mode = p->constitutional ? p->mode : EP_MAX(p->mode, set->mode);

    return mode != EP_MODE_OFF && (p->reply_ref != LUA_NOREF || p->event_ref != LUA_NOREF);
}

/* True: *data goes on. */
static bool judge(struct ep_policy_answers *a, const struct ep_event *e, struct ep_str *data, struct ep_policy **who,
                  struct ep_policy_verdict *v)
{
    struct ep_policy_watch *w = ep_policy_watch_one(a->set, a->s);
    bool good = true;

    for (unsigned i = 0; good && i < a->set->n; i++) {
        *who = a->set->v[i];
        if (!ep_policy_judges_answers(a->set, *who) || matches(*who, a->s) == EP_POLICY_NO_MATCH)
            continue;
        ask(a, *who, w, v);
        good = !v->refuse;
    }
    good = good && ep_policy_watch_event(w, e, data, who, v) == EP_POLICY_WATCH_ON;
    ep_policy_watch_free(w);
    return good;
}

/* The error in its place; empty: nobody waits for one. */
static struct ep_str refuse(struct ep_policy_answers *a, const struct ep_policy *p, const struct ep_policy_verdict *v)
{
    struct ep_refusal r = ep_policy_refusal(p, v);

    ep_stream_refuse_part(a->s, &r);
    return a->s->call.id_raw.n ? a->s->mcp_session->error(&a->s->call, &r, a->s->decision_id, &a->arena)
                               : (struct ep_str){NULL, 0};
}

static enum ep_event_verdict on_event(void *user, const struct ep_event *e, struct ep_str *replacement)
{
    struct ep_policy_answers *a = user;
    struct ep_stream *s = a->s;
    struct ep_policy_verdict v;
    struct ep_policy *who;
    struct ep_call call;
    bool answer, good;

    ep_arena_fini(&a->arena);
    ep_arena_init(&a->arena, &s->worker->chunks);
    s->brief = &a->arena;
    answer = is_answer(a, e, &call);
    if (answer)
        ep_mcp_session_exchange(s, &call);
    good = judge(a, e, replacement, &who, &v);
    if (!good)
        *replacement = refuse(a, who, &v);
    if (answer)
        ep_mcp_session_exchange(s, &call);
    s->brief = NULL;
    if (s->refused) /* what must be on record can't be */
        return EP_EVENT_STOP;
    if (!good && !replacement->n)
        return EP_EVENT_DROP;
    return replacement->p == e->data.p ? EP_EVENT_PASS : EP_EVENT_REPLACE;
}

bool ep_policy_answers_pass(struct ep_policy_answers *a, struct ep_body *b, bool end)
{
    struct ep_stream *s = a->s;
    enum ep_events_result r = ep_events_pass(&a->events, b, end && !s->midway, &s->worker->slabs, on_event, a);

    if (r == EP_EVENTS_TOO_LARGE)
        ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_POLICY,
                                                 .policy = EP_STR("policies"),
                                                 .reason = EP_STR("an event is larger than policies may read"),
                                                 .code = "policy.blind",
                                                 .grpc_status = -1});
    return r == EP_EVENTS_GOOD;
}
