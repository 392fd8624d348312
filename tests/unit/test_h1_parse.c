/* link: ep_http */
/* HTTP/1 without sockets: each row of the smuggling corpus, cut in two at every offset; chunks; writing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/h1.h"

struct play {
    struct ep_chunk_pool pool;
    struct ep_arena arena;
    struct ep_http_options options;
};

static void begin(struct play *p)
{
    ep_chunk_pool_init(&p->pool, 8);
    ep_arena_init(&p->arena, &p->pool);
    ep_http_options_preset(&p->options);
}

static void end(struct play *p)
{
    ep_arena_fini(&p->arena);
    ep_chunk_pool_fini(&p->pool);
}

static const struct h1_gather_limits request_limits = {16 * 1024, 64 * 1024, true, true};
static const struct h1_gather_limits response_limits = {16 * 1024, 64 * 1024, true, false};
static const struct h1_gather_limits trailer_limits = {16 * 1024, 64 * 1024, false, true};

/* Gathers the bytes in two pieces. Returns H1_DONE with a block that lives in g or in bytes. */
static enum h1_result gather(struct h1_gather *g, const struct h1_gather_limits *limits, struct ep_str bytes, size_t cut,
                             struct ep_str *block, size_t *total, struct h1_problem *problem)
{
    size_t used = 0;
    enum h1_result r = H1_MORE;

    *total = 0;
    if (cut) {
        r = h1_gather(g, limits, bytes.p, cut, &used, block, problem);
        *total = used;
    }
    if (r == H1_MORE) {
        r = h1_gather(g, limits, bytes.p + cut, bytes.n - cut, &used, block, problem);
        *total += used;
    }
    return r;
}

/* The status that the request is refused with; 0: it is good; 1: it isn't whole. */
static unsigned request_status(const struct play *p, struct ep_str bytes, size_t cut, struct h1_head *head)
{
    struct h1_gather g = {.p = NULL};
    struct h1_problem problem = {0, NULL};
    struct ep_str block;
    size_t total;
    unsigned status = 0;

    switch (gather(&g, &request_limits, bytes, cut, &block, &total, &problem)) {
    case H1_MORE:
        status = 1;
        break;
    case H1_BAD:
        status = problem.status;
        break;
    default:
        if (!h1_parse_request(head, block, &p->options, &problem))
            status = problem.status;
    }
    h1_gather_reset(&g);
    return status;
}

#define BYTES(literal) {"" literal, sizeof(literal) - 1}
#define H "Host: a\r\n"

