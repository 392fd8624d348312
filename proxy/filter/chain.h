/* The chain of one listener in one worker: filters, routes, limits. Made from a listener's configuration,
 * immutable, freed with its view. */
#ifndef EP_FILTER_CHAIN_H
#define EP_FILTER_CHAIN_H

#include "filter/filter.h"
#include "filter/listener_config.h"

struct ep_cluster; /* upstream/upstream.h */
struct ep_policy_set; /* filters/lua */

struct ep_route {
    const struct ep_route_config *config;
    struct ep_str name;          /* "listener/0": for policies, logs and /config */
    struct ep_cluster *cluster;  /* this worker's; NULL only when the configuration check was wrong */
    struct ep_chain *chain;
    unsigned number;             /* in the view, from 1 on */
};

struct ep_chain {
    struct ep_view *view;
    const struct ep_listener_config *config;
    enum ep_direction direction;
    bool opaque;                 /* its connections are TCP, unsniffed; set by the view's maker */
    struct ep_filter_instance *filters;
    unsigned n_filters;          /* the router is the last */
    struct ep_route *routes;
    unsigned n_routes;
    struct ep_derived_route *derived; /* routes with another cluster, made when first asked for: route.c */
    void *short_route;           /* the route that `cluster:` is short for; owned */
    struct ep_http_options http;
    struct ep_tls_context *tls;  /* server context of this listener; NULL: none */
    size_t state_bytes;          /* of all filters, for one allocation a stream */
    uint32_t request_body_mask, response_headers_mask, response_body_mask, finish_mask; /* bit i: filter i has it */
    void *series_cache;          /* filter/report.c */
    void *mesh;                  /* const struct ep_mesh of upstream: where mTLS is a must */
};

/* Finds the first route that matches. Pure but for the read of the stream's headers. */
const struct ep_route *ep_chain_route(const struct ep_chain *c, struct ep_str authority, struct ep_str path,
                                      struct ep_str method, const struct ep_headers *h);

/* How the chain finds a cluster by name while it is made; the view's maker gives it. */
typedef struct ep_cluster *ep_cluster_lookup(void *user, struct ep_str name);

/* Makes a chain and loads its filters. NULL with err. */
struct ep_chain *ep_chain_new(struct ep_view *view, struct ep_worker *w, const struct ep_listener_config *config,
                              ep_cluster_lookup *lookup, void *user, struct ep_error *err);
void ep_chain_free(struct ep_chain *c);
/* `direction`, or what the listener's name says. */
enum ep_direction ep_listener_direction(const struct ep_listener_config *config);

/* --- the view: a worker's instance of one accepted configuration --- */
struct ep_view {
    uint32_t refs;               /* streams and the worker; plain, since a view never leaves its worker */
    struct ep_worker *worker;
    const void *config;          /* const struct ep_config *: proxy/config counts and frees it */
    uint64_t generation;
    struct ep_str service;       /* node.service: the `source` and `destination` of the hop's labels */
    struct ep_str namespace_, cluster_name;
    double trace_sample;         /* tracing.sample */
    int trace_decisions;         /* tracing.decisions */
    struct ep_cluster *collector; /* of clusters: where spans go; NULL: nowhere */
    const struct ep_tracing_config *tracing; /* filter/trace.h */
    struct ep_str constitution;  /* the hash; for stamping and for chaos */
    const struct ep_policies_config *policies_config;         /* filter/policies_config.h; NULL: none */
    struct ep_policy_set *policies; /* of this worker, made of the configured directory (lua/policy.h); NULL: none was
                                       made. Borrowed: each chain's filter holds it */
    const struct ep_constitution_config *constitution_config; /* filter/constitution_config.h; NULL: none */
    const struct ep_chaos_config *chaos_config;               /* filter/chaos_config.h; NULL: none */
    struct ep_egress *egress;    /* filter/egress.h; a reference; NULL: none */
    struct ep_chain **chains;
    unsigned n_chains;
    unsigned n_routes;           /* of all chains */
    struct ep_cluster **clusters;
    unsigned n_clusters;
    void (*free)(struct ep_view *v); /* of proxy/config */
};
static inline struct ep_view *ep_view_ref(struct ep_view *v)
{
    v->refs++;
    return v;
}
static inline void ep_view_unref(struct ep_view *v)
{
    if (--v->refs == 0)
        v->free(v);
}

/* --- the server side: a listener that lives across configurations --- */
struct ep_server_listener {
    struct ep_listener listener;   /* first */
    struct ep_worker *worker;
    struct ep_chain *chain;        /* the current one: swapped with the view */
    struct ep_http_options http;   /* the codecs' options: of the current chain */
    struct ep_str name;
    struct ep_list streams;        /* all of this listener and worker, by ep_stream.node */
    unsigned n_streams;
    struct ep_list node;           /* of the worker's listeners */
    bool removed;                  /* no longer in the configuration: drained, freed when empty */
    uint64_t *cell_streams, *cell_connections; /* gauges */
    void *silent;                  /* which destinations speak first: server.c */
};
/* Accepts on `fd` (a bound socket, owned from here) with this chain. NULL with err. */
struct ep_server_listener *ep_server_listener_new(struct ep_worker *w, struct ep_chain *chain, int fd,
                                                  struct ep_error *err);
void ep_server_listener_set_chain(struct ep_server_listener *l, struct ep_chain *chain);
/* Drains the connections it has, those in the kernel's queue included. ep_listener_stop comes after it. */
void ep_server_listener_drain(struct ep_server_listener *l, uint64_t grace_ns);
void ep_server_listener_free(struct ep_server_listener *l); /* when n_streams and connections are 0, or at exit */

#endif
