/* A cluster: making it, taking it over by the next configuration, ending it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "upstream/cluster.h"

#define ROOTS_MAX (16 << 20)

struct ep_str ep_cluster_name(const struct ep_cluster *c)
{
    return c->config.name;
}

const struct ep_cluster_config *ep_cluster_get_config(const struct ep_cluster *c)
{
    return &c->config;
}

uint64_t *ep_cluster_cell(struct ep_cluster *cl, enum ep_metric m, const struct ep_str *labels)
{
    return cl->worker->stats ? ep_stats_cell(cl->worker->stats, m, labels) : &cl->nowhere;
}

bool ep_cluster_may_warn(struct ep_cluster *cl)
{
    uint64_t now = cl->worker->now_ns;

    if (cl->warned_ns && now - cl->warned_ns < EP_S)
        return false;
    cl->warned_ns = now;
    return true;
}

/* --- the end --- */

static void free_environment(struct ep_cluster *cl)
{
    ep_arena_fini(&cl->mesh_arena);
    free(cl->own);
    cl->own = NULL;
    cl->n_own = 0;
}

static void cluster_free(struct ep_cluster *cl)
{
    assert(cl->refs == 0 && cl->n_calls == 0 && ep_list_empty(&cl->endpoints) && ep_list_empty(&cl->dead));
    ep_list_remove(&cl->reap.node);
    ep_list_remove(&cl->all);
    for (size_t i = 0; i < EP_COUNT(cl->simple); i++)
        if (cl->simple[i])
            ep_tls_context_unref(cl->simple[i]);
    free_environment(cl);
    free(cl->members);
    free(cl->usable);
    free(cl->by_address);
    free((void *)(uintptr_t)cl->roots_pem.p);
    ep_arena_fini(&cl->arena);
    ep_chunk_pool_fini(&cl->chunks);
    free(cl);
}

static void free_dead(struct ep_cluster *cl)
{
    while (!ep_list_empty(&cl->dead))
        ep_endpoint_free(EP_CONTAINER(cl->dead.next, struct ep_endpoint, node));
}

static void reap(struct ep_task *t)
{
    struct ep_cluster *cl = EP_CONTAINER(t, struct ep_cluster, reap);

    free_dead(cl);
    if (cl->dying && cl->n_calls == 0 && ep_list_empty(&cl->endpoints))
        cluster_free(cl);
}

void ep_cluster_reap_later(struct ep_cluster *cl)
{
    ep_worker_defer(cl->worker, &cl->reap);
}

static void fail_waiting(struct ep_cluster *cl)
{
    while (!ep_list_empty(&cl->unresolved))
        ep_call_fail(EP_CONTAINER(cl->unresolved.next, struct ep_upstream_call, node), EP_UPSTREAM_NO_ENDPOINT);
    EP_LIST_FOREACH(n, &cl->endpoints)
    {
        struct ep_endpoint *e = EP_CONTAINER(n, struct ep_endpoint, node);
        EP_LIST_FOREACH(m, &e->lanes)
        ep_lane_fail_waiters(EP_CONTAINER(m, struct ep_lane, node), EP_UPSTREAM_NO_ENDPOINT, true);
    }
}

void ep_cluster_unref(struct ep_cluster *cl)
{
    assert(cl->refs > 0);
    if (--cl->refs)
        return;
    cl->dying = true;
    ep_worker_timer_stop(cl->worker, &cl->eject_timer);
    ep_worker_timer_stop(cl->worker, &cl->sweep_timer);
    ep_worker_timer_stop(cl->worker, &cl->dns_timer);
    ep_lookup_cancel(&cl->lookup);
    fail_waiting(cl);
    ep_members_drop_all(cl);
    /* With no connection, no probe and no call left there is none whose callback we could be in. */
    if (cl->n_calls == 0 && ep_list_empty(&cl->endpoints)) {
        free_dead(cl);
        cluster_free(cl);
    }
}

/* --- the beginning --- */

static void set_environment(struct ep_cluster *cl, const struct ep_upstream_env *env)
{
    struct ep_str host, dns = cl->config.dns;
    const struct ep_str *globs;
    uint16_t port;

    free_environment(cl);
    ep_arena_init(&cl->mesh_arena, &cl->chunks);
    cl->mesh = (struct ep_mesh_config){0};
    if (env->mesh)
        ep_mesh_config_copy(&cl->mesh, env->mesh, &cl->mesh_arena);
    cl->mesh_context = env->mesh_context;
    cl->mesh_tcp_context = env->mesh_tcp_context;
    cl->mesh_user = env->user;
    if (env->n_own) {
        cl->own = ep_calloc(env->n_own, sizeof *cl->own);
        memcpy(cl->own, env->own, env->n_own * sizeof *cl->own);
        cl->n_own = env->n_own;
    }
    cl->dns_in_mesh = false;
    globs = cl->mesh.hosts.v;
    if (dns.n && ep_cluster_dns_parse(dns, &host, &port))
        for (size_t i = 0; i < cl->mesh.hosts.n && !cl->dns_in_mesh; i++)
            cl->dns_in_mesh = ep_str_glob(globs[i], host);
}

