/* Dialling: a connection from the first SYN to the codec that takes it over, and its end.
 *
 * A connection belongs to `dial_handler` until it is ready; only then is it known, under TLS, which protocol was agreed
 * on and who the peer is. */
#include <errno.h>

#include "net/alpn.h"
#include "upstream/cluster.h"

#define HTTP1_NS (5 * 60 * EP_S) /* that who understood no HTTP/2 is asked in HTTP/1.1 */

enum ep_dial_result { DIAL_OK, DIAL_REFUSED, DIAL_TIMEOUT, DIAL_TLS };

static void count(struct ep_cluster *cl, enum ep_dial_result r)
{
    static const char *const names[] = {"ok", "refused", "timeout", "tls"};

    if (!cl->cell_connect[r])
        cl->cell_connect[r] =
            ep_cluster_cell(cl, EP_METRIC_UPSTREAM_CONNECTIONS, EP_LABELS(cl->config.name, ep_str(names[r])));
    ep_cell_add(cl->cell_connect[r], 1);
}

/* --- TLS contexts --- */

/* What simple TLS offers by ALPN for a want; h2 under `protocol: auto` leaves the choice to the server. */
static const char *const offers[EP_SPEAK_COUNT + 1][3] = {
    [EP_SPEAK_H2] = {EP_ALPN_H2, NULL},
    [EP_SPEAK_HTTP1] = {EP_ALPN_HTTP1, NULL},
    [EP_SPEAK_TCP] = {NULL},
    [EP_SPEAK_COUNT] = {EP_ALPN_H2, EP_ALPN_HTTP1, NULL},
};

/* The same where the call brings what its host is verified with. */
static const enum ep_tls_offer origin_offers[EP_SPEAK_COUNT] = {
    [EP_SPEAK_H2] = EP_TLS_OFFER_H2,
    [EP_SPEAK_HTTP1] = EP_TLS_OFFER_HTTP1,
    [EP_SPEAK_TCP] = EP_TLS_OFFER_NOTHING,
};

static size_t offer_of(const struct ep_cluster *cl, enum ep_speak want)
{
    return want == EP_SPEAK_H2 && cl->config.protocol == EP_PROTO_AUTO ? EP_SPEAK_COUNT : (size_t)want;
}

static bool simple_context(struct ep_cluster *cl, size_t offer, struct ep_error *err)
{
    struct ep_tls_options o = {
        .verify = EP_TLS_VERIFY_NAME,
        .roots_pem = cl->roots_pem,
        .alpn = offers[offer][0] ? offers[offer] : NULL,
    };

    if (!cl->simple[offer])
        cl->simple[offer] = ep_tls_context_new(&o, err);
    return cl->simple[offer] != NULL;
}

bool ep_dial_simple_context(struct ep_cluster *cl, struct ep_error *err)
{
    static const enum ep_speak first[] = {
        [EP_PROTO_AUTO] = EP_SPEAK_H2,
        [EP_PROTO_H2] = EP_SPEAK_H2,
        [EP_PROTO_HTTP1] = EP_SPEAK_HTTP1,
        [EP_PROTO_TCP] = EP_SPEAK_TCP,
    };

    return simple_context(cl, offer_of(cl, first[cl->config.protocol]), err);
}

struct ep_tls_context *ep_dial_context(struct ep_cluster *cl, enum ep_speak want, int tls)
{
    struct ep_tls_context *context = NULL;
    struct ep_error err = {{0}};

    if (tls == EP_UPTLS_SIMPLE) {
        size_t offer = offer_of(cl, want);
        if (!simple_context(cl, offer, &err) && ep_cluster_may_warn(cl))
            ep_warn("upstream", "cluster %.*s: %s", EP_STR_ARG(cl->config.name), err.text);
        return cl->simple[offer];
    }
    if (want == EP_SPEAK_TCP && cl->mesh_tcp_context)
        context = cl->mesh_tcp_context(cl->mesh_user);
    else if (cl->mesh_context)
        context = cl->mesh_context(cl->mesh_user);
    if (!context && ep_cluster_may_warn(cl))
        ep_warn("upstream", "cluster %.*s: no identity: the mesh can't be called before there is one",
                EP_STR_ARG(cl->config.name));
    return context;
}

