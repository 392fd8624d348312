/* link: ep_net */
/* PROXY protocol v2: headers as load balancers send them, in pieces, and malformed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/net.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V4                                                                                                             \
    "\x0a\x00\x00\x01"                                                                                                 \
    "\xc0\xa8\x00\x02"                                                                                                 \
    "\x04\xd2"                                                                                                         \
    "\x01\xbb"
#define V6                                                                                                             \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"                                                                       \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"                                                                       \
    "\x04\xd2\x01\xbb"

static const struct {
    const char *bytes;
    size_t n;
    int want;
    const char *src, *dst; /* NULL: not filled */
} cases[] = {
#define CASE(literal, want, src, dst)                                                                                  \
    {                                                                                                                  \
        literal, sizeof(literal) - 1, want, src, dst                                                                   \
    }
    CASE(SIGNATURE "\x21\x11\x00\x0c" V4 "GET", 28, "10.0.0.1:1234", "192.168.0.2:443"),
    CASE(SIGNATURE "\x21\x11\x00\x10" V4 "\x04\x00\x01\x00", 32, "10.0.0.1:1234", "192.168.0.2:443"), /* with a TLV */
    CASE(SIGNATURE "\x21\x21\x00\x24" V6, 52, "[2001:db8::1]:1234", "[2001:db8::2]:443"),
    CASE(SIGNATURE "\x20\x00\x00\x00", 16, NULL, NULL),    /* LOCAL: a health check */
    CASE(SIGNATURE "\x20\x11\x00\x0c" V4, 28, NULL, NULL), /* LOCAL: addresses are to be ignored */
    CASE(SIGNATURE "\x21\x00\x00\x00", 16, NULL, NULL),    /* UNSPEC */
    CASE(SIGNATURE "\x21\x12\x00\x0c" V4, 28, NULL, NULL), /* datagrams */
    CASE(SIGNATURE "\x21\x11\x00\x0b" V4, -1, NULL, NULL), /* too short for its family */
    CASE(SIGNATURE "\x21\x21\x00\x0c" V4, -1, NULL, NULL),
    CASE(SIGNATURE "\x11\x11\x00\x0c" V4, -1, NULL, NULL),        /* version 1 */
    CASE(SIGNATURE "\x22\x11\x00\x0c" V4, -1, NULL, NULL),        /* unknown command */
    CASE(SIGNATURE "\x21\x41\x00\x0c" V4, -1, NULL, NULL),        /* unknown family */
    CASE(SIGNATURE "\x21\x13\x00\x0c" V4, -1, NULL, NULL),        /* unknown transport */
    CASE("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", -1, NULL, NULL), /* version 1 as text */
    CASE("GET / HTTP/1.1\r\n\r\n", -1, NULL, NULL),
    CASE("\r\n\r\n\0\r\nQUIX\n", -1, NULL, NULL),
};

static void expect_addr(const struct ep_addr *a, const char *want)
{
    char text[128];

    if (!want) {
        assert_int_equal(a->len, 0);
        return;
    }
    ep_addr_format(a, text);
    assert_string_equal(text, want);
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(cases); i++) {
        struct ep_addr src = {.len = 0}, dst = {.len = 0};
        int got = ep_proxy_v2_parse((const unsigned char *)cases[i].bytes, cases[i].n, &src, &dst);

        if (got != cases[i].want)
            fail_msg("case %zu: %d, want %d", i, got, cases[i].want);
        expect_addr(&src, cases[i].src);
        expect_addr(&dst, cases[i].dst);
    }
}

/* Until the header is whole the answer is 0, or -1 as soon as it can be nothing else. */
static void test_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(cases); i++) {
        bool refused = false;
        for (size_t n = 0; n <= cases[i].n; n++) {
            struct ep_addr src = {.len = 0}, dst = {.len = 0};
            int got = ep_proxy_v2_parse((const unsigned char *)cases[i].bytes, n, &src, &dst);

            if (refused || (cases[i].want < 0 && got != 0))
                assert_int_equal(got, -1);
            else if (cases[i].want > 0)
                assert_int_equal(got, n < (size_t)cases[i].want ? 0 : cases[i].want);
            refused = got < 0;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
