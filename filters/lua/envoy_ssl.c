/* ssl() of Envoy's API: the certificates of the downstream connection.
 *
 * A certificate is parsed when a script asks for a part of it, and let go of at once: what scripts ask for is rare, and
 * a parsed certificate is kilobytes a connection. */
#include <openssl/asn1.h>
#include <openssl/base.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/pool.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "lua/envoy.h"

#define PARSE_COST 1000u /* instructions */

struct access {
    const struct ep_tls_info *info;
    SSL *ssl;
};

static struct access check(lua_State *L, enum ep_envoy_class class)
{
    struct ep_envoy_handle *h = ep_envoy_check(L, class);
    struct ep_conn *c = h->s->down ? h->s->down->conn : NULL;
    struct access a = {.info = c ? ep_conn_tls_info(c) : NULL, .ssl = c ? ep_conn_ssl(c) : NULL};

    if (!a.info || !a.ssl)
        luaL_error(L, EP_ENVOY_SCOPE);
    ep_lua_charge(L, PARSE_COST);
    return a;
}

/* The i-th certificate of a side, parsed; NULL: there is none. The caller frees it. */
static X509 *certificate(const struct access *a, bool peer, size_t i)
{
    const STACK_OF(CRYPTO_BUFFER) *chain =
        peer ? SSL_get0_peer_certificates(a->ssl) : SSL_CTX_get0_chain(SSL_get_SSL_CTX(a->ssl));
    X509 *x;

    x = i < sk_CRYPTO_BUFFER_num(chain) ? X509_parse_from_buffer(sk_CRYPTO_BUFFER_value(chain, i)) : NULL;
    ERR_clear_error();
    return x;
}

/* Nothing may raise while BoringSSL's memory is held: so a text is copied to the stream's arena first. Frees the BIO.
 */
static int push_bio(lua_State *L, BIO *bio)
{
    struct ep_envoy_object *o = lua_touserdata(L, 1);
    const uint8_t *p = NULL;
    struct ep_str text = {"", 0};
    size_t n = 0;

    if (bio && BIO_mem_contents(bio, &p, &n) && n)
        text = ep_arena_str(&o->handle->s->arena, ep_str_n(p, n));
    BIO_free(bio);
    ep_lua_push(L, text);
    return 1;
}

static int push_name(lua_State *L, const struct access *a, bool peer, X509_NAME *(*name)(const X509 *))
{
    X509 *x = certificate(a, peer, 0);
    BIO *bio = x ? BIO_new(BIO_s_mem()) : NULL;

    if (bio)
        X509_NAME_print_ex(bio, name(x), 0, XN_FLAG_RFC2253);
    X509_free(x);
    return push_bio(L, bio);
}

/* Texts one after the other, each with a NUL behind it, as a list. */
static int push_list(lua_State *L, BIO *bio)
{
    lua_Integer n = 0;

    push_bio(L, bio);
    lua_newtable(L);
    struct ep_str all = ep_lua_check_str(L, -2);
    while (all.n) {
        size_t length = strlen(all.p);
        lua_pushlstring(L, all.p, length);
        lua_rawseti(L, -2, ++n);
        all = ep_str_n(all.p + length + 1, all.n - EP_MIN(all.n, length + 1));
    }
    return 1;
}

static void write_text(BIO *bio, const ASN1_STRING *s)
{
    const uint8_t *p = ASN1_STRING_get0_data(s);
    size_t n = (size_t)ASN1_STRING_length(s);

    if (memchr(p, 0, n))
        return; /* a name with a NUL is nobody's name */
    BIO_write_all(bio, p, n);
    BIO_write_all(bio, "", 1);
}

static int push_sans(lua_State *L, enum ep_envoy_class class, bool peer, int type)
{
    struct access a = check(L, class);
    X509 *x = certificate(&a, peer, 0);
    GENERAL_NAMES *names = x ? X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL) : NULL;
    BIO *bio = BIO_new(BIO_s_mem());

    for (size_t i = 0; bio && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type == type)
            write_text(bio, name->d.ia5);
    }
    GENERAL_NAMES_free(names);
    X509_free(x);
    return push_list(L, bio);
}

static int push_oids(lua_State *L, bool peer)
{
    struct access a = check(L, EP_ENVOY_SSL);
    X509 *x = certificate(&a, peer, 0);
    BIO *bio = BIO_new(BIO_s_mem());
    char text[128];

    for (int i = 0; bio && x && i < X509_get_ext_count(x); i++) {
        const ASN1_OBJECT *o = X509_EXTENSION_get_object(X509_get_ext(x, i));
        int n = OBJ_obj2txt(text, sizeof text, o, 1);
        if (n > 0 && (size_t)n < sizeof text)
            BIO_write_all(bio, text, (size_t)n + 1);
    }
    X509_free(x);
    return push_list(L, bio);
}

