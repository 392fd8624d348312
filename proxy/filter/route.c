/* Finding the route of a request: the first entry of the list that matches, as in Envoy and Istio. */
#include "filter/private.h"

#include <stdlib.h>

static struct ep_str without_port(struct ep_str host)
{
    ptrdiff_t close = host.n && host.p[0] == '[' ? ep_str_find(host, ']', 0) : 0;
    ptrdiff_t colon = ep_str_find(host, ':', close > 0 ? (size_t)close : 0);

    return colon >= 0 ? ep_str_n(host.p, (size_t)colon) : host;
}

static struct ep_str without_query(struct ep_str path)
{
    ptrdiff_t at = ep_str_find(path, '?', 0);

    return at >= 0 ? ep_str_n(path.p, (size_t)at) : path;
}

/* "/mcp" is a prefix of "/mcp" and "/mcp/x", not of "/mcpx"; "/" and "/a/" are of all below them. */
static bool prefix_matches(struct ep_str prefix, struct ep_str path)
{
    if (!ep_str_starts(path, prefix))
        return false;
    return path.n == prefix.n || prefix.p[prefix.n - 1] == '/' || path.p[prefix.n] == '/';
}

bool ep_match(const struct ep_match_config *m, struct ep_str host, struct ep_str path, struct ep_str method,
              const struct ep_headers *h)
{
    const struct ep_pair *wanted = m->headers.v;

    if (m->method.n && !ep_str_eq(m->method, method))
        return false;
    if (m->host.n && !ep_str_glob(m->host, without_port(host)))
        return false;
    if (m->prefix.n || m->path.n)
        path = without_query(path);
    if (m->path.n && !ep_str_eq(m->path, path))
        return false;
    if (m->prefix.n && !prefix_matches(m->prefix, path))
        return false;
    for (size_t i = 0; i < m->headers.n; i++) {
        struct ep_str value = ep_headers_get(h, wanted[i].key);
        if (!value.p || !ep_str_glob(wanted[i].value, value))
            return false;
    }
    return true;
}

const struct ep_route *ep_chain_route(const struct ep_chain *c, struct ep_str authority, struct ep_str path, struct ep_str method,
                                      const struct ep_headers *h)
{
    for (unsigned i = 0; i < c->n_routes; i++)
        if (ep_match(&c->routes[i].config->match, authority, path, method, h))
            return &c->routes[i];
    return NULL;
}

/* --- another cluster for a route: made once for each pair and kept with the chain, since reports know routes by where they
 * are --- */

struct ep_derived_route {
    struct ep_derived_route *next;
    const struct ep_route *base;
    struct ep_route_config config;
    struct ep_route route;
    char name[];
};

static const struct ep_route *derived(struct ep_chain *c, const struct ep_route *base, struct ep_cluster *cluster,
                                      struct ep_str name)
{
    struct ep_derived_route *d = c->derived;

    if (!base || base->cluster == cluster)
        return base;
    while (d && !(d->base == base && d->route.cluster == cluster))
        d = d->next;
    if (d)
        return &d->route;
    d = ep_calloc(1, sizeof *d + name.n + 1);
    memcpy(d->name, name.p, name.n);
    d->base = base;
    d->config = *base->config;
    d->config.cluster = ep_str_n(d->name, name.n);
    d->route = *base;
    d->route.config = &d->config;
    d->route.cluster = cluster;
    d->next = c->derived;
    c->derived = d;
    return &d->route;
}

void ep_route_free_derived(struct ep_chain *c)
{
    struct ep_derived_route *d;

    while ((d = c->derived)) {
        c->derived = d->next;
        free(d);
    }
}

bool ep_stream_route_to(struct ep_stream *s, struct ep_cluster *cluster, struct ep_str name)
{
    s->routed_to = cluster;
    s->routed_to_name = name;
    s->route_known = false;
    return ep_stream_route(s) != NULL;
}

const struct ep_route *ep_stream_route(struct ep_stream *s)
{
    if (!s->route_known) {
        s->route = ep_chain_route(s->chain, ep_stream_authority(s), ep_stream_path(s), ep_stream_method(s), &s->request.headers);
        if (EP_UNLIKELY(s->routed_to != NULL))
            s->route = derived(s->chain, s->route, s->routed_to, s->routed_to_name);
        s->route_known = true;
    }
    return s->route;
}

void ep_stream_clear_route(struct ep_stream *s)
{
    s->route_known = false;
}
