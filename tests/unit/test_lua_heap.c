/* link: ep_filters */
/* What scripts keep, what tables may be, and runs that pause: heap.c, pause.c, renew.c, and wait.c with a turn to wait for. */
#include "lua_fixture.h"

#include "lua/policy.h"

extern const struct ep_filter ep_filter_policies;

#define HEAD "local policy = require 'ephor.policy' return policy { "

static struct ep_policy_set *load(struct play *p)
{
    struct ep_error err = {""};

    if (!play_load(p, &ep_filter_policies, NULL, &err))
        fail_msg("%s", err.text);
    ((struct ep_policy_set *)p->instance.data)->budget.time_ns = 60 * EP_S; /* the machine may be busy */
    return p->instance.data;
}

static enum ep_step call(struct fake_stream *f)
{
    enum ep_step step;

    memset(f->state, 0, f->play->instance.filter->stream_size);
    step = ep_filter_policies.request_headers(&f->s, f->state, true);
    if (f->s.refused && getenv("EPHOR_TELL"))
        fprintf(stderr, "%s: %s\n", f->play->code, f->play->reason);
    return step;
}

/* What the next turn of the loop does. */
static bool turn(struct play *p)
{
    struct ep_list *next = ep_list_pop(&p->worker.later);

    if (next)
        EP_CONTAINER(next, struct ep_task, node)->run(EP_CONTAINER(next, struct ep_task, node));
    return next != NULL;
}

static uint64_t renewed(struct play *p, const char *name)
{
    return ep_stats_total(&p->worker.stats, 1, EP_METRIC_LUA_RENEWED, EP_LABELS(ep_str(name)));
}

/* --- tables --- */

static void test_a_table_that_takes_long_to_traverse_is_not_loaded(void **state)
{
    static const struct {
        const char *text;
        bool good;
    } rows[] = {
        {"local t = {} for i = 1, 32000 do t['k' .. i] = true end\n" HEAD "name = 'p', call = function(c) return t end }", true},
        {"local t = {} for i = 1, 33000 do t['k' .. i] = true end\n" HEAD "name = 'p', call = function(c) return t end }", false},
        {"local t = {} for i = 1, 65000 do t[i] = i end\n" HEAD "name = 'p', call = function(c) return t end }", true},
        {"local t = {} for i = 1, 70000 do t[i] = i end\n" HEAD "name = 'p', call = function(c) return t end }", false},
        {"local s = ('x'):rep(900000)\n" HEAD "name = 'p', call = function(c) return s end }", true},
    };
    struct play *p = *state;
    struct ep_error err;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        play_file(p, "p.lua", rows[i].text);
        err.text[0] = '\0';
        bool good = play_load(p, &ep_filter_policies, NULL, &err);
        if (good != rows[i].good)
            fail_msg("row %zu: %s", i, err.text);
        if (good)
            ep_filter_policies.unload(&p->instance);
        else
            assert_contains(err.text, "p.lua: a table takes more than 1 MiB");
        p->instance.data = NULL;
    }
}

/* --- what is kept --- */

static void test_who_keeps_too_much_begins_anew_and_nobody_else(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    play_file(p, "a.lua", "local kept, n = {}, 0\n" HEAD
                          "name = 'keeps', call = function(c) for i = 1, 20 do n = n + 1 kept[n] = {c.tool .. n} end end }");
    play_file(p, "b.lua", "local count = 0\n" HEAD
                          "name = 'counts', call = function(c) count = count + 1 c:header('x-count', tostring(count)) end }");
    load(p);
    stream_init(&f, p);
    struct ep_lua *l = p->worker.lua;
    size_t most = 0;
    for (int i = 1; i <= 8000; i++) {
        char wanted[16];
        assert_int_equal(call(&f), EP_NEXT);
        snprintf(wanted, sizeof wanted, "%d", i);
        assert_str_equal(request_header(&f, "x-count"), wanted); /* it keeps little, and keeps it */
        while (turn(p))
            ;
        most = EP_MAX(most, l->bytes);
        ep_arena_fini(&f.s.arena);
        stream_init(&f, p);
    }
    assert_true(renewed(p, "keeps") >= 3);
    assert_int_equal(renewed(p, "counts"), 0);
    assert_true(most < (size_t)6 << 20); /* without an end to it these are 16 MiB */
    stream_fini(&f);
}

