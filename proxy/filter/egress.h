/* Egress: TLS that apps of this pod start to hosts outside the mesh, on outbound listeners (docs/egress.md).
 *
 * Made by the main thread for each accepted configuration (config/egress_load.c), shared read-only by all workers, counted
 * atomically. What outlives a configuration (the CA, the clients that pin, contexts of the same roots) is handed from one to
 * the next. A connection whose TLS was ended here holds what its host is verified with until it ends, whatever the next
 * configuration says; its requests pass the filters of the configuration in force like any other. */
#ifndef EP_FILTER_EGRESS_H
#define EP_FILTER_EGRESS_H

#include "filter/chain.h"
#include "filter/egress_config.h"
#include "net/ca.h"
#include "net/tls.h"

struct ep_pinned;

struct ep_egress_rule {
    const struct ep_egress_config *config; /* of the configuration, which lives as long */
    struct ep_tls_origin *origin;          /* a reference; NULL for passthrough */
    uint64_t roots_digest;
};

struct ep_egress {
    _Atomic unsigned refs;
    const struct ep_egress_tls_config *config;
    struct ep_egress_rule *rules;
    size_t n_rules;
    bool any_originate;
    struct ep_ca *ca;              /* NULL: nothing was ever intercepted */
    uint64_t ca_digest;            /* of the mounted files; 0: it was made here */
    struct ep_tls_context *server; /* by that CA */
    struct ep_pinned *pinned;      /* of the process */
};

/* One more reference; NULL stays NULL: a configuration that was not loaded from a file has none. */
struct ep_egress *ep_egress_ref(struct ep_egress *e);
void ep_egress_unref(struct ep_egress *e); /* NULL is fine */

/* The first rule that names the host (ep_host_normalise); port 0: not known, any will do. NULL: none. */
const struct ep_egress_rule *ep_egress_find(const struct ep_egress *e, struct ep_str host, uint16_t port);

/* The TLS context for a connection to an outbound listener without TLS of its own, once its ClientHello is there; NULL: it
 * passes unopened. Notes in the connection which host it asked for. */
struct ep_tls_context *ep_egress_context(const struct ep_chain *chain, struct ep_conn *c, const struct ep_client_hello *hello);
/* A connection is over: was it one that refused our certificate? */
void ep_egress_closed(const struct ep_chain *chain, struct ep_conn *c, enum ep_close why);
/* Before any filter, for streams of connections whose TLS was ended here (their requests must be for that host) or
 * wasn't (their host must be known, where it is asked for). False: the stream was refused. */
bool ep_egress_admits(struct ep_stream *s);
/* For the router: TLS that ephor starts to the host of this request. False: none by these rules. *host is the name to
 * verify, in the stream's arena; *port is where to go in place of the original destination's; 0: there. */
bool ep_egress_origin(struct ep_stream *s, struct ep_tls_origin **origin, struct ep_str *host, uint16_t *port);

#endif
