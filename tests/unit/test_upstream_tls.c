/* link: ep_upstream */
/* Clusters over TLS: the mesh, simple TLS by name, what ALPN decides, and who is refused. */
#include "tls_play.h"
#include "upstream_play.h"

static struct identity ca, other_ca, server_id, client_id;

static int setup(void **state)
{
    (void)state;
    ca = make("mesh CA", (struct wish){.ca = true}, NULL);
    other_ca = make("another CA", (struct wish){.ca = true}, NULL);
    server_id = make(
        "server",
        (struct wish){.san = "URI:spiffe://cluster.local/ns/a/sa/server,DNS:server.test,DNS:other.test,IP:127.0.0.1"},
        &ca);
    client_id = make("client", (struct wish){.san = "URI:spiffe://cluster.local/ns/a/sa/client"}, &ca);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unmake(&ca);
    unmake(&other_ca);
    unmake(&server_id);
    unmake(&client_id);
    return 0;
}

/* What the identity's owner would give out. */
struct owner {
    struct ep_tls_context *http, *tcp;
    unsigned asked;
};

static struct ep_tls_context *give_http(void *user)
{
    struct owner *o = user;

    o->asked++;
    return o->http;
}

static struct ep_tls_context *give_tcp(void *user)
{
    return ((struct owner *)user)->tcp;
}

static struct ep_tls_context *client_context(const char *protocol)
{
    const char *const alpn[] = {protocol, NULL};
    struct ep_tls_options o = options(false, EP_TLS_VERIFY_MESH, &client_id, &ca);

    o.alpn = alpn;
    return context(&o);
}

struct set {
    struct stage s;
    struct server server;
    struct owner owner;
    char roots[64];
};

static void set_open(struct set *t, enum ep_tls_verify verify, const char *const *alpn)
{
    struct ep_tls_options o = options(true, verify, &server_id, &ca);
    int fd;

    stage_open(&t->s);
    server_open(&t->server, &t->s, SERVER_H2);
    o.alpn = alpn;
    t->server.tls = context(&o);
    t->owner = (struct owner){.http = client_context("h2"), .tcp = client_context("ephor-tcp")};
    t->s.env.mesh_context = give_http;
    t->s.env.mesh_tcp_context = give_tcp;
    t->s.env.user = &t->owner;
    snprintf(t->roots, sizeof t->roots, "/tmp/ephor-roots-XXXXXX");
    fd = mkstemp(t->roots);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, ca.cert_pem, strlen(ca.cert_pem)), strlen(ca.cert_pem));
    close(fd);
}

static void set_close(struct set *t)
{
    server_close(&t->server);
    if (t->owner.http)
        ep_tls_context_unref(t->owner.http);
    ep_tls_context_unref(t->owner.tcp);
    unlink(t->roots);
    stage_close(&t->s);
}

static const char *const mesh_alpn[] = {"h2", "ephor-tcp", NULL};
static const char *const both_alpn[] = {"h2", "http/1.1", NULL};
static const char *const old_alpn[] = {"http/1.1", NULL};

static void test_mesh_is_h2_for_all(void **state)
{
    struct set t;
    struct caller a, b;

    (void)state;
    set_open(&t, EP_TLS_VERIFY_MESH, mesh_alpn);
    struct ep_cluster_config config = config_of("tools", &t.server.addr, 1);
    config.tls.mode = EP_UPTLS_MESH;
    struct ep_cluster *cl = cluster_of(&t.s, &config);

    assert_int_equal(exchange(&t.s, cl, EP_HTTP_1_1, &a), 200);
    assert_int_equal(exchange(&t.s, cl, EP_HTTP_2, &b), 200);
    assert_int_equal(t.server.speaks, SERVER_H2);
    assert_ptr_equal(a.conn, b.conn);
    assert_int_equal(t.server.connections, 1);
    ep_cluster_unref(cl);
    set_close(&t);
}

static void test_mesh_tcp(void **state)
{
    struct set t;
    struct caller c;

    (void)state;
    set_open(&t, EP_TLS_VERIFY_MESH, mesh_alpn);
    struct ep_cluster_config config = config_of("db", &t.server.addr, 1);
    config.tls.mode = EP_UPTLS_MESH;
    struct ep_cluster *cl = cluster_of(&t.s, &config);

    caller_init(&c, &t.s, cl, EP_HTTP_TCP);
    c.call.tunnel = true;
    caller_go(&c);
    UNTIL(&t.s, c.status == 200);
    UNTIL(&t.s, t.server.speaks == SERVER_TCP);
    caller_done(&c);
    ep_cluster_unref(cl);
    set_close(&t);
}

