/* Strings as slices: a pointer and a length, never NUL-terminated by contract.
 *
 * Most text here comes from the network and lives in a slab, an arena or an nghttp2 rcbuf, so a copy to
 * add a NUL would be a copy for nothing. A slice owns nothing; whoever holds it says what keeps it alive. */
#ifndef EP_BASE_STR_H
#define EP_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct ep_str {
    const char *p;
    size_t n;
};

#define EP_STR(literal) ((struct ep_str){"" literal, sizeof(literal) - 1})
/* For static initialisers, where a compound literal is not constant. */
#define EP_STR_INIT(literal) {"" literal, sizeof(literal) - 1}
/* For printf: "%.*s", EP_STR_ARG(s). */
#define EP_STR_ARG(s) (int)(s).n, (s).p

static inline struct ep_str ep_str(const char *z)
{
    return (struct ep_str){z, z ? strlen(z) : 0};
}

static inline struct ep_str ep_str_n(const void *p, size_t n)
{
    return (struct ep_str){(const char *)p, n};
}

static inline bool ep_str_eq(struct ep_str a, struct ep_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline char ep_lower(char c)
{
    return (c >= 'A' && c <= 'Z') ? (char)(c | 0x20) : c;
}

/* 0 to 63, or 64: no digit of base64 (RFC 4648 section 4). */
static inline unsigned ep_base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (unsigned)(c - 'A');
    if (c >= 'a' && c <= 'z')
        return (unsigned)(c - 'a' + 26);
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0' + 52);
    return c == '+' ? 62 : c == '/' ? 63 : 64;
}

/* ASCII only, as HTTP asks (RFC 9110 section 5.1). */
bool ep_str_caseeq(struct ep_str a, struct ep_str b);
/* Constant in time for equal lengths: for secrets. */
bool ep_str_equal_ct(struct ep_str a, struct ep_str b);
bool ep_str_starts(struct ep_str s, struct ep_str prefix);
bool ep_str_ends(struct ep_str s, struct ep_str suffix);
bool ep_str_casestarts(struct ep_str s, struct ep_str prefix);
/* Index of the first c at or after `from`, or -1. */
ptrdiff_t ep_str_find(struct ep_str s, char c, size_t from);
/* Index of the first `needle`, or -1. */
ptrdiff_t ep_str_search(struct ep_str s, struct ep_str needle);
/* Without leading and trailing space and tab. */
struct ep_str ep_str_trim(struct ep_str s);
/* Whole string as a decimal number; false when it has another byte, is empty or overflows. */
bool ep_str_u64(struct ep_str s, uint64_t *out);
/* Takes the next part up to `sep` off the front of *rest, trimmed. False when nothing is left. */
bool ep_str_next(struct ep_str *rest, char sep, struct ep_str *part);
/* Shell-like glob where * matches any run (also of '/' and '.') and ? one byte. */
bool ep_str_glob(struct ep_str pattern, struct ep_str s);
/* Length (1 to 4) of the well-formed UTF-8 sequence at p, or 0 when there is none. */
size_t ep_utf8_length(const void *p, size_t n);

static inline uint64_t ep_hash(const void *data, size_t n)
{
    /* FNV-1a, 64 bits: for tables whose keys are ours or bounded in number, not a defence by itself. */
    const unsigned char *p = data;
    uint64_t h = 0xcbf29ce484222325u;

    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h ^ (h >> 29);
}

/* A code point (at most 0x10ffff, no surrogate) as UTF-8; how many bytes. */
size_t ep_utf8_encode(uint32_t c, char out[4]);

#endif
