/* A growing text, NUL-terminated all the time. */
#include <stdarg.h>
#include <stdio.h>

#include "observe/private.h"

static void reserve(struct text *t, size_t more)
{
    if (t->cap - t->n > more)
        return;
    t->cap = EP_MAX(t->cap * 2, t->n + more + 1024);
    t->p = ep_realloc(t->p, t->cap);
}

void ep_text_add(struct text *t, const void *p, size_t n)
{
    reserve(t, n);
    if (n)
        memcpy(t->p + t->n, p, n);
    t->n += n;
    t->p[t->n] = 0;
}

void ep_text_z(struct text *t, const char *z)
{
    ep_text_add(t, z, strlen(z));
}

void ep_text_printf(struct text *t, const char *format, ...)
{
    va_list ap, again;
    int n;

    va_start(ap, format);
    va_copy(again, ap);
    reserve(t, 128);
    n = vsnprintf(t->p + t->n, t->cap - t->n, format, ap);
    va_end(ap);
    assert(n >= 0);
    if ((size_t)n >= t->cap - t->n) {
        reserve(t, (size_t)n);
        (void)vsnprintf(t->p + t->n, t->cap - t->n, format, again);
    }
    va_end(again);
    t->n += (size_t)n;
}
