/* The filter `ratelimit`: how often, how much.
 *
 * Each call takes from the bucket of its key under each limit that matches it; what is taken together is taken all or
 * not at all. Buckets are the process's (filter/limiter.h), so a limit holds over all workers. What a limit is, name
 * and all, is part of the keys: a reload that doesn't change it finds its buckets as they were, one that does begins
 * with full ones.
 *
 * Bytes, tokens and money are known at the end only: a request takes what it may need at most, as far as it says, and
 * at its end the rest is put back, or what was more is owed. */
#include "ratelimit/ratelimit.h"

#include <stdlib.h>

#include "filter/chain.h"
#include "filter/decision.h"
#include "meter/meter.h"
#include "observe/observe.h"

#define UNPRICED UINT64_MAX
#define NO_PRICE (EP_LIMIT_FULL + 1) /* beside enum ep_limit_result: a reason to say no */

enum decision { ALLOW, DENY, SHADOW_DENY, DECISIONS };

struct limit {
    const struct ep_ratelimit_limit *c;
    enum ep_mode mode;
    uint64_t base;              /* of its keys */
    uint64_t *cells[DECISIONS]; /* ephor_ratelimit_total */
};

struct ratelimit {
    struct limit *limits;
    unsigned n;
    struct ep_limiter *table;
    uint64_t *refused_full; /* ephor_ratelimit_full_total */
};

struct taken {
    const struct limit *limit;
    uint64_t key, n;
    struct ep_limit_state state;
};

struct state {
    struct taken *v; /* in the order of the limits */
    unsigned n;
};

/* --- loading --- */

static bool stands_behind(const struct ep_filter_instance *i, const char *name)
{
    for (unsigned k = 0; k < i->index; k++)
        if (strcmp(i->chain->filters[k].filter->name, name) == 0)
            return true;
    return false;
}

static uint64_t mix_globs(const struct ep_limiter *t, uint64_t key, const struct ep_vec *globs)
{
    const struct ep_str *g = globs->v;

    for (size_t i = 0; i < globs->n; i++)
        key = ep_limiter_key(t, key, g[i]);
    return ep_limiter_key(t, key, EP_STR(""));
}

/* All that makes it this limit. */
static uint64_t base_of(const struct ep_limiter *t, const struct ep_ratelimit_limit *c, struct ep_str listener)
{
    const struct ep_ratelimit_match *m = &c->match;
    const struct ep_vec *globs[] = {&m->principals, &m->tenants, &m->agents, &m->protocols, &m->methods,
                                    &m->tools,      &m->models,  &m->hosts,  &m->paths};
    uint64_t key = ep_limiter_key(t, 0, c->scope == EP_RATELIMIT_POD ? EP_STR("") : listener);

    key = ep_limiter_key(t, key, c->name);
    key = ep_limiter_key(t, key, ep_str(ep_ratelimit_kind_names[c->kind]));
    key = ep_limiter_key(t, key, ep_str_n(&c->rate, sizeof c->rate));
    key = mix_globs(t, key, &c->key);
    for (size_t i = 0; i < EP_COUNT(globs); i++)
        key = mix_globs(t, key, globs[i]);
    return key;
}

static void load_limit(struct ep_filter_instance *i, struct limit *l, const struct ep_ratelimit_limit *c)
{
    static const char *const decisions[DECISIONS] = {"allow", "deny", "shadow_deny"};
    const struct ep_ratelimit_config *all = i->config;
    struct ep_str listener = i->chain->config->name;

    *l = (struct limit){
        .c = c, .mode = (enum ep_mode)EP_MAX(all->mode, c->mode), .base = base_of(i->worker->limiter, c, listener)};
    for (unsigned d = 0; d < DECISIONS; d++)
        l->cells[d] =
            ep_stats_cell(i->worker->stats, EP_METRIC_RATELIMIT, EP_LABELS(listener, c->name, ep_str(decisions[d])));
}

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    const struct ep_ratelimit_config *config = i->config;
    const struct ep_meter_config *meter = ep_meter_config_of(i->chain->config);
    const struct ep_ratelimit_limit *c = config->limits.v;
    struct ratelimit *r;

    for (size_t k = 0; k < config->limits.n; k++) {
        if (c[k].needs_call && !stands_behind(i, "agent"))
            return ep_error_set(err, "limit %.*s is about the call: put the filter 'agent' in front",
                                EP_STR_ARG(c[k].name));
        if (c[k].needs_identity && !stands_behind(i, "identity"))
            return ep_error_set(err, "limit %.*s is about the caller: put the filter 'identity' in front",
                                EP_STR_ARG(c[k].name));
        if (c[k].kind >= EP_RATELIMIT_TOKENS && !meter)
            return ep_error_set(err, "limit %.*s needs the filter 'meter', which reads what was used",
                                EP_STR_ARG(c[k].name));
        if (c[k].kind == EP_RATELIMIT_COST && !meter->prices.n)
            return ep_error_set(err, "limit %.*s needs a price list: give the filter 'meter' its prices",
                                EP_STR_ARG(c[k].name));
    }
    r = i->data = ep_calloc(1, sizeof *r);
    r->table = i->worker->limiter;
    r->limits = ep_calloc(config->limits.n, sizeof *r->limits);
    for (size_t k = 0; k < config->limits.n; k++)
        if (EP_MAX(config->mode, c[k].mode) != EP_MODE_OFF)
            load_limit(i, &r->limits[r->n++], &c[k]);
    r->refused_full = ep_stats_cell(i->worker->stats, EP_METRIC_RATELIMIT_FULL, EP_LABELS(i->chain->config->name));
    return true;
}