static const struct {
    struct ep_str bytes;
    unsigned status; /* 0: good, 1: not whole */
} requests[] = {
    {BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0},
    {BYTES("GET / HTTP/1.1\r\nHost: a\r\n"), 1},
    {BYTES("GET / HTTP/1.1\r\nHost: a\r\n\r"), 1},
    {BYTES("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 0},
    {BYTES("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.0\r\n\r\n"), 0},
    {BYTES("QUERY / HTTP/1.1\r\n" H "\r\n"), 0},
    {BYTES("OPTIONS * HTTP/1.1\r\n" H "\r\n"), 0},
    {BYTES("GET http://a/x HTTP/1.1\r\n" H "\r\n"), 0},
    {BYTES("GET http://a?x HTTP/1.1\r\n" H "\r\n"), 0},
    {BYTES("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), 0},
    {BYTES("GET / HTTP/1.1\r\n" H "X:\r\n\r\n"), 0},
    {BYTES("GET / HTTP/1.1\r\n" H "X: \t \r\n\r\n"), 0},
    {BYTES("GET / HTTP/1.1\r\n" H "X: a\tb\xff\r\n\r\n"), 0},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n"), 0},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: \t5 \r\n\r\n"), 0},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"), 0},
    {BYTES("POST / HTTP/1.1\r\n" H "transfer-encoding: Chunked\r\n\r\n"), 0},
    /* lengths */
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: -5\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 1,1\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 0x10\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 1 0\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: \r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 5;\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551616\r\n\r\n"), 400},
    /* transfer-encoding */
    {BYTES("POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunkedx\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, identity\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: \x0b" "chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding: \"chunked\"\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding\t: chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H " Transfer-Encoding: chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "X: y\rTransfer-Encoding: chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "X: y\nTransfer-Encoding: chunked\r\n\r\n"), 400},
    {BYTES("POST / HTTP/1.1\r\n" H "\x01Transfer-Encoding: chunked\r\n\r\n"), 400},
    /* line ends */
    {BYTES("GET / HTTP/1.1\nHost: a\n\n"), 400},
    {BYTES("GET / HTTP/1.1\r\nHost: a\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\nHost: a\r\n\n"), 400},
    {BYTES("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"), 400},
    {BYTES("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400},
    /* names and values */
    {BYTES("GET / HTTP/1.1\r\n" H "X : y\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "X Y: z\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H ": y\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "nothing\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "X\0Y: z\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "X: y\0z\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "X: y\x7f\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "X: \x1b[0m\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "X\xe9: y\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H ":path: /\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "X(Y): z\r\n\r\n"), 400},
    /* hosts */
    {BYTES("GET / HTTP/1.1\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400},
    {BYTES("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"), 400},
    {BYTES("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    {BYTES("GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n"), 400},
    /* targets */
    {BYTES("GET  / HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET /a b HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET\t/ HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET / HTTP/1.1 \r\n" H "\r\n"), 400},
    {BYTES(" GET / HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET /#f HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET /\x01 HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET x HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET * HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET ftp://a/ HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET /\r\n" H "\r\n"), 400},
    {BYTES("GET\r\n" H "\r\n"), 400},
    {BYTES("G(T / HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("CONNECT / HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("CONNECT a HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("CONNECT a:0 HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("CONNECT a:99999 HTTP/1.1\r\n" H "\r\n"), 400},
    {BYTES("CONNECT a:80 HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n"), 400},
    /* versions */
    {BYTES("GET / HTTP/2.0\r\n" H "\r\n"), 505},
    {BYTES("PRI * HTTP/2.0\r\n\r\n"), 505},
    {BYTES("GET / HTTP/0.9\r\n" H "\r\n"), 505},
    {BYTES("GET / HTTP/1.2\r\n" H "\r\n"), 505},
    {BYTES("GET / http/1.1\r\n" H "\r\n"), 400},
    {BYTES("GET / HTTP/1.10\r\n" H "\r\n"), 400},
    {BYTES("GET / HTTP/11\r\n" H "\r\n"), 400},
    {BYTES("GET / ICE/1.0\r\n" H "\r\n"), 400},
    /* others */
    {BYTES("POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"), 0},
    {BYTES("POST / HTTP/1.1\r\n" H "Expect: the-worst\r\nContent-Length: 5\r\n\r\n"), 417},
    {BYTES("GET / HTTP/1.1\r\n" H "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: short\r\n\r\n"), 400},
    {BYTES("GET / HTTP/1.1\r\n" H "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"), 0},
    {BYTES("\x16\x03\x01\x02\r\n\r\n"), 400},
};

static void requests_are_judged_the_same_however_cut(void **state)
{
    static struct h1_head head;
    struct play p;

    (void)state;
    begin(&p);
    for (size_t i = 0; i < EP_COUNT(requests); i++) {
        for (size_t cut = 0; cut < requests[i].bytes.n; cut++) {
            unsigned status = request_status(&p, requests[i].bytes, cut, &head);

            if (status != requests[i].status)
                fail_msg("row %zu cut at %zu: %u, not %u: %.*s", i, cut, status, requests[i].status,
                         EP_STR_ARG(requests[i].bytes));
        }
    }
    end(&p);
}

static void limits_are_kept(void **state)
{
    static char big[80 * 1024];
    static struct h1_head head;
    struct play p;
    size_t n;

    (void)state;
    begin(&p);
    memset(big, 'a', sizeof big);
    memcpy(big, "GET /", 5);
    for (size_t cut = 0; cut < sizeof big; cut += 8191)
        assert_int_equal(request_status(&p, ep_str_n(big, sizeof big), cut, &head), 414);
    memset(big, 'a', sizeof big);
    memcpy(big, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 28);
    for (size_t cut = 0; cut < sizeof big; cut += 8191)
        assert_int_equal(request_status(&p, ep_str_n(big, sizeof big), cut, &head), 431);
    n = (size_t)snprintf(big, sizeof big, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 99; i++)
        n += (size_t)snprintf(big + n, sizeof big - n, "X-%d: %d\r\n", i, i);
    memcpy(big + n, "\r\n", 2);
    assert_int_equal(request_status(&p, ep_str_n(big, n + 2), 0, &head), 0);
    assert_int_equal(head.n, 100);
    memcpy(big + n, "X: y\r\n\r\n", 8);
    assert_int_equal(request_status(&p, ep_str_n(big, n + 8), 0, &head), 431);
    end(&p);
}

/* The table as text: "name: value|". */
static const char *table_text(const struct ep_headers *h)
{
    static char text[4096];
    size_t n = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < h->n; i++) {
        assert_int_equal(h->v[i].id, ep_header_id(h->v[i].name));
        n += (size_t)snprintf(text + n, sizeof text - n, "%.*s: %.*s|", EP_STR_ARG(h->v[i].name), EP_STR_ARG(h->v[i].value));
    }
    return text;
}

static const struct {
    const char *bytes, *table;
} shapes[] = {
    {"GET /x?y HTTP/1.1\r\nHost: A.b:80\r\nUser-Agent: me \r\nX-MiXed: Value\r\n\r\n",
     ":method: GET|:scheme: http|:authority: A.b:80|:path: /x?y|user-agent: me|x-mixed: Value|"},
    {"GET http://a?x HTTP/1.1\r\nHost: a\r\n\r\n", ":method: GET|:scheme: http|:authority: a|:path: /?x|"},
    {"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", ":method: OPTIONS|:scheme: http|:authority: a|:path: *|"},
    {"GET / HTTP/1.0\r\n\r\n", ":method: GET|:scheme: http|:path: /|"},
    {"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", ":method: CONNECT|:authority: a:1|"},
    {"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-hop, close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: k\r\n"
     "TE: gzip, trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nX-Kept: 1\r\nExpect: 100-continue\r\n\r\n",
     ":method: GET|:scheme: http|:authority: a|:path: /|te: trailers|x-kept: 1|"},
    {"POST / HTTP/1.1\r\nHost: a\r\nConnection: host, content-length\r\nContent-Length: 3\r\n\r\n",
     ":method: POST|:scheme: http|:authority: a|:path: /|content-length: 3|"},
    {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: gzip\r\nCookie: a=b\r\n\r\n",
     ":method: POST|:scheme: http|:authority: a|:path: /|cookie: a=b|"},
    {"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
     ":method: CONNECT|:protocol: websocket|:scheme: http|:authority: a|:path: /chat|sec-websocket-version: 13|"},
};

static void requests_become_http2_tables(void **state)
{
    static struct h1_head head;
    struct h1_problem problem;
    struct play p;

    (void)state;
    begin(&p);
    for (size_t i = 0; i < EP_COUNT(shapes); i++) {
        assert_true(h1_parse_request(&head, ep_str(shapes[i].bytes), &p.options, &problem));
        assert_string_equal(table_text(h1_build_request(&head, &p.arena, false)), shapes[i].table);
    }
    assert_true(h1_parse_request(&head, ep_str(shapes[0].bytes), &p.options, &problem));
    assert_true(ep_str_eq(ep_headers_get_id(h1_build_request(&head, &p.arena, true), EP_HDR_SCHEME), EP_STR("https")));
    end(&p);
}

static const struct {
    const char *bytes;
    struct h1_asked asked;
    bool good;
    enum h1_framing framing;
    bool keep_alive;
} responses[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", {.head = false}, true, H1_LENGTH, true},
    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n", {.head = false}, true, H1_LENGTH, false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", {.head = false}, true, H1_EMPTY, true},
    {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", {.head = false}, true, H1_EMPTY, true},
    {"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", {.head = false}, true, H1_CHUNKED, true},
    {"HTTP/1.1 200 OK\r\n\r\n", {.head = false}, true, H1_CLOSE, false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", {.head = false}, true, H1_LENGTH, false},
    {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", {.head = false}, true, H1_LENGTH, true},
    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", {.head = true}, true, H1_EMPTY, true},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", {.head = true}, true, H1_EMPTY, true},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", {.head = false}, true, H1_EMPTY, true},
    {"HTTP/1.1 204 No Content\r\n\r\n", {.head = false}, true, H1_EMPTY, true},
    {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", {.head = false}, true, H1_EMPTY, true},
    {"HTTP/1.1 200 Fine\r\n\r\n", {.connect = true}, true, H1_TUNNEL, true},
    {"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\n", {.connect = true}, true, H1_LENGTH, true},
    {"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
     {.websocket = true}, true, H1_TUNNEL, true},
    {"HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
     {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.1 101 Up\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", {.websocket = true}, false, H1_EMPTY, false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.1 20 OK\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.1 2000 OK\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.1 099 OK\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.1  200 OK\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/2.0 200 OK\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"ICY 200 OK\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
    {"HTTP/1.1 200 O\rK\r\n\r\n", {.head = false}, false, H1_EMPTY, false},
};

static void responses_are_framed(void **state)
{
    static struct h1_head head;
    struct h1_problem problem;
    struct play p;

    (void)state;
    begin(&p);
    for (size_t i = 0; i < EP_COUNT(responses); i++) {
        bool good = h1_parse_response(&head, ep_str(responses[i].bytes), responses[i].asked, &p.options, &problem);

        if (good != responses[i].good)
            fail_msg("row %zu: %s", i, responses[i].bytes);
        if (good) {
            assert_int_equal(head.framing, responses[i].framing);
            assert_int_equal(head.keep_alive, responses[i].keep_alive);
        }
    }
    assert_true(h1_parse_response(&head, EP_STR("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: x-y\r\nX-Y: 1\r\n"
                                                "Transfer-encoding-x: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"),
                                  (struct h1_asked){.head = false}, &p.options, &problem));
    assert_string_equal(table_text(h1_build_response(&head, &p.arena)),
                        ":status: 200|content-length: 3|transfer-encoding-x: 1|set-cookie: a|set-cookie: b|");
    end(&p);
}

/* Feeds a chunked body in two pieces; the body in `out`, its length, or -1. `rest` gets what stands behind it. */
static int unchunk(struct ep_str bytes, size_t cut, char *out, size_t *rest)
{
    struct h1_chunk k = {.state = 0};
    size_t at = 0, n = 0;

    while (at < bytes.n) {
        size_t end_at = at < cut ? cut : bytes.n, used = 0;
        struct ep_str data;
        enum h1_result r = h1_chunk_feed(&k, (const unsigned char *)bytes.p + at, end_at - at, &used, &data);

        if (data.n)
            memcpy(out + n, data.p, data.n);
        n += data.n;
        at += used;
        if (r == H1_BAD)
            return -1;
        if (r == H1_DONE) {
            *rest = bytes.n - at;
            return (int)n;
        }
        assert_true(used > 0);
    }
    return -2;
}

static const struct {
    struct ep_str bytes;
    const char *body; /* NULL: refused */
} chunked[] = {
    {BYTES("0\r\n\r\n"), ""},
    {BYTES("5\r\nhello\r\n0\r\n\r\n"), "hello"},
    {BYTES("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), "hello world"},
    {BYTES("A\r\n0123456789\r\n0\r\n\r\n"), "0123456789"},
    {BYTES("00a\r\n0123456789\r\n000\r\n\r\n"), "0123456789"},
    {BYTES("5;name=\"v;\"\r\nhello\r\n0;x\r\n\r\n"), "hello"},
    {BYTES("5\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES("5\r\nhello\n0\r\n\r\n"), NULL},
    {BYTES("5\rhello\r\n0\r\n\r\n"), NULL},
    {BYTES("5\r\nhelloX\r\n0\r\n\r\n"), NULL},
    {BYTES("5\r\nhello\r0\r\n\r\n"), NULL},
    {BYTES("5 \r\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES(" 5\r\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES("+5\r\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES("0x5\r\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES("-1\r\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES("g\r\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES("\r\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES(";x\r\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES("5;x\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES("5;x\r\r\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES("5;x\0\r\nhello\r\n0\r\n\r\n"), NULL},
    {BYTES("fffffffffffffffff\r\n"), NULL},
    {BYTES("0000000000000005\r\nhello\r\n0\r\n\r\n"), NULL},
};

static void chunks_are_read_strictly(void **state)
{
    char body[64], line[400];

    (void)state;
    for (size_t i = 0; i < EP_COUNT(chunked); i++) {
        for (size_t cut = 0; cut < chunked[i].bytes.n; cut++) {
            size_t rest = 0;
            int n = unchunk(chunked[i].bytes, cut, body, &rest);

            if (!chunked[i].body) {
                if (n != -1)
                    fail_msg("chunk row %zu cut at %zu passed", i, cut);
                continue;
            }
            assert_int_equal(n, strlen(chunked[i].body));
            assert_memory_equal(body, chunked[i].body, (size_t)n);
            assert_int_equal(rest, 2);
        }
    }
    memset(line, 'x', sizeof line);
    memcpy(line, "5;", 2);
    size_t rest;
    assert_int_equal(unchunk(ep_str_n(line, sizeof line), 0, body, &rest), -1);
}

static void trailers_are_read(void **state)
{
    static const struct {
        const char *bytes, *table; /* NULL: refused */
    } rows[] = {
        {"\r\n", ""},
        {"Grpc-Status: 0\r\nX-Y: z\r\n\r\n", "grpc-status: 0|x-y: z|"},
        {"Trailer: x\r\nConnection: x\r\nAuthorization: y\r\nX-Kept: 1\r\n\r\n", "x-kept: 1|"},
        {"Content-Length: 5\r\n\r\n", NULL},
        {"Transfer-Encoding: chunked\r\n\r\n", NULL},
        {"Host: b\r\n\r\n", NULL},
        {"X : y\r\n\r\n", NULL},
        {"X: y\n\r\n", NULL},
        {"X: y\r\n z\r\n\r\n", NULL},
        {"GET / HTTP/1.1\r\n\r\n", NULL},
    };
    static struct h1_head head;
    struct play p;

    (void)state;
    begin(&p);
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_str bytes = ep_str(rows[i].bytes);

        for (size_t cut = 0; cut < bytes.n; cut++) {
            struct h1_gather g = {.p = NULL};
            struct h1_problem problem;
            struct ep_str block;
            size_t total = 0;
            bool good = gather(&g, &trailer_limits, bytes, cut, &block, &total, &problem) == H1_DONE &&
                        h1_parse_trailers(&head, block, &p.options, &problem);

            if (good != (rows[i].table != NULL))
                fail_msg("trailer row %zu cut at %zu", i, cut);
            if (good) {
                assert_int_equal(total, bytes.n);
                assert_string_equal(table_text(h1_build_trailers(&head, &p.arena)), rows[i].table);
            }
            h1_gather_reset(&g);
        }
    }
    end(&p);
}

static void a_response_has_no_empty_line_before_it(void **state)
{
    struct h1_gather g = {.p = NULL};
    struct h1_problem problem;
    struct ep_str block;
    size_t total;

    (void)state;
    assert_int_equal(gather(&g, &response_limits, EP_STR("\r\nHTTP/1.1 200 OK\r\n\r\n"), 0, &block, &total, &problem), H1_BAD);
    h1_gather_reset(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_judged_the_same_however_cut),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(requests_become_http2_tables),
        cmocka_unit_test(responses_are_framed),
        cmocka_unit_test(chunks_are_read_strictly),
        cmocka_unit_test(trailers_are_read),
        cmocka_unit_test(a_response_has_no_empty_line_before_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
