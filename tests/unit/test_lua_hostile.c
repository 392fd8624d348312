/* link: ep_filters */
/* Policies that misbehave, each called as policies are (a protected call) and as scripts are (a pooled coroutine): it ends
 * by an error or an overrun soon after its budget, twice in a row, and a good policy on the same state works afterwards. */
#include "lua_fixture.h"

#include "lua/host.h"

#ifdef __SANITIZE_ADDRESS__
#define SLOW 5
#else
#define SLOW 1
#endif

enum ending { FAILS, ERRS, OVERRUNS, ENDS }; /* FAILS: either of the next two */

/* Where the ending must not depend on how busy the machine is. */
static const struct ep_lua_budget patient = {200000, 1 << 20, 10 * EP_S, 0};

static const struct row {
    const char *name, *code;
    enum ending ending;
} rows[] = {
#define ROW(name, ending, code) {name, code, ending},
#include "lua_hostile.def"
#undef ROW
};

/* Whatever came before, this must work. */
static const char honest[] = "local t = {}\n"
                             "for i = 1, 200 do t[i] = ('x'):rep(i % 7) end\n"
                             "local co = coroutine.wrap(function() coroutine.yield(1) return 2 end)\n"
                             "assert(co() + co() == 3 and #table.concat(t, ',') > 200)\n"
                             "assert(not pcall(error, 'x') and ('a b'):find(' ') == 2)";

static int compile(lua_State *L)
{
    ep_lua_env_push(L, EP_LUA_ENVOY, NULL);
    ep_lua_compile(L, ep_str(lua_touserdata(L, 1)), "@hostile", 2);
    return 1;
}

static int compiled(struct ep_lua *l, const char *code)
{
    lua_settop(l->thread, 0);
    lua_pushcfunction(l->thread, compile);
    lua_pushlightuserdata(l->thread, (void *)(uintptr_t)code);
    if (ep_lua_call(l, l->thread, 1, 1, &ep_lua_budget_load, ep_clock_ns()) != EP_LUA_OK)
        fail_msg("%s: %s", code, lua_tostring(l->thread, -1));
    return luaL_ref(l->thread, LUA_REGISTRYINDEX);
}

static enum ep_lua_status as_policy(struct ep_lua *l, int function, const struct ep_lua_budget *b, char error[256])
{
    enum ep_lua_status status;

    lua_rawgeti(l->thread, LUA_REGISTRYINDEX, function);
    status = ep_lua_call(l, l->thread, 0, 0, b, ep_clock_ns());
    if (status != EP_LUA_OK)
        snprintf(error, 256, "%.*s", EP_STR_ARG(ep_lua_error(l->thread)));
    lua_settop(l->thread, 0);
    return status;
}

static enum ep_lua_status as_script(struct ep_lua *l, int function, const struct ep_lua_budget *b, char error[256])
{
    struct ep_lua_thread t = ep_lua_thread_take(l);
    enum ep_lua_status status;
    int n;

    lua_rawgeti(t.L, LUA_REGISTRYINDEX, function);
    status = ep_lua_resume(l, t.L, 0, &n, b, ep_clock_ns());
    if (status == EP_LUA_ERROR || status == EP_LUA_OVERRUN)
        snprintf(error, 256, "%.*s", EP_STR_ARG(ep_lua_error(t.L)));
    ep_lua_thread_give(l, t, status == EP_LUA_OK);
    return status;
}

/* Pauses at each hook, and the collector works in between. */
static enum ep_lua_status as_paused(struct ep_lua *l, int function, const struct ep_lua_budget *b, char error[256])
{
    struct ep_lua_thread t = ep_lua_thread_take(l);
    struct ep_lua_budget left = *b;
    enum ep_lua_status status;
    int n;

    left.slice_ns = 1;
    lua_rawgeti(t.L, LUA_REGISTRYINDEX, function);
    for (;;) {
        uint64_t start = ep_clock_ns();
        status = ep_lua_resume(l, t.L, 0, &n, &left, start);
        if (status != EP_LUA_PAUSED)
            break;
        ep_lua_spend(l, &left, b, true, ep_clock_ns() - start);
        ep_lua_collect(l, 0);
    }
    if (status == EP_LUA_ERROR || status == EP_LUA_OVERRUN)
        snprintf(error, 256, "%.*s", EP_STR_ARG(ep_lua_error(t.L)));
    ep_lua_thread_give(l, t, status == EP_LUA_OK);
    return status;
}

typedef enum ep_lua_status runner(struct ep_lua *, int, const struct ep_lua_budget *, char *);

/* How many of its two rounds ended as they should not. */
static unsigned play(struct ep_lua *l, const struct row *r, const char *how, runner *run)
{
    int function = compiled(l, r->code), good = compiled(l, honest);
    char error[256] = "";
    unsigned wrong = 0;

    for (int round = 0; round < 2; round++) {
        uint64_t start = ep_clock_ns(), end;
        enum ep_lua_status status = run(l, function, r->ending == ENDS || r->ending == ERRS ? &patient : &ep_lua_budget_call, error);

        end = ep_clock_ns();
        if (getenv("EPHOR_TELL"))
            fprintf(stderr, "%-36s %-9s %8.3f ms  %d %s\n", r->name, how, (double)(end - start) / 1e6, status, error);
        if (end - start > SLOW * EP_S) {
            print_error("%s, %s: took %llu ms\n", r->name, how, (unsigned long long)((end - start) / EP_MS));
            wrong++;
        }
        if (status == EP_LUA_YIELDED && run != as_policy)
            status = EP_LUA_ERROR; /* the filter says: an unexpected yield */
        if (r->ending == ENDS ? status != EP_LUA_OK
                              : status == EP_LUA_OK || (r->ending == ERRS && status != EP_LUA_ERROR) ||
                                    (r->ending == OVERRUNS && status != EP_LUA_OVERRUN)) {
            print_error("%s, %s: ended with %d: %s\n", r->name, how, status, error);
            wrong++;
        }
        if (run(l, good, &ep_lua_budget_load, error) != EP_LUA_OK)
            fail_msg("after %s %s: %s", r->name, how, error);
    }
    luaL_unref(l->L, LUA_REGISTRYINDEX, function);
    luaL_unref(l->L, LUA_REGISTRYINDEX, good);
    return wrong;
}

static void test_each_ends_by_itself(void **state)
{
    struct play *p = *state;
    struct ep_error err;
    struct ep_lua *l = ep_lua_ref(&p->worker, &err);
    const char *only = getenv("EPHOR_ONLY");
    size_t bytes = l->bytes;
    unsigned wrong = 0;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        if (only && !strstr(rows[i].name, only))
            continue;
        wrong += play(l, &rows[i], "policy", as_policy);
        wrong += play(l, &rows[i], "script", as_script);
        wrong += play(l, &rows[i], "paused", as_paused);
        for (int k = 0; k < 8; k++) /* what finalizers let go; stacks get smaller by halves */
            lua_gc(l->L, LUA_GCCOLLECT);
        if (l->bytes > bytes + 65536) {
            print_error("%s: %zu bytes stay behind\n", rows[i].name, l->bytes - bytes);
            wrong++;
            bytes = l->bytes;
        }
    }
    assert_int_equal(wrong, 0);
    ep_lua_unref(l);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, play_setup, play_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_each_ends_by_itself)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
