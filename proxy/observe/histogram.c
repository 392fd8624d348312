/* Log-linear histograms: 32 equal steps in each power of two.
 *
 * Steps come in rows of 32, one row a power of two from 2^10 ns (1 µs) to 2^41 (an hour and a bit is 2^42), one row
 * below and one bucket above. A row (256 bytes) is made when its first value comes: a series seldom sees more than
 * ten of them, so it costs 2.5 KiB in place of 8.5. One thread writes, others read with relaxed loads. */
#include <math.h>
#include <stdlib.h>

#include "observe/private.h"

#define STEPS       32u
#define STEP_BITS   5u
#define FIRST_POWER 10u
#define END_POWER   42u
#define ROWS        (1 + END_POWER - FIRST_POWER + 1) /* below, the powers, above */

struct ep_histogram {
    uint64_t sum, max;
    uint64_t *row[ROWS];
};

struct ep_histogram *ep_histogram_new(void)
{
    return ep_calloc(1, sizeof(struct ep_histogram));
}

void ep_histogram_free(struct ep_histogram *h)
{
    if (!h)
        return;
    for (unsigned i = 0; i < ROWS; i++)
        free(h->row[i]);
    free(h);
}

static unsigned bucket_of(uint64_t ns)
{
    unsigned power;

    if (ns < 1u << FIRST_POWER)
        return (unsigned)(ns >> (FIRST_POWER - STEP_BITS));
    power = 63u - (unsigned)__builtin_clzll(ns);
    if (power >= END_POWER)
        return (ROWS - 1) * STEPS;
    return (power - FIRST_POWER + 1) * STEPS + (unsigned)(ns >> (power - STEP_BITS) & (STEPS - 1));
}

/* The middle of a bucket: at most half a step from any value in it. */
static uint64_t middle_of(unsigned row, unsigned step)
{
    unsigned power = row ? FIRST_POWER + row - 1 : FIRST_POWER;
    uint64_t width = UINT64_C(1) << (power - STEP_BITS);

    return (row ? UINT64_C(1) << power : 0) + step * width + width / 2;
}

static const uint64_t *row_of(const struct ep_histogram *h, unsigned i)
{
    return __atomic_load_n(&h->row[i], __ATOMIC_ACQUIRE);
}

static uint64_t *row_new(struct ep_histogram *h, unsigned i)
{
    uint64_t *row = ep_calloc(STEPS, sizeof(*row));

    __atomic_store_n(&h->row[i], row, __ATOMIC_RELEASE);
    return row;
}

void ep_histogram_record(struct ep_histogram *h, uint64_t ns)
{
    unsigned bucket = bucket_of(ns);
    uint64_t *row = h->row[bucket / STEPS];

    if (EP_UNLIKELY(!row))
        row = row_new(h, bucket / STEPS);
    ep_cell_add(&row[bucket % STEPS], 1);
    ep_cell_add(&h->sum, ns);
    if (EP_UNLIKELY(ns > h->max))
        ep_cell_set(&h->max, ns);
}

static uint64_t get(const uint64_t *cell)
{
    return __atomic_load_n(cell, __ATOMIC_RELAXED);
}

uint64_t ep_histogram_count(const struct ep_histogram *h)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < ROWS; i++) {
        const uint64_t *row = row_of(h, i);

        for (unsigned k = 0; row && k < STEPS; k++)
            count += get(&row[k]);
    }
    return count;
}

uint64_t ep_histogram_sum(const struct ep_histogram *h)
{
    return get(&h->sum);
}

uint64_t ep_histogram_max(const struct ep_histogram *h)
{
    return get(&h->max);
}

uint64_t ep_histogram_quantile(const struct ep_histogram *const *h, size_t n, double q)
{
    uint64_t count = 0, max = 0, rank, below = 0;

    for (size_t i = 0; i < n; i++) {
        count += ep_histogram_count(h[i]);
        max = EP_MAX(max, ep_histogram_max(h[i]));
    }
    if (count == 0)
        return 0;
    rank = q <= 0 ? 1 : q >= 1 ? count : (uint64_t)ceil(q * (double)count);
    for (unsigned r = 0; r < ROWS - 1; r++) {
        for (unsigned k = 0; k < STEPS; k++) {
            for (size_t i = 0; i < n; i++) {
                const uint64_t *row = row_of(h[i], r);

                below += row ? get(&row[k]) : 0;
            }
            if (below >= rank)
                return EP_MIN(middle_of(r, k), max);
        }
    }
    return max;
}

void ep_histogram_classic(const struct ep_histogram *h, const uint64_t *bounds_ns, size_t n, uint64_t *counts)
{
    size_t b = 0;

    for (unsigned r = 0; r < ROWS; r++) {
        const uint64_t *row = row_of(h, r);

        for (unsigned k = 0; row && k < STEPS; k++) {
            uint64_t value = get(&row[k]);

            if (value == 0)
                continue;
            while (b < n && middle_of(r, k) > bounds_ns[b])
                b++;
            counts[b] += value;
        }
    }
}
