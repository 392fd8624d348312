/* When an experiment hits, and how: pure, time and counts are parameters, chance comes from the seed. The n-th request
 * that an experiment sees always meets the same choice, whichever worker it is in. */
#ifndef EP_CHAOS_SCHEDULE_H
#define EP_CHAOS_SCHEDULE_H

#include "filter/chaos_config.h"

enum ep_chaos_verdict {
    EP_CHAOS_HIT,
    EP_CHAOS_MISS,  /* the dice */
    EP_CHAOS_OVER,  /* its time is up */
    EP_CHAOS_SPENT, /* its total is reached */
    EP_CHAOS_FULL,  /* too many at once */
    EP_CHAOS_SHARE, /* its share is reached for now */
};

/* What has happened before this request. */
struct ep_chaos_counts {
    uint64_t seen, injected, concurrent;
};

struct ep_chaos_choice {
    enum ep_chaos_verdict verdict;
    uint64_t delay_ns; /* 0: none */
};

struct ep_chaos_choice ep_chaos_choose(const struct ep_chaos_experiment *x, uint64_t age_ns,
                                       const struct ep_chaos_counts *counts);
/* A delay of the distribution; u in 0 ≤ u < 1. */
uint64_t ep_chaos_delay(const struct ep_chaos_delay *d, double u);

#endif
