/* The layers of a decoder: each undoes one coding and gives what comes out to the next, the last one to the sink.
 *
 * `deflate` is zlib's format by the RFC, and raw deflate by what many send and take. Both are read, but not a body that
 * could be either: the first byte of zlib's format is, to a reader of raw deflate, the beginning of a stored block. */
#include "http/decode.h"

#include <brotli/decode.h>
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "http/headers.h"

#define OUT_BYTES       16384u
#define ZSTD_WINDOW_LOG 23 /* RFC 9659: 8 MiB */
#define ZSTD_MAGIC      0xfd2fb528u
#define ZSTD_SKIPPABLE  0x184d2a50u /* to …5f */

enum progress { FRESH, RUNNING, WHOLE };

struct layer {
    enum ep_coding coding;
    enum progress progress;
    union {
        z_stream z;
        BrotliDecoderState *br;
        ZSTD_DStream *zstd;
    } u;
    bool made;             /* u is */
    bool maybe_raw;        /* deflate: reads as a stored block too */
    unsigned char head[5]; /* deflate: of the stream; zstd: of the frame */
    unsigned n_head;
    uint64_t in, out;
    unsigned char buffer[OUT_BYTES];
};

struct ep_decoder {
    enum ep_decode_status status;
    size_t max_bytes;
    ep_decode_sink *sink;
    void *user;
    unsigned n; /* layers; the last one in the list is undone first */
    struct layer layer[];
};

bool ep_codings_add(struct ep_codings *c, struct ep_str value)
{
    static const struct {
        const char *name;
        enum ep_coding coding;
    } names[] = {
        {"gzip", EP_CODING_GZIP}, {"x-gzip", EP_CODING_GZIP}, {"deflate", EP_CODING_DEFLATE},
        {"br", EP_CODING_BR},     {"zstd", EP_CODING_ZSTD},
    };
    struct ep_str item;

    while (ep_str_next(&value, ',', &item)) {
        size_t i = 0;
        item = ep_str_trim(item);
        if (item.n == 0 || ep_str_caseeq(item, EP_STR("identity")))
            continue;
        while (i < EP_COUNT(names) && !ep_str_caseeq(item, ep_str(names[i].name)))
            i++;
        if (i == EP_COUNT(names) || c->n == EP_CODINGS_MAX)
            return false;
        c->v[c->n++] = names[i].coding;
    }
    return true;
}

bool ep_codings_of(const struct ep_headers *h, struct ep_codings *c)
{
    c->n = 0;
    for (uint32_t i = 0; i < h->n; i++)
        if (h->v[i].id == EP_HDR_CONTENT_ENCODING && !ep_codings_add(c, h->v[i].value))
            return false;
    return true;
}

/* --- what comes out --- */

static void feed(struct ep_decoder *d, unsigned at, const unsigned char *p, size_t n);

static void emit(struct ep_decoder *d, unsigned at, size_t n)
{
    struct layer *l = &d->layer[at];

    if (n == 0 || d->status != EP_DECODE_OK)
        return;
    l->out += n;
    if (l->out > d->max_bytes)
        d->status = EP_DECODE_TOO_LARGE;
    else if (l->out > EP_DECODE_RATIO_FREE && l->out / EP_DECODE_RATIO > l->in)
        d->status = EP_DECODE_BOMB;
    else if (at)
        feed(d, at - 1, l->buffer, n);
    else
        d->sink(d->user, l->buffer, n);
}

/* --- gzip and deflate --- */

static bool inflate_begin(struct layer *l, int window_bits)
{
    l->u.z = (z_stream){0};
    l->made = inflateInit2(&l->u.z, window_bits) == Z_OK;
    l->progress = RUNNING;
    return l->made;
}

