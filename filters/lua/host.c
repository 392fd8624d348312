/* The state of a worker: its allocator, its hook, its runs and its pool of threads. host.h has the design. */
#include "lua/host.h"

#include <stdio.h>
#include <stdlib.h>

#include "lua/object.h"
#include "observe/observe.h"

#define CLOCKED_BYTES 4096u /* allocations from here on look at the clock: copying them takes time */

const struct ep_lua_budget ep_lua_budget_call = {200000, 1 << 20, 5 * EP_MS};
const struct ep_lua_budget ep_lua_budget_load = {20000000, 16 << 20, 2 * EP_S};

static void *allocate(void *ud, void *p, size_t old, size_t n)
{
    struct ep_lua *l = ud;

    if (!p)
        old = 0; /* Lua says the kind of object there */
    if (n == 0) {
        l->bytes -= old;
        free(p);
        return NULL;
    }
    if (n > old && l->run.active) {
        if (n - old > l->run.bytes_max || l->bytes > l->run.bytes_max - (n - old))
            return NULL; /* Lua collects its garbage and asks once more */
        if (n >= CLOCKED_BYTES && ep_clock_ns() > l->run.deadline_ns) {
            l->run.overrun = EP_LUA_TIME;
            return NULL;
        }
    }
    void *q = realloc(p, n);
    if (q)
        l->bytes = l->bytes - old + n;
    return q;
}

static const char *overrun_text(enum ep_lua_overrun o)
{
    static const char *const text[] = {
        [EP_LUA_FITS] = "",
        [EP_LUA_INSTRUCTIONS] = "over the budget of instructions",
        [EP_LUA_MEMORY] = "over the budget of memory",
        [EP_LUA_TIME] = "over the budget of time",
    };
    return text[o];
}

static void on_hook(lua_State *L, lua_Debug *ar);

/* A thread's hook as it should be: a count, and each line when somebody wants to know of them. */
static void set_hook(lua_State *L)
{
    int lines = ep_lua_of(L)->on_line ? LUA_MASKLINE : 0;

    lua_sethook(L, on_hook, LUA_MASKCOUNT | lines, EP_LUA_HOOK_EVERY); /* new threads copy it */
}

static int raise_overrun(lua_State *L, int level)
{
    struct ep_lua *l = ep_lua_of(L);

    lua_sethook(L, on_hook, LUA_MASKCOUNT, 1); /* whatever catches this raises again at its next instruction */
    luaL_where(L, level);
    lua_pushstring(L, overrun_text(l->run.overrun));
    lua_concat(L, 2);
    return lua_error(L);
}

static void on_hook(lua_State *L, lua_Debug *ar)
{
    struct ep_lua *l = ep_lua_of(L);
    struct ep_lua_run *r = &l->run;
    int every = lua_gethookcount(L);

    if (EP_UNLIKELY(ar->event == LUA_HOOKLINE)) {
        l->on_line(L, ar);
        return;
    }
    if (!r->active)
        return;
    r->instructions += (uint64_t)every;
    if (r->overrun == EP_LUA_FITS) {
        if (r->instructions > r->instructions_max)
            r->overrun = EP_LUA_INSTRUCTIONS;
        else if (ep_clock_ns() > r->deadline_ns)
            r->overrun = EP_LUA_TIME;
    }
    if (r->overrun != EP_LUA_FITS)
        raise_overrun(L, 0);
    if (every != EP_LUA_HOOK_EVERY) /* a coroutine that outlived an overrun */
        set_hook(L);
}

void ep_lua_watch_lines(struct ep_lua *l, lua_Hook on_line)
{
    l->on_line = on_line;
    set_hook(l->L);
    set_hook(l->thread);
    for (unsigned i = 0; i < l->n_idle; i++)
        set_hook(l->idle[i].L);
}

void ep_lua_check(lua_State *L)
{
    if (ep_lua_of(L)->run.overrun != EP_LUA_FITS)
        raise_overrun(L, 1);
}

