/* The filter `policies`: every policy of the directory, in the order of the files' names.
 *
 * Request: each policy judges each call of the request (a JSON-RPC batch has several); the first refusal ends it.
 * Reply: the policies that matched the request and have a `reply` see the response: its head, or, where one of them needs
 * it, the whole of it. What they redact is done when the body is there whole. Replies that ephor made itself are not
 * judged.
 *
 * A policy may wait (wait.c). Where it stands is kept, the step answers EP_WAIT, and when it has decided the rest of the
 * policies follow. */
#include "agent/agent.h"
#include "agent/events.h"
#include "agent/mcp_sessions.h"
#include "filter/chain.h"
#include "lua/answers.h"
#include "lua/policy.h"
#include "lua/record.h"
#include "lua/watch.h"

/* What a policy wants redacted in a reply whose body isn't there yet. */
struct pending {
    struct pending *next;
    struct ep_policy *policy;
    struct ep_redaction *rules;
};

enum buffering { NOT, TO_JUDGE, TO_REDACT };

struct state {
    uint64_t matched[EP_POLICIES_MAX / 64];
    struct ep_policy_wait *wait; /* of the policy `at`; NULL: none waits */
    unsigned at;
    struct ep_call *call; /* that is judged */
    unsigned number;      /* of it in its batch, from 0 */
    bool failed;          /* some policy failed */
    struct ep_policy_hearing *hearing; /* NULL: nobody hears */
    struct ep_record *record; /* … which is this: what is kept of the request; NULL: nothing */
    struct ep_policy_reply reply;
    struct pending *pending, **pending_end;
    enum buffering buffering;
    struct ep_policy_watch *watch; /* of a response of events; NULL: nobody watches */
    struct ep_policy_answers *answers; /* of a session of MCP 2024-11-05, in its place */
};

/* Fields of the call record are filled by `agent`. Without it in front, a rule about them would do nothing. */
static bool agent_in_front(const struct ep_filter_instance *i)
{
    const struct ep_vec *filters = &i->chain->config->filters;
    const struct ep_filter_use *use = filters->v;

    if (filters->n == 0)
        return true; /* the default chain has it */
    for (size_t k = 0; k < filters->n; k++) {
        if (ep_str_eq(use[k].name, EP_STR("agent")))
            return true;
        if (ep_str_eq(use[k].name, EP_STR("policies")))
            return false;
    }
    return false;
}

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    /* `method` and `protocol` have an answer of plain HTTP without the agent filter. */
    static const uint32_t of_agent = 1u << EP_POLICY_TOOL | 1u << EP_POLICY_MODEL | 1u << EP_POLICY_AGENT |
                                     1u << EP_POLICY_TASK | 1u << EP_POLICY_SESSION | 1u << EP_POLICY_SERVICE |
                                     1u << EP_POLICY_URI | 1u << EP_POLICY_PROMPT | 1u << EP_POLICY_ARGUMENTS |
                                     1u << EP_POLICY_BODY | 1u << EP_POLICY_TENANT | 1u << EP_POLICY_PRIORITY |
                                     1u << EP_POLICY_IMPACT;
    const struct ep_policies_config *config = i->view ? i->view->policies_config : NULL;
    struct ep_policy_set *set;

    if (!config || ((!config->directory.n || config->mode == EP_MODE_OFF) && !config->charter))
        return true; /* and no Lua state is made for nothing */
    set = i->view->policies ? ep_policy_set_share(i->view->policies)
                            : ep_policy_set_ref(i->worker, i->view, config, err);
    if (!set)
        return false;
    i->data = set;
    if (i->chain)
        ep_policy_cover_chain(set, i->chain);
    if ((set->fields & of_agent) && i->chain && i->chain->config && !agent_in_front(i)) {
        ep_policy_set_unref(set);
        i->data = NULL;
        return ep_error_set(err,
                            "policies look at tools or other fields of a call, and the listener '%.*s' has no "
                            "filter 'agent' in front of 'policies' to find them",
                            EP_STR_ARG(i->chain->config->name));
    }
    return true;
}

