/* The object that policies see, and the native module. object.h has the design. */
#include "lua/object.h"

#include "filter/chain.h"
#include "lua/library.h"
#include "lua/watch.h"

enum { VALUE_ARGUMENTS = 1, VALUE_HEADERS, VALUE_REQUEST_HEADERS, VALUE_PEER, VALUES = VALUE_PEER };

/* Which header table a `headers` shows. */
struct proxy {
    struct ep_policy_object *o;
    bool request; /* else that of the phase */
};

struct ep_policy_object *ep_policy_object_check(lua_State *L)
{
    struct ep_policy_object *o = ep_lua_of(L)->object;

    if (lua_touserdata(L, 1) != o)
        luaL_error(L, "this method is called with ':' on a call: c:deny(…)");
    if (!o->s)
        luaL_error(L, "object used outside of proper scope");
    return o;
}

static const struct ep_headers *table_of(const struct proxy *p)
{
    return p->request || p->o->phase == EP_POLICY_CALL ? &p->o->s->request.headers : &p->o->s->response.headers;
}

/* --- methods --- */

static unsigned check_status(lua_State *L, int index)
{
    lua_Integer status = luaL_checkinteger(L, index);

    if (status < 400 || status > 599)
        luaL_error(L, "status must be between 400 and 599");
    return (unsigned)status;
}

static const char *check_code(lua_State *L, struct ep_policy_object *o, int index)
{
    struct ep_str code = ep_lua_check_str(L, index);
    bool good = code.n > 0 && code.n <= 64;

    for (size_t i = 0; good && i < code.n; i++)
        good = (code.p[i] >= 'a' && code.p[i] <= 'z') || (code.p[i] >= '0' && code.p[i] <= '9') ||
               memchr("._-", code.p[i], 3);
    if (!good)
        luaL_error(L, "code must be 1 to 64 of a-z, 0-9, '.', '_' and '-'");
    return ep_arena_str(ep_stream_brief(o->s), code).p;
}

static int deny(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    struct ep_str reason = lua_isnoneornil(L, 2) ? EP_STR("denied by policy") : ep_lua_check_text(L, 2);

    ep_lua_charge(L, 20);
    o->denied = true;
    reason.n = EP_MIN(reason.n, 512u);
    o->reason = ep_arena_str(ep_stream_brief(o->s), reason);
    if (!lua_isnoneornil(L, 3)) {
        luaL_checktype(L, 3, LUA_TTABLE);
        if (lua_getfield(L, 3, "status") != LUA_TNIL)
            o->status = check_status(L, -1);
        if (lua_getfield(L, 3, "code") != LUA_TNIL)
            o->code = check_code(L, o, -1);
    }
    lua_pushboolean(L, false);
    return 1;
}

static int allow(lua_State *L)
{
    ep_policy_object_check(L); /* says aloud what is so anyway; an earlier deny stays */
    lua_pushboolean(L, true);
    return 1;
}

static void check_settable(lua_State *L, struct ep_str name)
{
    static const char *const framing[] = {"connection", "content-length", "host",    "keep-alive",
                                          "te",         "trailer",        "upgrade", "transfer-encoding"};

    if (!ep_header_name_valid(name))
        luaL_error(L, "'%s' is no name of a header", name.p);
    for (size_t i = 0; i < EP_COUNT(framing); i++)
        if (ep_str_caseeq(name, ep_str(framing[i])))
            luaL_error(L, "a policy can't set '%s'", name.p);
    if (ep_str_casestarts(name, EP_STR("x-ephor-")))
        luaL_error(L, "headers that begin with x-ephor- are ephor's own");
}

