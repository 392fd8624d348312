/* The server side: what a listener does with a connection that it understands, and with requests.
 *
 * A server listener lives across configurations; its chain is swapped, and a stream takes the chain that is there
 * when it begins. */
#include "filter/egress.h"
#include "filter/private.h"
#include "net/tls.h"

#include <stdlib.h>

#define SILENT_KNOWN 64 /* destinations that spoke first, remembered a listener and worker */
#define SILENT_DIAL_NS (2 * EP_S)
#define DRAIN_NS (100 * EP_MS) /* for the first request of a connection that came just before the drain */

struct silent {
    struct ep_addr known[SILENT_KNOWN];
    unsigned n, next;
};

static struct ep_server_listener *of(struct ep_listener *l)
{
    return (struct ep_server_listener *)l; /* the listener is its first member */
}

static void count_rejected(struct ep_server_listener *l, const char *reason)
{
    ep_stats_add(l->worker->stats, EP_METRIC_REJECTED, EP_LABELS(l->name, ep_str(reason)), 1);
}

/* --- requests, from the codecs --- */

static bool on_request(void *user, struct ep_leg *leg)
{
    struct ep_server_listener *l = user;
    struct ep_worker *w = l->worker;

    /* Short of memory: new streams are refused first (DESIGN.md section 17). */
    if (w->memory_limit && (uint64_t)w->slabs.n_live * EP_SLAB_BYTES > w->memory_limit / 4 * 3) {
        count_rejected(l, "memory");
        return false;
    }
    ep_stream_new(l, leg);
    return true;
}

static void on_bad_request(void *user, struct ep_conn *c, unsigned status, const char *reason)
{
    struct ep_server_listener *l = user;
    char peer[128];

    count_rejected(l, reason);
    if (EP_LOG_ON(EP_LOG_DEBUG)) {
        ep_addr_format(&c->peer, peer);
        ep_log(EP_LOG_DEBUG, "codec", "refused %s from %s: %u %s", c->handler->name, peer, status, reason);
    }
}

static void on_conn_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    struct ep_server_listener *l = user;

    if (EP_UNLIKELY(c->origin != NULL))
        ep_egress_closed(l->chain, c, why);
    l->listener.n_connections--;
    ep_cell_add(l->cell_connections, UINT64_MAX);
}

static const struct ep_acceptor acceptor = {
    .on_request = on_request,
    .on_refused = on_bad_request,
    .on_closed = on_conn_closed,
};

/* --- connections, from the sniffer --- */

static struct ep_tls_context *tls_context(struct ep_listener *l, struct ep_conn *c, const struct ep_client_hello *hello)
{
    const struct ep_chain *chain = of(l)->chain;

    return chain->config->tls == EP_TLS_OFF ? ep_egress_context(chain, c, hello) : chain->tls;
}

static bool plaintext_allowed(struct ep_listener *l, struct ep_conn *c)
{
    int mode = of(l)->chain->config->tls;

    (void)c;
    return mode == EP_TLS_OFF || mode == EP_TLS_PERMISSIVE;
}

