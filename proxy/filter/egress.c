/* Egress on the data path: see egress.h. */
#include "filter/egress.h"

#include <stdlib.h>

#include "filter/pinned.h"
#include "observe/observe.h"

/* --- life --- */

struct ep_egress *ep_egress_ref(struct ep_egress *e)
{
    if (e)
        atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    return e;
}

void ep_egress_unref(struct ep_egress *e)
{
    if (!e || atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < e->n_rules; i++)
        ep_tls_origin_unref(e->rules[i].origin);
    free(e->rules);
    ep_tls_context_unref(e->server);
    ep_ca_unref(e->ca);
    free(e);
}

/* --- which rule --- */

static bool names(const struct ep_egress_config *r, struct ep_str host, uint16_t port)
{
    const struct ep_str *glob = r->hosts.v;
    const int64_t *ports = r->ports.v;
    bool here = r->ports.n == 0 || port == 0;

    for (size_t i = 0; i < r->ports.n && !here; i++)
        here = ports[i] == port;
    for (size_t i = 0; i < r->hosts.n && here; i++)
        if (ep_str_glob(glob[i], host))
            return true;
    return false;
}

const struct ep_egress_rule *ep_egress_find(const struct ep_egress *e, struct ep_str host, uint16_t port)
{
    for (size_t i = 0; e && i < e->n_rules; i++)
        if (names(e->rules[i].config, host, port))
            return &e->rules[i];
    return NULL;
}

static uint16_t port_of(const struct ep_conn *c)
{
    return c->original.len ? ep_addr_port(&c->original) : 0;
}

/* --- connections --- */

static void count(const struct ep_chain *chain, const char *how)
{
    ep_stats_add(chain->view->worker->stats, EP_METRIC_EGRESS_CONNECTIONS, EP_LABELS(chain->config->name, ep_str(how)), 1);
}

struct ep_tls_context *ep_egress_context(const struct ep_chain *chain, struct ep_conn *c, const struct ep_client_hello *hello)
{
    const struct ep_egress *e = chain->view->egress;
    const struct ep_egress_rule *rule;
    char name[EP_HOST_MAX + 1];
    struct ep_str host = ep_str_n(name, ep_host_normalise(hello->sni, name));

    c->name_hidden = hello->ech;
    if (!host.n)
        return NULL;
    assert(!c->server_name);
    c->server_name = ep_strndup(host.p, host.n);
    if (chain->direction != EP_OUTBOUND || chain->opaque)
        return NULL;
    rule = ep_egress_find(e, host, port_of(c));
    if (!rule || rule->config->tls != EP_EGRESS_INTERCEPT)
        return NULL;
    if (rule->config->on_pinned == EP_EGRESS_LET_PASS &&
        ep_pinned_refuses(e->pinned, host, &c->peer, e->config->pinned_for_ns, c->worker->now_ns)) {
        count(chain, "pinned");
        return NULL;
    }
    count(chain, "intercepted");
    c->origin = ep_tls_origin_ref(rule->origin);
    return e->server;
}

/* The client ended it, not we. */
static bool by_peer(const struct ep_conn *c, enum ep_close why)
{
    return why == EP_CLOSE_TLS || why == EP_CLOSE_RESET || why == EP_CLOSE_EOF || (c->eof_in && !c->lingering);
}

void ep_egress_closed(const struct ep_chain *chain, struct ep_conn *c, enum ep_close why)
{
    const struct ep_tls_info *tls = ep_conn_tls_info(c);
    const struct ep_egress *e = chain->view->egress;
    struct ep_str host = ep_str(c->server_name);
    enum ep_pinned_sign sign = EP_PINNED_CLOSED;

    if (!c->origin || !tls || !e)
        return;
    if (tls->heard) {
        ep_pinned_good(e->pinned, host, &c->peer);
        return;
    }
    if (!by_peer(c, why) || c->bytes_out == 0)
        return;
    if (tls->alert) {
        if (!ep_pinned_alert(tls->alert))
            return;
        sign = EP_PINNED_ALERT;
    }
    ep_stats_add(c->worker->stats, EP_METRIC_EGRESS_PINNED, EP_LABELS(host, ep_str(ep_pinned_sign_name(sign))), 1);
    if (ep_pinned_note(e->pinned, host, &c->peer, sign, c->worker->now_ns)) {
        char peer[128];
        ep_addr_format(&c->peer, peer);
        ep_warn("egress", "%.*s: the client at %s refuses our certificate (%s): it pins the host's own, or doesn't trust our CA",
                EP_STR_ARG(host), peer, ep_pinned_sign_name(sign));
    }
}

