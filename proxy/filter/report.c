/* What a stream tells when it ends: the hop's histograms by stage, the counters, the access log.
 *
 * The series of a (route, protocol, peer) are looked up once and kept in a small cache of the chain, so a
 * request pays for its records and not for finding them. */
#include "filter/private.h"
#include "filter/span.h"
#include "filter/trace.h"

#include <stdlib.h>

enum stage { STAGE_DECODE, STAGE_FILTER, STAGE_QUEUE, STAGE_UPSTREAM, STAGE_BODY, STAGE_WRITE, STAGE_TOTAL, STAGE_SELF, STAGES };
static const char *const stage_names[STAGES] = {"decode", "filter", "queue", "upstream", "body", "write", "total", "self"};

enum code_class { CODE_NONE, CODE_1XX, CODE_2XX, CODE_3XX, CODE_4XX, CODE_5XX, CODE_RESET, CODES };
static const char *const code_names[CODES] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx", "reset"};

struct ep_series {
    const void *route;
    const char *protocol; /* compared as a pointer: protocols are constants or short-lived only in tests */
    uint64_t peer_hash;
    struct ep_histogram *stage[STAGES];
    uint64_t *code[CODES];
    struct ep_histogram *event_first, *event_gap; /* NULL: no event yet */
    uint64_t *events;
};

#define CACHE 32u

struct cache {
    struct ep_series series[CACHE];
    struct ep_histogram *filter[EP_STREAM_MAX_FILTERS];
    uint64_t *bytes_in, *bytes_out;
};

void ep_report_free(struct ep_chain *c)
{
    free(c->series_cache);
    c->series_cache = NULL;
}

struct ep_str ep_stream_peer_label(struct ep_stream *s)
{
    struct ep_str id = s->peer_id, rest = id, part, ns = {NULL, 0}, sa = {NULL, 0};
    bool want_ns = false, want_sa = false;

    if (!id.n)
        return EP_STR("unknown");
    while (ep_str_next(&rest, '/', &part)) {
        if (want_ns)
            ns = part;
        else if (want_sa)
            sa = part;
        want_ns = ep_str_eq(part, EP_STR("ns"));
        want_sa = ep_str_eq(part, EP_STR("sa"));
    }
    return ns.n && sa.n ? ep_arena_printf(&s->arena, "%.*s/%.*s", EP_STR_ARG(ns), EP_STR_ARG(sa)) : id;
}

static struct ep_str or_unknown(struct ep_str s)
{
    return s.n ? s : EP_STR("unknown");
}

static struct cache *cache_of(struct ep_stream *s)
{
    struct ep_chain *c = s->chain;
    struct cache *cache = c->series_cache;
    struct ep_stats *stats = s->worker->stats;

    if (cache)
        return cache;
    cache = c->series_cache = ep_calloc(1, sizeof *cache);
    for (unsigned i = 0; i < c->n_filters; i++)
        cache->filter[i] = ep_stats_histogram(stats, EP_METRIC_FILTER_DURATION,
                                              EP_LABELS(s->listener->name, ep_str(c->filters[i].filter->name)));
    cache->bytes_in = ep_stats_cell(stats, EP_METRIC_BYTES, EP_LABELS(s->listener->name, EP_STR("in")));
    cache->bytes_out = ep_stats_cell(stats, EP_METRIC_BYTES, EP_LABELS(s->listener->name, EP_STR("out")));
    return cache;
}

static struct ep_series *series_of(struct ep_stream *s, struct cache *cache)
{
    struct ep_stats *stats = s->worker->stats;
    struct ep_str protocol = s->call.protocol.n ? s->call.protocol : EP_STR("http");
    uint64_t peer = s->peer_id.n ? ep_hash(s->peer_id.p, s->peer_id.n) : 0;
    uint64_t mix = ((uintptr_t)s->route >> 4) ^ ((uintptr_t)protocol.p >> 3) ^ peer;
    struct ep_series *x = &cache->series[(mix ^ (mix >> 7)) % CACHE];
    struct ep_str direction, source, destination, cluster;

