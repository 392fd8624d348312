/* One request's way through a cluster: acquire, wait or not, a leg, done.
 *
 * With a connection that is up this is a pick, a capacity check and on_leg at once; nothing is allocated or hashed.
 * Failures are always told by a task, so that on_failure is never called from inside acquire, and a caller that
 * cancels in between hears nothing. */
#include "upstream/cluster.h"

static const struct {
    const char *name, *flag;
} failures[EP_UPSTREAM_FAILURES] = {
    [EP_UPSTREAM_NO_ENDPOINT] = {"no_endpoint", "UH"},
    [EP_UPSTREAM_OVERFLOW] = {"overflow", "UO"},
    [EP_UPSTREAM_CONNECT] = {"connect_refused", "UF"},
    [EP_UPSTREAM_CONNECT_TIMEOUT] = {"connect_timeout", "UF"},
    [EP_UPSTREAM_TLS] = {"tls", "UF"},
    [EP_UPSTREAM_QUEUE_TIMEOUT] = {"queue_timeout", "UT"},
    [EP_UPSTREAM_LOOP] = {"loop", "LOOP"},
    [EP_UPSTREAM_PROTOCOL] = {"protocol", "UPE"},
};

const char *ep_upstream_failure_name(enum ep_upstream_failure f)
{
    return failures[f].name;
}

const char *ep_upstream_failure_flag(enum ep_upstream_failure f)
{
    return failures[f].flag;
}

static void count_failure(struct ep_cluster *cl, enum ep_upstream_failure why)
{
    if (!cl->cell_failure[why])
        cl->cell_failure[why] = ep_cluster_cell(cl, EP_METRIC_UPSTREAM_REQUESTS,
                                                EP_LABELS(cl->config.name, EP_STR(""), ep_str(failures[why].name)));
    ep_cell_add(cl->cell_failure[why], 1);
}

void ep_call_count_overflow(struct ep_cluster *cl, enum ep_breaker_limit l)
{
    if (!cl->cell_overflow[l])
        cl->cell_overflow[l] =
            ep_cluster_cell(cl, EP_METRIC_BREAKER, EP_LABELS(cl->config.name, ep_str(ep_breaker_limit_name(l))));
    ep_cell_add(cl->cell_overflow[l], 1);
}

/* The call holds nothing of the cluster any more. */
static void let_go(struct ep_upstream_call *c)
{
    struct ep_cluster *cl = c->cluster;

    if (c->endpoint) {
        c->endpoint->load.active--;
        c->endpoint->last_used_ns = cl->worker->now_ns;
        ep_endpoint_unref(c->endpoint); /* the pointer stays, for `avoid` */
    }
    if (c->counted) {
        c->counted = false;
        ep_breaker_give(&cl->breaker, EP_BREAKER_REQUESTS);
        ep_cell_add(cl->cell_streams, UINT64_MAX);
    }
    cl->n_calls--;
    if (EP_UNLIKELY(cl->dying))
        ep_cluster_reap_later(cl);
}

static void run_failure(struct ep_task *t)
{
    struct ep_upstream_call *c = EP_CONTAINER(t, struct ep_upstream_call, task);
    enum ep_upstream_failure why = (enum ep_upstream_failure)(c->state - EP_CALL_FAILING);

    c->state = EP_CALL_ENDED;
    count_failure(c->cluster, why);
    let_go(c);
    c->on_failure(c, why); /* may free the call, and let go of the cluster */
}

void ep_call_dequeue(struct ep_upstream_call *c)
{
    struct ep_cluster *cl = c->cluster;

    if (c->state != EP_CALL_WAITING && c->state != EP_CALL_UNRESOLVED)
        return;
    ep_list_remove(&c->node);
    ep_worker_timer_stop(cl->worker, &c->timer);
    if (c->state == EP_CALL_WAITING)
        c->lane->n_waiting--;
    else
        cl->n_unresolved--;
    c->state = EP_CALL_NEW;
    ep_breaker_give(&cl->breaker, EP_BREAKER_PENDING);
    ep_cell_add(cl->cell_pending, UINT64_MAX);
}

void ep_call_fail(struct ep_upstream_call *c, enum ep_upstream_failure why)
{
    ep_call_dequeue(c);
    assert(c->state == EP_CALL_NEW);
    c->state = EP_CALL_FAILING + (int)why;
    ep_worker_defer(c->cluster->worker, &c->task);
}