static void test_what_is_loaded_is_not_kept(void **state)
{
    struct play *p = *state;
    struct fake_stream f;
    char name[32], text[512];

    for (int i = 0; i < 60; i++) { /* some MiB, and the collector works while they are loaded */
        snprintf(name, sizeof name, "p%02d.lua", i);
        snprintf(text, sizeof text, "local a, b = require 'ephor.match', require 'ephor.jwt'\n" HEAD
                 "name = 'p%d', call = function(c) local t = {a, b} for i = 1, 300 do t[i] = {i} end end }", i);
        play_file(p, name, text);
    }
    struct ep_policy_set *set = load(p);
    assert_int_equal(set->n, 60);
    assert_true(set->lua->bytes > (size_t)2 << 20);
    stream_init(&f, p);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(call(&f), EP_NEXT);
        while (turn(p))
            ;
    }
    for (unsigned i = 0; i < set->n; i++) {
        assert_int_equal(renewed(p, set->v[i]->name.p), 0);
        assert_true(set->lua->owners[set->v[i]->owner].kept < 65536);
    }
    stream_fini(&f);
}

static void test_garbage_is_not_kept(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    play_file(p, "a.lua", HEAD "name = 'litters', call = function(c) local t = {} for i = 1, 3000 do t[i] = {i .. c.tool} end end }");
    load(p);
    stream_init(&f, p);
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(call(&f), EP_NEXT);
        while (turn(p))
            ;
    }
    assert_int_equal(renewed(p, "litters"), 0);
    assert_true(((struct ep_lua *)p->worker.lua)->bytes < (size_t)12 << 20);
    stream_fini(&f);
}

/* At the end of a run its stack is still there, and what hangs on it outlives the cycle that begins then. */
static void test_what_a_call_holds_is_not_kept(void **state)
{
    struct play *p = *state;
    struct fake_stream f[4];

    for (int slices = 0; slices < 2; slices++) {
        play_file(p, "a.lua", HEAD "name = 'a', call = function(c) local t = {} for i = 1, 6000 do t[i] = {i} end end }");
        play_file(p, "b.lua", HEAD "name = 'b', call = function(c) local t = {} while true do t[#t + 1] = {c.tool} end end }");
        struct ep_policy_set *set = load(p);
        set->budget.slice_ns = (uint64_t)slices;
        set->lua->kept_max = 65536;
        for (int i = 0; i < 20; i++) {
            for (size_t k = 0; k < EP_COUNT(f); k++) {
                stream_init(&f[k], p);
                call(&f[k]);
            }
            while (turn(p))
                ;
            for (size_t k = 0; k < EP_COUNT(f); k++) {
                assert_true(f[k].s.refused);
                stream_fini(&f[k]);
            }
        }
        assert_int_equal(renewed(p, "a"), 0);
        assert_int_equal(renewed(p, "b"), 0);
        assert_int_equal(set->lua->owners[set->v[0]->owner].held + set->lua->owners[set->v[1]->owner].held, 0);
        ep_filter_policies.unload(&p->instance);
        p->instance.data = NULL;
    }
}

static void test_one_that_can_not_be_loaded_anew_refuses(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    /* Loading takes 2 million instructions, which is too much between two calls. */
    play_file(p, "a.lua", "local kept, n = {}, 0 for i = 1, 2000000 do n = i end\n" HEAD
                          "name = 'slow', call = function(c) n = n + 1 kept[n] = ('x'):rep(1000) .. n end }");
    load(p);
    stream_init(&f, p);
    int calls = 0;
    while (calls < 20000 && call(&f) == EP_NEXT) {
        calls++;
        while (turn(p))
            ;
    }
    assert_true(calls > 1000 && calls < 20000);
    assert_true(f.s.refused);
    assert_int_equal(renewed(p, "slow"), 1);
    f.s.refused = false;
    assert_int_equal(call(&f), EP_REPLIED); /* and goes on to */
    stream_fini(&f);
}

