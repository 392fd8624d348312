/* Making certificates: see ca.h. */
#include "net/ca.h"

#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/pool.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "net/tls_private.h"

#define CA_DAYS     3653
#define CHAIN_MAX   4u /* a mounted CA's own chain */
#define SERIAL_BITS 127
#define NAME_MAX_   64u /* bytes of a common name: RFC 5280 appendix A.1 */
#define BUCKETS     512u

struct leaf {
    struct ep_list node;  /* of the CA, latest used first */
    struct leaf *next;    /* of its bucket */
    uint64_t made_s;
    size_t n_host, n_der;
    char host[]; /* and the certificate behind it, which each who asks gets a copy of: nothing of BoringSSL's is shared */
};

struct ep_ca {
    atomic_uint refs;
    EVP_PKEY *key, *leaf_key;
    X509 *certificate;
    CRYPTO_BUFFER *above[CHAIN_MAX]; /* sent behind each certificate: of a mounted CA, for its root alone is known */
    size_t n_above;
    char *pem;
    char sha256[2 * SHA256_DIGEST_LENGTH + 1];
    int64_t expiry;

    pthread_mutex_t lock; /* of all that follows */
    struct ep_list used;
    struct leaf *buckets[BUCKETS];
    size_t n_leaves;
    uint64_t made;
};

/* "egress CA: <what> (<BoringSSL's reason>)". Reasons are fixed texts. */
static bool ca_error(struct ep_error *err, const char *what)
{
    uint32_t e = ERR_peek_last_error();
    const char *reason = e ? ERR_reason_error_string(e) : NULL;

    ERR_clear_error();
    return ep_error_set(err, "%s%s%s%s", what, reason ? " (" : "", reason ? reason : "", reason ? ")" : "");
}

/* --- certificates --- */

static EVP_PKEY *key_new(void)
{
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY *key = EVP_PKEY_new();

    if (ec && key && EC_KEY_generate_key(ec) && EVP_PKEY_set1_EC_KEY(key, ec)) {
        EC_KEY_free(ec);
        return key;
    }
    EC_KEY_free(ec);
    EVP_PKEY_free(key);
    return NULL;
}

static bool add_extension(X509 *x, X509V3_CTX *ctx, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_nconf_nid(NULL, ctx, nid, value);
    bool good = e && X509_add_ext(x, e, -1);

    X509_EXTENSION_free(e);
    return good;
}

static bool set_serial(X509 *x)
{
    BIGNUM *n = BN_new();
    bool good = n && BN_rand(n, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) &&
                BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));

    BN_free(n);
    return good;
}

static bool set_times(X509 *x, uint64_t from_s, uint64_t until_s)
{
    return ASN1_TIME_set(X509_getm_notBefore(x), (time_t)from_s) && ASN1_TIME_set(X509_getm_notAfter(x), (time_t)until_s);
}

static bool set_name(X509_NAME *name, struct ep_str text)
{
    return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)text.p,
                                      (int)EP_MIN(text.n, (size_t)NAME_MAX_), -1, 0);
}

static X509 *certificate_new(EVP_PKEY *key)
{
    X509 *x = X509_new();

    if (x && X509_set_version(x, X509_VERSION_3) && set_serial(x) && X509_set_pubkey(x, key))
        return x;
    X509_free(x);
    return NULL;
}

