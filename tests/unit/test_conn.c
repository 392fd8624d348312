/* link: ep_net */
/* Plain connections over socketpairs and loopback: what leaves when, what comes when, and every way to end. */
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

static void say(struct play *p, const char *format, ...)
{
    size_t at = strlen(p->log);
    va_list ap;

    va_start(ap, format);
    int n = vsnprintf(p->log + at, sizeof p->log - at, format, ap);
    va_end(ap);
    assert_true(at + (size_t)n < sizeof p->log);
}

static void on_ready(struct ep_conn *c)
{
    say(c->user, "r ");
}

static void on_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *bytes, size_t n)
{
    struct play *p = c->user;

    assert_true(bytes >= slab->data && bytes + n <= slab->data + slab->size);
    p->received += n;
    if (!p->quiet)
        say(p, "d(%.*s) ", (int)n, (const char *)bytes);
}

static void on_eof(struct ep_conn *c)
{
    say(c->user, "e ");
}

static void on_flush(struct ep_conn *c)
{
    struct play *p = c->user;

    if (p->on_flush_says) {
        ep_conn_write(c, p->on_flush_says, strlen(p->on_flush_says));
        p->on_flush_says = NULL;
    }
}

static void on_drained(struct ep_conn *c)
{
    assert_true(ep_conn_pending(c) <= EP_CONN_OUT_LOW);
    say(c->user, "D ");
}

static void on_closed(struct ep_conn *c, enum ep_close why)
{
    struct play *p = c->user;

    say(p, "c(%s) ", ep_close_name(why));
    p->conn = NULL;
}

static const struct ep_conn_handler handler = {"play", on_ready, on_data, on_eof, on_flush, on_drained, on_closed};
static const struct ep_conn_handler no_eof = {
    .name = "no eof", .on_data = on_data, .on_closed = on_closed};

static void on_guard(struct ep_timer *t)
{
    EP_CONTAINER(t, struct play, guard)->expired = true;
}

static void begin(struct play *p)
{
    struct ep_error err;

    memset(p, 0, sizeof *p);
    assert_true(ep_worker_init(&p->w, 0, &err));
    ep_timer_init(&p->guard, on_guard);
    p->peer = -1;
}

static int setup(void **state)
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
static int setup_tcp(void **state)
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

static void turn(struct play *p)
{
    for (int i = 0; i < 6; i++)
        ep_worker_turn(&p->w, false);
}

static int teardown(void **state)
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

#define UNTIL(p, condition)                                                                                            \
    do {                                                                                                               \
        (p)->expired = false;                                                                                          \
        ep_worker_timer(&(p)->w, &(p)->guard, 5 * EP_S);                                                               \
        while (!(condition) && !(p)->expired)                                                                          \
            ep_worker_turn(&(p)->w, false);                                                                            \
        ep_worker_timer_stop(&(p)->w, &(p)->guard);                                                                    \
        assert_true(condition);                                                                                        \
    } while (0)

static void later(struct play *p, uint64_t ns)
{
    p->ahead_ns += ns; /* of the clock, which a turn reads again */
    p->w.now_ns = ep_clock_ns() + p->ahead_ns;
    ep_wheel_advance(&p->w.wheel, p->w.now_ns);
    turn(p);
}

static void expect(struct play *p, const char *log)
{
    assert_string_equal(p->log, log);
    p->log[0] = 0;
}

