/* What `constitution:` in the configuration becomes. The filter `constitution` reads it from the view. */
#ifndef EP_FILTER_CONSTITUTION_CONFIG_H
#define EP_FILTER_CONSTITUTION_CONFIG_H

#include "base/base.h"

struct ep_constitution_config {
    struct ep_str hash;   /* empty: no constitution, the filter does nothing */
    int mode;             /* enum ep_mode */
    bool strict;          /* a request without the hash is refused too */
    struct ep_vec accept; /* of ep_str: other hashes that are still good while a new one rolls out */
};

extern const struct ep_schema ep_constitution_schema;

#endif
