/* link: ep_filters */
/* The filter `lua`: Envoy's API, method by method and error by error. */
#include "lua_script_play.h"

static void test_headers(void **state)
{
    struct play *p = *state;
    struct config c = {.on_error = 0};
    struct fake_stream f;

    load_script(p, &c,
                "function envoy_on_request(handle)\n"
                "local h = handle:headers()\n"
                "assert(h == handle:headers())\n"
                "assert(h:get(':path') == '/mcp?x=1' and h:get('X-Tenant') == 'acme' and h:get('absent') == nil)\n"
                "assert(h:get('x-twice') == 'a,b' and h:getNumValues('x-twice') == 2 and h:getNumValues('no') == 0)\n"
                "assert(h:getAtIndex('x-twice', 0) == 'a' and h:getAtIndex('x-twice', 1) == 'b')\n"
                "assert(h:getAtIndex('x-twice', 2) == nil and h:getAtIndex('x-twice', -1) == nil)\n"
                "h:add('X-New', 'one') h:add('x-new', 2) h:replace('x-tenant', 10 / 2) h:remove('X-Twice')\n"
                "h:replace(':path', '/other') h:replace('content-length', '99') h:add('transfer-encoding', 'chunked')\n"
                "local n = 0 for k, v in pairs(h) do n = n + 1 h:replace('x-last', k .. '=' .. v) end assert(n == 8)\n"
                "end");
    stream_init(&f, p);
    ep_headers_add(&f.s.request.headers, EP_STR("cookie"), EP_STR("a=b"));
    assert_int_equal(request(&f, true), EP_NEXT);
    assert_str_equal(request_header(&f, ":path"), "/other");
    assert_str_equal(request_header(&f, "x-tenant"), "5");
    assert_str_equal(request_header(&f, "x-new"), "one");
    assert_null(request_header(&f, "x-twice").p);
    assert_null(request_header(&f, "content-length").p);
    assert_null(request_header(&f, "transfer-encoding").p);
    assert_true(p->routes_cleared > 0);
    stream_fini(&f);
}

static void test_header_errors(void **state)
{
    static const char *const rows[][2] = {
        {"h:headers():replace('x', nil)", "bad argument #2 to 'replace' (string expected, got nil)"},
        {"h:headers():add('a b', 'x')", "'a b' is no name of a header"},
        {"h:headers():add('x', 'a\\nb')", "control character"},
        {"h:headers():replace(':path', 'x y')", "a space or a control character"},
        {"h:headers():replace(':path', 'relative')", "must begin with '/'"},
        {"h:headers():replace(':status', '200')", "there is no header ':status' here"},
        {"h:headers():add(':new', 'x')", "there is no header ':new' here"},
        {"h:headers():remove(':path')", "can't be removed"},
        {"h.headers()", "object used outside of proper scope"},
        {"h:headers().get(h, 'x')", "object used outside of proper scope"},
        {"h:nothing()", "attempt to call a nil value (method 'nothing')"},
        {"h:headers():setHttp1ReasonPhrase('x')", "setHttp1ReasonPhrase() is of the response path"},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++)
        raises(p, rows[i][0], rows[i][1]);
}

