/* The filter `constitution`: x-constitutional-hash on what leaves, checked on what arrives.
 *
 * Outbound, the hash is stamped where the application named none; inbound it is compared with the hash in force and
 * those that are accepted beside it. The comparison is constant in time, so that nobody finds the hash byte by byte,
 * and a refusal shows the first 8 characters of what was given, never what was wanted. Replies carry the hash too.
 * DESIGN.md section 8. */
#include "filter/chain.h"
#include "filter/constitution_config.h"
#include "filter/filter.h"
#include "observe/observe.h"

#include <stdlib.h>

enum result { MATCH, MISMATCH, ABSENT, STAMPED, RESULTS };

struct constitution {
    struct ep_str hash;
    const struct ep_str *accept;
    size_t n_accept;
    enum ep_mode mode;
    bool strict;
    uint64_t *cells[RESULTS]; /* NULL without statistics */
};

struct state {
    bool withheld; /* the request named a wrong hash: its reply must not show the right one */
};

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    static const char *const names[] = {"match", "mismatch", "absent", "stamped"};
    const struct ep_constitution_config *config = i->view ? i->view->constitution_config : NULL;
    struct constitution *c = ep_calloc(1, sizeof *c);

    (void)err;
    i->data = c;
    c->mode = EP_MODE_OFF;
    if (!config || !config->hash.n)
        return true;
    c->hash = config->hash;
    c->accept = config->accept.v;
    c->n_accept = config->accept.n;
    c->mode = (enum ep_mode)config->mode;
    c->strict = config->strict;
    for (int r = 0; r < RESULTS && i->worker->stats; r++)
        c->cells[r] = ep_stats_cell(i->worker->stats, EP_METRIC_CONSTITUTION_CHECKS, EP_LABELS(ep_str(names[r])));
    return true;
}

static void unload(struct ep_filter_instance *i)
{
    free(i->data);
}

static void count(const struct constitution *c, enum result r)
{
    if (c->cells[r])
        ep_cell_add(c->cells[r], 1);
}

static enum ep_step refuse(struct ep_stream *s, const char *code, struct ep_str reason)
{
    ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_POLICY,
                                             .policy = EP_STR("constitution"),
                                             .principle = EP_STR("constitutional-hash"),
                                             .reason = reason,
                                             .code = code,
                                             .grpc_status = -1});
    return EP_REPLIED;
}

/* No early end: how many hashes are good and which one it was can't be told by the time it took. */
static bool good(const struct constitution *c, struct ep_str given)
{
    bool found = ep_str_equal_ct(given, c->hash);

    for (size_t i = 0; i < c->n_accept; i++)
        found |= ep_str_equal_ct(given, c->accept[i]);
    return found;
}

static enum ep_step mismatch(struct ep_stream *s, struct ep_str given)
{
    char shown[8];
    size_t n = EP_MIN(given.n, sizeof shown);

    for (size_t i = 0; i < n; i++)
        shown[i] = (char)(given.p[i] > 0x20 && given.p[i] < 0x7f ? given.p[i] : '?');
    return refuse(s, "constitution.mismatch",
                  ep_arena_printf(&s->arena, "Constitutional hash mismatch (provided: %.*s...)", (int)n, shown));
}

static enum ep_step inbound(struct ep_stream *s, const struct constitution *c, struct state *state)
{
    struct ep_str given = ep_headers_get_id(&s->request.headers, EP_HDR_X_CONSTITUTIONAL_HASH);

    if (!given.p) {
        count(c, ABSENT);
        if (c->strict && c->mode == EP_MODE_ENFORCE)
            return refuse(s, "constitution.absent", EP_STR("Constitutional hash missing"));
        return EP_NEXT;
    }
    /* Named twice, each must be good: else who reads the other one would be fooled. */
    for (uint32_t i = 0; i < s->request.headers.n; i++) {
        const struct ep_header *h = &s->request.headers.v[i];
        if (h->id != EP_HDR_X_CONSTITUTIONAL_HASH || good(c, ep_str_trim(h->value)))
            continue;
        count(c, MISMATCH);
        state->withheld = true;
        return c->mode == EP_MODE_ENFORCE ? mismatch(s, ep_str_trim(h->value)) : EP_NEXT;
    }
    count(c, MATCH);
    return EP_NEXT;
}

static enum ep_step request_headers(struct ep_stream *s, void *state, bool end)
{
    const struct constitution *c = ep_filter_data(s);

    (void)end;
    if (c->mode == EP_MODE_OFF)
        return EP_NEXT;
    if (s->direction == EP_INBOUND)
        return inbound(s, c, state);
    if (!ep_headers_find_id(&s->request.headers, EP_HDR_X_CONSTITUTIONAL_HASH)) {
        ep_headers_append(&s->request.headers, EP_HDR_X_CONSTITUTIONAL_HASH, EP_STR("x-constitutional-hash"),
                          c->hash); /* the view outlives the stream, and so does the hash */
        count(c, STAMPED);
    }
    return EP_NEXT;
}

static enum ep_step response_headers(struct ep_stream *s, void *state_, bool end)
{
    const struct constitution *c = ep_filter_data(s);
    const struct state *state = state_;

    (void)end;
    if (c->mode != EP_MODE_OFF && !state->withheld && s->direction == EP_INBOUND &&
        !ep_headers_find_id(&s->response.headers, EP_HDR_X_CONSTITUTIONAL_HASH))
        ep_headers_append(&s->response.headers, EP_HDR_X_CONSTITUTIONAL_HASH, EP_STR("x-constitutional-hash"), c->hash);
    return EP_NEXT;
}

const struct ep_filter ep_filter_constitution = {
    .name = "constitution",
    .help = "Stamps the constitution's hash on what leaves, and refuses what arrives with another.",
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .response_headers = response_headers,
};
