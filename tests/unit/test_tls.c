/* link: ep_net */
/* TLS connections: handshakes, records in any pieces, both ends of a close, resumption, errors a person reads.
 * Who the peer is, is in test_tls_verify.c. */
#include "tls_play.h"

static struct identity ca, server_id, client_id;

static int setup(void **state)
{
    (void)state;
    ca = make("mesh CA", (struct wish){.ca = true}, NULL);
    server_id = make("server", (struct wish){.san = "URI:spiffe://cluster.local/ns/a/sa/server,DNS:server.test"}, &ca);
    client_id = make("client", (struct wish){.san = "URI:spiffe://cluster.local/ns/a/sa/client"}, &ca);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unmake(&ca);
    unmake(&server_id);
    unmake(&client_id);
    return 0;
}

struct pair {
    struct ep_tls_context *client, *server;
};

static struct pair mesh(void)
{
    struct ep_tls_options c = options(false, EP_TLS_VERIFY_MESH, &client_id, &ca);
    struct ep_tls_options s = options(true, EP_TLS_VERIFY_MESH, &server_id, &ca);

    return (struct pair){context(&c), context(&s)};
}

static void mesh_free(struct pair *p)
{
    ep_tls_context_unref(p->client);
    ep_tls_context_unref(p->server);
}

static void test_tls13(void **state)
{
    struct pair p = mesh();
    struct meeting m = meet(p.client, p.server);

    (void)state;
    expect_good(&m);
    expect_str(m.s->version, "TLSv1.3");
    expect_str(m.c->version, "TLSv1.3");
    expect_str(m.s->sni, "server.test");
    expect_str(m.c->alpn, "h2");
    expect_str(m.s->alpn, "h2");
    expect_str(m.s->peer_id, "spiffe://cluster.local/ns/a/sa/client");
    expect_str(m.c->peer_id, "spiffe://cluster.local/ns/a/sa/server");
    expect_str(m.s->peer_subject, "CN=client");
    assert_int_equal(m.s->peer_sha256.n, 64);
    assert_true(m.s->peer_verified && m.c->peer_verified && !m.s->resumed);
    assert_true(m.s->handshake_ns > 0 && m.s->cipher.n > 0);
    part(&m);
    mesh_free(&p);
}

static void test_tls12(void **state)
{
    struct pair p = mesh();
    struct meeting m;

    (void)state;
    SSL_CTX_set_max_proto_version(p.client->ssl_ctx, TLS1_2_VERSION);
    m = meet(p.client, p.server);
    expect_good(&m);
    expect_str(m.s->version, "TLSv1.2");
    expect_str(m.s->peer_id, "spiffe://cluster.local/ns/a/sa/client");
    expect_str(m.c->alpn, "h2");
    expect_in(m.s->cipher.p, "TLS_ECDHE_ECDSA_WITH_");
    part(&m);
    mesh_free(&p);
}

static void test_min_version(void **state)
{
    struct ep_tls_options o = options(true, EP_TLS_VERIFY_NONE, &server_id, NULL);
    struct pair p = mesh();
    struct meeting m;

    (void)state;
    ep_tls_context_unref(p.server);
    o.min_version = EP_STR("1.3");
    p.server = context(&o);
    SSL_CTX_set_max_proto_version(p.client->ssl_ctx, TLS1_2_VERSION);
    m = meet(p.client, p.server);
    assert_true(m.server->failed && m.client->failed);
    expect_in(m.server->conn.error_text, "only versions of TLS that we don't");
    expect_in(m.client->conn.error_text, "peer refused: protocol version");
    part(&m);
    mesh_free(&p);
}

static void test_alpn(void **state)
{
    static const char *const h1[] = {"http/1.1", NULL}, *const istio[] = {"istio-http/1.1", "istio", "http/1.1", NULL};
    static const char *const both[] = {"http/1.1", "h2", NULL}, *const other[] = {"smtp", NULL};
    static const struct {
        const char *const *client;
        const char *want; /* the server prefers h2, then http/1.1 */
    } cases[] = {
        {h1, "http/1.1"}, {istio, "http/1.1"}, {both, "h2"}, {other, ""}, {NULL, ""},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(cases); i++) {
        struct ep_tls_options c = options(false, EP_TLS_VERIFY_MESH, &client_id, &ca);
        struct pair p = mesh();
        struct meeting m;

        ep_tls_context_unref(p.client);
        c.alpn = cases[i].client;
        p.client = context(&c);
        m = meet(p.client, p.server);
        expect_good(&m);
        expect_str(m.s->alpn, cases[i].want);
        expect_str(m.c->alpn, cases[i].want);
        part(&m);
        mesh_free(&p);
    }
}

