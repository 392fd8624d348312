/* The filter `chaos`: faults on purpose.
 *
 * It stands right in front of the router, behind all that decides: what is refused anyway is not hit. Off unless
 * enabled; the blast radius is reserved before a fault is done, over all workers, and given back when the request is
 * over. A fault is marked: a metric, the response flag, x-ephor-fault to verified peers (by `identity`), a sampled
 * audit record. DESIGN.md section 12; the choices are in schedule.c. */
#include "chaos/schedule.h"
#include "filter/chain.h"
#include "filter/decision.h"
#include "observe/observe.h"

#include <stdlib.h>

#define AUDIT_ONE_IN 100u

struct experiment {
    struct ep_chaos_experiment *x; /* of the configuration, for its counts */
    uint64_t *delays, *aborts;     /* metric cells; NULL without statistics */
};

struct chaos {
    struct experiment *v;
    size_t n;
};

struct state {
    struct ep_timer timer;
    struct ep_stream *s;
    struct ep_chaos_experiment *hit; /* holds a place in its radius; NULL: none */
};

/* `chaos:` of the configuration, unless the filter was given its own in the chain. */
static const struct ep_chaos_config *config_of(const struct ep_filter_instance *i)
{
    const struct ep_chaos_config *own = i->config;

    return own && (own->enabled || own->experiments.n) ? own : i->view ? i->view->chaos_config : NULL;
}

static void start(struct ep_chaos_experiment *x, uint64_t now)
{
    uint64_t never = 0;

    atomic_compare_exchange_strong(&x->run.started_ns, &never, now); /* the first chain of the first worker */
}

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    const struct ep_chaos_config *config = config_of(i);
    struct chaos *c = ep_calloc(1, sizeof *c);
    struct ep_chaos_experiment *x;
    struct ep_stats *stats = i->worker->stats;

    i->data = c;
    if (!config || !config->enabled || !config->experiments.n)
        return true;
    x = config->experiments.v;
    c->v = ep_calloc(config->experiments.n, sizeof *c->v);
    for (size_t k = 0; k < config->experiments.n; k++) {
        if (x[k].constitution.n && !ep_str_equal_ct(x[k].constitution, i->view->constitution)) {
            ep_error_set(err, "experiment %.*s was approved under another constitution", EP_STR_ARG(x[k].name));
            free(c->v);
            free(c);
            i->data = NULL;
            return false;
        }
        start(&x[k], ep_clock_ns());
        c->v[c->n++].x = &x[k];
        if (stats) {
            c->v[k].delays = ep_stats_cell(stats, EP_METRIC_CHAOS_INJECTIONS, EP_LABELS(x[k].name, EP_STR("delay")));
            c->v[k].aborts = ep_stats_cell(stats, EP_METRIC_CHAOS_INJECTIONS, EP_LABELS(x[k].name, EP_STR("abort")));
        }
    }
    return true;
}

static void unload(struct ep_filter_instance *i)
{
    struct chaos *c = i->data;

    if (c)
        free(c->v);
    free(c);
}

/* --- match --- */

static bool hits(struct ep_str glob, struct ep_str value)
{
    return !glob.n || (value.n && ep_str_glob(glob, value));
}

static bool excluded(const struct ep_chaos_experiment *x, struct ep_str peer)
{
    const struct ep_str *globs = x->radius.exclude.principals.v;

    for (size_t i = 0; peer.n && i < x->radius.exclude.principals.n; i++)
        if (ep_str_glob(globs[i], peer))
            return true;
    return false;
}

static bool call_matches(const struct ep_chaos_match *m, struct ep_stream *s)
{
    if (!m->protocol.n && !m->method.n && !m->tool.n && !m->model.n)
        return true;
    for (const struct ep_call *c = &s->call; c; c = c->next)
        if (hits(m->protocol, c->protocol) && hits(m->method, c->protocol.n ? c->method : ep_stream_method(s)) &&
            hits(m->tool, c->tool) && hits(m->model, c->model))
            return true;
    return false;
}

static bool matches(const struct ep_chaos_experiment *x, struct ep_stream *s)
{
    const struct ep_chaos_match *m = &x->match;
    struct ep_str path = ep_stream_path(s);
    ptrdiff_t query = ep_str_find(path, '?', 0);

    if (m->direction && (m->direction == EP_CHAOS_INBOUND) != (s->direction == EP_INBOUND))
        return false;
    if (query >= 0)
        path.n = (size_t)query;
    if (!hits(m->path, path) || !hits(m->principal, s->peer_id) || !call_matches(m, s) || excluded(x, s->peer_id))
        return false;
    if (m->cluster.n) {
        const struct ep_route *route = ep_stream_route(s);
        return route && ep_str_glob(m->cluster, route->config->cluster);
    }
    return true;
}

/* --- the fault --- */

