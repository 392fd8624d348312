/* link: ep_filters */
/* `ephor test`: what passes, fails and breaks; the clock; coverage to the line; the two reports; required tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "filter/policies_config.h"
#include "lua/policy_test.h"

#define POLICY "return require('ephor.policy') { name = 'p', "
#define CASE   "local t = require 'ephor.test'\nt.policy 'p'\n"

struct play {
    char directory[64], report[128], text[65536];
};

static int setup(void **state)
{
    struct play *p = calloc(1, sizeof *p);

    ep_log_set_level(EP_LOG_OFF);
    snprintf(p->directory, sizeof p->directory, "/tmp/ephor-test-XXXXXX");
    assert_non_null(mkdtemp(p->directory));
    snprintf(p->report, sizeof p->report, "%s/report", p->directory);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct play *p = *state;
    char command[128];

    snprintf(command, sizeof command, "rm -rf %s", p->directory);
    assert_int_equal(system(command), 0);
    free(p);
    return 0;
}

static void file(struct play *p, const char *name, const char *text)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", p->directory, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Runs with the report in p->text. */
static int run(struct play *p, struct ep_policy_test_options o)
{
    int rc;
    FILE *f;

    o.directory = o.directory ? o.directory : p->directory;
    o.output = p->report;
    o.coverage_minimum = o.coverage_minimum > 0 ? o.coverage_minimum : -1;
    rc = ep_policy_test(&o);
    f = fopen(p->report, "r");
    assert_non_null(f);
    p->text[fread(p->text, 1, sizeof p->text - 1, f)] = '\0';
    fclose(f);
    return rc;
}

#define RUN(p, ...) run(p, (struct ep_policy_test_options){__VA_ARGS__})
#define SAYS(p, part)                                                                                                  \
    do {                                                                                                               \
        if (!strstr((p)->text, part))                                                                                  \
            fail_msg("'%s' is not in:\n%s", part, (p)->text);                                                          \
    } while (0)
#define SAYS_NOT(p, part)                                                                                              \
    do {                                                                                                               \
        if (strstr((p)->text, part))                                                                                   \
            fail_msg("'%s' is in:\n%s", part, (p)->text);                                                              \
    } while (0)

static void test_examples_pass(void **state)
{
    struct play *p = *state;
    char examples[512];

    snprintf(examples, sizeof examples, "%.*s/lua/policies",
             (int)(strlen(__FILE__) - strlen("/tests/unit/test_policy_test.c")), __FILE__);
    assert_int_equal(RUN(p, .directory = examples), 0);
    SAYS(p, ", 0 failed");
}

static void test_what_passes_fails_and_breaks(void **state)
{
    struct play *p = *state;

    file(p, "p.lua", POLICY "call = function(c) return c:deny('no') end }");
    file(p, "a_test.lua", CASE "t.case('good', function() t.denied(t.call {}, 'no') end)\n"
                               "t.case('fails', function()\n  t.allowed(t.call {})\nend)\n"
                               "t.case('breaks', function() local x = nil; x.y = 1 end)\n"
                               "t.case('throws a table', function() error({}) end)\n"
                               "t.case('loops', function()\n  while true do end\nend)\n"
                               "t.case('eats', function() local s = 'x' while true do s = s .. s end end)\n"
                               "t.case('goes on', function() t.raises(function() error('boom') end, 'boom') end)\n");
    assert_int_equal(RUN(p, .directory = NULL), 1);
    SAYS(p, "ok 1 - good\n");
    SAYS(p, "not ok 2 - fails\n# a_test.lua:5: expected it to pass, got deny by p: no\n");
    SAYS(p, "not ok 3 - breaks\n# a_test.lua:7: attempt to index a nil value");
    SAYS(p, "not ok 4 - throws a table\n# a_test.lua:8: error with an object that is no string\n");
    SAYS(p, "not ok 5 - loops\n# a_test.lua:10: over the budget of instructions\n");
    SAYS(p, "not ok 6 - eats\n# a_test.lua:12: over the budget of memory\n");
    SAYS(p, "ok 7 - goes on\n");
    SAYS(p, "1..7\n# 1 policies, 7 tests, 5 failed\n");
}

