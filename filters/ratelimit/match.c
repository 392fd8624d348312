/* Which calls a limit is for, and whose bucket they take from.
 *
 * What a call says is only known when its body was read. Of a call that isn't seen whole, conditions on what it asks
 * for are taken to hold, and what is missing of its key is empty: so who hides a call meets the limits that it could be
 * under. */
#include "ratelimit/ratelimit.h"

#include "filter/chain.h"

static struct ep_str without_query(struct ep_str path)
{
    ptrdiff_t n = ep_str_find(path, '?', 0);

    return n < 0 ? path : ep_str_n(path.p, (size_t)n);
}

static struct ep_str without_port(struct ep_str authority)
{
    ptrdiff_t colon = ep_str_find(
        authority, ':', authority.n && authority.p[0] == '[' ? (size_t)EP_MAX(ep_str_find(authority, ']', 0), 0) : 0);

    return colon < 0 ? authority : ep_str_n(authority.p, (size_t)colon);
}

static bool any(const struct ep_vec *globs, struct ep_str value)
{
    const struct ep_str *g = globs->v;

    for (size_t i = 0; i < globs->n; i++)
        if (ep_str_glob(g[i], value))
            return true;
    return globs->n == 0;
}

bool ep_ratelimit_matches(const struct ep_ratelimit_limit *l, struct ep_stream *s, const struct ep_call *c)
{
    const struct ep_ratelimit_match *m = &l->match;
    bool seen = c->visible == EP_VISIBLE_FULL;

    if (m->principals.n && !any(&m->principals, s->peer_id))
        return false;
    if (m->hosts.n && !any(&m->hosts, without_port(ep_stream_authority(s))))
        return false;
    if (m->paths.n && !any(&m->paths, without_query(ep_stream_path(s))))
        return false;
    if (m->tenants.n && !any(&m->tenants, c->tenant))
        return false;
    if (!seen)
        return true;
    return any(&m->agents, c->agent) && any(&m->protocols, c->protocol) && any(&m->methods, c->method) &&
           any(&m->tools, c->tool) && any(&m->models, c->model);
}

static struct ep_str address_of(struct ep_stream *s, char out[128])
{
    struct ep_addr a;

    if (!s->down->conn)
        return (struct ep_str){NULL, 0};
    a = s->down->conn->peer;
    ep_addr_set_port(&a, 0);
    return ep_str_n(out, (size_t)ep_addr_format(&a, out));
}

static struct ep_str value_of(const struct ep_ratelimit_part *p, struct ep_stream *s, const struct ep_call *c,
                              char room[128])
{
    const struct ep_route *route;

    switch (p->by) {
    case EP_BY_PRINCIPAL:
        return s->peer_id;
    case EP_BY_TENANT:
        return c->tenant;
    case EP_BY_AGENT:
        return c->agent;
    case EP_BY_SESSION:
        return c->session;
    case EP_BY_PROTOCOL:
        return c->protocol;
    case EP_BY_SERVICE:
        return c->service;
    case EP_BY_METHOD:
        return c->method;
    case EP_BY_TOOL:
        return c->tool;
    case EP_BY_MODEL:
        return c->model;
    case EP_BY_HOST:
        return without_port(ep_stream_authority(s));
    case EP_BY_PATH:
        return without_query(ep_stream_path(s));
    case EP_BY_ROUTE:
        route = ep_stream_route(s);
        return route ? route->name : (struct ep_str){NULL, 0};
    case EP_BY_ADDRESS:
        return address_of(s, room);
    case EP_BY_HEADER:
        return ep_headers_get(&s->request.headers, p->header);
    }
    return (struct ep_str){NULL, 0};
}

bool ep_ratelimit_key(const struct ep_limiter *table, uint64_t base, const struct ep_ratelimit_limit *l,
                      struct ep_stream *s, const struct ep_call *c, uint64_t *key)
{
    char room[128];

    *key = base;
    for (unsigned i = 0; i < l->n_parts; i++) {
        const struct ep_ratelimit_part *p = &l->parts[i];
        struct ep_str value = value_of(p, s, c, room);

        if (!value.n && (p->by == EP_BY_TOOL || p->by == EP_BY_MODEL) && c->visible == EP_VISIBLE_FULL)
            return false; /* it surely calls none */
        *key = ep_limiter_key(table, *key, value);
    }
    return true;
}
