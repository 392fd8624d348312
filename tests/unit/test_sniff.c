/* link: ep_net */
/* Sniffing: verdicts on first bytes, whatever pieces they come in, and what a ClientHello asks for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/net.h"

struct verdict {
    const char *bytes;
    size_t n;
    enum ep_sniff want;
};

#define V(literal, want_)                                                                                              \
    {                                                                                                                  \
        literal, sizeof(literal) - 1, EP_SNIFF_##want_                                                                 \
    }

static const struct verdict verdicts[] = {
    V("", MORE),
    /* TLS */
    V("\x16", MORE),
    V("\x16\x03", MORE),
    V("\x16\x03\x01", TLS),
    V("\x16\x03\x03\x02\x00", TLS),
    V("\x16\x03\x09", OPAQUE),
    V("\x16\x02", OPAQUE),
    V("\x17\x03\x03", OPAQUE),
    /* HTTP/2 */
    V("PRI", MORE),
    V("PRI *", MORE),
    V("PRI * ", H2),
    V("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", H2),
    V("PRI /x HTTP/1.1\r\n", HTTP1),
    V("PRINT /x HTTP/1.1\r\n", HTTP1),
    V("PRIM", MORE),
    /* HTTP/1 */
    V("G", MORE),
    V("GET", MORE),
    V("GET ", MORE),
    V("GET /", HTTP1),
    V("OPTIONS * HTTP/1.1\r\n", HTTP1),
    V("GET http://example.test/ HTTP/1.1\r\n", HTTP1),
    V("CONNECT example.test:443 HTTP/1.1\r\n", HTTP1),
    V("CONNECT 10.0.0.1:443 HTTP/1.1\r\n", HTTP1),
    V("CONNECT [::1]:443 HTTP/1.1\r\n", HTTP1),
    V("M-SEARCH * HTTP/1.1\r\n", HTTP1),
    V("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF /", HTTP1),
    V("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", OPAQUE),
    /* what a lenient server might take for a request must not pass by the policies */
    V("\r\n", MORE),
    V("\r\nGET / HTTP/1.1\r\n", HTTP1),
    V("\n\n\nGET /", HTTP1),
    V("get /admin HTTP/1.1\r\n", HTTP1),
    V("GET\t/ HTTP/1.1\r\n", HTTP1),
    V("GET   / HTTP/1.1\r\n", HTTP1),
    /* other protocols */
    V("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", OPAQUE),
    V("SSH-2.0-Go\r\n", OPAQUE),
    V("*3\r\n$3\r\nSET\r\n", OPAQUE),
    V("get key\r\n", OPAQUE),
    V("PING\r\n", OPAQUE),
    V("HELO there\r\n", OPAQUE),
    V("HELO ", MORE),
    V("USER me", MORE),
    V("GET http://a/ HTTP/1.1\r\n", HTTP1),
    V("GET a HTTP/1.1\r\n", HTTP1),
    V("CONNECT {\"verbose\":false}\r\n", OPAQUE),
    V("\x00\x00\x00\x08\x04\xd2\x16\x2f", OPAQUE),
    V(" GET /", HTTP1),
    V("GET \x01", OPAQUE),
    V("G\xc3\x89T /", OPAQUE),
};

static void test_verdicts(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(verdicts); i++) {
        enum ep_sniff got = ep_sniff_bytes((const unsigned char *)verdicts[i].bytes, verdicts[i].n);
        if (got != verdicts[i].want)
            fail_msg("'%.40s': %d, want %d", verdicts[i].bytes, (int)got, (int)verdicts[i].want);
    }
}

/* A verdict once given stays, however many bytes follow; before it there is only MORE. */
static void test_prefixes(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(verdicts); i++) {
        enum ep_sniff first = EP_SNIFF_MORE;
        for (size_t n = 0; n <= verdicts[i].n; n++) {
            enum ep_sniff got = ep_sniff_bytes((const unsigned char *)verdicts[i].bytes, n);
            if (first != EP_SNIFF_MORE)
                assert_int_equal(got, first);
            first = got;
        }
    }
}

/* --- ClientHello --- */

