/* The legs of an HTTP/1 connection: what their owner may ask. Bodies wait in leg->out and leave in h1_pump, at the
 * end of the turn, as long as the connection has not too much to send already. */
#include "http/h1.h"

static const struct ep_leg_ops ops;

static struct h1_leg *of(struct ep_leg *leg)
{
    return (struct h1_leg *)leg; /* leg is its first member */
}

struct h1_leg *h1_leg_new(struct h1_conn *h, enum ep_http_version version)
{
    struct h1_leg *l = ep_mem_calloc(&h->conn->worker->mem, 1, sizeof *l);

    assert(l && !h->leg);
    l->leg.ops = &ops;
    l->leg.conn = h->conn;
    l->leg.version = version;
    l->leg.server = h->acceptor != NULL;
    l->worker = h->conn->worker;
    l->h = h;
    ep_body_init(&l->leg.out);
    h->leg = l;
    return l;
}

void h1_leg_free(struct h1_leg *l)
{
    ep_body_fini(&l->leg.out);
    ep_mem_free(&l->worker->mem, l);
}

/* True when the owner's wish can't be done any more. */
static bool deaf(const struct h1_leg *l)
{
    return l->leg.over || l->failed || !l->h || h1_dead(l->h);
}

void h1_leg_fail(struct h1_leg *l, enum ep_reset why)
{
    l->failed = true;
    l->fail_why = why;
    ep_conn_abort(l->h->conn, EP_CLOSE_LOCAL, true);
}

int h1_table_length(const struct ep_headers *h, uint64_t *length)
{
    const struct ep_header *e = ep_headers_find_id(h, EP_HDR_CONTENT_LENGTH);

    if (!e)
        return 0;
    return ep_headers_count_id(h, EP_HDR_CONTENT_LENGTH) == 1 && ep_str_u64(e->value, length) ? 1 : -1;
}

bool h1_send_head(struct h1_conn *h, const struct h1_write *w, unsigned status)
{
    struct ep_conn *c = h->conn;
    size_t bound = h1_write_bound(w), n;

    if (bound <= 4096) {
        char *room = (char *)ep_conn_reserve(c, bound);
        n = status ? h1_write_response(w, status, room) : h1_write_request(w, room);
        ep_conn_commit(c, n);
    } else {
        struct ep_slab *slab = ep_slab_new_sized(&c->worker->slabs, bound);
        n = status ? h1_write_response(w, status, (char *)slab->data) : h1_write_request(w, (char *)slab->data);
        ep_conn_write_slice(c, (struct ep_slice){slab, slab->data, n});
    }
    return n > 0;
}

/* --- sending a body --- */

/* Bytes of the whole slices that go out now. */
static size_t portion(struct ep_body *out, size_t room)
{
    size_t n = 0;

    for (uint32_t i = 0; i < out->count && n < room; i++)
        n += ep_body_at(out, i)->n;
    return n;
}

static size_t send_body(struct h1_conn *h, struct h1_leg *l)
{
    struct ep_conn *c = h->conn;
    size_t pending = ep_conn_pending(c), n, left;
    char line[H1_CHUNK_LINE_MAX];

    if (l->leg.out.bytes == 0 || l->hold_out || !l->head_sent || pending >= EP_CONN_OUT_HIGH)
        return 0;
    left = n = portion(&l->leg.out, EP_CONN_OUT_HIGH - pending);
    if (l->framing == H1_CHUNKED)
        ep_conn_write(c, line, h1_write_chunk_line(n, line));
    while (left) {
        struct ep_slice s = ep_slice_ref(*ep_body_front(&l->leg.out));

        left -= s.n;
        ep_body_drop(&l->leg.out, s.n);
        ep_conn_write_slice(c, s);
    }
    if (l->framing == H1_CHUNKED)
        ep_conn_write(c, "\r\n", 2);
    return n;
}

static void send_trailers(struct h1_conn *h, const struct ep_headers *trailers)
{
    struct h1_write w = {.headers = trailers};
    struct ep_slab *slab = ep_slab_new_sized(&h->conn->worker->slabs, h1_write_bound(&w));
    size_t n = h1_write_trailers(trailers, (char *)slab->data);

    if (n) {
        ep_conn_write_slice(h->conn, (struct ep_slice){slab, slab->data, n});
        return;
    }
    ep_slab_unref(slab); /* a bad field: the message ends without trailers rather than with another message in them */
    ep_conn_write(h->conn, "0\r\n\r\n", 5);
}

static void send_tail(struct h1_conn *h, struct h1_leg *l)
{
    if (l->tail_sent || !l->leg.send_ended || l->leg.out.bytes || l->hold_out || !l->head_sent)
        return;
    l->tail_sent = true;
    if (l->framing == H1_CHUNKED && l->trailers)
        send_trailers(h, l->trailers);
    else if (l->framing == H1_CHUNKED)
        ep_conn_write(h->conn, "0\r\n\r\n", 5);
    else if (l->framing == H1_TUNNEL)
        ep_conn_shutdown(h->conn);
}

