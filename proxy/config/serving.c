/* A worker's side of the process: its thread, its listeners, and what the main thread asks of it by mail.
 *
 * A listener that stays keeps its socket and its connections, and gets the new chain. One that is no longer in the
 * configuration stops accepting at once, drains, and is freed when nothing of it is left; until then it holds
 * the view that its chain is of, since a connection of it may still bring a request. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/process.h"
#include "http_call.h"
#include "lua/bundle.h"
#include "span_export.h"

#define SWEEP_NS      (50 * EP_MS)
#define DRAIN_TICK_NS (10 * EP_MS)
#define GOAWAY_NS     (100 * EP_MS) /* between the first and the last GOAWAY of a drain */
#define IDLE_NS       EP_S          /* connections without a stream are closed so long after the last one ended */
#define END_ROUNDS    256
#define LAST_ROUNDS   16            /* turns in which live streams say their last words */

struct slot {
    struct ep_list node;
    struct ep_server_listener *listener;
    struct ep_view *view; /* of its chain; a reference */
};

static struct slot *slot_of(struct ep_list *n)
{
    return EP_CONTAINER(n, struct slot, node);
}

static bool empty(const struct slot *s)
{
    return s->listener->n_streams == 0 && s->listener->listener.n_connections == 0;
}

static void slot_free(struct slot *s)
{
    ep_list_remove(&s->node);
    ep_server_listener_free(s->listener);
    ep_view_unref(s->view);
    free(s);
}

/* --- building and committing --- */

void ep_serving_build(struct ep_serving *v, void *attempt, unsigned index)
{
    const struct ep_attempt *a = attempt;
    const struct ep_access_log_config *log = &a->config->access_log;

    if (!v->identity && a->identity)
        v->identity = ep_identity_ref(a->identity); /* probes may dial before the commit */
    if (log->enabled) {
        v->next_log = ep_access_log_new(log, &a->errors[index]);
        if (!v->next_log)
            return;
    }
    if (!a->policies->other) {
        v->next_policies = v->policies ? ep_policy_set_share(v->policies) : NULL;
    } else if (a->policies->sets) {
        v->next_policies = a->policies->sets[index];
        a->policies->sets[index] = NULL;
        if (!ep_policy_set_open(v->next_policies, &a->config->policies, &a->errors[index]))
            return;
    }
    v->next = ep_view_build(v, a, &a->errors[index]);
}

void ep_serving_abort(struct ep_serving *v, void *attempt, unsigned index)
{
    (void)index;
    if (v->next)
        ep_view_unref(v->next);
    if (v->next_policies)
        ep_policy_set_unref(v->next_policies);
    ep_access_log_free(v->next_log);
    v->next = NULL;
    v->next_policies = NULL;
    v->next_log = NULL;
    if (v->worker.view)
        ep_view_restore(v, attempt);
}

/* The same version may come with another constitution: then its count goes on. */
static bool same_version(const struct ep_policy_set *a, const struct ep_policy_set *b)
{
    return a && b && a->bundle && b->bundle && strcmp(a->bundle->digest, b->bundle->digest) == 0;
}

static void take_policies(struct ep_serving *v, const struct ep_config *config)
{
    struct ep_policy_set *old = v->policies;

    v->policies = v->next_policies;
    v->next_policies = NULL;
    if (!same_version(old, v->policies)) {
        v->version = (v->version + 1) % EP_VERSIONS_COUNTED;
        v->totals[v->version] = (struct ep_policy_totals){0};
    }
    if (v->policies) {
        ep_policy_set_adopt(v->policies, &v->totals[v->version]);
        ep_policy_set_configure(v->policies, &config->policies);
    }
    if (old)
        ep_policy_set_unref(old);
}

static bool same_socket(const struct slot *s, const struct ep_listener_config *c)
{
    const struct ep_listener_options *o = &s->listener->listener.options;

    return !s->listener->removed && ep_str_eq(s->listener->name, c->name) && ep_addr_equal(&o->bind, &c->bind) &&
           o->intercept == (enum ep_intercept)c->intercept;
}

static struct slot *find_slot(struct ep_serving *v, const struct ep_listener_config *c)
{
    EP_LIST_FOREACH (n, &v->slots)
        if (same_socket(slot_of(n), c))
            return slot_of(n);
    return NULL;
}

static void take_chain(struct ep_serving *v, struct ep_chain *chain, int fd)
{
    struct slot *s = find_slot(v, chain->config);
    struct ep_error err;

    if (s) {
        ep_server_listener_set_chain(s->listener, chain);
        ep_view_unref(s->view);
        s->view = ep_view_ref(v->worker.view);
        return;
    }
    s = ep_calloc(1, sizeof *s);
    s->listener = ep_server_listener_new(&v->worker, chain, fd, &err);
    if (!s->listener) { /* only when libevent can't take the descriptor */
        ep_fail("server", "worker %u, listener %.*s: %s", v->worker.index, EP_STR_ARG(chain->config->name), err.text);
        free(s);
        return;
    }
    s->view = ep_view_ref(v->worker.view);
    ep_list_push(&v->slots, &s->node);
}

