/* gRPC's frames and protobuf's fields: grpc_frame.h has the sources. */
#include "agent/grpc_frame.h"

#include "http/decode.h"

/* `name`, then nothing, or what may follow a media type. */
static bool is_type(struct ep_str type, struct ep_str name)
{
    return ep_str_casestarts(type, name) &&
           (type.n == name.n || type.p[name.n] == '+' || type.p[name.n] == ';' || type.p[name.n] == ' ');
}

bool ep_grpc_is_type(struct ep_str content_type)
{
    return is_type(content_type, EP_STR("application/grpc"));
}

bool ep_grpc_is_web_type(struct ep_str content_type, bool *text)
{
    *text = is_type(content_type, EP_STR("application/grpc-web-text"));
    return *text || is_type(content_type, EP_STR("application/grpc-web"));
}

bool ep_grpc_is_json_type(struct ep_str content_type)
{
    struct ep_str type = ep_media_type(content_type), suffix = EP_STR("+json");

    return type.n > suffix.n && ep_str_caseeq(ep_str_n(type.p + type.n - suffix.n, suffix.n), suffix);
}

bool ep_grpc_from_text(struct ep_str body, struct ep_arena *arena, struct ep_str *out)
{
    unsigned char *to = ep_arena_alloc(arena, body.n / 4 * 3 + 1);
    size_t n = 0;

    for (size_t i = 0; i < body.n; i += 4) {
        const char *p = body.p + i;
        unsigned padding;
        uint32_t group = 0;

        if (body.n - i < 4)
            return false;
        padding = p[3] != '=' ? 0 : p[2] != '=' ? 1 : 2;
        for (unsigned k = 0; k < 4; k++) {
            unsigned bits = k < 4 - padding ? ep_base64_digit(p[k]) : 0;
            if (bits > 63)
                return false;
            group = group << 6 | bits;
        }
        if (group & ((1u << 8 * padding) - 1))
            return false;
        for (unsigned k = 0; k < 3 - padding; k++)
            to[n++] = (unsigned char)(group >> (16 - 8 * k));
    }
    *out = ep_str_n(to, n);
    return true;
}

enum ep_grpc_result ep_grpc_next(struct ep_str *rest, size_t max_bytes, struct ep_grpc_frame *out)
{
    const unsigned char *p = (const unsigned char *)rest->p;
    size_t n;

    if (rest->n == 0)
        return EP_GRPC_END;
    if (p[0] & ~EP_GRPC_COMPRESSED)
        return EP_GRPC_MALFORMED;
    if (rest->n < EP_GRPC_PREFIX_BYTES)
        return EP_GRPC_CUT;
    n = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (n > max_bytes)
        return EP_GRPC_MALFORMED;
    if (n > rest->n - EP_GRPC_PREFIX_BYTES)
        return EP_GRPC_CUT;
    *out = (struct ep_grpc_frame){p[0] & EP_GRPC_COMPRESSED, ep_str_n(p + EP_GRPC_PREFIX_BYTES, n)};
    *rest = ep_str_n(p + EP_GRPC_PREFIX_BYTES + n, rest->n - EP_GRPC_PREFIX_BYTES - n);
    return EP_GRPC_FRAME;
}

/* --- compressed --- */

enum ep_blind_reason ep_grpc_plain(const struct ep_headers *h, const struct ep_grpc_frame *f, size_t max_bytes,
                                   struct ep_arena *arena, struct ep_str *out)
{
    struct ep_str encoding = ep_str_trim(ep_headers_get(h, EP_STR("grpc-encoding")));
    struct ep_decoded text = {.arena = arena};
    struct ep_codings codings = {0};
    struct ep_decoder *d;
    enum ep_decode_status status;

    *out = f->payload;
    if (!f->compressed)
        return EP_BLIND_NOT;
    if (!ep_str_caseeq(encoding, EP_STR("gzip")) && !ep_str_caseeq(encoding, EP_STR("deflate")))
        return EP_BLIND_ENCODING; /* identity too: the flag must not be set with it */
    ep_codings_add(&codings, encoding);
    d = ep_decoder_new(&codings, max_bytes, ep_decoded_take, &text);
    status = ep_decoder_feed(d, (const unsigned char *)f->payload.p, f->payload.n);
    if (status == EP_DECODE_OK)
        status = ep_decoder_end(d);
    ep_decoder_free(d);
    *out = ep_str_n(text.p, text.n);
    if (status == EP_DECODE_TOO_LARGE || status == EP_DECODE_BOMB)
        return EP_BLIND_TOO_LARGE;
    return status == EP_DECODE_OK ? EP_BLIND_NOT : EP_BLIND_ENCODING;
}

enum ep_blind_reason ep_grpc_single(const struct ep_headers *h, struct ep_str body, size_t max_bytes,
                                    struct ep_arena *arena, struct ep_str *out, bool *malformed)
{
    struct ep_grpc_frame frame;

    *malformed = ep_grpc_next(&body, max_bytes, &frame) != EP_GRPC_FRAME || body.n;
    return *malformed ? EP_BLIND_UNKNOWN : ep_grpc_plain(h, &frame, max_bytes, arena, out);
}

/* --- protobuf --- */

static bool varint(struct ep_str *rest, uint64_t *out)
{
    *out = 0;
    for (unsigned i = 0; i < 10 && i < rest->n; i++) {
        uint8_t byte = (uint8_t)rest->p[i];
        *out |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80)
            continue;
        *rest = ep_str_n(rest->p + i + 1, rest->n - i - 1);
        return true;
    }
    return false;
}

static bool bytes(struct ep_str *rest, uint64_t n, struct ep_str *out)
{
    if (n > rest->n)
        return false;
    *out = ep_str_n(rest->p, (size_t)n);
    *rest = ep_str_n(rest->p + n, rest->n - (size_t)n);
    return true;
}

bool ep_proto_next(struct ep_str *rest, struct ep_proto_field *out)
{
    uint64_t tag, n;

    if (!varint(rest, &tag) || tag >> 3 == 0 || tag >> 32)
        return false;
    *out = (struct ep_proto_field){.number = tag >> 3, .wire = (enum ep_proto_wire)(tag & 7)};
    switch (tag & 7) {
    case EP_PROTO_VARINT:
        return varint(rest, &out->varint);
    case EP_PROTO_FIXED64:
        return bytes(rest, 8, &out->bytes);
    case EP_PROTO_BYTES:
        return varint(rest, &n) && bytes(rest, n, &out->bytes);
    case EP_PROTO_FIXED32:
        return bytes(rest, 4, &out->bytes);
    default:
        return false;
    }
}

double ep_proto_double(struct ep_str bytes)
{
    uint64_t bits = 0;
    double d;

    for (unsigned i = 0; i < 8; i++)
        bits |= (uint64_t)(unsigned char)bytes.p[i] << (8 * i);
    memcpy(&d, &bits, sizeof d);
    return d;
}
