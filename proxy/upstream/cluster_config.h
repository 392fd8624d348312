/* What a cluster's part of the configuration file becomes (schema tables in cluster_config.c). */
#ifndef EP_UPSTREAM_CLUSTER_CONFIG_H
#define EP_UPSTREAM_CLUSTER_CONFIG_H

#include "base/base.h"

enum ep_cluster_protocol { EP_PROTO_AUTO, EP_PROTO_H2, EP_PROTO_HTTP1, EP_PROTO_TCP };
enum ep_upstream_tls { EP_UPTLS_AUTO, EP_UPTLS_OFF, EP_UPTLS_SIMPLE, EP_UPTLS_MESH };
enum ep_balance { EP_BALANCE_ROUND_ROBIN, EP_BALANCE_LEAST_REQUEST, EP_BALANCE_P2C_EWMA, EP_BALANCE_RANDOM };

struct ep_cluster_config {
    struct ep_str name;
    struct ep_vec endpoints; /* of ep_addr (unix: too) */
    struct ep_str dns;       /* "tools.agents.svc:8080" */
    bool original_destination;
    int protocol; /* enum ep_cluster_protocol */
    struct {
        int mode;            /* enum ep_upstream_tls; auto: mesh where `mesh` says so, else off */
        struct ep_str sni;   /* empty: the authority of the request */
        struct ep_str roots; /* file; empty: the system's (simple) or the identity's (mesh) */
        struct ep_vec peers; /* of ep_str globs: SPIFFE IDs the server must have one of (mesh) */
    } tls;
    int balance; /* enum ep_balance */
    struct {
        int64_t connections, pending, requests; /* in sum over workers; each worker enforces its share */
        double retries;                         /* share of active requests */
        int64_t requests_per_connection;        /* 0: no limit */
    } limits;
    struct {
        int64_t consecutive_5xx; /* 0: off */
        uint64_t ejection_ns;
        double max_ejected;
    } outlier;
    struct {
        struct ep_str path; /* HTTP probe; empty: none unless tcp */
        bool tcp;
        uint64_t interval_ns, timeout_ns;
        int64_t healthy, unhealthy; /* in a row, to change state */
    } probe;
    uint64_t connect_timeout_ns, queue_timeout_ns, idle_timeout_ns;
    double panic; /* below this share of healthy endpoints all are used */
};

extern const struct ep_schema ep_cluster_schema;

#endif