static void test_peers(void **state)
{
    static const struct {
        const char *glob;
        bool good;
    } table[] = {
        {"spiffe://cluster.local/ns/a/sa/server", true},
        {"spiffe://cluster.local/ns/a/*", true},
        {"spiffe://cluster.local/ns/b/*", false},
    };
    struct set t;
    struct caller c;

    (void)state;
    set_open(&t, EP_TLS_VERIFY_MESH, mesh_alpn);
    for (size_t i = 0; i < EP_COUNT(table); i++) {
        struct ep_str globs[] = {EP_STR("spiffe://none"), ep_str(table[i].glob)};
        struct ep_cluster_config config = config_of("tools", &t.server.addr, 1);
        config.tls.mode = EP_UPTLS_MESH;
        config.tls.peers = (struct ep_vec){globs, 2};
        struct ep_cluster *cl = cluster_of(&t.s, &config);
        exchange(&t.s, cl, EP_HTTP_2, &c);
        assert_int_equal(c.status, table[i].good ? 200 : 0);
        assert_int_equal(c.failed, !table[i].good);
        if (c.failed)
            assert_int_equal(c.why, EP_UPSTREAM_TLS);
        ep_cluster_unref(cl);
    }
    set_close(&t);
}

static void test_no_identity(void **state)
{
    struct set t;
    struct caller c;

    (void)state;
    set_open(&t, EP_TLS_VERIFY_MESH, mesh_alpn);
    ep_tls_context_unref(t.owner.http);
    t.owner.http = NULL;
    struct ep_cluster_config config = config_of("tools", &t.server.addr, 1);
    config.tls.mode = EP_UPTLS_MESH;
    struct ep_cluster *cl = cluster_of(&t.s, &config);
    exchange(&t.s, cl, EP_HTTP_2, &c);
    assert_true(c.failed && c.why == EP_UPSTREAM_TLS);
    assert_int_equal(t.server.connections, 0);
    t.owner.http = client_context("h2"); /* it comes later */
    assert_int_equal(exchange(&t.s, cl, EP_HTTP_2, &c), 200);
    ep_cluster_unref(cl);
    set_close(&t);
}

static void test_auto_is_what_the_mesh_says(void **state)
{
    struct ep_cidr loopback, elsewhere;
    struct set t;
    struct caller c;

    (void)state;
    assert_true(ep_cidr_parse(EP_STR("127.0.0.0/8"), &loopback) && ep_cidr_parse(EP_STR("10.0.0.0/8"), &elsewhere));
    set_open(&t, EP_TLS_VERIFY_MESH, mesh_alpn);
    struct ep_mesh_config mesh = {.cidrs = {&loopback, 1}};
    t.s.env.mesh = &mesh;
    struct ep_cluster_config config = config_of("tools", &t.server.addr, 1);
    struct ep_cluster *cl = cluster_of(&t.s, &config);
    assert_int_equal(exchange(&t.s, cl, EP_HTTP_1_1, &c), 200);
    assert_int_equal(t.owner.asked, 1);
    ep_cluster_unref(cl);

    struct ep_str host = EP_STR("*.agents.svc");
    mesh = (struct ep_mesh_config){.cidrs = {&elsewhere, 1}, .hosts = {&host, 1}};
    ep_tls_context_unref(t.server.tls);
    t.server.tls = NULL;
    t.server.speaks = SERVER_H1;
    cl = cluster_of(&t.s, &config);
    caller_init(&c, &t.s, cl, EP_HTTP_1_1);
    c.call.server_name = EP_STR("tools.agents.svc"); /* a name of the mesh, at the app beside us: plain */
    caller_go(&c);
    UNTIL(&t.s, c.ended);
    caller_done(&c);
    assert_int_equal(t.owner.asked, 1);
    struct ep_addr far_away;
    assert_true(ep_addr_parse(EP_STR("192.0.2.1:80"), &far_away));
    struct ep_endpoint *e = ep_endpoint_new(cl, &far_away);
    assert_int_equal(ep_lane_tls(e, EP_STR("tools.agents.svc:8080")), EP_UPTLS_MESH);
    assert_int_equal(ep_lane_tls(e, EP_STR("example.com")), EP_UPTLS_OFF);
    assert_int_equal(ep_lane_tls(e, EP_STR("")), EP_UPTLS_OFF);
    ep_endpoint_unref(e);
    ep_cluster_unref(cl);
    set_close(&t);
}