/* --- what a connection turned out to be --- */

static bool peer_accepted(const struct ep_cluster *cl, const struct ep_tls_info *info)
{
    const struct ep_str *globs = cl->config.tls.peers.v;

    if (!info->peer_id.n)
        return false;
    for (size_t i = 0; i < cl->config.tls.peers.n; i++)
        if (ep_str_glob(globs[i], info->peer_id))
            return true;
    return cl->config.tls.peers.n == 0;
}

bool ep_dial_accept(struct ep_cluster *cl, struct ep_conn *conn, enum ep_speak want, int tls, enum ep_speak *speaks,
                    enum ep_upstream_failure *why)
{
    const struct ep_tls_info *info = ep_conn_tls_info(conn);

    *speaks = want;
    if (tls == EP_UPTLS_OFF)
        return true;
    *why = EP_UPSTREAM_TLS;
    if (!info) {
        snprintf(conn->error_text, sizeof conn->error_text, "not a TLS connection");
        return false;
    }
    if (tls == EP_UPTLS_MESH && !peer_accepted(cl, info)) {
        snprintf(conn->error_text, sizeof conn->error_text, "peer %.*s isn't one of tls.peers",
                 (int)EP_MIN(info->peer_id.n, (size_t)80), info->peer_id.n ? info->peer_id.p : "");
        return false;
    }
    *why = EP_UPSTREAM_PROTOCOL;
    if (want == EP_SPEAK_TCP) {
        if (!info->alpn.n || ep_str_eq(info->alpn, ep_str(EP_ALPN_TCP)))
            return true;
    } else if (ep_str_eq(info->alpn, ep_str(EP_ALPN_H2))) {
        *speaks = EP_SPEAK_H2;
        return true;
    } else if (!info->alpn.n || ep_str_eq(info->alpn, ep_str(EP_ALPN_HTTP1))) {
        /* RFC 9113 section 3.3: h2 over TLS is agreed on by ALPN; a server that knows no ALPN speaks HTTP/1.1. */
        *speaks = EP_SPEAK_HTTP1;
        if (cl->config.protocol != EP_PROTO_H2)
            return true;
    }
    snprintf(conn->error_text, sizeof conn->error_text, "the server agreed on \"%.*s\"",
             (int)EP_MIN(info->alpn.n, (size_t)32), info->alpn.n ? info->alpn.p : "");
    return false;
}

enum ep_upstream_failure ep_dial_failure(enum ep_close why)
{
    switch (why) {
    case EP_CLOSE_TIMEOUT:
        return EP_UPSTREAM_CONNECT_TIMEOUT;
    case EP_CLOSE_TLS:
        return EP_UPSTREAM_TLS;
    default:
        return EP_UPSTREAM_CONNECT;
    }
}

/* --- the connection --- */

static void count_handshake(struct ep_cluster *cl, const struct ep_tls_info *tls)
{
    if (tls && cl->worker->stats)
        ep_stats_add(cl->worker->stats, EP_METRIC_TLS_HANDSHAKES,
                     EP_LABELS(EP_STR("client"), tls->resumed ? EP_STR("resumed") : EP_STR("ok"), tls->version), 1);
}

static void on_ready(struct ep_conn *conn)
{
    struct ep_upconn *u = conn->user;
    struct ep_lane *l = u->lane;
    struct ep_cluster *cl = l->endpoint->cluster;

    if (!ep_dial_accept(cl, conn, l->want, l->tls, &u->speaks, &u->failure)) {
        u->refused = true;
        ep_conn_abort(conn, EP_CLOSE_TLS, false); /* on_closed does the rest */
        return;
    }
    count(cl, DIAL_OK);
    count_handshake(cl, ep_conn_tls_info(conn));
    l->n_dialing--;
    l->speaks = u->speaks;
    u->state = EP_UPCONN_BUSY;
    u->fresh = true;
    u->bytes_at_ready = conn->bytes_in;
    if (u->speaks == EP_SPEAK_H2)
        ep_pool_h2_start(u);
    else if (u->speaks == EP_SPEAK_HTTP1)
        ep_pool_h1_start(u);
    else
        ep_pool_tcp_start(u);
}

