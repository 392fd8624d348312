/* Replies that ephor makes itself: refusals, in the caller's own protocol, and whole replies of filters.
 *
 * A reply is built at once and sent by the stream's task at the end of the turn, so that no filter's step ever
 * runs inside another's. */
#include "filter/charter.h"
#include "filter/decision.h"
#include "filter/private.h"
#include "filter/refusal.h"

#include <stdio.h>

/* The response steps that a reply passes: those in front of the filter that makes it. One that is made outside of any
 * step (the upstream failed, the time is over) comes from where the message stands. */
static int8_t reply_from(const struct ep_stream *s)
{
    const struct ep_walk *rq = &s->request_walk, *rp = &s->response_walk;

    if (rq->running || rp->running)
        return (int8_t)(s->current - 1);
    if (rp->waiting)
        return rp->at; /* it stands behind the filter that waits */
    if (rp->started || rq->headers_passed)
        return (int8_t)(s->chain->n_filters - 2);
    return (int8_t)(rq->waiting ? rq->at - 2 : rq->at - 1);
}

void ep_stream_reply(struct ep_stream *s, unsigned status, struct ep_str content_type, struct ep_str body,
                     const struct ep_reply_header *extra, size_t n_extra)
{
    bool bodiless = status == 204 || status == 304;
    struct ep_headers *h = &s->response.headers;
    struct ep_str number;

    if (s->ending || s->reply_pending)
        return;
    if (s->response_started) {
        ep_stream_end_midway(s, (struct ep_str){NULL, 0});
        return;
    }
    ep_headers_fini(h); /* what the upstream may have said is dropped */
    ep_message_drop(&s->response);
    ep_headers_init(h, &s->arena);
    number = ep_arena_printf(&s->arena, "%03u", status);
    ep_headers_append(h, EP_HDR_STATUS, EP_STR(":status"), number);
    if (content_type.n)
        ep_headers_add_id(h, EP_HDR_CONTENT_TYPE, content_type);
    for (size_t i = 0; i < n_extra; i++)
        ep_headers_add(h, extra[i].name, extra[i].value);
    if (!bodiless && !ep_headers_find_id(h, EP_HDR_GRPC_STATUS))
        ep_headers_append(h, EP_HDR_CONTENT_LENGTH, EP_STR("content-length"),
                          ep_arena_printf(&s->arena, "%zu", body.n));
    s->reply_body = bodiless ? (struct ep_str){NULL, 0} : ep_arena_str(&s->arena, body);
    if (!s->refusal_waits) /* else it is known from when it was made */
        s->reply_from = reply_from(s);
    s->status = status;
    s->reply_pending = true;
    ep_worker_defer(s->worker, &s->task);
}

void ep_stream_reply_grpc(struct ep_stream *s, unsigned grpc_status, struct ep_str message)
{
    char number[16];
    struct ep_reply_header extra[3] = {
        {EP_STR("grpc-status"), ep_str_n(number, (size_t)snprintf(number, sizeof number, "%u", grpc_status))},
        {EP_STR("grpc-message"), message},
    };
    size_t n = message.n ? 2 : 1;

    if (s->refused)
        extra[n++] = (struct ep_reply_header){EP_STR("x-ephor-decision"), s->decision_id};
    s->grpc_status = (int)grpc_status;
    ep_stream_reply(s, 200, EP_STR("application/grpc"), (struct ep_str){NULL, 0}, extra, n);
}

/* What the upstream said and nobody will hear counts against its window no longer. */
static void give_up_response(struct ep_stream *s)
{
    struct ep_message *m = &s->response;

    ep_message_drop(m);
    if (s->up && m->owed)
        s->up->ops->consumed(s->up, m->owed);
    m->owed = 0;
}