static void on_protocol(struct ep_listener *listener, struct ep_conn *c, enum ep_sniff what, struct ep_slab *slab,
                        const unsigned char *first, size_t n)
{
    struct ep_server_listener *l = of(listener);
    const struct ep_http_options *o = &l->http; /* of the listener: a connection outlives its chain */
    const struct ep_tls_info *tls = ep_conn_tls_info(c);
    const char *protocol;
    bool found_opaque = what == EP_SNIFF_OPAQUE && !l->chain->opaque;

    c->sealed = what == EP_SNIFF_TLS;
    if (l->chain->opaque)
        what = EP_SNIFF_OPAQUE;
    else if (l->chain->config->protocol != EP_LISTENER_AUTO && what != EP_SNIFF_H2)
        what = EP_SNIFF_HTTP1; /* a listener that is told to be HTTP answers anything else with a 400 */
    protocol = what == EP_SNIFF_H2 ? "h2" : what == EP_SNIFF_HTTP1 ? "http/1.1" : "tcp";
    ep_stats_add(l->worker->stats, EP_METRIC_CONNECTIONS_TOTAL, EP_LABELS(l->name, ep_str(protocol)), 1);
    ep_cell_add(l->cell_connections, 1); /* those that are understood: they come and go here only */
    if (tls)
        ep_stats_add(l->worker->stats, EP_METRIC_TLS_HANDSHAKES,
                     EP_LABELS(EP_STR("server"), tls->resumed ? EP_STR("resumed") : EP_STR("ok"), tls->version), 1);
    if (what == EP_SNIFF_H2)
        ep_h2_serve(c, o, &acceptor, l, slab, first, n);
    else if (what == EP_SNIFF_HTTP1)
        ep_h1_serve(c, o, &acceptor, l, slab, first, n);
    else
        ep_tcp_serve(c, o, &acceptor, l, slab, first, n);
    if (what == EP_SNIFF_OPAQUE && found_opaque)
        ep_tcp_watch(c, first, n);
    if (l->worker->draining || c->drained_early)
        ep_codec_drain(c, DRAIN_NS);
}

static void on_closed(struct ep_listener *l, struct ep_conn *c, enum ep_close why)
{
    if (c->origin)
        ep_egress_closed(of(l)->chain, c, why);
}

static void on_refused(struct ep_listener *l, const char *reason)
{
    if (!strcmp(reason, "descriptors"))
        ep_stats_add(l->worker->stats, EP_METRIC_ACCEPT_ERRORS, EP_LABELS(of(l)->name, ep_str(reason)), 1);
    if (!strcmp(reason, "tls"))
        ep_stats_add(l->worker->stats, EP_METRIC_TLS_HANDSHAKES, EP_LABELS(EP_STR("server"), EP_STR("failed"), EP_STR("")), 1);
    count_rejected(of(l), reason);
}

/* --- who speaks first ---
 * A client that says nothing may wait for its server (MySQL, SMTP). The first such connection to a destination dials
 * it to see; when the server speaks, the destination is remembered, and this and all later silent connections
 * are opaque at once. Istio waits for ever here and Linkerd ten seconds (PEERS.md part 2). */

static bool knows(const struct silent *s, const struct ep_addr *a)
{
    for (unsigned i = 0; i < s->n; i++)
        if (ep_addr_equal(&s->known[i], a))
            return true;
    return false;
}

struct probe {
    struct ep_server_listener *l;
    struct ep_addr to;
};

static void probe_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct probe *probe = c->user;
    struct silent *s = probe->l->silent;

    (void)slab, (void)p, (void)n;
    if (!knows(s, &probe->to)) {
        s->known[s->next] = probe->to;
        s->next = (s->next + 1) % SILENT_KNOWN;
        s->n = EP_MIN(s->n + 1, (unsigned)SILENT_KNOWN);
    }
    ep_conn_abort(c, EP_CLOSE_LOCAL, false);
}

/* It has as long to speak as it had to take the connection: most servers never speak first. */
static void probe_ready(struct ep_conn *c)
{
    ep_conn_deadline(c, SILENT_DIAL_NS);
}

static void probe_closed(struct ep_conn *c, enum ep_close why)
{
    (void)why;
    ep_mem_free(&c->worker->mem, c->user);
}

static const struct ep_conn_handler probe_handler = {
    .name = "probe", .on_ready = probe_ready, .on_data = probe_data, .on_closed = probe_closed};

