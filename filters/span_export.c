/* The exporter: span_export.h has the design. Everything happens in the worker's own thread, between its requests. */
#include "span_export.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "filter/chain.h"
#include "filter/span.h"
#include "filter/trace.h"
#include "http_call.h"
#include "observe/observe.h"

#define SOON_NS      EP_S        /* a batch that isn't full waits so long */
#define ANSWER_NS    (10 * EP_S) /* for the collector's answer; OTLP's default */
#define BACKOFF_NS   EP_S
#define BACKOFF_MAX  (30 * EP_S)
#define RETRY_MAX_NS (300 * EP_S) /* the longest Retry-After that is believed */
#define FLUSH_NS     (2 * EP_S)

enum result { EXPORTED, REJECTED, REFUSED, DROPPED, RESULTS };
static const char *const result_names[RESULTS] = {"exported", "rejected", "refused", "dropped"};

struct ep_span_export {
    struct ep_span_queue queue; /* the worker's `spans` while there is a collector */
    struct ep_worker *worker;
    struct ep_span_batch batch; /* under way, or waiting to be tried again; n 0: none */
    struct ep_http_call *call;
    struct ep_timer timer;
    uint64_t backoff_ns;        /* 0: the last try was answered */
    uint64_t flush_by_ns;       /* 0: no flush was asked for */
    uint64_t *cell[RESULTS];
    bool failing;               /* said so in the log */
};

static void count(struct ep_span_export *e, enum result r, uint64_t n)
{
    if (!e->cell[r])
        e->cell[r] = ep_stats_cell(e->worker->stats, EP_METRIC_SPANS, EP_LABELS(ep_str(result_names[r])));
    ep_cell_add(e->cell[r], n);
}

static void forget(struct ep_span_export *e, enum result r)
{
    count(e, r, e->batch.n);
    ep_span_batch_free(&e->batch);
}

static void failed(struct ep_span_export *e, struct ep_str why)
{
    if (e->failing)
        return;
    e->failing = true;
    ep_warn("tracing", "worker %u: %.*s takes no spans: %.*s; the newest are kept for it", e->worker->index,
            EP_STR_ARG(e->worker->view->tracing->otlp), EP_STR_ARG(why));
}

/* --- the answer --- */

