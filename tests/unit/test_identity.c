/* link: ep_filters */
/* The filter `identity`: whom it believes, what it takes from strangers, what `authorize` lets through. */
#include "filter_play.h"

#include "authorize.h"
#include "net/tls_private.h"

extern const struct ep_filter ep_filter_identity;
const struct ep_filter *const play_filter = &ep_filter_identity;

#define PLANNER "spiffe://cluster.local/ns/agents/sa/planner"

static struct ep_tls tls_of_planner;

static int setup(void **state)
{
    *state = play_new();
    return 0;
}

static int teardown(void **state)
{
    play_free(*state);
    return 0;
}

static void as_planner(struct play *p)
{
    memset(&tls_of_planner, 0, sizeof tls_of_planner);
    tls_of_planner.info.peer_id = EP_STR(PLANNER);
    tls_of_planner.info.peer_sha256 = EP_STR("ab12");
    tls_of_planner.info.peer_subject = EP_STR("CN=\"x\",O=\\y\n");
    tls_of_planner.info.peer_verified = true;
    p->conn.tls = &tls_of_planner;
}

static void get(struct play *p, const char *path, const char *headers)
{
    play_request(p, "GET", path, headers, NULL, 0, 0);
}

static struct ep_str header(struct play *p, const char *name)
{
    return ep_headers_get(&p->s->request.headers, ep_str(name));
}

#define LIES "x-forwarded-client-cert: By=me|x-ephor-peer: boss|x-ephor-anything: 1|x-ephor-fault: x|x-other: stays|x-ephor-peer: again"

static void test_strangers(void **state)
{
    struct play *p = *state;

    play_chain(p);
    get(p, "/", LIES);
    assert_true(p->passed && !p->s->peer_id.n);
    assert_null(header(p, "x-forwarded-client-cert").p);
    assert_null(header(p, "x-ephor-peer").p);
    assert_null(header(p, "x-ephor-anything").p);
    assert_null(header(p, "x-ephor-fault").p);
    assert_str(header(p, "x-other"), "stays");
    assert_int_equal(p->s->request.headers.n, 4);
    play_end(p);
    as_planner(p); /* a certificate that wasn't verified is none */
    tls_of_planner.info.peer_verified = false;
    get(p, "/", LIES);
    assert_true(!p->s->peer_id.n && !header(p, "x-ephor-peer").p);
}

static void test_a_peer(void **state)
{
    struct play *p = *state;

    play_chain(p);
    as_planner(p);
    get(p, "/", LIES);
    assert_str(p->s->peer_id, PLANNER);
    assert_str(header(p, "x-forwarded-client-cert"),
               "Hash=ab12;Subject=\"CN=\\\"x\\\",O=\\\\y?\";URI=" PLANNER);
    assert_int_equal(ep_headers_count_id(&p->s->request.headers, EP_HDR_X_FORWARDED_CLIENT_CERT), 1);
    assert_str(header(p, "x-ephor-peer"), "boss"); /* a peer may say so */
}

static void test_outbound(void **state)
{
    struct play *p = *state;

    p->config.direction = EP_DIRECTION_OUTBOUND;
    play_chain(p);
    as_planner(p);
    get(p, "/", "");
    assert_null(header(p, "x-forwarded-client-cert").p);
}

/* --- authorize --- */

static struct ep_str planner[] = {EP_STR_INIT("spiffe://*/sa/planner")}, anybody[] = {EP_STR_INIT("*")},
                     posts[] = {EP_STR_INIT("POST")}, mcp_path[] = {EP_STR_INIT("/mcp"), EP_STR_INIT("/mcp/*")},
                     admin_path[] = {EP_STR_INIT("/admin*")}, a_host[] = {EP_STR_INIT("tools")},
                     mcp[] = {EP_STR_INIT("mcp")}, search[] = {EP_STR_INIT("search*")}, shell[] = {EP_STR_INIT("shell")};
static struct ep_pair acme[] = {{EP_STR_INIT("x-tenant"), EP_STR_INIT("acme*")}};
#define VEC(a) {a, sizeof(a) / sizeof((a)[0])}

