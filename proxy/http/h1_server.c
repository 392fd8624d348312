/* The server side of HTTP/1: requests in, responses out, and what is answered without an owner.
 *
 * - Expect: 100-continue is answered here as soon as the owner took the head, and goes no further.
 * - A response that is whole before its request: a short rest of the request is read and dropped, a long one closes.
 * - After an error nothing more is read: the reply says `connection: close`, the connection lingers (RFC 9112
 *   section 9.6). Sources: RFC 9110 section 10.1.1, RFC 9112 section 9, RFC 6455, RFC 8441. */
#include <stdio.h>

#include "http/h1.h"

#define DRAIN_MAX (64u * 1024u) /* of a request body that nobody reads any more */

static void reply(struct h1_conn *h, struct h1_problem problem)
{
    char text[512];
    int n = snprintf(text, sizeof text,
                     "HTTP/1.1 %u %s\r\ncontent-type: text/plain\r\ncontent-length: %zu\r\nconnection: close\r\n\r\n%s\n",
                     problem.status, ep_status_reason(problem.status), strlen(problem.reason) + 1, problem.reason);

    ep_conn_write(h->conn, text, (size_t)n);
    ep_conn_close(h->conn);
}

void h1_server_problem(struct h1_conn *h, struct h1_problem problem)
{
    struct h1_leg *l = h->leg;
    bool answered = l ? l->head_sent : h->in != H1_IN_HEAD;
    bool cut = l && l->head_sent && !l->tail_sent;

    ep_debug("h1", "%s", problem.reason);
    if (l && !l->released && !l->leg.over) {
        l->leg.over = true;
        l->leg.events->on_reset(&l->leg, problem.status == 431 ? EP_RESET_TOO_LARGE : EP_RESET_PROTOCOL);
    } else if (!l && !answered) {
        h->acceptor->on_refused(h->user, h->conn, problem.status, problem.reason);
    }
    if (h1_dead(h))
        return;
    if (cut && l->framing == H1_CLOSE)
        ep_conn_abort(h->conn, EP_CLOSE_LOCAL, true);
    else if (answered)
        ep_conn_close(h->conn);
    else
        reply(h, problem);
}

