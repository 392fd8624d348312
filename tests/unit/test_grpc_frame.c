/* link: ep_filters */
/* gRPC's frames, compressed ones too, and protobuf's fields. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "agent/grpc_frame.h"

#define BYTES(text) ep_str_n(text, sizeof(text) - 1)

static void test_types(void **state)
{
    bool text;

    (void)state;
    assert_true(ep_grpc_is_type(EP_STR("application/grpc")) && ep_grpc_is_type(EP_STR("Application/gRPC+proto")) &&
                ep_grpc_is_type(EP_STR("application/grpc; x=1")));
    assert_false(ep_grpc_is_type(EP_STR("application/grpc-web")) || ep_grpc_is_type(EP_STR("application/grpcx")));
    assert_true(ep_grpc_is_web_type(EP_STR("application/grpc-web"), &text) && !text);
    assert_true(ep_grpc_is_web_type(EP_STR("application/grpc-web+proto"), &text) && !text);
    assert_true(ep_grpc_is_web_type(EP_STR("application/grpc-web-text"), &text) && text);
    assert_true(ep_grpc_is_web_type(EP_STR("application/grpc-web-text+proto"), &text) && text);
    assert_false(ep_grpc_is_web_type(EP_STR("application/grpc"), &text) || text);
    assert_false(ep_grpc_is_web_type(EP_STR("application/grpc-webx"), &text));
}

static void test_json_types(void **state)
{
    (void)state;
    assert_true(ep_grpc_is_json_type(EP_STR("application/grpc+json")) && ep_grpc_is_json_type(EP_STR("application/grpc+JSON; x=1")) &&
                ep_grpc_is_json_type(EP_STR("application/grpc-web-text+json")));
    assert_false(ep_grpc_is_json_type(EP_STR("application/grpc")) || ep_grpc_is_json_type(EP_STR("+json")) ||
                 ep_grpc_is_json_type(EP_STR("application/grpc+proto")));
}

static void test_frames(void **state)
{
    struct ep_str rest = BYTES("\0\0\0\0\2ab\1\0\0\0\0\0\0\0\0\3xy");
    struct ep_grpc_frame f;

    (void)state;
    assert_int_equal(ep_grpc_next(&rest, 100, &f), EP_GRPC_FRAME);
    assert_true(!f.compressed && ep_str_eq(f.payload, EP_STR("ab")));
    assert_int_equal(ep_grpc_next(&rest, 100, &f), EP_GRPC_FRAME);
    assert_true(f.compressed && f.payload.n == 0);
    assert_int_equal(ep_grpc_next(&rest, 100, &f), EP_GRPC_CUT); /* and stays where it is */
    assert_int_equal(rest.n, 7);
    assert_int_equal(ep_grpc_next(&rest, 2, &f), EP_GRPC_MALFORMED);
    rest = BYTES("\0\0\0");
    assert_int_equal(ep_grpc_next(&rest, 100, &f), EP_GRPC_CUT);
    rest = BYTES("\2\0\0\0\0");
    assert_int_equal(ep_grpc_next(&rest, 100, &f), EP_GRPC_MALFORMED);
    rest = BYTES("");
    assert_int_equal(ep_grpc_next(&rest, 100, &f), EP_GRPC_END);
    rest = BYTES("\0\xff\xff\xff\xff");
    assert_int_equal(ep_grpc_next(&rest, SIZE_MAX, &f), EP_GRPC_CUT);
}

/* --- a body that is one message --- */

struct scene {
    struct ep_chunk_pool pool;
    struct ep_arena arena;
    struct ep_headers headers;
    char bytes[8192];
};

static struct scene scene;

static int setup(void **state)
{
    ep_chunk_pool_init(&scene.pool, 4);
    ep_arena_init(&scene.arena, &scene.pool);
    ep_headers_init(&scene.headers, &scene.arena);
    *state = &scene;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ep_headers_fini(&scene.headers);
    ep_arena_fini(&scene.arena);
    ep_chunk_pool_fini(&scene.pool);
    return 0;
}

static struct ep_str framed(const char *text, size_t n, int window_bits)
{
    z_stream z = {.next_in = (unsigned char *)(uintptr_t)text, .avail_in = (unsigned)n,
                  .next_out = (unsigned char *)scene.bytes + 5, .avail_out = sizeof scene.bytes - 5};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, window_bits, 9, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    scene.bytes[0] = 1;
    scene.bytes[1] = scene.bytes[2] = 0;
    scene.bytes[3] = (char)(z.total_out >> 8);
    scene.bytes[4] = (char)z.total_out;
    return ep_str_n(scene.bytes, z.total_out + 5);
}

static enum ep_blind_reason single(struct ep_str body, const char *encoding, size_t max, struct ep_str *out, bool *bad)
{
    if (encoding)
        ep_headers_set(&scene.headers, EP_STR("grpc-encoding"), ep_str(encoding));
    return ep_grpc_single(&scene.headers, body, max, &scene.arena, out, bad);
}

