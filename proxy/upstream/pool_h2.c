/* The pool of h2 connections of a lane: one carries everything until it is nearly full.
 *
 * The first connection with room is taken, not the emptiest: requests that share a connection share its writes and
 * reads too (DESIGN.md section 18: four connections instead of one cost a quarter more CPU). What was opened at a
 * peak goes idle and is closed by its codec. */
#include "upstream/cluster.h"

#define NEAR_PART 8u  /* the next connection is dialled when less than a ninth of this one's streams is left */
#define NEAR_MAX  64u /* … and no more than so many */

#define FIRST_STREAMS 8u /* on the first connection to an endpoint until it has told its limit */

static bool settled(const struct ep_upconn *u)
{
    return u->conn->bytes_in > u->bytes_at_ready; /* a server's first frame is its SETTINGS: RFC 9113 section 3.4 */
}

/* Before its SETTINGS a connection gets what others of this lane could take, and the very first one a few: the rest
 * would be refused, and waits a round trip instead. */
static unsigned before_settings(const struct ep_lane *l)
{
    return l->streams_known ? l->streams : FIRST_STREAMS;
}

static struct ep_leg *open_within(struct ep_upconn *u)
{
    if (EP_UNLIKELY(!settled(u)) && ep_h2_streams(u->conn) >= before_settings(u->lane))
        return NULL;
    return ep_h2_open(u->conn);
}

uint32_t ep_pool_h2_coming(const struct ep_lane *l)
{
    uint32_t n = l->n_dialing;

    EP_LIST_FOREACH(at, &l->ready)
    {
        const struct ep_upconn *u = EP_CONTAINER(at, struct ep_upconn, node);
        n += !settled(u) && ep_h2_streams(u->conn) < l->streams;
    }
    return n;
}

static void dial_ahead(struct ep_lane *l, struct ep_upconn *u)
{
    unsigned left;

    /* All requests of the endpoint together wouldn't fill it: the common case costs no more than this. */
    if (EP_LIKELY((uint64_t)l->endpoint->load.active * (NEAR_PART + 1) < (uint64_t)l->streams * NEAR_PART))
        return;
    left = ep_h2_capacity(u->conn);
    if (left >= NEAR_MAX || left * NEAR_PART > ep_h2_streams(u->conn))
        return;
    /* Only ahead of the last one, and only where a place is free: nothing is evicted for a guess. */
    if (l->n_dialing || u->node.next != &l->ready || !settled(u) ||
        l->endpoint->cluster->breaker.now[EP_BREAKER_CONNECTIONS] >=
            l->endpoint->cluster->breaker.limit[EP_BREAKER_CONNECTIONS])
        return;
    ep_dial(l);
}

struct ep_leg *ep_pool_h2_open(struct ep_lane *l, const struct ep_upstream_call *c, struct ep_upconn **out)
{
    EP_LIST_FOREACH(n, &l->ready)
    {
        struct ep_upconn *u = EP_CONTAINER(n, struct ep_upconn, node);
        struct ep_leg *leg;

        if (EP_UNLIKELY(c->websocket) && !ep_h2_extended_connect(u->conn)) {
            if (settled(u))
                *out = u; /* it can't, and says so */
            return NULL;
        }
        leg = open_within(u);
        if (EP_UNLIKELY(!leg))
            continue; /* full, or on its way out */
        *out = u;
        dial_ahead(l, u);
        return leg;
    }
    return NULL;
}

/* The oldest waiter that this connection can serve now; those that it never will are told. */
static struct ep_upstream_call *next_waiter(struct ep_upconn *u)
{
    EP_LIST_FOREACH(n, &u->lane->waiters)
    {
        struct ep_upstream_call *c = EP_CONTAINER(n, struct ep_upstream_call, node);

        if (EP_LIKELY(!c->websocket) || ep_h2_extended_connect(u->conn))
            return c;
        if (settled(u))
            ep_call_fail(c, EP_UPSTREAM_PROTOCOL);
    }
    return NULL;
}

void ep_pool_h2_serve(struct ep_upconn *u)
{
    struct ep_upstream_call *c;

    while (!u->retired && u->state == EP_UPCONN_READY && (c = next_waiter(u))) {
        struct ep_leg *leg = open_within(u);

        if (!leg)
            break;
        ep_call_dequeue(c);
        ep_call_give(c, u, leg);
    }
    if (!ep_list_empty(&u->lane->waiters))
        ep_lane_pump(u->lane);
}

void ep_pool_h2_on_capacity(struct ep_upconn *u)
{
    struct ep_lane *l = u->lane;

    if (settled(u)) {
        unsigned limit = ep_h2_peer_limit(u->conn); /* 0 is for now, not for ever */

        l->streams = limit ? limit : l->streams;
        l->streams_known = true;
    }
    if (!ep_list_empty(&l->waiters))
        ep_pool_h2_serve(u);
}

void ep_pool_h2_start(struct ep_upconn *u)
{
    struct ep_lane *l = u->lane;
    struct ep_cluster *cl = l->endpoint->cluster;
    bool retired = u->retired && l->n_waiting == 0;

    u->retired = false;
    u->state = EP_UPCONN_READY;
    ep_list_remove(&u->node);
    ep_list_push(&l->ready, &u->node);
    ep_h2_client(u->conn, &cl->http, &ep_dial_client_events, u); /* calls on_capacity: the waiters are served */
    if (retired || !l->endpoint->member)
        ep_upconn_retire(u);
}
