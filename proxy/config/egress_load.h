/* From `egress:` and `egress_tls:` and the files they name to what the workers share (filter/egress.h). */
#ifndef EP_CONFIG_EGRESS_LOAD_H
#define EP_CONFIG_EGRESS_LOAD_H

#include "config/config.h"
#include "filter/egress.h"

/* Takes over from `before` (may be NULL) what is the same: the CA, contexts of the same roots. NULL with err, which names the
 * file. refs is 1. */
struct ep_egress *ep_egress_load(const struct ep_config *c, struct ep_pinned *pinned, const struct ep_egress *before,
                                 struct ep_error *err);
/* Writes egress_tls.bundle when its content isn't what it should be: the CA in force and the system's roots, mode 0644, by a
 * rename. True without a bundle or a CA. */
bool ep_egress_write_bundle(const struct ep_egress *e, struct ep_error *err);
/* Appends members: the CA, and the clients that refuse its certificates. */
void ep_egress_describe(const struct ep_egress *e, uint64_t now_ns, struct ep_json *out);

#endif
