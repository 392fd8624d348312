/* Slabs and body queues. A body is a ring of slices whose capacity is a power of two. */
#include <stdlib.h>

#include "base/base.h"

/* Folding: behind FOLD_COUNT slices one of less than FOLD_SMALL bytes is copied, together with the run of slices up
 * to FOLD_RUN bytes before it; what follows, up to FOLD_RUN, is copied behind them while there is room. */
#define FOLD_COUNT 32u
#define FOLD_SMALL 256u
#define FOLD_RUN   1024u

static_assert((EP_BODY_INLINE & (EP_BODY_INLINE - 1)) == 0, "the ring is masked");

void ep_slab_pool_init(struct ep_slab_pool *pool, unsigned max_free)
{
    *pool = (struct ep_slab_pool){.max_free = EP_ASAN ? 0 : max_free};
}

void ep_slab_pool_fini(struct ep_slab_pool *pool)
{
    struct ep_slab *s;

    while ((s = pool->free)) {
        pool->free = s->next_free;
        free(s);
    }
    pool->n_free = 0;
    pool->max_free = 0;
}

/* A slab made to measure counts as many as would hold its bytes, so that n_live stays a measure of memory. */
static unsigned slab_units(const struct ep_slab *s)
{
    return (s->size + EP_SLAB_BYTES - 1) / EP_SLAB_BYTES;
}

static struct ep_slab *slab_make(struct ep_slab_pool *pool, uint32_t size)
{
    struct ep_slab *s = ep_malloc(sizeof(*s) + size);

    *s = (struct ep_slab){.pool = pool, .refs = 1, .size = size};
    pool->n_live += slab_units(s);
    return s;
}

struct ep_slab *ep_slab_new(struct ep_slab_pool *pool)
{
    struct ep_slab *s = pool->free;

    if (!s)
        return slab_make(pool, EP_SLAB_BYTES);
    pool->free = s->next_free;
    pool->n_free--;
    pool->n_live++;
    s->next_free = NULL;
    s->refs = 1;
    return s;
}

struct ep_slab *ep_slab_new_sized(struct ep_slab_pool *pool, size_t n)
{
    if (n <= EP_SLAB_BYTES)
        return ep_slab_new(pool);
    assert(n <= UINT32_MAX - EP_SLAB_BYTES);
    return slab_make(pool, (uint32_t)n);
}

void ep_slab_release(struct ep_slab *s)
{
    struct ep_slab_pool *pool = s->pool;

    assert(s->refs == 0 && pool->n_live >= slab_units(s));
    pool->n_live -= slab_units(s);
    if (s->size != EP_SLAB_BYTES || pool->n_free >= pool->max_free) {
        free(s);
        return;
    }
    s->next_free = pool->free;
    pool->free = s;
    pool->n_free++;
}

void ep_body_init(struct ep_body *b)
{
    b->v = b->inline_v;
    b->head = b->count = 0;
    b->cap = EP_BODY_INLINE;
    b->bytes = 0;
}

static struct ep_slice *at(struct ep_body *b, uint32_t i)
{
    return &b->v[(b->head + i) & (b->cap - 1)];
}

static void forget(struct ep_body *b)
{
    if (b->v != b->inline_v)
        free(b->v);
    ep_body_init(b);
}

void ep_body_fini(struct ep_body *b)
{
    for (uint32_t i = 0; i < b->count; i++)
        ep_slice_unref(*at(b, i));
    forget(b);
}

static void append(struct ep_body *b, struct ep_slice s)
{
    if (b->count == b->cap) {
        struct ep_slice *v;

        assert(b->cap <= UINT32_MAX / 2);
        v = ep_malloc(2 * (size_t)b->cap * sizeof(*v));
        for (uint32_t i = 0; i < b->count; i++)
            v[i] = *at(b, i);
        if (b->v != b->inline_v)
            free(b->v);
        b->v = v;
        b->head = 0;
        b->cap *= 2;
    }
    b->bytes += s.n;
    *at(b, b->count++) = s;
}

/* Room behind the last slice in a slab that nobody else looks at: its one reference is ours. */
static size_t tail_room(struct ep_body *b)
{
    struct ep_slice *last;
    const unsigned char *end;

    if (b->count == 0)
        return 0;
    last = at(b, b->count - 1);
    if (!last->slab || last->slab->refs != 1)
        return 0;
    end = last->slab->data + last->slab->size;
    return (size_t)(end - (last->p + last->n));
}