void h1_server_head(struct h1_conn *h, struct ep_str block)
{
    struct h1_problem problem;
    struct h1_head head;
    struct ep_headers *table;
    struct h1_leg *l;

    if (!h1_parse_request(&head, block, h->options, &problem)) {
        h1_server_problem(h, problem);
        return;
    }
    h->requests++;
    h->keep_alive = head.keep_alive;
    l = h1_leg_new(h, head.minor ? EP_HTTP_1_1 : EP_HTTP_1_0);
    l->leg.head_request = head.head;
    l->leg.tunnel = head.framing == H1_TUNNEL;
    if (!h->acceptor->on_request(h->user, &l->leg)) {
        h->leg = NULL;
        h1_leg_free(l);
        reply(h, (struct h1_problem){503, "too many requests at once"});
        return;
    }
    l->expects = head.expect_continue;
    l->websocket = head.websocket;
    if (head.websocket)
        h1_websocket_accept(head.websocket_key, l->accept);
    h1_begin_body(h, head.framing, head.length);
    if (l->leg.tunnel)
        h->in = H1_IN_HELD;
    l->leg.recv_ended = head.framing == H1_EMPTY;
    table = h1_build_request(&head, l->leg.arena, h->conn->tls != NULL);
    l->leg.events->on_headers(&l->leg, table, l->leg.recv_ended);
    if (h->leg == l && l->expects && !l->continued && !l->head_sent && !l->leg.over && !l->failed && !h1_dead(h)) {
        l->continued = true;
        ep_conn_write(h->conn, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    }
}

/* Grants or denies what leg->tunnel asked for. */
static void answer_tunnel(struct h1_leg *l, struct h1_write *w, unsigned *status)
{
    struct h1_conn *h = l->h;

    h->keep_alive = false;
    if (*status >= 300) {
        l->leg.tunnel = false;
        l->leg.recv_ended = true; /* what else the client sent was meant for the tunnel */
        h->in = H1_IN_WHOLE;
        return;
    }
    w->framing = H1_TUNNEL;
    w->drop_length = true;
    h->in = H1_IN_TUNNEL;
    if (l->websocket) {
        *status = 101;
        w->websocket_key = ep_str_n(l->accept, sizeof l->accept);
    }
}

/* Whether the rest of the request is worth reading so that the connection can be used again. */
static bool rest_is_short(const struct h1_conn *h, const struct h1_leg *l)
{
    if (h->in == H1_IN_WHOLE)
        return true;
    return h->in == H1_IN_LENGTH && h->left <= DRAIN_MAX && (!l->expects || l->continued);
}

/* False when length and end contradict each other. */
static bool choose_framing(struct h1_leg *l, struct h1_write *w, unsigned status, bool end)
{
    uint64_t length = 0;
    int has = h1_table_length(w->headers, &length);

    if (has < 0)
        return false;
    if (l->leg.head_request || status == 204 || status == 304) {
        w->framing = H1_EMPTY;
        w->drop_length = status == 204;
    } else if (end) {
        w->framing = H1_EMPTY;
        w->zero_length = !has;
        return length == 0;
    } else if (has) {
        w->framing = H1_LENGTH;
        l->send_left = length;
    } else {
        w->framing = l->leg.version == EP_HTTP_1_0 ? H1_CLOSE : H1_CHUNKED;
    }
    return true;
}

void h1_server_headers(struct h1_leg *l, struct ep_headers *headers, bool end)
{
    struct h1_conn *h = l->h;
    struct h1_write w = {.headers = headers, .reason = l->leg.reason};
    struct ep_str connection = ep_headers_get_id(headers, EP_HDR_CONNECTION);
    uint64_t max = h->options->max_requests, number = 0;
    unsigned status;

    if (!ep_str_u64(ep_headers_get_id(headers, EP_HDR_STATUS), &number) || number < 200 || number > 999) {
        h1_leg_fail(l, EP_RESET_INTERNAL);
        return;
    }
    status = (unsigned)number;
    if (l->leg.tunnel)
        answer_tunnel(l, &w, &status);
    if (w.framing != H1_TUNNEL && !choose_framing(l, &w, status, end)) {
        h1_leg_fail(l, EP_RESET_INTERNAL);
        return;
    }
    if (h->draining || (max && h->requests >= max) || w.framing == H1_CLOSE || !rest_is_short(h, l) ||
        ep_header_has_token(connection, EP_STR("close")))
        h->keep_alive = false;
    if (w.framing != H1_TUNNEL)
        w.connection = !h->keep_alive                       ? H1_CONNECTION_CLOSE
                       : l->leg.version == EP_HTTP_1_0 ? H1_CONNECTION_KEEP_ALIVE
                                                       : H1_CONNECTION_NONE;
    l->framing = w.framing;
    l->head_sent = true;
    l->live = status == 200 && ep_headers_are_events(headers);
    if (!h1_send_head(h, &w, status))
        h1_leg_fail(l, EP_RESET_INTERNAL);
}

void h1_server_eof(struct h1_conn *h)
{
    switch (h->in) {
    case H1_IN_LENGTH:
    case H1_IN_CHUNKED:
    case H1_IN_TRAILERS:
        h1_break(h, EP_RESET_CONNECTION, EP_CLOSE_EOF, false);
        break;
    default: /* a half close: what was asked is answered, then settle closes */
        if (h->leg && h->leg->live && !h->leg->tail_sent) /* but nobody ends their side and listens on for ever: they are gone */
            h1_break(h, EP_RESET_CONNECTION, EP_CLOSE_EOF, false);
        break;
    }
}

void h1_server_finish(struct h1_conn *h)
{
    struct h1_leg *l = h->leg;
    bool go_on = h->keep_alive && !h->draining && l->tail_sent && l->framing != H1_TUNNEL;

    h->leg = NULL;
    h1_leg_free(l);
    if (h1_dead(h))
        return;
    if (!go_on)
        ep_conn_close(h->conn);
    else if (h->in == H1_IN_WHOLE)
        h->in = H1_IN_HEAD;
}

static void drain(struct ep_conn *c, uint64_t grace_ns)
{
    struct h1_conn *h = h1_of(c);

    if (h->draining || c->closed || c->close_wanted)
        return;
    h->draining = true;
    if (h->leg || h->gather.n || h->unread.bytes)
        return;
    if (h->requests || !grace_ns || !c->ready) {
        ep_conn_close(c);
        return;
    }
    h->armed_ns = c->worker->now_ns + grace_ns; /* its first request may be on its way */
    ep_conn_deadline(c, grace_ns);
}

static void on_ready(struct ep_conn *c)
{
    h1_conn_start(h1_of(c));
}

static const struct ep_codec codec = {
    .handler =
        {
            .name = "http/1.1 server",
            .on_ready = on_ready,
            .on_data = h1_on_data,
            .on_eof = h1_on_eof,
            .on_flush = h1_on_flush,
            .on_drained = h1_on_flush,
            .on_closed = h1_on_closed,
        },
    .drain = drain,
    .is_codec = true,
};

void ep_h1_serve(struct ep_conn *c, const struct ep_http_options *o, const struct ep_acceptor *a, void *user,
                 struct ep_slab *slab, const unsigned char *first, size_t n)
{
    struct h1_conn *h = h1_conn_new(c, o, user);

    h->acceptor = a;
    if (ep_conn_adopt(c, &codec.handler, h))
        h1_conn_start(h);
    if (n && slab) {
        h1_input(h, slab, first, n);
    } else if (n) {
        slab = ep_slab_new_sized(&c->worker->slabs, n);
        memcpy(slab->data, first, n);
        h1_input(h, slab, slab->data, n);
        ep_slab_unref(slab);
    }
}
