/* What `egress:` and `egress_tls:` become: TLS that apps of this pod start to hosts outside the mesh (egress_config.c). */
#ifndef EP_FILTER_EGRESS_CONFIG_H
#define EP_FILTER_EGRESS_CONFIG_H

#include "base/base.h"

enum ep_egress_how { EP_EGRESS_PASSTHROUGH, EP_EGRESS_INTERCEPT, EP_EGRESS_ORIGINATE };
enum ep_egress_verdict { EP_EGRESS_DENY, EP_EGRESS_LET_PASS };

struct ep_egress_config {
    struct ep_vec hosts; /* of ep_str globs, lower case */
    int tls;             /* enum ep_egress_how */
    int on_pinned;       /* enum ep_egress_verdict */
    struct ep_str roots; /* file; empty: the system's */
    struct ep_vec ports; /* of int64_t: original destinations; empty: any */
    int64_t origin_port; /* originate: what is called in place of the original destination's port */
};

struct ep_egress_tls_config {
    struct ep_str bundle;           /* file to write: our CA and the system's roots */
    struct ep_str certificate, key; /* files of a mounted CA; empty: one is made in memory */
    int unnamed;                    /* enum ep_egress_verdict */
    uint64_t pinned_for_ns;
};

extern const struct ep_schema ep_egress_schema, ep_egress_tls_schema;

#endif
