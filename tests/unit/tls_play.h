/* The stage of the TLS tests: a certificate maker, and two connections without sockets that talk in memory.
 *
 * Each side has a worker of its own with real pools, so that a slab that is used too long shows under ASan. */
#ifndef EP_TEST_TLS_PLAY_H
#define EP_TEST_TLS_PLAY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "net/net.h"
#include "net/tls_private.h"

/* --- certificates --- */

struct identity {
    X509 *x;
    EVP_PKEY *key;
    char *cert_pem, *key_pem;
};

struct wish {
    const char *san;              /* as X509V3 text: "URI:spiffe://…,DNS:…"; NULL: none */
    int from_seconds, to_seconds; /* from now; 0 and 0: an hour ago to in an hour */
    bool ca;
};

static inline char *to_pem(const struct identity *id, bool key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    const uint8_t *p;
    size_t n;
    char *out;

    if (key)
        assert_true(PEM_write_bio_PKCS8PrivateKey(bio, id->key, NULL, NULL, 0, NULL, NULL));
    else
        assert_true(PEM_write_bio_X509(bio, id->x));
    BIO_mem_contents(bio, &p, &n);
    out = ep_strndup((const char *)p, n);
    BIO_free(bio);
    return out;
}

static inline void add_extension(X509 *x, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *e;

    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    e = X509V3_EXT_nconf_nid(NULL, &ctx, nid, (char *)(uintptr_t)value);
    assert_non_null(e);
    assert_true(X509_add_ext(x, e, -1));
    X509_EXTENSION_free(e);
}

static inline struct identity make(const char *name, struct wish wish, const struct identity *issuer)
{
    struct identity id = {.x = X509_new(), .key = EVP_PKEY_new()};
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    X509_NAME *subject = X509_get_subject_name(id.x);
    uint8_t serial;

    if (!wish.from_seconds && !wish.to_seconds) {
        wish.from_seconds = -3600;
        wish.to_seconds = 3600;
    }
    assert_true(EC_KEY_generate_key(ec));
    assert_true(EVP_PKEY_assign_EC_KEY(id.key, ec));
    RAND_bytes(&serial, 1);
    ASN1_INTEGER_set(X509_get_serialNumber(id.x), 1 + serial);
    X509_set_version(id.x, 2);
    X509_gmtime_adj(X509_getm_notBefore(id.x), wish.from_seconds);
    X509_gmtime_adj(X509_getm_notAfter(id.x), wish.to_seconds);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0);
    X509_set_issuer_name(id.x, issuer ? X509_get_subject_name(issuer->x) : subject);
    X509_set_pubkey(id.x, id.key);
    add_extension(id.x, NID_basic_constraints, wish.ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
    add_extension(id.x, NID_key_usage,
                  wish.ca ? "critical,keyCertSign,cRLSign,digitalSignature" : "critical,digitalSignature");
    if (!wish.ca)
        add_extension(id.x, NID_ext_key_usage, "serverAuth,clientAuth");
    if (wish.san)
        add_extension(id.x, NID_subject_alt_name, wish.san);
    assert_true(X509_sign(id.x, issuer ? issuer->key : id.key, EVP_sha256()) > 0);
    id.cert_pem = to_pem(&id, false);
    id.key_pem = to_pem(&id, true);
    return id;
}

static inline void unmake(struct identity *id)
{
    X509_free(id->x);
    EVP_PKEY_free(id->key);
    free(id->cert_pem);
    free(id->key_pem);
}

/* --- contexts --- */

static inline struct ep_tls_options options(bool server, enum ep_tls_verify verify, const struct identity *own,
                                            const struct identity *root)
{
    static const char *const alpn[] = {"h2", "http/1.1", NULL};

    return (struct ep_tls_options){
        .server = server,
        .verify = verify,
        .certificate_pem = ep_str(own ? own->cert_pem : NULL),
        .key_pem = ep_str(own ? own->key_pem : NULL),
        .roots_pem = ep_str(root ? root->cert_pem : NULL),
        .trust_domain = EP_STR("cluster.local"),
        .alpn = alpn,
    };
}

