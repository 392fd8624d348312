/* limiter: the token buckets of the process, shared by all workers.
 *
 * A bucket is one moment in time, the virtual scheduling algorithm of ITU-T I.371 (GCRA): `full_at`, when it will be
 * full again if nothing more is taken. To take n of a rate of `count` in `per_ns` puts that moment off by n × per_ns /
 * count; it is refused when the moment would then lie further ahead than a whole burst takes to flow in. So a bucket is
 * 64 bits, needs no clock of its own, and one whose moment has passed is as good as none: it can be given to another
 * key and nothing is lost.
 *
 * The table has a fixed number of slots of 16 bytes, {key, full_at}, and every change of a slot is one compare-and-swap
 * of both. So what is taken by all workers together is exact, and nothing on the way takes a lock but the first request
 * of a key that has no slot, which must not get two. A key may lie in 16 places (two sets of eight). When all of them
 * hold buckets that are not full, the key gets none, and what asked for it is refused: limits hold also when somebody
 * makes up keys.
 *
 * Keys are SipHash under a secret of the process; two that collide in 64 bits share a bucket. Time is a parameter, and
 * may step back (workers look at the clock at different moments): then buckets merely fill later. */
#ifndef EP_FILTER_LIMITER_H
#define EP_FILTER_LIMITER_H

#include "base/base.h"

#define EP_LIMITER_SLOTS  65536u                  /* of the process: 1 MiB, of which the system gives what is touched */
#define EP_LIMIT_DEBT_MAX (366ull * 86400 * EP_S) /* no bucket owes more */

struct ep_limit_rate {
    uint64_t count, per_ns; /* so many flow in in that time; both over 0 */
    uint64_t burst;         /* so many are in it when it is full; over 0 */
};

struct ep_limiter;

struct ep_limiter *ep_limiter_new(unsigned slots); /* a power of two, 16 at least */
void ep_limiter_free(struct ep_limiter *l);        /* NULL too */
/* Slots that hold or held a bucket. Any thread. */
unsigned ep_limiter_used(const struct ep_limiter *l);

/* One part more of a key; begin with 0, or with what the limit is. */
uint64_t ep_limiter_key(const struct ep_limiter *l, uint64_t key, struct ep_str part);

/* How long n take to flow in, rounded up; at most EP_LIMIT_DEBT_MAX. */
uint64_t ep_limit_time(const struct ep_limit_rate *r, uint64_t n);

enum ep_limit_result {
    EP_LIMIT_TAKEN,
    EP_LIMIT_EMPTY, /* wait_ns says when there will be enough */
    EP_LIMIT_NEVER, /* a full bucket doesn't hold so many */
    EP_LIMIT_FULL,  /* there is no slot for this key */
};

struct ep_limit_state {
    uint64_t left;    /* whole ones in the bucket, afterwards */
    uint64_t full_ns; /* until it is full again */
    uint64_t wait_ns; /* EP_LIMIT_EMPTY: until n are there. EP_LIMIT_FULL: until a slot may be free */
};

/* Takes n, all or nothing. Any thread. */
enum ep_limit_result ep_limiter_take(struct ep_limiter *l, uint64_t key, const struct ep_limit_rate *r, uint64_t n,
                                     uint64_t now_ns, struct ep_limit_state *out);
/* In place of `taken` it was `used`: puts back what is over, or takes the rest whether it is there or not, so that the
 * bucket owes it. EP_LIMIT_FULL: what was to be taken is lost. */
enum ep_limit_result ep_limiter_settle(struct ep_limiter *l, uint64_t key, const struct ep_limit_rate *r,
                                       uint64_t taken, uint64_t used, uint64_t now_ns);

#endif