static bool read_roots(struct ep_str path, struct ep_str *out, struct ep_error *err)
{
    char *name = ep_strndup(path.p, path.n), *p = NULL;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    size_t n = 0;
    bool good = false;

    if (fd < 0 || fstat(fd, &st) < 0) {
        ep_error_set(err, "tls.roots %s: %s", name, strerror(errno));
        goto done;
    }
    if (st.st_size <= 0 || st.st_size > ROOTS_MAX) {
        ep_error_set(err, "tls.roots %s: empty or over 16 MiB", name);
        goto done;
    }
    p = ep_malloc((size_t)st.st_size);
    while (n < (size_t)st.st_size) {
        ssize_t got = read(fd, p + n, (size_t)st.st_size - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            ep_error_set(err, "tls.roots %s: %s", name, got < 0 ? strerror(errno) : "became shorter while it was read");
            goto done;
        }
        n += (size_t)got;
    }
    *out = ep_str_n(p, n);
    p = NULL;
    good = true;
done:
    if (fd >= 0)
        close(fd);
    free(p);
    free(name);
    return good;
}

static void set_limits(struct ep_cluster *cl, const struct ep_upstream_env *env)
{
    const struct ep_cluster_config *c = &cl->config;
    const int64_t limits[EP_BREAKER_COUNT] = {
        [EP_BREAKER_CONNECTIONS] = c->limits.connections,
        [EP_BREAKER_PENDING] = c->limits.pending,
        [EP_BREAKER_REQUESTS] = c->limits.requests,
    };

    ep_breaker_init(&cl->breaker, limits, env->n_workers);
    cl->outlier = (struct ep_outlier_rules){
        .consecutive = (uint32_t)c->outlier.consecutive_5xx,
        .ejection_ns = c->outlier.ejection_ns,
        .max_ejected = c->outlier.max_ejected,
    };
    cl->balancer = (struct ep_balancer){.how = c->balance, .next = (uint32_t)ep_rng_u64(&cl->worker->rng)};
    ep_http_options_preset(&cl->http);
    cl->http.idle_timeout_ns = c->idle_timeout_ns;
    cl->http.max_requests = (uint64_t)EP_MAX(c->limits.requests_per_connection, (int64_t)0);
}

static struct ep_cluster *cluster_new(const struct ep_upstream_env *env, const struct ep_cluster_config *config)
{
    struct ep_upworker *u = env->worker->resolver;
    struct ep_cluster *cl = ep_calloc(1, sizeof *cl);

    cl->worker = env->worker;
    cl->refs = 1;
    ep_chunk_pool_init(&cl->chunks, 0);
    ep_arena_init(&cl->arena, &cl->chunks);
    ep_arena_init(&cl->mesh_arena, &cl->chunks);
    ep_cluster_config_copy(&cl->config, config, &cl->arena);
    ep_list_init(&cl->all);
    ep_list_init(&cl->endpoints);
    ep_list_init(&cl->dead);
    ep_list_init(&cl->unresolved);
    ep_task_init(&cl->reap, reap);
    ep_timer_init(&cl->eject_timer, ep_members_on_eject_timer);
    ep_timer_init(&cl->sweep_timer, ep_members_on_sweep);
    ep_timer_init(&cl->dns_timer, ep_names_on_timer);
    if (u)
        ep_list_push(&u->clusters, &cl->all);
    set_environment(cl, env);
    set_limits(cl, env);
    cl->cell_active = ep_cluster_cell(cl, EP_METRIC_UPSTREAM_ACTIVE, EP_LABELS(cl->config.name));
    cl->cell_pending = ep_cluster_cell(cl, EP_METRIC_UPSTREAM_PENDING, EP_LABELS(cl->config.name));
    cl->cell_streams = ep_cluster_cell(cl, EP_METRIC_UPSTREAM_STREAMS, EP_LABELS(cl->config.name));
    return cl;
}

/* The next configuration holds the same cluster: only what is around it may have changed. */
static struct ep_cluster *take_over(struct ep_cluster *cl, const struct ep_upstream_env *env)
{
    cl->refs++;
    set_environment(cl, env);
    EP_LIST_FOREACH(n, &cl->endpoints)
    ep_endpoint_situate(EP_CONTAINER(n, struct ep_endpoint, node));
    return cl;
}

struct ep_cluster *ep_cluster_new(const struct ep_upstream_env *env, const struct ep_cluster_config *config,
                                  struct ep_cluster *old, struct ep_error *err)
{
    struct ep_str roots = {NULL, 0};
    struct ep_cluster *cl;
    uint64_t digest;

    if (config->tls.mode == EP_UPTLS_SIMPLE && config->tls.roots.n && !read_roots(config->tls.roots, &roots, err)) {
        ep_error_prefix(err, "cluster %.*s", EP_STR_ARG(config->name));
        return NULL;
    }
    digest = ep_cluster_digest(config, roots);
    if (old && !old->dying && old->worker == env->worker && old->digest == digest) {
        free((void *)(uintptr_t)roots.p);
        return take_over(old, env);
    }
    cl = cluster_new(env, config);
    cl->digest = digest;
    cl->roots_pem = roots;
    if (config->tls.mode == EP_UPTLS_SIMPLE && !ep_dial_simple_context(cl, err)) {
        ep_error_prefix(err, "cluster %.*s", EP_STR_ARG(config->name));
        ep_cluster_unref(cl);
        return NULL;
    }
    if (config->endpoints.n)
        ep_members_set(cl, config->endpoints.v, config->endpoints.n);
    else if (config->dns.n)
        ep_names_start(cl);
    return cl;
}

void ep_cluster_identity_changed(struct ep_cluster *cl)
{
    EP_LIST_FOREACH(n, &cl->endpoints)
    {
        struct ep_endpoint *e = EP_CONTAINER(n, struct ep_endpoint, node);
        EP_LIST_FOREACH(m, &e->lanes)
        {
            struct ep_lane *l = EP_CONTAINER(m, struct ep_lane, node);
            if (l->tls == EP_UPTLS_MESH)
                ep_lane_retire(l);
        }
    }
}