    if (x->stage[0] && x->route == s->route && x->protocol == protocol.p && x->peer_hash == peer)
        return x;
    x->event_first = NULL;
    x->route = s->route;
    x->protocol = protocol.p;
    x->peer_hash = peer;
    cluster = s->route ? s->route->config->cluster : EP_STR("none");
    if (s->direction == EP_INBOUND) {
        direction = EP_STR("inbound");
        source = ep_stream_peer_label(s);
        destination = s->view->service.n ? s->view->service : cluster;
    } else {
        direction = EP_STR("outbound");
        source = or_unknown(s->view->service);
        destination = cluster;
    }
    for (int i = 0; i < STAGES; i++)
        x->stage[i] = ep_stats_histogram(stats, EP_METRIC_HOP_DURATION,
                                         EP_LABELS(direction, source, destination, protocol, ep_str(stage_names[i])));
    for (int i = 0; i < CODES; i++)
        x->code[i] = ep_stats_cell(stats, EP_METRIC_REQUESTS,
                                   EP_LABELS(direction, s->listener->name, cluster, protocol, ep_str(code_names[i])));
    return x;
}

/* A refusal counts by its own status: agent protocols say no under a 200. */
static enum code_class class_of(const struct ep_stream *s)
{
    unsigned status = s->denied_status && s->local_reply ? s->denied_status : s->status;

    if (!s->status)
        return s->down_over ? CODE_RESET : CODE_NONE;
    if (s->down_over && !s->response_sent)
        return CODE_RESET;
    if (status < 200)
        return CODE_1XX;
    return status >= 600 ? CODE_NONE : (enum code_class)(CODE_1XX + status / 100 - 1);
}

static uint64_t span(uint64_t from, uint64_t to)
{
    return from && to > from ? to - from : 0;
}

struct spans {
    uint64_t v[STAGES];
};

/* total is cut without a gap: decode, filter, queue, upstream, body, write. What the peers took of it is upstream
 * and the two bodies' time; the rest is self. */
static struct spans spans_of(const struct ep_stream *s)
{
    const struct ep_timeline *t = &s->time;
    struct spans x = {{0}};
    uint64_t peers;

    x.v[STAGE_DECODE] = span(t->accepted, t->headers);
    x.v[STAGE_FILTER] = t->filter_ns;
    x.v[STAGE_QUEUE] = span(t->chain_done, t->upstream_acquired);
    x.v[STAGE_UPSTREAM] = span(t->upstream_sent ? t->upstream_sent : t->upstream_acquired, t->first_byte);
    x.v[STAGE_BODY] = span(t->first_byte, t->response_end);
    x.v[STAGE_WRITE] = span(t->response_end, t->flushed);
    x.v[STAGE_TOTAL] = span(t->accepted, t->flushed);
    peers = x.v[STAGE_UPSTREAM] + x.v[STAGE_BODY] + (s->request.bytes ? span(t->headers, t->body_end) : 0);
    x.v[STAGE_SELF] = x.v[STAGE_TOTAL] > peers ? x.v[STAGE_TOTAL] - peers : 0;
    return x;
}

static void access_log(struct ep_stream *s, const struct spans *x)
{
    struct ep_access_record r = {
        .wall_ns = ep_clock_wall_ns(),
        .listener = s->listener->name,
        .direction = s->direction == EP_INBOUND ? EP_STR("inbound") : EP_STR("outbound"),
        .protocol = s->call.protocol,
        .version = s->down->version == EP_HTTP_2     ? EP_STR("h2")
                   : s->down->version == EP_HTTP_TCP ? EP_STR("tcp")
                                                     : EP_STR("http/1.1"),
        .method = ep_stream_method(s),
        .authority = ep_stream_authority(s),
        .path = ep_stream_path(s),
        .route = s->route ? s->route->name : (struct ep_str){NULL, 0},
        .cluster = s->route ? s->route->config->cluster : (struct ep_str){NULL, 0},
        .endpoint = s->endpoint,
        .peer_id = s->peer_id,
        .upstream_peer_id = s->upstream_peer_id,
        .call_method = s->call.method,
        .tool = s->call.tool,
        .model = s->call.model,
        .tenant = s->call.tenant,
        .request_id = s->request_id,
        .trace_id = ep_stream_trace(s),
        .decision_id = s->decision_id,
        .denied_by = s->denied_by,
        .code = s->denied_code,
        .user_agent = ep_headers_get_id(&s->request.headers, EP_HDR_USER_AGENT),
        .flag = s->response_flag,
        .status = s->status,
        .attempts = s->attempts,
        .grpc_status = s->grpc_status,
        .bytes_in = s->request.bytes,
        .bytes_out = s->response.bytes,
        .total_ns = x->v[STAGE_TOTAL],
        .self_ns = x->v[STAGE_SELF],
        .filter_ns = x->v[STAGE_FILTER],
        .queue_ns = x->v[STAGE_QUEUE],
        .upstream_ns = x->v[STAGE_UPSTREAM],
    };
    char peer[128];

    if (s->usage && s->usage->answered) {
        r.metered = true;
        r.tokens_input = s->usage->input;
        r.tokens_output = s->usage->output;
        r.tokens_estimated = !s->usage->input_known || !s->usage->output_known;
        r.priced = s->usage->priced;
        r.cost_nano = s->usage->cost_nano;
    }
    if (s->down->conn)
        r.downstream = ep_str_n(peer, (size_t)ep_addr_format(&s->down->conn->peer, peer));
    ep_access_log_record(s->worker->access_log, &r);
}

