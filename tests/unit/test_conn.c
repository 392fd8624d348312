/* link: ep_net */
/* Plain connections: what leaves when, what comes when, deadlines, dialling. test_conn_close.c has their ends. */
#include "conn_play.h"

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
#define DIAL(f) cmocka_unit_test_setup_teardown(f, setup_none, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_corked), PLAY(test_order), PLAY(test_stuck_reader), PLAY(test_pause), PLAY(test_pause_in_data),
        PLAY(test_kept), PLAY(test_deadline), DIAL(test_connect), DIAL(test_connect_refused),
        DIAL(test_connect_times_out), DIAL(test_connect_closed_at_once), DIAL(test_connect_nowhere),
        cmocka_unit_test_setup(test_worker_ends, setup),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
