/* A worker's instance of a configuration: its clusters, taken over where they are the same, and a chain a listener. */
#include <stdlib.h>

#include "config/process.h"
#include "lua/possible.h"
#include "net/tls.h"

static struct ep_cluster *lookup(void *user, struct ep_str name)
{
    const struct ep_view *view = user;

    for (unsigned i = 0; i < view->n_clusters; i++)
        if (ep_str_eq(ep_cluster_name(view->clusters[i]), name))
            return view->clusters[i];
    return NULL;
}

static struct ep_tls_context *mesh_context(void *user)
{
    const struct ep_serving *v = user;

    return v->identity ? v->identity->mesh : NULL;
}

static struct ep_tls_context *mesh_tcp_context(void *user)
{
    const struct ep_serving *v = user;

    return v->identity ? v->identity->mesh_tcp : NULL;
}

static struct ep_upstream_env environment(struct ep_serving *v, const struct ep_config *config,
                                          const struct ep_attempt *a)
{
    return (struct ep_upstream_env){
        .worker = &v->worker,
        .mesh = &config->mesh,
        .mesh_context = mesh_context,
        .mesh_tcp_context = mesh_tcp_context,
        .user = v, /* outlives every cluster of this worker, so a rotated identity reaches them all */
        .n_workers = a->n_workers,
        .own = a->own,
        .n_own = config->listeners.n,
    };
}

static void view_free(struct ep_view *view)
{
    for (unsigned i = 0; i < view->n_chains; i++) {
        if (view->chains[i]->tls)
            ep_tls_context_unref(view->chains[i]->tls);
        ep_chain_free(view->chains[i]);
    }
    for (unsigned i = 0; i < view->n_clusters; i++)
        ep_cluster_unref(view->clusters[i]);
    free(view->chains);
    free(view->clusters);
    ep_egress_unref(view->egress);
    ep_config_unref((struct ep_config *)(uintptr_t)view->config);
    free(view);
}

static bool add_clusters(struct ep_serving *v, struct ep_view *view, const struct ep_attempt *a, struct ep_error *err)
{
    struct ep_upstream_env env = environment(v, a->config, a);
    const struct ep_cluster_config *k;

    view->clusters = ep_calloc(a->config->clusters.n + 2, sizeof(struct ep_cluster *));
    for (size_t i = 0; (k = ep_config_cluster_at(a->config, i)); i++) {
        struct ep_cluster *old = v->worker.view ? lookup(v->worker.view, k->name) : NULL;
        struct ep_cluster *made = ep_cluster_new(&env, k, old, err);
        if (!made)
            return false;
        view->clusters[view->n_clusters++] = made;
    }
    if (a->config->collector.name.n)
        view->collector = view->clusters[view->n_clusters - 1];
    return true;
}

/* A listener that leads to opaque TCP alone has nothing to sniff: whoever speaks first is heard. */
static bool only_tcp(const struct ep_chain *c)
{
    for (unsigned i = 0; i < c->n_routes; i++)
        if (ep_cluster_get_config(c->routes[i].cluster)->protocol != EP_PROTO_TCP)
            return false;
    return c->n_routes > 0;
}

static bool add_chains(struct ep_serving *v, struct ep_view *view, const struct ep_attempt *a, struct ep_error *err)
{
    const struct ep_listener_config *l = a->config->listeners.v;

    view->chains = ep_calloc(a->config->listeners.n + 1, sizeof(struct ep_chain *));
    for (size_t i = 0; i < a->config->listeners.n; i++) {
        struct ep_chain *made = ep_chain_new(view, &v->worker, &l[i], lookup, view, err);
        if (!made)
            return ep_error_prefix(err, "listener %.*s", EP_STR_ARG(l[i].name));
        made->opaque = l[i].protocol == EP_LISTENER_TCP || only_tcp(made);
        view->chains[view->n_chains++] = made;
    }
    return true;
}

void ep_view_set_identity(struct ep_view *view, const struct ep_identity *identity)
{
    for (unsigned i = 0; i < view->n_chains; i++) {
        struct ep_chain *c = view->chains[i];
        struct ep_tls_context *now = identity && c->config->tls != EP_TLS_OFF ? identity->server[c->config->tls] : NULL;
        if (now)
            ep_tls_context_ref(now);
        if (c->tls)
            ep_tls_context_unref(c->tls);
        c->tls = now;
    }
}

struct ep_view *ep_view_build(struct ep_serving *v, const struct ep_attempt *a, struct ep_error *err)
{
    struct ep_config *config = a->config;
    struct ep_view *view = ep_calloc(1, sizeof *view);

    *view = (struct ep_view){
        .refs = 1,
        .worker = &v->worker,
        .config = ep_config_ref(config),
        .generation = a->generation,
        .service = config->node.service,
        .namespace_ = config->node.namespace_,
        .cluster_name = config->node.cluster,
        .trace_sample = config->tracing.sample,
        .trace_decisions = config->tracing.decisions,
        .tracing = &config->tracing,
        .constitution = config->constitution.hash,
        .policies_config = config->policies.directory.n || config->policies.charter ? &config->policies : NULL,
        .policies = v->next_policies,
        .constitution_config = config->constitution.hash.n ? &config->constitution : NULL,
        .chaos_config = &config->chaos,
        .egress = ep_egress_ref(a->egress),
        .free = view_free,
    };
    if (!add_clusters(v, view, a, err) || !add_chains(v, view, a, err) || !ep_policy_view_possible(view, err)) {
        ep_view_unref(view);
        return NULL;
    }
    ep_view_set_identity(view, a->identity);
    return view;
}

void ep_view_restore(struct ep_serving *v, const struct ep_attempt *a)
{
    const struct ep_config *config = v->worker.view->config;
    const struct ep_listener_config *l = config->listeners.v;
    struct ep_addr *own = ep_calloc(config->listeners.n + 1, sizeof *own);
    struct ep_attempt old = *a;
    struct ep_upstream_env env;

    for (size_t i = 0; i < config->listeners.n; i++)
        own[i] = l[i].bind;
    old.own = own;
    env = environment(v, config, &old);
    for (unsigned i = 0; i < v->worker.view->n_clusters; i++) {
        struct ep_error err;
        struct ep_cluster *same = ep_cluster_new(&env, ep_config_cluster_at(config, i), v->worker.view->clusters[i], &err);
        if (same)
            ep_cluster_unref(same);
    }
    free(own);
}
