/* The header table: one shape for every codec.
 *
 * It is HTTP/2's shape: pseudo-headers first (also those made from an HTTP/1 request line), names in lower
 * case. Each entry is two slices and a small id. What the slices live in is beside the table: nghttp2's
 * rcbufs by reference, or the stream's arena. Cookies stay as they came; the HTTP/1 writer joins them. */
#ifndef EP_HTTP_HEADERS_H
#define EP_HTTP_HEADERS_H

#include "base/base.h"

enum ep_header_id {
    EP_HDR_OTHER = 0,
#define X(id, name) EP_HDR_##id,
#include "http/header_ids.def"
#undef X
    EP_HDR_COUNT
};
#define EP_HDR_IS_PSEUDO(id) ((id) >= EP_HDR_METHOD && (id) <= EP_HDR_STATUS)

enum {
    EP_HEADER_NO_INDEX = 1, /* came as never-indexed: goes out so */
};

struct ep_header {
    uint16_t id;
    uint16_t flags;
    struct ep_str name, value;
};

struct ep_headers {
    struct ep_header *v;
    uint32_t n, cap;
    uint32_t bytes;          /* names + values + 32 each, as HTTP/2 counts a header list */
    struct ep_arena *arena;
    void **rcbufs;           /* nghttp2_rcbuf *, each holding one reference of ours */
    uint32_t n_rcbufs, cap_rcbufs;
};

#define EP_HEADER_OVERHEAD 32u /* RFC 9113 section 6.5.2 */
#define EP_HEADERS_MAX_COUNT 100u        /* fields; more: 431 (DESIGN.md section 17) */
#define EP_HEADERS_MAX_BYTES (64u * 1024)

void ep_headers_init(struct ep_headers *h, struct ep_arena *arena);
void ep_headers_fini(struct ep_headers *h); /* lets the rcbufs go; the arena frees the rest */

/* The id of a lower-case name; EP_HDR_OTHER when it has none. */
uint16_t ep_header_id(struct ep_str name);
struct ep_str ep_header_name(uint16_t id);

/* Appends. The slices must live as long as the arena. Names are in lower case. */
void ep_headers_grow(struct ep_headers *h); /* for the next one only */
static inline void ep_headers_append(struct ep_headers *h, uint16_t id, struct ep_str name, struct ep_str value)
{
    struct ep_header *e;

    if (EP_UNLIKELY(h->n == h->cap))
        ep_headers_grow(h);
    e = &h->v[h->n++];
    e->id = id;
    e->flags = 0;
    e->name = name;
    e->value.p = value.p ? value.p : "";
    e->value.n = value.n;
    h->bytes += (uint32_t)(name.n + value.n) + EP_HEADER_OVERHEAD;
}
/* The same with copies of both in the arena; a mixed-case name is lowered; id found. */
void ep_headers_add(struct ep_headers *h, struct ep_str name, struct ep_str value);
void ep_headers_add_id(struct ep_headers *h, uint16_t id, struct ep_str value); /* value is copied */
/* Replaces the first and removes the others, or appends (a pseudo-header goes in front). Copies value. */
void ep_headers_set(struct ep_headers *h, struct ep_str name, struct ep_str value);
void ep_headers_set_id(struct ep_headers *h, uint16_t id, struct ep_str value);
/* Removes all of that name; how many there were. */
unsigned ep_headers_remove(struct ep_headers *h, struct ep_str name);
unsigned ep_headers_remove_id(struct ep_headers *h, uint16_t id);
/* Removes what describes the bytes of a body as they were: digests, etag, content-encoding … */
void ep_headers_body_changed(struct ep_headers *h);
/* First value; {NULL, 0} when absent. An empty value has p != NULL. */
struct ep_str ep_headers_get_id(const struct ep_headers *h, uint16_t id);
struct ep_str ep_headers_get(const struct ep_headers *h, struct ep_str name);
struct ep_header *ep_headers_find_id(const struct ep_headers *h, uint16_t id); /* or NULL */
unsigned ep_headers_count_id(const struct ep_headers *h, uint16_t id);

/* True when a comma-separated list header has this token, without case ("connection: close, x"). */
bool ep_header_has_token(struct ep_str value, struct ep_str token);
/* Media type of a content-type value, without parameters, trimmed ("application/json"). Compare caselessly. */
struct ep_str ep_media_type(struct ep_str value);
/* A response (or request) of server-sent events, by its media type. */
bool ep_headers_are_events(const struct ep_headers *h);
/* The lower case of a token's byte (tchar of RFC 9110 section 5.6.2); 0: no token has it. */
extern const char ep_token_lower[256];
/* The field-name token of RFC 9110 section 5.6.2, and a value without CR, LF, NUL and other controls. */
bool ep_header_name_valid(struct ep_str name);
bool ep_header_value_valid(struct ep_str value);

/* Percent-encoded as gRPC wants its grpc-message: what is not printable ASCII, and % itself. */
struct ep_str ep_grpc_encode(struct ep_arena *arena, struct ep_str text);

const char *ep_status_reason(unsigned status); /* "Not Found"; "" when unknown */

#endif