static void test_what_does_not_load(void **state)
{
    struct play *p = *state;

    file(p, "p.lua", POLICY "call = function(c) end }");
    assert_int_equal(RUN(p, .directory = NULL), 1);
    SAYS(p, "not ok 1 - there are tests\n");
    file(p, "a_test.lua", "\nsyntax error");
    file(p, "b_test.lua", CASE "t.case('good', function() t.allowed(t.call {}) end)");
    assert_int_equal(RUN(p, .directory = NULL), 1);
    SAYS(p, "not ok 1 - the file loads\n# a_test.lua:2: syntax error near 'error'\n");
    SAYS(p, "ok 2 - good\n");
    file(p, "p.lua", "\n\nsyntax error");
    assert_int_equal(RUN(p, .directory = NULL), 1);
    SAYS(p, "not ok 1 - the policies load\n");
    SAYS(p, "p.lua:3: syntax error");
    assert_int_equal(ep_policy_test(&(struct ep_policy_test_options){.directory = "/nowhere"}), 3);
    assert_int_equal(
        ep_policy_test(&(struct ep_policy_test_options){.directory = p->directory, .output = "/nowhere/report"}), 3);
}

static void test_a_policy_does_not_find_the_tests(void **state)
{
    struct play *p = *state;

    file(p, "p.lua", "require('ephor.test').clock.now()\n" POLICY "call = function(c) end }");
    file(p, "p_test.lua", CASE "t.case('good', function() end)");
    assert_int_equal(RUN(p, .directory = NULL), 1);
    SAYS(p, "not ok 1 - the policies load\n"); /* as in the proxy */
}

static void test_run_chooses(void **state)
{
    struct play *p = *state;

    file(p, "p.lua", POLICY "call = function(c) end }");
    file(p, "a_test.lua", CASE "t.case('one', function() end) t.case('two', function() end)");
    file(p, "b_test.lua", CASE "t.case('two', function() end)");
    assert_int_equal(RUN(p, .pattern = "two"), 0);
    SAYS(p, "1..2\n");
    assert_int_equal(RUN(p, .pattern = "a_test.lua: *"), 0);
    SAYS(p, "1..2\n");
    SAYS_NOT(p, "b_test.lua");
    assert_int_equal(RUN(p, .pattern = "three"), 1);
    SAYS(p, "no case fits --run");
}

static void test_the_clock_stands_still_until_it_is_moved(void **state)
{
    struct play *p = *state;

    file(p, "p.lua", POLICY "call = function(c)\n"
                            "  c:tag('now', c.now) c:tag('os', os.time()) c:tag('date', os.date('!%Y-%m-%d'))\nend }");
    file(p, "p_test.lua", CASE "local function now() return t.call({}).tags.now end\n"
                               "t.case('still', function()\n"
                               "  local before = now()\n"
                               "  for i = 1, 100000 do end\n"
                               "  t.equal(now(), before) t.equal(t.clock.now(), before)\n"
                               "end)\n"
                               "t.case('moved', function()\n"
                               "  t.equal(t.clock.set '2024-02-29T12:00:00Z', 1709208000.0)\n"
                               "  t.equal(now(), 1709208000.0)\n"
                               "  t.equal(t.call({}).tags.os, 1709208000)\n"
                               "  t.clock.advance '1d' t.equal(t.call({}).tags.date, '2024-03-01')\n"
                               "  t.clock.advance(0.5) t.equal(now(), 1709208000.0 + 86400.5)\n"
                               "  t.equal(t.clock.set '2026-11-25T10:00:00+02:00', t.clock.set '2026-11-25T08:00:00Z')\n"
                               "  t.equal(os.time(), math.floor(t.clock.now()))\n"
                               "  t.raises(function() t.clock.advance(-1) end, 'forward')\n"
                               "  t.raises(function() t.clock.advance 'soon' end, 'no duration')\n"
                               "  t.raises(function() t.clock.set 'soon' end, 'p_test.lua:19')\n"
                               "  t.raises(function() t.clock.set(-5) end, '1970')\n"
                               "  t.raises(function() t.clock.advance(1e300) end)\n"
                               "end)\n"
                               "t.case('anew', function() t.ok(t.clock.now() > 1709208000 + 86400 * 300) end)\n");
    if (RUN(p, .directory = NULL) != 0)
        fail_msg("%s", p->text);
}

