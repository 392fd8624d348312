/* One call: acquire a leg, send, gather the answer, tell. http_call.h has the design.
 *
 * Events of the leg only note what happened and queue the task; the task lets go of the leg, and then tries once more
 * or tells and frees. So no event ever frees what its codec still holds, and `done` may do as it likes. */
#include "http_call.h"

#include <stdlib.h>

#include "observe/observe.h"

/* What a worker has of them; made with the first call and freed with the last. */
struct calls {
    struct ep_list list;
    unsigned n;
    size_t bytes;
};

struct ep_http_call {
    struct ep_list node;
    struct ep_worker *worker;
    struct ep_view *view;
    struct ep_arena arena;
    struct ep_str owner, cluster_name, authority, body;
    struct ep_headers request, reply, trailers;
    struct ep_body got;
    struct ep_upstream_call call;
    struct ep_leg *leg;
    struct ep_upstream_outcome outcome;
    struct ep_task task;
    struct ep_timer timer;
    ep_http_call_done *done;
    void *user;
    const char *failure;
    size_t reply_bytes;
    uint64_t sent_ns;
    unsigned status;
    bool repeatable, repeated, again, acquiring, over, cancelled;
};

static void acquire(struct ep_http_call *c);

/* --- what a worker has --- */

static struct calls *calls_of(struct ep_worker *w)
{
    return w->http_calls;
}

/* False: there are too many. It is counted all the same, until it has been told. */
static bool calls_add(struct ep_worker *w, struct ep_http_call *c)
{
    struct calls *all = w->http_calls;

    if (!all) {
        w->http_calls = all = ep_calloc(1, sizeof *all);
        ep_list_init(&all->list);
    }
    ep_list_push(&all->list, &c->node);
    return ++all->n <= EP_HTTP_CALLS_MAX;
}

static void calls_remove(struct ep_http_call *c)
{
    struct calls *all = calls_of(c->worker);

    ep_list_remove(&c->node);
    all->bytes -= c->got.bytes;
    if (--all->n)
        return;
    free(all);
    c->worker->http_calls = NULL;
}

/* --- the end --- */

static void call_free(struct ep_http_call *c)
{
    struct ep_view *view = c->view;
    struct ep_arena arena;

    calls_remove(c);
    ep_worker_timer_stop(c->worker, &c->timer);
    ep_body_fini(&c->got);
    ep_headers_fini(&c->request);
    ep_headers_fini(&c->reply);
    ep_headers_fini(&c->trailers);
    arena = c->arena;
    ep_arena_fini(&arena);
    ep_view_unref(view);
}

static void let_go(struct ep_http_call *c)
{
    if (c->acquiring)
        ep_upstream_cancel(&c->call);
    c->acquiring = false;
    if (!c->leg)
        return;
    ep_upstream_done(&c->call, &c->outcome);
    c->leg->ops->release(c->leg);
    c->leg = NULL;
}

static void tell(struct ep_http_call *c)
{
    static const char *const classes[] = {"1xx", "2xx", "3xx", "4xx", "5xx"};
    static const struct ep_headers none;
    const char *result = c->cancelled ? "cancelled"
                         : c->failure ? c->failure
                                      : classes[EP_MAX(1u, EP_MIN(c->status / 100, 5u)) - 1];
    struct ep_http_call_reply reply = {.failure = c->failure, .headers = &none, .trailers = &none};

    ep_stats_add(c->worker->stats, EP_METRIC_HTTP_CALLS, EP_LABELS(c->owner, c->cluster_name, ep_str(result)), 1);
    if (c->cancelled || !c->done)
        return;
    if (!c->failure) {
        reply.status = c->status;
        reply.headers = &c->reply;
        reply.trailers = &c->trailers;
        reply.body = ep_body_flatten(&c->got, &c->arena);
    }
    c->done(c->user, &reply);
}