static void on_data(struct ep_conn *conn, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    (void)conn, (void)slab, (void)p, (void)n; /* it was refused by on_ready and closes */
}

/* What this machine is short of is no fault of the endpoint. */
static bool ours(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == EADDRNOTAVAIL;
}

/* Why, to those whom it may end. */
static void tell_waiters(struct ep_lane *l, const char *text)
{
    EP_LIST_FOREACH(n, &l->waiters)
    {
        struct ep_upstream_call *c = EP_CONTAINER(n, struct ep_upstream_call, node);
        snprintf(c->why, sizeof c->why, "%.*s", (int)sizeof c->why - 1, text);
    }
}

static void dial_failed(struct ep_upconn *u, enum ep_close why)
{
    struct ep_lane *l = u->lane;
    struct ep_endpoint *e = l->endpoint;
    struct ep_cluster *cl = e->cluster;
    enum ep_upstream_failure failure = u->refused ? u->failure : ep_dial_failure(why);
    const char *text = u->conn->error_text[0] ? u->conn->error_text : ep_close_name(why);

    l->n_dialing--;
    if (why == EP_CLOSE_LOCAL && u->retired)
        return; /* we took it back ourselves */
    count(cl, failure == EP_UPSTREAM_CONNECT           ? DIAL_REFUSED
              : failure == EP_UPSTREAM_CONNECT_TIMEOUT ? DIAL_TIMEOUT
                                                       : DIAL_TLS);
    if (failure == EP_UPSTREAM_TLS && cl->worker->stats)
        ep_stats_add(cl->worker->stats, EP_METRIC_TLS_HANDSHAKES, EP_LABELS(EP_STR("client"), EP_STR("failed"), EP_STR("")), 1);
    if (failure == EP_UPSTREAM_CONNECT)
        ep_debug("upstream", "cluster %.*s: %s: %s", EP_STR_ARG(cl->config.name), e->name, text);
    else if (ep_cluster_may_warn(cl))
        ep_warn("upstream", "cluster %.*s: %s: %s: %s", EP_STR_ARG(cl->config.name), e->name,
                ep_upstream_failure_name(failure), text);
    if (!ours(u->conn->error)) {
        ep_load_observe_failure(&e->load, 0, cl->worker->now_ns);
        ep_endpoint_judge(e, true);
    }
    if (failure == EP_UPSTREAM_TLS)
        tell_waiters(l, text);
    /* Waiters of a full h2 connection go on waiting for it; all others waited for this dial. */
    if (l->speaks != EP_SPEAK_H2)
        ep_lane_fail_waiters(l, failure, false);
    else if (ep_list_empty(&l->ready) && l->n_dialing == 0)
        ep_lane_fail_waiters(l, failure, true);
}

void ep_upconn_gone(struct ep_upconn *u)
{
    struct ep_lane *l = u->lane;
    struct ep_endpoint *e = l->endpoint;
    struct ep_cluster *cl = e->cluster;
    bool was_up = u->state != EP_UPCONN_DIALING;

    ep_list_remove(&u->node);
    if (u->counted)
        ep_breaker_give(&cl->breaker, EP_BREAKER_CONNECTIONS);
    ep_cell_add(cl->cell_active, UINT64_MAX);
    l->n_conns--;
    ep_mem_free(&cl->worker->mem, u);
    if (was_up)
        ep_lane_pump(l); /* its waiters need another */
    ep_lane_unused(l);
    ep_endpoint_unref(e);
}

static void on_closed(struct ep_conn *conn, enum ep_close why)
{
    struct ep_upconn *u = conn->user;

    dial_failed(u, why);
    ep_upconn_gone(u);
}

static const struct ep_conn_handler dial_handler = {
    .name = "dial",
    .on_ready = on_ready,
    .on_data = on_data,
    .on_closed = on_closed,
};

