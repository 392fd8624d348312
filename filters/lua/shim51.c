/* What Lua 5.1 and LuaJIT had and 5.4 has not, for scripts written for Envoy: unpack, table.getn, math.pow, bit.*,
 * numbers without ".0" in tostring. What can't be had in the sandbox (loadstring, setfenv…) says so by name. */
#include "lua/host.h"

#include <math.h>
#include <stdio.h>

static int refused(lua_State *L)
{
    return luaL_error(L, "%s is not available in ephor's sandbox", lua_tostring(L, lua_upvalueindex(1)));
}

static int to_string(lua_State *L)
{
    luaL_checkany(L, 1);
    if (lua_type(L, 1) == LUA_TNUMBER)
        ep_lua_check_text(L, 1);
    luaL_tolstring(L, 1, NULL);
    return 1;
}

static int table_getn(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_pushinteger(L, (lua_Integer)lua_rawlen(L, 1));
    return 1;
}

static int table_maxn(lua_State *L)
{
    double most = 0;
    uint64_t n = 0;

    luaL_checktype(L, 1, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        n++;
        if (lua_type(L, -2) == LUA_TNUMBER)
            most = fmax(most, lua_tonumber(L, -2));
    }
    ep_lua_charge(L, n / 4);
    lua_pushnumber(L, most);
    ep_lua_check_text(L, -1);
    return 1;
}

static int math_pow(lua_State *L)
{
    lua_pushnumber(L, pow(luaL_checknumber(L, 1), luaL_checknumber(L, 2)));
    return 1;
}

static int math_log10(lua_State *L)
{
    lua_pushnumber(L, log10(luaL_checknumber(L, 1)));
    return 1;
}

static int math_ldexp(lua_State *L)
{
    lua_pushnumber(L, ldexp(luaL_checknumber(L, 1), (int)luaL_checkinteger(L, 2)));
    return 1;
}

static int math_frexp(lua_State *L)
{
    int e;

    lua_pushnumber(L, frexp(luaL_checknumber(L, 1), &e));
    lua_pushinteger(L, e);
    return 2;
}

/* --- LuaJIT's bit: numbers are taken modulo 2^32, results are signed 32-bit integers --- */

static uint32_t bits(lua_State *L, int index)
{
    if (lua_isinteger(L, index))
        return (uint32_t)(uint64_t)lua_tointeger(L, index);
    double x = fmod(nearbyint(luaL_checknumber(L, index)), 4294967296.0);
    return isfinite(x) ? (uint32_t)(int64_t)x : 0;
}

static int result(lua_State *L, uint32_t v)
{
    lua_pushinteger(L, (int32_t)v);
    return 1;
}

static int bit_tobit(lua_State *L)
{
    return result(L, bits(L, 1));
}

static int bit_bnot(lua_State *L)
{
    return result(L, ~bits(L, 1));
}

static int bit_band(lua_State *L)
{
    ep_lua_charge_arguments(L, 1);
    uint32_t v = bits(L, 1);

    for (int i = lua_gettop(L); i > 1; i--)
        v &= bits(L, i);
    return result(L, v);
}

static int bit_bor(lua_State *L)
{
    ep_lua_charge_arguments(L, 1);
    uint32_t v = bits(L, 1);

    for (int i = lua_gettop(L); i > 1; i--)
        v |= bits(L, i);
    return result(L, v);
}

static int bit_bxor(lua_State *L)
{
    ep_lua_charge_arguments(L, 1);
    uint32_t v = bits(L, 1);

    for (int i = lua_gettop(L); i > 1; i--)
        v ^= bits(L, i);
    return result(L, v);
}

static int bit_lshift(lua_State *L)
{
    return result(L, bits(L, 1) << (bits(L, 2) & 31));
}

static int bit_rshift(lua_State *L)
{
    return result(L, bits(L, 1) >> (bits(L, 2) & 31));
}

static int bit_arshift(lua_State *L)
{
    uint32_t v = bits(L, 1), n = bits(L, 2) & 31, sign = (v & 0x80000000u) && n ? ~(0xffffffffu >> n) : 0;

    return result(L, (v >> n) | sign);
}

static int bit_rol(lua_State *L)
{
    uint32_t v = bits(L, 1), n = bits(L, 2) & 31;

    return result(L, n ? (v << n) | (v >> (32 - n)) : v);
}

static int bit_ror(lua_State *L)
{
    uint32_t v = bits(L, 1), n = bits(L, 2) & 31;

    return result(L, n ? (v >> n) | (v << (32 - n)) : v);
}

static int bit_bswap(lua_State *L)
{
    return result(L, __builtin_bswap32(bits(L, 1)));
}

static int bit_tohex(lua_State *L)
{
    int32_t n = lua_isnoneornil(L, 2) ? 8 : (int32_t)bits(L, 2);
    bool upper = n < 0;
    char text[16];

    n = n < -8 || n > 8 ? 8 : n < 0 ? -n : n;
    snprintf(text, sizeof text, upper ? "%08X" : "%08x", (unsigned)bits(L, 1));
    lua_pushlstring(L, text + (8 - n), (size_t)n);
    return 1;
}

void ep_lua_shim51(lua_State *L)
{
    static const luaL_Reg bit[] = {
        {"arshift", bit_arshift}, {"band", bit_band},     {"bnot", bit_bnot}, {"bor", bit_bor}, {"bswap", bit_bswap},
        {"bxor", bit_bxor},       {"lshift", bit_lshift}, {"rol", bit_rol},   {"ror", bit_ror}, {"rshift", bit_rshift},
        {"tobit", bit_tobit},     {"tohex", bit_tohex},   {NULL, NULL},
    };
    static const luaL_Reg math[] = {
        {"pow", math_pow}, {"log10", math_log10}, {"ldexp", math_ldexp}, {"frexp", math_frexp}, {NULL, NULL},
    };
    static const luaL_Reg table[] = {{"getn", table_getn}, {"maxn", table_maxn}, {NULL, NULL}};
    static const char *const absent[] = {"load",    "loadstring", "loadfile",       "dofile",
                                         "setfenv", "getfenv",    "collectgarbage", "newproxy"};
    int env = lua_gettop(L);

    lua_getfield(L, env, "math");
    luaL_setfuncs(L, math, 0);
    lua_getfield(L, env, "string");
    lua_getfield(L, -1, "gmatch");
    lua_setfield(L, -2, "gfind");
    lua_getfield(L, env, "table");
    luaL_setfuncs(L, table, 0);
    lua_getfield(L, -1, "unpack");
    lua_setfield(L, env, "unpack");
    luaL_newlib(L, bit);
    lua_setfield(L, env, "bit");
    lua_pushcfunction(L, to_string);
    lua_setfield(L, env, "tostring");
    for (size_t i = 0; i < EP_COUNT(absent); i++) {
        lua_pushstring(L, absent[i]);
        lua_pushcclosure(L, refused, 1);
        lua_setfield(L, env, absent[i]);
    }
    lua_settop(L, env);
}
