/* link: ep_filters */
/* Rules on what can never be are refused when they are loaded, with file, line and a suggestion; what may be is not. */
#include "lua_fixture.h"

#include "lua/possible.h"

/* Loads a.lua with that text; the set is let go again when it was good. */
static bool loads(struct play *p, const char *text, struct ep_error *err)
{
    struct ep_policy_set *set;

    play_file(p, "a.lua", text);
    set = ep_policy_set_ref(&p->worker, NULL, &p->policies, err);
    if (set)
        ep_policy_set_unref(set);
    return set != NULL;
}

static void note(void *warnings, const char *text)
{
    snprintf(warnings, 1024, "%s", text);
}

#define HEAD "local policy = require 'ephor.policy'\nreturn policy { name = 'p',\n"

static void test_fields_of_protocols(void **state)
{
    static const struct {
        const char *keys, *error; /* NULL: it loads */
    } rows[] = {
        {"match = {protocol = 'tcp', tool = 'shell'}", "match names 'tool', which calls of the protocol that it matches (tcp) never"},
        {"match = {protocol = {'tcp', 'grpc'}, tool = 'x'}", "(grpc, tcp) never have; those of mcp, a2a, acgs2 may"},
        {"match = {protocol = {'tcp', 'mcp'}, tool = 'x'}", NULL},
        {"match = {protocol = 'tcp', host = 'db.*', peer = '*', listener = '*', direction = 'inbound'}", NULL},
        {"match = {protocol = 'tcp', path = '/x'}", "'path'"},
        {"match = {protocol = 'http', model = 'gpt*'}", "those of openai, anthropic, acgs2 may"},
        {"match = {protocol = 'http', method = 'POST', path = '/x', tenant = 'a', session = 'b'}, needs = {'body'}", NULL},
        {"match = {protocol = 'grpc', service = 'a.b', method = 'Do'}", NULL},
        {"match = {protocol = 'grpc'}, needs = {'arguments'}", "needs names 'arguments', which calls of the protocol that it matches (grpc) never show"},
        {"match = {protocol = 'grpc'}, needs = {'method', 'body'}", "needs names 'body'"},
        {"match = {protocol = 'openai', model = '*'}, needs = {'body'}", NULL},
        {"match = {protocol = 'openai', tool = 'x'}", "'tool'"},
        {"match = {protocol = 'a2a', agent = 'x', task = 'y', tool = 'z'}, needs = {'arguments'}", NULL},
        {"match = {protocol = 'mcp', model = 'x'}", "'model'"},
        {"match = {protocol = 'mcp', method = 'tools/call', tool = 'x'}, needs = {'arguments'}", NULL},
        {"match = {protocol = 'mcp', method = 'tools/*', tool = 'x'}", NULL},
        {"match = {protocol = 'm?p', method = {'tools/list', 'tools/cal'}, tool = 'x'}", "in MCP only tools/call has it"},
        {"match = {protocol = 'mcp', method = 'prompts/list', prompt = 'x'}", "only prompts/get"},
        {"match = {protocol = 'mcp', method = 'resources/subscribe', uri = 'x'}", NULL},
        {"match = {protocol = 'mcp', method = 'tools/call'}, needs = {'uri'}", "only resources/read"},
        {"match = {protocol = {'mcp', 'a2a'}, method = 'message/send', tool = 'x'}", NULL},
        {"match = {method = 'tools/list', tool = 'x'}", NULL}, /* of a protocol that isn't named: who knows */
        {"match = {protocol = 'mpc'}", "no protocol is 'mpc'; did you mean 'mcp'?: there are mcp, a2a, grpc"},
        {"match = {protocol = {'mcp', 'soap*'}}", "no protocol is 'soap*'"},
        {"match = {protocol = '*', tool = 'x'}, needs = {'arguments', 'model', 'body'}", NULL},
        {"match = {tool = 'x', service = 'y'}", NULL},
    };
    struct play *p = *state;
    char text[512];

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_error err = {""};
        snprintf(text, sizeof text, HEAD "%s, call = function(c) end }", rows[i].keys);
        bool good = loads(p, text, &err);
        if (good != !rows[i].error || (!good && (!strstr(err.text, rows[i].error) || !strstr(err.text, "a.lua:2: policy: 'p'"))))
            fail_msg("%s: %s", rows[i].keys, good ? "loads" : err.text);
    }
}