static void unload(struct ep_filter_instance *i)
{
    if (i->data)
        ep_policy_set_unref(i->data);
}

static void count(struct ep_policy_set *set, bool denied, bool failed)
{
    struct ep_policy_totals *t = set->totals;

    if (!t)
        return;
    ep_cell_add(&t->requests, 1);
    if (EP_UNLIKELY(failed))
        ep_cell_add(&t->failed, 1);
    else if (EP_UNLIKELY(denied))
        ep_cell_add(&t->denied, 1);
}

/* What the constitution's policies do says nothing of the version of the operator's. */
static bool fails(const struct ep_policy *p, const struct ep_policy_verdict *v)
{
    return v->decision >= EP_POLICY_ERROR && !p->constitutional;
}

/* --- going through the policies --- */

enum going { PASSED, REFUSED, WAITS };

static const enum ep_step steps[] = {[PASSED] = EP_NEXT, [REFUSED] = EP_REPLIED, [WAITS] = EP_WAIT};

/* Takes in what is not plainly good. */
static enum going take(struct ep_policy_set *set, struct ep_stream *s, struct state *state, const struct ep_call *call,
                       struct ep_policy_verdict *v, ep_policy_woken *woken)
{
    if (v->wait) {
        state->wait = v->wait;
        ep_policy_wait_start(v->wait, state, woken);
        return WAITS;
    }
    if (v->refuse) {
        ep_policy_refuse(s, set->v[state->at], call, v);
        return REFUSED;
    }
    return PASSED;
}

/* True when nobody wants the answer of a policy any more: the stream ends, or something else has answered. */
static bool is_over(const struct ep_stream *s)
{
    return s->ending || s->finished || s->refused || s->local_reply || s->reply_pending;
}

/* What waited goes on; its verdict is in v. False: there is nothing to go on for. */
static bool wake(struct ep_policy_wait *w, struct state *state, uint64_t *now, struct ep_policy_verdict *v)
{
    state->wait = NULL;
    if (is_over(w->s)) {
        ep_policy_wait_drop(w);
        return false;
    }
    *now = ep_clock_ns();
    ep_policy_go_on(w, now, v);
    return true;
}

static bool did_match(const struct state *state, unsigned i)
{
    return state->matched[i / 64] & (1ull << (i % 64));
}

/* --- calls --- */

static void calls_woken(struct ep_policy_wait *w);

/* Whoever judges answers is blind to one that comes on a stream which isn't known here. True: nobody minds. */
static bool answers_are_seen(struct ep_policy_set *set, struct ep_stream *s, const struct state *state)
{
    struct ep_policy_verdict v = {.decision = EP_POLICY_ALLOW};

    if (EP_LIKELY(!s->call.answered_elsewhere) || ep_mcp_session_is_known(s))
        return true;
    for (unsigned i = 0; i < set->n && !v.refuse; i++) {
        struct ep_policy *p = set->v[i];
        if (!did_match(state, i) || !ep_policy_judges_answers(set, p))
            continue;
        ep_policy_blinded(set, p, s, EP_BLIND_STREAMED, &v);
        if (v.refuse)
            ep_policy_refuse(s, p, NULL, &v);
    }
    return !v.refuse;
}

/* Events that some policy will want to see must not come compressed. */
static void ask_for_plain_events(const struct ep_policy_set *set, struct ep_stream *s, const struct state *state)
{
    if (!(s->call.stream || s->call.wants_sse) || !ep_headers_find_id(&s->request.headers, EP_HDR_ACCEPT_ENCODING))
        return;
    for (unsigned i = 0; i < set->n; i++) {
        const struct ep_policy *p = set->v[i];
        if (!did_match(state, i) || (p->event_ref == LUA_NOREF && p->reply_ref == LUA_NOREF))
            continue;
        ep_headers_set_id(&s->request.headers, EP_HDR_ACCEPT_ENCODING, EP_STR("identity"));
        return;
    }
}