/* header(name): the value; header(name, value): sets it; header(name, nil): removes it. */
static int header(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    struct ep_headers *h = o->phase == EP_POLICY_CALL ? &o->s->request.headers : &o->s->response.headers;
    struct ep_str name = ep_lua_check_str(L, 2);

    if (lua_gettop(L) == 2) {
        ep_policy_reads(o, EP_POLICY_READ_HEADER, name);
        ep_lua_push_header(L, h, name);
        return 1;
    }
    check_settable(L, name);
    if (o->phase == EP_POLICY_EVENT)
        return luaL_error(L, "header: the head has gone before its events");
    if (name.n > 128)
        return luaL_error(L, "the name of a header has at most 128 bytes");
    char lower[128];
    for (size_t i = 0; i < name.n; i++)
        lower[i] = ep_lower(name.p[i]);
    name.p = lower;
    if (!o->shadow && o->phase == EP_POLICY_CALL)
        ep_stream_clear_route(o->s); /* which may go by it */
    if (lua_isnil(L, 3)) {
        if (!o->shadow)
            ep_headers_remove(h, name);
        return 0;
    }
    struct ep_str value = ep_lua_check_text(L, 3);
    if (!ep_header_value_valid(value))
        return luaL_error(L, "the value of '%s' has a control character", lua_tostring(L, 2));
    ep_lua_charge(L, value.n / 16 + 10); /* it is copied to where the allocator doesn't count */
    if (h->n >= EP_HEADERS_MAX_COUNT * 2)
        return luaL_error(L, "too many headers");
    if (!o->shadow)
        ep_headers_set(h, name, value);
    return 0;
}

static int tag(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    struct ep_str key = ep_lua_check_str(L, 2);

    luaL_checkany(L, 3);
    ep_lua_json_encode(L, 3);
    struct ep_str value = ep_lua_check_str(L, -1);
    if (key.n > 64 || value.n > 1024)
        return luaL_error(L, "a tag has a key of at most 64 bytes and a value of at most 1 KiB");
    ep_lua_charge(L, EP_TAGS_MAX / 4 + value.n / 16);
    if (!o->shadow && !ep_stream_tag(o->s, EP_STR("ephor.tags"), key, value))
        return luaL_error(L, "a stream has at most %d tags", (int)EP_TAGS_MAX);
    return 0;
}

static int say(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);

    luaL_tolstring(L, 2, NULL);
    ep_lua_charge(L, EP_LUA_LOG_COST);
    if (!o->foresee)
        ep_info("policy", "%.*s: %.512s", EP_STR_ARG(o->policy->name), lua_tostring(L, -1));
    return 0;
}

/* --- fields --- */

enum field {
    FIELD_ARGUMENTS = EP_POLICY_FIELD_COUNT,
    FIELD_PATH,
    FIELD_HEADERS,
    FIELD_REQUEST_HEADERS,
    FIELD_PEER,
    FIELD_ID,
    FIELD_ROUTE,
    FIELD_CLUSTER,
    FIELD_NOW,
    FIELD_VISIBLE,
    FIELD_BLIND,
    FIELD_VERSION,
    FIELD_NOTIFICATION,
    FIELD_BATCH,
    FIELD_STATUS,
    FIELD_POLICY_NAME,
    FIELD_BODY,
    FIELD_REQUEST_BODY,
    FIELD_IMPACT,
    FIELD_EVENT_FIRST, /* what only an event has */
    FIELD_TEXT = FIELD_EVENT_FIRST,
    FIELD_DELTA,
    FIELD_KIND,
    FIELD_INDEX,
    FIELD_CALLED,
    FIELD_NAME,
    FIELD_DATA,
    FIELD_JSON,
    FIELD_EVENT_ID,
    FIELD_MESSAGE, /* and on: enum ep_policy_message_field */
};