static void test_handle(void **state)
{
    struct play *p = *state;

    passes(p, "assert(h:body() == nil) local b = h:body(true) assert(b:length() == 0 and #b == 0)");
    passes(p, "assert(h:trailers() == nil and h:metadata():get('x') == nil)");
    passes(p, "for k in pairs(h:metadata()) do error('none') end");
    passes(
        p,
        "assert(h:base64Escape('') == '' and h:base64Escape('foo') == 'Zm9v' and h:base64Escape('fo\\0') == 'Zm8A')");
    passes(p, "assert(h:base64Escape('f') == 'Zg==' and h:base64Escape('fo') == 'Zm8=')");
    passes(p, "local t = h:timestamp() assert(math.type(t) == 'integer' and t > 1.7e12)");
    passes(p, "assert(#h:timestampString() == 13 and #h:timestampString(EnvoyTimestampResolution.MICROSECOND) == 16)");
    raises(p, "h:timestamp(EnvoyTimestampResolution.MICROSECOND)", "timestamp format must be MILLISECOND.");
    raises(p, "h:timestampString(7)", "timestamp format must be MILLISECOND or MICROSECOND.");
    raises(p, "h:body(1)", "boolean expected");
    raises(p, "h:logInfo(nil)", "bad argument #1 to 'logInfo' (string expected, got nil)");
    passes(p, "for c in h:bodyChunks() do error('no body, no chunk') end");
    raises(p, "h:bodyChunks() h:body()", "cannot call body() after body streaming has started");
    raises(p, "h:body() h:bodyChunks()", "cannot call bodyChunks after body processing has begun");
    raises(p, "h:bodyChunks() h:bodyChunks()", "cannot call bodyChunks after body processing has begun");
    raises(p, "h:downstreamRequestHeaders()", "downstreamRequestHeaders() is of the response path");
    raises(p, "h:setUpstreamOverrideHost('nonsense')", "host is not a valid IP address");
    raises(p, "h:setUpstreamOverrideHost('unix:/x')", "host is not a valid IP address");
    raises(p, "h:setUpstreamOverrideHost('10.0.0.1', 1)", "boolean expected");
    passes(p, "h:setUpstreamOverrideHost('10.0.0.1:80') h:setUpstreamOverrideHost('::1', true)");
    passes(p,
           "h:logTrace('a') h:logDebug('a') h:logInfo('a') h:logWarn(5) h:headers():logInfo('x') h:clearRouteCache()");
    passes(p, "assert(getmetatable(h) == false and getmetatable(h:headers()) == false)");
}

static void test_stream_info(void **state)
{
    struct play *p = *state;

    passes(p, "local i = h:streamInfo() assert(i == h:requestInfo() and i:protocol() == '' and i:routeName() == '')\n"
              "assert(i:downstreamRemoteAddress() == '' and i:requestedServerName() == '')\n"
              "assert(i:downstreamSslConnection() == nil and h:connection():ssl() == nil)");
    passes(p, "local d = h:streamInfo():dynamicMetadata() assert(d:get('x') == nil)\n"
              "d:set('x', 'a', 1) d:set('x', 'b', {'l', {m = true}}) d:set('y', 'c', 'z') d:set('x', 'a', 2.5)\n"
              "local x = d:get('x') assert(x.a == 2.5 and x.b[2].m == true and d:get('y').c == 'z')\n"
              "x.a = 3 assert(d:get('x').a == 2.5)\n"
              "local n = 0 for k, v in pairs(d) do n = n + 1 assert(d:get(k)) end assert(n == 2)");
    raises(p, "h:streamInfo():dynamicMetadata():set('x', 'a', print)", "unexpected type 'function' in dynamicMetadata");
    raises(p, "h:streamInfo():dynamicMetadata():set('x', 'a', {[true] = 1})",
           "unexpected type boolean in table key (only string keys are supported)");
    passes(p, "local f = h:streamInfo():filterState() assert(f:get('a') == nil and f:get('a', 'b') == nil)\n"
              "f:set('a', 'envoy.string', 5) assert(f:get('a') == '5' and f:get('a', 'b') == nil)\n"
              "assert(f:get('ephor.peer_id') == 'spiffe://cluster.local/ns/agents/sa/planner')");
    raises(p, "h:streamInfo():filterState():set('a', 'other', 'x')", "'other' is not an object factory");
    passes(p, "local i, c = h:streamInfo(), h:connectionStreamInfo() assert(i:virtualClusterName() == '')\n"
              "assert(i:dynamicTypedMetadata('x') == nil and c:dynamicTypedMetadata('x') == nil)\n"
              "assert(c:dynamicMetadata():get('x') == nil) for k in pairs(c:dynamicMetadata()) do error(k) end\n"
              "i:drainConnectionUponCompletion()");
    raises(p, "h:connectionStreamInfo():dynamicMetadata():set('a', 'b', 1)", "attempt to call a nil value (method 'set')");
    raises(p, "h:streamInfo():dynamicTypedMetadata()", "string expected, got no value");
}

