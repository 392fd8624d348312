/* Size-class free lists of one worker: what nghttp2 allocates through (nghttp2_mem).
 *
 * nghttp2 makes and frees a handful of small objects a stream. Classes are powers of two and their halves up
 * to 4 KiB; larger sizes go to malloc. A 16-byte header keeps the class, so that free needs no size. */
#ifndef EP_BASE_MEM_H
#define EP_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#define EP_MEM_CLASSES 16

/* Under ASan every free list keeps nothing, so that it sees a use after free in pools, slabs and classes. */
#if defined(__SANITIZE_ADDRESS__)
#define EP_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EP_ASAN 1
#endif
#endif
#ifndef EP_ASAN
#define EP_ASAN 0
#endif

struct ep_mem {
    void *free[EP_MEM_CLASSES];
    unsigned n_free[EP_MEM_CLASSES];
    unsigned max_free; /* a class keeps at most this many; the rest goes back to malloc */
    size_t live_bytes; /* handed out and not freed */
};

void ep_mem_init(struct ep_mem *m, unsigned max_free);
void ep_mem_fini(struct ep_mem *m);
void *ep_mem_alloc(struct ep_mem *m, size_t n); /* NULL when the system has none */
void *ep_mem_calloc(struct ep_mem *m, size_t n, size_t size);
void *ep_mem_realloc(struct ep_mem *m, void *p, size_t n);
void ep_mem_free(struct ep_mem *m, void *p);

/* For everything else: abort with a line on stderr instead of returning NULL. */
void *ep_malloc(size_t n);
void *ep_calloc(size_t n, size_t size);
void *ep_realloc(void *p, size_t n);
char *ep_strdup(const char *z);
char *ep_strndup(const char *p, size_t n);

#endif
