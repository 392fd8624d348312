/* An HTTP/1 connection, what both sides share: taking bytes, the order of exchanges, timers.
 *
 * One exchange at a time. Bytes of the next message are kept in `unread`, and reading is paused, until the leg at
 * hand is released. Every callback of the connection ends in settle(), the one place that lets go of a leg,
 * goes on with what was kept and sets the timer; ops of a leg never do more than ask for a flush, so that no event
 * comes from inside an op. */
#include "http/h1.h"

#define MAGIC 0x68747031u

static void arm(struct h1_conn *h)
{
    const struct ep_http_options *o = h->options;
    struct ep_conn *c = h->conn;
    uint64_t limit = h->phase == H1_PHASE_IDLE   ? o->idle_timeout_ns
                     : h->phase == H1_PHASE_HEAD ? o->headers_timeout_ns
                                                 : o->flush_timeout_ns / 2;
    uint64_t due = h->since_ns + limit, now = c->worker->now_ns;

    if (h1_dead(h) || !c->ready || (ep_timer_running(&c->timer) && h->armed_ns <= due))
        return; /* one that fires early looks again: a request starts and stops no timer */
    h->armed_ns = due;
    ep_conn_deadline(c, due > now ? due - now : EP_MS);
}

void h1_set_phase(struct h1_conn *h, enum h1_phase phase)
{
    if (h->phase == phase)
        return;
    h->phase = phase;
    h->since_ns = h->conn->worker->now_ns;
    h->seen_out = UINT64_MAX;
    arm(h);
}

/* Output that made no progress for two looks in a row is stuck. */
static void watch_output(struct h1_conn *h)
{
    struct ep_conn *c = h->conn;
    bool pending = ep_conn_pending(c) > 0;

    if (pending && c->bytes_out == h->seen_out) {
        h1_break(h, EP_RESET_TIMEOUT, EP_CLOSE_TIMEOUT, true);
        return;
    }
    h->seen_out = pending ? c->bytes_out : UINT64_MAX;
    h->since_ns = c->worker->now_ns;
    arm(h);
}

static void settle(struct h1_conn *h);

static void on_deadline(struct ep_timer *t)
{
    struct ep_conn *c = EP_CONTAINER(t, struct ep_conn, timer);
    struct h1_conn *h = h1_of(c);
    const struct ep_http_options *o = h->options;
    uint64_t age = c->worker->now_ns - h->since_ns;

    h->armed_ns = 0;
    h->depth++;
    if (h->phase == H1_PHASE_IDLE && (h->draining || age >= o->idle_timeout_ns)) {
        c->closing_why = EP_CLOSE_TIMEOUT;
        ep_conn_close(c);
    } else if (h->phase == H1_PHASE_HEAD && age >= o->headers_timeout_ns) {
        c->closing_why = EP_CLOSE_TIMEOUT;
        h1_server_problem(h, (struct h1_problem){408, "the request's head took too long"});
    } else if (h->phase == H1_PHASE_BUSY && age >= o->flush_timeout_ns / 2) {
        watch_output(h);
    } else {
        arm(h);
    }
    h->depth--;
    settle(h);
}

struct h1_conn *h1_conn_new(struct ep_conn *c, const struct ep_http_options *o, void *user)
{
    struct h1_conn *h = ep_mem_calloc(&c->worker->mem, 1, sizeof *h);

    assert(h);
    h->magic = MAGIC;
    h->conn = c;
    h->options = o;
    h->user = user;
    h->in = H1_IN_HEAD;
    h->seen_out = UINT64_MAX;
    ep_body_init(&h->unread);
    return h;
}

void h1_conn_start(struct h1_conn *h)
{
    h->conn->timer.fire = on_deadline;
    h->since_ns = h->conn->worker->now_ns;
    arm(h);
}

void h1_deliver(struct h1_conn *h, struct ep_slice s, bool end)
{
    struct h1_leg *l = h->leg;

    if (!l || l->released || l->failed || l->leg.over || (s.n == 0 && !end))
        return;
    if (end)
        l->leg.recv_ended = true;
    l->unconsumed += s.n;
    l->leg.events->on_data(&l->leg, s, end);
}

static void message_whole(struct h1_conn *h)
{
    h->in = h->acceptor && !h->leg ? H1_IN_HEAD : H1_IN_WHOLE;
}

void h1_begin_body(struct h1_conn *h, enum h1_framing framing, uint64_t length)
{
    static const enum h1_in states[] = {
        [H1_EMPTY] = H1_IN_WHOLE, [H1_LENGTH] = H1_IN_LENGTH, [H1_CHUNKED] = H1_IN_CHUNKED,
        [H1_CLOSE] = H1_IN_CLOSE, [H1_TUNNEL] = H1_IN_TUNNEL,
    };

    h->in = states[framing];
    h->left = length;
    h->chunk = (struct h1_chunk){.state = 0};
}

