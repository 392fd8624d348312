/* Making policies: `policy {...}` checks what a file says and compiles its `match`; a directory becomes a set.
 *
 * Whatever is wrong is said with file and line, and the set isn't made: the configuration is refused and the old one
 * stays. */
#include "lua/policy.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "filter/chain.h"
#include "lua/bundle.h"
#include "lua/object.h"
#include "lua/possible.h"
#include "lua/record.h"

#define CLASS "ephor.policy"

const char *ep_policy_field_name(enum ep_policy_field f)
{
    static const char *const names[] = {
#define X(id, name, of_call) name,
        EP_POLICY_FIELDS(X)
#undef X
    };
    return names[f];
}

const char *ep_policy_decision_name(enum ep_policy_decision d)
{
    static const char *const names[] = {"allow", "deny", "shadow_deny", "error", "overrun"};
    return names[d];
}

/* --- checking what `policy {...}` was given --- */

static int bad(lua_State *L, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int bad(lua_State *L, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    luaL_where(L, 1); /* the file that calls policy {...}; this is a C function, so also when it returns the call */
    lua_pushstring(L, text);
    lua_concat(L, 2);
    return lua_error(L);
}

/* "; did you mean 'tool'?" or nothing. */
static const char *hint(struct ep_str given, const char *const *names, size_t n, char out[96])
{
    const char *near = ep_nearest(given, names, n);

    snprintf(out, 96, near ? "; did you mean '%s'?" : "%s", near ? near : "");
    return out;
}

static const char *const keys[] = {"name", "principle", "description", "match",       "mode",           "blind",
                                   "needs", "call",     "reply",       "needs_reply", "enforce_percent", "event"};
static const char *const modes[] = {"enforce", "shadow", "off"};
static const char *const blinds[] = {"deny", "allow", "shadow"};

static void check_keys(lua_State *L)
{
    char near[96];

    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            bad(L, "policy: keys are names, not a %s", luaL_typename(L, -2));
        struct ep_str key = ep_lua_check_str(L, -2);
        bool known = false;
        for (size_t i = 0; i < EP_COUNT(keys); i++)
            known |= ep_str_eq(key, ep_str(keys[i]));
        if (!known)
            bad(L, "policy: there is no key '%.64s'%s", key.p, hint(key, keys, EP_COUNT(keys), near));
    }
}

/* A string of the table, copied into the arena; empty when absent. */
static struct ep_str text_of(lua_State *L, struct ep_policy_set *set, const char *key, size_t max)
{
    struct ep_str s = {NULL, 0};

    if (lua_getfield(L, 1, key) != LUA_TNIL) {
        if (lua_type(L, -1) != LUA_TSTRING)
            bad(L, "policy: %s must be a string, not a %s", key, luaL_typename(L, -1));
        s = ep_lua_check_str(L, -1);
        if (s.n == 0 || s.n > max)
            bad(L, "policy: %s must have 1 to %zu bytes", key, max);
        s = ep_arena_str(&set->arena, s);
    }
    lua_pop(L, 1);
    return s;
}

static int choice(lua_State *L, const char *key, const char *const *names, size_t n, int preset)
{
    int chosen = preset;
    char near[96];

    if (lua_getfield(L, 1, key) != LUA_TNIL) {
        struct ep_str s = {"", 0};
        if (lua_type(L, -1) != LUA_TSTRING)
            bad(L, "policy: %s must be a string, not a %s", key, luaL_typename(L, -1));
        s = ep_lua_check_str(L, -1);
        chosen = -1;
        for (size_t i = 0; i < n; i++)
            if (ep_str_eq(s, ep_str(names[i])))
                chosen = (int)i;
        if (chosen < 0)
            bad(L, "policy: %s can't be '%.64s'%s", key, s.p, hint(s, names, n, near));
    }
    lua_pop(L, 1);
    return chosen;
}

static int function_of(lua_State *L, const char *key)
{
    int type = lua_getfield(L, 1, key);

    if (type != LUA_TNIL && type != LUA_TFUNCTION)
        bad(L, "policy: %s must be a function, not a %s", key, luaL_typename(L, -1));
    if (type == LUA_TFUNCTION)
        return luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);
    return LUA_NOREF;
}

/* The field that the string at `index` names, out of those of which `needs` or `match` may speak. */
static enum ep_policy_field field_of(lua_State *L, int index, const char *where, unsigned n_fields_off)
{
    const char *names[EP_POLICY_FIELD_COUNT];
    size_t n = 0;
    char near[96];

