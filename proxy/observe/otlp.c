/* Protobuf's wire format (https://protobuf.dev/programming-guides/encoding/), as far as spans need it. */
#include "observe/otlp.h"

#include <stdlib.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

void ep_otlp_fini(struct ep_otlp *o)
{
    free(o->p);
    *o = (struct ep_otlp){NULL, 0, 0};
}

static void room(struct ep_otlp *o, size_t more)
{
    if (o->cap - o->n >= more)
        return;
    o->cap = EP_MAX(o->cap * 2, o->n + more + 1024);
    o->p = ep_realloc(o->p, o->cap);
}

static unsigned varint_size(uint64_t v)
{
    return (unsigned)(70 - __builtin_clzll(v | 1)) / 7;
}

/* A varint, for which there is room. */
static void put_varint(struct ep_otlp *o, uint64_t v)
{
    for (; v > 127; v >>= 7)
        o->p[o->n++] = (char)(v | 0x80);
    o->p[o->n++] = (char)v;
}

static void raw_varint(struct ep_otlp *o, uint64_t v)
{
    room(o, 10);
    put_varint(o, v);
}

static void tag(struct ep_otlp *o, unsigned field, unsigned type)
{
    raw_varint(o, (uint64_t)field << 3 | type);
}

static void raw(struct ep_otlp *o, const void *p, size_t n)
{
    room(o, n);
    memcpy(o->p + o->n, p, n);
    o->n += n;
}

void ep_otlp_append(struct ep_otlp *o, const struct ep_otlp *more)
{
    if (more->n)
        raw(o, more->p, more->n);
}

size_t ep_otlp_open(struct ep_otlp *o, unsigned field)
{
    tag(o, field, BYTES);
    room(o, 2);
    o->n += 2; /* for the length: 128 to 16383 bytes is what spans have */
    return o->n;
}

void ep_otlp_close(struct ep_otlp *o, size_t at)
{
    size_t n = o->n - at;
    unsigned size = varint_size(n);

    if (size != 2) {
        room(o, size);
        memmove(o->p + at - 2 + size, o->p + at, n);
    }
    o->n = at - 2;
    raw_varint(o, n);
    o->n += n;
}

void ep_otlp_varint(struct ep_otlp *o, unsigned field, uint64_t v)
{
    tag(o, field, VARINT);
    raw_varint(o, v);
}

void ep_otlp_fixed32(struct ep_otlp *o, unsigned field, uint32_t v)
{
    tag(o, field, FIXED32);
    raw(o, &v, sizeof v); /* little-endian, as amd64 and arm64 are */
}

void ep_otlp_fixed64(struct ep_otlp *o, unsigned field, uint64_t v)
{
    tag(o, field, FIXED64);
    raw(o, &v, sizeof v);
}

static unsigned digit(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a' + 10);
}

void ep_otlp_hex(struct ep_otlp *o, unsigned field, struct ep_str digits)
{
    tag(o, field, BYTES);
    raw_varint(o, digits.n / 2);
    room(o, digits.n / 2);
    for (size_t i = 0; i + 1 < digits.n; i += 2)
        o->p[o->n++] = (char)(digit(digits.p[i]) << 4 | digit(digits.p[i + 1]));
}

static bool all_ascii(const char *p, size_t n)
{
    uint64_t x, seen = 0;

    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&x, p, 8);
        seen |= x;
    }
    for (; n; n--)
        seen |= (unsigned char)*p++;
    return (seen & 0x8080808080808080u) == 0;
}

static void mend(char *p, size_t n)
{
    for (size_t i = 0, k; i < n; i += k) {
        k = ep_utf8_length(p + i, n - i);
        if (k == 0) {
            p[i] = '?';
            k = 1;
        }
    }
}

/* The bytes, for which there is room. */
static void put_text(struct ep_otlp *o, struct ep_str s, size_t n)
{
    memcpy(o->p + o->n, s.p, n);
    if (EP_UNLIKELY(!all_ascii(s.p, n)))
        mend(o->p + o->n, n);
    o->n += n;
}

void ep_otlp_text(struct ep_otlp *o, unsigned field, struct ep_str s)
{
    size_t n;

    if (s.n == 0)
        return;
    n = EP_MIN(s.n, (size_t)EP_OTLP_VALUE_MAX);
    tag(o, field, BYTES);
    raw_varint(o, n);
    room(o, n);
    put_text(o, s, n);
}

/* KeyValue {key = 1, value = 2}, up to the AnyValue's own field, of which `value_n` bytes follow and have room. */
static void attribute(struct ep_otlp *o, unsigned field, struct ep_str key, size_t value_n)
{
    assert(key.n < 128 && field < 16);
    room(o, key.n + value_n + 12);
    o->p[o->n++] = (char)(field << 3 | BYTES);
    put_varint(o, 2 + key.n + 1 + varint_size(value_n) + value_n);
    o->p[o->n++] = 1 << 3 | BYTES;
    o->p[o->n++] = (char)key.n;
    memcpy(o->p + o->n, key.p, key.n);
    o->n += key.n;
    o->p[o->n++] = 2 << 3 | BYTES;
    put_varint(o, value_n);
}

