/* link: ep_http */
/* Decoding bodies: every coding, in pieces of every size, stacked; what is cut, has a tail or is a bomb is an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "http/decode.h"

#define TEXT "{\"method\":\"tools/call\",\"params\":{\"name\":\"shell\"}}"
#define ROOM (1u << 20)

static const unsigned char brotli_text[] = {0x1b, 0x30, 0x00, 0x00, 0x04, 0x6a, 0x6e, 0xa9, 0x5f, 0x66, 0xb3, 0x7f,
                                            0x6b, 0xcc, 0xd9, 0x50, 0x02, 0x36, 0x46, 0x53, 0xa2, 0xc9, 0x40, 0x48,
                                            0x49, 0xec, 0x5c, 0x69, 0xd8, 0x85, 0xf8, 0x99, 0x51, 0x6b, 0x7b, 0x04,
                                            0xc6, 0xe6, 0x7c, 0x17, 0x6a, 0x9e, 0xdf, 0x83, 0xa8, 0xfa, 0x45, 0x66,
                                            0x00};
/* a million times 'a' */
static const unsigned char brotli_bomb[] = {0x5b, 0x3f, 0x42, 0x0f, 0x40, 0x22, 0x2c, 0x1e, 0x0b, 0x24, 0x3f, 0xe7, 0x01};

struct bytes {
    unsigned char *p;
    size_t n;
};