static void test_body(void **state)
{
    struct play *p = *state;
    struct config c = {.on_error = 0};
    struct fake_stream f;

    load_script(p, &c,
                "function envoy_on_request(handle)\n"
                "local h = handle:headers()\n"
                "local b = handle:body()\n"
                "assert(b:length() == 5 and b:getBytes(0, 5) == 'hello' and b:getBytes(1, 2) == 'el')\n"
                "assert(b:getBytes(5, 0) == '' and handle:body() == b)\n"
                "local ok, e = pcall(b.getBytes, b, 1, 5)\n"
                "assert(e:find('index/length must be >= 0 and (index + length) must be <= buffer size', 1, true))\n"
                "assert(not pcall(b.getBytes, b, -1, 1) and not pcall(b.getBytes, b, 1, -1))\n"
                "h:add('x-len', b:length())\n" /* Envoy #27270: its wrapper is dead here, ours lives */
                "assert(b:setBytes('goodbye') == 7 and b:length() == 7 and b:getBytes(0, 4) == 'good')\n"
                "assert(handle:trailers() == nil)\n"
                "end");
    stream_init(&f, p);
    ep_headers_add(&f.s.request.headers, EP_STR("content-length"), EP_STR("5"));
    assert_int_equal(request(&f, false), EP_BUFFER);
    assert_int_equal(request_body(&f, "hello"), EP_NEXT);
    assert_str_equal(request_header(&f, "x-len"), "5");
    assert_str_equal(request_header(&f, "content-length"), "7");
    assert_str_equal(ep_body_flatten(&f.s.request.body, &f.s.arena), "goodbye");
    assert_int_equal(decisions(p, "allow"), 1);
    stream_fini(&f);

    stream_init(&f, p); /* the client goes away while the script waits */
    assert_int_equal(request(&f, false), EP_BUFFER);
    stream_fini(&f);

    load_script(p, &c, "function envoy_on_request(h) assert(h:body() == nil) assert(h:body(true):length() == 0) end");
    stream_init(&f, p);
    assert_int_equal(request(&f, false), EP_BUFFER);
    assert_int_equal(request_body(&f, ""), EP_NEXT);
    stream_fini(&f);
}

