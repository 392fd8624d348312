/* The state of a worker: its hook, its runs and its pool of threads. host.h has the design. */
#include "lua/host.h"

#include <stdio.h>
#include <stdlib.h>

#include "lua/object.h"
#include "observe/observe.h"

#define STACK_BYTES_MAX   (1 << 20)

const struct ep_lua_budget ep_lua_budget_call = {200000, 1 << 20, 5 * EP_MS, 0};
const struct ep_lua_budget ep_lua_budget_load = {20000000, 16 << 20, 2 * EP_S, 0};
const struct ep_lua_budget ep_lua_budget_renew = {500000, 4 << 20, 10 * EP_MS, 0};

static const char *overrun_text(enum ep_lua_overrun o)
{
    static const char *const text[] = {
        [EP_LUA_FITS] = "",
        [EP_LUA_INSTRUCTIONS] = "over the budget of instructions",
        [EP_LUA_MEMORY] = "over the budget of memory",
        [EP_LUA_TABLE] = "a table takes more than 1 MiB (65,536 elements, or 32,768 keys), which would hold up Lua's collector",
        [EP_LUA_TIME] = "over the budget of time",
    };
    return text[o];
}

static void on_hook(lua_State *L, lua_Debug *ar);

void ep_lua_set_hook(lua_State *L)
{
    int lines = ep_lua_of(L)->on_line ? LUA_MASKLINE : 0;

    lua_sethook(L, on_hook, LUA_MASKCOUNT | lines, ep_lua_of(L)->tick); /* new threads copy it */
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

/* Only where nothing of C that can't go on later is in between, and not when too many do already. */
static bool may_pause(const struct ep_lua *l, lua_State *L)
{
    return L == l->run.top && lua_isyieldable(L) && l->n_paused < EP_LUA_PAUSED_MAX && l->bytes < EP_LUA_PAUSE_BYTES_MAX;
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
    uint64_t now = ep_clock_ns();
    if (r->overrun == EP_LUA_FITS) {
        if (r->instructions > r->instructions_max)
            r->overrun = EP_LUA_INSTRUCTIONS;
        else if (now > r->deadline_ns)
            r->overrun = EP_LUA_TIME;
    }
    if (r->overrun != EP_LUA_FITS)
        raise_overrun(L, 0);
    if (every != l->tick) /* strings came and went, or a coroutine outlived an overrun */
        ep_lua_set_hook(L);
    if (EP_UNLIKELY(now > r->pause_ns) && may_pause(l, L)) {
        r->paused = true;
        lua_yield(L, 0); /* in a hook it returns: Lua leaves when the hook is over */
    }
}

void ep_lua_watch_lines(struct ep_lua *l, lua_Hook on_line)
{
    l->on_line = on_line;
    ep_lua_set_hook(l->L);
    ep_lua_set_hook(l->thread);
    for (unsigned i = 0; i < l->n_idle; i++)
        ep_lua_set_hook(l->idle[i].L);
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
    r->unclocked = n > UINT64_MAX - r->unclocked ? UINT64_MAX : r->unclocked + n;
    if (r->instructions > r->instructions_max) {
        r->overrun = EP_LUA_INSTRUCTIONS;
    } else if (r->unclocked >= EP_LUA_HOOK_EVERY) {
        uint64_t now = ep_clock_ns();
        r->unclocked = 0;
        if (now > r->deadline_ns)
            r->overrun = EP_LUA_TIME;
        else if (EP_UNLIKELY(now > r->pause_ns) && may_pause(ep_lua_of(L), L))
            lua_sethook(L, on_hook, LUA_MASKCOUNT, 1); /* as soon as the function of C that runs is over */
    }
    if (r->overrun != EP_LUA_FITS)
        raise_overrun(L, 1);
}

bool ep_lua_slice_over(lua_State *L)
{
    struct ep_lua *l = ep_lua_of(L);

    return ep_clock_ns() > l->run.pause_ns && may_pause(l, L);
}

int ep_lua_pause(lua_State *L, lua_KFunction go_on)
{
    ep_lua_of(L)->run.paused = true;
    return lua_yieldk(L, 0, 0, go_on);
}

void ep_lua_charge_arguments(lua_State *L, int from)
{
    uint64_t n = 0;

    for (int i = lua_gettop(L); i >= from; i--)
        if (lua_type(L, i) == LUA_TSTRING)
            n += lua_rawlen(L, i) / 16;
    if (n)
        ep_lua_charge(L, n);
}

/* --- runs --- */

void ep_lua_begin(struct ep_lua *l, const struct ep_lua_budget *b, uint64_t now_ns, struct ep_lua_run *saved)
{
    size_t room = EP_LUA_STATE_BYTES_MAX > l->bytes ? EP_LUA_STATE_BYTES_MAX - l->bytes : 0;

    saved->active = l->run.active;
    if (EP_UNLIKELY(saved->active))
        *saved = l->run; /* it goes on when this one has ended */
    else
        l->run.stack = __builtin_frame_address(0);
    l->run.active = true;
    l->run.overrun = EP_LUA_FITS;
    l->run.instructions = l->run.unclocked = 0;
    l->run.started_ns = now_ns;
    l->run.refused = l->run.paused = false;
    l->run.owner = l->next_owner;
    l->run.made_before = l->owners[l->run.owner].made;
    l->next_owner = 0;
    l->run.instructions_max = b->instructions;
    l->run.bytes_before = l->bytes;
    l->run.bytes_max = l->bytes + EP_MIN(b->memory, room);
    l->run.table_max = b == &ep_lua_budget_load ? EP_LUA_TABLE_BYTES_MAX : SIZE_MAX;
    l->run.deadline_ns = now_ns + b->time_ns;
    l->run.pause_ns = UINT64_MAX;
    l->run.top = NULL;
}

static void collect(struct ep_lua *l, uint64_t started_ns)
{
    uint64_t now = ep_clock_ns();

    ep_lua_collect(l, now > started_ns ? now - started_ns : 0);
    ep_lua_pause_collect(l);
}

void ep_lua_end(struct ep_lua *l, const struct ep_lua_run *saved)
{
    uint64_t started_ns = l->run.started_ns;

    l->spent_instructions = l->run.instructions;
    l->spent_bytes = (int64_t)l->bytes - (int64_t)l->run.bytes_before;
    l->ended_owner = l->run.owner;
    l->ended_made = l->owners[l->run.owner].made - l->run.made_before;
    if (l->ended_made > SIZE_MAX / 2)
        l->ended_made = 0; /* more of the old went */
    if (EP_UNLIKELY(saved->active)) {
        l->run = *saved;
    } else {
        l->run.active = false;
        l->run.owner = 0; /* the host's, again */
        l->run.overrun = EP_LUA_FITS;
        l->run.top = NULL;
    }
    if (EP_UNLIKELY(l->bytes >= l->collect_at) && !saved->active && !l->renewing)
        collect(l, started_ns);
    if (l->memory_cell) {
        ep_cell_add(l->memory_cell, l->bytes - l->memory_told);
        l->memory_told = l->bytes;
    }
}

static enum ep_lua_status judge(struct ep_lua *l, int rc)
{
    if (rc == LUA_OK)
        return EP_LUA_OK;
    if (rc == LUA_YIELD)
        return l->run.paused ? EP_LUA_PAUSED : EP_LUA_YIELDED;
    if (rc == LUA_ERRMEM && l->run.overrun == EP_LUA_FITS)
        l->run.overrun = EP_LUA_MEMORY;
    if (l->run.overrun == EP_LUA_FITS)
        return EP_LUA_ERROR;
    return EP_LUA_OVERRUN;
}

/* L is what runs from now on. Returns what ran before. */
static lua_State *enter(struct ep_lua *l, lua_State *L)
{
    lua_State *before = l->running;

    l->running = L;
    if (EP_UNLIKELY(lua_gethookcount(L) != l->tick))
        ep_lua_set_hook(L);
    return before;
}

enum ep_lua_status ep_lua_call(struct ep_lua *l, lua_State *L, int n_args, int n_results, const struct ep_lua_budget *b,
                               uint64_t now_ns)
{
    struct ep_lua_run saved;
    enum ep_lua_status status;
    lua_State *before;

    ep_lua_begin(l, b, now_ns, &saved);
    before = enter(l, L);
    status = judge(l, lua_pcall(L, n_args, n_results, 0));
    l->running = before;
    if (status == EP_LUA_OVERRUN && lua_type(L, -1) == LUA_TSTRING &&
        (l->run.overrun == EP_LUA_MEMORY || l->run.overrun == EP_LUA_TABLE)) {
        l->run.active = false; /* Lua's own text says less than ours; there is room again now */
        lua_pop(L, 1);
        lua_pushstring(L, overrun_text(l->run.overrun));
    }
    ep_lua_end(l, &saved);
    return status;
}

/* Until when a run may go on. All runs of a turn share the slice of the first, but for a little that each gets: so those of
 * many requests that come at once hold the loop no longer than one. */
static uint64_t pause_at(struct ep_lua *l, uint64_t now_ns, uint64_t slice_ns)
{
    if (l->turn_ns != l->worker->now_ns) {
        l->turn_ns = l->worker->now_ns;
        l->turn_began_ns = now_ns;
    }
    return EP_MAX(l->turn_began_ns + slice_ns, now_ns + EP_MIN(slice_ns, EP_LUA_SLICE_NS_MIN));
}

enum ep_lua_status ep_lua_resume(struct ep_lua *l, lua_State *L, int n_args, int *n_results,
                                 const struct ep_lua_budget *b, uint64_t now_ns)
{
    struct ep_lua_run saved;
    enum ep_lua_status status;
    lua_State *before;

    ep_lua_begin(l, b, now_ns, &saved);
    if (b->slice_ns) {
        l->run.pause_ns = pause_at(l, now_ns, b->slice_ns);
        l->run.top = L;
    }
    before = enter(l, L);
    status = judge(l, lua_resume(L, NULL, n_args, n_results));
    l->running = before;
    if (status == EP_LUA_OVERRUN)
        lua_sethook(L, NULL, 0, 0); /* marks it: it can't be used again */
    ep_lua_end(l, &saved);
    return status;
}

/* --- coroutines of scripts --- */

void ep_lua_caught(lua_State *L, int status)
{
    struct ep_lua *l = ep_lua_of(L);

    l->running = L;
    if (status == LUA_ERRMEM && l->run.active && l->run.overrun == EP_LUA_FITS)
        l->run.overrun = EP_LUA_MEMORY;
    ep_lua_check(L);
}

/* Lua 5.4.4 counts C calls by thread when it closes one in another's __close, so by the thousand they would go through
 * the end of the stack. */
static void check_stack(lua_State *L)
{
    const char *here = __builtin_frame_address(0);

    if (ep_lua_of(L)->run.active && ep_lua_of(L)->run.stack - here > STACK_BYTES_MAX)
        luaL_error(L, "C stack overflow");
}

int ep_lua_coroutine(lua_State *L, lua_State *co, lua_CFunction f)
{
    int n;

    check_stack(L);
    if (co)
        enter(ep_lua_of(L), co);
    n = f(L);
    ep_lua_caught(L, co ? lua_status(co) : LUA_OK);
    return n;
}

int ep_lua_resume_inner(lua_State *L, lua_State *co, int n_args, int *n_results)
{
    struct ep_lua *l = ep_lua_of(L);
    lua_State *top = l->run.top;
    int status;

    if (top)
        l->run.top = may_pause(l, L) ? co : NULL;
    enter(l, co);
    status = lua_resume(co, L, n_args, n_results);
    l->run.top = top;
    ep_lua_caught(L, status);
    return status;
}

bool ep_lua_is_held(lua_State *L, int index)
{
    struct ep_lua *l = ep_lua_of(L);
    bool is;

    if (EP_LIKELY(!l->n_paused))
        return false;
    lua_rawgeti(L, LUA_REGISTRYINDEX, l->held_ref);
    lua_pushvalue(L, index);
    is = lua_rawget(L, -2) == LUA_TBOOLEAN;
    lua_pop(L, 2);
    return is;
}

void ep_lua_hold(lua_State *L, int index, bool held)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, ep_lua_of(L)->held_ref);
    lua_pushvalue(L, index);
    if (held)
        lua_pushboolean(L, true);
    else
        lua_pushnil(L);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