struct bytes {
    unsigned char p[4096];
    size_t n;
};

static void put(struct bytes *b, const void *p, size_t n)
{
    assert_true(b->n + n <= sizeof b->p);
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void put_int(struct bytes *b, size_t v, int width)
{
    while (width--) {
        unsigned char c = (unsigned char)(v >> 8 * width);
        put(b, &c, 1);
    }
}

static void put_extension(struct bytes *b, size_t type, const struct bytes *body)
{
    put_int(b, type, 2);
    put_int(b, body->n, 2);
    put(b, body->p, body->n);
}

/* The handshake message, not in records yet. */
static struct bytes hello(const char *sni, const char *alpn, size_t n_alpn)
{
    struct bytes extensions = {.n = 0}, body = {.n = 0}, out = {.n = 0}, one;

    one = (struct bytes){.n = 0};
    put(&one, "\x00\x00", 2);
    put_extension(&extensions, 0x2b2b, &one);
    if (sni) {
        one.n = 0;
        put_int(&one, strlen(sni) + 3, 2);
        put_int(&one, 0, 1);
        put_int(&one, strlen(sni), 2);
        put(&one, sni, strlen(sni));
        put_extension(&extensions, 0, &one);
    }
    if (alpn) {
        one.n = 0;
        put_int(&one, n_alpn, 2);
        put(&one, alpn, n_alpn);
        put_extension(&extensions, 16, &one);
    }
    put_int(&body, 0x0303, 2);
    put(&body, "0123456789abcdef0123456789abcdef", 32);
    put_int(&body, 4, 1);
    put(&body, "sess", 4);
    put_int(&body, 2, 2);
    put_int(&body, 0x1301, 2);
    put_int(&body, 1, 1);
    put_int(&body, 0, 1);
    put_int(&body, extensions.n, 2);
    put(&body, extensions.p, extensions.n);
    put_int(&out, 1, 1);
    put_int(&out, body.n, 3);
    put(&out, body.p, body.n);
    return out;
}

static struct bytes records(const struct bytes *message, size_t each)
{
    struct bytes out = {.n = 0};

    for (size_t at = 0; at < message->n;) {
        size_t n = EP_MIN(each, message->n - at);
        put(&out, "\x16\x03\x01", 3);
        put_int(&out, n, 2);
        put(&out, message->p + at, n);
        at += n;
    }
    return out;
}

#define ALPN "\x02h2\x08http/1.1"

static void test_hello(void **state)
{
    struct bytes message = hello("api.example.test", ALPN, sizeof ALPN - 1);
    struct bytes wire = records(&message, 16384);
    struct ep_client_hello found;

    (void)state;
    for (size_t n = 0; n < wire.n; n++)
        assert_int_equal(ep_client_hello_parse(wire.p, n, &found), 0);
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), 1);
    assert_true(ep_str_eq(found.sni, EP_STR("api.example.test")));
    assert_true(ep_alpn_list_has(found.alpn, EP_STR("h2")));
    assert_true(ep_alpn_list_has(found.alpn, EP_STR("http/1.1")));
    assert_false(ep_alpn_list_has(found.alpn, EP_STR("http/1.0")));
    assert_false(ep_alpn_list_has(found.alpn, EP_STR("h")));
    put(&wire, "what follows", 12);
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), 1);
}

static void test_hello_without_extensions(void **state)
{
    struct bytes message = hello(NULL, NULL, 0), wire;
    struct ep_client_hello found;

    (void)state;
    wire = records(&message, 16384);
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), 1);
    assert_int_equal(found.sni.n, 0);
    assert_int_equal(found.alpn.n, 0);
}

/* Records of any size: either the names are found, or the hello is refused; never a good one with its names lost. */
static void test_hello_in_pieces(void **state)
{
    struct bytes message = hello("api.example.test", ALPN, sizeof ALPN - 1);
    struct ep_client_hello found;
    unsigned good = 0;

    (void)state;
    for (size_t each = 1; each < message.n; each++) {
        struct bytes wire = records(&message, each);
        int got = ep_client_hello_parse(wire.p, wire.n, &found);
        assert_int_not_equal(got, 0);
        if (got == 1) {
            assert_true(ep_str_eq(found.sni, EP_STR("api.example.test")));
            assert_int_equal(found.alpn.n, sizeof ALPN - 1);
            good++;
        }
    }
    assert_true(good > 0);
}