static void test_respond(void **state)
{
    struct play *p = *state;
    struct config c = {.on_error = 0};
    struct fake_stream f;

    load_script(
        p, &c,
        "function envoy_on_request(h)\n"
        "pcall(function() h:respond({[':status'] = '302', location = '/login', ['Set-Cookie'] = {'a=1', 'b=2'},\n"
        "['x-n'] = 7, ['content-length'] = '999'}, 'go there') end)\n"
        "error('never here') end\n"
        "function envoy_on_response(h) h:streamInfo():dynamicMetadata():set('s', 'seen', true) end");
    stream_init(&f, p);
    assert_int_equal(request(&f, true), EP_REPLIED);
    assert_int_equal(p->reply_status, 302);
    assert_string_equal(p->reply_body, "go there");
    assert_str_equal(p->reply_type, "text/plain");
    assert_int_equal(p->reply_headers.n, 4);
    assert_str_equal(ep_headers_get(&p->reply_headers, EP_STR("location")), "/login");
    assert_str_equal(ep_headers_get(&p->reply_headers, EP_STR("set-cookie")), "a=1");
    assert_str_equal(ep_headers_get(&p->reply_headers, EP_STR("x-n")), "7");
    assert_int_equal(ep_filter_lua.response_headers(&f.s, f.state, true), EP_NEXT); /* as in Envoy, it sees it */
    assert_non_null(f.s.tags);
    assert_int_equal(decisions(p, "deny"), 1);
    stream_fini(&f);

    load_script(
        p, &c,
        "function envoy_on_request(h) h:body() h:respond({[':status'] = 403, ['content-type'] = 'a/b'}, 'x') end");
    stream_init(&f, p);
    assert_int_equal(request(&f, false), EP_BUFFER);
    assert_int_equal(request_body(&f, "hello"), EP_REPLIED);
    assert_int_equal(p->reply_status, 403);
    assert_str_equal(p->reply_type, "a/b");
    stream_fini(&f);

    load_script(p, &c, "function envoy_on_request(h) h:respond({[':status'] = '401'}, 'who?') end");
    stream_init(&f, p);
    ep_headers_add(&f.s.request.headers, EP_STR("content-type"), EP_STR("application/grpc+proto"));
    assert_int_equal(request(&f, true), EP_REPLIED);
    assert_int_equal(p->grpc_status, 16);
    assert_string_equal(p->reply_body, "who?");
    stream_fini(&f);

    raises(p, "h:respond({}, 'x')", ":status must be between 200-599");
    raises(p, "h:respond({[':status'] = '100'})", ":status must be between 200-599");
    raises(p, "h:respond({[':status'] = 'abc'})", ":status must be between 200-599");
    raises(p, "h:respond({[':status'] = '200', ['x'] = 'a\\r\\nb: c'})", "control character");
    raises(p, "h:respond('x')", "table expected");
    raises(p, "coroutine.wrap(function() h:respond({[':status'] = '200'}) end)()", "inside a coroutine");
}

static void test_response(void **state)
{
    struct play *p = *state;
    struct config c = {.on_error = 0};
    struct fake_stream f;

    load_script(
        p, &c,
        "local seen\n"
        "function envoy_on_request(h) seen = h h:streamInfo():dynamicMetadata():set('me', 'k', 'v') end\n"
        "function envoy_on_response(h)\n"
        "assert(h ~= seen and h:headers():get(':status') == '200')\n"
        "local ok, e = pcall(h.respond, h, {[':status'] = '200'})\n"
        "assert(e:find('respond not currently supported in the response path', 1, true))\n"
        "local ok, e = pcall(function() seen:headers():add('x', 'y') end)\n"
        "assert(e:find('header map can no longer be modified', 1, true))\n"
        "assert(seen:headers():get('x-tenant') == 'acme')\n"
        "h:headers():replace(':status', 418) h:headers():add('x-k', h:streamInfo():dynamicMetadata():get('me').k)\n"
        "h:body():setBytes('new')\n"
        "end");
    stream_init(&f, p);
    assert_int_equal(request(&f, true), EP_NEXT);
    ep_headers_add(&f.s.response.headers, EP_STR(":status"), EP_STR("200"));
    f.s.status = 200;
    assert_int_equal(ep_filter_lua.response_headers(&f.s, f.state, false), EP_BUFFER);
    ep_body_push_copy(&f.s.response.body, "old body", 8, &p->worker.slabs);
    assert_int_equal(ep_filter_lua.response_body(&f.s, f.state, &f.s.response.body, true), EP_NEXT);
    assert_int_equal(f.s.status, 418);
    assert_str_equal(ep_headers_get(&f.s.response.headers, EP_STR("x-k")), "v");
    assert_str_equal(ep_body_flatten(&f.s.response.body, &f.s.arena), "new");
    assert_int_equal(p->refusals, 0);
    stream_fini(&f);
}

