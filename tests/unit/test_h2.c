/* link: ep_http */
/* The h2 codec against itself over a socketpair: a client leg and a server leg in one worker, turned by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/h2.h"
#include "http/http.h"

struct side {
    struct ep_leg *leg;
    struct ep_arena arena;
    struct ep_headers in, trailers_in, out, trailers_out;
    char body[256];
    size_t body_bytes, sent;
    bool got_head, got_end, got_trailers, reset, message_sent, consume;
    unsigned informational;
    enum ep_reset why;
};

struct play {
    struct ep_worker w;
    struct ep_conn *client, *server;
    struct ep_http_options o;
    struct side c, s;
    unsigned closed, requests, refused;
    bool refuse;
    uint64_t ahead_ns;
};

static void on_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct side *x = l->owner;

    x->in = *h;
    *h = (struct ep_headers){.arena = h->arena};
    x->got_head = true;
    x->got_end |= end;
}

static void on_informational(struct ep_leg *l, struct ep_headers *h)
{
    struct side *x = l->owner;

    assert_true(ep_str_eq(ep_headers_get_id(h, EP_HDR_STATUS), EP_STR("103")));
    x->informational++;
}

static void on_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    struct side *x = l->owner;

    for (size_t i = 0; i < s.n; i++)
        if (x->body_bytes + i < sizeof x->body)
            x->body[x->body_bytes + i] = (char)s.p[i];
    x->body_bytes += s.n;
    x->got_end |= end;
    if (x->consume)
        l->ops->consumed(l, s.n);
}

static void on_trailers(struct ep_leg *l, struct ep_headers *h)
{
    struct side *x = l->owner;

    x->trailers_in = *h;
    *h = (struct ep_headers){.arena = h->arena};
    x->got_trailers = x->got_end = true;
}

static void on_sent(struct ep_leg *l, size_t n)
{
    ((struct side *)l->owner)->sent += n;
}

static void on_message_sent(struct ep_leg *l)
{
    ((struct side *)l->owner)->message_sent = true;
}

static void on_reset(struct ep_leg *l, enum ep_reset why)
{
    struct side *x = l->owner;

    assert_false(x->reset);
    x->reset = true;
    x->why = why;
}

static const struct ep_leg_events events = {on_headers, on_informational, on_data, on_trailers, on_sent, on_message_sent, on_reset};

static void adopt(struct play *p, struct side *x, struct ep_leg *l)
{
    ep_arena_init(&x->arena, &p->w.chunks);
    x->leg = l;
    l->owner = x;
    l->events = &events;
    l->arena = &x->arena;
    ep_headers_init(&x->out, &x->arena);
    ep_headers_init(&x->trailers_out, &x->arena);
}

static void drop(struct side *x)
{
    if (!x->leg)
        return;
    x->leg->ops->release(x->leg);
    ep_headers_fini(&x->in);
    ep_headers_fini(&x->trailers_in);
    ep_headers_fini(&x->out);
    ep_headers_fini(&x->trailers_out);
    ep_arena_fini(&x->arena);
    x->leg = NULL;
}

static bool on_request(void *user, struct ep_leg *l)
{
    struct play *p = user;

    p->requests++;
    if (p->refuse)
        return false;
    assert_null(p->s.leg);
    adopt(p, &p->s, l);
    return true;
}

static void on_refused(void *user, struct ep_conn *c, unsigned status, const char *reason)
{
    (void)c, (void)status, (void)reason;
    ((struct play *)user)->refused++;
}

static void on_server_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    struct play *p = user;

    (void)c, (void)why;
    p->closed++;
    p->server = NULL;
}

static void on_client_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    struct play *p = user;

    (void)c, (void)why;
    p->closed++;
    p->client = NULL;
}

static const struct ep_acceptor acceptor = {on_request, on_refused, on_server_closed};
static const struct ep_client_events client_events = {NULL, NULL, on_client_closed};

static void turns(struct play *p, int n)
{
    while (n--)
        ep_worker_turn(&p->w, false);
}

static int setup(void **state)
{
    struct play *p = ep_calloc(1, sizeof *p);
    struct ep_addr peer = {.len = sizeof(sa_family_t)};
    struct ep_error err;
    int fd[2];

    peer.u.sa.sa_family = AF_UNIX;
    assert_true(ep_worker_init(&p->w, 0, &err));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    ep_http_options_preset(&p->o);
    p->o.extended_connect = true;
    p->server = ep_conn_accept(&p->w, fd[0], &peer, NULL, NULL);
    p->client = ep_conn_accept(&p->w, fd[1], &peer, NULL, NULL);
    p->client->is_server = false;
    ep_h2_serve(p->server, &p->o, &acceptor, p, NULL, NULL, 0);
    ep_h2_client(p->client, &p->o, &client_events, p);
    p->c.consume = p->s.consume = true;
    turns(p, 4);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct play *p = *state;

    drop(&p->c);
    drop(&p->s);
    turns(p, 4);
    ep_worker_fini(&p->w);
    assert_int_equal(p->closed, 2);
    assert_int_equal(p->w.mem.live_bytes, 0);
    assert_int_equal(p->w.slabs.n_live, 0);
    ep_rng_seed(&p->w.rng, 1);
    free(p);
    return 0;
}

static void request(struct play *p, const char *method, bool end)
{
    struct ep_leg *l = ep_h2_open(p->client);

    assert_non_null(l);
    adopt(p, &p->c, l);
    ep_headers_add_id(&p->c.out, EP_HDR_METHOD, ep_str(method));
    ep_headers_add_id(&p->c.out, EP_HDR_SCHEME, EP_STR("http"));
    ep_headers_add_id(&p->c.out, EP_HDR_AUTHORITY, EP_STR("tools.agents"));
    ep_headers_add_id(&p->c.out, EP_HDR_PATH, EP_STR("/mcp"));
    ep_headers_add(&p->c.out, EP_STR("x-one"), EP_STR("1"));
    l->ops->headers(l, &p->c.out, end);
}

static void respond(struct play *p, bool end)
{
    ep_headers_add_id(&p->s.out, EP_HDR_STATUS, EP_STR("200"));
    ep_headers_add(&p->s.out, EP_STR("x-two"), EP_STR("2"));
    p->s.leg->ops->headers(p->s.leg, &p->s.out, end);
}

static void send_bytes(struct play *p, struct side *x, const char *text, size_t n, bool end)
{
    struct ep_slab *slab = ep_slab_new_sized(&p->w.slabs, n);

    memcpy(slab->data, text, n);
    x->leg->ops->data(x->leg, (struct ep_slice){slab, slab->data, n}, end);
}

static void test_get(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    assert_true(p->s.got_head && p->s.got_end);
    assert_true(ep_str_eq(ep_headers_get_id(&p->s.in, EP_HDR_PATH), EP_STR("/mcp")));
    assert_true(ep_str_eq(ep_headers_get(&p->s.in, EP_STR("x-one")), EP_STR("1")));
    respond(p, true);
    drop(&p->s); /* before the turn's end: the head must still go out */
    turns(p, 3);
    assert_true(p->c.got_head && p->c.got_end && !p->c.reset);
    assert_true(ep_str_eq(ep_headers_get(&p->c.in, EP_STR("x-two")), EP_STR("2")));
    assert_int_equal(ep_h2_streams(p->client), 0);
}