static bool on_silent(struct ep_listener *listener, struct ep_conn *c)
{
    struct ep_server_listener *l = of(listener);
    struct probe *probe;

    if (l->chain->opaque)
        return true;
    if (!c->original.len || ep_addr_equal(&c->original, &l->listener.options.bind))
        return false;
    if (!l->silent)
        l->silent = ep_calloc(1, sizeof(struct silent));
    if (knows(l->silent, &c->original))
        return true;
    if (c->silent_probed)
        return false;
    c->silent_probed = true;
    probe = ep_mem_calloc(&l->worker->mem, 1, sizeof *probe);
    *probe = (struct probe){l, c->original};
    ep_conn_connect(l->worker, &c->original, NULL, SILENT_DIAL_NS, NULL, (struct ep_str){NULL, 0}, &probe_handler, probe);
    return false;
}

static const struct ep_listener_ops listener_ops = {
    .tls_context = tls_context,
    .plaintext_allowed = plaintext_allowed,
    .on_protocol = on_protocol,
    .on_silent = on_silent,
    .on_closed = on_closed,
    .on_refused = on_refused,
};

/* --- life --- */

static struct ep_listener_options options_of(const struct ep_chain *chain)
{
    const struct ep_listener_config *c = chain->config;

    return (struct ep_listener_options){
        .bind = c->bind,
        .intercept = (enum ep_intercept)c->intercept,
        .proxy_protocol = c->proxy_protocol,
        .opaque = chain->opaque,
        .max_connections = (unsigned)c->max_connections,
        .sniff_timeout_ns = c->sniff_timeout_ns,
        .handshake_timeout_ns = c->handshake_timeout_ns,
    };
}

struct ep_server_listener *ep_server_listener_new(struct ep_worker *w, struct ep_chain *chain, int fd, struct ep_error *err)
{
    struct ep_server_listener *l = ep_calloc(1, sizeof *l);
    struct ep_listener_options o = options_of(chain);
    struct ep_str name = chain->config->name;

    l->worker = w;
    l->name = ep_str_n(ep_strndup(name.p, name.n), name.n);
    ep_list_init(&l->streams);
    ep_list_init(&l->node);
    l->cell_streams = ep_stats_cell(w->stats, EP_METRIC_STREAMS, EP_LABELS(l->name));
    l->cell_connections = ep_stats_cell(w->stats, EP_METRIC_CONNECTIONS, EP_LABELS(l->name));
    ep_server_listener_set_chain(l, chain);
    if (!ep_listener_init(&l->listener, w, &o, &listener_ops, NULL, fd, err)) {
        free((void *)(uintptr_t)l->name.p);
        free(l);
        return NULL;
    }
    return l;
}

void ep_server_listener_set_chain(struct ep_server_listener *l, struct ep_chain *chain)
{
    l->chain = chain;
    l->http = chain->http;
    if (l->listener.ops) { /* not on the first call: the sockets stay, what is looked up later changes */
        struct ep_listener_options o = options_of(chain);
        o.bind = l->listener.options.bind;
        l->listener.options = o;
    }
}

void ep_server_listener_drain(struct ep_server_listener *l, uint64_t grace_ns)
{
    ep_listener_take_rest(&l->listener);
    EP_LIST_FOREACH(n, &l->worker->conns) {
        struct ep_conn *c = EP_CONTAINER(n, struct ep_conn, node);
        if (c->is_server && c->user_listener == l)
            ep_codec_drain(c, grace_ns);
    }
}

void ep_server_listener_free(struct ep_server_listener *l)
{
    ep_listener_stop(&l->listener);
    assert(l->n_streams == 0);
    EP_LIST_FOREACH(n, &l->worker->conns) { /* probes of who speaks first refer to us */
        struct ep_conn *c = EP_CONTAINER(n, struct ep_conn, node);
        if (c->handler == &probe_handler && ((struct probe *)c->user)->l == l) {
            ((struct probe *)c->user)->l = NULL;
            ep_conn_abort(c, EP_CLOSE_LOCAL, false);
        }
    }
    free(l->silent);
    free((void *)(uintptr_t)l->name.p);
    free(l);
}
