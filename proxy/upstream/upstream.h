/* upstream: clusters, their endpoints, and connections to them.
 *
 * The router asks for a leg to a cluster (ep_upstream_acquire) and gets one, at once or later, or a failure
 * with its reason. Balancing, pools, breakers, outlier ejection, probes and DNS are behind that one call.
 * A cluster object belongs to one worker and lives across configurations while its own part is unchanged. */
#ifndef EP_UPSTREAM_UPSTREAM_H
#define EP_UPSTREAM_UPSTREAM_H

#include "http/http.h"
#include "upstream/cluster_config.h"

struct ep_cluster;
struct ep_endpoint;
struct ep_upstream_call;
struct ep_lane;

enum ep_upstream_failure {
    EP_UPSTREAM_NO_ENDPOINT,     /* none known (DNS empty) or all are ejected and panic is off: 503, UH */
    EP_UPSTREAM_OVERFLOW,        /* breaker: connections, pending or requests: 503, UO */
    EP_UPSTREAM_CONNECT,         /* refused, unreachable: 503, UF */
    EP_UPSTREAM_CONNECT_TIMEOUT, /* 504, UF */
    EP_UPSTREAM_TLS,             /* handshake or identity: 503, UF */
    EP_UPSTREAM_QUEUE_TIMEOUT,   /* waited too long for a connection: 504, UT */
    EP_UPSTREAM_LOOP,            /* the destination is ourselves: 508-like 503, LOOP */
    EP_UPSTREAM_PROTOCOL,        /* the upstream can't do what is asked (RFC 8441 missing) */
    EP_UPSTREAM_FAILURES
};
const char *ep_upstream_failure_name(enum ep_upstream_failure f); /* "connect_refused", … */
const char *ep_upstream_failure_flag(enum ep_upstream_failure f); /* Envoy's response flag: "UF", "UO", "UH" */

/* How the upstream exchange went: for the balancer, outlier ejection and breakers. */
struct ep_upstream_outcome {
    bool answered;       /* a response head came */
    unsigned status;     /* of it */
    enum ep_reset reset; /* when !answered */
    bool local;          /* it ended for a reason of ours or of the downstream: not the endpoint's fault */
    uint64_t latency_ns; /* sent to first byte; 0: unknown */
};

/* One endpoint that a filter wants, before balancing. */
struct ep_upstream_override {
    struct ep_addr addr;
    bool any_port; /* the address is enough */
    bool strict;   /* that one or none (EP_UPSTREAM_NO_ENDPOINT) */
};

/* Embedded by the router in its state; zeroed. Between acquire and done/cancel it must stay in place. */
struct ep_upstream_call {
    /* in */
    struct ep_cluster *cluster;
    enum ep_http_version downstream_version;                        /* `protocol: auto` answers in kind */
    bool tunnel;                                                    /* opaque TCP */
    bool websocket;                                                 /* Upgrade or RFC 8441 */
    uint64_t hash;                                                  /* for ring_hash and maglev; 0: random */
    const struct ep_addr *original; /* original destination, of the downstream connection; NULL: none */
    struct ep_str server_name;                                      /* SNI when the cluster takes it from the request */
    struct ep_tls_origin *origin; /* TLS to server_name, verified by this, where the cluster would speak plain text; NULL: none */
    const struct ep_upstream_override *override;                    /* may be NULL */
    const struct ep_endpoint *avoid;                                /* of the try before; may be NULL */
    void (*on_leg)(struct ep_upstream_call *c, struct ep_leg *leg); /* set leg->events, owner, arena in it */
    void (*on_failure)(struct ep_upstream_call *c, enum ep_upstream_failure why);
    /* out */
    struct ep_endpoint *endpoint; /* chosen; a reference until the end, after it only good for `avoid` */
    struct ep_conn *conn;
    uint64_t acquired_ns;
    bool new_connection;
    char why[96]; /* of EP_UPSTREAM_TLS, for a person */
    /* private */
    struct ep_list node;
    struct ep_timer timer;
    struct ep_task task;
    struct ep_lane *lane;
    int state;
    bool counted; /* in the breaker of requests */
    uint64_t started_ns;
};

/* Calls back on_leg or on_failure exactly once; on_leg perhaps before it returns, on_failure never so. */
void ep_upstream_acquire(struct ep_upstream_call *c);
/* Before on_leg: gives up waiting. No callback follows. */
void ep_upstream_cancel(struct ep_upstream_call *c);
/* After on_leg, once the leg is over and before it is released. */
void ep_upstream_done(struct ep_upstream_call *c, const struct ep_upstream_outcome *o);

/* Text of an endpoint: "127.0.0.1:8080"; valid as long as the endpoint. */
struct ep_str ep_endpoint_name(const struct ep_endpoint *e);

/* Retry budget of the cluster: true when one more retry fits; counts it. ep_upstream_request counts requests. */
bool ep_upstream_retry_allowed(struct ep_cluster *c, double budget);

struct ep_str ep_cluster_name(const struct ep_cluster *c);
const struct ep_cluster_config *ep_cluster_get_config(const struct ep_cluster *c);

/* Which hosts and addresses are inside the mesh: there mTLS is a must. */
struct ep_mesh_config {
    struct ep_vec hosts; /* of ep_str globs */
    struct ep_vec cidrs; /* of ep_cidr */
};
extern const struct ep_schema ep_mesh_schema;

/* What clusters need of the process; shared by all clusters of a view. */
struct ep_upstream_env {
    struct ep_worker *worker;
    const struct ep_mesh_config *mesh;
    /* The client's TLS context for `mode: mesh` with our identity; rotated by the owner. NULL: no identity. */
    struct ep_tls_context *(*mesh_context)(void *user);
    /* The same for opaque TCP, offering just EP_ALPN_TCP (net/alpn.h). May be NULL: mesh_context is used, and
     * opaque TCP works only with peers that agree on no ALPN. Both are borrowed for the call. */
    struct ep_tls_context *(*mesh_tcp_context)(void *user);
    void *user;
    unsigned n_workers;        /* which share the limits; 0: unknown, each worker enforces the whole limit */
    const struct ep_addr *own; /* our listeners' addresses: connecting there would be a loop */
    size_t n_own;
};

/* Makes a cluster of this worker, or takes `old` over (a reference is added) when its configuration digest is
 * the same. NULL with err. */
struct ep_cluster *ep_cluster_new(const struct ep_upstream_env *env, const struct ep_cluster_config *config,
                                  struct ep_cluster *old, struct ep_error *err);
void ep_cluster_unref(struct ep_cluster *c); /* closes idle connections at 0; active legs end first */

/* For /clusters, called in the worker: one JSON object appended to `out` (NUL-free text). */
struct ep_json; /* observe/json.h writer */
void ep_cluster_describe(const struct ep_cluster *c, struct ep_json *out);

/* The identity was rotated: new connections use the new context; old ones drain when idle. */
void ep_cluster_identity_changed(struct ep_cluster *c);
bool ep_upstream_worker_init(struct ep_worker *w, struct ep_error *err); /* c-ares of the worker */
/* When all clusters of the worker have been let go of, and before ep_worker_fini: runs turns to end what is left. */
void ep_upstream_worker_fini(struct ep_worker *w);

#endif