static void test_simple(void **state)
{
    struct set t;
    struct caller c;

    (void)state;
    set_open(&t, EP_TLS_VERIFY_NONE, both_alpn);
    struct ep_cluster_config config = config_of("api", &t.server.addr, 1);
    config.tls.mode = EP_UPTLS_SIMPLE;
    config.tls.roots = ep_str(t.roots);
    config.tls.sni = EP_STR("server.test");
    struct ep_cluster *cl = cluster_of(&t.s, &config);
    assert_int_equal(exchange(&t.s, cl, EP_HTTP_2, &c), 200);
    assert_int_equal(t.server.speaks, SERVER_H2);
    assert_int_equal(exchange(&t.s, cl, EP_HTTP_1_1, &c), 200); /* offers http/1.1 alone */
    assert_int_equal(t.server.speaks, SERVER_H1);
    ep_cluster_unref(cl);

    config.tls.sni = EP_STR("wrong.test");
    cl = cluster_of(&t.s, &config);
    exchange(&t.s, cl, EP_HTTP_2, &c);
    assert_true(c.failed && c.why == EP_UPSTREAM_TLS);
    ep_cluster_unref(cl);

    config.tls.sni = EP_STR(""); /* no name anywhere: the address is verified */
    cl = cluster_of(&t.s, &config);
    assert_int_equal(exchange(&t.s, cl, EP_HTTP_2, &c), 200);
    ep_cluster_unref(cl);

    struct ep_error err;
    config.tls.roots = EP_STR("/nonexistent/roots.pem");
    assert_null(ep_cluster_new(&t.s.env, &config, NULL, &err));
    assert_non_null(strstr(err.text, "/nonexistent/roots.pem"));
    set_close(&t);
}

static void test_simple_believes_alpn(void **state)
{
    struct set t;
    struct caller a[4];

    (void)state;
    set_open(&t, EP_TLS_VERIFY_NONE, old_alpn);
    struct ep_cluster_config config = config_of("api", &t.server.addr, 1);
    config.tls.mode = EP_UPTLS_SIMPLE;
    config.tls.roots = ep_str(t.roots);
    config.tls.sni = EP_STR("server.test");
    struct ep_cluster *cl = cluster_of(&t.s, &config);
    for (int i = 0; i < 4; i++)
        call(&a[i], &t.s, cl, EP_HTTP_2); /* asked for h2; the server speaks http/1.1 */
    for (int i = 0; i < 4; i++) {
        UNTIL(&t.s, a[i].ended);
        assert_int_equal(a[i].status, 200);
        caller_done(&a[i]);
    }
    settle(&t.s);
    assert_true(t.server.connections <= 4);
    ep_cluster_unref(cl);

    config.protocol = EP_PROTO_H2; /* no belief where the configuration insists */
    cl = cluster_of(&t.s, &config);
    exchange(&t.s, cl, EP_HTTP_2, &a[0]);
    assert_true(a[0].failed);
    assert_true(a[0].why == EP_UPSTREAM_PROTOCOL || a[0].why == EP_UPSTREAM_TLS);
    ep_cluster_unref(cl);
    set_close(&t);
}

