/* link: ep_filters */
/* The filter `policies`: loading, matching, deciding, budgets, blindness. */
#include "lua_fixture.h"

#include "lua/policy.h"

extern const struct ep_filter ep_filter_policies;

static void load_policy(struct play *p, const char *text)
{
    struct ep_error err = {""};

    play_file(p, "a.lua", text);
    if (!play_load(p, &ep_filter_policies, NULL, &err))
        fail_msg("%s", err.text);
}

static enum ep_step request(struct fake_stream *f)
{
    return ep_filter_policies.request_headers(&f->s, f->state, true);
}

static uint64_t decisions(struct play *p, const char *policy, const char *decision)
{
    return *ep_stats_cell(p->worker.stats, EP_METRIC_POLICY_DECISIONS, EP_LABELS(ep_str(policy), ep_str(decision)));
}

#define HEAD "local policy = require 'ephor.policy'\nreturn policy { name = 'p', principle = 'P3', "

static void test_denies(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    load_policy(p, HEAD "match = {protocol = 'mcp', method = 'tools/*'}, call = function(c)\n"
                        "if c.tool == 'search' then return c:deny('no ' .. c.tool .. ' for ' .. c.peer.id, "
                        "{code = 'my.code', status = 451}) end end }");
    stream_init(&f, p);
    assert_int_equal(request(&f), EP_REPLIED);
    assert_string_equal(p->reason, "no search for spiffe://cluster.local/ns/agents/sa/planner");
    assert_string_equal(p->code, "my.code");
    assert_int_equal(p->refusal.status, 451);
    assert_str_equal(p->refusal.policy, "p");
    assert_str_equal(p->refusal.principle, "P3");
    assert_int_equal(decisions(p, "p", "deny"), 1);
    stream_fini(&f);

    stream_init(&f, p);
    f.s.call.tool = EP_STR("other");
    assert_int_equal(request(&f), EP_NEXT);
    assert_int_equal(decisions(p, "p", "allow"), 1);
    stream_fini(&f);

    stream_init(&f, p);
    f.s.call.protocol = EP_STR("a2a");
    assert_int_equal(request(&f), EP_NEXT);
    assert_int_equal(decisions(p, "p", "allow"), 1); /* not matched: not counted */
    stream_fini(&f);
}

static void test_fields(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    load_policy(p,
                HEAD "call = function(c)\n"
                     "assert(c.protocol == 'mcp' and c.method == 'tools/call' and c.tool == 'search')\n"
                     "assert(c.model == nil and c.path == '/mcp?x=1' and c.host == 'Tools.agents')\n"
                     "assert(c.headers['X-Tenant'] == 'acme' and c.headers['x-twice'] == 'a,b')\n"
                     "assert(c.headers.absent == nil and c:header('x-tenant') == 'acme' and #c.headers == 7)\n"
                     "assert(c.arguments.list[2] == 2 and c.arguments.x.y == 'ü' and c.arguments.x == c.arguments.x)\n"
                     "local n = 0 for k, v in pairs(c.headers) do n = n + 1 assert(#k > 0 and #v > 0) end\n"
                     "assert(n == 7 and c.now > 1.7e9 and c.visible == 'full' and c.blind == nil)\n"
                     "assert(c.listener == 'inbound' and c.direction == 'inbound' and c.policy == 'p')\n"
                     "assert(c.id == '7' and c.route == nil and c.cluster == nil and not c.batch)\n"
                     "c:header('X-Checked-By', c.policy) c:header('x-tenant', nil) c:header('x-n', 5.0)\n"
                     "c:tag('risk', 3) c:tag('risk', 4) c:log('hello') c:allow()\n"
                     "end }");
    stream_init(&f, p);
    f.s.call.arguments = EP_STR("{\"list\":[1,2],\"x\":{\"y\":\"\\u00fc\"}}");
    f.s.call.id_raw = EP_STR("7");
    if (request(&f) != EP_NEXT)
        fail_msg("%s", p->reason);
    assert_int_equal(decisions(p, "p", "allow"), 1);
    assert_str_equal(request_header(&f, "x-checked-by"), "p");
    assert_str_equal(request_header(&f, "x-n"), "5");
    assert_null(request_header(&f, "x-tenant").p);
    assert_non_null(f.s.tags);
    assert_str_equal(f.s.tags->value, "4");
    assert_null(f.s.tags->next);
    stream_fini(&f);
}

