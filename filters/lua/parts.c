/* The parts of an Agent2Agent message as policies see them. 0.3 has {kind, text | file | data}, its gRPC and REST the
 * same without `kind`, 1.0 {text | raw | url | data, filename, mediaType}: all of them become {kind = "text" | "file" |
 * "data", text, data, name, media_type, url, bytes, metadata}. */
#include "lua/object.h"

#include "lua/policy.h"

static const struct {
    const char *from[4], *to;
} members[] = {
    {{"text"}, "text"},
    {{"data"}, "data"},
    {{"name", "filename"}, "name"},
    {{"mediaType", "media_type", "mimeType", "mime_type"}, "media_type"},
    {{"url", "uri", "fileWithUri", "file_with_uri"}, "url"},
    {{"raw", "bytes", "fileWithBytes", "file_with_bytes"}, "bytes"},
    {{"metadata"}, "metadata"},
};

static void take(lua_State *L, int from, int to)
{
    for (size_t i = 0; i < EP_COUNT(members); i++)
        for (size_t k = 0; k < EP_COUNT(members[i].from) && members[i].from[k]; k++) {
            if (lua_getfield(L, from, members[i].from[k]) != LUA_TNIL)
                lua_setfield(L, to, members[i].to);
            else
                lua_pop(L, 1);
        }
}

static bool has(lua_State *L, int table, const char *key)
{
    bool is = lua_getfield(L, table, key) != LUA_TNIL;

    lua_pop(L, 1);
    return is;
}

/* The part on top of the stack, which may be anything, becomes ours. `wrapped`: data stands in a message of its own. */
static void push_part(lua_State *L, bool wrapped)
{
    int from = lua_gettop(L), to;

    lua_createtable(L, 0, EP_COUNT(members) + 1);
    to = from + 1;
    if (lua_type(L, from) == LUA_TTABLE) {
        take(L, from, to);
        if (lua_getfield(L, from, "file") == LUA_TTABLE)
            take(L, lua_gettop(L), to);
        lua_pop(L, 1);
        if (lua_getfield(L, to, "data") == LUA_TTABLE && wrapped && lua_getfield(L, -1, "data") != LUA_TNIL)
            lua_setfield(L, to, "data");
        lua_settop(L, to);
    }
    lua_pushstring(L, has(L, to, "text") ? "text" : has(L, to, "data") ? "data" : "file");
    lua_setfield(L, to, "kind");
}

void ep_policy_push_parts(lua_State *L, const struct ep_call *c)
{
    bool wrapped = c->binding != EP_BINDING_JSONRPC && ep_str_starts(c->version, EP_STR("0."));
    int list;

    if (!c->parts.n) {
        lua_pushnil(L);
        return;
    }
    ep_lua_json_decode(L, c->parts);
    list = lua_gettop(L);
    if (lua_type(L, list) != LUA_TTABLE)
        return;
    for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, list); i <= n; i++) {
        lua_rawgeti(L, list, i);
        push_part(L, wrapped);
        lua_rawseti(L, list, i);
        lua_pop(L, 1);
    }
}
