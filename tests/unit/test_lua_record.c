/* link: ep_filters */
/* Recording what policies were asked, and judging it again: what is masked and cut, that a line comes back as the same
 * request, and what a replay says when it can't know. */
#define LUA_FIXTURE_REAL
#include "lua_fixture.h"
#include "lua/policy_test.h"
#include "lua/record.h"

extern const struct ep_filter ep_filter_policies;

#define HEAD "return require 'ephor.policy' { name = 'p', "

static int setup(void **state)
{
    struct play *p = calloc(1, sizeof *p);

    ep_log_set_level(EP_LOG_OFF);
    play_init(p);
    ep_list_init(&p->worker.tasks);
    p->listener.max_body_bytes = 1 << 20;
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct play *p = *state;

    play_fini(p);
    free(p);
    return 0;
}

struct recorded {
    struct ep_policies_record config;
    char path[128], text[1 << 20];
    size_t n;
};

static void start(struct play *p, struct recorded *r, const char *policy)
{
    struct ep_error err;

    r->config = (struct ep_policies_record){.file = ep_str(r->path), .sample = 1, .limit = 1 << 20};
    snprintf(r->path, sizeof r->path, "%s/record", p->directory);
    r->config.file = ep_str(r->path);
    p->policies.record = &r->config;
    play_file(p, "p.lua", policy);
    if (!play_load(p, &ep_filter_policies, NULL, &err))
        fail_msg("%s", err.text);
}

/* The end of a turn, and what is in the file then. */
static const char *written(struct play *p, struct recorded *r)
{
    FILE *f;

    while (!ep_list_empty(&p->worker.tasks)) {
        struct ep_task *t = EP_CONTAINER(p->worker.tasks.next, struct ep_task, node);
        ep_list_remove(&t->node);
        t->run(t);
    }
    f = fopen(r->path, "r");
    assert_non_null(f);
    r->n = fread(r->text, 1, sizeof r->text - 1, f);
    r->text[r->n] = '\0';
    fclose(f);
    return r->text;
}

static enum ep_step judge(struct fake_stream *f)
{
    return ep_filter_policies.request_headers(&f->s, f->state, true);
}

/* Replays into text. */
static int replay(struct play *p, struct recorded *r, const char *policy, bool fail, char text[8192])
{
    struct ep_policy_test_options o = {.directory = p->directory, .record = r->path, .fail_on_difference = fail};
    char report[160];
    FILE *f;
    int rc;

    snprintf(report, sizeof report, "%s/report", p->directory);
    play_file(p, "p.lua", policy);
    o.output = report;
    rc = ep_policy_test(&o);
    f = fopen(report, "r");
    text[fread(text, 1, 8191, f)] = '\0';
    fclose(f);
    return rc;
}