static enum going take_call(struct ep_policy_set *set, struct ep_stream *s, struct state *state, struct ep_policy_verdict *v)
{
    const struct ep_policy *p = set->v[state->at];

    state->failed |= fails(p, v);
    if (v->refuse && !p->constitutional)
        count(set, true, state->failed);
    if (!v->wait)
        ep_policy_heard(state->hearing, p, EP_POLICY_CALL, state->number, v);
    return take(set, s, state, state->call, v, calls_woken);
}

/* From state->at and state->call on. */
static enum going ask_calls(struct ep_policy_set *set, struct ep_stream *s, struct state *state, uint64_t now)
{
    struct ep_call *c = state->call;
    unsigned number = state->number;
    struct ep_policy_verdict v;

    for (unsigned i = state->at; i < set->n; i++, c = &s->call, number = 0) {
        for (; c; c = c->next, number++) {
            ep_policy_judge(set, set->v[i], s, c, EP_POLICY_CALL, NULL, &now, &v);
            if (v.matched)
                state->matched[i / 64] |= 1ull << (i % 64);
            state->failed |= fails(set->v[i], &v);
            if (EP_UNLIKELY(v.wait || v.refuse)) {
                state->at = i;
                state->call = c;
                state->number = number;
                return take_call(set, s, state, &v);
            }
            ep_policy_heard(state->hearing, set->v[i], EP_POLICY_CALL, number, &v);
        }
    }
    count(set, false, state->failed);
    if (!(set->replies || set->events))
        return PASSED;
    ask_for_plain_events(set, s, state);
    return answers_are_seen(set, s, state) ? PASSED : REFUSED;
}

static enum going judge_calls(struct ep_policy_set *set, struct ep_stream *s, struct state *state, uint64_t now)
{
    enum going going;

    set->hearing = state->hearing;
    going = ask_calls(set, s, state, now);
    set->hearing = NULL;
    return going;
}

static void calls_woken(struct ep_policy_wait *w)
{
    struct ep_policy_set *set = w->set;
    struct ep_stream *s = w->s;
    struct state *state = w->owner;
    struct ep_policy_verdict v;
    enum going going;
    uint64_t now;

    if (!wake(w, state, &now, &v))
        return;
    going = take_call(set, s, state, &v);
    if (going == PASSED) {
        state->call = state->call->next;
        state->number++;
        going = judge_calls(set, s, state, now);
    }
    if (going == PASSED)
        ep_stream_resume_request(s);
}

static enum ep_step request_headers(struct ep_stream *s, void *state_, bool end)
{
    struct ep_policy_set *set = ep_filter_data(s);
    struct state *state = state_;

    (void)end;
    if (!set || set->n == 0)
        return EP_NEXT;
    if (EP_UNLIKELY(set->recorder != NULL)) {
        state->record = ep_record_begin(set->recorder, s);
        state->hearing = state->record ? ep_record_hearing(state->record) : NULL;
    } else {
        state->hearing = set->hearing;
    }
    state->at = 0;
    state->call = &s->call;
    return steps[judge_calls(set, s, state, ep_clock_ns())];
}

/* --- replies --- */

/* A policy that watches events doesn't ask for the whole of a stream. */
static bool may_reply(const struct ep_policy_set *set, const struct state *state, unsigned i)
{
    const struct ep_policy *p = set->v[i];

    return p->reply_ref != LUA_NOREF && did_match(state, i) &&
           !(state->reply.events && p->needs_reply_body && p->event_ref != LUA_NOREF);
}

/* Why the body of a reply can't be had whole; EP_BLIND_NOT: it can. */
static enum ep_blind_reason unreadable(const struct ep_stream *s)
{
    const struct ep_headers *h = &s->response.headers;
    struct ep_str type = ep_media_type(ep_headers_get_id(h, EP_HDR_CONTENT_TYPE));
    struct ep_codings codings;
    uint64_t n;