    if (lua_type(L, index) != LUA_TSTRING)
        bad(L, "policy: %s names fields by strings, not by a %s", where, luaL_typename(L, index));
    struct ep_str s = ep_lua_check_str(L, index);
    for (unsigned f = 0; f < EP_POLICY_FIELD_COUNT; f++) {
        if (n_fields_off & (1u << f))
            continue;
        names[n++] = ep_policy_field_name((enum ep_policy_field)f);
        if (ep_str_eq(s, ep_str(names[n - 1])))
            return (enum ep_policy_field)f;
    }
    bad(L, "policy: %s has no field '%.64s'%s", where, s.p, hint(s, names, n, near));
    return EP_POLICY_PROTOCOL;
}

static void add_pattern(lua_State *L, struct ep_policy_set *set, struct ep_policy_rule *r, const char *field)
{
    if (lua_type(L, -1) != LUA_TSTRING)
        bad(L, "policy: match.%s must be a string or a list of strings, not a %s", field, luaL_typename(L, -1));
    struct ep_str s = ep_lua_check_str(L, -1);
    if (s.n == 0 || s.n > 256)
        bad(L, "policy: a pattern of match.%s must have 1 to 256 bytes", field);
    s = ep_arena_str(&set->arena, s);
    for (size_t i = 0; r->field == EP_POLICY_HOST && i < s.n; i++)
        ((char *)(uintptr_t)s.p)[i] = ep_lower(s.p[i]); /* our own copy */
    r->v[r->n++] = (struct ep_policy_pattern){.text = s, .glob = memchr(s.p, '*', s.n) || memchr(s.p, '?', s.n)};
}

