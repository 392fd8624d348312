/* A TLS context: certificate, key, roots and rules, made once and shared by all connections of all workers.
 *
 * Built on TLS_with_buffers_method: BoringSSL then keeps certificates as DER in a pool and parses none by itself; the
 * verification in tls_verify.c does, and only while it runs. An idle connection so holds no X509 object.
 * TLS 1.2 with forward-secret AEAD suites, and 1.3; X25519 and P-256; no renegotiation, no 0-RTT (a replayed request
 * would pass the filters twice). */
#include <limits.h>
#include <openssl/aead.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/ca.h"
#include "net/tls_private.h"

#define CHAIN_MAX       10
#define CERT_LIST_MAX   (64u * 1024u) /* bytes of a peer's chain */
#define SESSION_SECONDS 3600
/* Of TLS 1.2; those of 1.3 are BoringSSL's own, which looks at the CPU too. */
#define AES128 "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
#define AES256 "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
#define CHACHA "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
#define CURVES "X25519:P-256"

/* Where distributions keep the roots of the public web; the first that can be read is taken. */
static const char *const system_roots[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
};

/* "certificate: <BoringSSL's reason>". Reasons are fixed texts, so no byte of a key can be in them. */
static bool tls_error(struct ep_error *err, const char *role, const char *what)
{
    uint32_t e = ERR_peek_last_error();
    const char *reason = e ? ERR_reason_error_string(e) : NULL;

    ERR_clear_error();
    return ep_error_set(err, "%s: %s%s%s%s", role, what, reason ? " (" : "", reason ? reason : "", reason ? ")" : "");
}

/* --- PEM --- */

static BIO *pem_open(struct ep_str pem)
{
    return BIO_new_mem_buf(pem.n ? pem.p : "", (int)EP_MIN(pem.n, (size_t)INT_MAX)); /* doesn't copy */
}

/* The next CERTIFICATE block as DER, by OPENSSL_malloc. 0 at the end, -1 when a block is broken. */
static int pem_next(BIO *bio, unsigned char **der, long *n)
{
    char *name, *header;

    for (;;) {
        if (!PEM_read_bio(bio, &name, &header, der, n)) {
            bool end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
            if (end)
                ERR_clear_error();
            return end ? 0 : -1;
        }
        bool wanted = strcmp(name, PEM_STRING_X509) == 0 || strcmp(name, PEM_STRING_X509_OLD) == 0;
        OPENSSL_free(name);
        OPENSSL_free(header);
        if (wanted)
            return 1;
        OPENSSL_free(*der);
    }
}

static int no_password(char *buf, int size, int rwflag, void *u)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)u;
    return 0; /* an encrypted key is an error, not a question on a terminal */
}

static bool read_chain(struct ep_tls_context *c, struct ep_str pem, CRYPTO_BUFFER **chain, size_t *n,
                       struct ep_error *err)
{
    BIO *bio = pem_open(pem);
    unsigned char *der;
    long n_der;
    int got;

    *n = 0;
    while ((got = pem_next(bio, &der, &n_der)) == 1 && *n < CHAIN_MAX) {
        chain[*n] = CRYPTO_BUFFER_new(der, (size_t)n_der, c->pool);
        OPENSSL_free(der);
        if (!chain[*n])
            break;
        ++*n;
    }
    BIO_free(bio);
    if (got == 1)
        return ep_error_set(err, "certificate: more than %d in the chain", CHAIN_MAX);
    if (got < 0)
        return tls_error(err, "certificate", "a PEM block can't be read");
    return *n > 0 || ep_error_set(err, "certificate: no CERTIFICATE block in the PEM");
}

