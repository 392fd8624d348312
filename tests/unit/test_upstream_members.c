/* link: ep_upstream */
/* The endpoints of clusters: ejection, probes, loops, original destinations; how clusters begin and end. */
#include "upstream_play.h"

#define S(text) EP_STR(text)

static void test_ejection(void **state)
{
    struct stage s;
    struct server good, bad;
    unsigned to_bad;

    (void)state;
    stage_open(&s);
    server_open(&good, &s, SERVER_H2);
    server_open(&bad, &s, SERVER_H2);
    bad.status = 503;
    struct ep_addr both[] = {good.addr, bad.addr};
    struct ep_cluster_config config = config_of("tools", both, 2);
    config.balance = EP_BALANCE_ROUND_ROBIN;
    config.outlier.consecutive_5xx = 3;
    config.outlier.ejection_ns = 200 * EP_MS;
    struct ep_cluster *cl = cluster_of(&s, &config);

    for (int i = 0; i < 20; i++)
        exchange(&s, cl, EP_HTTP_2, NULL);
    assert_int_equal(bad.requests, 3);
    assert_int_equal(good.requests, 17);
    assert_int_equal(cl->n_ejected, 1);
    bad.status = 200;
    UNTIL(&s, cl->n_ejected == 0);
    to_bad = bad.requests;
    for (int i = 0; i < 4; i++)
        assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 200);
    assert_int_equal(bad.requests, to_bad + 2);
    ep_cluster_unref(cl);
    server_close(&good);
    server_close(&bad);
    stage_close(&s);
}

/* A cluster of one is never ejected whole (max_ejected 50%); below the panic threshold everybody is used. */
static void test_last_one_stays(void **state)
{
    struct stage s;
    struct server bad;

    (void)state;
    stage_open(&s);
    server_open(&bad, &s, SERVER_H2);
    bad.status = 500;
    struct ep_cluster_config config = config_of("tools", &bad.addr, 1);
    config.outlier.consecutive_5xx = 1;
    struct ep_cluster *cl = cluster_of(&s, &config);

    for (int i = 0; i < 5; i++)
        assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 500);
    ep_cluster_unref(cl);
    config.outlier.max_ejected = 1;
    config.panic = 0;
    cl = cluster_of(&s, &config);
    assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 500);
    struct caller c;
    exchange(&s, cl, EP_HTTP_2, &c);
    assert_true(c.failed && c.why == EP_UPSTREAM_NO_ENDPOINT);
    ep_cluster_unref(cl);
    config.panic = 0.5;
    cl = cluster_of(&s, &config);
    for (int i = 0; i < 3; i++)
        assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 500);
    assert_true(cl->panicking);
    ep_cluster_unref(cl);
    server_close(&bad);
    stage_close(&s);
}

static void test_avoid(void **state)
{
    struct stage s;
    struct server one, two;
    struct caller a, b;

    (void)state;
    stage_open(&s);
    server_open(&one, &s, SERVER_H2);
    server_open(&two, &s, SERVER_H2);
    struct ep_addr both[] = {one.addr, two.addr};
    struct ep_cluster_config config = config_of("tools", both, 2);
    struct ep_cluster *cl = cluster_of(&s, &config);

    for (int i = 0; i < 10; i++) {
        assert_int_equal(exchange(&s, cl, EP_HTTP_2, &a), 200);
        caller_init(&b, &s, cl, EP_HTTP_2);
        b.call.avoid = a.call.endpoint;
        caller_go(&b);
        UNTIL(&s, b.ended);
        assert_string_not_equal(a.endpoint, b.endpoint);
        caller_done(&b);
    }
    ep_cluster_unref(cl);
    server_close(&one);
    server_close(&two);
    stage_close(&s);
}

