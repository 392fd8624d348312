/* The client side of HTTP/1: one leg at a time, and the same strictness towards servers as towards clients.
 *
 * A connection is used again only when both messages are whole, both sides want it, and not one byte came that wasn't
 * asked for. Extended CONNECT with :protocol websocket (RFC 8441) leaves as GET with Upgrade and a key of our own;
 * a 101 with the right answer comes back as 200. */
#include "http/h1.h"

#define INFORMATIONALS_MAX 16u

static void problem_break(struct h1_conn *h, const char *reason, bool too_large)
{
    ep_debug("h1", "bad response: %s", reason);
    h->conn->closing_why = EP_CLOSE_LOCAL;
    h1_break(h, too_large ? EP_RESET_TOO_LARGE : EP_RESET_PROTOCOL, EP_CLOSE_LOCAL, true);
}

void h1_client_problem(struct h1_conn *h, struct h1_problem problem)
{
    problem_break(h, problem.reason, problem.status == 431);
}

/* False when the answer to a tunnel's request is one that can't be passed on. */
static bool answered_tunnel(struct h1_conn *h, struct h1_leg *l, const struct h1_head *head)
{
    h->keep_alive = false;
    l->hold_out = false;
    ep_conn_want_flush(h->conn); /* for what was held */
    if (head->framing == H1_TUNNEL) {
        l->leg.tunnel = true;
        return !l->websocket || ep_str_eq(head->websocket_key, ep_str_n(l->accept, sizeof l->accept));
    }
    /* Refused. Bytes meant for the tunnel are dropped, and told as sent. */
    l->leg.tunnel = false;
    l->framing = H1_EMPTY;
    l->swallowed += l->leg.out.bytes;
    ep_body_fini(&l->leg.out);
    l->leg.send_ended = true;
    return !l->websocket || head->status >= 300; /* 200 would say that the tunnel is there */
}

void h1_client_head(struct h1_conn *h, struct ep_str block)
{
    struct h1_leg *l = h->leg;
    struct h1_asked asked = {.head = l->leg.head_request, .connect = l->connect, .websocket = l->websocket};
    struct h1_problem problem;
    struct h1_head head;
    struct ep_headers *table;

    if (!h1_parse_response(&head, block, asked, h->options, &problem)) {
        h1_client_problem(h, problem);
        return;
    }
    if (head.status < 200 && head.status != 101) {
        if (++l->informationals > INFORMATIONALS_MAX)
            problem_break(h, "too many informational responses", true);
        else if (!l->leg.over && !l->released && l->leg.events->on_informational)
            l->leg.events->on_informational(&l->leg, h1_build_response(&head, l->leg.arena));
        return;
    }
    h->keep_alive = head.keep_alive;
    if ((l->websocket || l->connect) && !answered_tunnel(h, l, &head)) {
        problem_break(h, "the server didn't switch protocols", false);
        return;
    }
    h1_begin_body(h, head.framing, head.length);
    if (l->leg.over || l->released || l->failed)
        return;
    l->leg.recv_ended = head.framing == H1_EMPTY;
    table = h1_build_response(&head, l->leg.arena);
    l->leg.events->on_headers(&l->leg, table, l->leg.recv_ended);
}

static bool method_has_body(struct ep_str method)
{
    return ep_str_eq(method, EP_STR("POST")) || ep_str_eq(method, EP_STR("PUT")) || ep_str_eq(method, EP_STR("PATCH"));
}

/* False when length and end contradict each other. */
static bool choose_framing(struct h1_leg *l, struct h1_write *w, struct ep_str method, bool end)
{
    uint64_t length = 0;
    int has = h1_table_length(w->headers, &length);

    if (has < 0)
        return false;
    if (end) {
        w->framing = H1_EMPTY;
        w->zero_length = !has && method_has_body(method);
        return length == 0;
    }
    w->framing = has ? H1_LENGTH : H1_CHUNKED;
    l->send_left = length;
    return true;
}

