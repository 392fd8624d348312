/* Strings, headers and classes: what policies and Envoy-style scripts share. */
#include "lua/host.h"

#include <math.h>

#include "http/headers.h"

struct ep_str ep_lua_check_str(lua_State *L, int index)
{
    struct ep_str s;

    s.p = luaL_checklstring(L, index, &s.n);
    return s;
}

struct ep_str ep_lua_check_text(lua_State *L, int index)
{
    if (lua_type(L, index) == LUA_TNUMBER && !lua_isinteger(L, index)) {
        double x = lua_tonumber(L, index);
        if (x == trunc(x) && fabs(x) < 9.2e18) {
            lua_pushinteger(L, (lua_Integer)x);
            lua_replace(L, index);
        }
    }
    return ep_lua_check_str(L, index);
}

struct lookup {
    uint16_t id;
    struct ep_str name;
};

static bool is(const struct ep_header *h, const struct lookup *l)
{
    return l->id != EP_HDR_OTHER ? h->id == l->id : h->id == EP_HDR_OTHER && ep_str_eq(h->name, l->name);
}

void ep_lua_push_header(lua_State *L, const struct ep_headers *h, struct ep_str name)
{
    char lower[128];
    struct lookup l = {.name = name};
    const struct ep_header *first = NULL;
    luaL_Buffer b;
    bool many = false;

    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] < 'A' || name.p[i] > 'Z')
            continue;
        if (name.n > sizeof lower) {
            lua_pushnil(L); /* no such header is ever let in */
            return;
        }
        for (size_t k = 0; k < name.n; k++)
            lower[k] = ep_lower(name.p[k]);
        l.name.p = lower;
        break;
    }
    l.id = ep_header_id(l.name);
    for (uint32_t i = 0; i < h->n; i++) {
        if (!is(&h->v[i], &l))
            continue;
        if (!first) {
            first = &h->v[i];
            continue;
        }
        if (!many) {
            many = true;
            luaL_buffinit(L, &b);
            luaL_addlstring(&b, first->value.p, first->value.n);
        }
        luaL_addlstring(&b, l.id == EP_HDR_COOKIE ? "; " : ",", l.id == EP_HDR_COOKIE ? 2 : 1);
        luaL_addlstring(&b, h->v[i].value.p, h->v[i].value.n);
    }
    if (many)
        luaL_pushresult(&b);
    else if (first)
        ep_lua_push(L, first->value);
    else
        lua_pushnil(L);
}

void ep_lua_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta)
{
    luaL_newmetatable(L, name);
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_newtable(L);
    if (methods)
        luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    if (meta)
        luaL_setfuncs(L, meta, 0);
}
