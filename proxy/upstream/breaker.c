/* Circuit breakers: see breaker.h. */
#include "upstream/breaker.h"

const char *ep_breaker_limit_name(enum ep_breaker_limit l)
{
    static const char *const names[EP_BREAKER_COUNT] = {
        [EP_BREAKER_CONNECTIONS] = "connections",
        [EP_BREAKER_PENDING] = "pending",
        [EP_BREAKER_REQUESTS] = "requests",
    };

    return names[l];
}

void ep_breaker_init(struct ep_breaker *b, const int64_t total[EP_BREAKER_COUNT], unsigned workers)
{
    int64_t n = workers ? workers : 1;

    memset(b, 0, sizeof *b);
    for (size_t i = 0; i < EP_BREAKER_COUNT; i++) {
        int64_t share = total[i] / n + (total[i] % n ? 1 : 0);
        b->limit[i] = (uint32_t)EP_MAX((int64_t)0, EP_MIN(share, (int64_t)UINT32_MAX));
    }
}