static const struct {
    const char *name;
    int field;
} fields[] = {
    {"protocol", EP_POLICY_PROTOCOL},
    {"method", EP_POLICY_METHOD},
    {"tool", EP_POLICY_TOOL},
    {"model", EP_POLICY_MODEL},
    {"agent", EP_POLICY_AGENT},
    {"task", EP_POLICY_TASK},
    {"session", EP_POLICY_SESSION},
    {"tenant", EP_POLICY_TENANT},
    {"service", EP_POLICY_SERVICE},
    {"uri", EP_POLICY_URI},
    {"prompt", EP_POLICY_PROMPT},
    {"body", FIELD_BODY},
    {"request_body", FIELD_REQUEST_BODY},
    {"priority", EP_POLICY_PRIORITY},
    {"impact", FIELD_IMPACT},
    {"user", EP_POLICY_USER},
    {"recipient", EP_POLICY_RECIPIENT},
#define X(id, name) {name, FIELD_MESSAGE + EP_POLICY_MESSAGE_##id},
    EP_POLICY_MESSAGE_FIELDS(X)
#undef X
    {"host", EP_POLICY_HOST},
    {"listener", EP_POLICY_LISTENER},
    {"direction", EP_POLICY_DIRECTION},
    {"arguments", FIELD_ARGUMENTS},
    {"path", FIELD_PATH},
    {"headers", FIELD_HEADERS},
    {"request_headers", FIELD_REQUEST_HEADERS},
    {"peer", FIELD_PEER},
    {"id", FIELD_ID},
    {"route", FIELD_ROUTE},
    {"cluster", FIELD_CLUSTER},
    {"now", FIELD_NOW},
    {"visible", FIELD_VISIBLE},
    {"blind", FIELD_BLIND},
    {"version", FIELD_VERSION},
    {"notification", FIELD_NOTIFICATION},
    {"batch", FIELD_BATCH},
    {"status", FIELD_STATUS},
    {"policy", FIELD_POLICY_NAME},
    {"text", FIELD_TEXT},
    {"delta", FIELD_DELTA},
    {"kind", FIELD_KIND},
    {"index", FIELD_INDEX},
    {"called", FIELD_CALLED},
    {"name", FIELD_NAME},
    {"data", FIELD_DATA},
    {"json", FIELD_JSON},
    {"event_id", FIELD_EVENT_ID},
};

bool ep_policy_field_of_event(struct ep_str name)
{
    for (size_t i = 0; i < EP_COUNT(fields); i++)
        if (ep_str_eq(name, ep_str(fields[i].name)))
            return fields[i].field >= FIELD_EVENT_FIRST && fields[i].field < FIELD_MESSAGE;
    return false;
}

static void push_arguments(lua_State *L, struct ep_policy_object *o)
{
    if (!o->decoded) {
        if (o->call->arguments.n)
            ep_lua_json_decode(L, o->call->arguments);
        else
            lua_pushnil(L);
        lua_setiuservalue(L, 1, VALUE_ARGUMENTS);
        o->decoded = true;
    }
    lua_getiuservalue(L, 1, VALUE_ARGUMENTS);
}

static void push_of_event(lua_State *L, struct ep_policy_object *o, int field)
{
    const struct ep_policy_event *e = o->phase == EP_POLICY_EVENT ? o->reply->event : NULL;

    if (!e)
        luaL_error(L, "only an event has that field");
    switch (field) {
    case FIELD_TEXT:
        ep_lua_push_or_nil(L, e->said);
        break;
    case FIELD_DELTA:
        ep_lua_push_or_nil(L, e->delta);
        break;
    case FIELD_KIND:
        lua_pushstring(L, e->text ? ep_text_kind_name(e->text->kind) : NULL);
        break;
    case FIELD_INDEX:
        lua_pushinteger(L, e->text ? (lua_Integer)e->text->index : 0);
        break;
    case FIELD_CALLED:
        ep_lua_push_or_nil(L, e->tool);
        break;
    case FIELD_NAME:
        ep_lua_push(L, e->event->name.n ? e->event->name : EP_STR("message"));
        break;
    case FIELD_DATA:
        ep_lua_push(L, e->event->data);
        break;
    case FIELD_JSON:
        ep_lua_json_decode(L, e->event->data);
        break;
    default:
        ep_lua_push_or_nil(L, e->event->id);
    }
}

