/* The filter `lua`: scripts written for Envoy's Lua filter. Here: configuration and loading. script_run.c runs them. */
#include <stdio.h>
#include <stdlib.h>

#include "filter/chain.h"
#include "filter/policies_config.h"
#include "lua/script.h"

struct script_config {
    struct ep_str name, code, file;
    int on_error;
    struct ep_vec sources;             /* of ep_pair: name -> script */
    struct ep_str context;             /* JSON */
    struct ep_policies_budget *budget; /* NULL: that of the policies */
};

struct ep_str ep_script_file(const void *config)
{
    return config ? ((const struct script_config *)config)->file : (struct ep_str){NULL, 0};
}

static const char *const on_error_names[] = {"deny", "allow", NULL};

static const struct ep_field fields[] = {
    {.key = "name",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct script_config, name),
     .preset = "lua",
     .help = "Name in metrics, logs and refusals."},
    {.key = "inline",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct script_config, code),
     .help = "The script itself."},
    {.key = "file",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct script_config, file),
     .help = "Path of the script, in place of inline."},
    {.key = "on_error",
     .type = EP_TYPE_ENUM,
     .offset = offsetof(struct script_config, on_error),
     .preset = "deny",
     .names = on_error_names,
     .help = "What a script that fails does to the request: deny it, or allow it as Envoy does."},
    {.key = "sources",
     .type = EP_TYPE_MAP,
     .offset = offsetof(struct script_config, sources),
     .help = "Other scripts by name (Envoy's source_codes): those that routes choose from by `scripts`."},
    {.key = "filter_context",
     .type = EP_TYPE_JSON,
     .offset = offsetof(struct script_config, context),
     .help = "What scripts read by filterContext()."},
    {.key = "budget",
     .type = EP_TYPE_OPTIONAL,
     .offset = offsetof(struct script_config, budget),
     .sub = &ep_policies_budget_schema,
     .help = "What one run of this script may use, up to where it waits; without it, that of the policies."},
};

static void check(void *object, struct ep_checker *c)
{
    const struct script_config *config = object;

    if (config->code.n && config->file.n)
        ep_check_error(c, object, "inline", "give the script either inline or as a file");
    if (!config->code.n && !config->file.n && !config->sources.n)
        ep_check_error(c, object, "inline", "give the script either inline or as a file");
    const struct ep_pair *v = config->sources.v;
    for (size_t i = 0; i < config->sources.n; i++)
        if (ep_str_eq(v[i].key, EP_STR("off")))
            ep_check_error(c, object, "sources", "a source can't be named off");
}

static const struct ep_schema schema =
    EP_SCHEMA("lua", "A script written for Envoy's Lua filter.", struct script_config, fields, .check = check);

/* --- loading --- */

/* A reference to the function of that name in the environment. */
static int hook(lua_State *L, int env, const char *name, const struct ep_script *s)
{
    if (lua_getfield(L, env, name) == LUA_TFUNCTION)
        return luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);
    ep_info("lua", "script %.*s has no %s: that hook is skipped", EP_STR_ARG(s->seen.name), name);
    return LUA_NOREF;
}

/* The part of the path before the last slash, for `require`; NULL for an inline script. */
static const char *push_directory(lua_State *L, struct ep_str file)
{
    size_t n = file.n;

    if (!file.n)
        return NULL;
    while (n > 0 && file.p[n - 1] != '/')
        n--;
    lua_pushlstring(L, n > 1 ? file.p : n ? "/" : ".", n > 1 ? n - 1 : 1);
    return lua_tostring(L, -1);
}

/* The source's code is on top. */
static void load_source(lua_State *L, struct ep_script *s, struct ep_script_source *source, const char *chunk,
                        const char *directory)
{
    int code = lua_gettop(L), env;

    ep_lua_env_push(L, EP_LUA_ENVOY, directory);
    env = lua_gettop(L);
    ep_lua_compile(L, ep_lua_check_str(L, code), chunk, env);
    lua_call(L, 0, 0);
    lua_createtable(L, 0, 2); /* Envoy has it only once the top level has run */
    lua_pushinteger(L, 0);
    lua_setfield(L, -2, "MILLISECOND");
    lua_pushinteger(L, 1);
    lua_setfield(L, -2, "MICROSECOND");
    lua_setfield(L, env, "EnvoyTimestampResolution");
    source->request_ref = hook(L, env, "envoy_on_request", s);
    source->response_ref = hook(L, env, "envoy_on_response", s);
    lua_settop(L, code - 1);
}

