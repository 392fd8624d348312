/* link: ep_net */
/* Connections under TLS over loopback: what conn.c and tls.c owe each other in timers, closes and failures. */
#include "tls_play.h"
#include "until.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

struct end {
    struct play *play;
    struct ep_conn *conn; /* NULL once closed */
    bool ready, eof;
    enum ep_close why;
    size_t received;
    char error[128];
};

struct play {
    struct ep_worker w;
    struct ep_timer guard;
    bool expired;
    struct identity ca, server_id, client_id;
    struct ep_tls_context *server_ctx, *client_ctx;
    struct end client, server;
};

static void on_ready(struct ep_conn *c)
{
    struct end *e = c->user;

    e->ready = true;
    ep_conn_deadline(c, 3600 * EP_S); /* as a codec arms its own */
}

static void on_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct end *e = c->user;

    (void)slab;
    if (c->is_server && !c->tls)
        ep_conn_start_tls_server(c, e->play->server_ctx, p, n);
    else
        e->received += n;
}

static void on_eof(struct ep_conn *c)
{
    ((struct end *)c->user)->eof = true;
}

static void on_closed(struct ep_conn *c, enum ep_close why)
{
    struct end *e = c->user;

    e->why = why;
    memcpy(e->error, c->error_text, sizeof e->error);
    e->conn = NULL;
}

static const struct ep_conn_handler handler = {
    .name = "end", .on_ready = on_ready, .on_data = on_data, .on_eof = on_eof, .on_closed = on_closed};

static void on_guard(struct ep_timer *t)
{
    EP_CONTAINER(t, struct play, guard)->expired = true;
}

static int setup(void **state)
{
    static struct play play;
    struct play *p = &play;
    struct ep_tls_options o;
    struct ep_error err;
    struct ep_addr a;
    int fd, got;

    memset(p, 0, sizeof *p);
    assert_true(ep_worker_init(&p->w, 0, &err));
    ep_timer_init(&p->guard, on_guard);
    p->client.play = p->server.play = p;
    p->ca = make("mesh CA", (struct wish){.ca = true}, NULL);
    p->server_id = make("server", (struct wish){.san = "URI:spiffe://cluster.local/ns/a/sa/server"}, &p->ca);
    p->client_id = make("client", (struct wish){.san = "URI:spiffe://cluster.local/ns/a/sa/client"}, &p->ca);
    o = options(true, EP_TLS_VERIFY_MESH, &p->server_id, &p->ca);
    p->server_ctx = context(&o);
    o = options(false, EP_TLS_VERIFY_MESH, &p->client_id, &p->ca);
    p->client_ctx = context(&o);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(ep_addr_parse(EP_STR("127.0.0.1:0"), &a));
    assert_int_equal(bind(fd, &a.u.sa, a.len), 0);
    assert_int_equal(listen(fd, 1), 0);
    a.len = sizeof a.u;
    assert_int_equal(getsockname(fd, &a.u.sa, &a.len), 0);
    p->client.conn = ep_conn_connect(&p->w, &a, NULL, 2 * EP_S, p->client_ctx, EP_STR("server.test"), &handler, &p->client);
    got = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(got >= 0);
    close(fd);
    p->server.conn = ep_conn_accept(&p->w, got, &a, &handler, &p->server);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct play *p = *state;

    if (p->client.conn)
        ep_conn_abort(p->client.conn, EP_CLOSE_LOCAL, false);
    if (p->server.conn)
        ep_conn_abort(p->server.conn, EP_CLOSE_LOCAL, false);
    ep_worker_turn(&p->w, false);
    assert_int_equal(p->w.n_conns, 0);
    assert_int_equal(p->w.wheel.running, 0);
    ep_worker_fini(&p->w);
    assert_int_equal(p->w.mem.live_bytes, 0);
    assert_int_equal(p->w.slabs.n_live, 0);
    ep_tls_context_unref(p->client_ctx);
    ep_tls_context_unref(p->server_ctx);
    unmake(&p->ca);
    unmake(&p->server_id);
    unmake(&p->client_id);
    return 0;
}

static void write_much(struct ep_conn *c, size_t n)
{
    struct ep_slab *slab = ep_slab_new_sized(&c->worker->slabs, n);

    memset(slab->data, 'x', n);
    ep_conn_write_slice(c, (struct ep_slice){slab, slab->data, n});
}

