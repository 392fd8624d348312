/* What the modules in lua/ephor have in C, beside JSON: pushed by each function as a table, part of "ephor.native". */
#ifndef EP_LUA_LIBRARY_H
#define EP_LUA_LIBRARY_H

#include "lua/host.h"

int ep_lua_crypto_native(lua_State *L); /* crypto.c: hashes, base64, signatures */
int ep_lua_text_native(lua_State *L);   /* text.c: globs, addresses */

#endif