/* The deferred part: the reply starts in front of the filter that made it. */
void ep_reply_run(struct ep_stream *s)
{
    struct ep_walk *w = &s->response_walk;
    struct ep_message *m = &s->response;

    s->reply_pending = false;
    if (s->down_over) {
        ep_stream_end(s);
        return;
    }
    s->local_reply = true;
    s->request_done = true;
    ep_message_drop(&s->request);
    give_up_response(s);
    *w = (struct ep_walk){.started = true, .at = s->reply_from, .body_from = s->reply_from};
    m->has_headers = true;
    m->has_trailers = false;
    m->in_flight = 0;
    m->ended = true;
    m->end_given = false;
    s->time.first_byte = s->time.first_byte ? s->time.first_byte : s->worker->now_ns;
    s->time.response_end = s->last_active_ns = s->worker->now_ns;
    if (s->reply_body.n && !s->down->head_request) /* the arena outlives the leg's output only by a copy */
        ep_body_push_copy(&m->body, s->reply_body.p, s->reply_body.n, &s->worker->slabs);
    ep_stream_settle(s);
    ep_walk_response(s);
}

void ep_stream_end_midway(struct ep_stream *s, struct ep_str tail)
{
    struct ep_walk *w = &s->response_walk;

    if (s->ending || s->midway || s->response.end_given)
        return;
    s->midway = s->request_done = true;
    s->last_words = tail;
    if (w->running)
        return; /* the walk goes on with what the step let pass, and says it */
    if (w->passing && !w->waiting) { /* the refusal waited for its record: the same */
        w->at--;
        ep_walk_response(s);
    } else {
        ep_stream_say_last_words(s);
    }
}

void ep_stream_say_last_words(struct ep_stream *s)
{
    struct ep_message *m = &s->response;
    struct ep_str tail = s->last_words;

    s->local_reply = true;
    s->last_active_ns = s->worker->now_ns;
    give_up_response(s);
    m->ended = m->end_given = true;
    if (tail.n) {
        struct ep_slab *slab = ep_slab_new_sized(&s->worker->slabs, tail.n);
        memcpy(slab->data, tail.p, tail.n);
        m->in_flight += tail.n;
        s->down->ops->data(s->down, (struct ep_slice){slab, slab->data, tail.n}, true);
    } else {
        s->down->ops->data(s->down, (struct ep_slice){NULL, NULL, 0}, true);
    }
}

/* A no to what the caller asks, and not a failure on the way to its answer. */
static bool is_no(const struct ep_refusal *r)
{
    return ep_refusal_is_decision(r) || r->kind == EP_REFUSE_TOO_LARGE || r->kind == EP_REFUSE_BAD_REQUEST;
}

/* Gives the refusal to the caller's protocol. */
static void say_no(struct ep_stream *s, const struct ep_refusal *r)
{
    s->denied_by = r->policy;
    s->denied_call = r->call;
    s->denied_code = ep_str(r->code);
    s->denied_status = ep_refusal_status(r);
    ep_report_refusal(s, r);
    if (!s->response_started) {
        s->protocol->refuse(s, r);
        return;
    }
    if (s->response.end_given && is_no(r)) { /* the upstream answered first; on its way to the caller that must not pass for a yes */
        ep_stream_abort(s, EP_RESET_INTERNAL);
        return;
    }
    if (s->protocol->refuse_midstream) {
        s->protocol->refuse_midstream(s, r);
        if (s->response.end_given || s->midway || s->ending)
            return;
    }
    ep_stream_abort(s, EP_RESET_INTERNAL);
}

void ep_refusal_deliver(struct ep_stream *s)
{
    struct ep_refusal *r = s->refusal_waits;

    s->reply_pending = false;
    say_no(s, r); /* refusal_waits still set: it goes out from where it was made */
    s->refusal_waits = NULL;
}

void ep_stream_unaudited(struct ep_stream *s)
{
    struct ep_refusal r;

    ep_refusal_unaudited(&r);
    if (s->refusal_waits) {
        *s->refusal_waits = r;
        ep_refusal_deliver(s);
    } else {
        ep_stream_refuse(s, &r);
    }
}