static void test_loop(void **state)
{
    struct stage s;
    struct server server;
    struct caller c;
    struct ep_addr wildcard;
    char text[64];

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    snprintf(text, sizeof text, "0.0.0.0:%u", ep_addr_port(&server.addr));
    assert_true(ep_addr_parse(ep_str(text), &wildcard));
    struct ep_addr own[2] = {server.addr, wildcard};
    for (int i = 0; i < 2; i++) {
        s.env.own = &own[i];
        s.env.n_own = 1;
        struct ep_cluster_config config = config_of("self", &server.addr, 1);
        struct ep_cluster *cl = cluster_of(&s, &config);
        exchange(&s, cl, EP_HTTP_2, &c);
        assert_true(c.failed && c.why == EP_UPSTREAM_LOOP);
        ep_cluster_unref(cl);

        config = config_of("orig", NULL, 0);
        config.original_destination = true;
        cl = cluster_of(&s, &config);
        caller_init(&c, &s, cl, EP_HTTP_2);
        c.call.original = &server.addr;
        caller_go(&c);
        UNTIL(&s, c.failed);
        assert_int_equal(c.why, EP_UPSTREAM_LOOP);
        caller_done(&c);
        ep_cluster_unref(cl);
    }
    assert_int_equal(server.connections, 0);
    server_close(&server);
    stage_close(&s);
}

static unsigned exchange_with(struct stage *s, struct ep_cluster *cl, const struct ep_addr *to, struct caller *c)
{
    caller_init(c, s, cl, EP_HTTP_1_1);
    c->call.original = to;
    caller_go(c);
    UNTIL(s, c->failed || c->ended);
    caller_done(c);
    settle(s);
    return (unsigned)c->status;
}

static void test_original_destination(void **state)
{
    struct stage s;
    struct server one, two;
    struct caller c;

    (void)state;
    stage_open(&s);
    server_open(&one, &s, SERVER_H1);
    server_open(&two, &s, SERVER_H1);
    struct ep_cluster_config config = config_of("orig", NULL, 0);
    config.original_destination = true;
    config.idle_timeout_ns = 50 * EP_MS;
    struct ep_cluster *cl = cluster_of(&s, &config);

    for (int i = 0; i < 3; i++) {
        assert_int_equal(exchange_with(&s, cl, &one.addr, &c), 200);
        assert_int_equal(exchange_with(&s, cl, &two.addr, &c), 200);
    }
    assert_int_equal(one.requests, 3);
    assert_int_equal(two.requests, 3);
    assert_int_equal(one.connections, 1);
    assert_int_equal(cl->n_original, 2);
    exchange(&s, cl, EP_HTTP_1_1, &c); /* a call without one */
    assert_true(c.failed && c.why == EP_UPSTREAM_NO_ENDPOINT);
    UNTIL(&s, cl->n_original == 0); /* unused ones are forgotten */
    assert_int_equal(exchange_with(&s, cl, &one.addr, &c), 200);
    ep_cluster_unref(cl);
    server_close(&one);
    server_close(&two);
    stage_close(&s);
}

static void test_original_destinations_are_bounded(void **state)
{
    struct stage s;
    struct ep_addr a;
    char text[64];

    (void)state;
    stage_open(&s);
    struct ep_cluster_config config = config_of("orig", NULL, 0);
    config.original_destination = true;
    struct ep_cluster *cl = cluster_of(&s, &config);

    for (unsigned i = 0; i < 3000; i++) {
        snprintf(text, sizeof text, "10.1.%u.%u:80", i / 250, i % 250);
        assert_true(ep_addr_parse(ep_str(text), &a));
        assert_non_null(ep_members_original(cl, &a));
        settle(&s);
    }
    assert_int_equal(cl->n_original, EP_ENDPOINTS_MAX);
    ep_cluster_unref(cl);
    stage_close(&s);
}

