/* Circuit breakers: hard limits on what a cluster may have open at once. Pure counts.
 *
 * A limit in the configuration is for the whole process; each worker enforces its share, rounded up (the workers share
 * no counter on the hot path). When the number of workers isn't known the share is the whole limit. */
#ifndef EP_UPSTREAM_BREAKER_H
#define EP_UPSTREAM_BREAKER_H

#include "base/base.h"

enum ep_breaker_limit { EP_BREAKER_CONNECTIONS, EP_BREAKER_PENDING, EP_BREAKER_REQUESTS, EP_BREAKER_COUNT };
const char *ep_breaker_limit_name(enum ep_breaker_limit l); /* "connections", … */

struct ep_breaker {
    uint32_t now[EP_BREAKER_COUNT], limit[EP_BREAKER_COUNT]; /* a limit of 0: nothing passes */
    uint64_t overflows[EP_BREAKER_COUNT];
};

/* total[i]: the limit of the process; workers: 0 when unknown. */
void ep_breaker_init(struct ep_breaker *b, const int64_t total[EP_BREAKER_COUNT], unsigned workers);

/* Takes one when there is room, else counts the overflow. */
static inline bool ep_breaker_take(struct ep_breaker *b, enum ep_breaker_limit l)
{
    if (EP_UNLIKELY(b->now[l] >= b->limit[l])) {
        b->overflows[l]++;
        return false;
    }
    b->now[l]++;
    return true;
}

static inline void ep_breaker_give(struct ep_breaker *b, enum ep_breaker_limit l)
{
    assert(b->now[l] > 0);
    b->now[l]--;
}

#endif
