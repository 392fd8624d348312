/* Globs and addresses for the modules in lua/ephor: "ephor.native".text. */
#include <arpa/inet.h>

#include "lua/host.h"
#include "lua/library.h"

/* glob(pattern, text): '*' any run, '?' one byte. At worst the product of both lengths, and charged so. */
static int glob(lua_State *L)
{
    struct ep_str pattern = ep_lua_check_str(L, 1), s = ep_lua_check_str(L, 2);

    ep_lua_charge(L, (uint64_t)pattern.n * s.n / 16 + 5);
    lua_pushboolean(L, ep_str_glob(pattern, s));
    return 1;
}

/* address(text): its 4 or 16 bytes, or nil. Only the full spellings: four decimal numbers without leading zeros, or
 * RFC 4291 section 2.2. IPv4 inside IPv6 (::ffff:1.2.3.4) is IPv4. */
static int address(lua_State *L)
{
    struct ep_str s = ep_lua_check_str(L, 1);
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    char text[INET6_ADDRSTRLEN];
    unsigned char bytes[16];

    ep_lua_charge(L, 10);
    if (s.n < sizeof text && !memchr(s.p, '\0', s.n)) {
        memcpy(text, s.p, s.n);
        text[s.n] = '\0';
        if (inet_pton(AF_INET, text, bytes) == 1) {
            lua_pushlstring(L, (const char *)bytes, 4);
            return 1;
        }
        if (inet_pton(AF_INET6, text, bytes) == 1) {
            bool v4 = memcmp(bytes, mapped, sizeof mapped) == 0;
            lua_pushlstring(L, (const char *)bytes + (v4 ? 12 : 0), v4 ? 4 : 16);
            return 1;
        }
    }
    lua_pushnil(L);
    return 1;
}

int ep_lua_text_native(lua_State *L)
{
    static const luaL_Reg functions[] = {{"glob", glob}, {"address", address}, {NULL, NULL}};

    luaL_newlib(L, functions);
    return 1;
}
