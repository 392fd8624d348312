/* For walks over JSON that the scan has found good, without its tree: strings, keys and words. */
#ifndef EP_AGENT_JSON_WALK_H
#define EP_AGENT_JSON_WALK_H

#include "base/base.h"

/* Behind the string whose opening quote is at p. */
static inline const char *ep_walk_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        p += *p == '\\';
    return p < end ? p + 1 : end;
}

/* Whether the string that ends at p is a key. */
static inline bool ep_walk_is_key(const char *p, const char *end)
{
    while (p < end && (unsigned char)*p <= ' ')
        p++;
    return p < end && *p == ':';
}

static inline bool ep_walk_is_any(struct ep_str s, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ep_str_eq(s, ep_str(words[i])))
            return true;
    return false;
}
#define EP_WALK_IS_ANY(s, ...) \
    ep_walk_is_any(s, (const char *const[]){__VA_ARGS__}, EP_COUNT(((const char *const[]){__VA_ARGS__})))

#endif
