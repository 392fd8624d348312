/* Opaque TCP: a connection of its own for each call; nothing is pooled. */
#include "upstream/cluster.h"

void ep_pool_tcp_start(struct ep_upconn *u)
{
    struct ep_lane *l = u->lane;
    struct ep_upstream_call *c;
    struct ep_leg *leg;

    if (ep_list_empty(&l->waiters)) { /* who asked for it has gone */
        u->retired = true;
        ep_tcp_client(u->conn, &l->endpoint->cluster->http, &ep_dial_client_events, u);
        ep_conn_close(u->conn);
        return;
    }
    ep_tcp_client(u->conn, &l->endpoint->cluster->http, &ep_dial_client_events, u);
    leg = ep_tcp_open(u->conn);
    if (!leg) {
        ep_conn_close(u->conn);
        return;
    }
    c = EP_CONTAINER(l->waiters.next, struct ep_upstream_call, node);
    ep_call_dequeue(c);
    ep_call_give(c, u, leg);
}
