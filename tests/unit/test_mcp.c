/* link: ep_filters */
/* Lists of MCP edited as text, pins of definitions, and what repeats in headers: without a stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/mcp.h"
#include "agent/mcp_pins.h"
#include "agent/mcp_sessions.h"

struct stage {
    struct ep_chunk_pool chunks;
    struct ep_arena arena;
    struct ep_scanner *scanner;
};

static int begin(void **state)
{
    struct stage *st = ep_calloc(1, sizeof *st);

    ep_chunk_pool_init(&st->chunks, 4);
    ep_arena_init(&st->arena, &st->chunks);
    st->scanner = ep_scanner_new(7);
    *state = st;
    return st->scanner ? 0 : -1;
}

static int end(void **state)
{
    struct stage *st = *state;

    ep_scanner_free(st->scanner);
    ep_arena_fini(&st->arena);
    ep_chunk_pool_fini(&st->chunks);
    free(st);
    return 0;
}

static void *from_arena(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

/* Drops what is called x…. */
static bool keep(void *user, enum ep_mcp_list list, struct ep_str name, struct ep_str entry)
{
    unsigned *asked = user;

    (void)list;
    assert_true(entry.n >= 1);
    (*asked)++;
    return !ep_str_starts(name, EP_STR("x"));
}

static enum ep_mcp_edit edit(struct stage *st, const char *json, unsigned *asked, struct ep_str *out)
{
    size_t n = strlen(json);
    char *text = ep_arena_zalloc(&st->arena, n + EP_SCAN_PADDING);
    struct ep_scan scan;

    memcpy(text, json, n);
    *asked = 0;
    assert_int_equal(ep_scan_json(st->scanner, text, n, from_arena, &st->arena, &scan), EP_SCAN_OK);
    return ep_mcp_list_edit(ep_str_n(text, n), &scan, keep, asked, &st->arena, out);
}

#define RESULT(members) "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{" members "}}"
#define SAME            NULL