    if (s->live && !ep_stream_response_is_events(s))
        return EP_BLIND_ENCODING;
    if (s->tunnel || s->live || ep_str_casestarts(type, EP_STR("application/grpc")))
        return EP_BLIND_STREAMED;
    if (!ep_codings_of(h, &codings))
        return EP_BLIND_ENCODING;
    if (ep_str_u64(ep_headers_get_id(h, EP_HDR_CONTENT_LENGTH), &n) && n > s->chain->config->max_body_bytes)
        return EP_BLIND_TOO_LARGE;
    return EP_BLIND_NOT;
}

/* A body of unknown length may be a stream, which a policy in shadow must not be the cause of holding back. */
static bool may_hold(const struct ep_policy_set *set, const struct ep_policy *p, struct ep_stream *s)
{
    return (p->mode != EP_MODE_OFF && !ep_policy_shadow(set, p, s)) ||
           ep_headers_find_id(&s->response.headers, EP_HDR_CONTENT_LENGTH);
}

static bool wants_body(const struct ep_policy_set *set, const struct state *state, struct ep_stream *s)
{
    for (unsigned i = 0; i < set->n; i++)
        if (set->v[i]->needs_reply_body && may_reply(set, state, i) && may_hold(set, set->v[i], s))
            return true;
    return false;
}

static void replies_woken(struct ep_policy_wait *w);

static void remember(struct ep_stream *s, struct state *state, struct ep_policy *p, struct ep_redaction *rules)
{
    struct pending *more = EP_ARENA_NEW(&s->arena, struct pending);

    more->policy = p;
    more->rules = rules;
    *(state->pending_end ? state->pending_end : &state->pending) = more;
    state->pending_end = &more->next;
}

/* From state->at on. */
static enum going ask_replies(struct ep_policy_set *set, struct ep_stream *s, struct state *state, uint64_t now)
{
    struct ep_policy_verdict v;

    for (; state->at < set->n; state->at++) {
        struct ep_policy *p = set->v[state->at];
        if (!may_reply(set, state, state->at))
            continue;
        ep_policy_judge(set, p, s, &s->call, EP_POLICY_REPLY, &state->reply, &now, &v);
        if (v.redactions)
            remember(s, state, p, v.redactions);
        if (!v.wait)
            ep_policy_heard(state->hearing, p, EP_POLICY_REPLY, 0, &v);
        if (EP_UNLIKELY(v.wait || v.refuse)) {
            if (v.wait && !state->reply.whole && state->reply.why == EP_BLIND_NOT)
                state->reply.why = EP_BLIND_STREAMED; /* the walk goes on behind: there is no asking for the body later */
            return take(set, s, state, NULL, &v, replies_woken);
        }
    }
    return PASSED;
}

static enum going judge_replies(struct ep_policy_set *set, struct ep_stream *s, struct state *state, uint64_t now)
{
    enum going going;

    set->hearing = state->hearing;
    going = ask_replies(set, s, state, now);
    set->hearing = NULL;
    return going;
}

/* What is to be redacted is, or its policy is blind to it. */
static enum going redact_pending(struct ep_policy_set *set, struct ep_stream *s, struct state *state)
{
    struct ep_policy_verdict v;

    for (; state->pending; state->pending = state->pending->next) {
        v = (struct ep_policy_verdict){.decision = EP_POLICY_ALLOW};
        ep_policy_redact_reply(set, state->pending->policy, s, state->pending->rules, &state->reply, &v);
        if (v.decision != EP_POLICY_ALLOW)
            ep_policy_heard(state->hearing, state->pending->policy, EP_POLICY_REPLY, 0, &v);
        if (v.refuse) {
            ep_policy_refuse(s, state->pending->policy, NULL, &v);
            return REFUSED;
        }
    }
    return PASSED;
}

static bool may_hold_for_pending(const struct ep_policy_set *set, struct ep_stream *s, const struct state *state)
{
    for (const struct pending *i = state->pending; i; i = i->next)
        if (may_hold(set, i->policy, s))
            return true;
    return false;
}

