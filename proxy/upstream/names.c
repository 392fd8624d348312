/* DNS of a cluster: its members are the addresses of a name, asked for again when the TTL is over.
 *
 * Requests never wait for a refresh: the last good answer stays until a new one is there, also when DNS fails or says
 * that the name is gone (a name that is gone for good shows by its connections failing; one that is gone for a
 * moment, as happens when a DNS server starts, must not take the cluster down). Only the first answer is waited for. */
#include "upstream/cluster.h"

#define BACKOFF_MIN_NS (1 * EP_S)
#define BACKOFF_MAX_NS (30 * EP_S)

static void count(struct ep_cluster *cl, const char *result)
{
    ep_cell_add(ep_cluster_cell(cl, EP_METRIC_DNS, EP_LABELS(cl->config.name, ep_str(result))), 1);
}

/* Up to a tenth earlier or later, so that workers and pods don't ask in step. */
static uint64_t jittered(struct ep_cluster *cl, uint64_t ns)
{
    return ns - ns / 10 + ep_rng_below(&cl->worker->rng, ns / 5 + 1);
}

static void place_waiting(struct ep_cluster *cl)
{
    struct ep_list batch;

    ep_list_init(&batch);
    ep_list_splice(&batch, &cl->unresolved);
    for (struct ep_list *n; (n = batch.next) != &batch;) {
        struct ep_upstream_call *c = EP_CONTAINER(n, struct ep_upstream_call, node);
        ep_call_dequeue(c);
        if (cl->n_members)
            ep_call_place(c);
        else
            ep_call_fail(c, EP_UPSTREAM_NO_ENDPOINT);
    }
}

static void on_resolved(struct ep_lookup *l, const struct ep_resolved *r)
{
    struct ep_cluster *cl = EP_CONTAINER(l, struct ep_cluster, lookup);

    if (cl->dying)
        return;
    if (r->n) {
        count(cl, "ok");
        if (cl->dns_failing)
            ep_info("dns", "cluster %.*s: %.*s is found again", EP_STR_ARG(cl->config.name),
                    EP_STR_ARG(cl->config.dns));
        cl->dns_failing = false;
        cl->dns_backoff_ns = 0;
        cl->dns_answered_ns = cl->worker->now_ns;
        cl->dns_ttl_ns = r->ttl_ns;
        ep_members_set(cl, r->v, r->n);
        if (r->ttl_ns != UINT64_MAX)
            ep_worker_timer(cl->worker, &cl->dns_timer, r->ttl_ns + ep_rng_below(&cl->worker->rng, r->ttl_ns / 10 + 1));
    } else {
        count(cl, "failed");
        if (!cl->dns_failing)
            ep_warn("dns", "cluster %.*s: %.*s: %s%s", EP_STR_ARG(cl->config.name), EP_STR_ARG(cl->config.dns),
                    r->error, cl->n_members ? "; the last answer stays" : "");
        cl->dns_failing = true;
        cl->dns_backoff_ns = cl->dns_backoff_ns ? EP_MIN(2 * cl->dns_backoff_ns, BACKOFF_MAX_NS) : BACKOFF_MIN_NS;
        ep_worker_timer(cl->worker, &cl->dns_timer, jittered(cl, cl->dns_backoff_ns));
    }
    place_waiting(cl);
}

void ep_names_start(struct ep_cluster *cl)
{
    struct ep_upworker *u = cl->worker->resolver;
    struct ep_str host;
    uint16_t port;

    if (cl->lookup.state || cl->dying || !ep_cluster_dns_parse(cl->config.dns, &host, &port))
        return;
    cl->lookup.done = on_resolved;
    ep_resolver_lookup(u ? u->resolver : NULL, &cl->lookup, host, port);
}

void ep_names_on_timer(struct ep_timer *t)
{
    ep_names_start(EP_CONTAINER(t, struct ep_cluster, dns_timer));
}
