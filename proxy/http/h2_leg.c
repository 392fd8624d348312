/* The legs of an h2 connection: sending heads, bodies and trailers, flow control, resets.
 *
 * Heads are given to nghttp2 with NO_COPY: it reads them when it serialises the frame, at the end of the turn. So
 * a leg that is released before that is pumped out first (release). Bodies stay in leg->out until nghttp2 asks. */
#include "http/h2.h"

#define NV_INLINE 128 /* fields of a table that need no memory of the arena */

static const struct ep_leg_ops ops;

struct ep_h2_leg *ep_h2_leg_new(struct ep_h2 *h2, int32_t id)
{
    struct ep_h2_leg *l = ep_mem_calloc(&h2->conn->worker->mem, 1, sizeof *l);

    assert(l);
    l->leg.ops = &ops;
    l->leg.conn = h2->conn;
    l->leg.version = EP_HTTP_2;
    l->leg.server = h2->server;
    l->worker = h2->conn->worker;
    l->h2 = h2;
    l->id = id;
    ep_body_init(&l->leg.out);
    ep_list_push(&h2->legs, &l->node);
    l->counted = true;
    h2->n_legs++;
    return l;
}

static void count_out(struct ep_h2_leg *l)
{
    struct ep_h2 *h2 = l->h2;

    if (!h2 || !l->counted)
        return;
    l->counted = false;
    h2->n_legs--;
    h2->last_active_ns = l->worker->now_ns;
    if (h2->client)
        h2->capacity_changed = true;
    ep_conn_want_flush(h2->conn);
}

/* What the owner will never tell consumed; the stream's own window ends with it. */
static void give_back(struct ep_h2_leg *l)
{
    if (l->unconsumed && !l->h2->conn->closed) {
        nghttp2_session_consume_connection(l->h2->session, l->unconsumed);
        ep_conn_want_flush(l->h2->conn);
    }
    l->unconsumed = 0;
}

void ep_h2_leg_free(struct ep_h2_leg *l)
{
    struct ep_h2 *h2 = l->h2;

    assert(l->closed && l->released);
    if (h2) {
        count_out(l);
        if (h2->filling == l)
            h2->filling = NULL;
        h2->n_stops -= l->stop_wanted;
        ep_list_remove(&l->node);
        give_back(l);
    }
    ep_headers_fini(&l->headers);
    ep_headers_fini(&l->trailers_in);
    ep_body_fini(&l->leg.out);
    ep_mem_free(&l->worker->mem, l);
}

void ep_h2_leg_closed(struct ep_h2_leg *l, enum ep_reset why, bool clean)
{
    bool whole = clean && l->leg.recv_ended && l->leg.send_ended && l->leg.out.bytes == 0;

    if (l->closed)
        return;
    l->closed = true;
    if (l->released) {
        ep_h2_leg_free(l);
        return;
    }
    count_out(l);
    if (!l->leg.over) {
        l->leg.over = true;
        if (!whole)
            l->leg.events->on_reset(&l->leg, why);
    }
}

/* The table as nghttp2 takes it: in `room`, or in the arena when it is long. */
static nghttp2_nv *fill_nv(struct ep_leg *leg, nghttp2_nv room[NV_INLINE], const struct ep_headers *h)
{
    nghttp2_nv *nv = h->n <= NV_INLINE ? room : ep_arena_alloc(leg->arena, h->n * sizeof *nv);

    for (uint32_t i = 0; i < h->n; i++) {
        const struct ep_header *e = &h->v[i];
        nv[i].name = (uint8_t *)(uintptr_t)e->name.p;
        nv[i].namelen = e->name.n;
        nv[i].value = (uint8_t *)(uintptr_t)e->value.p;
        nv[i].valuelen = e->value.n;
        nv[i].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
        if (e->flags & EP_HEADER_NO_INDEX)
            nv[i].flags |= NGHTTP2_NV_FLAG_NO_INDEX;
    }
    return nv;
}