static void test_bodies_and_trailers(void **state)
{
    struct play *p = *state;

    request(p, "POST", false);
    send_bytes(p, &p->c, "hello ", 6, false);
    turns(p, 2);
    assert_int_equal(p->s.body_bytes, 6);
    send_bytes(p, &p->c, "world", 5, true);
    turns(p, 2);
    assert_true(p->s.got_end && p->c.message_sent);
    assert_int_equal(p->c.sent, 11);
    assert_memory_equal(p->s.body, "hello world", 11);
    respond(p, false);
    send_bytes(p, &p->s, "answer", 6, false);
    ep_headers_add_id(&p->s.trailers_out, EP_HDR_GRPC_STATUS, EP_STR("7"));
    p->s.leg->ops->trailers(p->s.leg, &p->s.trailers_out);
    turns(p, 3);
    assert_memory_equal(p->c.body, "answer", 6);
    assert_true(p->c.got_trailers && p->s.message_sent && !p->s.reset && !p->c.reset);
    assert_true(ep_str_eq(ep_headers_get_id(&p->c.trailers_in, EP_HDR_GRPC_STATUS), EP_STR("7")));
}

/* As gRPC does: the messages leave in one turn, the trailers in a later one. */
static void test_late_trailers(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    respond(p, false);
    send_bytes(p, &p->s, "x", 1, false);
    turns(p, 3);
    assert_false(p->s.message_sent);
    ep_headers_add_id(&p->s.trailers_out, EP_HDR_GRPC_STATUS, EP_STR("0"));
    p->s.leg->ops->trailers(p->s.leg, &p->s.trailers_out);
    turns(p, 3);
    assert_true(p->s.message_sent && p->c.got_trailers);
}

