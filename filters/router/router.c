/* The router: always the last filter. Finds the cluster, gets a leg to it, passes the message both ways, retries what
 * is safe to retry.
 *
 * Safe means (DESIGN.md section 10): nothing of a response has reached the client, the body is still here whole, and either the
 * upstream said or showed that it did not process the request, or the route's `retry.on` names the failure and the
 * method is idempotent or the failure came before the request was sent. */
#include "filter/chain.h"
#include "filter/filter.h"
#include "filter/trace.h"
#include "observe/observe.h"
#include "router/router.h"
#include "upstream/upstream.h"

#define REPLAY_MAX (64u * 1024u)

static const struct ep_leg_events up_events;

static void start_try(struct router *r);

/* --- ends of a try --- */

static void let_go(struct router *r, const struct ep_upstream_outcome *o)
{
    struct ep_stream *s = r->stream;

    ep_worker_timer_stop(s->worker, &r->try_timer);
    if (r->acquiring) {
        ep_upstream_cancel(&r->call);
        r->acquiring = false;
    }
    if (!s->up)
        return;
    ep_upstream_done(&r->call, o);
    s->up->ops->release(s->up);
    s->up = NULL;
}

static void refuse(struct router *r, enum ep_refusal_kind kind, const char *code, const char *flag, const char *reason)
{
    struct ep_stream *s = r->stream;

    if (s->reply_pending || s->local_reply)
        return; /* a filter has answered: nobody waits for the upstream any more */
    if (!s->response_flag)
        s->response_flag = flag;
    ep_stream_refuse(s, &(struct ep_refusal){.kind = kind,
                                             .policy = EP_STR("router"),
                                             .reason = ep_str(reason),
                                             .code = code,
                                             .grpc_status = -1});
}

static void on_retry_task(struct ep_task *t)
{
    struct router *r = EP_CONTAINER(t, struct router, retry_task);

    let_go(r, &r->outcome);
    start_try(r);
}

static void on_backoff(struct ep_timer *t)
{
    start_try(EP_CONTAINER(t, struct router, backoff));
}

/* True when nobody wants an upstream's answer any more: ephor has one of its own, or the stream ends. */
static bool unwanted(const struct router *r)
{
    const struct ep_stream *s = r->stream;

    return s->ending || s->refused || s->reply_pending || s->local_reply || r->gave_up;
}

/* Whether one more try is right; counts it. The caller begins it at the end of the turn. */
static bool retry(struct router *r, enum router_failure why, unsigned status)
{
    struct ep_stream *s = r->stream;

    if (s->response_started || s->tunnel || unwanted(r))
        return false;
    if (!router_may_retry(r, why, status))
        return false;
    if (!ep_upstream_retry_allowed(r->call.cluster, r->route->config->retry ? r->route->config->retry->budget : 0.2)) {
        router_count_retry(r, "budget");
        return false;
    }
    router_count_retry(r, "done");
    r->retries++;
    r->call.avoid = r->call.endpoint;
    return true;
}

static void try_failed(struct router *r, enum router_failure why, enum ep_reset reset)
{
    struct ep_stream *s = r->stream;

    r->outcome = (struct ep_upstream_outcome){.reset = reset, .latency_ns = 0};
    ep_worker_timer_stop(s->worker, &r->try_timer);
    if (s->up)
        s->up->over = true;
    if (retry(r, why, 0)) {
        ep_worker_defer(s->worker, &r->retry_task);
        return;
    }
    switch (reset) {
    case EP_RESET_TIMEOUT:
        refuse(r, EP_REFUSE_TIMEOUT, "upstream.timeout", "UT", "the upstream did not answer in time");
        break;
    case EP_RESET_PROTOCOL:
        refuse(r, EP_REFUSE_UPSTREAM, "upstream.protocol", "UPE", "the upstream's answer is no valid HTTP");
        break;
    case EP_RESET_REFUSED:
        refuse(r, EP_REFUSE_UNAVAILABLE, "upstream.refused", "UR", "the upstream refused the stream");
        break;
    default:
        refuse(r, EP_REFUSE_UPSTREAM, "upstream.reset", "UC", "the upstream closed the connection without an answer");
    }
}

/* --- the upstream leg --- */

static void on_headers(struct ep_leg *leg, struct ep_headers *h, bool end)
{
    struct router *r = leg->owner;
    struct ep_stream *s = r->stream;
    uint64_t status = 0;

    ep_worker_timer_stop(s->worker, &r->try_timer);
    ep_str_u64(ep_headers_get_id(h, EP_HDR_STATUS), &status);
    r->outcome = (struct ep_upstream_outcome){
        .answered = true, .status = (unsigned)status, .latency_ns = s->worker->now_ns - r->sent_ns};
    if (status >= 500 && retry(r, ROUTER_STATUS, (unsigned)status)) {
        leg->ops->reset(leg, EP_RESET_CANCEL);
        ep_worker_defer(s->worker, &r->retry_task);
        return;
    }
    r->answered = true;
    ep_body_fini(&r->replay); /* no more tries: the copy for them can go */
    r->replay_whole = false;
    if (s->listener->chain->config->server_timing)
        router_server_timing(s, h);
    if (EP_UNLIKELY(r->origin != NULL))
        ep_headers_remove(h, EP_STR("alt-svc")); /* it would have the app go on by QUIC, which nobody sees */
    ep_stream_response_headers(s, h, end);
}