static void test_what_is_remembered_is_of_the_case_and_grows_old(void **state)
{
    struct play *p = *state;

    file(p, "p.lua", POLICY "call = function(c) if c:count('k', 1, '10s') > 2 then return c:deny('too many') end end }");
    file(p, "p_test.lua", CASE "t.case('grows old', function()\n"
                               "  t.allowed(t.call {}) t.allowed(t.call {}) t.denied(t.call {}, 'too many')\n"
                               "  t.clock.advance '9s' t.denied(t.call {})\n"
                               "  t.clock.advance '2s' t.allowed(t.call {})\n"
                               "end)\n"
                               "t.case('fresh', function() t.allowed(t.call {}) t.allowed(t.call {}) end)\n");
    if (RUN(p, .directory = NULL) != 0)
        fail_msg("%s", p->text);
}

static void test_the_peer(void **state)
{
    struct play *p = *state;

    file(p, "p.lua", POLICY "call = function(c) c:tag('peer', c.peer.id) end,\n"
                            "reply = function(r) r:tag('peer', r.peer.id) end }");
    file(p, "p_test.lua", CASE "local function peer(f) return t.call(f).tags.peer end\n"
                               "t.case('set', function()\n"
                               "  t.equal(peer {}, '')\n"
                               "  t.peer 'spiffe://a/b'\n"
                               "  t.equal(peer {}, 'spiffe://a/b')\n"
                               "  t.equal(peer { peer = { id = 'spiffe://c/d' } }, 'spiffe://c/d')\n"
                               "  t.equal(t.reply({ call = {} }).tags.peer, 'spiffe://a/b')\n"
                               "end)\n"
                               "t.case('anew', function() t.equal(peer {}, '') end)\n");
    if (RUN(p, .directory = NULL) != 0)
        fail_msg("%s", p->text);
}

static void test_coverage_to_the_line(void **state)
{
    struct play *p = *state;

    file(p, "p.lua", "local function never(x)\n"     /* 1 runs */
                     "  x = x + 1\n"                 /* 2 */
                     "  return x\n"                  /* 3 */
                     "end\n"                         /* 4: no line of its own */
                     "\n"                            /* 5 */
                     "-- a comment\n"                /* 6 */
                     POLICY "call = function(c)\n"   /* 7 runs */
                     "  if c.tool == 'shell' then\n" /* 8 runs */
                     "    return c:deny('no')\n"     /* 9 runs */
                     "  elseif c.tool == 'x' then\n" /* 10 runs */
                     "    never(1)\n"                /* 11 */
                     "  end\n"                       /* 12: no line of its own */
                     "  for i = 1, 2 do\n"           /* 13 runs */
                     "    c:tag('i', i)\n"           /* 14 runs */
                     "  end\n"                       /* 15 */
                     "end }\n");                     /* 16 runs: it ends the table */
    file(p, "p_test.lua", CASE "t.case('deny', function() t.denied(t.call { tool = 'shell' }) end)\n"
                               "t.case('pass', function() t.allowed(t.call { tool = 'y' }) end)\n");
    assert_int_equal(RUN(p, .coverage = true), 0);
    SAYS(p, "# coverage p (p.lua): 8 of 11 lines, 72.7%; not run: 2-3, 11\n");
    assert_int_equal(RUN(p, .coverage = true, .coverage_minimum = 0.72), 0);
    SAYS(p, "ok 3 - p is covered to 72%\n");
    assert_int_equal(RUN(p, .coverage = true, .coverage_minimum = 0.73), 1);
    SAYS(p, "not ok 3 - p is covered to 73%\n# p.lua: 8 of 11 lines, 72.7%; not run: 2-3, 11\n");
    assert_int_equal(RUN(p, .coverage = true, .pattern = "pass"), 0);
    SAYS(p, "7 of 11 lines, 63.6%; not run: 2-3, 9, 11\n");
}

