/* The Lua host: one state a worker, a sandbox, budgets.
 *
 * All scripts of a worker (policies and Envoy-style scripts) share one lua_State, made when the first filter needs it
 * and closed with the last. What keeps them apart is the environment: each script gets a table of its own with copies
 * of the library tables, so that nothing one script changes is seen by another.
 *
 * Every entry into Lua is a run with a budget: instructions (a count hook every EP_LUA_HOOK_EVERY of them, plus what
 * long C functions charge), memory (the allocator says no) and wall time (looked at by the hook, by large allocations
 * and by charges). A run that is over budget can't be caught by the script: pcall and coroutine.resume raise it again,
 * and the hook then fires at each instruction. Afterwards the state is as sound as before, since lua_pcall unwound it.
 * A coroutine that a hook's error killed is never used again: Lua 5.4 leaves its hooks off for ever.
 *
 * A run whose budget has a slice pauses by itself when it has run for so long: the hook yields, the loop serves others,
 * and the run goes on a turn later with what is left of its budget (pause.c). Coroutines pause with those that resumed
 * them, and a pattern pauses in the midst of its match (match.h); other functions of C are over first. It can't where such
 * a function stands between it and the loop: in the comparison of a sort, in a metamethod that C called.
 *
 * The collector is Lua's incremental one, and runs between runs only, in slices of 0.2 to 0.5 ms and one step of
 * Lua's (docs/performance.md has what was measured): as long as the run was, longer when garbage piles up, and a turn
 * later when that wasn't enough. What Lua doesn't divide is the traversal of one table and the end of marking, which
 * traverses again each table that was written to meanwhile. So tables are bounded when scripts are loaded, and so is what
 * scripts keep between calls: each block says whose it is, and at the end of a cycle it is known who keeps how much. Who
 * keeps too much begins anew: its file is run again, and what it kept is garbage.
 *
 * Inside of a run it would call the finalizers of the library's buffers at the limit of memory or of the C stack, where
 * they fail, and what they should have freed is lost for ever. Only a run that reaches its limit of memory makes Lua
 * collect everything at once, which calls no finalizer.
 *
 * One instruction takes long on a huge string ("  …1" | 1 reads it all), and so would a thousand of them between two
 * hooks. So the allocator knows how large the largest block is, and the hook comes as often as that asks for.
 *
 * What must not be there, and why: io, package, debug and load reach out of the sandbox; __gc runs with hooks off;
 * xpcall's handler runs inside the hook; coroutine.running would hand out the host's own threads; string.rep and the
 * pattern functions of the standard library loop in C without a limit, so they are our own (pattern.c, sandbox.c). */
#ifndef EP_LUA_HOST_H
#define EP_LUA_HOST_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "net/worker.h"

#define EP_LUA_HOOK_EVERY      1000
#define EP_LUA_STATE_BYTES_MAX ((size_t)64 << 20) /* of one worker's state, all scripts together */
#define EP_LUA_FILE_BYTES_MAX  ((size_t)1 << 20)
#define EP_LUA_IDLE_THREADS    64
#define EP_LUA_MATCH_STEPS     2048 /* of a pattern, between two looks at the budget and the clock */
#define EP_LUA_LOG_COST        1000 /* instructions: a line that is written */
#define EP_LUA_BIG_BYTES       ((size_t)16 << 10) /* strings from here on make the hook come more often */
#define EP_LUA_BIG_CLASSES     16
#define EP_LUA_KEPT_MAX        ((size_t)1 << 20) /* of all scripts of a state, between calls, unless the configuration says */
#define EP_LUA_TABLE_BYTES_MAX ((size_t)1 << 20) /* of one table's array or hash (or a text that is put together), when loaded */
#define EP_LUA_SLICE_NS        (100 * EP_US)
#define EP_LUA_SLICE_NS_MIN    (20 * EP_US) /* of a run that begins in a turn in which others have used a slice up */
#define EP_LUA_PAUSED_MAX      64u /* runs at once; others then run to their end, or to that of their budget */
#define EP_LUA_PAUSE_BYTES_MAX ((size_t)16 << 20) /* of the state; the same */

