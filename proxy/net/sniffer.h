/* The handler of a connection between accept and its codec. For listener.c only. */
#ifndef EP_NET_SNIFFER_H
#define EP_NET_SNIFFER_H

#include "net/listener.h"

void ep_sniffer_start(struct ep_listener *l, int fd, const struct ep_addr *peer);

#endif
