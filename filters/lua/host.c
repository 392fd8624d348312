/* The state of a worker: its allocator, its hook, its runs and its pool of threads. host.h has the design. */
#include "lua/host.h"

#include <stdio.h>
#include <stdlib.h>

#include "lua/object.h"
#include "observe/observe.h"

#define COLLECT_BYTES_MIN ((size_t)256 << 10)
#define COLLECT_BYTES_MAX ((size_t)8 << 20)
#define COLLECT_HURRY     ((size_t)1 << 20)  /* so far above `collect_at` a slice is as long as may be */
#define COLLECT_PRESSED   ((size_t)16 << 20) /* garbage is made faster than collected: the rest of the cycle at once */
#define SLICE_NS_MIN      (200 * EP_US)
#define SLICE_NS_MAX      (600 * EP_US) /* and then one step, which Lua may not divide: docs/performance.md */
#define STACK_BYTES_MAX   (1 << 20)
#define CLOCKED_BYTES     4096u /* allocations from here on look at the clock: copying them takes time */

const struct ep_lua_budget ep_lua_budget_call = {200000, 1 << 20, 5 * EP_MS};
const struct ep_lua_budget ep_lua_budget_load = {20000000, 16 << 20, 2 * EP_S};

static void set_hook(lua_State *L);

/* --- memory --- */

/* Blocks of EP_LUA_BIG_BYTES and more have this in front. */
struct big {
    _Alignas(16) int class; /* -1: too light to matter */
};

/* A conversion or comparison of a string costs about 1.5 ns a byte, a walk over an emptied table 1 ns for 40 bytes. */
static int class_of(size_t n, bool string)
{
    size_t weight = string ? n : n / 64;

    if (weight < EP_LUA_BIG_BYTES)
        return -1;
    return EP_MIN(__builtin_clzll(EP_LUA_BIG_BYTES) - __builtin_clzll(weight), EP_LUA_BIG_CLASSES - 1);
}

/* Hooks come so often that what lies between two of them takes about 2 ms at most. */
static void set_tick(struct ep_lua *l)
{
    int class = EP_LUA_BIG_CLASSES - 1;

    while (class >= 0 && !l->big[class])
        class--;
    l->tick = class < 0 ? EP_LUA_HOOK_EVERY : EP_MAX(64 >> class, 1);
}

static void count_big(struct ep_lua *l, int class, int more)
{
    if (class < 0)
        return;
    l->big[class] += (uint32_t)more;
    set_tick(l);
    if (l->running && l->run.active && lua_gethookcount(l->running) > l->tick)
        set_hook(l->running);
}

/* `kind` is Lua's when the block is new. Lua relies on a block that gets smaller never to fail. */
static void *resize(struct ep_lua *l, void *p, size_t old, size_t n, bool string)
{
    struct big *b = p && old >= EP_LUA_BIG_BYTES ? (struct big *)p - 1 : NULL;
    void *base = b ? b : p;
    int class = class_of(n, string);

    if (EP_UNLIKELY(b))
        count_big(l, b->class, -1);
    if (n == 0) {
        free(base);
        return NULL;
    }
    if (EP_LIKELY(!b && n < EP_LUA_BIG_BYTES))
        return realloc(p, n);
    if (b && n < EP_LUA_BIG_BYTES) {
        memmove(base, p, n);
        void *smaller = realloc(base, n);
        return smaller ? smaller : base;
    }
    struct big *bigger = realloc(base, sizeof *bigger + n);
    if (!bigger) {
        if (b)
            count_big(l, b->class, 1);
        return b && n <= old ? p : NULL;
    }
    if (!b && p)
        memmove(bigger + 1, bigger, old);
    bigger->class = class;
    count_big(l, class, 1);
    return bigger + 1;
}

/* Lua answers a first no by a collection of all its garbage, and asks once more; a second is an overrun, whatever
 * Lua makes of it. */
static bool fits(struct ep_lua *l, size_t more)
{
    struct ep_lua_run *r = &l->run;

    if (more > r->bytes_max || l->bytes > r->bytes_max - more) {
        if (r->refused && r->overrun == EP_LUA_FITS)
            r->overrun = EP_LUA_MEMORY;
        r->refused = true;
        return false;
    }
    r->refused = false;
    if (more >= CLOCKED_BYTES && ep_clock_ns() > r->deadline_ns) {
        if (r->overrun == EP_LUA_FITS)
            r->overrun = EP_LUA_TIME;
        return false;
    }
    return true;
}

