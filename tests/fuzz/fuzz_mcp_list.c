/* link: ep_filters */
/* Lists of MCP edited as text: what goes on is JSON that names exactly what was kept, in the same order, and an edit of it with
 * the same rule changes nothing more. Digests of entries hang on what they say, not on where they lie. */
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/mcp.h"
#include "agent/mcp_pins.h"

#define CHECK(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void *alloc(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

struct seen {
    struct ep_arena *arena;
    const char *from, *to; /* where entries must lie */
    bool all;              /* nothing more is dropped */
    uint64_t kept;         /* hash of what was */
    unsigned n, n_kept;
};

static bool keep(void *user, enum ep_mcp_list list, struct ep_str name, struct ep_str entry)
{
    struct seen *s = user;
    uint8_t digest[EP_MCP_DIGEST_BYTES], again[EP_MCP_DIGEST_BYTES];
    uint64_t hash = ep_hash(name.p, name.n) * 31 + (uint64_t)list;
    bool stays = s->all || hash % 3;

    CHECK(list < EP_MCP_LISTS && entry.n > 0 && entry.p >= s->from && entry.p + entry.n <= s->to);
    if (ep_mcp_pin_digest(entry, s->arena, digest)) {
        CHECK(entry.p[0] == '{');
        CHECK(ep_mcp_pin_digest(ep_arena_str(s->arena, entry), s->arena, again));
        CHECK(memcmp(digest, again, sizeof digest) == 0);
    }
    s->n++;
    if (stays) {
        s->kept = s->kept * 1000003 + hash;
        s->n_kept++;
    }
    return stays;
}

static enum ep_mcp_edit edit(struct ep_scanner *scanner, struct seen *s, struct ep_str text, struct ep_str *out)
{
    char *padded = ep_arena_zalloc(s->arena, text.n + EP_SCAN_PADDING);
    struct ep_scan json;

    if (text.n)
        memcpy(padded, text.p, text.n);
    s->from = padded;
    s->to = padded + text.n;
    if (ep_scan_json(scanner, padded, text.n, alloc, s->arena, &json) != EP_SCAN_OK)
        return EP_MCP_UNREADABLE;
    return ep_mcp_list_edit(ep_str_n(padded, text.n), &json, keep, s, s->arena, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct ep_scanner *scanner = ep_scanner_new(1);
    struct ep_chunk_pool pool;
    struct ep_arena arena;
    struct seen first = {.arena = &arena}, second = {.arena = &arena, .all = true};
    struct ep_str out = {NULL, 0}, more;

    ep_chunk_pool_init(&pool, 4);
    ep_arena_init(&arena, &pool);
    if (edit(scanner, &first, ep_str_n((const char *)data, n), &out) == EP_MCP_EDITED) {
        CHECK(edit(scanner, &second, out, &more) == EP_MCP_SAME);
        CHECK(second.n == first.n_kept && second.kept == first.kept);
    }
    ep_arena_fini(&arena);
    ep_chunk_pool_fini(&pool);
    ep_scanner_free(scanner);
    return 0;
}