static void test_errors(void **state)
{
    static const struct {
        const char *code, *refusal;
    } rows[] = {
        {"error('x')", "policy.error"},
        {"local x = nil .. 'a'", "policy.error"},
        {"coroutine.yield()", "policy.error"},
        {"while true do end", "policy.overrun"},
        {"local t = {} while true do t[#t + 1] = ('x'):rep(1000) end", "policy.overrun"},
        {"loadstring('return 1')()", "policy.error"},
        {"io.open('/etc/passwd')", "policy.error"},
    };
    struct play *p = *state;
    struct config c = {.on_error = 0};
    struct fake_stream f;
    char text[512];

    for (int allow = 0; allow < 2; allow++) {
        for (size_t i = 0; i < EP_COUNT(rows); i++) {
            snprintf(text, sizeof text,
                     "function envoy_on_request(h) h:headers():add('x-before', '1') %s end\n"
                     "function envoy_on_response(h) h:headers():add('x-after', '1') end",
                     rows[i].code);
            c.on_error = allow;
            load_script(p, &c, text);
            stream_init(&f, p);
            assert_int_equal(request(&f, true), allow ? EP_NEXT : EP_REPLIED);
            if (!allow) {
                assert_string_equal(p->code, rows[i].refusal);
                assert_str_equal(p->refusal.policy, "s");
            }
            assert_str_equal(request_header(&f, "x-before"), "1");
            assert_int_equal(ep_filter_lua.response_headers(&f.s, f.state, true), EP_NEXT);
            assert_null(ep_headers_get(&f.s.response.headers, EP_STR("x-after")).p); /* dropped with the request's */
            stream_fini(&f);
        }
    }
    assert_int_equal(decisions(p, "error") + decisions(p, "overrun"), 2 * EP_COUNT(rows));
}

static void test_script_keeps_what_it_should_not(void **state)
{
    struct play *p = *state;
    struct config c = {.on_error = 0};
    struct fake_stream f, g;

    load_script(p, &c,
                "local kept\n"
                "function envoy_on_request(h)\n"
                "if kept then\n"
                "  assert(kept.handle ~= h)\n"
                "  for _, name in ipairs {'handle', 'headers', 'info'} do\n"
                "    local ok, e = pcall(function() return kept[name]:logInfo('x') or kept.headers:get('x') end)\n"
                "    assert(not ok and e:find('object used outside of proper scope', 1, true), e)\n"
                "  end\n"
                "elseif h:headers():get('x-keep') then\n"
                "  kept = {handle = h, headers = h:headers(), info = h:streamInfo()}\n"
                "end end");
    stream_init(&f, p);
    stream_init(&g, p);
    ep_headers_add(&g.s.request.headers, EP_STR("x-keep"), EP_STR("1"));
    assert_int_equal(request(&f, true), EP_NEXT); /* both have a handle at once: the pool gets two */
    assert_int_equal(request(&g, true), EP_NEXT);
    stream_fini(&g);
    stream_fini(&f);
    stream_init(&f, p);
    assert_int_equal(request(&f, true), EP_NEXT);
    stream_fini(&f);
}

static void test_streams_interleave(void **state)
{
    struct play *p = *state;
    struct config c = {.on_error = 0};
    struct fake_stream f[40];
    char body[32];

    load_script(p, &c,
                "function envoy_on_request(h)\n"
                "local n = h:headers():get('x-n') local b = h:body()\n"
                "assert(b:getBytes(0, b:length()) == 'body ' .. n) h:headers():add('x-done', n) end");
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < EP_COUNT(f); i++) {
            stream_init(&f[i], p);
            snprintf(body, sizeof body, "%zu", i);
            ep_headers_add(&f[i].s.request.headers, EP_STR("x-n"), ep_str(body));
            assert_int_equal(request(&f[i], false), EP_BUFFER);
        }
        for (size_t i = EP_COUNT(f); i-- > 0;) {
            snprintf(body, sizeof body, "body %zu", i);
            assert_int_equal(request_body(&f[i], body), EP_NEXT);
            assert_str_equal(request_header(&f[i], "x-done"), body + 5);
        }
        for (size_t i = 0; i < EP_COUNT(f); i++)
            stream_fini(&f[i]);
    }
}