static X509 *root_new(struct ep_str name, EVP_PKEY *key, uint64_t now_s)
{
    X509 *x = certificate_new(key);
    X509V3_CTX ctx;

    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    if (x && set_times(x, now_s - EP_CA_LEAF_SECONDS, now_s + CA_DAYS * 86400ull) &&
        set_name(X509_get_subject_name(x), name) && X509_set_issuer_name(x, X509_get_subject_name(x)) &&
        add_extension(x, &ctx, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
        add_extension(x, &ctx, NID_key_usage, "critical,keyCertSign,cRLSign") &&
        add_extension(x, &ctx, NID_subject_key_identifier, "hash") && X509_sign(x, key, EVP_sha256()))
        return x;
    X509_free(x);
    return NULL;
}

/* The host has passed ep_host_normalise, so that nothing in it can be read as another extension. */
static X509 *leaf_new(const struct ep_ca *ca, struct ep_str host, uint64_t now_s)
{
    X509 *x = certificate_new(ca->leaf_key);
    char san[4 + 256];
    X509V3_CTX ctx;

    snprintf(san, sizeof san, "DNS:%.*s", (int)EP_MIN(host.n, 253u), host.p);
    X509V3_set_ctx(&ctx, ca->certificate, x, NULL, NULL, 0);
    if (x && set_times(x, now_s - EP_CA_BACKDATE, EP_MIN(now_s + EP_CA_LEAF_SECONDS, (uint64_t)ca->expiry)) &&
        set_name(X509_get_subject_name(x), host) && X509_set_issuer_name(x, X509_get_subject_name(ca->certificate)) &&
        add_extension(x, &ctx, NID_basic_constraints, "critical,CA:FALSE") &&
        add_extension(x, &ctx, NID_key_usage, "critical,digitalSignature") &&
        add_extension(x, &ctx, NID_ext_key_usage, "serverAuth") &&
        add_extension(x, &ctx, NID_subject_key_identifier, "hash") &&
        add_extension(x, &ctx, NID_authority_key_identifier, "keyid:always") &&
        add_extension(x, &ctx, NID_subject_alt_name, san) && X509_sign(x, ca->key, EVP_sha256()))
        return x;
    X509_free(x);
    return NULL;
}

static CRYPTO_BUFFER *to_buffer(X509 *x)
{
    CRYPTO_BUFFER *out = NULL;
    unsigned char *der = NULL;
    int n = x ? i2d_X509(x, &der) : -1;

    if (n > 0)
        out = CRYPTO_BUFFER_new(der, (size_t)n, NULL);
    OPENSSL_free(der);
    return out;
}

/* --- the CA --- */

/* What follows from the certificate: digest, end, PEM. */
static bool describe(struct ep_ca *ca, struct ep_error *err)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    BIO *bio = BIO_new(BIO_s_mem());
    const uint8_t *text = NULL;
    unsigned n_digest = 0;
    size_t n = 0;
    bool good = bio && PEM_write_bio_X509(bio, ca->certificate) && BIO_mem_contents(bio, &text, &n) &&
                X509_digest(ca->certificate, EVP_sha256(), digest, &n_digest);

    if (good) {
        ca->pem = ep_strndup((const char *)text, n);
        ca->expiry = ep_asn1_time(X509_get0_notAfter(ca->certificate));
        for (size_t i = 0; i < sizeof digest; i++)
            snprintf(ca->sha256 + 2 * i, 3, "%02x", digest[i]);
    } else {
        ca_error(err, "certificate: can't be written");
    }
    BIO_free(bio);
    return good;
}

static struct ep_ca *ca_empty(void)
{
    struct ep_ca *ca = ep_calloc(1, sizeof *ca);

    atomic_init(&ca->refs, 1);
    pthread_mutex_init(&ca->lock, NULL);
    ep_list_init(&ca->used);
    return ca;
}

struct ep_ca *ep_ca_new(struct ep_str name, struct ep_error *err)
{
    struct ep_ca *ca = ca_empty();
    unsigned char mark[4];
    char subject[NAME_MAX_ + 1];

    ERR_clear_error();
    RAND_bytes(mark, sizeof mark); /* two pods' CAs of one name would be taken for each other */
    snprintf(subject, sizeof subject, "ephor egress %02x%02x%02x%02x%s%.*s", mark[0], mark[1], mark[2], mark[3],
             name.n ? " " : "", (int)EP_MIN(name.n, 32u), name.n ? name.p : "");
    ca->key = key_new();
    ca->leaf_key = key_new();
    if (ca->key && ca->leaf_key)
        ca->certificate = root_new(ep_str(subject), ca->key, ep_clock_wall_ns() / EP_S);
    if (!ca->certificate)
        ca_error(err, "certificate: can't be made");
    if (ca->certificate && describe(ca, err))
        return ca;
    ep_ca_unref(ca);
    return NULL;
}

