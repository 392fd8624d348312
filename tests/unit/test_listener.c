/* link: ep_net */
/* Listeners on loopback: what is accepted and what is not, and the way from the first byte to the codec. */
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

static struct play *play_of(struct ep_listener *l)
{
    return l->user;
}

static void codec_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct play *x = play_of(c->user);

    (void)slab;
    strncat(x->after, (const char *)p, EP_MIN(n, sizeof x->after - strlen(x->after) - 1));
}

static void codec_eof(struct ep_conn *c)
{
    play_of(c->user)->eof = true;
}

static void codec_closed(struct ep_conn *c, enum ep_close why)
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

static struct ep_tls_context *tls_context(struct ep_listener *l, struct ep_conn *c, const struct ep_client_hello *hello)
{
    (void)c, (void)hello;
    return play_of(l)->tls ? (struct ep_tls_context *)l : NULL; /* none of these tests comes to open it */
}

static bool plaintext_allowed(struct ep_listener *l, struct ep_conn *c)
{
    (void)c;
    return !play_of(l)->strict;
}

static void on_protocol(struct ep_listener *l, struct ep_conn *c, enum ep_sniff what, struct ep_slab *slab,
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

static bool on_silent(struct ep_listener *l, struct ep_conn *c)
{
    struct play *x = play_of(l);

    assert_false(c->closed || c->close_wanted);
    return ++x->silent >= x->silent_yes && x->silent_yes;
}

static void on_refused(struct ep_listener *l, const char *reason)
{
    struct play *x = play_of(l);

    size_t at = strlen(x->refused);

    snprintf(x->refused + at, sizeof x->refused - at, "%s ", reason);
}

static const struct ep_listener_ops ops = {tls_context, plaintext_allowed, on_protocol, on_silent, NULL, on_refused};

static void on_guard(struct ep_timer *t)
{
    EP_CONTAINER(t, struct play, guard)->expired = true;
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

static int setup(void **state)
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

static void start(struct play *p)
{
    struct ep_error err = {{0}};

    if (!ep_listener_init(&p->l, &p->w, &p->options, &ops, p, -1, &err))
        fail_msg("%s", err.text);
    p->addr.len = sizeof p->addr.u;
    assert_int_equal(getsockname(p->l.fd, &p->addr.u.sa, &p->addr.len), 0);
}

static void turn(struct play *p)
{
    for (int i = 0; i < 6; i++)
        ep_worker_turn(&p->w, false);
}

static int teardown(void **state)
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

static int dial(const struct ep_addr *a)
{
    int fd = socket(a->u.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &a->u.sa, a->len), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void client_says(struct play *p, int fd, const char *bytes, size_t n)
{
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), n);
    turn(p);
}

static bool client_sees_end(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, 0);

    return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* --- accepting --- */

static void test_accept(void **state)
{
    struct play *p = *state;
    int fd;

    start(p);
    fd = dial(&p->addr);
    client_says(p, fd, "GET / HTTP/1.1\r\n", 16);
    UNTIL(p, p->given == 1);
    assert_int_equal(p->what, EP_SNIFF_HTTP1);
    assert_string_equal(p->first, "GET / HTTP/1.1\r\n");
    assert_int_equal(p->l.accepted, 1);
    assert_int_equal(p->l.n_connections, 1);
    assert_ptr_equal(p->conn->user_listener, &p->l);
    assert_int_equal(p->original.len, 0);
    client_says(p, fd, "more", 4);
    assert_string_equal(p->after, "more");
    close(fd);
}

static void test_limit(void **state)
{
    struct play *p = *state;
    int fds[4];

    p->options.max_connections = 2;
    start(p);
    for (size_t i = 0; i < EP_COUNT(fds); i++)
        fds[i] = dial(&p->addr);
    UNTIL(p, p->l.accepted == 4);
    assert_int_equal(p->l.n_connections, 2);
    assert_int_equal(p->l.refused, 2);
    assert_string_equal(p->refused, "limit limit ");
    UNTIL(p, client_sees_end(fds[2]) && client_sees_end(fds[3]));
    close(fds[0]); /* its place is free again */
    UNTIL(p, p->l.n_connections == 1);
    close(fds[2]);
    fds[2] = dial(&p->addr);
    UNTIL(p, p->l.n_connections == 2);
    assert_int_equal(p->l.refused, 2);
    close(fds[1]);
    close(fds[2]);
    close(fds[3]);
}

static void test_limit_of_the_worker(void **state)
{
    struct play *p = *state;
    int fd;

    p->w.max_conns = 0;
    start(p);
    fd = dial(&p->addr);
    UNTIL(p, client_sees_end(fd));
    assert_string_equal(p->refused, "limit ");
    close(fd);
    p->w.max_conns = 10;
    p->w.memory_limit = EP_SLAB_BYTES;
    ep_slab_unref(ep_slab_new(&p->w.slabs));
    struct ep_slab *a = ep_slab_new(&p->w.slabs), *b = ep_slab_new(&p->w.slabs);
    fd = dial(&p->addr);
    UNTIL(p, client_sees_end(fd));
    assert_string_equal(p->refused, "limit limit ");
    ep_slab_unref(a);
    ep_slab_unref(b);
    close(fd);
}

/* Descriptors run out: who is first in the queue is told by a close, and when there are some again all goes on. */
static int descriptors(struct play *p)
{
    struct rlimit limit = {64, 64}; /* some are inherited: how many depends on who runs the test */
    int fds[128], n = 0, spare[4];
    char byte;

    for (size_t i = 0; i < EP_COUNT(spare); i++)
        spare[i] = socket(AF_INET, SOCK_STREAM, 0); /* the clients', so that dialling needs no new ones */
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1;
    while (n < 128 && (fds[n] = open("/dev/null", O_RDONLY)) >= 0)
        n++;
    if (n < 8 || n == 128)
        return 2;
    for (size_t i = 0; i < EP_COUNT(spare); i++)
        if (connect(spare[i], &p->addr.u.sa, p->addr.len) < 0)
            return 3;
    for (int i = 0; i < 1000 && !p->l.refused; i++)
        ep_worker_turn(&p->w, false);
    if (!p->l.refused || !p->l.paused || !strstr(p->refused, "descriptors"))
        return 4;
    if (recv(spare[0], &byte, 1, 0) > 0) /* blocks until the close is there */
        return 5;
    if (p->l.n_connections != 0)
        return 6;
    for (int i = 0; i < 8; i++)
        close(fds[--n]);
    for (int i = 0; i < 200 && p->l.n_connections < 3; i++)
        ep_worker_turn(&p->w, true); /* the retry's timer wakes it */
    if (p->l.n_connections != 3 || p->l.paused || p->l.spare_fd < 0)
        return 7;
    if (send(spare[3], "GET / HTTP/1.1\r\n", 16, 0) != 16)
        return 8;
    for (int i = 0; i < 1000 && !p->given; i++)
        ep_worker_turn(&p->w, false);
    return p->given == 1 ? 0 : 9;
}

static void test_no_descriptors(void **state)
{
    struct play *p = *state;
    int status = 0;
    pid_t child;

    start(p);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        event_reinit(p->w.base); /* an epoll set is shared with the parent otherwise */
        _exit(descriptors(p));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_stop_while_resting(void **state)
{
    struct play *p = *state;

    start(p);
    p->l.paused = true; /* as after EMFILE */
    event_del(&p->l.event);
    ep_worker_timer(&p->w, &p->l.retry, EP_MS);
    ep_listener_stop(&p->l);
    turn(p);
    assert_int_equal(p->l.fd, -1);
    assert_int_equal(p->l.spare_fd, -1);
}

static void test_unix_socket(void **state)
{
    struct play *p = *state;
    char path[] = "/tmp/ephor-test-XXXXXX", name[64];
    int fd;

    assert_non_null(mkdtemp(path));
    snprintf(name, sizeof name, "unix:%s/s", path);
    assert_true(ep_addr_parse(ep_str(name), &p->options.bind));
    start(p);
    fd = dial(&p->options.bind);
    client_says(p, fd, "PRI * HTTP/2.0\r\n", 16);
    UNTIL(p, p->given == 1);
    assert_int_equal(p->what, EP_SNIFF_H2);
    close(fd);
    ep_conn_abort(p->conn, EP_CLOSE_LOCAL, false);
    UNTIL(p, p->l.n_connections == 0);
    ep_listener_stop(&p->l);
    start(p); /* over the socket that was left in the file system */
    assert_int_equal(unlink(p->options.bind.u.un.sun_path), 0);
    assert_int_equal(rmdir(path), 0);
}

static void test_bind_fails(void **state)
{
    struct play *p = *state;
    struct ep_error err = {{0}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct ep_addr taken = p->options.bind;

    assert_int_equal(bind(fd, &taken.u.sa, taken.len), 0); /* without SO_REUSEPORT: it shares with nobody */
    assert_int_equal(listen(fd, 1), 0);
    taken.len = sizeof taken.u;
    assert_int_equal(getsockname(fd, &taken.u.sa, &taken.len), 0);
    p->options.bind = taken;
    assert_false(ep_listener_init(&p->l, &p->w, &p->options, &ops, p, -1, &err));
    assert_non_null(strstr(err.text, "bind 127.0.0.1:"));
    assert_non_null(strstr(err.text, "in use"));
    close(fd);
    ep_worker_fini(&p->w);
}

/* --- sniffing --- */

static void test_pieces(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        enum ep_sniff what;
        size_t needed; /* bytes until it is known */
    } rows[] = {
        {"GET /index HTTP/1.1\r\n\r\n", 23, EP_SNIFF_HTTP1, 5},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, EP_SNIFF_H2, 6},
        {"\r\n\r\nPOST /", 10, EP_SNIFF_HTTP1, 10},
        {"\x00\x01\x02", 3, EP_SNIFF_OPAQUE, 1},
        {"HELO there\r\n", 12, EP_SNIFF_OPAQUE, 12},
        {"SSH-2.0-x\r\n", 11, EP_SNIFF_OPAQUE, 10},
    };
    struct play *p = *state;

    start(p);
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        int fd = dial(&p->addr);
        unsigned before = p->given, closed = p->closed;

        for (size_t k = 0; k < rows[i].n; k++) {
            assert_int_equal(send(fd, rows[i].bytes + k, 1, MSG_NOSIGNAL), 1);
            turn(p);
            if (k + 1 < rows[i].needed)
                assert_int_equal(p->given, before);
            else
                UNTIL(p, p->given == before + 1);
        }
        assert_int_equal(p->what, rows[i].what);
        assert_memory_equal(p->first, rows[i].bytes, rows[i].needed);
        assert_int_equal(strlen(p->after), rows[i].n - rows[i].needed);
        assert_memory_equal(p->after, rows[i].bytes + rows[i].needed, rows[i].n - rows[i].needed);
        close(fd);
        ep_conn_abort(p->conn, EP_CLOSE_LOCAL, false);
        UNTIL(p, p->closed == closed + 1);
    }
    assert_int_equal(p->l.n_connections, 0);
}

