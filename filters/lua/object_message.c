/* The fields of calls to language models, of the agent bus's messages and of Agent2Agent's, as policies see them and as tests and records
 * write them. object.h has the list. */
#include "lua/object.h"

/* --- out --- */

static void push_names(lua_State *L, const struct ep_model_names *names)
{
    lua_createtable(L, (int)names->n, 0);
    for (unsigned i = 0; i < names->n; i++) {
        ep_lua_push(L, names->v[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

/* {image = 2}: what it carries, and how often. */
static void push_media(lua_State *L, const unsigned *media)
{
    lua_createtable(L, 0, EP_MODEL_MEDIA);
    for (int m = 0; m < EP_MODEL_MEDIA; m++) {
        if (!media[m])
            continue;
        lua_pushinteger(L, (lua_Integer)media[m]);
        lua_setfield(L, -2, ep_model_media_name((enum ep_model_media)m));
    }
}

static void push_number(lua_State *L, struct ep_str text)
{
    lua_pushlstring(L, text.n ? text.p : "", text.n);
    if (!lua_stringtonumber(L, lua_tostring(L, -1)))
        lua_pushnil(L);
}

static void push_asked(lua_State *L, struct ep_model_request *r, struct ep_arena *arena, enum ep_policy_message_field f)
{
    switch (f) {
    case EP_POLICY_MESSAGE_TOOLS:
        push_names(L, ep_model_tools(r, arena));
        break;
    case EP_POLICY_MESSAGE_SERVERS:
        push_names(L, ep_model_servers(r, arena));
        break;
    case EP_POLICY_MESSAGE_MEDIA:
        push_media(L, ep_model_media(r, arena));
        break;
    case EP_POLICY_MESSAGE_BACKGROUND:
        lua_pushboolean(L, r->background);
        break;
    case EP_POLICY_MESSAGE_MAX_TOKENS:
        push_number(L, r->max_tokens);
        break;
    case EP_POLICY_MESSAGE_N:
        push_number(L, r->choices);
        break;
    default:
        ep_lua_push_or_nil(L, r->previous);
    }
}

void ep_policy_push_message_field(lua_State *L, struct ep_policy_object *o, enum ep_policy_message_field f)
{
    const struct ep_call *c = o->call;

    switch (f) {
    case EP_POLICY_MESSAGE_STREAM:
        lua_pushboolean(L, c->stream);
        return;
    case EP_POLICY_MESSAGE_CONVERSATION:
        ep_lua_push_or_nil(L, c->conversation);
        return;
    case EP_POLICY_MESSAGE_HASH:
        ep_lua_push_or_nil(L, c->hash);
        return;
    case EP_POLICY_MESSAGE_CLAIMED_TENANT:
        ep_lua_push_or_nil(L, c->claimed_tenant);
        return;
    case EP_POLICY_MESSAGE_CONTEXT:
        ep_lua_push_or_nil(L, c->context);
        return;
    case EP_POLICY_MESSAGE_PARTS:
        ep_policy_push_parts(L, c);
        return;
    default:
        break;
    }
    if (c->to_model)
        push_asked(L, c->to_model, &o->s->arena, f);
    else
        lua_pushnil(L);
}

/* --- in --- */

static struct ep_str text(lua_State *L, int table, const char *key, struct ep_arena *arena)
{
    struct ep_str s = {NULL, 0};

    if (lua_getfield(L, table, key) != LUA_TNIL) {
        if (!lua_isstring(L, -1))
            luaL_error(L, "%s must be a string or a number, not a %s", key, luaL_typename(L, -1));
        s = ep_arena_str(arena, ep_lua_check_text(L, lua_gettop(L)));
    }
    lua_pop(L, 1);
    return s;
}

static bool flag(lua_State *L, int table, const char *key)
{
    lua_getfield(L, table, key);
    bool is = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return is;
}

static void read_names(lua_State *L, int table, const char *key, struct ep_model_names *out, struct ep_arena *arena)
{
    if (lua_getfield(L, table, key) != LUA_TNIL) {
        luaL_checktype(L, -1, LUA_TTABLE);
        out->n = (unsigned)lua_rawlen(L, -1);
        out->v = ep_arena_alloc(arena, out->n * sizeof *out->v);
        for (unsigned i = 0; i < out->n; i++) {
            lua_rawgeti(L, -1, (lua_Integer)i + 1);
            out->v[i] = ep_arena_str(arena, ep_lua_check_str(L, -1));
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

static void read_media(lua_State *L, int table, unsigned media[EP_MODEL_MEDIA])
{
    if (lua_getfield(L, table, "media") != LUA_TNIL) {
        luaL_checktype(L, -1, LUA_TTABLE);
        for (int m = 0; m < EP_MODEL_MEDIA; m++) {
            lua_getfield(L, -1, ep_model_media_name((enum ep_model_media)m));
            media[m] = (unsigned)lua_tointeger(L, -1);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

/* A list of parts, or their JSON. */
static void read_parts(lua_State *L, int table, struct ep_call *c, struct ep_arena *arena)
{
    int type = lua_getfield(L, table, "parts");

    if (type == LUA_TTABLE) {
        ep_lua_json_encode(L, lua_gettop(L));
        c->parts = ep_arena_str(arena, ep_lua_check_str(L, -1));
        lua_pop(L, 1);
    } else if (type != LUA_TNIL) {
        c->parts = ep_arena_str(arena, ep_lua_check_str(L, -1));
    }
    lua_pop(L, 1);
}

void ep_policy_read_message_fields(lua_State *L, int table, struct ep_call *c, struct ep_arena *arena)
{
    c->stream = flag(L, table, "stream");
    c->recipient = text(L, table, "recipient", arena);
    c->conversation = text(L, table, "conversation", arena);
    c->hash = text(L, table, "hash", arena);
    c->claimed_tenant = text(L, table, "claimed_tenant", arena);
    c->context = text(L, table, "context", arena);
    read_parts(L, table, c, arena);
    if (!ep_str_eq(c->protocol, EP_STR("openai")) && !ep_str_eq(c->protocol, EP_STR("anthropic")))
        return;
    struct ep_model_request *r = EP_ARENA_NEW(arena, struct ep_model_request);
    c->to_model = r;
    r->read = r->named = true; /* the table has what would be made of a body */
    r->prompt = c->prompt_name;
    r->max_tokens = text(L, table, "max_tokens", arena);
    r->choices = text(L, table, "n", arena);
    r->user = text(L, table, "user", arena);
    r->previous = text(L, table, "previous", arena);
    r->background = flag(L, table, "background");
    read_names(L, table, "tools", &r->tools, arena);
    read_names(L, table, "servers", &r->servers, arena);
    read_media(L, table, r->media);
}