/* Seconds or a date (RFC 9110 section 10.2.3), nanoseconds from now; 0: there is none that can be read. */
static uint64_t retry_after(const struct ep_headers *h)
{
    struct ep_str value = ep_headers_get_id(h, EP_HDR_RETRY_AFTER);
    struct tm tm = {0};
    char text[64];
    uint64_t n;
    time_t when, now = (time_t)(ep_clock_wall_ns() / EP_S);

    if (ep_str_u64(value, &n))
        return EP_MIN(n, RETRY_MAX_NS / EP_S) * EP_S;
    if (value.n == 0 || value.n >= sizeof text)
        return 0;
    memcpy(text, value.p, value.n);
    text[value.n] = 0;
    if (!strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
        return 0;
    when = timegm(&tm);
    return when > now ? EP_MIN((uint64_t)(when - now), RETRY_MAX_NS / EP_S) * EP_S : 0;
}

static bool may_retry(unsigned status)
{
    return status == 429 || status == 502 || status == 503 || status == 504;
}

static void taken(struct ep_span_export *e, struct ep_str body)
{
    struct ep_str why;
    uint64_t rejected = EP_MIN(ep_otlp_rejected(body, &why), e->batch.n);

    if (rejected) {
        count(e, REJECTED, rejected);
        failed(e, why.n ? ep_str_n(why.p, EP_MIN(why.n, 256u)) : EP_STR("it rejects them"));
        e->batch.n -= (unsigned)rejected;
    } else if (e->failing) {
        e->failing = false;
        ep_info("tracing", "worker %u: %.*s takes spans again", e->worker->index,
                EP_STR_ARG(e->worker->view->tracing->otlp));
    }
    forget(e, EXPORTED);
}

static void again(struct ep_span_export *e, uint64_t after_ns)
{
    e->backoff_ns = EP_MIN(e->backoff_ns ? e->backoff_ns * 2 : BACKOFF_NS, BACKOFF_MAX);
    if (!after_ns) /* not all at once: collectors restart with many clients */
        after_ns = e->backoff_ns / 2 + ep_rng_below(&e->worker->rng, e->backoff_ns / 2);
    ep_worker_timer(e->worker, &e->timer, after_ns);
}

/* When the next batch goes, if there is one. */
static void schedule(struct ep_span_export *e)
{
    if (e->queue.n)
        ep_worker_timer(e->worker, &e->timer, e->queue.n > 1 || e->flush_by_ns ? 0 : SOON_NS);
}

static void on_done(void *user, const struct ep_http_call_reply *r)
{
    struct ep_span_export *e = user;
    char why[32];

    e->call = NULL;
    snprintf(why, sizeof why, "status %u", r->status);
    if (!e->worker->spans) { /* there is no collector any more */
        forget(e, DROPPED);
        return;
    }
    if (r->failure || may_retry(r->status)) {
        failed(e, r->failure ? ep_str(r->failure) : ep_str(why));
        again(e, r->failure ? 0 : retry_after(r->headers));
        return;
    }
    e->backoff_ns = 0;
    if (r->status / 100 == 2) {
        taken(e, r->body);
    } else {
        failed(e, ep_str(why));
        forget(e, REFUSED);
    }
    schedule(e);
}

/* --- the request --- */

static void resource(struct ep_otlp *o, const struct ep_view *v)
{
    const unsigned f = EP_OTLP_RESOURCE_ATTRIBUTES;

    ep_otlp_attribute(o, f, EP_STR("service.name"), v->service.n ? v->service : EP_STR("unknown_service:ephor"));
    ep_otlp_attribute(o, f, EP_STR("k8s.namespace.name"), v->namespace_);
    ep_otlp_attribute(o, f, EP_STR("k8s.cluster.name"), v->cluster_name);
}

static void send_batch(struct ep_span_export *e)
{
    static const struct ep_reply_header headers[] = {
        {EP_STR_INIT("content-type"), EP_STR_INIT("application/x-protobuf")},
        {EP_STR_INIT("user-agent"), EP_STR_INIT("ephor/" EPHOR_VERSION)},
    };
    struct ep_view *v = e->worker->view;
    struct ep_otlp who = {NULL, 0, 0}, body = {NULL, 0, 0};
    struct ep_collector to;
    struct ep_error err;
    char path[EP_COLLECTOR_PATH_MAX + sizeof "/v1/traces"];
    bool good = ep_collector_parse(v->tracing->otlp, &to);

    assert(good && !e->call && e->batch.n); /* the configuration's check saw it */
    (void)good;
    resource(&who, v);
    ep_otlp_envelope(&body, &who, EP_STR(EPHOR_VERSION), e->batch.bytes.n);
    snprintf(path, sizeof path, "%.*s/v1/traces", EP_STR_ARG(to.path));
    ep_otlp_append(&body, &e->batch.bytes);
    e->call = ep_http_call_start(&(struct ep_http_call_request){.view = v,
                                                                .cluster = v->collector,
                                                                .owner = EP_STR("tracing"),
                                                                .method = EP_STR("POST"),
                                                                .path = ep_str(path),
                                                                .authority = to.authority,
                                                                .headers = headers,
                                                                .n_headers = EP_COUNT(headers),
                                                                .body = ep_str_n(body.p, body.n),
                                                                .repeatable = true,
                                                                .timeout_ns = ANSWER_NS,
                                                                .done = on_done,
                                                                .user = e},
                                 &err);
    ep_otlp_fini(&who);
    ep_otlp_fini(&body);
    if (!e->call) {
        failed(e, ep_str(err.text));
        forget(e, REFUSED);
        schedule(e);
    }
}

static void on_timer(struct ep_timer *t)
{
    struct ep_span_export *e = EP_CONTAINER(t, struct ep_span_export, timer);

    if (!e->call && e->worker->view->collector && (e->batch.n || ep_span_queue_take(&e->queue, &e->batch)))
        send_batch(e);
}

static void on_ready(struct ep_span_queue *q, bool full)
{
    struct ep_span_export *e = EP_CONTAINER(q, struct ep_span_export, queue);

    if (e->batch.n == 0)
        ep_worker_timer(e->worker, &e->timer, full || e->flush_by_ns ? 0 : SOON_NS);
}

/* --- life --- */

struct ep_span_export *ep_span_export_new(struct ep_worker *w)
{
    struct ep_span_export *e = ep_calloc(1, sizeof *e);

    e->worker = w;
    e->queue.ready = on_ready;
    ep_timer_init(&e->timer, on_timer);
    return e;
}

void ep_span_export_view(struct ep_span_export *e)
{
    if (e->worker->view->collector) {
        count(e, DROPPED, 0);
        e->queue.dropped = e->cell[DROPPED];
        e->worker->spans = &e->queue;
    } else if (e->worker->spans) {
        e->worker->spans = NULL;
        ep_span_queue_clear(&e->queue);
        if (!e->call)
            forget(e, DROPPED);
    }
}

bool ep_span_export_flush(struct ep_span_export *e)
{
    uint64_t now = e->worker->now_ns;

    if (!e->worker->spans || (e->batch.n == 0 && e->queue.n == 0))
        return true;
    if (!e->flush_by_ns) {
        e->flush_by_ns = now + FLUSH_NS;
        if (!e->call) /* once more at once, also where a failed try waits */
            ep_worker_timer(e->worker, &e->timer, 0);
    }
    return now >= e->flush_by_ns;
}

void ep_span_export_stop(struct ep_span_export *e)
{
    uint64_t left = e->batch.n;

    for (unsigned i = 0; i < e->queue.n; i++)
        left += e->queue.batch[(e->queue.first + i) % EP_SPAN_BATCHES].n;
    if (left)
        ep_warn("tracing", "worker %u: %llu spans could not be sent before the end", e->worker->index,
                (unsigned long long)left);
    ep_worker_timer_stop(e->worker, &e->timer);
    e->worker->spans = NULL;
}

void ep_span_export_free(struct ep_span_export *e)
{
    if (!e)
        return;
    ep_span_queue_clear(&e->queue);
    ep_span_batch_free(&e->batch);
    free(e);
}