static void test_what_functions_read(void **state)
{
    static const struct {
        const char *text, *error;
    } rows[] = {
        {HEAD "call = function(c)\n  if c.tol == 'x' then return c:deny('no') end\nend }", "a.lua:4: policy: call reads c.tol, and a call has no 'tol'; did you mean 'tool'?"},
        {HEAD "call = function(c) return c.status == 200 end }", "a.lua:3: policy: call reads c.status, and a call has no 'status'; only a reply has"},
        {HEAD "reply = function(r) if r.status > 400 then r:header('x', 'y') end end }", NULL},
        {HEAD "call = function(c) end, reply = function(r)\n\n return r.statuss end }", "a.lua:5: policy: reply reads r.statuss"},
        {HEAD "reply = function(r) end, call = function(c) c:alow() end }", "call reads c.alow"},
        {HEAD "call = function(call)\n-- call.x\n--[[ call.y\n]] local s = 'call.z' .. [==[ call.v ]] ]==]\n call:deny(s, call.tool) end }", NULL},
        {HEAD "call = function(call)\n--[[ \n\n]] local s = [[\n\n]]\n return call.x end }", "a.lua:9:"},
        /* another variable of that name, a table's key, something behind another name: nothing is said */
        {HEAD "call = function(c) for _, c in pairs({}) do print(c.x) end end }", NULL},
        {HEAD "call = function(c) local c = {x = 1} print(c.x) end }", NULL},
        {HEAD "call = function(c) local a, c = 1, {x = 1} print(c.x) end }", NULL},
        {HEAD "call = function(c) local f = function(a, c) return c.x end f(1, {}) end }", NULL},
        {HEAD "call = function(c) local t = {c = 1} print(t.c, c.x) end }", NULL},
        {HEAD "call = function(c) local t = {} print(t.c.x, t .c .y) end }", NULL},
        {HEAD "call = function(c) print(c.headers.x, c.arguments and c.arguments.y, c.peer.id) end }", NULL},
        {HEAD "call = function(c) local k = 'x' .. 'y' return #c.headers .. c.path end }", NULL},
        {HEAD "call = function(_) end, reply = function(_) end }", NULL},
        {HEAD "call = function() local c = {} return c.x end }", NULL},
        {HEAD "call = function(c) if true then while false do end repeat until true end end, description = ({ c = { x = '1' } }).c.x }", NULL},
        {"local function judge(c)\n return c.nothing end\nreturn require 'ephor.policy' { name = 'p', call = judge }", "a.lua:2: policy: call reads c.nothing"},
        {"local a, judge = function(d) return d.x end, function(c) return c.y end\nreturn require 'ephor.policy' { name = 'p', call = judge }", NULL},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_error err = {""};
        bool good = loads(p, rows[i].text, &err);
        if (good != !rows[i].error || (!good && !strstr(err.text, rows[i].error)))
            fail_msg("%s: %s", rows[i].text, good ? "loads" : err.text);
    }
}

static bool anything(void *user, struct ep_str field)
{
    (void)user;
    return field.n > 0;
}

/* Whatever a file says, the reader stays in it. */
static void test_broken_text_is_no_matter(void **state)
{
    static const char text[] = "call = function(c) local x = [==[ a ]=] \"\\\" c.x -- [[ \n c.y '\\\n' 0x1p4 ... :: == c .z [[";

    (void)state;
    for (size_t n = 0; n <= sizeof text - 1; n++)
        for (size_t from = 0; from <= n; from++) {
            char *own = malloc(n - from + 1); /* so that a read behind it is seen */
            struct ep_policy_slip out;
            assert_non_null(own);
            memcpy(own, text + from, n - from);
            ep_policy_slips(ep_str_n(own, n - from), 1, "call", anything, NULL, &out);
            free(own);
        }
}

