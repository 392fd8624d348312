/* Active probes: each worker asks each endpoint in turn whether it is well.
 *
 * An HTTP probe is a GET over a connection of its own, spoken as requests would be; a TCP probe is the connection (and
 * the handshake) alone. A fresh connection each time also finds a server that answers old friends and accepts no new
 * ones. So many results in a row change the state, so that one lost packet doesn't. The end of a probe
 * is left to a task: it lets go of the leg, which must not happen inside its events. */
#include <stdlib.h>

#include "upstream/cluster.h"

struct ep_probe {
    struct ep_endpoint *endpoint; /* a reference while `conn` or `leg` is there */
    struct ep_timer timer;        /* to the next one, or the deadline of the one under way */
    struct ep_task task;
    struct ep_conn *conn;
    struct ep_leg *leg;
    struct ep_arena arena;
    struct ep_headers request;
    bool running, stopped;
    bool verdict, judged;
    enum ep_speak want;
    int tls;
    uint32_t good, bad; /* in a row */
};

static void start_next(struct ep_probe *p, uint64_t base_ns)
{
    struct ep_worker *w = p->endpoint->cluster->worker;

    ep_worker_timer(w, &p->timer, base_ns - base_ns / 10 + ep_rng_below(&w->rng, base_ns / 5 + 1));
}

/* The probe has its result, and ends after the events of this turn. */
static void judge(struct ep_probe *p, bool good)
{
    if (!p->judged)
        p->verdict = good;
    p->judged = true;
    ep_worker_defer(p->endpoint->cluster->worker, &p->task);
}

static void apply(struct ep_probe *p)
{
    struct ep_endpoint *e = p->endpoint;
    struct ep_cluster *cl = e->cluster;
    bool down = e->probed_down;

    ep_cell_add(ep_cluster_cell(cl, EP_METRIC_PROBES, EP_LABELS(cl->config.name, ep_str(p->verdict ? "ok" : "failed"))),
                1);
    p->good = p->verdict ? p->good + 1 : 0;
    p->bad = p->verdict ? 0 : p->bad + 1;
    if (down && p->good >= cl->config.probe.healthy)
        down = false;
    else if (!down && p->bad >= cl->config.probe.unhealthy)
        down = true;
    if (down == e->probed_down)
        return;
    e->probed_down = down;
    ep_warn("upstream", "cluster %.*s: endpoint %s is %s by its probes", EP_STR_ARG(cl->config.name), e->name,
            down ? "down" : "well again");
    ep_endpoint_show_health(e);
    ep_members_changed(cl);
}

static void probe_free(struct ep_probe *p)
{
    assert(!p->conn && !p->leg);
    p->endpoint->probe = NULL;
    ep_worker_timer_stop(p->endpoint->cluster->worker, &p->timer);
    ep_list_remove(&p->task.node);
    free(p);
}

static void on_task(struct ep_task *t)
{
    struct ep_probe *p = EP_CONTAINER(t, struct ep_probe, task);
    struct ep_endpoint *e = p->endpoint;

    if (p->leg) {
        p->leg->ops->release(p->leg);
        p->leg = NULL;
        ep_headers_fini(&p->request);
    }
    if (p->conn) {
        ep_conn_abort(p->conn, EP_CLOSE_LOCAL, false);
        return; /* on_closed comes back here */
    }
    ep_arena_fini(&p->arena);
    p->running = false;
    if (!p->stopped) {
        apply(p);
        start_next(p, e->cluster->config.probe.interval_ns);
    } else {
        probe_free(p);
    }
    ep_endpoint_unref(e);
}

/* --- HTTP --- */

static void on_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    uint64_t status = 0;

    (void)end;
    ep_str_u64(ep_headers_get_id(h, EP_HDR_STATUS), &status);
    judge(l->owner, status >= 200 && status < 400);
}

static void on_body(struct ep_leg *l, struct ep_slice s, bool end)
{
    (void)end;
    l->ops->consumed(l, s.n);
}

static void on_trailers(struct ep_leg *l, struct ep_headers *h)
{
    (void)l, (void)h;
}

static void on_sent(struct ep_leg *l, size_t n)
{
    (void)l, (void)n;
}

static void on_reset(struct ep_leg *l, enum ep_reset why)
{
    (void)why;
    judge(l->owner, false);
}

static const struct ep_leg_events leg_events = {
    .on_headers = on_headers,
    .on_data = on_body,
    .on_trailers = on_trailers,
    .on_sent = on_sent,
    .on_reset = on_reset,
};

static void gone(struct ep_probe *p)
{
    p->conn = NULL;
    judge(p, false);
}

static void on_client_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    (void)c, (void)why;
    gone(user);
}

static void on_client_event(void *user, struct ep_conn *c)
{
    (void)user, (void)c;
}

static const struct ep_client_events client_events = {
    .on_capacity = on_client_event,
    .on_idle = on_client_event,
    .on_closed = on_client_closed,
};