/* Arguments: the script and its configuration. */
static int load_script(lua_State *L)
{
    struct ep_script *s = lua_touserdata(L, 1);
    const struct script_config *config = lua_touserdata(L, 2);
    const struct ep_pair *others = config->sources.v;
    const char *directory = push_directory(L, config->file), *chunk;

    ep_envoy_open(L);
    if (config->file.n) {
        ep_lua_push(L, config->file);
        chunk = lua_pushfstring(L, "@%s", lua_tostring(L, -1));
        ep_lua_read_file(L, lua_tostring(L, -2));
        load_source(L, s, &s->sources[0], chunk, directory);
    } else if (config->code.n) {
        ep_lua_push(L, config->code); /* the source is its own name, as in Envoy: [string "..."]:1: */
        load_source(L, s, &s->sources[0], lua_tostring(L, -1), directory);
    }
    for (size_t i = 0; i < config->sources.n; i++) {
        ep_lua_push(L, others[i].key);
        chunk = lua_pushfstring(L, "=%s", lua_tostring(L, -1));
        ep_lua_push(L, others[i].value);
        load_source(L, s, &s->sources[i + 1], chunk, directory);
    }
    return 0;
}

/* What hooks are when there are none. */
static int gone(lua_State *L)
{
    return luaL_error(L, "the script kept too much memory, and could not be loaded anew");
}

static void unref_hooks(struct ep_script *s)
{
    for (size_t i = 0; i < s->n_sources; i++) {
        luaL_unref(s->lua->L, LUA_REGISTRYINDEX, s->sources[i].request_ref);
        luaL_unref(s->lua->L, LUA_REGISTRYINDEX, s->sources[i].response_ref);
        s->sources[i].request_ref = s->sources[i].response_ref = LUA_NOREF;
    }
}

static bool run_sources(struct ep_script *s, lua_State *L, const struct ep_lua_budget *budget, struct ep_error *err)
{
    lua_pushcfunction(L, load_script);
    lua_pushlightuserdata(L, s);
    lua_pushlightuserdata(L, (void *)(uintptr_t)s->config);
    ep_lua_charge_to(s->lua, s->owner);
    if (ep_lua_call(s->lua, L, 2, 0, budget, ep_clock_ns()) == EP_LUA_OK)
        return true;
    struct ep_str e = ep_lua_error(L);
    return ep_error_set(err, "script load error: %.*s", EP_STR_ARG(e));
}

/* It kept too much: as renew.c for policies. */
static void renew(void *script)
{
    struct ep_script *s = script;
    lua_State *L = s->lua->L;
    int top = lua_gettop(L);
    struct ep_error err;

    unref_hooks(s);
    if (!run_sources(s, L, &ep_lua_budget_renew, &err)) {
        ep_fail("lua", "script %.*s can't be loaded anew, and fails from now on: %s", EP_STR_ARG(s->seen.name), err.text);
        unref_hooks(s);
        for (size_t i = 0; i < s->n_sources; i++) {
            lua_pushcfunction(L, gone);
            s->sources[i].request_ref = luaL_ref(L, LUA_REGISTRYINDEX);
        }
    }
    lua_settop(L, top);
}

static void add_statistics(struct ep_script *s, struct ep_stats *stats)
{
    static const char *const names[] = {"allow", "deny", "error", "overrun"};

    for (int d = 0; d < EP_SCRIPT_DECISIONS; d++)
        s->cells[d] = ep_stats_cell(stats, EP_METRIC_POLICY_DECISIONS, EP_LABELS(s->seen.name, ep_str(names[d])));
    s->duration = ep_stats_histogram(stats, EP_METRIC_POLICY_DURATION, EP_LABELS(s->seen.name));
}

static void script_free(struct ep_script *s)
{
    lua_State *L = s->lua->L;

    while (s->n_idle)
        luaL_unref(L, LUA_REGISTRYINDEX, s->idle[--s->n_idle]->ref);
    unref_hooks(s);
    ep_lua_owner_free(s->lua, s->owner);
    free(s->sources);
    ep_lua_unref(s->lua);
    free(s);
}

/* Whether the listener has a script of that name. */
static bool is_script(const struct ep_chain *c, struct ep_str name)
{
    const struct ep_filter_use *u = c->config->filters.v;

    for (size_t i = 0; i < c->config->filters.n; i++) {
        const struct script_config *other = u[i].config;
        if (ep_str_eq(u[i].name, EP_STR("lua")) && other && ep_str_eq(other->name, name))
            return true;
    }
    return false;
}

