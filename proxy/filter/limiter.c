/* Token buckets of the process. limiter.h has the design. */
#include "filter/limiter.h"

#include <openssl/siphash.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define WAYS  8u
#define LOCKS 64u

__extension__ typedef unsigned __int128 u128;

/* Read by halves, changed as a whole: a half that was read of another moment makes the swap fail. */
union slot {
    struct {
        _Atomic uint64_t key; /* 0: empty */
        _Atomic uint64_t full_at_ns;
    };
    u128 both;
};

struct bucket {
    uint64_t key, full_at_ns;
};

struct ep_limiter {
    union slot *slots; /* mapped, so that what no key came to costs nothing */
    uint64_t set_mask;
    uint64_t secret[2];
    atomic_uint used;
    pthread_mutex_t locks[LOCKS]; /* by key: that one key doesn't get two slots */
};

struct ep_limiter *ep_limiter_new(unsigned slots)
{
    struct ep_limiter *l = ep_calloc(1, sizeof *l);
    struct ep_rng rng;

    assert(slots >= 2 * WAYS && (slots & (slots - 1)) == 0);
    l->slots = mmap(NULL, slots * sizeof *l->slots, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (l->slots == MAP_FAILED)
        abort();
    l->set_mask = slots / WAYS - 1;
    ep_rng_seed_random(&rng);
    l->secret[0] = ep_rng_u64(&rng);
    l->secret[1] = ep_rng_u64(&rng);
    for (unsigned i = 0; i < LOCKS; i++)
        (void)pthread_mutex_init(&l->locks[i], NULL);
    return l;
}

void ep_limiter_free(struct ep_limiter *l)
{
    if (!l)
        return;
    for (unsigned i = 0; i < LOCKS; i++)
        (void)pthread_mutex_destroy(&l->locks[i]);
    (void)munmap(l->slots, (l->set_mask + 1) * WAYS * sizeof *l->slots);
    free(l);
}

unsigned ep_limiter_used(const struct ep_limiter *l)
{
    return atomic_load_explicit(&l->used, memory_order_relaxed);
}

uint64_t ep_limiter_key(const struct ep_limiter *l, uint64_t key, struct ep_str part)
{
    const uint64_t secret[2] = {l->secret[0] ^ key, l->secret[1]};
    uint64_t h = SIPHASH_24(secret, (const uint8_t *)part.p, part.n);

    return h ? h : 1;
}

/* --- arithmetic --- */

uint64_t ep_limit_time(const struct ep_limit_rate *r, uint64_t n)
{
    u128 ns = ((u128)n * r->per_ns + (r->count - 1)) / r->count;

    return ns > EP_LIMIT_DEBT_MAX ? EP_LIMIT_DEBT_MAX : (uint64_t)ns;
}

static void describe(const struct ep_limit_rate *r, uint64_t full_at, uint64_t now, struct ep_limit_state *out)
{
    uint64_t room = ep_limit_time(r, r->burst), away = full_at > now ? full_at - now : 0;

    out->full_ns = away;
    out->left = away >= room ? 0 : (uint64_t)((u128)(room - away) * r->count / r->per_ns);
}

/* --- slots --- */

static struct bucket read_slot(union slot *s)
{
    return (struct bucket){atomic_load_explicit(&s->key, memory_order_relaxed),
                           atomic_load_explicit(&s->full_at_ns, memory_order_relaxed)};
}

static u128 packed(struct bucket b)
{
    union slot s;

    atomic_init(&s.key, b.key);
    atomic_init(&s.full_at_ns, b.full_at_ns);
    return s.both;
}

static bool swap(union slot *s, struct bucket from, struct bucket to)
{
    return __sync_bool_compare_and_swap(&s->both, packed(from), packed(to));
}

/* The i-th of the places where a key may lie. */
static union slot *place(const struct ep_limiter *l, uint64_t key, unsigned i)
{
    uint64_t set = (i < WAYS ? key : key >> 32) & l->set_mask;

    return &l->slots[set * WAYS + i % WAYS];
}

static union slot *find(const struct ep_limiter *l, uint64_t key)
{
    for (unsigned i = 0; i < 2 * WAYS; i++) {
        union slot *s = place(l, key, i);
        if (atomic_load_explicit(&s->key, memory_order_relaxed) == key)
            return s;
    }
    return NULL;
}

/* The slot of a set that is empty, or was full for longest. Returns how many of the set can be had. */
static unsigned look(const struct ep_limiter *l, uint64_t key, unsigned from, uint64_t now, union slot **slot,
                     struct bucket *least)
{
    unsigned n = 0;

