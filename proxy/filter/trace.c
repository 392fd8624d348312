/* W3C Trace Context (https://www.w3.org/TR/trace-context/): traceparent is carried on as it came, and made for a share
 * of the requests that have none.
 *
 * A random value is in no HPACK table: making one costs a tenth of a small request, so it is for those that something
 * will use. What is logged or audited gets a trace id in any case, made when it is asked for. */
#include "filter/trace.h"

#include "filter/chain.h"

static const struct ep_field fields[] = {
    {.key = "sample",
     .type = EP_TYPE_PERCENT,
     .offset = offsetof(struct ep_tracing_config, sample),
     .preset = "0%",
     .max = 100,
     .help = "Of the requests that come without a traceparent, the share that gets one, marked as sampled. One that "
             "came is carried on in any case."},
};

const struct ep_schema ep_tracing_schema =
    EP_SCHEMA("tracing", "Distributed traces.", struct ep_tracing_config, fields, .check = NULL);

static bool lower_hex(struct ep_str s)
{
    bool some = false;

    for (size_t i = 0; i < s.n; i++) {
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
            return false;
        some |= s.p[i] != '0';
    }
    return some;
}

/* "00-<32 hex>-<16 hex>-<2 hex>", neither id all zero; later versions may go on behind it. */
static bool valid(struct ep_str t)
{
    return t.n >= 55 && t.p[2] == '-' && t.p[35] == '-' && t.p[52] == '-' && lower_hex(ep_str_n(t.p + 3, 32)) &&
           lower_hex(ep_str_n(t.p + 36, 16));
}

/* 16 hex digits, eight at a time: each byte of x is one digit's value, and those above 9 get the way to 'a' added. */
static void hex(char *out, uint64_t v)
{
    for (int half = 0; half < 2; half++, v <<= 32) {
        uint64_t x = v >> 32, above;

        x = ((x & 0xffff0000u) << 16) | (x & 0xffffu);
        x = ((x << 8) | x) & 0x00ff00ff00ff00ffu;
        x = ((x << 4) | x) & 0x0f0f0f0f0f0f0f0fu;
        above = ((x + 0x0606060606060606u) >> 4) & 0x0101010101010101u;
        x = __builtin_bswap64(x + 0x3030303030303030u + above * ('a' - '0' - 10));
        memcpy(out + 8 * half, &x, 8);
    }
}

struct ep_str ep_stream_trace(struct ep_stream *s)
{
    struct ep_str given;
    char *p;

    if (s->trace_id.n || s->down->version == EP_HTTP_TCP)
        return s->trace_id;
    given = ep_headers_get_id(&s->request.headers, EP_HDR_TRACEPARENT);
    if (valid(given)) {
        s->trace_id = ep_arena_str(&s->arena, ep_str_n(given.p + 3, 32));
        s->span_id = ep_arena_str(&s->arena, ep_str_n(given.p + 36, 16));
        return s->trace_id;
    }
    p = ep_arena_alloc(&s->arena, 32);
    hex(p, ep_rng_u64(&s->worker->rng) | 1);
    hex(p + 16, ep_rng_u64(&s->worker->rng));
    s->trace_id = ep_str_n(p, 32);
    return s->trace_id;
}

void ep_trace_pass(struct ep_stream *s)
{
    struct ep_headers *h = &s->request.headers;
    struct ep_str given = ep_headers_get_id(h, EP_HDR_TRACEPARENT);
    double sample = s->view->trace_sample;
    char *p;

    if (given.n && valid(given))
        return;
    if (given.n)
        ep_headers_remove_id(h, EP_HDR_TRACEPARENT);
    if (EP_LIKELY(sample <= 0) || s->down->version == EP_HTTP_TCP || ep_rng_unit(&s->worker->rng) >= sample)
        return;
    p = ep_arena_alloc(&s->arena, 56);
    memcpy(p, "00-", 3);
    memcpy(p + 3, ep_stream_trace(s).p, 32);
    p[35] = '-';
    hex(p + 36, ep_rng_u64(&s->worker->rng) | 1);
    memcpy(p + 52, "-01", 3);
    ep_headers_append(h, EP_HDR_TRACEPARENT, EP_STR("traceparent"), ep_str_n(p, 55));
    h->v[h->n - 1].flags |= EP_HEADER_NO_INDEX; /* it never comes twice: don't fill the HPACK table with it */
}