void ep_lua_charge(lua_State *L, uint64_t n)
{
    struct ep_lua_run *r = &ep_lua_of(L)->run;

    if (!r->active)
        return;
    r->instructions = n > UINT64_MAX - r->instructions ? UINT64_MAX : r->instructions + n;
    if (r->instructions > r->instructions_max)
        r->overrun = EP_LUA_INSTRUCTIONS;
    else if (n >= EP_LUA_HOOK_EVERY && ep_clock_ns() > r->deadline_ns)
        r->overrun = EP_LUA_TIME;
    if (r->overrun != EP_LUA_FITS)
        raise_overrun(L, 1);
}

/* --- runs --- */

void ep_lua_begin(struct ep_lua *l, const struct ep_lua_budget *b, uint64_t now_ns, struct ep_lua_run *saved)
{
    size_t room = EP_LUA_STATE_BYTES_MAX > l->bytes ? EP_LUA_STATE_BYTES_MAX - l->bytes : 0;

    *saved = l->run;
    l->run.active = true;
    l->run.overrun = EP_LUA_FITS;
    l->run.instructions = 0;
    l->run.instructions_max = b->instructions;
    l->run.bytes_max = l->bytes + EP_MIN(b->memory, room);
    l->run.deadline_ns = now_ns + b->time_ns;
}

void ep_lua_end(struct ep_lua *l, const struct ep_lua_run *saved)
{
    l->spent_instructions = l->run.instructions;
    l->run = *saved;
    if (l->memory_cell)
        ep_cell_set(l->memory_cell, l->bytes);
}

static enum ep_lua_status judge(struct ep_lua *l, lua_State *L, int rc)
{
    if (rc == LUA_OK)
        return EP_LUA_OK;
    if (rc == LUA_YIELD)
        return EP_LUA_YIELDED;
    if (rc == LUA_ERRMEM && l->run.overrun == EP_LUA_FITS)
        l->run.overrun = EP_LUA_MEMORY;
    if (l->run.overrun == EP_LUA_FITS)
        return EP_LUA_ERROR;
    set_hook(L);
    return EP_LUA_OVERRUN;
}

enum ep_lua_status ep_lua_call(struct ep_lua *l, lua_State *L, int n_args, int n_results, const struct ep_lua_budget *b,
                               uint64_t now_ns)
{
    struct ep_lua_run saved;
    enum ep_lua_status status;

    ep_lua_begin(l, b, now_ns, &saved);
    status = judge(l, L, lua_pcall(L, n_args, n_results, 0));
    if (status == EP_LUA_OVERRUN && lua_type(L, -1) == LUA_TSTRING && l->run.overrun == EP_LUA_MEMORY) {
        l->run.active = false; /* Lua's own text says less than ours; there is room again now */
        lua_pop(L, 1);
        lua_pushstring(L, overrun_text(EP_LUA_MEMORY));
    }
    ep_lua_end(l, &saved);
    return status;
}

enum ep_lua_status ep_lua_resume(struct ep_lua *l, lua_State *L, int n_args, int *n_results,
                                 const struct ep_lua_budget *b, uint64_t now_ns)
{
    struct ep_lua_run saved;
    enum ep_lua_status status;

    ep_lua_begin(l, b, now_ns, &saved);
    status = judge(l, L, lua_resume(L, NULL, n_args, n_results));
    ep_lua_end(l, &saved);
    return status;
}

struct ep_str ep_lua_error(lua_State *L)
{
    struct ep_str s;

    if (lua_type(L, -1) != LUA_TSTRING)
        return lua_isnil(L, -1) ? EP_STR("error without a message") : EP_STR("error with an object that is no string");
    s.p = lua_tolstring(L, -1, &s.n);
    return s;
}

/* --- threads --- */

struct ep_lua_thread ep_lua_thread_take(struct ep_lua *l)
{
    struct ep_lua_thread t;