static void test_taken_over(void **state)
{
    struct stage s;
    struct server server;
    struct caller a, b;
    struct ep_error err;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    struct ep_cluster_config config = config_of("tools", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    assert_int_equal(exchange(&s, cl, EP_HTTP_2, &a), 200);
    assert_ptr_equal(ep_cluster_new(&s.env, &config, cl, &err), cl);
    ep_cluster_unref(cl);
    assert_int_equal(exchange(&s, cl, EP_HTTP_2, &b), 200);
    assert_ptr_equal(a.conn, b.conn);
    /* another one: the old lives until its exchange has ended */
    server.status = 0;
    call(&a, &s, cl, EP_HTTP_2);
    UNTIL(&s, server.requests == 3);
    config.limits.requests++;
    struct ep_cluster *next = ep_cluster_new(&s.env, &config, cl, &err);
    assert_ptr_not_equal(next, cl);
    ep_cluster_unref(cl);
    settle(&s);
    assert_int_equal(server.open, 1);
    server_answer(&server, 200, 1);
    UNTIL(&s, a.ended);
    assert_int_equal(a.status, 200);
    caller_done(&a);
    UNTIL(&s, server.open == 0);
    server.status = 200;
    assert_int_equal(exchange(&s, next, EP_HTTP_2, NULL), 200);
    ep_cluster_unref(next);
    server_close(&server);
    stage_close(&s);
}

/* The last user goes while requests wait: they are told, and everything is freed. */
static void test_ends_with_waiters(void **state)
{
    struct stage s;
    struct server server;
    struct caller a, b;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H1);
    struct ep_cluster_config config = config_of("app", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    call(&a, &s, cl, EP_HTTP_1_1);
    call(&b, &s, cl, EP_HTTP_2);
    ep_cluster_unref(cl);
    UNTIL(&s, a.failed && b.failed);
    assert_int_equal(a.why, EP_UPSTREAM_NO_ENDPOINT);
    caller_done(&a);
    caller_done(&b);
    server_close(&server);
    stage_close(&s);
}

static void test_server_that_closes(void **state)
{
    struct stage s;
    struct server server;
    struct caller c;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_CLOSES);
    struct ep_cluster_config config = config_of("app", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);

    for (int i = 0; i < 5; i++) {
        exchange(&s, cl, i % 2 ? EP_HTTP_2 : EP_HTTP_1_1, &c);
        assert_true(c.reset || c.failed);
    }
    assert_true(server.connections <= 6);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

static void test_unix_socket(void **state)
{
    struct stage s;
    struct caller c;
    struct ep_addr path;

    (void)state;
    stage_open(&s);
    assert_true(ep_addr_parse(S("unix:@ephor-test-nobody-listens"), &path));
    struct ep_cluster_config config = config_of("app", &path, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);
    exchange(&s, cl, EP_HTTP_1_1, &c);
    assert_true(c.failed && c.why == EP_UPSTREAM_CONNECT);
    ep_cluster_unref(cl);
    stage_close(&s);
}

static void test_probe(void **state)
{
    struct stage s;
    struct server good, bad;

    (void)state;
    stage_open(&s);
    server_open(&good, &s, SERVER_H1);
    server_open(&bad, &s, SERVER_H1);
    bad.status = 500;
    struct ep_addr both[] = {good.addr, bad.addr};
    struct ep_cluster_config config = config_of("app", both, 2);
    config.probe.path = S("/health");
    config.probe.interval_ns = 10 * EP_MS;
    config.probe.unhealthy = 2;
    struct ep_cluster *cl = cluster_of(&s, &config);

    UNTIL(&s, cl->n_usable == 1);
    assert_ptr_equal(cl->usable[0], &cl->members[0]->load);
    bad.status = 204;
    UNTIL(&s, cl->n_usable == 2);
    server_stop_listening(&bad);
    UNTIL(&s, cl->n_usable == 1);
    assert_true(cell(&s, EP_METRIC_PROBES, EP_LABELS(S("app"), S("ok"))) > 2);
    assert_int_equal(good.open + bad.open <= 2, 1); /* probes leave nothing open */
    ep_cluster_unref(cl);
    UNTIL(&s, good.open + bad.open == 0);

    config.probe.path = S("");
    config.probe.tcp = true;
    cl = cluster_of(&s, &config);
    UNTIL(&s, cl->n_usable == 1);
    ep_cluster_unref(cl);
    server_close(&good);
    server_close(&bad);
    stage_close(&s);
}

static void test_probe_of_a_silent_server(void **state)
{
    struct stage s;
    struct server silent;

    (void)state;
    stage_open(&s);
    server_open(&silent, &s, SERVER_H2);
    silent.status = 0;
    struct ep_cluster_config config = config_of("app", &silent.addr, 1);
    config.protocol = EP_PROTO_H2;
    config.probe.path = S("/health");
    config.probe.interval_ns = config.probe.timeout_ns = 10 * EP_MS;
    config.probe.unhealthy = 1;
    config.panic = 0;
    struct ep_cluster *cl = cluster_of(&s, &config);

    UNTIL(&s, cl->n_usable == 0);
    silent.status = 200;
    config.probe.healthy = 1;
    UNTIL(&s, cl->n_usable == 1);
    silent.status = 0;
    unsigned before = silent.requests;
    UNTIL(&s, silent.requests > before);
    ep_cluster_unref(cl); /* in the middle of one */
    server_close(&silent);
    stage_close(&s);
}

static void test_described(void **state)
{
    struct stage s;
    struct server server;
    struct ep_json j;

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H2);
    struct ep_cluster_config config = config_of("tools", &server.addr, 1);
    struct ep_cluster *cl = cluster_of(&s, &config);
    assert_int_equal(exchange(&s, cl, EP_HTTP_2, NULL), 200);
    ep_json_init(&j);
    ep_cluster_describe(cl, &j);
    struct ep_str text = ep_json_text(&j);
    assert_true(ep_str_starts(text, S("{\"name\":\"tools\"")));
    assert_true(ep_str_search(text, S("\"healthy\":true")) > 0);
    assert_true(ep_str_search(text, S("\"h2\":1")) > 0);
    ep_json_fini(&j);
    assert_true(ep_str_eq(ep_cluster_name(cl), S("tools")));
    assert_int_equal(ep_cluster_get_config(cl)->limits.pending, 100);
    ep_cluster_unref(cl);
    server_close(&server);
    stage_close(&s);
}