static void test_a_line_has_all_but_the_secrets(void **state)
{
    struct recorded *r = calloc(1, sizeof *r);
    struct play *p = *state;
    struct fake_stream f;
    struct stat st;
    const char *text;

    start(p, r, HEAD "call = function(c) c:header('x-added', '1') if c.tool == 'shell' then return c:deny('no') end end }");
    stream_init(&f, p);
    ep_headers_set_id(&f.s.request.headers, EP_HDR_PATH, EP_STR("/mcp?x=1&api_key=hidden&sig=hidden"));
    ep_headers_add(&f.s.request.headers, EP_STR("authorization"), EP_STR("Bearer hidden"));
    ep_headers_add(&f.s.request.headers, EP_STR("cookie"), EP_STR("hidden=1"));
    f.s.call.session = EP_STR("hidden");
    f.s.call.tool = EP_STR("shell");
    f.s.call.arguments = EP_STR("{\"a\":[1,\"\\u00e9\"]}");
    assert_int_equal(judge(&f), EP_REPLIED);
    stream_fini(&f);
    text = written(p, r);
    assert_null(strstr(text, "hidden"));
    assert_null(strstr(text, "x-added")); /* it is the request as it came */
    assert_contains(text, "{\"v\":1,\"now\":");
    assert_contains(text, "\"path\":\"/mcp?x=1&api_key=***&sig=***\"");
    assert_contains(text, "\"host\":\"Tools.agents:8080\"");
    assert_contains(text, "\"peer\":{\"id\":\"spiffe://cluster.local/ns/agents/sa/planner\"}");
    assert_contains(text, "[\"x-twice\",\"a\"],[\"x-twice\",\"b\"],[\"authorization\",\"***\"],[\"cookie\",\"***\"]]");
    assert_contains(text, "\"arguments\":\"{\\\"a\\\":[1,\\\"\\\\u00e9\\\"]}\"");
    assert_contains(text, "\"lost\":{\"path\":\"masked\",\"headers.authorization\":\"masked\",\"headers.cookie\":\"masked\","
                          "\"session\":\"masked\"}");
    assert_contains(text, "\"decisions\":[{\"policy\":\"p\",\"call\":0,\"decision\":\"deny\",\"code\":\"policy.denied\","
                          "\"reason\":\"no\"}],\"unmatched\":[],\"http\":[],\"reply\":null}\n");
    assert_int_equal(stat(r->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(*ep_stats_cell(p->worker.stats, EP_METRIC_POLICY_RECORDS, EP_LABELS(EP_STR("written"))), 1);
    free(r);
}

static void test_what_is_long_is_cut_and_said(void **state)
{
    struct recorded *r = calloc(1, sizeof *r);
    size_t n = EP_RECORD_FIELD_MAX + 10;
    char *body = malloc(n), text[8192];
    struct play *p = *state;
    struct fake_stream f;

    memset(body, 'x', n);
    start(p, r, HEAD "call = function(c) end }");
    stream_init(&f, p);
    f.s.call.body = ep_str_n(body, n);
    f.s.call.arguments = EP_STR("\xff\xfe");
    assert_int_equal(judge(&f), EP_NEXT);
    stream_fini(&f);
    written(p, r);
    assert_true(r->n > EP_RECORD_FIELD_MAX && r->n < EP_RECORD_FIELD_MAX + 2000);
    assert_contains(r->text, "\"lost\":{\"arguments\":\"encoding\",\"body\":\"cut\"}");
    assert_int_equal(replay(p, r, HEAD "call = function(c) if #c.body > 5 then c:tag('x', 1) end end }", true, text), 0);
    assert_contains(text, "1 requests: 0 as before, 0 differ, 1 can't be told, 0 not replayable\n");
    assert_contains(text, "  1 x p: allow -> allow: body is not in the record as it was (cut) (line 1)\n");
    free(body);
    free(r);
}

static void test_the_file_grows_to_its_limit_and_no_further(void **state)
{
    struct recorded *r = calloc(1, sizeof *r);
    struct play *p = *state;
    struct fake_stream f;

    start(p, r, HEAD "call = function(c) end }");
    p->instance.filter->unload(&p->instance);
    r->config.limit = 4096;
    assert_true(play_load(p, &ep_filter_policies, NULL, NULL));
    for (int i = 0; i < 20; i++) {
        stream_init(&f, p);
        assert_int_equal(judge(&f), EP_NEXT);
        stream_fini(&f);
        written(p, r);
    }
    assert_true(r->n > 2048 && r->n <= 4096);
    assert_int_equal(r->text[r->n - 1], '\n');
    uint64_t good = *ep_stats_cell(p->worker.stats, EP_METRIC_POLICY_RECORDS, EP_LABELS(EP_STR("written")));
    uint64_t lost = *ep_stats_cell(p->worker.stats, EP_METRIC_POLICY_RECORDS, EP_LABELS(EP_STR("dropped")));
    assert_int_equal(good + lost, 20);
    assert_true(good > 3 && lost > 3);
    free(r);
}

static void test_a_file_that_can_not_be(void **state)
{
    struct ep_policies_record config = {.sample = 1, .limit = 1 << 20};
    struct play *p = *state;
    struct ep_error err;
    char path[128];

    play_file(p, "p.lua", HEAD "call = function(c) end }");
    p->policies.record = &config;
    config.file = EP_STR("/nowhere/record");
    assert_false(play_load(p, &ep_filter_policies, NULL, &err));
    assert_contains(err.text, "policies.record.file /nowhere/record: No such file");
    snprintf(path, sizeof path, "%s/link", p->directory);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    config.file = ep_str(path);
    assert_false(play_load(p, &ep_filter_policies, NULL, &err)); /* a link leads elsewhere */
    assert_contains(err.text, path);
    config.file = EP_STR("/dev/null");
    assert_false(play_load(p, &ep_filter_policies, NULL, &err));
    assert_contains(err.text, "/dev/null: not a file of our own");
}

static void test_a_sample(void **state)
{
    struct recorded *r = calloc(1, sizeof *r);
    struct play *p = *state;
    struct fake_stream f;
    unsigned lines = 0;

    start(p, r, HEAD "call = function(c) end }");
    p->instance.filter->unload(&p->instance);
    r->config.sample = 0.2;
    assert_true(play_load(p, &ep_filter_policies, NULL, NULL));
    ep_rng_seed(&p->worker.rng, 7);
    for (int i = 0; i < 400; i++) {
        stream_init(&f, p);
        judge(&f);
        stream_fini(&f);
    }
    for (const char *c = written(p, r); *c; c++)
        lines += *c == '\n';
    assert_in_range(lines, 50, 110);
    free(r);
}

/* What c shows of a request is the same in the proxy and in a replay of its record. */
static void test_a_replay_sees_the_same(void **state)
{
    static const char policy[] =
        "local json = require 'ephor.json'\n"
        "local fields = {'protocol','version','method','tool','model','agent','task','tenant','service','uri','prompt',\n"
        "  'id','body','path','host','route','cluster','listener','direction','visible','blind','notification','batch',\n"
        "  'arguments'}\n" HEAD "call = function(c)\n"
        "  local t = {}\n"
        "  for _, f in ipairs(fields) do t[#t + 1] = f .. '=' .. json.encode(c[f] == nil and json.null or c[f]) end\n"
        "  for _, h in ipairs{'x-tenant','x-twice','none',':method',':scheme'} do t[#t + 1] = c.headers[h] or '-' end\n"
        "  t[#t + 1] = c.peer.id\n"
        "  return c:deny(table.concat(t, ';'))\nend }";
    struct recorded *r = calloc(1, sizeof *r);
    struct ep_call second = {.protocol = EP_STR("mcp"), .method = EP_STR("tools/list"), .batch = true};
    struct play *p = *state;
    struct ep_route_config route_config = {.cluster = EP_STR("app")};
    struct ep_route route = {.config = &route_config, .name = EP_STR("inbound/0")};
    char text[8192];

    start(p, r, policy);
    for (int i = 0; i < 6; i++) {
        struct fake_stream f;
        stream_init(&f, p);
        f.s.call.id_raw = EP_STR("\"a\\\"b\"");
        if (i == 1)
            f.s.call = (struct ep_call){.visible = EP_VISIBLE_HEADERS, .blind = EP_BLIND_ENCODING};
        if (i == 2)
            f.s.call.next = &second, f.s.call.batch = true;
        if (i == 3)
            f.s.route = &route, f.s.call.batch = true, f.s.call.notification = true;
        if (i == 4)
            f.s.call.arguments = EP_STR("{\"z\":1,\"a\":[true,null,{}]}"), f.s.call.body = EP_STR("\x01\t\"\\\n\xc3\xa9");
        if (i == 5)
            ep_headers_remove_id(&f.s.request.headers, EP_HDR_AUTHORITY), f.s.direction = EP_OUTBOUND;
        judge(&f);
        stream_fini(&f);
    }
    written(p, r);
    assert_int_equal(replay(p, r, policy, true, text), 0);
    assert_contains(text, "6 requests: 6 as before, 0 differ, 0 can't be told, 0 not replayable\n");
    free(r);
}

static void record_tools(struct play *p, const char *const *tools, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct fake_stream f;
        stream_init(&f, p);
        ep_headers_add(&f.s.request.headers, EP_STR("authorization"), EP_STR("Bearer x"));
        f.s.call.tool = ep_str(tools[i]);
        judge(&f);
        stream_fini(&f);
    }
}

static void test_a_replay_says_what_differs(void **state)
{
    static const char *const tools[] = {"shell", "search", "search", "write", "read"};
    struct recorded *r = calloc(1, sizeof *r);
    struct play *p = *state;
    char text[8192];

    start(p, r, HEAD "match = { tool = {'shell', 'search', 'write'} }, call = function(c)\n"
                     "  if c.tool == 'shell' then return c:deny('no shells') end end }");
    record_tools(p, tools, EP_COUNT(tools));
    written(p, r);
    /* The same text: the same decisions. */
    assert_int_equal(replay(p, r, HEAD "match = { tool = {'shell', 'search', 'write'} }, call = function(c)\n"
                                       "  if c.tool == 'shell' then return c:deny('no shells') end end }",
                            true, text),
                     0);
    assert_contains(text, "5 requests: 5 as before, 0 differ, 0 can't be told, 0 not replayable\n");
    assert_contains(text, "policy p: 5 judged, 5 as before, 0 differ, 0 can't be told, 0 not replayable\n");
    /* Shells pass, searches don't, writes have an error, and reads are looked at. */
    static const char changed[] = HEAD "call = function(c)\n"
                                       "  if c.tool == 'search' then return c:deny('no searches') end\n"
                                       "  if c.tool == 'write' then error('oops') end end }";
    assert_int_equal(replay(p, r, changed, false, text), 0);
    assert_contains(text, "5 requests: 0 as before, 5 differ, 0 can't be told, 0 not replayable\n");
    assert_contains(text, "3 that passed are refused now, 1 that were refused pass\n");
    assert_contains(text, "  1 x p: deny -> allow (line 1)\n");
    assert_contains(text, "  2 x p: allow -> deny: no searches (line 2)\n");
    assert_contains(text, "  1 x p: allow -> error: the policy failed (line 4)\n");
    assert_contains(text, "  1 x p: no match -> allow (line 5)\n");
    assert_int_equal(replay(p, r, changed, true, text), 1);
    /* What hangs on something masked is never called the same. */
    assert_int_equal(replay(p, r, HEAD "match = { tool = {'shell', 'search', 'write'} }, call = function(c)\n"
                                       "  if not c.headers['Authorization'] or c.tool == 'shell' then\n"
                                       "    return c:deny('no shells') end end }",
                            true, text),
                     0);
    assert_contains(text, "5 requests: 1 as before, 0 differ, 4 can't be told, 0 not replayable\n");
    assert_contains(text, "headers.authorization is not in the record as it was (masked)");
    free(r);
}

/* The response to a request that passed; the body in pieces of `piece` bytes when it isn't asked for whole. */
static void respond(struct fake_stream *f, const char *type, const char *body, size_t piece)
{
    struct ep_headers *h = &f->s.response.headers;
    struct ep_body *b = &f->s.response.body;
    size_t n = strlen(body), some;

    f->s.status = 200;
    f->s.live = ep_str_eq(ep_str(type), EP_STR("text/event-stream"));
    ep_headers_add_id(h, EP_HDR_STATUS, EP_STR("200"));
    ep_headers_add_id(h, EP_HDR_CONTENT_TYPE, ep_str(type));
    ep_headers_add(h, EP_STR("set-cookie"), EP_STR("hidden=1"));
    if (ep_filter_policies.response_headers(&f->s, f->state, n == 0) == EP_BUFFER)
        piece = n;
    for (size_t at = 0; at < n; at += some) {
        some = EP_MIN(piece, n - at);
        ep_body_push_copy(b, body + at, some, &f->s.worker->slabs);
        if (ep_filter_policies.response_body(&f->s, f->state, b, at + some == n) == EP_REPLIED)
            return;
        ep_body_fini(b);
    }
}

static void record_replies(struct play *p, const char *type, const char *const *bodies, size_t n, size_t piece)
{
    for (size_t i = 0; i < n; i++) {
        struct fake_stream f;
        stream_init(&f, p);
        judge(&f);
        respond(&f, type, bodies[i], piece);
        stream_fini(&f);
    }
}

static void test_a_replay_judges_replies(void **state)
{
    static const char *const bodies[] = {"{\"a\":\"fine\"}", "{\"a\":\"bad\"}", ""};
    static const char look[] = HEAD "needs_reply = {'body'}, reply = function(r) if (r.body or ''):find('bad') then return r:deny('bad') end end }";
    struct recorded *r = calloc(1, sizeof *r);
    struct play *p = *state;
    char text[8192];

    start(p, r, look);
    record_replies(p, "application/json", bodies, EP_COUNT(bodies), 4);
    written(p, r);
    assert_null(strstr(r->text, "hidden"));
    assert_contains(r->text, "{\"policy\":\"p\",\"phase\":\"reply\",\"decision\":\"deny\",\"code\":\"policy.denied\",\"reason\":\"bad\"}");
    assert_contains(r->text, "\"reply\":{\"head\":{\"status\":200,\"headers\":[[\"content-type\",\"application/json\"],"
                             "[\"set-cookie\",\"***\"]],\"lost\":{\"headers.set-cookie\":\"masked\"}},"
                             "\"body\":\"{\\\"a\\\":\\\"fine\\\"}\",\"lost\":{}}");
    assert_int_equal(replay(p, r, look, true, text), 0);
    assert_contains(text, "3 requests: 3 as before, 0 differ, 0 can't be told, 0 not replayable\n");
    assert_contains(text, "policy p: 6 judged, 6 as before, 0 differ");
    assert_int_equal(replay(p, r, HEAD "reply = function(r) if r.status == 200 and r.headers['content-type'] then return r:deny('none') end end }",
                            true, text),
                     1);
    assert_contains(text, "  2 x p, reply: allow -> deny: none (line 1)\n");
    assert_contains(text, "2 that passed are refused now, 0 that were refused pass\n");
    assert_int_equal(replay(p, r, HEAD "reply = function(r) if r.headers['set-cookie'] then return r:deny('cookies') end end }", true, text), 0);
    assert_contains(text, "headers.set-cookie is not in the record as it was (masked)");
    /* It sees that a request's header is another's than the reply's. */
    assert_int_equal(replay(p, r, HEAD "reply = function(r) if r.request_headers['set-cookie'] then return r:deny('x') end end }", true, text), 1);
    assert_contains(text, "  1 x p, reply: deny -> allow (line 2)\n");
    free(r);
}

static void test_a_replay_judges_events(void **state)
{
    static const char *const bodies[] = {"data: one\n\ndata: two\n\n", "data: one\n\ndata: bad\n\ndata: three\n\n"};
    static const char look[] = HEAD "event = function(e) if e.data:find('bad') then return e:deny('bad') end end }";
    struct recorded *r = calloc(1, sizeof *r);
    struct play *p = *state;
    char text[8192], *again;

    start(p, r, look);
    record_replies(p, "text/event-stream", bodies, EP_COUNT(bodies), 7);
    written(p, r);
    assert_contains(r->text, "{\"policy\":\"p\",\"phase\":\"event\",\"decision\":\"allow\"}");
    assert_contains(r->text, "\"body\":\"data: one\\n\\ndata: two\\n\\n\",\"lost\":{}}");
    assert_contains(r->text, "{\"policy\":\"p\",\"phase\":\"event\",\"decision\":\"deny\"");
    again = strstr(r->text, "data: three"); /* it was stopped before that was seen */
    assert_null(again);
    assert_int_equal(replay(p, r, look, true, text), 0);
    assert_contains(text, "2 requests: 2 as before, 0 differ");
    assert_int_equal(replay(p, r, HEAD "event = function(e) if e.data:find('two') then return e:deny('two') end end }", true, text), 1);
    assert_contains(text, "  1 x p, event: allow -> deny: two (line 1)\n");
    assert_contains(text, "  1 x p, event: deny -> allow: reply.body is not in the record to its end (cut) (line 2)\n");
    free(r);
}

static void test_what_can_not_be_replayed(void **state)
{
    static const char *const tools[] = {"shell", "search"};
    struct recorded *r = calloc(1, sizeof *r);
    struct play *p = *state;
    char text[8192];

    start(p, r, HEAD "call = function(c) if c.tool == 'shell' then return c:deny('no') end end }");
    record_tools(p, tools, 2);
    written(p, r);
    assert_int_equal(replay(p, r, HEAD "call = function(c) end, reply = function(r) end, event = function(e) end }", true, text), 1);
    assert_contains(text, "  1 x p, reply: it was refused then, so there is no reply to judge (line 1)\n");
    assert_contains(text, "  1 x p, event: it was refused then, so there is no reply to judge (line 1)\n");
    assert_contains(text, "what differs:\n  1 x p: deny -> allow (line 1)\n");
    static const char asks[] = HEAD "call = function(c) local r = c:http { cluster = 'c', path = '/v2?key=x' }\n"
                                    "  if c.tool == 'shell' or r.status ~= 200 then return c:deny('no') end end }";
    assert_int_equal(replay(p, r, asks, true, text), 4);
    assert_contains(text, "2 requests: 0 as before, 0 differ, 0 can't be told, 2 not replayable\n0 that passed are refused now, 0 that");
    assert_contains(text, "not replayable:\n  2 x p: the record has no answer to GET /v2?key=*** of c (line 1)\n");
    assert_int_equal(replay(p, r, asks, false, text), 0);
    /* A record of before: it has neither. */
    static const char later[] = ",\"http\":[],\"reply\":null";
    char *cut;
    unsigned n = 0;
    for (; (cut = strstr(r->text, later)); n++)
        memmove(cut, cut + strlen(later), strlen(cut + strlen(later)) + 1);
    assert_true(n == 2);
    play_file(p, "record", r->text);
    assert_int_equal(replay(p, r, HEAD "call = function(c) if c.tool == 'shell' then return c:deny('no') end end, reply = function(r) end }", true, text), 4);
    assert_contains(text, "  1 x p, reply: the record is of a version that had no replies (line 2)\n");
    assert_int_equal(replay(p, r, asks, true, text), 4);
    free(r);
}

static void test_policies_that_come_and_go(void **state)
{
    static const char *const tools[] = {"shell", "search"};
    struct recorded *r = calloc(1, sizeof *r);
    struct play *p = *state;
    char text[8192], path[128];

    play_file(p, "z.lua", "return require 'ephor.policy' { name = 'z', call = function(c) return c:deny('z') end }");
    start(p, r, HEAD "call = function(c) if c.tool == 'shell' then return c:deny('no') end end }");
    record_tools(p, tools, 2);
    written(p, r);
    assert_contains(r->text, "\"policy\":\"z\"");
    snprintf(path, sizeof path, "%s/z.lua", p->directory);
    unlink(path);
    play_file(p, "a.lua", "return require 'ephor.policy' { name = 'new', match = { tool = 'search' },\n"
                          "  call = function(c) return c:deny('new') end }");
    assert_int_equal(replay(p, r, HEAD "call = function(c) if c.tool == 'shell' then return c:deny('no') end end }", true, text),
                     1);
    assert_contains(text, "2 requests: 1 as before, 1 differ, 0 can't be told, 0 not replayable\n");
    assert_contains(text, "  1 x new: not asked -> deny: new (line 2)\n");
    assert_contains(text, "  1 x z: deny -> no such policy (line 2)\n");
    free(r);
}

static void test_the_clock_is_that_of_the_record(void **state)
{
    struct recorded *r = calloc(1, sizeof *r);
    struct play *p = *state;
    char text[8192];
    FILE *f;

    start(p, r, HEAD "call = function(c) end }");
    f = fopen(r->path, "w");
    fputs("{\"v\":1,\"now\":1709208000.5,\"request\":{\"tool\":\"x\"},\"lost\":{},\"decisions\":[],\"unmatched\":[]}\n"
          "not json\n{\"v\":2}\n[]\n\n{\"v\":1,\"now\":-1,\"request\":{}}\n{\"v\":1,\"now\":5,\"request\":{\"tol\":\"x\"}}\n",
          f);
    fclose(f);
    assert_int_equal(
        replay(p, r, HEAD "call = function(c) return c:deny(('%.1f %d'):format(c.now, os.time())) end }", false, text), 0);
    assert_contains(text, "1 requests: 0 as before, 1 differ");
    assert_contains(text, "not asked -> deny: 1709208000.5 1709208000 (line 1)\n");
    assert_contains(text, "5 lines were left out: no records\n");
    f = fopen(r->path, "w");
    fclose(f);
    assert_int_equal(replay(p, r, HEAD "call = function(c) end }", false, text), 1);
    assert_int_equal(ep_policy_test(&(struct ep_policy_test_options){.directory = p->directory, .record = "/nowhere"}), 3);
    free(r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_line_has_all_but_the_secrets),
        TEST(test_what_is_long_is_cut_and_said),
        TEST(test_the_file_grows_to_its_limit_and_no_further),
        TEST(test_a_file_that_can_not_be),
        TEST(test_a_sample),
        TEST(test_a_replay_sees_the_same),
        TEST(test_a_replay_says_what_differs),
        TEST(test_a_replay_judges_replies),
        TEST(test_a_replay_judges_events),
        TEST(test_what_can_not_be_replayed),
        TEST(test_policies_that_come_and_go),
        TEST(test_the_clock_is_that_of_the_record),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
