/* Slices: comparison, search, splitting, globs. Everything is ASCII and takes any byte. */
#include "base/base.h"

/* Mostly both are in the same case already: eight bytes at a time while they are. */
static bool same_but_for_case(const char *a, const char *b, size_t n)
{
    for (; n >= 8; a += 8, b += 8, n -= 8) {
        uint64_t x, y;

        memcpy(&x, a, 8);
        memcpy(&y, b, 8);
        if (x == y)
            continue;
        if ((x ^ y) & 0xdfdfdfdfdfdfdfdfu) /* differs in more than the bit of the case */
            return false;
        for (int i = 0; i < 8; i++)
            if (ep_lower(a[i]) != ep_lower(b[i]))
                return false;
    }
    for (size_t i = 0; i < n; i++)
        if (ep_lower(a[i]) != ep_lower(b[i]))
            return false;
    return true;
}

bool ep_str_caseeq(struct ep_str a, struct ep_str b)
{
    return a.n == b.n && same_but_for_case(a.p, b.p, a.n);
}

bool ep_str_equal_ct(struct ep_str a, struct ep_str b)
{
    volatile unsigned char differ = 0; /* volatile: the compiler must not leave the loop early */

    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        differ = (unsigned char)(differ | ((unsigned char)a.p[i] ^ (unsigned char)b.p[i]));
    return differ == 0;
}

bool ep_str_starts(struct ep_str s, struct ep_str prefix)
{
    return s.n >= prefix.n && ep_str_eq(ep_str_n(s.p, prefix.n), prefix);
}

bool ep_str_ends(struct ep_str s, struct ep_str suffix)
{
    if (suffix.n == 0)
        return true;
    return s.n >= suffix.n && memcmp(s.p + (s.n - suffix.n), suffix.p, suffix.n) == 0;
}

bool ep_str_casestarts(struct ep_str s, struct ep_str prefix)
{
    return s.n >= prefix.n && ep_str_caseeq(ep_str_n(s.p, prefix.n), prefix);
}

ptrdiff_t ep_str_find(struct ep_str s, char c, size_t from)
{
    const char *hit;

    if (from >= s.n)
        return -1;
    hit = memchr(s.p + from, c, s.n - from);
    return hit ? hit - s.p : -1;
}

ptrdiff_t ep_str_search(struct ep_str s, struct ep_str needle)
{
    const char *hit;

    if (needle.n == 0)
        return 0;
    if (s.n < needle.n)
        return -1;
    hit = memmem(s.p, s.n, needle.p, needle.n);
    return hit ? hit - s.p : -1;
}

struct ep_str ep_str_trim(struct ep_str s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

bool ep_str_u64(struct ep_str s, uint64_t *out)
{
    uint64_t v = 0;

    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';

        if (digit > 9 || __builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, digit, &v))
            return false;
    }
    *out = v;
    return true;
}

bool ep_str_next(struct ep_str *rest, char sep, struct ep_str *part)
{
    ptrdiff_t at;

    if (rest->n == 0)
        return false;
    at = ep_str_find(*rest, sep, 0);
    if (at < 0) {
        *part = ep_str_trim(*rest);
        rest->p += rest->n;
        rest->n = 0;
        return true;
    }
    *part = ep_str_trim(ep_str_n(rest->p, (size_t)at));
    rest->p += at + 1;
    rest->n -= (size_t)at + 1;
    return true;
}

/* One star is remembered, the last: an earlier one never has to give back what it took, since whatever the
 * later one can match from here, it could match from further left too. So the worst case is n*m, not 2^n. */
bool ep_str_glob(struct ep_str pattern, struct ep_str s)
{
    size_t p = 0, i = 0, star = SIZE_MAX, star_at = 0;

    while (i < s.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            star_at = i;
        } else if (p < pattern.n && (pattern.p[p] == '?' || pattern.p[p] == s.p[i])) {
            p++;
            i++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++star_at;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*')
        p++;
    return p == pattern.n;
}

/* RFC 3629 section 4, the table of well-formed sequences. */
size_t ep_utf8_length(const void *data, size_t n)
{
    const unsigned char *p = data;
    unsigned char low = 0x80, high = 0xbf;
    size_t length;

    if (n == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        length = 2;
    else if ((p[0] & 0xf0) == 0xe0)
        length = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        length = 4;
    else
        return 0;
    if (n < length)
        return 0;
    if (p[0] == 0xe0)
        low = 0xa0; /* overlong */
    else if (p[0] == 0xed)
        high = 0x9f; /* surrogates */
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f; /* above U+10FFFF */
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return length;
}

size_t ep_utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}