static void unload(struct ep_filter_instance *i)
{
    struct ratelimit *r = i->data;

    if (r)
        free(r->limits);
    free(r);
}

/* --- refusing --- */

static struct ep_str reason_of(struct ep_arena *arena, const struct ep_ratelimit_limit *c, unsigned why)
{
    static const char *const units[EP_RATELIMIT_KINDS] = {" requests", " of body", " tokens", " in money"};
    struct ep_str amount = c->rates[c->kind];
    char per[32];

    if (why == EP_LIMIT_FULL)
        return EP_STR("too many callers at once are under limits");
    if (why == NO_PRICE)
        return EP_STR("the model has no price");
    amount.n = (size_t)EP_MAX(ep_str_find(amount, '/', 0), 0);
    amount = ep_str_trim(amount);
    ep_format_duration(c->rate.per_ns, per);
    return ep_arena_printf(arena, "%s %.*s%s in %s",
                           why == EP_LIMIT_NEVER ? "it alone may take more than" : "more than", EP_STR_ARG(amount),
                           units[c->kind], per);
}

/* The step's answer when a limit says no. */
static enum ep_step say_no(struct ep_stream *s, const struct limit *l, const struct ep_call *call, unsigned why,
                           const struct ep_limit_state *state)
{
    static const char *const codes[] = {[EP_LIMIT_EMPTY] = "ratelimit.exceeded",
                                        [EP_LIMIT_NEVER] = "ratelimit.too_large",
                                        [EP_LIMIT_FULL] = "ratelimit.full",
                                        [NO_PRICE] = "ratelimit.unpriced"};
    const struct ep_ratelimit_config *config = ep_filter_config(s);
    struct ratelimit *r = ep_filter_data(s);
    struct ep_str reason = reason_of(&s->arena, l->c, why);
    struct ep_refusal refusal = {.kind = EP_REFUSE_LIMIT,
                                 .policy = l->c->name,
                                 .reason = reason,
                                 .code = codes[why],
                                 .status = l->c->status == 429 ? 0 : (unsigned)l->c->status,
                                 .grpc_status = -1,
                                 .call = call,
                                 .retry_after_s = (uint32_t)EP_MIN((state->wait_ns + EP_S - 1) / EP_S, UINT32_MAX)};

    if (why == EP_LIMIT_FULL)
        ep_cell_add(r->refused_full, 1);
    if (l->mode == EP_MODE_SHADOW) {
        ep_cell_add(l->cells[SHADOW_DENY], 1);
        return ep_stream_audit(s, &(struct ep_decision){.decision = "shadow_deny",
                                                        .policy = l->c->name,
                                                        .reason = reason,
                                                        .code = codes[why],
                                                        .call = call})
                   ? EP_NEXT
                   : EP_REPLIED;
    }
    ep_cell_add(l->cells[DENY], 1);
    if (config->headers != EP_RATELIMIT_NO_HEADERS && why < EP_LIMIT_FULL) {
        ep_ratelimit_state_item(&s->arena, l->c, state, &refusal.limit);
        ep_ratelimit_policy_item(&s->arena, l->c, &refusal.limit_policy);
    }
    ep_stream_refuse(s, &refusal);
    return EP_REPLIED;
}

/* --- taking --- */

/* What a call may take at most. False: under this kind of limit it takes nothing. */
static bool amount_of(struct ep_stream *s, const struct limit *l, const struct ep_call *c, uint64_t *n)
{
    const struct ep_ratelimit_config *config = ep_filter_config(s);
    const struct ep_price *price;
    struct ep_usage most;

    *n = 1;
    if (l->c->kind == EP_RATELIMIT_REQUESTS)
        return true;
    if (l->c->kind == EP_RATELIMIT_BYTES) {
        if (!ep_str_u64(ep_headers_get_id(&s->request.headers, EP_HDR_CONTENT_LENGTH), n))
            *n = 1;
        *n = EP_MAX(*n, 1u);
        return true;
    }
    if (!ep_call_uses_tokens(c))
        return false;
    most =
        (struct ep_usage){.input = ep_estimate_input(s, c), .output = ep_estimate_output(c, (uint64_t)config->reserve)};
    *n = most.input + most.output;
    if (l->c->kind == EP_RATELIMIT_COST) {
        price = ep_price_of(ep_meter_config_of(s->chain->config), c->model);
        *n = price ? EP_MAX(ep_price_cost(price, &most), 1u) : UNPRICED;
    }
    return true;
}

static void give_back(struct ratelimit *r, struct state *state, uint64_t now)
{
    for (unsigned i = 0; i < state->n; i++) {
        struct taken *t = &state->v[i];
        ep_limiter_settle(r->table, t->key, &t->limit->c->rate, t->n, 0, now);
    }
    state->n = 0;
}

