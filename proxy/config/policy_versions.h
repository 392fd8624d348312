/* The last ten versions of the policies that were in force, and which one is: in memory, and in the state directory where
 * there is one, so that a restart goes on where the process ended. */
#ifndef EP_CONFIG_POLICY_VERSIONS_H
#define EP_CONFIG_POLICY_VERSIONS_H

#include "lua/bundle.h"
#include "lua/policy.h"

#define EP_POLICY_VERSIONS 10u

struct ep_policy_version {
    struct ep_policy_bundle *bundle;
    uint64_t number, taken_ns;      /* wall clock */
    struct ep_policy_totals totals; /* of all its time in force, in this process */
};

struct ep_policy_versions {
    char *directory; /* NULL: in memory only */
    uint64_t next;   /* number of the next one */
    struct ep_policy_version v[EP_POLICY_VERSIONS]; /* oldest first */
    unsigned n;
    /* What an earlier process left: the version that was in force, and the content of the policies' directory that it was
     * rolled back over. Empty: none. */
    char current[EP_POLICY_BUNDLE_DIGEST_HEX + 1], over[EP_POLICY_BUNDLE_DIGEST_HEX + 1];
};

/* Reads what an earlier process left. `directory` is the state directory; one that can't be used is warned of. */
void ep_policy_versions_init(struct ep_policy_versions *s, struct ep_str directory);
void ep_policy_versions_fini(struct ep_policy_versions *s);
/* Notes it as the newest; one that was there moves to the end. */
void ep_policy_versions_add(struct ep_policy_versions *s, struct ep_policy_bundle *b, uint64_t now_ns);
/* -1: not there. */
int ep_policy_versions_find(const struct ep_policy_versions *s, const char *digest);
/* Notes which is in force. `over` is "" or the content of the directory that is not. */
void ep_policy_versions_set(struct ep_policy_versions *s, const char *current, const char *over);

#endif
