/* Balancing: see balance.h. */
#include "upstream/balance.h"

#define LEAST_REQUEST_FULL 16u /* up to so many endpoints all are looked at; above, two by chance */

static double decayed(const struct ep_load *l, uint64_t now_ns)
{
    double dt = now_ns > l->updated_ns ? (double)(now_ns - l->updated_ns) : 0;

    return l->cost_ns * ((double)EP_LOAD_TAU_NS / ((double)EP_LOAD_TAU_NS + dt));
}

double ep_load_cost(const struct ep_load *l, uint64_t now_ns)
{
    double cost;

    if (l->cost_ns > 0)
        cost = decayed(l, now_ns);
    else
        cost = l->active ? EP_LOAD_UNKNOWN_NS : 0; /* a new endpoint gets one request to be measured by */
    return cost * (l->active + 1.0);
}

void ep_load_observe(struct ep_load *l, uint64_t latency_ns, uint64_t now_ns)
{
    double x = (double)EP_MAX(latency_ns, 1u), dt, w;

    if (l->cost_ns <= 0 || x >= l->cost_ns) {
        l->cost_ns = x;
    } else {
        dt = now_ns > l->updated_ns ? (double)(now_ns - l->updated_ns) : 0;
        w = (double)EP_LOAD_TAU_NS / ((double)EP_LOAD_TAU_NS + dt);
        /* Many answers within one turn of the clock must count too: each takes at least a share off the peak. */
        w = EP_MIN(w, 0.98);
        l->cost_ns = l->cost_ns * w + x * (1 - w);
    }
    l->updated_ns = now_ns;
}

void ep_load_observe_failure(struct ep_load *l, uint64_t latency_ns, uint64_t now_ns)
{
    double charged = EP_MAX((double)latency_ns, EP_LOAD_PENALTY_NS);

    ep_load_observe(l, (uint64_t)charged, now_ns);
}

static size_t pick_two(struct ep_load *const *v, size_t n, const struct ep_load *avoid, struct ep_rng *rng,
                       uint64_t now_ns, bool by_cost)
{
    size_t a = (size_t)ep_rng_below(rng, n);
    size_t b = (size_t)ep_rng_below(rng, n - 1);
    double cost_a, cost_b;

    if (b >= a)
        b++;
    if (v[a] == avoid)
        return b;
    if (v[b] == avoid)
        return a;
    if (by_cost) {
        cost_a = ep_load_cost(v[a], now_ns);
        cost_b = ep_load_cost(v[b], now_ns);
    } else {
        cost_a = v[a]->active;
        cost_b = v[b]->active;
    }
    return cost_a <= cost_b ? a : b;
}

/* The one with the fewest requests; among equals the first after a point of chance. */
static size_t pick_fewest(struct ep_load *const *v, size_t n, const struct ep_load *avoid, struct ep_rng *rng)
{
    size_t from = (size_t)ep_rng_below(rng, n), best = from;
    bool found = v[from] != avoid;

    for (size_t i = 1; i < n; i++) {
        size_t at = (from + i) % n;
        if (v[at] == avoid)
            continue;
        if (!found || v[at]->active < v[best]->active)
            best = at;
        found = true;
    }
    return best;
}

struct ep_load *ep_balance_pick(struct ep_balancer *b, struct ep_load *const *v, size_t n, const struct ep_load *avoid,
                                struct ep_rng *rng, uint64_t now_ns)
{
    size_t i = 0;

    if (n == 0)
        return NULL;
    if (n == 1)
        return v[0];
    switch ((enum ep_balance)b->how) {
    case EP_BALANCE_ROUND_ROBIN:
        i = b->next++ % n;
        if (v[i] == avoid)
            i = b->next++ % n;
        break;
    case EP_BALANCE_LEAST_REQUEST:
        i = n <= LEAST_REQUEST_FULL ? pick_fewest(v, n, avoid, rng) : pick_two(v, n, avoid, rng, now_ns, false);
        break;
    case EP_BALANCE_P2C_EWMA:
        i = pick_two(v, n, avoid, rng, now_ns, true);
        break;
    case EP_BALANCE_RANDOM:
        i = (size_t)ep_rng_below(rng, n);
        if (v[i] == avoid)
            i = (i + 1 + (size_t)ep_rng_below(rng, n - 1)) % n;
        break;
    }
    return v[i];
}
