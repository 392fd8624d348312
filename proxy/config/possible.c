/* The policies of a configuration, before there is a worker: for `ephor check`. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/config.h"
#include "filter/chain.h"
#include "lua/possible.h"

static bool is_tcp(const struct ep_config *c, struct ep_str cluster)
{
    const struct ep_cluster_config *k = c->clusters.v;

    for (size_t i = 0; i < c->clusters.n; i++)
        if (ep_str_eq(k[i].name, cluster))
            return k[i].protocol == EP_PROTO_TCP;
    return false;
}

/* As view.c has it of a chain. */
static bool is_opaque(const struct ep_config *c, const struct ep_listener_config *l)
{
    const struct ep_route_config *r = l->routes.v;

    if (l->protocol == EP_LISTENER_TCP)
        return true;
    for (size_t i = 0; i < l->routes.n; i++)
        if (!is_tcp(c, r[i].cluster))
            return false;
    return !l->cluster.n || is_tcp(c, l->cluster);
}

static bool has_policies(const struct ep_listener_config *l)
{
    const struct ep_filter_use *use = l->filters.v;

    for (size_t i = 0; i < l->filters.n; i++)
        if (ep_str_eq(use[i].name, EP_STR("policies")))
            return true;
    return l->filters.n == 0;
}

static bool is_there(struct ep_str path)
{
    char *directory = ep_strndup(path.p, path.n);
    bool there = access(directory, F_OK) == 0 || errno != ENOENT;

    free(directory);
    return there;
}

bool ep_config_policies_possible(const struct ep_config *c, bool *absent, ep_policy_warn *warn, void *user, struct ep_error *err)
{
    const struct ep_listener_config *l = c->listeners.v;
    struct ep_policy_place *v;
    size_t n = 0;
    bool good;

    *absent = c->policies.directory.n && !is_there(c->policies.directory);
    if (!c->policies.directory.n || *absent || c->policies.mode == EP_MODE_OFF)
        return true;
    v = ep_calloc(c->listeners.n + 1, sizeof *v);
    for (size_t i = 0; i < c->listeners.n; i++)
        if (has_policies(&l[i]))
            v[n++] = (struct ep_policy_place){&l[i], ep_listener_direction(&l[i]), is_opaque(c, &l[i])};
    good = ep_policy_directory_possible(&c->policies, v, n, warn, user, err);
    free(v);
    return good;
}
