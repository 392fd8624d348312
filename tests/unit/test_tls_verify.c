/* link: ep_net */
/* Who the peer is: SPIFFE identities, every way to be refused, names outside the mesh, and what a context asks for. */
#include "tls_play.h"

#define SPIFFE "URI:spiffe://cluster.local/ns/a/sa/"

/* The clock that BoringSSL judges certificates by: its library takes the time from here and not from the C library. */
static time_t ahead_seconds;

time_t time(time_t *out)
{
    time_t now = (time_t)(ep_clock_wall_ns() / EP_S) + ahead_seconds;

    if (out)
        *out = now;
    return now;
}

static struct identity ca, other_ca, middle_ca, server_id, client_id;

static int setup(void **state)
{
    (void)state;
    ca = make("mesh CA", (struct wish){.ca = true}, NULL);
    other_ca = make("other CA", (struct wish){.ca = true}, NULL);
    middle_ca = make("middle CA", (struct wish){.ca = true}, &ca);
    server_id = make("server", (struct wish){.san = SPIFFE "server,DNS:server.test,IP:127.0.0.1"}, &ca);
    client_id = make("client", (struct wish){.san = SPIFFE "client"}, &ca);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unmake(&ca);
    unmake(&other_ca);
    unmake(&middle_ca);
    unmake(&server_id);
    unmake(&client_id);
    return 0;
}

/* A client with this certificate (NULL: none) meets a server with that one. */
static struct meeting meet_as(const struct identity *client, enum ep_tls_verify client_checks,
                              const struct identity *server, enum ep_tls_verify server_checks, const char *name)
{
    struct ep_tls_options c = options(false, client_checks, client, &ca);
    struct ep_tls_options s = options(true, server_checks, server, &ca);
    struct ep_tls_context *cc = context(&c), *sc = context(&s);
    struct meeting m = meet_by(cc, sc, name, 16384);

    ep_tls_context_unref(cc);
    ep_tls_context_unref(sc);
    return m;
}

static const struct {
    const char *what;
    struct wish wish;
    bool other; /* of another CA */
    const char *want, *alert;
} bad[] = {
    {"trust domain",
     {.san = "URI:spiffe://evil.test/ns/a/sa/client"},
     false,
     "certificate of peer has trust domain 'evil.test', want 'cluster.local'",
     "access denied"},
    {"two URIs", {.san = SPIFFE "client," SPIFFE "other"}, false, "has 2 URI SANs", "bad certificate"},
    {"no URI", {.san = "DNS:client.test"}, false, "has 0 URI SANs", "bad certificate"},
    {"no SAN", {.san = NULL}, false, "has no SAN", "bad certificate"},
    {"not SPIFFE", {.san = "URI:https://cluster.local/ns/a/sa/client"}, false, "is not a SPIFFE ID", "bad certificate"},
    {"query", {.san = SPIFFE "client?x=1"}, false, "is not a SPIFFE ID", "bad certificate"},
    {"expired",
     {.san = SPIFFE "client", .from_seconds = -7200, .to_seconds = -60},
     false,
     "certificate expired",
     "certificate expired"},
    {"too early",
     {.san = SPIFFE "client", .from_seconds = 3600, .to_seconds = 7200},
     false,
     "is good only from",
     "bad certificate"},
    {"unknown CA", {.san = SPIFFE "client"}, true, "is not from a CA we trust", "unknown CA"},
    {"a CA", {.san = SPIFFE "client", .ca = true}, false, "that of a CA", "bad certificate"},
};

static void test_bad_clients(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(bad); i++) {
        struct identity id = make(bad[i].what, bad[i].wish, bad[i].other ? &other_ca : &ca);
        struct meeting m = meet_as(&id, EP_TLS_VERIFY_MESH, &server_id, EP_TLS_VERIFY_MESH, "server.test");

        if (!m.server->failed || m.server->ready || m.server->n_copy)
            fail_msg("%s was let in", bad[i].what);
        assert_false(m.s->peer_verified);
        assert_int_equal(m.s->peer_id.n, 0);
        expect_in(m.server->conn.error_text, bad[i].want);
        assert_true(m.client->failed); /* it was told by an alert */
        expect_in(m.client->conn.error_text, bad[i].alert);
        part(&m);
        unmake(&id);
    }
}

