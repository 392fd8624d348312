/* TLS by BoringSSL, server and client, with SPIFFE identities.
 *
 * A context holds certificate, key, roots and rules, is immutable and reference-counted atomically (it is
 * shared by workers); rotation makes a new one and swaps the pointer in its ep_identity, live connections
 * keep theirs. Records are read from a slab of our own through a BIO and written gathered into one send.
 * Sources: RFC 8446; SPIFFE X.509-SVID; DESIGN.md section 11. */
#ifndef EP_NET_TLS_H
#define EP_NET_TLS_H

#include "net/conn.h"

enum ep_tls_verify {
    EP_TLS_VERIFY_NONE,     /* server: ask for no client certificate */
    EP_TLS_VERIFY_REQUEST,  /* server, permissive: check one if it is given */
    EP_TLS_VERIFY_MESH,     /* chain to roots, exactly one URI SAN, a SPIFFE ID of the trust domain */
    EP_TLS_VERIFY_NAME,     /* client: chain to roots and the DNS name or IP of the server */
};

struct ep_ca;

struct ep_tls_options {
    bool server;
    enum ep_tls_verify verify;
    struct ep_str certificate_pem, key_pem, roots_pem; /* contents; roots empty with NAME: the system's */
    struct ep_str trust_domain;
    struct ep_ca *ca;                /* server, in place of a certificate: one is made for each name (net/ca.h) */
    struct ep_tls_context *roots_of; /* its roots are shared, in place of roots_pem */
    const char *const *alpn;         /* NULL-terminated, in order of preference; NULL: none */
    struct ep_str *peer_ids;         /* client, MESH: SPIFFE IDs (globs) of which the server must have one */
    size_t n_peer_ids;
    struct ep_str min_version;       /* "1.2" (default) or "1.3" */
};

/* Errors name the file's role and BoringSSL's reason; never key material. refs is 1. */
struct ep_tls_context *ep_tls_context_new(const struct ep_tls_options *o, struct ep_error *err);
struct ep_tls_context *ep_tls_context_ref(struct ep_tls_context *c);
void ep_tls_context_unref(struct ep_tls_context *c);
/* Not after, seconds since 1970, of our certificate; 0 when there is none. */
int64_t ep_tls_context_expiry(const struct ep_tls_context *c);
/* Our own SPIFFE ID from the certificate; empty when there is none. */
struct ep_str ep_tls_context_identity(const struct ep_tls_context *c);

/* How hosts outside the mesh are verified: client contexts that trust the same roots, by what they offer. Immutable, counted
 * atomically, shared by workers. */
enum ep_tls_offer { EP_TLS_OFFER_H2, EP_TLS_OFFER_HTTP1, EP_TLS_OFFER_NOTHING, EP_TLS_OFFERS }; /* H2: http/1.1 too */
struct ep_tls_origin {
    _Atomic unsigned refs;
    struct ep_tls_context *context[EP_TLS_OFFERS];
};
/* `roots_pem` empty: the system's. NULL with err. refs is 1. */
struct ep_tls_origin *ep_tls_origin_new(struct ep_str roots_pem, struct ep_error *err);
struct ep_tls_origin *ep_tls_origin_ref(struct ep_tls_origin *o);
void ep_tls_origin_unref(struct ep_tls_origin *o); /* NULL is fine */
/* The file of the roots of the public web: SSL_CERT_FILE, else where distributions keep it. NULL: there is none. */
const char *ep_tls_system_roots(void);

/* What is known of a connection's TLS; valid as long as the connection. */
struct ep_tls_info {
    struct ep_str version;      /* "TLSv1.3" */
    struct ep_str cipher;
    struct ep_str alpn;         /* empty: none agreed */
    struct ep_str sni;
    struct ep_str peer_id;      /* verified SPIFFE ID; empty when no certificate was given */
    struct ep_str peer_subject, peer_sha256; /* hex */
    bool peer_verified, resumed;
    bool heard;                 /* a byte of plain text came */
    uint8_t alert;              /* the fatal alert that the peer sent (RFC 8446 section 6.2); 0: none */
    bool close_notify;          /* the peer ended its side by one; false at on_eof: the end may have been cut off */
    uint64_t handshake_ns;
};
const struct ep_tls_info *ep_conn_tls_info(const struct ep_conn *c); /* NULL: plain */
/* BoringSSL's object, for what the info doesn't have; to read from only. NULL: plain. */
struct ssl_st *ep_conn_ssl(const struct ep_conn *c);

/* Transport side, called by conn.c only. */
struct ep_tls *ep_tls_new(struct ep_conn *c, struct ep_tls_context *ctx, struct ep_str server_name);
void ep_tls_free(struct ep_tls *t);
/* Feeds ciphertext that arrived; calls c->handler's on_ready/on_data/on_eof. False: the connection must be
 * aborted with EP_CLOSE_TLS (c->error_text says why; an alert is queued). */
bool ep_tls_input(struct ep_tls *t, struct ep_slab *slab, const unsigned char *p, size_t n);
bool ep_tls_start(struct ep_tls *t);                    /* client: send the ClientHello */
/* Encrypts c->out into `cipher`, at most `limit` bytes at once. False as above. */
bool ep_tls_output(struct ep_tls *t, struct ep_body *cipher, size_t limit);
bool ep_tls_shutdown(struct ep_tls *t, struct ep_body *cipher); /* close_notify */

/* What a ClientHello says without its TLS being ended here. */
struct ep_client_hello {
    struct ep_str sni;  /* as it was sent; empty: none */
    struct ep_str alpn; /* the raw protocol list */
    bool ech;           /* it has Encrypted Client Hello, or the grease of it: the true name may be another */
};
/* Sniffing (pure, no BoringSSL). Returns 1 when whole and good, 0 when more bytes are needed, -1 when it is no ClientHello. */
int ep_client_hello_parse(const unsigned char *p, size_t n, struct ep_client_hello *out);
/* The name of a host as it is compared: lower case, without the dot at its end, at most 253 bytes of letters, digits, '-',
 * '_' and '.', no label empty, no IP address. Written to out; 0: it is no such name. */
#define EP_HOST_MAX 253u
size_t ep_host_normalise(struct ep_str name, char out[EP_HOST_MAX + 1]);
bool ep_alpn_list_has(struct ep_str list, struct ep_str protocol);

#endif