void ep_lua_close_inner(lua_State *L, lua_State *co)
{
    check_stack(L);
    enter(ep_lua_of(L), co);
    ep_lua_caught(L, lua_resetthread(co));
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

static void thread_drop(struct ep_lua *l, int ref)
{
    lua_rawgeti(l->L, LUA_REGISTRYINDEX, ref);
    lua_pushnil(l->L);
    lua_rawset(l->L, LUA_REGISTRYINDEX);
    luaL_unref(l->L, LUA_REGISTRYINDEX, ref);
}

/* It overran: its __close methods can't be run, for no hook would stop them. */
static bool is_dead(lua_State *L)
{
    return !lua_gethook(L);
}

/* A coroutine that was suspended or failed: its pending __close methods are scripts' code, so within a budget. */
void ep_lua_thread_reset(struct ep_lua *l, lua_State *L)
{
    struct ep_lua_run saved;
    lua_State *before;

    if (is_dead(L)) {
        if (L == l->thread) {
            struct ep_lua_thread t = ep_lua_thread_take(l);
            thread_drop(l, l->thread_ref);
            l->thread = t.L;
            l->thread_ref = t.ref;
        }
        return;
    }
    ep_lua_begin(l, &ep_lua_budget_call, ep_clock_ns(), &saved);
    before = enter(l, L);
    lua_resetthread(L);
    l->running = before;
    ep_lua_end(l, &saved);
    lua_settop(L, 0);
}

void ep_lua_thread_give(struct ep_lua *l, struct ep_lua_thread t, bool finished)
{
    if (!finished) /* one that ran to its end is as good as new, and keeps its stack */
        ep_lua_thread_reset(l, t.L);
    if (!is_dead(t.L)) {
        lua_settop(t.L, 0);
        if (l->n_idle < EP_LUA_IDLE_THREADS) {
            l->idle[l->n_idle++] = t;
            return;
        }
    }
    thread_drop(l, t.ref);
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
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    l->held_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_gc(L, LUA_GCINC, 0, 20, 10); /* small steps; docs/performance.md has the figures */
    lua_gc(L, LUA_GCSTOP);           /* it runs when ep_lua_end says so */
    ep_lua_collect_from(l, l->bytes);
    return 0;
}

static int on_panic(lua_State *L)
{
    struct ep_str e = ep_lua_error(L);

    ep_fail("lua", "error outside of a protected call: %.*s", EP_STR_ARG(e));
    return 0; /* Lua aborts */
}

void ep_lua_attach(struct ep_lua *l)
{
    ep_lua_pause_open(l);
    if (!l->worker->stats || l->memory_cell)
        return;
    l->stats = l->worker->stats;
    l->pauses = ep_stats_histogram(l->stats, EP_METRIC_LUA_GC_PAUSE, NULL);
    l->memory_cell = ep_stats_cell(l->worker->stats, EP_METRIC_LUA_MEMORY, NULL);
    ep_cell_add(l->memory_cell, l->bytes);
    l->memory_told = l->bytes;
}

void ep_lua_detach(struct ep_lua *l)
{
    ep_lua_pause_close(l);
    if (l->memory_cell)
        ep_cell_add(l->memory_cell, 0 - (uint64_t)l->memory_told);
    l->memory_cell = NULL;
    l->pauses = NULL;
    l->stats = NULL;
}

struct ep_lua *ep_lua_new(struct ep_worker *w, struct ep_error *err)
{
    struct ep_lua *l = ep_calloc(1, sizeof *l);

    l->worker = w;
    l->refs = 1;
    l->tick = EP_LUA_HOOK_EVERY;
    l->match_steps = EP_LUA_MATCH_STEPS;
    ep_list_init(&l->policy_sets);
    ep_list_init(&l->idle_objects);
    ep_list_init(&l->paused);
    l->owners = ep_calloc(1, sizeof *l->owners);
    l->n_owners = 1;
    l->kept_max = EP_LUA_KEPT_MAX;
    l->L = lua_newstate(ep_lua_allocate, l);
    if (!l->L) {
        free(l->owners);
        free(l);
        ep_error_set(err, "no memory for a Lua state");
        return NULL;
    }
    *(struct ep_lua **)lua_getextraspace(l->L) = l; /* new threads copy it */
    lua_atpanic(l->L, on_panic);
    ep_lua_set_hook(l->L);
    lua_pushcfunction(l->L, set_up);
    if (lua_pcall(l->L, 0, 0, 0) != LUA_OK) {
        struct ep_str e = ep_lua_error(l->L);
        ep_error_set(err, "the Lua state can't be made: %.*s", EP_STR_ARG(e));
        lua_close(l->L);
        free(l->owners);
        free(l);
        return NULL;
    }
    return l;
}

struct ep_lua *ep_lua_ref(struct ep_worker *w, struct ep_error *err)
{
    struct ep_lua *l = w->lua;

    if (l) {
        l->refs++;
        return l;
    }
    l = ep_lua_new(w, err);
    if (!l)
        return NULL;
    ep_lua_attach(l);
    l->shared = true;
    w->lua = l;
    return l;
}

void ep_lua_unref(struct ep_lua *l)
{
    if (--l->refs > 0)
        return;
    assert(ep_list_empty(&l->policy_sets));
    if (l->shared)
        l->worker->lua = NULL;
    ep_lua_detach(l);
    lua_close(l->L);
    free(l->owners);
    free(l);
}