static void test_places(void **state)
{
    static const struct ep_listener_config inbound = {.name = EP_STR_INIT("inbound")}, db = {.name = EP_STR_INIT("db")},
                                           out = {.name = EP_STR_INIT("outbound")};
    static const struct ep_policy_place some[] = {{&inbound, EP_INBOUND, false}, {&db, EP_INBOUND, true}, {&out, EP_OUTBOUND, false}},
                                        tcp[] = {{&db, EP_INBOUND, true}};
    static const struct {
        const char *keys;
        bool tcp_only;
        const char *error;
    } rows[] = {
        {"match = {tool = 'x'}", false, NULL},
        {"match = {tool = 'x'}", true, "it speaks of 'tool', and the listeners it is for carry opaque TCP alone"},
        {"match = {protocol = 'mcp'}", true, "match.protocol leaves nothing to judge"},
        {"match = {protocol = {'mcp', 'tcp'}}", true, NULL},
        {"match = {protocol = '*', peer = '*', host = '10.*'}", true, NULL},
        {"needs = {'arguments'}", true, "it speaks of 'arguments'"},
        {"match = {path = '/x'}", true, "it speaks of 'path'"},
        {"mode = 'off', match = {tool = 'x'}", true, NULL},
        {"match = {listener = 'db', protocol = 'mcp'}", false, "match.protocol leaves nothing"},
        {"match = {listener = {'db', 'inbound'}, protocol = 'mcp'}", false, NULL},
        {"match = {listener = 'inbund'}", false, "no listener with policies is called 'inbund'; did you mean 'inbound'?"},
        {"match = {listener = 'in*', tool = 'x'}", false, NULL},
        {"match = {listener = 'gate*', tool = 'x'}", false, NULL}, /* for other pods */
        {"match = {direction = 'outbound', tool = 'x'}", false, NULL},
        {"match = {direction = 'outbound', tool = 'x'}", true, NULL},
    };
    struct play *p = *state;
    char text[512], warnings[1024] = "";

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        const struct ep_policy_place *v = rows[i].tcp_only ? tcp : some;
        struct ep_error err = {""};
        snprintf(text, sizeof text, HEAD "%s, call = function(c) end }", rows[i].keys);
        play_file(p, "a.lua", text);
        bool good = ep_policy_directory_possible(&p->policies, v, rows[i].tcp_only ? 1 : 3, note, warnings, &err);
        if (good != !rows[i].error || (!good && (!strstr(err.text, rows[i].error) || !strstr(err.text, "a.lua:2: policy 'p'"))))
            fail_msg("%s: %s", rows[i].keys, good ? "good" : err.text);
    }
}

static void test_who_sees_streams_alone_is_warned_of(void **state)
{
    static const struct {
        const char *keys, *says;
        bool refused;
    } rows[] = {
        {"match = {protocol = 'openai'}, event = f", "a.lua:3: policy 'p': it has an event and no reply, so it sees nothing of an answer "
                                                     "that comes whole, as those of openai may", false},
        {"event = f", "as those of mcp, a2a, openai, anthropic, acgs2, http may", false},
        {"match = {protocol = {'grpc', 'mcp'}, method = 'tools/call'}, event = f", "as those of mcp may", false},
        {"match = {protocol = 'a2a', method = {'message/stream', 'tasks/resubscribe'}}, event = f", NULL, false},
        {"match = {protocol = 'a2a', method = {'message/*'}}, event = f", "as those of a2a may", false},
        {"event = f, reply = f", NULL, false},
        {"event = f, mode = 'off'", NULL, false},
        {"call = f", NULL, false},
        {"match = {protocol = {'grpc', 'tcp'}}, event = f", "calls of the protocol that it matches (grpc, tcp) are never server-sent events", true},
        {"match = {protocol = 'grpc'}, event = f, reply = f", "(grpc) are never server-sent events", true},
    };
    const struct ep_listener_config inbound = {.name = EP_STR_INIT("inbound")};
    const struct ep_policy_place v = {&inbound, EP_INBOUND, false};
    struct play *p = *state;
    char text[512];

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        char warnings[1024] = "";
        struct ep_error err = {""};
        snprintf(text, sizeof text, "local function f() end\n" HEAD "%s }", rows[i].keys);
        play_file(p, "a.lua", text);
        bool good = ep_policy_directory_possible(&p->policies, &v, 1, note, warnings, &err);
        const char *said = rows[i].refused ? err.text : warnings;
        if (good == rows[i].refused || (rows[i].says ? !strstr(said, rows[i].says) : *said != 0))
            fail_msg("%s: %s", rows[i].keys, said);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fields_of_protocols, play_setup, play_teardown),
        cmocka_unit_test_setup_teardown(test_what_functions_read, play_setup, play_teardown),
        cmocka_unit_test(test_broken_text_is_no_matter),
        cmocka_unit_test_setup_teardown(test_places, play_setup, play_teardown),
        cmocka_unit_test_setup_teardown(test_who_sees_streams_alone_is_warned_of, play_setup, play_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
