/* Undoing Content-Encoding: gzip, deflate, br and zstd, as a stream, for those who must see what a body says.
 *
 * What can't be decoded to its last byte is an error, never a part: bytes behind the end, a stream that is cut, a
 * checksum that is wrong, a dictionary that nobody has. A reader who takes less for good would see another body than
 * the server. Limits hold for each layer: bytes that come out, and how many times more than went in (a bomb).
 *
 * Sources: RFC 9110 section 8.4, RFC 1950 to 1952, RFC 7932, RFC 8878, RFC 9659 (the window of zstd). */
#ifndef EP_HTTP_DECODE_H
#define EP_HTTP_DECODE_H

#include "base/base.h"

#define EP_CODINGS_MAX        3u
#define EP_DECODE_RATIO       200u         /* bytes out for one byte in … */
#define EP_DECODE_RATIO_FREE  (64u << 10)  /* … not looked at below so many */

enum ep_coding { EP_CODING_GZIP, EP_CODING_DEFLATE, EP_CODING_BR, EP_CODING_ZSTD };

/* In the order in which they were applied. */
struct ep_codings {
    unsigned n;
    enum ep_coding v[EP_CODINGS_MAX];
};

/* Adds what a line of Content-Encoding names; lines in their order. `identity` is nothing. False: one of them is
 * unknown, or they are too many. */
bool ep_codings_add(struct ep_codings *c, struct ep_str value);

/* Those of a message. False as above. */
struct ep_headers;
bool ep_codings_of(const struct ep_headers *h, struct ep_codings *c);

enum ep_decode_status {
    EP_DECODE_OK,
    EP_DECODE_BAD,       /* not of this coding, a wrong checksum, bytes behind the end */
    EP_DECODE_TRUNCATED, /* only from ep_decoder_end: the stream was cut */
    EP_DECODE_TOO_LARGE,
    EP_DECODE_BOMB,      /* out of proportion */
};

/* Decoded bytes, valid during the call. */
typedef void ep_decode_sink(void *user, const unsigned char *p, size_t n);

/* A sink: all of it, in an arena, `spare` bytes behind it ours too. What it grew out of stays there as long as the arena. */
struct ep_decoded {
    struct ep_arena *arena;
    size_t spare;
    char *p;
    size_t n, room;
};
void ep_decoded_take(void *user, const unsigned char *p, size_t n);

struct ep_decoder;
/* At least one coding. max_bytes: of what comes out. */
struct ep_decoder *ep_decoder_new(const struct ep_codings *c, size_t max_bytes, ep_decode_sink *sink, void *user);
void ep_decoder_free(struct ep_decoder *d); /* NULL too */
/* More of the body; any length. An error stays: what comes after it is not looked at. */
enum ep_decode_status ep_decoder_feed(struct ep_decoder *d, const unsigned char *p, size_t n);
/* The body's end: OK when all of it was decoded. */
enum ep_decode_status ep_decoder_end(struct ep_decoder *d);

#endif