static void on_informational(struct ep_leg *leg, struct ep_headers *h)
{
    struct router *r = leg->owner;

    ep_stream_response_informational(r->stream, h);
}

static void on_data(struct ep_leg *leg, struct ep_slice slice, bool end)
{
    struct router *r = leg->owner;

    ep_stream_response_data(r->stream, slice, end);
}

static void on_trailers(struct ep_leg *leg, struct ep_headers *h)
{
    struct router *r = leg->owner;

    ep_stream_response_trailers(r->stream, h);
}

static void on_sent(struct ep_leg *leg, size_t n)
{
    struct router *r = leg->owner;
    size_t replayed = EP_MIN(n, r->replayed_ahead); /* bytes of an earlier try were told already */

    r->replayed_ahead -= replayed;
    r->told += n - replayed;
    if (n > replayed)
        ep_stream_request_sent(r->stream, n - replayed);
}

static void on_message_sent(struct ep_leg *leg)
{
    struct router *r = leg->owner;

    r->stream->time.upstream_sent = r->stream->worker->now_ns;
    ep_stream_request_whole(r->stream);
}

static void on_reset(struct ep_leg *leg, enum ep_reset why)
{
    struct router *r = leg->owner;
    struct ep_stream *s = r->stream;

    if (r->answered) {
        r->outcome.reset = why;
        ep_stream_response_reset(s, why);
        return;
    }
    r->unanswered = leg->version == EP_HTTP_2 || leg->unanswered;
    try_failed(r, why == EP_RESET_REFUSED ? ROUTER_REFUSED : ROUTER_RESET, why);
}

static const struct ep_leg_events up_events = {
    .on_headers = on_headers,
    .on_informational = on_informational,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_sent = on_sent,
    .on_message_sent = on_message_sent,
    .on_reset = on_reset,
};

/* --- a try --- */

static void on_try_timeout(struct ep_timer *t)
{
    struct router *r = EP_CONTAINER(t, struct router, try_timer);

    if (r->stream->up)
        r->stream->up->ops->reset(r->stream->up, EP_RESET_TIMEOUT);
    try_failed(r, ROUTER_TIMEOUT, EP_RESET_TIMEOUT);
}

/* Sends the head, and what of the body is here. */
static void on_leg(struct ep_upstream_call *call, struct ep_leg *leg)
{
    struct router *r = EP_CONTAINER(call, struct router, call);
    struct ep_stream *s = r->stream;
    const struct ep_tls_info *tls = call->conn ? ep_conn_tls_info(call->conn) : NULL;
    bool no_body = r->request_ended && r->held.bytes == 0 && !s->request.has_trailers;

    r->acquiring = false;
    leg->events = &up_events;
    leg->owner = r;
    leg->arena = &s->arena;
    s->up = leg;
    s->attempts++;
    s->time.upstream_acquired = s->time.upstream_sent = r->sent_ns = s->worker->now_ns;
    s->endpoint = ep_arena_str(&s->arena, ep_endpoint_name(call->endpoint)); /* the endpoint may go before the log */
    if (tls)
        s->upstream_peer_id = ep_arena_str(&s->arena, tls->peer_id);
    if (unwanted(r)) {
        leg->ops->reset(leg, EP_RESET_CANCEL);
        return;
    }
    router_prepare_headers(r, tls);
    leg->ops->headers(leg, &s->request.headers, no_body);
    if (r->route->config->per_try_timeout_ns)
        ep_worker_timer(s->worker, &r->try_timer, r->route->config->per_try_timeout_ns);
    r->ended_sent = no_body;
    if (no_body)
        ep_stream_request_whole(s);
    else
        router_send_body(r);
}

static void on_failure(struct ep_upstream_call *call, enum ep_upstream_failure why)
{
    struct router *r = EP_CONTAINER(call, struct router, call);
    const char *flag = ep_upstream_failure_flag(why);
    bool late = why == EP_UPSTREAM_CONNECT_TIMEOUT || why == EP_UPSTREAM_QUEUE_TIMEOUT;
    bool dial = why == EP_UPSTREAM_CONNECT || why == EP_UPSTREAM_CONNECT_TIMEOUT || why == EP_UPSTREAM_TLS;
    char code[64];

    r->acquiring = false;
    r->stream->attempts++;
    if (dial && retry(r, ROUTER_CONNECT, 0)) {
        ep_worker_timer(r->stream->worker, &r->backoff, router_backoff_ns(r));
        return;
    }
    snprintf(code, sizeof code, "upstream.%s", ep_upstream_failure_name(why));
    if (why == EP_UPSTREAM_TLS && r->origin) { /* the app would have seen what we saw: a certificate that won't do */
        char reason[160];
        snprintf(reason, sizeof reason, "no TLS to %.*s: %s", (int)EP_MIN(r->origin_host.n, 48u), r->origin_host.p, call->why);
        refuse(r, EP_REFUSE_UPSTREAM, code, flag, reason);
        return;
    }
    refuse(r, late ? EP_REFUSE_TIMEOUT : EP_REFUSE_UNAVAILABLE, code, flag,
           why == EP_UPSTREAM_LOOP ? "the destination is this proxy itself" : "no connection to the upstream could be had");
}

