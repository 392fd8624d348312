/* An endpoint: one address of a cluster, what is known of it, and the lanes to it. */
#include <netinet/in.h>
#include <stdlib.h>

#include "upstream/cluster.h"

struct ep_str ep_endpoint_name(const struct ep_endpoint *e)
{
    return ep_str_n(e->name, (size_t)e->name_n);
}

static bool is_loopback(const struct ep_addr *a)
{
    if (a->u.sa.sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)&a->u)->sin_addr.s_addr) >> 24) == 127;
    if (a->u.sa.sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)&a->u)->sin6_addr);
    return false;
}

static bool is_wildcard(const struct ep_addr *a)
{
    if (a->u.sa.sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)&a->u)->sin_addr.s_addr == 0;
    if (a->u.sa.sa_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)(const void *)&a->u)->sin6_addr);
    return false;
}

/* Whether connecting there would reach one of our own listeners: the same address, or the same port of this machine
 * when the listener is bound to all its addresses. */
static bool is_own(const struct ep_endpoint *e)
{
    const struct ep_cluster *cl = e->cluster;

    for (size_t i = 0; i < cl->n_own; i++) {
        const struct ep_addr *own = &cl->own[i];
        if (ep_addr_equal(own, &e->addr))
            return true;
        if (ep_addr_port(own) == 0 || ep_addr_port(own) != ep_addr_port(&e->addr))
            continue;
        if (is_wildcard(own) && e->local)
            return true;
    }
    return false;
}

void ep_endpoint_situate(struct ep_endpoint *e)
{
    const struct ep_cluster *cl = e->cluster;
    const struct ep_cidr *cidrs = cl->mesh.cidrs.v;

    e->local = ep_upworker_is_local(cl->worker, &e->addr);
    e->loop = is_own(e);
    e->in_mesh = false;
    /* The pod's own address lies in the mesh's range too, and behind it is our app. Who names loopback means it. */
    if (e->local && !is_loopback(&e->addr))
        return;
    for (size_t i = 0; i < cl->mesh.cidrs.n && !e->in_mesh; i++)
        e->in_mesh = ep_cidr_contains(&cidrs[i], &e->addr);
}

struct ep_endpoint *ep_endpoint_new(struct ep_cluster *cl, const struct ep_addr *addr)
{
    struct ep_endpoint *e = ep_calloc(1, sizeof *e);

    e->cluster = cl;
    e->addr = *addr;
    e->refs = 1;
    e->name_n = ep_addr_format(addr, e->name);
    e->last_used_ns = cl->worker->now_ns;
    ep_list_init(&e->lanes);
    ep_list_push(&cl->endpoints, &e->node);
    ep_endpoint_situate(e);
    if (e->loop)
        ep_warn("upstream", "cluster %.*s: endpoint %s is one of our own listeners: requests to it are refused",
                EP_STR_ARG(cl->config.name), e->name);
    return e;
}

void ep_endpoint_unref(struct ep_endpoint *e)
{
    assert(e->refs > 0);
    if (--e->refs)
        return;
    ep_list_remove(&e->node);
    ep_list_push(&e->cluster->dead, &e->node);
    ep_cluster_reap_later(e->cluster);
}

void ep_endpoint_free(struct ep_endpoint *e)
{
    assert(e->refs == 0 && !e->probe);
    ep_list_remove(&e->node);
    EP_LIST_FOREACH(n, &e->lanes)
    {
        struct ep_lane *l = EP_CONTAINER(n, struct ep_lane, node);
        assert(l->n_conns == 0 && l->n_waiting == 0);
        ep_lane_free(l);
    }
    free(e);
}

void ep_endpoint_retire(struct ep_endpoint *e)
{
    EP_LIST_FOREACH(n, &e->lanes)
    ep_lane_retire(EP_CONTAINER(n, struct ep_lane, node));
}

/* Endpoints of original_destination come from the traffic: their addresses would make series without end. */
static struct ep_str label(const struct ep_endpoint *e)
{
    return e->cluster->config.original_destination ? EP_STR("original_destination") : ep_endpoint_name(e);
}

void ep_endpoint_show_health(struct ep_endpoint *e)
{
    struct ep_cluster *cl = e->cluster;
    bool healthy = e->member && ep_endpoint_healthy(e);

    if (healthy == e->shown_healthy || cl->config.original_destination)
        return;
    e->shown_healthy = healthy;
    /* A sum over workers, and over an old and a new cluster of the same name: so add, never set. */
    ep_cell_add(ep_cluster_cell(cl, EP_METRIC_ENDPOINT_HEALTHY, EP_LABELS(cl->config.name, label(e))),
                healthy ? 1 : UINT64_MAX);
}

void ep_endpoint_count(struct ep_endpoint *e, enum ep_result_cell r)
{
    static const char *const names[EP_RESULT_COUNT] = {
        [EP_RESULT_1XX] = "1xx", [EP_RESULT_2XX] = "2xx", [EP_RESULT_3XX] = "3xx",
        [EP_RESULT_4XX] = "4xx", [EP_RESULT_5XX] = "5xx", [EP_RESULT_RESET] = "reset",
    };

    if (EP_UNLIKELY(!e->cells[r]))
        e->cells[r] = ep_cluster_cell(e->cluster, EP_METRIC_UPSTREAM_REQUESTS,
                                      EP_LABELS(e->cluster->config.name, label(e), ep_str(names[r])));
    ep_cell_add(e->cells[r], 1);
}

void ep_endpoint_judge(struct ep_endpoint *e, bool failed)
{
    struct ep_cluster *cl = e->cluster;

    if (EP_LIKELY(!failed)) {
        e->outlier.streak = 0;
        return;
    }
    if (ep_outlier_record(&e->outlier, &cl->outlier, true) && e->member && !cl->config.original_destination)
        ep_members_eject(cl, e);
}