static void test_single_bytes(void **state)
{
    (void)state;
    for (uint16_t version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct pair p = mesh();
        struct meeting m;

        SSL_CTX_set_max_proto_version(p.client->ssl_ctx, version);
        m = meet_by(p.client, p.server, "server.test", 1);
        expect_good(&m);
        part(&m);
        mesh_free(&p);
    }
}

/* A megabyte each way, in slices of all sizes, through pieces that end anywhere. */
static void test_large(void **state)
{
    static const size_t pieces[] = {16384, 16383, 5000, 777};
    const size_t total = 1024 * 1024;
    unsigned char *data = ep_malloc(total);

    (void)state;
    for (size_t i = 0; i < total; i++)
        data[i] = (unsigned char)(i * 31 + (i >> 8) * 7);
    for (size_t k = 0; k < EP_COUNT(pieces); k++) {
        struct pair p = mesh();
        struct meeting m = meet(p.client, p.server);
        struct side *sides[] = {m.client, m.server};
        struct ep_rng rng;

        expect_good(&m);
        ep_rng_seed(&rng, k);
        for (size_t s = 0; s < 2; s++) {
            for (size_t at = 0; at < total;) {
                size_t n = 1 + (size_t)ep_rng_below(&rng, ep_rng_below(&rng, 4) ? 2000 : 40000);
                n = EP_MIN(n, total - at);
                struct ep_slab *slab = ep_slab_new_sized(&sides[s]->worker.slabs, n);
                memcpy(slab->data, data + at, n);
                ep_body_push(&sides[s]->conn.out, (struct ep_slice){slab, slab->data, n}, &sides[s]->worker.slabs);
                at += n;
            }
        }
        talk(m.client, m.server, pieces[k]);
        for (size_t s = 0; s < 2; s++) {
            size_t at = 4;
            assert_int_equal(sides[s]->n_copy, total + 4);
            assert_memory_equal(sides[s]->copy + 4, data, total);
            assert_int_equal(sides[s]->kept.bytes, total + 4);
            ep_body_drop(&sides[s]->kept, 4);
            while (sides[s]->kept.count) { /* what was kept by reference wasn't written over */
                struct ep_slice *one = ep_body_front(&sides[s]->kept);
                assert_memory_equal(one->p, sides[s]->copy + at, one->n);
                at += one->n;
                ep_body_drop(&sides[s]->kept, one->n);
            }
        }
        part(&m);
        mesh_free(&p);
    }
    free(data);
}

/* Output is made only up to the limit, and the rest when the socket has taken some. */
static void test_limit(void **state)
{
    struct pair p = mesh();
    struct meeting m = meet(p.client, p.server);
    static unsigned char zeros[300000];

    (void)state;
    say(m.client, zeros, sizeof zeros);
    assert_true(ep_tls_output(m.client->conn.tls, &m.client->conn.cipher, 64 * 1024));
    assert_in_range(m.client->conn.cipher.bytes, 64 * 1024, 64 * 1024 + 16384 + 64);
    assert_true(m.client->conn.out.bytes > 200000);
    talk(m.client, m.server, 16384);
    assert_int_equal(m.server->n_copy, sizeof zeros + 4);
    part(&m);
    mesh_free(&p);
}

static void test_close(void **state)
{
    struct pair p = mesh();
    struct meeting m = meet(p.client, p.server);

    (void)state;
    /* The client ends its side; the server goes on for a while. */
    ep_tls_shutdown(m.client->conn.tls, &m.client->conn.cipher);
    talk(m.client, m.server, 16384);
    assert_int_equal(m.server->eof, 1);
    assert_true(m.s->close_notify && !m.c->close_notify && m.server->conn.eof_in);
    say(m.server, "last words", 10);
    talk(m.client, m.server, 16384);
    assert_int_equal(m.client->n_copy, 14);
    ep_tls_shutdown(m.server->conn.tls, &m.server->conn.cipher);
    talk(m.client, m.server, 16384);
    assert_int_equal(m.client->eof, 1);
    assert_int_equal(m.server->eof, 1);
    assert_false(m.client->failed || m.server->failed);
    part(&m);
    mesh_free(&p);
}

