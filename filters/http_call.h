/* A request that a filter makes by itself, to a cluster of the configuration: `httpCall` of Envoy-style scripts,
 * `c:http` of policies.
 *
 * It goes the way that every request goes (balancing, pools, breakers, TLS and mesh identity of the cluster) and counts
 * toward the cluster's limits, but through no filter. Nothing blocks: the answer, whole, comes to `done` from a task,
 * never from inside ep_http_call_start. A call lives in an arena of its own, so that one which nobody waits for
 * outlives the stream that made it. One failure is mended: a connection that was used before and ends without one byte
 * of an answer was closed while idle, so a request that may be repeated goes out once more.
 *
 * Limits, so that no script can use up the worker: calls under way and bytes of replies of a worker, bytes of one
 * reply, and time: a call always has a deadline. */
#ifndef EP_HTTP_CALL_H
#define EP_HTTP_CALL_H

#include "filter/chain.h"
#include "upstream/upstream.h"

#define EP_HTTP_CALLS_MAX        1024u              /* of a worker, under way */
#define EP_HTTP_CALLS_BYTES_MAX  ((size_t)64 << 20) /* of a worker, replies that are coming in */
#define EP_HTTP_CALL_REPLY_BYTES ((size_t)1 << 20)  /* of one reply, when the caller doesn't say */
#define EP_HTTP_CALL_TIME_NS     (60 * EP_S)        /* when the caller doesn't say */

struct ep_http_call;

/* Valid while `done` runs. */
struct ep_http_call_reply {
    const char *failure; /* NULL: it was answered. Else "timeout", "reset", "too_large", "limit" or upstream's name */
    unsigned status;     /* 0 with a failure */
    const struct ep_headers *headers, *trailers; /* of a failure: empty */
    struct ep_str body;
};

/* Called once, at the end of a turn. Afterwards the call is gone. */
typedef void ep_http_call_done(void *user, const struct ep_http_call_reply *reply);

/* All of it is copied. */
struct ep_http_call_request {
    struct ep_view *view;       /* a reference is held as long as the call lives */
    struct ep_cluster *cluster; /* of the view: ep_http_call_cluster */
    struct ep_str owner;        /* the policy or script, for ephor_http_calls_total */
    struct ep_str method, path, authority;
    const struct ep_reply_header *headers; /* the others; names in any case */
    size_t n_headers;
    struct ep_str body;      /* p is NULL: none */
    bool repeatable;         /* it may go out twice, whatever its method */
    uint64_t timeout_ns;     /* to the end of the reply; 0: EP_HTTP_CALL_TIME_NS */
    size_t reply_bytes;      /* longest body that is taken; 0: EP_HTTP_CALL_REPLY_BYTES */
    ep_http_call_done *done; /* NULL: nobody waits, and the body of the reply is dropped */
    void *user;
};

/* The cluster of that name; NULL: there is none, or it is not for HTTP. */
struct ep_cluster *ep_http_call_cluster(const struct ep_view *v, struct ep_str name);

/* Begins. NULL with err: what is asked for is no valid request; `done` isn't called then. All else, a limit too, is
 * told. Headers that frame a message (content-length, connection, …) and `host` are left out: ephor writes its own. */
struct ep_http_call *ep_http_call_start(const struct ep_http_call_request *q, struct ep_error *err);
/* Nobody waits any more: the request is reset and `done` isn't called. Not from inside `done`. */
void ep_http_call_cancel(struct ep_http_call *c);

/* Ends all calls of a worker, as if cancelled: before its views go. They are gone a turn later. */
void ep_http_call_end_all(struct ep_worker *w);

#endif
