/* What the clusters of one worker share: the resolver, this machine's addresses, the list of clusters. */
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "upstream/cluster.h"

#define ADDRESSES_FRESH_NS (30 * EP_S)
#define FINI_ROUNDS        8

bool ep_upstream_worker_init(struct ep_worker *w, struct ep_error *err)
{
    struct ep_upworker *u = ep_calloc(1, sizeof *u);

    assert(!w->resolver);
    ep_list_init(&u->clusters);
    u->resolver = ep_resolver_new(w, err);
    if (!u->resolver) {
        free(u);
        return false;
    }
    w->resolver = u;
    return true;
}

static void abort_connections(struct ep_cluster *cl)
{
    EP_LIST_FOREACH(n, &cl->endpoints)
    {
        struct ep_endpoint *e = EP_CONTAINER(n, struct ep_endpoint, node);
        EP_LIST_FOREACH(m, &e->lanes)
        {
            struct ep_lane *l = EP_CONTAINER(m, struct ep_lane, node);
            struct ep_list *const lists[] = {&l->ready, &l->idle, &l->others};
            for (size_t i = 0; i < EP_COUNT(lists); i++)
                EP_LIST_FOREACH(k, lists[i])
            ep_conn_abort(EP_CONTAINER(k, struct ep_upconn, node)->conn, EP_CLOSE_LOCAL, false);
        }
    }
}

void ep_upstream_worker_fini(struct ep_worker *w)
{
    struct ep_upworker *u = w->resolver;

    if (!u)
        return;
    /* Clusters that nobody uses any more end with their connections; it takes a turn or two. */
    for (int i = 0; i < FINI_ROUNDS; i++) {
        bool waiting = false;
        EP_LIST_FOREACH(n, &u->clusters)
        {
            struct ep_cluster *cl = EP_CONTAINER(n, struct ep_cluster, all);
            if (!cl->dying)
                continue;
            abort_connections(cl);
            waiting = true;
        }
        if (!waiting)
            break;
        ep_worker_turn(w, false);
    }
    w->resolver = NULL;
    EP_LIST_FOREACH(n, &u->clusters)
    ep_list_remove(n);
    ep_resolver_free(u->resolver);
    free(u->addresses);
    free(u);
}

static void read_addresses(struct ep_upworker *u)
{
    struct ifaddrs *all = NULL;
    size_t n = 0;

    free(u->addresses);
    u->addresses = NULL;
    u->n_addresses = 0;
    if (getifaddrs(&all) < 0)
        return;
    for (struct ifaddrs *i = all; i; i = i->ifa_next)
        n++;
    u->addresses = ep_calloc(n + 1, sizeof *u->addresses);
    for (struct ifaddrs *i = all; i; i = i->ifa_next) {
        struct ep_addr *a = &u->addresses[u->n_addresses];
        if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        a->len = i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        memcpy(&a->u, i->ifa_addr, a->len);
        u->n_addresses++;
    }
    freeifaddrs(all);
}

static bool same_host(const struct ep_addr *a, const struct ep_addr *b)
{
    if (a->u.sa.sa_family != b->u.sa.sa_family)
        return false;
    if (a->u.sa.sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)&a->u)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)(const void *)&b->u)->sin_addr.s_addr;
    return memcmp(&((const struct sockaddr_in6 *)(const void *)&a->u)->sin6_addr,
                  &((const struct sockaddr_in6 *)(const void *)&b->u)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

bool ep_upworker_is_local(struct ep_worker *w, const struct ep_addr *a)
{
    struct ep_upworker *u = w->resolver;
    const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)&a->u;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)&a->u;

    switch (a->u.sa.sa_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        if ((ntohl(four->sin_addr.s_addr) >> 24) == 127 || four->sin_addr.s_addr == 0)
            return true;
        break;
    case AF_INET6:
        if (IN6_IS_ADDR_LOOPBACK(&six->sin6_addr) || IN6_IS_ADDR_UNSPECIFIED(&six->sin6_addr))
            return true;
        break;
    default:
        return false;
    }
    if (!u)
        return false;
    if (!u->addresses || w->now_ns - u->addresses_ns > ADDRESSES_FRESH_NS) {
        read_addresses(u);
        u->addresses_ns = w->now_ns;
    }
    for (size_t i = 0; i < u->n_addresses; i++)
        if (same_host(&u->addresses[i], a))
            return true;
    return false;
}
