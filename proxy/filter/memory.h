/* What policies remember: a table of the process, shared by all workers, bounded in entries and bytes, whose entries expire.
 *
 * Sharded by key, each shard with a lock, a hash table and a list from the one used last to the one used least. When a shard
 * is full, what has expired goes first, then what was used least. Keys may come from callers, so the hash is keyed. Time is
 * a parameter. A lost entry is normal: policies must be written so that forgetting is safe. */
#ifndef EP_FILTER_MEMORY_H
#define EP_FILTER_MEMORY_H

#include "base/base.h"

#define EP_MEMORY_ENTRIES 65536u          /* when the configuration says nothing */
#define EP_MEMORY_BYTES   (16u * 1024 * 1024)

struct ep_memory;

/* What an operation changed: for gauges that each worker keeps of its own share. */
struct ep_memory_change {
    int64_t entries, bytes;
    uint64_t evicted; /* that had not expired */
};

struct ep_memory *ep_memory_new(void);
void ep_memory_free(struct ep_memory *m);
/* New limits; what is over them goes with the next entries. Any thread. */
void ep_memory_limit(struct ep_memory *m, uint64_t entries, uint64_t bytes);

/* All of any thread. False from set: the entry alone is larger than a shard may be. */
bool ep_memory_set(struct ep_memory *m, struct ep_str key, struct ep_str value, uint64_t ttl_ns, uint64_t now_ns,
                   struct ep_memory_change *c);
/* Copies up to `room` bytes; *n is how many there are. A number of ep_memory_add is its digits. */
bool ep_memory_get(struct ep_memory *m, struct ep_str key, char *value, size_t room, size_t *n, uint64_t now_ns);
void ep_memory_remove(struct ep_memory *m, struct ep_str key, struct ep_memory_change *c);
/* Adds to a number, in one step for all workers; one that isn't there begins at 0 and lives for ttl_ns from then. It stays at
 * the ends of its range. False: what is there is no number. */
bool ep_memory_add(struct ep_memory *m, struct ep_str key, int64_t n, uint64_t ttl_ns, uint64_t now_ns, int64_t *sum,
                   struct ep_memory_change *c);

#endif
