/* HTTP/2 connections by nghttp2: RFC 9113, RFC 8441. One struct serves both sides.
 *
 * nghttp2 does framing, HPACK, flow control and the state of streams, and validates every header field. We give it
 * bytes (h2_recv.c), take its frames (here), hand it bodies without a copy (h2_leg.c), and add what it leaves to
 * its user: floods, idle time, drain. */
#include "http/h2.h"

#include <stdlib.h>

#define CHECK_MIN_NS (100 * EP_MS)

static void *mem_malloc(size_t n, void *user)
{
    return ep_mem_alloc(user, n);
}

static void mem_free(void *p, void *user)
{
    ep_mem_free(user, p);
}

static void *mem_calloc(size_t n, size_t size, void *user)
{
    return ep_mem_calloc(user, n, size);
}

static void *mem_realloc(void *p, size_t n, void *user)
{
    return ep_mem_realloc(user, p, n);
}

void ep_h2_pump(struct ep_h2 *h2, bool heads)
{
    struct ep_conn *c = h2->conn;
    const uint8_t *p;

    while (!c->closed && (ep_conn_pending(c) < EP_CONN_OUT_HIGH ||
                          (heads && nghttp2_session_get_outbound_queue_size(h2->session) > 0))) {
        ssize_t n = nghttp2_session_mem_send(h2->session, &p);

        if (n == 0)
            return;
        if (n < 0) {
            h2->broken = true;
            ep_conn_abort(c, EP_CLOSE_RESET, false);
            return;
        }
        ep_conn_write(c, p, (size_t)n);
    }
}

static void on_flush(struct ep_conn *c)
{
    struct ep_h2 *h2 = c->user;

    ep_h2_pump(h2, false);
    if (h2->n_stops && !c->closed) {
        ep_h2_stop_legs(h2);
        ep_h2_pump(h2, false);
    }
    if (c->closed)
        return;
    if (ep_conn_pending(c) >= EP_CONN_OUT_HIGH) /* more waits for a peer that may read nothing */
        ep_h2_look_at(h2, c->worker->now_ns + h2->options->flush_timeout_ns / 2);
    if (h2->capacity_changed)
        ep_h2_check_capacity(h2);
    if ((h2->draining && h2->n_legs == 0 && !h2->drain_at_ns && !nghttp2_session_want_write(h2->session)) ||
        (!nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session)))
        ep_conn_close(c);
}

static void on_drained(struct ep_conn *c)
{
    ep_conn_want_flush(c);
}

static void on_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct ep_h2 *h2 = c->user;
    ssize_t used;

    if (h2->broken)
        return;
    h2->last_input_ns = c->worker->now_ns;
    if (!h2->server && c->bytes_in == n && n > 3 && p[3] != NGHTTP2_SETTINGS) { /* with which it must begin: RFC 9113 section 3.4 */
        h2->broken = true;
        c->closing_why = EP_CLOSE_NOT_H2;
        ep_conn_close(c);
        return;
    }
    h2->slab = slab;
    used = nghttp2_session_mem_recv(h2->session, p, n);
    h2->slab = NULL;
    if (used < 0) {
        h2->broken = true;
        snprintf(c->error_text, sizeof c->error_text, "%s", nghttp2_strerror((int)used));
        if (h2->acceptor)
            h2->acceptor->on_refused(h2->user, c, 0, used == NGHTTP2_ERR_BAD_CLIENT_MAGIC ? "h2.preface" : "h2.flood");
        c->closing_why = EP_CLOSE_LIMIT;
        ep_conn_close(c);
    }
    if (h2->headers_since_ns) /* a head that didn't come in one piece */
        ep_h2_look_at(h2, h2->headers_since_ns + h2->options->headers_timeout_ns);
    ep_conn_want_flush(c);
}

static void on_eof(struct ep_conn *c)
{
    c->closing_why = EP_CLOSE_EOF;
    ep_conn_close(c);
}

static void on_closed(struct ep_conn *c, enum ep_close why)
{
    struct ep_h2 *h2 = c->user;
    enum ep_reset reset = why == EP_CLOSE_TIMEOUT ? EP_RESET_TIMEOUT : why == EP_CLOSE_NOT_H2 ? EP_RESET_REFUSED : EP_RESET_CONNECTION;

    EP_LIST_FOREACH(n, &h2->legs) {
        struct ep_h2_leg *l = EP_CONTAINER(n, struct ep_h2_leg, node);
        ep_h2_leg_closed(l, reset, false);
    }
    /* Legs that their owner has not let go of outlive us; they hold no pointer to us any more. */
    EP_LIST_FOREACH(n, &h2->legs) {
        struct ep_h2_leg *l = EP_CONTAINER(n, struct ep_h2_leg, node);
        l->h2 = NULL;
        l->leg.conn = NULL;
        ep_list_remove(&l->node);
    }
    if (h2->session)
        nghttp2_session_del(h2->session);
    if (h2->server)
        h2->acceptor->on_closed(h2->user, c, why);
    else
        h2->client->on_closed(h2->user, c, why);
    h2->magic = 0;
    ep_mem_free(&c->worker->mem, h2);
}