static void take(void *user, const unsigned char *p, size_t n)
{
    struct bytes *b = user;

    b->p = realloc(b->p, b->n + n);
    assert_non_null(b->p);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

/* `window_bits` as of deflateInit2: 15 zlib, -15 raw, 31 gzip. */
static struct bytes deflated(const void *p, size_t n, int window_bits, int level)
{
    struct bytes out = {malloc(ROOM), 0};
    z_stream z = {0};

    assert_non_null(out.p);
    assert_int_equal(deflateInit2(&z, level, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)p;
    z.avail_in = (unsigned)n;
    z.next_out = out.p;
    z.avail_out = ROOM;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.n = ROOM - z.avail_out;
    deflateEnd(&z);
    return out;
}

static struct bytes zstd(const void *p, size_t n)
{
    struct bytes out = {malloc(ROOM), 0};

    assert_non_null(out.p);
    out.n = ZSTD_compress(out.p, ROOM, p, n, 3);
    assert_false(ZSTD_isError(out.n));
    return out;
}

static struct bytes copy(const void *p, size_t n)
{
    struct bytes out = {malloc(n + 1), n};

    assert_non_null(out.p);
    memcpy(out.p, p, n);
    return out;
}

static struct bytes encoded(const char *coding, const void *p, size_t n)
{
    if (!strcmp(coding, "gzip") || !strcmp(coding, "x-gzip"))
        return deflated(p, n, 31, 6);
    if (!strcmp(coding, "zlib"))
        return deflated(p, n, 15, 6);
    if (!strcmp(coding, "raw"))
        return deflated(p, n, -15, 6);
    if (!strcmp(coding, "zstd"))
        return zstd(p, n);
    return copy(brotli_text, sizeof brotli_text);
}

static struct ep_codings codings(const char *header)
{
    struct ep_codings c = {0};

    assert_true(ep_codings_add(&c, ep_str(header)));
    return c;
}

/* All of it, `piece` bytes at a time. */
static enum ep_decode_status decode(const char *header, struct bytes in, size_t piece, size_t max, struct bytes *out)
{
    struct ep_codings c = codings(header);
    struct ep_decoder *d;
    enum ep_decode_status status = EP_DECODE_OK;

    *out = (struct bytes){NULL, 0};
    d = ep_decoder_new(&c, max, take, out);
    for (size_t at = 0; at < in.n; at += piece) {
        /* in memory of its own, so that a read behind it is seen */
        struct bytes some = copy(in.p + at, EP_MIN(piece, in.n - at));
        status = ep_decoder_feed(d, some.p, some.n);
        free(some.p);
    }
    assert_int_equal(status, ep_decoder_feed(d, (const unsigned char *)"", 0));
    status = ep_decoder_end(d);
    ep_decoder_free(d);
    return status;
}

static enum ep_decode_status status_of(const char *header, struct bytes in, size_t piece)
{
    struct bytes out;
    enum ep_decode_status s = decode(header, in, piece, ROOM, &out);

    free(out.p);
    return s;
}

static enum ep_decode_status status_of_text(const char *header, const void *p, size_t n, size_t piece)
{
    struct bytes in = copy(p, n);
    enum ep_decode_status s = status_of(header, in, piece);

    free(in.p);
    return s;
}

static const struct {
    const char *header, *coding;
} all[] = {{"gzip", "gzip"},   {"X-GZIP", "gzip"}, {" deflate ", "zlib"},          {"deflate", "raw"},
           {"zstd", "zstd"},   {"br", "br"},       {"identity, gzip, ", "gzip"}};
static const size_t pieces[] = {100000, 1, 2, 7};

static void test_every_coding_in_every_piece(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(all); i++) {
        struct bytes in = encoded(all[i].coding, TEXT, strlen(TEXT)), out;
        for (size_t k = 0; k < EP_COUNT(pieces); k++) {
            assert_int_equal(decode(all[i].header, in, pieces[k], ROOM, &out), EP_DECODE_OK);
            assert_int_equal(out.n, strlen(TEXT));
            assert_memory_equal(out.p, TEXT, out.n);
            free(out.p);
        }
        free(in.p);
    }
}

static void test_more_than_a_buffer(void **state)
{
    static const char *const names[] = {"gzip", "zlib", "raw", "zstd"};
    size_t n = 300000;
    char *text = malloc(n);

    (void)state;
    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + (i * i / 7 + i / 1000) % 26);
    for (size_t i = 0; i < EP_COUNT(names); i++) {
        struct bytes in = encoded(names[i], text, n), out;
        const char *header = strcmp(names[i], "zlib") && strcmp(names[i], "raw") ? names[i] : "deflate";
        for (size_t k = 0; k < EP_COUNT(pieces); k++) {
            assert_int_equal(decode(header, in, pieces[k] * 13, ROOM, &out), EP_DECODE_OK);
            assert_int_equal(out.n, n);
            assert_memory_equal(out.p, text, n);
            free(out.p);
        }
        assert_int_equal(decode(header, in, 100000, n - 1, &out), EP_DECODE_TOO_LARGE);
        assert_true(out.n < n);
        free(out.p);
        free(in.p);
    }
    free(text);
}

static void test_what_is_cut_is_no_body(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(all); i++) {
        struct bytes in = encoded(all[i].coding, TEXT, strlen(TEXT));
        for (size_t n = 1; n < in.n; n++)
            for (size_t k = 0; k < 2; k++)
                assert_int_equal(status_of(all[i].header, (struct bytes){in.p, n}, pieces[k]), EP_DECODE_TRUNCATED);
        assert_int_equal(status_of(all[i].header, (struct bytes){in.p, 0}, 1), EP_DECODE_TRUNCATED);
        free(in.p);
    }
}

static void test_what_has_a_tail_is_no_body(void **state)
{
    static const char *const tails[] = {"\0", "x", "{}", "\x1f\x8b\x08garbage!", "\n\n\n\n\n\n\n\n"};
    static const size_t lengths[] = {1, 1, 2, 11, 8};

    (void)state;
    for (size_t i = 0; i < EP_COUNT(all); i++)
        for (size_t t = 0; t < EP_COUNT(tails); t++) {
            struct bytes in = encoded(all[i].coding, TEXT, strlen(TEXT));
            in.p = realloc(in.p, in.n + lengths[t]);
            memcpy(in.p + in.n, tails[t], lengths[t]);
            in.n += lengths[t];
            for (size_t k = 0; k < 2; k++)
                assert_int_not_equal(status_of(all[i].header, in, pieces[k]), EP_DECODE_OK);
            free(in.p);
        }
}

