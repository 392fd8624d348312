/* link: ep_filters */
/* Order and precedence of the `authorize` rules, as tables; and what the explanation says of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "authorize.h"
#include "observe/json.h"

#define RULES_MAX 4

/* One glob a key is enough here; NULL: the rule doesn't name it. */
struct rule {
    bool deny;
    const char *principal, *method, *path, *protocol, *tool, *model;
};

struct built {
    struct ep_authorize_config v[RULES_MAX];
    struct ep_str text[RULES_MAX][6];
    struct ep_listener_config listener;
};

static struct ep_vec one(struct ep_str *slot, const char *text)
{
    *slot = ep_str(text ? text : "");
    return (struct ep_vec){text ? slot : NULL, text ? 1 : 0};
}

static void build(struct built *b, const struct rule *rules, size_t n)
{
    memset(b, 0, sizeof *b);
    for (size_t i = 0; i < n; i++)
        b->v[i] = (struct ep_authorize_config){
            .action = rules[i].deny,
            .principals = one(&b->text[i][0], rules[i].principal),
            .methods = one(&b->text[i][1], rules[i].method),
            .paths = one(&b->text[i][2], rules[i].path),
            .protocols = one(&b->text[i][3], rules[i].protocol),
            .tools = one(&b->text[i][4], rules[i].tool),
            .models = one(&b->text[i][5], rules[i].model),
            .where = {.line = (int)i + 10},
        };
    b->listener = (struct ep_listener_config){.name = EP_STR("in"), .authorize = {b->v, n}};
}