/* A handler that closes hears nothing more, also of bytes that are decrypted already. */
static void test_close_in_data(void **state)
{
    struct pair p = mesh();
    struct meeting m = meet(p.client, p.server);
    unsigned data = m.server->data;

    (void)state;
    m.server->close_on_data = true;
    for (int i = 0; i < 5; i++) {
        say(m.client, "x", 1);
        assert_true(ep_tls_output(m.client->conn.tls, &m.client->conn.cipher, 65536));
    }
    talk(m.client, m.server, 16384);
    assert_int_equal(m.server->data, data + 1);
    assert_false(m.server->failed);
    part(&m);
    mesh_free(&p);
}

static void expect_resumed(struct pair *p, bool want)
{
    struct meeting m = meet(p->client, p->server);

    expect_good(&m);
    assert_int_equal(m.s->resumed, want);
    assert_int_equal(m.c->resumed, want);
    expect_str(m.s->peer_id, "spiffe://cluster.local/ns/a/sa/client");
    expect_str(m.c->peer_id, "spiffe://cluster.local/ns/a/sa/server");
    expect_str(m.s->peer_subject, "CN=client");
    assert_true(m.s->peer_verified && m.c->peer_verified);
    expect_str(m.s->sni, "server.test");
    part(&m);
}

static void test_resumption(void **state)
{
    (void)state;
    for (uint16_t version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct pair p = mesh();

        SSL_CTX_set_max_proto_version(p.client->ssl_ctx, version);
        expect_resumed(&p, false);
        expect_resumed(&p, true);
        expect_resumed(&p, true);
        /* Other roots, other tickets: nothing of the old context is believed. */
        struct ep_tls_options o = options(true, EP_TLS_VERIFY_MESH, &server_id, &ca);
        ep_tls_context_unref(p.server);
        p.server = context(&o);
        expect_resumed(&p, false);
        mesh_free(&p);
    }
}

static void test_another_name_is_not_resumed(void **state)
{
    struct pair p = mesh();
    struct meeting m;

    (void)state;
    expect_resumed(&p, false);
    m = meet_by(p.client, p.server, "other.test", 16384);
    expect_good(&m);
    assert_false(m.s->resumed);
    part(&m);
    mesh_free(&p);
}

static void test_ticket_keys_rotate(void **state)
{
    struct pair p = mesh();
    struct ep_tls_tickets *keys = &p.server->tickets;
    struct ep_tls_ticket_key first;

    (void)state;
    expect_resumed(&p, false);
    first = keys->now;
    keys->now.born_ns -= 3700 * EP_S; /* more than an hour: the key still opens … */
    expect_resumed(&p, true);
    assert_memory_equal(keys->before.name, first.name, sizeof first.name);
    assert_memory_not_equal(keys->now.name, first.name, sizeof first.name);
    expect_resumed(&p, true);
    keys->now.born_ns -= 7300 * EP_S; /* … more than two: it is gone */
    expect_resumed(&p, false);
    assert_int_equal(keys->before.born_ns, 0);
    mesh_free(&p);
}

static void test_session_cache_is_bounded(void **state)
{
    struct pair p = mesh();
    char name[32];
    unsigned held = 0;

    (void)state;
    for (int i = 0; i < EP_TLS_SESSIONS + 6; i++) {
        snprintf(name, sizeof name, "host%d.test", i);
        struct meeting m = meet_by(p.client, p.server, name, 16384);
        expect_good(&m);
        part(&m);
    }
    for (size_t i = 0; i < EP_TLS_SESSIONS; i++)
        held += p.client->sessions.v[i].peer != NULL;
    assert_int_equal(held, EP_TLS_SESSIONS);
    struct meeting oldest = meet_by(p.client, p.server, "host0.test", 16384);
    assert_false(oldest.s->resumed);
    part(&oldest);
    struct meeting newest = meet_by(p.client, p.server, name, 16384);
    assert_true(newest.s->resumed);
    part(&newest);
    mesh_free(&p);
}

/* Workers share contexts: tickets, sessions and the pool of certificates must stand it (./dev test tsan). */
static void *meet_often(void *arg)
{
    struct pair *p = arg;
    uintptr_t good = 0;

    for (int i = 0; i < 30; i++) {
        struct meeting m = meet(p->client, p->server);
        good += m.client->ready && m.server->ready && m.server->n_copy == 4 && m.s->peer_verified;
        part(&m);
        ep_tls_context_unref(ep_tls_context_ref(p->server));
    }
    return (void *)good;
}

