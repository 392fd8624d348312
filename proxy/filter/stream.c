/* The stream's life: made by a request, fed by its two legs, ended once.
 *
 * Everything ends in one place: on_task. Events only set flags and walk; when nothing is left to do
 * (ep_stream_check_end) or something failed (ep_stream_abort), the task is queued, and at the end of the turn it tells
 * the filters, reports, lets go of the downstream leg and frees the arena. */
#include "filter/egress.h"
#include "filter/private.h"

#define LAST_WORD_NS (10 * EP_S) /* for a client to take the refusal of a stream whose time is over */

static void on_task(struct ep_task *t);
static void on_timer(struct ep_timer *t);

struct ep_stream *ep_stream_new(struct ep_server_listener *l, struct ep_leg *down)
{
    struct ep_worker *w = l->worker;
    struct ep_chain *c = l->chain;
    struct ep_arena arena;
    struct ep_stream *s;
    char *states;

    ep_arena_init(&arena, &w->chunks);
    s = ep_arena_zalloc(&arena, sizeof *s);
    s->magic = EP_STREAM_MAGIC;
    s->worker = w;
    s->arena = arena; /* from here on only this copy is used */
    s->view = ep_view_ref(c->view);
    s->chain = c;
    s->listener = l;
    s->direction = c->direction;
    s->down = down;
    s->protocol = down->version == EP_HTTP_TCP ? &ep_protocol_tcp : &ep_protocol_http;
    s->call.visible = EP_VISIBLE_HEADERS;
    s->grpc_status = -1;
    s->time.accepted = s->last_active_ns = w->now_ns;
    s->request_walk.at = 0;
    s->response_walk.at = s->response_walk.body_from = (int8_t)(c->n_filters - 2);
    ep_body_init(&s->request.body);
    ep_body_init(&s->response.body);
    ep_task_init(&s->task, on_task);
    ep_timer_init(&s->timer, on_timer);
    ep_list_push(&l->streams, &s->node);
    l->n_streams++;
    ep_cell_add(l->cell_streams, 1); /* not set: a listener that drains may have the name of its successor */
    s->filter_state = ep_arena_zalloc(&s->arena, c->n_filters * sizeof(void *) + c->state_bytes);
    states = (char *)(s->filter_state + c->n_filters);
    for (unsigned i = 0; i < c->n_filters; i++) {
        s->filter_state[i] = states;
        states += (c->filters[i].filter->stream_size + 7u) & ~(size_t)7u;
    }
    s->timed = (ep_rng_u64(&w->rng) & 15u) == 0; /* one in sixteen is measured filter by filter */
    if (s->timed)
        s->filter_ns = ep_arena_zalloc(&s->arena, c->n_filters * sizeof(uint64_t));
    down->owner = s;
    down->events = &ep_stream_down_events;
    down->arena = &s->arena;
    return s;
}

/* --- windows --- */

static void settle(struct ep_message *m, struct ep_leg *from, bool buffering)
{
    size_t held = buffering ? 0 : m->in_flight + m->body.bytes + (m->later ? m->later->bytes : 0), n;

    if (m->owed <= held || !from)
        return;
    n = m->owed - held;
    m->owed -= n;
    from->ops->consumed(from, n);
}

void ep_stream_settle(struct ep_stream *s)
{
    settle(&s->request, s->down, s->request_walk.buffering || s->request_done);
    settle(&s->response, s->up, s->response_walk.buffering);
}

void ep_stream_request_sent(struct ep_stream *s, size_t n)
{
    s->last_active_ns = s->worker->now_ns;
    s->request.in_flight -= EP_MIN(n, s->request.in_flight);
    if (!s->ending)
        settle(&s->request, s->down, s->request_walk.buffering);
}

void ep_stream_request_whole(struct ep_stream *s)
{
    s->request_whole = true;
    if (s->tunnel)
        ep_stream_check_end(s);
}

/* --- the downstream leg --- */

/* Behind what a waiting filter has seen there may be nothing that it has not: it would pass unseen. */
static void keep(struct ep_stream *s, struct ep_message *m, const struct ep_walk *w, struct ep_slice slice)
{
    struct ep_body *into = &m->body;

    if (EP_UNLIKELY(w->passing)) {
        if (!m->later) {
            m->later = ep_arena_alloc(&s->arena, sizeof *m->later);
            ep_body_init(m->later);
        }
        into = m->later;
    }
    ep_body_push(into, ep_slice_ref(slice), &s->worker->slabs);
}

void ep_message_drop(struct ep_message *m)
{
    ep_body_fini(&m->body);
    if (m->later)
        ep_body_fini(m->later);
}