/* Our own certificate and key into the SSL_CTX; notes its end and identity. */
static bool load_own(struct ep_tls_context *c, const struct ep_tls_options *o, struct ep_error *err)
{
    CRYPTO_BUFFER *chain[CHAIN_MAX];
    struct ep_tls_refusal why = {.alert = 0};
    EVP_PKEY *key = NULL;
    X509 *leaf = NULL;
    BIO *bio = NULL;
    bool good = false;
    size_t n;

    if (!read_chain(c, o->certificate_pem, chain, &n, err))
        goto done;
    leaf = X509_parse_from_buffer(chain[0]);
    if (!leaf) {
        tls_error(err, "certificate", "the first is not X.509");
        goto done;
    }
    bio = pem_open(o->key_pem);
    key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    if (!key) {
        tls_error(err, "key", "no private key in the PEM that can be read");
        goto done;
    }
    if (!X509_check_private_key(leaf, key)) {
        tls_error(err, "key", "it is not that of the certificate");
        goto done;
    }
    if (!SSL_CTX_set_chain_and_key(c->ssl_ctx, chain, n, key, NULL)) {
        tls_error(err, "certificate", "not usable");
        goto done;
    }
    c->expiry = ep_asn1_time(X509_get0_notAfter(leaf));
    c->identity = ep_spiffe_of(leaf, &why);
    good = true;
done:
    for (size_t i = 0; i < n; i++)
        CRYPTO_BUFFER_free(chain[i]);
    EVP_PKEY_free(key); /* OPENSSL_free clears what it frees */
    X509_free(leaf);
    BIO_free(bio);
    return good;
}

static bool read_roots(struct ep_tls_context *c, BIO *bio, const char *role, struct ep_error *err)
{
    unsigned char *der;
    size_t n = 0;
    long n_der;
    int got;

    while ((got = pem_next(bio, &der, &n_der)) == 1) {
        const unsigned char *p = der;
        X509 *x = d2i_X509(NULL, &p, n_der);
        bool good = x && (X509_STORE_add_cert(c->roots, x) ||
                          ERR_GET_REASON(ERR_peek_last_error()) == X509_R_CERT_ALREADY_IN_HASH_TABLE);

        OPENSSL_free(der);
        X509_free(x);
        if (!good)
            return tls_error(err, role, "a certificate can't be read");
        ERR_clear_error();
        n++;
    }
    if (got < 0)
        return tls_error(err, role, "a PEM block can't be read");
    return n > 0 || ep_error_set(err, "%s: no CERTIFICATE block in the PEM", role);
}

const char *ep_tls_system_roots(void)
{
    const char *path = getenv("SSL_CERT_FILE");

    for (size_t i = 0; i < EP_COUNT(system_roots) && (!path || !*path); i++)
        if (access(system_roots[i], R_OK) == 0)
            path = system_roots[i];
    return path && *path ? path : NULL;
}

static bool load_roots(struct ep_tls_context *c, const struct ep_tls_options *o, struct ep_error *err)
{
    const char *path;
    BIO *bio;
    bool good;

    if (o->roots_of) {
        c->roots = o->roots_of->roots;
        X509_STORE_up_ref(c->roots);
        return true;
    }
    c->roots = X509_STORE_new();
    if (!c->roots)
        return tls_error(err, "roots", "out of memory");
    if (o->roots_pem.n) {
        bio = pem_open(o->roots_pem);
        good = read_roots(c, bio, "roots", err);
        BIO_free(bio);
        return good;
    }
    if (o->verify != EP_TLS_VERIFY_NAME)
        return ep_error_set(err, "roots: none given, so that no peer could be verified");
    path = ep_tls_system_roots();
    bio = path ? BIO_new_file(path, "r") : NULL;
    if (!bio)
        return tls_error(err, "roots", "none given, and the system has no file of them (SSL_CERT_FILE may name one)");
    good = read_roots(c, bio, path, err);
    BIO_free(bio);
    return good;
}

/* --- ALPN --- */