void ep_h2_look_at(struct ep_h2 *h2, uint64_t at_ns)
{
    struct ep_conn *c = h2->conn;
    uint64_t now = c->worker->now_ns;

    if ((h2->check_at_ns && h2->check_at_ns <= at_ns) || c->closed || c->close_wanted)
        return;
    h2->check_at_ns = at_ns;
    ep_conn_deadline(c, at_ns > now ? at_ns - now : EP_MS);
}

/* Output that makes no progress from one look to the next, for too long. */
static bool is_stuck(struct ep_h2 *h2)
{
    struct ep_conn *c = h2->conn;
    uint64_t now = c->worker->now_ns;

    if (!c->write_stuck || c->bytes_out != h2->seen_out || !h2->stuck_since_ns) {
        h2->stuck_since_ns = c->write_stuck ? now : 0;
        h2->seen_out = c->bytes_out;
    }
    return h2->stuck_since_ns && now - h2->stuck_since_ns >= h2->options->flush_timeout_ns;
}

/* One timer a connection looks at all its deadlines, so that requests start and stop none. */
static void on_check(struct ep_timer *t)
{
    struct ep_conn *c = EP_CONTAINER(t, struct ep_conn, timer);
    struct ep_h2 *h2 = c->user;
    const struct ep_http_options *o = h2->options;
    uint64_t now = c->worker->now_ns, next = o->idle_timeout_ns;

    h2->check_at_ns = 0;
    if (is_stuck(h2)) {
        snprintf(c->error_text, sizeof c->error_text, "the peer reads nothing");
        ep_conn_abort(c, EP_CLOSE_TIMEOUT, true);
        return;
    }
    if (h2->headers_since_ns && now - h2->headers_since_ns >= o->headers_timeout_ns) {
        if (h2->acceptor)
            h2->acceptor->on_refused(h2->user, c, 408, "headers_timeout");
        ep_conn_abort(c, EP_CLOSE_TIMEOUT, false);
        return;
    }
    if (h2->drain_at_ns && now >= h2->drain_at_ns) {
        h2->drain_at_ns = 0;
        nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->session),
                              NGHTTP2_NO_ERROR, NULL, 0);
        ep_conn_want_flush(c);
    } else if (h2->drain_at_ns) {
        next = EP_MIN(next, h2->drain_at_ns - now);
    }
    if (h2->n_legs == 0) {
        uint64_t idle = now - h2->last_active_ns;
        if (idle >= o->idle_timeout_ns) {
            nghttp2_session_terminate_session(h2->session, NGHTTP2_NO_ERROR);
            c->closing_why = EP_CLOSE_TIMEOUT;
            ep_conn_close(c);
            return;
        }
        next = EP_MIN(next, o->idle_timeout_ns - idle);
    }
    if (o->ping_interval_ns) {
        if (h2->ping_out && now - h2->last_input_ns >= 2 * o->ping_interval_ns) {
            ep_conn_abort(c, EP_CLOSE_TIMEOUT, false);
            return;
        }
        if (now - h2->last_input_ns >= o->ping_interval_ns && !h2->ping_out) {
            h2->ping_out = true;
            nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, NULL);
            ep_conn_want_flush(c);
        }
        next = EP_MIN(next, o->ping_interval_ns);
    }
    ep_h2_reset_left_over(h2);
    if (h2->headers_since_ns)
        next = EP_MIN(next, h2->headers_since_ns + o->headers_timeout_ns - now);
    if (h2->n_legs || c->write_stuck) /* a stuck peer is found within half its time */
        next = EP_MIN(next, o->flush_timeout_ns / 2);
    ep_h2_look_at(h2, now + EP_MAX(next, CHECK_MIN_NS));
}

static void drain(struct ep_conn *c, uint64_t grace_ns)
{
    struct ep_h2 *h2 = c->user;

    if (h2->draining || c->closed)
        return;
    h2->draining = true;
    if (h2->server && grace_ns) {
        nghttp2_submit_shutdown_notice(h2->session); /* GOAWAY with the highest id: RFC 9113 section 6.8 */
        h2->drain_at_ns = c->worker->now_ns + grace_ns;
        ep_h2_look_at(h2, h2->drain_at_ns);
    } else if (h2->server) {
        nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->session),
                              NGHTTP2_NO_ERROR, NULL, 0);
    }
    ep_conn_want_flush(c);
}

static void on_ready(struct ep_conn *c)
{
    struct ep_h2 *h2 = c->user;

    h2->last_active_ns = c->worker->now_ns;
    c->timer.fire = on_check;
    ep_h2_look_at(h2, c->worker->now_ns + h2->options->idle_timeout_ns);
    ep_conn_want_flush(c);
    if (h2->client && h2->client->on_capacity)
        h2->client->on_capacity(h2->user, c);
}