static void test_coverage_of_odd_code(void **state)
{
    struct play *p = *state;

    /* Absolute line numbers (long gaps), varargs, goto, nested functions, long strings, integers and floats. */
    file(p, "p.lua", "local big, f = 1234567890123, 1.5\n"
                     "local text = [[\n\n\n]]\n"
                     "local function v(...) return select('#', ...) end\n"
                     "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"
                     "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"
                     "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"
                     POLICY "call = function(c) local function inner() return v(big, f, text) end goto out\n"
                     "::out:: inner() end }");
    file(p, "p_test.lua", CASE "t.case('x', function() t.allowed(t.call {}) end)\n");
    assert_int_equal(RUN(p, .coverage = true), 0);
    SAYS(p, "5 of 5 lines, 100.0%\n");
}

static void test_junit(void **state)
{
    struct play *p = *state;

    file(p, "p.lua", POLICY "call = function(c) return c:deny('no') end }");
    file(p, "a_test.lua", CASE "t.case('a \"<good>\" & sound\\1\\255', function() t.denied(t.call {}) end)\n"
                               "t.case('fails', function() t.allowed(t.call {}) end)\n");
    file(p, "b_test.lua", CASE "t.case('breaks', function() error('<x>') end)\n");
    assert_int_equal(RUN(p, .format = EP_TEST_JUNIT), 1);
    SAYS(p, "<testsuites name=\"ephor test\" tests=\"3\" failures=\"1\" errors=\"1\">\n");
    SAYS(p, "  <testsuite name=\"a_test.lua\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\"");
    SAYS(p, "name=\"a &quot;&lt;good&gt;&quot; &amp; sound\xef\xbf\xbd\xef\xbf\xbd\" file=\"a_test.lua\" time=\"");
    SAYS(p, "<failure message=\"a_test.lua:4: expected it to pass, got deny by p: no\">");
    SAYS(p, "<error message=\"b_test.lua:3: &lt;x&gt;\">b_test.lua:3: &lt;x&gt;</error>");
}

static bool pass(struct play *p, char text[1024])
{
    struct ep_policies_config config = {.directory = ep_str(p->directory), .require_tests = true};
    struct ep_error err = {.text = ""};
    bool good = ep_policy_tests_pass(&config, &err);

    snprintf(text, 1024, "%s", err.text);
    return good;
}

static void test_required_tests(void **state)
{
    struct play *p = *state;
    char why[1024];

    file(p, "p.lua", POLICY "match = { tool = 'shell' }, call = function(c) return c:deny('no') end }");
    assert_false(pass(p, why));
    assert_non_null(strstr(why, "p.lua:1: 'p' has no passing test"));
    file(p, "p_test.lua", CASE "t.case('none of its calls', function() t.allowed(t.call { tool = 'x' }) end)\n");
    assert_false(pass(p, why));
    assert_non_null(strstr(why, "'p' has no passing test"));
    file(p, "p_test.lua", CASE "t.case('fails', function() t.allowed(t.call { tool = 'shell' }) end)\n");
    assert_false(pass(p, why));
    assert_non_null(strstr(why, "1 of 1 tests fail; 'fails': p_test.lua:3: expected it to pass"));
    file(p, "p_test.lua", CASE "t.case('good', function() t.denied(t.call { tool = 'shell' }) end)\n");
    assert_true(pass(p, why));
    file(p, "q.lua", "return require('ephor.policy') { name = 'q', call = function() end }");
    assert_false(pass(p, why));
    assert_non_null(strstr(why, "q.lua:1: 'q' has no passing test"));
    file(p, "q.lua", "return require('ephor.policy') { name = 'q', mode = 'off', call = function() end }");
    assert_true(pass(p, why));
    file(p, "q.lua", "return require('ephor.policy') { name = 'q', event = function(e) end, reply = function(r) end }");
    assert_false(pass(p, why));
    assert_non_null(strstr(why, "'q' has no passing test of its reply (t.reply)"));
    file(p, "q_test.lua", "local t = require 'ephor.test'\nt.policy 'q'\nt.case('r', function() t.call {} t.allowed(t.reply {}) end)\n");
    assert_false(pass(p, why));
    assert_non_null(strstr(why, "'q' has no passing test of its event (t.stream)"));
    file(p, "q_test.lua", "local t = require 'ephor.test'\nt.policy 'q'\n"
                          "t.case('s', function() t.allowed(t.stream { events = { 'x' } }) end)\n");
    assert_true(pass(p, why)); /* its reply sees the head */
    file(p, "q.lua", "return 5");
    assert_false(pass(p, why));
    assert_non_null(strstr(why, "q.lua:1: a policy file must return"));
}

