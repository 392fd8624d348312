/* The filter `constitution`: x-constitutional-hash on what leaves, checked on what arrives.
 *
 * Outbound, the hash is stamped where the application named none; inbound it is compared with the hash in force and
 * those that are accepted beside it, wherever the request names it: in the header, in a message of the agent bus as
 * JSON, and message by message in gRPC calls of the bus. Each that is named must be good; in strict mode one must be. The
 * comparison is constant in time, so that nobody finds the hash byte by byte, and a refusal shows the first 8 characters
 * of what was given, never what was wanted. Replies carry the hash too.
 *
 * Between ephors x-ephor-constitution says which text is enforced. It is believed of a peer whose identity was verified,
 * and goes no further: the router sends ours to such peers only. DESIGN.md section 8. */
#include "agent/bus.h"
#include "agent/grpc_frame.h"
#include "authorize.h"
#include "filter/chain.h"
#include "filter/charter.h"
#include "filter/filter.h"
#include "observe/observe.h"

#include <stdlib.h>

#define PREFIX_BYTES EP_GRPC_PREFIX_BYTES

enum result { MATCH, MISMATCH, ABSENT, STAMPED, UNREADABLE, RESULTS };
#define PEERS 3u

struct constitution {
    struct ep_str hash;
    const struct ep_str *accept;
    size_t n_accept;
    enum ep_mode mode;
    bool strict;
    const struct ep_charter *charter; /* NULL: none */
    struct ep_str principle;
    uint64_t *cells[RESULTS]; /* NULL without statistics */
    uint64_t *peers[PEERS];
};

struct state {
    bool withheld; /* the request named a wrong hash: its reply must not show the right one */
    bool named;    /* it named a good one, somewhere */
    bool in_head;  /* … and for all its messages */
    bool bus;      /* a gRPC call of the bus: its messages are looked at */
    bool held_any; /* `held` is in use */
    struct ep_body held; /* of a message that isn't whole yet */
};

static void unload(struct ep_filter_instance *i)
{
    free(i->data);
}

static bool has_policies(const struct ep_charter *c)
{
    for (size_t i = 0; i < c->n_files; i++)
        if (ep_charter_is_policy(c->files[i].path))
            return true;
    return false;
}

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    static const char *const names[] = {"match", "mismatch", "absent", "stamped", "unreadable"};
    const struct ep_constitution_config *config = i->view ? i->view->constitution_config : NULL;
    struct constitution *c = ep_calloc(1, sizeof *c);

    i->data = c;
    c->mode = EP_MODE_OFF;
    if (!config || !config->hash.n)
        return true;
    c->hash = config->hash;
    c->accept = config->accept.v;
    c->n_accept = config->accept.n;
    c->mode = (enum ep_mode)config->mode;
    c->strict = config->strict;
    c->charter = config->charter;
    if (c->mode != EP_MODE_OFF && c->charter && has_policies(c->charter) && i->chain &&
        !ep_chain_has(i->chain->config, EP_STR("policies"))) {
        unload(i);
        i->data = NULL;
        return ep_error_set(err, "listener %.*s: the constitution has policies, and the filter 'policies' that runs them "
                                 "is not there", EP_STR_ARG(i->chain->config->name));
    }
    if (c->charter)
        c->principle = ep_charter_principle_of(c->charter, EP_STR("constitution"));
    if (!c->principle.n)
        c->principle = EP_STR("constitutional-hash");
    for (int r = 0; r < RESULTS && i->worker->stats; r++)
        c->cells[r] = ep_stats_cell(i->worker->stats, EP_METRIC_CONSTITUTION_CHECKS, EP_LABELS(ep_str(names[r])));
    for (unsigned p = 0; p < PEERS && i->worker->stats && c->charter; p++)
        c->peers[p] =
            ep_stats_cell(i->worker->stats, EP_METRIC_CONSTITUTION_PEERS,
                          EP_LABELS(ep_str(ep_constitution_peer_name((enum ep_peer_constitution)p))));
    return true;
}

