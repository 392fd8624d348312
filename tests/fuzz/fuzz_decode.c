/* link: ep_http */
/* Decoding: the same bytes in other pieces say the same, what comes out keeps the limit, and an error stays. The first
 * byte names the codings, the second the size of a piece. */
#include <stdlib.h>

#include "http/decode.h"

#define CHECK(x) ((x) ? (void)0 : abort())
#define MAX      (256u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct out {
    size_t n;
    uint64_t hash;
};

static void take(void *user, const unsigned char *p, size_t n)
{
    struct out *o = user;

    CHECK(n > 0);
    o->n += n;
    CHECK(o->n <= MAX);
    for (size_t i = 0; i < n; i++)
        o->hash = (o->hash ^ p[i]) * 0x100000001b3u;
}

static enum ep_decode_status decode(const struct ep_codings *c, const uint8_t *p, size_t n, size_t piece, struct out *o)
{
    struct ep_decoder *d = ep_decoder_new(c, MAX, take, o);
    enum ep_decode_status status = EP_DECODE_OK, last;

    for (size_t at = 0; at < n; at += piece) {
        size_t some = EP_MIN(piece, n - at);
        unsigned char *own = malloc(some); /* so that a read behind it is seen */
        CHECK(own);
        memcpy(own, p + at, some);
        last = ep_decoder_feed(d, own, some);
        CHECK(status == EP_DECODE_OK || status == last);
        status = last;
        free(own);
    }
    last = ep_decoder_end(d);
    CHECK(status == EP_DECODE_OK || status == last);
    CHECK(last == ep_decoder_end(d));
    ep_decoder_free(d);
    return last;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct ep_codings c = {0};
    struct out whole = {0}, pieces = {0};
    enum ep_decode_status a, b;

    if (n < 2)
        return 0;
    c.v[c.n++] = (enum ep_coding)(data[0] & 3);
    if (data[0] & 4)
        c.v[c.n++] = (enum ep_coding)(data[0] >> 3 & 3);
    if (data[0] & 32)
        c.v[c.n++] = (enum ep_coding)(data[0] >> 6 & 3);
    a = decode(&c, data + 2, n - 2, n, &whole);
    b = decode(&c, data + 2, n - 2, data[1] ? data[1] : 1, &pieces);
    if (a == EP_DECODE_BOMB || b == EP_DECODE_BOMB) /* by what went in so far */
        return 0;
    CHECK((a == EP_DECODE_OK) == (b == EP_DECODE_OK));
    if (a == EP_DECODE_OK)
        CHECK(whole.n == pieces.n && whole.hash == pieces.hash);
    return 0;
}
