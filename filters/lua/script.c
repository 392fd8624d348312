/* The filter `lua`: one script written for Envoy's Lua filter.
 *
 * Each hook runs in a coroutine of the pool. When it asks for the body, the step answers EP_BUFFER and the coroutine
 * goes on in the body step, with all of it. A script that fails refuses the request, unless `on_error: allow` asks for
 * Envoy's way (log, drop the stream's coroutines, go on). */
#include <stdio.h>
#include <stdlib.h>

#include "filter/chain.h"
#include "filter/policies_config.h"
#include "lua/envoy.h"
#include "observe/observe.h"

#define IDLE_HANDLES 32
#define UNHEALTHY    5u

enum { ON_ERROR_DENY, ON_ERROR_ALLOW };
enum decision { ALLOW, DENY, ERROR, OVERRUN, DECISIONS };

struct script_config {
    struct ep_str name, code, file;
    int on_error;
};

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
};

static void check(void *object, struct ep_checker *c)
{
    const struct script_config *config = object;

    if (!config->code.n == !config->file.n)
        ep_check_error(c, object, "inline", "give the script either inline or as a file");
}

static const struct ep_schema schema =
    EP_SCHEMA("lua", "A script written for Envoy's Lua filter.", struct script_config, fields, .check = check);

struct script {
    struct ep_lua *lua;
    struct ep_str name;
    int on_error;
    struct ep_lua_budget budget;
    int request_ref, response_ref;
    struct ep_envoy_handle *idle[IDLE_HANDLES];
    unsigned n_idle, failures;
    uint64_t *cells[DECISIONS]; /* NULL without statistics */
    struct ep_histogram *duration;
};

struct state {
    struct ep_envoy_handle *request, *response;
    bool dropped; /* it failed and may: no more of it runs for this stream */
};

/* --- loading --- */

/* Pops what is on top into a reference when it is a function. */
static int hook(lua_State *L, int env, const char *name, const struct script *s)
{
    if (lua_getfield(L, env, name) == LUA_TFUNCTION)
        return luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);
    ep_info("lua", "script %.*s has no %s: that hook is skipped", EP_STR_ARG(s->name), name);
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

/* Arguments: the script and its configuration. */
static int load_script(lua_State *L)
{
    struct script *s = lua_touserdata(L, 1);
    const struct script_config *config = lua_touserdata(L, 2);
    const char *directory = push_directory(L, config->file);
    int env;

    ep_envoy_open(L);
    ep_lua_env_push(L, EP_LUA_ENVOY, directory);
    env = lua_gettop(L);
    if (config->file.n) {
        lua_pushlstring(L, config->file.p, config->file.n);
        ep_lua_read_file(L, lua_tostring(L, -1));
        lua_pushfstring(L, "@%s", lua_tostring(L, -2));
    } else {
        ep_lua_push(L, config->code);
        lua_pushvalue(L, -1); /* the source is its own name, as in Envoy: [string "..."]:1: */
    }
    ep_lua_compile(L, ep_lua_check_str(L, -2), lua_tostring(L, -1), env);
    lua_call(L, 0, 0);
    lua_createtable(L, 0, 2); /* Envoy has it only once the top level has run */
    lua_pushinteger(L, 0);
    lua_setfield(L, -2, "MILLISECOND");
    lua_pushinteger(L, 1);
    lua_setfield(L, -2, "MICROSECOND");
    lua_setfield(L, env, "EnvoyTimestampResolution");
    s->request_ref = hook(L, env, "envoy_on_request", s);
    s->response_ref = hook(L, env, "envoy_on_response", s);
    return 0;
}

static void add_statistics(struct script *s, struct ep_stats *stats)
{
    static const char *const names[] = {"allow", "deny", "error", "overrun"};

    for (int d = 0; d < DECISIONS; d++)
        s->cells[d] = ep_stats_cell(stats, EP_METRIC_POLICY_DECISIONS, EP_LABELS(s->name, ep_str(names[d])));
    s->duration = ep_stats_histogram(stats, EP_METRIC_POLICY_DURATION, EP_LABELS(s->name));
}

