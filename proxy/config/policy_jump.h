/* Whether a new version of the policies does worse than the one before: `policies.rollback`.
 *
 * The shares of requests with an error, and of those refused, are compared with what they were during the last window of
 * the version before; where that had too few requests, during all its time; where that had too few, with none. A version
 * is watched from its start until the window is over, and until `minimum` requests came, so what is decided later, when
 * callers change, takes nothing back. Pure: time and counts are parameters. */
#ifndef EP_CONFIG_POLICY_JUMP_H
#define EP_CONFIG_POLICY_JUMP_H

#include "filter/policies_config.h"
#include "lua/policy.h"

#define EP_POLICY_JUMP_SAMPLES 8u

enum ep_policy_jump { EP_POLICY_JUMP_NONE, EP_POLICY_JUMP_ERRORS, EP_POLICY_JUMP_DENIALS };

struct ep_policy_watch {
    bool watching;
    uint64_t since_ns;           /* when the version in force was taken up */
    double errors, denials;      /* shares of the version before */
    double errors_now, denials_now;
    struct {
        uint64_t ns;
        struct ep_policy_totals totals;
    } samples[EP_POLICY_JUMP_SAMPLES]; /* of the version in force, oldest first, a window in all */
    unsigned n;
};

/* Another version is in force; `came` is what the one before came to. `compare`: it is new and there was one before; else
 * nothing is watched. */
void ep_policy_watch_begin(struct ep_policy_watch *w, const struct ep_policies_rollback *limits,
                           const struct ep_policy_totals *came, uint64_t now_ns, bool compare);
/* To be called each tick, at least every ep_policy_watch_tick, with what the version came to so far. Says once that it does
 * worse. */
enum ep_policy_jump ep_policy_watch_look(struct ep_policy_watch *w, const struct ep_policies_rollback *limits,
                                         const struct ep_policy_totals *now, uint64_t now_ns);
uint64_t ep_policy_watch_tick(const struct ep_policies_rollback *limits);

#endif
