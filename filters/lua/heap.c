/* The heap of a worker's state: the allocator, whose a block is, and the collector. host.h has the design. */
#include "lua/host.h"

#include <stdlib.h>

#include "observe/observe.h"

#define COLLECT_BYTES_MIN ((size_t)256 << 10)
#define COLLECT_BYTES_MAX ((size_t)8 << 20)
#define COLLECT_HURRY     ((size_t)1 << 20)  /* so far above `collect_at` a slice is as long as may be */
#define COLLECT_PRESSED   ((size_t)16 << 20) /* garbage is made faster than collected: slices as long as the runs */
#define SLICE_NS_MIN      (200 * EP_US)
#define SLICE_NS_MAX      (500 * EP_US) /* and then one step, which Lua may not divide: docs/performance.md */
#define CLOCKED_BYTES     4096u /* allocations from here on look at the clock: copying them takes time */

/* In front of each block. Lua asks for the alignment of its own types, which is 8. */
struct block {
    uint32_t owner;
    int32_t class; /* -1: too light to matter */
};

/* --- the allocator --- */

/* A conversion or comparison of a string costs about 1.5 ns a byte, a walk over an emptied table 1 ns for 40 bytes. */
static int class_of(size_t n, bool string)
{
    size_t weight = string ? n : n / 64;

    if (weight < EP_LUA_BIG_BYTES)
        return -1;
    return EP_MIN(__builtin_clzll(EP_LUA_BIG_BYTES) - __builtin_clzll(weight), EP_LUA_BIG_CLASSES - 1);
}

/* Hooks come so often that what lies between two of them takes about 0.5 ms at most, or one instruction. */
static void set_tick(struct ep_lua *l)
{
    int class = EP_LUA_BIG_CLASSES - 1;

    while (class >= 0 && !l->big[class])
        class--;
    l->tick = class < 0 ? EP_LUA_HOOK_EVERY : EP_MAX(16 >> class, 1);
}

static void count_big(struct ep_lua *l, int before, int after)
{
    if (before == after)
        return;
    if (before >= 0)
        l->big[before]--;
    if (after >= 0)
        l->big[after]++;
    set_tick(l);
    if (l->running && l->run.active && lua_gethookcount(l->running) > l->tick)
        ep_lua_set_hook(l->running);
}

/* Lua answers a first no by a collection of all its garbage, and asks once more; a second is an overrun, whatever
 * Lua makes of it. */
