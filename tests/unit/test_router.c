/* link: ep_filters */
/* The router: what may be tried again, as a table, and tries against upstreams that fail in one way or another. */
#include "proxy_play.h"

#include "router/router.h"

/* --- the rules --- */

#define ON(...) (const char *[]){__VA_ARGS__, NULL}

static void test_rules(void **state)
{
    enum { NEW = 1, GONE = 2, HEARD = 4 }; /* a new connection; the body is gone; something of a response came */
    static const char *const none[] = {NULL};
    const struct {
        const char *method;
        enum router_failure why;
        unsigned status;
        unsigned flags;
        const char *const *on; /* NULL: the route has no retry */
        unsigned retries;
        bool may;
    } rows[] = {
        /* without a `retry` on the route: once, what the upstream has not seen */
        {"POST", ROUTER_CONNECT, 0,   0,          NULL, 0, true},
        {"POST", ROUTER_CONNECT, 0,   GONE,       NULL, 0, true}, /* nothing of the body has left */
        {"POST", ROUTER_CONNECT, 0,   0,          NULL, 1, false},
        {"POST", ROUTER_REFUSED, 0,   0,          NULL, 0, true},
        {"POST", ROUTER_REFUSED, 0,   GONE,       NULL, 0, false},
        {"POST", ROUTER_RESET,   0,   0,          NULL, 0, false},
        {"GET",  ROUTER_RESET,   0,   0,          NULL, 0, true},
        {"PUT",  ROUTER_RESET,   0,   0,          NULL, 0, true},
        {"PUT",  ROUTER_RESET,   0,   GONE,       NULL, 0, false},
        {"GET",  ROUTER_RESET,   0,   NEW,        NULL, 0, false},
        {"GET",  ROUTER_RESET,   0,   HEARD,      NULL, 0, false},
        {"GET",  ROUTER_TIMEOUT, 0,   0,          NULL, 0, false},
        {"GET",  ROUTER_STATUS,  503, 0,          NULL, 0, false},
        /* with an empty list: the same, as often as it says */
        {"POST", ROUTER_CONNECT, 0,   0,          none, 2, true},
        {"POST", ROUTER_CONNECT, 0,   0,          none, 3, false},
        {"POST", ROUTER_REFUSED, 0,   0,          none, 0, true},
        {"GET",  ROUTER_RESET,   0,   0,          none, 0, true},
        {"GET",  ROUTER_RESET,   0,   NEW,        none, 0, false},
        /* what is listed, and nothing else */
        {"POST", ROUTER_CONNECT, 0,   0,          ON("reset"), 0, false},
        {"POST", ROUTER_CONNECT, 0,   0,          ON("connect"), 0, true},
        {"POST", ROUTER_REFUSED, 0,   0,          ON("refused"), 0, true},
        {"POST", ROUTER_REFUSED, 0,   0,          ON("timeout"), 0, false},
        {"GET",  ROUTER_RESET,   0,   NEW,        ON("reset"), 0, true},
        {"GET",  ROUTER_RESET,   0,   NEW | HEARD, ON("reset"), 0, false},
        {"POST", ROUTER_RESET,   0,   0,          ON("reset"), 0, false}, /* it may have been done */
        {"DELETE", ROUTER_TIMEOUT, 0, 0,          ON("timeout"), 0, true},
        {"POST", ROUTER_TIMEOUT, 0,   0,          ON("timeout"), 0, false},
        {"GET",  ROUTER_STATUS,  500, 0,          ON("gateway-error"), 0, false},
        {"GET",  ROUTER_STATUS,  502, 0,          ON("gateway-error"), 0, true},
        {"GET",  ROUTER_STATUS,  504, 0,          ON("gateway-error"), 0, true},
        {"GET",  ROUTER_STATUS,  505, 0,          ON("gateway-error"), 0, false},
        {"GET",  ROUTER_STATUS,  500, 0,          ON("5xx"), 0, true},
        {"POST", ROUTER_STATUS,  500, 0,          ON("5xx"), 0, false},
        {"GET",  ROUTER_STATUS,  503, 0,          ON("reset", "503"), 0, true},
        {"GET",  ROUTER_STATUS,  500, 0,          ON("reset", "503"), 0, false},
        {"PUT",  ROUTER_STATUS,  503, GONE,       ON("5xx"), 0, false},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_chunk_pool pool;
        struct ep_stream s = {.magic = EP_STREAM_MAGIC};
        struct ep_str on[4];
        struct ep_retry_config retry = {.attempts = 3, .on = {on, 0}};
        struct ep_route_config config = {.retry = rows[i].on ? &retry : NULL};
        struct ep_route route = {.config = &config};
        struct router r = {.stream = &s, .route = &route, .retries = rows[i].retries};

        for (size_t k = 0; rows[i].on && rows[i].on[k]; k++)
            on[retry.on.n++] = ep_str(rows[i].on[k]);
        r.call.new_connection = rows[i].flags & NEW;
        r.replay_whole = !(rows[i].flags & GONE);
        r.unanswered = !(rows[i].flags & HEARD);
        ep_chunk_pool_init(&pool, 0);
        ep_arena_init(&s.arena, &pool);
        ep_headers_init(&s.request.headers, &s.arena);
        ep_headers_add_id(&s.request.headers, EP_HDR_METHOD, ep_str(rows[i].method));
        if (router_may_retry(&r, rows[i].why, rows[i].status) != rows[i].may)
            fail_msg("row %zu", i);
        ep_arena_fini(&s.arena);
        ep_chunk_pool_fini(&pool);
    }
}