static void peer_says(struct play *p, const char *text)
{
    assert_int_equal(send(p->peer, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    turn(p);
}

/* What lies in the socket now; "<eof>", "<reset>" or "" when nothing does. */
static const char *peer_reads(struct play *p)
{
    ssize_t n = recv(p->peer, p->got, sizeof p->got - 1, 0);

    if (n == 0)
        return "<eof>";
    if (n < 0)
        return errno == ECONNRESET ? "<reset>" : "";
    p->got[n] = 0;
    return p->got;
}

static struct ep_slice pattern(struct play *p, size_t from, size_t n)
{
    struct ep_slab *slab = ep_slab_new_sized(&p->w.slabs, n);

    for (size_t i = 0; i < n; i++)
        slab->data[i] = (unsigned char)((from + i) * 7 >> 3);
    return (struct ep_slice){slab, slab->data, n};
}

/* --- writing --- */

static void test_corked(void **state)
{
    struct play *p = *state;
    char big[5000];
    unsigned char *room;

    memset(big, 'b', sizeof big);
    ep_conn_write(p->conn, "one ", 4);
    ep_conn_write_slice(p->conn, (struct ep_slice){NULL, (const unsigned char *)"two ", 4});
    room = ep_conn_reserve(p->conn, 100);
    memcpy(room, "three ", 6);
    ep_conn_commit(p->conn, 6);
    ep_conn_commit(p->conn, 0);
    ep_conn_write_slice(p->conn, (struct ep_slice){NULL, (const unsigned char *)big, sizeof big});
    ep_conn_write(p->conn, " end", 4);
    assert_int_equal(ep_conn_pending(p->conn), 4 + 4 + 6 + 5000 + 4);
    assert_string_equal(peer_reads(p), ""); /* not before the turn's end */
    p->on_flush_says = "!";
    ep_worker_turn(&p->w, false);
    peer_reads(p);
    assert_int_equal(strlen(p->got), 4 + 4 + 6 + 5000 + 5);
    assert_memory_equal(p->got, "one two three b", 15);
    assert_string_equal(p->got + 14 + 5000, " end!");
    assert_int_equal(ep_conn_pending(p->conn), 0);
    assert_null(p->conn->out_slab); /* an idle connection holds none */
    assert_int_equal(p->conn->bytes_out, 5019);
}

/* Many writes of all sizes arrive in order, over slab borders and with more slices than one send takes. */
static void test_order(void **state)
{
    struct play *p = *state;
    size_t sent = 0, seen = 0;

    for (unsigned i = 0; i < 400; i++) {
        size_t n = 1 + (i * 37) % 900;
        struct ep_slice s = pattern(p, sent, n);

        if (i % 3 == 0) {
            ep_conn_write_slice(p->conn, s);
        } else {
            ep_conn_write(p->conn, s.p, s.n);
            ep_slice_unref(s);
        }
        sent += n;
    }
    p->expired = false;
    ep_worker_timer(&p->w, &p->guard, 5 * EP_S);
    while (seen < sent && !p->expired) {
        ssize_t n = recv(p->peer, p->got, sizeof p->got, 0);

        for (ssize_t i = 0; i < n; i++, seen++)
            if ((unsigned char)p->got[i] != (unsigned char)(seen * 7 >> 3))
                fail_msg("byte %zu of %zu", seen, sent);
        ep_worker_turn(&p->w, false);
    }
    assert_int_equal(seen, sent);
}

static void test_stuck_reader(void **state)
{
    struct play *p = *state;
    size_t total = 4u << 20, seen = 0, worst = 0;
    bool drained = false;

    for (size_t at = 0; at < total; at += 100000)
        ep_conn_write_slice(p->conn, pattern(p, at, EP_MIN(100000u, total - at)));
    turn(p);
    assert_true(p->conn->write_stuck && (p->conn->interest & EV_WRITE));
    assert_true(ep_conn_pending(p->conn) > 1u << 20);
    expect(p, "");
    for (int i = 0; i < 10; i++) { /* nothing moves, and nothing spins */
        ep_worker_turn(&p->w, false);
        assert_true(ep_list_empty(&p->w.flushes));
    }
    p->expired = false;
    ep_worker_timer(&p->w, &p->guard, 5 * EP_S);
    while (seen < total && !p->expired) {
        ssize_t n = recv(p->peer, p->got, sizeof p->got, 0);

        for (ssize_t i = 0; i < n; i++, seen++)
            if ((unsigned char)p->got[i] != (unsigned char)(seen * 7 >> 3))
                fail_msg("byte %zu", seen);
        ep_worker_turn(&p->w, false);
        if (!drained && p->log[0]) {
            drained = true;
            worst = ep_conn_pending(p->conn);
        }
    }
    assert_int_equal(seen, total);
    assert_true(drained && worst <= EP_CONN_OUT_LOW);
    expect(p, "D "); /* once */
    assert_false(p->conn->write_stuck || (p->conn->interest & EV_WRITE));
}

/* --- reading --- */

static void test_pause(void **state)
{
    struct play *p = *state;

    ep_conn_pause_read(p->conn);
    peer_says(p, "hello");
    shutdown(p->peer, SHUT_WR);
    turn(p);
    expect(p, "");
    ep_conn_write(p->conn, "still", 5); /* the other direction goes on */
    turn(p);
    assert_string_equal(peer_reads(p), "still");
    ep_conn_resume_read(p->conn);
    turn(p);
    expect(p, "d(hello) e ");
    ep_conn_pause_read(p->conn);
    ep_conn_resume_read(p->conn);
    turn(p);
    expect(p, ""); /* the end is told once */
}

static void pause_in_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *bytes, size_t n)
{
    on_data(c, slab, bytes, n);
    ep_conn_pause_read(c);
}

static void test_pause_in_data(void **state)
{
    static const struct ep_conn_handler pausing = {
        .name = "pausing", .on_data = pause_in_data, .on_eof = on_eof, .on_closed = on_closed};
    struct play *p = *state;
    static char zeros[100000];
    size_t sent = 0;
    ssize_t n;

    ep_conn_set_handler(p->conn, &pausing, p);
    p->quiet = true;
    while ((n = send(p->peer, zeros, sizeof zeros, MSG_NOSIGNAL)) > 0)
        sent += (size_t)n;
    turn(p);
    assert_in_range(p->received, 1, EP_SLAB_BYTES); /* one recv, whatever there is */
    for (int i = 0; i < 10000 && p->received < sent; i++) {
        ep_conn_resume_read(p->conn);
        ep_worker_turn(&p->w, false);
    }
    assert_int_equal(p->received, sent);
}

/* What a handler keeps is not written over by later reads. */
static struct ep_body kept;

static void keep_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *bytes, size_t n)
{
    ep_body_push(&kept, (struct ep_slice){ep_slab_ref(slab), bytes, n}, &c->worker->slabs);
}