static void test_a_flipped_bit_is_seen_where_there_is_a_checksum(void **state)
{
    struct bytes in = deflated(TEXT, strlen(TEXT), 31, 6), out;

    (void)state;
    for (size_t at = 10; at < in.n; at++) { /* behind the header, whose time and name nobody checks */
        in.p[at] ^= 0x10;
        assert_int_not_equal(decode("gzip", in, 100000, ROOM, &out), EP_DECODE_OK);
        free(out.p);
        in.p[at] ^= 0x10;
    }
    free(in.p);
}

static void test_members_and_frames_are_one_body(void **state)
{
    static const struct {
        const char *header, *coding;
    } rows[] = {{"gzip", "gzip"}, {"zstd", "zstd"}};

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct bytes a = encoded(rows[i].coding, TEXT, 20), b = encoded(rows[i].coding, TEXT + 20, strlen(TEXT) - 20), out;
        a.p = realloc(a.p, a.n + b.n);
        memcpy(a.p + a.n, b.p, b.n);
        a.n += b.n;
        for (size_t k = 0; k < EP_COUNT(pieces); k++) {
            assert_int_equal(decode(rows[i].header, a, pieces[k], ROOM, &out), EP_DECODE_OK);
            assert_int_equal(out.n, strlen(TEXT));
            assert_memory_equal(out.p, TEXT, out.n);
            free(out.p);
        }
        free(a.p);
        free(b.p);
    }
}

static void test_stacked(void **state)
{
    struct bytes zlib = deflated(TEXT, strlen(TEXT), 15, 6), z = zstd(zlib.p, zlib.n), gz = deflated(z.p, z.n, 31, 6), out;
    struct ep_codings c = {0};

    (void)state;
    for (size_t k = 0; k < EP_COUNT(pieces); k++) {
        assert_int_equal(decode("deflate, zstd, gzip", gz, pieces[k], ROOM, &out), EP_DECODE_OK);
        assert_int_equal(out.n, strlen(TEXT));
        assert_memory_equal(out.p, TEXT, out.n);
        free(out.p);
        assert_int_not_equal(status_of("gzip, zstd, deflate", gz, pieces[k]), EP_DECODE_OK);
    }
    assert_true(ep_codings_add(&c, EP_STR("gzip, br")) && ep_codings_add(&c, EP_STR("zstd")));
    assert_int_equal(c.n, 3);
    assert_false(ep_codings_add(&c, EP_STR("gzip")));
    c.n = 0;
    assert_false(ep_codings_add(&c, EP_STR("compress")) || ep_codings_add(&c, EP_STR("gzip;q=1")));
    assert_true(ep_codings_add(&c, EP_STR("")) && ep_codings_add(&c, EP_STR("Identity")) && c.n == 0);
    free(zlib.p);
    free(z.p);
    free(gz.p);
}

static void test_a_bomb(void **state)
{
    char *zeros = calloc(1, ROOM);
    struct bytes gz, z, twice, out;

    (void)state;
    assert_non_null(zeros);
    gz = deflated(zeros, ROOM, 31, 9);
    z = zstd(zeros, ROOM);
    assert_int_equal(decode("gzip", gz, 100000, ROOM, &out), EP_DECODE_BOMB);
    assert_true(out.n <= EP_DECODE_RATIO * gz.n + 100000);
    free(out.p);
    assert_int_equal(decode("zstd", z, 100000, ROOM, &out), EP_DECODE_BOMB);
    free(out.p);
    assert_int_equal(status_of_text("br", brotli_bomb, sizeof brotli_bomb, 100000), EP_DECODE_BOMB);
    assert_int_equal(decode("gzip", gz, 100000, 30000, &out), EP_DECODE_TOO_LARGE);
    assert_true(out.n <= 30000);
    free(out.p);
    twice = deflated(gz.p, gz.n, 31, 9); /* the limits hold for each layer */
    assert_int_not_equal(decode("gzip, gzip", twice, 1, 100000, &out), EP_DECODE_OK);
    assert_true(out.n <= 100000);
    free(out.p);
    free(twice.p);
    free(gz.p);
    free(z.p);
    free(zeros);
}