static void rules(struct play *p, struct ep_authorize_config *v, size_t n)
{
    p->config.authorize = (struct ep_vec){v, n};
    play_chain(p);
}

static bool allowed(struct play *p, const char *method, const char *path, const char *headers)
{
    play_request(p, method, path, headers, NULL, 0, 0);
    bool passed = p->passed;
    if (!passed) {
        assert_int_equal(p->status, 403);
        assert_non_null(strstr(p->body, "authorize.denied"));
    }
    play_end(p);
    return passed;
}

static void test_allow(void **state)
{
    struct play *p = *state;
    struct ep_authorize_config v[] = {{.principals = VEC(planner), .methods = VEC(posts), .paths = VEC(mcp_path)}};

    rules(p, v, 1);
    assert_false(allowed(p, "POST", "/mcp", ""));
    as_planner(p);
    assert_true(allowed(p, "POST", "/mcp", ""));
    assert_true(allowed(p, "POST", "/mcp/x?y=/z", ""));
    assert_false(allowed(p, "GET", "/mcp", ""));
    assert_false(allowed(p, "POST", "/mcpx", ""));
    assert_false(allowed(p, "POST", "/mcp/../admin", "")); /* as it is meant, it is another */
    assert_false(allowed(p, "POST", "/mcp/%2e%2E/admin", ""));
    assert_int_equal(*ep_stats_cell(p->w.stats, EP_METRIC_AUTHORIZE, EP_LABELS(EP_STR("in"), EP_STR("allow"))), 2);
    assert_int_equal(*ep_stats_cell(p->w.stats, EP_METRIC_AUTHORIZE, EP_LABELS(EP_STR("in"), EP_STR("deny"))), 5);
}

static void test_deny(void **state)
{
    static const char *const paths[] = {"/admin",      "/admin/x",   "/%61dmin",      "//admin",  "/./admin", "/x/../admin",
                                        "/x/%2e./admin", "/a/b/../../admin", "/..//admin", "/\\admin", "/admin?x"};
    struct play *p = *state;
    struct ep_authorize_config v[] = {{.principals = VEC(anybody)}, {.action = 1, .paths = VEC(admin_path)}};

    rules(p, v, 2);
    as_planner(p);
    for (size_t i = 0; i < EP_COUNT(paths); i++)
        if (allowed(p, "GET", paths[i], ""))
            fail_msg("%s passed", paths[i]);
    assert_true(allowed(p, "GET", "/x/admin", ""));
    assert_true(allowed(p, "GET", "/", ""));
    p->conn.tls = NULL;
    assert_false(allowed(p, "GET", "/", "")); /* "*" is any principal, and nobody is none */
}

static void test_only_deny_rules_allow_the_rest(void **state)
{
    struct play *p = *state;
    struct ep_authorize_config v[] = {{.action = 1, .hosts = VEC(a_host), .headers = VEC(acme)}};

    rules(p, v, 1);
    assert_true(allowed(p, "GET", "/", ""));
    assert_true(allowed(p, "GET", "/", "x-tenant: other"));
    assert_false(allowed(p, "GET", "/", "x-tenant: acme-1"));
    assert_false(allowed(p, "GET", "/", "x-tenant: other|x-tenant: acme-1"));
}

static void test_allow_wants_all_of_a_header(void **state)
{
    struct play *p = *state;
    struct ep_authorize_config v[] = {{.headers = VEC(acme)}};

    rules(p, v, 1);
    assert_true(allowed(p, "GET", "/", "x-tenant: acme-1"));
    assert_false(allowed(p, "GET", "/", "x-tenant: acme-1|x-tenant: other"));
    assert_false(allowed(p, "GET", "/", ""));
}

/* --- rules that need the call: what `agent` will ask --- */

static bool denies(const struct ep_authorize *a, struct ep_stream *s, struct ep_call c)
{
    return ep_authorize_denies(a, s, &c, EP_AUTHORIZE_CALL);
}

