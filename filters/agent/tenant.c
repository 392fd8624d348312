/* Whose call it is: the part of the caller's verified identity that `tenant.identity` points at, and only where that says
 * nothing the header that `tenant.header` names. Both are the route's, where it says anything of tenants, else the listener's.
 * Without a header configured nobody can name a tenant for himself. */
#include "agent/agent.h"
#include "filter/chain.h"

#define MARK EP_STR("{tenant}")

/* The next part up to a '/', which may be empty. */
static bool part_of(struct ep_str *rest, struct ep_str *part)
{
    ptrdiff_t slash;

    if (!rest->p)
        return false;
    slash = ep_str_find(*rest, '/', 0);
    *part = slash < 0 ? *rest : ep_str_n(rest->p, (size_t)slash);
    *rest = slash < 0 ? (struct ep_str){NULL, 0} : ep_str_n(rest->p + slash + 1, rest->n - (size_t)slash - 1);
    return true;
}

struct ep_str ep_agent_tenant_of(struct ep_str pattern, struct ep_str id)
{
    struct ep_str wanted, given, found = {NULL, 0};

    while (part_of(&pattern, &wanted)) {
        ptrdiff_t mark = ep_str_search(wanted, MARK);
        if (!part_of(&id, &given))
            return (struct ep_str){NULL, 0};
        if (mark < 0) {
            if (!ep_str_glob(wanted, given))
                return (struct ep_str){NULL, 0};
            continue;
        }
        struct ep_str before = ep_str_n(wanted.p, (size_t)mark);
        struct ep_str after = ep_str_n(wanted.p + mark + MARK.n, wanted.n - (size_t)mark - MARK.n);
        if (given.n <= before.n + after.n || !ep_str_starts(given, before) || !ep_str_ends(given, after))
            return (struct ep_str){NULL, 0};
        found = ep_str_n(given.p + before.n, given.n - before.n - after.n);
    }
    return id.p ? (struct ep_str){NULL, 0} : found; /* the whole ID must fit */
}

bool ep_agent_tenant(struct ep_stream *s, bool by_route)
{
    const struct ep_tenant_config *c = &s->chain->config->tenant;
    const struct ep_route *route = by_route ? ep_stream_route(s) : NULL;
    const struct ep_headers *h = &s->request.headers;
    struct ep_str value = {NULL, 0}, identity = c->identity;
    unsigned n = 0;

    if (route && route->config->tenant) {
        c = route->config->tenant;
        identity = c->identity.n ? c->identity : identity;
    }
    if (s->peer_id.n && identity.n)
        s->call.tenant = ep_agent_tenant_of(identity, s->peer_id);
    if (s->call.tenant.n || !c->header.n)
        return true;
    for (uint32_t i = 0; i < h->n; i++) {
        if (!ep_str_eq(h->v[i].name, c->header))
            continue;
        value = ep_str_trim(h->v[i].value);
        n++;
    }
    if (n > 1) { /* two readers would take it for two tenants' */
        ep_agent_bad_request(s, "agent.tenant", EP_STR("the tenant is named more than once"), 0);
        return false;
    }
    s->call.tenant = value;
    return true;
}