static void test_informational(void **state)
{
    struct play *p = *state;
    struct ep_headers hints;

    request(p, "GET", true);
    turns(p, 2);
    ep_headers_init(&hints, &p->s.arena);
    ep_headers_add_id(&hints, EP_HDR_STATUS, EP_STR("103"));
    p->s.leg->ops->informational(p->s.leg, &hints);
    respond(p, true);
    turns(p, 3);
    assert_int_equal(p->c.informational, 1);
    assert_true(p->c.got_head);
}

static void test_back_pressure(void **state)
{
    struct play *p = *state;
    static const char zeros[65536];

    p->s.consume = false;
    request(p, "POST", false);
    for (int i = 0; i < 32; i++) /* 2 MiB, eight times the window */
        send_bytes(p, &p->c, zeros, sizeof zeros, i == 31);
    turns(p, 50);
    assert_int_equal(p->s.body_bytes, p->o.stream_window);
    assert_false(p->c.message_sent);
    for (int i = 0; i < 200 && !p->s.got_end; i++) {
        size_t had = p->s.body_bytes;
        p->s.leg->ops->consumed(p->s.leg, i ? 0 : had);
        p->s.consume = true;
        turns(p, 2);
    }
    assert_true(p->s.got_end);
    assert_int_equal(p->s.body_bytes, 2u << 20);
}

static void test_resets(void **state)
{
    struct play *p = *state;

    request(p, "POST", false);
    turns(p, 2);
    p->c.leg->ops->reset(p->c.leg, EP_RESET_CANCEL);
    turns(p, 2);
    assert_true(p->s.reset);
    assert_int_equal(p->s.why, EP_RESET_CANCEL);
    assert_false(p->c.reset);
    drop(&p->c);
    drop(&p->s);
    turns(p, 2);
    assert_int_equal(ep_h2_streams(p->client), 0);

    memset(&p->c, 0, sizeof p->c);
    p->refuse = true;
    request(p, "GET", true);
    turns(p, 3);
    assert_true(p->c.reset);
    assert_int_equal(p->c.why, EP_RESET_REFUSED);
}

static void test_early_response(void **state)
{
    struct play *p = *state;

    request(p, "POST", false);
    turns(p, 2);
    respond(p, false);
    send_bytes(p, &p->s, "no", 2, true);
    turns(p, 2);
    assert_true(p->s.message_sent);
    p->s.leg->ops->reset(p->s.leg, EP_RESET_NO_ERROR);
    turns(p, 2);
    assert_true(p->c.got_head && p->c.got_end);
    assert_memory_equal(p->c.body, "no", 2);
    assert_true(p->c.reset);
    assert_int_equal(p->c.why, EP_RESET_NO_ERROR);
}

static void test_connection_lost(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    ep_conn_abort(p->server, EP_CLOSE_LOCAL, true);
    turns(p, 3);
    assert_int_equal(p->closed, 2);
    assert_true(p->s.reset && p->c.reset);
    assert_int_equal(p->c.why, EP_RESET_CONNECTION);
    assert_null(p->c.leg->conn);
}

static void test_drain(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    ep_codec_drain(p->server, 0);
    turns(p, 2);
    assert_int_equal(ep_h2_capacity(p->client), 0);
    respond(p, true);
    turns(p, 4);
    assert_true(p->c.got_head && !p->c.reset); /* the stream that was there ended well */
    drop(&p->c);
    drop(&p->s);
    for (int i = 0; i < 100 && p->closed < 2; i++)
        turns(p, 1);
    assert_int_equal(p->closed, 2);
}

