/* link: ep_filters */
/* The scan of JSON bodies: what it takes, what it finds, what it won't have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "agent/json.h"
#include "base/base.h"

struct scene {
    struct ep_chunk_pool pool;
    struct ep_arena arena;
    struct ep_scanner *scanner;
    struct ep_scan out;
    char *text;
};

static int setup(void **state)
{
    struct scene *s = ep_calloc(1, sizeof *s);

    ep_chunk_pool_init(&s->pool, 4);
    ep_arena_init(&s->arena, &s->pool);
    s->scanner = ep_scanner_new(42);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    ep_scanner_free(s->scanner);
    ep_arena_fini(&s->arena);
    ep_chunk_pool_fini(&s->pool);
    free(s->text);
    free(s);
    return 0;
}

static void *alloc(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

/* What lies behind the text must not matter: quotes would be the worst. */
static enum ep_scan_result scan_n(struct scene *s, const char *text, size_t n)
{
    free(s->text);
    s->text = ep_malloc(n + EP_SCAN_PADDING);
    memcpy(s->text, text, n);
    memset(s->text + n, '"', EP_SCAN_PADDING);
    return ep_scan_json(s->scanner, s->text, n, alloc, &s->arena, &s->out);
}

static enum ep_scan_result scan(struct scene *s, const char *text)
{
    return scan_n(s, text, strlen(text));
}

static void is(struct ep_scan_text t, const char *wanted)
{
    if (t.n != strlen(wanted) || memcmp(t.p, wanted, t.n))
        fail_msg("'%.*s' is not '%s'", (int)t.n, t.p, wanted);
}

static void test_good(void **state)
{
    static const char *const rows[] = {
        "{}",
        "[]",
        " \t\r\n{ } \n",
        "\xef\xbb\xbf{\"a\":1}",
        "{\"a\":-0,\"b\":0.5,\"c\":1e9,\"d\":1E-9,\"e\":-1.25e+3,\"f\":123456789012345678901234567890,\"g\":1e999}",
        "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\",\"b\":\"\\ud800 alone\"}",
        "{\"\":{\"\":[]},\"x\":[[],{},\"\",null,true,false]}",
        "{\"a\":\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"}",
        "[1,\"two\",null]",
    };

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        if (scan(*state, rows[i]) != EP_SCAN_OK)
            fail_msg("row %zu: %s", i, rows[i]);
        assert_false(((struct scene *)*state)->out.duplicate);
    }
}

static void test_bad(void **state)
{
    static const char *const rows[] = {
        "", " ", "1", "\"a\"", "null", "{", "}", "[", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "[1,]", "[,1]", "[1 2]",
        "{\"a\":1 \"b\":2}", "{\"a\" 1}", "{a:1}", "{'a':1}", "{\"a\":1}x", "{\"a\":1}{\"b\":2}", "{} []", "[1}", "{\"a\":[}]",
        "{\"a\":\"b\":\"c\"}", "{\"a\":01}", "{\"a\":+1}", "{\"a\":1.}", "{\"a\":.5}", "{\"a\":1e}", "{\"a\":0x10}",
        "{\"a\":NaN}", "{\"a\":Infinity}", "{\"a\":-}", "{\"a\":tru}", "{\"a\":truex}", "{\"a\":nul}", "{\"a\":True}",
        "{\"a\":\"\\x\"}", "{\"a\":\"\\u12\"}", "{\"a\":\"\\u12g4\"}", "{\"a\":\"unclosed}", "{\"a\":\"tab\there\"}",
        "{\"a\":\"line\nbreak\"}", "{\"a\":\"\xff\"}", "{\"a\":\"\xc0\xaf\"}", "{\"a\":\"\xed\xa0\x80\"}", "{\"\xff\":1}",
        "{\"a\":1}//", "/**/{\"a\":1}", "{\"a\":1,/**/\"b\":2}", "{\"\\x\":1}", "{\"method\":\"\\ud800\"}",
        "\xef\xbb\xbf\xef\xbb\xbf{}", "{\"a\":\"b\"\"c\"}", "[\"a\"\"b\"]", "[[1]", "[[]]]",
    };

    for (size_t i = 0; i < EP_COUNT(rows); i++)
        if (scan(*state, rows[i]) == EP_SCAN_OK)
            fail_msg("row %zu: %s", i, rows[i]);
    assert_int_equal(scan_n(*state, "{\"a\":1}\0", 8), EP_SCAN_NOT_JSON);
    assert_int_equal(scan_n(*state, "{\0\"\0a\0\"\0:\0001\0}\0", 14), EP_SCAN_NOT_JSON); /* UTF-16 */
}