static void ask(struct ep_probe *p, enum ep_speak speaks)
{
    struct ep_cluster *cl = p->endpoint->cluster;
    struct ep_str authority = cl->config.dns.n                              ? cl->config.dns
                              : p->endpoint->addr.u.sa.sa_family == AF_UNIX ? EP_STR("localhost")
                                                                            : ep_endpoint_name(p->endpoint);

    if (speaks == EP_SPEAK_H2) {
        ep_h2_client(p->conn, &cl->http, &client_events, p);
        p->leg = ep_h2_open(p->conn);
    } else {
        ep_h1_client(p->conn, &cl->http, &client_events, p);
        p->leg = ep_h1_open(p->conn);
    }
    if (!p->leg) {
        judge(p, false);
        return;
    }
    p->leg->events = &leg_events;
    p->leg->owner = p;
    p->leg->arena = &p->arena;
    ep_headers_init(&p->request, &p->arena);
    ep_headers_append(&p->request, EP_HDR_METHOD, ep_header_name(EP_HDR_METHOD), EP_STR("GET"));
    ep_headers_append(&p->request, EP_HDR_SCHEME, ep_header_name(EP_HDR_SCHEME),
                      p->tls == EP_UPTLS_OFF ? EP_STR("http") : EP_STR("https"));
    ep_headers_append(&p->request, EP_HDR_AUTHORITY, ep_header_name(EP_HDR_AUTHORITY), authority);
    ep_headers_append(&p->request, EP_HDR_PATH, ep_header_name(EP_HDR_PATH), cl->config.probe.path);
    ep_headers_add(&p->request, EP_STR("user-agent"), EP_STR("ephor-probe/" EPHOR_VERSION));
    p->leg->ops->headers(p->leg, &p->request, true);
}

/* --- the connection, until its codec takes it --- */

static void on_ready(struct ep_conn *c)
{
    struct ep_probe *p = c->user;
    struct ep_cluster *cl = p->endpoint->cluster;
    enum ep_upstream_failure why;
    enum ep_speak speaks;

    if (!ep_dial_accept(cl, c, p->want, p->tls, &speaks, &why)) {
        ep_debug("probe", "cluster %.*s: %s: %s", EP_STR_ARG(cl->config.name), p->endpoint->name, c->error_text);
        judge(p, false);
    } else if (cl->config.probe.tcp) {
        judge(p, true);
    } else {
        ask(p, speaks);
    }
}

static void on_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *b, size_t n)
{
    (void)c, (void)slab, (void)b, (void)n;
}

static void on_closed(struct ep_conn *c, enum ep_close why)
{
    struct ep_probe *p = c->user;

    ep_debug("probe", "cluster %.*s: %s: %s", EP_STR_ARG(p->endpoint->cluster->config.name), p->endpoint->name,
             c->error_text[0] ? c->error_text : ep_close_name(why));
    gone(p);
}

static const struct ep_conn_handler handler = {
    .name = "probe",
    .on_ready = on_ready,
    .on_data = on_data,
    .on_closed = on_closed,
};

static void run(struct ep_probe *p)
{
    struct ep_endpoint *e = p->endpoint;
    struct ep_cluster *cl = e->cluster;
    const struct ep_cluster_config *c = &cl->config;
    struct ep_tls_context *context = NULL;
    struct ep_str name = c->tls.sni;
    uint16_t port;

    if (!name.n && c->dns.n)
        ep_cluster_dns_parse(c->dns, &name, &port);
    p->tls = ep_lane_tls(e, name);
    p->want = c->probe.tcp                                            ? EP_SPEAK_TCP
              : c->protocol == EP_PROTO_H2 || p->tls == EP_UPTLS_MESH ? EP_SPEAK_H2
                                                                      : EP_SPEAK_HTTP1;
    p->running = true;
    p->judged = false;
    ep_arena_init(&p->arena, &cl->worker->chunks);
    ep_endpoint_ref(e);
    if (p->tls != EP_UPTLS_OFF) {
        context = ep_dial_context(cl, p->want, p->tls);
        if (!context) {
            judge(p, false);
            return;
        }
    }
    ep_worker_timer(cl->worker, &p->timer, c->probe.timeout_ns);
    p->conn = ep_conn_connect(cl->worker, &e->addr, NULL, c->probe.timeout_ns, context, name, &handler, p);
}

static void on_timer(struct ep_timer *t)
{
    struct ep_probe *p = EP_CONTAINER(t, struct ep_probe, timer);

    if (p->running)
        judge(p, false);
    else
        run(p);
}

void ep_probe_start(struct ep_endpoint *e)
{
    struct ep_cluster *cl = e->cluster;
    struct ep_probe *p;

    if ((!cl->config.probe.path.n && !cl->config.probe.tcp) || e->loop)
        return;
    p = ep_calloc(1, sizeof *p);
    p->endpoint = e;
    ep_timer_init(&p->timer, on_timer);
    ep_task_init(&p->task, on_task);
    e->probe = p;
    start_next(p, EP_MIN(cl->config.probe.interval_ns, (uint64_t)EP_S) / 10); /* soon, and not all at once */
}

void ep_probe_stop(struct ep_endpoint *e)
{
    struct ep_probe *p = e->probe;

    if (!p)
        return;
    if (!p->running) {
        probe_free(p);
        return;
    }
    p->stopped = true;
    judge(p, false);
}