static void test_kept(void **state)
{
    static const struct ep_conn_handler keeping = {.name = "keeping", .on_data = keep_data, .on_closed = on_closed};
    struct play *p = *state;
    char text[16];
    struct ep_arena arena;
    struct ep_str all;

    ep_body_init(&kept);
    ep_conn_set_handler(p->conn, &keeping, p);
    for (int i = 0; i < 5000; i++) {
        snprintf(text, sizeof text, "%06d", i);
        peer_says(p, text);
    }
    assert_int_equal(kept.bytes, 30000);
    ep_arena_init(&arena, &p->w.chunks);
    all = ep_body_flatten(&kept, &arena);
    for (int i = 0; i < 5000; i++) {
        snprintf(text, sizeof text, "%06d", i);
        assert_memory_equal(all.p + 6 * i, text, 6);
    }
    ep_arena_fini(&arena);
    ep_body_fini(&kept);
}

/* --- ends --- */

static void test_half_close(void **state)
{
    struct play *p = *state;

    ep_conn_write(p->conn, "last", 4);
    ep_conn_shutdown(p->conn);
    ep_conn_shutdown(p->conn);
    turn(p);
    assert_string_equal(peer_reads(p), "last");
    assert_string_equal(peer_reads(p), "<eof>");
    peer_says(p, "and I");
    expect(p, "d(and I) ");
    shutdown(p->peer, SHUT_WR);
    turn(p);
    expect(p, "e ");
    assert_non_null(p->conn);
    ep_conn_close(p->conn);
    turn(p);
    expect(p, "c(local) "); /* both FINs are there: nothing to linger for */
}

