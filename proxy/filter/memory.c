/* What policies remember. memory.h has the design. */
#include "filter/memory.h"

#include <openssl/siphash.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define SHARDS      16u
#define BUCKETS_MIN 64u
#define OVERHEAD    64u /* of an entry: its head and its place in the table */

struct entry {
    struct ep_list node; /* of the shard, the one used last first */
    struct entry *chain;
    uint64_t hash, expires_ns;
    int64_t number;
    bool is_number;
    uint32_t key_n, value_n;
    char bytes[]; /* key, then value */
};

struct shard {
    pthread_mutex_t lock;
    struct entry **buckets; /* NULL: nothing was ever kept */
    size_t n_buckets, n, bytes;
    struct ep_list used;
};

struct ep_memory {
    uint64_t key[2];
    atomic_uint_fast64_t entries_max, bytes_max; /* of one shard */
    struct shard shards[SHARDS];
};

struct ep_memory *ep_memory_new(void)
{
    struct ep_memory *m = ep_calloc(1, sizeof *m);
    struct ep_rng rng;

    ep_rng_seed_random(&rng);
    m->key[0] = ep_rng_u64(&rng);
    m->key[1] = ep_rng_u64(&rng);
    for (unsigned i = 0; i < SHARDS; i++) {
        (void)pthread_mutex_init(&m->shards[i].lock, NULL);
        ep_list_init(&m->shards[i].used);
    }
    ep_memory_limit(m, EP_MEMORY_ENTRIES, EP_MEMORY_BYTES);
    return m;
}

void ep_memory_free(struct ep_memory *m)
{
    struct ep_list *node;

    if (!m)
        return;
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = &m->shards[i];
        while ((node = ep_list_pop(&s->used)))
            free(EP_CONTAINER(node, struct entry, node));
        free(s->buckets);
        (void)pthread_mutex_destroy(&s->lock);
    }
    free(m);
}

void ep_memory_limit(struct ep_memory *m, uint64_t entries, uint64_t bytes)
{
    atomic_store(&m->entries_max, EP_MAX(entries / SHARDS, 1u));
    atomic_store(&m->bytes_max, bytes / SHARDS);
}

/* --- one shard, locked --- */

static uint64_t hash_of(const struct ep_memory *m, struct ep_str key)
{
    return SIPHASH_24(m->key, (const uint8_t *)key.p, key.n);
}

/* The lowest bits choose the shard, those above the bucket. */
static struct shard *lock(struct ep_memory *m, uint64_t hash)
{
    struct shard *s = &m->shards[hash % SHARDS];

    (void)pthread_mutex_lock(&s->lock);
    return s;
}

static void unlock(struct shard *s)
{
    (void)pthread_mutex_unlock(&s->lock);
}

static struct entry **place(const struct shard *s, uint64_t hash)
{
    return &s->buckets[hash / SHARDS & (s->n_buckets - 1)];
}

static size_t size_of(const struct entry *e)
{
    return OVERHEAD + sizeof *e + e->key_n + e->value_n;
}

static struct entry *find(const struct shard *s, uint64_t hash, struct ep_str key)
{
    struct entry *e = s->buckets ? *place(s, hash) : NULL;

    while (e && !(e->hash == hash && ep_str_eq(ep_str_n(e->bytes, e->key_n), key)))
        e = e->chain;
    return e;
}

static void drop(struct shard *s, struct entry *e, struct ep_memory_change *c)
{
    struct entry **at = place(s, e->hash);

    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
    ep_list_remove(&e->node);
    s->n--;
    s->bytes -= size_of(e);
    c->entries--;
    c->bytes -= (int64_t)size_of(e);
    free(e);
}

static void grow(struct shard *s)
{
    size_t n = s->n_buckets ? 2 * s->n_buckets : BUCKETS_MIN;

    free(s->buckets);
    s->buckets = ep_calloc(n, sizeof *s->buckets);
    s->n_buckets = n;
    EP_LIST_FOREACH(node, &s->used)
    {
        struct entry *e = EP_CONTAINER(node, struct entry, node), **at = place(s, e->hash);
        e->chain = *at;
        *at = e;
    }
}

/* Room for one more entry of that size. Two of those used least are looked at in any case, so that what expires goes even
 * when there is room. */
