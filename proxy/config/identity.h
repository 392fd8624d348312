/* Who we are in TLS: contexts for each way of listening and dialling, made from one set of files at one time. Immutable
 * and counted atomically; rotation makes a new one. */
#ifndef EP_CONFIG_IDENTITY_H
#define EP_CONFIG_IDENTITY_H

#include "config/config.h"

struct ep_identity {
    atomic_uint refs;
    struct ep_tls_context *server[EP_TLS_STRICT + 1]; /* by enum ep_tls_mode; NULL: not possible without roots */
    struct ep_tls_context *mesh, *mesh_tcp;           /* clients; NULL without roots */
    uint64_t digest;                                  /* of the files: the same means nothing to rotate */
    int64_t expiry;
};

/* NULL with err, which names the file. */
struct ep_identity *ep_identity_load(const struct ep_identity_config *c, struct ep_error *err);
struct ep_identity *ep_identity_ref(struct ep_identity *i);
void ep_identity_unref(struct ep_identity *i); /* NULL is fine */

#endif