struct ep_lua_budget {
    uint64_t instructions;
    uint64_t memory; /* bytes more than at the start */
    uint64_t time_ns;
    uint64_t slice_ns; /* it pauses after so long, or sooner when others ran in this turn; 0: never. Only of ep_lua_resume */
};
extern const struct ep_lua_budget ep_lua_budget_call; /* of one call, when the configuration says nothing */
extern const struct ep_lua_budget ep_lua_budget_load; /* of a script's top level */
extern const struct ep_lua_budget ep_lua_budget_renew; /* of the same, between two calls */

enum ep_lua_overrun { EP_LUA_FITS, EP_LUA_INSTRUCTIONS, EP_LUA_MEMORY, EP_LUA_TABLE, EP_LUA_TIME };

struct ep_lua_run {
    bool active;
    enum ep_lua_overrun overrun;
    uint64_t instructions, instructions_max;
    uint64_t started_ns;
    const char *stack; /* the C stack's end when the outermost run began */
    uint64_t unclocked; /* charged since the clock was last looked at */
    size_t bytes_before, bytes_max; /* of the state */
    size_t table_max;   /* of one block that is no string */
    uint32_t owner;     /* of what it makes */
    size_t made_before; /* by the owner */
    bool refused;       /* the allocator said no, and Lua has collected its garbage since */
    bool paused;
    uint64_t deadline_ns, pause_ns;
    lua_State *top;     /* the thread that may pause, with those that resumed it; NULL: none may */
};

/* PAUSED: by itself, after a slice; EP_LUA_YIELDED: it wanted to. */
enum ep_lua_status { EP_LUA_OK, EP_LUA_YIELDED, EP_LUA_PAUSED, EP_LUA_ERROR, EP_LUA_OVERRUN };

/* Runs the owner's files anew and lets go of what it had. Between runs. */
typedef void ep_lua_renew(void *user);

/* Whose blocks are whose. Number 0 is the host, and whoever has no number. */
struct ep_lua_owner {
    struct ep_str name;
    ep_lua_renew *renew; /* NULL: the number is free */
    void *user;
    size_t bytes;        /* garbage included */
    size_t made;         /* but by the collector, in two's complement */
    size_t made_before;  /* when the cycle began */
    size_t loaded;       /* after it was loaded; SIZE_MAX: not known yet */
    size_t held;         /* at most, made by runs that wait */
    bool whole;          /* it was loaded when the cycle began */
    size_t kept;         /* by the end of the last cycle, beyond what it loaded */
};

struct ep_policy_bundle;
struct ep_policy_set;
struct ep_policy_object;

struct ep_lua_thread {
    lua_State *L;
    int ref;
};

