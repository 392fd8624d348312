/* Since when a policy is known: the clock behind `policies.shadow_for`.
 *
 * Kept by name and digest in the state directory, file policies/seen. Pure but for reading and writing that file: time is
 * a parameter, of the wall clock, since it must outlive the process and the machine. */
#ifndef EP_CONFIG_POLICY_TRIAL_H
#define EP_CONFIG_POLICY_TRIAL_H

#include "lua/bundle.h"

#define EP_POLICY_TRIALS_MAX 4096u

struct ep_policy_trials {
    char *path; /* NULL: in memory only */
    struct ep_policy_seen {
        char *name;
        char digest[EP_POLICY_BUNDLE_DIGEST_HEX + 1];
        uint64_t since_ns; /* 0: it was there before shadow_for was, and never is a shadow */
    } *v;
    unsigned n, cap;
    bool changed;
};

/* `directory` is the one that ep_policy_versions made; NULL: none. */
void ep_policy_trials_init(struct ep_policy_trials *t, const char *directory);
void ep_policy_trials_fini(struct ep_policy_trials *t);
/* Until when this policy is a shadow; 0: it isn't. One that was never seen is noted. `changes`: another digest makes it new,
 * else only its name counts. */
uint64_t ep_policy_trials_until(struct ep_policy_trials *t, const char *name, const char *digest, uint64_t shadow_for_ns,
                                bool changes, uint64_t now_ns);
void ep_policy_trials_save(struct ep_policy_trials *t); /* when something was noted */

#endif