static void push_other(lua_State *L, struct ep_policy_object *o, int field)
{
    static const char *const visible[] = {"full", "headers", "none"};
    const struct ep_call *c = o->call;
    const struct ep_route *route;

    switch (field) {
    case FIELD_ARGUMENTS:
        push_arguments(L, o);
        break;
    case FIELD_PATH:
        ep_lua_push_or_nil(L, ep_stream_path(o->s));
        break;
    case FIELD_HEADERS:
        lua_getiuservalue(L, 1, VALUE_HEADERS);
        break;
    case FIELD_REQUEST_HEADERS:
        lua_getiuservalue(L, 1, VALUE_REQUEST_HEADERS);
        break;
    case FIELD_PEER:
        lua_getiuservalue(L, 1, VALUE_PEER);
        break;
    case FIELD_ID:
        ep_lua_push_or_nil(L, c->id_text.n ? c->id_text : c->id_raw);
        break;
    case FIELD_ROUTE:
        route = ep_stream_route(o->s);
        ep_lua_push_or_nil(L, route ? route->name : (struct ep_str){NULL, 0});
        break;
    case FIELD_CLUSTER:
        route = ep_stream_route(o->s);
        ep_lua_push_or_nil(L, route ? route->config->cluster : (struct ep_str){NULL, 0});
        break;
    case FIELD_NOW:
        lua_pushnumber(L, (double)ep_lua_wall_ns(ep_lua_of(L)) / 1e9);
        break;
    case FIELD_VISIBLE:
        lua_pushstring(L, visible[c->visible]);
        break;
    case FIELD_BLIND:
        lua_pushstring(L, c->visible == EP_VISIBLE_FULL ? NULL : ep_blind_reason_name(c->blind));
        break;
    case FIELD_VERSION:
        ep_lua_push_or_nil(L, c->version);
        break;
    case FIELD_NOTIFICATION:
        lua_pushboolean(L, c->notification);
        break;
    case FIELD_BATCH:
        lua_pushboolean(L, c->batch);
        break;
    case FIELD_BODY:
        if (o->phase == EP_POLICY_REPLY && !o->reply->whole)
            luaL_error(L, "the body of a reply is there for policies with needs_reply = {'body'}");
        if (o->phase == EP_POLICY_EVENT)
            luaL_error(L, "an event has no body: it has data, and the call has a request_body");
        ep_lua_push_or_nil(L, o->phase == EP_POLICY_REPLY ? o->reply->body : c->body);
        break;
    case FIELD_IMPACT:
        lua_pushlstring(L, c->impact.n ? c->impact.p : "", c->impact.n);
        if (!lua_stringtonumber(L, lua_tostring(L, -1)))
            lua_pushnil(L);
        break;
    case FIELD_REQUEST_BODY:
        ep_lua_push_or_nil(L, c->body);
        break;
    case FIELD_STATUS:
        if (o->phase == EP_POLICY_CALL)
            luaL_error(L, "a call has no status; only a reply has");
        lua_pushinteger(L, (lua_Integer)o->s->status);
        break;
    case FIELD_POLICY_NAME:
        ep_lua_push(L, o->policy->name);
        break;
    default:
        push_of_event(L, o, field);
    }
}

