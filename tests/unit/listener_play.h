/* A listener on loopback with an owner that notes what it was given: for test_listener*.c. */
#ifndef EP_TESTS_LISTENER_PLAY_H
#define EP_TESTS_LISTENER_PLAY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/net.h"
#include "until.h"

struct play {
    struct ep_worker w;
    struct ep_listener l;
    struct ep_listener_options options;
    struct ep_timer guard;
    bool expired;
    struct ep_addr addr;
    /* what the owner saw */
    unsigned given, closed;
    enum ep_sniff what;
    char first[256], after[256]; /* bytes that came with the connection; bytes that came later */
    bool eof;
    struct ep_addr peer, original;
    struct ep_conn *conn;
    char refused[256];
    unsigned silent;     /* how often the owner was asked */
    unsigned silent_yes; /* from this time on it says that the server speaks first; 0: never */
    bool strict, tls;
};

static inline struct play *play_of(struct ep_listener *l)
{
    return l->user;
}

static inline void codec_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct play *x = play_of(c->user);

    (void)slab;
    strncat(x->after, (const char *)p, EP_MIN(n, sizeof x->after - strlen(x->after) - 1));
}

static inline void codec_eof(struct ep_conn *c)
{
    play_of(c->user)->eof = true;
}

static inline void codec_closed(struct ep_conn *c, enum ep_close why)
{
    struct ep_listener *l = c->user;

    (void)why;
    l->n_connections--;
    play_of(l)->closed++;
    if (play_of(l)->conn == c)
        play_of(l)->conn = NULL;
}

static const struct ep_conn_handler codec = {
    .name = "codec", .on_data = codec_data, .on_eof = codec_eof, .on_closed = codec_closed};

static inline struct ep_tls_context *tls_context(struct ep_listener *l, struct ep_conn *c, const struct ep_client_hello *hello)
{
    (void)c, (void)hello;
    return play_of(l)->tls ? (struct ep_tls_context *)l : NULL; /* none of these tests comes to open it */
}

static inline bool plaintext_allowed(struct ep_listener *l, struct ep_conn *c)
{
    (void)c;
    return !play_of(l)->strict;
}

static inline void on_protocol(struct ep_listener *l, struct ep_conn *c, enum ep_sniff what, struct ep_slab *slab,
                        const unsigned char *first, size_t n)
{
    struct play *x = play_of(l);

    assert_true(n == 0 || (first >= slab->data && first + n <= slab->data + slab->size));
    assert_true(n < sizeof x->first);
    x->given++;
    x->what = what;
    if (n)
        memcpy(x->first, first, n);
    x->first[n] = 0;
    x->after[0] = 0;
    x->peer = c->peer;
    x->original = c->original;
    x->conn = c;
    ep_conn_set_handler(c, &codec, l);
    assert_false(ep_timer_running(&c->timer));
}

static inline bool on_silent(struct ep_listener *l, struct ep_conn *c)
{
    struct play *x = play_of(l);

    assert_false(c->closed || c->close_wanted);
    return ++x->silent >= x->silent_yes && x->silent_yes;
}

static inline void on_refused(struct ep_listener *l, const char *reason)
{
    struct play *x = play_of(l);

    size_t at = strlen(x->refused);

    snprintf(x->refused + at, sizeof x->refused - at, "%s ", reason);
}

static const struct ep_listener_ops ops = {tls_context, plaintext_allowed, on_protocol, on_silent, NULL, on_refused};

static inline void on_guard(struct ep_timer *t)
{
    EP_CONTAINER(t, struct play, guard)->expired = true;
}

static inline int setup(void **state)
{
    static struct play play;
    struct ep_error err;

    memset(&play, 0, sizeof play);
    assert_true(ep_worker_init(&play.w, 0, &err));
    ep_timer_init(&play.guard, on_guard);
    play.options = (struct ep_listener_options){
        .max_connections = 10, .sniff_timeout_ns = 60 * EP_S, .handshake_timeout_ns = 5 * EP_S};
    assert_true(ep_addr_parse(EP_STR("127.0.0.1:0"), &play.options.bind));
    *state = &play;
    return 0;
}

static inline void start(struct play *p)
{
    struct ep_error err = {{0}};

    if (!ep_listener_init(&p->l, &p->w, &p->options, &ops, p, -1, &err))
        fail_msg("%s", err.text);
    p->addr.len = sizeof p->addr.u;
    assert_int_equal(getsockname(p->l.fd, &p->addr.u.sa, &p->addr.len), 0);
}

static inline void turn(struct play *p)
{
    for (int i = 0; i < 6; i++)
        ep_worker_turn(&p->w, false);
}

static inline int teardown(void **state)
{
    struct play *p = *state;

    EP_LIST_FOREACH(n, &p->w.conns)
        ep_conn_abort(EP_CONTAINER(n, struct ep_conn, node), EP_CLOSE_LOCAL, false);
    turn(p);
    assert_int_equal(p->l.n_connections, 0);
    assert_int_equal(p->w.n_conns, 0);
    ep_listener_stop(&p->l);
    ep_listener_stop(&p->l);
    assert_int_equal(p->w.wheel.running, 0);
    ep_worker_fini(&p->w);
    assert_int_equal(p->w.mem.live_bytes, 0);
    assert_int_equal(p->w.slabs.n_live, 0);
    return 0;
}

static inline int dial(const struct ep_addr *a)
{
    int fd = socket(a->u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &a->u.sa, a->len), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static inline void client_says(struct play *p, int fd, const char *bytes, size_t n)
{
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), n);
    turn(p);
}

static inline bool client_sees_end(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, 0);

    return n == 0 || (n < 0 && errno == ECONNRESET);
}

#endif
