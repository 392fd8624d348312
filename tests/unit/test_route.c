/* link: ep_filter ep_observe */
/* Which route a request takes: hosts, prefixes at segment borders, paths, methods, headers, order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "filter/chain.h"

const struct ep_filter *ep_filter_find(struct ep_str name) /* of filters/registry.c, which stands above this module */
{
    (void)name;
    return NULL;
}

struct row {
    const char *host, *prefix, *path, *method; /* of the route */
    const char *authority, *target, *verb;     /* of the request */
    bool hit;
};

static const struct row rows[] = {
    {"", "", "", "", "a", "/x", "GET", true},
    {"tools.*", "", "", "", "tools.agents:8080", "/", "GET", true},
    {"tools.*", "", "", "", "other.tools.x", "/", "GET", false},
    {"*.example.com", "", "", "", "example.com", "/", "GET", false},
    {"::1", "", "", "", "[::1]:80", "/", "GET", false},
    {"[[]::1]", "", "", "", "[::1]:80", "/", "GET", false},
    {"", "/mcp", "", "", "a", "/mcp", "POST", true},
    {"", "/mcp", "", "", "a", "/mcp/x", "POST", true},
    {"", "/mcp", "", "", "a", "/mcp?x=1", "POST", true},
    {"", "/mcp", "", "", "a", "/mcpx", "POST", false},
    {"", "/mcp/", "", "", "a", "/mcp/x", "POST", true},
    {"", "/", "", "", "a", "/anything", "POST", true},
    {"", "", "/health", "", "a", "/health?verbose", "GET", true},
    {"", "", "/health", "", "a", "/health/x", "GET", false},
    {"", "", "", "POST", "a", "/", "GET", false},
    {"", "", "", "POST", "a", "/", "POST", true},
};

static void test_rows(void **state)
{
    struct ep_headers none = {0};

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        const struct row *r = &rows[i];
        struct ep_route_config config = {.match = {.host = ep_str(r->host),
                                                   .prefix = ep_str(r->prefix),
                                                   .path = ep_str(r->path),
                                                   .method = ep_str(r->method)}};
        struct ep_route route = {.config = &config};
        struct ep_chain chain = {.routes = &route, .n_routes = 1};
        const struct ep_route *found =
            ep_chain_route(&chain, ep_str(r->authority), ep_str(r->target), ep_str(r->verb), &none);
        if ((found != NULL) != r->hit)
            fail_msg("row %zu: %s%s", i, r->authority, r->target);
    }
}

static void test_headers_and_order(void **state)
{
    struct ep_chunk_pool pool;
    struct ep_arena arena;
    struct ep_headers h;
    struct ep_pair want[] = {{EP_STR_INIT("x-tenant"), EP_STR_INIT("ac*")}};
    struct ep_route_config a = {.match = {.headers = {want, 1}}}, b = {0};
    struct ep_route routes[] = {{.config = &a}, {.config = &b}};
    struct ep_chain chain = {.routes = routes, .n_routes = 2};

    (void)state;
    ep_chunk_pool_init(&pool, 4);
    ep_arena_init(&arena, &pool);
    ep_headers_init(&h, &arena);
    assert_ptr_equal(ep_chain_route(&chain, EP_STR("h"), EP_STR("/"), EP_STR("GET"), &h), &routes[1]);
    ep_headers_add(&h, EP_STR("x-tenant"), EP_STR("acme"));
    assert_ptr_equal(ep_chain_route(&chain, EP_STR("h"), EP_STR("/"), EP_STR("GET"), &h), &routes[0]);
    ep_headers_set(&h, EP_STR("x-tenant"), EP_STR("other"));
    assert_ptr_equal(ep_chain_route(&chain, EP_STR("h"), EP_STR("/"), EP_STR("GET"), &h), &routes[1]);
    ep_arena_fini(&arena);
    ep_chunk_pool_fini(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_headers_and_order)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