static void test_edits(void **state)
{
    static const struct {
        const char *json, *wanted; /* SAME: nothing is cut out; "": unreadable */
        unsigned asked;
    } rows[] = {
        {RESULT("\"tools\":[]"), SAME, 0},
        {RESULT("\"tools\":[ \n]"), SAME, 0},
        {RESULT(""), SAME, 0},
        {RESULT("\"tools\":{}"), SAME, 0}, /* no list */
        {RESULT("\"tools\":[{\"name\":\"a\"}]"), SAME, 1},
        {RESULT("\"tools\":[{\"name\":\"x\"}]"), RESULT("\"tools\":[]"), 1},
        {RESULT("\"tools\":[{\"name\":\"x\"},{\"name\":\"b\"}]"), RESULT("\"tools\":[{\"name\":\"b\"}]"), 2},
        {RESULT("\"tools\":[{\"name\":\"b\"} , {\"name\":\"x\"}]"), RESULT("\"tools\":[{\"name\":\"b\"}]"), 2},
        {RESULT(
             "\"tools\":[{\"name\":\"a\"},{\"name\":\"x1\"},{\"name\":\"x2\"},{\"name\":\"b\"}],\"nextCursor\":\"c\""),
         RESULT("\"tools\":[{\"name\":\"a\"},{\"name\":\"b\"}],\"nextCursor\":\"c\""), 4},
        {RESULT("\"prompts\":[{\"name\":\"x\"}],\"resources\":[{\"uri\":\"x:1\",\"name\":\"a\"},{\"uri\":\"a:1\","
                "\"name\":\"x\"}]"),
         RESULT("\"prompts\":[],\"resources\":[{\"uri\":\"a:1\",\"name\":\"x\"}]"), 3},
        {RESULT("\"resourceTemplates\":[{\"uriTemplate\":\"x{y}\"}]"), RESULT("\"resourceTemplates\":[]"), 1},
        {RESULT("\"cacheScope\":\"public\",\"tools\":[{\"name\":\"x\"}]"),
         RESULT("\"cacheScope\":\"private\",\"tools\":[]"), 1},
        {RESULT("\"tools\":[{\"name\":\"x\"}],\"cacheScope\":\"public\""),
         RESULT("\"tools\":[],\"cacheScope\":\"private\""), 1},
        {RESULT("\"tools\":[{\"n\\u0061me\":\"\\u0078\"},{\"name\":1},{},5,\"s\",[]]"),
         RESULT("\"tools\":[{\"name\":1},{},5,\"s\",[]]"), 6},
        {"[" RESULT("\"tools\":[{\"name\":\"x\"}]") ",{\"id\":2}," RESULT("\"tools\":[{\"name\":\"x\"}]") "]",
         "[" RESULT("\"tools\":[]") ",{\"id\":2}," RESULT("\"tools\":[]") "]", 2},
        {"{\"id\":1,\"error\":{\"tools\":[{\"name\":\"x\"}]}}", SAME, 0},
        {"{\"id\":1,\"result\":[{\"tools\":[{\"name\":\"x\"}]}]}", SAME, 0},
        {RESULT("\"content\":[{\"tools\":[{\"name\":\"x\"}]}]"), SAME, 0},
        {RESULT("\"tools\":[],\"tools\":[]"), "", 0},
        {RESULT("\"TOOLS\":[]"), "", 0},
        {RESULT("\"t\\u006Fols\":[{\"name\":\"x\"}]"), RESULT("\"t\\u006Fols\":[]"), 1},
        {RESULT("\"\\u0054ools\":[]"), "", 0},
        {RESULT("\"tool\xc5\xbf\":[]"), "", 0},
        {RESULT("\"tools\":[{\"NAME\":\"x\"}]"), "", 0},
        {RESULT("\"tools\":[{\"gr\xc3\xb6\xc3\x9f""e\":1,\"name\":\"x\"}]"), RESULT("\"tools\":[]"), 1}, /* a letter, and no trick */
        {"{\"method\":\"notifications/x\",\"params\":{\"a\":1,\"a\":2}}", SAME, 0}, /* no list, whoever reads it */
        {"{\"id\":1,\"result\":{\"tools\":[]},\"result\":{}}", "", 0},
        {"{\"id\":1,\"Result\":{\"tools\":[]}}", "", 0},
    };
    struct stage *st = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_str out = {NULL, 0};
        unsigned asked;
        enum ep_mcp_edit got = edit(st, rows[i].json, &asked, &out);
        enum ep_mcp_edit wanted = !rows[i].wanted ? EP_MCP_SAME : *rows[i].wanted ? EP_MCP_EDITED : EP_MCP_UNREADABLE;
        if (got != wanted || asked != rows[i].asked)
            fail_msg("row %zu: %d, asked %u", i, got, asked);
        if (got == EP_MCP_EDITED && !ep_str_eq(out, ep_str(rows[i].wanted)))
            fail_msg("row %zu: %.*s", i, EP_STR_ARG(out));
    }
}