static void inflate_more(struct ep_decoder *d, unsigned at, const unsigned char *p, size_t n)
{
    struct layer *l = &d->layer[at];
    z_stream *z = &l->u.z;
    int result;

    assert(n <= UINT_MAX);
    z->next_in = (unsigned char *)(uintptr_t)p; /* zlib doesn't write there */
    z->avail_in = (unsigned)n;
    do {
        if (l->progress == WHOLE) { /* another member of a gzip file, or garbage */
            if (l->coding != EP_CODING_GZIP || inflateReset(z) != Z_OK) {
                d->status = EP_DECODE_BAD;
                return;
            }
            l->progress = RUNNING;
        }
        z->next_out = l->buffer;
        z->avail_out = OUT_BYTES;
        result = inflate(z, Z_NO_FLUSH);
        emit(d, at, OUT_BYTES - z->avail_out);
        if (d->status != EP_DECODE_OK)
            return;
        if (result == Z_STREAM_END)
            l->progress = WHOLE;
        else if (result != Z_OK && result != Z_BUF_ERROR)
            d->status = EP_DECODE_BAD;
    } while (d->status == EP_DECODE_OK && (z->avail_in || (l->progress == RUNNING && z->avail_out == 0)));
}

static void gzip(struct ep_decoder *d, unsigned at, const unsigned char *p, size_t n)
{
    if (d->layer[at].progress == FRESH && !inflate_begin(&d->layer[at], 15 + 16))
        d->status = EP_DECODE_BAD;
    else
        inflate_more(d, at, p, n);
}

static bool zlib_begins(const unsigned char head[2])
{
    return (head[0] & 0x0f) == 8 && head[0] >> 4 <= 7 && (head[0] << 8 | head[1]) % 31 == 0;
}

static void deflate_(struct ep_decoder *d, unsigned at, const unsigned char *p, size_t n)
{
    struct layer *l = &d->layer[at];

    while (l->n_head < 5 && n) {
        l->head[l->n_head++] = *p++;
        n--;
        if (l->n_head == 2) {
            if (!inflate_begin(l, zlib_begins(l->head) ? 15 : -15)) {
                d->status = EP_DECODE_BAD;
                return;
            }
            inflate_more(d, at, l->head, 2);
        } else if (l->n_head > 2) {
            inflate_more(d, at, l->head + l->n_head - 1, 1);
        }
        if (d->status != EP_DECODE_OK)
            return;
    }
    l->maybe_raw = l->n_head == 5 && zlib_begins(l->head) && (l->head[1] ^ l->head[3]) == 0xff &&
                   (l->head[2] ^ l->head[4]) == 0xff;
    if (n)
        inflate_more(d, at, p, n);
}

/* Whether a reader of raw deflate gets beyond the stored block that it sees at the beginning. */
static bool deflate_ambiguous(const struct layer *l)
{
    return l->maybe_raw && l->in > 5u + (l->head[1] | (unsigned)l->head[2] << 8);
}

/* --- br --- */

static void brotli(struct ep_decoder *d, unsigned at, const unsigned char *p, size_t n)
{
    struct layer *l = &d->layer[at];
    BrotliDecoderResult result;

    if (l->progress == FRESH) {
        l->u.br = BrotliDecoderCreateInstance(NULL, NULL, NULL);
        l->made = l->u.br != NULL;
        l->progress = RUNNING;
    }
    if (!l->made || l->progress == WHOLE) {
        d->status = EP_DECODE_BAD;
        return;
    }
    do {
        unsigned char *out = l->buffer;
        size_t room = OUT_BYTES;
        result = BrotliDecoderDecompressStream(l->u.br, &n, &p, &room, &out, NULL);
        emit(d, at, OUT_BYTES - room);
    } while (d->status == EP_DECODE_OK && result == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT);
    if (d->status != EP_DECODE_OK)
        return;
    if (result == BROTLI_DECODER_RESULT_SUCCESS)
        l->progress = WHOLE;
    if (result == BROTLI_DECODER_RESULT_ERROR || n)
        d->status = EP_DECODE_BAD;
}

/* --- zstd --- */

static bool zstd_begin(struct layer *l)
{
    l->u.zstd = ZSTD_createDStream();
    l->made = l->u.zstd != NULL;
    return l->made && !ZSTD_isError(ZSTD_DCtx_setParameter(l->u.zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG));
}

static void zstd_some(struct ep_decoder *d, unsigned at, ZSTD_inBuffer *in)
{
    struct layer *l = &d->layer[at];
    ZSTD_outBuffer out;

    do {
        out = (ZSTD_outBuffer){l->buffer, OUT_BYTES, 0};
        size_t left = ZSTD_decompressStream(l->u.zstd, &out, in);
        emit(d, at, out.pos);
        if (d->status != EP_DECODE_OK)
            return;
        if (ZSTD_isError(left)) {
            d->status = EP_DECODE_BAD;
            return;
        }
        l->progress = left ? RUNNING : WHOLE;
        if (!left) { /* the next frame */
            l->n_head = 0;
            return;
        }
    } while (in->pos < in->size || out.pos == OUT_BYTES);
}

