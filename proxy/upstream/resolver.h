/* DNS for one worker: c-ares on the worker's loop.
 *
 * As getaddrinfo would: /etc/hosts first, then DNS with resolv.conf's search list, both families; and with the TTL of
 * the answer, which getaddrinfo hides. Numeric names are answered without asking. An address that this machine has no
 * route to is left out when others remain, so that half the requests don't go to an IPv6 address in an IPv4 pod. */
#ifndef EP_UPSTREAM_RESOLVER_H
#define EP_UPSTREAM_RESOLVER_H

#include "net/worker.h"

#define EP_TTL_MIN_NS   (1 * EP_S)
#define EP_TTL_MAX_NS   (300 * EP_S)
#define EP_RESOLVED_MAX 1000u

struct ep_resolver;
struct ep_lookup_state;
struct ep_lookup;

struct ep_resolved {
    const struct ep_addr *v; /* valid during the call */
    size_t n;                /* 0: failed */
    uint64_t ttl_ns;         /* between EP_TTL_MIN_NS and EP_TTL_MAX_NS; UINT64_MAX: a numeric name */
    const char *error;       /* when n is 0 */
};
typedef void ep_lookup_fn(struct ep_lookup *l, const struct ep_resolved *r);

/* Embedded by the asker; zeroed. It must stay in place while `state` isn't NULL. */
struct ep_lookup {
    ep_lookup_fn *done;
    struct ep_lookup_state *state; /* not NULL: under way */
};

/* NULL with err. */
struct ep_resolver *ep_resolver_new(struct ep_worker *w, struct ep_error *err);
/* Look-ups under way are ended with an error first. */
void ep_resolver_free(struct ep_resolver *r);
/* Calls l->done exactly once, perhaps before it returns. r may be NULL: then only numeric names are found. */
void ep_resolver_lookup(struct ep_resolver *r, struct ep_lookup *l, struct ep_str host, uint16_t port);
void ep_lookup_cancel(struct ep_lookup *l); /* no call follows; harmless when nothing is under way */
/* "127.0.0.1:5353,…" in place of resolv.conf's servers. */
bool ep_resolver_set_servers(struct ep_resolver *r, const char *csv);

#endif