/* The table of fields and methods is upvalue 1. */
static int object_index(lua_State *L)
{
    struct ep_policy_object *o = lua_touserdata(L, 1);

    if (EP_UNLIKELY(!o->s))
        return luaL_error(L, "object used outside of proper scope");
    lua_pushvalue(L, 2);
    int type = lua_rawget(L, lua_upvalueindex(1));
    if (type == LUA_TFUNCTION)
        return 1;
    if (EP_UNLIKELY(type == LUA_TNIL)) {
        const char *names[EP_COUNT(fields)];
        ep_lua_charge(L, EP_LUA_HOOK_EVERY); /* the search for the nearest name takes that long */
        for (size_t i = 0; i < EP_COUNT(fields); i++)
            names[i] = fields[i].name;
        struct ep_str given = EP_STR("?");
        if (lua_type(L, 2) == LUA_TSTRING)
            given = ep_lua_check_str(L, 2);
        const char *near = ep_nearest(given, names, EP_COUNT(names));
        return luaL_error(L, "a call has no field '%s'%s%s%s", given.p, near ? "; did you mean '" : "",
                          near ? near : "", near ? "'?" : "");
    }
    if (EP_UNLIKELY(o->on_read != NULL))
        o->on_read(o, EP_POLICY_READ_FIELD, ep_lua_check_str(L, 2));
    int field = (int)lua_tointeger(L, -1);
    if (field < EP_POLICY_FIELD_COUNT)
        ep_lua_push_or_nil(L, ep_policy_field_value((enum ep_policy_field)field, o->s, o->call));
    else if (field < FIELD_MESSAGE)
        push_other(L, o, field);
    else
        ep_policy_push_message_field(L, o, (enum ep_policy_message_field)(field - FIELD_MESSAGE));
    return 1;
}

static int read_only(lua_State *L)
{
    return luaL_error(L, "this can't be changed by assignment");
}

/* --- headers and peer --- */

static struct proxy *check_proxy(lua_State *L)
{
    struct proxy *p = lua_touserdata(L, 1);

    if (!p->o->s)
        luaL_error(L, "object used outside of proper scope");
    return p;
}

/* … of another message than the one that is judged. */
static bool of_request(const struct proxy *p)
{
    return p->request && p->o->phase != EP_POLICY_CALL;
}

static int headers_index(lua_State *L)
{
    struct proxy *p = check_proxy(L);
    struct ep_str name = ep_lua_check_str(L, 2);

    ep_policy_reads(p->o, of_request(p) ? EP_POLICY_READ_REQUEST_HEADER : EP_POLICY_READ_HEADER, name);
    ep_lua_push_header(L, table_of(p), name);
    return 1;
}

static int headers_length(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)table_of(check_proxy(L))->n);
    return 1;
}

/* Upvalue 1: the proxy, 2: the next index. */
static int headers_next(lua_State *L)
{
    struct proxy *p = lua_touserdata(L, lua_upvalueindex(1));
    uint32_t i = (uint32_t)lua_tointeger(L, lua_upvalueindex(2));

    if (!p->o->s)
        return luaL_error(L, "object used outside of proper scope");
    const struct ep_headers *h = table_of(p);
    if (i >= h->n)
        return 0;
    lua_pushinteger(L, (lua_Integer)i + 1);
    lua_replace(L, lua_upvalueindex(2));
    ep_lua_push(L, h->v[i].name);
    ep_lua_push(L, h->v[i].value);
    return 2;
}

static int headers_pairs(lua_State *L)
{
    const struct proxy *p = check_proxy(L);

    ep_policy_reads(p->o, of_request(p) ? EP_POLICY_READ_REQUEST_HEADERS : EP_POLICY_READ_HEADERS, EP_STR("headers"));
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, headers_next, 2);
    return 1;
}

static int peer_index(lua_State *L)
{
    struct proxy *p = check_proxy(L);
    struct ep_str key = ep_lua_check_str(L, 2);

    if (!ep_str_eq(key, EP_STR("id")))
        return luaL_error(L, "a peer has no field '%s', only 'id'", key.p);
    ep_lua_push(L, p->o->s->peer_id); /* "" when nobody's identity was verified, so that :find() works */
    return 1;
}

/* --- making it --- */

static void add_proxy(lua_State *L, int object, int value, const char *class, bool request)
{
    struct proxy *p = lua_newuserdatauv(L, sizeof *p, 0);

    p->o = lua_touserdata(L, object);
    p->request = request;
    luaL_setmetatable(L, class);
    lua_setiuservalue(L, object, value);
}