/* From here on the events are watched by those who judge or redact them. */
static enum going watch(struct ep_policy_set *set, struct ep_stream *s, struct state *state)
{
    struct ep_policy_verdict v;

    for (unsigned i = 0; i < set->n; i++) {
        struct ep_policy *p = set->v[i];
        const struct pending *asked = state->pending;
        if (!did_match(state, i) || (p->constitutional ? p->mode : EP_MAX(p->mode, set->mode)) == EP_MODE_OFF)
            continue;
        while (asked && asked->policy != p)
            asked = asked->next;
        if (!asked && p->event_ref == LUA_NOREF)
            continue;
        if (state->reply.events) {
            if (!state->watch)
                state->watch = ep_policy_watch_new(set, s, state->hearing);
            ep_policy_watch_add(state->watch, p, asked ? asked->rules : NULL);
            continue;
        }
        v = (struct ep_policy_verdict){.decision = EP_POLICY_ALLOW};
        ep_policy_blinded(set, p, s, state->reply.why, &v);
        ep_policy_heard(state->hearing, p, EP_POLICY_EVENT, 0, &v);
        if (v.refuse) {
            ep_policy_refuse(s, p, NULL, &v);
            return REFUSED;
        }
    }
    if (state->watch) /* what they make of the events may have another length */
        ep_headers_remove_id(&s->response.headers, EP_HDR_CONTENT_LENGTH);
    return PASSED;
}

static enum ep_step replies_judged(struct ep_policy_set *set, struct ep_stream *s, struct state *state, enum going going)
{
    if (going == PASSED && s->live && !state->reply.whole)
        return steps[watch(set, s, state)];
    if (going != PASSED || !state->pending)
        return steps[going];
    if (!state->reply.whole && state->reply.why == EP_BLIND_NOT) {
        if (may_hold_for_pending(set, s, state)) {
            state->buffering = TO_REDACT;
            return EP_BUFFER;
        }
        state->reply.why = EP_BLIND_STREAMED;
    }
    return steps[redact_pending(set, s, state)];
}

static void replies_woken(struct ep_policy_wait *w)
{
    struct ep_policy_set *set = w->set;
    struct ep_stream *s = w->s;
    struct state *state = w->owner;
    struct ep_policy_verdict v;
    enum going going;
    uint64_t now;

    if (!wake(w, state, &now, &v))
        return;
    if (!v.wait)
        ep_policy_heard(state->hearing, set->v[state->at], EP_POLICY_REPLY, 0, &v);
    going = take(set, s, state, NULL, &v, replies_woken);
    if (going == PASSED) {
        state->at++;
        going = judge_replies(set, s, state, now);
    }
    if (going == PASSED)
        going = s->live && !state->reply.whole ? watch(set, s, state) : redact_pending(set, s, state);
    if (going == PASSED)
        ep_stream_resume_response(s);
}

static enum ep_step response_headers(struct ep_stream *s, void *state_, bool end)
{
    struct ep_policy_set *set = ep_filter_data(s);
    struct state *state = state_;

    if (EP_UNLIKELY(state->record && !s->local_reply && !s->refused)) {
        ep_record_reply(state->record, s);
        if (end)
            ep_record_body(state->record, NULL, true);
    }
    if (!set || !(set->replies || (set->events && s->live)) || s->local_reply || s->refused) {
        if (!state->record)
            ep_stream_leave_response_body(s);
        return EP_NEXT;
    }
    state->at = 0;
    state->reply = (struct ep_policy_reply){.whole = end, .why = end ? EP_BLIND_NOT : unreadable(s)};
    state->reply.events = state->reply.why == EP_BLIND_STREAMED && s->live;
    if (!end && set->reply_bodies && state->reply.why == EP_BLIND_NOT) {
        if (wants_body(set, state, s)) {
            state->buffering = TO_JUDGE;
            return EP_BUFFER;
        }
    }
    return replies_judged(set, s, state, judge_replies(set, s, state, ep_clock_ns()));
}

