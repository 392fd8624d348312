/* Scalars of the file: how each type is read and written, and the environment in them. Defaults in the schema tables go
 * through the same readers. */
#include "config/bind.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    size_t size;
    const char *wanted;
} types[] = {
    [EP_TYPE_STR] = {sizeof(struct ep_str), "a text"},
    [EP_TYPE_BOOL] = {sizeof(bool), "true or false"},
    [EP_TYPE_INT] = {sizeof(int64_t), "a whole number"},
    [EP_TYPE_DURATION] = {sizeof(uint64_t), "a duration such as 250us, 5ms, 30s, 2m, 1h or 7d"},
    [EP_TYPE_SIZE] = {sizeof(uint64_t), "a size such as 512B, 64KiB or 1MB"},
    [EP_TYPE_PERCENT] = {sizeof(double), "a percentage such as 20%, at most 100%"},
    [EP_TYPE_NUMBER] = {sizeof(double), "a number"},
    [EP_TYPE_ENUM] = {sizeof(int), "one of a few names"},
    [EP_TYPE_ADDR] = {sizeof(struct ep_addr), "a numeric address with a port, such as 127.0.0.1:8080, [::1]:8080 or "
                                              "unix:/path"},
    [EP_TYPE_CIDR] = {sizeof(struct ep_cidr), "a network such as 10.0.0.0/8"},
    [EP_TYPE_STRUCT] = {0, "a mapping"},
    [EP_TYPE_OPTIONAL] = {0, "a mapping"},
    [EP_TYPE_LIST] = {0, "a list"},
    [EP_TYPE_MAP] = {0, "a mapping of names to texts"},
    [EP_TYPE_JSON] = {0, "a mapping"},
    [EP_TYPE_FILTERS] = {0, "a list of filters"},
};

const char *ep_type_wanted(enum ep_type type)
{
    return types[type].wanted;
}

size_t ep_scalar_size(enum ep_type type)
{
    return types[type].size;
}

/* --- reading --- */

static bool read_bool(struct ep_str s, bool *out)
{
    if (ep_str_eq(s, EP_STR("true")) || ep_str_eq(s, EP_STR("false"))) {
        *out = s.n == 4;
        return true;
    }
    return false;
}

static bool read_int(struct ep_str s, int64_t *out)
{
    bool minus = s.n && s.p[0] == '-';
    uint64_t v;

    if (!ep_str_u64(minus ? ep_str_n(s.p + 1, s.n - 1) : s, &v) || v > INT64_MAX)
        return false;
    *out = minus ? -(int64_t)v : (int64_t)v;
    return true;
}

static bool read_number(struct ep_str s, double *out)
{
    char text[64], *end;

    if (!s.n || s.n >= sizeof text || memchr(s.p, 0, s.n))
        return false;
    for (size_t i = 0; i < s.n; i++) /* no hexadecimal, no infinity */
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || strchr("+-.eE", s.p[i])))
            return false;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    errno = 0;
    *out = strtod(text, &end);
    return *end == 0 && end != text && errno == 0 && isfinite(*out);
}