static void test_misuse_fails_closed(void **state)
{
    static const char *const bodies[] = {
        "local k = 'tol' return c[k] == 'shell'",
        "c.tool = 'x'",
        "c.deny(nil, 'x')",
        "c:header('bad name', 'x')",
        "c:header('x', 'a\\r\\nb: c')",
        "c:header('content-length', '1')",
        "c:header('x-ephor-peer', 'me')",
        "c:deny('x', {status = 200})",
        "c:deny('x', {code = 'A b'})",
        "c.headers.x = 1",
        "return c.peer.name",
        "error({})",
        "error()",
        "return c.arguments.x",
        "c:header(':path', '/')",
        "c:tag('x', function() end)",
        "local k = 'status' return c[k]",
        "local x = nil .. 'x'",
        "return getmetatable(c).__index",
        "kept = kept or {} return kept.x.y",
    };
    struct play *p = *state;
    char text[512];

    for (size_t i = 0; i < EP_COUNT(bodies); i++) {
        struct fake_stream f;
        snprintf(text, sizeof text, HEAD "call = function(c) %s end }", bodies[i]);
        load_policy(p, text);
        stream_init(&f, p);
        f.s.call.arguments = EP_STR("{bad");
        if (request(&f) != EP_REPLIED)
            fail_msg("passed: %s", bodies[i]);
        assert_string_equal(p->code, "policy.error");
        assert_string_equal(p->reason, "the policy failed");
        stream_fini(&f);
        ep_filter_policies.unload(&p->instance);
        p->instance.data = NULL;
    }
    assert_int_equal(decisions(p, "p", "error"), EP_COUNT(bodies));
}

static void test_kept_object_is_of_the_call_at_hand(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    load_policy(p, "local policy, kept = require 'ephor.policy'\n"
                   "return policy { name = 'p', call = function(c)\n"
                   "if kept then assert(kept['x-call'] == 'second') end\n"
                   "kept = c.headers local co = coroutine.wrap(function() return c.tool end) assert(co() == 'search')\n"
                   "assert(coroutine.running() == nil) end }");
    for (int i = 0; i < 2; i++) {
        stream_init(&f, p);
        ep_headers_add(&f.s.request.headers, EP_STR("x-call"), i ? EP_STR("second") : EP_STR("first"));
        if (request(&f) != EP_NEXT)
            fail_msg("%s", p->code);
        stream_fini(&f);
    }
}

/* --- budgets --- */

