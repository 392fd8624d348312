/* Which endpoints a cluster has, and which of them requests may go to.
 *
 * Members come from the configuration, from DNS, or one by one from original destinations. `usable` is kept ready for
 * the balancer: the healthy ones, or all when too few are healthy. It is rebuilt only when health changes. */
#include <stdlib.h>

#include "upstream/cluster.h"

void ep_members_changed(struct ep_cluster *cl)
{
    uint32_t healthy = 0;
    bool panic;

    for (uint32_t i = 0; i < cl->n_members; i++)
        healthy += ep_endpoint_healthy(cl->members[i]);
    panic = ep_outlier_panic(healthy, cl->n_members, cl->config.panic);
    if (panic != cl->panicking) {
        cl->panicking = panic;
        ep_warn("upstream", "cluster %.*s: %u of %u endpoints are healthy: %s", EP_STR_ARG(cl->config.name), healthy,
                cl->n_members, panic ? "below the panic threshold, all are used" : "above the panic threshold again");
    }
    cl->n_usable = 0;
    for (uint32_t i = 0; i < cl->n_members; i++)
        if (panic || ep_endpoint_healthy(cl->members[i]))
            cl->usable[cl->n_usable++] = &cl->members[i]->load;
}

static void arm_eject_timer(struct ep_cluster *cl)
{
    uint64_t now = cl->worker->now_ns, next = UINT64_MAX;

    for (uint32_t i = 0; i < cl->n_members; i++) {
        const struct ep_outlier *o = &cl->members[i]->outlier;
        if (o->ejected)
            next = EP_MIN(next, o->until_ns > now ? o->until_ns - now : 0);
    }
    if (next != UINT64_MAX)
        ep_worker_timer(cl->worker, &cl->eject_timer, next);
    else
        ep_worker_timer_stop(cl->worker, &cl->eject_timer);
}

void ep_members_eject(struct ep_cluster *cl, struct ep_endpoint *e)
{
    if (!ep_outlier_room(&cl->outlier, cl->n_ejected, cl->n_members))
        return;
    ep_outlier_eject(&e->outlier, &cl->outlier, cl->worker->now_ns);
    cl->n_ejected++;
    ep_cell_add(ep_cluster_cell(cl, EP_METRIC_EJECTIONS, EP_LABELS(cl->config.name, ep_endpoint_name(e))), 1);
    ep_warn("upstream", "cluster %.*s: endpoint %s ejected for %llu ms after %u failures in a row",
            EP_STR_ARG(cl->config.name), e->name,
            (unsigned long long)((e->outlier.until_ns - cl->worker->now_ns) / EP_MS), cl->outlier.consecutive);
    ep_endpoint_show_health(e);
    ep_members_changed(cl);
    arm_eject_timer(cl);
}

void ep_members_on_eject_timer(struct ep_timer *t)
{
    struct ep_cluster *cl = EP_CONTAINER(t, struct ep_cluster, eject_timer);
    bool changed = false;

    for (uint32_t i = 0; i < cl->n_members; i++) {
        struct ep_endpoint *e = cl->members[i];
        if (!ep_outlier_expire(&e->outlier, cl->worker->now_ns))
            continue;
        cl->n_ejected--;
        changed = true;
        ep_info("upstream", "cluster %.*s: endpoint %s is back from ejection", EP_STR_ARG(cl->config.name), e->name);
        ep_endpoint_show_health(e);
    }
    if (changed)
        ep_members_changed(cl);
    arm_eject_timer(cl);
}

static void add(struct ep_cluster *cl, const struct ep_addr *a)
{
    struct ep_endpoint *e = ep_endpoint_new(cl, a);

    e->member = true;
    cl->members[cl->n_members++] = e;
    ep_endpoint_show_health(e);
    ep_probe_start(e);
}

static void drop(struct ep_endpoint *e)
{
    struct ep_cluster *cl = e->cluster;

    if (e->outlier.ejected)
        cl->n_ejected--;
    e->outlier.ejected = false;
    e->member = false;
    ep_endpoint_show_health(e);
    ep_probe_stop(e);
    ep_endpoint_retire(e);
    ep_endpoint_unref(e);
}

static bool listed(const struct ep_addr *v, size_t n, const struct ep_addr *a)
{
    for (size_t i = 0; i < n; i++)
        if (ep_addr_equal(&v[i], a))
            return true;
    return false;
}