static bool read_enum(struct ep_str s, const char *const *names, int *out, struct ep_error *err)
{
    size_t n = 0;

    for (; names[n]; n++)
        if (ep_str_eq(s, ep_str(names[n])) ||
            (!strcmp(names[n], "off") && ep_str_eq(s, EP_STR("false")))) { /* what Helm's YAML 1.1 makes of off */
            *out = (int)n;
            return true;
        }
    const char *near = ep_nearest(s, names, n);
    char list[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < n && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    return ep_error_set(err, "'%.*s' is none of %s%s%s%s", (int)EP_MIN(s.n, (size_t)80), s.p, list,
                        near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static void range_text(enum ep_type type, double v, char out[32])
{
    if (type == EP_TYPE_DURATION)
        ep_format_duration((uint64_t)v, out);
    else if (type == EP_TYPE_SIZE)
        ep_format_size((uint64_t)v, out);
    else
        snprintf(out, 32, type == EP_TYPE_PERCENT ? "%.10g%%" : "%.15g", v);
}

static bool in_range(const struct ep_field *f, enum ep_type type, double v, struct ep_error *err)
{
    char low[32], high[32];

    if ((f->min == 0 && f->max == 0) || (v >= f->min && v <= f->max))
        return true;
    range_text(type, f->min, low);
    range_text(type, f->max, high);
    return ep_error_set(err, "must be from %s to %s", low, high);
}

bool ep_scalar_read(struct ep_arena *arena, const struct ep_field *f, enum ep_type type, struct ep_str s, void *out,
                    struct ep_error *err)
{
    bool good = false;
    double value = 0;

    switch (type) {
    case EP_TYPE_STR:
        *(struct ep_str *)out = ep_arena_str(arena, s);
        if (memchr(s.p, 0, s.n))
            return ep_error_set(err, "must not contain a NUL");
        return true;
    case EP_TYPE_BOOL:
        good = read_bool(s, out);
        break;
    case EP_TYPE_INT:
        good = read_int(s, out);
        value = good ? (double)*(int64_t *)out : 0;
        break;
    case EP_TYPE_DURATION:
        if (f->zero && ep_str_eq(s, ep_str(f->zero))) {
            *(uint64_t *)out = 0;
            return true;
        }
        good = ep_parse_duration(s, out);
        value = good ? (double)*(uint64_t *)out : 0;
        break;
    case EP_TYPE_SIZE:
        good = ep_parse_size(s, out);
        value = good ? (double)*(uint64_t *)out : 0;
        break;
    case EP_TYPE_PERCENT:
        good = ep_parse_percent(s, out);
        value = good ? *(double *)out * 100 : 0;
        break;
    case EP_TYPE_NUMBER:
        good = read_number(s, out);
        value = good ? *(double *)out : 0;
        break;
    case EP_TYPE_ENUM:
        return read_enum(s, f->names, out, err);
    case EP_TYPE_ADDR:
        good = ep_addr_parse(s, out);
        break;
    case EP_TYPE_CIDR:
        good = ep_cidr_parse(s, out);
        break;
    default:
        assert(false && "not a scalar");
    }
    if (!good)
        return ep_error_set(err, "must be %s, not '%.*s'", types[type].wanted, (int)EP_MIN(s.n, (size_t)80), s.p);
    return in_range(f, type, value, err);
}

/* --- writing --- */

static struct ep_str cidr_text(struct ep_arena *arena, const struct ep_cidr *c)
{
    char text[INET6_ADDRSTRLEN] = "";

    inet_ntop(c->family, c->bytes, text, sizeof text);
    return ep_arena_printf(arena, "%s/%u", text, c->bits);
}

/* The shortest decimal that reads back as the same double; %g without an exponent, for the percent reader has none. */
static struct ep_str percent_text(struct ep_arena *arena, double fraction)
{
    for (int digits = 0; digits < 18; digits++) {
        char text[64];
        double back;
        int n = snprintf(text, sizeof text, "%.*f%%", digits, fraction * 100);
        if (ep_parse_percent(ep_str_n(text, (size_t)n), &back) && memcmp(&back, &fraction, sizeof back) == 0)
            return ep_arena_str(arena, ep_str_n(text, (size_t)n));
    }
    return ep_arena_printf(arena, "%.15f%%", fraction * 100);
}

static struct ep_str number_text(struct ep_arena *arena, double v)
{
    char text[64];

    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        double back = strtod(text, NULL);
        if (memcmp(&back, &v, sizeof v) == 0)
            break;
    }
    return ep_arena_str(arena, ep_str(text));
}

struct ep_str ep_scalar_text(struct ep_arena *arena, const struct ep_field *f, enum ep_type type, const void *value)
{
    char text[128];

    switch (type) {
    case EP_TYPE_STR:
        return *(const struct ep_str *)value;
    case EP_TYPE_BOOL:
        return *(const bool *)value ? EP_STR("true") : EP_STR("false");
    case EP_TYPE_INT:
        return ep_arena_printf(arena, "%lld", (long long)*(const int64_t *)value);
    case EP_TYPE_DURATION:
        if (f->zero && *(const uint64_t *)value == 0)
            return ep_str(f->zero);
        ep_format_duration(*(const uint64_t *)value, text);
        return ep_arena_str(arena, ep_str(text));
    case EP_TYPE_SIZE:
        ep_format_size(*(const uint64_t *)value, text);
        return ep_arena_str(arena, ep_str(text));
    case EP_TYPE_PERCENT:
        return percent_text(arena, *(const double *)value);
    case EP_TYPE_NUMBER:
        return number_text(arena, *(const double *)value);
    case EP_TYPE_ENUM:
        return ep_str(f->names[*(const int *)value]);
    case EP_TYPE_ADDR:
        if (!((const struct ep_addr *)value)->len)
            return (struct ep_str){NULL, 0};
        ep_addr_format(value, text);
        return ep_arena_str(arena, ep_str(text));
    case EP_TYPE_CIDR:
        return ((const struct ep_cidr *)value)->family ? cidr_text(arena, value) : (struct ep_str){NULL, 0};
    default:
        assert(false && "not a scalar");
        return (struct ep_str){NULL, 0};
    }
}

/* --- the environment --- */

static bool name_byte(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

struct out {
    char *p;
    size_t n, cap;
};

static void put(struct out *o, const char *p, size_t n)
{
    if (o->n + n > o->cap) {
        o->cap = (o->n + n) * 2;
        o->p = ep_realloc(o->p, o->cap);
    }
    if (n)
        memcpy(o->p + o->n, p, n);
    o->n += n;
}

/* One ${…}; `s` begins behind "${". Returns how many bytes it took, 0 with the reason. */
static size_t expand_one(struct out *o, struct ep_str s, struct ep_error *err)
{
    ptrdiff_t close = ep_str_find(s, '}', 0);
    size_t n = 0;

    if (close < 0) {
        ep_error_set(err, "'${' without '}'; a dollar sign as such is written $$");
        return 0;
    }
    while (n < (size_t)close && name_byte(s.p[n]))
        n++;
    bool with_default = n + 2 <= (size_t)close && s.p[n] == ':' && s.p[n + 1] == '-';
    if (n == 0 || (n != (size_t)close && !with_default)) {
        ep_error_set(err, "'${%.*s}' is neither ${NAME} nor ${NAME:-default}; a dollar sign as such is written $$",
                     (int)EP_MIN((size_t)close, (size_t)80), s.p);
        return 0;
    }
    char *name = ep_strndup(s.p, n);
    const char *value = getenv(name);
    if (value && (*value || !with_default))
        put(o, value, strlen(value));
    else if (with_default)
        put(o, s.p + n + 2, (size_t)close - n - 2);
    else
        ep_error_set(err, "the environment has no %s; ${%s:-…} gives a default", name, name);
    free(name);
    return value || with_default ? (size_t)close + 1 : 0;
}

bool ep_expand(struct ep_arena *arena, struct ep_str s, struct ep_str *out, struct ep_error *err)
{
    struct out o = {0};
    bool good = true;

    if (ep_str_find(s, '$', 0) < 0) {
        *out = s;
        return true;
    }
    for (size_t i = 0; good && i < s.n;) {
        char next = i + 1 < s.n ? s.p[i + 1] : 0;
        if (s.p[i] == '$' && next == '$') {
            put(&o, "$", 1);
            i += 2;
        } else if (s.p[i] == '$' && next == '{') {
            size_t n = expand_one(&o, ep_str_n(s.p + i + 2, s.n - i - 2), err);
            good = n > 0;
            i += 2 + n;
        } else {
            put(&o, &s.p[i++], 1);
        }
    }
    *out = good ? ep_arena_str(arena, ep_str_n(o.p ? o.p : "", o.n)) : s;
    free(o.p);
    return good;
}