static void tail_add(struct ep_body *b, const void *p, size_t n)
{
    struct ep_slice *last = at(b, b->count - 1);
    size_t offset = (size_t)(last->p - last->slab->data) + last->n;

    memcpy(last->slab->data + offset, p, n);
    last->n += n;
    b->bytes += n;
}

/* Copies the run of small slices at the end, and s, into one slab. */
static void fold(struct ep_body *b, struct ep_slice s, struct ep_slab_pool *pool)
{
    struct ep_slab *slab = ep_slab_new(pool);
    size_t total = s.n, used = 0;
    uint32_t first = b->count;

    while (first > 0 && at(b, first - 1)->n <= FOLD_RUN && total + at(b, first - 1)->n <= EP_SLAB_BYTES)
        total += at(b, --first)->n;
    for (uint32_t i = first; i < b->count; i++) {
        struct ep_slice *old = at(b, i);

        memcpy(slab->data + used, old->p, old->n);
        used += old->n;
        b->bytes -= old->n;
        ep_slice_unref(*old);
    }
    memcpy(slab->data + used, s.p, s.n);
    ep_slice_unref(s);
    b->count = first;
    append(b, (struct ep_slice){slab, slab->data, total});
}

void ep_body_push(struct ep_body *b, struct ep_slice s, struct ep_slab_pool *pool)
{
    if (s.n == 0) {
        ep_slice_unref(s);
        return;
    }
    if (b->count > FOLD_COUNT && s.n <= FOLD_RUN && tail_room(b) >= s.n) {
        tail_add(b, s.p, s.n);
        ep_slice_unref(s);
    } else if (b->count > FOLD_COUNT && s.n < FOLD_SMALL) {
        fold(b, s, pool);
    } else {
        append(b, s);
    }
}

void ep_body_push_copy(struct ep_body *b, const void *p, size_t n, struct ep_slab_pool *pool)
{
    const unsigned char *from = p;
    size_t part = EP_MIN(tail_room(b), n);

    if (part) {
        tail_add(b, from, part);
        from += part;
        n -= part;
    }
    while (n) {
        struct ep_slab *slab = ep_slab_new(pool);

        part = EP_MIN(n, (size_t)EP_SLAB_BYTES);
        memcpy(slab->data, from, part);
        append(b, (struct ep_slice){slab, slab->data, part});
        from += part;
        n -= part;
    }
}

struct ep_slice *ep_body_front(struct ep_body *b)
{
    return b->count ? at(b, 0) : NULL;
}

struct ep_slice *ep_body_at(struct ep_body *b, uint32_t i)
{
    assert(i < b->count);
    return at(b, i);
}

/* The slice leaves the queue with its reference. */
static struct ep_slice shift(struct ep_body *b)
{
    struct ep_slice s = *at(b, 0);

    b->bytes -= s.n;
    b->head = (b->head + 1) & (b->cap - 1);
    if (--b->count == 0)
        forget(b);
    return s;
}

void ep_body_drop(struct ep_body *b, size_t n)
{
    assert(n <= b->bytes);
    while (n) {
        struct ep_slice *s = at(b, 0);

        if (s->n > n) {
            s->p += n;
            s->n -= n;
            b->bytes -= n;
            return;
        }
        n -= s->n;
        ep_slice_unref(shift(b));
    }
}

void ep_body_move(struct ep_body *to, struct ep_body *from, size_t n, struct ep_slab_pool *pool)
{
    assert(n <= from->bytes && to != from);
    while (n) {
        struct ep_slice *s = at(from, 0);

        if (s->n > n) {
            ep_body_push(to, ep_slice_ref((struct ep_slice){s->slab, s->p, n}), pool);
            ep_body_drop(from, n);
            return;
        }
        n -= s->n;
        ep_body_push(to, shift(from), pool);
    }
}

struct ep_str ep_body_flatten(struct ep_body *b, struct ep_arena *arena)
{
    char *p;
    size_t used = 0;

    if (b->count == 0)
        return EP_STR("");
    if (b->count == 1)
        return ep_slice_str(*at(b, 0));
    p = ep_arena_alloc(arena, b->bytes);
    for (uint32_t i = 0; i < b->count; i++) {
        struct ep_slice *s = at(b, i);

        memcpy(p + used, s->p, s->n);
        used += s->n;
    }
    return ep_str_n(p, used);
}
