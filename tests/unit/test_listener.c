/* link: ep_net */
/* Listeners on loopback: what is accepted and what is not. */
#include "listener_play.h"

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

int main(void)
{
#define PLAY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_accept), PLAY(test_limit), PLAY(test_limit_of_the_worker), PLAY(test_no_descriptors),
        PLAY(test_stop_while_resting), PLAY(test_unix_socket), cmocka_unit_test_setup(test_bind_fails, setup),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