static const struct {
    struct rule rules[RULES_MAX];
    const char *principal, *method, *path, *protocol;
    const char *tool; /* or the model */
    enum ep_visible visible;
    bool denied;
    int rule;
} rows[] = {
    /* no rules; deny rules alone; allow rules alone */
    {{{0}}, "a", "GET", "/", "http", "", EP_VISIBLE_FULL, false, -1},
    {{{.deny = true, .path = "/x"}}, "a", "GET", "/y", "http", "", EP_VISIBLE_FULL, false, -1},
    {{{.deny = true, .path = "/x"}}, "a", "GET", "/x", "http", "", EP_VISIBLE_FULL, true, 0},
    {{{.path = "/x"}}, "a", "GET", "/y", "http", "", EP_VISIBLE_FULL, true, -1},
    {{{.path = "/x"}}, "a", "GET", "/x", "http", "", EP_VISIBLE_FULL, false, 0},
    /* a deny rule wins wherever it stands; the first of each kind is named */
    {{{.path = "/x"}, {.deny = true, .method = "GET"}}, "a", "GET", "/x", "http", "", EP_VISIBLE_FULL, true, 1},
    {{{.deny = true, .method = "GET"}, {.path = "/x"}}, "a", "GET", "/x", "http", "", EP_VISIBLE_FULL, true, 0},
    {{{.path = "/*"}, {.path = "/x"}}, "a", "GET", "/x", "http", "", EP_VISIBLE_FULL, false, 0},
    {{{.path = "/y"}, {.path = "/x"}, {.deny = true, .path = "/z"}}, "a", "GET", "/x", "http", "", EP_VISIBLE_FULL, false, 1},
    {{{.deny = true, .path = "/x"}, {.deny = true, .path = "/*"}}, "a", "GET", "/x", "http", "", EP_VISIBLE_FULL, true, 0},
    /* all keys of a rule must hold */
    {{{.principal = "a", .method = "GET", .path = "/x"}}, "a", "POST", "/x", "http", "", EP_VISIBLE_FULL, true, -1},
    {{{.principal = "a", .method = "GET", .path = "/x"}}, "b", "GET", "/x", "http", "", EP_VISIBLE_FULL, true, -1},
    {{{.deny = true, .principal = "a", .method = "GET"}}, "a", "POST", "/x", "http", "", EP_VISIBLE_FULL, false, -1},
    /* nobody is no principal */
    {{{.principal = "*"}}, "", "GET", "/", "http", "", EP_VISIBLE_FULL, true, -1},
    {{{.deny = true, .principal = "*"}}, "", "GET", "/", "http", "", EP_VISIBLE_FULL, false, -1},
    /* paths: a deny rule by either reading, an allow rule by both */
    {{{.deny = true, .path = "/admin*"}}, "a", "GET", "/x/..//%61dmin", "http", "", EP_VISIBLE_FULL, true, 0},
    {{{.path = "/pub/*"}}, "a", "GET", "/pub/../admin", "http", "", EP_VISIBLE_FULL, true, -1},
    {{{.path = "/pub/*"}}, "a", "GET", "/x/../pub/a", "http", "", EP_VISIBLE_FULL, true, -1},
    {{{.path = "/pub/*"}}, "a", "GET", "/pub/a?b=/../admin", "http", "", EP_VISIBLE_FULL, false, 0},
    /* tools and protocols */
    {{{.tool = "s*"}}, "a", "POST", "/", "mcp", "search", EP_VISIBLE_FULL, false, 0},
    {{{.tool = "s*"}, {.deny = true, .tool = "search"}}, "a", "POST", "/", "mcp", "search", EP_VISIBLE_FULL, true, 1},
    {{{.tool = "s*"}}, "a", "POST", "/", "http", "", EP_VISIBLE_FULL, true, -1},
    {{{.deny = true, .tool = "s*"}}, "a", "POST", "/", "http", "", EP_VISIBLE_FULL, false, -1},
    {{{.protocol = "mcp"}}, "a", "POST", "/", "grpc", "", EP_VISIBLE_FULL, true, -1},
    {{{.protocol = "grpc"}, {.deny = true, .protocol = "mcp", .tool = "x"}}, "a", "POST", "/", "grpc", "", EP_VISIBLE_FULL, false, 0},
    /* what can't be seen: every such deny rule, and no such allow rule */
    {{{.deny = true, .tool = "s*"}}, "a", "POST", "/", "http", "", EP_VISIBLE_HEADERS, true, 0},
    {{{.deny = true, .protocol = "mcp"}}, "a", "POST", "/", "http", "", EP_VISIBLE_HEADERS, true, 0},
    {{{.deny = true, .tool = "s*"}}, "a", "POST", "/", "mcp", "", EP_VISIBLE_HEADERS, true, 0},
    {{{.deny = true, .tool = "s*", .path = "/mcp"}}, "a", "POST", "/up", "http", "", EP_VISIBLE_HEADERS, false, -1},
    {{{.tool = "*"}}, "a", "POST", "/", "http", "", EP_VISIBLE_HEADERS, true, -1},
    {{{.protocol = "*"}}, "a", "POST", "/", "http", "", EP_VISIBLE_HEADERS, true, -1},
    {{{.protocol = "*"}, {.path = "/up"}}, "a", "POST", "/up", "http", "", EP_VISIBLE_HEADERS, false, 1},
    {{{.deny = true, .tool = "s*"}}, "a", "POST", "/a.B/C", "grpc", "", EP_VISIBLE_HEADERS, false, -1},
    {{{.protocol = "tcp", .principal = "a"}}, "a", "CONNECT", "", "tcp", "", EP_VISIBLE_NONE, false, 0},
    /* models */
    {{{.model = "small*"}}, "a", "POST", "/v1/x", "openai", "small-1", EP_VISIBLE_FULL, false, 0},
    {{{.model = "small*"}}, "a", "POST", "/v1/x", "openai", "large", EP_VISIBLE_FULL, true, -1},
    {{{.deny = true, .model = "large"}}, "a", "POST", "/v1/x", "anthropic", "large", EP_VISIBLE_FULL, true, 0},
    {{{.deny = true, .model = "large"}}, "a", "POST", "/v1/x", "openai", "", EP_VISIBLE_FULL, true, 0}, /* a stored prompt's own */
    {{{.model = "*"}}, "a", "POST", "/v1/x", "openai", "", EP_VISIBLE_FULL, true, -1},
    {{{.deny = true, .model = "large"}}, "a", "POST", "/x", "http", "", EP_VISIBLE_HEADERS, true, 0},
    {{{.deny = true, .model = "large"}}, "a", "POST", "/x", "mcp", "", EP_VISIBLE_FULL, false, -1},
    {{{.tool = "s*", .model = "m"}}, "a", "POST", "/x", "mcp", "search", EP_VISIBLE_FULL, true, -1},
};

static size_t n_rules(const struct rule *rules)
{
    static const struct rule none;
    size_t n = 0;

    while (n < RULES_MAX && memcmp(&rules[n], &none, sizeof none) != 0)
        n++;
    return n;
}

static bool is_of_models(const char *protocol)
{
    return strcmp(protocol, "openai") == 0 || strcmp(protocol, "anthropic") == 0;
}

