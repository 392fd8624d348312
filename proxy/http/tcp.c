/* The opaque codec: a connection whose bytes we don't read is one leg, a tunnel, on either side.
 *
 * As a server it looks like a CONNECT to the original destination; as a client it answers 200 when the connection is
 * there. Each direction ends on its own (half close); a reset goes on as a reset.
 *
 * A connection that the sniffer found opaque by its first bytes is watched to the end of its first line: who cuts
 * "G\xc3T / HTTP/1.1" in two must not get past the policies with what is refused in one piece (ep_sniff_bytes). */
#include "http/leg.h"

#define MAGIC 0x74637021u
#define WATCH_MAX 2048u /* as far as the sniffer looks */

struct tcp_conn;

struct tcp_leg {
    struct ep_leg leg;
    struct ep_worker *worker;
    struct tcp_conn *t;      /* NULL once the connection is gone */
    size_t unconsumed;
    bool tail_sent, told_sent, released;
};

struct tcp_conn {
    uint32_t magic;
    struct ep_conn *conn;
    const struct ep_http_options *options;
    const struct ep_acceptor *acceptor;    /* server */
    const struct ep_client_events *events; /* client */
    void *user;
    struct tcp_leg *leg;
    struct ep_task task;     /* client: to answer outside of the op */
    struct ep_body unread;   /* client: came before the leg was asked anything */
    bool asked, answered;    /* client: ops->headers was called; on_headers was */
    bool used;               /* a connection carries one leg in its life */
    unsigned depth;
    unsigned watch;          /* server: how many more bytes of the first line are looked at */
    unsigned matched;        /* … of " HTTP/" so far */
    bool line_begun;
    uint64_t seen_out;       /* as in h1: stuck output */
};

static const struct ep_leg_ops ops;
static const struct ep_codec server_codec, client_codec;

static struct tcp_conn *of(struct ep_conn *c)
{
    return c->user;
}

static bool dead(const struct tcp_conn *t)
{
    return t->conn->closed || t->conn->close_wanted;
}

static bool whole(const struct tcp_leg *l)
{
    return l->leg.recv_ended && l->tail_sent;
}

static void leg_free(struct tcp_leg *l)
{
    ep_body_fini(&l->leg.out);
    ep_mem_free(&l->worker->mem, l);
}

static void let_go(struct tcp_conn *t)
{
    struct tcp_leg *l = t->leg;

    if (t->depth || !l || !l->released)
        return;
    t->leg = NULL;
    leg_free(l);
    if (!dead(t))
        ep_conn_close(t->conn);
}

static void deliver(struct tcp_conn *t, struct ep_slice s, bool end)
{
    struct tcp_leg *l = t->leg;

    if (!l || l->released || l->leg.over || l->leg.recv_ended)
        return;
    l->leg.recv_ended = end;
    l->unconsumed += s.n;
    if (l->unconsumed >= t->options->stream_window && !t->conn->read_paused)
        ep_conn_pause_read(t->conn);
    l->leg.events->on_data(&l->leg, s, end);
}

static void break_off(struct tcp_conn *t, enum ep_reset why, enum ep_close close, bool rst)
{
    struct tcp_leg *l = t->leg;

    if (l && !l->released && !l->leg.over && !whole(l)) {
        l->leg.over = true;
        l->leg.unanswered = t->events && !t->answered;
        l->leg.events->on_reset(&l->leg, why);
    }
    ep_conn_abort(t->conn, close, rst);
}

static void on_deadline(struct ep_timer *timer)
{
    struct ep_conn *c = EP_CONTAINER(timer, struct ep_conn, timer);
    struct tcp_conn *t = of(c);
    bool pending = ep_conn_pending(c) > 0;

    t->depth++;
    if (pending && c->bytes_out == t->seen_out) {
        break_off(t, EP_RESET_TIMEOUT, EP_CLOSE_TIMEOUT, true);
    } else {
        t->seen_out = pending ? c->bytes_out : UINT64_MAX;
        ep_conn_deadline(c, t->options->flush_timeout_ns / 2);
    }
    t->depth--;
    let_go(t);
}

static void start(struct tcp_conn *t)
{
    t->conn->timer.fire = on_deadline;
    ep_conn_deadline(t->conn, t->options->flush_timeout_ns / 2);
}