static void test_bad_servers(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(bad); i++) {
        struct identity id = make(bad[i].what, bad[i].wish, bad[i].other ? &other_ca : &ca);
        struct meeting m = meet_as(&client_id, EP_TLS_VERIFY_MESH, &id, EP_TLS_VERIFY_MESH, "server.test");

        if (!m.client->failed || m.client->ready)
            fail_msg("%s was believed", bad[i].what);
        expect_in(m.client->conn.error_text, bad[i].want);
        assert_true(m.server->failed);
        expect_in(m.server->conn.error_text, bad[i].alert);
        part(&m);
        unmake(&id);
    }
}

static void test_no_client_certificate(void **state)
{
    struct ep_tls_options c = options(false, EP_TLS_VERIFY_NAME, NULL, &ca);
    struct ep_tls_options s = options(true, EP_TLS_VERIFY_MESH, &server_id, &ca);
    struct ep_tls_context *cc = context(&c), *sc = context(&s);

    (void)state;
    for (uint16_t version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX_set_max_proto_version(cc->ssl_ctx, version);
        struct meeting m = meet(cc, sc);
        assert_true(m.server->failed);
        expect_in(m.server->conn.error_text, "peer gave no certificate");
        assert_true(m.client->failed);
        expect_in(m.client->conn.error_text, version == TLS1_3_VERSION ? "certificate required" : "handshake failure");
        part(&m);
    }
    ep_tls_context_unref(cc);
    ep_tls_context_unref(sc);
}

static void test_permissive(void **state)
{
    struct meeting m = meet_as(NULL, EP_TLS_VERIFY_NAME, &server_id, EP_TLS_VERIFY_REQUEST, "server.test");
    struct identity evil = make("evil", (struct wish){.san = "URI:spiffe://evil.test/x"}, &ca);

    (void)state;
    expect_good(&m);
    assert_false(m.s->peer_verified);
    assert_int_equal(m.s->peer_id.n, 0);
    part(&m);

    m = meet_as(&client_id, EP_TLS_VERIFY_MESH, &server_id, EP_TLS_VERIFY_REQUEST, "server.test");
    expect_good(&m);
    assert_true(m.s->peer_verified);
    expect_str(m.s->peer_id, "spiffe://cluster.local/ns/a/sa/client");
    part(&m);

    /* A certificate that is shown must be good: no falling back to "none". */
    m = meet_as(&evil, EP_TLS_VERIFY_MESH, &server_id, EP_TLS_VERIFY_REQUEST, "server.test");
    assert_true(m.server->failed);
    expect_in(m.server->conn.error_text, "trust domain 'evil.test'");
    part(&m);
    unmake(&evil);
}

static void test_server_asks_for_none(void **state)
{
    struct meeting m = meet_as(&client_id, EP_TLS_VERIFY_MESH, &server_id, EP_TLS_VERIFY_NONE, "server.test");

    (void)state;
    expect_good(&m);
    assert_int_equal(m.s->peer_id.n, 0);
    assert_false(m.s->peer_verified);
    part(&m);
}

static void test_chain_with_intermediate(void **state)
{
    struct identity id = make("leaf", (struct wish){.san = SPIFFE "client"}, &middle_ca);
    size_t n = strlen(id.cert_pem) + strlen(middle_ca.cert_pem) + 1;
    struct identity chained = id;
    struct meeting m;

    (void)state;
    m = meet_as(&id, EP_TLS_VERIFY_MESH, &server_id, EP_TLS_VERIFY_MESH, "server.test"); /* the link is missing */
    assert_true(m.server->failed);
    expect_in(m.server->conn.error_text, "is not from a CA we trust");
    part(&m);
    chained.cert_pem = ep_malloc(n);
    snprintf(chained.cert_pem, n, "%s%s", id.cert_pem, middle_ca.cert_pem);
    m = meet_as(&chained, EP_TLS_VERIFY_MESH, &server_id, EP_TLS_VERIFY_MESH, "server.test");
    expect_good(&m);
    part(&m);
    free(chained.cert_pem);
    unmake(&id);
}

