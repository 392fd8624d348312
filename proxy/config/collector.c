/* The cluster that spans go to. It is one like those of the file, so it has their pools, DNS, TLS and mesh identity; routes and
 * policies can't name it. */
#include "config/config.h"

void ep_config_collector(const struct ep_tracing_config *t, struct ep_cluster_config *out, struct ep_arena *arena)
{
    struct ep_collector to;
    struct ep_addr *addr = ep_arena_zalloc(arena, sizeof *addr);
    struct ep_str place;

    if (!ep_collector_parse(t->otlp, &to))
        return;
    place = ep_str_find(to.host, ':', 0) >= 0 ? ep_arena_printf(arena, "[%.*s]:%u", EP_STR_ARG(to.host), to.port)
                                              : ep_arena_printf(arena, "%.*s:%u", EP_STR_ARG(to.host), to.port);
    *out = (struct ep_cluster_config){
        .name = EP_STR("tracing collector"),
        .balance = EP_BALANCE_P2C_EWMA,
        .limits = {.connections = 256, .pending = 1024, .requests = 1024, .retries = 0.2},
        .connect_timeout_ns = 5 * EP_S,
        .queue_timeout_ns = 10 * EP_S,
        .idle_timeout_ns = 300 * EP_S,
    };
    if (ep_addr_parse(place, addr))
        out->endpoints = (struct ep_vec){addr, 1};
    else
        out->dns = place;
    if (to.https) {
        out->tls.mode = EP_UPTLS_SIMPLE;
        out->tls.sni = to.host;
        out->tls.roots = t->roots;
    }
}

const struct ep_cluster_config *ep_config_cluster_at(const struct ep_config *c, size_t i)
{
    const struct ep_cluster_config *k = c->clusters.v;

    if (i < c->clusters.n)
        return &k[i];
    return i == c->clusters.n && c->collector.name.n ? &c->collector : NULL;
}
