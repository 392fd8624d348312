/* Compiled chunks of the process, by the SHA-256 of their name and text: the same text is compiled once, whatever the number of
 * workers, reloads, and policies that require it. Bytecode is only ever made here, in memory, and never read from anywhere
 * else: Lua doesn't check it. Locked inside. */
#ifndef EP_LUA_COMPILED_H
#define EP_LUA_COMPILED_H

#include <lua.h>

#include "base/base.h"

#define EP_LUA_COMPILED_BYTES_MAX ((size_t)16 << 20) /* then all of it is forgotten */

struct ep_lua_compiled;

struct ep_lua_compiled *ep_lua_compiled_new(void);
void ep_lua_compiled_free(struct ep_lua_compiled *c); /* NULL is fine */
/* As luaL_loadbufferx of text: pushes the function, or the error. `c` NULL: compiles. */
int ep_lua_compiled_load(struct ep_lua_compiled *c, lua_State *L, struct ep_str text, const char *name);
uint64_t ep_lua_compiled_hits(struct ep_lua_compiled *c);
size_t ep_lua_compiled_bytes(struct ep_lua_compiled *c);

#endif