static void on_task(struct ep_task *t)
{
    struct ep_http_call *c = EP_CONTAINER(t, struct ep_http_call, task);

    let_go(c);
    if (c->again && !c->cancelled) {
        c->again = c->over = false;
        c->repeated = true;
        acquire(c);
        return;
    }
    tell(c);
    call_free(c);
}

static void end(struct ep_http_call *c, const char *failure)
{
    if (c->over)
        return;
    c->over = true;
    c->failure = failure;
    ep_worker_defer(c->worker, &c->task);
}

/* Ends it for a reason of ours: whatever the upstream still says is not wanted. */
static void give_up(struct ep_http_call *c, const char *failure, enum ep_reset why, bool local)
{
    if (c->over) {
        c->again = false; /* no second try without a deadline, or for nobody */
        return;
    }
    if (c->acquiring)
        ep_upstream_cancel(&c->call);
    c->acquiring = false;
    if (c->leg) {
        c->leg->ops->reset(c->leg, why);
        c->outcome.local = local;
        c->outcome.reset = why;
    }
    end(c, failure);
}

static void on_timer(struct ep_timer *t)
{
    give_up(EP_CONTAINER(t, struct ep_http_call, timer), "timeout", EP_RESET_TIMEOUT, false);
}

/* --- the leg --- */

static void on_headers(struct ep_leg *leg, struct ep_headers *h, bool whole)
{
    struct ep_http_call *c = leg->owner;
    uint64_t status = 0;

    if (c->over)
        return;
    c->reply = *h;
    *h = (struct ep_headers){.arena = h->arena};
    ep_str_u64(ep_headers_get_id(&c->reply, EP_HDR_STATUS), &status);
    c->status = (unsigned)status;
    c->outcome = (struct ep_upstream_outcome){
        .answered = true, .status = c->status, .latency_ns = c->worker->now_ns - c->sent_ns};
    if (whole)
        end(c, NULL);
}

static void on_data(struct ep_leg *leg, struct ep_slice s, bool whole)
{
    struct ep_http_call *c = leg->owner;
    struct calls *all = calls_of(c->worker);

    leg->ops->consumed(leg, s.n);
    if (c->over)
        return;
    if (c->done && s.n) {
        if (s.n > c->reply_bytes - c->got.bytes) {
            give_up(c, "too_large", EP_RESET_CANCEL, true);
            return;
        }
        if (all->bytes + s.n > EP_HTTP_CALLS_BYTES_MAX) {
            give_up(c, "limit", EP_RESET_CANCEL, true);
            return;
        }
        all->bytes += s.n;
        ep_body_push(&c->got, ep_slice_ref(s), &c->worker->slabs);
    }
    if (whole)
        end(c, NULL);
}

static void on_trailers(struct ep_leg *leg, struct ep_headers *h)
{
    struct ep_http_call *c = leg->owner;

    if (c->over)
        return;
    c->trailers = *h;
    *h = (struct ep_headers){.arena = h->arena};
    end(c, NULL);
}

static void on_sent(struct ep_leg *leg, size_t n)
{
    (void)leg, (void)n;
}

static void on_message_sent(struct ep_leg *leg)
{
    (void)leg;
}

static void on_reset(struct ep_leg *leg, enum ep_reset why)
{
    struct ep_http_call *c = leg->owner;
    bool unseen = why == EP_RESET_REFUSED ||
                  (c->repeatable && !c->call.new_connection && (leg->version == EP_HTTP_2 || leg->unanswered));

    if (c->over)
        return;
    c->outcome.reset = why;
    c->again = !c->outcome.answered && !c->repeated && unseen;
    end(c, why == EP_RESET_TIMEOUT ? "timeout" : why == EP_RESET_TOO_LARGE ? "too_large" : "reset");
}

static const struct ep_leg_events leg_events = {
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_sent = on_sent,
    .on_message_sent = on_message_sent,
    .on_reset = on_reset,
};