static void test_overruns(void **state)
{
    /* Each must end in time, by an overrun or an error. */
    static const char *const bodies[] = {
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "pcall(function() while true do end end)",
        "pcall(pcall, function() while true do end end) c:allow()",
        "xpcall(function() while true do end end, function() while true do end end)",
        "xpcall(error, function() while true do end end)",
        "coroutine.wrap(function() while true do end end)()",
        "local co = coroutine.create(function() while true do end end) coroutine.resume(co)",
        "while true do coroutine.wrap(function() end)() end",
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "local s = 'x' while true do s = s .. s end",
        "pcall(string.rep, 'x', 1 << 30) local t = {} for i = 1, 1e9 do t[i] = {} end",
        "string.rep('', 1 << 62) string.rep('x', 10, ('y'):rep(1 << 20))",
        "string.rep('ab', 1e6, 'cd')",
        "(('a'):rep(1000)):find(('a*'):rep(20) .. 'b')",
        "(('a'):rep(100000)):find('.-.-.-b')",
        "(('a'):rep(1000)):gsub(('a?'):rep(100) .. 'b', '')",
        "for _ in (('a'):rep(3000)):gmatch('a*a*a*b') do end",
        "(('('):rep(100000)):find('%b()')",
        "table.concat({}, '', 1, 1e15)",
        "table.move({}, 1, 1e15, 2)",
        "table.insert(setmetatable({}, {__len = function() return 1e15 end}), 1, 1)",
        "table.unpack({}, 1, 1e8)",
        "table.sort(setmetatable({}, {__len = function() return 1 << 30 end}), math.type)",
        "setmetatable({}, {__gc = function() while true do end end})",
        "local t = {} for i = 1, 1e5 do t[i] = 1e5 - i end table.sort(t)",
        "local s = ('x'):rep(500000) while true do s:upper() end",
        "local function f() return f() + 1 end f()",
        "local a <close> = setmetatable({}, {__close = function() while true do end end}) error()",
        "error(setmetatable({}, {__tostring = function() while true do end end}))",
        "local s = ('[1,'):rep(70) require('ephor.json').decode(s)",
        "require('ephor.json').encode((function() local t = {} t.t = t return t end)())",
        "string.format('%99d', ('x'):rep(3e6))",
        "local s = ('x'):rep(500000) while true do c:header('x-big', s) end",
        "for i = 1, 1e9 do c:header('x-' .. i, i) end",
        "for i = 1, 1e9 do c:tag('x-' .. i, i) end",
        "while true do c:deny(('x'):rep(500)) end",
        "while true do c:log('again') end",
    };
    struct play *p = *state;
    char text[512];

    for (size_t i = 0; i < EP_COUNT(bodies); i++) {
        struct fake_stream f;
        snprintf(text, sizeof text, HEAD "call = function(c) if c.tool == 'bad' then %s end end }", bodies[i]);
        load_policy(p, text);
        stream_init(&f, p);
        f.s.call.tool = EP_STR("bad");
        uint64_t start = ep_clock_ns();
        if (request(&f) != EP_REPLIED)
            fail_msg("passed: %s", bodies[i]);
        uint64_t took = ep_clock_ns() - start;
        if (took > 2 * EP_S) /* the budget is 5 ms; sanitizers and a busy machine are slow */
            fail_msg("%s took %llu ms", bodies[i], (unsigned long long)(took / EP_MS));
        stream_fini(&f);
        for (int k = 0; k < 3; k++) { /* and the state is sound */
            stream_init(&f, p);
            assert_int_equal(request(&f), EP_NEXT);
            stream_fini(&f);
        }
        ep_filter_policies.unload(&p->instance);
        p->instance.data = NULL;
    }
    assert_true(decisions(p, "p", "overrun") > 15);
    assert_int_equal(decisions(p, "p", "overrun") + decisions(p, "p", "error"), EP_COUNT(bodies));
    assert_int_equal(decisions(p, "p", "allow"), 3 * EP_COUNT(bodies));
}

static void test_budget_is_of_the_configuration(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    p->policies.budget.instructions = 100000000;
    p->policies.budget.time_ns = 10 * EP_S;
    p->policies.budget.memory = 8 << 20;
    load_policy(p, HEAD "call = function() local t = {} for i = 1, 2e5 do t[i] = i end end }");
    stream_init(&f, p);
    assert_int_equal(request(&f), EP_NEXT);
    stream_fini(&f);
}

static void test_unhealthy_and_back(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    load_policy(p, HEAD "call = function(c) if c.tool == 'bad' then error('x') end end }");
    struct ep_policy_set *set = p->instance.data;
    for (int i = 0; i < 7; i++) {
        stream_init(&f, p);
        f.s.call.tool = EP_STR("bad");
        assert_int_equal(request(&f), EP_REPLIED);
        stream_fini(&f);
    }
    assert_int_equal(set->v[0]->failures, 7);
    stream_init(&f, p);
    assert_int_equal(request(&f), EP_NEXT);
    stream_fini(&f);
    assert_int_equal(set->v[0]->failures, 0);
}

