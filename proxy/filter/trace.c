/* W3C Trace Context (https://www.w3.org/TR/trace-context/) and who is traced.
 *
 * A request that is not traced carries its traceparent and tracestate on as they came: this hop takes no part in the trace. One
 * that is traced gets our span's id as the parent of what follows; tracestate stays, since we have no entry of our own in it.
 * What can't be read as a traceparent is dropped with its tracestate, and is as good as none.
 *
 * A random value is in no HPACK table: making one costs a tenth of a small request, so it is for those that something
 * will use. What is logged or audited gets a trace id in any case, made when it is asked for. */
#include "filter/trace.h"

#include "filter/chain.h"

#define FLAG_SAMPLED 1u
#define FLAGS_KNOWN  3u /* sampled, and of level 2: random */

bool ep_collector_parse(struct ep_str url, struct ep_collector *out)
{
    struct ep_str rest;
    ptrdiff_t slash, colon = -1;
    uint64_t port;

    *out = (struct ep_collector){.https = ep_str_casestarts(url, EP_STR("https://"))};
    if (!out->https && !ep_str_casestarts(url, EP_STR("http://")))
        return false;
    rest = ep_str_n(url.p + 7 + out->https, url.n - 7 - out->https);
    slash = ep_str_find(rest, '/', 0);
    out->authority = ep_str_n(rest.p, slash < 0 ? rest.n : (size_t)slash);
    out->path = ep_str_n(rest.p + out->authority.n, rest.n - out->authority.n);
    while (out->path.n && out->path.p[out->path.n - 1] == '/')
        out->path.n--;
    for (size_t i = 0; i < url.n; i++)
        if (url.p[i] <= ' ' || url.p[i] > '~' || strchr("@?#", url.p[i]))
            return false;
    for (size_t i = 0; i < out->authority.n; i++)
        if (out->authority.p[i] == ':' && (out->authority.p[0] != '[' || (i && out->authority.p[i - 1] == ']')))
            colon = (ptrdiff_t)i;
    out->port = out->https ? 443 : 80;
    out->host = ep_str_n(out->authority.p, colon < 0 ? out->authority.n : (size_t)colon);
    if (colon >= 0) {
        if (!ep_str_u64(ep_str_n(out->authority.p + colon + 1, out->authority.n - (size_t)colon - 1), &port) || port == 0 ||
            port > 65535)
            return false;
        out->port = (uint16_t)port;
    }
    if (out->host.n > 2 && out->host.p[0] == '[' && out->host.p[out->host.n - 1] == ']')
        out->host = ep_str_n(out->host.p + 1, out->host.n - 2);
    for (size_t i = 0; i < out->host.n; i++) {
        char c = ep_lower(out->host.p[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr(".-_:", c)))
            return false;
    }
    return out->host.n > 0 && out->path.n <= EP_COLLECTOR_PATH_MAX;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Eight at a time: a byte's high bit tells whether it is at least the first, or beyond the last, of a range. */
static bool lower_hex(struct ep_str s, bool *zero)
{
    const uint64_t ones = 0x0101010101010101u, high = ones << 7;
    uint64_t others = 0;
    size_t i = 0;

    for (; i + 8 <= s.n; i += 8) {
        uint64_t x, digit, letter;
        memcpy(&x, s.p + i, 8);
        digit = (x + ones * (0x80 - '0')) & ~(x + ones * (0x80 - '9' - 1));
        letter = (x + ones * (0x80 - 'a')) & ~(x + ones * (0x80 - 'f' - 1));
        if ((x & high) || ((digit | letter) & high) != high)
            return false;
        others |= x ^ ones * '0';
    }
    *zero = others == 0;
    for (; i < s.n; i++) {
        if (hex_digit(s.p[i]) < 0)
            return false;
        *zero &= s.p[i] == '0';
    }
    return true;
}

/* "00-<32 hex>-<16 hex>-<2 hex>", neither id all zero; later versions may go on behind it, by another '-'. */
bool ep_traceparent_parse(struct ep_str t, struct ep_traceparent *out)
{
    bool no_trace, no_parent, zero, first;

    if (t.n < 55 || t.p[2] != '-' || t.p[35] != '-' || t.p[52] != '-' || !lower_hex(ep_str_n(t.p, 2), &first) ||
        ep_str_starts(t, EP_STR("ff")) || (t.n > 55 && (first || t.p[55] != '-')))
        return false;
    out->trace_id = ep_str_n(t.p + 3, 32);
    out->parent_id = ep_str_n(t.p + 36, 16);
    if (!lower_hex(out->trace_id, &no_trace) || !lower_hex(out->parent_id, &no_parent) || no_trace || no_parent ||
        !lower_hex(ep_str_n(t.p + 53, 2), &zero))
        return false;
    out->flags = (uint8_t)(hex_digit(t.p[53]) << 4 | hex_digit(t.p[54]));
    return true;
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

/* The caller's traceparent, if the request has just one and it can be read. */
static bool given_of(const struct ep_headers *h, struct ep_traceparent *t)
{
    struct ep_str given = ep_headers_get_id(h, EP_HDR_TRACEPARENT);

    return given.n && ep_traceparent_parse(given, t) && ep_headers_count_id(h, EP_HDR_TRACEPARENT) == 1;
}

struct ep_str ep_stream_trace(struct ep_stream *s)
{
    struct ep_traceparent t;
    char *p;

    if (s->trace_id.n || (s->down->version == EP_HTTP_TCP && !s->worker->spans))
        return s->trace_id;
    if (given_of(&s->request.headers, &t)) {
        s->trace_id = ep_arena_str(&s->arena, t.trace_id);
        s->parent_id = ep_arena_str(&s->arena, t.parent_id);
        s->trace_flags = t.flags & FLAGS_KNOWN;
        return s->trace_id;
    }
    p = ep_arena_alloc(&s->arena, 32);
    hex(p, ep_rng_u64(&s->worker->rng) | 1);
    hex(p + 16, ep_rng_u64(&s->worker->rng));
    s->trace_id = ep_str_n(p, 32);
    return s->trace_id;
}

struct ep_str ep_stream_span(struct ep_stream *s)
{
    char *p;

    if (s->span_id.n)
        return s->span_id;
    p = ep_arena_alloc(&s->arena, 16);
    hex(p, ep_rng_u64(&s->worker->rng) | 1);
    s->span_id = ep_str_n(p, 16);
    return s->span_id;
}

struct ep_str ep_stream_span_on_record(struct ep_stream *s)
{
    ep_stream_trace(s);
    if (s->worker->spans && (s->view->trace_decisions == EP_TRACE_DECISIONS_ALWAYS || ep_stream_traced(s)))
        return ep_stream_span(s);
    return s->parent_id;
}

bool ep_stream_traced(struct ep_stream *s)
{
    double sample = s->view->trace_sample;

    if (s->trace_known)
        return s->traced;
    s->trace_known = true;
    if (ep_headers_find_id(&s->request.headers, EP_HDR_TRACEPARENT))
        ep_stream_trace(s); /* the caller's, if it can be read; one of our own is made only where it is used */
    if (s->parent_id.n)
        s->traced = s->worker->spans && (s->trace_flags & FLAG_SAMPLED);
    else
        s->traced = sample > 0 && ep_rng_unit(&s->worker->rng) < sample;
    if (s->traced)
        s->trace_flags |= FLAG_SAMPLED;
    return s->traced;
}

/* It is what ep_stream_trace has parsed. */
static bool is_as_given(const struct ep_stream *s, struct ep_str t)
{
    return s->parent_id.n == 16 && t.n == 55 && memcmp(t.p + 3, s->trace_id.p, 32) == 0 &&
           memcmp(t.p + 36, s->parent_id.p, 16) == 0 && ep_headers_count_id(&s->request.headers, EP_HDR_TRACEPARENT) == 1;
}

void ep_trace_pass(struct ep_stream *s)
{
    struct ep_headers *h = &s->request.headers;
    struct ep_header *header = ep_headers_find_id(h, EP_HDR_TRACEPARENT);
    struct ep_traceparent t;
    bool traced;
    char *p;

    if (EP_LIKELY(!header && s->view->trace_sample <= 0))
        return;
    if (s->down->version == EP_HTTP_TCP)
        return;
    traced = ep_stream_traced(s); /* first: it parses what came */
    if (header && !is_as_given(s, header->value) && !given_of(h, &t)) {
        ep_headers_remove_id(h, EP_HDR_TRACEPARENT);
        ep_headers_remove_id(h, EP_HDR_TRACESTATE);
        header = NULL;
    }
    if (!traced)
        return;
    p = ep_arena_alloc(&s->arena, 56);
    memcpy(p, "00-", 3);
    memcpy(p + 3, ep_stream_trace(s).p, 32);
    p[35] = '-';
    memcpy(p + 36, ep_stream_span(s).p, 16);
    memcpy(p + 52, "-0", 2);
    p[54] = (char)('0' + s->trace_flags);
    if (header) {
        header->value = ep_str_n(p, 55);
    } else {
        ep_headers_append(h, EP_HDR_TRACEPARENT, EP_STR("traceparent"), ep_str_n(p, 55));
        header = &h->v[h->n - 1];
    }
    header->flags |= EP_HEADER_NO_INDEX; /* it never comes twice: don't fill the HPACK table with it */
}