struct ep_lua {
    lua_State *L;      /* the main thread: set-up and references only */
    lua_State *thread; /* where policies are called; one that waits keeps it, and another takes its place */
    int thread_ref;
    lua_State *running; /* the coroutine that runs now; NULL: none */
    struct ep_worker *worker;
    unsigned refs;
    bool shared; /* it is the worker's own, of ep_lua_ref */
    size_t bytes; /* live in the state */
    struct ep_lua_owner *owners;
    uint32_t n_owners;
    uint32_t next_owner;     /* of the run that begins next */
    size_t kept_max;
    size_t live;             /* by the end of the last cycle */
    size_t collect_at;       /* bytes from which on garbage is collected */
    bool in_cycle;           /* of the collector */
    bool collecting;         /* what is freed now is freed by it */
    bool emergency;          /* … since the allocator said no */
    bool renewing;           /* a file is run anew */
    uint32_t ended_owner;    /* of the run that ended last */
    size_t ended_made;       /* by it, and not freed by itself */
    uint64_t pause_longest_ns; /* of the collector */
    struct ep_histogram *pauses; /* EP_METRIC_LUA_GC_PAUSE; NULL without statistics */
    struct ep_stats *stats;      /* once it is attached; NULL without */
    int tick;     /* instructions between two hooks */
    unsigned match_steps; /* EP_LUA_MATCH_STEPS; fewer in tests */
    uint32_t big[EP_LUA_BIG_CLASSES]; /* live blocks by log2 of their weight */
    struct ep_lua_run run;
    uint64_t *memory_cell; /* EP_METRIC_LUA_MEMORY, of all states of the worker; NULL without statistics */
    size_t memory_told;    /* our part of it */
    struct ep_policy_bundle *bundle; /* where the text of policies is, and of what they require; NULL: on the disk */
    int prototype_ref;     /* the library tables that environments copy */
    struct ep_policy_object *object; /* the policies' `c`: of the one that runs, else of the next */
    struct ep_list idle_objects;
    unsigned n_idle_objects, n_waiting; /* waiting: policies (wait.c) */
    uint64_t spent_instructions;        /* of the run that ended last */
    int64_t spent_bytes;                /* the same: how many more there are than before */
    struct ep_list paused;              /* struct ep_lua_pause, who waits longest first */
    unsigned n_paused;
    int held_ref; /* the coroutines of scripts that paused with their run, which no other run may resume */
    struct ep_task turn;
    uint64_t turn_ns, turn_began_ns; /* the worker's time, by which a turn is known; when its first run began */
    struct ep_lua_thread idle[EP_LUA_IDLE_THREADS];
    unsigned n_idle;
    struct ep_list policy_sets;
    struct ep_policy_set *loading; /* whose files are being run */
    void *test;                    /* of `ephor test`; NULL in the proxy */
    lua_CFunction test_native;     /* makes ephor.native.test, when there is a test */
    uint64_t test_wall_ns;         /* its clock, which stands still until a test moves it; 0: the world's */
    lua_Hook on_line;              /* its coverage; NULL: lines are nobody's concern */
    void *lines;                   /* what on_line fills */
};

/* The state of this worker with one more reference, made when there is none. NULL with err. */
struct ep_lua *ep_lua_ref(struct ep_worker *w, struct ep_error *err);
void ep_lua_unref(struct ep_lua *l);
/* A state of its own, that no other script shares; any thread may make and fill it. NULL with err. */
struct ep_lua *ep_lua_new(struct ep_worker *w, struct ep_error *err);
/* From here on, in the worker, its memory counts; and no longer, so that another thread may free it. */
void ep_lua_attach(struct ep_lua *l);
void ep_lua_detach(struct ep_lua *l);

static inline struct ep_lua *ep_lua_of(lua_State *L)
{
    return *(struct ep_lua **)lua_getextraspace(L);
}

/* The time that scripts see, and the one by which what they keep grows old: the world's, or that of a test. */
static inline uint64_t ep_lua_wall_ns(const struct ep_lua *l)
{
    return EP_UNLIKELY(l->test_wall_ns) ? l->test_wall_ns : ep_clock_wall_ns();
}
static inline uint64_t ep_lua_clock_ns(const struct ep_lua *l)
{
    return EP_UNLIKELY(l->test_wall_ns) ? l->test_wall_ns : ep_clock_ns();
}
/* Calls `on_line` at each new line of each thread; NULL: no more. For coverage: it makes Lua slow. */
void ep_lua_watch_lines(struct ep_lua *l, lua_Hook on_line);

