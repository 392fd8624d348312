/* Size classes: 16, 32, 48, 64, 96, 128, … 3072, 4096. A freed block goes to the list of its class. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"

#define LARGE UINT32_MAX

struct block {
    union {
        struct block *next; /* in a free list */
        size_t capacity;    /* in use: bytes after the header */
    } u;
    uint32_t class;
};

#define HEADER_BYTES 16u
static_assert(sizeof(struct block) <= HEADER_BYTES, "the header keeps malloc's alignment");

static const uint16_t class_bytes[EP_MEM_CLASSES] = {16,  32,  48,  64,   96,   128,  192,  256,
                                                     384, 512, 768, 1024, 1536, 2048, 3072, 4096};

static uint32_t class_of(size_t n)
{
    unsigned log2;

    if (n <= 32)
        return n > 16;
    if (n > 4096 || EP_ASAN)
        return LARGE;
    log2 = 63u - (unsigned)__builtin_clzll(n - 1); /* 2^log2 < n <= 2^(log2+1) */
    return 2 * (log2 - 5) + (n <= ((size_t)3 << (log2 - 1)) ? 2 : 3);
}

static struct block *block_of(void *p)
{
    return (struct block *)(void *)((char *)p - HEADER_BYTES);
}

void ep_mem_init(struct ep_mem *m, unsigned max_free)
{
    *m = (struct ep_mem){.max_free = EP_ASAN ? 0 : max_free};
}

void ep_mem_fini(struct ep_mem *m)
{
    for (unsigned i = 0; i < EP_MEM_CLASSES; i++) {
        struct block *b;

        while ((b = m->free[i])) {
            m->free[i] = b->u.next;
            free(b);
        }
        m->n_free[i] = 0;
    }
    m->max_free = 0;
}

void *ep_mem_alloc(struct ep_mem *m, size_t n)
{
    uint32_t class = EP_ASAN ? LARGE : class_of(n);
    struct block *b;
    size_t capacity;

    if (class != LARGE && (b = m->free[class])) {
        m->free[class] = b->u.next;
        m->n_free[class]--;
        capacity = class_bytes[class];
    } else {
        capacity = class == LARGE ? n : class_bytes[class];
        if (capacity > SIZE_MAX - HEADER_BYTES || !(b = malloc(HEADER_BYTES + capacity)))
            return NULL;
        b->class = class;
    }
    b->u.capacity = capacity;
    m->live_bytes += capacity;
    return (char *)b + HEADER_BYTES;
}

void *ep_mem_calloc(struct ep_mem *m, size_t n, size_t size)
{
    size_t bytes;
    void *p;

    if (__builtin_mul_overflow(n, size, &bytes))
        return NULL;
    p = ep_mem_alloc(m, bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

void *ep_mem_realloc(struct ep_mem *m, void *p, size_t n)
{
    struct block *b;
    void *fresh;

    if (!p)
        return ep_mem_alloc(m, n);
    b = block_of(p);
    if (n <= b->u.capacity && n >= b->u.capacity / 4)
        return p;
    fresh = ep_mem_alloc(m, n);
    if (!fresh)
        return NULL;
    memcpy(fresh, p, EP_MIN(n, b->u.capacity));
    ep_mem_free(m, p);
    return fresh;
}

void ep_mem_free(struct ep_mem *m, void *p)
{
    struct block *b;

    if (!p)
        return;
    b = block_of(p);
    assert(m->live_bytes >= b->u.capacity);
    m->live_bytes -= b->u.capacity;
    if (b->class == LARGE || m->n_free[b->class] >= m->max_free) {
        free(b);
        return;
    }
    b->u.next = m->free[b->class];
    m->free[b->class] = b;
    m->n_free[b->class]++;
}

static void *need(void *p)
{
    if (!p) {
        (void)fputs("ephor: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *ep_malloc(size_t n)
{
    return need(malloc(n ? n : 1));
}

void *ep_calloc(size_t n, size_t size)
{
    return need(calloc(n ? n : 1, size ? size : 1));
}

void *ep_realloc(void *p, size_t n)
{
    return need(realloc(p, n ? n : 1));
}

char *ep_strdup(const char *z)
{
    return need(strdup(z));
}

char *ep_strndup(const char *p, size_t n)
{
    char *z = ep_malloc(n + 1);

    if (n)
        memcpy(z, p, n);
    z[n] = 0;
    return z;
}