void ep_members_set(struct ep_cluster *cl, const struct ep_addr *v, size_t n)
{
    struct ep_endpoint **before = cl->members;
    uint32_t n_before = cl->n_members;

    n = EP_MIN(n, (size_t)EP_ENDPOINTS_MAX);
    cl->members = ep_calloc(n + 1, sizeof *cl->members);
    free(cl->usable);
    cl->usable = ep_calloc(n + 1, sizeof *cl->usable);
    cl->n_members = 0;
    for (uint32_t i = 0; i < n_before; i++) /* who stays keeps place, connections and history */
        if (listed(v, n, &before[i]->addr))
            cl->members[cl->n_members++] = before[i];
    uint32_t n_kept = cl->n_members;
    for (size_t i = 0; i < n; i++) {
        bool old = false;
        for (uint32_t k = 0; k < cl->n_members && !old; k++)
            old = ep_addr_equal(&cl->members[k]->addr, &v[i]);
        if (!old)
            add(cl, &v[i]);
    }
    for (uint32_t i = 0; i < n_before; i++) {
        bool kept = false;
        for (uint32_t k = 0; k < n_kept && !kept; k++)
            kept = cl->members[k] == before[i];
        if (!kept)
            drop(before[i]);
    }
    free(before);
    ep_members_changed(cl);
    arm_eject_timer(cl);
}

/* --- original destinations --- */

static struct ep_endpoint **bucket(struct ep_cluster *cl, const struct ep_addr *a)
{
    return &cl->by_address[ep_hash(&a->u, a->len) % EP_ORIGINAL_BUCKETS];
}

static void forget(struct ep_cluster *cl, struct ep_endpoint *e)
{
    struct ep_endpoint **at = bucket(cl, &e->addr);

    while (*at != e)
        at = &(*at)->hash_next;
    *at = e->hash_next;
    cl->n_original--;
    drop(e);
}

/* Forgets the endpoint that was unused for the longest time; false when all are in use. */
static bool forget_oldest(struct ep_cluster *cl)
{
    struct ep_endpoint *oldest = NULL;

    EP_LIST_FOREACH(n, &cl->endpoints)
    {
        struct ep_endpoint *e = EP_CONTAINER(n, struct ep_endpoint, node);
        if (e->member && e->load.active == 0 && (!oldest || e->last_used_ns < oldest->last_used_ns))
            oldest = e;
    }
    if (oldest)
        forget(cl, oldest);
    return oldest != NULL;
}

struct ep_endpoint *ep_members_original(struct ep_cluster *cl, const struct ep_addr *addr)
{
    struct ep_endpoint **at, *e;

    if (!cl->by_address)
        cl->by_address = ep_calloc(EP_ORIGINAL_BUCKETS, sizeof *cl->by_address);
    at = bucket(cl, addr);
    for (e = *at; e; e = e->hash_next)
        if (ep_addr_equal(&e->addr, addr)) {
            e->last_used_ns = cl->worker->now_ns;
            return e;
        }
    if (cl->n_original >= EP_ENDPOINTS_MAX && !forget_oldest(cl))
        return NULL;
    e = ep_endpoint_new(cl, addr);
    e->member = true;
    e->hash_next = *at;
    *at = e;
    cl->n_original++;
    if (!ep_timer_running(&cl->sweep_timer))
        ep_worker_timer(cl->worker, &cl->sweep_timer, EP_MAX(cl->config.idle_timeout_ns / 2, (uint64_t)EP_MS));
    return e;
}

void ep_members_on_sweep(struct ep_timer *t)
{
    struct ep_cluster *cl = EP_CONTAINER(t, struct ep_cluster, sweep_timer);
    uint64_t now = cl->worker->now_ns;

    EP_LIST_FOREACH(n, &cl->endpoints)
    {
        struct ep_endpoint *e = EP_CONTAINER(n, struct ep_endpoint, node);
        if (e->member && e->load.active == 0 && now - e->last_used_ns >= cl->config.idle_timeout_ns)
            forget(cl, e);
    }
    if (cl->n_original)
        ep_worker_timer(cl->worker, &cl->sweep_timer, EP_MAX(cl->config.idle_timeout_ns / 2, (uint64_t)EP_MS));
}

void ep_members_drop_all(struct ep_cluster *cl)
{
    if (cl->by_address) {
        EP_LIST_FOREACH(n, &cl->endpoints)
        {
            struct ep_endpoint *e = EP_CONTAINER(n, struct ep_endpoint, node);
            if (e->member)
                forget(cl, e);
        }
    } else {
        for (uint32_t i = 0; i < cl->n_members; i++)
            drop(cl->members[i]);
    }
    cl->n_members = cl->n_usable = 0;
}
