/* The `authorize` rules of a listener: who may call what. Deny rules go first; then, when there are allow rules, one of
 * them must match.
 *
 * Rules that look at the head alone are judged by `identity`, before a body is read; rules that name protocols or
 * tools need the call, and are judged by `agent` once it knows it. Both filters hold one of these. */
#ifndef EP_FILTERS_AUTHORIZE_H
#define EP_FILTERS_AUTHORIZE_H

#include "filter/chain.h"

enum ep_authorize_phase {
    EP_AUTHORIZE_HEAD, /* by identity: what only a call can decide is left open */
    EP_AUTHORIZE_CALL, /* by agent: the answer */
};

struct ep_authorize {
    const struct ep_authorize_config *rules;
    size_t n;
    bool any_allow;
    bool needs_call;            /* a rule names protocols or tools */
    uint64_t *allowed, *denied; /* ephor_authorize_total; NULL without statistics */
};

void ep_authorize_load(struct ep_authorize *a, const struct ep_filter_instance *i);
/* The verdict alone, of this call: for tests. True: refused. */
bool ep_authorize_denies(const struct ep_authorize *a, const struct ep_stream *s, const struct ep_call *call,
                         enum ep_authorize_phase phase);
/* Judges the stream, every call of a batch; counts, and refuses with "authorize.denied". False: refused. */
bool ep_authorize_check(struct ep_stream *s, const struct ep_authorize *a, enum ep_authorize_phase phase);
/* Whether filter `name` stands in the listener's chain behind (or is) `first`. */
bool ep_chain_has(const struct ep_listener_config *c, struct ep_str name);

#endif