static void test_eof_without_handler(void **state)
{
    struct play *p = *state;

    ep_conn_set_handler(p->conn, &no_eof, p);
    ep_conn_write(p->conn, "bye", 3);
    shutdown(p->peer, SHUT_WR);
    turn(p);
    assert_string_equal(peer_reads(p), "bye");
    expect(p, "c(eof) ");
}

static void test_abort(void **state)
{
    struct play *p = *state;

    ep_conn_write(p->conn, "never", 5);
    ep_conn_abort(p->conn, EP_CLOSE_LIMIT, false);
    ep_conn_abort(p->conn, EP_CLOSE_TLS, true); /* the first one counts */
    ep_conn_write(p->conn, "never", 5);
    ep_conn_write_slice(p->conn, pattern(p, 0, 1000));
    ep_conn_close(p->conn);
    ep_conn_shutdown(p->conn);
    ep_conn_pause_read(p->conn);
    ep_conn_resume_read(p->conn);
    expect(p, ""); /* not from inside */
    ep_worker_turn(&p->w, false);
    expect(p, "c(limit) ");
    assert_string_equal(peer_reads(p), "<eof>");
}

static void test_reset_from_us(void **state)
{
    struct play *p = *state;

    ep_conn_abort(p->conn, EP_CLOSE_LOCAL, true);
    turn(p);
    expect(p, "c(local) ");
    assert_string_equal(peer_reads(p), "<reset>");
}

static void test_reset_from_peer(void **state)
{
    struct play *p = *state;
    struct linger l = {.l_onoff = 1, .l_linger = 0};

    peer_says(p, "x");
    setsockopt(p->peer, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(p->peer);
    p->peer = -1;
    UNTIL(p, !p->conn);
    expect(p, "d(x) c(reset) ");
}

/* The peer answers, and closes without having read all: the answer is heard although nothing can be written. */
static void test_answer_before_reset(void **state)
{
    struct play *p = *state;

    ep_conn_pause_read(p->conn); /* as back-pressure does */
    ep_conn_write(p->conn, "request", 7);
    turn(p);
    peer_says(p, "413 too large");
    close(p->peer); /* with "request" unread: a reset */
    p->peer = -1;
    for (int i = 0; i < 4; i++) {
        ep_conn_write(p->conn, "body", 4);
        turn(p);
    }
    expect(p, "");
    assert_non_null(p->conn);
    assert_int_equal(ep_conn_pending(p->conn), 0);
    ep_conn_resume_read(p->conn);
    UNTIL(p, !p->conn);
    expect(p, "d(413 too large) c(reset) ");
}

/* The same, and nobody wants to hear it. */
static void test_close_after_reset(void **state)
{
    struct play *p = *state;

    ep_conn_pause_read(p->conn);
    ep_conn_write(p->conn, "request", 7);
    turn(p);
    close(p->peer);
    p->peer = -1;
    ep_conn_write(p->conn, "body", 4);
    turn(p);
    if (p->conn) {
        ep_conn_write(p->conn, "more", 4);
        ep_conn_close(p->conn);
    }
    UNTIL(p, !p->conn);
}

/* --- closing --- */

static void test_linger(void **state)
{
    struct play *p = *state;

    ep_conn_write(p->conn, "400", 3);
    p->conn->closing_why = EP_CLOSE_LIMIT;
    ep_conn_close(p->conn);
    turn(p);
    assert_string_equal(peer_reads(p), "400");
    assert_string_equal(peer_reads(p), "<eof>");
    peer_says(p, "not read any more");
    expect(p, "");
    assert_true(p->conn && p->conn->lingering);
    shutdown(p->peer, SHUT_WR);
    turn(p);
    expect(p, "c(limit) "); /* the reason that was set */
}

static void test_linger_ends(void **state)
{
    struct play *p = *state;

    p->conn->closing_why = EP_CLOSE_TLS;
    ep_conn_close(p->conn);
    turn(p);
    assert_string_equal(peer_reads(p), "<eof>");
    later(p, EP_S);
    expect(p, "");
    later(p, 2 * EP_S);
    expect(p, "c(tls) ");
}

static void test_linger_while_paused(void **state)
{
    struct play *p = *state;

    ep_conn_pause_read(p->conn);
    peer_says(p, "unread");
    ep_conn_close(p->conn);
    turn(p);
    assert_string_equal(peer_reads(p), "<eof>"); /* and no reset */
    shutdown(p->peer, SHUT_WR);
    turn(p);
    expect(p, "c(local) ");
}

/* A close waits for a reader that is slow, as long as it reads, and not for one that doesn't. */
static void test_close_waits(void **state)
{
    struct play *p = *state;
    size_t total = 1u << 20, seen = 0;

    ep_conn_write_slice(p->conn, pattern(p, 0, total));
    turn(p);
    ep_conn_close(p->conn);
    for (int i = 0; i < 1000 && seen < total; i++) {
        ssize_t n;

        later(p, 8 * EP_S);
        for (int k = 0; k < 3 && (n = recv(p->peer, p->got, sizeof p->got, 0)) > 0; k++)
            seen += (size_t)n;
        turn(p);
    }
    assert_int_equal(seen, total);
    assert_string_equal(peer_reads(p), "<eof>");
    expect(p, "c(local) "); /* what lies in the kernel's buffer at the end needs us no more */
}

static void test_close_gives_up(void **state)
{
    struct play *p = *state;

    ep_conn_write_slice(p->conn, pattern(p, 0, 1u << 20));
    ep_conn_close(p->conn);
    turn(p);
    later(p, 11 * EP_S); /* some of it went into the socket's buffer after the close */
    later(p, 11 * EP_S);
    expect(p, "c(timeout) ");
}

static void test_close_of_a_client(void **state)
{
    struct play *p = *state;

    p->conn->is_server = false;
    ep_conn_write(p->conn, "bye", 3);
    ep_conn_close(p->conn);
    turn(p);
    assert_string_equal(peer_reads(p), "bye");
    expect(p, "c(local) "); /* a client needs not linger */
}

static void close_in_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *bytes, size_t n)
{
    on_data(c, slab, bytes, n);
    ep_conn_write(c, "no", 2);
    ep_conn_close(c);
}