/* --- pauses --- */

static struct ep_policy_set *sliced(struct play *p, const char *body)
{
    char text[1024];
    struct ep_policy_set *set;

    snprintf(text, sizeof text, HEAD "name = 'p', call = function(c) %s end }", body);
    play_file(p, "p.lua", text);
    set = load(p);
    set->budget.slice_ns = 1;
    return set;
}

/* Turns until the stream was answered; how many that took. */
static unsigned turns_of(struct play *p, struct fake_stream *f)
{
    unsigned n = 0;

    f->s.refused = false;
    p->resumed_request = 0;
    assert_int_equal(call(f), EP_WAIT);
    while (!f->s.refused && !p->resumed_request) {
        assert_true(turn(p));
        n++;
        assert_true(n < 1000);
    }
    return n;
}

static void test_a_long_run_goes_on_turn_by_turn(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    sliced(p, "local n = 0 for i = 1, 30000 do n = n + i end c:header('x-sum', tostring(n))");
    stream_init(&f, p);
    assert_true(turns_of(p, &f) > 10);
    assert_false(f.s.refused);
    assert_str_equal(request_header(&f, "x-sum"), "450015000");
    assert_int_equal(((struct ep_lua *)p->worker.lua)->n_paused, 0);
    stream_fini(&f);
}

static void test_a_pause_renews_no_budget(void **state)
{
    static const char *const bodies[] = {
        "while true do end",
        "local t = {} while true do t[#t + 1] = {} end", /* 1 MiB is there before 200,000 instructions are */
    };
    struct play *p = *state;
    struct fake_stream f;

    for (size_t i = 0; i < EP_COUNT(bodies); i++) {
        struct ep_policy_set *set = sliced(p, bodies[i]);
        stream_init(&f, p);
        size_t before = set->lua->bytes;
        assert_true(turns_of(p, &f) < 201);
        assert_true(f.s.refused);
        assert_int_equal(set->v[0]->count[EP_POLICY_OVERRUN], 1);
        assert_true(set->lua->bytes < before + (3 << 20));
        stream_fini(&f);
        ep_filter_policies.unload(&p->instance);
        p->instance.data = NULL;
    }
}

static void test_two_that_are_long_take_turns_and_one_may_leave(void **state)
{
    struct play *p = *state;
    struct fake_stream a, b, c;

    sliced(p, "local n = 0 for i = 1, 20000 do n = n + 1 end c:header('x-n', tostring(n))");
    stream_init(&a, p);
    stream_init(&b, p);
    stream_init(&c, p);
    assert_int_equal(call(&a), EP_WAIT);
    assert_int_equal(call(&b), EP_WAIT);
    assert_int_equal(call(&c), EP_WAIT);
    assert_true(turn(p));
    stream_fini(&b); /* while it waits */
    unsigned turns = 0;
    for (; p->resumed_request < 2; turns++)
        assert_true(turn(p) && turns < 1000);
    assert_str_equal(request_header(&a, "x-n"), "20000");
    assert_str_equal(request_header(&c, "x-n"), "20000");
    assert_true(turns > 40);
    assert_int_equal(((struct ep_lua *)p->worker.lua)->n_paused, 0);
    stream_fini(&a);
    stream_fini(&c);
}

/* Where C stands in between it can't pause, and runs to its end. */
static void test_what_can_not_pause_does_not(void **state)
{
    static const char *const bodies[] = {
        "table.sort({3, 2, 1}, function(a, b) for i = 1, 5000 do end return a < b end)",
        "tostring(setmetatable({}, {__tostring = function() for i = 1, 20000 do end return 'x' end}))",
    };
    struct play *p = *state;
    struct fake_stream f;

    for (size_t i = 0; i < EP_COUNT(bodies); i++) {
        sliced(p, bodies[i]);
        stream_init(&f, p);
        enum ep_step step = call(&f);
        for (p->resumed_request = 0; step == EP_WAIT && !p->resumed_request;)
            assert_true(turn(p));
        assert_false(f.s.refused);
        stream_fini(&f);
        ep_filter_policies.unload(&p->instance);
        p->instance.data = NULL;
    }
}