static int no_password(char *buf, int size, int rwflag, void *u)
{
    (void)buf, (void)size, (void)rwflag, (void)u;
    return 0;
}

static bool read_certificates(struct ep_ca *ca, struct ep_str pem, struct ep_error *err)
{
    BIO *bio = BIO_new_mem_buf(pem.n ? pem.p : "", (int)EP_MIN(pem.n, (size_t)1 << 20));
    X509 *x;

    while (bio && (x = PEM_read_bio_X509(bio, NULL, no_password, NULL))) {
        bool room = ca->n_above < CHAIN_MAX;

        if (room)
            ca->above[ca->n_above++] = to_buffer(x);
        if (!ca->certificate)
            ca->certificate = x;
        else
            X509_free(x);
        if (!room || !ca->above[ca->n_above - 1])
            break;
    }
    BIO_free(bio);
    if (!ca->certificate)
        return ca_error(err, "certificate: no CERTIFICATE block in the PEM that can be read");
    ERR_clear_error(); /* the end of the file is one */
    return true;
}

struct ep_ca *ep_ca_load(struct ep_str certificate_pem, struct ep_str key_pem, struct ep_error *err)
{
    struct ep_ca *ca = ca_empty();
    BIO *bio = BIO_new_mem_buf(key_pem.n ? key_pem.p : "", (int)EP_MIN(key_pem.n, (size_t)1 << 20));
    bool good = false;

    ERR_clear_error();
    ca->key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
    BIO_free(bio);
    if (!ca->key)
        ca_error(err, "key: no private key in the PEM that can be read");
    else if (!read_certificates(ca, certificate_pem, err))
        ;
    else if (!X509_check_private_key(ca->certificate, ca->key))
        ca_error(err, "key: it is not that of the certificate");
    else if (!X509_check_ca(ca->certificate) || !(X509_get_key_usage(ca->certificate) & KU_KEY_CERT_SIGN))
        ep_error_set(err, "certificate: it is not that of a CA, which may sign others");
    else if (X509_cmp_current_time(X509_get0_notAfter(ca->certificate)) <= 0)
        ep_error_set(err, "certificate: it has expired");
    else if (!(ca->leaf_key = key_new()))
        ca_error(err, "key: none can be made");
    else
        good = describe(ca, err);
    if (good)
        return ca;
    ep_ca_unref(ca);
    return NULL;
}

struct ep_ca *ep_ca_ref(struct ep_ca *ca)
{
    atomic_fetch_add_explicit(&ca->refs, 1, memory_order_relaxed);
    return ca;
}

static void leaf_free(struct leaf *l)
{
    ep_list_remove(&l->node);
    free(l);
}

void ep_ca_unref(struct ep_ca *ca)
{
    if (!ca || atomic_fetch_sub_explicit(&ca->refs, 1, memory_order_acq_rel) != 1)
        return;
    while (!ep_list_empty(&ca->used))
        leaf_free(EP_CONTAINER(ca->used.next, struct leaf, node));
    for (size_t i = 0; i < ca->n_above; i++)
        CRYPTO_BUFFER_free(ca->above[i]);
    EVP_PKEY_free(ca->key); /* OPENSSL_free clears what it frees */
    EVP_PKEY_free(ca->leaf_key);
    X509_free(ca->certificate);
    pthread_mutex_destroy(&ca->lock);
    free(ca->pem);
    free(ca);
}

struct ep_str ep_ca_pem(const struct ep_ca *ca)
{
    return ep_str(ca->pem);
}

struct ep_str ep_ca_sha256(const struct ep_ca *ca)
{
    return ep_str(ca->sha256);
}

int64_t ep_ca_expiry(const struct ep_ca *ca)
{
    return ca->expiry;
}

void ep_ca_counts(struct ep_ca *ca, size_t *kept, uint64_t *made)
{
    pthread_mutex_lock(&ca->lock);
    *kept = ca->n_leaves;
    *made = ca->made;
    pthread_mutex_unlock(&ca->lock);
}

