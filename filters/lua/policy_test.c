/* `ephor test DIR`: runs the *_test.lua beside the policies and says what came out in TAP.
 *
 * The policies are loaded as in the proxy, and judged by the same code (judge.c); only the stream is made up, out of
 * the table that a test gives to t.call. Each test file has an environment of its own. */
#include "lua/policy_test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "filter/chain.h"
#include "lua/object.h"

static const struct ep_lua_budget test_budget = {2000000000, 512 << 20, 60 * EP_S};

struct tests {
    struct ep_policy_set *set;
    struct ep_worker *worker;
    const char *directory;
    unsigned n, failed;
};

/* --- a stream made of a table --- */

static struct ep_str text(lua_State *L, int table, const char *key, struct ep_arena *arena)
{
    struct ep_str s = {NULL, 0};
    int type = lua_getfield(L, table, key);

    if (type == LUA_TTABLE && strcmp(key, "arguments") == 0) {
        ep_lua_json_encode(L, -1);
        lua_remove(L, -2);
        type = LUA_TSTRING;
    }
    if (type == LUA_TSTRING || type == LUA_TNUMBER)
        s = ep_arena_str(arena, ep_lua_check_text(L, lua_gettop(L)));
    else if (type != LUA_TNIL)
        luaL_error(L, "%s must be a string, not a %s", key, luaL_typename(L, -1));
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

static void read_headers(lua_State *L, int table, struct ep_headers *h)
{
    if (lua_getfield(L, table, "headers") == LUA_TTABLE) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            struct ep_str name = ep_lua_check_str(L, -2);
            size_t n = lua_type(L, -1) == LUA_TTABLE ? lua_rawlen(L, -1) : 0;
            for (size_t i = 1; i <= n; i++) {
                lua_rawgeti(L, -1, (lua_Integer)i);
                ep_headers_add(h, name, ep_lua_check_str(L, -1));
                lua_pop(L, 1);
            }
            if (lua_type(L, -1) != LUA_TTABLE)
                ep_headers_add(h, name, ep_lua_check_text(L, lua_gettop(L)));
        }
    }
    lua_pop(L, 1);
}

static void read_visible(lua_State *L, int table, struct ep_call *c, struct ep_arena *arena)
{
    struct ep_str visible = text(L, table, "visible", arena), blind = text(L, table, "blind", arena);

    if (ep_str_eq(visible, EP_STR("headers")))
        c->visible = EP_VISIBLE_HEADERS;
    else if (ep_str_eq(visible, EP_STR("none")))
        c->visible = EP_VISIBLE_NONE;
    else if (visible.n && !ep_str_eq(visible, EP_STR("full")))
        luaL_error(L, "visible is 'full', 'headers' or 'none', not '%s'", visible.p);
    for (int r = EP_BLIND_NOT; r < EP_BLIND_REASONS; r++)
        if (blind.n && ep_str_eq(blind, ep_str(ep_blind_reason_name((enum ep_blind_reason)r))))
            c->blind = (enum ep_blind_reason)r;
}

static void read_call(lua_State *L, int table, struct ep_call *c, struct ep_arena *arena)
{
    c->protocol = text(L, table, "protocol", arena);
    c->version = text(L, table, "version", arena);
    c->method = text(L, table, "method", arena);
    c->service = text(L, table, "service", arena);
    c->tool = text(L, table, "tool", arena);
    c->uri = text(L, table, "uri", arena);
    c->prompt_name = text(L, table, "prompt", arena);
    c->model = text(L, table, "model", arena);
    c->agent = text(L, table, "agent", arena);
    c->task = text(L, table, "task", arena);
    c->session = text(L, table, "session", arena);
    c->tenant = text(L, table, "tenant", arena);
    c->id_text = text(L, table, "id", arena);
    c->arguments = text(L, table, "arguments", arena);
    c->body = text(L, table, "body", arena);
    c->notification = flag(L, table, "notification");
    read_visible(L, table, c, arena);
}

