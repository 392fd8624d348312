/* Makes the header table of a parsed head: HTTP/2's shape, hop-by-hop fields left out.
 *
 * The block is copied once into the stream's arena, so that a long stream doesn't pin a slab; names of ours become the
 * constants, others are lowered in the copy. Sources: RFC 9110 section 7.6.1, RFC 9113 section 8.2.2, RFC 8441. */
#include "http/h1.h"

static const struct ep_str scheme_http = EP_STR_INIT("http"), scheme_https = EP_STR_INIT("https");

struct builder {
    const struct h1_head *head;
    struct ep_headers *table;
    char *copy; /* of head->block */
};

static struct builder begin(const struct h1_head *h, struct ep_arena *arena)
{
    struct builder b = {.head = h, .table = EP_ARENA_NEW(arena, struct ep_headers)};

    ep_headers_init(b.table, arena);
    b.copy = ep_arena_alloc(arena, h->block.n);
    memcpy(b.copy, h->block.p, h->block.n);
    return b;
}

/* The same slice, in the copy. */
static struct ep_str moved(const struct builder *b, struct ep_str s)
{
    return ep_str_n(b->copy + (s.p - b->head->block.p), s.n);
}

static void pseudo(struct builder *b, uint16_t id, struct ep_str value)
{
    ep_headers_append(b->table, id, ep_header_name(id), value);
}

static bool nominated(const struct h1_head *h, const struct h1_field *f)
{
    if (f->id == EP_HDR_CONTENT_LENGTH || f->id == EP_HDR_HOST)
        return false;
    for (unsigned i = 0; i < h->n; i++) {
        if (h->v[i].id == EP_HDR_CONNECTION && ep_header_has_token(h->v[i].value, f->name))
            return true;
    }
    return false;
}

static bool hop_by_hop(uint16_t id)
{
    switch (id) {
    case EP_HDR_CONNECTION:
    case EP_HDR_HTTP2_SETTINGS:
    case EP_HDR_KEEP_ALIVE:
    case EP_HDR_PROXY_CONNECTION:
    case EP_HDR_TE:
    case EP_HDR_TRANSFER_ENCODING:
    case EP_HDR_UPGRADE:
        return true;
    default:
        return false;
    }
}

static void field(struct builder *b, const struct h1_field *f)
{
    struct ep_str name;

    if (b->head->nominates && nominated(b->head, f))
        return;
    if (f->id != EP_HDR_OTHER) {
        name = ep_header_name(f->id);
    } else {
        name = moved(b, f->name);
        for (char *p = b->copy + (f->name.p - b->head->block.p), *end = p + f->name.n; p < end; p++)
            *p = ep_lower(*p);
    }
    ep_headers_append(b->table, f->id, name, moved(b, f->value));
}

/* The :path of absolute form without one: "/" before a query, "*" for OPTIONS (RFC 9112 section 3.2.4). */
static struct ep_str path_of(struct builder *b)
{
    const struct h1_head *h = b->head;

    if (h->path.n && h->path.p[0] != '?')
        return moved(b, h->path);
    if (h->path.n == 0)
        return ep_str_eq(h->method, EP_STR("OPTIONS")) ? EP_STR("*") : EP_STR("/");
    return ep_arena_printf(b->table->arena, "/%.*s", EP_STR_ARG(h->path));
}

struct ep_headers *h1_build_request(const struct h1_head *h, struct ep_arena *arena, bool tls)
{
    struct builder b = begin(h, arena);
    bool plain_connect = h->connect && !h->websocket;

    pseudo(&b, EP_HDR_METHOD, h->websocket ? EP_STR("CONNECT") : moved(&b, h->method));
    if (h->websocket)
        pseudo(&b, EP_HDR_PROTOCOL, EP_STR("websocket"));
    if (!plain_connect)
        pseudo(&b, EP_HDR_SCHEME, tls ? scheme_https : scheme_http);
    if (h->authority.n)
        pseudo(&b, EP_HDR_AUTHORITY, moved(&b, h->authority));
    if (!plain_connect)
        pseudo(&b, EP_HDR_PATH, path_of(&b));
    for (unsigned i = 0; i < h->n; i++) {
        const struct h1_field *f = &h->v[i];

        if (f->id == EP_HDR_TE && ep_header_has_token(f->value, EP_STR("trailers")))
            ep_headers_append(b.table, EP_HDR_TE, ep_header_name(EP_HDR_TE), EP_STR("trailers"));
        if (hop_by_hop(f->id) || f->id == EP_HDR_HOST || f->id == EP_HDR_EXPECT ||
            (h->websocket && (f->id == EP_HDR_SEC_WEBSOCKET_KEY || f->id == EP_HDR_CONTENT_LENGTH)))
            continue;
        field(&b, f);
    }
    return b.table;
}

struct ep_headers *h1_build_response(const struct h1_head *h, struct ep_arena *arena)
{
    struct builder b = begin(h, arena);

    pseudo(&b, EP_HDR_STATUS, h->websocket ? EP_STR("200") : moved(&b, h->status_text));
    for (unsigned i = 0; i < h->n; i++) {
        const struct h1_field *f = &h->v[i];

        if (hop_by_hop(f->id) || (h->websocket && f->id == EP_HDR_SEC_WEBSOCKET_ACCEPT) ||
            (f->id == EP_HDR_CONTENT_LENGTH && (h->framing == H1_TUNNEL || h->status < 200 || h->status == 204)))
            continue;
        field(&b, f);
    }
    return b.table;
}

/* Fields that mean something before the body only, or to this connection, are left out (RFC 9110 section 6.5.1). */
static bool allowed_in_trailers(uint16_t id)
{
    switch (id) {
    case EP_HDR_AUTHORIZATION:
    case EP_HDR_CACHE_CONTROL:
    case EP_HDR_CONTENT_ENCODING:
    case EP_HDR_CONTENT_TYPE:
    case EP_HDR_COOKIE:
    case EP_HDR_EXPECT:
    case EP_HDR_SET_COOKIE:
    case EP_HDR_TRAILER:
        return false;
    default:
        return !hop_by_hop(id);
    }
}

struct ep_headers *h1_build_trailers(const struct h1_head *h, struct ep_arena *arena)
{
    struct builder b = begin(h, arena);

    for (unsigned i = 0; i < h->n; i++) {
        if (allowed_in_trailers(h->v[i].id))
            field(&b, &h->v[i]);
    }
    return b.table;
}