static bool take_place(struct ep_lane *l)
{
    struct ep_cluster *cl = l->endpoint->cluster;
    struct ep_breaker *b = &cl->breaker;

    if (b->now[EP_BREAKER_CONNECTIONS] < b->limit[EP_BREAKER_CONNECTIONS] || ep_lane_evict(cl))
        return ep_breaker_take(b, EP_BREAKER_CONNECTIONS);
    if (l->n_conns == 0 && l->n_waiting) { /* nobody will ever come back to serve them */
        b->overflows[EP_BREAKER_CONNECTIONS]++;
        ep_call_count_overflow(cl, EP_BREAKER_CONNECTIONS);
        ep_lane_fail_waiters(l, EP_UPSTREAM_OVERFLOW, true);
    }
    return false;
}

bool ep_dial(struct ep_lane *l)
{
    struct ep_endpoint *e = l->endpoint;
    struct ep_cluster *cl = e->cluster;
    struct ep_tls_context *context = NULL;
    struct ep_str name = l->sni;
    struct ep_upconn *u;
    char host[128];

    if (l->tls != EP_UPTLS_OFF) {
        context = l->origin ? l->origin->context[origin_offers[l->want]] : ep_dial_context(cl, l->want, l->tls);
        if (!context) {
            ep_lane_fail_waiters(l, EP_UPSTREAM_TLS, true);
            return false;
        }
        if (!name.n && l->tls == EP_UPTLS_SIMPLE) { /* verified as the address that it is */
            struct ep_addr bare = e->addr;
            int n;

            ep_addr_set_port(&bare, 0);
            n = ep_addr_format(&bare, host);
            name = ep_str_n(host, (size_t)EP_MAX(n, 0));
            if (ep_str_ends(name, EP_STR(":0")))
                name.n -= 2;
            if (name.n > 2 && name.p[0] == '[')
                name = ep_str_n(name.p + 1, name.n - 2);
        }
    }
    if (!take_place(l))
        return false;
    u = ep_mem_calloc(&cl->worker->mem, 1, sizeof *u);
    assert(u);
    u->lane = l;
    u->state = EP_UPCONN_DIALING;
    u->counted = true;
    ep_list_push(&l->others, &u->node);
    l->n_conns++;
    l->n_dialing++;
    ep_endpoint_ref(e);
    ep_cell_add(cl->cell_active, 1);
    u->conn =
        ep_conn_connect(cl->worker, &e->addr, NULL, cl->config.connect_timeout_ns, context, name, &dial_handler, u);
    return true;
}

/* --- the codecs' view of the pool --- */

static void client_capacity(void *user, struct ep_conn *conn)
{
    struct ep_upconn *u = user;

    (void)conn;
    if (u->speaks == EP_SPEAK_H2)
        ep_pool_h2_on_capacity(u);
}

static void client_idle(void *user, struct ep_conn *conn)
{
    struct ep_upconn *u = user;

    (void)conn;
    if (u->speaks == EP_SPEAK_HTTP1)
        ep_pool_h1_serve(u);
}

/* Endpoints of a cluster are alike, but for those that callers chose: none of the others need be asked in vain. */
static void not_h2(struct ep_endpoint *e)
{
    struct ep_cluster *cl = e->cluster;
    uint64_t until = cl->worker->now_ns + HTTP1_NS;

    if (e->http1_until_ns <= cl->worker->now_ns)
        ep_warn("upstream", "cluster %.*s: %s speaks no HTTP/2%s", EP_STR_ARG(cl->config.name), e->name,
                cl->config.protocol == EP_PROTO_AUTO ? ", so it is asked in HTTP/1.1; protocol: http/1.1 would say so" : "");
    e->http1_until_ns = until;
    if (cl->config.original_destination)
        return;
    EP_LIST_FOREACH(n, &cl->endpoints)
    {
        EP_CONTAINER(n, struct ep_endpoint, node)->http1_until_ns = until;
    }
}

static void client_closed(void *user, struct ep_conn *conn, enum ep_close why)
{
    struct ep_upconn *u = user;

    (void)conn;
    if (why == EP_CLOSE_NOT_H2)
        not_h2(u->lane->endpoint);
    ep_upconn_gone(u);
}

const struct ep_client_events ep_dial_client_events = {
    .on_capacity = client_capacity,
    .on_idle = client_idle,
    .on_closed = client_closed,
};