static void on_leg(struct ep_upstream_call *call, struct ep_leg *leg)
{
    struct ep_http_call *c = EP_CONTAINER(call, struct ep_http_call, call);
    bool tls = call->conn && ep_conn_tls_info(call->conn);

    c->acquiring = false;
    c->leg = leg;
    leg->events = &leg_events;
    leg->owner = c;
    leg->arena = &c->arena;
    c->outcome = (struct ep_upstream_outcome){0};
    c->sent_ns = c->worker->now_ns;
    ep_headers_set_id(&c->request, EP_HDR_SCHEME, tls ? EP_STR("https") : EP_STR("http"));
    leg->ops->headers(leg, &c->request, c->body.n == 0);
    if (c->body.n) {
        struct ep_slab *slab = ep_slab_new_sized(&c->worker->slabs, c->body.n);
        memcpy(slab->data, c->body.p, c->body.n);
        leg->ops->data(leg, (struct ep_slice){slab, slab->data, c->body.n}, true);
    }
}

static void on_failure(struct ep_upstream_call *call, enum ep_upstream_failure why)
{
    struct ep_http_call *c = EP_CONTAINER(call, struct ep_http_call, call);
    bool late = why == EP_UPSTREAM_CONNECT_TIMEOUT || why == EP_UPSTREAM_QUEUE_TIMEOUT;

    c->acquiring = false;
    end(c, late ? "timeout" : ep_upstream_failure_name(why));
}

static void acquire(struct ep_http_call *c)
{
    struct ep_cluster *cluster = c->call.cluster;

    c->call = (struct ep_upstream_call){
        .cluster = cluster,
        .downstream_version = EP_HTTP_1_1, /* `protocol: auto`: what every server speaks */
        .server_name = c->authority,
        .on_leg = on_leg,
        .on_failure = on_failure,
    };
    c->acquiring = true;
    ep_upstream_acquire(&c->call);
}

/* --- the request --- */

static bool framing(struct ep_str name)
{
    static const char *const own[] = {"connection", "content-length",   "expect",  "host",    "keep-alive",
                                      "te",         "proxy-connection", "trailer", "upgrade", "transfer-encoding"};

    for (size_t i = 0; i < EP_COUNT(own); i++)
        if (ep_str_caseeq(name, ep_str(own[i])))
            return true;
    return false;
}

static bool has_space(struct ep_str s)
{
    return memchr(s.p, ' ', s.n) || memchr(s.p, '\t', s.n);
}

static bool check(const struct ep_http_call_request *q, struct ep_error *err)
{
    if (!q->cluster)
        return ep_error_set(err, "there is no such cluster");
    if (!ep_header_name_valid(q->method) || ep_str_eq(q->method, EP_STR("CONNECT")))
        return ep_error_set(err, "'%.*s' is no method that can be used", EP_STR_ARG(q->method));
    if (q->path.n == 0 || q->path.p[0] != '/' || !ep_header_value_valid(q->path) || has_space(q->path))
        return ep_error_set(err, "the path must begin with '/' and have no space or control character");
    if (q->authority.n == 0 || !ep_header_value_valid(q->authority) || has_space(q->authority))
        return ep_error_set(err, "the authority must be there, without a space or control character");
    if (q->n_headers > EP_HEADERS_MAX_COUNT)
        return ep_error_set(err, "more than %u headers", EP_HEADERS_MAX_COUNT);
    for (size_t i = 0; i < q->n_headers; i++) {
        const struct ep_reply_header *h = &q->headers[i];
        if (!ep_header_name_valid(h->name))
            return ep_error_set(err, "'%.*s' is no name of a header", EP_STR_ARG(h->name));
        if (!ep_header_value_valid(h->value))
            return ep_error_set(err, "the value of '%.*s' has a control character", EP_STR_ARG(h->name));
        if (ep_str_casestarts(h->name, EP_STR("x-ephor-"))) /* a peer would believe it: it comes from our identity */
            return ep_error_set(err, "'%.*s' is ephor's own", EP_STR_ARG(h->name));
    }
    return true;
}