static void count(const struct constitution *c, enum result r)
{
    if (c->cells[r])
        ep_cell_add(c->cells[r], 1);
}

static enum ep_step refuse(struct ep_stream *s, const struct constitution *c, const char *code, struct ep_str reason)
{
    ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_POLICY,
                                             .policy = EP_STR("constitution"),
                                             .policy_version = c->charter ? c->charter->version : (struct ep_str){NULL, 0},
                                             .principle = c->principle,
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

/* EP_REPLIED, or in shadow mode EP_NEXT. */
static enum ep_step mismatch(struct ep_stream *s, const struct constitution *c, struct state *state,
                             struct ep_str given)
{
    char shown[8];
    size_t n = EP_MIN(given.n, sizeof shown);

    count(c, MISMATCH);
    state->withheld = true;
    if (c->mode != EP_MODE_ENFORCE)
        return EP_NEXT;
    for (size_t i = 0; i < n; i++)
        shown[i] = (char)(given.p[i] > 0x20 && given.p[i] < 0x7f ? given.p[i] : '?');
    return refuse(s, c, "constitution.mismatch",
                  ep_arena_printf(&s->arena, "Constitutional hash mismatch (provided: %.*s...)", (int)n, shown));
}

static enum ep_step unreadable(struct ep_stream *s, const struct constitution *c, const char *what)
{
    count(c, UNREADABLE);
    return c->mode == EP_MODE_ENFORCE ? refuse(s, c, "constitution.unreadable", ep_str(what)) : EP_NEXT;
}

/* --- what the peer's sidecar enforces --- */

static enum ep_peer_constitution peer_of(const struct constitution *c, const struct ep_headers *h, bool verified)
{
    struct ep_str said = ep_headers_get_id(h, EP_HDR_X_EPHOR_CONSTITUTION);

    if (!said.n || !verified || !c->charter)
        return EP_PEER_CONSTITUTION_UNKNOWN;
    return ep_str_eq(said, c->charter->digest) ? EP_PEER_CONSTITUTION_SAME : EP_PEER_CONSTITUTION_OTHER;
}

/* Reads the mark and takes it away: it is for us. */
static void take_mark(struct ep_stream *s, const struct constitution *c, struct ep_headers *h, bool verified)
{
    s->peer_constitution = peer_of(c, h, verified);
    if (ep_headers_find_id(h, EP_HDR_X_EPHOR_CONSTITUTION))
        ep_headers_remove_id(h, EP_HDR_X_EPHOR_CONSTITUTION);
    if (c->peers[s->peer_constitution])
        ep_cell_add(c->peers[s->peer_constitution], 1);
}

/* --- inbound --- */

struct walk {
    struct ep_stream *s;
    const struct constitution *c;
    struct state *state;
    bool refused;
};

static bool each(void *user, struct ep_str given)
{
    struct walk *w = user;

    if (good(w->c, ep_str_trim(given))) {
        w->state->named = true;
        return true;
    }
    w->refused = mismatch(w->s, w->c, w->state, ep_str_trim(given)) == EP_REPLIED;
    return false;
}

/* All of them: named twice, who reads the other one would be fooled. */
static bool header_good(struct walk *w)
{
    const struct ep_headers *h = &w->s->request.headers;

    for (uint32_t i = 0; i < h->n; i++)
        if (h->v[i].id == EP_HDR_X_CONSTITUTIONAL_HASH && !each(w, h->v[i].value))
            return false;
    return true;
}

/* A body that `agent` has read and found to be no call of another protocol. */
static enum ep_step json(struct walk *w)
{
    struct ep_call *call = &w->s->call;
    bool read = call->visible == EP_VISIBLE_FULL || call->batch, unnamed; /* a batch: something in it is no message */

