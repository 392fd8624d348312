/* Deep copies of a cluster's configuration, and its digest: a cluster outlives the snapshot that it was made from, and
 * is taken over by the next one when nothing of its own part has changed. */
#include "upstream/cluster.h"

static void copy_strings(struct ep_vec *to, const struct ep_vec *from, struct ep_arena *arena)
{
    struct ep_str *v = from->n ? ep_arena_alloc(arena, from->n * sizeof *v) : NULL;

    for (size_t i = 0; i < from->n; i++)
        v[i] = ep_arena_str(arena, ((const struct ep_str *)from->v)[i]);
    *to = (struct ep_vec){v, from->n};
}

static void copy_plain(struct ep_vec *to, const struct ep_vec *from, size_t size, struct ep_arena *arena)
{
    void *v = from->n ? ep_arena_alloc(arena, from->n * size) : NULL;

    if (v)
        memcpy(v, from->v, from->n * size);
    *to = (struct ep_vec){v, from->n};
}

void ep_cluster_config_copy(struct ep_cluster_config *to, const struct ep_cluster_config *from, struct ep_arena *arena)
{
    *to = *from;
    to->name = ep_arena_str(arena, from->name);
    to->dns = ep_arena_str(arena, from->dns);
    to->tls.sni = ep_arena_str(arena, from->tls.sni);
    to->tls.roots = ep_arena_str(arena, from->tls.roots);
    to->probe.path = ep_arena_str(arena, from->probe.path);
    copy_plain(&to->endpoints, &from->endpoints, sizeof(struct ep_addr), arena);
    copy_strings(&to->tls.peers, &from->tls.peers, arena);
}

void ep_mesh_config_copy(struct ep_mesh_config *to, const struct ep_mesh_config *from, struct ep_arena *arena)
{
    copy_strings(&to->hosts, &from->hosts, arena);
    copy_plain(&to->cidrs, &from->cidrs, sizeof(struct ep_cidr), arena);
}

static void mix(uint64_t *h, const void *p, size_t n)
{
    *h = (*h ^ ep_hash(p, n)) * 0x9e3779b97f4a7c15u;
    *h = (*h ^ (n + (*h >> 31))) * 0x9e3779b97f4a7c15u;
}

static void mix_str(uint64_t *h, struct ep_str s)
{
    mix(h, s.p, s.n);
}

static void mix_strings(uint64_t *h, const struct ep_vec *v)
{
    mix(h, &v->n, sizeof v->n);
    for (size_t i = 0; i < v->n; i++)
        mix_str(h, ((const struct ep_str *)v->v)[i]);
}

#define MIX(field) mix(&h, &(c->field), sizeof c->field)

uint64_t ep_cluster_digest(const struct ep_cluster_config *c, struct ep_str roots_pem)
{
    uint64_t h = 0x65706f72u;

    mix_str(&h, c->name);
    mix(&h, &c->endpoints.n, sizeof c->endpoints.n);
    for (size_t i = 0; i < c->endpoints.n; i++) { /* as text: padding of the struct is no part of it */
        char text[128];
        int n = ep_addr_format(&((const struct ep_addr *)c->endpoints.v)[i], text);
        mix(&h, text, (size_t)EP_MAX(n, 0));
    }
    mix_str(&h, c->dns);
    MIX(original_destination);
    MIX(protocol);
    MIX(tls.mode);
    mix_str(&h, c->tls.sni);
    mix_str(&h, c->tls.roots);
    mix_str(&h, roots_pem);
    mix_strings(&h, &c->tls.peers);
    MIX(balance);
    MIX(limits.connections);
    MIX(limits.pending);
    MIX(limits.requests);
    MIX(limits.retries);
    MIX(limits.requests_per_connection);
    MIX(outlier.consecutive_5xx);
    MIX(outlier.ejection_ns);
    MIX(outlier.max_ejected);
    mix_str(&h, c->probe.path);
    MIX(probe.tcp);
    MIX(probe.interval_ns);
    MIX(probe.timeout_ns);
    MIX(probe.healthy);
    MIX(probe.unhealthy);
    MIX(connect_timeout_ns);
    MIX(queue_timeout_ns);
    MIX(idle_timeout_ns);
    MIX(panic);
    return h;
}