static bool set_alpn(struct ep_tls_context *c, const char *const *names, struct ep_error *err)
{
    size_t n = 0;

    for (size_t i = 0; names && names[i]; i++) {
        size_t one = strlen(names[i]);
        if (one == 0 || one > 255)
            return ep_error_set(err, "alpn: a protocol name has 1 to 255 bytes");
        n += 1 + one;
    }
    if (n == 0)
        return true;
    c->alpn = ep_malloc(n);
    for (size_t i = 0; names[i]; i++) {
        size_t one = strlen(names[i]);
        c->alpn[c->n_alpn++] = (unsigned char)one;
        memcpy(c->alpn + c->n_alpn, names[i], one);
        c->n_alpn += one;
    }
    if (!c->server && SSL_CTX_set_alpn_protos(c->ssl_ctx, c->alpn, (unsigned)c->n_alpn) != 0)
        return tls_error(err, "alpn", "not usable");
    return true;
}

/* The first of ours that the client has too; without one the connection goes on without ALPN. */
static int select_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in, unsigned in_len, void *arg)
{
    const struct ep_tls_context *c = arg;

    (void)ssl;
    for (size_t at = 0; at < c->n_alpn; at += 1u + c->alpn[at]) {
        if (ep_alpn_list_has(ep_str_n(in, in_len), ep_str_n(c->alpn + at + 1, c->alpn[at]))) {
            *out = c->alpn + at + 1;
            *out_len = c->alpn[at];
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_NOACK;
}

/* --- rules --- */

static enum ssl_verify_result_t on_verify(SSL *ssl, uint8_t *alert)
{
    struct ep_tls *t = SSL_get_app_data(ssl);
    struct ep_tls_refusal why = {.alert = 0};

    if (ep_tls_verify_peer(t, false, &why))
        return ssl_verify_ok;
    *alert = why.alert;
    memcpy(t->conn->error_text, why.text, EP_MIN(sizeof t->conn->error_text, sizeof why.text));
    t->explained = true;
    return ssl_verify_invalid;
}

/* A certificate of our own making for the name that this client asked for. */
static int certify(SSL *ssl, void *ca)
{
    const struct ep_tls *t = SSL_get_app_data(ssl);

    return t->conn->server_name && ep_ca_certify(ca, ssl, ep_str(t->conn->server_name), ep_clock_wall_ns() / EP_S);
}

static bool check_options(const struct ep_tls_options *o, struct ep_error *err)
{
    bool spiffe = o->verify == EP_TLS_VERIFY_MESH || o->verify == EP_TLS_VERIFY_REQUEST;

    if (o->server && o->verify == EP_TLS_VERIFY_NAME)
        return ep_error_set(err, "verify: a server can't verify its client by name");
    if (!o->server && o->verify == EP_TLS_VERIFY_REQUEST)
        return ep_error_set(err, "verify: a server always shows a certificate, it can't be requested");
    if (spiffe && o->trust_domain.n == 0)
        return ep_error_set(err, "trust_domain: is needed to verify identities");
    if (!o->certificate_pem.n && !o->ca && (o->server || o->verify == EP_TLS_VERIFY_MESH))
        return ep_error_set(err, "certificate: none given");
    if (o->min_version.n && !ep_str_eq(o->min_version, EP_STR("1.2")) && !ep_str_eq(o->min_version, EP_STR("1.3")))
        return ep_error_set(err, "min_version: '%.*s' is neither 1.2 nor 1.3", EP_STR_ARG(o->min_version));
    return true;
}

static int verify_mode(const struct ep_tls_options *o)
{
    if (o->verify == EP_TLS_VERIFY_NONE)
        return SSL_VERIFY_NONE;
    if (o->verify == EP_TLS_VERIFY_REQUEST)
        return SSL_VERIFY_PEER;
    return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
}

static bool set_rules(struct ep_tls_context *c, const struct ep_tls_options *o, struct ep_error *err)
{
    SSL_CTX *s = c->ssl_ctx;
    uint16_t least = ep_str_eq(o->min_version, EP_STR("1.3")) ? TLS1_3_VERSION : TLS1_2_VERSION;
    const char *ciphers = EVP_has_aes_hardware() ? AES128 CHACHA AES256 : CHACHA AES128 AES256;

    SSL_CTX_set_app_data(s, c);
    SSL_CTX_set0_buffer_pool(s, c->pool);
    if (!SSL_CTX_set_min_proto_version(s, least) || !SSL_CTX_set_max_proto_version(s, TLS1_3_VERSION) ||
        !SSL_CTX_set_strict_cipher_list(s, ciphers) || !SSL_CTX_set1_curves_list(s, CURVES))
        return tls_error(err, "tls", "versions or ciphers not known to BoringSSL");
    SSL_CTX_set_options(s, SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_custom_verify(s, verify_mode(o), on_verify);
    SSL_CTX_set_max_cert_list(s, CERT_LIST_MAX);
    SSL_CTX_set_timeout(s, SESSION_SECONDS);
    SSL_CTX_set_session_psk_dhe_timeout(s, SESSION_SECONDS);
    if (c->server) {
        SSL_CTX_set_session_cache_mode(s, SSL_SESS_CACHE_OFF); /* tickets only: no state a client */
        SSL_CTX_set_tlsext_ticket_key_cb(s, ep_tls_ticket_key);
        SSL_CTX_set_num_tickets(s, 1);
        SSL_CTX_set_session_id_context(s, (const uint8_t *)"ephor", 5);
        if (c->n_alpn)
            SSL_CTX_set_alpn_select_cb(s, select_alpn, c);
        if (c->ca)
            SSL_CTX_set_cert_cb(s, certify, c->ca);
    } else {
        SSL_CTX_set_session_cache_mode(s, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(s, ep_tls_session_new);
    }
    return true;
}

struct ep_tls_context *ep_tls_context_new(const struct ep_tls_options *o, struct ep_error *err)
{
    struct ep_tls_context *c;

    ERR_clear_error();
    if (!check_options(o, err))
        return NULL;
    c = ep_calloc(1, sizeof *c);
    atomic_init(&c->refs, 1);
    c->server = o->server;
    c->ca = o->ca ? ep_ca_ref(o->ca) : NULL;
    c->verify = o->verify;
    c->trust_domain = ep_strndup(o->trust_domain.n ? o->trust_domain.p : "", o->trust_domain.n);
    c->peer_ids = ep_calloc(o->n_peer_ids + 1, sizeof *c->peer_ids);
    for (; c->n_peer_ids < o->n_peer_ids; c->n_peer_ids++)
        c->peer_ids[c->n_peer_ids] = ep_strndup(o->peer_ids[c->n_peer_ids].p, o->peer_ids[c->n_peer_ids].n);
    ep_tls_tickets_init(&c->tickets);
    ep_tls_sessions_init(&c->sessions);
    c->ssl_ctx = SSL_CTX_new(TLS_with_buffers_method());
    c->bio = ep_tls_bio_method();
    c->pool = CRYPTO_BUFFER_POOL_new();
    if (!c->ssl_ctx || !c->bio || !c->pool) {
        tls_error(err, "tls", "out of memory");
    } else if (set_alpn(c, o->alpn, err) && set_rules(c, o, err) && (!o->certificate_pem.n || load_own(c, o, err)) &&
               (o->verify == EP_TLS_VERIFY_NONE || load_roots(c, o, err))) {
        return c;
    }
    ep_tls_context_unref(c);
    return NULL;
}

struct ep_tls_context *ep_tls_context_ref(struct ep_tls_context *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void ep_tls_context_unref(struct ep_tls_context *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    ep_tls_sessions_fini(&c->sessions);
    ep_tls_tickets_fini(&c->tickets);
    SSL_CTX_free(c->ssl_ctx);
    X509_STORE_free(c->roots);
    ep_ca_unref(c->ca);
    CRYPTO_BUFFER_POOL_free(c->pool);
    BIO_meth_free(c->bio);
    for (size_t i = 0; i < c->n_peer_ids; i++)
        free(c->peer_ids[i]);
    free(c->peer_ids);
    free(c->trust_domain);
    free(c->alpn);
    free(c->identity);
    free(c);
}

int64_t ep_tls_context_expiry(const struct ep_tls_context *c)
{
    return c->expiry;
}

struct ep_str ep_tls_context_identity(const struct ep_tls_context *c)
{
    return ep_str(c->identity);
}
