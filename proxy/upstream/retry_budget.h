/* The retry budget: retries may add at most a share to the load, so that they can't keep a sick cluster down. Pure.
 *
 * Counted over a sliding window of ten seconds in slots of one. A retry fits when the retries of the window are fewer
 * than the share of its requests and of those in flight now, or fewer than three were made in this second: a
 * quiet cluster's single failure is always worth one more try. */
#ifndef EP_UPSTREAM_RETRY_BUDGET_H
#define EP_UPSTREAM_RETRY_BUDGET_H

#include "base/base.h"

#define EP_RETRY_SLOTS 10u
#define EP_RETRY_FLOOR 10u

struct ep_retry_budget {
    uint64_t second; /* number of the current slot since the clock began */
    uint32_t requests[EP_RETRY_SLOTS], retries[EP_RETRY_SLOTS];
    uint32_t sum_requests, sum_retries;
};

void ep_retry_budget_advance(struct ep_retry_budget *b, uint64_t second); /* for the inline below */

static inline void ep_retry_budget_request(struct ep_retry_budget *b, uint64_t now_ns)
{
    uint64_t second = now_ns / EP_S;

    if (EP_UNLIKELY(second != b->second))
        ep_retry_budget_advance(b, second);
    b->requests[second % EP_RETRY_SLOTS]++;
    b->sum_requests++;
}

/* True when one more retry fits; counts it. `active`: requests in flight. */
bool ep_retry_budget_take(struct ep_retry_budget *b, double share, uint32_t active, uint64_t now_ns);

#endif