static void test_host_mismatch(void **state)
{
    struct play *p = *state;
    struct ep_leg *l = ep_h2_open(p->client);

    adopt(p, &p->c, l);
    ep_headers_add_id(&p->c.out, EP_HDR_METHOD, EP_STR("GET"));
    ep_headers_add_id(&p->c.out, EP_HDR_SCHEME, EP_STR("http"));
    ep_headers_add_id(&p->c.out, EP_HDR_AUTHORITY, EP_STR("one"));
    ep_headers_add_id(&p->c.out, EP_HDR_PATH, EP_STR("/"));
    ep_headers_add_id(&p->c.out, EP_HDR_HOST, EP_STR("two"));
    l->ops->headers(l, &p->c.out, true);
    turns(p, 3);
    assert_int_equal(p->refused, 1);
    assert_false(p->s.got_head);
    assert_true(ep_str_eq(ep_headers_get_id(&p->c.in, EP_HDR_STATUS), EP_STR("400")));
}

static void test_too_many_headers(void **state)
{
    struct play *p = *state;
    struct ep_leg *l = ep_h2_open(p->client);

    adopt(p, &p->c, l);
    ep_headers_add_id(&p->c.out, EP_HDR_METHOD, EP_STR("GET"));
    ep_headers_add_id(&p->c.out, EP_HDR_SCHEME, EP_STR("http"));
    ep_headers_add_id(&p->c.out, EP_HDR_AUTHORITY, EP_STR("one"));
    ep_headers_add_id(&p->c.out, EP_HDR_PATH, EP_STR("/"));
    for (int i = 0; i < 110; i++)
        ep_headers_add(&p->c.out, EP_STR("x"), EP_STR("y"));
    l->ops->headers(l, &p->c.out, true);
    turns(p, 3);
    assert_int_equal(p->refused, 1);
    assert_true(ep_str_eq(ep_headers_get_id(&p->c.in, EP_HDR_STATUS), EP_STR("431")));
}

static void later(struct play *p, uint64_t ns)
{
    p->ahead_ns += ns; /* of the clock, which a turn reads again */
    p->w.now_ns = ep_clock_ns() + p->ahead_ns;
    ep_wheel_advance(&p->w.wheel, p->w.now_ns);
    turns(p, 4);
}

static struct ep_h2 *session_of(struct ep_conn *c)
{
    return c->user;
}

/* The owner of a client leg is told when a response is more than we take. */
static void test_response_too_large(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    ep_headers_add_id(&p->s.out, EP_HDR_STATUS, EP_STR("200"));
    for (int i = 0; i < 110; i++)
        ep_headers_add(&p->s.out, EP_STR("x"), EP_STR("y"));
    p->s.leg->ops->headers(p->s.leg, &p->s.out, true);
    turns(p, 3);
    assert_false(p->c.got_head);
    assert_true(p->c.reset);
    assert_int_equal(p->c.why, EP_RESET_PROTOCOL);
    assert_int_equal(ep_h2_streams(p->client), 0);
}

static void test_trailers_too_large(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    respond(p, false);
    for (int i = 0; i < 110; i++)
        ep_headers_add(&p->s.trailers_out, EP_STR("x"), EP_STR("y"));
    p->s.leg->ops->trailers(p->s.leg, &p->s.trailers_out);
    turns(p, 3);
    assert_true(p->c.got_head && p->c.reset && !p->c.got_trailers); /* never a part of them */
}

/* What was taken in can be passed on, however many fields the limits allow. */
static void test_many_headers(void **state)
{
    struct play *p = *state;
    struct ep_leg *l = ep_h2_open(p->client);
    char name[16];

    p->o.max_header_count = 1000;
    adopt(p, &p->c, l);
    ep_headers_add_id(&p->c.out, EP_HDR_METHOD, EP_STR("GET"));
    ep_headers_add_id(&p->c.out, EP_HDR_SCHEME, EP_STR("http"));
    ep_headers_add_id(&p->c.out, EP_HDR_AUTHORITY, EP_STR("one"));
    ep_headers_add_id(&p->c.out, EP_HDR_PATH, EP_STR("/"));
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "x-%d", i);
        ep_headers_add(&p->c.out, ep_str(name), EP_STR("y"));
    }
    l->ops->headers(l, &p->c.out, true);
    turns(p, 3);
    assert_true(p->s.got_head);
    assert_int_equal(p->s.in.n, 304);
    assert_true(ep_headers_get(&p->s.in, EP_STR("x-299")).n == 1);
}