static void test_strict(void **state)
{
    struct play *p = *state;
    int fd;

    p->strict = true;
    start(p);
    fd = dial(&p->addr);
    client_says(p, fd, "GET / HTTP/1.1\r\n", 16);
    UNTIL(p, client_sees_end(fd));
    assert_string_equal(p->refused, "plaintext ");
    assert_int_equal(p->given, 0);
    close(fd);
    fd = dial(&p->addr); /* the same for bytes that end before they are understood */
    client_says(p, fd, "GE", 2);
    shutdown(fd, SHUT_WR);
    UNTIL(p, client_sees_end(fd));
    assert_int_equal(p->given, 0);
    close(fd);
}

/* A client that says little and ends its side gets its answer. */
static void test_short_and_half_closed(void **state)
{
    struct play *p = *state;
    int fd;

    start(p);
    fd = dial(&p->addr);
    client_says(p, fd, "ping", 4);
    assert_int_equal(p->given, 0);
    shutdown(fd, SHUT_WR);
    UNTIL(p, p->given == 1);
    assert_int_equal(p->what, EP_SNIFF_OPAQUE);
    assert_string_equal(p->first, "ping");
    assert_true(p->eof);
    ep_conn_write(p->conn, "pong", 4);
    turn(p);
    assert_int_equal(recv(fd, p->first, 4, 0), 4);
    close(fd);
    ep_conn_abort(p->conn, EP_CLOSE_LOCAL, false);
    UNTIL(p, p->closed == 1);
    fd = dial(&p->addr); /* what would be HTTP were the line whole is not let pass as opaque */
    client_says(p, fd, "GET x HTTP/1.1", 14);
    shutdown(fd, SHUT_WR);
    UNTIL(p, p->given == 2);
    assert_int_equal(p->what, EP_SNIFF_HTTP1);
    close(fd);
    ep_conn_abort(p->conn, EP_CLOSE_LOCAL, false);
    UNTIL(p, p->closed == 2);
    fd = dial(&p->addr); /* nothing at all */
    UNTIL(p, p->l.n_connections == 1);
    shutdown(fd, SHUT_WR);
    UNTIL(p, p->l.n_connections == 0);
    assert_int_equal(p->given, 2);
    close(fd);
}

