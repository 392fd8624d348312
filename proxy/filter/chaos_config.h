/* What `chaos:` in the configuration becomes: experiments, and how far each has gone. The filter `chaos` reads it
 * from the view. */
#ifndef EP_FILTER_CHAOS_CONFIG_H
#define EP_FILTER_CHAOS_CONFIG_H

#include <stdatomic.h>

#include "base/base.h"

enum ep_chaos_direction { EP_CHAOS_ANY, EP_CHAOS_INBOUND, EP_CHAOS_OUTBOUND };
enum ep_chaos_distribution { EP_CHAOS_FIXED, EP_CHAOS_UNIFORM, EP_CHAOS_EXPONENTIAL, EP_CHAOS_PARETO };

struct ep_chaos_match {
    int direction;                                                  /* enum ep_chaos_direction */
    struct ep_str cluster, protocol, method, tool, model, path, principal; /* globs; empty: any */
};

struct ep_chaos_delay {
    int distribution; /* enum ep_chaos_distribution */
    uint64_t fixed_ns, minimum_ns, maximum_ns, mean_ns;
    double shape; /* of pareto */
};

struct ep_chaos_abort { /* one of */
    int64_t status;     /* HTTP */
    int64_t grpc_status;
    int64_t jsonrpc_code;
};

struct ep_chaos_fault {
    struct ep_chaos_delay *delay; /* NULL: none */
    struct ep_chaos_abort *abort; /* after the delay; NULL: none */
};

struct ep_chaos_exclude {
    struct ep_vec principals; /* of ep_str globs: never hit */
};

struct ep_chaos_radius {
    double percent;     /* of what matches, at most */
    int64_t concurrent; /* requests hit and not yet ended */
    int64_t total;
    struct ep_chaos_exclude exclude;
};

/* How far an experiment has gone, in all workers and chains of one configuration: shared, and written without a lock
 * through the otherwise constant configuration. */
struct ep_chaos_run {
    _Atomic uint64_t started_ns; /* monotonic; 0: not yet */
    _Atomic uint64_t seen, injected, concurrent;
};

struct ep_chaos_experiment {
    struct ep_str name, because;
    struct ep_chaos_match match;
    struct ep_chaos_fault fault;
    double percent;
    uint64_t duration_ns; /* since the configuration was loaded */
    int64_t seed;
    struct ep_chaos_radius radius;
    struct ep_str constitution; /* when given: only under this hash */
    struct ep_chaos_run run;
};

struct ep_chaos_config {
    bool enabled;
    struct ep_vec experiments; /* of ep_chaos_experiment */
};

extern const struct ep_schema ep_chaos_schema;

#endif
