/* A certificate authority of this process: makes a certificate for whatever host an intercepted client asks for.
 *
 * Its key is made in memory, or was read from a mounted file, and is written nowhere; it is overwritten when the last
 * reference goes. All certificates it makes share one key of their own, so that one costs a signature (P-256, about
 * 50 us), not a key besides. They are kept, EP_CA_LEAVES at most, the least recently used leaves first, and made anew when
 * half their day is over. Shared by all workers: one lock a handshake, and none while a signature is made.
 * Sources: RFC 5280 sections 4.1 and 4.2; CA/Browser Forum Baseline Requirements 7.1.2.7 for what clients insist on. */
#ifndef EP_NET_CA_H
#define EP_NET_CA_H

#include "base/base.h"

struct ep_ca;
struct ssl_st;

#define EP_CA_LEAVES        1024u
#define EP_CA_LEAF_SECONDS  86400u /* how long one is good … */
#define EP_CA_BACKDATE      3600u  /* … and since how long before it was made: clocks differ */

/* Makes key and certificate, good for ten years: they die with the process. `name` is put into the subject. NULL with err. */
struct ep_ca *ep_ca_new(struct ep_str name, struct ep_error *err);
/* Of PEM texts: the CA's certificate, those above it behind it, and its key. Errors never show a byte of the key. */
struct ep_ca *ep_ca_load(struct ep_str certificate_pem, struct ep_str key_pem, struct ep_error *err);
struct ep_ca *ep_ca_ref(struct ep_ca *ca);
void ep_ca_unref(struct ep_ca *ca); /* NULL is fine */

/* What clients must trust: the CA's own certificate, PEM. Valid as long as the CA, like the digest. */
struct ep_str ep_ca_pem(const struct ep_ca *ca);
struct ep_str ep_ca_sha256(const struct ep_ca *ca); /* of the certificate, hex */
int64_t ep_ca_expiry(const struct ep_ca *ca);       /* seconds since 1970 */
/* How many certificates are kept now, and were made so far. */
void ep_ca_counts(struct ep_ca *ca, size_t *kept, uint64_t *made);

/* The certificate for `host` (ep_host_normalise) as DER. The caller owns *der, by free. For tests; false: it can't be made. */
bool ep_ca_leaf(struct ep_ca *ca, struct ep_str host, uint64_t now_s, unsigned char **der, size_t *n);
/* Gives a server's handshake the certificate for `host` and its key. False: it can't be made. Any thread. */
bool ep_ca_certify(struct ep_ca *ca, struct ssl_st *ssl, struct ep_str host, uint64_t now_s);

#endif