/* An endpoint that leaves while a request waits for it still serves that request, and then ends. */
static void test_removed_while_dialling(void **state)
{
    struct stage s;
    struct server server;
    struct caller c[3];

    (void)state;
    stage_open(&s);
    server_open(&server, &s, SERVER_H1);
    for (int version = EP_HTTP_1_1; version <= EP_HTTP_2; version++) {
        struct ep_cluster_config config = config_of("app", &server.addr, 1);
        struct ep_cluster *cl = cluster_of(&s, &config);
        unsigned before = server.connections;

        server.speaks = version == EP_HTTP_2 ? SERVER_H2 : SERVER_H1;
        for (int i = 0; i < 3; i++)
            call(&c[i], &s, cl, (enum ep_http_version)version);
        ep_members_set(cl, NULL, 0);
        for (int i = 0; i < 3; i++) {
            UNTIL(&s, c[i].ended);
            assert_int_equal(c[i].status, 200);
            caller_done(&c[i]);
        }
        UNTIL(&s, server.open == 0);
        assert_true(server.connections - before <= 3);
        settle(&s);
        assert_true(ep_list_empty(&cl->endpoints));
        ep_cluster_unref(cl);
    }
    server_close(&server);
    stage_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ejection),
        cmocka_unit_test(test_last_one_stays),
        cmocka_unit_test(test_avoid),
        cmocka_unit_test(test_loop),
        cmocka_unit_test(test_original_destination),
        cmocka_unit_test(test_original_destinations_are_bounded),
        cmocka_unit_test(test_taken_over),
        cmocka_unit_test(test_ends_with_waiters),
        cmocka_unit_test(test_server_that_closes),
        cmocka_unit_test(test_unix_socket),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_probe_of_a_silent_server),
        cmocka_unit_test(test_described),
        cmocka_unit_test(test_removed_while_dialling),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
