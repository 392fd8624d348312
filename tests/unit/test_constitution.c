/* link: ep_filters */
/* The filter `constitution`: stamping, comparing, what a refusal shows. */
#include "lua_fixture.h"

extern const struct ep_filter ep_filter_constitution;

#define HASH "cdd01ef066bc6cf2"

static int setup(void **state)
{
    struct play *p = malloc(sizeof *p);

    play_init(p);
    p->constitution.hash = EP_STR(HASH);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    play_fini(*state);
    free(*state);
    return 0;
}

static void load(struct play *p)
{
    struct ep_error err;

    assert_true(play_load(p, &ep_filter_constitution, NULL, &err));
}

static uint64_t checks(struct play *p, const char *result)
{
    return *ep_stats_cell(p->worker.stats, EP_METRIC_CONSTITUTION_CHECKS, EP_LABELS(ep_str(result)));
}

static void test_inbound(void **state)
{
    static const struct {
        const char *given, *again;
        enum ep_mode mode;
        bool strict;
        enum ep_step step;
        const char *counted, *reason, *reply;
    } rows[] = {
        {HASH, NULL, EP_MODE_ENFORCE, true, EP_NEXT, "match", NULL, HASH},
        {"aaaaaaaabbbbbbbb", NULL, EP_MODE_ENFORCE, true, EP_NEXT, "match", NULL, HASH}, /* accepted too */
        {"abcd1234ffffffff", NULL, EP_MODE_ENFORCE, false, EP_REPLIED, "mismatch",
         "Constitutional hash mismatch (provided: abcd1234...)", NULL},
        {"abc", NULL, EP_MODE_ENFORCE, false, EP_REPLIED, "mismatch", "Constitutional hash mismatch (provided: abc...)",
         NULL},
        {"", NULL, EP_MODE_ENFORCE, false, EP_REPLIED, "mismatch", "Constitutional hash mismatch (provided: ...)",
         NULL},
        {"\x01\xff<script", NULL, EP_MODE_ENFORCE, false, EP_REPLIED, "mismatch",
         "Constitutional hash mismatch (provided: ?"
         "?<scrip...)",
         NULL},
        {HASH "0", NULL, EP_MODE_ENFORCE, false, EP_REPLIED, "mismatch",
         "Constitutional hash mismatch (provided: cdd01ef0...)", NULL},
        {"CDD01EF066BC6CF2", NULL, EP_MODE_ENFORCE, false, EP_REPLIED, "mismatch",
         "Constitutional hash mismatch (provided: CDD01EF0...)", NULL},
        {HASH, "abcd1234ffffffff", EP_MODE_ENFORCE, false, EP_REPLIED, "mismatch",
         "Constitutional hash mismatch (provided: abcd1234...)", NULL},
        {NULL, NULL, EP_MODE_ENFORCE, false, EP_NEXT, "absent", NULL, HASH},
        {NULL, NULL, EP_MODE_ENFORCE, true, EP_REPLIED, "absent", "Constitutional hash missing", HASH},
        {NULL, NULL, EP_MODE_SHADOW, true, EP_NEXT, "absent", NULL, HASH},
        {"abcd1234ffffffff", NULL, EP_MODE_SHADOW, true, EP_NEXT, "mismatch", NULL, NULL},
        {"abcd1234ffffffff", NULL, EP_MODE_OFF, true, EP_NEXT, NULL, NULL, NULL},
    };
    struct ep_str accept[] = {EP_STR("aaaaaaaabbbbbbbb")};
    struct play *p = *state;

    p->constitution.accept = (struct ep_vec){accept, 1};
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct fake_stream f;
        p->constitution.mode = (int)rows[i].mode;
        p->constitution.strict = rows[i].strict;
        load(p);
        uint64_t before = rows[i].counted ? checks(p, rows[i].counted) : 0;
        stream_init(&f, p);
        f.s.direction = EP_INBOUND;
        if (rows[i].given)
            ep_headers_add(&f.s.request.headers, EP_STR("x-constitutional-hash"), ep_str(rows[i].given));
        if (rows[i].again)
            ep_headers_add(&f.s.request.headers, EP_STR("x-constitutional-hash"), ep_str(rows[i].again));
        p->reason[0] = '\0';
        if (ep_filter_constitution.request_headers(&f.s, f.state, true) != rows[i].step)
            fail_msg("row %zu", i);
        assert_string_equal(p->reason, rows[i].reason ? rows[i].reason : "");
        assert_null(strstr(p->reason, HASH));
        if (rows[i].counted)
            assert_int_equal(checks(p, rows[i].counted), before + 1);
        if (rows[i].step == EP_REPLIED)
            assert_string_equal(p->code, rows[i].given ? "constitution.mismatch" : "constitution.absent");
        ep_filter_constitution.response_headers(&f.s, f.state, true);
        struct ep_str reply = ep_headers_get(&f.s.response.headers, EP_STR("x-constitutional-hash"));
        assert_str_equal(reply, rows[i].reply ? rows[i].reply : "");
        stream_fini(&f);
        ep_filter_constitution.unload(&p->instance);
        p->instance.data = NULL;
    }
}

static void test_outbound(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    load(p);
    stream_init(&f, p);
    f.s.direction = EP_OUTBOUND;
    assert_int_equal(ep_filter_constitution.request_headers(&f.s, f.state, true), EP_NEXT);
    assert_str_equal(request_header(&f, "x-constitutional-hash"), HASH);
    assert_int_equal(checks(p, "stamped"), 1);
    stream_fini(&f);

    stream_init(&f, p); /* what the application says stays */
    f.s.direction = EP_OUTBOUND;
    ep_headers_add(&f.s.request.headers, EP_STR("x-constitutional-hash"), EP_STR("its own"));
    assert_int_equal(ep_filter_constitution.request_headers(&f.s, f.state, true), EP_NEXT);
    assert_str_equal(request_header(&f, "x-constitutional-hash"), "its own");
    assert_int_equal(checks(p, "stamped"), 1);
    stream_fini(&f);
}

static void test_without_a_constitution(void **state)
{
    struct play *p = *state;
    struct fake_stream f;

    p->view.constitution_config = NULL;
    load(p);
    stream_init(&f, p);
    ep_headers_add(&f.s.request.headers, EP_STR("x-constitutional-hash"), EP_STR("anything"));
    assert_int_equal(ep_filter_constitution.request_headers(&f.s, f.state, true), EP_NEXT);
    assert_int_equal(ep_filter_constitution.response_headers(&f.s, f.state, true), EP_NEXT);
    assert_int_equal(f.s.response.headers.n, 0);
    stream_fini(&f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_inbound), TEST(test_outbound), TEST(test_without_a_constitution)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
