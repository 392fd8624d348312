/* link: ep_filters */
/* Requests that a filter makes by itself: what is on the wire, every way to end, and nothing left afterwards. */
#include "proxy_play.h"

#include "http_call.h"

static struct proxy p;

/* What `done` was told. */
static struct told {
    unsigned n, status;
    char failure[32], body[256], header[64];
    bool inside; /* start hasn't returned yet */
} told;

static void on_done(void *user, const struct ep_http_call_reply *r)
{
    struct ep_str x = ep_headers_get(r->headers, EP_STR("x-a"));

    assert_ptr_equal(user, &told);
    assert_false(told.inside);
    told.n++;
    told.status = r->status;
    snprintf(told.failure, sizeof told.failure, "%s", r->failure ? r->failure : "");
    snprintf(told.body, sizeof told.body, "%.*s", EP_STR_ARG(r->body));
    snprintf(told.header, sizeof told.header, "%.*s", EP_STR_ARG(x));
}

static struct ep_http_call_request get(const char *path)
{
    return (struct ep_http_call_request){
        .view = &p.view,
        .cluster = ep_http_call_cluster(&p.view, EP_STR("c")),
        .owner = EP_STR_INIT("play"),
        .method = EP_STR_INIT("GET"),
        .path = ep_str(path),
        .authority = EP_STR_INIT("token.svc"),
        .done = on_done,
        .user = &told,
    };
}

static struct ep_http_call *begin(const struct ep_http_call_request *q)
{
    struct ep_error err = {""};
    struct ep_http_call *c;

    memset(&told, 0, sizeof told);
    told.inside = true;
    c = ep_http_call_start(q, &err);
    told.inside = false;
    if (!c)
        fail_msg("%s", err.text);
    return c;
}

static void opened(void)
{
    proxy_open(&p);
    p.view.clusters = &p.cluster;
    p.view.n_clusters = 1;
}

static void closed(struct wire *up)
{
    UNTIL(&p.s, !p.s.w.http_calls);
    if (up)
        wire_close(up, false);
    settle(&p.s);
    proxy_close(&p);
}

static uint64_t counted(const char *result)
{
    return cell(&p.s, EP_METRIC_HTTP_CALLS, EP_LABELS(EP_STR("play"), EP_STR("c"), ep_str(result)));
}

static void test_answered(void **state)
{
    const struct ep_reply_header headers[] = {{EP_STR_INIT("X-Who"), EP_STR_INIT("me")},
                                              {EP_STR_INIT("Content-Length"), EP_STR_INIT("99")},
                                              {EP_STR_INIT("Connection"), EP_STR_INIT("close")},
                                              {EP_STR_INIT("Host"), EP_STR_INIT("elsewhere")}};
    struct ep_http_call_request q;
    struct wire up;

    (void)state;
    opened();
    q = get("/check?a=1");
    q.headers = headers;
    q.n_headers = EP_COUNT(headers);
    begin(&q);
    upstream_accept(&p, &up);
    HEARS(&up, "\r\n\r\n");
    assert_true(wire_has(&up, "GET /check?a=1 HTTP/1.1\r\n"));
    assert_true(wire_has(&up, "host: token.svc\r\n") && wire_has(&up, "x-who: me\r\n"));
    assert_false(wire_has(&up, "99") || wire_has(&up, "close") || wire_has(&up, "elsewhere"));
    assert_int_equal(told.n, 0);
    wire_say(&up,
             "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 5\r\n\r\nhel");
    settle(&p.s);
    assert_int_equal(told.n, 0); /* only whole answers are told */
    wire_say(&up, "lo");
    UNTIL(&p.s, told.n == 1);
    assert_int_equal(told.status, 200);
    assert_string_equal(told.failure, "");
    assert_string_equal(told.body, "hello");
    assert_string_equal(told.header, "b");
    assert_int_equal(counted("2xx"), 1);

    q = get("/post"); /* the connection is used again */
    q.method = EP_STR("POST");
    q.body = EP_STR("abc");
    wire_forget(&up);
    begin(&q);
    HEARS(&up, "\r\n\r\nabc");
    assert_true(wire_has(&up, "POST /post HTTP/1.1\r\n") && wire_has(&up, "content-length: 3\r\n"));
    wire_say(&up, "HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n1\r\n!\r\n0\r\nx-t: u\r\n\r\n");
    UNTIL(&p.s, told.n == 1);
    assert_int_equal(told.status, 503);
    assert_string_equal(told.body, "no!");
    assert_int_equal(counted("5xx"), 1);
    closed(&up);
}