static void on_sweep(struct ep_timer *t)
{
    struct ep_serving *v = EP_CONTAINER(t, struct ep_serving, sweep);
    bool more = false;

    EP_LIST_FOREACH (n, &v->slots) {
        struct slot *s = slot_of(n);
        if (!s->listener->removed)
            continue;
        if (empty(s))
            slot_free(s);
        else
            more = true;
    }
    if (more)
        ep_worker_timer(&v->worker, &v->sweep, SWEEP_NS);
}

/* What has no chain in the view in force goes. */
static void retire_slots(struct ep_serving *v)
{
    EP_LIST_FOREACH (n, &v->slots) {
        struct slot *s = slot_of(n);
        if (s->listener->removed || s->view == v->worker.view)
            continue;
        s->listener->removed = true;
        ep_server_listener_drain(s->listener, GOAWAY_NS);
        ep_listener_stop(&s->listener->listener);
        ep_worker_timer(&v->worker, &v->sweep, SWEEP_NS);
    }
}

static void take_identity(struct ep_serving *v, struct ep_identity *identity)
{
    if (v->identity == identity)
        return;
    struct ep_identity *old = v->identity;
    v->identity = identity ? ep_identity_ref(identity) : NULL;
    for (unsigned i = 0; i < v->worker.view->n_clusters; i++)
        ep_cluster_identity_changed(v->worker.view->clusters[i]);
    ep_identity_unref(old);
}

void ep_serving_commit(struct ep_serving *v, void *attempt, unsigned index)
{
    const struct ep_attempt *a = attempt;
    struct ep_worker *w = &v->worker;
    struct ep_view *old = w->view;

    w->view = v->next;
    v->next = NULL;
    ep_audit_ear_set(v->ear, a->audit);
    ep_access_log_free(w->access_log);
    w->access_log = v->next_log;
    v->next_log = NULL;
    take_identity(v, a->identity);
    take_policies(v, a->config);
    for (unsigned i = 0; i < w->view->n_chains; i++)
        take_chain(v, w->view->chains[i], a->fds[i * a->n_workers + index]);
    retire_slots(v);
    ep_span_export_view(v->spans);
    if (old)
        ep_view_unref(old);
}

void ep_serving_rotate(struct ep_serving *v, void *identity, unsigned index)
{
    (void)index;
    ep_view_set_identity(v->worker.view, identity);
    take_identity(v, identity);
}

void ep_serving_describe(struct ep_worker *w, struct ep_json *out)
{
    struct ep_serving *v = EP_CONTAINER(w, struct ep_serving, worker);

    ep_json_key(out, "listeners");
    ep_json_array(out);
    EP_LIST_FOREACH (n, &v->slots) {
        const struct ep_server_listener *l = slot_of(n)->listener;
        char bind[128];
        ep_addr_format(&l->listener.options.bind, bind);
        ep_json_object(out);
        ep_json_kstr(out, "name", l->name);
        ep_json_kstr(out, "bind", ep_str(bind));
        ep_json_kstr(out, "direction", l->chain->direction == EP_INBOUND ? EP_STR("inbound") : EP_STR("outbound"));
        ep_json_kbool(out, "accepting", l->listener.fd >= 0);
        ep_json_kuint(out, "connections", l->listener.n_connections);
        ep_json_kuint(out, "streams", l->n_streams);
        ep_json_kuint(out, "accepted", l->listener.accepted);
        ep_json_kuint(out, "refused", l->listener.refused);
        ep_json_key(out, "filters");
        ep_json_array(out);
        for (unsigned i = 0; i < l->chain->n_filters; i++)
            ep_json_z(out, l->chain->filters[i].filter->name);
        ep_json_array_end(out);
        ep_json_object_end(out);
    }
    ep_json_array_end(out);
}

/* --- draining --- */

static bool concerns(const struct ep_serving *v, const struct slot *s)
{
    return v->stage == EP_DRAIN_ALL || s->listener->removed || s->listener->chain->direction == EP_INBOUND;
}

/* Outbound connections of the app go on until the inbound requests are done, for those may need them. */
static bool stage_over(struct ep_serving *v)
{
    bool streams = false, connections = false;

    EP_LIST_FOREACH (n, &v->slots) {
        struct slot *s = slot_of(n);
        if (!concerns(v, s))
            continue;
        streams |= s->listener->n_streams > 0;
        connections |= s->listener->listener.n_connections > 0;
    }
    if (streams)
        v->stage_ns = v->worker.now_ns;
    return !streams && (v->stage == EP_DRAIN_INBOUND || !connections || v->worker.now_ns - v->stage_ns > IDLE_NS);
}

static void on_drain_tick(struct ep_timer *t)
{
    struct ep_serving *v = EP_CONTAINER(t, struct ep_serving, sweep);

    if (stage_over(v) && (v->stage != EP_DRAIN_ALL || ep_span_export_flush(v->spans)))
        atomic_store(&v->stage_done, v->stage);
    else
        ep_worker_timer(&v->worker, &v->sweep, DRAIN_TICK_NS);
}

