/* Lanes: what requests of one kind share at one endpoint, and the queue of those that wait there.
 *
 * How many connections the waiters are worth depends on the protocol: h2 carries a hundred and more on one, so one is
 * dialled at a time; http/1.1 and tcp carry one each, so each waiter is worth one dial, and no more. */
#include <stdlib.h>

#include "upstream/cluster.h"

#define STREAMS_GUESS 100u /* of an h2 connection whose SETTINGS we haven't seen */

/* The host part of an authority: without its port. */
static struct ep_str host_of(struct ep_str authority)
{
    ptrdiff_t colon;

    if (authority.n && authority.p[0] == '[') {
        ptrdiff_t end = ep_str_find(authority, ']', 0);
        return end > 1 ? ep_str_n(authority.p + 1, (size_t)end - 1) : authority;
    }
    colon = ep_str_find(authority, ':', 0);
    if (colon >= 0 && ep_str_find(authority, ':', (size_t)colon + 1) < 0)
        return ep_str_n(authority.p, (size_t)colon);
    return authority; /* no port, or an IPv6 address without brackets */
}

int ep_lane_tls(const struct ep_endpoint *e, struct ep_str server_name)
{
    const struct ep_cluster *cl = e->cluster;
    const struct ep_str *globs = cl->mesh.hosts.v;
    struct ep_str host;

    if (cl->config.tls.mode != EP_UPTLS_AUTO)
        return cl->config.tls.mode;
    if (e->in_mesh || cl->dns_in_mesh)
        return EP_UPTLS_MESH;
    /* The app beside us, whatever name it was called by: inbound requests carry the names of the mesh too. */
    if (e->local || !cl->mesh.hosts.n || !server_name.n)
        return EP_UPTLS_OFF;
    host = host_of(server_name);
    for (size_t i = 0; i < cl->mesh.hosts.n; i++)
        if (ep_str_glob(globs[i], host))
            return EP_UPTLS_MESH;
    return EP_UPTLS_OFF;
}

static enum ep_speak wanted(const struct ep_endpoint *e, const struct ep_upstream_call *c, int tls)
{
    const struct ep_cluster *cl = e->cluster;

    if (c->tunnel || cl->config.protocol == EP_PROTO_TCP)
        return EP_SPEAK_TCP;
    if (cl->config.protocol == EP_PROTO_H2 || tls == EP_UPTLS_MESH)
        return EP_SPEAK_H2; /* between two ephors always h2: DESIGN.md section 10 */
    if (cl->config.protocol == EP_PROTO_HTTP1)
        return EP_SPEAK_HTTP1;
    return c->downstream_version == EP_HTTP_2 && e->http1_until_ns <= cl->worker->now_ns ? EP_SPEAK_H2 : EP_SPEAK_HTTP1;
}

/* The name for SNI: configured, of the request, of DNS. */
static struct ep_str sni_of(const struct ep_cluster *cl, const struct ep_upstream_call *c)
{
    struct ep_str host = {NULL, 0};
    uint16_t port;

    if (cl->config.tls.sni.n)
        return cl->config.tls.sni;
    if (c->server_name.n)
        return host_of(c->server_name);
    if (cl->config.dns.n && ep_cluster_dns_parse(cl->config.dns, &host, &port))
        return host_of(host);
    return host;
}

static struct ep_lane *lane_new(struct ep_endpoint *e, enum ep_speak want, int tls, struct ep_str sni,
                                struct ep_tls_origin *origin)
{
    unsigned n = 0;
    struct ep_lane *l;

    EP_LIST_FOREACH(node, &e->lanes)
    ep_lane_unused(EP_CONTAINER(node, struct ep_lane, node));
    EP_LIST_FOREACH(node, &e->lanes)
    n++;
    for (struct ep_list *node = e->lanes.prev; n >= EP_LANES_MAX && node != &e->lanes;) {
        struct ep_lane *old = EP_CONTAINER(node, struct ep_lane, node);
        node = node->prev;
        if (old->n_waiting || old->n_dialing || !ep_list_empty(&old->others))
            continue;
        ep_lane_retire(old); /* idle: it goes when its connections are closed */
        break;
    }
    if (n >= 2 * EP_LANES_MAX)
        return NULL;
    l = ep_calloc(1, sizeof *l);
    l->endpoint = e;
    l->want = l->speaks = want;
    l->streams = STREAMS_GUESS;
    l->tls = tls;
    l->origin = origin ? ep_tls_origin_ref(origin) : NULL;
    l->sni = sni.n ? ep_str_n(ep_strndup(sni.p, sni.n), sni.n) : (struct ep_str){NULL, 0};
    ep_list_init(&l->ready);
    ep_list_init(&l->idle);
    ep_list_init(&l->others);
    ep_list_init(&l->waiters);
    ep_list_push_front(&e->lanes, &l->node);
    return l;
}

