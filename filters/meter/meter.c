/* The filter `meter`: what agents use. Tokens of language models and their cost, calls of tools, by who asks.
 *
 * It stands last, right in front of the router, so it sees answers as they come from the provider, and looks at them as
 * they pass: nothing is changed, held back or asked for. What an answer doesn't say is estimated, and counted as an
 * estimate. */
#include "meter/meter.h"

#include <stdlib.h>

#include "filter/chain.h"
#include "observe/observe.h"

/* The counters of the tools that were called of late, so that they aren't looked for each time. */
#define TOOL_LABELS  5u
#define RECENT       32u
#define RECENT_BYTES 160u

struct meter {
    struct recent {
        uint64_t *cell; /* NULL: none */
        unsigned n;
        char key[RECENT_BYTES];
    } recent[RECENT];
};

struct state {
    struct ep_usage_reader *reader; /* NULL: nothing to read */
    bool read;                      /* the end of the answer was seen */
};

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    (void)err;
    i->data = ep_calloc(1, sizeof(struct meter));
    return true;
}

static void unload(struct ep_filter_instance *i)
{
    free(i->data);
}

static enum ep_step request_headers(struct ep_stream *s, void *state, bool end)
{
    (void)state, (void)end;
    if (EP_UNLIKELY(ep_call_uses_tokens(&s->call)))
        s->usage = EP_ARENA_NEW(&s->arena, struct ep_usage);
    return EP_NEXT;
}

/* --- the answer --- */

static bool form_of(const struct ep_stream *s, enum ep_usage_form *form, struct ep_codings *codings)
{
    const struct ep_headers *h = &s->response.headers;
    struct ep_str type = ep_media_type(ep_headers_get_id(h, EP_HDR_CONTENT_TYPE));

    for (uint32_t i = 0; i < h->n; i++)
        if (h->v[i].id == EP_HDR_CONTENT_ENCODING && !ep_codings_add(codings, h->v[i].value))
            return false;
    *form = ep_str_caseeq(type, EP_STR("text/event-stream")) ? EP_USAGE_EVENTS : EP_USAGE_JSON;
    return *form == EP_USAGE_EVENTS || ep_str_caseeq(type, EP_STR("application/json")) ||
           (type.n > 5 && ep_str_caseeq(ep_str_n(type.p + type.n - 5, 5), EP_STR("+json")));
}

static void whole(struct ep_stream *s, struct state *state)
{
    if (!state->reader || state->read)
        return;
    state->read = true;
    ep_usage_end(state->reader);
    s->usage->whole = ep_usage_is_whole(state->reader);
    if (!s->usage->whole && !s->response_flag)
        s->response_flag = "SE"; /* the stream ended where its API doesn't end one */
}

static enum ep_step response_headers(struct ep_stream *s, void *state_, bool end)
{
    struct ep_codings codings = {0};
    struct state *state = state_;
    enum ep_usage_form form = EP_USAGE_JSON;

    if (EP_LIKELY(!s->usage) || s->local_reply || s->status < 200 || s->status >= 300) {
        ep_stream_leave_response_body(s);
        return EP_NEXT;
    }
    s->usage->answered = true;
    s->usage->whole = end;
    s->usage->readable = form_of(s, &form, &codings);
    if (!s->usage->readable || end)
        return EP_NEXT;
    state->reader = ep_arena_alloc(&s->arena, sizeof *state->reader);
    ep_usage_reader_init(state->reader, s->usage, ep_str_eq(s->call.protocol, EP_STR("anthropic")), form, &codings,
                         &s->worker->slabs);
    return EP_NEXT;
}

static enum ep_step response_body(struct ep_stream *s, void *state_, struct ep_body *b, bool end)
{
    struct state *state = state_;

    if (!state->reader)
        return EP_NEXT;
    for (uint32_t i = 0; i < b->count; i++)
        ep_usage_read(state->reader, *ep_body_at(b, i));
    if (end)
        whole(s, state);
    return EP_NEXT;
}

static enum ep_step response_trailers(struct ep_stream *s, void *state)
{
    whole(s, state);
    return EP_NEXT;
}

/* --- counting --- */

const struct ep_usage *ep_meter_usage(struct ep_stream *s)
{
    struct ep_usage *u = s->usage;
    const struct ep_price *price;

    if (!u || !u->answered)
        return u;
    if (!u->input_known)
        u->input = ep_estimate_input(s, &s->call);
    price = ep_price_of(ep_meter_config_of(s->chain->config), s->call.model);
    u->priced = price != NULL;
    u->cost_nano = price ? ep_price_cost(price, u) : 0;
    return u;
}

static struct ep_str or_unknown(struct ep_str s)
{
    return s.n ? s : EP_STR("unknown");
}

/* Messages that are answered later, somewhere else: what they use can't be seen here. */
static bool is_batch(const struct ep_stream *s)
{
    return ep_str_eq(s->call.method, EP_STR("messages/batches"));
}

