/* The policies and the scripts of a configuration, before there is a worker: for `ephor check`. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/config.h"
#include "filter/chain.h"
#include "lua/envoy.h"
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

/* Loads one script as a worker would, with the listener's routes, which choose among its sources. */
static bool script_loads(const struct ep_listener_config *l, const struct ep_filter_use *use, struct ep_error *err)
{
    const struct ep_filter *filter = use->filter;
    const struct ep_route_config *r = l->routes.v;
    struct ep_chain chain = {.config = l, .n_routes = (unsigned)l->routes.n};
    struct ep_worker *w = ep_calloc(1, sizeof *w);
    struct ep_filter_instance i = {.filter = filter, .config = use->config, .worker = w, .chain = &chain};

    ep_chunk_pool_init(&w->chunks, 64);
    ep_rng_seed_random(&w->rng);
    chain.routes = ep_calloc(l->routes.n + 1, sizeof *chain.routes);
    for (size_t k = 0; k < l->routes.n; k++)
        chain.routes[k].config = &r[k];
    bool good = filter->load(&i, err);
    if (good)
        filter->unload(&i);
    free(chain.routes);
    ep_chunk_pool_fini(&w->chunks);
    free(w);
    return good;
}

void ep_config_load_scripts(const struct ep_config *c, struct ep_problems *problems)
{
    const struct ep_listener_config *l = c->listeners.v;
    struct ep_error err;

    for (size_t i = 0; i < c->listeners.n; i++) {
        const struct ep_filter_use *use = l[i].filters.v;
        for (size_t k = 0; k < l[i].filters.n; k++) {
            if (!ep_str_eq(use[k].name, EP_STR("lua")))
                continue;
            struct ep_str file = ep_script_file(use[k].config);
            if (file.n && !is_there(file))
                ep_problems_add(problems, use[k].where, true, "there is no %.*s here, so this script was not looked at",
                                EP_STR_ARG(file));
            else if (!script_loads(&l[i], &use[k], &err))
                ep_problems_add(problems, use[k].where, false, "%s", err.text);
        }
    }
}