    if (l->n_idle)
        return l->idle[--l->n_idle];
    t.L = lua_newthread(l->L);
    t.ref = luaL_ref(l->L, LUA_REGISTRYINDEX);
    /* The mark of a host thread, by which coroutine.running knows it. */
    lua_rawgeti(l->L, LUA_REGISTRYINDEX, t.ref);
    lua_pushboolean(l->L, true);
    lua_rawset(l->L, LUA_REGISTRYINDEX);
    return t;
}

/* A coroutine that was suspended or failed: its pending __close methods are scripts' code, so within a budget. */
void ep_lua_thread_reset(struct ep_lua *l, lua_State *L)
{
    struct ep_lua_run saved;

    ep_lua_begin(l, &ep_lua_budget_call, ep_clock_ns(), &saved);
    lua_resetthread(L);
    ep_lua_end(l, &saved);
    set_hook(L);
    lua_settop(L, 0);
}

void ep_lua_thread_give(struct ep_lua *l, struct ep_lua_thread t, bool finished)
{
    if (!finished) /* one that ran to its end is as good as new, and keeps its stack */
        ep_lua_thread_reset(l, t.L);
    lua_settop(t.L, 0);
    if (l->n_idle < EP_LUA_IDLE_THREADS) {
        l->idle[l->n_idle++] = t;
        return;
    }
    lua_rawgeti(l->L, LUA_REGISTRYINDEX, t.ref);
    lua_pushnil(l->L);
    lua_rawset(l->L, LUA_REGISTRYINDEX);
    luaL_unref(l->L, LUA_REGISTRYINDEX, t.ref);
}

bool ep_lua_is_host_thread(struct ep_lua *l, lua_State *L)
{
    bool is;

    (void)l;
    luaL_checkstack(L, 2, NULL);
    if (lua_pushthread(L))
        is = true; /* the main thread */
    else
        is = lua_rawget(L, LUA_REGISTRYINDEX) == LUA_TBOOLEAN;
    lua_pop(L, 1);
    return is;
}

/* --- the state --- */

static int set_up(lua_State *L)
{
    struct ep_lua *l = ep_lua_of(L);
    struct ep_lua_thread t;

    ep_lua_sandbox_open(L);
    ep_policy_object_open(L);
    t = ep_lua_thread_take(l);
    l->thread = t.L;
    l->thread_ref = t.ref;
    lua_gc(L, LUA_GCGEN, 0, 0);
    return 0;
}

static int on_panic(lua_State *L)
{
    struct ep_str e = ep_lua_error(L);

    ep_fail("lua", "error outside of a protected call: %.*s", EP_STR_ARG(e));
    return 0; /* Lua aborts */
}

struct ep_lua *ep_lua_ref(struct ep_worker *w, struct ep_error *err)
{
    struct ep_lua *l = w->lua;

    if (l) {
        l->refs++;
        return l;
    }
    l = ep_calloc(1, sizeof *l);
    l->worker = w;
    l->refs = 1;
    ep_list_init(&l->policy_sets);
    ep_list_init(&l->idle_objects);
    l->L = lua_newstate(allocate, l);
    if (!l->L) {
        free(l);
        ep_error_set(err, "no memory for a Lua state");
        return NULL;
    }
    *(struct ep_lua **)lua_getextraspace(l->L) = l; /* new threads copy it */
    lua_atpanic(l->L, on_panic);
    set_hook(l->L);
    lua_pushcfunction(l->L, set_up);
    if (lua_pcall(l->L, 0, 0, 0) != LUA_OK) {
        struct ep_str e = ep_lua_error(l->L);
        ep_error_set(err, "the Lua state can't be made: %.*s", EP_STR_ARG(e));
        lua_close(l->L);
        free(l);
        return NULL;
    }
    if (w->stats)
        l->memory_cell = ep_stats_cell(w->stats, EP_METRIC_LUA_MEMORY, NULL);
    w->lua = l;
    return l;
}

void ep_lua_unref(struct ep_lua *l)
{
    if (--l->refs > 0)
        return;
    assert(ep_list_empty(&l->policy_sets));
    l->worker->lua = NULL;
    if (l->memory_cell)
        ep_cell_set(l->memory_cell, 0);
    lua_close(l->L);
    free(l);
}