static void test_sniff_timeout(void **state)
{
    struct play *p = *state;
    int fd;

    p->options.sniff_timeout_ns = 30 * EP_MS;
    start(p);
    fd = dial(&p->addr);
    client_says(p, fd, "GE", 2);
    UNTIL(p, client_sees_end(fd));
    assert_string_equal(p->refused, "sniff_timeout ");
    assert_int_equal(p->l.n_connections, 0);
    close(fd);
}

/* --- silent clients --- */

static void test_silent(void **state)
{
    struct play *p = *state;
    int fd;

    p->silent_yes = 3;
    start(p);
    fd = dial(&p->addr);
    UNTIL(p, p->given == 1);
    assert_int_equal(p->silent, 3);
    assert_int_equal(p->what, EP_SNIFF_OPAQUE);
    assert_string_equal(p->first, "");
    client_says(p, fd, "hello", 5);
    assert_string_equal(p->after, "hello");
    close(fd);
}

static void test_silent_then_speaks(void **state)
{
    struct play *p = *state;
    unsigned asked;
    int fd;

    start(p);
    fd = dial(&p->addr);
    UNTIL(p, p->silent == 2);
    client_says(p, fd, "G", 1);
    asked = p->silent;
    client_says(p, fd, "ET / HTTP/1.1\r\n", 15);
    UNTIL(p, p->given == 1);
    assert_int_equal(p->what, EP_SNIFF_HTTP1);
    assert_int_equal(p->silent, asked); /* who speaks isn't silent */
    close(fd);
}

