/* Who the peer is, and whether that will do.
 *
 * In the mesh: the chain leads to our roots, the leaf is an X.509-SVID (exactly one URI SAN, a SPIFFE ID; not a CA),
 * its trust domain is ours and, for a server, its ID is one of those wanted. Outside: the chain, and the DNS name or IP
 * address that was dialled. Certificates are parsed here and nowhere else, and let go at once: an open connection keeps
 * only their DER (shared by the pool of the context) and a few strings.
 * Sources: RFC 5280; SPIFFE-ID sections 2.1 to 2.3; X509-SVID sections 3 to 5. */
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/tls_private.h"

#define ID_MAX      2048
#define DOMAIN_MAX  255
#define CHAIN_MAX   10
#define SUBJECT_MAX 256

static bool refuse(struct ep_tls_refusal *why, uint8_t alert, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool refuse(struct ep_tls_refusal *why, uint8_t alert, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why->text, sizeof why->text, format, args);
    va_end(args);
    why->alert = alert;
    return false;
}

/* --- SPIFFE IDs --- */

static bool is_domain_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

static bool is_path_char(char c)
{
    return is_domain_char(c) || (c >= 'A' && c <= 'Z');
}

/* Segments of letters, digits, '.', '-', '_'; none empty, none "." or "..". */
static bool path_is_good(struct ep_str path)
{
    size_t start = 1;

    if (path.n < 2 || path.p[0] != '/')
        return false;
    for (size_t i = 1; i <= path.n; i++) {
        if (i < path.n && path.p[i] != '/') {
            if (!is_path_char(path.p[i]))
                return false;
            continue;
        }
        struct ep_str segment = ep_str_n(path.p + start, i - start);
        if (segment.n == 0 || ep_str_eq(segment, EP_STR(".")) || ep_str_eq(segment, EP_STR("..")))
            return false;
        start = i + 1;
    }
    return true;
}

bool ep_spiffe_parse(struct ep_str id, struct ep_str *trust_domain, struct ep_str *path)
{
    struct ep_str scheme = EP_STR("spiffe://");
    size_t end = scheme.n;

    if (id.n > ID_MAX || !ep_str_starts(id, scheme))
        return false;
    while (end < id.n && is_domain_char(id.p[end]))
        end++;
    *trust_domain = ep_str_n(id.p + scheme.n, end - scheme.n);
    *path = ep_str_n(id.p + end, id.n - end);
    return trust_domain->n > 0 && trust_domain->n <= DOMAIN_MAX && path_is_good(*path);
}

char *ep_spiffe_of(X509 *certificate, struct ep_tls_refusal *why)
{
    int critical = 0;
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, &critical, NULL);
    struct ep_str id = {NULL, 0}, domain, path;
    size_t n_uris = 0;
    char *out = NULL;

    for (size_t i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI)
            continue;
        const ASN1_STRING *uri = name->d.uniformResourceIdentifier;
        id = ep_str_n(ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri));
        n_uris++;
    }
    if (!names)
        refuse(why, SSL_AD_BAD_CERTIFICATE, "certificate of peer has %s",
               critical == -1 ? "no SAN" : "a SAN that can't be read");
    else if (n_uris != 1)
        refuse(why, SSL_AD_BAD_CERTIFICATE, "certificate of peer has %zu URI SANs, want one SPIFFE ID", n_uris);
    else if (!ep_spiffe_parse(id, &domain, &path))
        refuse(why, SSL_AD_BAD_CERTIFICATE, "URI SAN in certificate of peer is not a SPIFFE ID");
    else
        out = ep_strndup(id.p, id.n);
    GENERAL_NAMES_free(names);
    ERR_clear_error();
    return out;
}

/* --- the chain --- */

int64_t ep_asn1_time(const ASN1_TIME *t)
{
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int days = 0, seconds = 0;
    bool good = epoch && ASN1_TIME_diff(&days, &seconds, epoch, t);

    ASN1_TIME_free(epoch);
    return good ? (int64_t)days * 86400 + seconds : 0;
}

