/* Globs, addresses and fast looks at long texts for the modules in lua/ephor: "ephor.native".text.
 *
 * A pattern of Lua takes some steps a byte. Rules that look for signs of something in long texts ask here first whether
 * there is any, at the speed of memory, and only then look closer. */
#include <arpa/inet.h>

#include "lua/host.h"
#include "lua/library.h"
#include "lua/sensitive.h"

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

static void set_of(struct ep_str bytes, bool set[256])
{
    memset(set, 0, 256);
    for (size_t i = 0; i < bytes.n; i++)
        set[(unsigned char)bytes.p[i]] = true;
}

/* first(text, bytes[, from]): where the first of the bytes is, or nil. */
static int first(lua_State *L)
{
    struct ep_str s = ep_lua_check_str(L, 1), bytes = ep_lua_check_str(L, 2);
    lua_Integer from = luaL_optinteger(L, 3, 1);
    size_t i = from < 1 ? 0 : (size_t)from - 1, start = i;
    bool set[256];

    set_of(bytes, set);
    while (i < s.n && !set[(unsigned char)s.p[i]])
        i++;
    ep_lua_charge(L, (i > start ? (i - start) / 16 : 0) + bytes.n / 16 + 5);
    if (i < s.n)
        lua_pushinteger(L, (lua_Integer)i + 1);
    else
        lua_pushnil(L);
    return 1;
}

/* strip(text, bytes): the text without those bytes. */
static int strip(lua_State *L)
{
    struct ep_str s = ep_lua_check_str(L, 1), bytes = ep_lua_check_str(L, 2);
    luaL_Buffer b;
    bool set[256];
    size_t n = 0;

    ep_lua_charge(L, s.n / 16 + bytes.n / 16 + 5);
    set_of(bytes, set);
    char *out = luaL_buffinitsize(L, &b, s.n + 1);
    for (size_t i = 0; i < s.n; i++)
        if (!set[(unsigned char)s.p[i]])
            out[n++] = s.p[i];
    luaL_pushresultsize(&b, n);
    return 1;
}

/* any(text, list): the first string of the list that is somewhere in the text, or nil. */
static int any(lua_State *L)
{
    struct ep_str s = ep_lua_check_str(L, 1);

    luaL_checktype(L, 2, LUA_TTABLE);
    for (lua_Integer i = 1; lua_rawgeti(L, 2, i) != LUA_TNIL; i++) {
        struct ep_str part = ep_lua_check_str(L, -1);
        ep_lua_charge(L, s.n / 64 + 3);
        if (part.n && memmem(s.p, s.n, part.p, part.n))
            return 1;
        lua_pop(L, 1);
    }
    return 1; /* nil */
}

/* sensitive(kind, text, from): where the first of that kind begins and ends, or nil. */
static int sensitive(lua_State *L)
{
    struct ep_str kind = ep_lua_check_str(L, 1), s = ep_lua_check_str(L, 2);
    lua_Integer at = luaL_checkinteger(L, 3);
    size_t from = at < 1 ? 0 : EP_MIN((size_t)at - 1, s.n), begin, end;

    for (int k = 0; k < EP_SENSITIVE_KINDS; k++) {
        if (!ep_str_eq(kind, ep_str(ep_sensitive_name((enum ep_sensitive)k))))
            continue;
        bool found = ep_sensitive_find((enum ep_sensitive)k, s, from, &begin, &end);
        ep_lua_charge(L, ((found ? end : s.n) - from) / 8 + 10);
        if (!found)
            return 0;
        lua_pushinteger(L, (lua_Integer)begin + 1);
        lua_pushinteger(L, (lua_Integer)end);
        return 2;
    }
    return luaL_error(L, "there is no kind '%s'", kind.p);
}

static void push_sensitive_kinds(lua_State *L)
{
    lua_createtable(L, EP_SENSITIVE_KINDS, 0);
    for (int k = 0; k < EP_SENSITIVE_KINDS; k++) {
        lua_pushstring(L, ep_sensitive_name((enum ep_sensitive)k));
        lua_rawseti(L, -2, k + 1);
    }
}

int ep_lua_text_native(lua_State *L)
{
    static const luaL_Reg functions[] = {{"glob", glob}, {"address", address},     {"first", first}, {"strip", strip},
                                         {"any", any},   {"sensitive", sensitive}, {NULL, NULL}};

    luaL_newlib(L, functions);
    push_sensitive_kinds(L);
    lua_setfield(L, -2, "sensitive_kinds");
    return 1;
}