/* --- tries --- */

static uint64_t retries(struct proxy *p, const char *result)
{
    return cell(&p->s, EP_METRIC_RETRIES, EP_LABELS(EP_STR("c"), ep_str(result)));
}

/* An upstream that takes no connection at first: what came of a body meanwhile goes out whole with the second try, also
 * when it is more than is kept for replays. */
static void test_connect_retried_with_a_large_body(void **state)
{
    struct proxy p;
    struct wire client, up, filler[2];
    static char body[100000];
    bool found = false;

    (void)state;
    proxy_init(&p);
    p.cluster_config.connect_timeout_ns = 200 * EP_MS;
    assert_int_equal(listen(p.upstream, 0), 0);
    proxy_start(&p);
    for (size_t i = 0; i < EP_COUNT(filler); i++) /* the queue of the kernel is full: further ones are not answered */
        wire_dial(&filler[i], &p.s, &p.upstream_addr);
    memset(body, 'x', sizeof body);
    wire_dial(&client, &p.s, &p.addr);
    wire_say(&client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    wire_say_n(&client, body, sizeof body);
    UNTIL(&p.s, retries(&p, "done") == 1);
    assert_int_equal(listen(p.upstream, 64), 0);
    for (int i = 0; i < 3 && !found; i++) {
        upstream_accept(&p, &up);
        UNTIL(&p.s, up.total > 0 || i == 0 || p.l->n_streams == 0 || up.ended);
        found = up.total > 0;
        if (!found)
            wire_close(&up, false);
    }
    assert_true(found);
    UNTIL(&p.s, up.total > sizeof body);
    wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    HEARS(&client, "\r\n\r\nok");
    assert_non_null(strstr(client.got, "200 OK"));
    for (size_t i = 0; i < EP_COUNT(filler); i++)
        wire_close(&filler[i], true);
    wire_close(&client, false);
    wire_close(&up, false);
    proxy_close(&p);
}

static void test_reused_connection_that_died(void **state)
{
    struct proxy p;
    struct wire client, up, second;

    (void)state;
    proxy_open(&p);
    wire_dial(&client, &p.s, &p.addr);
    wire_say(&client, "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n");
    upstream_accept(&p, &up);
    HEARS(&up, "GET /1");
    wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none");
    HEARS(&client, "one");
    wire_forget(&up);
    wire_say(&client, "GET /2 HTTP/1.1\r\nhost: a\r\n\r\n");
    HEARS(&up, "GET /2");
    wire_close(&up, true); /* as if it had been closed just before */
    upstream_accept(&p, &second);
    HEARS(&second, "GET /2");
    wire_say(&second, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntwo");
    HEARS(&client, "two");
    assert_int_equal(retries(&p, "done"), 1);
    /* what is no idempotent request is not done twice */
    wire_forget(&second);
    wire_say(&client, "POST /3 HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx");
    HEARS(&second, "POST /3");
    wire_close(&second, true);
    HEARS(&client, "502 Bad Gateway");
    assert_int_equal(retries(&p, "done"), 1);
    wire_close(&client, false);
    proxy_close(&p);
}

static void test_status_retried(void **state)
{
    static struct ep_str on[] = {EP_STR_INIT("5xx")};
    struct proxy p;
    struct wire client, up, second;

    (void)state;
    proxy_init(&p);
    p.retry = (struct ep_retry_config){.attempts = 1, .on = {on, 1}, .budget = 1};
    p.route.retry = &p.retry;
    p.cluster_config.limits.retries = 1;
    proxy_start(&p);
    wire_dial(&client, &p.s, &p.addr);
    wire_say(&client, "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
    upstream_accept(&p, &up);
    HEARS(&up, "\r\n\r\nbody");
    wire_say(&up, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy");
    upstream_accept(&p, &second);
    HEARS(&second, "\r\n\r\nbody");
    wire_say(&second, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    HEARS(&client, "\r\n\r\nok");
    assert_false(wire_has(&client, "busy"));
    wire_close(&client, false);
    wire_close(&up, false);
    wire_close(&second, false);
    proxy_close(&p);
}

/* A refusal while a connection is still dialled: the upstream hears nothing of the request. */
static void test_refused_while_dialling(void **state)
{
    struct proxy p;
    struct wire client, up;

    (void)state;
    proxy_open(&p);
    wire_dial(&client, &p.s, &p.addr);
    test_script.request_body = EP_REPLIED;
    wire_say(&client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nevil");
    HEARS(&client, "403 Forbidden");
    UNTIL(&p.s, p.l->n_streams == 0);
    settle(&p.s);
    if (upstream_try(&p, &up)) {
        settle(&p.s);
        assert_int_equal(up.total, 0);
        wire_close(&up, false);
    }
    wire_close(&client, false);
    proxy_close(&p);
}

/* The whole time of a request is over while it waits in the queue: no try follows. */
static void test_timeout_in_the_queue(void **state)
{
    struct proxy p;
    struct wire a, b, up, second;

    (void)state;
    proxy_init(&p);
    p.cluster_config.limits.connections = 1;
    p.route.timeout_ns = 100 * EP_MS;
    proxy_start(&p);
    wire_dial(&a, &p.s, &p.addr);
    wire_say(&a, "GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
    upstream_accept(&p, &up);
    HEARS(&up, "GET /a");
    wire_dial(&b, &p.s, &p.addr);
    wire_say(&b, "GET /b HTTP/1.1\r\nhost: a\r\n\r\n");
    HEARS(&a, "504 Gateway");
    HEARS(&b, "504 Gateway");
    UNTIL(&p.s, p.l->n_streams == 0);
    settle(&p.s);
    assert_false(wire_has(&up, "GET /b"));
    if (upstream_try(&p, &second)) /* b gets the place that a left, for the moment that is left to it */
        wire_close(&second, false);
    wire_close(&a, false);
    wire_close(&b, false);
    wire_close(&up, false);
    proxy_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_connect_retried_with_a_large_body),
        cmocka_unit_test(test_reused_connection_that_died),
        cmocka_unit_test(test_status_retried),
        cmocka_unit_test(test_refused_while_dialling),
        cmocka_unit_test(test_timeout_in_the_queue),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
