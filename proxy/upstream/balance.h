/* Balancing: which endpoint takes the next request. Pure: no sockets, no clock; time and chance are parameters.
 *
 * The default is "power of two choices" over a peak EWMA of latency: two endpoints by chance, and of them the one
 * whose expected wait (latency × requests in flight) is lower. A peak is believed at once and forgotten slowly, so
 * that an endpoint that turned slow is avoided after one answer; one that fails fast is charged a penalty, so that
 * it doesn't look quick. (Finagle's aperture docs describe the idea; the decay here is hyperbolic, tau / (tau + dt):
 * no exp() on the hot path.) */
#ifndef EP_UPSTREAM_BALANCE_H
#define EP_UPSTREAM_BALANCE_H

#include "upstream/cluster_config.h"

#define EP_LOAD_TAU_NS     (10 * EP_S)      /* after so long half of a peak is forgotten */
#define EP_LOAD_UNKNOWN_NS (30.0 * EP_MS)   /* assumed of an endpoint that has work and has never answered */
#define EP_LOAD_PENALTY_NS (1000.0 * EP_MS) /* what a failure counts as, at least */

/* What is known of one endpoint. */
struct ep_load {
    double cost_ns; /* peak EWMA of the time to the first byte; 0: never measured */
    uint64_t updated_ns;
    uint32_t active; /* requests given to it and not ended, waiting ones included */
};

struct ep_balancer {
    int how;       /* enum ep_balance */
    uint32_t next; /* round robin */
};

/* One of v[0 … n-1], or NULL when n is 0. `avoid` (may be NULL) is taken only when there is no other. */
struct ep_load *ep_balance_pick(struct ep_balancer *b, struct ep_load *const *v, size_t n, const struct ep_load *avoid,
                                struct ep_rng *rng, uint64_t now_ns);

/* An answer after latency_ns. */
void ep_load_observe(struct ep_load *l, uint64_t latency_ns, uint64_t now_ns);
/* No answer: a failure after latency_ns (0: unknown). */
void ep_load_observe_failure(struct ep_load *l, uint64_t latency_ns, uint64_t now_ns);
/* What a new request would wait, by the estimate: what p2c compares. */
double ep_load_cost(const struct ep_load *l, uint64_t now_ns);

#endif