static bool refuse_date(struct ep_tls_refusal *why, const X509 *x, bool expired)
{
    int64_t s = ep_asn1_time(expired ? X509_get0_notAfter(x) : X509_get0_notBefore(x));
    char text[32] = "?";

    if (s > 0 && (uint64_t)s < UINT64_MAX / EP_S)
        ep_time_rfc3339((uint64_t)s * EP_S, text);
    if (expired)
        return refuse(why, SSL_AD_CERTIFICATE_EXPIRED, "certificate expired: that of peer was good until %s", text);
    return refuse(why, SSL_AD_BAD_CERTIFICATE, "certificate of peer is good only from %s", text);
}

static bool refuse_chain(struct ep_tls_refusal *why, X509_STORE_CTX *store)
{
    int error = X509_STORE_CTX_get_error(store);
    X509 *at = X509_STORE_CTX_get_current_cert(store);
    const char *reason = X509_verify_cert_error_string(error);

    switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        if (at)
            return refuse_date(why, at, true);
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        if (at)
            return refuse_date(why, at, false);
        break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        return refuse(why, SSL_AD_UNKNOWN_CA, "certificate of peer is not from a CA we trust (%s)", reason);
    case X509_V_ERR_INVALID_PURPOSE:
        return refuse(why, SSL_AD_UNSUPPORTED_CERTIFICATE, "certificate of peer is not made for this use (%s)", reason);
    default:
        break;
    }
    return refuse(why, (uint8_t)SSL_alert_from_verify_result(error), "certificate verify failed: %s", reason);
}

static bool verify_chain(const struct ep_tls_context *ctx, X509 *leaf, STACK_OF(X509) * chain,
                         struct ep_tls_refusal *why)
{
    X509_STORE_CTX *store = X509_STORE_CTX_new();
    bool good = false;

    if (!store || !X509_STORE_CTX_init(store, ctx->roots, leaf, chain) ||
        !X509_STORE_CTX_set_default(store, ctx->server ? "ssl_client" : "ssl_server")) {
        refuse(why, SSL_AD_INTERNAL_ERROR, "certificate verify failed: out of memory");
        goto done;
    }
    X509_STORE_CTX_set_depth(store, CHAIN_MAX);
    X509_STORE_CTX_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN); /* an intermediate among the roots is trusted as one */
    good = X509_verify_cert(store) == 1;
    if (!good)
        refuse_chain(why, store);
done:
    X509_STORE_CTX_free(store);
    return good;
}

static bool verify_dates(STACK_OF(X509) * chain, struct ep_tls_refusal *why)
{
    for (size_t i = 0; i < sk_X509_num(chain); i++) {
        const X509 *x = sk_X509_value(chain, i);
        if (X509_cmp_current_time(X509_get0_notAfter(x)) <= 0)
            return refuse_date(why, x, true);
    }
    return true;
}

