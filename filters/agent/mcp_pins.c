/* Pins of tool definitions: the digest, and what was seen. agent/mcp_pins.h has the picture. */
#include "agent/mcp_pins.h"

#include <openssl/sha.h>
#include <stdlib.h>

#include "agent/mcp.h"
#include "observe/json.h"

#define DEPTH_MAX 64u /* of ep_json_next */

/* --- canonical JSON, straight into the hash --- */

struct member {
    struct member *next;
    struct ep_str key, value;
};

static void text(SHA256_CTX *c, struct ep_str s)
{
    SHA256_Update(c, s.p, s.n);
}

/* Escapes as RFC 8785 has them: the two-letter ones where there are, \u00xx for other control characters, else none. */
static void string(SHA256_CTX *c, struct ep_str s)
{
    static const char control[] = "\b\t\n\f\r\"\\", letter[] = "btnfr\"\\";
    size_t from = 0;

    text(c, EP_STR("\""));
    for (size_t i = 0; i < s.n; i++) {
        unsigned char byte = (unsigned char)s.p[i];
        const char *known = byte ? strchr(control, byte) : NULL;
        char escape[8];
        int n;

        if (byte >= 0x20 && !known)
            continue;
        text(c, ep_str_n(s.p + from, i - from));
        n = known ? snprintf(escape, sizeof escape, "\\%c", letter[known - control])
                  : snprintf(escape, sizeof escape, "\\u%04x", byte);
        text(c, ep_str_n(escape, (size_t)n));
        from = i + 1;
    }
    text(c, ep_str_n(s.p + from, s.n - from));
    text(c, EP_STR("\""));
}

static struct ep_str plain(struct ep_arena *arena, struct ep_str quoted)
{
    char *p = ep_arena_alloc(arena, quoted.n);

    return ep_str_n(p, ep_json_plain(quoted, p, quoted.n));
}

static int by_key(const void *a_, const void *b_)
{
    const struct member *a = *(const struct member *const *)a_, *b = *(const struct member *const *)b_;
    int order = memcmp(a->key.p, b->key.p, EP_MIN(a->key.n, b->key.n));

    return order ? order : a->key.n < b->key.n ? -1 : a->key.n > b->key.n;
}

static bool is_left_out(struct ep_str key, unsigned depth)
{
    return depth == 0 && (ep_str_eq(key, EP_STR("_meta")) || ep_str_eq(key, EP_STR("icons")));
}

static bool value(SHA256_CTX *c, struct ep_str v, struct ep_arena *arena, unsigned depth);

static bool object(SHA256_CTX *c, struct ep_str v, struct ep_arena *arena, unsigned depth)
{
    struct member *first = NULL, **sorted;
    struct ep_str rest = v, key, inside;
    size_t n = 0;

    while (!ep_mcp_is_empty(v) && ep_json_next(&rest, &key, &inside)) {
        struct member *m = EP_ARENA_NEW(arena, struct member);
        *m = (struct member){.next = first, .key = plain(arena, ep_str_n(key.p - 1, key.n + 2)), .value = inside};
        if (is_left_out(m->key, depth))
            continue;
        first = m;
        n++;
    }
    if (!ep_mcp_is_empty(v) && !ep_mcp_at_end(rest, '}'))
        return false;
    sorted = ep_arena_alloc(arena, (n + 1) * sizeof(struct member *));
    for (size_t i = 0; first; first = first->next)
        sorted[i++] = first;
    qsort(sorted, n, sizeof *sorted, by_key);
    text(c, EP_STR("{"));
    for (size_t i = 0; i < n; i++) {
        if (i)
            text(c, EP_STR(","));
        string(c, sorted[i]->key);
        text(c, EP_STR(":"));
        if (!value(c, sorted[i]->value, arena, depth + 1))
            return false;
    }
    text(c, EP_STR("}"));
    return true;
}

static bool array(SHA256_CTX *c, struct ep_str v, struct ep_arena *arena, unsigned depth)
{
    struct ep_str rest = v, key, inside;
    bool any = false;

    text(c, EP_STR("["));
    while (!ep_mcp_is_empty(v) && ep_json_next(&rest, &key, &inside)) {
        if (any)
            text(c, EP_STR(","));
        any = true;
        if (!value(c, inside, arena, depth + 1))
            return false;
    }
    text(c, EP_STR("]"));
    return ep_mcp_is_empty(v) || ep_mcp_at_end(rest, ']');
}

static bool value(SHA256_CTX *c, struct ep_str v, struct ep_arena *arena, unsigned depth)
{
    if (depth == DEPTH_MAX)
        return false;
    switch (v.p[0]) {
    case '{':
        return object(c, v, arena, depth);
    case '[':
        return array(c, v, arena, depth);
    case '"':
        string(c, plain(arena, v));
        return true;
    default:
        text(c, v);
        return true;
    }
}

bool ep_mcp_pin_digest(struct ep_str entry, struct ep_arena *arena, uint8_t out[EP_MCP_DIGEST_BYTES])
{
    SHA256_CTX c;

    if (entry.p[0] != '{')
        return false;
    SHA256_Init(&c);
    if (!value(&c, entry, arena, 0))
        return false;
    SHA256_Final(out, &c);
    return true;
}

/* --- what was seen --- */

static int compare(const void *name_, const void *pin_)
{
    const struct ep_str *name = name_;
    const struct ep_mcp_pin *pin = pin_;
    int order = memcmp(name->p, pin->name.p, EP_MIN(name->n, pin->name.n));

    return order ? order : name->n < pin->name.n ? -1 : name->n > pin->name.n;
}

static struct ep_mcp_pin *find(const struct ep_mcp_pins *pins, struct ep_str name)
{
    return pins->n ? bsearch(&name, pins->v, pins->n, sizeof *pins->v, compare) : NULL;
}

enum ep_mcp_pinned ep_mcp_pins_see(struct ep_mcp_pins *pins, struct ep_str name,
                                   const uint8_t digest[EP_MCP_DIGEST_BYTES], bool *news)
{
    struct ep_mcp_pin *pin = find(pins, name);
    bool same = false;

    *news = false;
    if (!pin)
        return EP_MCP_PINNED_UNKNOWN;
    for (size_t i = 0; i < pin->n; i++)
        same |= memcmp(pin->digests[i].bytes, digest, EP_MCP_DIGEST_BYTES) == 0;
    *news = atomic_exchange_explicit(&pin->changed, !same, memory_order_relaxed) == same;
    return same ? EP_MCP_PINNED_SAME : EP_MCP_PINNED_CHANGED;
}

enum ep_mcp_pinned ep_mcp_pins_of(const struct ep_mcp_pins *pins, struct ep_str name)
{
    const struct ep_mcp_pin *pin = find(pins, name);

    if (!pin)
        return EP_MCP_PINNED_UNKNOWN;
    return atomic_load_explicit(&pin->changed, memory_order_relaxed) ? EP_MCP_PINNED_CHANGED : EP_MCP_PINNED_SAME;
}
