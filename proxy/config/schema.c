/* The schema of the whole file, and the checks that look at more than one part of it. */
#include <stdlib.h>

#include "config/bind.h"
#include "filter/chain.h"

#define CONFIG(member)   offsetof(struct ep_config, member)
#define NODE(member)     offsetof(struct ep_node_config, member)
#define ADMIN(member)    offsetof(struct ep_admin_config, member)
#define FILES(member)    offsetof(struct ep_identity_files, member)
#define IDENTITY(member) offsetof(struct ep_identity_config, member)
#define DRAIN(member)    offsetof(struct ep_drain_config, member)

#define WORKERS_MAX 64u

static const struct ep_field node_fields[] = {
    {.key = "service",
     .type = EP_TYPE_STR,
     .offset = NODE(service),
     .help = "Who we are, in metrics and logs; without it SERVICE, POD_NAME or HOSTNAME of the environment."},
    {.key = "namespace", .type = EP_TYPE_STR, .offset = NODE(namespace_), .help = "Without it POD_NAMESPACE."},
    {.key = "cluster", .type = EP_TYPE_STR, .offset = NODE(cluster), .help = "Without it CLUSTER."},
};

/* The environment stands in for what the file leaves out. */
static void from_environment(struct ep_checker *c, struct ep_str *field, const char *const *names)
{
    for (; !field->n && *names; names++) {
        const char *value = getenv(*names);
        if (value && *value)
            *field = ep_arena_str(c->arena, ep_str(value));
    }
}

static void check_node(void *object, struct ep_checker *c)
{
    struct ep_node_config *n = object;

    from_environment(c, &n->service, (const char *const[]){"SERVICE", "POD_NAME", "HOSTNAME", NULL});
    from_environment(c, &n->namespace_, (const char *const[]){"POD_NAMESPACE", NULL});
    from_environment(c, &n->cluster, (const char *const[]){"CLUSTER", NULL});
}

static const struct ep_schema node_schema = EP_SCHEMA("node", "Who this proxy stands beside.", struct ep_node_config,
                                                      node_fields, .short_key = "service", .check = check_node);

static const struct ep_field admin_fields[] = {
    {.key = "bind",
     .type = EP_TYPE_ADDR,
     .offset = ADMIN(bind),
     .preset = "127.0.0.1:15000",
     .help = "Of the admin server."},
    {.key = "metrics",
     .type = EP_TYPE_ADDR,
     .offset = ADMIN(metrics),
     .preset = "0.0.0.0:15020",
     .help = "Of /metrics, /ready and /live, for those who scrape and probe."},
    {.key = "token",
     .type = EP_TYPE_STR,
     .offset = ADMIN(token),
     .secret = true,
     .help = "Bearer token that requests which change something must carry; without it they must come over loopback."},
};

static void check_admin(void *object, struct ep_checker *c)
{
    const struct ep_admin_config *a = object;

    if (a->token.n && a->token.n < 8)
        ep_check_error(c, object, "token", "a token has at least 8 bytes");
    if (ep_addr_equal(&a->bind, &a->metrics))
        ep_check_error(c, object, "metrics", "must not be where `bind` is");
}

static const struct ep_schema admin_schema =
    EP_SCHEMA("admin", "The admin server and the metrics.", struct ep_admin_config, admin_fields, .check = check_admin);

static const struct ep_field files_fields[] = {
    {.key = "certificate",
     .type = EP_TYPE_STR,
     .offset = FILES(certificate),
     .required = true,
     .help = "PEM file: our certificate and what leads to the root."},
    {.key = "key", .type = EP_TYPE_STR, .offset = FILES(key), .required = true, .help = "PEM file: its private key."},
    {.key = "roots",
     .type = EP_TYPE_STR,
     .offset = FILES(roots),
     .help = "PEM file: the trust bundle that peers are checked against; needed for mTLS."},
};

static const struct ep_schema files_schema =
    EP_SCHEMA("identity.files", "Watched; a change is taken over without a new configuration.",
              struct ep_identity_files, files_fields, .check = NULL);

static const struct ep_field identity_fields[] = {
    {.key = "files",
     .type = EP_TYPE_STRUCT,
     .offset = IDENTITY(files),
     .sub = &files_schema,
     .help = "Certificate, key and roots from files."},
    {.key = "trust_domain",
     .type = EP_TYPE_STR,
     .offset = IDENTITY(trust_domain),
     .preset = "cluster.local",
     .help = "The trust domain that a peer's SPIFFE ID must be of."},
};

static const struct ep_schema identity_schema =
    EP_SCHEMA("identity", "Who we are in TLS.", struct ep_identity_config, identity_fields, .check = NULL);

static const struct ep_field drain_fields[] = {
    {.key = "accept",
     .type = EP_TYPE_DURATION,
     .offset = DRAIN(accept_ns),
     .preset = "5s",
     .max = 600.0 * (double)EP_S,
     .help = "How long after SIGTERM new connections are still accepted, since endpoints still list the pod."},
    {.key = "timeout",
     .type = EP_TYPE_DURATION,
     .offset = DRAIN(timeout_ns),
     .preset = "30s",
     .max = 3600.0 * (double)EP_S,
     .help = "How long to wait then for requests to end."},
};

