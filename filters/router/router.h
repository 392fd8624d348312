/* Private to the router: its state in a stream, and the parts in router_message.c. */
#ifndef EP_ROUTER_H
#define EP_ROUTER_H

#include "filter/chain.h"
#include "filter/filter.h"
#include "upstream/upstream.h"

enum router_failure { ROUTER_CONNECT, ROUTER_REFUSED, ROUTER_RESET, ROUTER_TIMEOUT, ROUTER_STATUS };

struct router {
    struct ep_stream *stream;
    const struct ep_route *route;
    struct ep_upstream_call call;
    struct ep_tls_origin *origin;  /* TLS of our own to a host outside (filter/egress.h); a reference; NULL: none */
    struct ep_str origin_host;
    const struct ep_addr *origin_address; /* in place of the original destination; NULL: there */
    struct ep_upstream_outcome outcome;
    struct ep_body held;         /* body bytes that wait for the leg */
    struct ep_body replay;       /* the body so far, for another try; whole while replay_whole */
    size_t told;                 /* body bytes of which the stream knows that they were sent */
    size_t replayed_ahead;       /* of the bytes sent in this try, how many an earlier one has told the stream */
    bool ready, acquiring, answered, gave_up;
    bool request_ended, ended_sent, replay_whole, mended;
    bool unanswered;             /* not one byte of a response came in this try */
    unsigned retries;
    uint64_t sent_ns;
    struct ep_timer try_timer, backoff;
    struct ep_task retry_task;
};

/* Whether this failure may be tried again, by the route and by what is safe. */
bool router_may_retry(const struct router *r, enum router_failure why, unsigned status);
uint64_t router_backoff_ns(struct router *r);
void router_count_retry(struct router *r, const char *result);
/* What of the body is here goes to the leg. */
void router_send_body(struct router *r);
/* Rewrites of the route, the marks between ephors, once a request. tls is NULL for a plain upstream. */
void router_prepare_headers(struct router *r, const struct ep_tls_info *tls);
/* Whether TLS begins here, and to whom; once a request. */
void router_find_origin(struct router *r);
void router_fill_call(struct router *r, struct ep_cluster *cluster);
void router_server_timing(struct ep_stream *s, struct ep_headers *h);
/* Streams by nature: tunnels, gRPC, event streams. They have no deadline of the route. */
bool router_is_long(const struct ep_stream *s);

#endif