    if (!read || !ep_bus_may_be(call->body) ||
        !(ep_str_eq(call->protocol, EP_STR("http")) || ep_str_eq(call->protocol, EP_STR("acgs2"))))
        return EP_NEXT;
    switch (ep_bus_json(call->body, each, w, &call->impact, &unnamed)) {
    case EP_BUS_OK: /* of a batch each must name one, where one must be */
        w->state->named &= !(unnamed && call->batch) || w->state->in_head;
        return EP_NEXT;
    case EP_BUS_STOPPED:
        return w->refused ? EP_REPLIED : EP_NEXT;
    case EP_BUS_MALFORMED:
        break;
    }
    return unreadable(w->s, w->c, "the message can't be read for its constitutional hash");
}

/* What is left to say when all of a request was seen. */
static enum ep_step conclude(struct ep_stream *s, const struct constitution *c, const struct state *state)
{
    if (state->withheld)
        return EP_NEXT; /* in shadow: it was counted */
    count(c, state->named ? MATCH : ABSENT);
    if (!state->named && c->strict && c->mode == EP_MODE_ENFORCE)
        return refuse(s, c, "constitution.absent", EP_STR("Constitutional hash missing"));
    return EP_NEXT;
}

/* A message of gRPC, with its prefix. */
static enum ep_step message(struct walk *w, struct ep_str text)
{
    struct state *state = w->state;

    state->named = state->in_head;
    if (text.p[0] != 0)
        return unreadable(w->s, w->c, "a compressed message can't be read for its constitutional hash");
    switch (ep_bus_proto(ep_str_n(text.p + PREFIX_BYTES, text.n - PREFIX_BYTES), each, w)) {
    case EP_BUS_OK:
        return conclude(w->s, w->c, state);
    case EP_BUS_STOPPED:
        return w->refused ? EP_REPLIED : EP_NEXT;
    case EP_BUS_MALFORMED:
        break;
    }
    return unreadable(w->s, w->c, "the message can't be read for its constitutional hash");
}

/* In base64, or as JSON: what can be read of that `agent` has read, whole. */
static bool is_recoded(struct ep_str content_type)
{
    bool text;

    ep_grpc_is_web_type(content_type, &text);
    return text || ep_grpc_is_json_type(content_type);
}

static enum ep_step inbound(struct ep_stream *s, const struct constitution *c, struct state *state)
{
    struct walk w = {s, c, state, false};

    if (c->charter)
        take_mark(s, c, &s->request.headers, s->peer_id.n > 0);
    if (!header_good(&w))
        return w.refused ? EP_REPLIED : EP_NEXT;
    state->in_head = state->named;
    if (ep_bus_is_grpc(&s->call) && is_recoded(ep_headers_get_id(&s->request.headers, EP_HDR_CONTENT_TYPE)))
        return s->call.visible == EP_VISIBLE_FULL && s->call.body.n >= PREFIX_BYTES
                   ? message(&w, s->call.body)
                   : unreadable(s, c, "the message can't be read for its constitutional hash");
    if (ep_bus_is_grpc(&s->call)) {
        state->bus = true; /* concluded message by message */
        return EP_NEXT;
    }
    if (s->call.body.n && json(&w) == EP_REPLIED)
        return EP_REPLIED;
    return conclude(s, c, state);
}

static enum ep_step request_headers(struct ep_stream *s, void *state_, bool end)
{
    const struct constitution *c = ep_filter_data(s);