static void test_lua51(void **state)
{
    struct play *p = *state;

    passes(p, "local a, b = unpack({1, 2}) assert(a == 1 and b == 2 and table.getn({1, 2, 3}) == 3)");
    passes(p, "assert(math.pow(2, 10) == 1024 and tostring(10 / 2) == '5' and tostring(2.5) == '2.5')");
    passes(p, "assert(string.format('%d %s %d', 2.5, 4 / 2, 3.0) == '2 2 3' and ('%x'):format(255.0) == 'ff')");
    passes(p,
           "assert(bit.band(0xff, 0x0f) == 15 and bit.bor(1, 2) == 3 and bit.bxor(3, 1) == 2 and bit.bnot(0) == -1)");
    passes(p, "assert(bit.lshift(1, 31) == -2147483648 and bit.rshift(-1, 28) == 15 and bit.arshift(-8, 1) == -4)");
    passes(p,
           "assert(bit.tohex(0xdeadbeef) == 'deadbeef' and bit.tohex(1, 4) == '0001' and bit.tohex(0xab, -2) == 'AB')");
    passes(p, "assert(bit.rol(0x12345678, 12) == 0x45678123 and bit.bswap(0x12345678) == 0x78563412)");
    passes(p, "assert(bit.tobit(0xffffffff) == -1 and bit.tobit(2^40 + 1234) == 1234 and require('bit') == bit)");
    passes(p, "for w in string.gfind('a b', '%a') do assert(#w == 1) end");
    passes(p, "assert(type(os.time()) == 'number' and os.date('%Y', 0) == '1970' and os.clock() >= 0)");
    passes(p, "math.randomseed(os.time()) local r = math.random(1, 3) assert(r >= 1 and r <= 3)");
    passes(p, "assert(os.getenv == nil and io == nil and debug == nil and package == nil and string.dump == nil)");
    raises(p, "loadstring('x')", "loadstring is not available in ephor's sandbox");
    raises(p, "setfenv(1, {})", "setfenv is not available in ephor's sandbox");
    raises(p, "require('cjson')", "there is no module 'cjson'");
    passes(p, "local json = require('ephor.json') assert(json.encode({a = {1, 2.5, 'x'}}) == '{\"a\":[1,2.5,\"x\"]}')");
}

static void test_loading(void **state)
{
    struct play *p = *state;
    struct config c = {.code = EP_STR("function x(")};
    struct ep_error err = {""};
    char path[128];

    assert_false(play_load(p, &ep_filter_lua, &c, &err));
    assert_contains(err.text, "script load error: [string \"function x(\"]:1:");
    c.code = EP_STR("local x\nx.y = 1");
    assert_false(play_load(p, &ep_filter_lua, &c, &err));
    assert_contains(err.text, "script load error: [string \"local x...\"]:2: attempt to index a nil value");
    assert_false(play_load(p, &ep_filter_lua, NULL, &err));
    assert_contains(err.text, "needs a script");
    assert_null(p->worker.lua);

    play_file(p, "s.lua", "local u = require('util') function envoy_on_response(h) assert(u.x == 1) end");
    play_file(p, "util.lua", "return {x = 1}");
    snprintf(path, sizeof path, "%s/s.lua", p->directory);
    c = (struct config){.file = ep_str(path)};
    assert_true(play_load(p, &ep_filter_lua, &c, &err));
    struct fake_stream f;
    stream_init(&f, p);
    assert_int_equal(request(&f, true), EP_NEXT); /* no envoy_on_request: skipped */
    assert_int_equal(ep_filter_lua.response_headers(&f.s, f.state, true), EP_NEXT);
    assert_int_equal(p->refusals, 0);
    stream_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_headers),
        TEST(test_header_errors),
        TEST(test_handle),
        TEST(test_stream_info),
        TEST(test_body),
        TEST(test_respond),
        TEST(test_response),
        TEST(test_errors),
        TEST(test_script_keeps_what_it_should_not),
        TEST(test_streams_interleave),
        TEST(test_lua51),
        TEST(test_loading),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