/* --- modes, blindness, batches, replies --- */

static void test_shadow(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    load_policy(p, HEAD "mode = 'shadow', call = function(c) c:header('x-new', '1') c:tag('a', 1) c:deny('x') end }");
    stream_init(&f, p);
    assert_int_equal(request(&f), EP_NEXT);
    assert_int_equal(p->refusals, 0);
    assert_int_equal(decisions(p, "p", "shadow_deny"), 1);
    assert_null(request_header(&f, "x-new").p);
    assert_null(f.s.tags);
    stream_fini(&f);
}

static void test_shadow_of_all(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    p->policies.mode = EP_MODE_SHADOW;
    load_policy(p, HEAD "call = function(c) error('x') end }");
    stream_init(&f, p);
    assert_int_equal(request(&f), EP_NEXT);
    assert_int_equal(decisions(p, "p", "error"), 1);
    stream_fini(&f);
}

static void test_blind(void **state)
{
    static const struct {
        const char *policy, *protocol, *tool;
        enum ep_visible visible;
        enum ep_step step;
        const char *counted;
        bool named; /* by the head; the body was not read */
    } rows[] = {
        {"match = {tool = 'shell'}", "http", "", EP_VISIBLE_HEADERS, EP_REPLIED, "deny", false},
        {"match = {tool = 'shell'}", "", "", EP_VISIBLE_NONE, EP_REPLIED, "deny", false},
        {"match = {protocol = 'mcp'}", "tcp", "", EP_VISIBLE_NONE, EP_REPLIED, "deny", false},
        {"match = {protocol = 'mcp', path = '/other'}", "http", "", EP_VISIBLE_NONE, EP_NEXT, NULL, false},
        {"match = {protocol = 'mcp'}", "a2a", "", EP_VISIBLE_HEADERS, EP_REPLIED, "deny", false}, /* so its head claims */
        {"match = {protocol = 'mcp'}", "grpc", "", EP_VISIBLE_FULL, EP_NEXT, NULL, false},
        {"match = {tool = 'shell'}", "mcp", "search", EP_VISIBLE_HEADERS, EP_REPLIED, "deny", false},
        {"match = {tool = 'shell'}", "mcp", "", EP_VISIBLE_HEADERS, EP_REPLIED, "deny", false},
        {"match = {tool = 'shell'}", "http", "", EP_VISIBLE_FULL, EP_NEXT, NULL, false},
        {"blind = 'allow', match = {tool = 'shell'}", "http", "", EP_VISIBLE_NONE, EP_NEXT, "allow", false},
        {"blind = 'shadow', match = {tool = 'shell'}", "http", "", EP_VISIBLE_NONE, EP_NEXT, "shadow_deny", false},
        {"mode = 'shadow', match = {tool = 'shell'}", "http", "", EP_VISIBLE_NONE, EP_NEXT, "shadow_deny", false},
        {"needs = {'arguments'}, match = {protocol = 'mcp'}", "mcp", "x", EP_VISIBLE_HEADERS, EP_REPLIED, "deny", false},
        {"needs = {'path'}, match = {host = 'tools.*'}", "mcp", "x", EP_VISIBLE_HEADERS, EP_NEXT, "allow", false},
        {"needs = {'arguments'}, match = {protocol = 'mcp'}", "mcp", "x", EP_VISIBLE_FULL, EP_NEXT, "allow", false},
        /* gRPC: named for sure by its head, and its body not read */
        {"match = {protocol = 'grpc'}", "grpc", "", EP_VISIBLE_FULL, EP_NEXT, "allow", true},
        {"needs = {'arguments'}, match = {protocol = {'mcp', 'grpc'}}", "grpc", "", EP_VISIBLE_FULL, EP_REPLIED, "deny", true},
        /* opaque bytes are known to be opaque */
        {"match = {protocol = 'tcp'}", "tcp", "", EP_VISIBLE_NONE, EP_NEXT, "allow", false},
        {"match = {protocol = {'mcp', 't?p'}}", "tcp", "", EP_VISIBLE_NONE, EP_NEXT, "allow", false},
        {"match = {protocol = {'mcp', 'tcp'}, tool = 'x'}", "tcp", "", EP_VISIBLE_NONE, EP_REPLIED, "deny", false},
        {"match = {host = 'tools.*'}", "tcp", "", EP_VISIBLE_NONE, EP_NEXT, "allow", false},
    };
    struct play *p = *state;
    char text[512];

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct fake_stream f;
        snprintf(text, sizeof text, HEAD "%s, call = function(c) end }", rows[i].policy);
        load_policy(p, text);
        uint64_t before = rows[i].counted ? decisions(p, "p", rows[i].counted) : 0;
        stream_init(&f, p);
        f.s.call = (struct ep_call){.protocol = ep_str(rows[i].protocol),
                                    .tool = ep_str(rows[i].tool),
                                    .visible = rows[i].visible,
                                    .blind = rows[i].visible == EP_VISIBLE_FULL && !rows[i].named ? EP_BLIND_NOT : EP_BLIND_ENCODING};
        if (request(&f) != rows[i].step)
            fail_msg("row %zu: %s", i, rows[i].policy);
        if (rows[i].step == EP_REPLIED)
            assert_string_equal(p->code, "policy.blind");
        if (rows[i].counted)
            assert_int_equal(decisions(p, "p", rows[i].counted), before + 1);
        stream_fini(&f);
        ep_filter_policies.unload(&p->instance);
        p->instance.data = NULL;
    }
    assert_int_equal(
        *ep_stats_cell(p->worker.stats, EP_METRIC_POLICY_BLIND, EP_LABELS(EP_STR("p"), EP_STR("encoding"))), 12);
}

