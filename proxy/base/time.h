/* Time and chance. Pure modules take `now_ns` as a parameter; only the worker and the main thread ask. */
#ifndef EP_BASE_TIME_H
#define EP_BASE_TIME_H

#include <stdint.h>

#define EP_US 1000ull /* 64 bits wide, so that 5000 * EP_MS is five seconds */
#define EP_MS 1000000ull
#define EP_S 1000000000ull

uint64_t ep_clock_ns(void);      /* monotonic */
uint64_t ep_clock_wall_ns(void); /* since 1970 */
/* "2026-11-24T01:52:12.123456Z"; out holds at least 28 bytes. Returns the length. */
int ep_time_rfc3339(uint64_t wall_ns, char out[32]);

/* xoshiro256**: fast, seedable (chaos experiments repeat), not for secrets. */
struct ep_rng {
    uint64_t s[4];
};
void ep_rng_seed(struct ep_rng *r, uint64_t seed);
void ep_rng_seed_random(struct ep_rng *r); /* from getrandom */
uint64_t ep_rng_u64(struct ep_rng *r);
uint64_t ep_rng_below(struct ep_rng *r, uint64_t n); /* 0 … n-1, n > 0 */
double ep_rng_unit(struct ep_rng *r);                /* 0 ≤ x < 1 */

#endif
