/* link: ep_observe */
/* The encoder of spans, against bytes that were worked out by hand from trace.proto's field numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "observe/otlp.h"

#define assert_bytes(o, literal)                                                                                       \
    do {                                                                                                               \
        assert_int_equal((o)->n, sizeof(literal) - 1);                                                                 \
        assert_memory_equal((o)->p, literal, sizeof(literal) - 1);                                                     \
        ep_otlp_fini(o);                                                                                               \
    } while (0)

static void test_scalars(void **state)
{
    struct ep_otlp o = {NULL, 0, 0};

    (void)state;
    ep_otlp_varint(&o, EP_OTLP_SPAN_KIND, 0);
    ep_otlp_varint(&o, EP_OTLP_SPAN_KIND, 300);
    ep_otlp_varint(&o, EP_OTLP_SPAN_KIND, UINT64_MAX);
    ep_otlp_fixed32(&o, EP_OTLP_SPAN_FLAGS, 0x301);
    ep_otlp_fixed64(&o, EP_OTLP_SPAN_START, 0x0102030405060708u);
    ep_otlp_hex(&o, EP_OTLP_SPAN_ID, EP_STR("00f067aa0ba902b7"));
    ep_otlp_text(&o, EP_OTLP_SPAN_NAME, EP_STR("GET"));
    ep_otlp_text(&o, EP_OTLP_SPAN_NAME, EP_STR(""));
    assert_bytes(&o, "\x30\x00"
                     "\x30\xac\x02"
                     "\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
                     "\x85\x01\x01\x03\x00\x00"
                     "\x39\x08\x07\x06\x05\x04\x03\x02\x01"
                     "\x12\x08\x00\xf0\x67\xaa\x0b\xa9\x02\xb7"
                     "\x2a\x03GET");
}

static void test_attributes(void **state)
{
    struct ep_otlp o = {NULL, 0, 0};

    (void)state;
    ep_otlp_attribute(&o, EP_OTLP_SPAN_ATTRIBUTES, EP_STR("k"), EP_STR("v"));
    ep_otlp_attribute(&o, EP_OTLP_SPAN_ATTRIBUTES, EP_STR("k"), EP_STR(""));
    ep_otlp_attribute_int(&o, EP_OTLP_SPAN_ATTRIBUTES, EP_STR("n"), 200);
    ep_otlp_attribute_int(&o, EP_OTLP_SPAN_ATTRIBUTES, EP_STR("n"), -1);
    ep_otlp_attribute_double(&o, EP_OTLP_SPAN_ATTRIBUTES, EP_STR("d"), 0.5);
    ep_otlp_attribute_bool(&o, EP_OTLP_SPAN_ATTRIBUTES, EP_STR("b"), true);
    assert_bytes(&o, "\x4a\x08\x0a\x01k\x12\x03\x0a\x01v"
                     "\x4a\x08\x0a\x01n\x12\x03\x18\xc8\x01"
                     "\x4a\x10\x0a\x01n\x12\x0b\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
                     "\x4a\x0e\x0a\x01"
                     "d\x12\x09\x21\x00\x00\x00\x00\x00\x00\xe0\x3f"
                     "\x4a\x07\x0a\x01"
                     "b\x12\x02\x10\x01");
}

/* The length of a message is known at its end: room for two bytes is left, and moved when it takes one or three. */
static void test_lengths_of_messages(void **state)
{
    static const size_t sizes[] = {0, 1, 125, 126, 127, 128, 129, 16380, 16383, 16384, 16385, 70000};
    static char text[1000];

    (void)state;
    memset(text, 'x', sizeof text);
    for (size_t i = 0; i < EP_COUNT(sizes); i++) {
        struct ep_otlp o = {NULL, 0, 0}, inner = {NULL, 0, 0};
        size_t at = ep_otlp_open(&o, 2), n = 0, shift = 0, p = 1;
        while (inner.n + 3 < sizes[i]) /* of the size that is wanted, give or take a tag and a length */
            ep_otlp_text(&inner, 1, ep_str_n(text, EP_MIN(sizeof text, sizes[i] - inner.n - 2)));
        ep_otlp_append(&o, &inner);
        ep_otlp_close(&o, at);
        ep_otlp_varint(&o, 3, 7);
        assert_int_equal(o.p[0], 0x12);
        do {
            n |= (size_t)(o.p[p] & 0x7f) << shift;
            shift += 7;
        } while (o.p[p++] & 0x80);
        assert_int_equal(n, inner.n);
        assert_true(shift == 7 || n >> (shift - 7)); /* no byte more than it takes */
        assert_int_equal(o.n, p + n + 2);
        if (n)
            assert_memory_equal(o.p + p, inner.p, n);
        assert_memory_equal(o.p + p + n, "\x18\x07", 2);
        ep_otlp_fini(&o);
        ep_otlp_fini(&inner);
    }
}