static void start_try(struct router *r)
{
    struct ep_stream *s = r->stream;
    const struct ep_endpoint *avoid = r->call.avoid;
    struct ep_cluster *cluster = r->call.cluster;

    if (unwanted(r))
        return;
    if (r->retries && r->replay_whole) { /* the body goes out once more, from the copy; else nothing of it has left */
        ep_body_fini(&r->held);
        for (uint32_t i = 0; i < r->replay.count; i++)
            ep_body_push(&r->held, ep_slice_ref(*ep_body_at(&r->replay, i)), &s->worker->slabs);
        r->replayed_ahead = r->told;
    }
    r->ended_sent = false;
    router_fill_call(r, cluster);
    r->call.avoid = avoid;
    r->call.on_leg = on_leg;
    r->call.on_failure = on_failure;
    r->acquiring = true;
    ep_upstream_acquire(&r->call);
}

/* --- the filter's steps --- */

static void on_stream_timeout(struct ep_stream *s)
{
    struct router *r = s->filter_state[s->chain->n_filters - 1];

    r->gave_up = true;
    if (s->up && !s->up->over)
        s->up->ops->reset(s->up, EP_RESET_TIMEOUT);
    r->outcome.reset = EP_RESET_TIMEOUT;
    refuse(r, EP_REFUSE_TIMEOUT, "upstream.timeout", "UT", "the upstream did not answer in time");
}

static enum ep_step request_headers(struct ep_stream *s, void *state, bool end)
{
    struct router *r = state;
    const struct ep_route *route = ep_stream_route(s);

    r->stream = s;
    ep_body_init(&r->held);
    ep_body_init(&r->replay);
    ep_task_init(&r->retry_task, on_retry_task);
    ep_timer_init(&r->try_timer, on_try_timeout);
    ep_timer_init(&r->backoff, on_backoff);
    r->ready = true;
    if (!route) {
        refuse(r, EP_REFUSE_NO_ROUTE, "route.none", "NR", "no route of this listener matches");
        return EP_REPLIED;
    }
    r->route = route;
    r->request_ended = end;
    r->replay_whole = !s->tunnel;
    s->cluster_name = ep_cluster_name(route->cluster);
    s->on_timeout = on_stream_timeout;
    ep_stream_set_timeouts(s, router_is_long(s) ? 0 : route->config->timeout_ns, route->config->idle_timeout_ns);
    ep_trace_pass(s);
    r->call.cluster = route->cluster;
    router_find_origin(r);
    start_try(r);
    return EP_NEXT;
}

static enum ep_step request_body(struct ep_stream *s, void *state, struct ep_body *b, bool end)
{
    struct router *r = state;

    if (!r->route || r->gave_up) {
        ep_body_fini(b);
        return EP_NEXT;
    }
    s->request.in_flight += b->bytes;
    while (b->count) {
        struct ep_slice slice = ep_slice_ref(*ep_body_front(b));
        ep_body_drop(b, slice.n);
        if (r->replay_whole && r->replay.bytes + slice.n <= REPLAY_MAX)
            ep_body_push(&r->replay, ep_slice_ref(slice), &s->worker->slabs);
        else if (r->replay_whole) {
            r->replay_whole = false;
            ep_body_fini(&r->replay);
        }
        ep_body_push(&r->held, slice, &s->worker->slabs);
    }
    r->request_ended |= end;
    router_send_body(r);
    return EP_NEXT;
}

static enum ep_step request_trailers(struct ep_stream *s, void *state)
{
    struct router *r = state;

    (void)s;
    r->request_ended = true;
    if (r->route)
        router_send_body(r);
    return EP_NEXT;
}

static void finish(struct ep_stream *s, void *state)
{
    struct router *r = state;

    if (!r->ready)
        return;
    ep_worker_timer_stop(s->worker, &r->try_timer);
    ep_worker_timer_stop(s->worker, &r->backoff);
    ep_list_remove(&r->retry_task.node);
    if (!r->answered && !r->outcome.reset)
        r->outcome.local = true; /* the client went away, or ephor refused */
    let_go(r, &r->outcome);
    ep_tls_origin_unref(r->origin);
    ep_body_fini(&r->held);
    ep_body_fini(&r->replay);
}

const struct ep_filter ep_filter_router = {
    .name = "router",
    .help = "Sends the request to its cluster. Implied at the end of every chain.",
    .stream_size = sizeof(struct router),
    .request_headers = request_headers,
    .request_body = request_body,
    .request_trailers = request_trailers,
    .finish = finish,
};