static void test_batch_is_judged_call_by_call(void **state)
{
    struct play *p = *state;
    struct ep_call second = {.protocol = EP_STR("mcp"), .tool = EP_STR("shell")};
    struct fake_stream f;

    load_policy(p, HEAD "match = {tool = {'shell', 'bash'}}, call = function(c) c:deny(c.tool) end }");
    stream_init(&f, p);
    assert_int_equal(request(&f), EP_NEXT);
    f.s.call.next = &second;
    assert_int_equal(request(&f), EP_REPLIED);
    assert_string_equal(p->reason, "shell");
    stream_fini(&f);
}

static void test_reply(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    load_policy(p, HEAD "match = {tool = 'search'}, reply = function(r)\n"
                        "assert(r.status == 200 and r.tool == 'search' and r.request_headers['x-tenant'] == 'acme')\n"
                        "r:header('x-seen', 'yes')\n"
                        "if r.headers['x-secret'] then r:deny('a secret') end end }");
    stream_init(&f, p);
    f.s.status = 200;
    assert_int_equal(ep_filter_policies.response_headers(&f.s, f.state, false), EP_NEXT); /* not matched yet */
    assert_int_equal(request(&f), EP_NEXT);
    assert_int_equal(ep_filter_policies.response_headers(&f.s, f.state, false), EP_NEXT);
    assert_str_equal(ep_headers_get(&f.s.response.headers, EP_STR("x-seen")), "yes");
    ep_headers_add(&f.s.response.headers, EP_STR("x-secret"), EP_STR("1"));
    assert_int_equal(ep_filter_policies.response_headers(&f.s, f.state, false), EP_REPLIED);
    assert_string_equal(p->reason, "a secret");
    assert_int_equal(ep_filter_policies.response_headers(&f.s, f.state, false), EP_NEXT); /* our own reply */
    stream_fini(&f);
}

/* --- loading --- */

