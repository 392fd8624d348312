/* link: ep_http */
/* The h2 codec against itself over a socketpair: a client leg and a server leg in one worker, turned by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

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

int main(void)
{
#define PLAY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_get),       PLAY(test_bodies_and_trailers), PLAY(test_late_trailers), PLAY(test_informational), PLAY(test_back_pressure),
        PLAY(test_resets),    PLAY(test_early_response),      PLAY(test_connection_lost), PLAY(test_drain),
        PLAY(test_host_mismatch), PLAY(test_too_many_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