/* What Lua calls through C that can go on later pauses as Lua does. */
static void test_what_pauses_inside_of_c(void **state)
{
    static const char *const bodies[] = {
        "local f = coroutine.wrap(function(a) for i = 1, 20000 do end local b = coroutine.yield(a) "
        "for i = 1, 20000 do end return b end) assert(f('x') == 'x' and f('y') == 'y')",
        "local inner = coroutine.create(function() for i = 1, 20000 do end error('inner') end)\n"
        "local outer = coroutine.create(function() return coroutine.resume(inner) end)\n"
        "local ok, failed, why = coroutine.resume(outer) assert(ok and not failed and why:find('inner'))",
        "assert(('abc'):gsub('%w', function(x) for i = 1, 8000 do end return x .. x end) == 'aabbcc')",
        "assert(('x'):rep(2000):gsub('%w', function() return 'long text' end) == ('long text'):rep(2000))",
        "assert(not ('a'):rep(40):find('a*a*a*b'))",
        "assert(('('):rep(300):gsub('%b()', 'x') == ('('):rep(300))",
        "local n = 0 for _ in (('a '):rep(1000) .. 'bb'):gmatch('(%w*)%1b') do n = n + 1 end assert(n == 2)",
        "local s = ('x'):rep(1e5) for i = 1, 10 do s = s:reverse() end",
    };
    struct play *p = *state;
    struct fake_stream f;

    for (size_t i = 0; i < EP_COUNT(bodies); i++) {
        sliced(p, bodies[i]);
        stream_init(&f, p);
        unsigned turns = turns_of(p, &f);
        if (f.s.refused || turns < 4)
            fail_msg("%u turns, %s: %s", turns, f.s.refused ? p->reason : "", bodies[i]);
        stream_fini(&f);
        ep_filter_policies.unload(&p->instance);
        p->instance.data = NULL;
    }
}

/* A coroutine that paused with one call is not another's to resume. */
static void test_a_paused_coroutine_is_its_runs_own(void **state)
{
    struct play *p = *state;
    struct fake_stream a, b;
    struct ep_policy_set *set;

    play_file(p, "p.lua", "local co = coroutine.create(function() for i = 1, 20000 do end return 'end' end)\n" HEAD
                          "name = 'p', call = function(c) c:header('x-co', tostring(select(2, coroutine.resume(co)))) end }");
    set = load(p);
    set->budget.slice_ns = 1;
    stream_init(&a, p);
    stream_init(&b, p);
    assert_int_equal(call(&a), EP_WAIT);
    enum ep_step step = call(&b);
    while (p->resumed_request < (step == EP_WAIT ? 2 : 1))
        assert_true(turn(p));
    assert_str_equal(request_header(&a, "x-co"), "end");
    assert_str_equal(request_header(&b, "x-co"), "cannot resume non-suspended coroutine");
    stream_fini(&a);
    stream_fini(&b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, play_setup, play_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_table_that_takes_long_to_traverse_is_not_loaded),
        TEST(test_who_keeps_too_much_begins_anew_and_nobody_else),
        TEST(test_what_is_loaded_is_not_kept),
        TEST(test_garbage_is_not_kept),
        TEST(test_what_a_call_holds_is_not_kept),
        TEST(test_one_that_can_not_be_loaded_anew_refuses),
        TEST(test_a_long_run_goes_on_turn_by_turn),
        TEST(test_a_pause_renews_no_budget),
        TEST(test_two_that_are_long_take_turns_and_one_may_leave),
        TEST(test_what_can_not_pause_does_not),
        TEST(test_what_pauses_inside_of_c),
        TEST(test_a_paused_coroutine_is_its_runs_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