/* The deadline of the dial ends with the handshake; the one that the handler set then stays. */
static void test_deadline_of_the_handler(void **state)
{
    struct play *p = *state;

    UNTIL(p, p->client.ready && p->server.ready);
    for (int i = 0; i < 8; i++)
        ep_worker_turn(&p->w, false);
    assert_true(ep_timer_running(&p->client.conn->timer));
    assert_true(ep_timer_running(&p->server.conn->timer));
    assert_true(p->client.conn->timer.deadline_tick > p->w.wheel.tick + 1000 * 60);
}

static void test_exchange_and_close(void **state)
{
    struct play *p = *state;

    UNTIL(p, p->client.ready && p->server.ready);
    write_much(p->client.conn, 3u << 20);
    write_much(p->server.conn, 3u << 20);
    UNTIL(p, p->client.received == 3u << 20 && p->server.received == 3u << 20);
    ep_conn_write(p->client.conn, "last", 4);
    ep_conn_close(p->client.conn);
    UNTIL(p, p->server.eof);
    assert_int_equal(p->server.received, (3u << 20) + 4);
    assert_true(ep_conn_tls_info(p->server.conn)->close_notify);
    assert_null(p->client.conn);
}

static void test_half_close(void **state)
{
    struct play *p = *state;

    UNTIL(p, p->client.ready && p->server.ready);
    ep_conn_write(p->client.conn, "question", 8);
    ep_conn_shutdown(p->client.conn);
    UNTIL(p, p->server.eof);
    assert_int_equal(p->server.received, 8);
    write_much(p->server.conn, 1u << 20);
    ep_conn_close(p->server.conn);
    UNTIL(p, p->client.eof);
    assert_int_equal(p->client.received, 1u << 20);
}

/* close_notify that finds the socket full is sent all the same, before the FIN. */
static void test_close_through_a_full_socket(void **state)
{
    struct play *p = *state;

    UNTIL(p, p->client.ready && p->server.ready);
    ep_conn_pause_read(p->client.conn);
    write_much(p->server.conn, 16u << 20);
    ep_conn_close(p->server.conn);
    UNTIL(p, p->server.conn->write_stuck);
    ep_conn_resume_read(p->client.conn);
    UNTIL(p, p->client.eof);
    assert_int_equal(p->client.received, 16u << 20);
    assert_true(ep_conn_tls_info(p->client.conn)->close_notify);
}

/* Bytes that are no record, while much waits to be said: the connection ends, and nothing spins. */
static void test_failure_with_output_waiting(void **state)
{
    struct play *p = *state;
    static const char nonsense[64] = "this is no record";
    int spins = 0;

    UNTIL(p, p->client.ready && p->server.ready);
    ep_conn_pause_read(p->client.conn);
    write_much(p->server.conn, 16u << 20);
    UNTIL(p, p->server.conn->write_stuck);
    assert_int_equal(send(p->client.conn->fd, nonsense, sizeof nonsense, MSG_NOSIGNAL), sizeof nonsense);
    UNTIL(p, p->server.conn->close_wanted);
    ep_conn_resume_read(p->client.conn);
    UNTIL(p, !p->server.conn || p->server.conn->lingering);
    for (int i = 0; i < 16; i++) {
        ep_worker_turn(&p->w, false);
        spins += !ep_list_empty(&p->w.flushes);
    }
    assert_int_equal(spins, 0);
    UNTIL(p, !p->client.conn); /* it saw an alert, or a record cut short */
    UNTIL(p, !p->server.conn);
    assert_int_equal(p->server.why, EP_CLOSE_TLS);
    assert_true(p->server.error[0]);
}

static void test_peer_leaves_in_the_handshake(void **state)
{
    struct play *p = *state;

    UNTIL(p, p->server.conn->tls);
    ep_conn_abort(p->client.conn, EP_CLOSE_LOCAL, false);
    UNTIL(p, !p->server.conn);
    assert_true(p->server.why == EP_CLOSE_TLS || p->server.why == EP_CLOSE_RESET);
    assert_false(p->server.ready);
}

static void test_close_in_the_handshake(void **state)
{
    struct play *p = *state;

    ep_conn_write(p->server.conn, "too early", 9);
    UNTIL(p, p->server.conn->tls);
    ep_conn_close(p->server.conn);
    UNTIL(p, !p->client.conn);
    UNTIL(p, !p->server.conn);
    assert_false(p->client.ready);
}

int main(void)
{
#define PLAY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_deadline_of_the_handler), PLAY(test_exchange_and_close), PLAY(test_half_close),
        PLAY(test_close_through_a_full_socket), PLAY(test_failure_with_output_waiting),
        PLAY(test_peer_leaves_in_the_handshake), PLAY(test_close_in_the_handshake),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