static void on_headers(struct ep_leg *leg, struct ep_headers *h, bool end)
{
    struct ep_stream *s = leg->owner;

    s->request.headers = *h; /* moved: the rcbufs are ours now */
    *h = (struct ep_headers){.arena = h->arena};
    s->request.has_headers = true;
    s->request.ended = end;
    s->tunnel = leg->tunnel;
    s->time.headers = s->worker->now_ns;
    if (end)
        s->time.body_end = s->time.headers;
    if (EP_UNLIKELY(leg->conn && (leg->conn->origin || leg->conn->sealed)) && !ep_egress_admits(s))
        return;
    s->request_walk.started = true;
    ep_walk_request(s);
}

static void on_data(struct ep_leg *leg, struct ep_slice slice, bool end)
{
    struct ep_stream *s = leg->owner;
    struct ep_message *m = &s->request;

    if (s->ending)
        return;
    m->owed += slice.n;
    m->bytes += slice.n;
    m->ended |= end;
    if (end)
        s->time.body_end = s->worker->now_ns;
    if (s->request_done || s->refused) { /* nobody wants it any more */
        m->owed -= slice.n;
        leg->ops->consumed(leg, slice.n);
        ep_stream_check_end(s);
        return;
    }
    s->last_active_ns = s->worker->now_ns;
    if (slice.n)
        keep(s, m, &s->request_walk, slice);
    ep_walk_request(s);
}

static void on_trailers(struct ep_leg *leg, struct ep_headers *h)
{
    struct ep_stream *s = leg->owner;

    if (s->ending)
        return;
    s->request.trailers = *h;
    *h = (struct ep_headers){.arena = h->arena};
    s->request.has_trailers = true;
    s->request.ended = true;
    s->time.body_end = s->worker->now_ns;
    ep_walk_request(s);
}

static void on_sent(struct ep_leg *leg, size_t n)
{
    struct ep_stream *s = leg->owner;

    if (s->ending)
        return;
    s->last_active_ns = s->worker->now_ns;
    s->response.in_flight -= EP_MIN(n, s->response.in_flight);
    settle(&s->response, s->up, s->response_walk.buffering);
}

static void on_message_sent(struct ep_leg *leg)
{
    struct ep_stream *s = leg->owner;

    s->response_sent = true;
    s->time.flushed = s->worker->now_ns;
    ep_stream_check_end(s);
}

static void on_reset(struct ep_leg *leg, enum ep_reset why)
{
    struct ep_stream *s = leg->owner;

    s->down_over = true;
    if (!s->response_flag && !s->response_sent)
        s->response_flag = "DC";
    ep_debug("stream", "downstream ended early: %s", ep_reset_name(why));
    ep_stream_end(s);
}

const struct ep_leg_events ep_stream_down_events = {
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_sent = on_sent,
    .on_message_sent = on_message_sent,
    .on_reset = on_reset,
};

/* --- the upstream leg, by way of the router --- */

static unsigned status_of(const struct ep_headers *h)
{
    struct ep_str v = ep_headers_get_id(h, EP_HDR_STATUS);

    if (v.n != 3)
        return 0;
    return (unsigned)((v.p[0] - '0') * 100 + (v.p[1] - '0') * 10 + (v.p[2] - '0'));
}

static void note_grpc_status(struct ep_stream *s, const struct ep_headers *h)
{
    uint64_t n;

    if (ep_str_u64(ep_headers_get_id(h, EP_HDR_GRPC_STATUS), &n) && n <= 16)
        s->grpc_status = (int)n;
}

/* Events may be hours apart: only the route's own limit for them counts. A peer that is gone without a word is found by the
 * system's probes, as h2 finds it by its pings. */
static void go_live(struct ep_stream *s)
{
    uint64_t limit_ns = s->route ? s->route->config->event_timeout_ns : 0;

    s->live = true;
    ep_stream_set_timeouts(s, 0, limit_ns);
    if (s->down->conn)
        ep_conn_keep_alive(s->down->conn);
    if (s->up && s->up->conn)
        ep_conn_keep_alive(s->up->conn);
}

void ep_stream_end_live(struct ep_stream *s)
{
    if (!s->live || s->ending || s->refused || s->local_reply || s->midway || !s->response_started)
        return;
    if (!s->protocol->refuse_midstream) { /* plain events: who was cut off comes back with Last-Event-ID */
        ep_stream_end_midway(s, (struct ep_str){NULL, 0});
        return;
    }
    ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_UNAVAILABLE,
                                             .policy = EP_STR("drain"),
                                             .reason = EP_STR("this proxy ends; the stream can be started again"),
                                             .code = "drain.over",
                                             .grpc_status = -1});
}

