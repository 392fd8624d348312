/* The body of a call as one text with room behind it, as the scan wants it: as it came, or decoded. */
#include "agent/agent.h"
#include "agent/events.h"
#include "filter/chain.h"

struct ep_str ep_agent_copy(struct ep_arena *arena, struct ep_body *b)
{
    char *copy = ep_arena_alloc(arena, b->bytes + EP_SCAN_PADDING);
    size_t n = 0;

    for (uint32_t i = 0; i < b->count; i++) {
        const struct ep_slice *slice = ep_body_at(b, i);
        memcpy(copy + n, slice->p, slice->n);
        n += slice->n;
    }
    memset(copy + n, 0, EP_SCAN_PADDING);
    return ep_str_n(copy, n);
}

struct ep_str ep_agent_body(struct ep_stream *s, struct ep_body *b)
{
    struct ep_slice *one = ep_body_front(b);

    if (b->count == 1 && one->slab &&
        (size_t)(one->slab->data + one->slab->size - one->p) >= one->n + EP_SCAN_PADDING) {
        if (s->call_slab)
            ep_slab_unref(s->call_slab);
        s->call_slab = ep_slab_ref(one->slab);
        return ep_slice_str(*one);
    }
    return ep_agent_copy(&s->arena, b);
}

/* --- decoded --- */

enum ep_blind_reason ep_agent_decoded(struct ep_stream *s, const struct ep_codings *c, struct ep_body *b,
                                      struct ep_str *out)
{
    struct ep_decoded text = {.arena = &s->arena, .spare = EP_SCAN_PADDING};
    struct ep_decoder *d = ep_decoder_new(c, s->chain->config->max_body_bytes, ep_decoded_take, &text);
    enum ep_decode_status status = EP_DECODE_OK;

    for (uint32_t i = 0; i < b->count && status == EP_DECODE_OK; i++) {
        const struct ep_slice *slice = ep_body_at(b, i);
        status = ep_decoder_feed(d, slice->p, slice->n);
    }
    if (status == EP_DECODE_OK)
        status = ep_decoder_end(d);
    ep_decoder_free(d);
    if (status == EP_DECODE_TOO_LARGE || status == EP_DECODE_BOMB)
        return EP_BLIND_TOO_LARGE;
    if (status != EP_DECODE_OK)
        return EP_BLIND_ENCODING;
    if (text.n)
        memset(text.p + text.n, 0, EP_SCAN_PADDING);
    *out = ep_str_n(text.p, text.n);
    return EP_BLIND_NOT;
}

bool ep_agent_may_be_json(struct ep_body *b)
{
    static const unsigned char mark[] = {0xef, 0xbb, 0xbf};
    size_t at = 0;

    for (uint32_t i = 0; i < b->count; i++) {
        const struct ep_slice *slice = ep_body_at(b, i);
        for (size_t k = 0; k < slice->n; k++, at++) {
            unsigned char c = slice->p[k];
            if (c == '{' || c == '[')
                return true;
            if (c > ' ' && !(at < sizeof mark && c == mark[at]))
                return false;
        }
    }
    return false;
}

bool ep_stream_response_is_events(const struct ep_stream *s)
{
    const struct ep_headers *h = &s->response.headers;
    struct ep_str coding = ep_headers_get_id(h, EP_HDR_CONTENT_ENCODING);

    return ep_headers_are_events(h) && (coding.n == 0 || ep_str_caseeq(coding, EP_STR("identity")));
}