void h1_break(struct h1_conn *h, enum ep_reset why, enum ep_close close, bool rst)
{
    struct h1_leg *l = h->leg;

    if (l && !l->released && !l->leg.over && !(l->leg.recv_ended && l->tail_sent)) {
        l->leg.over = true;
        l->leg.unanswered = h->events && !l->answered;
        l->leg.events->on_reset(&l->leg, l->failed ? l->fail_why : why);
    }
    ep_conn_abort(h->conn, close, rst);
}

static void problem_found(struct h1_conn *h, struct h1_problem problem)
{
    if (h->acceptor)
        h1_server_problem(h, problem);
    else
        h1_client_problem(h, problem);
}

static void trailers_came(struct h1_conn *h, struct ep_str block)
{
    struct h1_leg *l = h->leg;
    struct h1_problem problem;
    struct h1_head head;
    struct ep_headers *table;

    if (!h1_parse_trailers(&head, block, h->options, &problem)) {
        problem_found(h, problem);
        return;
    }
    message_whole(h);
    if (!l || l->released || l->failed || l->leg.over)
        return;
    table = head.n ? h1_build_trailers(&head, l->leg.arena) : NULL;
    if (table && table->n) {
        l->leg.recv_ended = true;
        l->leg.events->on_trailers(&l->leg, table);
    } else {
        h1_deliver(h, (struct ep_slice){NULL, NULL, 0}, true);
    }
}

/* The lines of a head, or of trailers. */
static size_t take_block(struct h1_conn *h, struct ep_slice s)
{
    bool trailers = h->in == H1_IN_TRAILERS;
    struct h1_gather_limits limits = {
        .first_line = h->options->max_request_line,
        .block = h->options->max_header_bytes,
        .head = !trailers,
        .request = h->acceptor != NULL,
    };
    struct h1_problem problem;
    struct ep_str block;
    size_t used = 0;

    switch (h1_gather(&h->gather, &limits, (const char *)s.p, s.n, &used, &block, &problem)) {
    case H1_MORE:
        return used;
    case H1_BAD:
        problem_found(h, problem);
        return s.n;
    default:
        break;
    }
    if (trailers)
        trailers_came(h, block);
    else if (h->acceptor)
        h1_server_head(h, block);
    else
        h1_client_head(h, block);
    h1_gather_reset(&h->gather);
    return used;
}

static size_t take_length(struct h1_conn *h, struct ep_slice s)
{
    if (s.n > h->left)
        s.n = (size_t)h->left;
    h->left -= s.n;
    if (h->left == 0)
        message_whole(h);
    h1_deliver(h, s, h->left == 0);
    return s.n;
}

static size_t take_chunked(struct h1_conn *h, struct ep_slice s)
{
    struct ep_str data;
    size_t used = 0;

    switch (h1_chunk_feed(&h->chunk, s.p, s.n, &used, &data)) {
    case H1_BAD:
        problem_found(h, (struct h1_problem){400, "bad chunk"});
        return s.n;
    case H1_DONE:
        h->in = H1_IN_TRAILERS;
        return used;
    default:
        if (data.n)
            h1_deliver(h, (struct ep_slice){s.slab, (const unsigned char *)data.p, data.n}, false);
        return used;
    }
}

/* Bytes that no request asked for: whatever they are, nothing more is to be believed (RFC 9112 section 9.2). */
static size_t unasked(struct h1_conn *h, struct ep_slice s)
{
    h->keep_alive = false;
    if (!h->leg || !h->leg->head_sent)
        h1_break(h, EP_RESET_CONNECTION, EP_CLOSE_LOCAL, true);
    return s.n;
}

/* Takes some of the bytes in the state at hand; 0: they have to wait. */
static size_t step(struct h1_conn *h, struct ep_slice s)
{
    switch (h->in) {
    case H1_IN_HEAD:
        if (h->events && (!h->leg || !h->leg->head_sent))
            return unasked(h, s);
        if (h->leg)
            h->leg->answered = true;
        return take_block(h, s);
    case H1_IN_TRAILERS:
        return take_block(h, s);
    case H1_IN_LENGTH:
        return take_length(h, s);
    case H1_IN_CHUNKED:
        return take_chunked(h, s);
    case H1_IN_CLOSE:
    case H1_IN_TUNNEL:
        h1_deliver(h, s, false);
        return s.n;
    case H1_IN_WHOLE:
        return h->events ? unasked(h, s) : 0;
    default:
        return 0;
    }
}

