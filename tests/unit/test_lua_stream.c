/* link: ep_filters */
/* The filter `lua`: scripts that let a message pass while they look at it, and what the configuration tells them. */
#include "lua_script_play.h"

static void test_trailers(void **state)
{
    struct play *p = *state;
    struct config c = {.on_error = 0};
    struct fake_stream f;

    load_script(
        p, &c,
        "function envoy_on_request(h) local head = h:headers() local t = h:trailers()\n"
        "assert(t:get('x-sum') == '1') t:add('x-more', '2')\n"
        "local ok, e = pcall(head.add, head, 'x', 'y') assert(e:find('header map can no longer be modified', 1, "
        "true))\n"
        "ok, e = pcall(h.body, h) assert(e:find('cannot call body() after body has been streamed', 1, true)) end");
    stream_init(&f, p);
    assert_int_equal(request(&f, false), EP_NEXT); /* the head goes on, and so does the body */
    assert_int_equal(ep_filter_lua.request_body(&f.s, f.state, &f.s.request.body, false), EP_NEXT);
    ep_headers_init(&f.s.request.trailers, &f.s.arena);
    ep_headers_add(&f.s.request.trailers, EP_STR("x-sum"), EP_STR("1"));
    f.s.request.has_trailers = true;
    assert_int_equal(ep_filter_lua.request_trailers(&f.s, f.state), EP_NEXT);
    assert_int_equal(decisions(p, "allow"), 1);
    assert_str_equal(ep_headers_get(&f.s.request.trailers, EP_STR("x-more")), "2");
    ep_headers_fini(&f.s.request.trailers);
    stream_fini(&f);

    load_script(p, &c, "function envoy_on_request(h) assert(h:trailers() == nil) end");
    stream_init(&f, p);
    assert_int_equal(request(&f, false), EP_NEXT);
    assert_int_equal(request_body(&f, "x"), EP_NEXT);
    assert_int_equal(decisions(p, "allow"), 2);
    stream_fini(&f);
}

static void chunk(struct fake_stream *f, const char *bytes, bool end, enum ep_step wanted, const char *passes)
{
    struct ep_body *b = &f->s.request.body;

    if (*bytes)
        ep_body_push_copy(b, bytes, strlen(bytes), &f->s.worker->slabs);
    assert_int_equal(ep_filter_lua.request_body(&f->s, f->state, b, end), wanted);
    assert_str_equal(ep_body_flatten(b, &f->s.arena), passes);
    ep_body_fini(b);
}

static void test_chunks(void **state)
{
    struct play *p = *state;
    struct config c = {.on_error = 0};
    struct fake_stream f;

    load_script(
        p, &c,
        "function envoy_on_request(h)\n"
        "local n, last = 0\n"
        "for chunk in h:bodyChunks() do\n"
        "  n = n + chunk:length()\n"
        "  assert(chunk:getBytes(0, chunk:length()) ~= '')\n"
        "  if chunk:getBytes(0, 1) == 'b' then chunk:setBytes('B!') end\n"
        "  if last then local ok, e = pcall(last.length, last) assert(e:find('outside of proper scope', 1, true)) end\n"
        "  last = chunk\n"
        "  local ok, e = pcall(function() h:headers():add('x', 'y') end)\n"
        "  assert(e:find('header map can no longer be modified', 1, true))\n"
        "end\n"
        "assert(n == 5 and h:trailers() == nil)\n"
        "h:streamInfo():dynamicMetadata():set('s', 'n', n) end");
    for (int with_end = 0; with_end < 2; with_end++) { /* the end comes with the last bytes, or alone */
        stream_init(&f, p);
        assert_int_equal(request(&f, false), EP_NEXT);
        chunk(&f, "aa", false, EP_NEXT, "aa");
        chunk(&f, "b", false, EP_NEXT, "B!");
        chunk(&f, "cc", with_end, EP_NEXT, "cc");
        if (!with_end)
            chunk(&f, "", true, EP_NEXT, "");
        assert_int_equal(decisions(p, "allow"), with_end + 1);
        assert_non_null(f.s.tags);
        stream_fini(&f);
    }
    stream_init(&f, p); /* a length that was promised can't be changed */
    ep_headers_add(&f.s.request.headers, EP_STR("content-length"), EP_STR("3"));
    assert_int_equal(request(&f, false), EP_NEXT);
    chunk(&f, "b", false, EP_REPLIED, "b");
    assert_string_equal(p->code, "policy.error");
    stream_fini(&f);

    load_script(
        p, &c,
        "function envoy_on_request(h) for chunk in h:bodyChunks() do\n"
        "if chunk:getBytes(0, chunk:length()):find('evil') then h:respond({[':status'] = '403'}, 'no') end end end");
    stream_init(&f, p);
    assert_int_equal(request(&f, false), EP_NEXT);
    chunk(&f, "good", false, EP_NEXT, "good");
    chunk(&f, "evil", false, EP_REPLIED, "evil");
    assert_int_equal(p->reply_status, 403);
    stream_fini(&f);

    load_script(p, &c,
                "function envoy_on_request(h) for chunk in h:bodyChunks() do break end\n"
                "local ok, e = pcall(h.body, h) assert(e:find('after body streaming has started', 1, true)) end");
    stream_init(&f, p); /* what is not asked for streams */
    assert_int_equal(request(&f, false), EP_NEXT);
    chunk(&f, "a", false, EP_NEXT, "a");
    chunk(&f, "b", true, EP_NEXT, "b");
    stream_fini(&f);

    stream_init(&f, p); /* the client goes away between chunks */
    assert_int_equal(request(&f, false), EP_NEXT);
    stream_fini(&f);
}