static const struct ep_schema drain_schema =
    EP_SCHEMA("drain", "How the process ends.", struct ep_drain_config, drain_fields, .check = NULL);

static const struct ep_field fields[] = {
    {.key = "node",
     .type = EP_TYPE_STRUCT,
     .offset = CONFIG(node),
     .sub = &node_schema,
     .help = "Who we stand beside."},
    {.key = "admin",
     .type = EP_TYPE_STRUCT,
     .offset = CONFIG(admin),
     .sub = &admin_schema,
     .help = "Admin server and metrics. A change takes a restart."},
    {.key = "workers",
     .type = EP_TYPE_STR,
     .offset = CONFIG(workers),
     .preset = "auto",
     .help =
         "Threads that carry traffic: a number, or auto: the CPUs that the cgroup grants, at most 2. A change takes a "
         "restart."},
    {.key = "identity",
     .type = EP_TYPE_OPTIONAL,
     .offset = CONFIG(identity),
     .sub = &identity_schema,
     .help = "Who we are in TLS; without it no TLS is ended and no mTLS started."},
    {.key = "mesh",
     .type = EP_TYPE_STRUCT,
     .offset = CONFIG(mesh),
     .sub = &ep_mesh_schema,
     .help = "Destinations that must be reached by mTLS."},
    {.key = "constitution",
     .type = EP_TYPE_STRUCT,
     .offset = CONFIG(constitution),
     .sub = &ep_constitution_schema,
     .help = "The constitution that requests must name."},
    {.key = "policies",
     .type = EP_TYPE_STRUCT,
     .offset = CONFIG(policies),
     .sub = &ep_policies_schema,
     .help = "Policies in Lua; the directory is watched."},
    {.key = "listeners",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STRUCT,
     .sub = &ep_listener_schema,
     .offset = CONFIG(listeners),
     .required = true,
     .help = "Ports that ephor accepts on."},
    {.key = "clusters",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STRUCT,
     .sub = &ep_cluster_schema,
     .offset = CONFIG(clusters),
     .required = true,
     .help = "Where requests go."},
    {.key = "egress",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STRUCT,
     .sub = &ep_egress_schema,
     .offset = CONFIG(egress),
     .help = "TLS that apps start to hosts outside the mesh."},
    {.key = "egress_tls",
     .type = EP_TYPE_STRUCT,
     .sub = &ep_egress_tls_schema,
     .offset = CONFIG(egress_tls),
     .help = "Our CA for it, and what holds for all entries."},
    {.key = "audit", .type = EP_TYPE_STRUCT, .offset = CONFIG(audit), .sub = &ep_audit_schema, .help = "The audit."},
    {.key = "access_log",
     .type = EP_TYPE_STRUCT,
     .offset = CONFIG(access_log),
     .sub = &ep_access_log_schema,
     .help = "The access log."},
    {.key = "tracing",
     .type = EP_TYPE_STRUCT,
     .offset = CONFIG(tracing),
     .sub = &ep_tracing_schema,
     .help = "Distributed traces."},
    {.key = "chaos",
     .type = EP_TYPE_STRUCT,
     .offset = CONFIG(chaos),
     .sub = &ep_chaos_schema,
     .help = "Experiments with faults."},
    {.key = "drain",
     .type = EP_TYPE_STRUCT,
     .offset = CONFIG(drain),
     .sub = &drain_schema,
     .help = "How the process ends."},
    {.key = "state",
     .type = EP_TYPE_STR,
     .offset = CONFIG(state),
     .help =
         "Directory for what outlives the process: the last ten accepted configurations. Without it they are kept in "
         "memory."},
};

/* --- checks across parts --- */

_Static_assert(offsetof(struct ep_listener_config, name) == 0 && offsetof(struct ep_cluster_config, name) == 0,
               "check_names takes the address of a name for that of its object");

static void check_names(struct ep_checker *c, const struct ep_vec *list, size_t size, const char *what)
{
    /* Each element begins with its name: listeners and clusters do. */
    for (size_t i = 0; i < list->n; i++) {
        const struct ep_str *name = (const void *)((const char *)list->v + i * size);
        for (size_t j = 0; j < i; j++) {
            const struct ep_str *other = (const void *)((const char *)list->v + j * size);
            if (!name->n || !ep_str_eq(*name, *other))
                continue;
            struct ep_where first = ep_checker_place(c, other, "name");
            ep_check_error(c, name, "name", "there are two %ss named '%.*s'; the first is on line %d", what,
                           EP_STR_ARG(*name), first.line);
            break;
        }
    }
}