static const struct ep_codec codec = {
    .handler =
        {
            .name = "h2",
            .on_ready = on_ready,
            .on_data = on_data,
            .on_eof = on_eof,
            .on_flush = on_flush,
            .on_drained = on_drained,
            .on_closed = on_closed,
        },
    .drain = drain,
    .is_codec = true,
};

static nghttp2_session *session_new(struct ep_h2 *h2)
{
    struct ep_mem *pool = &h2->conn->worker->mem;
    nghttp2_mem mem = {pool, mem_malloc, mem_free, mem_calloc, mem_realloc};
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *option = NULL;
    nghttp2_session *session = NULL;

    if (nghttp2_session_callbacks_new(&cb) || nghttp2_option_new(&option))
        abort();
    ep_h2_callbacks(cb);
    ep_h2_leg_callbacks(cb);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, 256);
    nghttp2_option_set_max_settings(option, 32);
    nghttp2_option_set_stream_reset_rate_limit(option, 100, 4); /* DESIGN.md section 17: over 100 in 30 s */
    nghttp2_option_set_max_continuations(option, 8);
    nghttp2_option_set_max_send_header_block_length(option, 4u << 20); /* what was taken in can be passed on */
    nghttp2_option_set_server_fallback_rfc7540_priorities(option, 0);
    if (h2->server ? nghttp2_session_server_new3(&session, cb, h2, option, &mem)
                   : nghttp2_session_client_new3(&session, cb, h2, option, &mem))
        abort();
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    return session;
}

static struct ep_h2 *h2_new(struct ep_conn *c, const struct ep_http_options *o, bool server, void *user)
{
    struct ep_h2 *h2 = ep_mem_calloc(&c->worker->mem, 1, sizeof *h2);

    assert(h2);
    h2->magic = EP_H2_MAGIC;
    h2->conn = c;
    h2->server = server;
    h2->options = o;
    h2->user = user;
    h2->peer_max_streams = 100; /* until its SETTINGS say otherwise */
    h2->last_active_ns = h2->last_input_ns = h2->glitches_at_ns = h2->control_at_ns = c->worker->now_ns;
    h2->glitches_left = 100;
    h2->control_left = 2000;
    ep_list_init(&h2->legs);
    h2->session = session_new(h2);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, o->stream_window},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, o->max_header_bytes},
        {server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH, server ? o->max_streams : 0},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
        {NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1},
    };
    size_t n = EP_COUNT(settings) - (server && o->extended_connect ? 0 : 1);
    if (nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings, n) ||
        nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, (int32_t)o->connection_window))
        abort();
    return h2;
}

void ep_h2_serve(struct ep_conn *c, const struct ep_http_options *o, const struct ep_acceptor *a, void *user,
                 struct ep_slab *slab, const unsigned char *first, size_t n)
{
    struct ep_h2 *h2 = h2_new(c, o, true, user);

    h2->acceptor = a;
    ep_conn_set_handler(c, &codec.handler, h2);
    on_ready(c);
    if (n)
        on_data(c, slab, first, n);
}

void ep_h2_client(struct ep_conn *c, const struct ep_http_options *o, const struct ep_client_events *e, void *user)
{
    struct ep_h2 *h2 = h2_new(c, o, false, user);

    h2->client = e;
    if (ep_conn_adopt(c, &codec.handler, h2))
        on_ready(c);
}

static struct ep_h2 *of(struct ep_conn *c)
{
    struct ep_h2 *h2 = c->user;

    assert(c->handler == &codec.handler && h2->magic == EP_H2_MAGIC);
    return h2;
}

unsigned ep_h2_capacity(struct ep_conn *c)
{
    struct ep_h2 *h2 = of(c);
    uint64_t max = h2->options->max_requests;

    if (c->closed || c->close_wanted || h2->broken || h2->goaway_in || h2->draining ||
        h2->n_legs >= h2->peer_max_streams || (max && h2->requests >= max) ||
        nghttp2_session_get_next_stream_id(h2->session) > 0x7ffffff0u)
        return 0;
    return h2->peer_max_streams - h2->n_legs;
}

unsigned ep_h2_streams(struct ep_conn *c)
{
    return of(c)->n_legs;
}

unsigned ep_h2_peer_limit(struct ep_conn *c)
{
    return of(c)->peer_max_streams;
}

bool ep_h2_extended_connect(struct ep_conn *c)
{
    return nghttp2_session_get_remote_settings(of(c)->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}

struct ep_leg *ep_h2_open(struct ep_conn *c)
{
    struct ep_h2 *h2 = of(c);

    if (ep_h2_capacity(c) == 0)
        return NULL;
    h2->requests++;
    return &ep_h2_leg_new(h2, -1)->leg;
}

void ep_h2_check_capacity(struct ep_h2 *h2)
{
    h2->capacity_changed = false;
    if (h2->client && h2->client->on_capacity && !h2->conn->closed)
        h2->client->on_capacity(h2->user, h2->conn);
}