void ep_stream_response_headers(struct ep_stream *s, struct ep_headers *h, bool end)
{
    if (s->ending || s->local_reply || s->reply_pending)
        return;
    s->response.headers = *h;
    *h = (struct ep_headers){.arena = h->arena};
    s->response.has_headers = true;
    s->response.ended = end;
    s->status = status_of(&s->response.headers);
    s->time.first_byte = s->last_active_ns = s->worker->now_ns;
    if (end) {
        s->time.response_end = s->time.first_byte;
        note_grpc_status(s, &s->response.headers);
    }
    s->response_walk.started = true;
    if (s->status == 200 && ep_headers_are_events(&s->response.headers))
        go_live(s);
    ep_walk_response(s);
}

void ep_stream_response_informational(struct ep_stream *s, struct ep_headers *h)
{
    if (s->ending || s->local_reply || s->response_started || s->down_over)
        return;
    if (s->down->version != EP_HTTP_2 && status_of(h) == 100)
        return; /* the h1 codec says 100 by itself */
    s->down->ops->informational(s->down, h);
}

void ep_stream_response_data(struct ep_stream *s, struct ep_slice slice, bool end)
{
    struct ep_message *m = &s->response;

    if (s->ending || s->local_reply || s->midway || s->reply_pending) {
        if (s->up)
            s->up->ops->consumed(s->up, slice.n);
        return;
    }
    s->last_active_ns = s->worker->now_ns;
    m->owed += slice.n;
    m->bytes += slice.n;
    m->ended |= end;
    if (end)
        s->time.response_end = s->worker->now_ns;
    if (slice.n)
        keep(s, m, &s->response_walk, slice);
    ep_walk_response(s);
}

void ep_stream_response_trailers(struct ep_stream *s, struct ep_headers *h)
{
    if (s->ending || s->local_reply || s->midway || s->reply_pending)
        return;
    s->response.trailers = *h;
    *h = (struct ep_headers){.arena = h->arena};
    s->response.has_trailers = true;
    s->response.ended = true;
    s->time.response_end = s->worker->now_ns;
    note_grpc_status(s, &s->response.trailers);
    ep_walk_response(s);
}

void ep_stream_response_reset(struct ep_stream *s, enum ep_reset why)
{
    if (s->ending || s->local_reply || s->midway || s->reply_pending)
        return;
    if (s->response.ended) { /* the response is whole; it is the request's rest that was cut */
        s->request_done = true;
        ep_stream_settle(s);
        ep_stream_check_end(s);
        return;
    }
    if (!s->response_flag)
        s->response_flag = why == EP_RESET_TIMEOUT ? "UT" : "UR";
    ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_UPSTREAM,
                                             .policy = EP_STR("router"),
                                             .reason = EP_STR("the upstream ended the response early"),
                                             .code = "upstream.reset",
                                             .grpc_status = 14});
}

/* --- time --- */

void ep_stream_set_timeouts(struct ep_stream *s, uint64_t request_ns, uint64_t idle_ns)
{
    uint64_t now = s->worker->now_ns, next = UINT64_MAX;

    s->deadline_ns = request_ns ? s->time.accepted + request_ns : 0;
    s->idle_limit_ns = idle_ns;
    if (s->deadline_ns)
        next = s->deadline_ns > now ? s->deadline_ns - now : 1;
    if (idle_ns)
        next = EP_MIN(next, idle_ns);
    if (next != UINT64_MAX)
        ep_worker_timer(s->worker, &s->timer, next);
    else
        ep_worker_timer_stop(s->worker, &s->timer);
}

static void on_timer(struct ep_timer *t)
{
    struct ep_stream *s = EP_CONTAINER(t, struct ep_stream, timer);
    uint64_t now = s->worker->now_ns, next = UINT64_MAX;

    if (s->ending)
        return;
    if ((s->deadline_ns && now >= s->deadline_ns) ||
        (s->idle_limit_ns && now - s->last_active_ns >= s->idle_limit_ns)) {
        if (s->refused || s->local_reply) { /* what is to be said was said */
            if (now - s->last_active_ns >= LAST_WORD_NS)
                ep_stream_abort(s, EP_RESET_TIMEOUT);
            else
                ep_worker_timer(s->worker, t, LAST_WORD_NS);
            return;
        }
        s->response_flag = s->deadline_ns && now >= s->deadline_ns ? "UT" : "SI";
        if (s->on_timeout)
            s->on_timeout(s);
        else
            ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_TIMEOUT,
                                                     .policy = EP_STR("router"),
                                                     .reason = EP_STR("the request took too long"),
                                                     .code = "timeout",
                                                     .grpc_status = -1});
        if (!s->ending)
            ep_worker_timer(s->worker, t, LAST_WORD_NS);
        return;
    }
    if (s->deadline_ns)
        next = s->deadline_ns - now;
    if (s->idle_limit_ns)
        next = EP_MIN(next, s->idle_limit_ns - (now - s->last_active_ns));
    ep_worker_timer(s->worker, &s->timer, EP_MAX(next, (uint64_t)EP_MS));
}