static void message_sent(struct ep_h2_leg *l)
{
    if (!l->released && !l->leg.over && l->leg.events->on_message_sent)
        l->leg.events->on_message_sent(&l->leg);
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    struct ep_h2_leg *l = source->ptr;
    size_t n = EP_MIN(l->leg.out.bytes, length);

    (void)buf, (void)user;
    if (n == 0 && !l->leg.send_ended) {
        l->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == l->leg.out.bytes && l->leg.send_ended) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (l->trailers_out) {
            nghttp2_nv room[NV_INLINE];
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            l->trailers_given = true;
            if (nghttp2_submit_trailer(session, id, fill_nv(&l->leg, room, l->trailers_out), l->trailers_out->n))
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
            if (n == 0) /* nghttp2 sends no empty DATA frame then, and send_data is not called */
                message_sent(l);
        }
    }
    return (ssize_t)n;
}

static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t length,
                     nghttp2_data_source *source, void *user)
{
    struct ep_h2 *h2 = user;
    struct ep_h2_leg *l = source->ptr;
    size_t left = length;

    (void)session;
    ep_conn_write(h2->conn, head, 9);
    while (left) {
        struct ep_slice *front = ep_body_front(&l->leg.out);
        size_t n = EP_MIN(left, front->n);
        struct ep_slice part = ep_slice_ref((struct ep_slice){front->slab, front->p, n});

        ep_body_drop(&l->leg.out, n);
        ep_conn_write_slice(h2->conn, part);
        left -= n;
    }
    h2->control_left = EP_MIN(2000, h2->control_left + 2); /* the peer will have to open windows */
    if (l->released || l->leg.over)
        return 0;
    if (length)
        l->leg.events->on_sent(&l->leg, length);
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM || (l->trailers_out && l->leg.out.bytes == 0 && l->leg.send_ended))
        message_sent(l);
    return 0;
}

/* A head or trailers that can't be sent (too large for a frame): the peer must not wait for them. Of a request that
 * isn't sent nghttp2 closes the stream by itself. */
static int not_sent(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user)
{
    (void)user;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat != NGHTTP2_HCAT_REQUEST &&
        code != NGHTTP2_ERR_STREAM_CLOSED && code != NGHTTP2_ERR_STREAM_CLOSING)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_INTERNAL_ERROR);
    return 0;
}

void ep_h2_leg_callbacks(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_send_data_callback(cb, send_data);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, not_sent);
}

static struct ep_h2_leg *live(struct ep_leg *leg)
{
    struct ep_h2_leg *l = (struct ep_h2_leg *)leg;

    return leg->over || !l->h2 || l->h2->conn->closed ? NULL : l;
}

static void headers(struct ep_leg *leg, struct ep_headers *h, bool end)
{
    struct ep_h2_leg *l = live(leg);
    nghttp2_data_provider body = {.source.ptr = l, .read_callback = read_body};
    nghttp2_nv room[NV_INLINE], *nv;
    size_t n = h->n;

    if (!l)
        return;
    assert(!l->submitted);
    nv = fill_nv(leg, room, h);
    l->submitted = true;
    leg->send_ended = end;
    if (leg->server) {
        if (nghttp2_submit_response(l->h2->session, l->id, nv, n, end ? NULL : &body))
            nghttp2_submit_rst_stream(l->h2->session, NGHTTP2_FLAG_NONE, l->id, NGHTTP2_INTERNAL_ERROR);
    } else {
        struct ep_str method = ep_headers_get_id(h, EP_HDR_METHOD);
        leg->head_request = ep_str_eq(method, EP_STR("HEAD"));
        leg->tunnel = ep_str_eq(method, EP_STR("CONNECT"));
        l->id = nghttp2_submit_request(l->h2->session, NULL, nv, n, end ? NULL : &body, l);
        if (l->id < 0) { /* out of ids: capacity said otherwise, so this is a session that just died */
            l->h2->goaway_in = true;
            ep_conn_close(l->h2->conn);
        }
    }
    ep_conn_want_flush(l->h2->conn);
}