void h1_pump(struct h1_conn *h)
{
    struct h1_leg *l = h->leg;
    size_t sent;

    if (!l || l->released || deaf(l))
        return;
    sent = send_body(h, l) + l->swallowed;
    l->swallowed = 0;
    send_tail(h, l);
    if (sent)
        l->leg.events->on_sent(&l->leg, sent);
    if (h->leg != l || l->released || l->leg.over || !l->tail_sent || l->told_sent)
        return;
    l->told_sent = true;
    if (l->leg.events->on_message_sent)
        l->leg.events->on_message_sent(&l->leg);
}

/* --- ops --- */

static void op_headers(struct ep_leg *leg, struct ep_headers *headers, bool end)
{
    struct h1_leg *l = of(leg);

    if (deaf(l))
        return;
    assert(!l->head_sent);
    if (leg->server)
        h1_server_headers(l, headers, end);
    else
        h1_client_headers(l, headers, end);
    if (end)
        leg->send_ended = true;
    if (!l->failed)
        ep_conn_want_flush(leg->conn);
}

static void op_informational(struct ep_leg *leg, struct ep_headers *headers)
{
    struct h1_leg *l = of(leg);
    struct h1_write w = {.headers = headers, .drop_length = true};
    uint64_t status = 0;

    if (deaf(l) || !leg->server || l->head_sent || leg->version == EP_HTTP_1_0)
        return;
    if (!ep_str_u64(ep_headers_get_id(headers, EP_HDR_STATUS), &status) || status < 100 || status > 199 || status == 101)
        return;
    if (status == 100) {
        if (!l->expects || l->continued)
            return;
        l->continued = true;
    }
    h1_send_head(l->h, &w, (unsigned)status);
}

static void op_data(struct ep_leg *leg, struct ep_slice s, bool end)
{
    struct h1_leg *l = of(leg);
    size_t n = s.n;

    if (deaf(l) || leg->send_ended || !l->head_sent) {
        ep_slice_unref(s);
        return;
    }
    if (n && l->framing != H1_EMPTY && (l->framing != H1_LENGTH || n <= l->send_left)) {
        ep_body_push(&leg->out, s, &l->worker->slabs);
    } else {
        ep_slice_unref(s);
        if (l->framing == H1_EMPTY)
            l->swallowed += n;
    }
    if (l->framing == H1_LENGTH) {
        /* A length that doesn't hold must never be followed by another message. */
        if (n > l->send_left || (end && n < l->send_left)) {
            h1_leg_fail(l, EP_RESET_INTERNAL);
            return;
        }
        l->send_left -= n;
    }
    leg->send_ended = end;
    ep_conn_want_flush(leg->conn);
}

static void op_trailers(struct ep_leg *leg, struct ep_headers *headers)
{
    struct h1_leg *l = of(leg);

    if (deaf(l) || leg->send_ended)
        return;
    l->trailers = headers;
    op_data(leg, (struct ep_slice){NULL, NULL, 0}, true);
}

static void op_consumed(struct ep_leg *leg, size_t n)
{
    struct h1_leg *l = of(leg);

    l->unconsumed -= EP_MIN(n, l->unconsumed);
    if (l->h)
        h1_update_reading(l->h);
}

static bool whole(const struct h1_leg *l)
{
    return l->leg.recv_ended && l->tail_sent;
}

/* A server that has answered whole reads on or closes when the leg is released; all else ends the connection. */
static void op_reset(struct ep_leg *leg, enum ep_reset why)
{
    struct h1_leg *l = of(leg);
    bool could = !deaf(l);

    (void)why;
    leg->over = true;
    if (!could)
        return;
    if (leg->server && l->tail_sent && l->framing != H1_TUNNEL)
        return;
    if (leg->server && (!l->head_sent || (l->framing != H1_CLOSE && l->framing != H1_TUNNEL)))
        ep_conn_close(leg->conn); /* the framing shows that something is missing */
    else if (!whole(l))
        ep_conn_abort(leg->conn, EP_CLOSE_LOCAL, leg->conn->ready);
}

static void op_release(struct ep_leg *leg)
{
    struct h1_leg *l = of(leg);
    struct h1_conn *h = l->h;

    assert(!l->released);
    if (!h) {
        h1_leg_free(l);
        return;
    }
    if (!deaf(l) && leg->send_ended) { /* all was given: it may still leave */
        send_body(h, l);
        send_tail(h, l);
    }
    if (!whole(l))
        op_reset(leg, EP_RESET_CANCEL);
    l->released = true;
    leg->over = true;
    l->trailers = NULL;
    if (h->depth == 0) {
        if (leg->server)
            h1_server_finish(h);
        else
            h1_client_finish(h);
    }
    if (!h1_dead(h))
        ep_conn_want_flush(h->conn);
}

static const struct ep_leg_ops ops = {
    .name = "http/1.1",
    .headers = op_headers,
    .informational = op_informational,
    .data = op_data,
    .trailers = op_trailers,
    .consumed = op_consumed,
    .reset = op_reset,
    .release = op_release,
};