/* The client's answer: the connection is there. What the server said before follows. */
static void answer(struct tcp_conn *t)
{
    struct tcp_leg *l = t->leg;
    struct ep_headers *h;

    if (!l || t->answered || !t->asked || !t->conn->ready || dead(t) || l->released || l->leg.over)
        return;
    t->answered = true;
    h = EP_ARENA_NEW(l->leg.arena, struct ep_headers);
    ep_headers_init(h, l->leg.arena);
    ep_headers_append(h, EP_HDR_STATUS, ep_header_name(EP_HDR_STATUS), EP_STR("200"));
    l->leg.events->on_headers(&l->leg, h, false);
    while (t->unread.count) {
        struct ep_slice s = ep_slice_ref(*ep_body_front(&t->unread));

        ep_body_drop(&t->unread, s.n);
        deliver(t, s, false);
        ep_slice_unref(s);
    }
    if (t->conn->eof_in)
        deliver(t, (struct ep_slice){NULL, NULL, 0}, true);
    else if (t->conn->read_paused && l->unconsumed < t->options->stream_window)
        ep_conn_resume_read(t->conn);
}

static void on_task(struct ep_task *task)
{
    struct tcp_conn *t = EP_CONTAINER(task, struct tcp_conn, task);

    t->depth++;
    answer(t);
    t->depth--;
    let_go(t);
}

static void on_ready(struct ep_conn *c)
{
    struct tcp_conn *t = of(c);

    start(t);
    if (t->events && t->events->on_capacity)
        t->events->on_capacity(t->user, c);
    on_task(&t->task);
}

/* Whether the first line, whatever pieces it comes in, calls itself HTTP. */
static bool says_http(struct tcp_conn *t, const unsigned char *p, size_t n)
{
    static const char word[] = " HTTP/";

    for (size_t i = 0; i < n && t->watch; i++) {
        bool blank = p[i] == ' ' || p[i] == '\t' || p[i] == '\r' || p[i] == '\n';

        if (!t->line_begun && blank)
            continue;
        t->line_begun = true;
        t->watch = p[i] == '\n' ? 0 : t->watch - 1;
        t->matched = p[i] == (unsigned char)word[t->matched] ? t->matched + 1 : p[i] == ' ';
        if (t->matched == sizeof word - 1)
            return true;
    }
    return false;
}

static void refuse_http(struct tcp_conn *t)
{
    t->watch = 0;
    t->depth++;
    t->acceptor->on_refused(t->user, t->conn, 0, "late_http");
    break_off(t, EP_RESET_PROTOCOL, EP_CLOSE_LIMIT, true);
    t->depth--;
    let_go(t);
}

static void on_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct tcp_conn *t = of(c);
    struct ep_slice s = {slab, p, n};

    assert(t->magic == MAGIC);
    if (dead(t))
        return;
    if (t->watch && says_http(t, p, n)) {
        refuse_http(t);
        return;
    }
    if (t->events && !t->answered) { /* the server speaks first */
        ep_body_push(&t->unread, ep_slice_ref(s), &c->worker->slabs);
        ep_conn_pause_read(c);
        return;
    }
    t->depth++;
    deliver(t, s, false);
    t->depth--;
    let_go(t);
}

static void on_eof(struct ep_conn *c)
{
    struct tcp_conn *t = of(c);

    t->depth++;
    if (!t->leg) {
        c->closing_why = EP_CLOSE_EOF;
        ep_conn_close(c);
    } else if (!t->events || t->answered) {
        deliver(t, (struct ep_slice){NULL, NULL, 0}, true);
    }
    t->depth--;
    let_go(t);
}

static size_t send_out(struct tcp_conn *t, struct tcp_leg *l)
{
    size_t n = 0;

    while (l->leg.out.count && ep_conn_pending(t->conn) < EP_CONN_OUT_HIGH) {
        struct ep_slice s = ep_slice_ref(*ep_body_front(&l->leg.out));

        n += s.n;
        ep_body_drop(&l->leg.out, s.n);
        ep_conn_write_slice(t->conn, s);
    }
    if (l->leg.out.count == 0 && l->leg.send_ended && !l->tail_sent) {
        l->tail_sent = true;
        ep_conn_shutdown(t->conn);
    }
    return n;
}

static void pump(struct tcp_conn *t)
{
    struct tcp_leg *l = t->leg;
    size_t n;

    if (!l || l->released || l->leg.over || dead(t))
        return;
    n = send_out(t, l);
    if (n)
        l->leg.events->on_sent(&l->leg, n);
    if (l->released || l->leg.over || !l->tail_sent || l->told_sent)
        return;
    l->told_sent = true;
    if (l->leg.events->on_message_sent)
        l->leg.events->on_message_sent(&l->leg);
}

static void on_flush(struct ep_conn *c)
{
    struct tcp_conn *t = of(c);

    t->depth++;
    pump(t);
    t->depth--;
    let_go(t);
}