static void test_a_call(void **state)
{
    struct scene *s = *state;
    const struct ep_scan_message *m;

    assert_int_equal(scan(s, "{\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"arguments\": {\"a\":[1, 2]}  ,"
                             "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}},"
                             "\"jsonrpc\":\"2.0\",\"id\": \"\\u0041\" }"),
                     EP_SCAN_OK);
    m = s->out.first;
    assert_true(m->is_object && !m->next && !s->out.batch && !m->ambiguous && !m->ambiguous_params);
    is(m->method.text, "tools/call");
    is(m->jsonrpc.text, "2.0");
    is(m->name.text, "echo");
    is(m->arguments.raw, "{\"a\":[1, 2]}");
    is(m->meta_version.text, "2026-07-28");
    is(m->id.raw, "\"\\u0041\"");
    is(m->id.text, "A");
    assert_int_equal(m->params.kind, EP_SCAN_OBJECT);
    assert_int_equal(m->result.kind, EP_SCAN_ABSENT);
    /* What isn't at its place is nothing. */
    assert_int_equal(scan(s, "{\"name\":\"x\",\"params\":[{\"name\":\"y\"}],\"a\":{\"method\":\"z\"}}"), EP_SCAN_OK);
    assert_int_equal(s->out.first->name.kind, EP_SCAN_ABSENT);
    assert_int_equal(s->out.first->method.kind, EP_SCAN_ABSENT);
}

static void test_escapes(void **state)
{
    struct scene *s = *state;

    assert_int_equal(scan(s, "{\"m\\u0065thod\":\"tools\\u002fcall\",\"params\":{\"\\u006eame\":\"sh\\u0065ll\"}}"), EP_SCAN_OK);
    is(s->out.first->method.text, "tools/call");
    is(s->out.first->name.text, "shell");
}

static void test_ids(void **state)
{
    static const char *const rows[] = {"7", "-1", "1e3", "12345678901234567890", "\"seven\"", "\"\\u00e9\"", "null", "0.5"};
    struct scene *s = *state;
    char text[100];

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        snprintf(text, sizeof text, "{\"id\" : %s ,\"x\":1}", rows[i]);
        assert_int_equal(scan(s, text), EP_SCAN_OK);
        is(s->out.first->id.raw, rows[i]);
    }
}

static void test_duplicates(void **state)
{
    static const char *const rows[] = {
        "{\"a\":1,\"a\":1}",
        "{\"method\":\"a\",\"m\\u0065thod\":\"b\"}",
        "{\"params\":{\"name\":\"a\",\"name\":\"b\"}}",
        "{\"params\":{\"arguments\":{\"path\":1,\"x\":[{\"y\":1,\"y\":2}]}}}",
        "[{\"a\":1},{\"b\":1,\"b\":1}]",
        "{\"\":1,\"\":2}",
    };
    struct scene *s = *state;
    char text[4096];
    size_t n = 0;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        assert_int_equal(scan(s, rows[i]), EP_SCAN_OK);
        assert_true(s->out.duplicate);
    }
    assert_int_equal(scan(s, "{\"a\":{\"a\":{\"a\":1}},\"b\":[{\"a\":1},{\"a\":1}]}"), EP_SCAN_OK);
    assert_false(s->out.duplicate);
    /* many keys: by hash */
    for (int twice = 0; twice < 2; twice++) {
        n = (size_t)snprintf(text, sizeof text, "{\"k0\":0");
        for (int i = 1; i < 200; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, ",\"k%d\":0", twice && i == 150 ? 7 : i);
        snprintf(text + n, sizeof text - n, "}");
        assert_int_equal(scan(s, text), EP_SCAN_OK);
        assert_int_equal(s->out.duplicate, twice);
    }
}