static void test_simple_by_the_name_asked_for(void **state)
{
    static const char *const names[] = {"server.test:443", "other.test", "server.test", "evil.test"};
    struct set t;
    struct caller c[4];

    (void)state;
    set_open(&t, EP_TLS_VERIFY_NONE, both_alpn);
    struct ep_cluster_config config = config_of("api", &t.server.addr, 1);
    config.tls.mode = EP_UPTLS_SIMPLE;
    config.tls.roots = ep_str(t.roots);
    struct ep_cluster *cl = cluster_of(&t.s, &config);
    for (int i = 0; i < 4; i++) {
        caller_init(&c[i], &t.s, cl, EP_HTTP_2);
        c[i].call.server_name = ep_str(names[i]);
        caller_go(&c[i]);
        UNTIL(&t.s, c[i].ended || c[i].failed);
        caller_done(&c[i]);
        settle(&t.s);
    }
    assert_ptr_equal(c[0].conn, c[2].conn); /* a connection made for one name never carries another's requests */
    assert_ptr_not_equal(c[0].conn, c[1].conn);
    assert_true(c[3].failed && c[3].why == EP_UPSTREAM_TLS);
    for (unsigned i = 0; i < 300; i++) { /* names without end: lanes stay few */
        char name[32];
        struct caller many;

        snprintf(name, sizeof name, "n%u.test", i);
        caller_init(&many, &t.s, cl, EP_HTTP_2);
        many.call.server_name = ep_str(name);
        caller_go(&many);
        caller_done(&many);
        if (i % 50 == 49)
            settle(&t.s);
    }
    unsigned lanes = 0;
    EP_LIST_FOREACH(n, &cl->members[0]->lanes)
    lanes++;
    assert_true(lanes <= 2 * EP_LANES_MAX);
    ep_cluster_unref(cl);
    set_close(&t);
}

static void test_strangers_are_refused(void **state)
{
    struct set t;
    struct caller c;
    struct ep_tls_options o = options(true, EP_TLS_VERIFY_NONE, NULL, NULL);

    (void)state;
    set_open(&t, EP_TLS_VERIFY_NONE, mesh_alpn);
    ep_tls_context_unref(t.server.tls);
    struct identity stranger =
        make("server", (struct wish){.san = "URI:spiffe://cluster.local/ns/a/sa/server,DNS:server.test"}, &other_ca);
    o.certificate_pem = ep_str(stranger.cert_pem);
    o.key_pem = ep_str(stranger.key_pem);
    t.server.tls = context(&o);
    struct ep_cluster_config config = config_of("tools", &t.server.addr, 1);
    config.tls.mode = EP_UPTLS_MESH;
    struct ep_cluster *cl = cluster_of(&t.s, &config);
    exchange(&t.s, cl, EP_HTTP_2, &c);
    assert_true(c.failed && c.why == EP_UPSTREAM_TLS);
    assert_int_equal(cell(&t.s, EP_METRIC_UPSTREAM_CONNECTIONS, EP_LABELS(EP_STR("tools"), EP_STR("tls"))), 1);
    ep_tls_context_unref(t.server.tls);
    t.server.tls = NULL; /* and one that speaks no TLS at all */
    t.server.speaks = SERVER_H1;
    exchange(&t.s, cl, EP_HTTP_2, &c);
    assert_true(c.failed && c.why == EP_UPSTREAM_TLS);
    assert_int_equal(t.server.requests, 0);
    ep_cluster_unref(cl);
    unmake(&stranger);
    set_close(&t);
}

static void test_identity_changed(void **state)
{
    struct set t;
    struct caller a, b;

    (void)state;
    set_open(&t, EP_TLS_VERIFY_MESH, mesh_alpn);
    t.server.status = 0;
    struct ep_cluster_config config = config_of("tools", &t.server.addr, 1);
    config.tls.mode = EP_UPTLS_MESH;
    struct ep_cluster *cl = cluster_of(&t.s, &config);

    call(&a, &t.s, cl, EP_HTTP_2);
    UNTIL(&t.s, t.server.requests == 1);
    ep_cluster_identity_changed(cl);
    call(&b, &t.s, cl, EP_HTTP_2);
    UNTIL(&t.s, t.server.requests == 2);
    assert_ptr_not_equal(a.conn, b.conn);
    assert_int_equal(t.owner.asked, 2);
    server_answer(&t.server, 200, 2);
    UNTIL(&t.s, a.ended && b.ended); /* what was under way went on */
    assert_int_equal(a.status, 200);
    caller_done(&a);
    caller_done(&b);
    UNTIL(&t.s, t.server.open == 1); /* and the old connection is gone */
    ep_cluster_unref(cl);
    set_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mesh_is_h2_for_all),
        cmocka_unit_test(test_mesh_tcp),
        cmocka_unit_test(test_peers),
        cmocka_unit_test(test_no_identity),
        cmocka_unit_test(test_auto_is_what_the_mesh_says),
        cmocka_unit_test(test_simple),
        cmocka_unit_test(test_simple_believes_alpn),
        cmocka_unit_test(test_simple_by_the_name_asked_for),
        cmocka_unit_test(test_strangers_are_refused),
        cmocka_unit_test(test_identity_changed),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
