/* The choices of filters/chaos/schedule.h. */
#include "chaos/schedule.h"

#include <math.h>

static double clamp(double v, const struct ep_chaos_delay *d)
{
    double low = (double)d->minimum_ns, high = (double)d->maximum_ns;

    return v < low ? low : v > high ? high : v;
}

uint64_t ep_chaos_delay(const struct ep_chaos_delay *d, double u)
{
    double low = (double)d->minimum_ns, high = (double)d->maximum_ns;

    switch ((enum ep_chaos_distribution)d->distribution) {
    case EP_CHAOS_FIXED:
        break;
    case EP_CHAOS_UNIFORM:
        return (uint64_t)(low + u * (high - low));
    case EP_CHAOS_EXPONENTIAL:
        return (uint64_t)clamp(-(double)d->mean_ns * log1p(-u), d);
    case EP_CHAOS_PARETO:
        return (uint64_t)clamp(low / pow(1.0 - u, 1.0 / d->shape), d);
    }
    return d->fixed_ns;
}

struct ep_chaos_choice ep_chaos_choose(const struct ep_chaos_experiment *x, uint64_t age_ns,
                                       const struct ep_chaos_counts *counts)
{
    struct ep_chaos_choice choice = {.verdict = EP_CHAOS_HIT};
    struct ep_rng rng;
    double dice;

    if (age_ns >= x->duration_ns)
        return (struct ep_chaos_choice){.verdict = EP_CHAOS_OVER};
    /* A generator of its own for each request: what one drew doesn't move the others. */
    ep_rng_seed(&rng, (uint64_t)x->seed * 0x9e3779b97f4a7c15u ^ counts->seen);
    dice = ep_rng_unit(&rng);
    if (dice >= x->percent)
        choice.verdict = EP_CHAOS_MISS;
    else if (counts->injected >= (uint64_t)x->radius.total)
        choice.verdict = EP_CHAOS_SPENT;
    else if (counts->concurrent >= (uint64_t)x->radius.concurrent)
        choice.verdict = EP_CHAOS_FULL;
    else if ((double)counts->injected >= x->radius.percent * (double)(counts->seen + 1))
        choice.verdict = EP_CHAOS_SHARE;
    else if (x->fault.delay)
        choice.delay_ns = ep_chaos_delay(x->fault.delay, ep_rng_unit(&rng));
    return choice;
}
