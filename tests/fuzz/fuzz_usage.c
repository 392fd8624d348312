/* link: ep_filters */
/* Tokens out of answers: the same bytes in other pieces are the same usage, and the numbers stay within what they may be. The
 * first byte says which API and form, the second the size of a piece. */
#include <stdlib.h>

#include "meter/meter.h"

#define CHECK(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The binder's, which stands above the filters. */
void ep_check_error(struct ep_checker *c, const void *object, const char *key, const char *format, ...)
{
    (void)c, (void)object, (void)key, (void)format;
}

static struct ep_usage read_pieces(uint8_t how, const uint8_t *p, size_t n, size_t piece)
{
    struct ep_codings codings = {.n = how >> 2 & 1, .v = {EP_CODING_GZIP}};
    struct ep_slab_pool slabs;
    struct ep_usage u = {0};
    struct ep_usage_reader r;

    ep_slab_pool_init(&slabs, 4);
    ep_usage_reader_init(&r, &u, how & 1, how & 2 ? EP_USAGE_EVENTS : EP_USAGE_JSON, &codings, &slabs);
    for (size_t at = 0; at < n; at += piece) {
        size_t some = EP_MIN(piece, n - at);
        struct ep_slab *slab = ep_slab_new_sized(&slabs, some);
        memcpy(slab->data, p + at, some);
        ep_usage_read(&r, (struct ep_slice){slab, slab->data, some});
        ep_slab_unref(slab);
    }
    ep_usage_end(&r);
    u.whole = ep_usage_is_whole(&r);
    ep_usage_reader_fini(&r);
    CHECK(slabs.n_live == 0);
    ep_slab_pool_fini(&slabs);
    return u;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct ep_usage a, b;

    if (n < 2)
        return 0;
    a = read_pieces(data[0], data + 2, n - 2, n);
    b = read_pieces(data[0], data + 2, n - 2, (size_t)data[1] + 1);
    CHECK(a.input == b.input && a.output == b.output && a.cached == b.cached && a.cache_write == b.cache_write);
    CHECK(a.input_known == b.input_known && a.output_known == b.output_known && a.whole == b.whole);
    CHECK(a.model_n == b.model_n && a.model_n <= sizeof a.model && memcmp(a.model, b.model, a.model_n) == 0);
    CHECK(a.input <= 3000000000000u && a.cached <= 1000000000000u && a.reasoning <= 1000000000000u);
    (void)ep_estimate_json(ep_str_n(data, n));
    return 0;
}