static void test_load_errors(void **state)
{
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"return policy {", "a.lua:3: unexpected symbol"},
        {"return 1", "must return policy"},
        {"return policy { nam = 'x' }", "a.lua:2: policy: there is no key 'nam'; did you mean 'name'?"},
        {"return policy { call = print }", "a.lua:2: policy: name is missing"},
        {"return policy { name = 'a b', call = print }", "name 'a b' may have"},
        {"return policy { name = 'a' }", "neither call, reply nor event"},
        {"return policy { name = 'a', call = 1 }", "call must be a function, not a number"},
        {"return policy { name = 'a', call = print, match = {tol = 'x'} }", "no field 'tol'; did you mean 'tool'?"},
        {"return policy { name = 'a', call = print, match = {tool = 1} }", "match.tool must be a string"},
        {"return policy { name = 'a', call = print, match = {tool = {}} }", "1 to 1000 patterns"},
        {"return policy { name = 'a', call = print, match = {arguments = 'x'} }", "no field 'arguments'"},
        {"return policy { name = 'a', call = print, mode = 'shadw' }", "did you mean 'shadow'?"},
        {"return policy { name = 'a', call = print, needs = {'argumnts'} }", "did you mean 'arguments'?"},
        {"return policy { name = 'a', call = print, blind = true }", "blind must be a string"},
        {"return policy 'x'", "a table is needed"},
        {"error('boom')", "a.lua:2: boom"},
        {"while true do end", "over the budget of"},
        {"require 'ephor.nothing'", "there is no module 'ephor.nothing'"},
        {"require '../../etc/passwd'", "is no name of a module"},
        {"require 'os.execute'", "No such file"},
        {"io.open('/etc/passwd')", "'io'"},
        {"os.execute('true')", "'execute'"},
        {"load('return 1')()", "'load'"},
        {"debug.getregistry()", "'debug'"},
        {"string.dump(print)", "'dump'"},
        {"collectgarbage()", "'collectgarbage'"},
        {"package.loadlib()", "'package'"},
    };
    struct play *p = *state;
    char text[512];

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_error err = {""};
        snprintf(text, sizeof text, "local policy = require 'ephor.policy'\n%s\n", rows[i].text);
        play_file(p, "a.lua", text);
        assert_false(play_load(p, &ep_filter_policies, NULL, &err));
        assert_contains(err.text, rows[i].error);
        assert_contains(err.text, p->directory);
        assert_contains(err.text, "a.lua");
        assert_null(p->worker.lua);
    }
}

static void test_load_order_and_names(void **state)
{
    struct play *p = *state;
    struct ep_error err = {""};
    struct fake_stream f;

    play_file(p, "b.lua", "return require 'ephor.policy' { name = 'b', call = function(c) c:deny('b') end }");
    play_file(p, "a.lua",
              "local u = require '_util' return require 'ephor.policy' { name = 'a', "
              "call = function(c) c:header('x-a', u.value) end }");
    play_file(p, "_util.lua", "return { value = 'from util' }");
    play_file(p, "a_test.lua", "this is not even Lua");
    play_file(p, "notes.txt", "nor this");
    if (!play_load(p, &ep_filter_policies, NULL, &err))
        fail_msg("%s", err.text);
    stream_init(&f, p);
    assert_int_equal(request(&f), EP_REPLIED);
    assert_str_equal(p->refusal.policy, "b");
    assert_str_equal(request_header(&f, "x-a"), "from util");
    stream_fini(&f);
    ep_filter_policies.unload(&p->instance);
    p->instance.data = NULL;

    play_file(p, "c.lua", "return require 'ephor.policy' { name = 'a', call = function(c) end }");
    assert_false(play_load(p, &ep_filter_policies, NULL, &err));
    assert_contains(err.text, "c.lua:1: the name 'a' is taken by a.lua");
}