static bool make_room(struct ep_memory *m, struct shard *s, size_t bytes, uint64_t now, struct ep_memory_change *c)
{
    uint64_t entries_max = atomic_load(&m->entries_max), bytes_max = atomic_load(&m->bytes_max);

    if (bytes > bytes_max)
        return false;
    for (int i = 0; i < 2 && !ep_list_empty(&s->used); i++) {
        struct entry *last = EP_CONTAINER(s->used.prev, struct entry, node);
        if (last->expires_ns > now)
            break;
        drop(s, last, c);
    }
    while (!ep_list_empty(&s->used) && (s->n + 1 > entries_max || s->bytes + bytes > bytes_max)) {
        struct entry *last = EP_CONTAINER(s->used.prev, struct entry, node);
        c->evicted += last->expires_ns > now;
        drop(s, last, c);
    }
    return true;
}

/* A new entry; NULL: it doesn't fit. */
static struct entry *add(struct ep_memory *m, struct shard *s, uint64_t hash, struct ep_str key, struct ep_str value,
                         uint64_t ttl, uint64_t now, struct ep_memory_change *c)
{
    struct entry *e, **at;
    size_t bytes = OVERHEAD + sizeof *e + key.n + value.n;

    if (!make_room(m, s, bytes, now, c))
        return NULL;
    if (s->n >= s->n_buckets)
        grow(s);
    e = ep_calloc(1, sizeof *e + key.n + value.n);
    e->hash = hash;
    e->expires_ns = now + ttl;
    e->key_n = (uint32_t)key.n;
    e->value_n = (uint32_t)value.n;
    memcpy(e->bytes, key.p, key.n);
    if (value.n)
        memcpy(e->bytes + key.n, value.p, value.n);
    at = place(s, hash);
    e->chain = *at;
    *at = e;
    ep_list_push_front(&s->used, &e->node);
    s->n++;
    s->bytes += bytes;
    c->entries++;
    c->bytes += (int64_t)bytes;
    return e;
}

static struct entry *live(struct shard *s, uint64_t hash, struct ep_str key, uint64_t now)
{
    struct entry *e = find(s, hash, key);

    if (!e || e->expires_ns <= now)
        return NULL;
    ep_list_remove(&e->node);
    ep_list_push_front(&s->used, &e->node);
    return e;
}

/* --- operations --- */

bool ep_memory_set(struct ep_memory *m, struct ep_str key, struct ep_str value, uint64_t ttl_ns, uint64_t now_ns,
                   struct ep_memory_change *c)
{
    uint64_t hash = hash_of(m, key);
    struct shard *s = lock(m, hash);
    struct entry *old = find(s, hash, key);
    bool good;

    if (old)
        drop(s, old, c);
    good = add(m, s, hash, key, value, ttl_ns, now_ns, c);
    unlock(s);
    return good;
}

bool ep_memory_get(struct ep_memory *m, struct ep_str key, char *value, size_t room, size_t *n, uint64_t now_ns)
{
    uint64_t hash = hash_of(m, key);
    struct shard *s = lock(m, hash);
    struct entry *e = live(s, hash, key, now_ns);

    *n = 0;
    if (e && e->is_number) {
        char digits[24];
        *n = (size_t)snprintf(digits, sizeof digits, "%lld", (long long)e->number);
        memcpy(value, digits, EP_MIN(*n, room));
    } else if (e) {
        *n = e->value_n;
        memcpy(value, e->bytes + e->key_n, EP_MIN(*n, room));
    }
    unlock(s);
    return e != NULL;
}

void ep_memory_remove(struct ep_memory *m, struct ep_str key, struct ep_memory_change *c)
{
    uint64_t hash = hash_of(m, key);
    struct shard *s = lock(m, hash);
    struct entry *e = find(s, hash, key);

    if (e)
        drop(s, e, c);
    unlock(s);
}

static int64_t saturated(int64_t a, int64_t b)
{
    int64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? (b > 0 ? INT64_MAX : INT64_MIN) : sum;
}

bool ep_memory_add(struct ep_memory *m, struct ep_str key, int64_t n, uint64_t ttl_ns, uint64_t now_ns, int64_t *sum,
                   struct ep_memory_change *c)
{
    uint64_t hash = hash_of(m, key);
    struct shard *s = lock(m, hash);
    struct entry *e = live(s, hash, key, now_ns);
    bool good = !e || e->is_number;

    if (!e) {
        struct entry *old = find(s, hash, key);
        if (old)
            drop(s, old, c);
        e = add(m, s, hash, key, (struct ep_str){NULL, 0}, ttl_ns, now_ns, c);
        good = e != NULL;
        if (e)
            e->is_number = true;
    }
    if (good)
        *sum = e->number = saturated(e->number, n);
    unlock(s);
    return good;
}