/* --- heap.c --- */
void *ep_lua_allocate(void *lua, void *p, size_t old, size_t n);
/* A number for what is made in runs that ep_lua_charge_to says are its own; `name` as long as it has the number. */
uint32_t ep_lua_owner_new(struct ep_lua *l, struct ep_str name, ep_lua_renew *renew, void *user);
void ep_lua_owner_free(struct ep_lua *l, uint32_t owner);
static inline void ep_lua_charge_to(struct ep_lua *l, uint32_t owner) /* the run that begins next */
{
    l->next_owner = owner;
}
/* A slice of the collector's work; `ran_ns`: how long the run before it took. */
void ep_lua_collect(struct ep_lua *l, uint64_t ran_ns);
/* All of it, when scripts were loaded and nobody waits. */
void ep_lua_collect_all(struct ep_lua *l);
/* The next cycle begins when there is about twice as much. */
void ep_lua_collect_from(struct ep_lua *l, size_t live);

/* --- pause.c: runs that pause, and what the collector didn't get done --- */
struct ep_lua_pause {
    struct ep_list node;
    void (*go_on)(struct ep_lua_pause *p); /* in a later turn */
};
void ep_lua_pause_open(struct ep_lua *l);
void ep_lua_pause_close(struct ep_lua *l); /* in the worker */
/* EP_LUA_PAUSED: queues up for another slice. */
void ep_lua_pause_add(struct ep_lua *l, struct ep_lua_pause *p);
void ep_lua_pause_drop(struct ep_lua *l, struct ep_lua_pause *p); /* harmless when it isn't queued */
/* The collector is behind: it gets another slice in the next turn. */
void ep_lua_pause_collect(struct ep_lua *l);
/* What is left of a budget after the run that ended last, which took `ns`. `paused`: memory too is what is left; for one
 * that waits it is whole again. */
void ep_lua_spend(const struct ep_lua *l, struct ep_lua_budget *left, const struct ep_lua_budget *whole, bool paused,
                  uint64_t ns);

void ep_lua_set_hook(lua_State *L); /* a count, and each line when somebody wants to know of them */

/* Starts a run; what ran before (a test that calls a policy) is kept in `saved` and comes back with the end. */
void ep_lua_begin(struct ep_lua *l, const struct ep_lua_budget *b, uint64_t now_ns, struct ep_lua_run *saved);
void ep_lua_end(struct ep_lua *l, const struct ep_lua_run *saved);

/* lua_pcall under a budget. With an error the message is the one value on the stack. */
enum ep_lua_status ep_lua_call(struct ep_lua *l, lua_State *L, int n_args, int n_results, const struct ep_lua_budget *b,
                               uint64_t now_ns);
/* lua_resume of a pooled thread. EP_LUA_YIELDED: *n_results values are on top. */
enum ep_lua_status ep_lua_resume(struct ep_lua *l, lua_State *L, int n_args, int *n_results,
                                 const struct ep_lua_budget *b, uint64_t now_ns);
/* The error on top of the stack as text; valid as long as it stays there. */
struct ep_str ep_lua_error(lua_State *L);

/* Runs f, which resumes or closes `co` (NULL: f will say so), with the books in order. */
int ep_lua_coroutine(lua_State *L, lua_State *co, lua_CFunction f);
/* lua_resume of a script's coroutine out of L, with the books in order. LUA_YIELD with run.paused: L must pause too, and
 * resume it again. */
int ep_lua_resume_inner(lua_State *L, lua_State *co, int n_args, int *n_results);
/* The coroutine at `index` has paused with a run that goes on later. */
bool ep_lua_is_held(lua_State *L, int index);
void ep_lua_hold(lua_State *L, int index, bool held);
/* Closes a coroutine that failed; an error is left on its stack. */
void ep_lua_close_inner(lua_State *L, lua_State *co);
/* After a protected call in L that may have failed: L runs again; a memory error is an overrun. Raises overruns. */
void ep_lua_caught(lua_State *L, int status);

/* Makes a thread that failed or was suspended as good as new, stack included. One that overran can't be: l->thread is
 * another then, any other is marked for ep_lua_thread_give; nothing may be popped from it any more. */
