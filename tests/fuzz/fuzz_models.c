/* link: ep_filters */
/* Bodies for language models: the prompt's text never outgrows what it is made of, each name is one of the body's strings, and
 * making all anew says the same. */
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/model.h"

#define CHECK(x) ((x) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void *alloc(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

static void check(struct ep_model_request *r, size_t n, struct ep_arena *arena)
{
    struct ep_str text = ep_model_prompt(r, arena), again;
    const struct ep_model_names tools = *ep_model_tools(r, arena), servers = *ep_model_servers(r, arena);
    unsigned media[EP_MODEL_MEDIA];

    memcpy(media, ep_model_media(r, arena), sizeof media);
    CHECK(text.n <= n);
    CHECK(tools.n <= n && servers.n <= n);
    for (unsigned i = 0; i < tools.n; i++)
        CHECK(tools.v[i].n > 0 && tools.v[i].n <= n);
    ep_model_forget(r);
    again = ep_model_prompt(r, arena);
    CHECK(ep_str_eq(text, again) && memcmp(media, ep_model_media(r, arena), sizeof media) == 0);
    CHECK(ep_model_tools(r, arena)->n == tools.n && ep_model_servers(r, arena)->n == servers.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct ep_chunk_pool pool;
    struct ep_scanner *scanner = ep_scanner_new(1);
    char *text = malloc(n + EP_SCAN_PADDING);
    struct ep_call call = {.visible = EP_VISIBLE_FULL};
    struct ep_arena arena;
    struct ep_scan scan;
    bool too_many;

    CHECK(scanner && text);
    if (n)
        memcpy(text, data, n);
    memset(text + n, ' ', EP_SCAN_PADDING);
    ep_arena_init(&arena, &pool);
    if (ep_scan_json(scanner, text, n, alloc, &arena, &scan) == EP_SCAN_OK && !scan.batch && !scan.duplicate) {
        ep_model_fill(&call, scan.first, &arena);
        check(call.to_model, n, &arena);
        if (scan.first->requests.kind == EP_SCAN_ARRAY &&
            ep_model_fill_batch(&call, ep_agent_str(scan.first->requests.raw), &arena, &too_many))
            for (struct ep_call *c = &call; c; c = c->next)
                check(c->to_model, n, &arena);
    }
    ep_arena_fini(&arena);
    ep_chunk_pool_fini(&pool);
    ep_scanner_free(scanner);
    free(text);
    return 0;
}