/* Frames of today's format alone: the library reads older ones too, which no server does. */
static void zstd(struct ep_decoder *d, unsigned at, const unsigned char *p, size_t n)
{
    struct layer *l = &d->layer[at];
    ZSTD_inBuffer in = {p, n, 0};

    if (l->progress == FRESH && !zstd_begin(l)) {
        d->status = EP_DECODE_BAD;
        return;
    }
    if (l->progress == FRESH)
        l->progress = RUNNING;
    while (d->status == EP_DECODE_OK && in.pos < in.size) {
        if (l->n_head == 4) {
            zstd_some(d, at, &in);
            continue;
        }
        l->progress = RUNNING;
        l->head[l->n_head++] = p[in.pos++];
        if (l->n_head < 4)
            continue;
        uint32_t magic = l->head[0] | (uint32_t)l->head[1] << 8 | (uint32_t)l->head[2] << 16 | (uint32_t)l->head[3] << 24;
        if (magic == ZSTD_MAGIC || (magic & 0xfffffff0u) == ZSTD_SKIPPABLE)
            zstd_some(d, at, &(ZSTD_inBuffer){l->head, 4, 0});
        else
            d->status = EP_DECODE_BAD;
    }
}

/* --- the decoder --- */

static void feed(struct ep_decoder *d, unsigned at, const unsigned char *p, size_t n)
{
    static void (*const codings[])(struct ep_decoder *, unsigned, const unsigned char *, size_t) = {
        [EP_CODING_GZIP] = gzip,
        [EP_CODING_DEFLATE] = deflate_,
        [EP_CODING_BR] = brotli,
        [EP_CODING_ZSTD] = zstd,
    };
    struct layer *l = &d->layer[at];

    l->in += n;
    codings[l->coding](d, at, p, n);
}

struct ep_decoder *ep_decoder_new(const struct ep_codings *c, size_t max_bytes, ep_decode_sink *sink, void *user)
{
    struct ep_decoder *d = ep_calloc(1, sizeof *d + c->n * sizeof d->layer[0]);

    assert(c->n > 0 && c->n <= EP_CODINGS_MAX);
    *d = (struct ep_decoder){.max_bytes = max_bytes, .sink = sink, .user = user, .n = c->n};
    for (unsigned i = 0; i < c->n; i++)
        d->layer[i].coding = c->v[i];
    return d;
}

void ep_decoder_free(struct ep_decoder *d)
{
    for (unsigned i = 0; d && i < d->n; i++) {
        struct layer *l = &d->layer[i];
        if (!l->made)
            continue;
        if (l->coding == EP_CODING_BR)
            BrotliDecoderDestroyInstance(l->u.br);
        else if (l->coding == EP_CODING_ZSTD)
            ZSTD_freeDStream(l->u.zstd);
        else
            inflateEnd(&l->u.z);
    }
    free(d);
}

enum ep_decode_status ep_decoder_feed(struct ep_decoder *d, const unsigned char *p, size_t n)
{
    while (n && d->status == EP_DECODE_OK) {
        size_t some = EP_MIN(n, (size_t)1 << 30); /* zlib counts in unsigned */
        feed(d, d->n - 1, p, some);
        p += some;
        n -= some;
    }
    return d->status;
}

enum ep_decode_status ep_decoder_end(struct ep_decoder *d)
{
    for (unsigned i = 0; i < d->n && d->status == EP_DECODE_OK; i++) {
        if (d->layer[i].progress != WHOLE)
            d->status = EP_DECODE_TRUNCATED;
        else if (deflate_ambiguous(&d->layer[i]))
            d->status = EP_DECODE_BAD;
    }
    return d->status;
}

void ep_decoded_take(void *user, const unsigned char *p, size_t n)
{
    struct ep_decoded *d = user;

    if (d->n + n + d->spare > d->room) {
        size_t room = 2 * (d->n + n) + d->spare;
        char *more = ep_arena_alloc(d->arena, room);
        if (d->n)
            memcpy(more, d->p, d->n);
        d->p = more;
        d->room = room;
    }
    memcpy(d->p + d->n, p, n);
    d->n += n;
}
