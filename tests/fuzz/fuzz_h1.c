/* link: ep_http */
/* HTTP/1, the pure parts: an input is read whole and in two pieces, as a request and as a response, and must be
 * understood the same; what is understood must be sayable, and understood the same when it was said.
 *
 * First byte: where to cut. Then the bytes of the connection. */
#include <stdlib.h>

#include "http/h1.h"

#define CHECK(x) ((x) ? (void)0 : abort())

static struct ep_chunk_pool pool;
static struct ep_http_options options, roomy; /* a Host may come to a hundred fields */

struct verdict {
    enum h1_result result;
    struct h1_problem problem;
    size_t used;
};

static struct verdict gather(struct h1_gather *g, const struct h1_gather_limits *limits, const char *p, size_t n, size_t cut,
                             struct ep_str *block)
{
    struct verdict v = {.result = H1_MORE};
    size_t used = 0;

    if (cut) {
        v.result = h1_gather(g, limits, p, cut, &used, block, &v.problem);
        v.used = used;
    }
    if (v.result == H1_MORE) {
        v.result = h1_gather(g, limits, p + cut, n - cut, &used, block, &v.problem);
        v.used += used;
    }
    return v;
}

static bool same_table(const struct ep_headers *a, const struct ep_headers *b)
{
    if (a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++) {
        if (!ep_str_eq(a->v[i].name, b->v[i].name) || !ep_str_eq(a->v[i].value, b->v[i].value))
            return false;
    }
    return true;
}

/* Table to bytes to table: pseudo-headers must survive, and nothing may be added. */
static void round_trip(const struct ep_headers *h, struct ep_arena *arena)
{
    static struct h1_head head;
    struct h1_write w = {.headers = h, .drop_length = true};
    struct h1_problem problem;
    char *out = ep_arena_alloc(arena, h1_write_bound(&w));
    size_t n = h1_write_request(&w, out);
    const struct ep_headers *again;

    CHECK(n <= h1_write_bound(&w));
    if (n == 0 || ep_headers_count_id(h, EP_HDR_AUTHORITY) == 0)
        return;
    CHECK(h1_parse_request(&head, ep_str_n(out, n), &roomy, &problem));
    again = h1_build_request(&head, arena, false);
    CHECK(again->n <= h->n); /* cookies were joined, nothing was added */
    CHECK(ep_str_eq(ep_headers_get_id(again, EP_HDR_AUTHORITY), ep_headers_get_id(h, EP_HDR_AUTHORITY)));
    CHECK(ep_str_eq(ep_headers_get_id(again, EP_HDR_PATH), ep_headers_get_id(h, EP_HDR_PATH)));
}

static void head_of(const char *p, size_t n, size_t cut, bool request)
{
    static struct h1_head a, b;
    const struct h1_gather_limits limits = {options.max_request_line, options.max_header_bytes, true, request};
    const struct h1_asked asked = {.head = false};
    struct h1_gather g1 = {.p = NULL}, g2 = {.p = NULL};
    struct ep_str block1, block2;
    struct verdict whole = gather(&g1, &limits, p, n, 0, &block1), cutted = gather(&g2, &limits, p, n, cut, &block2);
    struct h1_problem problem;
    struct ep_arena arena;

    CHECK(whole.result == cutted.result);
    if (whole.result == H1_DONE) {
        bool good = request ? h1_parse_request(&a, block1, &options, &problem)
                            : h1_parse_response(&a, block1, asked, &options, &problem);

        CHECK(whole.used == cutted.used && ep_str_eq(block1, block2));
        CHECK(good == (request ? h1_parse_request(&b, block2, &options, &problem)
                               : h1_parse_response(&b, block2, asked, &options, &problem)));
        if (good) {
            ep_arena_init(&arena, &pool);
            const struct ep_headers *x = request ? h1_build_request(&a, &arena, false) : h1_build_response(&a, &arena);
            const struct ep_headers *y = request ? h1_build_request(&b, &arena, false) : h1_build_response(&b, &arena);
            CHECK(same_table(x, y) && a.framing == b.framing && a.length == b.length);
            if (request && a.framing != H1_TUNNEL)
                round_trip(x, &arena);
            ep_arena_fini(&arena);
        }
    }
    h1_gather_reset(&g1);
    h1_gather_reset(&g2);
}

static void trailers_of(const char *p, size_t n)
{
    static struct h1_head head;
    const struct h1_gather_limits limits = {options.max_request_line, options.max_header_bytes, false, true};
    struct h1_gather g = {.p = NULL};
    struct h1_problem problem;
    struct ep_str block;
    struct ep_arena arena;

    if (gather(&g, &limits, p, n, 0, &block).result == H1_DONE && h1_parse_trailers(&head, block, &options, &problem)) {
        ep_arena_init(&arena, &pool);
        h1_build_trailers(&head, &arena);
        ep_arena_fini(&arena);
    }
    h1_gather_reset(&g);
}

/* The sum of the data and where the chunks end, cut or not. */
static enum h1_result chunks(const char *p, size_t n, size_t cut, uint64_t *bytes, size_t *end)
{
    struct h1_chunk k = {.state = 0};
    enum h1_result r = H1_MORE;
    size_t at = 0;

    *bytes = 0;
    while (at < n && r == H1_MORE) {
        size_t to = at < cut ? cut : n, used = 0;
        struct ep_str data;

        r = h1_chunk_feed(&k, (const unsigned char *)p + at, to - at, &used, &data);
        CHECK(r == H1_BAD || used > 0);
        *bytes += data.n;
        at += used;
    }
    *end = at;
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data + 1;
    uint64_t bytes1, bytes2;
    size_t n, cut, end1, end2;

    if (size < 2)
        return 0;
    if (options.max_streams == 0) {
        ep_http_options_preset(&options);
        roomy = options;
        roomy.max_header_count = H1_FIELDS_MAX;
        ep_chunk_pool_init(&pool, 16);
    }
    n = size - 1;
    cut = data[0] % (n + 1);
    head_of(p, n, cut == n ? 0 : cut, true);
    head_of(p, n, cut == n ? 0 : cut, false);
    trailers_of(p, n);
    enum h1_result r1 = chunks(p, n, 0, &bytes1, &end1), r2 = chunks(p, n, cut, &bytes2, &end2);
    CHECK(r1 == r2 && bytes1 == bytes2 && (r1 == H1_BAD || end1 == end2));
    return 0;
}
