/* Reading the text of a constitution: the bundle's canonical listing, its digest, its signature, its YAML. */
#ifndef EP_CONFIG_CHARTER_H
#define EP_CONFIG_CHARTER_H

#include "filter/charter.h"
#include "observe/signature.h"

/* Reads a bundle: all of its files, the listing, the digest, constitution.yaml. Nothing is compared with what is wanted.
 * NULL with err, which names the file. */
struct ep_charter *ep_charter_read(struct ep_str directory, struct ep_error *err);
/* The same from files in memory, which are copied: for tests. They may come in any order. */
struct ep_charter *ep_charter_parse(const struct ep_charter_file *files, size_t n, struct ep_error *err);
void ep_charter_free(struct ep_charter *c); /* NULL is fine */

/* Whether constitution.sig is there and its signature is of this key. */
bool ep_charter_signed(const struct ep_charter *c, const uint8_t key[EP_PUBLIC_KEY_BYTES], struct ep_error *err);
/* The text of constitution.sig: a line. */
#define EP_CHARTER_SIGNATURE_TEXT 128u
size_t ep_charter_sign(const struct ep_charter *c, const struct ep_signer *s, char out[EP_CHARTER_SIGNATURE_TEXT]);

/* Reads the bundle that a configuration names, and holds it against the pinned digest, the key and the hash; the hash is
 * the bundle's where the configuration has none. False with err, and nothing is taken. */
bool ep_charter_take(struct ep_constitution_config *config, struct ep_error *err);

#endif