static inline struct ep_tls_context *context(const struct ep_tls_options *o)
{
    struct ep_error err = {.text = ""};
    struct ep_tls_context *c = ep_tls_context_new(o, &err);

    if (!c)
        fail_msg("context: %s", err.text);
    return c;
}

/* --- two sides --- */

struct side {
    struct ep_worker worker;
    struct ep_conn conn;
    struct ep_body kept; /* slices of what came, by reference */
    unsigned char *copy; /* and a copy of it, to compare */
    size_t n_copy;
    unsigned ready, eof, data;
    bool failed, close_on_data;
};

static inline void side_ready(struct ep_conn *c)
{
    struct side *s = c->user;

    s->ready++;
}

static inline void side_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct side *s = c->user;

    assert_true(n > 0 && p >= slab->data && p + n <= slab->data + slab->size);
    s->data++;
    s->copy = ep_realloc(s->copy, s->n_copy + n);
    memcpy(s->copy + s->n_copy, p, n);
    s->n_copy += n;
    if (s->data % 3 != 0) /* every third is copied, so that kept and reused room lie side by side */
        ep_body_push(&s->kept, (struct ep_slice){ep_slab_ref(slab), p, n}, &c->worker->slabs);
    else
        ep_body_push_copy(&s->kept, p, n, &c->worker->slabs);
    if (s->close_on_data)
        ep_conn_close(c);
}

static inline void side_eof(struct ep_conn *c)
{
    struct side *s = c->user;

    s->eof++;
}

static inline void side_closed(struct ep_conn *c, enum ep_close why)
{
    (void)c;
    (void)why;
}

static const struct ep_conn_handler side_handler = {
    .name = "side",
    .on_ready = side_ready,
    .on_data = side_data,
    .on_eof = side_eof,
    .on_closed = side_closed,
};

static inline void side_late(struct ep_timer *t)
{
    (void)t;
}

static inline struct side *side_new(struct ep_tls_context *ctx, const char *server_name)
{
    struct side *s = ep_calloc(1, sizeof *s);
    struct ep_worker *w = &s->worker;
    struct ep_conn *c = &s->conn;

    w->now_ns = ep_clock_ns();
    ep_chunk_pool_init(&w->chunks, 4);
    ep_slab_pool_init(&w->slabs, 4);
    ep_mem_init(&w->mem, 16);
    ep_wheel_init(&w->wheel, w->now_ns);
    ep_list_init(&w->tasks);
    ep_list_init(&w->later);
    ep_list_init(&w->flushes);
    ep_list_init(&w->doomed);
    ep_list_init(&w->conns);
    c->worker = w;
    c->fd = -1;
    c->handler = &side_handler;
    c->user = s;
    c->is_server = ctx->server;
    ep_addr_parse(EP_STR("10.1.2.3:443"), &c->peer);
    ep_body_init(&c->out);
    ep_body_init(&c->cipher);
    ep_body_init(&s->kept);
    ep_list_init(&c->flush_node);
    ep_list_init(&c->doomed_node);
    ep_timer_init(&c->timer, side_late);
    c->tls = ep_tls_new(c, ctx, ep_str(server_name));
    assert_non_null(c->tls);
    return s;
}

static inline void side_free(struct side *s)
{
    ep_tls_free(s->conn.tls);
    ep_body_fini(&s->conn.out);
    ep_body_fini(&s->conn.cipher);
    ep_body_fini(&s->kept);
    if (s->worker.read_slab)
        ep_slab_unref(s->worker.read_slab);
    assert_int_equal(s->worker.slabs.n_live, 0);
    ep_slab_pool_fini(&s->worker.slabs);
    ep_chunk_pool_fini(&s->worker.chunks);
    assert_int_equal(s->worker.mem.live_bytes, 0);
    ep_mem_fini(&s->worker.mem);
    free(s->copy);
    free(s);
}