    *slot = place(l, key, from);
    *least = (struct bucket){0, UINT64_MAX};
    for (unsigned i = from; i < from + WAYS; i++) {
        union slot *s = place(l, key, i);
        struct bucket b = read_slot(s);

        if (!b.key)
            b.full_at_ns = 0;
        n += b.full_at_ns < now;
        if (b.full_at_ns < least->full_at_ns) {
            *slot = s;
            *least = b;
        }
    }
    return n;
}

/* Gives the key a slot whose bucket is full at `full_at`, unless it has one by now. NULL: there is none; *free_ns is
 * when one may be. */
static union slot *install(struct ep_limiter *l, uint64_t key, uint64_t full_at, uint64_t now, bool *made,
                           uint64_t *free_ns)
{
    pthread_mutex_t *lock = &l->locks[key % LOCKS];
    union slot *s, *other = NULL;
    struct bucket least, less;

    *made = false;
    (void)pthread_mutex_lock(lock);
    while (!(s = find(l, key))) {
        unsigned first = look(l, key, 0, now, &s, &least), second = look(l, key, WAYS, now, &other, &less);
        if (second > first ||
            (!first && less.full_at_ns < least.full_at_ns)) { /* the emptier set: so the table fills evenly */
            s = other;
            least = less;
        }
        if (!first && !second) {
            *free_ns = least.full_at_ns - now + 1;
            s = NULL;
            break;
        }
        if (swap(s, least, (struct bucket){key, full_at})) {
            *made = true;
            if (!least.key)
                atomic_fetch_add_explicit(&l->used, 1, memory_order_relaxed);
            break;
        }
    }
    (void)pthread_mutex_unlock(lock);
    return s;
}

enum ep_limit_result ep_limiter_take(struct ep_limiter *l, uint64_t key, const struct ep_limit_rate *r, uint64_t n,
                                     uint64_t now, struct ep_limit_state *out)
{
    uint64_t cost = ep_limit_time(r, n), room = ep_limit_time(r, r->burst);

    *out = (struct ep_limit_state){0};
    if (n > r->burst) {
        union slot *has = find(l, key);
        describe(r, has ? read_slot(has).full_at_ns : now, now, out);
        return EP_LIMIT_NEVER;
    }
    for (;;) {
        union slot *s = find(l, key);
        struct bucket b;
        uint64_t next;
        bool made;

        if (EP_UNLIKELY(!s)) {
            s = install(l, key, now + cost, now, &made, &out->wait_ns);
            if (!s)
                return EP_LIMIT_FULL;
            if (made) {
                describe(r, now + cost, now, out);
                return EP_LIMIT_TAKEN;
            }
        }
        b = read_slot(s);
        if (b.key != key)
            continue; /* it was idle, and another key has taken the slot */
        next = EP_MAX(b.full_at_ns, now) + cost;
        if (next - now > room) {
            describe(r, b.full_at_ns, now, out);
            out->wait_ns = next - now - room;
            return EP_LIMIT_EMPTY;
        }
        if (swap(s, b, (struct bucket){key, next})) {
            describe(r, next, now, out);
            return EP_LIMIT_TAKEN;
        }
    }
}

enum ep_limit_result ep_limiter_settle(struct ep_limiter *l, uint64_t key, const struct ep_limit_rate *r,
                                       uint64_t taken, uint64_t used, uint64_t now)
{
    uint64_t had = ep_limit_time(r, taken), costs = ep_limit_time(r, used), unused;
    bool made;

    while (had != costs) {
        union slot *s = find(l, key);
        struct bucket b;
        uint64_t next;

        if (!s) { /* it filled up meanwhile, and was let go */
            if (costs < had)
                break;
            s = install(l, key, now + (costs - had), now, &made, &unused);
            if (!s)
                return EP_LIMIT_FULL;
            if (made)
                break;
        }
        b = read_slot(s);
        if (b.key != key)
            continue;
        if (costs < had)
            next = b.full_at_ns - EP_MIN(had - costs, b.full_at_ns);
        else
            next = EP_MIN(EP_MAX(b.full_at_ns, now) + (costs - had), now + EP_LIMIT_DEBT_MAX);
        if (swap(s, b, (struct bucket){key, next}))
            break;
    }
    return EP_LIMIT_TAKEN;
}
