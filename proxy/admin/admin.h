/* admin: what ephor tells about itself over HTTP, and the few things that can be asked of it.
 *
 * Two listeners of the main thread's own worker, with our own codecs: `admin.bind` has every endpoint, `admin.metrics` only
 * those for Prometheus and the kubelet. What changes something is POST, and needs the token of the configuration, or a
 * loopback address where there is none. A Host header that names neither loopback nor our address is refused, so that
 * a page in a browser can't reach us by DNS rebinding. The endpoints are a table in endpoints.c. */
#ifndef EP_ADMIN_ADMIN_H
#define EP_ADMIN_ADMIN_H

#include "config/server.h"

struct ep_admin;

/* Binds both addresses of the configuration in force. NULL with err. The server must outlive it. */
struct ep_admin *ep_admin_new(struct ep_server *s, struct ep_error *err);
void ep_admin_free(struct ep_admin *a); /* before the main worker ends */

#endif