void h1_client_headers(struct h1_leg *l, struct ep_headers *headers, bool end)
{
    struct h1_conn *h = l->h;
    struct h1_write w = {.headers = headers};
    struct ep_str method = ep_headers_get_id(headers, EP_HDR_METHOD);
    struct ep_str protocol = ep_headers_get_id(headers, EP_HDR_PROTOCOL);
    uint64_t max = h->options->max_requests;
    char key[H1_KEY_BYTES];
    bool good = true;

    l->leg.head_request = ep_str_eq(method, EP_STR("HEAD"));
    if (ep_str_eq(method, EP_STR("CONNECT"))) {
        l->websocket = ep_str_caseeq(protocol, EP_STR("websocket"));
        l->connect = !l->websocket;
        good = l->websocket || protocol.n == 0;
        w.framing = H1_TUNNEL;
        w.drop_length = true;
        l->hold_out = true;
        if (l->websocket) {
            h1_websocket_new_key(key);
            w.websocket_key = ep_str_n(key, sizeof key);
            h1_websocket_accept(w.websocket_key, l->accept);
        }
    } else {
        good = choose_framing(l, &w, method, end);
    }
    if (h->draining || (max && h->requests >= max))
        w.connection = H1_CONNECTION_CLOSE;
    l->framing = w.framing;
    l->head_sent = true;
    if (!good || !h1_send_head(h, &w, 0))
        h1_leg_fail(l, EP_RESET_INTERNAL);
}

void h1_client_eof(struct h1_conn *h)
{
    struct h1_leg *l = h->leg;

    h->keep_alive = false;
    if (!l)
        return; /* settle closes */
    switch (h->in) {
    case H1_IN_CLOSE:
        h->in = H1_IN_WHOLE;
        h1_deliver(h, (struct ep_slice){NULL, NULL, 0}, true);
        break;
    case H1_IN_TUNNEL:
        break; /* settle tells the owner; our side stays open */
    case H1_IN_WHOLE:
        if (!l->tail_sent && l->framing != H1_TUNNEL)
            h1_break(h, EP_RESET_NO_ERROR, EP_CLOSE_EOF, false);
        break;
    default:
        h1_break(h, EP_RESET_CONNECTION, EP_CLOSE_EOF, false);
        break;
    }
}

void h1_client_finish(struct h1_conn *h)
{
    struct h1_leg *l = h->leg;
    uint64_t max = h->options->max_requests;
    bool again = h->keep_alive && !h->draining && l->leg.recv_ended && l->tail_sent && h->in == H1_IN_WHOLE &&
                 l->framing != H1_TUNNEL && !h->conn->eof_in && !(max && h->requests >= max);

    h->leg = NULL;
    h1_leg_free(l);
    if (h1_dead(h))
        return;
    if (!again) {
        ep_conn_close(h->conn);
        return;
    }
    h->in = H1_IN_HEAD;
    h->idle_due = true;
}

static void drain(struct ep_conn *c, uint64_t grace_ns)
{
    struct h1_conn *h = h1_of(c);

    (void)grace_ns;
    h->draining = true;
    if (!h->leg)
        ep_conn_close(c);
}

static void on_ready(struct ep_conn *c)
{
    struct h1_conn *h = h1_of(c);

    h1_conn_start(h);
    if (h->events->on_capacity)
        h->events->on_capacity(h->user, c);
}

static const struct ep_codec codec = {
    .handler =
        {
            .name = "http/1.1 client",
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

void ep_h1_client(struct ep_conn *c, const struct ep_http_options *o, const struct ep_client_events *e, void *user)
{
    struct h1_conn *h = h1_conn_new(c, o, user);

    h->events = e;
    if (ep_conn_adopt(c, &codec.handler, h))
        on_ready(c);
}

struct ep_leg *ep_h1_open(struct ep_conn *c)
{
    struct h1_conn *h = h1_of(c);

    assert(c->handler == &codec.handler);
    if (h->leg || h1_dead(h) || h->draining || c->eof_in || h->in != H1_IN_HEAD || h->gather.n)
        return NULL;
    h->idle_due = false;
    h->requests++;
    return &h1_leg_new(h, EP_HTTP_1_1)->leg;
}