static size_t take(struct h1_conn *h, struct ep_slice s)
{
    size_t at = 0;

    while (at < s.n && !h1_dead(h)) {
        size_t used = step(h, (struct ep_slice){s.slab, s.p + at, s.n - at});

        if (used == 0)
            return at;
        at += used;
    }
    return s.n;
}

void h1_update_reading(struct h1_conn *h)
{
    struct ep_conn *c = h->conn;
    const struct h1_leg *l = h->leg;
    size_t window = h->options->stream_window;
    bool pause = h->unread.bytes > 0;

    if (h1_dead(h))
        return;
    if (l && !l->leg.over)
        pause |= l->unconsumed >= window || (c->read_paused && l->unconsumed > window / 2);
    if (pause && !c->read_paused)
        ep_conn_pause_read(c);
    else if (!pause && c->read_paused)
        ep_conn_resume_read(c);
}

/* Lets go of a released leg and takes what was kept, as long as one leads to the other. */
static void go_on(struct h1_conn *h)
{
    for (;;) {
        struct ep_slice s;
        size_t used;

        if (h->leg && h->leg->released) {
            if (h->acceptor)
                h1_server_finish(h);
            else
                h1_client_finish(h);
        }
        if (h1_dead(h) || h->unread.bytes == 0)
            return;
        s = ep_slice_ref(*ep_body_front(&h->unread));
        h->depth++;
        used = take(h, s);
        h->depth--;
        ep_body_drop(&h->unread, used);
        ep_slice_unref(s);
        if (used == 0 && !(h->leg && h->leg->released))
            return;
    }
}

/* The peer's side is closed and all it said was taken. */
static void settle_eof(struct h1_conn *h)
{
    if (h->in == H1_IN_TUNNEL && h->leg) {
        h->in = H1_IN_WHOLE;
        h->depth++;
        h1_deliver(h, (struct ep_slice){NULL, NULL, 0}, true);
        h->depth--;
        go_on(h);
    }
    if (!h->leg && !h1_dead(h)) {
        h->conn->closing_why = EP_CLOSE_EOF;
        ep_conn_close(h->conn);
    }
}

static void settle(struct h1_conn *h)
{
    if (h->depth)
        return;
    go_on(h);
    if (!h1_dead(h) && h->conn->eof_in && h->unread.bytes == 0)
        settle_eof(h);
    if (h1_dead(h))
        return;
    h1_update_reading(h);
    h1_set_phase(h, h->leg ? H1_PHASE_BUSY : h->acceptor && h->gather.n ? H1_PHASE_HEAD : H1_PHASE_IDLE);
    if (h->idle_due && !h->leg) {
        h->idle_due = false;
        h->events->on_idle(h->user, h->conn);
    }
}

void h1_input(struct h1_conn *h, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct ep_slice s = {slab, p, n};

    assert(h->magic == MAGIC);
    if (h1_dead(h))
        return;
    h->depth++;
    if (h->unread.bytes == 0) {
        size_t used = take(h, s);

        s.p += used;
        s.n -= used;
    }
    if (s.n && !h1_dead(h))
        ep_body_push(&h->unread, ep_slice_ref(s), &h->conn->worker->slabs);
    h->depth--;
    settle(h);
}

void h1_on_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    h1_input(h1_of(c), slab, p, n);
}

void h1_on_eof(struct ep_conn *c)
{
    struct h1_conn *h = h1_of(c);

    h->depth++;
    if (h->acceptor)
        h1_server_eof(h);
    else
        h1_client_eof(h);
    h->depth--;
    settle(h);
}

void h1_on_flush(struct ep_conn *c)
{
    struct h1_conn *h = h1_of(c);

    h->depth++;
    h1_pump(h);
    h->depth--;
    settle(h);
}

void h1_on_closed(struct ep_conn *c, enum ep_close why)
{
    struct h1_conn *h = h1_of(c);
    struct h1_leg *l = h->leg;

    assert(h->magic == MAGIC);
    h->depth++;
    if (l) {
        enum ep_reset reset = why == EP_CLOSE_TIMEOUT ? EP_RESET_TIMEOUT : EP_RESET_CONNECTION;

        if (h->events && !c->ready)
            reset = EP_RESET_REFUSED; /* nothing reached the server */
        else if (h->events && l->leg.recv_ended)
            reset = EP_RESET_NO_ERROR;
        h1_break(h, reset, why, false);
        l->h = NULL;
        l->leg.conn = NULL;
        l->leg.over = true;
        h->leg = NULL;
        if (l->released)
            h1_leg_free(l);
    }
    if (h->acceptor)
        h->acceptor->on_closed(h->user, c, why);
    else
        h->events->on_closed(h->user, c, why);
    h1_gather_reset(&h->gather);
    ep_body_fini(&h->unread);
    h->magic = 0;
    ep_mem_free(&c->worker->mem, h);
}