static bool fits(struct ep_lua *l, size_t n, size_t more, bool string)
{
    struct ep_lua_run *r = &l->run;

    if (more > r->bytes_max || l->bytes > r->bytes_max - more || (n > r->table_max && !string)) {
        if (r->refused && r->overrun == EP_LUA_FITS)
            r->overrun = n > r->table_max && !string ? EP_LUA_TABLE : EP_LUA_MEMORY;
        r->refused = true;
        l->emergency = !r->overrun;
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

static void account(struct ep_lua *l, uint32_t owner, size_t old, size_t n)
{
    struct ep_lua_owner *o = &l->owners[owner];

    l->bytes += n - old;
    o->bytes += n - old;
    if (!l->collecting && !l->emergency)
        o->made += n - old;
}

/* Lua relies on a block that gets smaller never to fail. */
void *ep_lua_allocate(void *ud, void *p, size_t old, size_t n)
{
    struct ep_lua *l = ud;
    struct block *b = p ? (struct block *)p - 1 : NULL, *moved;
    bool string = !p && old == LUA_TSTRING; /* Lua says the kind of a new object there */
    struct block head = b ? *b : (struct block){l->run.owner, -1};
    int class;

    if (!p)
        old = 0;
    if (n == 0) {
        if (!b)
            return NULL;
        if (EP_UNLIKELY(head.class >= 0))
            count_big(l, head.class, -1);
        account(l, head.owner, old, 0);
        free(b);
        return NULL;
    }
    if (n > old) {
        l->emergency = false; /* Lua asks again, or it has been told no before */
        if (l->run.active && !fits(l, n, n - old, string))
            return NULL;
    }
    moved = realloc(b, sizeof *b + n);
    if (!moved && n > old)
        return NULL;
    b = moved ? moved : b;
    class = EP_UNLIKELY(n >= EP_LUA_BIG_BYTES) ? class_of(n, string) : -1;
    b->owner = head.owner;
    b->class = class;
    if (EP_UNLIKELY(class != head.class))
        count_big(l, head.class, class);
    account(l, head.owner, old, n);
    return b + 1;
}

/* --- owners --- */

uint32_t ep_lua_owner_new(struct ep_lua *l, struct ep_str name, ep_lua_renew *renew, void *user)
{
    uint32_t i = 1;

    while (i < l->n_owners && (l->owners[i].renew || l->owners[i].bytes))
        i++;
    if (i >= l->n_owners) {
        l->owners = ep_realloc(l->owners, (i + 1) * sizeof *l->owners);
        l->n_owners = i + 1;
    }
    l->owners[i] = (struct ep_lua_owner){.name = name, .renew = renew, .user = user, .loaded = SIZE_MAX};
    return i;
}

void ep_lua_owner_free(struct ep_lua *l, uint32_t owner)
{
    l->owners[owner].renew = NULL; /* what is left of it is garbage, which still says whose it was */
    l->owners[owner].held = 0;
}

/* What runs that wait have made, and the one that ended last, whose stack is still there, counts as made in this cycle. */
static void begin_cycle(struct ep_lua *l)
{
    l->in_cycle = true;
    for (uint32_t i = 0; i < l->n_owners; i++) {
        struct ep_lua_owner *o = &l->owners[i];
        o->made_before = o->made - o->held - (i == l->ended_owner ? l->ended_made : 0);
        o->whole = true; /* loading is one run, and cycles begin between runs */
    }
}

/* What was there when the cycle began and still is, at least: what was made meanwhile may be garbage, and some of that went
 * in the cycle already. */
static size_t live(const struct ep_lua_owner *o)
{
    size_t made = o->made - o->made_before;

    if (made > SIZE_MAX / 2)
        return o->bytes; /* more of the old went than was made */
    return o->bytes > made ? o->bytes - made : 0;
}

/* Who keeps the most begins anew; one a cycle. */
static void renew_most(struct ep_lua *l)
{
    struct ep_lua_owner *most = &l->owners[0];

    for (uint32_t i = 1; i < l->n_owners; i++)
        if (l->owners[i].renew && l->owners[i].kept > most->kept)
            most = &l->owners[i];
    if (most == &l->owners[0])
        return;
    ep_warn("lua",
            "%.*s keeps %.1f MiB between calls, and all may keep %.1f MiB (policies.kept): it begins anew, and what it "
            "kept is forgotten; what must last belongs in c:remember",
            EP_STR_ARG(most->name), (double)most->kept / (1 << 20), (double)l->kept_max / (1 << 20));
    if (l->stats)
        ep_stats_add(l->stats, EP_METRIC_LUA_RENEWED, EP_LABELS(most->name), 1);
    ep_lua_collect_from(l, l->live - EP_MIN(l->live, most->kept)); /* that is garbage from now on */
    most->kept = 0;
    /* Its run ends without a slice, and so without another end of a cycle; and is not the one that ended last. */
    uint64_t instructions = l->spent_instructions;
    int64_t bytes = l->spent_bytes;
    size_t made = l->ended_made;
    l->renewing = true;
    most->renew(most->user);
    l->renewing = false;
    l->spent_instructions = instructions;
    l->spent_bytes = bytes;
    l->ended_made = made;
}

/* --- the collector --- */

/* The next cycle begins when about as much garbage was made as is live. What was made during a cycle says nothing of
 * that: with it, each cycle would begin later than the one before. */
void ep_lua_collect_from(struct ep_lua *l, size_t bytes)
{
    l->live = bytes;
    l->collect_at = bytes + EP_MIN(EP_MAX(bytes, COLLECT_BYTES_MIN), COLLECT_BYTES_MAX);
    l->in_cycle = false;
}

static void end_cycle(struct ep_lua *l)
{
    size_t all = 0, kept = 0;

    for (uint32_t i = 0; i < l->n_owners; i++) {
        struct ep_lua_owner *o = &l->owners[i];
        size_t own = live(o);
        all += own;
        if (!i || !o->renew || !o->whole)
            continue;
        if (o->loaded == SIZE_MAX)
            o->loaded = o->bytes; /* and some garbage: rather too much than too little */
        o->kept = own > o->loaded ? own - o->loaded : 0;
        kept += o->kept;
    }
    ep_lua_collect_from(l, all);
    if (kept > l->kept_max)
        renew_most(l);
}

void ep_lua_collect(struct ep_lua *l, uint64_t ran_ns)
{
    size_t debt = l->bytes > l->collect_at ? l->bytes - l->collect_at : 0;
    uint64_t start = ep_clock_ns(), now, most = SLICE_NS_MAX;
    uint64_t long_ns = EP_MAX(ran_ns, SLICE_NS_MIN + (SLICE_NS_MAX - SLICE_NS_MIN) * debt / COLLECT_HURRY);
    bool done;

    if (EP_UNLIKELY(debt > COLLECT_PRESSED))
        most = EP_MAX(ran_ns, most);
    if (!l->in_cycle)
        begin_cycle(l);
    l->collecting = true;
    do {
        done = lua_gc(l->L, LUA_GCSTEP, 0);
        now = ep_clock_ns();
    } while (!done && now - start < EP_MIN(long_ns, most));
    l->collecting = false;
    l->pause_longest_ns = EP_MAX(l->pause_longest_ns, now - start);
    if (l->pauses)
        ep_histogram_record(l->pauses, now - start);
    if (done)
        end_cycle(l);
}

/* Everything at once, where nobody waits for it. What is there now is what scripts have loaded. */
void ep_lua_collect_all(struct ep_lua *l)
{
    l->collecting = true;
    lua_gc(l->L, LUA_GCCOLLECT);
    l->collecting = false;
    for (uint32_t i = 1; i < l->n_owners; i++)
        l->owners[i].loaded = l->owners[i].bytes;
    ep_lua_collect_from(l, l->bytes);
}
