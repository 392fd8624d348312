/* Outlier ejection: an endpoint that fails several times in a row gets no requests for a while. Pure; time is passed
 * in.
 *
 * Each ejection in a row lasts one base time longer than the one before, at most OUTLIER_MAX_TIMES; a base time without
 * an ejection takes one off again. At most a share of the endpoints is out at once. Below the panic threshold of
 * healthy endpoints all are used, since then the fault is more likely ours or the network's. */
#ifndef EP_UPSTREAM_OUTLIER_H
#define EP_UPSTREAM_OUTLIER_H

#include "base/base.h"

#define EP_OUTLIER_MAX_TIMES 10u

struct ep_outlier_rules {
    uint32_t consecutive; /* failures in a row; 0: off */
    uint64_t ejection_ns; /* base time */
    double max_ejected;   /* share of the endpoints, 0 to 1 */
};

/* One a endpoint; zeroed. */
struct ep_outlier {
    uint32_t streak; /* failures in a row */
    uint32_t times;  /* how many base times the last ejection lasted */
    bool ejected;
    uint64_t until_ns;  /* of the ejection at hand, or when the last one ended */
    uint64_t ejections; /* in all */
};

/* Counts one result. True when the endpoint has failed often enough to be ejected: the caller then asks
 * ep_outlier_room and calls ep_outlier_eject. */
bool ep_outlier_record(struct ep_outlier *o, const struct ep_outlier_rules *r, bool failed);
/* Whether one more of `total` endpoints may be ejected when `ejected` are. */
bool ep_outlier_room(const struct ep_outlier_rules *r, size_t ejected, size_t total);
void ep_outlier_eject(struct ep_outlier *o, const struct ep_outlier_rules *r, uint64_t now_ns);
/* Ends an ejection whose time is over. True when it just did. */
bool ep_outlier_expire(struct ep_outlier *o, uint64_t now_ns);
/* Whether so few are healthy that health is to be ignored. */
bool ep_outlier_panic(size_t healthy, size_t total, double threshold);

#endif