    (void)end;
    if (c->mode == EP_MODE_OFF)
        return EP_NEXT;
    if (s->direction == EP_INBOUND)
        return inbound(s, c, state_);
    if (!ep_headers_find_id(&s->request.headers, EP_HDR_X_CONSTITUTIONAL_HASH)) {
        ep_headers_append(&s->request.headers, EP_HDR_X_CONSTITUTIONAL_HASH, EP_STR("x-constitutional-hash"),
                          c->hash); /* the view outlives the stream, and so does the hash */
        count(c, STAMPED);
    }
    return EP_NEXT;
}

/* --- messages of the bus over gRPC --- */

/* How long the message in front is, its prefix included; 0: not known yet. */
static size_t length_of(const struct ep_body *held)
{
    uint8_t prefix[PREFIX_BYTES];
    size_t n = 0;

    for (uint32_t i = 0; i < held->count && n < sizeof prefix; i++) {
        const struct ep_slice *one = ep_body_at((struct ep_body *)(uintptr_t)held, i);
        for (size_t k = 0; k < one->n && n < sizeof prefix; k++)
            prefix[n++] = (uint8_t)one->p[k];
    }
    if (n < sizeof prefix)
        return 0;
    return PREFIX_BYTES +
           ((size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 8 | (size_t)prefix[4]);
}

/* A message passes when it is whole and good; what came of the next one is held back. */
static enum ep_step request_body(struct ep_stream *s, void *state_, struct ep_body *b, bool end)
{
    const struct constitution *c = ep_filter_data(s);
    struct state *state = state_;
    struct walk w = {s, c, state, false};
    struct ep_slab_pool *pool = &s->worker->slabs;
    struct ep_body one;
    size_t n;

    if (EP_LIKELY(!state->bus))
        return EP_NEXT;
    if (!state->held_any)
        ep_body_init(&state->held);
    state->held_any = true;
    ep_body_move(&state->held, b, b->bytes, pool);
    ep_body_init(&one);
    while ((n = length_of(&state->held)) != 0) {
        enum ep_step step;
        if (n > s->chain->config->max_body_bytes)
            return unreadable(s, c, "the message is too large to be read for its constitutional hash") == EP_REPLIED
                       ? EP_REPLIED
                       : (ep_body_move(b, &state->held, state->held.bytes, pool), state->bus = false, EP_NEXT);
        if (state->held.bytes < n)
            break;
        ep_body_move(&one, &state->held, n, pool);
        step = message(&w, ep_body_flatten(&one, &s->arena));
        ep_body_move(b, &one, one.bytes, pool);
        if (step == EP_REPLIED) {
            ep_body_fini(b);
            return EP_REPLIED;
        }
    }
    ep_body_fini(&one);
    if (!end || state->held.bytes == 0)
        return EP_NEXT;
    if (unreadable(s, c, "the message was cut off") == EP_REPLIED)
        return EP_REPLIED;
    ep_body_move(b, &state->held, state->held.bytes, pool);
    return EP_NEXT;
}

static void finish(struct ep_stream *s, void *state_)
{
    struct state *state = state_;

    (void)s;
    if (EP_UNLIKELY(state->held_any))
        ep_body_fini(&state->held);
}

/* --- the way back --- */

static enum ep_step response_headers(struct ep_stream *s, void *state_, bool end)
{
    const struct constitution *c = ep_filter_data(s);
    const struct state *state = state_;
    struct ep_headers *h = &s->response.headers;

    (void)end;
    if (c->mode == EP_MODE_OFF)
        return EP_NEXT;
    if (s->direction == EP_OUTBOUND && c->charter && !s->local_reply)
        take_mark(s, c, h, s->upstream_peer_id.n > 0);
    else if (ep_headers_find_id(h, EP_HDR_X_EPHOR_CONSTITUTION))
        ep_headers_remove_id(h, EP_HDR_X_EPHOR_CONSTITUTION); /* an application's is nobody's word */
    if (s->direction == EP_OUTBOUND)
        return EP_NEXT;
    if (c->charter && s->peer_id.n)
        ep_headers_append(h, EP_HDR_X_EPHOR_CONSTITUTION, EP_STR("x-ephor-constitution"), c->charter->digest);
    if (!state->withheld && !ep_headers_find_id(h, EP_HDR_X_CONSTITUTIONAL_HASH))
        ep_headers_append(h, EP_HDR_X_CONSTITUTIONAL_HASH, EP_STR("x-constitutional-hash"), c->hash);
    return EP_NEXT;
}

const struct ep_filter ep_filter_constitution = {
    .name = "constitution",
    .help = "Stamps the constitution's hash on what leaves, and refuses what arrives with another.",
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .request_body = request_body,
    .response_headers = response_headers,
    .finish = finish,
};
