/* The pool of http/1.1 connections of a lane: one request each, idle ones last in, first out.
 *
 * The one used last is warm and the least likely to be closed by its server just now; those at the other end go idle
 * and are closed. A connection that becomes idle serves the oldest waiter before it is put back. */
#include "upstream/cluster.h"

static void put(struct ep_list *list, struct ep_upconn *u, bool front)
{
    ep_list_remove(&u->node);
    if (front)
        ep_list_push_front(list, &u->node);
    else
        ep_list_push(list, &u->node);
}

static void retire_closing(struct ep_upconn *u)
{
    u->state = EP_UPCONN_BUSY;
    u->retired = true;
    put(&u->lane->others, u, false);
    ep_conn_close(u->conn);
}

struct ep_leg *ep_pool_h1_open(struct ep_lane *l, struct ep_upconn **out)
{
    while (!ep_list_empty(&l->idle)) {
        struct ep_upconn *u = EP_CONTAINER(l->idle.next, struct ep_upconn, node);
        struct ep_leg *leg = ep_h1_open(u->conn);

        if (!leg) { /* its server closed it in this very turn */
            retire_closing(u);
            continue;
        }
        u->state = EP_UPCONN_BUSY;
        put(&l->others, u, false);
        *out = u;
        return leg;
    }
    return NULL;
}

void ep_pool_h1_serve(struct ep_upconn *u)
{
    struct ep_lane *l = u->lane;
    struct ep_upstream_call *c;
    struct ep_leg *leg;

    if (u->state == EP_UPCONN_IDLE || u->state == EP_UPCONN_DIALING || u->conn->closed)
        return;
    if (u->retired || (!l->endpoint->member && ep_list_empty(&l->waiters))) {
        retire_closing(u);
        return;
    }
    if (ep_list_empty(&l->waiters)) {
        u->state = EP_UPCONN_IDLE;
        put(&l->idle, u, true);
        return;
    }
    leg = ep_h1_open(u->conn);
    if (!leg) {
        retire_closing(u);
        return;
    }
    c = EP_CONTAINER(l->waiters.next, struct ep_upstream_call, node);
    ep_call_dequeue(c);
    ep_call_give(c, u, leg);
}

void ep_pool_h1_start(struct ep_upconn *u)
{
    struct ep_cluster *cl = u->lane->endpoint->cluster;

    ep_h1_client(u->conn, &cl->http, &ep_dial_client_events, u);
    if (u->state != EP_UPCONN_BUSY || u->conn->closed)
        return; /* the codec called on_idle by itself */
    if (u->fresh && !ep_list_empty(&u->lane->waiters))
        u->retired = false; /* a request still waits for it */
    if (u->fresh)
        ep_pool_h1_serve(u);
}