static void test_peer_ids(void **state)
{
    static struct ep_str exact[] = {EP_STR_INIT("spiffe://cluster.local/ns/b/sa/x"),
                                    EP_STR_INIT("spiffe://cluster.local/ns/a/sa/server")};
    static struct ep_str glob[] = {EP_STR_INIT("spiffe://cluster.local/ns/a/*")};
    static struct ep_str other[] = {EP_STR_INIT("spiffe://cluster.local/ns/b/*")};
    static const struct {
        struct ep_str *ids;
        size_t n;
        bool good;
    } cases[] = {{exact, 2, true}, {exact, 1, false}, {glob, 1, true}, {other, 1, false}};

    (void)state;
    for (size_t i = 0; i < EP_COUNT(cases); i++) {
        struct ep_tls_options c = options(false, EP_TLS_VERIFY_MESH, &client_id, &ca);
        struct ep_tls_options s = options(true, EP_TLS_VERIFY_MESH, &server_id, &ca);
        c.peer_ids = cases[i].ids;
        c.n_peer_ids = cases[i].n;
        struct ep_tls_context *cc = context(&c), *sc = context(&s);
        struct meeting m = meet(cc, sc);
        if (cases[i].good) {
            expect_good(&m);
        } else {
            assert_true(m.client->failed);
            expect_in(m.client->conn.error_text,
                      "peer is 'spiffe://cluster.local/ns/a/sa/server', want 'spiffe://cluster.local/ns/b/");
        }
        part(&m);
        ep_tls_context_unref(cc);
        ep_tls_context_unref(sc);
    }
}

static void test_names(void **state)
{
    static const struct {
        const char *name, *sni;
        bool good;
    } cases[] = {
        {"server.test", "server.test", true},
        {"SERVER.test", "SERVER.test", true},
        {"other.test", "other.test", false},
        {"127.0.0.1", "", true},
        {"127.0.0.2", "", false},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(cases); i++) {
        struct meeting m = meet_as(NULL, EP_TLS_VERIFY_NAME, &server_id, EP_TLS_VERIFY_NONE, cases[i].name);
        if (cases[i].good) {
            expect_good(&m);
            assert_true(m.c->peer_verified);
            assert_int_equal(m.c->peer_id.n, 0);
            assert_true(ep_str_caseeq(m.s->sni, ep_str(cases[i].sni)));
        } else {
            assert_true(m.client->failed);
            expect_in(m.client->conn.error_text, "certificate of peer is not for '");
        }
        part(&m);
    }
}

/* A certificate that ends between the ticket and its use ends the identity with it. */
static void test_resumed_with_an_expired_certificate(void **state)
{
    struct identity brief =
        make("brief", (struct wish){.san = SPIFFE "client", .from_seconds = -60, .to_seconds = 60}, &ca);
    struct ep_tls_options c = options(false, EP_TLS_VERIFY_MESH, &brief, &ca);
    struct ep_tls_options s = options(true, EP_TLS_VERIFY_MESH, &server_id, &ca);
    struct ep_tls_context *cc = context(&c), *sc = context(&s);
    struct meeting m = meet(cc, sc);

    (void)state;
    expect_good(&m);
    part(&m);
    assert_int_equal(X509_cmp_current_time(X509_get0_notAfter(brief.x)), 1);
    ahead_seconds = 120;
    assert_int_equal(X509_cmp_current_time(X509_get0_notAfter(brief.x)), -1);
    m = meet(cc, sc);
    ahead_seconds = 0;
    assert_true(m.server->failed);
    assert_true(m.s->resumed);
    expect_in(m.server->conn.error_text, "certificate expired");
    assert_int_equal(m.server->n_copy, 0);
    part(&m);
    ep_tls_context_unref(cc);
    ep_tls_context_unref(sc);
    unmake(&brief);
}

/* --- SPIFFE IDs --- */

