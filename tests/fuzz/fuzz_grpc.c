/* link: ep_filters */
/* gRPC's frames, and Agent2Agent's messages in them: what comes out lies in what went in, frames end, and a message that is read
 * is JSON to the scan. The first byte chooses method and version. */
#include <stdlib.h>

#include <openssl/evp.h>

#include "agent/a2a.h"
#include "agent/grpc_frame.h"

#define CHECK(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void *alloc(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

static void frames(struct ep_str bytes)
{
    struct ep_str rest = bytes;
    struct ep_grpc_frame f;
    size_t seen = 0;

    while (rest.n && ep_grpc_next(&rest, 1 << 20, &f) == EP_GRPC_FRAME) {
        CHECK(f.payload.p >= bytes.p && f.payload.p + f.payload.n == rest.p);
        seen += f.payload.n + EP_GRPC_PREFIX_BYTES;
        CHECK(seen + rest.n == bytes.n);
    }
}

static void message(struct ep_scanner *scanner, bool old, const struct ep_a2a_method *m, struct ep_str bytes, struct ep_arena *arena)
{
    struct ep_str json = ep_a2a_json(old, m, bytes, arena);
    struct ep_scan scan;

    if (!json.n)
        return;
    CHECK(ep_scan_json(scanner, json.p, json.n, alloc, arena, &scan) != EP_SCAN_NOT_JSON);
    CHECK(scan.first && !scan.batch);
}

/* What is taken for base64 is what its bytes are in base64, padding of pieces in the middle aside. */
static void base64(struct ep_str text, struct ep_arena *arena)
{
    const char *padding = memchr(text.p ? text.p : "", '=', text.n);
    struct ep_str bytes;
    char *again;

    if (!ep_grpc_from_text(text, arena, &bytes))
        return;
    CHECK(text.n % 4 == 0 && bytes.n <= text.n / 4 * 3);
    if (padding && padding + 2 < text.p + text.n)
        return;
    again = ep_arena_alloc(arena, text.n + 1);
    CHECK(EVP_EncodeBlock((unsigned char *)again, (const unsigned char *)bytes.p, bytes.n) == text.n);
    CHECK(memcmp(again, text.p ? text.p : "", text.n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const names[] = {"message/send", "tasks/get", "tasks/list", "tasks/cancel", "tasks/resubscribe",
                                        "tasks/pushNotificationConfig/set", "tasks/pushNotificationConfig/delete",
                                        "agent/getAuthenticatedExtendedCard"};
    static struct ep_chunk_pool pool;
    static struct ep_scanner *scanner;
    struct ep_arena arena;
    struct ep_str bytes;

    if (!scanner) {
        scanner = ep_scanner_new(1);
        ep_chunk_pool_init(&pool, 16);
    }
    if (n == 0)
        return 0;
    bytes = ep_str_n((const char *)data + 1, n - 1);
    ep_arena_init(&arena, &pool);
    frames(bytes);
    base64(bytes, &arena);
    message(scanner, data[0] & 1, ep_a2a_by_name(ep_str(names[data[0] >> 1 & 7])), bytes, &arena);
    ep_arena_fini(&arena);
    return 0;
}