/* The record is in the file before any byte of the answer, and on the disk if so configured: DESIGN.md section 14.
 * False: the answer waits. */
static bool recorded(struct ep_stream *s, struct ep_refusal *r)
{
    const struct ep_decision d = {.decision = "deny",
                                  .policy = r->policy,
                                  .policy_version = r->policy_version,
                                  .principle = r->principle,
                                  .reason = r->reason,
                                  .code = r->code,
                                  .call = r->call};

    if (!ep_refusal_is_decision(r) && r->kind != EP_REFUSE_BAD_REQUEST) /* whose form may be meant to hide a call */
        return true;
    if (!ep_stream_audit_try(s, &d)) {
        ep_refusal_unaudited(r);
        return true;
    }
    if (!ep_stream_unsettled(s))
        return true;
    s->reply_from = reply_from(s);
    s->reply_pending = true;
    s->refusal_waits = ep_arena_alloc(&s->arena, sizeof *r);
    *s->refusal_waits = *r;
    return false;
}

/* By its policy's principle, in the words of the bundle. */
static void fill_principle(struct ep_stream *s, struct ep_refusal *r)
{
    const struct ep_constitution_config *c = s->view->constitution_config;
    const struct ep_principle *p;

    if (!r->principle.n && c && c->charter && ep_refusal_is_decision(r))
        r->principle = ep_charter_principle_of(c->charter, r->policy);
    p = ep_constitution_principle(c, r->principle);
    r->principle_text = p ? p->text : (struct ep_str){NULL, 0}; /* of the view: it outlives the stream */
}

void ep_stream_refuse_part(struct ep_stream *s, struct ep_refusal *r)
{
    fill_principle(s, r);
    ep_stream_decision(s);
    if (!ep_stream_audit_try(s, &(struct ep_decision){.decision = "deny",
                                                      .policy = r->policy,
                                                      .policy_version = r->policy_version,
                                                      .principle = r->principle,
                                                      .reason = r->reason,
                                                      .code = r->code}))
        ep_refusal_unaudited(r);
    ep_report_refusal(s, r);
}

void ep_stream_refuse(struct ep_stream *s, const struct ep_refusal *given)
{
    struct ep_refusal r = *given;

    if (s->ending || s->refused)
        return;
    s->refused = true;
    r.policy = ep_arena_str(&s->arena, r.policy);
    r.policy_version = ep_arena_str(&s->arena, r.policy_version);
    r.principle = ep_arena_str(&s->arena, r.principle);
    r.reason = ep_arena_str(&s->arena, r.reason);
    r.code = ep_arena_str(&s->arena, ep_str(r.code)).p;
    r.limit = ep_arena_str(&s->arena, r.limit);
    r.limit_policy = ep_arena_str(&s->arena, r.limit_policy);
    fill_principle(s, &r);
    ep_stream_decision(s);
    if (recorded(s, &r))
        say_no(s, &r);
}

/* --- bodies that a filter replaced --- */

static void replace_body(struct ep_stream *s, struct ep_message *m, struct ep_str body, bool bodiless)
{
    ep_body_fini(&m->body);
    if (!bodiless)
        ep_body_push_copy(&m->body, body.p, body.n, &s->worker->slabs);
    if (ep_headers_find_id(&m->headers, EP_HDR_CONTENT_LENGTH))
        ep_headers_set_id(&m->headers, EP_HDR_CONTENT_LENGTH, ep_arena_printf(&s->arena, "%zu", body.n));
}

void ep_stream_set_request_body(struct ep_stream *s, struct ep_str body)
{
    replace_body(s, &s->request, body, false);
}

void ep_stream_set_response_body(struct ep_stream *s, struct ep_str body)
{
    replace_body(s, &s->response, body, s->down->head_request || s->status == 204 || s->status == 304);
}
