/* The retry budget: see retry_budget.h. */
#include "upstream/retry_budget.h"

void ep_retry_budget_advance(struct ep_retry_budget *b, uint64_t second)
{
    uint64_t steps;

    if (second <= b->second)
        return; /* the clock is monotonic; a caller with an older reading counts into the current slot's sums */
    steps = EP_MIN(second - b->second, (uint64_t)EP_RETRY_SLOTS);
    for (uint64_t i = 0; i < steps; i++) {
        size_t slot = (size_t)((second - i) % EP_RETRY_SLOTS);
        b->sum_requests -= b->requests[slot];
        b->sum_retries -= b->retries[slot];
        b->requests[slot] = b->retries[slot] = 0;
    }
    b->second = second;
}

bool ep_retry_budget_take(struct ep_retry_budget *b, double share, uint32_t active, uint64_t now_ns)
{
    uint64_t second = now_ns / EP_S;
    size_t slot;

    ep_retry_budget_advance(b, second);
    slot = (size_t)(b->second % EP_RETRY_SLOTS);
    if (b->retries[slot] >= EP_RETRY_FLOOR &&
        (double)b->sum_retries + 1 > share * ((double)b->sum_requests + (double)active))
        return false;
    b->retries[slot]++;
    b->sum_retries++;
    return true;
}