static const char *known(const struct ep_stream *s)
{
    const struct ep_usage *u = s->usage;

    return !u->answered                        ? "none"
           : is_batch(s)                       ? "batch"
           : !u->whole                         ? "broken"
           : u->input_known && u->output_known ? "reported"
           : !u->readable                      ? "unreadable"
                                               : "estimated";
}

static void count_usage(struct ep_stream *s, struct ep_str agent)
{
    const struct ep_meter_config *config = ep_meter_config_of(s->chain->config);
    const struct ep_usage *u = ep_meter_usage(s);
    struct ep_stats *stats = s->worker->stats;
    struct ep_str tenant = or_unknown(s->call.tenant), model = or_unknown(s->call.model);
    bool reported = u->input_known && u->output_known;
    const struct {
        const char *kind;
        uint64_t n;
    } tokens[] = {
        {u->input_known ? "input" : "input_estimated", u->input},
        {u->output_known ? "output" : "output_estimated", u->output},
        {"cached", u->cached},
        {"cache_write", u->cache_write},
        {"reasoning", u->reasoning},
    };

    ep_stats_add(stats, EP_METRIC_LLM_CALLS, EP_LABELS(tenant, agent, model, ep_str(known(s))), 1);
    if (!u->answered || is_batch(s))
        return;
    for (size_t i = 0; i < EP_COUNT(tokens); i++)
        if (tokens[i].n)
            ep_stats_add(stats, EP_METRIC_LLM_TOKENS, EP_LABELS(tenant, agent, model, ep_str(tokens[i].kind)),
                         tokens[i].n);
    if (!config || !config->prices.n)
        return;
    if (u->priced)
        ep_stats_add(stats, EP_METRIC_LLM_COST,
                     EP_LABELS(tenant, agent, model, reported ? EP_STR("reported") : EP_STR("estimated")),
                     u->cost_nano);
    else
        ep_stats_add(stats, EP_METRIC_LLM_UNPRICED, EP_LABELS(model), 1);
}

/* What is called by name: MCP's tools, A2A's skills; of gRPC the path, which is service and method. */
static struct ep_str name_of(struct ep_stream *s, const struct ep_call *c)
{
    struct ep_str path;

    if (c->tool.n || !ep_str_eq(c->protocol, EP_STR("grpc")))
        return c->tool;
    path = ep_stream_path(s);
    return path.n > 1 ? ep_str_n(path.p + 1, path.n - 1) : path;
}

static struct ep_str result_of(const struct ep_stream *s)
{
    if (s->refused) /* by a rule, or since the upstream failed */
        return ep_str_starts(s->denied_code, EP_STR("upstream.")) ? EP_STR("failed") : EP_STR("refused");
    return s->status >= 200 && s->status < 400 && s->grpc_status <= 0 ? EP_STR("ok") : EP_STR("failed");
}

/* ep_stats_add for EP_METRIC_TOOL_CALLS. */
static void count_tool(struct ep_stream *s, const struct ep_str *labels)
{
    struct meter *meter = ep_filter_data(s);
    struct recent *r;
    char key[RECENT_BYTES];
    unsigned n = 0, slot = 0;

    for (size_t i = 0; i < TOOL_LABELS; i++) {
        if (labels[i].n + 1 > RECENT_BYTES - n) {
            ep_stats_add(s->worker->stats, EP_METRIC_TOOL_CALLS, labels, 1);
            return;
        }
        memcpy(key + n, labels[i].p, labels[i].n);
        n += (unsigned)labels[i].n;
        key[n++] = (char)labels[i].n; /* where it ends */
        slot = slot * 31 + (unsigned)labels[i].n + (labels[i].n ? (unsigned char)labels[i].p[0] : 0);
    }
    r = &meter->recent[slot % RECENT];
    if (!r->cell || r->n != n || memcmp(r->key, key, n) != 0) {
        r->cell = ep_stats_cell(s->worker->stats, EP_METRIC_TOOL_CALLS, labels);
        memcpy(r->key, key, n);
        r->n = n;
    }
    ep_cell_add(r->cell, 1);
}

static void finish(struct ep_stream *s, void *state_)
{
    struct state *state = state_;
    struct ep_str agent = {NULL, 0}, name;

    if (state->reader) {
        ep_usage_reader_fini(state->reader);
        state->reader = NULL;
    }
    for (const struct ep_call *c = &s->call; c; c = c->next) {
        name = name_of(s, c);
        if (!name.n && !s->usage)
            continue;
        if (!agent.n)
            agent = s->direction == EP_INBOUND ? ep_stream_peer_label(s) : or_unknown(s->view->service);
        if (name.n)
            count_tool(s, EP_LABELS(or_unknown(c->tenant), agent, c->protocol, name, result_of(s)));
    }
    if (s->usage)
        count_usage(s, agent);
}

const struct ep_filter ep_filter_meter = {
    .name = "meter",
    .help = "Counts what agents use: tokens of language models and their cost, calls of tools.",
    .schema = &ep_meter_schema,
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .response_headers = response_headers,
    .response_body = response_body,
    .response_trailers = response_trailers,
    .finish = finish,
};