/* Drained while nobody has spoken yet: nothing is made of it any more. */
static void test_silent_and_closed(void **state)
{
    struct play *p = *state;
    int fd;

    p->silent_yes = 2;
    start(p);
    fd = dial(&p->addr);
    UNTIL(p, p->silent == 1);
    ep_conn_close(EP_CONTAINER(p->w.conns.next, struct ep_conn, node));
    UNTIL(p, client_sees_end(fd));
    p->expired = false;
    ep_worker_timer(&p->w, &p->guard, 60 * EP_MS); /* the times at which it would be asked again */
    while (!p->expired)
        ep_worker_turn(&p->w, true);
    assert_int_equal(p->given, 0);
    close(fd);
    UNTIL(p, p->l.n_connections == 0);
}

/* A listener that looks into nothing waits for nothing, unless TLS may end here. */
static void test_opaque(void **state)
{
    struct play *p = *state;
    int fd;

    p->options.opaque = true;
    start(p);
    fd = dial(&p->addr);
    UNTIL(p, p->given == 1);
    assert_int_equal(p->what, EP_SNIFF_OPAQUE);
    assert_int_equal(p->silent, 0);
    client_says(p, fd, "GE", 2);
    assert_string_equal(p->after, "GE");
    close(fd);
}

static void test_opaque_under_permissive_tls(void **state)
{
    struct play *p = *state;
    int fd;

    p->options.opaque = p->tls = true;
    start(p);
    fd = dial(&p->addr);
    UNTIL(p, p->silent > 0);
    assert_int_equal(p->given, 0); /* TLS may come */
    client_says(p, fd, "GE", 2);
    UNTIL(p, p->given == 1);
    assert_int_equal(p->what, EP_SNIFF_OPAQUE);
    assert_string_equal(p->first, "GE");
    close(fd);
}