static void on_closed(struct ep_conn *c, enum ep_close why)
{
    struct tcp_conn *t = of(c);
    struct tcp_leg *l = t->leg;
    enum ep_reset reset = why == EP_CLOSE_TIMEOUT           ? EP_RESET_TIMEOUT
                          : t->events && !t->conn->ready ? EP_RESET_REFUSED
                                                         : EP_RESET_CONNECTION;

    assert(t->magic == MAGIC);
    t->depth++;
    if (l) {
        break_off(t, reset, why, false);
        l->t = NULL;
        l->leg.conn = NULL;
        l->leg.over = true;
        t->leg = NULL;
        if (l->released)
            leg_free(l);
    }
    ep_list_remove(&t->task.node);
    if (t->acceptor)
        t->acceptor->on_closed(t->user, c, why);
    else
        t->events->on_closed(t->user, c, why);
    ep_body_fini(&t->unread);
    t->magic = 0;
    ep_mem_free(&c->worker->mem, t);
}

/* --- ops --- */

static struct tcp_leg *leg_of(struct ep_leg *leg)
{
    return (struct tcp_leg *)leg; /* leg is its first member */
}

static bool deaf(const struct tcp_leg *l)
{
    return l->leg.over || !l->t || dead(l->t);
}

static void op_data(struct ep_leg *leg, struct ep_slice s, bool end)
{
    struct tcp_leg *l = leg_of(leg);

    if (deaf(l) || leg->send_ended) {
        ep_slice_unref(s);
        return;
    }
    if (s.n)
        ep_body_push(&leg->out, s, &l->worker->slabs);
    else
        ep_slice_unref(s);
    leg->send_ended = end;
    ep_conn_want_flush(leg->conn);
}

static void op_reset(struct ep_leg *leg, enum ep_reset why)
{
    struct tcp_leg *l = leg_of(leg);
    bool could = !deaf(l);

    (void)why;
    leg->over = true;
    if (could && !whole(l))
        ep_conn_abort(leg->conn, EP_CLOSE_LOCAL, leg->conn->ready);
}

static void op_headers(struct ep_leg *leg, struct ep_headers *headers, bool end)
{
    struct tcp_leg *l = leg_of(leg);
    uint64_t status = 0;

    if (deaf(l))
        return;
    if (!leg->server) {
        l->t->asked = true;
        ep_worker_defer(l->worker, &l->t->task);
    } else if (!ep_str_u64(ep_headers_get_id(headers, EP_HDR_STATUS), &status) || status >= 300) {
        leg->tunnel = false; /* refused: there are no words for it but a reset, and no event follows */
        leg->recv_ended = true;
        l->tail_sent = true;
        ep_conn_abort(leg->conn, EP_CLOSE_LOCAL, true);
    }
    if (end)
        op_data(leg, (struct ep_slice){NULL, NULL, 0}, true);
}

static void op_informational(struct ep_leg *leg, struct ep_headers *headers)
{
    (void)leg, (void)headers;
}

static void op_trailers(struct ep_leg *leg, struct ep_headers *headers)
{
    (void)headers;
    op_data(leg, (struct ep_slice){NULL, NULL, 0}, true);
}

static void op_consumed(struct ep_leg *leg, size_t n)
{
    struct tcp_leg *l = leg_of(leg);

    l->unconsumed -= EP_MIN(n, l->unconsumed);
    if (deaf(l) || !leg->conn->read_paused || l->unconsumed > l->t->options->stream_window / 2)
        return;
    ep_conn_resume_read(leg->conn);
}

static void op_release(struct ep_leg *leg)
{
    struct tcp_leg *l = leg_of(leg);
    struct tcp_conn *t = l->t;

    assert(!l->released);
    if (!t) {
        leg_free(l);
        return;
    }
    if (!deaf(l) && leg->send_ended && leg->recv_ended)
        send_out(t, l);
    if (!whole(l))
        op_reset(leg, EP_RESET_CANCEL);
    l->released = true;
    leg->over = true;
    let_go(t);
}

static const struct ep_leg_ops ops = {
    .name = "tcp",
    .headers = op_headers,
    .informational = op_informational,
    .data = op_data,
    .trailers = op_trailers,
    .consumed = op_consumed,
    .reset = op_reset,
    .release = op_release,
};

/* --- beginning --- */

static struct tcp_conn *conn_new(struct ep_conn *c, const struct ep_http_options *o, void *user)
{
    struct tcp_conn *t = ep_mem_calloc(&c->worker->mem, 1, sizeof *t);

    assert(t);
    t->magic = MAGIC;
    t->conn = c;
    t->options = o;
    t->user = user;
    t->seen_out = UINT64_MAX;
    ep_task_init(&t->task, on_task);
    ep_body_init(&t->unread);
    return t;
}

static struct tcp_leg *leg_new(struct tcp_conn *t)
{
    struct tcp_leg *l = ep_mem_calloc(&t->conn->worker->mem, 1, sizeof *l);