/* A route that names a filter or a source which isn't there would run nothing, or the wrong thing, silently. */
static bool check_routes(const struct ep_script *s, const struct ep_chain *c, struct ep_error *err)
{
    for (unsigned i = 0; c && i < c->n_routes; i++) {
        const struct ep_pair *v = c->routes[i].config->scripts.v;
        for (size_t k = 0; k < c->routes[i].config->scripts.n; k++) {
            bool found = ep_str_eq(v[k].value, EP_STR("off"));
            if (!is_script(c, v[k].key))
                return ep_error_set(err, "route %u chooses the source of a script '%.*s', which is not in this listener", i,
                                    EP_STR_ARG(v[k].key));
            if (!ep_str_eq(v[k].key, s->seen.name))
                continue;
            for (size_t n = 1; n < s->n_sources; n++)
                found |= ep_str_eq(s->sources[n].name, v[k].value);
            if (!found)
                return ep_error_set(err, "route %u wants the source '%.*s' of the script %.*s, which has none of that name",
                                    i, EP_STR_ARG(v[k].value), EP_STR_ARG(s->seen.name));
        }
    }
    return true;
}

static bool by_route(const struct ep_script *s, const struct ep_chain *c)
{
    for (unsigned i = 0; c && i < c->n_routes; i++) {
        const struct ep_pair *v = c->routes[i].config->scripts.v;
        for (size_t k = 0; k < c->routes[i].config->scripts.n; k++)
            if (ep_str_eq(v[k].key, s->seen.name))
                return true;
    }
    return false;
}

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    const struct script_config *config = i->config;
    const struct ep_policies_config *policies = i->view ? i->view->policies_config : NULL;
    const struct ep_policies_budget *budget;
    struct ep_lua *l;
    struct ep_script *s;

    if (!config || (!config->code.n && !config->file.n && !config->sources.n))
        return ep_error_set(err, "the filter lua needs a script: {lua: {inline: …}} or {lua: {file: …}}");
    l = ep_lua_ref(i->worker, err);
    if (!l)
        return false;
    s = ep_calloc(1, sizeof *s);
    s->lua = l;
    s->config = config;
    s->seen.name = config->name.n ? config->name : EP_STR("lua");
    s->owner = ep_lua_owner_new(l, s->seen.name, renew, s);
    s->on_error = config->on_error;
    s->seen.context = config->context;
    s->n_sources = config->sources.n + 1;
    s->sources = ep_calloc(s->n_sources, sizeof *s->sources);
    for (size_t k = 0; k < s->n_sources; k++)
        s->sources[k] = (struct ep_script_source){
            .name = k ? ((const struct ep_pair *)config->sources.v)[k - 1].key : (struct ep_str){NULL, 0},
            .request_ref = LUA_NOREF,
            .response_ref = LUA_NOREF,
        };
    s->budget = ep_lua_budget_call;
    budget = config->budget ? config->budget : policies ? &policies->budget : NULL;
    if (budget && budget->instructions > 0)
        s->budget = (struct ep_lua_budget){(uint64_t)budget->instructions, budget->memory, budget->time_ns, 0};
    s->budget.slice_ns = i->worker->base ? EP_LUA_SLICE_NS : 0; /* where no loop turns, a pause would have no end */
    if (policies && policies->kept)
        l->kept_max = policies->kept;
    bool good = run_sources(s, l->thread, &ep_lua_budget_load, err);
    if (!good) {
        script_free(s);
    } else if (!check_routes(s, i->chain, err)) {
        script_free(s);
        good = false;
    } else {
        s->by_route = by_route(s, i->chain);
        if (i->worker->stats)
            add_statistics(s, i->worker->stats);
    }
    if (i->worker->lua)
        lua_settop(((struct ep_lua *)i->worker->lua)->thread, 0);
    i->data = good ? s : NULL;
    return good;
}

static void unload(struct ep_filter_instance *i)
{
    if (i->data)
        script_free(i->data);
}

const struct ep_filter ep_filter_lua = {
    .name = "lua",
    .help = "Runs a script written for Envoy's Lua filter.",
    .schema = &schema,
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct ep_script_state),
    .request_headers = ep_script_request_headers,
    .request_body = ep_script_request_body,
    .request_trailers = ep_script_request_trailers,
    .response_headers = ep_script_response_headers,
    .response_body = ep_script_response_body,
    .response_trailers = ep_script_response_trailers,
    .finish = ep_script_finish,
};
