/* Arenas: chunks come from the worker's free list and go back there all at once. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

#define HEADER_BYTES ((sizeof(struct ep_chunk) + 15u) & ~(size_t)15u)

void ep_chunk_pool_init(struct ep_chunk_pool *pool, unsigned max_free)
{
    *pool = (struct ep_chunk_pool){.max_free = EP_ASAN ? 0 : max_free};
}

void ep_chunk_pool_fini(struct ep_chunk_pool *pool)
{
    struct ep_chunk *c;

    while ((c = pool->free)) {
        pool->free = c->next;
        free(c);
    }
    pool->n_free = 0;
    pool->max_free = 0; /* an arena that outlives the pool gives its chunks to malloc */
}

static struct ep_chunk *chunk_take(struct ep_chunk_pool *pool)
{
    struct ep_chunk *c = pool->free;

    if (c) {
        pool->free = c->next;
        pool->n_free--;
        return c;
    }
    c = ep_malloc(EP_CHUNK_BYTES);
    c->bytes = EP_CHUNK_BYTES;
    return c;
}

static void chunk_give(struct ep_chunk_pool *pool, struct ep_chunk *c)
{
    if (c->bytes != EP_CHUNK_BYTES || pool->n_free >= pool->max_free) {
        free(c);
        return;
    }
    c->next = pool->free;
    pool->free = c;
    pool->n_free++;
}

void ep_arena_init(struct ep_arena *a, struct ep_chunk_pool *pool)
{
    /* p and end are never followed while they are equal; not NULL, so that nothing adds to a null pointer. */
    *a = (struct ep_arena){.pool = pool, .p = (char *)a, .end = (char *)a};
}

void ep_arena_fini(struct ep_arena *a)
{
    struct ep_chunk *c;

    while ((c = a->chunks)) {
        a->chunks = c->next;
        chunk_give(a->pool, c);
    }
    ep_arena_init(a, a->pool);
}

void *ep_arena_alloc_slow(struct ep_arena *a, size_t n)
{
    struct ep_chunk *c;

    if (n > EP_CHUNK_BYTES - HEADER_BYTES) {
        assert(n < SIZE_MAX - HEADER_BYTES);
        c = ep_malloc(HEADER_BYTES + n);
        c->bytes = HEADER_BYTES + n;
        a->bytes += c->bytes;
        /* Behind the chunk in use, whose rest is still good for small things. */
        if (a->chunks) {
            c->next = a->chunks->next;
            a->chunks->next = c;
        } else {
            c->next = NULL;
            a->chunks = c;
        }
        return (char *)c + HEADER_BYTES;
    }
    c = chunk_take(a->pool);
    c->next = a->chunks;
    a->chunks = c;
    a->bytes += c->bytes;
    a->p = (char *)c + HEADER_BYTES + n;
    a->end = (char *)c + EP_CHUNK_BYTES;
    return (char *)c + HEADER_BYTES;
}

struct ep_str ep_arena_str(struct ep_arena *a, struct ep_str s)
{
    char *p = ep_arena_alloc(a, s.n + 1);

    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = 0;
    return ep_str_n(p, s.n);
}

struct ep_str ep_arena_printf(struct ep_arena *a, const char *format, ...)
{
    char small[256], *p;
    va_list ap, again;
    int n;

    va_start(ap, format);
    va_copy(again, ap);
    n = vsnprintf(small, sizeof(small), format, ap);
    va_end(ap);
    assert(n >= 0);
    if ((size_t)n < sizeof(small)) {
        va_end(again);
        return ep_arena_str(a, ep_str_n(small, (size_t)n));
    }
    p = ep_arena_alloc(a, (size_t)n + 1);
    (void)vsnprintf(p, (size_t)n + 1, format, again);
    va_end(again);
    return ep_str_n(p, (size_t)n);
}
