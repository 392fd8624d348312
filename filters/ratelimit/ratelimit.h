/* What the files of the filter `ratelimit` share: its configuration, and what becomes of it. */
#ifndef EP_RATELIMIT_RATELIMIT_H
#define EP_RATELIMIT_RATELIMIT_H

#include "filter/filter.h"
#include "filter/limiter.h"

#define EP_RATELIMIT_MAX   32u /* limits of one filter */
#define EP_RATELIMIT_PARTS 8u  /* of a key */

enum ep_ratelimit_kind {
    EP_RATELIMIT_REQUESTS,
    EP_RATELIMIT_BYTES,
    EP_RATELIMIT_TOKENS,
    EP_RATELIMIT_COST,
    EP_RATELIMIT_KINDS
};
extern const char *const ep_ratelimit_kind_names[]; /* "requests" … */

enum ep_ratelimit_scope { EP_RATELIMIT_LISTENER, EP_RATELIMIT_POD };
enum ep_ratelimit_headers { EP_RATELIMIT_REFUSED, EP_RATELIMIT_ALWAYS, EP_RATELIMIT_NO_HEADERS };

/* Lists of globs; an empty one is any. */
struct ep_ratelimit_match {
    struct ep_vec principals, tenants, agents, protocols, methods, tools, models, hosts, paths;
};

enum ep_ratelimit_by {
    EP_BY_PRINCIPAL,
    EP_BY_TENANT,
    EP_BY_AGENT,
    EP_BY_SESSION,
    EP_BY_PROTOCOL,
    EP_BY_SERVICE,
    EP_BY_METHOD,
    EP_BY_TOOL,
    EP_BY_MODEL,
    EP_BY_HOST,
    EP_BY_PATH,
    EP_BY_ROUTE,
    EP_BY_ADDRESS,
    EP_BY_HEADER
};

struct ep_ratelimit_part {
    enum ep_ratelimit_by by;
    struct ep_str header; /* lower case */
};

struct ep_ratelimit_limit {
    struct ep_str name;
    struct ep_vec key; /* of ep_str */
    struct ep_ratelimit_match match;
    struct ep_str rates[EP_RATELIMIT_KINDS]; /* one of them is given */
    struct ep_str burst_text;
    int64_t status;
    int mode;  /* enum ep_mode */
    int scope; /* enum ep_ratelimit_scope */
    /* made of them by the check */
    enum ep_ratelimit_kind kind;
    struct ep_limit_rate rate;
    struct ep_ratelimit_part parts[EP_RATELIMIT_PARTS];
    unsigned n_parts;
    bool needs_call, needs_identity;
};

struct ep_ratelimit_config {
    struct ep_vec limits; /* of ep_ratelimit_limit */
    int mode;
    int headers;     /* enum ep_ratelimit_headers */
    int64_t reserve; /* tokens */
};

extern const struct ep_schema ep_ratelimit_schema;

/* config.c: "100/s", "10MiB/1m", "2.50/1h". False: it is none of this kind. */
bool ep_ratelimit_rate(enum ep_ratelimit_kind kind, struct ep_str text, uint64_t *count, uint64_t *per_ns);

/* match.c */
bool ep_ratelimit_matches(const struct ep_ratelimit_limit *l, struct ep_stream *s, const struct ep_call *c);
/* The key of a call under a limit. False: the limit is not for such a call. */
bool ep_ratelimit_key(const struct ep_limiter *table, uint64_t base, const struct ep_ratelimit_limit *l,
                      struct ep_stream *s, const struct ep_call *c, uint64_t *key);

/* headers.c: one item of RateLimit and of RateLimit-Policy, behind those that are there. */
void ep_ratelimit_state_item(struct ep_arena *arena, const struct ep_ratelimit_limit *l,
                             const struct ep_limit_state *state, struct ep_str *list);
void ep_ratelimit_policy_item(struct ep_arena *arena, const struct ep_ratelimit_limit *l, struct ep_str *list);

#endif