static void test_http_call_errors(void **state)
{
    static const char *const rows[][2] = {
        {"h:httpCall()", "string expected"},
        {"h:httpCall('c', 5, '', 100)", "table expected, got number"},
        {"h:httpCall('c', {}, '', -1)", "http call timeout must be >= 0"},
        {"h:httpCall('c', {}, '', 0/0)", "http call timeout must be >= 0"},
        {"h:httpCall('c', {}, nil)", "number expected, got no value"},
        {"h:httpCall('c', {}, '', 100, 'yes')", "http call asynchronous flag must be 'true', 'false', or empty"},
        {"h:httpCall('c', {}, '', 100)", "http call cluster invalid. Must be configured"},
        {"h:httpCall('c', {}, '', {other = 1})", "\"other\" is not valid key for httpCall() options"},
        {"h:httpCall('c', {}, '', {asynchronous = 1})", "option 'asynchronous' must be a boolean"},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++)
        raises(p, rows[i][0], rows[i][1]);
}

static void test_metadata(void **state)
{
    static const char *const metadata =
        "{\"s\":{\"tier\":\"gold\",\"n\":3,\"l\":[1,\"b\"],\"t\":true},\"other\":{\"x\":1}}";
    struct play *p = *state;
    struct config c = {.on_error = 0};
    struct ep_route_config route_config = {.metadata = ep_str(metadata)};
    struct ep_route route = {.config = &route_config};
    struct fake_stream f;
    struct ep_error err;

    passes(p,
           "for _, m in ipairs {h:metadata(), h:route():metadata(), h:virtualHost():metadata(), h:filterContext()} do\n"
           "assert(m:get('x') == nil) for k in pairs(m) do error(k) end end assert(h:filterContext().x == nil)");
    p->instance.filter->unload(&p->instance);
    c = (struct config){
        .name = EP_STR("s"),
        .code = EP_STR(
            "function envoy_on_request(h)\n"
            "local m, n = h:metadata(), 0\n"
            "assert(m:get('tier') == 'gold' and m:get('n') == 3 and m:get('l')[2] == 'b' and m:get('t') == true)\n"
            "for k, v in pairs(m) do n = n + 1 end assert(n == 4 and m:get('x') == nil)\n"
            "assert(h:route():metadata():get('tier') == 'gold')\n"
            "local x = h:filterContext() assert(x['key'] == 'v' and x:get('key') == 'v' and x.get)\n"
            "m:get('l')[2] = 'changed' assert(m:get('l')[2] == 'b')\n"
            "m:logInfo('x') x:logInfo('x') end"),
        .context = EP_STR("{\"key\":\"v\"}"),
    };
    assert_true(play_load(p, &ep_filter_lua, &c, &err));
    stream_init(&f, p);
    f.s.route = &route;
    assert_int_equal(request(&f, true), EP_NEXT);
    route_config.metadata =
        EP_STR("{\"envoy.filters.http.lua\":{\"tier\":\"gold\",\"n\":3,\"l\":[1,\"b\"],\"t\":true}}");
    stream_fini(&f);
    stream_init(&f, p);
    f.s.route = &route;
    assert_int_equal(request(&f, true), EP_NEXT);
    stream_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_trailers),
        TEST(test_chunks),
        TEST(test_metadata),
        TEST(test_http_call_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