/* --- requests --- */

static bool refuse(struct ep_stream *s, unsigned status, const char *code, const char *reason)
{
    ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_POLICY,
                                             .policy = EP_STR("egress"),
                                             .reason = ep_str(reason),
                                             .code = code,
                                             .status = status,
                                             .grpc_status = -1});
    return false;
}

/* The host of an authority, normalised into `out`; 0: it names none. */
static size_t host_of(struct ep_str authority, char out[EP_HOST_MAX + 1])
{
    ptrdiff_t colon = ep_str_find(authority, ':', 0);

    return ep_host_normalise(colon >= 0 ? ep_str_n(authority.p, (size_t)colon) : authority, out);
}

/* What was decrypted for one host may be for no other: the origin could serve many, and no rule about the SNI's would have
 * seen the true one. A client that reuses a connection for another host it is good for (RFC 9113 section 9.1.1) tries again
 * on a new one. */
static bool for_its_host(struct ep_stream *s, const struct ep_conn *c)
{
    char name[EP_HOST_MAX + 1];
    size_t n = host_of(ep_stream_authority(s), name);

    return (n && ep_str_eq(ep_str_n(name, n), ep_str(c->server_name))) ||
           refuse(s, 421, "egress.misdirected", "the request is for another host than the TLS that it came over");
}

bool ep_egress_admits(struct ep_stream *s)
{
    const struct ep_conn *c = s->down->conn;
    const struct ep_egress *e = s->view->egress;
    bool unnamed = !c->server_name || c->name_hidden;

    if (c->origin)
        return for_its_host(s, c);
    if (s->direction != EP_OUTBOUND)
        return true;
    if (unnamed && e && e->config->unnamed == EP_EGRESS_DENY) {
        count(s->chain, "refused");
        return refuse(s, 0, "egress.unnamed", "TLS to a host that can't be told");
    }
    count(s->chain, !c->server_name ? "unnamed" : c->name_hidden ? "hidden" : "passthrough");
    return true;
}

static bool is_connect(const struct ep_stream *s)
{
    return ep_str_eq(ep_stream_method(s), EP_STR("CONNECT")) && !ep_headers_find_id(&s->request.headers, EP_HDR_PROTOCOL);
}

bool ep_egress_origin(struct ep_stream *s, struct ep_tls_origin **origin, struct ep_str *host, uint16_t *port)
{
    const struct ep_conn *c = s->down->conn;
    const struct ep_egress_rule *rule;
    char name[EP_HOST_MAX + 1];
    size_t n;

    *port = 0;
    if (c && c->origin) {
        *origin = c->origin;
        *host = ep_arena_str(&s->arena, ep_str(c->server_name));
        return true;
    }
    if (!s->view->egress || !s->view->egress->any_originate || s->direction != EP_OUTBOUND ||
        s->down->version == EP_HTTP_TCP || is_connect(s))
        return false;
    n = host_of(ep_stream_authority(s), name);
    rule = n ? ep_egress_find(s->view->egress, ep_str_n(name, n), c ? port_of(c) : 0) : NULL;
    if (!rule || rule->config->tls != EP_EGRESS_ORIGINATE)
        return false;
    *origin = rule->origin;
    *host = ep_arena_str(&s->arena, ep_str_n(name, n));
    *port = (uint16_t)rule->config->origin_port;
    return true;
}