static void informational(struct ep_leg *leg, struct ep_headers *h)
{
    struct ep_h2_leg *l = live(leg);
    nghttp2_nv room[NV_INLINE], *nv;
    size_t n = h->n;

    if (!l || l->submitted)
        return;
    nv = fill_nv(leg, room, h);
    for (size_t i = 0; i < n; i++) /* sent later than this table lives */
        nv[i].flags = NGHTTP2_NV_FLAG_NONE;
    nghttp2_submit_headers(l->h2->session, NGHTTP2_FLAG_NONE, l->id, NULL, nv, n, NULL);
    ep_conn_want_flush(l->h2->conn);
}

static void go_on(struct ep_h2_leg *l)
{
    if (l->deferred) {
        l->deferred = false;
        nghttp2_session_resume_data(l->h2->session, l->id);
    }
    ep_conn_want_flush(l->h2->conn);
}

static void data(struct ep_leg *leg, struct ep_slice s, bool end)
{
    struct ep_h2_leg *l = live(leg);

    if (!l) {
        ep_slice_unref(s);
        return;
    }
    assert(!leg->send_ended);
    if (s.n)
        ep_body_push(&leg->out, s, &leg->conn->worker->slabs);
    else
        ep_slice_unref(s);
    leg->send_ended = end;
    go_on(l);
}

static void trailers(struct ep_leg *leg, struct ep_headers *h)
{
    struct ep_h2_leg *l = live(leg);

    if (!l)
        return;
    assert(!leg->send_ended);
    leg->send_ended = true;
    if (h->n)
        l->trailers_out = h;
    go_on(l);
}

static void consumed(struct ep_leg *leg, size_t n)
{
    struct ep_h2_leg *l = (struct ep_h2_leg *)leg;

    if (n == 0 || !l->h2 || l->h2->conn->closed)
        return;
    assert(n <= l->unconsumed);
    l->unconsumed -= n;
    nghttp2_session_consume(l->h2->session, l->id, n); /* of a stream that is closed: the connection's window */
    ep_conn_want_flush(l->h2->conn);
}

static void stop_later(struct ep_h2_leg *l)
{
    l->stop_wanted = true;
    l->h2->n_stops++;
    ep_conn_want_flush(l->h2->conn);
}

void ep_h2_stop_legs(struct ep_h2 *h2)
{
    EP_LIST_FOREACH(n, &h2->legs) {
        struct ep_h2_leg *l = EP_CONTAINER(n, struct ep_h2_leg, node);
        if (!l->stop_wanted || l->leg.out.bytes)
            continue;
        l->stop_wanted = false;
        h2->n_stops--;
        if (!l->closed)
            nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, l->id, NGHTTP2_NO_ERROR);
    }
}

static void reset(struct ep_leg *leg, enum ep_reset why)
{
    static const uint32_t codes[EP_RESET_COUNT] = {
        [EP_RESET_CANCEL] = NGHTTP2_CANCEL,
        [EP_RESET_REFUSED] = NGHTTP2_REFUSED_STREAM,
        [EP_RESET_PROTOCOL] = NGHTTP2_PROTOCOL_ERROR,
        [EP_RESET_INTERNAL] = NGHTTP2_INTERNAL_ERROR,
        [EP_RESET_CONNECTION] = NGHTTP2_CANCEL,
        [EP_RESET_TIMEOUT] = NGHTTP2_CANCEL,
        [EP_RESET_TOO_LARGE] = NGHTTP2_ENHANCE_YOUR_CALM,
        [EP_RESET_NO_ERROR] = NGHTTP2_NO_ERROR,
    };
    struct ep_h2_leg *l = live(leg);

    leg->over = true;
    if (!l || l->closed || l->reset_sent)
        return;
    l->reset_sent = true;
    if (why == EP_RESET_NO_ERROR && leg->send_ended) { /* nghttp2 would drop a response that is still queued */
        stop_later(l);
        return;
    }
    ep_body_fini(&leg->out);
    if (l->id > 0)
        nghttp2_submit_rst_stream(l->h2->session, NGHTTP2_FLAG_NONE, l->id, codes[why]);
    else
        l->closed = true; /* never reached nghttp2 */
    ep_conn_want_flush(l->h2->conn);
}

