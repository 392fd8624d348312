/* link: ep_net */
/* Listeners on loopback: the way from the first byte to the codec. */
#include "listener_play.h"

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
        PLAY(test_pieces), PLAY(test_strict), PLAY(test_short_and_half_closed), PLAY(test_sniff_timeout),
        PLAY(test_silent), PLAY(test_silent_then_speaks), PLAY(test_silent_and_closed), PLAY(test_opaque),
        PLAY(test_opaque_under_permissive_tls), PLAY(test_proxy), PLAY(test_proxy_then_silent),
        PLAY(test_proxy_missing),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
