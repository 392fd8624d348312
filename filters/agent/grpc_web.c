/* gRPC-Web's last frame, and where it may stand.
 *
 * Trailers are a frame of the body there: 0x80, a length, "grpc-status:7\r\n…" (names in lower case). A client reads
 * frame by frame, so it is only put behind whole ones; -text is base64, whose groups of four may end with padding
 * between frames. Source: gRPC's PROTOCOL-WEB. */
#include "agent/grpc.h"

#include <openssl/evp.h>

struct ep_grpc_web *ep_grpc_web_new(struct ep_stream *s)
{
    const struct ep_headers *h = &s->response.headers;
    struct ep_grpc_web *w;
    bool text;

    if (!ep_grpc_is_web_type(ep_headers_get_id(h, EP_HDR_CONTENT_TYPE), &text) ||
        ep_headers_find_id(h, EP_HDR_CONTENT_ENCODING) || ep_headers_find_id(h, EP_HDR_CONTENT_LENGTH))
        return NULL;
    w = EP_ARENA_NEW(&s->arena, struct ep_grpc_web);
    w->text = text;
    return w;
}

static void pass_bytes(struct ep_grpc_web *w, const unsigned char *p, size_t n)
{
    while (n > 0 && !w->broken) {
        if (w->n_prefix < EP_GRPC_PREFIX_BYTES) {
            w->prefix[w->n_prefix++] = *p++;
            n--;
            if (w->n_prefix < EP_GRPC_PREFIX_BYTES)
                continue;
            w->left = (uint32_t)w->prefix[1] << 24 | (uint32_t)w->prefix[2] << 16 | (uint32_t)w->prefix[3] << 8 |
                      w->prefix[4];
            w->broken = w->prefix[0] & ~EP_GRPC_COMPRESSED; /* trailers too: behind them comes nothing */
        } else {
            size_t k = EP_MIN(n, w->left);
            p += k;
            n -= k;
            w->left -= (uint32_t)k;
        }
        if (w->n_prefix == EP_GRPC_PREFIX_BYTES && w->left == 0)
            w->n_prefix = 0;
    }
}

static void pass_group(struct ep_grpc_web *w)
{
    unsigned char out[3];
    unsigned padding = w->group[3] != '=' ? 0 : w->group[2] != '=' ? 1 : 2;
    int n = EVP_DecodeBlock(out, w->group, 4);

    w->n_group = 0;
    w->broken |= n != 3;
    if (!w->broken)
        pass_bytes(w, out, 3 - padding);
}

void ep_grpc_web_pass(struct ep_grpc_web *w, struct ep_body *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        const struct ep_slice *slice = ep_body_at(b, i);
        if (!w->text) {
            pass_bytes(w, slice->p, slice->n);
            continue;
        }
        for (size_t k = 0; k < slice->n && !w->broken; k++) {
            w->group[w->n_group++] = slice->p[k];
            if (w->n_group == 4)
                pass_group(w);
        }
    }
}

bool ep_grpc_web_between(const struct ep_grpc_web *w)
{
    return !w->broken && w->n_prefix == 0 && w->n_group == 0;
}

struct ep_str ep_grpc_web_trailers(unsigned status, struct ep_str message, struct ep_str details, bool text,
                                   struct ep_arena *arena)
{
    struct ep_str lines =
        ep_arena_printf(arena, "grpc-status:%u\r\ngrpc-message:%.*s\r\n%s%.*s%s", status, EP_STR_ARG(message),
                        details.n ? "grpc-status-details-bin:" : "", EP_STR_ARG(details), details.n ? "\r\n" : "");
    size_t n = lines.n + EP_GRPC_PREFIX_BYTES;
    unsigned char *frame = ep_arena_alloc(arena, n), *out;

    frame[0] = EP_GRPC_TRAILERS;
    frame[1] = (unsigned char)(lines.n >> 24);
    frame[2] = (unsigned char)(lines.n >> 16);
    frame[3] = (unsigned char)(lines.n >> 8);
    frame[4] = (unsigned char)lines.n;
    memcpy(frame + EP_GRPC_PREFIX_BYTES, lines.p, lines.n);
    if (!text)
        return ep_str_n(frame, n);
    out = ep_arena_alloc(arena, n / 3 * 4 + 5);
    return ep_str_n(out, EVP_EncodeBlock(out, frame, n));
}
