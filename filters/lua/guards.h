/* Which functions of the standard library scripts get, and which of them are guarded. */
#ifndef EP_LUA_GUARDS_H
#define EP_LUA_GUARDS_H

#include "lua/host.h"

struct ep_lua_entry {
    const char *library; /* NULL: of the base library */
    const char *name;
    lua_CFunction guard; /* gets the standard function as upvalue 1; NULL: that function itself */
};

/* All of them, but for the patterns (pattern.c); ends with a row without a name. */
extern const struct ep_lua_entry ep_lua_entries[];

#endif