static void test_a_single_message(void **state)
{
    static char zeros[4096];
    struct ep_str out;
    bool bad;

    (void)state;
    assert_int_equal(single(BYTES("\0\0\0\0\2ab"), NULL, 100, &out, &bad), EP_BLIND_NOT);
    assert_true(!bad && ep_str_eq(out, EP_STR("ab")));
    assert_int_equal(single(BYTES("\0\0\0\0\0"), NULL, 100, &out, &bad), EP_BLIND_NOT);
    assert_true(!bad && out.n == 0);
    single(BYTES(""), NULL, 100, &out, &bad);
    assert_true(bad);
    single(BYTES("\0\0\0\0\2a"), NULL, 100, &out, &bad);
    assert_true(bad);
    single(BYTES("\0\0\0\0\1a\0\0\0\0\1a"), NULL, 100, &out, &bad);
    assert_true(bad);
    /* compressed */
    assert_int_equal(single(framed("hello", 5, 31), "gzip", 100, &out, &bad), EP_BLIND_NOT);
    assert_true(!bad && ep_str_eq(out, EP_STR("hello")));
    assert_int_equal(single(framed("hello", 5, 15), "deflate", 100, &out, &bad), EP_BLIND_NOT);
    assert_true(!bad && ep_str_eq(out, EP_STR("hello")));
    assert_int_equal(single(framed(zeros, sizeof zeros, 31), "gzip", 1000, &out, &bad), EP_BLIND_TOO_LARGE);
    assert_int_equal(single(framed("hello", 5, 31), "snappy", 100, &out, &bad), EP_BLIND_ENCODING);
    assert_int_equal(single(framed("hello", 5, 31), "identity", 100, &out, &bad), EP_BLIND_ENCODING);
    assert_int_equal(single(BYTES("\1\0\0\0\5hello"), "gzip", 100, &out, &bad), EP_BLIND_ENCODING);
    assert_int_equal(single(BYTES("\0\0\0\0\5hello"), "gzip", 100, &out, &bad), EP_BLIND_NOT); /* the flag decides */
}

static void test_base64(void **state)
{
    static const struct {
        const char *text, *bytes; /* NULL: malformed */
    } rows[] = {
        {"", ""}, {"YWJj", "abc"}, {"YWI=", "ab"}, {"YQ==", "a"}, {"+/+/", "\xfb\xff\xbf"},
        {"YQ==YWI=YWJj", "aababc"}, /* pieces, each padded by itself */
        {"YQ=", NULL}, {"YQ", NULL}, {"YWJjZ", NULL}, {"=AAA", NULL}, {"A=AA", NULL}, {"AA=A", NULL}, {"====", NULL},
        {"YWJ\n", NULL}, {" YWJ", NULL}, {"YW-_", NULL}, {"YR==", NULL}, {"YWK=", NULL}, /* bits thrown away */
    };
    struct ep_str out;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        bool good = ep_grpc_from_text(ep_str(rows[i].text), &scene.arena, &out);
        if (good != (rows[i].bytes != NULL) || (good && !ep_str_eq(out, ep_str(rows[i].bytes))))
            fail_msg("row %zu", i);
    }
}

static void test_fields(void **state)
{
    static const struct {
        struct ep_str bytes;
        uint64_t number, varint;
        enum ep_proto_wire wire;
        const char *text;
    } rows[] = {
        {{"\x08\x96\x01", 3}, 1, 150, EP_PROTO_VARINT, ""},
        {{"\x12\x02hi", 4}, 2, 0, EP_PROTO_BYTES, "hi"},
        {{"\x1d" "abcd", 5}, 3, 0, EP_PROTO_FIXED32, "abcd"},
        {{"\x19" "abcdefgh", 9}, 3, 0, EP_PROTO_FIXED64, "abcdefgh"},
        {{"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11}, 1, UINT64_MAX, EP_PROTO_VARINT, ""},
    };
    static const struct ep_str bad[] = {
        {"\x08", 1}, {"\x12\x03hi", 4}, {"\x1d" "abc", 4}, {"\x0b", 1}, {"\x0c", 1}, {"\x00\x01", 2}, {"\x0f\x01", 2},
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, {"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", 12},
    };
    struct ep_proto_field f;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_str rest = rows[i].bytes;
        assert_true(ep_proto_next(&rest, &f) && rest.n == 0);
        assert_true(f.number == rows[i].number && f.varint == rows[i].varint && f.wire == rows[i].wire);
        assert_true(ep_str_eq(f.bytes, ep_str(rows[i].text)));
    }
    for (size_t i = 0; i < EP_COUNT(bad); i++) {
        struct ep_str rest = bad[i];
        if (ep_proto_next(&rest, &f))
            fail_msg("row %zu", i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_json_types),
        cmocka_unit_test(test_frames),
        cmocka_unit_test_setup_teardown(test_base64, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_single_message, setup, teardown),
        cmocka_unit_test(test_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