/* The body as policies see it, decoded. What goes on are the bytes that came, unless a policy changes them. */
static void read_body(struct ep_stream *s, struct ep_policy_reply *r, struct ep_body *b)
{
    struct ep_codings codings;

    if (!ep_codings_of(&s->response.headers, &codings))
        r->why = EP_BLIND_ENCODING;
    else if (codings.n && b->bytes)
        r->why = ep_agent_decoded(s, &codings, b, &r->body);
    else
        r->body = ep_body_flatten(b, &s->arena);
    r->whole = r->why == EP_BLIND_NOT;
}

/* A stream that carries answers to many calls; known by its first event, before it has passed. */
static enum ep_step answers_body(struct ep_stream *s, struct state *state, struct ep_body *b, bool end)
{
    if (!state->answers) {
        ep_policy_watch_free(state->watch);
        state->watch = NULL;
        state->answers = ep_policy_answers_new(ep_filter_data(s), s);
    }
    return ep_policy_answers_pass(state->answers, b, end) ? EP_NEXT : EP_REPLIED;
}

static enum ep_step watch_body(struct ep_stream *s, struct state *state, struct ep_body *b, bool end)
{
    struct ep_policy_verdict v;
    struct ep_policy *p;

    if (EP_UNLIKELY(s->mcp_session != NULL))
        return answers_body(s, state, b, end);
    if (ep_policy_watch_pass(state->watch, b, end && !s->midway, &s->worker->slabs, &p, &v) == EP_POLICY_WATCH_ON)
        return EP_NEXT;
    ep_policy_refuse(s, p, NULL, &v);
    return EP_REPLIED;
}

/* The whole body, when it was asked for; or events as they pass. */
static enum ep_step response_body(struct ep_stream *s, void *state_, struct ep_body *b, bool end)
{
    struct ep_policy_set *set = ep_filter_data(s);
    struct state *state = state_;
    enum buffering why = state->buffering;

    if (EP_UNLIKELY(state->record != NULL))
        ep_record_body(state->record, b, end);
    if (EP_UNLIKELY(state->watch != NULL))
        return watch_body(s, state, b, end);
    if (EP_UNLIKELY(s->mcp_session != NULL))
        return answers_body(s, state, b, end);
    if (why == NOT || !end)
        return EP_NEXT;
    state->buffering = NOT;
    read_body(s, &state->reply, b);
    if (EP_UNLIKELY(state->record && state->reply.whole && ep_headers_find_id(&s->response.headers, EP_HDR_CONTENT_ENCODING)))
        ep_record_decoded(state->record, state->reply.body);
    if (why == TO_REDACT)
        return steps[redact_pending(set, s, state)];
    return replies_judged(set, s, state, judge_replies(set, s, state, ep_clock_ns()));
}

/* It was longer than may be held: it goes on in pieces if who wanted it whole is content with that. */
static enum ep_step response_too_large(struct ep_stream *s, void *state_)
{
    struct ep_policy_set *set = ep_filter_data(s);
    struct state *state = state_;
    enum buffering why = state->buffering;

    state->buffering = NOT;
    state->reply.why = EP_BLIND_TOO_LARGE;
    if (why == TO_REDACT)
        return steps[redact_pending(set, s, state)];
    return replies_judged(set, s, state, judge_replies(set, s, state, ep_clock_ns()));
}

static void finish(struct ep_stream *s, void *state_)
{
    struct state *state = state_;

    (void)s;
    if (EP_UNLIKELY(state->wait != NULL))
        ep_policy_wait_drop(state->wait);
    state->wait = NULL;
    if (EP_UNLIKELY(state->record != NULL))
        ep_record_end(state->record);
    state->record = NULL;
    ep_policy_watch_free(state->watch);
    state->watch = NULL;
    ep_policy_answers_free(state->answers);
}

const struct ep_filter ep_filter_policies = {
    .name = "policies",
    .help = "Judges each request by the policies in Lua of the configured directory.",
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .response_headers = response_headers,
    .response_body = response_body,
    .response_too_large = response_too_large,
    .finish = finish,
};
