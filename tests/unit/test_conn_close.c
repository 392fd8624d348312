/* link: ep_net */
/* Every way in which a plain connection ends: by either side, in either direction, with bytes on the way or none. */
#include "conn_play.h"

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

int main(void)
{
#define PLAY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TCP(f) cmocka_unit_test_setup_teardown(f, setup_tcp, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_half_close), PLAY(test_eof_without_handler), PLAY(test_abort), TCP(test_reset_from_us),
        TCP(test_reset_from_peer), TCP(test_answer_before_reset), TCP(test_close_after_reset), PLAY(test_linger),
        PLAY(test_linger_ends), TCP(test_linger_while_paused), PLAY(test_close_waits), PLAY(test_close_gives_up),
        PLAY(test_close_of_a_client), PLAY(test_close_in_data),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