struct ep_lane *ep_lane_for(struct ep_endpoint *e, const struct ep_upstream_call *c)
{
    const struct ep_cluster *cl = e->cluster;
    int tls = ep_lane_tls(e, c->server_name);
    /* What was TLS when it came, or must be when it goes, is never sent on as plain text. */
    struct ep_tls_origin *origin = tls == EP_UPTLS_OFF ? c->origin : NULL;
    if (origin)
        tls = EP_UPTLS_SIMPLE;
    enum ep_speak want = wanted(e, c, tls);
    bool by_name = tls == EP_UPTLS_SIMPLE && (origin || !cl->config.tls.sni.n); /* the certificate is checked for that name */
    struct ep_str none = {NULL, 0}, sni = origin ? c->server_name : tls == EP_UPTLS_OFF ? none : sni_of(cl, c);

    EP_LIST_FOREACH(n, &e->lanes)
    {
        struct ep_lane *l = EP_CONTAINER(n, struct ep_lane, node);
        if (l->want == want && l->tls == tls && l->origin == origin && (!by_name || ep_str_caseeq(l->sni, sni)))
            return l;
    }
    return lane_new(e, want, tls, sni, origin);
}

void ep_lane_free(struct ep_lane *l)
{
    ep_list_remove(&l->node);
    ep_tls_origin_unref(l->origin);
    free((void *)(uintptr_t)l->sni.p);
    free(l);
}

void ep_lane_unused(struct ep_lane *l)
{
    bool by_name = l->tls == EP_UPTLS_SIMPLE && (l->origin || !l->endpoint->cluster->config.tls.sni.n);

    /* Only lanes by server name can become many; the few others are kept for the next request. */
    if (l->n_conns == 0 && l->n_waiting == 0 && by_name)
        ep_lane_free(l);
}

struct ep_leg *ep_lane_open(struct ep_lane *l, const struct ep_upstream_call *c, struct ep_upconn **out)
{
    struct ep_leg *leg = NULL;

    if (EP_LIKELY(!ep_list_empty(&l->ready)))
        leg = ep_pool_h2_open(l, c, out);
    if (!leg && !*out && !ep_list_empty(&l->idle))
        leg = ep_pool_h1_open(l, out);
    return leg;
}

void ep_lane_pump(struct ep_lane *l)
{
    for (;;) {
        bool h2 = l->speaks == EP_SPEAK_H2;
        uint32_t worth = h2 ? (l->n_waiting + l->streams - 1) / l->streams : l->n_waiting;

        if ((h2 ? ep_pool_h2_coming(l) : l->n_dialing) >= worth || !ep_dial(l))
            return;
    }
}

void ep_lane_fail_waiters(struct ep_lane *l, enum ep_upstream_failure why, bool all)
{
    do {
        if (ep_list_empty(&l->waiters))
            return;
        ep_call_fail(EP_CONTAINER(l->waiters.next, struct ep_upstream_call, node), why);
    } while (all);
}

void ep_upconn_retire(struct ep_upconn *u)
{
    struct ep_lane *l = u->lane;

    if (u->retired)
        return;
    u->retired = true;
    switch (u->state) {
    case EP_UPCONN_DIALING:
        if (l->n_waiting == 0)
            ep_conn_abort(u->conn, EP_CLOSE_LOCAL, false);
        break;
    case EP_UPCONN_READY:
        ep_list_remove(&u->node);
        ep_list_push(&l->others, &u->node);
        ep_codec_drain(u->conn, 0); /* closes when its last stream ends */
        break;
    case EP_UPCONN_IDLE:
        ep_list_remove(&u->node);
        ep_list_push(&l->others, &u->node);
        ep_conn_close(u->conn);
        break;
    case EP_UPCONN_BUSY: /* closed when it becomes idle */
        break;
    }
}

void ep_lane_retire(struct ep_lane *l)
{
    struct ep_list *const lists[] = {&l->ready, &l->idle, &l->others};

    for (size_t i = 0; i < EP_COUNT(lists); i++) {
        struct ep_list batch;

        ep_list_init(&batch);
        ep_list_splice(&batch, lists[i]);
        for (struct ep_list *n; (n = ep_list_pop(&batch));) {
            struct ep_upconn *u = EP_CONTAINER(n, struct ep_upconn, node);
            ep_list_push(&l->others, n);
            ep_upconn_retire(u);
        }
    }
}

static bool evict_from(struct ep_lane *l)
{
    struct ep_upconn *u = NULL;

    if (!ep_list_empty(&l->idle)) {
        u = EP_CONTAINER(l->idle.prev, struct ep_upconn, node); /* the one idle for the longest time */
    } else {
        EP_LIST_FOREACH(n, &l->ready)
        {
            struct ep_upconn *at = EP_CONTAINER(n, struct ep_upconn, node);
            if (ep_h2_streams(at->conn) == 0)
                u = at;
        }
    }
    if (!u)
        return false;
    ep_upconn_retire(u);
    if (u->counted) { /* its place is free now, though it closes at the end of the turn */
        u->counted = false;
        ep_breaker_give(&l->endpoint->cluster->breaker, EP_BREAKER_CONNECTIONS);
    }
    return true;
}

bool ep_lane_evict(struct ep_cluster *cl)
{
    EP_LIST_FOREACH(n, &cl->endpoints)
    {
        struct ep_endpoint *e = EP_CONTAINER(n, struct ep_endpoint, node);
        EP_LIST_FOREACH(m, &e->lanes)
        if (evict_from(EP_CONTAINER(m, struct ep_lane, node)))
            return true;
    }
    return false;
}