void ep_otlp_attribute(struct ep_otlp *o, unsigned field, struct ep_str key, struct ep_str value)
{
    size_t n = EP_MIN(value.n, (size_t)EP_OTLP_VALUE_MAX);

    if (n == 0)
        return;
    attribute(o, field, key, 1 + varint_size(n) + n);
    o->p[o->n++] = 1 << 3 | BYTES; /* AnyValue.string_value */
    put_varint(o, n);
    put_text(o, value, n);
}

void ep_otlp_attribute_int(struct ep_otlp *o, unsigned field, struct ep_str key, int64_t value)
{
    attribute(o, field, key, 1 + varint_size((uint64_t)value));
    o->p[o->n++] = 3 << 3 | VARINT;
    put_varint(o, (uint64_t)value);
}

void ep_otlp_attribute_double(struct ep_otlp *o, unsigned field, struct ep_str key, double value)
{
    attribute(o, field, key, 1 + sizeof value);
    o->p[o->n++] = 4 << 3 | FIXED64;
    memcpy(o->p + o->n, &value, sizeof value);
    o->n += sizeof value;
}

void ep_otlp_attribute_bool(struct ep_otlp *o, unsigned field, struct ep_str key, bool value)
{
    attribute(o, field, key, 2);
    o->p[o->n++] = 2 << 3 | VARINT;
    o->p[o->n++] = value;
}

void ep_otlp_envelope(struct ep_otlp *o, const struct ep_otlp *resource, struct ep_str version, size_t spans_n)
{
    struct ep_otlp scope = {NULL, 0, 0};
    size_t at = ep_otlp_open(&scope, EP_OTLP_SCOPE_SPANS_SCOPE), scope_spans;

    ep_otlp_text(&scope, EP_OTLP_SCOPE_NAME, EP_STR("ephor"));
    ep_otlp_text(&scope, EP_OTLP_SCOPE_VERSION, version);
    ep_otlp_close(&scope, at);
    scope_spans = scope.n + spans_n;
    tag(o, EP_OTLP_REQUEST_RESOURCE_SPANS, BYTES);
    raw_varint(o, 1 + varint_size(resource->n) + resource->n + 1 + varint_size(scope_spans) + scope_spans);
    tag(o, EP_OTLP_RESOURCE_SPANS_RESOURCE, BYTES);
    raw_varint(o, resource->n);
    ep_otlp_append(o, resource);
    tag(o, EP_OTLP_RESOURCE_SPANS_SCOPE_SPANS, BYTES);
    raw_varint(o, scope_spans);
    ep_otlp_append(o, &scope);
    ep_otlp_fini(&scope);
}

/* --- reading the answer --- */

static bool take_varint(struct ep_str *in, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; in->n && shift < 64; shift += 7) {
        unsigned char c = (unsigned char)*in->p++;
        in->n--;
        *out |= (uint64_t)(c & 0x7f) << shift;
        if (!(c & 0x80))
            return true;
    }
    return false;
}

/* The next field: its number, and its value as a number or as bytes. False at the end, or when it can't be read. */
static bool take_field(struct ep_str *in, unsigned *field, uint64_t *number, struct ep_str *bytes)
{
    static const size_t fixed[] = {[FIXED64] = 8, [FIXED32] = 4};
    uint64_t key, n;

    *number = 0;
    *bytes = (struct ep_str){NULL, 0};
    if (!take_varint(in, &key))
        return false;
    *field = (unsigned)(key >> 3);
    switch (key & 7) {
    case VARINT:
        return take_varint(in, number);
    case BYTES:
        if (!take_varint(in, &n))
            return false;
        break;
    case FIXED64:
    case FIXED32:
        n = fixed[key & 7];
        break;
    default:
        return false;
    }
    if (n > in->n)
        return false;
    *bytes = ep_str_n(in->p, (size_t)n);
    in->p += n;
    in->n -= (size_t)n;
    return true;
}

uint64_t ep_otlp_rejected(struct ep_str body, struct ep_str *why)
{
    struct ep_str part, bytes;
    uint64_t number, rejected = 0;
    unsigned field;

    *why = (struct ep_str){NULL, 0};
    while (take_field(&body, &field, &number, &part)) {
        if (field != 1) /* partial_success */
            continue;
        while (take_field(&part, &field, &number, &bytes)) {
            if (field == 1)
                rejected = number;
            else if (field == 2)
                *why = bytes;
        }
    }
    return rejected;
}