static void check_cluster(struct ep_checker *c, const struct ep_config *config, const void *object, struct ep_str name)
{
    const struct ep_cluster_config *clusters = config->clusters.v;
    const char **names;
    const char *near;
    size_t n = 0;

    if (!name.n || ep_config_cluster(config, name))
        return;
    names = ep_arena_alloc(c->arena, (config->clusters.n + 1) * sizeof *names);
    for (size_t i = 0; i < config->clusters.n; i++)
        if (clusters[i].name.n)
            names[n++] = ep_arena_str(c->arena, clusters[i].name).p;
    near = n == 1 ? names[0] : ep_nearest(name, names, n);
    ep_check_error(c, object, "cluster", "there is no cluster '%.*s'%s%s%s", EP_STR_ARG(name),
                   near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static void check_binds(struct ep_checker *c, const struct ep_config *config)
{
    const struct ep_listener_config *l = config->listeners.v;
    char text[128];

    for (size_t i = 0; i < config->listeners.n; i++) {
        ep_addr_format(&l[i].bind, text);
        for (size_t j = 0; l[i].bind.len && j < i; j++)
            if (ep_addr_equal(&l[i].bind, &l[j].bind)) {
                ep_check_error(c, &l[i], "bind", "%s is bound by listener '%.*s' already", text, EP_STR_ARG(l[j].name));
                break;
            }
        if (ep_addr_equal(&l[i].bind, &config->admin.bind) || ep_addr_equal(&l[i].bind, &config->admin.metrics))
            ep_check_error(c, &l[i], "bind", "%s is the admin server's or the metrics'", text);
    }
}

static void check_tls(struct ep_checker *c, const struct ep_config *config)
{
    const struct ep_listener_config *l = config->listeners.v;
    const struct ep_cluster_config *k = config->clusters.v;
    bool roots = config->identity && config->identity->files.roots.n;

    for (size_t i = 0; i < config->listeners.n; i++) {
        if (l[i].tls != EP_TLS_OFF && !config->identity)
            ep_check_error(c, &l[i], "tls", "needs an `identity:` with a certificate and a key");
        else if (l[i].tls > EP_TLS_SIMPLE && !roots)
            ep_check_error(c, &l[i], "tls", "needs identity.files.roots to check callers against");
    }
    for (size_t i = 0; i < config->clusters.n; i++)
        if (k[i].tls.mode == EP_UPTLS_MESH && !roots)
            ep_check_error(c, &k[i].tls, "mode", "mesh needs an `identity:` with certificate, key and roots");
    if ((config->mesh.hosts.n || config->mesh.cidrs.n) && !roots)
        ep_check_error(c, config, "mesh", "needs an `identity:` with certificate, key and roots");
}

/* Who decides where TLS goes that leaves, and whether apps can know our CA. */
static void check_egress(struct ep_checker *c, const struct ep_config *config)
{
    const struct ep_listener_config *l = config->listeners.v;
    const struct ep_egress_config *r = config->egress.v;
    bool outbound = false, told = config->egress_tls.bundle.n || config->egress_tls.certificate.n;

    for (size_t i = 0; i < config->listeners.n; i++)
        outbound |= ep_listener_direction(&l[i]) == EP_OUTBOUND && l[i].tls == EP_TLS_OFF;
    for (size_t i = 0; i < config->egress.n; i++)
        if (r[i].tls == EP_EGRESS_INTERCEPT && !told)
            ep_check_error(c, &r[i], "tls",
                           "needs egress_tls.bundle (or egress_tls.certificate and key): apps must be told the CA to trust");
    if (config->egress.n && !outbound)
        ep_check_warning(c, &r[0], "hosts", "no listener is outbound without TLS of its own: this is about none");
}

static void check(void *object, struct ep_checker *c)
{
    struct ep_config *config = object;
    const struct ep_listener_config *l = config->listeners.v;
    uint64_t n;

    ep_config_collector(&config->tracing, &config->collector, c->arena);

    if (!ep_str_eq(config->workers, EP_STR("auto")) && !(ep_str_u64(config->workers, &n) && n >= 1 && n <= WORKERS_MAX))
        ep_check_error(c, object, "workers", "must be auto or a number from 1 to %u", WORKERS_MAX);
    check_names(c, &config->listeners, sizeof(struct ep_listener_config), "listener");
    check_names(c, &config->clusters, sizeof(struct ep_cluster_config), "cluster");
    check_binds(c, config);
    check_tls(c, config);
    check_egress(c, config);
    if (config->policies.shadow_for_ns && !config->state.n)
        ep_check_error(c, &config->policies, "shadow_for",
                       "needs `state:`, a directory that outlives the process: what was seen, and when, is kept there");
    if (config->policies.shadow_for_ns && !config->policies.directory.n)
        ep_check_error(c, &config->policies, "shadow_for", "needs `directory:`");
    for (size_t i = 0; i < config->listeners.n; i++) {
        const struct ep_route_config *r = l[i].routes.v;
        check_cluster(c, config, &l[i], l[i].cluster);
        for (size_t j = 0; j < l[i].routes.n; j++)
            check_cluster(c, config, &r[j], r[j].cluster);
    }
}

const struct ep_schema ep_config_schema =
    EP_SCHEMA("configuration", "The file as a whole.", struct ep_config, fields, .check = check);
