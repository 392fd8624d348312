/* Timers: a hierarchical wheel of 1 ms ticks, one a worker. Starting and stopping is O(1) and touches no
 * heap and no kernel; a request starts and stops three of them. Time is a parameter, so tests need no clock.
 *
 * Granularity: a timer fires in the tick after its deadline, never before it. */
#ifndef EP_NET_TIMER_H
#define EP_NET_TIMER_H

#include "base/base.h"

#define EP_WHEEL_LEVELS 5
#define EP_WHEEL_SLOTS 64

struct ep_timer;
typedef void ep_timer_fn(struct ep_timer *t); /* find the owner with EP_CONTAINER */

struct ep_timer {
    struct ep_list node; /* unlinked when not running */
    uint64_t deadline_tick;
    ep_timer_fn *fire;
};

struct ep_wheel {
    uint64_t tick; /* all before it has fired */
    uint64_t origin_ns;
    size_t running;
    struct ep_list slot[EP_WHEEL_LEVELS][EP_WHEEL_SLOTS];
    uint64_t used[EP_WHEEL_LEVELS]; /* bit i: slot i may hold timers */
};

void ep_wheel_init(struct ep_wheel *w, uint64_t now_ns);
/* Fires all that is due. A callback may start and stop any timer, its own included. */
void ep_wheel_advance(struct ep_wheel *w, uint64_t now_ns);
/* Nanoseconds until ep_wheel_advance should be called next; UINT64_MAX when nothing runs. */
uint64_t ep_wheel_next(const struct ep_wheel *w, uint64_t now_ns);

void ep_timer_init(struct ep_timer *t, ep_timer_fn *fire);
void ep_wheel_start(struct ep_wheel *w, struct ep_timer *t, uint64_t now_ns, uint64_t delay_ns); /* restarts */
static inline bool ep_timer_running(const struct ep_timer *t)
{
    return ep_list_linked(&t->node);
}
void ep_wheel_stop(struct ep_wheel *w, struct ep_timer *t); /* harmless when it isn't running */

#endif
