/* How long a policy that misbehaves holds the loop in one piece: `bench_stretches [NAME]` plays those of
 * tests/unit/lua_hostile.def whose name has NAME in it as the proxy does, a slice at a time under the default budget, with
 * what the collector does in between. Of each kind it prints how many slices a call took, the longest slice and the longest
 * of the collector, as CPU time, which a busy machine lengthens less; medians of several calls. */
#include "../tests/unit/lua_fixture.h"

#include "lua/host.h"

#define CALLS 15

static const struct row {
    const char *name, *code;
} rows[] = {
#define ROW(name, ending, code) {name, code},
#include "../tests/unit/lua_hostile.def"
#undef ROW
};

struct stretch {
    uint64_t slices, longest, collector;
};

static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * EP_S + (uint64_t)t.tv_nsec;
}

static int compile(lua_State *L)
{
    ep_lua_env_push(L, EP_LUA_ENVOY, NULL);
    ep_lua_compile(L, ep_str(lua_touserdata(L, 1)), "@hostile", 2);
    return 1;
}

static struct stretch play_one(struct ep_lua *l, int function)
{
    struct ep_lua_budget whole = ep_lua_budget_call, left;
    struct stretch s = {0};
    enum ep_lua_status status;
    struct ep_lua_thread t = ep_lua_thread_take(l);

    whole.slice_ns = EP_LUA_SLICE_NS;
    left = whole;
    lua_rawgeti(t.L, LUA_REGISTRYINDEX, function);
    do {
        uint64_t start = ep_clock_ns(), cpu = cpu_ns();
        size_t collect_at = l->collect_at;
        int n;
        l->collect_at = SIZE_MAX; /* it is clocked apart */
        l->worker->now_ns = start; /* of this turn */
        status = ep_lua_resume(l, t.L, 0, &n, &left, start);
        l->collect_at = collect_at;
        if (status == EP_LUA_PAUSED)
            ep_lua_spend(l, &left, &whole, true, ep_clock_ns() - start);
        else
            ep_lua_thread_give(l, t, status == EP_LUA_OK);
        s.longest = EP_MAX(s.longest, cpu_ns() - cpu);
        s.slices++;
        if (l->bytes > l->collect_at) {
            cpu = cpu_ns();
            ep_lua_collect(l, 0);
            s.collector = EP_MAX(s.collector, cpu_ns() - cpu);
        }
    } while (status == EP_LUA_PAUSED);
    return s;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static uint64_t median(uint64_t v[CALLS])
{
    qsort(v, CALLS, sizeof *v, by_size);
    return v[CALLS / 2];
}

static void measure(struct ep_lua *l, const struct row *r)
{
    uint64_t slices[CALLS], longest[CALLS], collector[CALLS];
    int function;

    lua_settop(l->thread, 0);
    lua_pushcfunction(l->thread, compile);
    lua_pushlightuserdata(l->thread, (void *)(uintptr_t)r->code);
    if (ep_lua_call(l, l->thread, 1, 1, &ep_lua_budget_load, ep_clock_ns()) != EP_LUA_OK) {
        fprintf(stderr, "%s: %s\n", r->name, lua_tostring(l->thread, -1));
        exit(1);
    }
    function = luaL_ref(l->thread, LUA_REGISTRYINDEX);
    for (int i = 0; i < CALLS; i++) {
        struct stretch s = play_one(l, function);
        slices[i] = s.slices;
        longest[i] = s.longest;
        collector[i] = s.collector;
    }
    luaL_unref(l->thread, LUA_REGISTRYINDEX, function);
    printf("%-48s %4u %8.0f %8.0f\n", r->name, (unsigned)median(slices), (double)median(longest) / 1e3,
           (double)median(collector) / 1e3);
}

int main(int argc, char **argv)
{
    static struct play p;
    struct ep_error err = {""};
    struct ep_lua *l;

    play_init(&p);
    ep_log_set_level(EP_LOG_OFF);
    l = ep_lua_ref(&p.worker, &err);
    printf("%-48s %4s %8s %8s\n", "", "slices", "us", "collector");
    for (size_t i = 0; i < EP_COUNT(rows); i++)
        if (argc < 2 || strstr(rows[i].name, argv[1]))
            measure(l, &rows[i]);
    ep_lua_unref(l);
    play_fini(&p);
    return 0;
}
