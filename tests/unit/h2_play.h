/* The h2 codec against itself over a socketpair: a client leg and a server leg in one worker, turned by hand. For test_h2*.c. */
#ifndef EP_TESTS_H2_PLAY_H
#define EP_TESTS_H2_PLAY_H

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

static inline void on_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct side *x = l->owner;

    x->in = *h;
    *h = (struct ep_headers){.arena = h->arena};
    x->got_head = true;
    x->got_end |= end;
}

static inline void on_informational(struct ep_leg *l, struct ep_headers *h)
{
    struct side *x = l->owner;

    assert_true(ep_str_eq(ep_headers_get_id(h, EP_HDR_STATUS), EP_STR("103")));
    x->informational++;
}

static inline void on_data(struct ep_leg *l, struct ep_slice s, bool end)
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

static inline void on_trailers(struct ep_leg *l, struct ep_headers *h)
{
    struct side *x = l->owner;

    x->trailers_in = *h;
    *h = (struct ep_headers){.arena = h->arena};
    x->got_trailers = x->got_end = true;
}

static inline void on_sent(struct ep_leg *l, size_t n)
{
    ((struct side *)l->owner)->sent += n;
}

static inline void on_message_sent(struct ep_leg *l)
{
    ((struct side *)l->owner)->message_sent = true;
}

static inline void on_reset(struct ep_leg *l, enum ep_reset why)
{
    struct side *x = l->owner;

    assert_false(x->reset);
    x->reset = true;
    x->why = why;
}

static const struct ep_leg_events events = {on_headers, on_informational, on_data, on_trailers, on_sent, on_message_sent, on_reset};

static inline void adopt(struct play *p, struct side *x, struct ep_leg *l)
{
    ep_arena_init(&x->arena, &p->w.chunks);
    x->leg = l;
    l->owner = x;
    l->events = &events;
    l->arena = &x->arena;
    ep_headers_init(&x->out, &x->arena);
    ep_headers_init(&x->trailers_out, &x->arena);
}

static inline void drop(struct side *x)
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

static inline bool on_request(void *user, struct ep_leg *l)
{
    struct play *p = user;

    p->requests++;
    if (p->refuse)
        return false;
    assert_null(p->s.leg);
    adopt(p, &p->s, l);
    return true;
}

static inline void on_refused(void *user, struct ep_conn *c, unsigned status, const char *reason)
{
    (void)c, (void)status, (void)reason;
    ((struct play *)user)->refused++;
}

static inline void on_server_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    struct play *p = user;

    (void)c, (void)why;
    p->closed++;
    p->server = NULL;
}

static inline void on_client_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    struct play *p = user;

    (void)c, (void)why;
    p->closed++;
    p->client = NULL;
}

static const struct ep_acceptor acceptor = {on_request, on_refused, on_server_closed};
static const struct ep_client_events client_events = {NULL, NULL, on_client_closed};

static inline void turns(struct play *p, int n)
{
    while (n--)
        ep_worker_turn(&p->w, false);
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
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

static inline void request(struct play *p, const char *method, bool end)
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

static inline void respond(struct play *p, bool end)
{
    ep_headers_add_id(&p->s.out, EP_HDR_STATUS, EP_STR("200"));
    ep_headers_add(&p->s.out, EP_STR("x-two"), EP_STR("2"));
    p->s.leg->ops->headers(p->s.leg, &p->s.out, end);
}

static inline void send_bytes(struct play *p, struct side *x, const char *text, size_t n, bool end)
{
    struct ep_slab *slab = ep_slab_new_sized(&p->w.slabs, n);

    memcpy(slab->data, text, n);
    x->leg->ops->data(x->leg, (struct ep_slice){slab, slab->data, n}, end);
}

static inline void later(struct play *p, uint64_t ns)
{
    p->ahead_ns += ns; /* of the clock, which a turn reads again */
    p->w.now_ns = ep_clock_ns() + p->ahead_ns;
    ep_wheel_advance(&p->w.wheel, p->w.now_ns);
    turns(p, 4);
}

static inline struct ep_h2 *session_of(struct ep_conn *c)
{
    return c->user;
}

#endif