void ep_report_stream(struct ep_stream *s)
{
    struct cache *cache = cache_of(s);
    struct ep_series *series = series_of(s, cache);
    struct spans x = spans_of(s);

    for (int i = 0; i < STAGES; i++)
        ep_histogram_record(series->stage[i], x.v[i]);
    ep_cell_add(series->code[class_of(s)], 1);
    if (s->request.bytes)
        ep_cell_add(cache->bytes_in, s->request.bytes);
    if (s->response.bytes)
        ep_cell_add(cache->bytes_out, s->response.bytes);
    for (unsigned i = 0; s->timed && i < s->chain->n_filters; i++)
        if (s->filter_ns[i])
            ep_histogram_record(cache->filter[i], s->filter_ns[i]);
    if (s->worker->access_log && ep_access_log_wants(s->worker->access_log, s->refused || s->response_flag || s->status >= 500,
                                                     &s->worker->rng))
        access_log(s, &x);
    if (EP_UNLIKELY(s->worker->spans != NULL))
        ep_span_record(s, &(struct ep_span_times){.self = x.v[STAGE_SELF],
                                                  .filter = x.v[STAGE_FILTER],
                                                  .queue = x.v[STAGE_QUEUE],
                                                  .upstream = x.v[STAGE_UPSTREAM]});
}

void ep_stream_events_passed(struct ep_stream *s, unsigned n)
{
    struct ep_stats *stats = s->worker->stats;
    uint64_t now = s->worker->now_ns;
    struct ep_series *x;

    if (!stats)
        return;
    x = series_of(s, cache_of(s));
    if (!x->event_first) {
        const struct ep_str *labels = EP_LABELS(s->direction == EP_INBOUND ? EP_STR("inbound") : EP_STR("outbound"),
                                                s->route ? s->route->config->cluster : EP_STR("none"),
                                                s->call.protocol.n ? s->call.protocol : EP_STR("http"));
        x->event_gap = ep_stats_histogram(stats, EP_METRIC_EVENT_GAP, labels);
        x->events = ep_stats_cell(stats, EP_METRIC_EVENTS, labels);
        x->event_first = ep_stats_histogram(stats, EP_METRIC_EVENT_FIRST, labels);
    }
    ep_cell_add(x->events, n);
    if (!s->event_ns) {
        ep_histogram_record(x->event_first, now - s->time.accepted);
        n--;
    } else {
        ep_histogram_record(x->event_gap, now - s->event_ns);
        n--;
    }
    for (; n; n--) /* those that came with it */
        ep_histogram_record(x->event_gap, 0);
    s->event_ns = now;
}

void ep_report_refusal(struct ep_stream *s, const struct ep_refusal *r)
{
    ep_stats_add(s->worker->stats, EP_METRIC_REFUSALS, EP_LABELS(s->listener->name, ep_str(r->code), or_unknown(r->policy)), 1);
    ep_debug("stream", "refused by %.*s: %s: %.*s", EP_STR_ARG(r->policy), r->code, EP_STR_ARG(r->reason));
}
