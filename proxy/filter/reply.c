/* Replies that ephor makes itself: refusals, in the caller's own protocol, and whole replies of filters.
 *
 * A reply is built at once and sent by the stream's task at the end of the turn, so that no filter's step ever
 * runs inside another's. */
#include "filter/private.h"
#include "filter/trace.h"

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
    s->reply_from = reply_from(s);
    s->status = status;
    s->reply_pending = true;
    ep_worker_defer(s->worker, &s->task);
}

void ep_stream_reply_grpc(struct ep_stream *s, unsigned grpc_status, struct ep_str message)
{
    char number[16];
    struct ep_reply_header extra[2] = {
        {EP_STR("grpc-status"), ep_str_n(number, (size_t)snprintf(number, sizeof number, "%u", grpc_status))},
        {EP_STR("grpc-message"), message},
    };

    s->grpc_status = (int)grpc_status;
    ep_stream_reply(s, 200, EP_STR("application/grpc"), (struct ep_str){NULL, 0}, extra, message.n ? 2 : 1);
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
    struct ep_message *m = &s->response;

    if (s->ending || m->end_given)
        return;
    s->local_reply = true;
    s->request_done = true;
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

static bool is_decision(enum ep_refusal_kind kind)
{
    return kind == EP_REFUSE_POLICY || kind == EP_REFUSE_UNAUTHORIZED || kind == EP_REFUSE_LIMIT;
}

static void audit(struct ep_stream *s, const struct ep_refusal *r)
{
    struct ep_audit_field fields[] = {
        {"decision", EP_STR("deny")},
        {"decision_id", ep_stream_decision(s)},
        {"trace_id", ep_stream_trace(s)},
        {"policy", r->policy},
        {"principle", r->principle},
        {"code", ep_str(r->code)},
        {"reason", r->reason},
        {"listener", s->listener->name},
        {"agent_id", s->peer_id},
        {"tenant_id", s->call.tenant},
        {"protocol", s->call.protocol},
        {"method", s->call.method},
        {"tool", s->call.tool},
        {"model", s->call.model},
        {"constitutional_hash", s->view->constitution},
    };

    ep_audit_record(s->worker->audit, s->worker->stats, "decision", fields, EP_COUNT(fields));
}

void ep_stream_refuse(struct ep_stream *s, const struct ep_refusal *given)
{
    struct ep_refusal r = *given;

    if (s->ending || s->refused)
        return;
    s->refused = true;
    r.policy = ep_arena_str(&s->arena, r.policy);
    r.principle = ep_arena_str(&s->arena, r.principle);
    r.reason = ep_arena_str(&s->arena, r.reason);
    s->denied_by = r.policy;
    s->denied_code = ep_arena_str(&s->arena, ep_str(r.code));
    r.code = s->denied_code.p;
    ep_stream_decision(s);
    if (is_decision(r.kind))
        audit(s, &r); /* before any byte of the answer: DESIGN.md section 14 */
    ep_report_refusal(s, &r);
    if (!s->response_started) {
        s->protocol->refuse(s, &r);
        return;
    }
    if (s->protocol->refuse_midstream) {
        s->protocol->refuse_midstream(s, &r);
        if (s->response.end_given || s->ending)
            return;
    }
    ep_stream_abort(s, EP_RESET_INTERNAL);
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
