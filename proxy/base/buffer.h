/* Slabs, slices and body queues: how bytes of the network are held without copying them.
 *
 * A slab is 16 KiB with a reference count. The worker reads into its current slab; a body keeps slices of it,
 * each of which holds one reference. Reference counts are plain: a slab never leaves its worker. */
#ifndef EP_BASE_BUFFER_H
#define EP_BASE_BUFFER_H

#include "base/arena.h"
#include "base/str.h"

#define EP_SLAB_BYTES 16384u

struct ep_slab_pool;

struct ep_slab {
    struct ep_slab_pool *pool;
    struct ep_slab *next_free;
    uint32_t refs;
    uint32_t size;           /* of data: EP_SLAB_BYTES, or more for a slab made to measure */
    unsigned char data[];
};

struct ep_slab_pool {
    struct ep_slab *free;
    unsigned n_free, max_free;
    unsigned n_live; /* slabs in use now, for the gauge and the memory limit */
};

void ep_slab_pool_init(struct ep_slab_pool *pool, unsigned max_free);
void ep_slab_pool_fini(struct ep_slab_pool *pool);
struct ep_slab *ep_slab_new(struct ep_slab_pool *pool);                 /* refs is 1 */
struct ep_slab *ep_slab_new_sized(struct ep_slab_pool *pool, size_t n); /* refs is 1; at least n bytes */
void ep_slab_release(struct ep_slab *s);                                /* for ep_slab_unref only */

static inline struct ep_slab *ep_slab_ref(struct ep_slab *s)
{
    s->refs++;
    return s;
}

static inline void ep_slab_unref(struct ep_slab *s)
{
    if (--s->refs == 0)
        ep_slab_release(s);
}

/* Bytes inside a slab. A slice in a queue owns one reference to its slab; slab is NULL for constant data. */
struct ep_slice {
    struct ep_slab *slab;
    const unsigned char *p;
    size_t n;
};

static inline struct ep_slice ep_slice_ref(struct ep_slice s)
{
    if (s.slab)
        s.slab->refs++;
    return s;
}

static inline void ep_slice_unref(struct ep_slice s)
{
    if (s.slab)
        ep_slab_unref(s.slab);
}

static inline struct ep_str ep_slice_str(struct ep_slice s)
{
    return ep_str_n(s.p, s.n);
}

/* A queue of slices: a body, or what waits to be written. Grows by doubling; holds no memory when empty
 * beyond its inline slices. */
#define EP_BODY_INLINE 4u

struct ep_body {
    struct ep_slice *v; /* inline_v or malloc */
    uint32_t head, count, cap;
    size_t bytes;       /* sum of all slices */
    struct ep_slice inline_v[EP_BODY_INLINE];
};

void ep_body_init(struct ep_body *b);
void ep_body_fini(struct ep_body *b); /* drops all; the body is empty and usable afterwards */
/* Takes over the slice's reference. A small slice that follows many small ones is folded into a slab with
 * them, so that a peer who sends single bytes can't pin a slab with each. */
void ep_body_push(struct ep_body *b, struct ep_slice s, struct ep_slab_pool *pool);
/* A copy of the bytes. */
void ep_body_push_copy(struct ep_body *b, const void *p, size_t n, struct ep_slab_pool *pool);
/* The first slice, borrowed; NULL when empty. */
struct ep_slice *ep_body_front(struct ep_body *b);
/* The i-th slice from the front, borrowed. i < count. */
struct ep_slice *ep_body_at(struct ep_body *b, uint32_t i);
/* Removes n bytes from the front; n <= bytes. */
void ep_body_drop(struct ep_body *b, size_t n);
/* Moves the first n bytes of `from` to the end of `to`, splitting a slice where needed. */
void ep_body_move(struct ep_body *to, struct ep_body *from, size_t n, struct ep_slab_pool *pool);
/* All bytes as one slice: the slice itself when there is one, else a copy in `arena`. */
struct ep_str ep_body_flatten(struct ep_body *b, struct ep_arena *arena);

#endif