void ep_lua_thread_reset(struct ep_lua *l, lua_State *L);
/* A fresh thread from the pool, and back; `finished`: what it ran came to its end, without an error. */
struct ep_lua_thread ep_lua_thread_take(struct ep_lua *l);
void ep_lua_thread_give(struct ep_lua *l, struct ep_lua_thread t, bool finished);
/* True for the host's own threads, as opposed to coroutines of scripts. */
bool ep_lua_is_host_thread(struct ep_lua *l, lua_State *L);

/* For C functions that loop: n more instructions are spent. Raises when that is too many, or time is up. */
void ep_lua_charge(lua_State *L, uint64_t n);
/* For C functions that make numbers out of any number of arguments: strings are charged by their length. */
void ep_lua_charge_arguments(lua_State *L, int from);
/* Whether the slice is over and this is a place to pause: then a C function that can go on later leaves by
 * `return ep_lua_pause(L, go_on)`, and go_on is called in its place, with its stack as it was. */
bool ep_lua_slice_over(lua_State *L);
int ep_lua_pause(lua_State *L, lua_KFunction go_on);
/* Raises the overrun again when there is one; else does nothing. */
void ep_lua_check(lua_State *L);

/* --- sandbox.c --- */
enum ep_lua_dialect { EP_LUA_POLICY, EP_LUA_ENVOY };
/* Makes the prototype of all environments, once a state. Runs in protected mode. */
void ep_lua_sandbox_open(lua_State *L);
/* Pushes a new environment. `directory` is where `require` looks for files; NULL: nowhere. In protected mode. */
void ep_lua_env_push(lua_State *L, enum ep_lua_dialect dialect, const char *directory);
/* Compiles text (never bytecode) into a function whose environment is the table at `env`. Pushes it, or raises. */
void ep_lua_compile(lua_State *L, struct ep_str text, const char *chunk, int env);
/* Reads a file into a string on the stack, or raises with the system's reason. */
void ep_lua_read_file(lua_State *L, const char *path);
/* shim51.c: what Lua 5.1 had, for scripts written for Envoy; the environment is on top. */
void ep_lua_shim51(lua_State *L);

/* --- pattern.c: find, match, gmatch, gsub into the table on top --- */
void ep_lua_pattern_open(lua_State *L);
/* The first match of at least one byte at or after `from`. Charges, and raises for a pattern that is malformed. */
bool ep_lua_pattern_find(lua_State *L, struct ep_str s, struct ep_str pattern, size_t from, size_t *begin, size_t *end);

/* --- json.c --- */
/* Pushes the value. Raises when it is no JSON, nested deeper than 64, or an object has a key twice. */
void ep_lua_json_decode(lua_State *L, struct ep_str text);
/* Pushes the text of the value at `index`. Raises for what JSON can't say. */
void ep_lua_json_encode(lua_State *L, int index);
int ep_lua_json_native(lua_State *L); /* pushes {decode, encode, null, array} */

/* --- values.c: what both kinds of scripts share --- */
static inline void ep_lua_push(lua_State *L, struct ep_str s)
{
    lua_pushlstring(L, s.n ? s.p : "", s.n);
}
static inline void ep_lua_push_or_nil(lua_State *L, struct ep_str s)
{
    if (s.n)
        lua_pushlstring(L, s.p, s.n);
    else
        lua_pushnil(L);
}
struct ep_str ep_lua_check_str(lua_State *L, int index);
/* A string, or a number written without ".0"; valid while the stack holds it. */
struct ep_str ep_lua_check_text(lua_State *L, int index);
struct ep_headers;
/* All values of that name, joined by commas (cookies by "; "); nil when absent. `name` may be of mixed case. */
void ep_lua_push_header(lua_State *L, const struct ep_headers *h, struct ep_str name);
/* A metatable that scripts can neither see nor change: methods are looked up in `methods`. Left on the stack. */
void ep_lua_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta);

#endif