static void test_threads(void **state)
{
    struct pair p = mesh();
    pthread_t threads[3];

    (void)state;
    for (size_t i = 0; i < EP_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, meet_often, &p), 0);
    for (size_t i = 0; i < EP_COUNT(threads); i++) {
        void *good;
        assert_int_equal(pthread_join(threads[i], &good), 0);
        assert_int_equal((uintptr_t)good, 30);
    }
    mesh_free(&p);
}

/* --- errors --- */

static void test_not_tls(void **state)
{
    static const struct {
        const char *bytes, *want;
    } cases[] = {
        {"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "plain HTTP"},
        {"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "does not speak TLS"},
        {"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "UNEXPECTED_MESSAGE"},
    };
    struct pair p = mesh();

    (void)state;
    for (size_t i = 0; i < EP_COUNT(cases); i++) {
        struct side *s = side_new(p.server, NULL);
        side_feed(s, (const unsigned char *)cases[i].bytes, i == 2 ? 10 : strlen(cases[i].bytes), 16384);
        assert_true(s->failed);
        expect_in(s->conn.error_text, cases[i].want);
        assert_int_equal(s->ready, 0);
        side_free(s);
    }
    mesh_free(&p);
}

/* A peer that sends endless handshake messages is cut off. */
static void test_endless_handshake(void **state)
{
    struct pair p = mesh();
    struct side *s = side_new(p.server, NULL);
    unsigned char record[5 + 16384] = {0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff};
    size_t sent = 0;

    (void)state;
    while (!s->failed && sent < 1024 * 1024) {
        side_feed(s, record, sizeof record, sizeof record);
        sent += sizeof record;
        memset(record + 5, 0, sizeof record - 5);
    }
    assert_true(s->failed);
    assert_true(sent <= 160 * 1024);
    side_free(s);
    mesh_free(&p);
}

/* One bit flipped anywhere: the connection fails or (in what only the handshake's form holds) goes on; it never
 * delivers a wrong byte. */
static void test_flipped_bits(void **state)
{
    struct pair p = mesh();
    struct ep_rng rng;

    (void)state;
    ep_rng_seed(&rng, 1);
    for (int round = 0; round < 200; round++) {
        struct side *client = side_new(p.client, "server.test"), *server = side_new(p.server, NULL);
        size_t target = (size_t)ep_rng_below(&rng, 3000), passed = 0;
        bool from_client = true;

        assert_true(ep_tls_start(client->conn.tls));
        for (int idle = 0; idle < 2; from_client = !from_client) {
            struct side *from = from_client ? client : server, *to = from_client ? server : client;

            if (from->ready && from->conn.out.bytes == 0 && passed < 8000)
                say(from, "some words, some words, some words", 34);
            ep_tls_output(from->conn.tls, &from->conn.cipher, 65536);
            idle = from->conn.cipher.count ? 0 : idle + 1;
            while (from->conn.cipher.count) {
                struct ep_slice *one = ep_body_front(&from->conn.cipher);
                size_t n = one->n;
                if (passed <= target && target < passed + n)
                    one->slab->data[(size_t)(one->p - one->slab->data) + target - passed] ^=
                        (unsigned char)(1u << (round % 8));
                side_feed(to, one->p, n, 16384);
                passed += n;
                ep_body_drop(&from->conn.cipher, n);
            }
            if (from->failed && to->failed)
                break;
        }
        for (size_t i = 0; i + 34 <= server->n_copy; i += 34)
            assert_memory_equal(server->copy + i, "some words, some words, some words", 34);
        for (size_t i = 0; i + 34 <= client->n_copy; i += 34)
            assert_memory_equal(client->copy + i, "some words, some words, some words", 34);
        if (client->failed)
            assert_true(client->conn.error_text[0]);
        if (server->failed)
            assert_true(server->conn.error_text[0]);
        side_free(client);
        side_free(server);
    }
    mesh_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls13),
        cmocka_unit_test(test_tls12),
        cmocka_unit_test(test_min_version),
        cmocka_unit_test(test_alpn),
        cmocka_unit_test(test_single_bytes),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_close),
        cmocka_unit_test(test_close_in_data),
        cmocka_unit_test(test_resumption),
        cmocka_unit_test(test_another_name_is_not_resumed),
        cmocka_unit_test(test_ticket_keys_rotate),
        cmocka_unit_test(test_session_cache_is_bounded),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_not_tls),
        cmocka_unit_test(test_endless_handshake),
        cmocka_unit_test(test_flipped_bits),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