/* A head that can't be said at all ends the stream; the peer isn't left waiting. */
static void test_head_that_cannot_be_sent(void **state)
{
    struct play *p = *state;
    static char long_value[60000];

    memset(long_value, 'v', sizeof long_value);
    request(p, "GET", true);
    turns(p, 2);
    ep_headers_add_id(&p->s.out, EP_HDR_STATUS, EP_STR("200"));
    for (int i = 0; i < 80; i++)
        ep_headers_append(&p->s.out, EP_HDR_OTHER, EP_STR("x"), ep_str_n(long_value, sizeof long_value));
    p->s.leg->ops->headers(p->s.leg, &p->s.out, true);
    drop(&p->s);
    turns(p, 4);
    assert_true(p->c.reset);
    assert_int_equal(p->c.why, EP_RESET_INTERNAL);
    assert_int_equal(p->closed, 0);
    assert_int_equal(ep_h2_streams(p->client), 0);
}

/* One bad request doesn't start a clock that ends the connection of the others. */
static void test_bad_request_among_others(void **state)
{
    struct play *p = *state;
    struct ep_leg *l = ep_h2_open(p->client);

    adopt(p, &p->c, l);
    ep_headers_add_id(&p->c.out, EP_HDR_METHOD, EP_STR("GET"));
    ep_headers_add_id(&p->c.out, EP_HDR_SCHEME, EP_STR("http"));
    ep_headers_add_id(&p->c.out, EP_HDR_AUTHORITY, EP_STR("one"));
    ep_headers_add_id(&p->c.out, EP_HDR_PATH, EP_STR("/"));
    ep_headers_append(&p->c.out, EP_HDR_OTHER, EP_STR("UPPER"), EP_STR("case"));
    l->ops->headers(l, &p->c.out, true);
    turns(p, 3);
    assert_true(p->c.reset);
    assert_int_equal(session_of(p->server)->headers_since_ns, 0);
    drop(&p->c);
    drop(&p->s);
    memset(&p->c, 0, sizeof p->c);
    memset(&p->s, 0, sizeof p->s);
    request(p, "GET", true); /* one that takes its time */
    turns(p, 2);
    for (int i = 0; i < 12; i++)
        later(p, 30 * EP_S);
    assert_int_equal(p->closed, 0);
    respond(p, true);
    turns(p, 3);
    assert_true(p->c.got_end);
}

/* A head that is begun and not ended has headers_timeout, not the idle time of the connection. */
static void test_slow_head(void **state)
{
    static const unsigned char frame[] = {0, 0, 100, NGHTTP2_HEADERS, 0, 0, 0, 0, 1, 0x82};
    struct play *p = *state;

    ep_conn_write(p->client, frame, sizeof frame);
    turns(p, 2);
    later(p, 9 * EP_S);
    assert_int_equal(p->closed, 0);
    later(p, 2 * EP_S);
    assert_int_equal(p->closed, 2);
    assert_int_equal(p->refused, 1);
}

/* The response came whole while the request's body waits for a window: its trailers are in memory that goes away. */
static void test_release_before_trailers(void **state)
{
    struct play *p = *state;
    static const char zeros[65536];

    p->s.consume = false;
    request(p, "POST", false);
    for (int i = 0; i < 8; i++)
        send_bytes(p, &p->c, zeros, sizeof zeros, false);
    ep_headers_add(&p->c.trailers_out, EP_STR("x-sum"), EP_STR("1"));
    p->c.leg->ops->trailers(p->c.leg, &p->c.trailers_out);
    turns(p, 3);
    respond(p, true);
    turns(p, 3);
    assert_true(p->c.got_end);
    drop(&p->c);
    p->s.leg->ops->consumed(p->s.leg, p->s.body_bytes); /* now there is a window */
    turns(p, 4);
    assert_true(p->s.reset && !p->s.got_trailers);
    assert_int_equal(ep_h2_streams(p->client), 0);
}