static void test_close_in_data(void **state)
{
    static const struct ep_conn_handler closing = {
        .name = "closing", .on_data = close_in_data, .on_eof = on_eof, .on_closed = on_closed};
    struct play *p = *state;

    ep_conn_set_handler(p->conn, &closing, p);
    peer_says(p, "a");
    peer_says(p, "b");
    shutdown(p->peer, SHUT_WR);
    turn(p);
    expect(p, "d(a) c(local) ");
    assert_string_equal(peer_reads(p), "no");
}

/* --- deadlines --- */

static void test_deadline(void **state)
{
    struct play *p = *state;

    ep_conn_deadline(p->conn, EP_S);
    ep_conn_deadline(p->conn, 0);
    later(p, 2 * EP_S);
    expect(p, "");
    ep_conn_deadline(p->conn, EP_S);
    ep_conn_set_handler(p->conn, &handler, p); /* begins without one */
    later(p, 2 * EP_S);
    expect(p, "");
    p->w.now_ns = ep_clock_ns() + p->ahead_ns;
    ep_conn_deadline(p->conn, EP_S);
    later(p, 2 * EP_S);
    expect(p, "c(timeout) ");
}

/* --- dialling --- */

static int setup_none(void **state)
{
    static struct play play;

    begin(&play);
    *state = &play;
    return 0;
}

static int listening(struct ep_addr *a)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(ep_addr_parse(EP_STR("127.0.0.1:0"), a));
    assert_int_equal(bind(fd, &a->u.sa, a->len), 0);
    assert_int_equal(listen(fd, 4), 0);
    a->len = sizeof a->u;
    assert_int_equal(getsockname(fd, &a->u.sa, &a->len), 0);
    return fd;
}

