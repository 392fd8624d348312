/* A cluster as /clusters shows it. */
#include "upstream/cluster.h"

static void describe_connections(const struct ep_endpoint *e, struct ep_json *out)
{
    uint64_t ready = 0, idle = 0, dialing = 0, waiting = 0, all = 0;

    EP_LIST_FOREACH(n, &e->lanes)
    {
        const struct ep_lane *l = EP_CONTAINER(n, struct ep_lane, node);
        EP_LIST_FOREACH(m, &l->ready)
        ready++;
        EP_LIST_FOREACH(m, &l->idle)
        idle++;
        dialing += l->n_dialing;
        waiting += l->n_waiting;
        all += l->n_conns;
    }
    ep_json_key(out, "connections");
    ep_json_object(out);
    ep_json_kuint(out, "open", all);
    ep_json_kuint(out, "h2", ready);
    ep_json_kuint(out, "idle", idle);
    ep_json_kuint(out, "dialing", dialing);
    ep_json_object_end(out);
    ep_json_kuint(out, "waiting", waiting);
}

static void describe_endpoint(const struct ep_endpoint *e, struct ep_json *out)
{
    const struct ep_cluster *cl = e->cluster;
    uint64_t now = cl->worker->now_ns;

    ep_json_object(out);
    ep_json_kstr(out, "address", ep_endpoint_name(e));
    ep_json_kbool(out, "healthy", ep_endpoint_healthy(e));
    ep_json_kbool(out, "removed", !e->member);
    ep_json_kbool(out, "ejected", e->outlier.ejected);
    if (e->outlier.ejected) {
        ep_json_key(out, "ejected_for_seconds");
        ep_json_double(out, e->outlier.until_ns > now ? (double)(e->outlier.until_ns - now) / 1e9 : 0);
    }
    ep_json_kuint(out, "ejections", e->outlier.ejections);
    ep_json_kuint(out, "failures_in_a_row", e->outlier.streak);
    if (e->probe)
        ep_json_kbool(out, "probe_ok", !e->probed_down);
    if (e->loop)
        ep_json_kbool(out, "loop", true);
    ep_json_kuint(out, "requests", e->load.active);
    ep_json_key(out, "latency_seconds");
    ep_json_double(out, e->load.cost_ns / 1e9);
    describe_connections(e, out);
    ep_json_object_end(out);
}

static void describe_limits(const struct ep_cluster *cl, struct ep_json *out)
{
    ep_json_key(out, "limits");
    ep_json_object(out);
    for (size_t i = 0; i < EP_BREAKER_COUNT; i++) {
        ep_json_key(out, ep_breaker_limit_name((enum ep_breaker_limit)i));
        ep_json_object(out);
        ep_json_kuint(out, "now", cl->breaker.now[i]);
        ep_json_kuint(out, "limit", cl->breaker.limit[i]);
        ep_json_kuint(out, "overflows", cl->breaker.overflows[i]);
        ep_json_object_end(out);
    }
    ep_json_object_end(out);
}

void ep_cluster_describe(const struct ep_cluster *cl, struct ep_json *out)
{
    const struct ep_cluster_config *c = &cl->config;

    ep_json_object(out);
    ep_json_kstr(out, "name", c->name);
    ep_json_kstr(out, "protocol", ep_str(ep_cluster_protocol_names[c->protocol]));
    ep_json_kstr(out, "tls", ep_str(ep_cluster_tls_names[c->tls.mode]));
    ep_json_kstr(out, "balance", ep_str(ep_cluster_balance_names[c->balance]));
    if (c->original_destination)
        ep_json_kbool(out, "original_destination", true);
    if (c->dns.n) {
        ep_json_key(out, "dns");
        ep_json_object(out);
        ep_json_kstr(out, "name", c->dns);
        ep_json_kbool(out, "failing", cl->dns_failing);
        ep_json_kbool(out, "asking", cl->lookup.state != NULL);
        if (cl->dns_answered_ns) {
            ep_json_key(out, "answered_seconds_ago");
            ep_json_double(out, (double)(cl->worker->now_ns - cl->dns_answered_ns) / 1e9);
        }
        ep_json_object_end(out);
    }
    ep_json_kbool(out, "panic", cl->panicking);
    describe_limits(cl, out);
    ep_json_key(out, "endpoints");
    ep_json_array(out);
    EP_LIST_FOREACH(n, &cl->endpoints)
    describe_endpoint(EP_CONTAINER(n, struct ep_endpoint, node), out);
    ep_json_array_end(out);
    ep_json_object_end(out);
}