/* A chunk of OpenAI's chat completions that goes on with the text; in the cases as say(text). */
#define SAY                                                                                                            \
    "local function say(text, more) local d = { content = text } return { choices = { { index = 0, delta = d, finish_reason = more } } } end\n" \
    "local call = { protocol = 'openai', method = 'chat/completions', model = 'm' }\n"

static void test_streams_are_played_event_by_event(void **state)
{
    struct play *p = *state;

    file(p, "p.lua",
         POLICY "match = { protocol = { 'openai', 'mcp', 'http', 'a2a' } },\n"
                "reply = function(r) r:redact { 'ssn' } end,\n"
                "event = function(e) if e.text and e.text:find('launch code', 1, true) then return e:deny('no codes', {code = 'x.y'}) end end }");
    file(p, "p_test.lua",
         CASE SAY
         "t.case('over the border of two events', function()\n"
         "  local d = t.stream { call = call, events = { say 'my SSN is 555-', say '12-', say '3456, ok', say('.', 'stop'), '[DONE]' } }\n"
         "  t.allowed(d) t.equal(d.said.text, 'my SSN is [ssn], ok.') t.ok(d.matched and d.policy == 'p' and not d.cut)\n"
         "  t.equal(#d.events, 5) t.equal(d.events[5].data, '[DONE]') t.ok(not d.events[5].changed)\n"
         "  t.equal(d.events[1].json.choices[1].delta.content, 'my SSN is ') t.ok(d.events[1].changed and d.events[1].from == 1)\n"
         "end)\n"
         "t.case('what was held back gets an event of its own', function()\n"
         "  local d = t.stream { call = call, events = { say 'it is 555-12', '[DONE]' } }\n"
         "  t.equal(d.said.text, 'it is 555-12') t.equal(#d.events, 3)\n"
         "  t.ok(d.events[2].from == nil and d.events[2].changed and d.events[3].from == 2)\n"
         "  d = t.stream { call = call, events = { say 'it is 555-12' } }\n"
         "  t.equal(d.said.text, 'it is 555-12') t.ok(d.events[2].from == nil, 'at the end of the stream too')\n"
         "end)\n"
         "t.case('a denial stops it', function()\n"
         "  local d = t.stream { call = call, events = { say 'the launch ', say 'code is', say 'not told' } }\n"
         "  t.denied(d, 'no codes') t.equal(d.code, 'x.y') t.equal(d.said.text, 'the launch ')\n"
         "  t.equal(#d.events, 2) t.ok(d.events[2].refusal and not d.events[1].refusal and not d.cut)\n"
         "  t.ok(d.events[2].json.error.message:find('no codes', 1, true), d.events[2].data)\n"
         "end)\n"
         "t.case('a protocol without such an event is cut', function()\n"
         "  local d = t.stream { call = { protocol = 'http' }, events = { 'the launch code' } }\n"
         "  t.denied(d) t.ok(d.cut and #d.events == 0)\n"
         "end)\n"
         "t.case('mcp and a2a answer in their own words', function()\n"
         "  local function result(id, text) return { jsonrpc = '2.0', id = id, result = { content = { { type = 'text', text = text } } } } end\n"
         "  local d = t.stream { call = { protocol = 'mcp', method = 'tools/call', tool = 'x', id = 'seven' }, events = {\n"
         "    { name = 'message', id = '1', data = result('seven', 'the launch code') } } }\n"
         "  t.denied(d) t.equal(d.events[1].json.id, 'seven') t.ok(d.events[1].json.error, 'the call had begun')\n"
         "  d = t.stream { call = { protocol = 'a2a', method = 'message/stream', id = '7' }, events = {\n"
         "    { jsonrpc = '2.0', id = '7', result = { kind = 'message', role = 'agent', messageId = 'm', parts = { { kind = 'text', text = 'the launch code' } } } } } }\n"
         "  t.denied(d) t.ok(d.events[1].refusal and d.events[1].json.error)\n"
         "  d = t.stream { call = { protocol = 'mcp', method = 'tools/call', tool = 'x' }, events = { { name = 'message', id = '1', data = result(1, 'SSN\\n555-12-3456') } } }\n"
         "  t.allowed(d) t.equal(d.events[1].name, 'message') t.equal(d.events[1].id, '1')\n"
         "  t.equal(d.events[1].json.result.content[1].text, 'SSN\\n[ssn]')\n"
         "end)\n"
         "t.case('what does not match passes as it is', function()\n"
         "  local d = t.stream { call = { protocol = 'anthropic' }, events = { 'a\\nlaunch code', 'b' } }\n"
         "  t.allowed(d) t.ok(not d.matched and d.policy == nil) t.equal(#d.events, 2)\n"
         "  t.equal(d.events[1].data, 'a\\nlaunch code') t.ok(not d.events[1].changed and d.events[2].from == 2)\n"
         "end)\n"
         "t.case('what can not be seen', function()\n"
         "  local d = t.stream { call = call, headers = { ['content-encoding'] = 'gzip' }, events = { say 'x' } }\n"
         "  t.denied(d, 'encoding') t.ok(d.blind and d.code == 'policy.blind')\n"
         "end)\n"
         "t.case('slips', function()\n"
         "  t.raises(function() t.stream { call = call } end, 'events = ')\n"
         "  t.raises(function() t.stream { call = call, events = { { data = 'x', nme = 'y' } } } end, \"no 'nme'\")\n"
         "  t.raises(function() t.stream { call = call, events = { { name = 'a\\nb', data = 'x' } } } end, 'one line')\n"
         "  t.raises(function() t.stream { call = call, events = { 5 } } end, 'not a number')\n"
         "  t.raises(function() t.stream { call = call, status = 500, events = {} } end, 't.reply')\n"
         "  t.raises(function() t.stream { call = call, event = {} } end, \"did you mean 'events'\")\n"
         "end)\n");
    if (RUN(p, .directory = NULL) != 0)
        fail_msg("%s", p->text);
}