static void hex(const uint8_t digest[EP_MCP_DIGEST_BYTES], char out[65])
{
    for (size_t i = 0; i < EP_MCP_DIGEST_BYTES; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static void test_digests(void **state)
{
    /* By Python: hashlib.sha256(json.dumps(tool, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
     */
    static const struct {
        const char *json, *sha256;
    } rows[] = {
        {"{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
        {"{ \n}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
        {"{\"b\" : [ 1,true ,null,\"\\u0000\\t\\\"\\\\\\/\\u00e9\"],\n\"a\":{}}",
         "e302e155f009efa57babc5d1ca5ffd49f5dcab3c21e5e35d4ba4ebd571821de4"},
        {"{\"a\":{ },\"b\":[1,true,null,\"\\u0000\\u0009\\u0022\\u005c/\xc3\xa9\"],\"_meta\":{\"x\":1},\"icons\":[]}",
         "e302e155f009efa57babc5d1ca5ffd49f5dcab3c21e5e35d4ba4ebd571821de4"},
    };
    struct stage *st = *state;
    uint8_t digest[EP_MCP_DIGEST_BYTES];

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        char text[65];
        assert_true(ep_mcp_pin_digest(ep_str(rows[i].json), &st->arena, digest));
        hex(digest, text);
        assert_string_equal(text, rows[i].sha256);
    }
    assert_false(ep_mcp_pin_digest(EP_STR("[]"), &st->arena, digest));
}

static void test_what_is_seen(void **state)
{
    struct ep_mcp_digest good[2] = {{{1}}, {{2}}}, bad = {{3}};
    struct ep_mcp_pin pins[] = {{.name = EP_STR("a"), .digests = good, .n = 2},
                                {.name = EP_STR("ab"), .digests = good, .n = 1}};
    struct ep_mcp_pins file = {.v = pins, .n = 2}, none = {0};
    bool news;

    (void)state;
    assert_int_equal(ep_mcp_pins_of(&file, EP_STR("a")), EP_MCP_PINNED_SAME); /* nobody knows better yet */
    assert_int_equal(ep_mcp_pins_of(&file, EP_STR("A")), EP_MCP_PINNED_UNKNOWN);
    assert_int_equal(ep_mcp_pins_of(&file, EP_STR("")), EP_MCP_PINNED_UNKNOWN);
    assert_int_equal(ep_mcp_pins_of(&none, EP_STR("a")), EP_MCP_PINNED_UNKNOWN);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ep_mcp_pins_see(&file, EP_STR("a"), good[i].bytes, &news), EP_MCP_PINNED_SAME);
        assert_false(news);
    }
    assert_int_equal(ep_mcp_pins_see(&file, EP_STR("ab"), good[1].bytes, &news),
                     EP_MCP_PINNED_CHANGED); /* that is a's */
    assert_true(news);
    assert_int_equal(ep_mcp_pins_see(&file, EP_STR("ab"), bad.bytes, &news), EP_MCP_PINNED_CHANGED);
    assert_false(news);
    assert_int_equal(ep_mcp_pins_of(&file, EP_STR("ab")), EP_MCP_PINNED_CHANGED);
    assert_int_equal(ep_mcp_pins_of(&file, EP_STR("a")), EP_MCP_PINNED_SAME);
    assert_int_equal(ep_mcp_pins_see(&file, EP_STR("ab"), good[0].bytes, &news), EP_MCP_PINNED_SAME);
    assert_true(news);
    assert_int_equal(ep_mcp_pins_of(&file, EP_STR("ab")), EP_MCP_PINNED_SAME);
}

/* As new URL(endpoint, "http://host/v1/sse?x=/y") says it, but for dots. */
static void test_where_a_session_is_posted_to(void **state)
{
    static const struct {
        const char *endpoint, *authority, *target; /* target NULL: nowhere */
    } rows[] = {
        {"/messages?sessionId=1", "host", "/messages?sessionId=1"},
        {" /m#part ", "host", "/m"},
        {"m?s=1", "host", "/v1/m?s=1"},
        {"?s=1", "host", "/v1/sse?s=1"},
        {"m/a:b", "host", "/v1/m/a:b"},
        {"HTTPS://other:1/m?x=//y", "other:1", "/m?x=//y"},
        {"http://other", "other", "/"},
        {"//other/m", "other", "/m"},
        {"", "host", NULL},
        {"#part", "host", NULL},
        {"mailto:a", "host", NULL},
        {"ftp://other/m", "host", NULL},
        {"http:m", "host", NULL},
        {"///m", "host", NULL},
    };
    struct stage *st = *state;
    char long_one[EP_MCP_ENDPOINT_MAX + 2];

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_str place = ep_mcp_endpoint(EP_STR("host"), EP_STR("/v1/sse?x=/y"), ep_str(rows[i].endpoint), &st->arena);
        if (!rows[i].target) {
            assert_int_equal(place.n, 0);
            continue;
        }
        assert_int_equal(place.n, strlen(rows[i].authority) + 1 + strlen(rows[i].target));
        assert_string_equal(place.p, rows[i].authority);
        assert_memory_equal(place.p + strlen(rows[i].authority) + 1, rows[i].target, strlen(rows[i].target));
    }
    memset(long_one, 'm', sizeof long_one);
    assert_int_equal(ep_mcp_endpoint(EP_STR("host"), EP_STR("/"), ep_str_n(long_one, sizeof long_one), &st->arena).n, 0);
    assert_int_equal(ep_mcp_endpoint(EP_STR("host"), EP_STR("/"), EP_STR("/m\0/n"), &st->arena).n, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {T(test_edits), T(test_digests), T(test_what_is_seen),
                                       T(test_where_a_session_is_posted_to)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
