/* Errors that a person reads: text that grows context at its front on the way up. */
#include <stdarg.h>
#include <stdio.h>

#include "base/base.h"

bool ep_error_set(struct ep_error *err, const char *format, ...)
{
    va_list ap;

    if (!err)
        return false;
    va_start(ap, format);
    (void)vsnprintf(err->text, sizeof(err->text), format, ap);
    va_end(ap);
    return false;
}

bool ep_error_prefix(struct ep_error *err, const char *format, ...)
{
    char context[sizeof(err->text)];
    va_list ap;
    size_t n, room, kept;

    if (!err)
        return false;
    va_start(ap, format);
    (void)vsnprintf(context, sizeof(context) - 2, format, ap);
    va_end(ap);
    n = strlen(context);
    context[n++] = ':';
    context[n++] = ' ';
    room = sizeof(err->text) - n - 1;
    kept = EP_MIN(strnlen(err->text, sizeof(err->text)), room);
    memmove(err->text + n, err->text, kept);
    memcpy(err->text, context, n);
    err->text[n + kept] = 0;
    return false;
}