/* A body that zlib's format reads as one text and raw deflate as another. */
static void test_deflate_that_could_be_either(void **state)
{
    /* 78 01: zlib; to raw deflate a stored block of 0x??01 bytes. Behind the header zlib sees a stored block too: 00 (its
     * flags), a length, its complement. So LEN of raw is 01 00, its complement fe ff: of zlib: 00, fe ff, then 01 00. */
    unsigned char *whole = malloc(7 + 0xfffe + 5 + 4);
    struct bytes in;

    (void)state;
    assert_non_null(whole);
    memcpy(whole, "\x78\x01\x00\xfe\xff\x01\x00", 7);
    memset(whole + 7, 'a', 0xfffe);
    memcpy(whole + 7 + 0xfffe, "\x01\x00\x00\xff\xff", 5); /* the last block, empty */
    uLong sum = adler32(adler32(0, NULL, 0), whole + 7, 0xfffe);
    for (int i = 0; i < 4; i++)
        whole[7 + 0xfffe + 5 + i] = (unsigned char)(sum >> (24 - 8 * i));
    in = (struct bytes){whole, 7 + 0xfffe + 5 + 4};
    for (size_t k = 0; k < EP_COUNT(pieces); k++)
        assert_int_equal(status_of("deflate", in, pieces[k]), EP_DECODE_BAD);
    free(whole);
}

static void test_no_dictionary_and_no_older_format(void **state)
{
    static const unsigned char with_dictionary[] = {0x78, 0xbb, 0x01, 0x02, 0x03, 0x04, 0x03, 0x00};
    static const unsigned char old_zstd[] = {0x27, 0xb5, 0x2f, 0xfd, 0x00, 0x00, 0x00, 0x00, 0x00};
    static const unsigned char skippable[] = {0x50, 0x2a, 0x4d, 0x18, 0x02, 0x00, 0x00, 0x00, 'h', 'i'};
    static const unsigned char huge_window[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x98, 0x01, 0x00, 0x00};

    (void)state;
    assert_int_equal(status_of_text("deflate", with_dictionary, sizeof with_dictionary, 1), EP_DECODE_BAD);
    assert_int_equal(status_of_text("zstd", old_zstd, sizeof old_zstd, 100), EP_DECODE_BAD);
    assert_int_equal(status_of_text("zstd", skippable, sizeof skippable, 1), EP_DECODE_OK);
    assert_int_equal(status_of_text("zstd", huge_window, sizeof huge_window, 1), EP_DECODE_BAD);
    assert_int_equal(status_of_text("gzip", "{\"a\":1}", 7, 1), EP_DECODE_BAD);
    assert_int_equal(status_of_text("deflate", "\x1f\x8b\x08", 3, 1), EP_DECODE_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_coding_in_every_piece),
        cmocka_unit_test(test_more_than_a_buffer),
        cmocka_unit_test(test_what_is_cut_is_no_body),
        cmocka_unit_test(test_what_has_a_tail_is_no_body),
        cmocka_unit_test(test_a_flipped_bit_is_seen_where_there_is_a_checksum),
        cmocka_unit_test(test_members_and_frames_are_one_body),
        cmocka_unit_test(test_stacked),
        cmocka_unit_test(test_a_bomb),
        cmocka_unit_test(test_deflate_that_could_be_either),
        cmocka_unit_test(test_no_dictionary_and_no_older_format),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