void ep_policy_object_open(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"deny", deny},
        {"allow", allow},
        {"header", header},
        {"tag", tag},
        {"log", say},
        {"redact", ep_policy_redact_action},
        {"route_to", ep_policy_route_to},
        {"delay", ep_policy_delay},
        {"http", ep_policy_http},
        {"meter", ep_policy_meter},
        {"remember", ep_policy_remember},
        {"recall", ep_policy_recall},
        {"count", ep_policy_count},
        {NULL, NULL},
    };
    static const luaL_Reg headers_meta[] = {
        {"__index", headers_index},
        {"__len", headers_length},
        {"__pairs", headers_pairs},
        {"__newindex", read_only},
        {NULL, NULL},
    };
    static const luaL_Reg peer_meta[] = {{"__index", peer_index}, {"__newindex", read_only}, {NULL, NULL}};
    static const luaL_Reg object_meta[] = {{"__newindex", read_only}, {NULL, NULL}};
    struct ep_lua *l = ep_lua_of(L);

    ep_lua_class(L, "ephor.policy.object", NULL, object_meta);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    for (size_t i = 0; i < EP_COUNT(fields); i++) {
        lua_pushinteger(L, fields[i].field);
        lua_setfield(L, -2, fields[i].name);
    }
    lua_pushcclosure(L, object_index, 1);
    lua_setfield(L, -2, "__index");
    ep_lua_class(L, "ephor.policy.headers", NULL, headers_meta);
    ep_lua_class(L, "ephor.policy.peer", NULL, peer_meta);
    lua_settop(L, 0);
    l->object = ep_policy_object_take(l);
}

/* With what it shows: headers and peer. In protected mode or out of it, where only a lack of memory could raise. */
static struct ep_policy_object *object_new(lua_State *L)
{
    struct ep_policy_object *o = lua_newuserdatauv(L, sizeof *o, VALUES);
    int object = lua_gettop(L);

    memset(o, 0, sizeof *o);
    luaL_setmetatable(L, "ephor.policy.object");
    add_proxy(L, object, VALUE_HEADERS, "ephor.policy.headers", false);
    add_proxy(L, object, VALUE_REQUEST_HEADERS, "ephor.policy.headers", true);
    add_proxy(L, object, VALUE_PEER, "ephor.policy.peer", false);
    o->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    ep_list_init(&o->node);
    return o;
}

struct ep_policy_object *ep_policy_object_take(struct ep_lua *l)
{
    struct ep_list *idle = ep_list_pop(&l->idle_objects);

    if (!idle)
        return object_new(l->L);
    l->n_idle_objects--;
    return EP_CONTAINER(idle, struct ep_policy_object, node);
}

void ep_policy_object_give(struct ep_lua *l, struct ep_policy_object *o)
{
    if (l->n_idle_objects == EP_LUA_IDLE_THREADS) {
        luaL_unref(l->L, LUA_REGISTRYINDEX, o->ref);
        return;
    }
    l->n_idle_objects++;
    ep_list_push_front(&l->idle_objects, &o->node);
}

void ep_policy_object_clear(struct ep_policy_object *o, lua_State *L)
{
    o->s = NULL;
    if (!o->decoded)
        return;
    o->decoded = false; /* lets the table of arguments go */
    lua_rawgeti(L, LUA_REGISTRYINDEX, o->ref);
    lua_pushnil(L);
    lua_setiuservalue(L, -2, VALUE_ARGUMENTS);
    lua_pop(L, 1);
}

int ep_policy_native(lua_State *L)
{
    lua_newtable(L);
    lua_pushcfunction(L, ep_policy_define);
    lua_setfield(L, -2, "policy");
    ep_lua_json_native(L);
    lua_setfield(L, -2, "json");
    ep_lua_crypto_native(L);
    lua_setfield(L, -2, "crypto");
    ep_lua_text_native(L);
    lua_setfield(L, -2, "text");
    if (ep_lua_of(L)->test) {
        ep_lua_of(L)->test_native(L);
        lua_setfield(L, -2, "test");
    }
    return 1;
}
