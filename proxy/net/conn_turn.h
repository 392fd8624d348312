/* What the worker's turn asks of a connection; for worker.c and conn.c only. */
#ifndef EP_NET_CONN_TURN_H
#define EP_NET_CONN_TURN_H

#include "net/conn.h"

void ep_conn_turn_flush(struct ep_conn *c); /* on_flush, then one write */
void ep_conn_turn_free(struct ep_conn *c);  /* on_closed, then gone */

#endif