/* Encrypted Client Hello: the name that is seen may not be the true one. */
static void test_hello_with_ech(void **state)
{
    struct bytes message = hello("public.test", ALPN, sizeof ALPN - 1), wire = records(&message, 16384);
    struct ep_client_hello found;
    bool changed = false;

    (void)state;
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), 1);
    assert_false(found.ech);
    for (size_t i = 0; i + 1 < wire.n && !changed; i++) /* the extension that nobody knows becomes one */
        if (wire.p[i] == 0x2b && wire.p[i + 1] == 0x2b) {
            wire.p[i] = 0xfe;
            wire.p[i + 1] = 0x0d;
            changed = true;
        }
    assert_true(changed);
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), 1);
    assert_true(found.ech && ep_str_eq(found.sni, EP_STR("public.test")));
}

static void test_names_of_hosts(void **state)
{
    static const struct {
        const char *given, *wanted; /* "": it is none */
    } rows[] = {
        {"api.x.test", "api.x.test"}, {"API.X.Test", "api.x.test"},   {"api.x.test.", "api.x.test"}, {"a", "a"},
        {"xn--bcher-kva.test", "xn--bcher-kva.test"},                 {"_a.b-c.test", "_a.b-c.test"}, {"1.test", "1.test"},
        {"", ""},                     {".", ""},                      {".x", ""},                    {"a..b", ""},
        {"x..", ""},                  {"127.0.0.1", ""},              {"1.2.3.4.", ""},              {"a.1", ""},
        {"::1", ""},                  {"[::1]", ""},                  {"a b", ""},                   {"a:443", ""},
        {"x@y", ""},                  {"*.x.test", ""},               {"a/b", ""},                   {"b\xc3\xbc.test", ""},
    };
    char out[EP_HOST_MAX + 1], longest[EP_HOST_MAX + 3];

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        size_t n = ep_host_normalise(ep_str(rows[i].given), out);
        assert_int_equal(n, strlen(rows[i].wanted));
        if (n)
            assert_string_equal(out, rows[i].wanted);
    }
    memset(longest, 'a', sizeof longest);
    assert_int_equal(ep_host_normalise(ep_str_n(longest, EP_HOST_MAX), out), EP_HOST_MAX);
    assert_int_equal(ep_host_normalise(ep_str_n(longest, EP_HOST_MAX + 1), out), 0);
}

static void test_bad_hellos(void **state)
{
    struct bytes message = hello("a.test", ALPN, sizeof ALPN - 1), wire;
    struct ep_client_hello found;

    (void)state;
    assert_int_equal(ep_client_hello_parse((const unsigned char *)"GET / HTTP", 10, &found), -1);
    wire = records(&message, 16384);
    wire.p[5] = 2; /* a ServerHello */
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), -1);
    wire = records(&message, 16384);
    wire.p[3] = wire.p[4] = 0; /* an empty record */
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), -1);
    wire = records(&message, 16384);
    wire.p[8]++; /* the message is longer than its parts */
    put(&wire, "\x16\x03\x01\x00\x01\x00", 6);
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), -1);
    message = hello("a\x01.test", NULL, 0);
    wire = records(&message, 16384);
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), -1);
    message = hello("", NULL, 0);
    wire = records(&message, 16384);
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), -1);
    message = hello("a.test", "\x05h2", 3); /* a name that is longer than its list */
    wire = records(&message, 16384);
    assert_int_equal(ep_client_hello_parse(wire.p, wire.n, &found), -1);
    assert_false(ep_alpn_list_has(EP_STR("\x05h2"), EP_STR("h2")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_hello),           cmocka_unit_test(test_hello_without_extensions),
        cmocka_unit_test(test_hello_in_pieces), cmocka_unit_test(test_bad_hellos),
        cmocka_unit_test(test_hello_with_ech),  cmocka_unit_test(test_names_of_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