/* --- what was made --- */

static struct leaf **slot_of(struct ep_ca *ca, struct ep_str host)
{
    struct leaf **at = &ca->buckets[ep_hash(host.p, host.n) % BUCKETS];

    while (*at && !ep_str_eq(ep_str_n((*at)->host, (*at)->n_host), host))
        at = &(*at)->next;
    return at;
}

static void drop(struct ep_ca *ca, struct leaf *l)
{
    *slot_of(ca, ep_str_n(l->host, l->n_host)) = l->next;
    leaf_free(l);
    ca->n_leaves--;
}

/* One that is good for half its day at least, of the caller. */
static CRYPTO_BUFFER *find(struct ep_ca *ca, struct ep_str host, uint64_t now_s)
{
    CRYPTO_BUFFER *der = NULL;
    struct leaf *l;

    pthread_mutex_lock(&ca->lock);
    l = *slot_of(ca, host);
    if (l && now_s >= l->made_s && now_s - l->made_s < EP_CA_LEAF_SECONDS / 2) {
        ep_list_remove(&l->node);
        ep_list_push_front(&ca->used, &l->node);
        der = CRYPTO_BUFFER_new((const uint8_t *)l->host + l->n_host, l->n_der, NULL);
    }
    pthread_mutex_unlock(&ca->lock);
    return der;
}

/* Two workers may have made one at a time: the later stays. */
static void keep(struct ep_ca *ca, struct ep_str host, const CRYPTO_BUFFER *der, uint64_t now_s)
{
    size_t n_der = CRYPTO_BUFFER_len(der);
    struct leaf *l = ep_malloc(sizeof *l + host.n + n_der), *old, **at;

    memcpy(l->host, host.p, host.n);
    memcpy(l->host + host.n, CRYPTO_BUFFER_data(der), n_der);
    l->n_host = host.n;
    l->n_der = n_der;
    l->made_s = now_s;
    pthread_mutex_lock(&ca->lock);
    old = *slot_of(ca, host);
    if (!old && ca->n_leaves >= EP_CA_LEAVES)
        old = EP_CONTAINER(ca->used.prev, struct leaf, node);
    if (old)
        drop(ca, old);
    at = slot_of(ca, host);
    l->next = *at;
    *at = l;
    ep_list_push_front(&ca->used, &l->node);
    ca->n_leaves++;
    ca->made++;
    pthread_mutex_unlock(&ca->lock);
}

static CRYPTO_BUFFER *leaf_of(struct ep_ca *ca, struct ep_str host, uint64_t now_s)
{
    CRYPTO_BUFFER *der = find(ca, host, now_s);

    if (!der) {
        X509 *x = leaf_new(ca, host, now_s);
        der = to_buffer(x);
        X509_free(x);
        if (der)
            keep(ca, host, der, now_s);
    }
    return der;
}

bool ep_ca_leaf(struct ep_ca *ca, struct ep_str host, uint64_t now_s, unsigned char **der, size_t *n)
{
    CRYPTO_BUFFER *leaf = leaf_of(ca, host, now_s);

    if (!leaf)
        return false;
    *n = CRYPTO_BUFFER_len(leaf);
    *der = ep_malloc(*n);
    memcpy(*der, CRYPTO_BUFFER_data(leaf), *n);
    CRYPTO_BUFFER_free(leaf);
    return true;
}

bool ep_ca_certify(struct ep_ca *ca, SSL *ssl, struct ep_str host, uint64_t now_s)
{
    CRYPTO_BUFFER *chain[1 + CHAIN_MAX];
    bool good;

    chain[0] = leaf_of(ca, host, now_s);
    if (!chain[0])
        return false;
    memcpy(chain + 1, ca->above, ca->n_above * sizeof chain[0]);
    good = SSL_set_chain_and_key(ssl, chain, 1 + ca->n_above, ca->leaf_key, NULL);
    CRYPTO_BUFFER_free(chain[0]);
    return good;
}
