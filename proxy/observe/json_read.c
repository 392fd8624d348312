/* Reading JSON that we wrote ourselves and that somebody may have changed since: no tree, no memory, a bound on the
 * depth. It finds where a value ends and what a member is called; whoever needs a strict parser for a peer's JSON has
 * simdjson (filters/agent/json.h). */
#include "observe/json.h"

#define DEPTH_MAX 64u

static const char *space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p;
}

const char *ep_json_string_end(const char *p, const char *end)
{
    if (p >= end || *p != '"')
        return NULL;
    for (p++; p < end; p++) {
        if (*p == '"')
            return p + 1;
        if ((unsigned char)*p < 0x20)
            return NULL;
        if (*p == '\\')
            p++;
    }
    return NULL;
}

static bool is_scalar(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '+' || c == '.' || c == 'E';
}

static const char *value_end(const char *p, const char *end)
{
    char closing[DEPTH_MAX];
    unsigned depth = 0;

    do {
        p = space(p, end);
        if (p >= end)
            return NULL;
        if (*p == '"') {
            p = ep_json_string_end(p, end);
            if (!p)
                return NULL;
        } else if (*p == '{' || *p == '[') {
            if (depth == DEPTH_MAX)
                return NULL;
            closing[depth++] = *p++ == '{' ? '}' : ']';
        } else if (depth && *p == closing[depth - 1]) {
            depth--;
            p++;
        } else if (depth && (*p == ',' || *p == ':')) {
            p++;
        } else {
            const char *from = p;
            while (p < end && is_scalar(*p))
                p++;
            if (p == from)
                return NULL;
        }
    } while (depth);
    return p;
}

bool ep_json_next(struct ep_str *rest, struct ep_str *key, struct ep_str *value)
{
    const char *p = rest->p, *end = rest->p + rest->n, *stop;
    bool object;

    if (rest->n == 0)
        return false;
    p = space(p, end);
    if (p >= end || (*p != '{' && *p != '[' && *p != ','))
        return false;
    /* The bracket is the first thing; behind a member stands a comma. An array's elements have no keys. */
    object = *p == '{' || *p == ',';
    if (*p == ',') { /* of what? a key is followed by a colon, an element is not */
        const char *after = ep_json_string_end(space(p + 1, end), end);
        object = after && space(after, end) < end && *space(after, end) == ':';
    }
    p = space(p + 1, end);
    *key = (struct ep_str){NULL, 0};
    if (object) {
        stop = ep_json_string_end(p, end);
        if (!stop)
            return false;
        *key = ep_str_n(p + 1, (size_t)(stop - p) - 2);
        p = space(stop, end);
        if (p >= end || *p != ':')
            return false;
        p = space(p + 1, end);
    }
    stop = value_end(p, end);
    if (!stop || stop == p)
        return false;
    *value = ep_str_n(p, (size_t)(stop - p));
    *rest = ep_str_n(stop, (size_t)(end - stop));
    return true;
}

struct ep_str ep_json_member(struct ep_str object, const char *path)
{
    struct ep_str parts = ep_str(path), part, key, value = object;

    while (ep_str_next(&parts, '.', &part)) {
        struct ep_str rest = value;
        bool found = false;

        if (!rest.n || rest.p[0] != '{')
            return (struct ep_str){NULL, 0};
        while (!found && ep_json_next(&rest, &key, &value))
            found = ep_str_eq(key, part);
        if (!found)
            return (struct ep_str){NULL, 0};
    }
    return value;
}

/* --- what a string says --- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The four digits of a \u; -1: they are none. */
static long unit(const char *p, const char *end)
{
    long v = 0;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int d = hex_digit(p[i]);
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* One escape behind its backslash. Returns where it ends; out[*n] is what it says. */
static const char *unescape(const char *p, const char *end, char out[4], size_t *n)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    const char *known;
    long c, low;

    *n = 1;
    out[0] = *p;
    if (*p != 'u') {
        known = *p ? strchr(from, *p) : NULL;
        if (known)
            out[0] = to[known - from];
        return p + 1;
    }
    c = unit(p + 1, end);
    if (c < 0)
        return p + 1;
    p += 5;
    if (c >= 0xd800 && c < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u' && (low = unit(p + 2, end)) >= 0xdc00 &&
        low < 0xe000) {
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        p += 6;
    } else if (c >= 0xd800 && c < 0xe000) {
        c = 0xfffd;
    }
    *n = ep_utf8_encode((uint32_t)c, out);
    return p;
}

size_t ep_json_plain(struct ep_str value, char *out, size_t room)
{
    const char *p = value.p, *end = value.p + value.n;
    size_t at = 0;

    if (value.n < 2 || value.p[0] != '"' || value.p[value.n - 1] != '"') {
        at = EP_MIN(value.n, room);
        if (at)
            memcpy(out, value.p, at);
        return at;
    }
    for (p++, end--; p < end;) {
        char said[4];
        size_t n = 1;

        said[0] = *p++;
        if (said[0] == '\\' && p < end)
            p = unescape(p, end, said, &n);
        if (n > room - at)
            break;
        memcpy(out + at, said, n);
        at += n;
    }
    return at;
}
