/* The header table: see headers.h for the contract.
 *
 * The array grows in the arena by doubling; what it leaves behind is freed with the arena. A name of ours is
 * found by a perfect hash over its length and three characters (header_index.h, made by header_index.py), then
 * compared once, and then stands in the table as the constant. Everything else is looked for by a scan: a
 * table has some twenty entries, and ids are compared before strings. */
#include "http/headers.h"

#include <nghttp2/nghttp2.h>

#include "http/header_index.h"

#define FIRST_CAP 16u

static const struct ep_str names[EP_HDR_COUNT] = {
    [EP_HDR_OTHER] = EP_STR_INIT(""),
#define X(id, name) [EP_HDR_##id] = EP_STR_INIT(name),
#include "http/header_ids.def"
#undef X
};

_Static_assert(HEADER_INDEX_COUNT == EP_HDR_COUNT, "header_ids.def changed: run python3 proxy/http/header_index.py");
_Static_assert(EP_HDR_COUNT <= 256, "header_index holds bytes");

void ep_headers_init(struct ep_headers *h, struct ep_arena *arena)
{
    *h = (struct ep_headers){.arena = arena};
}

void ep_headers_fini(struct ep_headers *h)
{
    for (uint32_t i = 0; i < h->n_rcbufs; i++)
        nghttp2_rcbuf_decref(h->rcbufs[i]);
    h->n_rcbufs = 0;
    h->n = 0;
    h->bytes = 0;
}

uint16_t ep_header_id(struct ep_str name)
{
    const unsigned char *p = (const unsigned char *)name.p;
    unsigned n = (unsigned)name.n;
    uint8_t id;

    if (name.n == 0 || name.n > HEADER_INDEX_LENGTH_MAX)
        return EP_HDR_OTHER;
    id = header_index[HEADER_INDEX_HASH(n, p[n / 4], p[n / 2], p[n * 5 / 8])];
    if (names[id].n == name.n && memcmp(names[id].p, p, n) == 0)
        return id;
    return EP_HDR_OTHER;
}

struct ep_str ep_header_name(uint16_t id)
{
    assert(id < EP_HDR_COUNT);
    return names[id];
}

/* The id of a name in any case: for callers that aren't a codec. */
static uint16_t id_any_case(struct ep_str name)
{
    char low[HEADER_INDEX_LENGTH_MAX];
    uint16_t id = ep_header_id(name);

    if (id != EP_HDR_OTHER || name.n > sizeof low)
        return id;
    for (size_t i = 0; i < name.n; i++)
        low[i] = ep_lower(name.p[i]);
    return ep_header_id(ep_str_n(low, name.n));
}

void ep_headers_grow(struct ep_headers *h)
{
    uint32_t cap = h->cap ? h->cap * 2 : FIRST_CAP;
    struct ep_header *v = ep_arena_alloc(h->arena, cap * sizeof *v);

    if (h->n)
        memcpy(v, h->v, h->n * sizeof *v);
    h->v = v;
    h->cap = cap;
}

static uint32_t cost(const struct ep_header *e)
{
    return (uint32_t)(e->name.n + e->value.n) + EP_HEADER_OVERHEAD;
}

static struct ep_str lowered(struct ep_arena *arena, struct ep_str name)
{
    char *p = ep_arena_alloc(arena, name.n + 1);

    for (size_t i = 0; i < name.n; i++)
        p[i] = ep_lower(name.p[i]);
    p[name.n] = '\0';
    return ep_str_n(p, name.n);
}

static struct ep_str name_of(struct ep_headers *h, uint16_t id, struct ep_str name)
{
    return id == EP_HDR_OTHER ? lowered(h->arena, name) : names[id];
}

void ep_headers_add(struct ep_headers *h, struct ep_str name, struct ep_str value)
{
    uint16_t id = id_any_case(name);

    ep_headers_append(h, id, name_of(h, id, name), ep_arena_str(h->arena, value));
}

void ep_headers_add_id(struct ep_headers *h, uint16_t id, struct ep_str value)
{
    assert(id != EP_HDR_OTHER && id < EP_HDR_COUNT);
    ep_headers_append(h, id, names[id], ep_arena_str(h->arena, value));
}

