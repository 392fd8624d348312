/* link: ep_http */
/* What the HTTP/1 writer says for a table, and what it refuses to say; the keys of WebSocket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/h1.h"

struct play {
    struct ep_chunk_pool pool;
    struct ep_arena arena;
};

static void begin(struct play *p)
{
    ep_chunk_pool_init(&p->pool, 8);
    ep_arena_init(&p->arena, &p->pool);
}

static void end(struct play *p)
{
    ep_arena_fini(&p->arena);
    ep_chunk_pool_fini(&p->pool);
}

static void table_of(struct play *p, struct ep_headers *h, const char *text)
{
    struct ep_str rest = ep_str(text), line;

    ep_headers_init(h, &p->arena);
    while (ep_str_next(&rest, '|', &line)) {
        ptrdiff_t colon = line.n ? ep_str_find(line, ':', 1) : -1;

        if (colon > 0)
            ep_headers_add(h, ep_str_n(line.p, (size_t)colon), ep_str_trim(ep_str_n(line.p + colon + 1, line.n - (size_t)colon - 1)));
    }
}

static const struct {
    const char *table;
    enum h1_framing framing;
    const char *expected; /* NULL: can't be said */
} writes[] = {
    {"x-a: 1|:method: GET|:path: /p|:authority: h|cookie: a=1|cookie: b=2|:scheme: https", H1_EMPTY,
     "GET /p HTTP/1.1\r\nhost: h\r\nx-a: 1\r\ncookie: a=1; b=2\r\n\r\n"},
    {":method: POST|:path: /|:authority: h|te: trailers|connection: x|upgrade: h2c|expect: 100-continue", H1_CHUNKED,
     "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nte: trailers\r\nconnection: te\r\n\r\n"},
    {":method: GET|:path: /|host: h2", H1_EMPTY, "GET / HTTP/1.1\r\nhost: h2\r\n\r\n"},
    {":method: GET|:path: /|:authority: h|host: other", H1_EMPTY, "GET / HTTP/1.1\r\nhost: h\r\n\r\n"},
    {":method: CONNECT|:authority: h:1", H1_TUNNEL, "CONNECT h:1 HTTP/1.1\r\nhost: h:1\r\n\r\n"},
    {":method: G T|:path: /|:authority: h", H1_EMPTY, NULL},
    {":method: GET|:path: / HTTP/1.1\r\nX: y|:authority: h", H1_EMPTY, NULL},
    {":method: GET|:path: x|:authority: h", H1_EMPTY, NULL},
    {":method: GET|:path: http://x/|:authority: h", H1_EMPTY, NULL},
    {":method: GET|:authority: h", H1_EMPTY, NULL},
    {":method: GET|:path: /|:authority: h\r\nX", H1_EMPTY, NULL},
    {":method: GET|:path: /|:authority: h|x: y\r\nz", H1_EMPTY, NULL},
    {":method: GET|:path: /|:authority: h|x: 0123456789abcdef\n0123", H1_EMPTY, NULL},
    {":method: GET|:path: /|:authority: h|x: 0123456789\tdef\xff" "0123", H1_EMPTY,
     "GET / HTTP/1.1\r\nhost: h\r\nx: 0123456789\tdef\xff" "0123\r\n\r\n"},
    {":method: GET|:path: /|:authority: h|x y: z", H1_EMPTY, NULL},
    {":method: GET|:path: /|:authority: h|cookie: a\x7f", H1_EMPTY, NULL},
};

static void requests_are_written(void **state)
{
    struct play p;
    char out[2048];

    (void)state;
    begin(&p);
    for (size_t i = 0; i < EP_COUNT(writes); i++) {
        struct ep_headers h;
        struct h1_write w = {.headers = &h, .framing = writes[i].framing};
        size_t n;

        table_of(&p, &h, writes[i].table);
        assert_true(h1_write_bound(&w) <= sizeof out);
        n = h1_write_request(&w, out);
        assert_true(n <= h1_write_bound(&w));
        if (!writes[i].expected && n)
            fail_msg("write row %zu passed", i);
        if (writes[i].expected) {
            if (!ep_str_eq(ep_str_n(out, n), ep_str(writes[i].expected)))
                fail_msg("write row %zu: %.*s", i, (int)n, out);
        }
    }
    end(&p);
}

static void responses_are_written(void **state)
{
    static const char expected[] = "HTTP/1.1 404 Not Found\r\nset-cookie: a\r\nset-cookie: b\r\ncontent-length: 0\r\n"
                                   "connection: close\r\n\r\n";
    struct play p;
    struct ep_headers h;
    struct h1_write w = {.headers = &h, .zero_length = true, .connection = H1_CONNECTION_CLOSE};
    char out[2048], line[H1_CHUNK_LINE_MAX];

    (void)state;
    begin(&p);
    table_of(&p, &h, ":status: 404|set-cookie: a|connection: keep-alive|set-cookie: b");
    assert_int_equal(h1_write_response(&w, 404, out), sizeof expected - 1);
    assert_memory_equal(out, expected, sizeof expected - 1);
    table_of(&p, &h, ":status: 200|x: a\rb");
    assert_int_equal(h1_write_response(&w, 200, out), 0);
    assert_int_equal(h1_write_chunk_line(0x1a2f, line), 6);
    assert_memory_equal(line, "1a2f\r\n", 6);
    assert_int_equal(h1_write_chunk_line(UINT64_MAX, line), 18);
    table_of(&p, &h, "grpc-status: 0|transfer-encoding: chunked|content-length: 4");
    assert_int_equal(h1_write_trailers(&h, out), strlen("0\r\ngrpc-status: 0\r\n\r\n"));
    end(&p);
}

static void websocket_keys(void **state)
{
    char key[H1_KEY_BYTES], accept[H1_ACCEPT_BYTES];

    (void)state;
    h1_websocket_accept(EP_STR("dGhlIHNhbXBsZSBub25jZQ=="), accept); /* the example of RFC 6455 section 1.3 */
    assert_memory_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", H1_ACCEPT_BYTES);
    h1_websocket_new_key(key);
    assert_true(h1_websocket_key_good(ep_str_n(key, sizeof key)));
    assert_false(h1_websocket_key_good(EP_STR("dGhlIHNhbXBsZSBub25jZQ=")));
    assert_false(h1_websocket_key_good(EP_STR("dGhlIHNhbXBsZSBub25jZSEh")));
    assert_false(h1_websocket_key_good(EP_STR("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_written),
        cmocka_unit_test(responses_are_written),
        cmocka_unit_test(websocket_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
