/* What `constitution:` in the configuration becomes. The filter `constitution` reads it from the view. */
#ifndef EP_FILTER_CONSTITUTION_CONFIG_H
#define EP_FILTER_CONSTITUTION_CONFIG_H

#include "base/base.h"
#include "filter/stream.h"

struct ep_bundle; /* filter/bundle.h */

struct ep_principle {
    struct ep_str id, text, severity, tags_json; /* the last: an array, or empty */
    const struct ep_str *policies;               /* names of those that carry it out */
    size_t n_policies;
};

struct ep_constitution_config {
    struct ep_str hash;   /* empty: no constitution, the filter does nothing */
    int mode;             /* enum ep_mode */
    bool strict;          /* a request without the hash is refused too */
    struct ep_vec accept; /* of ep_str: other hashes that are still good while a new one rolls out */
    struct ep_bundle *bundle; /* its text; NULL: none. Loaded with the configuration and freed with it */
};

/* Of the bundle; NULL when it has none of that id, or there is no bundle or constitution. */
const struct ep_principle *ep_constitution_principle(const struct ep_constitution_config *c, struct ep_str id);
/* "same", "other", "unknown". */
const char *ep_constitution_peer_name(enum ep_peer_constitution p);

extern const struct ep_schema ep_constitution_schema;

#endif