static struct ep_call tool_call(const char *tool)
{
    return (struct ep_call){.protocol = EP_STR("mcp"), .method = EP_STR("tools/call"), .tool = ep_str(tool),
                            .visible = EP_VISIBLE_FULL};
}

static void test_tools(void **state)
{
    struct play *p = *state;
    struct ep_authorize_config v[] = {{.protocols = VEC(mcp), .tools = VEC(search)}, {.action = 1, .tools = VEC(shell)}};
    struct ep_authorize a = {.rules = v, .n = 2, .any_allow = true, .needs_call = true};
    struct ep_call unseen = {.protocol = EP_STR("http"), .visible = EP_VISIBLE_HEADERS},
                   unseen_mcp = {.protocol = EP_STR("mcp"), .visible = EP_VISIBLE_HEADERS},
                   page = {.protocol = EP_STR("http"), .method = EP_STR("GET"), .visible = EP_VISIBLE_FULL},
                   init = {.protocol = EP_STR("mcp"), .method = EP_STR("initialize"), .visible = EP_VISIBLE_FULL},
                   prompt = {.protocol = EP_STR("mcp"), .method = EP_STR("prompts/get"), .visible = EP_VISIBLE_FULL};

    p->uses[0].name = EP_STR("identity");
    play_chain(p);
    get(p, "/", "");
    assert_false(denies(&a, p->s, tool_call("search_web")));
    assert_true(denies(&a, p->s, tool_call("delete")));
    assert_true(denies(&a, p->s, tool_call("shell")));
    assert_false(denies(&a, p->s, init));
    assert_true(denies(&a, p->s, prompt));
    assert_true(denies(&a, p->s, page));
    assert_true(denies(&a, p->s, unseen));
    assert_true(denies(&a, p->s, unseen_mcp));
    a.rules = &v[1]; /* the denial alone */
    a.n = 1;
    a.any_allow = false;
    assert_false(denies(&a, p->s, tool_call("delete")));
    assert_true(denies(&a, p->s, tool_call("shell")));
    assert_true(denies(&a, p->s, unseen)); /* it may be a shell */
    assert_true(denies(&a, p->s, unseen_mcp));
    assert_false(denies(&a, p->s, page));
    assert_false(denies(&a, p->s, init));
    assert_false(ep_authorize_denies(&a, p->s, &unseen, EP_AUTHORIZE_HEAD)); /* not yet */
}

static void test_rules_on_tools_need_agent(void **state)
{
    struct play *p = *state;
    struct ep_authorize_config v[] = {{.tools = VEC(search)}};
    struct ep_error err = {""};

    p->config.authorize = (struct ep_vec){v, 1};
    assert_null(ep_chain_new(&p->view, &p->w, &p->config, play_lookup, p, &err));
    assert_non_null(strstr(err.text, "need the filter 'agent'"));
    p->config.authorize.n = 0;
    play_chain(p);
}

/* --- faults are named to peers only --- */

static void test_faults(void **state)
{
    struct play *p = *state;
    struct ep_tag tag = {.space = EP_STR_INIT("ephor.chaos"), .key = EP_STR_INIT("slow; delay")};
    struct ep_headers h;

    play_chain(p);
    for (int peer = 0; peer < 2; peer++) {
        if (peer)
            as_planner(p);
        get(p, "/", "");
        p->s->fault_injected = true;
        p->s->tags = &tag;
        ep_headers_init(&h, &p->s->arena);
        ep_headers_add_id(&h, EP_HDR_STATUS, EP_STR("200"));
        ep_stream_response_headers(p->s, &h, true);
        assert_int_equal(strstr(p->head, "x-ephor-fault: slow; delay|") != NULL, peer);
        play_end(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_strangers), T(test_a_peer), T(test_outbound), T(test_allow), T(test_deny),
        T(test_only_deny_rules_allow_the_rest), T(test_allow_wants_all_of_a_header), T(test_tools),
        T(test_rules_on_tools_need_agent), T(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