static void test_connect(void **state)
{
    struct play *p = *state;
    struct ep_addr a;
    int fd = listening(&a);

    p->conn = ep_conn_connect(&p->w, &a, NULL, EP_S, NULL, (struct ep_str){NULL, 0}, &handler, p);
    expect(p, "");
    ep_conn_write(p->conn, "early", 5); /* waits for the connection */
    UNTIL(p, p->log[0]);
    expect(p, "r ");
    assert_false(ep_timer_running(&p->conn->timer));
    p->peer = accept(fd, NULL, NULL);
    turn(p);
    assert_string_equal(peer_reads(p), "early");
    close(fd);
}

static void test_connect_refused(void **state)
{
    struct play *p = *state;
    struct ep_addr a;

    close(listening(&a));
    p->conn = ep_conn_connect(&p->w, &a, NULL, EP_S, NULL, (struct ep_str){NULL, 0}, &handler, p);
    expect(p, "");
    UNTIL(p, !p->conn);
    expect(p, "c(connect) ");
}

static void test_connect_times_out(void **state)
{
    struct play *p = *state;
    struct ep_addr a;
    int fd = listening(&a), filler[3];

    assert_int_equal(listen(fd, 0), 0);
    for (size_t i = 0; i < EP_COUNT(filler); i++) { /* the kernel's queue is full: nothing is answered */
        filler[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(filler[i], &a.u.sa, a.len);
    }
    p->conn = ep_conn_connect(&p->w, &a, NULL, 50 * EP_MS, NULL, (struct ep_str){NULL, 0}, &handler, p);
    UNTIL(p, !p->conn);
    expect(p, "c(timeout) ");
    for (size_t i = 0; i < EP_COUNT(filler); i++)
        close(filler[i]);
    close(fd);
}

static void test_connect_closed_at_once(void **state)
{
    struct play *p = *state;
    struct ep_addr a;
    int fd = listening(&a);

    p->conn = ep_conn_connect(&p->w, &a, NULL, EP_S, NULL, (struct ep_str){NULL, 0}, &handler, p);
    ep_conn_close(p->conn);
    turn(p);
    expect(p, "c(local) ");
    close(fd);
}

static void test_connect_nowhere(void **state)
{
    struct play *p = *state;
    struct ep_addr a = {.len = sizeof(sa_family_t), .u.sa.sa_family = AF_UNSPEC};

    p->conn = ep_conn_connect(&p->w, &a, NULL, EP_S, NULL, (struct ep_str){NULL, 0}, &handler, p);
    expect(p, ""); /* also what fails at once is told later */
    turn(p);
    expect(p, "c(connect) ");
}

/* What is open when the worker ends is closed, and told. */
static void test_worker_ends(void **state)
{
    struct play *p = *state;
    char byte;

    ep_conn_write(p->conn, "x", 1);
    ep_worker_fini(&p->w);
    expect(p, "c(local) ");
    assert_int_equal(recv(p->peer, &byte, 1, 0), 0);
    assert_int_equal(p->w.mem.live_bytes, 0);
    close(p->peer);
}

int main(void)
{
#define PLAY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TCP(f) cmocka_unit_test_setup_teardown(f, setup_tcp, teardown)
#define DIAL(f) cmocka_unit_test_setup_teardown(f, setup_none, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_corked), PLAY(test_order), PLAY(test_stuck_reader), PLAY(test_pause), PLAY(test_pause_in_data),
        PLAY(test_kept), PLAY(test_half_close), PLAY(test_eof_without_handler), PLAY(test_abort), TCP(test_reset_from_us),
        TCP(test_reset_from_peer), TCP(test_answer_before_reset), TCP(test_close_after_reset), PLAY(test_linger),
        PLAY(test_linger_ends), TCP(test_linger_while_paused), PLAY(test_close_waits), PLAY(test_close_gives_up),
        PLAY(test_close_of_a_client), PLAY(test_close_in_data), PLAY(test_deadline), DIAL(test_connect),
        DIAL(test_connect_refused), DIAL(test_connect_times_out), DIAL(test_connect_closed_at_once),
        DIAL(test_connect_nowhere), cmocka_unit_test_setup(test_worker_ends, setup),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