static void test_environments_are_apart(void **state)
{
    struct play *p = *state;
    struct ep_error err = {""};
    struct fake_stream f;

    play_file(p, "a.lua",
              "string.find = nil leak = 1 require('ephor.json').decode = nil\n"
              "local m = getmetatable('') assert(m == false) math.floor = nil _G.pairs = nil\n"
              "return require 'ephor.policy' { name = 'a', call = function(c) assert(('x'):find('x')) end }");
    play_file(p, "b.lua",
              "assert(string.find and not leak and require('ephor.json').decode and math.floor and pairs)\n"
              "return require 'ephor.policy' { name = 'b', call = function(c) assert(string.find('x', 'x')) end }");
    if (!play_load(p, &ep_filter_policies, NULL, &err))
        fail_msg("%s", err.text);
    stream_init(&f, p);
    assert_int_equal(request(&f), EP_NEXT);
    stream_fini(&f);
}

static void test_missing_directory(void **state)
{
    struct play *p = *state;
    struct ep_error err = {""};

    p->policies.directory = EP_STR("/nowhere/at/all");
    assert_false(play_load(p, &ep_filter_policies, NULL, &err));
    assert_contains(err.text, "policies in /nowhere/at/all: No such file");
    p->policies.directory = EP_STR("");
    assert_true(play_load(p, &ep_filter_policies, NULL, &err));
}

static void test_chains_of_a_view_share(void **state)
{
    struct play *p = *state;
    struct ep_error err;

    load_policy(p, HEAD "call = function(c) end }");
    struct ep_filter_instance second = p->instance;
    assert_true(ep_filter_policies.load(&second, &err));
    assert_ptr_equal(second.data, p->instance.data);
    struct ep_view other = {.policies_config = &p->policies, .worker = &p->worker};
    struct ep_filter_instance third = p->instance;
    third.view = &other;
    assert_true(ep_filter_policies.load(&third, &err));
    assert_ptr_not_equal(third.data, p->instance.data);
    ep_filter_policies.unload(&second);
    ep_filter_policies.unload(&third);
}

static void test_agent_filter_is_needed(void **state)
{
    struct play *p = *state;
    struct ep_filter_use uses[] = {{.name = EP_STR("policies")}, {.name = EP_STR("agent")}};
    struct ep_error err = {""};

    p->listener.filters = (struct ep_vec){uses, 2};
    play_file(p, "a.lua", HEAD "match = {tool = 'x'}, call = function(c) end }");
    assert_false(play_load(p, &ep_filter_policies, NULL, &err));
    assert_contains(err.text, "no filter 'agent'");
    uses[0].name = EP_STR("agent");
    uses[1].name = EP_STR("policies");
    assert_true(play_load(p, &ep_filter_policies, NULL, &err));
}

static void test_report(void **state)
{
    struct play *p = *state;
    struct fake_stream f;
    struct ep_json j;

    ep_json_init(&j);
    ep_policies_json(&p->worker, &j);
    assert_str_equal(ep_json_text(&j), "[]");
    load_policy(p, HEAD "call = function(c) end }");
    stream_init(&f, p);
    request(&f);
    stream_fini(&f);
    ep_json_reset(&j);
    ep_policies_json(&p->worker, &j);
    assert_true(ep_str_search(ep_json_text(&j), EP_STR("\"seen\":1,\"matched\":1,\"blind\":0,\"allow\":1")) > 0);
    ep_json_fini(&j);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, play_setup, play_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_denies),
        TEST(test_fields),
        TEST(test_misuse_fails_closed),
        TEST(test_kept_object_is_of_the_call_at_hand),
        TEST(test_overruns),
        TEST(test_budget_is_of_the_configuration),
        TEST(test_unhealthy_and_back),
        TEST(test_shadow),
        TEST(test_shadow_of_all),
        TEST(test_blind),
        TEST(test_batch_is_judged_call_by_call),
        TEST(test_reply),
        TEST(test_load_errors),
        TEST(test_load_order_and_names),
        TEST(test_environments_are_apart),
        TEST(test_missing_directory),
        TEST(test_chains_of_a_view_share),
        TEST(test_agent_filter_is_needed),
        TEST(test_report),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
