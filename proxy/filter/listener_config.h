/* What a listener's part of the configuration file becomes: plain structs filled by the schema tables in
 * listener_config.c. DESIGN.md section 5 is the contract for the keys. */
#ifndef EP_FILTER_LISTENER_CONFIG_H
#define EP_FILTER_LISTENER_CONFIG_H

#include "base/base.h"
#include "filter/mcp_config.h"
#include "net/listener.h"

enum ep_direction_config { EP_DIRECTION_AUTO, EP_DIRECTION_INBOUND, EP_DIRECTION_OUTBOUND };

struct ep_match_config {
    struct ep_str host;      /* glob on the authority without port; empty: any */
    struct ep_str prefix;    /* of the path without query, at a segment border; empty: any */
    struct ep_str path;      /* exact, without query; empty: any */
    struct ep_str method;    /* empty: any */
    struct ep_vec headers;   /* of ep_pair: name -> glob of the value */
};

struct ep_retry_config {
    int64_t attempts;        /* tries after the first; 0: none */
    struct ep_vec on;        /* of ep_str: connect, reset, refused, timeout, 5xx, gateway-error, or a status */
    double budget;           /* share of requests that may be retries */
    uint64_t backoff_ns;     /* base of the jittered exponential */
};

struct ep_tenant_config {
    struct ep_str identity; /* pattern over the caller's SPIFFE ID with one {tenant}; empty: of a listener none, of a route its listener's */
    struct ep_str header;   /* lower case; empty: no header is believed */
};

struct ep_route_config {
    struct ep_match_config match;
    struct ep_str cluster;
    uint64_t timeout_ns;         /* whole request to the response's end; 0: none. Not for streams and tunnels */
    uint64_t idle_timeout_ns;    /* no byte either way on a stream */
    uint64_t event_timeout_ns;   /* no byte of a response of server-sent events; 0: none */
    uint64_t per_try_timeout_ns; /* to the head of the response; 0: none */
    struct ep_retry_config *retry; /* NULL: the safe default (connect and refused, once) */
    struct ep_str host_rewrite, prefix_rewrite;
    bool trust_headers;
    struct ep_vec scripts;       /* of ep_pair: name of a lua filter -> name of a source, or "off" */
    struct ep_tenant_config *tenant; /* NULL: as the listener says */
    struct ep_str metadata;      /* JSON object: namespace -> object, for scripts; p is NULL: none */
};

struct ep_authorize_config {
    struct ep_vec principals, methods, paths, hosts; /* of ep_str globs; empty: any */
    struct ep_vec headers;                           /* of ep_pair: name -> glob */
    struct ep_vec protocols, tools, models;          /* of ep_str globs, of the call */
    int action;                                      /* 0 allow, 1 deny */
    struct ep_where where;                           /* in the file; line 0: not known */
};

enum ep_listener_protocol { EP_LISTENER_AUTO, EP_LISTENER_H2, EP_LISTENER_HTTP1, EP_LISTENER_TCP };

struct ep_listener_config {
    struct ep_str name;
    struct ep_addr bind;
    int direction;               /* enum ep_direction_config */
    int intercept;               /* enum ep_intercept */
    int tls;                     /* enum ep_tls_mode */
    bool proxy_protocol;
    struct ep_str cluster;       /* short for one route that matches all */
    struct ep_vec routes;        /* of ep_route_config */
    struct ep_vec authorize;     /* of ep_authorize_config; empty: everybody who gets in */
    struct ep_tenant_config tenant;
    struct ep_mcp_config mcp;
    struct ep_vec filters;       /* of ep_filter_use; empty: the default chain */
    int protocol;                /* enum ep_listener_protocol */
    uint64_t headers_timeout_ns, idle_timeout_ns, handshake_timeout_ns, sniff_timeout_ns;
    uint64_t stream_idle_timeout_ns, request_timeout_ns;
    uint64_t max_body_bytes;     /* what filters may hold: 1 MiB */
    int64_t max_connections, max_streams;
    uint64_t max_header_bytes;
    int64_t max_header_count;
    bool server_timing;          /* answer Server-Timing: ephor;dur=… */
};

extern const struct ep_schema ep_listener_schema, ep_route_schema, ep_authorize_schema;

#endif