static void test_spiffe_ids(void **state)
{
    static const struct {
        const char *id, *domain, *path; /* domain NULL: refused */
    } cases[] = {
        {"spiffe://cluster.local/ns/a/sa/b", "cluster.local", "/ns/a/sa/b"},
        {"spiffe://a_b-c.9/x", "a_b-c.9", "/x"},
        {"spiffe://a/Aa.Zz-_09", "a", "/Aa.Zz-_09"},
        {"spiffe://cluster.local", NULL, NULL},
        {"spiffe://cluster.local/", NULL, NULL},
        {"spiffe://cluster.local/a/", NULL, NULL},
        {"spiffe://cluster.local//a", NULL, NULL},
        {"spiffe://cluster.local/./a", NULL, NULL},
        {"spiffe://cluster.local/a/..", NULL, NULL},
        {"spiffe://cluster.local/a?b", NULL, NULL},
        {"spiffe://cluster.local/a#b", NULL, NULL},
        {"spiffe://cluster.local/a%20b", NULL, NULL},
        {"spiffe://cluster.local:80/a", NULL, NULL},
        {"spiffe://user@cluster.local/a", NULL, NULL},
        {"spiffe://Cluster.local/a", NULL, NULL},
        {"SPIFFE://cluster.local/a", NULL, NULL},
        {"spiffe:///a", NULL, NULL},
        {"https://cluster.local/a", NULL, NULL},
        {"", NULL, NULL},
    };
    char big[2100];

    (void)state;
    for (size_t i = 0; i < EP_COUNT(cases); i++) {
        struct ep_str domain, path;
        bool good = ep_spiffe_parse(ep_str(cases[i].id), &domain, &path);
        if (good != !!cases[i].domain)
            fail_msg("'%s': %d", cases[i].id, good);
        if (good) {
            expect_str(domain, cases[i].domain);
            expect_str(path, cases[i].path);
        }
    }
    memset(big, 'a', sizeof big);
    memcpy(big, "spiffe://td/", 12);
    struct ep_str domain, path;
    assert_true(ep_spiffe_parse(ep_str_n(big, 2048), &domain, &path));
    assert_false(ep_spiffe_parse(ep_str_n(big, 2049), &domain, &path));
    assert_false(ep_spiffe_parse(ep_str_n("spiffe://td/a\0b", 15), &domain, &path));
}

/* --- contexts --- */

static void test_context(void **state)
{
    struct ep_tls_options o = options(true, EP_TLS_VERIFY_MESH, &server_id, &ca);
    struct ep_tls_context *c = context(&o);

    (void)state;
    expect_str(ep_tls_context_identity(c), "spiffe://cluster.local/ns/a/sa/server");
    assert_in_range(ep_tls_context_expiry(c), time(NULL) + 3500, time(NULL) + 3700);
    assert_ptr_equal(ep_tls_context_ref(c), c);
    ep_tls_context_unref(c);
    ep_tls_context_unref(c);
    ep_tls_context_unref(NULL);
}

static void test_context_errors(void **state)
{
    struct ep_tls_options good = options(true, EP_TLS_VERIFY_MESH, &server_id, &ca);
    static const struct {
        const char *certificate, *key, *roots, *trust_domain, *min_version, *want; /* NULL: as it should be */
        int verify;
    } cases[] = {
        {.certificate = "", .want = "certificate: none given"},
        {.certificate = "garbage", .want = "certificate: no CERTIFICATE block"},
        {.certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
         .want = "certificate: the first is not X.509"},
        {.certificate = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
         .want = "certificate: a PEM block"},
        {.key = "", .want = "key: no private key"},
        {.key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", .want = "key: no private key"},
        {.roots = "", .want = "roots: none given"},
        {.roots = "garbage", .want = "roots: no CERTIFICATE block"},
        {.roots = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
         .want = "roots: a certificate can't be read"},
        {.trust_domain = "", .want = "trust_domain: is needed"},
        {.min_version = "1.1", .want = "min_version: '1.1' is neither"},
        {.verify = EP_TLS_VERIFY_NAME, .want = "verify: a server can't"},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(cases); i++) {
        struct ep_tls_options o = good;
        struct ep_error err = {.text = ""};
        if (cases[i].certificate)
            o.certificate_pem = ep_str(cases[i].certificate);
        if (cases[i].key)
            o.key_pem = ep_str(cases[i].key);
        if (cases[i].roots)
            o.roots_pem = ep_str(cases[i].roots);
        if (cases[i].trust_domain)
            o.trust_domain = ep_str(cases[i].trust_domain);
        if (cases[i].min_version)
            o.min_version = ep_str(cases[i].min_version);
        if (cases[i].verify)
            o.verify = (enum ep_tls_verify)cases[i].verify;
        assert_null(ep_tls_context_new(&o, &err));
        expect_in(err.text, cases[i].want);
    }
    struct ep_error err = {.text = ""};
    good.key_pem = ep_str(client_id.key_pem);
    assert_null(ep_tls_context_new(&good, &err));
    expect_in(err.text, "key: it is not that of the certificate");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_clients),
        cmocka_unit_test(test_bad_servers),
        cmocka_unit_test(test_no_client_certificate),
        cmocka_unit_test(test_permissive),
        cmocka_unit_test(test_server_asks_for_none),
        cmocka_unit_test(test_chain_with_intermediate),
        cmocka_unit_test(test_peer_ids),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_resumed_with_an_expired_certificate),
        cmocka_unit_test(test_spiffe_ids),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_context_errors),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
