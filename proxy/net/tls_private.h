/* What the files of TLS share; for tls*.c and ca.c only.
 *
 * tls.c          one connection: records in, records out
 * tls_context.c  certificates, keys, roots, ciphers: what is set once
 * tls_verify.c   who the peer is, and whether that will do
 * tls_origin.c   how hosts outside the mesh are verified
 * tls_session.c  resumption: the server's ticket keys, the client's tickets */
#ifndef EP_NET_TLS_PRIVATE_H
#define EP_NET_TLS_PRIVATE_H

#include <openssl/base.h>
#include <openssl/pool.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdatomic.h>

#include "net/tls.h"

#define EP_TLS_SESSIONS 64 /* tickets that a client context keeps */

struct ep_tls_ticket_key {
    unsigned char name[SSL_TICKET_KEY_NAME_LEN], cipher[16], mac[32];
    uint64_t born_ns; /* 0: none yet */
};

/* Shared by the workers: one lock a handshake. */
struct ep_tls_tickets {
    pthread_mutex_t lock;
    struct ep_tls_ticket_key now, before;
};

struct ep_tls_session {
    char *peer; /* server name and address; NULL: free */
    SSL_SESSION *session;
    uint64_t used; /* of ep_tls_sessions.clock */
};

struct ep_tls_sessions {
    pthread_mutex_t lock;
    uint64_t clock;
    struct ep_tls_session v[EP_TLS_SESSIONS];
};

struct ep_tls_context {
    atomic_uint refs;
    SSL_CTX *ssl_ctx;
    BIO_METHOD *bio;
    CRYPTO_BUFFER_POOL *pool; /* a certificate that many connections show is held once */
    X509_STORE *roots;
    struct ep_ca *ca;         /* server: makes the certificates; a reference */
    bool server;
    enum ep_tls_verify verify;
    char *trust_domain;
    char **peer_ids;
    size_t n_peer_ids;
    unsigned char *alpn; /* as on the wire */
    size_t n_alpn;
    char *identity;
    int64_t expiry;
    struct ep_tls_tickets tickets;
    struct ep_tls_sessions sessions;
};

struct ep_tls {
    struct ep_conn *conn;
    struct ep_tls_context *context;
    SSL *ssl;
    char *server_name;       /* client: SNI and the name verified; NULL: none */
    struct ep_slab *in_slab; /* during ep_tls_input */
    const unsigned char *in; /* ciphertext that BoringSSL has not taken yet */
    size_t n_in;
    size_t handshake_bytes; /* arrived before the handshake was done */
    uint64_t started_ns;
    char *peer_text;        /* what info.peer_* point into */
    bool failed, explained; /* explained: conn->error_text says why already */
    bool closed_in, closed_out;
    struct ep_tls_info info;
};

/* --- tls.c --- */

BIO_METHOD *ep_tls_bio_method(void); /* the caller's to free */

/* --- tls_verify.c --- */

/* A peer that won't do: for a person, and for the peer as an alert. */
struct ep_tls_refusal {
    char text[128];
    uint8_t alert;
};

/* Looks at the chain that the peer showed and fills info.peer_* of `t`. With `resumed` the signatures were checked by
 * the handshake that the ticket came from; dates and identity are looked at again. */
bool ep_tls_verify_peer(struct ep_tls *t, bool resumed, struct ep_tls_refusal *why);
/* "spiffe://trust.domain/path": RFC-like strictness of SPIFFE-ID section 2. */
bool ep_spiffe_parse(struct ep_str id, struct ep_str *trust_domain, struct ep_str *path);
/* The one URI SAN of a certificate when it is a SPIFFE ID; else false and, in why, what is wrong with it. The result
 * is the caller's to free. */
char *ep_spiffe_of(X509 *certificate, struct ep_tls_refusal *why);
int64_t ep_asn1_time(const ASN1_TIME *t); /* seconds since 1970; 0 when it can't be read */

/* --- tls_session.c --- */

void ep_tls_tickets_init(struct ep_tls_tickets *t);
void ep_tls_tickets_fini(struct ep_tls_tickets *t);
int ep_tls_ticket_key(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *mac, int encrypt);
void ep_tls_sessions_init(struct ep_tls_sessions *s);
void ep_tls_sessions_fini(struct ep_tls_sessions *s);
int ep_tls_session_new(SSL *ssl, SSL_SESSION *session); /* BoringSSL's callback: takes the session when it returns 1 */
void ep_tls_session_offer(struct ep_tls *t);            /* before the ClientHello */

#endif
