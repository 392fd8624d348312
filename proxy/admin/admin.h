/* admin: the admin server and the metrics server, HTTP/1.1 by our own codec on the main thread.
 *
 * Two binds. The admin one has everything, is on loopback unless told otherwise, and lets state be changed by POST
 * alone, with the token where there is one; the metrics one has only what scrapers and probes ask for. DESIGN.md
 * section 15. */
#ifndef EP_ADMIN_ADMIN_H
#define EP_ADMIN_ADMIN_H

#include "config/server.h"

struct ep_admin;

/* Binds both. NULL with err. To be made before ep_server_start, so that /ready can say "not yet". */
struct ep_admin *ep_admin_new(struct ep_server *server, struct ep_error *err);
/* After ep_server_run and before ep_server_free. */
void ep_admin_free(struct ep_admin *a);

#endif