void ep_serving_drain(struct ep_serving *v, void *stage, unsigned index)
{
    (void)index;
    v->stage = *(const int *)stage;
    v->stage_ns = v->worker.now_ns;
    v->worker.draining = v->stage == EP_DRAIN_ALL;
    EP_LIST_FOREACH (n, &v->slots) {
        struct slot *s = slot_of(n);
        if (!concerns(v, s))
            continue;
        ep_server_listener_drain(s->listener, GOAWAY_NS);
        ep_listener_stop(&s->listener->listener);
    }
    ep_worker_timer_stop(&v->worker, &v->sweep);
    ep_timer_init(&v->sweep, on_drain_tick);
    ep_worker_timer(&v->worker, &v->sweep, DRAIN_TICK_NS);
}

/* --- life --- */

bool ep_serving_init(struct ep_serving *v, struct ep_server *s, unsigned index, struct ep_error *err)
{
    v->server = s;
    if (!ep_worker_init(&v->worker, index, err))
        return false;
    v->worker.owner = s;
    v->worker.memory = s->memory;
    v->worker.compiled = s->compiled;
    v->worker.limiter = s->limiter;
    v->worker.mcp_sessions = s->mcp_sessions;
    v->worker.stats = s->shards[index];
    v->ear = ep_audit_ear_new(&v->worker);
    v->spans = ep_span_export_new(&v->worker);
    ep_list_init(&v->slots);
    ep_timer_init(&v->sweep, on_sweep);
    atomic_init(&v->stage_done, EP_DRAIN_NOT);
    v->inited = true;
    return ep_upstream_worker_init(&v->worker, err);
}

static bool streams_left(struct ep_serving *v)
{
    EP_LIST_FOREACH (n, &v->slots)
        if (slot_of(n)->listener->n_streams)
            return true;
    return false;
}

/* Live streams hear that it is over, and get a moment to take it in. */
static void end_live_streams(struct ep_serving *v)
{
    struct ep_worker *w = &v->worker;
    bool any = false;

    EP_LIST_FOREACH (n, &v->slots) {
        EP_LIST_FOREACH (m, &slot_of(n)->listener->streams) {
            struct ep_stream *s = EP_CONTAINER(m, struct ep_stream, node);
            any |= s->live;
            ep_stream_end_live(s);
        }
    }
    for (int round = 0; any && round < LAST_ROUNDS; round++)
        ep_worker_turn(w, false);
}

/* The loop is over: everything that is left is cut off and freed, in the thread that owned it. */
static void serving_end(struct ep_serving *v)
{
    struct ep_worker *w = &v->worker;

    ep_worker_timer_stop(w, &v->sweep);
    EP_LIST_FOREACH (n, &v->slots)
        ep_listener_stop(&slot_of(n)->listener->listener);
    end_live_streams(v);
    ep_span_export_stop(v->spans);
    ep_http_call_end_all(w);
    for (int round = 0; round < END_ROUNDS && (!ep_list_empty(&w->conns) || streams_left(v) || w->http_calls); round++) {
        EP_LIST_FOREACH (n, &w->conns)
            ep_conn_abort(EP_CONTAINER(n, struct ep_conn, node), EP_CLOSE_LOCAL, false);
        ep_worker_turn(w, false);
    }
    if (streams_left(v)) { /* a filter that never answers holds one: the process ends all the same */
        ep_warn("server", "worker %u ends with streams that could not be ended", w->index);
        return;
    }
    EP_LIST_FOREACH (n, &v->slots)
        slot_free(slot_of(n));
    if (v->next)
        ep_view_unref(v->next);
    if (w->view)
        ep_view_unref(w->view);
    w->view = NULL;
    if (v->next_policies)
        ep_policy_set_unref(v->next_policies);
    if (v->policies)
        ep_policy_set_unref(v->policies);
    ep_upstream_worker_fini(w);
    ep_span_export_free(v->spans);
    ep_access_log_free(w->access_log);
    ep_access_log_free(v->next_log);
    ep_identity_unref(v->identity);
    ep_worker_fini(w);
    ep_audit_ear_free(v->ear);
}

static void *serving_main(void *arg)
{
    struct ep_serving *v = arg;
    struct ep_worker *w = &v->worker;

    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
        ep_worker_turn(w, true);
        if (w->access_log)
            ep_access_log_flush(w->access_log);
    }
    serving_end(v);
    return NULL;
}

bool ep_serving_start(struct ep_serving *v, struct ep_error *err)
{
    char name[16];
    int rc = pthread_create(&v->worker.thread, NULL, serving_main, v);

    if (rc)
        return ep_error_set(err, "cannot start a thread: %s", strerror(rc));
    v->running = true;
    snprintf(name, sizeof name, "ephor/%u", v->worker.index % 1000);
    pthread_setname_np(v->worker.thread, name);
    return true;
}

void ep_serving_join(struct ep_serving *v)
{
    if (v->running)
        pthread_join(v->worker.thread, NULL);
    else if (v->inited)
        serving_end(v);
    v->running = v->inited = false;
}