/* --- methods --- */

static int presented(lua_State *L)
{
    lua_pushboolean(L, check(L, EP_ENVOY_SSL).info->peer_sha256.n > 0);
    return 1;
}

static int validated(lua_State *L)
{
    lua_pushboolean(L, check(L, EP_ENVOY_SSL).info->peer_verified);
    return 1;
}

static int uri_san_peer(lua_State *L)
{
    return push_sans(L, EP_ENVOY_SSL, true, GEN_URI);
}

static int uri_san_local(lua_State *L)
{
    return push_sans(L, EP_ENVOY_SSL, false, GEN_URI);
}

static int dns_sans_peer(lua_State *L)
{
    return push_sans(L, EP_ENVOY_SSL, true, GEN_DNS);
}

static int dns_sans_local(lua_State *L)
{
    return push_sans(L, EP_ENVOY_SSL, false, GEN_DNS);
}

static int oids_peer(lua_State *L)
{
    return push_oids(L, true);
}

static int oids_local(lua_State *L)
{
    return push_oids(L, false);
}

static int subject_peer(lua_State *L)
{
    struct access a = check(L, EP_ENVOY_SSL);

    return push_name(L, &a, true, X509_get_subject_name);
}

static int subject_local(lua_State *L)
{
    struct access a = check(L, EP_ENVOY_SSL);

    return push_name(L, &a, false, X509_get_subject_name);
}

static int issuer_peer(lua_State *L)
{
    struct access a = check(L, EP_ENVOY_SSL);

    return push_name(L, &a, true, X509_get_issuer_name);
}

static int serial_number(lua_State *L)
{
    struct access a = check(L, EP_ENVOY_SSL);
    X509 *x = certificate(&a, true, 0);
    BIGNUM *bn = x ? ASN1_INTEGER_to_BN(X509_get_serialNumber(x), NULL) : NULL;
    char *hex = bn ? BN_bn2hex(bn) : NULL;
    BIO *bio = hex ? BIO_new(BIO_s_mem()) : NULL;

    if (bio)
        BIO_write_all(bio, hex, strlen(hex));
    OPENSSL_free(hex);
    BN_free(bn);
    X509_free(x);
    return push_bio(L, bio);
}

static int64_t seconds_of(const ASN1_TIME *t)
{
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int days = 0, seconds = 0;
    bool good = epoch && ASN1_TIME_diff(&days, &seconds, epoch, t);

    ASN1_TIME_free(epoch);
    return good ? (int64_t)days * 86400 + seconds : 0;
}

static int push_time(lua_State *L, const ASN1_TIME *(*field)(const X509 *))
{
    struct access a = check(L, EP_ENVOY_SSL);
    X509 *x = certificate(&a, true, 0);
    int64_t at = x ? seconds_of(field(x)) : 0;

    X509_free(x);
    ERR_clear_error();
    lua_pushinteger(L, at);
    return 1;
}

static int valid_from(lua_State *L)
{
    return push_time(L, X509_get0_notBefore);
}

static int expiration(lua_State *L)
{
    return push_time(L, X509_get0_notAfter);
}

/* Percent-encodes what a header value can't carry, as XFCC wants it. */
static int push_url_encoded(lua_State *L)
{
    static const char hex[] = "0123456789ABCDEF";
    struct ep_str pem = ep_lua_check_str(L, -1);
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, pem.n * 3);
    char *start = to;

    ep_lua_charge(L, pem.n / 8);
    for (size_t i = 0; i < pem.n; i++) {
        unsigned char c = (unsigned char)pem.p[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
            c == '.' || c == '~') {
            *to++ = (char)c;
            continue;
        }
        *to++ = '%';
        *to++ = hex[c >> 4];
        *to++ = hex[c & 15];
    }
    luaL_pushresultsize(&b, (size_t)(to - start));
    return 1;
}

static int push_pem(lua_State *L, bool chain)
{
    struct access a = check(L, EP_ENVOY_SSL);
    BIO *bio = BIO_new(BIO_s_mem());
    X509 *x;

    for (size_t i = 0; bio && (i == 0 || chain) && (x = certificate(&a, true, i)) != NULL; i++) {
        PEM_write_bio_X509(bio, x);
        X509_free(x);
    }
    push_bio(L, bio);
    return push_url_encoded(L);
}

static int pem_peer(lua_State *L)
{
    return push_pem(L, false);
}

static int pem_peer_chain(lua_State *L)
{
    return push_pem(L, true);
}

