/* Clients that won't take a certificate of ours: they pin the host's own, or don't trust our CA.
 *
 * Kept by host and source address, EP_PINNED_MAX at most, the one heard of longest ago leaves first. Shared by all workers,
 * one lock; it is taken when a client has refused, and for hosts of `on_pinned: passthrough` once a connection. Time is a
 * parameter (monotonic). An alert says plainly what a client thinks; one that only closes may have had no use for the
 * connection, so it takes EP_PINNED_CLOSES of these in a row, without a request in between, to count as the same. */
#ifndef EP_FILTER_PINNED_H
#define EP_FILTER_PINNED_H

#include "base/base.h"

struct ep_pinned;
struct ep_json;

#define EP_PINNED_MAX    256u
#define EP_PINNED_CLOSES 3u

enum ep_pinned_sign { EP_PINNED_ALERT, EP_PINNED_CLOSED };
const char *ep_pinned_sign_name(enum ep_pinned_sign s);

struct ep_pinned *ep_pinned_new(void);
void ep_pinned_free(struct ep_pinned *p);
/* The alerts of RFC 8446 section 6.2 by which a client says that it won't have a certificate. */
bool ep_pinned_alert(unsigned alert);
/* A client at `source` (its port doesn't matter) refused our certificate for `host`. True: worth a line in the log, which
 * is so once an hour for a host. */
bool ep_pinned_note(struct ep_pinned *p, struct ep_str host, const struct ep_addr *source, enum ep_pinned_sign sign,
                    uint64_t now_ns);
/* It took it, and sent a request. */
void ep_pinned_good(struct ep_pinned *p, struct ep_str host, const struct ep_addr *source);
/* Whether it has refused within the last `for_ns`. */
bool ep_pinned_refuses(struct ep_pinned *p, struct ep_str host, const struct ep_addr *source, uint64_t for_ns, uint64_t now_ns);
/* An array of what is known, latest first. */
void ep_pinned_json(struct ep_pinned *p, uint64_t now_ns, struct ep_json *out);

#endif