static void script_free(struct script *s)
{
    lua_State *L = s->lua->L;

    while (s->n_idle)
        luaL_unref(L, LUA_REGISTRYINDEX, s->idle[--s->n_idle]->ref);
    luaL_unref(L, LUA_REGISTRYINDEX, s->request_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, s->response_ref);
    ep_lua_unref(s->lua);
    free(s);
}

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    const struct script_config *config = i->config;
    const struct ep_policies_config *policies = i->view ? i->view->policies_config : NULL;
    struct ep_lua *l;
    struct script *s;

    if (!config || (!config->code.n && !config->file.n))
        return ep_error_set(err, "the filter lua needs a script: {lua: {inline: …}} or {lua: {file: …}}");
    l = ep_lua_ref(i->worker, err);
    if (!l)
        return false;
    s = ep_calloc(1, sizeof *s);
    s->lua = l;
    s->name = config->name.n ? config->name : EP_STR("lua");
    s->on_error = config->on_error;
    s->request_ref = s->response_ref = LUA_NOREF;
    s->budget = ep_lua_budget_call;
    if (policies && policies->budget.instructions > 0)
        s->budget = (struct ep_lua_budget){(uint64_t)policies->budget.instructions, policies->budget.memory,
                                           policies->budget.time_ns};
    lua_pushcfunction(l->thread, load_script);
    lua_pushlightuserdata(l->thread, s);
    lua_pushlightuserdata(l->thread, (void *)(uintptr_t)config);
    bool good = ep_lua_call(l, l->thread, 2, 0, &ep_lua_budget_load, ep_clock_ns()) == EP_LUA_OK;
    if (!good) {
        struct ep_str e = ep_lua_error(l->thread);
        ep_error_set(err, "script load error: %.*s", EP_STR_ARG(e));
        script_free(s);
    } else if (i->worker->stats) {
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

/* --- handles --- */

static struct ep_envoy_handle *handle_take(struct script *s, struct ep_stream *stream, bool request)
{
    lua_State *L = s->lua->L;
    struct ep_envoy_handle *h;

    if (s->n_idle) {
        h = s->idle[--s->n_idle];
    } else {
        h = ep_envoy_handle_new(L);
        h->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    h->s = stream;
    h->request = request;
    h->wait = EP_ENVOY_RUNS;
    h->whole = h->over = false;
    h->body = (struct ep_str){NULL, 0};
    return h;
}

static void thread_drop(struct script *s, struct ep_envoy_handle *h, bool finished)
{
    if (!h->thread.L)
        return;
    ep_lua_thread_give(s->lua, h->thread, finished);
    h->thread.L = NULL;
}

static void handle_give(struct script *s, struct ep_envoy_handle *h)
{
    if (!h)
        return;
    thread_drop(s, h, false);
    h->s = NULL;
    if (s->n_idle < IDLE_HANDLES)
        s->idle[s->n_idle++] = h;
    else
        luaL_unref(s->lua->L, LUA_REGISTRYINDEX, h->ref);
}

/* --- running --- */

static void count(struct script *s, enum decision d)
{
    if (s->cells[d])
        ep_cell_add(s->cells[d], 1);
}

static enum ep_step failed(struct script *s, struct state *state, struct ep_envoy_handle *h, struct ep_str error,
                           bool overrun)
{
    struct ep_stream *stream = h->s;
    char text[512];
    int n = snprintf(text, sizeof text, "%.*s", (int)EP_MIN(error.n, sizeof text - 1), error.p);

    count(s, overrun ? OVERRUN : ERROR);
    if (++s->failures < UNHEALTHY)
        ep_fail("lua", "script log: %.*s: %.*s", EP_STR_ARG(s->name), n, text);
    else if (s->failures == UNHEALTHY)
        ep_warn("lua",
                "script %.*s is unhealthy: it failed %u times in a row, and is silent until it works again: %.*s",
                EP_STR_ARG(s->name), UNHEALTHY, n, text);
    state->dropped = true;
    h->over = true;
    thread_drop(s, h, false);
    if (s->on_error == ON_ERROR_ALLOW)
        return EP_NEXT;
    ep_stream_refuse(stream, &(struct ep_refusal){.kind = EP_REFUSE_POLICY,
                                                  .policy = s->name,
                                                  .reason = overrun ? EP_STR("the script went over its budget")
                                                                    : EP_STR("the script failed"),
                                                  .code = overrun ? "policy.overrun" : "policy.error",
                                                  .grpc_status = -1});
    return EP_REPLIED;
}

/* Runs the coroutine until it ends, waits or fails. What is on its stack are its arguments. */
static enum ep_step go_on(struct script *s, struct state *state, struct ep_envoy_handle *h, int n_args)
{
    uint64_t start = ep_clock_ns();
    int n_results = 0;
    enum ep_lua_status status;

    h->wait = EP_ENVOY_RUNS;
    status = ep_lua_resume(s->lua, h->thread.L, n_args, &n_results, &s->budget, start);
    if (s->duration)
        ep_histogram_record(s->duration, ep_clock_ns() - start);
    if (status == EP_LUA_YIELDED && h->wait == EP_ENVOY_RESPONDED) {
        count(s, DENY);
        h->over = true;
        state->dropped = true;
        thread_drop(s, h, false);
        return EP_REPLIED;
    }
    if (status == EP_LUA_YIELDED && h->wait != EP_ENVOY_RUNS)
        return EP_BUFFER;
    if (status == EP_LUA_YIELDED)
        return failed(s, state, h, EP_STR("script performed an unexpected yield"), false);
    if (status != EP_LUA_OK)
        return failed(s, state, h, ep_lua_error(h->thread.L), status == EP_LUA_OVERRUN);
    s->failures = 0;
    count(s, ALLOW);
    h->over = true;
    thread_drop(s, h, true);
    return EP_NEXT;
}

static enum ep_step start(struct ep_stream *stream, struct state *state, bool request, bool end)
{
    struct script *s = ep_filter_data(stream);
    int ref = request ? s->request_ref : s->response_ref;
    struct ep_envoy_handle *h;

    if (ref == LUA_NOREF || state->dropped)
        return EP_NEXT;
    h = handle_take(s, stream, request);
    *(request ? &state->request : &state->response) = h;
    h->whole = end;
    h->thread = ep_lua_thread_take(s->lua);
    lua_rawgeti(h->thread.L, LUA_REGISTRYINDEX, ref);
    lua_rawgeti(h->thread.L, LUA_REGISTRYINDEX, h->ref);
    return go_on(s, state, h, 1);
}

/* The whole body is there. */
static enum ep_step with_body(struct ep_stream *stream, struct state *state, struct ep_envoy_handle *h,
                              struct ep_body *b, bool end)
{
    if (!h || !h->thread.L || !end)
        return EP_NEXT;
    h->whole = true;
    h->body = ep_body_flatten(b, &stream->arena);
    return go_on(ep_filter_data(stream), state, h, 0);
}

static enum ep_step request_headers(struct ep_stream *s, void *state, bool end)
{
    return start(s, state, true, end);
}

static enum ep_step request_body(struct ep_stream *s, void *state_, struct ep_body *b, bool end)
{
    struct state *state = state_;

    return with_body(s, state, state->request, b, end);
}

static enum ep_step response_headers(struct ep_stream *s, void *state, bool end)
{
    return start(s, state, false, end);
}

static enum ep_step response_body(struct ep_stream *s, void *state_, struct ep_body *b, bool end)
{
    struct state *state = state_;

    return with_body(s, state, state->response, b, end);
}

static void finish(struct ep_stream *stream, void *state_)
{
    struct script *s = ep_filter_data(stream);
    struct state *state = state_;

    handle_give(s, state->request);
    handle_give(s, state->response);
    state->request = state->response = NULL;
}

const struct ep_filter ep_filter_lua = {
    .name = "lua",
    .help = "Runs a script written for Envoy's Lua filter.",
    .schema = &schema,
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .request_body = request_body,
    .response_headers = response_headers,
    .response_body = response_body,
    .finish = finish,
};
