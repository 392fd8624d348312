/* Ed25519 signatures of what is kept: the head of the audit, the text of a constitution.
 *
 * A private key is a PEM file (PKCS#8), as `ephor constitution keygen` and `openssl genpkey -algorithm ed25519` write
 * it. A public key is text: "ed25519:" and 32 bytes in base64. */
#ifndef EP_OBSERVE_SIGNATURE_H
#define EP_OBSERVE_SIGNATURE_H

#include "base/base.h"

#define EP_PUBLIC_KEY_BYTES  32u
#define EP_PUBLIC_KEY_TEXT   64u /* room for the text and its NUL */
#define EP_SIGNATURE_BYTES   64u
#define EP_PRIVATE_PEM_BYTES 256u

struct ep_signer {
    uint8_t secret[64]; /* seed and public key */
};

/* False with err: no file, or no Ed25519 key in it. */
bool ep_signer_load(struct ep_str path, struct ep_signer *out, struct ep_error *err);
bool ep_signer_generate(struct ep_signer *out, struct ep_error *err);
/* The private key as PEM, NUL-terminated. Returns its length. */
size_t ep_signer_pem(const struct ep_signer *s, char out[EP_PRIVATE_PEM_BYTES]);
void ep_signer_public(const struct ep_signer *s, uint8_t key[EP_PUBLIC_KEY_BYTES]);
void ep_signer_sign(const struct ep_signer *s, struct ep_str text, uint8_t signature[EP_SIGNATURE_BYTES]);
void ep_signer_forget(struct ep_signer *s);

void ep_public_key_text(const uint8_t key[EP_PUBLIC_KEY_BYTES], char out[EP_PUBLIC_KEY_TEXT]);
bool ep_public_key_parse(struct ep_str text, uint8_t key[EP_PUBLIC_KEY_BYTES]);
bool ep_signature_good(struct ep_str text, const uint8_t signature[EP_SIGNATURE_BYTES],
                       const uint8_t key[EP_PUBLIC_KEY_BYTES]);

/* Lower-case hex: two digits a byte, no NUL. */
void ep_hex(const uint8_t *bytes, size_t n, char *out);
/* False unless the text is 2 × n lower-case hex digits. */
bool ep_unhex(struct ep_str text, uint8_t *bytes, size_t n);
/* SHA-256 in lower-case hex. */
#define EP_SHA256_HEX 64u
void ep_sha256_hex(struct ep_str text, char hex[EP_SHA256_HEX]);

#endif