    assert(l);
    l->leg.ops = &ops;
    l->leg.conn = t->conn;
    l->leg.version = EP_HTTP_TCP;
    l->leg.server = t->acceptor != NULL;
    l->leg.tunnel = true;
    l->worker = t->conn->worker;
    l->t = t;
    ep_body_init(&l->leg.out);
    t->leg = l;
    t->used = true;
    return l;
}

static void adopt(struct tcp_conn *t, const struct ep_conn_handler *handler)
{
    if (ep_conn_adopt(t->conn, handler, t))
        start(t);
}

static struct ep_headers *connect_table(struct tcp_leg *l)
{
    struct ep_conn *c = l->t->conn;
    struct ep_headers *h = EP_ARENA_NEW(l->leg.arena, struct ep_headers);
    const struct ep_addr *to = c->original.len ? &c->original : &c->local;
    char text[320];

    if (c->server_name) /* whom the client asked for in its ClientHello, by the same name that a rule would use */
        snprintf(text, sizeof text, "%s:%u", c->server_name, ep_addr_port(to));
    else
        ep_addr_format(to, text);
    ep_headers_init(h, l->leg.arena);
    ep_headers_append(h, EP_HDR_METHOD, ep_header_name(EP_HDR_METHOD), EP_STR("CONNECT"));
    ep_headers_append(h, EP_HDR_SCHEME, ep_header_name(EP_HDR_SCHEME), EP_STR("tcp"));
    ep_headers_add_id(h, EP_HDR_AUTHORITY, ep_str(text));
    return h;
}

/* The bytes that were read before us, in a slab. */
static void feed_first(struct tcp_conn *t, struct ep_slab *slab, const unsigned char *first, size_t n)
{
    if (slab) {
        deliver(t, (struct ep_slice){slab, first, n}, false);
        return;
    }
    slab = ep_slab_new_sized(&t->conn->worker->slabs, n);
    memcpy(slab->data, first, n);
    deliver(t, (struct ep_slice){slab, slab->data, n}, false);
    ep_slab_unref(slab);
}

void ep_tcp_serve(struct ep_conn *c, const struct ep_http_options *o, const struct ep_acceptor *a, void *user,
                  struct ep_slab *slab, const unsigned char *first, size_t n)
{
    struct tcp_conn *t = conn_new(c, o, user);
    struct tcp_leg *l;

    t->acceptor = a;
    adopt(t, &server_codec.handler);
    l = leg_new(t);
    t->depth++;
    if (!a->on_request(user, &l->leg)) {
        t->leg = NULL;
        leg_free(l);
        ep_conn_abort(c, EP_CLOSE_LIMIT, true);
    } else {
        l->leg.events->on_headers(&l->leg, connect_table(l), false);
        if (n && !dead(t))
            feed_first(t, slab, first, n);
    }
    t->depth--;
    let_go(t);
}

void ep_tcp_watch(struct ep_conn *c, const unsigned char *first, size_t n)
{
    struct tcp_conn *t = of(c);

    assert(c->handler == &server_codec.handler);
    t->watch = WATCH_MAX;
    if (!dead(t) && says_http(t, first, n))
        refuse_http(t);
}

void ep_tcp_client(struct ep_conn *c, const struct ep_http_options *o, const struct ep_client_events *e, void *user)
{
    struct tcp_conn *t = conn_new(c, o, user);

    t->events = e;
    adopt(t, &client_codec.handler);
    if (c->ready && e->on_capacity)
        e->on_capacity(user, c);
}

struct ep_leg *ep_tcp_open(struct ep_conn *c)
{
    struct tcp_conn *t = of(c);

    assert(c->handler == &client_codec.handler);
    if (t->used || dead(t))
        return NULL;
    return &leg_new(t)->leg;
}

/* A drain leaves a tunnel alone: its owner ends it when the grace is over. */
static void drain(struct ep_conn *c, uint64_t grace_ns)
{
    struct tcp_conn *t = of(c);

    (void)grace_ns;
    if (!t->leg)
        ep_conn_close(c);
}

static const struct ep_codec server_codec = {
    .handler = {.name = "tcp server", .on_ready = on_ready, .on_data = on_data, .on_eof = on_eof, .on_flush = on_flush,
                .on_drained = on_flush, .on_closed = on_closed},
    .drain = drain,
    .is_codec = true,
};

static const struct ep_codec client_codec = {
    .handler = {.name = "tcp client", .on_ready = on_ready, .on_data = on_data, .on_eof = on_eof, .on_flush = on_flush,
                .on_drained = on_flush, .on_closed = on_closed},
    .drain = drain,
    .is_codec = true,
};