static void on_queue_timeout(struct ep_timer *t)
{
    struct ep_upstream_call *c = EP_CONTAINER(t, struct ep_upstream_call, timer);

    ep_call_fail(c, c->state == EP_CALL_UNRESOLVED ? EP_UPSTREAM_NO_ENDPOINT : EP_UPSTREAM_QUEUE_TIMEOUT);
}

/* Into a queue, when the breaker for waiting requests has room. */
static bool enqueue(struct ep_upstream_call *c, struct ep_list *queue, enum ep_call_state state)
{
    struct ep_cluster *cl = c->cluster;

    if (!ep_breaker_take(&cl->breaker, EP_BREAKER_PENDING)) {
        ep_call_count_overflow(cl, EP_BREAKER_PENDING);
        ep_call_fail(c, EP_UPSTREAM_OVERFLOW);
        return false;
    }
    ep_list_push(queue, &c->node);
    c->state = (int)state;
    ep_cell_add(cl->cell_pending, 1);
    ep_worker_timer(cl->worker, &c->timer, cl->config.queue_timeout_ns);
    return true;
}

void ep_call_give(struct ep_upstream_call *c, struct ep_upconn *u, struct ep_leg *leg)
{
    assert(c->state == EP_CALL_NEW && c->endpoint);
    c->state = EP_CALL_ACTIVE;
    c->conn = u->conn;
    c->acquired_ns = c->cluster->worker->now_ns;
    c->new_connection = u->fresh;
    u->fresh = false;
    c->on_leg(c, leg);
}

static bool same_host(const struct ep_addr *a, const struct ep_addr *b)
{
    struct ep_addr c = *b;

    ep_addr_set_port(&c, ep_addr_port(a));
    return ep_addr_equal(a, &c);
}

/* The usable endpoint that the caller asked for. */
static struct ep_endpoint *find_override(const struct ep_cluster *cl, const struct ep_upstream_override *o)
{
    for (uint32_t i = 0; i < cl->n_usable; i++) {
        struct ep_endpoint *e = EP_CONTAINER(cl->usable[i], struct ep_endpoint, load);
        if (o->any_port ? e->addr.u.sa.sa_family == o->addr.u.sa.sa_family && same_host(&e->addr, &o->addr)
                        : ep_addr_equal(&e->addr, &o->addr))
            return e;
    }
    return NULL;
}

/* The endpoint for a call; NULL with the reason, or with *wait when the first answer of DNS is still to come. */
static struct ep_endpoint *choose(struct ep_upstream_call *c, enum ep_upstream_failure *why, bool *wait)
{
    struct ep_cluster *cl = c->cluster;
    struct ep_load *l;

    if (EP_UNLIKELY(cl->config.original_destination)) {
        struct ep_endpoint *e = c->original ? ep_members_original(cl, c->original) : NULL;
        *why = c->original ? EP_UPSTREAM_OVERFLOW : EP_UPSTREAM_NO_ENDPOINT;
        return e;
    }
    if (EP_UNLIKELY(c->override != NULL)) {
        struct ep_endpoint *e = find_override(cl, c->override);
        *why = EP_UPSTREAM_NO_ENDPOINT;
        if (e || c->override->strict)
            return e;
    }
    l = ep_balance_pick(&cl->balancer, cl->usable, cl->n_usable, (const struct ep_load *)(const void *)c->avoid,
                        &cl->worker->rng, cl->worker->now_ns);
    if (EP_LIKELY(l != NULL))
        return EP_CONTAINER(l, struct ep_endpoint, load);
    *why = EP_UPSTREAM_NO_ENDPOINT;
    *wait = cl->n_members == 0 && cl->lookup.state;
    return NULL;
}

