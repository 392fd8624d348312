/* The library in lua/ephor, compiled into the binary by cmake/embed.cmake. */
#ifndef EP_LUA_EMBEDDED_H
#define EP_LUA_EMBEDDED_H

#include "base/base.h"

struct ep_lua_embedded {
    const char *name; /* "ephor.policy" */
    const unsigned char *text;
    size_t n;
};
extern const struct ep_lua_embedded ep_lua_embedded[]; /* ends with a NULL name */

static inline const struct ep_lua_embedded *ep_lua_embedded_find(struct ep_str name)
{
    for (const struct ep_lua_embedded *e = ep_lua_embedded; e->name; e++)
        if (ep_str_eq(ep_str(e->name), name))
            return e;
    return NULL;
}

#endif
