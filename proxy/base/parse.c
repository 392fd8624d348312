/* Values as people write them: durations, sizes, percents, and the nearest name to a misspelt one.
 *
 * Durations and sizes are exact: a fraction is allowed when it comes out as a whole number of the base unit
 * ("1.5s", "0.5KiB"), and everything else is refused, as is what doesn't fit 64 bits. */
#include <stdio.h>

#include "base/base.h"

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit duration_units[] = {
    {"d", 86400 * EP_S}, {"h", 3600 * EP_S}, {"m", 60 * EP_S}, {"s", EP_S}, {"ms", EP_MS}, {"us", EP_US}, {"ns", 1},
};
static const struct unit size_units[] = {
    {"GiB", 1u << 30}, {"MiB", 1u << 20}, {"KiB", 1u << 10}, {"GB", 1000000000u},
    {"MB", 1000000u},  {"KB", 1000u},     {"B", 1},
};

/* A decimal number in front of s: mantissa / 10^scale. Returns how many bytes it took, 0 when there is none. */
static size_t decimal(struct ep_str s, uint64_t *mantissa, unsigned *scale)
{
    size_t i = 0, digits = 0;
    bool point = false;

    *mantissa = 0;
    *scale = 0;
    for (; i < s.n; i++) {
        unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';

        if (s.p[i] == '.' && !point && digits) {
            point = true;
            continue;
        }
        if (digit > 9)
            break;
        if (__builtin_mul_overflow(*mantissa, 10u, mantissa) || __builtin_add_overflow(*mantissa, digit, mantissa))
            return 0;
        digits++;
        *scale += point;
    }
    if (digits == 0 || s.p[i - 1] == '.' || *scale > 18)
        return 0;
    return i;
}

static uint64_t power10(unsigned n)
{
    uint64_t v = 1;

    while (n--)
        v *= 10;
    return v;
}

/* mantissa * factor / 10^scale when that is whole and fits. Twos and fives of the power are cancelled from both
 * first, so that nothing wider than 64 bits is needed. */
static bool scaled(uint64_t mantissa, unsigned scale, uint64_t factor, uint64_t *out)
{
    uint64_t divisor = power10(scale);

    for (unsigned prime = 2; prime <= 5; prime += 3) {
        while (divisor % prime == 0 && mantissa % prime == 0) {
            divisor /= prime;
            mantissa /= prime;
        }
        while (divisor % prime == 0 && factor % prime == 0) {
            divisor /= prime;
            factor /= prime;
        }
    }
    return divisor == 1 && !__builtin_mul_overflow(mantissa, factor, out);
}

static bool with_unit(struct ep_str s, const struct unit *units, size_t n_units, const char *bare, uint64_t *out)
{
    uint64_t mantissa, v;
    unsigned scale;
    size_t n = decimal(s, &mantissa, &scale);
    struct ep_str unit;

    if (n == 0)
        return false;
    unit = n == s.n ? ep_str(bare) : ep_str_n(s.p + n, s.n - n);
    for (size_t i = 0; i < n_units; i++) {
        if (!ep_str_eq(unit, ep_str(units[i].name)))
            continue;
        if (!scaled(mantissa, scale, units[i].factor, &v))
            return false;
        *out = v;
        return true;
    }
    return false;
}

bool ep_parse_duration(struct ep_str s, uint64_t *ns)
{
    if (ep_str_eq(s, EP_STR("0"))) {
        *ns = 0;
        return true;
    }
    return with_unit(s, duration_units, EP_COUNT(duration_units), "", ns);
}

bool ep_parse_size(struct ep_str s, uint64_t *bytes)
{
    return with_unit(s, size_units, EP_COUNT(size_units), "B", bytes);
}

bool ep_parse_percent(struct ep_str s, double *fraction)
{
    uint64_t mantissa;
    unsigned scale;
    size_t n = decimal(s, &mantissa, &scale);
    double v;

    if (n == 0 || (n != s.n && !(n + 1 == s.n && s.p[n] == '%')))
        return false;
    v = (double)mantissa / (double)power10(scale) / 100;
    if (v > 1)
        return false;
    *fraction = v;
    return true;
}

static int format_unit(uint64_t v, const struct unit *units, size_t n, const char *zero, char out[32])
{
    if (v == 0)
        return snprintf(out, 32, "%s", zero);
    for (size_t i = 0; i < n; i++) {
        if (v % units[i].factor == 0)
            return snprintf(out, 32, "%llu%s", (unsigned long long)(v / units[i].factor), units[i].name);
    }
    return 0; /* the last factor is 1 */
}

int ep_format_duration(uint64_t ns, char out[32])
{
    return format_unit(ns, duration_units, EP_COUNT(duration_units), "0s", out);
}

int ep_format_size(uint64_t bytes, char out[32])
{
    return format_unit(bytes, size_units, EP_COUNT(size_units), "0B", out);
}

#define NAME_MAX_BYTES 63u

/* Edit distance with swaps of neighbours (optimal string alignment); three rows are all it looks back on. */
static size_t distance(struct ep_str a, struct ep_str b)
{
    size_t rows[3][NAME_MAX_BYTES + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];

    for (size_t j = 0; j <= b.n; j++)
        above[j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        size_t *spare = before;

        row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            size_t substitute = above[j - 1] + (ep_lower(a.p[i - 1]) != ep_lower(b.p[j - 1]));

            row[j] = EP_MIN(substitute, EP_MIN(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
                row[j] = EP_MIN(row[j], before[j - 2] + 1);
        }
        before = above;
        above = row;
        row = spare;
    }
    return above[b.n];
}

const char *ep_nearest(struct ep_str given, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t best_distance = EP_MAX(given.n / 3, (size_t)1) + 1;

    if (given.n == 0 || given.n > NAME_MAX_BYTES)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        struct ep_str name = ep_str(names[i]);
        size_t d;

        if (name.n > NAME_MAX_BYTES)
            continue;
        d = distance(given, name);
        if (d < best_distance && d < EP_MAX(given.n, name.n)) {
            best = names[i];
            best_distance = d;
        }
    }
    return best;
}

/* --- paths --- */

static int hex(char c)
{
    c = ep_lower(c);
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t ep_path_meant(struct ep_str path, char *out)
{
    size_t n = 0, segment;

    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];
        if (c == '%' && path.n - i > 2 && hex(path.p[i + 1]) >= 0 && hex(path.p[i + 2]) >= 0) {
            c = (char)(hex(path.p[i + 1]) << 4 | hex(path.p[i + 2]));
            i += 2;
        }
        if (c == '\\')
            c = '/';
        if (c == '/' && n && out[n - 1] == '/')
            continue;
        out[n++] = c;
        if (i + 1 < path.n && c != '/')
            continue;
        /* at the end of a segment, or of all */
        segment = c == '/' ? n - 1 : n;
        size_t from = segment;
        while (from && out[from - 1] != '/')
            from--;
        if (segment - from == 1 && out[from] == '.') {
            n = from;
        } else if (segment - from == 2 && out[from] == '.' && out[from + 1] == '.') {
            n = from ? from - 1 : 0;
            while (n && out[n - 1] != '/')
                n--;
            if (n == 0)
                out[n++] = '/';
        }
    }
    return n;
}
