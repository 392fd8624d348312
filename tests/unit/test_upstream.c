/* link: ep_upstream */
/* Clusters against real servers on loopback: pools, queues and breakers. Endpoints are in test_upstream_members.c. */
#include "upstream_play.h"

#define S(text) EP_STR(text)

static void test_h2_shares_one_connection(void **state)
{
    struct stage s;
    struct server server;
    struct caller c[20], late;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    server.status = 0;
    struct ep_cluster_config config = config_of("tools", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    for (int i = 0; i < 20; i++) {
        call(&c[i], &s, cl, EP_HTTP_2);
        assert_null(c[i].leg); /* it waits for the dial */
    }
    assert_int_equal(cell(&s, EP_METRIC_UPSTREAM_PENDING, EP_LABELS(S("tools"))), 20);
    UNTIL(&s, server.requests == 20);
    assert_int_equal(server.connections, 1);
    call(&late, &s, cl, EP_HTTP_2);
    assert_true(late.at_once && !late.fresh);
    assert_true(c[0].fresh && !c[1].fresh && !c[0].at_once);
    assert_ptr_equal(late.conn, c[0].conn);
    assert_int_equal(cell(&s, EP_METRIC_UPSTREAM_STREAMS, EP_LABELS(S("tools"))), 21);
    assert_int_equal(cell(&s, EP_METRIC_UPSTREAM_PENDING, EP_LABELS(S("tools"))), 0);
    UNTIL(&s, server.requests == 21);
    server_answer(&server, 200, 21);
    for (int i = 0; i < 20; i++) {
        UNTIL(&s, c[i].ended);
        assert_int_equal(c[i].status, 200);
        caller_done(&c[i]);
    }
    UNTIL(&s, late.ended);
    caller_done(&late);
    assert_int_equal(server.connections, 1);
    assert_int_equal(cell(&s, EP_METRIC_UPSTREAM_STREAMS, EP_LABELS(S("tools"))), 0);
    assert_int_equal(cell(&s, EP_METRIC_UPSTREAM_ACTIVE, EP_LABELS(S("tools"))), 1);
    ep_cluster_unref(cl);
    settle(&s);
    assert_int_equal(server.open, 0);
    assert_int_equal(cell(&s, EP_METRIC_UPSTREAM_ACTIVE, EP_LABELS(S("tools"))), 0);
    server_close(&server);
    stage_close(&s);
}

static void test_h2_opens_more_when_full(void **state)
{
    struct stage s;
    struct server server;
    struct caller c[10];
    unsigned ended = 0;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    server.options.max_streams = 4;
    struct ep_cluster_config config = config_of("tools", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 200); /* its SETTINGS are known now */
    server.status = 0;
    for (int i = 0; i < 10; i++)
        call(&c[i], &s, cl, EP_HTTP_2);
    assert_true(c[3].at_once && !c[4].leg);
    UNTIL(&s, server.requests == 11);
    assert_int_equal(server.connections, 3);
    server_answer(&server, 200, 10);
    for (int i = 0; i < 10; i++) {
        UNTIL(&s, c[i].ended || c[i].failed);
        ended += c[i].ended;
        caller_done(&c[i]);
    }
    assert_int_equal(ended, 10);
    /* at rest again the first one with room carries everything */
    settle(&s);
    server.status = 200;
    for (int i = 0; i < 5; i++)
        assert_int_equal(exchange(&s, cl, EP_HTTP_2, &c[i]), 200);
    assert_ptr_equal(c[0].conn, c[4].conn);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

/* A stream that ends makes room for one that waits, when no other connection may be opened. */
static void test_h2_capacity_serves_waiters(void **state)
{
    struct stage s;
    struct server server;
    struct caller a, b, waiter;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    server.options.max_streams = 2;
    struct ep_cluster_config config = config_of("tools", &server.addr, 1);
    config.limits.connections = 1;
    struct ep_cluster *cl = cluster_of(&s, &config);

    assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 200);
    server.status = 0;
    call(&a, &s, cl, EP_HTTP_2);
    call(&b, &s, cl, EP_HTTP_2);
    call(&waiter, &s, cl, EP_HTTP_2);
    UNTIL(&s, server.requests == 3);
    settle(&s);
    assert_true(a.leg && b.leg && !waiter.leg && !waiter.failed);
    server_answer(&server, 200, 1);
    UNTIL(&s, a.ended);
    caller_done(&a);
    UNTIL(&s, waiter.leg);
    assert_ptr_equal(waiter.conn, b.conn);
    UNTIL(&s, server.requests == 4);
    server_answer(&server, 200, 2);
    UNTIL(&s, b.ended && waiter.ended);
    caller_done(&b);
    caller_done(&waiter);
    assert_int_equal(server.connections, 1);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

static void test_h1_pools(void **state)
{
    struct stage s;
    struct server server;
    struct caller c[3], again;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H1);
    struct ep_cluster_config config = config_of("app", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    for (int i = 0; i < 5; i++)
        assert_int_equal(exchange(&s, cl, EP_HTTP_1_1, &again), 200);
    assert_int_equal(server.connections, 1); /* one after the other: one connection */
    assert_true(again.at_once);
    server.status = 0;
    for (int i = 0; i < 3; i++)
        call(&c[i], &s, cl, EP_HTTP_1_1);
    assert_true(c[0].at_once && !c[1].leg && !c[2].leg);
    UNTIL(&s, server.requests == 8);
    assert_int_equal(server.connections, 3); /* at once: one each */
    server_answer(&server, 200, 3);
    for (int i = 0; i < 3; i++)
        UNTIL(&s, c[i].ended);
    caller_done(&c[0]);
    settle(&s);
    caller_done(&c[2]);
    settle(&s);
    caller_done(&c[1]);
    settle(&s);
    server.status = 200;
    assert_int_equal(exchange(&s, cl, EP_HTTP_1_1, &again), 200);
    assert_ptr_equal(again.conn, c[1].conn); /* last in, first out */
    assert_int_equal(server.connections, 3);
    ep_cluster_unref(cl);
    settle(&s);
    assert_int_equal(server.open, 0);
    server_close(&server);
    stage_close(&s);
}

static void test_h1_waits_its_turn(void **state)
{
    struct stage s;
    struct server server;
    struct caller a, b, c;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H1);
    server.status = 0;
    struct ep_cluster_config config = config_of("app", &server.addr, 1);
    config.limits.connections = 1;
    struct ep_cluster *cl = cluster_of(&s, &config);

    call(&a, &s, cl, EP_HTTP_1_1);
    call(&b, &s, cl, EP_HTTP_1_1);
    call(&c, &s, cl, EP_HTTP_1_1);
    UNTIL(&s, server.requests == 1);
    assert_true(a.leg && !b.leg && !c.leg);
    server_answer(&server, 200, 1);
    UNTIL(&s, a.ended);
    caller_done(&a);
    UNTIL(&s, server.requests == 2);
    assert_true(b.leg && !c.leg); /* the oldest first */
    server_answer(&server, 200, 1);
    UNTIL(&s, b.ended);
    caller_done(&b);
    UNTIL(&s, server.requests == 3);
    server_answer(&server, 200, 1);
    UNTIL(&s, c.ended);
    caller_done(&c);
    assert_int_equal(server.connections, 1);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

/* The server closes an idle connection; the next request dials anew and fails for nothing. */
static void test_h1_closed_while_idle(void **state)
{
    struct stage s;
    struct server server;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H1);
    struct ep_cluster_config config = config_of("app", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    assert_int_equal(exchange(&s, cl, EP_HTTP_1_1, NULL), 200);
    ep_conn_close(server.last);
    settle(&s);
    assert_int_equal(exchange(&s, cl, EP_HTTP_1_1, NULL), 200);
    assert_int_equal(server.connections, 2);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

static void test_limit_evicts_idle_ones(void **state)
{
    struct stage s;
    struct server one, two;

    (void)state;
    stage_open(&s);
    server_open(&one, &s, SERVER_H1);
    server_open(&two, &s, SERVER_H1);
    struct ep_addr both[] = {one.addr, two.addr};
    struct ep_cluster_config config = config_of("app", both, 2);
    config.limits.connections = 1;
    config.balance = EP_BALANCE_ROUND_ROBIN;
    struct ep_cluster *cl = cluster_of(&s, &config);

    for (int i = 0; i < 6; i++) /* each turn the other's idle connection has to go */
        assert_int_equal(exchange(&s, cl, EP_HTTP_1_1, NULL), 200);
    assert_int_equal(one.requests, 3);
    assert_int_equal(two.requests, 3);
    assert_true(one.open + two.open <= 1);
    ep_cluster_unref(cl);
    server_close(&one);
    server_close(&two);
    stage_close(&s);
}

static void test_tcp(void **state)
{
    struct stage s;
    struct server server;
    struct caller c;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_TCP);
    struct ep_cluster_config config = config_of("db", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    caller_init(&c, &s, cl, EP_HTTP_TCP);
    c.call.tunnel = true;
    caller_go(&c);
    UNTIL(&s, c.status == 200);
    struct ep_slab *slab = ep_slab_new(&s.w.slabs);
    memcpy(slab->data, "hello", 5);
    c.leg->ops->data(c.leg, (struct ep_slice){slab, slab->data, 5}, true);
    UNTIL(&s, c.ended);
    assert_int_equal(c.body_n, 5);
    assert_memory_equal(c.body, "hello", 5);
    caller_done(&c);
    settle(&s);
    assert_int_equal(cell(&s, EP_METRIC_UPSTREAM_ACTIVE, EP_LABELS(S("db"))), 0);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

static void test_auto_speaks_as_the_caller(void **state)
{
    struct stage s;
    struct server h1, h2;

    (void)state;
    stage_open(&s);
    server_open(&h1, &s, SERVER_H1);
    server_open(&h2, &s, SERVER_H2);
    struct ep_cluster_config one = config_of("one", &h1.addr, 1), two = config_of("two", &h2.addr, 1);
    struct ep_cluster *a = cluster_of(&s, &one), *b = cluster_of(&s, &two);

    assert_int_equal(exchange(&s, a, EP_HTTP_1_1, NULL), 200);
    assert_int_equal(exchange(&s, a, EP_HTTP_1_0, NULL), 200);
    assert_int_equal(exchange(&s, a, EP_HTTP_NONE, NULL), 200);
    assert_int_equal(exchange(&s, b, EP_HTTP_2, NULL), 200);
    ep_cluster_unref(a);
    ep_cluster_unref(b);
    one.protocol = EP_PROTO_HTTP1;
    two.protocol = EP_PROTO_H2;
    a = cluster_of(&s, &one);
    b = cluster_of(&s, &two);
    assert_int_equal(exchange(&s, a, EP_HTTP_2, NULL), 200);
    assert_int_equal(exchange(&s, b, EP_HTTP_1_1, NULL), 200);
    ep_cluster_unref(a);
    ep_cluster_unref(b);
    server_close(&h1);
    server_close(&h2);
    stage_close(&s);
}

static void test_websocket_needs_extended_connect(void **state)
{
    struct stage s;
    struct server server;
    struct caller c;

    (void)state;
    for (int able = 0; able <= 1; able++) {
        stage_open(&s);
        server_open(&server, &s, SERVER_H2);
        server.options.extended_connect = able;
        struct ep_cluster_config config = config_of("tools", &server.addr, 1);
        struct ep_cluster *cl = cluster_of(&s, &config);

        for (int i = 0; i < 2; i++) { /* on a new connection, and on one that is known */
            caller_init(&c, &s, cl, EP_HTTP_2);
            c.call.websocket = true;
            caller_go(&c);
            UNTIL(&s, c.leg || c.failed);
            assert_int_equal(c.failed, !able);
            if (c.failed)
                assert_int_equal(c.why, EP_UPSTREAM_PROTOCOL);
            caller_done(&c);
            settle(&s);
        }
        assert_int_equal(server.connections, 1);
        ep_cluster_unref(cl);
        server_close(&server);
        stage_close(&s);
    }
}

static void test_refused(void **state)
{
    struct stage s;
    struct server server;
    struct caller c[3];

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    server_stop_listening(&server);
    struct ep_cluster_config config = config_of("tools", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    for (int version = EP_HTTP_1_1; version <= EP_HTTP_2; version++) {
        for (int i = 0; i < 3; i++)
            call(&c[i], &s, cl, (enum ep_http_version)version);
        for (int i = 0; i < 3; i++) {
            UNTIL(&s, c[i].failed);
            assert_int_equal(c[i].why, EP_UPSTREAM_CONNECT);
            assert_non_null(c[i].call.endpoint); /* for `avoid` */
            caller_done(&c[i]);
        }
    }
    assert_string_equal(ep_upstream_failure_name(EP_UPSTREAM_CONNECT), "connect_refused");
    assert_string_equal(ep_upstream_failure_flag(EP_UPSTREAM_CONNECT), "UF");
    assert_int_equal(cell(&s, EP_METRIC_UPSTREAM_CONNECTIONS, EP_LABELS(S("tools"), S("refused"))), 4);
    assert_int_equal(cell(&s, EP_METRIC_UPSTREAM_REQUESTS, EP_LABELS(S("tools"), S(""), S("connect_refused"))), 6);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

static void test_connect_timeout(void **state)
{
    struct stage s;
    struct caller c;
    struct ep_addr nowhere;
    int fds[3];

    (void)state;
    stage_open(&s);
    /* A listener with a full backlog: the kernel drops further SYNs. */
    assert_true(ep_addr_parse(S("127.0.0.1:0"), &nowhere));
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fds[0], &nowhere.u.sa, nowhere.len), 0);
    assert_int_equal(listen(fds[0], 0), 0);
    assert_int_equal(getsockname(fds[0], &nowhere.u.sa, &nowhere.len), 0);
    for (int i = 1; i < 3; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fds[i], &nowhere.u.sa, nowhere.len);
    }
    struct ep_cluster_config config = config_of("far", &nowhere, 1);
    config.connect_timeout_ns = 20 * EP_MS;
    struct ep_cluster *cl = cluster_of(&s, &config);

    call(&c, &s, cl, EP_HTTP_2);
    UNTIL(&s, c.failed);
    assert_int_equal(c.why, EP_UPSTREAM_CONNECT_TIMEOUT);
    caller_done(&c);
    ep_cluster_unref(cl);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    stage_close(&s);
}

static void test_breakers(void **state)
{
    struct stage s;
    struct server server;
    struct caller c[3];

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H1);
    server.status = 0;
    struct ep_cluster_config config = config_of("app", &server.addr, 1);
    config.limits.pending = 1;
    struct ep_cluster *cl = cluster_of(&s, &config);

    call(&c[0], &s, cl, EP_HTTP_1_1);
    call(&c[1], &s, cl, EP_HTTP_1_1); /* one waits already */
    settle(&s);
    assert_true(c[1].failed && c[1].why == EP_UPSTREAM_OVERFLOW);
    assert_int_equal(cell(&s, EP_METRIC_BREAKER, EP_LABELS(S("app"), S("pending"))), 1);
    caller_done(&c[0]);
    caller_done(&c[1]);
    ep_cluster_unref(cl);

    config.limits.pending = 10;
    config.limits.requests = 2;
    cl = cluster_of(&s, &config);
    for (int i = 0; i < 3; i++)
        call(&c[i], &s, cl, EP_HTTP_1_1);
    UNTIL(&s, c[0].leg && c[1].leg);
    assert_true(c[2].failed && c[2].why == EP_UPSTREAM_OVERFLOW);
    for (int i = 0; i < 3; i++)
        caller_done(&c[i]);
    call(&c[0], &s, cl, EP_HTTP_1_1); /* there is room again */
    UNTIL(&s, c[0].leg);
    caller_done(&c[0]);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

static void test_queue_timeout(void **state)
{
    struct stage s;
    struct server server;
    struct caller a, b;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H1);
    server.status = 0;
    struct ep_cluster_config config = config_of("app", &server.addr, 1);
    config.limits.connections = 1;
    config.queue_timeout_ns = 20 * EP_MS;
    struct ep_cluster *cl = cluster_of(&s, &config);

    call(&a, &s, cl, EP_HTTP_1_1);
    call(&b, &s, cl, EP_HTTP_1_1);
    UNTIL(&s, b.failed);
    assert_int_equal(b.why, EP_UPSTREAM_QUEUE_TIMEOUT);
    assert_non_null(a.leg);
    caller_done(&a);
    caller_done(&b);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

static void test_cancel(void **state)
{
    struct stage s;
    struct server server;
    struct caller a, b, c;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    struct ep_cluster_config config = config_of("tools", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    call(&a, &s, cl, EP_HTTP_2); /* cancelled while it waits */
    ep_upstream_cancel(&a.call);
    call(&b, &s, cl, EP_HTTP_2); /* whose on_leg cancels the next in the queue */
    call(&c, &s, cl, EP_HTTP_2);
    b.other = &c;
    UNTIL(&s, b.ended);
    settle(&s);
    assert_true(!a.leg && !a.failed && !c.leg && !c.failed);
    assert_int_equal(server.requests, 1);
    caller_done(&a);
    caller_done(&b);
    caller_done(&c);
    ep_cluster_unref(cl);

    config.limits.requests = 0; /* cancelled when its failure is on the way */
    cl = cluster_of(&s, &config);
    call(&a, &s, cl, EP_HTTP_2);
    ep_upstream_cancel(&a.call);
    settle(&s);
    assert_false(a.failed);
    caller_done(&a);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

static void test_goaway(void **state)
{
    struct stage s;
    struct server server;
    struct caller a;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    struct ep_cluster_config config = config_of("tools", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 200);
    server.status = 0;
    call(&a, &s, cl, EP_HTTP_2);
    UNTIL(&s, server.requests == 2);
    ep_codec_drain(server.last, 0);
    settle(&s);
    server.status = 200;
    assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 200); /* on another one */
    assert_int_equal(server.connections, 2);
    server_answer(&server, 200, 1);
    UNTIL(&s, a.ended);
    assert_int_equal(a.status, 200); /* and what was under way went on */
    caller_done(&a);
    UNTIL(&s, server.open == 1);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_h2_shares_one_connection),
        cmocka_unit_test(test_h2_opens_more_when_full),
        cmocka_unit_test(test_h2_capacity_serves_waiters),
        cmocka_unit_test(test_h1_pools),
        cmocka_unit_test(test_h1_waits_its_turn),
        cmocka_unit_test(test_h1_closed_while_idle),
        cmocka_unit_test(test_limit_evicts_idle_ones),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_auto_speaks_as_the_caller),
        cmocka_unit_test(test_websocket_needs_extended_connect),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_connect_timeout),
        cmocka_unit_test(test_breakers),
        cmocka_unit_test(test_queue_timeout),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_goaway),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