static int session_id(lua_State *L)
{
    struct access a = check(L, EP_ENVOY_SSL);
    const SSL_SESSION *session = SSL_get_session(a.ssl);
    unsigned n = 0;
    const uint8_t *id = session ? SSL_SESSION_get_id(session, &n) : NULL;
    char text[2 * SSL_MAX_SSL_SESSION_ID_LENGTH];

    n = id ? EP_MIN(n, (unsigned)SSL_MAX_SSL_SESSION_ID_LENGTH) : 0;
    for (unsigned i = 0; i < n; i++) {
        text[2 * i] = "0123456789abcdef"[id[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[id[i] & 15];
    }
    lua_pushlstring(L, text, (size_t)n * 2);
    return 1;
}

static int ciphersuite_id(lua_State *L)
{
    struct access a = check(L, EP_ENVOY_SSL);
    const SSL_CIPHER *cipher = SSL_get_current_cipher(a.ssl);
    char text[16];

    snprintf(text, sizeof text, "0x%04x", cipher ? SSL_CIPHER_get_protocol_id(cipher) : 0xffff);
    lua_pushstring(L, text);
    return 1;
}

#define TEXT(function, member)                                                                                         \
    static int function(lua_State *L)                                                                                  \
    {                                                                                                                  \
        ep_lua_push(L, check(L, EP_ENVOY_SSL).info->member);                                                           \
        return 1;                                                                                                      \
    }
TEXT(sha256_peer, peer_sha256)
TEXT(tls_version, version)
TEXT(ciphersuite_string, cipher)

/* --- the parsed subject --- */

static int parsed_subject(lua_State *L)
{
    if (check(L, EP_ENVOY_SSL).info->peer_sha256.n)
        ep_envoy_push(L, ep_envoy_check(L, EP_ENVOY_SSL), EP_ENVOY_SUBJECT);
    else
        lua_pushnil(L);
    return 1;
}

static int push_entries(lua_State *L, int nid)
{
    struct access a = check(L, EP_ENVOY_SUBJECT);
    X509 *x = certificate(&a, true, 0);
    X509_NAME *name = x ? X509_get_subject_name(x) : NULL;
    BIO *bio = BIO_new(BIO_s_mem());

    for (int i = -1; bio && name && (i = X509_NAME_get_index_by_NID(name, nid, i)) >= 0;) {
        uint8_t *utf8 = NULL;
        int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i)));
        if (n > 0 && !memchr(utf8, 0, (size_t)n)) {
            BIO_write_all(bio, utf8, (size_t)n);
            BIO_write_all(bio, "", 1);
        }
        OPENSSL_free(utf8);
    }
    X509_free(x);
    ERR_clear_error();
    return push_list(L, bio);
}

static int common_name(lua_State *L)
{
    push_entries(L, NID_commonName);
    if (lua_rawgeti(L, -1, 1) == LUA_TNIL)
        lua_pushliteral(L, "");
    return 1;
}

static int organization_name(lua_State *L)
{
    return push_entries(L, NID_organizationName);
}

void ep_envoy_ssl_open(lua_State *L)
{
    static const luaL_Reg ssl[] = {
        {"peerCertificatePresented", presented},
        {"peerCertificateValidated", validated},
        {"uriSanPeerCertificate", uri_san_peer},
        {"uriSanLocalCertificate", uri_san_local},
        {"dnsSansPeerCertificate", dns_sans_peer},
        {"dnsSansLocalCertificate", dns_sans_local},
        {"oidsPeerCertificate", oids_peer},
        {"oidsLocalCertificate", oids_local},
        {"subjectPeerCertificate", subject_peer},
        {"subjectLocalCertificate", subject_local},
        {"issuerPeerCertificate", issuer_peer},
        {"parsedSubjectPeerCertificate", parsed_subject},
        {"serialNumberPeerCertificate", serial_number},
        {"sha256PeerCertificateDigest", sha256_peer},
        {"validFromPeerCertificate", valid_from},
        {"expirationPeerCertificate", expiration},
        {"urlEncodedPemEncodedPeerCertificate", pem_peer},
        {"urlEncodedPemEncodedPeerCertificateChain", pem_peer_chain},
        {"sessionId", session_id},
        {"ciphersuiteId", ciphersuite_id},
        {"ciphersuiteString", ciphersuite_string},
        {"tlsVersion", tls_version},
        {NULL, NULL},
    };
    static const luaL_Reg subject[] = {
        {"commonName", common_name},
        {"organizationName", organization_name},
        {NULL, NULL},
    };

    ep_envoy_class(L, EP_ENVOY_SSL, ssl, NULL);
    ep_envoy_class(L, EP_ENVOY_SUBJECT, subject, NULL);
}