static bool is_named(const struct ep_header *e, uint16_t id, struct ep_str name)
{
    return e->id == id && (id != EP_HDR_OTHER || ep_str_caseeq(e->name, name));
}

/* Removes the entries of that name from index `from` on. */
static unsigned remove_from(struct ep_headers *h, uint32_t from, uint16_t id, struct ep_str name)
{
    uint32_t to = from;

    for (uint32_t i = from; i < h->n; i++) {
        if (is_named(&h->v[i], id, name)) {
            h->bytes -= cost(&h->v[i]);
            continue;
        }
        if (to != i)
            h->v[to] = h->v[i];
        to++;
    }
    from = h->n - to;
    h->n = to;
    return from;
}

/* Pseudo-headers stand before all others (RFC 9113 section 8.3). */
static void insert_pseudo(struct ep_headers *h, uint16_t id, struct ep_str value)
{
    uint32_t at = 0;
    struct ep_header e;

    ep_headers_append(h, id, names[id], value);
    while (EP_HDR_IS_PSEUDO(h->v[at].id) && at + 1 < h->n)
        at++;
    e = h->v[h->n - 1];
    memmove(&h->v[at + 1], &h->v[at], (h->n - 1 - at) * sizeof e);
    h->v[at] = e;
}

static void set(struct ep_headers *h, uint16_t id, struct ep_str name, struct ep_str value)
{
    value = ep_arena_str(h->arena, value);
    if (!value.p)
        value.p = "";
    for (uint32_t i = 0; i < h->n; i++) {
        struct ep_header *e = &h->v[i];

        if (!is_named(e, id, name))
            continue;
        h->bytes = h->bytes - (uint32_t)e->value.n + (uint32_t)value.n;
        e->value = value;
        remove_from(h, i + 1, id, name);
        return;
    }
    if (EP_HDR_IS_PSEUDO(id))
        insert_pseudo(h, id, value);
    else
        ep_headers_append(h, id, name_of(h, id, name), value);
}

void ep_headers_set(struct ep_headers *h, struct ep_str name, struct ep_str value)
{
    set(h, id_any_case(name), name, value);
}

void ep_headers_set_id(struct ep_headers *h, uint16_t id, struct ep_str value)
{
    assert(id != EP_HDR_OTHER && id < EP_HDR_COUNT);
    set(h, id, names[id], value);
}

unsigned ep_headers_remove(struct ep_headers *h, struct ep_str name)
{
    return remove_from(h, 0, id_any_case(name), name);
}

unsigned ep_headers_remove_id(struct ep_headers *h, uint16_t id)
{
    assert(id != EP_HDR_OTHER && id < EP_HDR_COUNT);
    return ep_headers_find_id(h, id) ? remove_from(h, 0, id, names[id]) : 0;
}

void ep_headers_body_changed(struct ep_headers *h)
{
    static const char *const described[] = {"content-md5", "digest", "content-digest", "repr-digest", "etag", "accept-ranges"};

    for (size_t i = 0; i < EP_COUNT(described); i++)
        ep_headers_remove(h, ep_str(described[i]));
    ep_headers_remove_id(h, EP_HDR_CONTENT_ENCODING);
}

struct ep_header *ep_headers_find_id(const struct ep_headers *h, uint16_t id)
{
    for (uint32_t i = 0; i < h->n; i++) {
        if (h->v[i].id == id)
            return &h->v[i];
    }
    return NULL;
}

struct ep_str ep_headers_get_id(const struct ep_headers *h, uint16_t id)
{
    const struct ep_header *e = ep_headers_find_id(h, id);

    return e ? e->value : (struct ep_str){NULL, 0};
}

struct ep_str ep_headers_get(const struct ep_headers *h, struct ep_str name)
{
    uint16_t id = id_any_case(name);

    for (uint32_t i = 0; i < h->n; i++) {
        if (is_named(&h->v[i], id, name))
            return h->v[i].value;
    }
    return (struct ep_str){NULL, 0};
}

unsigned ep_headers_count_id(const struct ep_headers *h, uint16_t id)
{
    unsigned count = 0;

    for (uint32_t i = 0; i < h->n; i++)
        count += h->v[i].id == id;
    return count;
}

