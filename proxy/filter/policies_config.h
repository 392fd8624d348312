/* What `policies:` in the configuration becomes. The filter `policies` (filters/lua) reads it from the view. */
#ifndef EP_FILTER_POLICIES_CONFIG_H
#define EP_FILTER_POLICIES_CONFIG_H

#include "base/base.h"

struct ep_charter;

struct ep_policies_budget {
    int64_t instructions; /* of one call of one policy */
    uint64_t memory;      /* bytes more than before the call */
    uint64_t time_ns;
};

/* Requests that are kept, so that a changed policy can be tried on them: filters/lua/record.h. */
struct ep_policies_record {
    struct ep_str file;
    double sample;
    uint64_t limit; /* bytes of the file */
};

struct ep_policies_memory {
    int64_t entries;
    uint64_t bytes;
};

/* When a new version of the directory is taken back by itself. */
struct ep_policies_rollback {
    double errors;      /* share of requests with an error or overrun, over that of the version before */
    double denials;     /* share of requests refused, over that of the version before */
    uint64_t window_ns; /* for so long after it was taken up it is compared */
    int64_t minimum;    /* requests before anything is concluded */
};

struct ep_policies_config {
    struct ep_str directory; /* of *.lua; empty: no policies */
    struct ep_policies_budget budget;
    struct ep_policies_memory memory; /* what they may remember; of the process */
    uint64_t kept;          /* bytes that they may keep in Lua's variables between calls, all together; of one worker */
    int mode;               /* enum ep_mode: shadow makes every policy a shadow, off runs none */
    double enforce;         /* share of the callers for whom policies are enforced; 0: all */
    uint64_t shadow_for_ns; /* a new policy is a shadow for so long; 0: none */
    bool shadow_changes;    /* a changed one is new again */
    bool require_tests;
    uint64_t stream_tail; /* bytes of a streamed text that are held back, or looked at again, for what spans two events */
    struct ep_policies_record *record;     /* NULL: none */
    struct ep_policies_rollback *rollback; /* NULL: never by itself */
    /* not of the file */
    const struct ep_charter *charter; /* filter/charter.h: the constitution's policies run too; NULL: none */
    int charter_mode;                 /* enum ep_mode, of `constitution` */
};

extern const struct ep_schema ep_policies_schema, ep_policies_budget_schema;

#endif