/* Takes a place in the radius. The counts that the choice was made by may be old by now: these are the limits. */
static bool reserve(struct ep_chaos_experiment *x)
{
    struct ep_chaos_run *run = &x->run;

    if (atomic_fetch_add(&run->concurrent, 1) >= (uint64_t)x->radius.concurrent) {
        atomic_fetch_sub(&run->concurrent, 1);
        return false;
    }
    if (atomic_fetch_add(&run->injected, 1) >= (uint64_t)x->radius.total) {
        atomic_fetch_sub(&run->injected, 1);
        atomic_fetch_sub(&run->concurrent, 1);
        return false;
    }
    return true;
}

static struct ep_chaos_choice choose(struct ep_chaos_experiment *x)
{
    struct ep_chaos_run *run = &x->run;
    struct ep_chaos_counts counts = {
        .seen = atomic_fetch_add(&run->seen, 1),
        .injected = atomic_load(&run->injected),
        .concurrent = atomic_load(&run->concurrent),
    };

    return ep_chaos_choose(x, ep_clock_ns() - atomic_load(&run->started_ns), &counts);
}

static bool audit(struct ep_stream *s, const struct ep_chaos_experiment *x)
{
    return ep_stream_audit(s, &(struct ep_decision){.event = "chaos",
                                                    .decision = "inject",
                                                    .reason = x->because,
                                                    .more = {.key = "experiment", .value = x->name}});
}

/* For x-ephor-fault. Always the same space, so that `identity` finds it. */
static void mark(struct ep_stream *s, const struct ep_chaos_experiment *x, const char *fault)
{
    struct ep_tag *t = EP_ARENA_NEW(&s->arena, struct ep_tag);

    s->fault_injected = true;
    s->response_flag = x->fault.abort ? "FI" : "DI";
    *t = (struct ep_tag){.next = s->tags,
                         .space = EP_STR("ephor.chaos"),
                         .key = ep_arena_printf(&s->arena, "%.*s; %s", EP_STR_ARG(x->name), fault),
                         .value = EP_STR("true")};
    s->tags = t;
}

static void refuse(struct ep_stream *s, const struct ep_chaos_experiment *x)
{
    const struct ep_chaos_abort *a = x->fault.abort;

    ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_FAULT,
                                             .policy = EP_STR("chaos"),
                                             .code = "chaos.abort",
                                             .status = (unsigned)a->status,
                                             .grpc_status = a->grpc_status ? (int)a->grpc_status : -1,
                                             .jsonrpc_code = (int)a->jsonrpc_code});
}

static void on_delayed(struct ep_timer *t)
{
    struct state *state = EP_CONTAINER(t, struct state, timer);

    if (state->hit->fault.abort)
        refuse(state->s, state->hit);
    else
        ep_stream_resume_request(state->s);
}

static enum ep_step inject(struct ep_stream *s, struct state *state, struct experiment *e, uint64_t delay_ns)
{
    struct ep_chaos_experiment *x = e->x;
    bool aborts = x->fault.abort != NULL;

    state->s = s;
    state->hit = x;
    mark(s, x, aborts ? delay_ns ? "delay, abort" : "abort" : "delay");
    if (delay_ns && e->delays)
        ep_cell_add(e->delays, 1);
    if (aborts && e->aborts)
        ep_cell_add(e->aborts, 1);
    if (atomic_load(&x->run.injected) % AUDIT_ONE_IN == 1 && !audit(s, x))
        return EP_REPLIED;
    if (delay_ns) {
        ep_timer_init(&state->timer, on_delayed);
        ep_worker_timer(s->worker, &state->timer, delay_ns);
        return EP_WAIT;
    }
    if (!aborts)
        return EP_NEXT;
    refuse(s, x);
    return EP_REPLIED;
}

static enum ep_step request_headers(struct ep_stream *s, void *state, bool end)
{
    struct chaos *c = ep_filter_data(s);

    (void)end;
    for (size_t i = 0; i < c->n; i++) {
        struct ep_chaos_experiment *x = c->v[i].x;
        struct ep_chaos_choice choice;
        if (!matches(x, s))
            continue;
        choice = choose(x);
        if (choice.verdict == EP_CHAOS_HIT && reserve(x))
            return inject(s, state, &c->v[i], choice.delay_ns);
    }
    return EP_NEXT;
}

static void finish(struct ep_stream *s, void *state_)
{
    struct state *state = state_;

    if (!state->hit)
        return;
    if (state->timer.fire)
        ep_worker_timer_stop(s->worker, &state->timer);
    atomic_fetch_sub(&state->hit->run.concurrent, 1);
    state->hit = NULL;
}

const struct ep_filter ep_filter_chaos = {
    .name = "chaos",
    .help = "Injects delays and aborts into a share of requests, within a blast radius; off unless enabled.",
    .schema = &ep_chaos_schema,
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .finish = finish,
};