static void test_precedence(void **state)
{
    struct ep_chunk_pool chunks;
    struct ep_arena arena;
    struct ep_headers none;

    (void)state;
    ep_chunk_pool_init(&chunks, 0);
    ep_arena_init(&arena, &chunks);
    ep_headers_init(&none, &arena);
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        bool to_model = is_of_models(rows[i].protocol);
        struct ep_call call = {.protocol = ep_str(rows[i].protocol), .visible = rows[i].visible,
                               .method = EP_STR("resources/list"), .tool = ep_str(to_model ? "" : rows[i].tool),
                               .model = ep_str(to_model ? rows[i].tool : "")};
        struct ep_authorize_question q = {ep_str(rows[i].principal), ep_str(rows[i].method), EP_STR("h:80"), ep_str(rows[i].path), &none, &call};
        struct ep_authorize_verdict v;
        struct ep_authorize a;
        struct built b;
        build(&b, rows[i].rules, n_rules(rows[i].rules));
        ep_authorize_init(&a, &b.listener);
        v = ep_authorize_judge(&a, &q, EP_AUTHORIZE_CALL);
        if (v.denied != rows[i].denied || v.rule != rows[i].rule)
            fail_msg("row %zu: denied %d by rule %d", i, v.denied, v.rule);
        /* the head alone never refuses what the call would let through */
        if (ep_authorize_judge(&a, &q, EP_AUTHORIZE_HEAD).denied && !v.denied)
            fail_msg("row %zu: the head refuses, the call doesn't", i);
    }
    ep_headers_fini(&none);
    ep_arena_fini(&arena);
    ep_chunk_pool_fini(&chunks);
}

static void test_the_explanation_agrees(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        static const char *const visible[] = {"full", "headers", "none"};
        struct ep_error err;
        struct ep_json j;
        struct built b;
        char query[512], wanted[128];
        build(&b, rows[i].rules, n_rules(rows[i].rules));
        struct ep_vec listeners = {&b.listener, 1};
        snprintf(query, sizeof query, "principal=%s&method=%s&host=h&path=%s&protocol=%s&%s=%s&visible=%s&call=resources/list", rows[i].principal,
                 rows[i].method, strstr(rows[i].path, "%61") ? "/x/..//%2561dmin" : rows[i].path, rows[i].protocol, is_of_models(rows[i].protocol) ? "model" : "tool", rows[i].tool,
                 visible[rows[i].visible]);
        ep_json_init(&j);
        if (!ep_authorize_explain(&listeners, "f.yaml", ep_str(query), &j, &err))
            fail_msg("%s: %s", query, err.text);
        struct ep_str text = ep_json_text(&j);
        if (rows[i].rule >= 0)
            snprintf(wanted, sizeof wanted, "\"decision\":\"%s\",\"rule\":%d,\"where\":\"f.yaml:%d\"", rows[i].denied ? "deny" : "allow", rows[i].rule,
                     rows[i].rule + 10);
        else
            snprintf(wanted, sizeof wanted, "\"decision\":\"%s\",\"because\"", rows[i].denied ? "deny" : "allow");
        if (ep_str_search(text, ep_str(wanted)) < 0)
            fail_msg("row %zu: %.*s", i, EP_STR_ARG(text));
        ep_json_fini(&j);
    }
}

static void test_questions_that_are_no_good(void **state)
{
    static const char *const queries[] = {"principle=x", "tool", "=x", "listener=on", "visible=", "header.=x", "header.a%0a=x", "header.a=%0a"};
    struct ep_listener_config two[] = {{.name = EP_STR_INIT("in")}, {.name = EP_STR_INIT("out")}};
    struct ep_vec one_listener = {two, 1}, both = {two, 2};
    struct ep_error err;
    struct ep_json j;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(queries); i++) {
        ep_json_init(&j);
        if (ep_authorize_explain(&one_listener, "f", ep_str(queries[i]), &j, &err))
            fail_msg("%s is taken", queries[i]);
        ep_json_fini(&j);
    }
    ep_json_init(&j);
    assert_false(ep_authorize_explain(&both, "f", EP_STR("tool=x"), &j, &err));
    assert_non_null(strstr(err.text, "say which"));
    assert_true(ep_authorize_explain(&both, "f", EP_STR("tool=x&listener=out&"), &j, &err));
    ep_json_fini(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_the_explanation_agrees),
        cmocka_unit_test(test_questions_that_are_no_good),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