/* Trailers are borrowed until they are serialised. When body bytes still stand before them, and the peer opens no
 * window for those, the exchange can't go on by itself. */
static void settle_trailers(struct ep_h2_leg *l)
{
    if (!l->trailers_out || l->trailers_given || l->h2->conn->closed)
        return;
    ep_h2_pump(l->h2, true);
    if (l->trailers_given || l->closed || l->h2->conn->closed)
        return;
    ep_body_fini(&l->leg.out);
    nghttp2_submit_rst_stream(l->h2->session, NGHTTP2_FLAG_NONE, l->id, NGHTTP2_CANCEL);
}

void ep_h2_reset_left_over(struct ep_h2 *h2)
{
    uint64_t now = h2->conn->worker->now_ns;

    EP_LIST_FOREACH(n, &h2->legs) {
        struct ep_h2_leg *l = EP_CONTAINER(n, struct ep_h2_leg, node);
        if (!l->released || !l->left_over || now - l->left_at_ns < h2->options->flush_timeout_ns)
            continue;
        l->left_at_ns = now;
        if (l->leg.out.bytes != l->left_over) {
            l->left_over = l->leg.out.bytes;
            continue;
        }
        l->left_over = 0;
        ep_body_fini(&l->leg.out);
        nghttp2_submit_rst_stream(h2->session, NGHTTP2_FLAG_NONE, l->id, NGHTTP2_CANCEL);
        ep_conn_want_flush(h2->conn);
    }
}

static void release(struct ep_leg *leg)
{
    struct ep_h2_leg *l = (struct ep_h2_leg *)leg;
    struct ep_h2 *h2 = l->h2;
    bool goes_on = !l->closed && !leg->over && leg->send_ended && leg->recv_ended;

    if (!l->closed && !leg->over && !goes_on)
        reset(leg, EP_RESET_CANCEL);
    leg->over = true;
    if (goes_on) /* a whole exchange: by itself, until it is flushed */
        settle_trailers(l);
    l->released = true;
    if (h2)
        give_back(l);
    if (h2 && h2->filling == l) /* its header block goes on in a later read: its arena is gone then */
        h2->filling = NULL;
    if (l->closed) {
        ep_h2_leg_free(l);
        return;
    }
    /* nghttp2 still knows the stream. What it borrowed lives in the owner's arena, which goes away now. */
    ep_headers_fini(&l->headers);
    ep_headers_fini(&l->trailers_in);
    if (h2->conn->closed)
        return; /* on_closed comes in this turn and ends it */
    l->left_over = leg->out.bytes;
    l->left_at_ns = l->worker->now_ns;
    if (l->left_over)
        ep_h2_look_at(h2, l->left_at_ns + h2->options->flush_timeout_ns);
    ep_h2_pump(h2, true);
}

void ep_h2_refuse(struct ep_h2_leg *l, unsigned status, const char *reason)
{
    struct ep_h2 *h2 = l->h2;
    nghttp2_nv nv[2] = {
        {(uint8_t *)(uintptr_t) ":status", (uint8_t *)(uintptr_t)(status == 431 ? "431" : "400"), 7, 3, 0},
        {(uint8_t *)(uintptr_t) "content-length", (uint8_t *)(uintptr_t) "0", 14, 1, 0},
    };

    nghttp2_submit_response(h2->session, l->id, nv, 2, NULL);
    if (!l->leg.recv_ended)
        stop_later(l);
    h2->acceptor->on_refused(h2->user, h2->conn, status, reason);
    l->reset_sent = true;
    l->leg.send_ended = true;
    l->leg.over = true;
    l->leg.events->on_reset(&l->leg, EP_RESET_TOO_LARGE);
    ep_conn_want_flush(h2->conn);
}

static const struct ep_leg_ops ops = {
    .name = "h2",
    .headers = headers,
    .informational = informational,
    .data = data,
    .trailers = trailers,
    .consumed = consumed,
    .reset = reset,
    .release = release,
};
