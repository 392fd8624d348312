/* Clocks, RFC 3339 text, random numbers. */
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "base/base.h"

static uint64_t clock_read(clockid_t id)
{
    struct timespec t;
    int rc = clock_gettime(id, &t);

    assert(rc == 0);
    (void)rc;
    return (uint64_t)t.tv_sec * EP_S + (uint64_t)t.tv_nsec;
}

uint64_t ep_clock_ns(void)
{
    return clock_read(CLOCK_MONOTONIC);
}

uint64_t ep_clock_wall_ns(void)
{
    return clock_read(CLOCK_REALTIME);
}

static char *digits(char *p, uint64_t v, unsigned n)
{
    for (unsigned i = n; i-- > 0; v /= 10)
        p[i] = (char)('0' + v % 10);
    return p + n;
}

/* By hand: gmtime_r takes the lock of the time zone, and this runs for every line of a log. The calendar is
 * counted in eras of 400 years whose years begin in March, so that the leap day comes last. */
int ep_time_rfc3339(uint64_t wall_ns, char out[32])
{
    uint64_t seconds = wall_ns / EP_S, day = seconds / 86400 + 719468, second = seconds % 86400;
    uint64_t era = day / 146097, day_of_era = day % 146097;
    uint64_t year = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    uint64_t day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    uint64_t month = (5 * day_of_year + 2) / 153;
    char *p = out;

    p = digits(p, year + era * 400 + (month >= 10), 4);
    *p++ = '-';
    p = digits(p, month < 10 ? month + 3 : month - 9, 2);
    *p++ = '-';
    p = digits(p, day_of_year - (153 * month + 2) / 5 + 1, 2);
    *p++ = 'T';
    p = digits(p, second / 3600, 2);
    *p++ = ':';
    p = digits(p, second / 60 % 60, 2);
    *p++ = ':';
    p = digits(p, second % 60, 2);
    *p++ = '.';
    p = digits(p, wall_ns % EP_S / 1000, 6);
    *p++ = 'Z';
    *p = 0;
    return (int)(p - out);
}

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void ep_rng_seed(struct ep_rng *r, uint64_t seed)
{
    for (unsigned i = 0; i < 4; i++)
        r->s[i] = splitmix(&seed);
}

void ep_rng_seed_random(struct ep_rng *r)
{
    uint64_t seed;

    if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        seed = ep_clock_ns() ^ (uint64_t)(uintptr_t)r; /* no kernel without getrandom is left; still not the same */
    ep_rng_seed(r, seed);
}

static uint64_t rotl(uint64_t x, unsigned k)
{
    return (x << k) | (x >> (64 - k));
}

/* xoshiro256** of Blackman and Vigna. */
uint64_t ep_rng_u64(struct ep_rng *r)
{
    uint64_t result = rotl(r->s[1] * 5, 7) * 9, t = r->s[1] << 17;

    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = rotl(r->s[3], 45);
    return result;
}

uint64_t ep_rng_below(struct ep_rng *r, uint64_t n)
{
    uint64_t skew, x;

    assert(n > 0);
    skew = (0 - n) % n; /* 2^64 mod n: below it a value would be more likely than others */
    do
        x = ep_rng_u64(r);
    while (x < skew);
    return x % n;
}

double ep_rng_unit(struct ep_rng *r)
{
    return (double)(ep_rng_u64(r) >> 11) * 0x1p-53;
}