static void read_match(lua_State *L, struct ep_policy_set *set, struct ep_policy *p)
{
    const unsigned off = 1u << EP_POLICY_ARGUMENTS | 1u << EP_POLICY_BODY | 1u << EP_POLICY_IMPACT; /* those are for Lua */
    int type = lua_getfield(L, 1, "match"), match = lua_gettop(L);

    if (type == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    if (type != LUA_TTABLE)
        bad(L, "policy: match must be a table, not a %s", luaL_typename(L, match));
    p->rules = ep_arena_zalloc(&set->arena, EP_POLICY_FIELD_COUNT * sizeof *p->rules);
    for (lua_pushnil(L); lua_next(L, match); lua_pop(L, 1)) {
        struct ep_policy_rule *r = &p->rules[p->n_rules++];
        r->field = field_of(L, -2, "match", off);
        const char *name = ep_policy_field_name(r->field);
        size_t n = lua_type(L, -1) == LUA_TTABLE ? lua_rawlen(L, -1) : 1;
        if (n == 0 || n > 1000)
            bad(L, "policy: match.%s must name 1 to 1000 patterns", name);
        r->v = ep_arena_zalloc(&set->arena, n * sizeof *r->v);
        if (lua_type(L, -1) != LUA_TTABLE) {
            add_pattern(L, set, r, name);
            continue;
        }
        for (size_t i = 1; i <= n; i++) {
            lua_rawgeti(L, -1, (lua_Integer)i);
            add_pattern(L, set, r, name);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

static void read_needs(lua_State *L, struct ep_policy *p)
{
    int type = lua_getfield(L, 1, "needs");

    if (type != LUA_TNIL && type != LUA_TTABLE)
        bad(L, "policy: needs must be a list of fields, not a %s", luaL_typename(L, -1));
    size_t n = type == LUA_TTABLE ? lua_rawlen(L, -1) : 0;
    for (size_t i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i);
        p->needs |= 1u << field_of(L, -1, "needs", 0);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

static void read_needs_reply(lua_State *L, struct ep_policy *p)
{
    int type = lua_getfield(L, 1, "needs_reply");

    if (type != LUA_TNIL && type != LUA_TTABLE)
        bad(L, "policy: needs_reply must be a list of fields, not a %s", luaL_typename(L, -1));
    size_t n = type == LUA_TTABLE ? lua_rawlen(L, -1) : 0;
    for (size_t i = 1; i <= n; i++) {
        if (lua_rawgeti(L, -1, (lua_Integer)i) != LUA_TSTRING || strcmp(lua_tostring(L, -1), "body") != 0)
            bad(L, "policy: needs_reply knows 'body' only");
        p->needs_reply_body = true;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    if (p->needs_reply_body && p->reply_ref == LUA_NOREF)
        bad(L, "policy: needs_reply is for policies with a reply");
}

static double read_enforced(lua_State *L)
{
    double share = 1.0;

    if (lua_getfield(L, 1, "enforce_percent") != LUA_TNIL) {
        if (lua_type(L, -1) != LUA_TNUMBER || !(lua_tonumber(L, -1) >= 0.01 && lua_tonumber(L, -1) <= 100))
            bad(L, "policy: enforce_percent must be a number from 0.01 to 100; for none there is mode = 'shadow'");
        share = lua_tonumber(L, -1) / 100;
    }
    lua_pop(L, 1);
    return share;
}

static void check_name(lua_State *L, struct ep_str name)
{
    if (!name.n)
        bad(L, "policy: name is missing");
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i], l = ep_lower(c);
        if (!((l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || memchr("._-", c, 3)))
            bad(L, "policy: name '%s' may have letters, digits, '.', '_' and '-' only", name.p);
    }
}

/* The table of what an object has is upvalue 1 of its __index. */
static bool object_has(void *user, struct ep_str field)
{
    lua_State *L = user;

    lua_pushlstring(L, field.p, field.n);
    bool has = lua_rawget(L, -2) != LUA_TNIL;
    lua_pop(L, 1);
    return has;
}

static bool call_has(void *user, struct ep_str field)
{
    return object_has(user, field) && !ep_policy_field_of_event(field) && !ep_str_eq(field, EP_STR("status"));
}

static bool reply_has(void *user, struct ep_str field)
{
    return object_has(user, field) && !ep_policy_field_of_event(field);
}

/* A slip of the pen in what the function reads of its object is found here, not by the first call that gets there. */
static void check_reads(lua_State *L, const struct ep_policy_set *set, int function, const char *key)
{
    struct ep_policy_slip r;
    lua_Debug ar;

    if (function == LUA_NOREF)
        return;
    lua_rawgeti(L, LUA_REGISTRYINDEX, function);
    lua_getinfo(L, ">S", &ar);
    if (ar.what[0] != 'L' || ar.source[0] != '@' || strcmp(ar.source + 1, set->file) != 0)
        return; /* of a library */
    luaL_getmetatable(L, "ephor.policy.object");
    lua_getfield(L, -1, "__index");
    lua_getupvalue(L, -1, 1);
    if (!ep_policy_slips(set->text, ar.linedefined, key, key[0] == 'c' ? call_has : key[0] == 'r' ? reply_has : object_has, L,
                         &r)) {
        char near[96], text[512];
        const char *names[128];
        size_t n = 0;
        for (lua_pushnil(L); n < EP_COUNT(names) && lua_next(L, -2); lua_pop(L, 1))
            names[n++] = lua_tostring(L, -2);
        snprintf(text, sizeof text, "%s:%d: policy: %s reads %.*s.%.*s, and a %s has no '%.*s'%s", set->file, r.line, key,
                 EP_STR_ARG(r.object), EP_STR_ARG(r.field), key, EP_STR_ARG(r.field),
                 ep_str_eq(r.field, EP_STR("status"))  ? "; only a reply has"
                 : ep_policy_field_of_event(r.field) ? "; only an event has"
                                                     : hint(r.field, names, n, near));
        lua_pushstring(L, text);
        lua_error(L);
    }
    lua_pop(L, 3);
}

int ep_policy_define(lua_State *L)
{
    struct ep_policy_set *set = ep_lua_of(L)->loading;
    struct ep_policy *p;
    char text[512];
    lua_Debug ar;

    if (!set)
        return luaL_error(L, "policy {...} is for files of the policies' directory");
    if (lua_type(L, 1) != LUA_TTABLE)
        return bad(L, "policy: a table is needed: policy { name = ..., call = function(c) ... end }");
    lua_settop(L, 1);
    check_keys(L);
    p = EP_ARENA_NEW(&set->arena, struct ep_policy);
    p->call_ref = p->reply_ref = p->event_ref = LUA_NOREF;
    ep_list_push(&set->defined, &p->node); /* from here on the set lets its references go */
    if (lua_getstack(L, 1, &ar) && lua_getinfo(L, "l", &ar))
        p->line = ar.currentline;
    p->file = ep_arena_str(&set->arena, ep_str(set->file));
    p->name = text_of(L, set, "name", 64);
    check_name(L, p->name);
    p->principle = text_of(L, set, "principle", 64);
    text_of(L, set, "description", 4096);
    p->mode = (enum ep_mode)choice(L, "mode", modes, EP_COUNT(modes), EP_MODE_ENFORCE);
    p->blind = (enum ep_policy_blind)choice(L, "blind", blinds, EP_COUNT(blinds), EP_POLICY_BLIND_DENY);
    p->enforced = read_enforced(L);
    read_match(L, set, p);
    read_needs(L, p);
    p->call_ref = function_of(L, "call");
    p->reply_ref = function_of(L, "reply");
    p->event_ref = function_of(L, "event");
    read_needs_reply(L, p);
    p->meters = ep_arena_zalloc(&set->arena, EP_POLICY_METERS_MAX * sizeof *p->meters);
    if (p->call_ref == LUA_NOREF && p->reply_ref == LUA_NOREF && p->event_ref == LUA_NOREF)
        return bad(L, "policy: '%s' has neither call, reply nor event", p->name.p);
    if (!ep_policy_possible(p, text, sizeof text))
        return bad(L, "policy: '%s': %s", p->name.p, text);
    check_reads(L, set, p->call_ref, "call");
    check_reads(L, set, p->reply_ref, "reply");
    check_reads(L, set, p->event_ref, "event");
    struct ep_policy **ud = lua_newuserdatauv(L, sizeof(struct ep_policy *), 0);
    *ud = p;
    if (luaL_newmetatable(L, CLASS)) {
        lua_pushboolean(L, false);
        lua_setfield(L, -2, "__metatable");
    }
    lua_setmetatable(L, -2);
    return 1;
}

/* --- loading a directory --- */

/* Arguments: the set and the name of the file. */
static int load_file(lua_State *L)
{
    struct ep_policy_set *set = lua_touserdata(L, 1);
    const struct ep_policy_bundle_file *f = set->bundle ? ep_policy_bundle_find(set->bundle, ep_str(set->file)) : NULL;

    if (f) {
        set->text = f->text;
    } else {
        lua_pushfstring(L, "%s/%s", set->directory, set->file);
        ep_lua_read_file(L, lua_tostring(L, -1));
        set->text = ep_arena_str(&set->arena, ep_lua_check_str(L, -1));
    }
    ep_policy_run_text(L, set, set->directory);
    return ep_policy_take(L, set);
}

void ep_policy_run_text(lua_State *L, const struct ep_policy_set *set, const char *directory)
{
    int env;

    ep_lua_env_push(L, EP_LUA_POLICY, directory);
    env = lua_gettop(L);
    lua_pushfstring(L, "@%s", set->file);
    ep_lua_compile(L, set->text, lua_tostring(L, -1), env);
    lua_call(L, 0, 1);
}

bool ep_policy_load_one(struct ep_policy_set *set, const char *file, lua_CFunction load, void *argument,
                        struct ep_error *err)
{
    struct ep_lua *l = set->lua;
    uint32_t owner = ep_lua_owner_new(l, ep_str(file), ep_policy_renew, NULL);
    unsigned before = set->n;
    bool good = true;

    set->file = file;
    lua_pushcfunction(l->thread, load);
    lua_pushlightuserdata(l->thread, argument);
    l->loading = set;
    ep_lua_charge_to(l, owner);
    if (ep_lua_call(l, l->thread, 1, 0, &ep_lua_budget_load, ep_clock_ns()) != EP_LUA_OK) {
        struct ep_str e = ep_lua_error(l->thread);
        good = ep_str_search(e, ep_str(file)) >= 0 ? ep_error_set(err, "%.*s", EP_STR_ARG(e))
                                                   : ep_error_set(err, "%s: %.*s", file, EP_STR_ARG(e));
    }
    l->loading = NULL;
    lua_settop(l->thread, 0);
    set->file = NULL;
    if (set->n == before) {
        ep_lua_owner_free(l, owner);
        return good;
    }
    struct ep_policy *p = set->v[before];
    p->owner = owner;
    l->owners[owner].name = p->name;
    l->owners[owner].user = p;
    return good;
}

struct ep_policy *ep_policy_check(lua_State *L, int index)
{
    struct ep_policy **ud = luaL_testudata(L, index, CLASS);

    return ud ? *ud : NULL;
}

int ep_policy_take(lua_State *L, struct ep_policy_set *set)
{
    struct ep_policy *p = ep_policy_check(L, -1);

    if (!p)
        return luaL_error(L, "%s:1: a policy file must return policy {...}, not a %s", set->file, luaL_typename(L, -1));
    for (unsigned i = 0; i < set->n; i++)
        if (ep_str_eq(set->v[i]->name, p->name))
            return luaL_error(L, "%s:%d: the name '%s' is taken by %s", set->file, p->line, p->name.p,
                              set->v[i]->file.p);
    if (set->n == EP_POLICIES_MAX)
        return luaL_error(L, "%s: more than %d policies", set->file, (int)EP_POLICIES_MAX);
    p->set = set;
    p->text = set->text;
    set->v[set->n++] = p;
    return 0;
}

static int select_policy(const struct dirent *d)
{
    return ep_policy_bundle_is_policy(ep_str(d->d_name));
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool load_bundle(struct ep_policy_set *set, unsigned *n, struct ep_error *err)
{
    const struct ep_policy_bundle *b = set->bundle;
    bool good = true;

    *n = b->n_policies;
    for (unsigned i = 0; good && i < b->n; i++)
        good = !ep_policy_bundle_is_policy(b->files[i].name) ||
               ep_policy_load_one(set, b->files[i].name.p, load_file, set, err);
    return good;
}

static bool load_disk(struct ep_policy_set *set, unsigned *n, struct ep_error *err)
{
    struct dirent **files = NULL;
    int found = scandir(set->directory, &files, select_policy, by_name);
    bool good = found >= 0 || ep_error_set(err, "%s", strerror(errno));

    for (int i = 0; i < found; i++) {
        good = good && ep_policy_load_one(set, files[i]->d_name, load_file, set, err);
        free(files[i]);
    }
    free(files);
    *n = (unsigned)EP_MAX(found, 0);
    return good;
}

bool ep_policy_set_load(struct ep_policy_set *set, struct ep_str path, struct ep_error *err)
{
    unsigned n;

    set->directory = ep_arena_printf(&set->arena, "%.*s", EP_STR_ARG(path)).p;
    bool good = set->bundle ? load_bundle(set, &n, err) : load_disk(set, &n, err);
    if (!good)
        ep_error_prefix(err, "policies in %s", set->directory);
    else if (n == 0)
        ep_warn("policy", "there is no policy in %s", set->directory);
    return good;
}

void ep_policies_json(struct ep_worker *w, struct ep_json *j)
{
    static const char *const mode_names[] = {"enforce", "shadow", "off"};
    struct ep_list none, *sets = &none;

    ep_list_init(&none);
    if (w->view && w->view->policies)
        sets = &w->view->policies->lua->policy_sets; /* of the set in force */
    else if (w->lua)
        sets = &((struct ep_lua *)w->lua)->policy_sets;
    ep_json_array(j);
    EP_LIST_FOREACH(node, sets)
    {
        const struct ep_policy_set *set = EP_CONTAINER(node, struct ep_policy_set, node);
        for (unsigned i = 0; i < set->n; i++) {
            const struct ep_policy *p = set->v[i];
            ep_json_object(j);
            ep_json_kstr(j, "name", p->name);
            ep_json_kstr(j, "file", p->file);
            ep_json_kstr(j, "principle", p->principle);
            ep_json_kstr(j, "on_blind", ep_str(blinds[p->blind]));
            enum ep_mode mode = p->constitutional ? p->mode : EP_MAX(p->mode, set->mode);
            if (!p->constitutional && p->trial_ns)
                mode = EP_MAX(mode, EP_MODE_SHADOW);
            ep_json_kstr(j, "mode", ep_str(mode_names[mode]));
            ep_json_kuint(j, "seen", p->seen);
            ep_json_kuint(j, "matched", p->matched);
            ep_json_kuint(j, "blind", p->blinded);
            for (int d = 0; d < EP_POLICY_DECISIONS; d++)
                ep_json_kuint(j, ep_policy_decision_name((enum ep_policy_decision)d), p->count[d]);
            ep_policy_life_json(p, j);
            ep_json_kuint(j, "kept_bytes", set->lua->owners[p->owner].kept);
            ep_json_kbool(j, "healthy", p->failures < EP_POLICY_UNHEALTHY);
            ep_policy_cover_json(p, w->view, j);
            ep_json_object_end(j);
        }
    }
    ep_json_array_end(j);
}
