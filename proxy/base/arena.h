/* A bump allocator over 4 KiB chunks from a free list of the worker.
 *
 * All that lives as long as one stream is taken from the stream's arena and given back by one call. An
 * allocation larger than a chunk gets a chunk of its own from malloc. Not thread-safe: one worker, one pool. */
#ifndef EP_BASE_ARENA_H
#define EP_BASE_ARENA_H

#include "base/str.h"

#define EP_CHUNK_BYTES 4096u

struct ep_chunk {
    struct ep_chunk *next;
    size_t bytes; /* of the whole chunk, header included */
};

struct ep_chunk_pool {
    struct ep_chunk *free;
    unsigned n_free, max_free; /* more than max_free go back to malloc */
};

struct ep_arena {
    struct ep_chunk_pool *pool;
    struct ep_chunk *chunks; /* the one in use first */
    char *p, *end;
    size_t bytes; /* handed out by malloc for this arena so far: for limits */
};

void ep_chunk_pool_init(struct ep_chunk_pool *pool, unsigned max_free);
void ep_chunk_pool_fini(struct ep_chunk_pool *pool);

void ep_arena_init(struct ep_arena *a, struct ep_chunk_pool *pool);
void ep_arena_fini(struct ep_arena *a); /* frees everything at once */

void *ep_arena_alloc_slow(struct ep_arena *a, size_t n);

/* Memory of n bytes, aligned to 8, not zeroed. Never NULL (aborts when the system has none). */
static inline void *ep_arena_alloc(struct ep_arena *a, size_t n)
{
    n = (n + 7u) & ~(size_t)7u;
    if ((size_t)(a->end - a->p) >= n) {
        void *p = a->p;
        a->p += n;
        return p;
    }
    return ep_arena_alloc_slow(a, n);
}

static inline void *ep_arena_zalloc(struct ep_arena *a, size_t n)
{
    return memset(ep_arena_alloc(a, n), 0, n);
}

/* A copy in the arena; a NUL follows it, outside its length. */
struct ep_str ep_arena_str(struct ep_arena *a, struct ep_str s);
struct ep_str ep_arena_printf(struct ep_arena *a, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define EP_ARENA_NEW(arena, type) ((type *)ep_arena_zalloc((arena), sizeof(type)))

#endif
