/* The JSON writer (RFC 8259). Depth is bounded by a bit for each level: our own code nests, never a peer. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "observe/json.h"

#define DEPTH_MAX 63u

static char *reserve(struct ep_json *j, size_t more)
{
    if (j->cap - j->n < more) {
        j->cap = EP_MAX(j->cap * 2, j->n + more + 256);
        j->p = ep_realloc(j->p, j->cap);
    }
    return j->p + j->n;
}

static void put(struct ep_json *j, const char *p, size_t n)
{
    if (n == 0)
        return;
    memcpy(reserve(j, n), p, n);
    j->n += n;
}

/* What comes before any value or key: the comma, unless a key has just been written or this is the first. */
static void lead(struct ep_json *j)
{
    uint64_t bit = UINT64_C(1) << j->depth;

    if (j->after_key)
        j->after_key = false;
    else if (j->has_member & bit)
        put(j, ",", 1);
    j->has_member |= bit;
}

void ep_json_init(struct ep_json *j)
{
    *j = (struct ep_json){0};
}

void ep_json_fini(struct ep_json *j)
{
    free(j->p);
    ep_json_init(j);
}

void ep_json_reset(struct ep_json *j)
{
    *j = (struct ep_json){.p = j->p, .cap = j->cap};
}

static void begin(struct ep_json *j, const char *bracket)
{
    lead(j);
    assert(j->depth < DEPTH_MAX);
    j->depth++;
    j->has_member &= ~(UINT64_C(1) << j->depth);
    put(j, bracket, 1);
}

static void end(struct ep_json *j, const char *bracket)
{
    assert(j->depth > 0 && !j->after_key);
    j->depth--;
    put(j, bracket, 1);
}

void ep_json_object(struct ep_json *j)
{
    begin(j, "{");
}

void ep_json_object_end(struct ep_json *j)
{
    end(j, "}");
}

void ep_json_array(struct ep_json *j)
{
    begin(j, "[");
}

void ep_json_array_end(struct ep_json *j)
{
    end(j, "]");
}

/* Bytes that stand for themselves: printable ASCII without quote and backslash. */
static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static void escape(struct ep_json *j, unsigned char c)
{
    static const char hex[] = "0123456789abcdef", from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *known = c ? strchr(from, c) : NULL;
    char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

    if (known) {
        text[1] = to[known - from];
        put(j, text, 2);
    } else {
        put(j, text, sizeof(text));
    }
}

static void string(struct ep_json *j, struct ep_str s)
{
    size_t from = 0, i = 0;

    (void)reserve(j, s.n + 2);
    put(j, "\"", 1);
    while (i < s.n) {
        size_t length;

        if (is_plain((unsigned char)s.p[i])) {
            i++;
            continue;
        }
        length = ep_utf8_length(s.p + i, s.n - i);
        if (length > 1) {
            i += length;
            continue;
        }
        put(j, s.p + from, i - from);
        if (length == 0)
            put(j, "\xef\xbf\xbd", 3); /* U+FFFD */
        else
            escape(j, (unsigned char)s.p[i]);
        from = ++i;
    }
    if (i > from)
        put(j, s.p + from, i - from);
    put(j, "\"", 1);
}

void ep_json_name(struct ep_json *j, struct ep_str key)
{
    assert(!j->after_key);
    lead(j);
    string(j, key);
    put(j, ":", 1);
    j->after_key = true;
}

void ep_json_key(struct ep_json *j, const char *key)
{
    ep_json_name(j, ep_str(key));
}

void ep_json_str(struct ep_json *j, struct ep_str s)
{
    lead(j);
    string(j, s);
}

void ep_json_z(struct ep_json *j, const char *z)
{
    if (z)
        ep_json_str(j, ep_str(z));
    else
        ep_json_null(j);
}

void ep_json_uint(struct ep_json *j, uint64_t v)
{
    char text[20], *p = text + sizeof(text);

    do
        *--p = (char)('0' + v % 10);
    while (v /= 10);
    lead(j);
    put(j, p, (size_t)(text + sizeof(text) - p));
}

void ep_json_int(struct ep_json *j, int64_t v)
{
    char text[24];
    int n = snprintf(text, sizeof(text), "%" PRId64, v);

    lead(j);
    put(j, text, (size_t)n);
}

/* The fewest of 15 or 17 digits that read back as the same number. JSON has no infinities. */
void ep_json_double(struct ep_json *j, double v)
{
    char text[32];
    int n;

    if (!isfinite(v)) {
        ep_json_null(j);
        return;
    }
    n = snprintf(text, sizeof(text), "%.15g", v);
    if (strtod(text, NULL) < v || strtod(text, NULL) > v)
        n = snprintf(text, sizeof(text), "%.17g", v);
    lead(j);
    put(j, text, (size_t)n);
}

void ep_json_bool(struct ep_json *j, bool v)
{
    lead(j);
    put(j, v ? "true" : "false", v ? 4 : 5);
}

void ep_json_null(struct ep_json *j)
{
    lead(j);
    put(j, "null", 4);
}

void ep_json_raw(struct ep_json *j, struct ep_str json)
{
    lead(j);
    put(j, json.p, json.n);
}