/* --- PROXY v2 --- */

static const unsigned char header[] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11,
                                       0x00, 0x0c, 10,   1,    2,    3,    10,   4,    5,    6,    0x30, 0x39, 0x00, 0x50};

static void test_proxy(void **state)
{
    struct play *p = *state;
    char all[64], text[128];

    p->options.proxy_protocol = true;
    start(p);
    memcpy(all, header, sizeof header);
    memcpy(all + sizeof header, "GET / HTTP/1.1\r\n", 16);
    for (int whole = 0; whole < 2; whole++) {
        int fd = dial(&p->addr);
        unsigned before = p->given;

        if (whole)
            client_says(p, fd, all, sizeof header + 16);
        for (size_t i = 0; !whole && i < sizeof header + 16; i++)
            client_says(p, fd, all + i, 1);
        UNTIL(p, p->given == before + 1);
        assert_int_equal(p->what, EP_SNIFF_HTTP1);
        assert_memory_equal(p->first, "GET /", 5);
        ep_addr_format(&p->peer, text);
        assert_string_equal(text, "10.1.2.3:12345");
        ep_addr_format(&p->original, text);
        assert_string_equal(text, "10.4.5.6:80");
        close(fd);
        ep_conn_abort(p->conn, EP_CLOSE_LOCAL, false);
        UNTIL(p, p->l.n_connections == 0);
    }
}

static void test_proxy_then_silent(void **state)
{
    struct play *p = *state;
    int fd;

    p->options.proxy_protocol = true;
    p->silent_yes = 1;
    start(p);
    fd = dial(&p->addr);
    turn(p);
    assert_int_equal(p->silent, 0); /* the header comes first */
    client_says(p, fd, (const char *)header, sizeof header);
    UNTIL(p, p->given == 1);
    assert_int_equal(p->what, EP_SNIFF_OPAQUE);
    close(fd);
}

static void test_proxy_missing(void **state)
{
    struct play *p = *state;
    int fd;

    p->options.proxy_protocol = true;
    start(p);
    fd = dial(&p->addr);
    client_says(p, fd, "GET / HTTP/1.1\r\n", 16);
    UNTIL(p, client_sees_end(fd));
    assert_string_equal(p->refused, "proxy ");
    close(fd);
    fd = dial(&p->addr); /* ended in the middle of it */
    client_says(p, fd, (const char *)header, 20);
    shutdown(fd, SHUT_WR);
    UNTIL(p, p->l.n_connections == 0);
    assert_int_equal(p->given, 0);
    close(fd);
}

int main(void)
{
#define PLAY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_accept), PLAY(test_limit), PLAY(test_limit_of_the_worker), PLAY(test_no_descriptors),
        PLAY(test_stop_while_resting), PLAY(test_unix_socket), cmocka_unit_test_setup(test_bind_fails, setup),
        PLAY(test_pieces), PLAY(test_strict), PLAY(test_short_and_half_closed), PLAY(test_sniff_timeout),
        PLAY(test_silent), PLAY(test_silent_then_speaks), PLAY(test_silent_and_closed), PLAY(test_opaque),
        PLAY(test_opaque_under_permissive_tls), PLAY(test_proxy),
        PLAY(test_proxy_then_silent), PLAY(test_proxy_missing),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
