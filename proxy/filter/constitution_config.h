/* What `constitution:` in the configuration becomes. The filter `constitution` reads it from the view. */
#ifndef EP_FILTER_CONSTITUTION_CONFIG_H
#define EP_FILTER_CONSTITUTION_CONFIG_H

#include "base/base.h"
#include "filter/stream.h"

struct ep_charter; /* filter/charter.h */

enum ep_severity { EP_SEVERITY_LOW, EP_SEVERITY_MEDIUM, EP_SEVERITY_HIGH, EP_SEVERITY_CRITICAL };

struct ep_principle {
    struct ep_str id, text;
    int severity;           /* enum ep_severity */
    struct ep_vec policies; /* of ep_str: names of those that carry it out */
    struct ep_vec tags;     /* of ep_str: compliance_tags of what is decided in its name */
    struct ep_str tags_json; /* the same as an array; empty: none */
};

struct ep_constitution_signature {
    struct ep_str key; /* "ed25519:…" */
};

struct ep_constitution_config {
    struct ep_str hash;   /* empty: no constitution, the filter does nothing */
    int mode;             /* enum ep_mode */
    bool strict;          /* a request without the hash is refused too */
    struct ep_vec accept; /* of ep_str: other hashes that are still good while a new one rolls out */
    struct ep_str bundle; /* the directory of its text; empty: none */
    struct ep_str digest; /* that text and no other */
    struct ep_constitution_signature *signature; /* NULL: not asked for */
    /* not of the file */
    struct ep_charter *charter; /* the text; NULL: none. Read with the configuration and freed with it */
};

/* Of the bundle; NULL when it has none of that id, or there is no bundle or constitution. */
const struct ep_principle *ep_constitution_principle(const struct ep_constitution_config *c, struct ep_str id);
/* "same", "other", "unknown". */
const char *ep_constitution_peer_name(enum ep_peer_constitution p);

extern const struct ep_schema ep_constitution_schema;

#endif