static void read_batch(lua_State *L, int table, struct ep_call *c, struct ep_arena *arena)
{
    if (lua_getfield(L, table, "batch") == LUA_TTABLE) {
        size_t n = lua_rawlen(L, -1);
        c->batch = true;
        for (size_t i = 1; i <= n; i++) {
            lua_rawgeti(L, -1, (lua_Integer)i);
            luaL_checktype(L, -1, LUA_TTABLE);
            c->next = EP_ARENA_NEW(arena, struct ep_call);
            c = c->next;
            c->batch = true;
            read_call(L, lua_gettop(L), c, arena);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

static void check_fields(lua_State *L, int table)
{
    static const char *const known[] = {
        "protocol", "version",     "method", "service",   "tool",   "uri",          "prompt",
        "model",    "agent",       "task",   "session",   "tenant", "id",           "body",
        "headers",  "arguments",   "path",   "host",      "peer",   "call",         "listener",
        "visible",  "http_method", "blind",  "direction", "batch",  "notification", "status",
    };

    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        struct ep_str key = ep_lua_check_str(L, -2);
        bool found = false;
        for (size_t i = 0; i < EP_COUNT(known); i++)
            found |= ep_str_eq(key, ep_str(known[i]));
        const char *near = found ? NULL : ep_nearest(key, known, EP_COUNT(known));
        if (!found)
            luaL_error(L, "a call has no field '%s'%s%s%s", key.p, near ? "; did you mean '" : "", near ? near : "",
                       near ? "'?" : "");
    }
}

static struct ep_str or_else(struct ep_str s, struct ep_str preset)
{
    return s.n ? s : preset;
}

/* The stream is a userdata, so that an error of the test lets it go; its arena is let go by __gc. */
struct fake {
    struct ep_stream s;
    struct ep_chain chain;
    struct ep_listener_config listener;
};

static int fake_gc(lua_State *L)
{
    struct fake *f = lua_touserdata(L, 1);

    ep_headers_fini(&f->s.request.headers);
    ep_headers_fini(&f->s.response.headers);
    ep_arena_fini(&f->s.arena);
    return 0;
}

static struct fake *fake_new(lua_State *L, struct tests *t)
{
    struct fake *f = lua_newuserdatauv(L, sizeof *f, 0);

    memset(f, 0, sizeof *f);
    f->s.worker = t->worker;
    f->s.chain = &f->chain;
    f->chain.config = &f->listener;
    f->s.route_known = true;
    ep_arena_init(&f->s.arena, &t->worker->chunks);
    ep_headers_init(&f->s.request.headers, &f->s.arena);
    ep_headers_init(&f->s.response.headers, &f->s.arena);
    if (luaL_newmetatable(L, "ephor.test.stream")) {
        lua_pushcfunction(L, fake_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return f;
}

static void read_request(lua_State *L, int table, struct fake *f)
{
    struct ep_arena *arena = &f->s.arena;
    struct ep_headers *h = &f->s.request.headers;

    luaL_checktype(L, table, LUA_TTABLE);
    check_fields(L, table);
    ep_headers_add_id(h, EP_HDR_METHOD, or_else(text(L, table, "http_method", arena), EP_STR("POST")));
    ep_headers_add_id(h, EP_HDR_AUTHORITY, or_else(text(L, table, "host", arena), EP_STR("localhost")));
    ep_headers_add_id(h, EP_HDR_PATH, or_else(text(L, table, "path", arena), EP_STR("/")));
    read_headers(L, table, h);
    read_call(L, table, &f->s.call, arena);
    read_batch(L, table, &f->s.call, arena);
    f->listener.name = or_else(text(L, table, "listener", arena), EP_STR("inbound"));
    f->s.direction = ep_str_eq(text(L, table, "direction", arena), EP_STR("outbound")) ? EP_OUTBOUND : EP_INBOUND;
    f->chain.direction = f->s.direction;
    if (lua_getfield(L, table, "peer") == LUA_TTABLE)
        f->s.peer_id = text(L, lua_gettop(L), "id", arena);
    lua_pop(L, 1);
}

/* --- judging it --- */

static void set_text(lua_State *L, const char *key, struct ep_str s)
{
    if (!s.n)
        return;
    ep_lua_push(L, s);
    lua_setfield(L, -2, key);
}

static void push_decision(lua_State *L, const struct fake *f, const struct ep_policy *p,
                          const struct ep_policy_verdict *v, bool matched, const struct ep_headers *h)
{
    lua_newtable(L);
    lua_pushboolean(L, v->refuse);
    lua_setfield(L, -2, "denied");
    lua_pushboolean(L, matched);
    lua_setfield(L, -2, "matched");
    lua_pushboolean(L, v->blind);
    lua_setfield(L, -2, "blind");
    set_text(L, "decision", ep_str(ep_policy_decision_name(v->decision)));
    if (p) {
        set_text(L, "policy", p->name);
        set_text(L, "principle", p->principle);
    }
    set_text(L, "reason", v->reason);
    set_text(L, "code", ep_str(v->code));
    set_text(L, "error", v->error);
    if (v->status) {
        lua_pushinteger(L, (lua_Integer)v->status);
        lua_setfield(L, -2, "status");
    }
    lua_newtable(L);
    for (uint32_t i = 0; i < h->n; i++) {
        ep_lua_push(L, h->v[i].name);
        ep_lua_push_header(L, h, h->v[i].name);
        lua_rawset(L, -3);
    }
    lua_setfield(L, -2, "headers");
    lua_newtable(L);
    for (const struct ep_tag *t = f->s.tags; t; t = t->next) {
        ep_lua_push(L, t->key);
        ep_lua_json_decode(L, t->value);
        lua_rawset(L, -3);
    }
    lua_setfield(L, -2, "tags");
}

static const struct ep_policy *named(lua_State *L, const struct tests *t, int index)
{
    if (lua_isnoneornil(L, index))
        return NULL;
    struct ep_str name = ep_lua_check_str(L, index);
    for (unsigned i = 0; i < t->set->n; i++)
        if (ep_str_eq(t->set->v[i]->name, name))
            return t->set->v[i];
    luaL_error(L, "there is no policy '%s' in %s", name.p, t->directory);
    return NULL;
}

/* All policies, or the one named, until one refuses. What is worth most to see is reported: a refusal, else the last
 * that matched. */
static void judge(lua_State *L, struct tests *t, struct fake *f, const struct ep_policy *only,
                  enum ep_policy_phase phase)
{
    struct ep_policy_verdict best = {.decision = EP_POLICY_ALLOW}, v;
    const struct ep_policy *by = NULL;
    bool matched = false;

    for (unsigned i = 0; i < t->set->n && !best.refuse; i++) {
        struct ep_policy *p = t->set->v[i];
        if (only && p != only)
            continue;
        if (phase == EP_POLICY_REPLY && p->reply_ref == LUA_NOREF)
            continue;
        for (const struct ep_call *c = &f->s.call; c && !best.refuse; c = c->next) {
            uint64_t now = ep_clock_ns();
            ep_policy_judge(t->set, p, &f->s, c, phase, &now, &v);
            matched |= v.matched;
            if (v.matched || phase == EP_POLICY_REPLY) {
                best = v;
                by = p;
            }
            if (phase == EP_POLICY_REPLY)
                break;
        }
    }
    push_decision(L, f, by, &best, matched, phase == EP_POLICY_CALL ? &f->s.request.headers : &f->s.response.headers);
}

static int test_call(lua_State *L)
{
    struct tests *t = ep_lua_of(L)->test;
    const struct ep_policy *only = named(L, t, 2);
    struct fake *f = fake_new(L, t);

    read_request(L, 1, f);
    judge(L, t, f, only, EP_POLICY_CALL);
    return 1;
}

static int test_reply(lua_State *L)
{
    struct tests *t = ep_lua_of(L)->test;
    const struct ep_policy *only = named(L, t, 2);
    struct fake *f = fake_new(L, t);

    luaL_checktype(L, 1, LUA_TTABLE);
    check_fields(L, 1);
    if (lua_getfield(L, 1, "call") == LUA_TTABLE)
        read_request(L, lua_gettop(L), f);
    lua_getfield(L, 1, "status");
    f->s.status = (unsigned)luaL_optinteger(L, -1, 200);
    ep_headers_add_id(&f->s.response.headers, EP_HDR_STATUS, ep_arena_printf(&f->s.arena, "%u", f->s.status));
    read_headers(L, 1, &f->s.response.headers);
    judge(L, t, f, only, EP_POLICY_REPLY);
    return 1;
}

static int test_find(lua_State *L)
{
    luaL_checkstring(L, 1);
    named(L, ep_lua_of(L)->test, 1);
    return 0;
}

int ep_policy_test_native(lua_State *L)
{
    static const luaL_Reg functions[] = {{"call", test_call}, {"reply", test_reply}, {"find", test_find}, {NULL, NULL}};

    luaL_newlib(L, functions);
    return 1;
}

/* --- TAP --- */

/* tell(number, name, error or nil) */
static int tell(lua_State *L)
{
    const char *error = luaL_optstring(L, 3, NULL);

    printf("%sok %d - %s\n", error ? "not " : "", (int)luaL_checkinteger(L, 1), luaL_checkstring(L, 2));
    for (const char *line = error; line && *line;) {
        size_t n = strcspn(line, "\n");
        printf("# %.*s\n", (int)n, line);
        line += n + (line[n] == '\n');
    }
    return 0;
}

/* Arguments: the name of the file. Results: how many cases, how many failed. */
static int run_file(lua_State *L)
{
    struct tests *t = ep_lua_of(L)->test;
    const char *file = lua_touserdata(L, 1);

    ep_lua_env_push(L, EP_LUA_POLICY, t->directory);
    lua_pushfstring(L, "%s/%s", t->directory, file);
    ep_lua_read_file(L, lua_tostring(L, -1));
    lua_pushfstring(L, "@%s", file);
    ep_lua_compile(L, ep_lua_check_str(L, -2), lua_tostring(L, -1), 2);
    lua_call(L, 0, 0);
    lua_getfield(L, 2, "require");
    lua_pushliteral(L, "ephor.test");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "run");
    lua_pushcfunction(L, tell);
    lua_pushinteger(L, (lua_Integer)t->n);
    lua_call(L, 2, 2);
    return 2;
}

static void run_tests(struct tests *t, const char *file)
{
    struct ep_lua *l = t->set->lua;
    struct ep_lua_thread thread = ep_lua_thread_take(l); /* the policies have the other one */

    printf("# %s\n", file);
    lua_pushcfunction(thread.L, run_file);
    lua_pushlightuserdata(thread.L, (void *)(uintptr_t)file);
    if (ep_lua_call(l, thread.L, 1, 2, &test_budget, ep_clock_ns()) == EP_LUA_OK) {
        t->n += (unsigned)lua_tointeger(thread.L, -2);
        t->failed += (unsigned)lua_tointeger(thread.L, -1);
    } else {
        struct ep_str e = ep_lua_error(thread.L);
        t->n++;
        t->failed++;
        printf("not ok %u - %s\n# %.*s\n", t->n, file, EP_STR_ARG(e));
    }
    ep_lua_thread_give(l, thread, false);
}

static int select_test(const struct dirent *d)
{
    return d->d_name[0] != '.' && ep_str_ends(ep_str(d->d_name), EP_STR("_test.lua"));
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int run_directory(struct ep_worker *w, const char *directory)
{
    struct ep_policies_config config = {.directory = ep_str(directory)};
    struct tests t = {.worker = w, .directory = directory};
    struct dirent **files = NULL;
    struct ep_error err;

    t.set = ep_policy_set_ref(w, NULL, &config, &err);
    if (!t.set) {
        printf("TAP version 13\n1..1\nnot ok 1 - the policies load\n# %s\n", err.text);
        return 1;
    }
    t.set->lua->test = &t;
    int n = scandir(directory, &files, select_test, by_name);
    printf("TAP version 13\n");
    for (int i = 0; i < n; i++) {
        run_tests(&t, files[i]->d_name);
        free(files[i]);
    }
    free(files);
    printf("1..%u\n", t.n);
    printf("# %u policies, %u tests, %u failed\n", t.set->n, t.n, t.failed);
    t.set->lua->test = NULL;
    ep_policy_set_unref(t.set);
    return t.failed || n < 0 ? 1 : 0;
}

int ep_policy_test_main(int argc, char **argv)
{
    struct ep_worker *w;
    int rc;

    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        printf("usage: ephor test DIR\n\nRuns the *_test.lua beside the policies in DIR and prints TAP.\n"
               "Exit codes: 0 all tests pass, 1 a test fails or a policy doesn't load, 2 wrong usage.\n");
        return 0;
    }
    if (argc != 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: ephor test DIR\n");
        return 2;
    }
    w = ep_calloc(1, sizeof *w);
    ep_chunk_pool_init(&w->chunks, 64);
    ep_rng_seed_random(&w->rng);
    rc = run_directory(w, argv[1]);
    ep_chunk_pool_fini(&w->chunks);
    free(w);
    return rc;
}
