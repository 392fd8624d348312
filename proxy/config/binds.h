/* What an address needs beside a socket: knowing that nobody else listens there, and tidying up after a Unix socket. */
#ifndef EP_CONFIG_BINDS_H
#define EP_CONFIG_BINDS_H

#include "config/config.h"

/* Our sockets share their ports among the workers (SO_REUSEPORT), so that binding them says nothing of another process
 * of ours on the same port: half of the connections would silently go there. False with err when somebody listens. */
bool ep_bind_free(const struct ep_addr *a, struct ep_error *err);
/* Removes the files of the Unix sockets that `old` listens on and `now` (NULL: nothing) doesn't. */
void ep_bind_unlink(const struct ep_config *old, const struct ep_config *now);

#endif