/* The same without trailers: it goes on by itself, but not for ever. */
static void test_release_before_the_body_left(void **state)
{
    struct play *p = *state;
    static const char zeros[65536];

    for (int goes_on = 1; goes_on >= 0; goes_on--) {
        memset(&p->c, 0, sizeof p->c);
        memset(&p->s, 0, sizeof p->s);
        p->c.consume = true;
        request(p, "POST", false);
        for (int i = 0; i < 8; i++)
            send_bytes(p, &p->c, zeros, sizeof zeros, i == 7);
        turns(p, 3);
        respond(p, true);
        turns(p, 3);
        assert_true(p->c.got_end && !p->s.got_end);
        drop(&p->c);
        turns(p, 3);
        assert_int_equal(ep_h2_streams(p->client), 1);
        if (goes_on) {
            p->s.consume = true;
            p->s.leg->ops->consumed(p->s.leg, p->s.body_bytes);
            for (int i = 0; i < 50 && !p->s.got_end; i++)
                turns(p, 2);
            assert_int_equal(p->s.body_bytes, 8 * sizeof zeros);
            assert_true(p->s.got_end && !p->s.reset);
        } else {
            for (int i = 0; i < 5 && !p->s.reset; i++)
                later(p, 40 * EP_S);
            assert_true(p->s.reset);
        }
        turns(p, 2);
        assert_int_equal(ep_h2_streams(p->client), 0);
        drop(&p->s);
    }
}

/* A peer that reads nothing is found by its lack of progress, though nothing happens on our side. */
static void test_stuck_peer(void **state)
{
    struct play *p = *state;
    static const char zeros[65536];

    request(p, "GET", true);
    turns(p, 2);
    nghttp2_session_set_local_window_size(session_of(p->client)->session, NGHTTP2_FLAG_NONE, 0, 1 << 24);
    nghttp2_session_set_local_window_size(session_of(p->client)->session, NGHTTP2_FLAG_NONE, 1, 1 << 24);
    ep_conn_want_flush(p->client);
    turns(p, 3);
    ep_conn_pause_read(p->client);
    respond(p, false);
    for (int i = 0; i < 32; i++)
        send_bytes(p, &p->s, zeros, sizeof zeros, false);
    turns(p, 3);
    assert_true(p->server->write_stuck);
    for (int i = 0; i < 5 && p->server; i++)
        later(p, 35 * EP_S);
    assert_null(p->server);
    assert_true(p->s.reset);
    assert_int_equal(p->s.why, EP_RESET_TIMEOUT);
}

/* A leg that is let go of gives back what it held of the connection's window, also while it still sends. */
static void test_window_given_back(void **state)
{
    struct play *p = *state;
    static const char zeros[65536];

    p->s.consume = p->c.consume = false;
    request(p, "POST", false);
    send_bytes(p, &p->c, zeros, sizeof zeros, true);
    turns(p, 3);
    assert_true(p->s.got_end);
    assert_int_equal(nghttp2_session_get_effective_recv_data_length(session_of(p->server)->session), sizeof zeros);
    respond(p, false);
    for (int i = 0; i < 8; i++)
        send_bytes(p, &p->s, zeros, sizeof zeros, i == 7);
    turns(p, 3);
    drop(&p->s);
    turns(p, 3);
    assert_int_equal(ep_h2_streams(p->server), 1); /* it waits for the client's window */
    assert_int_equal(EP_CONTAINER(session_of(p->server)->legs.next, struct ep_h2_leg, node)->unconsumed, 0);
}

int main(void)
{
#define PLAY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_get),       PLAY(test_bodies_and_trailers), PLAY(test_late_trailers), PLAY(test_informational), PLAY(test_back_pressure),
        PLAY(test_resets),    PLAY(test_early_response),      PLAY(test_connection_lost), PLAY(test_drain),
        PLAY(test_host_mismatch), PLAY(test_too_many_headers), PLAY(test_response_too_large), PLAY(test_trailers_too_large),
        PLAY(test_many_headers), PLAY(test_head_that_cannot_be_sent), PLAY(test_bad_request_among_others),
        PLAY(test_slow_head), PLAY(test_release_before_trailers), PLAY(test_release_before_the_body_left),
        PLAY(test_stuck_peer), PLAY(test_window_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