void ep_call_place(struct ep_upstream_call *c)
{
    struct ep_cluster *cl = c->cluster;
    enum ep_upstream_failure why = EP_UPSTREAM_NO_ENDPOINT;
    bool wait = false;
    struct ep_endpoint *e;
    struct ep_upconn *u = NULL;
    struct ep_leg *leg;

    assert(c->state == EP_CALL_NEW && !c->endpoint);
    if (EP_UNLIKELY(cl->dying)) {
        ep_call_fail(c, EP_UPSTREAM_NO_ENDPOINT);
        return;
    }
    e = choose(c, &why, &wait);
    if (EP_UNLIKELY(!e)) {
        if (!wait)
            ep_call_fail(c, why);
        else if (enqueue(c, &cl->unresolved, EP_CALL_UNRESOLVED))
            cl->n_unresolved++;
        return;
    }
    c->endpoint = ep_endpoint_ref(e);
    e->load.active++;
    if (EP_UNLIKELY(e->loop)) {
        ep_call_fail(c, EP_UPSTREAM_LOOP);
        return;
    }
    c->lane = ep_lane_for(e, c);
    if (EP_UNLIKELY(!c->lane)) {
        ep_call_fail(c, EP_UPSTREAM_OVERFLOW);
        return;
    }
    leg = ep_lane_open(c->lane, c, &u);
    if (EP_LIKELY(leg != NULL)) {
        ep_call_give(c, u, leg);
        return;
    }
    if (u) { /* it is up, and can't do what this call needs */
        ep_call_fail(c, EP_UPSTREAM_PROTOCOL);
        return;
    }
    if (enqueue(c, &c->lane->waiters, EP_CALL_WAITING)) {
        c->lane->n_waiting++;
        ep_lane_pump(c->lane);
    } else {
        ep_lane_unused(c->lane);
    }
}

void ep_upstream_acquire(struct ep_upstream_call *c)
{
    struct ep_cluster *cl = c->cluster;
    struct ep_worker *w = cl->worker;

    ep_list_init(&c->node);
    ep_timer_init(&c->timer, on_queue_timeout);
    ep_task_init(&c->task, run_failure);
    c->state = EP_CALL_NEW;
    c->endpoint = NULL;
    c->conn = NULL;
    c->lane = NULL;
    c->new_connection = c->counted = false;
    c->started_ns = w->now_ns;
    cl->n_calls++;
    ep_retry_budget_request(&cl->budget, w->now_ns);
    if (EP_UNLIKELY(!ep_breaker_take(&cl->breaker, EP_BREAKER_REQUESTS))) {
        ep_call_count_overflow(cl, EP_BREAKER_REQUESTS);
        ep_call_fail(c, EP_UPSTREAM_OVERFLOW);
        return;
    }
    c->counted = true;
    ep_cell_add(cl->cell_streams, 1);
    ep_call_place(c);
}

void ep_upstream_cancel(struct ep_upstream_call *c)
{
    struct ep_lane *lane = c->state == EP_CALL_WAITING ? c->lane : NULL;

    assert(c->state != EP_CALL_ACTIVE);
    if (c->state == EP_CALL_NEW || c->state == EP_CALL_ENDED)
        return; /* never acquired, or over */
    ep_call_dequeue(c);
    ep_list_remove(&c->task.node);
    c->state = EP_CALL_ENDED;
    if (lane)
        ep_lane_unused(lane);
    let_go(c);
}

/* Whether this end tells against the endpoint. A refused stream (a server that drains) and a cancelled one don't. */
static bool is_fault(const struct ep_upstream_outcome *o)
{
    if (o->answered)
        return o->status >= 500;
    return o->reset != EP_RESET_REFUSED && o->reset != EP_RESET_CANCEL && o->reset != EP_RESET_NO_ERROR;
}

void ep_upstream_done(struct ep_upstream_call *c, const struct ep_upstream_outcome *o)
{
    struct ep_endpoint *e = c->endpoint;
    uint64_t now = c->cluster->worker->now_ns;

    assert(c->state == EP_CALL_ACTIVE);
    c->state = EP_CALL_ENDED;
    if (o->answered) {
        if (o->latency_ns)
            ep_load_observe(&e->load, o->latency_ns, now);
        ep_endpoint_count(e, (enum ep_result_cell)(EP_MAX(1u, EP_MIN(o->status / 100, 5u)) - 1));
    } else {
        ep_endpoint_count(e, EP_RESULT_RESET);
        if (!o->local)
            ep_load_observe_failure(&e->load, o->latency_ns, now);
    }
    if (!o->local)
        ep_endpoint_judge(e, is_fault(o));
    let_go(c);
}

bool ep_upstream_retry_allowed(struct ep_cluster *cl, double budget)
{
    double share = budget > 0 ? EP_MIN(budget, cl->config.limits.retries) : cl->config.limits.retries;

    return ep_retry_budget_take(&cl->budget, share, cl->n_calls, cl->worker->now_ns);
}