static void test_ambiguous(void **state)
{
    struct scene *s = *state;

    assert_int_equal(scan(s, "{\"method\":\"a\",\"Method\":\"b\"}"), EP_SCAN_OK);
    assert_true(s->out.first->ambiguous && s->out.first->ambiguous_method);
    assert_int_equal(scan(s, "{\"ID\":1}"), EP_SCAN_OK);
    assert_true(s->out.first->ambiguous && !s->out.first->ambiguous_method);
    assert_int_equal(scan(s, "{\"param\xc5\xbf\":{}}"), EP_SCAN_OK); /* the long s, as Go folds it */
    assert_true(s->out.first->ambiguous);
    assert_int_equal(scan(s, "{\"param\\u017f\":{}}"), EP_SCAN_OK);
    assert_true(s->out.first->ambiguous);
    assert_int_equal(scan(s, "{\"params\":{\"Name\":\"a\"}}"), EP_SCAN_OK);
    assert_true(!s->out.first->ambiguous && s->out.first->ambiguous_params);
    assert_int_equal(scan(s, "{\"methods\":1,\"params\":{\"names\":1,\"arguments\":{\"Name\":1}},\"x\":{\"ID\":1}}"), EP_SCAN_OK);
    assert_false(s->out.first->ambiguous || s->out.first->ambiguous_params);
}

static void test_batch(void **state)
{
    struct scene *s = *state;
    char text[2048];
    size_t n = 0;

    assert_int_equal(scan(s, "[{\"method\":\"a\"} , 5, {\"id\":2}]"), EP_SCAN_OK);
    assert_true(s->out.batch && s->out.n == 3);
    is(s->out.first->method.text, "a");
    assert_false(s->out.first->next->is_object);
    is(s->out.first->next->next->id.raw, "2");
    for (unsigned many = EP_SCAN_BATCH_MAX; many <= EP_SCAN_BATCH_MAX + 1; many++) {
        n = 0;
        for (unsigned i = 0; i < many; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s{}", i ? "," : "[");
        snprintf(text + n, sizeof text - n, "]");
        assert_int_equal(scan(s, text), many == EP_SCAN_BATCH_MAX ? EP_SCAN_OK : EP_SCAN_TOO_MANY);
    }
}

static void test_depth(void **state)
{
    char text[600];

    for (int bracket = 0; bracket < 2; bracket++)
        for (size_t depth = EP_SCAN_DEPTH_MAX; depth <= EP_SCAN_DEPTH_MAX + 1; depth++) {
            size_t n = 0;
            for (size_t i = 0; i < depth; i++)
                n += (size_t)snprintf(text + n, sizeof text - n, bracket ? "[" : "{\"a\":");
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", bracket ? "" : "1");
            for (size_t i = 0; i < depth; i++)
                n += (size_t)snprintf(text + n, sizeof text - n, bracket ? "]" : "}");
            assert_int_equal(scan(*state, text), depth == EP_SCAN_DEPTH_MAX ? EP_SCAN_OK : EP_SCAN_TOO_DEEP);
        }
    assert_int_equal(scan(*state, "{}"), EP_SCAN_OK); /* nothing is left behind */
}

static void test_large(void **state)
{
    struct scene *s = *state;
    size_t n = 600000;
    char *text = ep_malloc(n);

    memset(text, 'x', n);
    memcpy(text, "{\"model\":\"m\",\"input\":\"", 22);
    memcpy(text + n - 2, "\"}", 2);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(scan_n(s, text, n), EP_SCAN_OK);
        is(s->out.first->model.text, "m");
        assert_int_equal(s->out.first->input.text.n, n - 24);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_good),       T(test_bad),   T(test_a_call), T(test_escapes), T(test_ids),
        T(test_duplicates), T(test_ambiguous), T(test_batch), T(test_depth), T(test_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