bool ep_header_has_token(struct ep_str value, struct ep_str token)
{
    size_t i = 0;

    while (i < value.n) {
        size_t end = i;

        while (end < value.n && value.p[end] != ',')
            end++;
        if (ep_str_caseeq(ep_str_trim(ep_str_n(value.p + i, end - i)), token))
            return true;
        i = end + 1;
    }
    return false;
}

struct ep_str ep_media_type(struct ep_str value)
{
    ptrdiff_t semicolon = ep_str_find(value, ';', 0);

    if (semicolon >= 0)
        value.n = (size_t)semicolon;
    return ep_str_trim(value);
}

bool ep_headers_are_events(const struct ep_headers *h)
{
    return ep_str_caseeq(ep_media_type(ep_headers_get_id(h, EP_HDR_CONTENT_TYPE)), EP_STR("text/event-stream"));
}

const char ep_token_lower[256] = {
    ['!'] = '!', ['#'] = '#', ['$'] = '$', ['%'] = '%', ['&'] = '&', ['\''] = '\'', ['*'] = '*', ['+'] = '+',
    ['-'] = '-', ['.'] = '.', ['^'] = '^', ['_'] = '_', ['`'] = '`', ['|'] = '|',   ['~'] = '~',
    ['0'] = '0', ['1'] = '1', ['2'] = '2', ['3'] = '3', ['4'] = '4', ['5'] = '5',   ['6'] = '6', ['7'] = '7',
    ['8'] = '8', ['9'] = '9', ['a'] = 'a', ['b'] = 'b', ['c'] = 'c', ['d'] = 'd',   ['e'] = 'e', ['f'] = 'f',
    ['g'] = 'g', ['h'] = 'h', ['i'] = 'i', ['j'] = 'j', ['k'] = 'k', ['l'] = 'l',   ['m'] = 'm', ['n'] = 'n',
    ['o'] = 'o', ['p'] = 'p', ['q'] = 'q', ['r'] = 'r', ['s'] = 's', ['t'] = 't',   ['u'] = 'u', ['v'] = 'v',
    ['w'] = 'w', ['x'] = 'x', ['y'] = 'y', ['z'] = 'z', ['A'] = 'a', ['B'] = 'b',   ['C'] = 'c', ['D'] = 'd',
    ['E'] = 'e', ['F'] = 'f', ['G'] = 'g', ['H'] = 'h', ['I'] = 'i', ['J'] = 'j',   ['K'] = 'k', ['L'] = 'l',
    ['M'] = 'm', ['N'] = 'n', ['O'] = 'o', ['P'] = 'p', ['Q'] = 'q', ['R'] = 'r',   ['S'] = 's', ['T'] = 't',
    ['U'] = 'u', ['V'] = 'v', ['W'] = 'w', ['X'] = 'x', ['Y'] = 'y', ['Z'] = 'z',
};

bool ep_header_name_valid(struct ep_str name)
{
    if (name.n == 0)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        if (!ep_token_lower[(unsigned char)name.p[i]])
            return false;
    }
    return true;
}

/* True when 8 bytes hold a control character; also for some without: then a slow look decides. */
static bool suspicious(uint64_t x)
{
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t below_space = (x - ones * 0x20) & ~x, del = x ^ (ones * 0x7f);

    return ((below_space | ((del - ones) & ~del)) & high) != 0;
}

static bool bytes_valid(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];

        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

bool ep_header_value_valid(struct ep_str value)
{
    const char *p = value.p;
    size_t n = value.n;
    uint64_t x;

    for (; n >= sizeof x; p += sizeof x, n -= sizeof x) {
        memcpy(&x, p, sizeof x);
        if (EP_UNLIKELY(suspicious(x)) && !bytes_valid(p, sizeof x))
            return false;
    }
    if (n == 0)
        return true;
    if (value.n < sizeof x)
        return bytes_valid(p, n);
    memcpy(&x, p + n - sizeof x, sizeof x); /* the last 8 again */
    return !suspicious(x) || bytes_valid(p, n);
}

struct ep_str ep_grpc_encode(struct ep_arena *arena, struct ep_str text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = ep_arena_alloc(arena, 3 * text.n + 1);
    size_t n = 0;

    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c >= 0x20 && c <= 0x7e && c != '%') {
            out[n++] = (char)c;
        } else {
            out[n++] = '%';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        }
    }
    return ep_str_n(out, n);
}