static bool verify_name(X509 *leaf, const char *name, struct ep_tls_refusal *why)
{
    unsigned char ip[16];
    bool is_ip, good;

    if (!name)
        return refuse(why, SSL_AD_BAD_CERTIFICATE,
                      "no name was given that the certificate of peer could be checked against");
    is_ip = inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1;
    if (is_ip)
        good = X509_check_ip_asc(leaf, name, 0) == 1;
    else
        good = X509_check_host(leaf, name, strlen(name), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1;
    return good || refuse(why, SSL_AD_BAD_CERTIFICATE, "certificate of peer is not for '%.64s'", name);
}

static bool verify_id(const struct ep_tls_context *ctx, X509 *leaf, const char *id, struct ep_tls_refusal *why)
{
    struct ep_str domain, path;

    if (X509_get_extension_flags(leaf) & EXFLAG_CA)
        return refuse(why, SSL_AD_BAD_CERTIFICATE, "certificate of peer is that of a CA, not an identity");
    if (!ep_spiffe_parse(ep_str(id), &domain, &path))
        return refuse(why, SSL_AD_BAD_CERTIFICATE, "URI SAN in certificate of peer is not a SPIFFE ID");
    if (!ep_str_eq(domain, ep_str(ctx->trust_domain)))
        return refuse(why, SSL_AD_ACCESS_DENIED, "certificate of peer has trust domain '%.*s', want '%.48s'",
                      (int)EP_MIN(domain.n, 40u), domain.p, ctx->trust_domain);
    for (size_t i = 0; i < ctx->n_peer_ids; i++)
        if (ep_str_glob(ep_str(ctx->peer_ids[i]), ep_str(id)))
            return true;
    if (ctx->n_peer_ids == 0)
        return true;
    return refuse(why, SSL_AD_ACCESS_DENIED, "peer is '%.48s', want '%.40s'%s", id, ctx->peer_ids[0],
                  ctx->n_peer_ids > 1 ? " or another" : "");
}

/* --- what is kept of it --- */

/* One block: ID, subject, fingerprint. */
static void remember(struct ep_tls *t, X509 *leaf, const CRYPTO_BUFFER *der, const char *id)
{
    static const char hex[] = "0123456789abcdef";
    unsigned char hash[SHA256_DIGEST_LENGTH];
    const uint8_t *subject = NULL;
    size_t n_subject = 0, n_id = id ? strlen(id) : 0;
    BIO *bio = BIO_new(BIO_s_mem());
    char *p;

    if (bio && X509_NAME_print_ex(bio, X509_get_subject_name(leaf), 0, XN_FLAG_RFC2253) >= 0)
        BIO_mem_contents(bio, &subject, &n_subject);
    n_subject = EP_MIN(n_subject, (size_t)SUBJECT_MAX);
    free(t->peer_text);
    p = t->peer_text = ep_malloc(n_id + n_subject + 2 * sizeof hash);
    if (n_id)
        memcpy(p, id, n_id);
    t->info.peer_id = ep_str_n(p, n_id);
    p += n_id;
    if (n_subject)
        memcpy(p, subject, n_subject);
    t->info.peer_subject = ep_str_n(p, n_subject);
    p += n_subject;
    SHA256(CRYPTO_BUFFER_data(der), CRYPTO_BUFFER_len(der), hash);
    t->info.peer_sha256 = ep_str_n(p, 2 * sizeof hash);
    for (size_t i = 0; i < sizeof hash; i++) {
        *p++ = hex[hash[i] >> 4];
        *p++ = hex[hash[i] & 15];
    }
    BIO_free(bio);
}

static bool parse_chain(const STACK_OF(CRYPTO_BUFFER) * given, STACK_OF(X509) * chain)
{
    for (size_t i = 0; i < sk_CRYPTO_BUFFER_num(given); i++) {
        X509 *x = i < CHAIN_MAX ? X509_parse_from_buffer(sk_CRYPTO_BUFFER_value(given, i)) : NULL;
        if (!x)
            return false;
        if (!sk_X509_push(chain, x)) {
            X509_free(x);
            return false;
        }
    }
    return sk_X509_num(chain) > 0;
}

bool ep_tls_verify_peer(struct ep_tls *t, bool resumed, struct ep_tls_refusal *why)
{
    const struct ep_tls_context *ctx = t->context;
    const STACK_OF(CRYPTO_BUFFER) *given = SSL_get0_peer_certificates(t->ssl);
    STACK_OF(X509) *chain = sk_X509_new_null();
    char *id = NULL;
    bool good = false;
    X509 *leaf;

    if (!given || !chain || !parse_chain(given, chain)) {
        refuse(why, SSL_AD_BAD_CERTIFICATE, "certificate of peer can't be read");
        goto done;
    }
    leaf = sk_X509_value(chain, 0);
    if (ctx->verify != EP_TLS_VERIFY_NONE) {
        if (resumed ? !verify_dates(chain, why) : !verify_chain(ctx, leaf, chain, why))
            goto done;
        if (ctx->verify == EP_TLS_VERIFY_NAME) {
            if (!verify_name(leaf, t->server_name, why))
                goto done;
        } else {
            id = ep_spiffe_of(leaf, why);
            if (!id || !verify_id(ctx, leaf, id, why))
                goto done;
        }
        t->info.peer_verified = true;
    }
    remember(t, leaf, sk_CRYPTO_BUFFER_value(given, 0), id);
    good = true;
done:
    free(id);
    sk_X509_pop_free(chain, X509_free);
    ERR_clear_error();
    return good;
}