/* --- the end --- */

void ep_stream_end(struct ep_stream *s)
{
    if (s->ending)
        return;
    s->ending = true;
    ep_worker_timer_stop(s->worker, &s->timer);
    ep_worker_defer(s->worker, &s->task);
}

void ep_stream_check_end(struct ep_stream *s)
{
    struct ep_message *rq = &s->request;

    if (s->ending || !s->response_sent)
        return;
    if (s->tunnel && !s->local_reply && s->status < 300 && !s->request_whole && !s->request_done)
        return; /* the other direction of a tunnel goes on */
    if (!rq->ended && !s->down->recv_ended && !s->down_over) {
        /* An early response: the rest of the request is not wanted (RFC 9113 section 8.1). */
        s->down->ops->reset(s->down, EP_RESET_NO_ERROR);
        s->down_over = true;
    }
    ep_stream_end(s);
}

void ep_stream_abort(struct ep_stream *s, enum ep_reset why)
{
    if (s->ending)
        return;
    if (!s->down_over) {
        s->down->ops->reset(s->down, why);
        s->down_over = true;
    }
    ep_stream_end(s);
}

static void finish(struct ep_stream *s)
{
    const struct ep_chain *c = s->chain;
    struct ep_server_listener *l = s->listener;
    struct ep_worker *w = s->worker;
    struct ep_view *view = s->view;
    struct ep_arena arena;

    s->finished = true;
    if (!s->time.flushed)
        s->time.flushed = ep_worker_clock(w); /* a head without a body: it leaves with this turn's flush */
    for (unsigned i = 0; i < c->n_filters; i++) {
        if (!(c->finish_mask & (1u << i)))
            continue;
        s->current = (uint8_t)i;
        c->filters[i].filter->finish(s, s->filter_state[i]);
    }
    assert(!s->up); /* the router has let go of it */
    if (s->request.has_headers)
        ep_report_stream(s);
    if (s->call_slab)
        ep_slab_unref(s->call_slab);
    s->down->ops->release(s->down);
    ep_message_drop(&s->request);
    ep_message_drop(&s->response);
    ep_headers_fini(&s->request.headers);
    ep_headers_fini(&s->request.trailers);
    ep_headers_fini(&s->response.headers);
    ep_headers_fini(&s->response.trailers);
    ep_list_remove(&s->node);
    if (EP_UNLIKELY(s->audit_seq) && ep_list_linked(&s->audit_node))
        ep_list_remove(&s->audit_node);
    ep_list_remove(&s->task.node); /* queued once more when the reply that this task sent was the end */
    l->n_streams--;
    ep_cell_add(l->cell_streams, UINT64_MAX);
    s->magic = 0;
    arena = s->arena;
    ep_arena_fini(&arena);
    ep_view_unref(view);
}

static void on_task(struct ep_task *t)
{
    struct ep_stream *s = EP_CONTAINER(t, struct ep_stream, task);

    assert(s->magic == EP_STREAM_MAGIC);
    if (s->reply_pending && !s->refusal_waits && !s->ending)
        ep_reply_run(s);
    if (s->ending)
        finish(s);
}

/* --- shorthands --- */

struct ep_str ep_stream_method(const struct ep_stream *s)
{
    return ep_headers_get_id(&s->request.headers, EP_HDR_METHOD);
}

struct ep_str ep_stream_path(const struct ep_stream *s)
{
    return ep_headers_get_id(&s->request.headers, EP_HDR_PATH);
}

struct ep_str ep_stream_authority(const struct ep_stream *s)
{
    return ep_headers_get_id(&s->request.headers, EP_HDR_AUTHORITY);
}

struct ep_str ep_stream_decision(struct ep_stream *s)
{
    if (!s->decision_id.n)
        s->decision_id = ep_arena_printf(&s->arena, "%016llx%016llx", (unsigned long long)ep_rng_u64(&s->worker->rng),
                                         (unsigned long long)ep_rng_u64(&s->worker->rng));
    return s->decision_id;
}