/* EP_NEXT: taken, or this limit lets it pass. */
static enum ep_step take(struct ep_stream *s, struct state *state, const struct limit *l, const struct ep_call *call)
{
    struct ratelimit *r = ep_filter_data(s);
    struct taken *t = &state->v[state->n];
    enum ep_limit_result result;

    *t = (struct taken){.limit = l};
    if (!amount_of(s, l, call, &t->n) || !ep_ratelimit_key(r->table, l->base, l->c, s, call, &t->key))
        return EP_NEXT;
    if (EP_UNLIKELY(t->n == UNPRICED))
        return say_no(s, l, call, NO_PRICE, &t->state);
    result = ep_limiter_take(r->table, t->key, &l->c->rate, t->n, s->worker->now_ns, &t->state);
    if (EP_LIKELY(result == EP_LIMIT_TAKEN)) {
        state->n++;
        return EP_NEXT;
    }
    return say_no(s, l, call, result, &t->state);
}

/* Whether the limit takes once of a request, however many calls are in it. */
static bool once(const struct limit *l)
{
    return l->c->kind == EP_RATELIMIT_BYTES;
}

static unsigned count_calls(const struct ep_stream *s)
{
    unsigned n = 0;

    for (const struct ep_call *c = &s->call; c; c = c->next)
        n++;
    return n;
}

static enum ep_step request_headers(struct ep_stream *s, void *state_, bool end)
{
    struct ratelimit *r = ep_filter_data(s);
    struct state *state = state_;

    (void)end;
    state->v = ep_arena_alloc(&s->arena, ((size_t)r->n * count_calls(s) + 1) * sizeof *state->v);
    for (unsigned i = 0; i < r->n; i++) {
        const struct limit *l = &r->limits[i];
        for (const struct ep_call *c = &s->call; c; c = c->next) {
            if (!ep_ratelimit_matches(l->c, s, c))
                continue;
            if (EP_UNLIKELY(take(s, state, l, c) != EP_NEXT)) {
                give_back(r, state, s->worker->now_ns);
                return EP_REPLIED;
            }
            if (once(l))
                break;
        }
    }
    for (unsigned i = 0; i < state->n; i++)
        ep_cell_add(state->v[i].limit->cells[ALLOW], 1);
    return EP_NEXT;
}

/* --- the answer --- */

static enum ep_step response_headers(struct ep_stream *s, void *state_, bool end)
{
    const struct ep_ratelimit_config *config = ep_filter_config(s);
    const struct state *state = state_;
    struct ep_str limit = {NULL, 0}, policy = {NULL, 0};

    (void)end;
    if (config->headers != EP_RATELIMIT_ALWAYS)
        return EP_NEXT;
    for (unsigned i = 0; i < state->n; i++) {
        const struct taken *t = &state->v[i];
        if (i + 1 < state->n && state->v[i + 1].limit == t->limit)
            continue; /* of a batch the last call knows what is left */
        ep_ratelimit_state_item(&s->arena, t->limit->c, &t->state, &limit);
        ep_ratelimit_policy_item(&s->arena, t->limit->c, &policy);
    }
    if (limit.n) {
        ep_headers_add(&s->response.headers, EP_STR("ratelimit"), limit);
        ep_headers_add(&s->response.headers, EP_STR("ratelimit-policy"), policy);
    }
    return EP_NEXT;
}

/* What it was in the end. A call whose answer doesn't say, or broke off, keeps what it took, or what was seen of it if
 * that is more; one that no model has answered gives it back. */
static uint64_t used(struct ep_stream *s, const struct taken *t)
{
    const struct ep_usage *u;
    uint64_t seen;

    if (t->limit->c->kind == EP_RATELIMIT_BYTES)
        return s->request.bytes + s->response.bytes;
    u = ep_meter_usage(s);
    if (!u || !u->answered) {
        bool failed = s->status != 0 && !s->local_reply; /* the provider says that it did nothing */
        return s->time.upstream_sent && !failed ? t->n : 0;
    }
    seen = t->limit->c->kind == EP_RATELIMIT_COST ? u->cost_nano : u->input + u->output;
    if (u->whole && ((u->input_known && u->output_known) || (u->readable && u->output)))
        return seen;
    return EP_MAX(seen, t->n);
}

static void finish(struct ep_stream *s, void *state_)
{
    struct ratelimit *r = ep_filter_data(s);
    struct state *state = state_;

    for (unsigned i = 0; i < state->n; i++) {
        const struct taken *t = &state->v[i];
        if (t->limit->c->kind != EP_RATELIMIT_REQUESTS)
            ep_limiter_settle(r->table, t->key, &t->limit->c->rate, t->n, used(s, t), s->worker->now_ns);
    }
}

const struct ep_filter ep_filter_ratelimit = {
    .name = "ratelimit",
    .help = "How many calls, bytes and tokens, and how much money, by caller, tool, model and more; one limit over all "
            "workers.",
    .schema = &ep_ratelimit_schema,
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .response_headers = response_headers,
    .finish = finish,
};