/* Whether it may go out twice: RFC 9110 section 9.2.2. */
static bool repeatable(struct ep_str method)
{
    static const char *const those[] = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"};

    for (size_t i = 0; i < EP_COUNT(those); i++)
        if (ep_str_eq(method, ep_str(those[i])))
            return true;
    return false;
}

static void write_request(struct ep_http_call *c, const struct ep_http_call_request *q)
{
    struct ep_headers *h = &c->request;

    ep_headers_init(h, &c->arena);
    ep_headers_add_id(h, EP_HDR_METHOD, q->method);
    ep_headers_append(h, EP_HDR_SCHEME, ep_header_name(EP_HDR_SCHEME), EP_STR("http"));
    ep_headers_append(h, EP_HDR_AUTHORITY, ep_header_name(EP_HDR_AUTHORITY), c->authority);
    ep_headers_add_id(h, EP_HDR_PATH, q->path);
    for (size_t i = 0; i < q->n_headers; i++)
        if (!framing(q->headers[i].name))
            ep_headers_add(h, q->headers[i].name, q->headers[i].value);
    if (q->body.p || !repeatable(q->method))
        ep_headers_append(h, EP_HDR_CONTENT_LENGTH, ep_header_name(EP_HDR_CONTENT_LENGTH),
                          ep_arena_printf(&c->arena, "%zu", q->body.n));
}

struct ep_cluster *ep_http_call_cluster(const struct ep_view *v, struct ep_str name)
{
    for (unsigned i = 0; i < v->n_clusters; i++)
        if (ep_str_eq(ep_cluster_name(v->clusters[i]), name))
            return ep_cluster_get_config(v->clusters[i])->protocol == EP_PROTO_TCP ? NULL : v->clusters[i];
    return NULL;
}

struct ep_http_call *ep_http_call_start(const struct ep_http_call_request *q, struct ep_error *err)
{
    struct ep_worker *w = q->view->worker;
    struct ep_arena arena;
    struct ep_http_call *c;

    if (!check(q, err))
        return NULL;
    ep_arena_init(&arena, &w->chunks);
    c = ep_arena_zalloc(&arena, sizeof *c);
    c->arena = arena; /* from here on only this copy is used */
    c->worker = w;
    c->view = ep_view_ref(q->view);
    c->owner = ep_arena_str(&c->arena, q->owner);
    c->cluster_name = ep_arena_str(&c->arena, ep_cluster_name(q->cluster));
    c->authority = ep_arena_str(&c->arena, q->authority);
    c->body = ep_arena_str(&c->arena, q->body);
    c->done = q->done;
    c->user = q->user;
    c->reply_bytes = q->reply_bytes ? q->reply_bytes : EP_HTTP_CALL_REPLY_BYTES;
    c->repeatable = q->repeatable || repeatable(q->method);
    c->call.cluster = q->cluster;
    ep_headers_init(&c->reply, &c->arena);
    ep_headers_init(&c->trailers, &c->arena);
    ep_body_init(&c->got);
    ep_task_init(&c->task, on_task);
    ep_timer_init(&c->timer, on_timer);
    write_request(c, q);
    if (!calls_add(w, c)) {
        end(c, "limit");
        return c;
    }
    ep_worker_timer(w, &c->timer, q->timeout_ns ? q->timeout_ns : EP_HTTP_CALL_TIME_NS);
    acquire(c);
    return c;
}

void ep_http_call_cancel(struct ep_http_call *c)
{
    c->cancelled = true;
    give_up(c, "cancelled", EP_RESET_CANCEL, true);
}

void ep_http_call_end_all(struct ep_worker *w)
{
    struct calls *all = calls_of(w);

    if (!all)
        return;
    EP_LIST_FOREACH(n, &all->list)
    ep_http_call_cancel(EP_CONTAINER(n, struct ep_http_call, node));
}