static void *allocate(void *ud, void *p, size_t old, size_t n)
{
    struct ep_lua *l = ud;
    bool string = !p && old == LUA_TSTRING; /* Lua says the kind of a new object there */

    if (!p)
        old = 0;
    if (n > old && l->run.active && !fits(l, n - old))
        return NULL;
    void *q = resize(l, p, old, n, string);
    if (q || n == 0)
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
    if (every != l->tick) /* strings came and went, or a coroutine outlived an overrun */
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
    r->unclocked = n > UINT64_MAX - r->unclocked ? UINT64_MAX : r->unclocked + n;
    if (r->instructions > r->instructions_max) {
        r->overrun = EP_LUA_INSTRUCTIONS;
    } else if (r->unclocked >= EP_LUA_HOOK_EVERY) {
        r->unclocked = 0;
        if (ep_clock_ns() > r->deadline_ns)
            r->overrun = EP_LUA_TIME;
    }
    if (r->overrun != EP_LUA_FITS)
        raise_overrun(L, 1);
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

    *saved = l->run;
    if (!l->run.active)
        l->run.stack = __builtin_frame_address(0);
    l->run.active = true;
    l->run.overrun = EP_LUA_FITS;
    l->run.instructions = l->run.unclocked = 0;
    l->run.started_ns = now_ns;
    l->run.refused = false;
    l->run.instructions_max = b->instructions;
    l->run.bytes_max = l->bytes + EP_MIN(b->memory, room);
    l->run.deadline_ns = now_ns + b->time_ns;
}

/* The next cycle begins when about as much garbage was made as is live. What was made during a cycle says nothing of
 * that: with it, each cycle would begin later than the one before. */
static void set_collect_at(struct ep_lua *l, size_t live)
{
    l->collect_at = live + EP_MIN(EP_MAX(live, COLLECT_BYTES_MIN), COLLECT_BYTES_MAX);
    l->cycle_bytes = l->cycle_freed = 0;
}

/* A slice of the collector's work: as long as the run that began at `started_ns`, longer when garbage piles up. */
static void collect(struct ep_lua *l, uint64_t started_ns)
{
    size_t before = l->bytes, debt = before - l->collect_at;
    uint64_t start = ep_clock_ns(), ran = start > started_ns ? start - started_ns : 0, now;
    uint64_t long_ns = EP_MAX(ran, SLICE_NS_MIN + (SLICE_NS_MAX - SLICE_NS_MIN) * debt / COLLECT_HURRY);
    uint64_t end = start + EP_MIN(long_ns, SLICE_NS_MAX);
    bool done;

    if (l->cycle_bytes == 0)
        l->cycle_bytes = before;
    do {
        done = lua_gc(l->L, LUA_GCSTEP, 0);
        now = ep_clock_ns();
    } while (!done && (debt > COLLECT_PRESSED || now < end));
    l->cycle_freed += before > l->bytes ? before - l->bytes : 0;
    if (done)
        set_collect_at(l, EP_MIN(l->bytes, l->cycle_bytes > l->cycle_freed ? l->cycle_bytes - l->cycle_freed : 0));
    l->pause_longest_ns = EP_MAX(l->pause_longest_ns, now - start);
}

void ep_lua_end(struct ep_lua *l, const struct ep_lua_run *saved)
{
    uint64_t started_ns = l->run.started_ns;

    l->spent_instructions = l->run.instructions;
    l->run = *saved;
    if (EP_UNLIKELY(l->bytes >= l->collect_at) && !saved->active)
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
        return EP_LUA_YIELDED;
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
        set_hook(L);
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
    lua_State *before;

    ep_lua_begin(l, b, now_ns, &saved);
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
    int status;

    enter(ep_lua_of(L), co);
    status = lua_resume(co, L, n_args, n_results);
    ep_lua_caught(L, status);
    return status;
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
    lua_gc(L, LUA_GCINC, 0, 20, 10); /* small steps; docs/performance.md has the figures */
    lua_gc(L, LUA_GCSTOP);           /* it runs when `collect` says so */
    set_collect_at(l, l->bytes);
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
    if (!l->worker->stats || l->memory_cell)
        return;
    l->memory_cell = ep_stats_cell(l->worker->stats, EP_METRIC_LUA_MEMORY, NULL);
    ep_cell_add(l->memory_cell, l->bytes);
    l->memory_told = l->bytes;
}

void ep_lua_detach(struct ep_lua *l)
{
    if (l->memory_cell)
        ep_cell_add(l->memory_cell, 0 - (uint64_t)l->memory_told);
    l->memory_cell = NULL;
}

struct ep_lua *ep_lua_new(struct ep_worker *w, struct ep_error *err)
{
    struct ep_lua *l = ep_calloc(1, sizeof *l);

    l->worker = w;
    l->refs = 1;
    l->tick = EP_LUA_HOOK_EVERY;
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
    free(l);
}
