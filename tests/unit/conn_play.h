/* A stage for plain connections over socketpairs and loopback, with a handler that writes down what it is told: for test_conn*.c. */
#ifndef EP_TESTS_CONN_PLAY_H
#define EP_TESTS_CONN_PLAY_H

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
#include <sys/socket.h>
#include <unistd.h>

#include "net/net.h"
#include "until.h"

/* One connection under test and its peer, a bare socket. The handler writes down what it is told. */
struct play {
    struct ep_worker w;
    struct ep_conn *conn; /* NULL once closed */
    int peer;
    struct ep_timer guard;
    bool expired;
    uint64_t ahead_ns;
    char log[1024]; /* "r" ready, "d(bytes)", "e" eof, "f" flush, "D" drained, "c(why)" closed */
    bool quiet;     /* no data and no flushes in the log */
    size_t received;
    char got[1 << 16];
    const char *on_flush_says;
};

static inline void say(struct play *p, const char *format, ...)
{
    size_t at = strlen(p->log);
    va_list ap;

    va_start(ap, format);
    int n = vsnprintf(p->log + at, sizeof p->log - at, format, ap);
    va_end(ap);
    assert_true(at + (size_t)n < sizeof p->log);
}

static inline void on_ready(struct ep_conn *c)
{
    say(c->user, "r ");
}

static inline void on_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *bytes, size_t n)
{
    struct play *p = c->user;

    assert_true(bytes >= slab->data && bytes + n <= slab->data + slab->size);
    p->received += n;
    if (!p->quiet)
        say(p, "d(%.*s) ", (int)n, (const char *)bytes);
}

static inline void on_eof(struct ep_conn *c)
{
    say(c->user, "e ");
}

static inline void on_flush(struct ep_conn *c)
{
    struct play *p = c->user;

    if (p->on_flush_says) {
        ep_conn_write(c, p->on_flush_says, strlen(p->on_flush_says));
        p->on_flush_says = NULL;
    }
}

static inline void on_drained(struct ep_conn *c)
{
    assert_true(ep_conn_pending(c) <= EP_CONN_OUT_LOW);
    say(c->user, "D ");
}

static inline void on_closed(struct ep_conn *c, enum ep_close why)
{
    struct play *p = c->user;

    say(p, "c(%s) ", ep_close_name(why));
    p->conn = NULL;
}

static const struct ep_conn_handler handler = {"play", on_ready, on_data, on_eof, on_flush, on_drained, on_closed};
static const struct ep_conn_handler no_eof = {
    .name = "no eof", .on_data = on_data, .on_closed = on_closed};

static inline void on_guard(struct ep_timer *t)
{
    EP_CONTAINER(t, struct play, guard)->expired = true;
}

static inline void begin(struct play *p)
{
    struct ep_error err;

    memset(p, 0, sizeof *p);
    assert_true(ep_worker_init(&p->w, 0, &err));
    ep_timer_init(&p->guard, on_guard);
    p->peer = -1;
}

static inline int setup(void **state)
{
    static struct play play;
    struct ep_addr nowhere = {.len = sizeof(sa_family_t), .u.sa.sa_family = AF_UNIX};
    int fds[2];

    begin(&play);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    play.peer = fds[1];
    play.conn = ep_conn_accept(&play.w, fds[0], &nowhere, &handler, &play);
    assert_non_null(play.conn);
    *state = &play;
    return 0;
}

/* Over TCP, where a reset is a reset. The connection under test is the one accepted. */
static inline int setup_tcp(void **state)
{
    static struct play play;
    struct ep_addr a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), got;

    begin(&play);
    assert_true(ep_addr_parse(EP_STR("127.0.0.1:0"), &a));
    assert_int_equal(bind(fd, &a.u.sa, a.len), 0);
    assert_int_equal(listen(fd, 1), 0);
    a.len = sizeof a.u;
    assert_int_equal(getsockname(fd, &a.u.sa, &a.len), 0);
    play.peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(play.peer, &a.u.sa, a.len), 0);
    got = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(got >= 0);
    close(fd);
    fcntl(play.peer, F_SETFL, O_NONBLOCK);
    play.conn = ep_conn_accept(&play.w, got, &a, &handler, &play);
    *state = &play;
    return 0;
}

static inline void turn(struct play *p)
{
    for (int i = 0; i < 6; i++)
        ep_worker_turn(&p->w, false);
}

static inline int teardown(void **state)
{
    struct play *p = *state;

    if (p->peer >= 0)
        close(p->peer);
    if (p->conn)
        ep_conn_abort(p->conn, EP_CLOSE_LOCAL, false);
    turn(p);
    assert_null(p->conn);
    assert_int_equal(p->w.n_conns, 0);
    ep_worker_timer_stop(&p->w, &p->guard);
    assert_int_equal(p->w.wheel.running, 0);
    ep_worker_fini(&p->w);
    assert_int_equal(p->w.mem.live_bytes, 0);
    assert_int_equal(p->w.slabs.n_live, 0);
    return 0;
}

static inline void later(struct play *p, uint64_t ns)
{
    p->ahead_ns += ns; /* of the clock, which a turn reads again */
    p->w.now_ns = ep_clock_ns() + p->ahead_ns;
    ep_wheel_advance(&p->w.wheel, p->w.now_ns);
    turn(p);
}

static inline void expect(struct play *p, const char *log)
{
    assert_string_equal(p->log, log);
    p->log[0] = 0;
}

static inline void peer_says(struct play *p, const char *text)
{
    assert_int_equal(send(p->peer, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    turn(p);
}

/* What lies in the socket now; "<eof>", "<reset>" or "" when nothing does. */
static inline const char *peer_reads(struct play *p)
{
    ssize_t n = recv(p->peer, p->got, sizeof p->got - 1, 0);

    if (n == 0)
        return "<eof>";
    if (n < 0)
        return errno == ECONNRESET ? "<reset>" : "";
    p->got[n] = 0;
    return p->got;
}

static inline struct ep_slice pattern(struct play *p, size_t from, size_t n)
{
    struct ep_slab *slab = ep_slab_new_sized(&p->w.slabs, n);

    for (size_t i = 0; i < n; i++)
        slab->data[i] = (unsigned char)((from + i) * 7 >> 3);
    return (struct ep_slice){slab, slab->data, n};
}

#endif