static void test_streams_of_calls_that_are_refused(void **state)
{
    struct play *p = *state;

    file(p, "a.lua", "return require('ephor.policy') { name = 'a', call = function(c) if c.model == 'bad' then return c:deny('no model') end end }");
    file(p, "p.lua", POLICY "reply = function(r) if r.headers['x-no'] then return r:deny('no reply') end end,\n"
                            "event = function(e) error('boom') end }");
    file(p, "p_test.lua",
         "local t = require 'ephor.test'\n" SAY
         "t.case('by the call', function()\n"
         "  local d = t.stream { call = { protocol = 'openai', model = 'bad' }, events = { say 'x' } }\n"
         "  t.denied(d, 'no model') t.equal(d.policy, 'a') t.equal(#d.events, 0)\n"
         "end)\n"
         "t.case('by the head', function()\n"
         "  local d = t.stream { call = call, headers = { ['x-no'] = '1' }, events = { say 'x' } }\n"
         "  t.denied(d, 'no reply') t.equal(d.policy, 'p') t.equal(d.said.text, '')\n"
         "end)\n"
         "t.case('an error ends it', function()\n"
         "  local d = t.stream { call = call, events = { say 'x' } }\n"
         "  t.denied(d) t.equal(d.decision, 'error') t.ok(d.error:find('boom', 1, true)) t.ok(d.events[1].refusal)\n"
         "end)\n"
         "t.policy 'a'\n"
         "t.case('one policy alone', function() t.allowed(t.stream { call = call, events = { say 'x' } }) end)\n");
    if (RUN(p, .directory = NULL) != 0)
        fail_msg("%s", p->text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_examples_pass),
        TEST(test_what_passes_fails_and_breaks),
        TEST(test_what_does_not_load),
        TEST(test_a_policy_does_not_find_the_tests),
        TEST(test_run_chooses),
        TEST(test_the_clock_stands_still_until_it_is_moved),
        TEST(test_what_is_remembered_is_of_the_case_and_grows_old),
        TEST(test_the_peer),
        TEST(test_coverage_to_the_line),
        TEST(test_coverage_of_odd_code),
        TEST(test_junit),
        TEST(test_required_tests),
        TEST(test_streams_are_played_event_by_event),
        TEST(test_streams_of_calls_that_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