static void test_nobody_listens(void **state)
{
    struct ep_http_call_request q;

    (void)state;
    opened();
    close(p.upstream);
    p.upstream = -1;
    q = get("/");
    begin(&q);
    UNTIL(&p.s, told.n == 1);
    assert_string_equal(told.failure, "connect_refused");
    assert_int_equal(told.status, 0);
    closed(NULL);
}

static void test_time_is_over(void **state)
{
    struct ep_http_call_request q;
    struct wire up;

    (void)state;
    opened();
    q = get("/slow");
    q.timeout_ns = 20 * EP_MS;
    begin(&q);
    upstream_accept(&p, &up);
    UNTIL(&p.s, told.n == 1);
    assert_string_equal(told.failure, "timeout");
    UNTIL(&p.s, up.ended || up.reset); /* an HTTP/1 connection can't be used after it */
    assert_int_equal(counted("timeout"), 1);
    closed(&up);
}

static void test_resets(void **state)
{
    static const char *const said[] = {"", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", "no HTTP at all\r\n\r\n"};
    struct wire up;

    (void)state;
    opened();
    for (size_t i = 0; i < EP_COUNT(said); i++) {
        struct ep_http_call_request q = get("/");
        q.method = EP_STR("POST");
        q.body = EP_STR("x");
        begin(&q);
        upstream_accept(&p, &up);
        HEARS(&up, "\r\n\r\nx");
        wire_say(&up, said[i]);
        wire_close(&up, true);
        UNTIL(&p.s, told.n == 1);
        assert_string_equal(told.failure, "reset");
        settle(&p.s);
    }
    closed(NULL);
}

/* An idle connection that the server closed just as the call went out: once more when it may be, else a failure. */
static void test_stale_connection(void **state)
{
    struct ep_http_call_request q;
    struct wire up;

    (void)state;
    for (int post = 0; post < 2; post++) {
        opened();
        q = get("/1");
        begin(&q);
        upstream_accept(&p, &up);
        HEARS(&up, "GET /1");
        wire_say(&up, "HTTP/1.1 204 No Content\r\n\r\n");
        UNTIL(&p.s, told.n == 1);
        settle(&p.s);
        wire_forget(&up);
        q = get("/2");
        if (post)
            q.method = EP_STR("POST");
        begin(&q);
        HEARS(&up, " /2 ");
        wire_close(&up, false);
        if (post) {
            UNTIL(&p.s, told.n == 1);
            assert_string_equal(told.failure, "reset");
            closed(NULL);
            continue;
        }
        upstream_accept(&p, &up);
        HEARS(&up, "GET /2");
        wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        UNTIL(&p.s, told.n == 1);
        assert_int_equal(told.status, 200);
        closed(&up);
    }
}

static void test_too_large(void **state)
{
    struct ep_http_call_request q;
    struct wire up;

    (void)state;
    opened();
    q = get("/");
    q.reply_bytes = 4;
    begin(&q);
    upstream_accept(&p, &up);
    HEARS(&up, "GET");
    wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    UNTIL(&p.s, told.n == 1);
    assert_string_equal(told.failure, "too_large");
    wire_close(&up, false);
    settle(&p.s);

    q = get("/"); /* of a call that nobody waits for every size is good: the body is dropped as it comes */
    q.reply_bytes = 4;
    q.done = NULL;
    begin(&q);
    upstream_accept(&p, &up);
    HEARS(&up, "GET");
    wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    UNTIL(&p.s, !p.s.w.http_calls);
    assert_int_equal(told.n, 0);
    assert_int_equal(counted("2xx"), 1);
    closed(&up);
}

static void test_cancelled(void **state)
{
    struct ep_http_call *c;
    struct ep_http_call_request q;
    struct wire up;

    (void)state;
    opened();
    q = get("/");
    ep_http_call_cancel(begin(&q)); /* before it has a connection */
    settle(&p.s);
    c = begin(&q);
    upstream_accept(&p, &up);
    HEARS(&up, "GET");
    ep_http_call_cancel(c); /* while it waits for the answer */
    UNTIL(&p.s, !p.s.w.http_calls);
    begin(&q);
    wire_close(&up, false);
    ep_http_call_end_all(&p.s.w);
    UNTIL(&p.s, !p.s.w.http_calls);
    assert_int_equal(told.n, 0);
    assert_int_equal(counted("cancelled"), 3);
    closed(NULL);
}

static void test_invalid(void **state)
{
    static const struct {
        struct ep_str method, path, authority;
        struct ep_reply_header header;
        const char *error;
    } rows[] = {
        {EP_STR_INIT("G T"), EP_STR_INIT("/"), EP_STR_INIT("a"), {{NULL, 0}, {NULL, 0}}, "is no method"},
        {EP_STR_INIT(""), EP_STR_INIT("/"), EP_STR_INIT("a"), {{NULL, 0}, {NULL, 0}}, "is no method"},
        {EP_STR_INIT("CONNECT"), EP_STR_INIT("/"), EP_STR_INIT("a"), {{NULL, 0}, {NULL, 0}}, "is no method"},
        {EP_STR_INIT("GET"), EP_STR_INIT(""), EP_STR_INIT("a"), {{NULL, 0}, {NULL, 0}}, "must begin with '/'"},
        {EP_STR_INIT("GET"), EP_STR_INIT("x"), EP_STR_INIT("a"), {{NULL, 0}, {NULL, 0}}, "must begin with '/'"},
        {EP_STR_INIT("GET"), EP_STR_INIT("/a b"), EP_STR_INIT("a"), {{NULL, 0}, {NULL, 0}}, "must begin with '/'"},
        {EP_STR_INIT("GET"),
         EP_STR_INIT("/a\r\nx: y"),
         EP_STR_INIT("a"),
         {{NULL, 0}, {NULL, 0}},
         "must begin with '/'"},
        {EP_STR_INIT("GET"), EP_STR_INIT("/"), EP_STR_INIT(""), {{NULL, 0}, {NULL, 0}}, "the authority must be there"},
        {EP_STR_INIT("GET"),
         EP_STR_INIT("/"),
         EP_STR_INIT("a\nb"),
         {{NULL, 0}, {NULL, 0}},
         "the authority must be there"},
        {EP_STR_INIT("GET"),
         EP_STR_INIT("/"),
         EP_STR_INIT("a"),
         {EP_STR_INIT("a b"), EP_STR_INIT("")},
         "no name of a header"},
        {EP_STR_INIT("GET"),
         EP_STR_INIT("/"),
         EP_STR_INIT("a"),
         {EP_STR_INIT("a"), EP_STR_INIT("\r")},
         "a control character"},
        {EP_STR_INIT("GET"),
         EP_STR_INIT("/"),
         EP_STR_INIT("a"),
         {EP_STR_INIT("X-Ephor-Peer"), EP_STR_INIT("")},
         "ephor's own"},
    };
    struct ep_error err;

    (void)state;
    opened();
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_http_call_request q = get("/");
        q.method = rows[i].method;
        q.path = rows[i].path;
        q.authority = rows[i].authority;
        q.headers = &rows[i].header;
        q.n_headers = rows[i].header.name.p ? 1 : 0;
        assert_null(ep_http_call_start(&q, &err));
        if (!strstr(err.text, rows[i].error))
            fail_msg("%s", err.text);
    }
    assert_null(ep_http_call_cluster(&p.view, EP_STR("other")));
    p.cluster->config.protocol = EP_PROTO_TCP;
    assert_null(ep_http_call_cluster(&p.view, EP_STR("c")));
    closed(NULL);
}

/* Calls are limited by the cluster, as requests are, and by worker. */
static void test_limits(void **state)
{
    struct ep_error err;
    struct ep_http_call_request q;
    unsigned n;

    (void)state;
    opened();
    q = get("/");
    q.done = NULL;
    for (n = 0; n < EP_HTTP_CALLS_MAX; n++)
        assert_non_null(ep_http_call_start(&q, &err));
    q.done = on_done;
    begin(&q);
    UNTIL(&p.s, told.n == 1);
    assert_string_equal(told.failure, "limit");
    ep_http_call_end_all(&p.s.w);
    UNTIL(&p.s, !p.s.w.http_calls);
    settle(&p.s);

    p.cluster->breaker.limit[EP_BREAKER_REQUESTS] = 0;
    begin(&q);
    UNTIL(&p.s, told.n == 1);
    assert_string_equal(told.failure, "overflow");
    closed(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answered),  cmocka_unit_test(test_nobody_listens),   cmocka_unit_test(test_time_is_over),
        cmocka_unit_test(test_resets),    cmocka_unit_test(test_stale_connection), cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_cancelled), cmocka_unit_test(test_invalid),          cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