/* As conn.c reads: into the worker's read slab, a piece at a time. */
static inline void side_feed(struct side *s, const unsigned char *p, size_t n, size_t piece)
{
    struct ep_worker *w = &s->worker;

    while (n && !s->failed) {
        struct ep_slab *slab = w->read_slab;

        if (slab && slab->refs == 1)
            w->read_offset = 0;
        else if (slab && slab->size - w->read_offset < 4096) {
            ep_slab_unref(slab);
            slab = NULL;
        }
        if (!slab) {
            slab = w->read_slab = ep_slab_new(&w->slabs);
            w->read_offset = 0;
        }
        size_t part = EP_MIN(EP_MIN(n, piece), (size_t)(slab->size - w->read_offset));
        unsigned char *at = slab->data + w->read_offset;
        memcpy(at, p, part);
        w->read_offset += (uint32_t)part;
        s->failed = !ep_tls_input(s->conn.tls, slab, at, part);
        p += part;
        n -= part;
    }
}

/* What `from` has to say goes to `to`. True when there was something. */
static inline bool carry(struct side *from, struct side *to, size_t piece)
{
    bool moved = false;

    if (!ep_tls_output(from->conn.tls, &from->conn.cipher, 64 * 1024))
        from->failed = true;
    while (from->conn.cipher.count) {
        struct ep_slice *s = ep_body_front(&from->conn.cipher);
        size_t n = s->n;
        side_feed(to, s->p, n, piece);
        ep_body_drop(&from->conn.cipher, n);
        moved = true;
    }
    return moved;
}

static inline void talk(struct side *client, struct side *server, size_t piece)
{
    for (;;) {
        bool a = carry(client, server, piece);
        bool b = carry(server, client, piece);
        if (!a && !b)
            return;
    }
}

static inline void say(struct side *s, const void *p, size_t n)
{
    ep_body_push_copy(&s->conn.out, p, n, &s->worker.slabs);
}

/* A meeting of a client and a server of these contexts, after the handshake and a first exchange. */
struct meeting {
    struct side *client, *server;
    const struct ep_tls_info *c, *s;
};

static inline struct meeting meet_by(struct ep_tls_context *client, struct ep_tls_context *server, const char *name,
                                     size_t piece)
{
    struct meeting m = {.client = side_new(client, name), .server = side_new(server, NULL)};

    m.c = ep_conn_tls_info(&m.client->conn);
    m.s = ep_conn_tls_info(&m.server->conn);
    assert_true(ep_tls_start(m.client->conn.tls));
    say(m.client, "ping", 4);
    say(m.server, "pong", 4);
    talk(m.client, m.server, piece);
    return m;
}

static inline struct meeting meet(struct ep_tls_context *client, struct ep_tls_context *server)
{
    return meet_by(client, server, "server.test", 16384);
}

static inline void part(struct meeting *m)
{
    side_free(m->client);
    side_free(m->server);
}

static inline void expect_str(struct ep_str got, const char *want)
{
    if (!ep_str_eq(got, ep_str(want)))
        fail_msg("'%.*s', want '%s'", EP_STR_ARG(got), want);
}

static inline void expect_in(const char *text, const char *want)
{
    if (!strstr(text, want))
        fail_msg("'%s' does not say '%s'", text, want);
}

/* Both sides are ready and heard each other. */
static inline void expect_good(const struct meeting *m)
{
    if (m->client->failed || m->server->failed)
        fail_msg("client: '%s', server: '%s'", m->client->conn.error_text, m->server->conn.error_text);
    assert_int_equal(m->client->ready, 1);
    assert_int_equal(m->server->ready, 1);
    assert_int_equal(m->client->n_copy, 4);
    assert_memory_equal(m->client->copy, "pong", 4);
    assert_int_equal(m->server->n_copy, 4);
    assert_memory_equal(m->server->copy, "ping", 4);
}

#endif