/* One byte that is no UTF-8 would make a collector refuse the whole batch. */
static void test_text_is_utf8_and_bounded(void **state)
{
    struct ep_otlp o = {NULL, 0, 0};
    static char text[EP_OTLP_VALUE_MAX + 10];

    (void)state;
    ep_otlp_text(&o, 1, EP_STR("a\xc3\xa9\xff\xe2\x82z\xed\xa0\x80\0"));
    assert_bytes(&o, "\x0a\x0b"
                     "a\xc3\xa9???z???\0");
    memset(text, 'a', sizeof text);
    memcpy(text + EP_OTLP_VALUE_MAX - 1, "\xc3\xa9", 2); /* cut in the middle */
    ep_otlp_attribute(&o, 1, EP_STR("k"), ep_str_n(text, sizeof text));
    assert_int_equal(o.n, 1 + 2 + 3 + 3 + 3 + EP_OTLP_VALUE_MAX);
    assert_int_equal(o.p[o.n - 2], 'a');
    assert_int_equal(o.p[o.n - 1], '?');
    ep_otlp_fini(&o);
}

static void test_the_envelope_counts_what_follows(void **state)
{
    struct ep_otlp o = {NULL, 0, 0}, resource = {NULL, 0, 0};

    (void)state;
    ep_otlp_attribute(&resource, EP_OTLP_RESOURCE_ATTRIBUTES, EP_STR("k"), EP_STR("v"));
    ep_otlp_envelope(&o, &resource, EP_STR("1"), 200);
    ep_otlp_fini(&resource);
    assert_bytes(&o, "\x0a\xe3\x01"                                     /* resource_spans: 12 + 3 + 12 + 200 */
                     "\x0a\x0a\x0a\x08\x0a\x01k\x12\x03\x0a\x01v"       /* resource */
                     "\x12\xd4\x01"                                     /* scope_spans: 12 + 200 */
                     "\x0a\x0a\x0a\x05" "ephor\x12\x01" "1");           /* scope */
}

static void test_what_the_answer_rejects(void **state)
{
    static const struct {
        struct ep_str body;
        uint64_t rejected;
        const char *why;
    } rows[] = {
        {EP_STR_INIT(""), 0, ""},
        {EP_STR_INIT("\x0a\x00"), 0, ""},
        {EP_STR_INIT("\x0a\x07\x08\xac\x02\x12\x02no"), 300, "no"},
        {EP_STR_INIT("\x0a\x04\x12\x02no"), 0, "no"},                                     /* a warning */
        {EP_STR_INIT("\x10\x01\x1d\x01\x02\x03\x04\x0a\x02\x08\x05"), 5, ""},             /* fields of a later version */
        {EP_STR_INIT("\x0a\x09\x08\x01"), 0, ""},                                         /* cut */
        {EP_STR_INIT("\x0a"), 0, ""},
        {EP_STR_INIT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), 0, ""},
        {EP_STR_INIT("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 0, ""},             /* a length beyond everything */
        {EP_STR_INIT("{\"partialSuccess\":{}}"), 0, ""},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_str why;
        assert_int_equal(ep_otlp_rejected(rows[i].body, &why), rows[i].rejected);
        assert_true(ep_str_eq(why, ep_str(rows[i].why)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_lengths_of_messages),
        cmocka_unit_test(test_text_is_utf8_and_bounded),
        cmocka_unit_test(test_the_envelope_counts_what_follows),
        cmocka_unit_test(test_what_the_answer_rejects),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
