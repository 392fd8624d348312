/* The life of the policies: from a directory that changed to what every worker runs, and back.
 *
 * A change of the directory is looked at by a thread of its own: it reads the text (lua/bundle.h), makes a set of it for
 * every worker, each with a Lua state of its own, and runs the tests where they are required. Only then do the workers
 * hear of it: they take a pointer over. What fails is refused and told, and the bundle in force stays, whatever the
 * directory or the configuration do meanwhile. All functions are of the main thread. */
#ifndef EP_CONFIG_POLICY_LIFE_H
#define EP_CONFIG_POLICY_LIFE_H

#include "config/config.h"
#include "config/policy_jump.h"
#include "config/policy_trial.h"
#include "config/policy_versions.h"

struct ep_server;
struct ep_policy_job;

/* A policy of the version in force, in the order of the sets. */
struct ep_policy_member {
    char *name;
    char digest[EP_POLICY_BUNDLE_DIGEST_HEX + 1];
    uint64_t trial_ns; /* as in struct ep_policy */
};

struct ep_policy_life {
    struct ep_policy_bundle *bundle; /* in force; NULL: none */
    struct ep_policy_member *members;
    unsigned n_members;
    uint64_t taken_ns; /* wall clock */
    char seen[EP_POLICY_BUNDLE_DIGEST_HEX + 1]; /* the directory's content that was looked at last */
    char over[EP_POLICY_BUNDLE_DIGEST_HEX + 1]; /* that content, when we are rolled back over it; else "" */
    char *refused;                       /* why; NULL: the directory is what is in force, or rolled back over */
    char refused_digest[EP_POLICY_BUNDLE_DIGEST_HEX + 1]; /* "": it couldn't be read */
    uint64_t refused_ns;
    struct ep_policy_versions versions;
    struct ep_policy_trials trials;
    struct ep_policy_watch watch;
    struct ep_policy_job *job; /* runs now */
    bool again, again_asked;   /* look once more when it is done */
    struct ep_timer timer;     /* of trials and the watch */
};

/* What an attempt does to the policies. */
struct ep_policy_change {
    bool other;                  /* false: the sets stay as they are */
    struct ep_policy_set **sets; /* one a worker; NULL: none from now on. A worker takes its own and leaves NULL */
    struct ep_policy_bundle *bundle;    /* what they are made of; a reference */
    const char *result;          /* "accepted", "rollback" or "kept": a restart found the version before */
    const char *by;              /* who wanted it */
    const char *reason;          /* of a rollback */
    char over[EP_POLICY_BUNDLE_DIGEST_HEX + 1];
    struct ep_policy_member *members;
    unsigned n_members;
};

void ep_policy_life_init(struct ep_server *s, struct ep_str state);
void ep_policy_life_fini(struct ep_server *s);
/* Fills `change` with what this configuration needs: nothing when what is in force will do. False with err: the directory
 * can't be taken. Waits for it; only at the start, and when the directory is another one. */
bool ep_policy_life_need(struct ep_server *s, const struct ep_config *config, struct ep_policy_change *change,
                         struct ep_error *err);
/* Writes the audit's record of the change, before it is made. False: it can't be written, and must. */
bool ep_policy_life_record(struct ep_server *s, struct ep_audit *audit, const struct ep_policy_change *change,
                           struct ep_error *err);
/* An attempt with this change succeeded, or didn't. */
void ep_policy_life_took(struct ep_server *s, struct ep_policy_change *change);
void ep_policy_life_drop(struct ep_server *s, struct ep_policy_change *change);
/* Looks at the directory, off this thread. `asked`: also when it was refused just so before. */
void ep_policy_life_look(struct ep_server *s, bool asked);

/* policy_check.c: what the thread does. */
struct ep_policy_check {
    /* in */
    const struct ep_policies_config *config;
    struct ep_server *server;
    struct ep_policy_bundle *bundle; /* to be taken as it is; NULL: read the directory */
    char known[EP_POLICY_BUNDLE_DIGEST_HEX + 1]; /* content that needs no second look */
    bool tests;                           /* must pass */
    /* out */
    bool good, unchanged;
    struct ep_policy_set **sets;
    struct ep_policy_member *members;
    unsigned n_members;
    char digest[EP_POLICY_BUNDLE_DIGEST_HEX + 1]; /* of what was read; "": it couldn't be */
    struct ep_error err;
    uint64_t took_ns;
};
void ep_policy_check_run(struct ep_policy_check *c);
void ep_policy_members_free(struct ep_policy_member *m, unsigned n);
void ep_policy_sets_free(struct ep_policy_set **sets, unsigned n);
/* Starts a thread that runs it and posts its mail to the main thread. */
struct ep_policy_job {
    struct ep_mail mail;
    pthread_t thread;
    struct ep_config *config; /* whose policies these are; a reference */
    struct ep_policy_check check;
};
bool ep_policy_job_start(struct ep_policy_job *j);

#endif
