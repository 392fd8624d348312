/* See policy_life.h. */
#include "config/policy_life.h"

#include <stdio.h>
#include <stdlib.h>

#include "config/process.h"
#include "filter/charter.h"
#include "lua/policy_test.h"

#define TRIAL_LOOK_NS (60 * EP_S) /* the wall clock may be set */

/* The operator's policies. */
static bool of_directory(const struct ep_config *c)
{
    return c->policies.directory.n && c->policies.mode != EP_MODE_OFF;
}

static bool of_constitution(const struct ep_config *c)
{
    return c->policies.charter && c->policies.charter_mode != EP_MODE_OFF;
}

static bool wanted(const struct ep_config *c)
{
    return of_directory(c) || of_constitution(c);
}

/* The members' times to a set; the constitution's policies are no members and have no trial. */
static void give_trials(struct ep_policy_set *set, const struct ep_policy_member *m, unsigned n)
{
    for (unsigned i = 0, k = 0; i < set->n && k < n; i++)
        if (!set->v[i]->constitutional)
            set->v[i]->trial_ns = m[k++].trial_ns;
}

static struct ep_stats *shard(struct ep_server *s)
{
    return s->shards[s->n];
}

/* --- telling: log, metric, audit --- */

/* On record before it is done. -errno when it can't be. */
static int record(struct ep_server *s, struct ep_audit *audit, const char *result, const char *by, const char *policy,
                  const char *digest, const char *reason)
{
    const struct ep_audit_field fields[] = {
        {.key = "policy", .value = ep_str(policy)}, {.key = "policy_version", .value = ep_str(digest)},
        {.key = "reason", .value = ep_str(reason)}, {.key = "result", .value = ep_str(result)},
        {.key = "by", .value = ep_str(by)},
    };

    return ep_audit_record(audit, shard(s), "policies", fields, EP_COUNT(fields), NULL);
}

bool ep_policy_life_record(struct ep_server *s, struct ep_audit *audit, const struct ep_policy_change *change,
                           struct ep_error *err)
{
    if (!change->other || !change->bundle ||
        record(s, audit, change->result, change->by, NULL, change->bundle->digest, change->reason) == 0 ||
        !ep_audit_required(audit))
        return true;
    return ep_error_set(err, "audit.required: the change can't be recorded");
}

static void gauges(struct ep_server *s)
{
    const struct ep_policy_life *l = &s->policies;
    unsigned trials = 0;

    for (unsigned i = 0; i < l->n_members; i++)
        trials += l->members[i].trial_ns != 0;
    ep_cell_set(ep_stats_cell(shard(s), EP_METRIC_POLICIES, EP_LABELS(EP_STR("enforced"))), l->n_members - trials);
    ep_cell_set(ep_stats_cell(shard(s), EP_METRIC_POLICIES, EP_LABELS(EP_STR("trial"))), trials);
    ep_cell_set(ep_stats_cell(shard(s), EP_METRIC_POLICIES_REFUSED, NULL), l->refused != NULL);
}

static void accept_content(struct ep_policy_life *l)
{
    free(l->refused);
    l->refused = NULL;
    l->refused_digest[0] = 0;
}

static void refuse(struct ep_server *s, const char *digest, const char *text)
{
    struct ep_policy_life *l = &s->policies;

    if (!l->refused || strcmp(l->refused, text) != 0) {
        accept_content(l);
        l->refused = ep_strdup(text);
        l->refused_ns = ep_clock_wall_ns();
    }
    snprintf(l->refused_digest, sizeof l->refused_digest, "%s", digest);
    ep_fail("policy", "refused: %s; what is in force stays", text);
    ep_stats_add(shard(s), EP_METRIC_POLICY_RELOADS, EP_LABELS(EP_STR("rejected")), 1);
    record(s, s->audit, "rejected", "directory", NULL, digest, text);
    gauges(s);
}

/* --- trials --- */

static void set_trials(struct ep_server *s, const struct ep_policies_config *c, struct ep_policy_member *m, unsigned n)
{
    uint64_t now = ep_clock_wall_ns();

    for (unsigned i = 0; i < n; i++)
        m[i].trial_ns = ep_policy_trials_until(&s->policies.trials, m[i].name, m[i].digest, c->shadow_for_ns,
                                               c->shadow_changes, now);
    ep_policy_trials_save(&s->policies.trials);
}

/* In the worker. */
static void take_trials(struct ep_serving *v, void *life, unsigned index)
{
    const struct ep_policy_life *l = life;

    (void)index;
    if (v->policies)
        give_trials(v->policies, l->members, l->n_members);
}

/* The time of some is over, or the configuration says another. */
static void look_at_trials(struct ep_server *s)
{
    struct ep_policy_life *l = &s->policies;
    bool changed = false;
    uint64_t *before = ep_calloc(l->n_members + 1, sizeof *before);

    for (unsigned i = 0; i < l->n_members; i++)
        before[i] = l->members[i].trial_ns;
    set_trials(s, &s->config->policies, l->members, l->n_members);
    for (unsigned i = 0; i < l->n_members; i++) {
        changed |= before[i] != l->members[i].trial_ns;
        if (!before[i] || l->members[i].trial_ns)
            continue;
        ep_info("policy", "%s is enforced from now on: its time in shadow is over", l->members[i].name);
        record(s, s->audit, "enforced", "shadow_for", l->members[i].name, l->members[i].digest, NULL);
    }
    if (changed) {
        ep_round(s, take_trials, l);
        gauges(s);
    }
    free(before);
}

/* --- taking over --- */

static void free_change(struct ep_server *s, struct ep_policy_change *change)
{
    ep_policy_sets_free(change->sets, s->n);
    ep_policy_members_free(change->members, change->n_members);
    ep_policy_bundle_unref(change->bundle);
    *change = (struct ep_policy_change){0};
}

/* What was checked becomes a change; the check holds nothing of it afterwards. */
static struct ep_policy_change change_of(struct ep_policy_check *c, const char *result, const char *by)
{
    struct ep_policy_change change = {
        .other = true,
        .sets = c->sets,
        .bundle = c->bundle,
        .result = result,
        .by = by,
        .members = c->members,
        .n_members = c->n_members,
    };

    c->sets = NULL;
    c->bundle = NULL;
    c->members = NULL;
    return change;
}

static void free_check(struct ep_server *s, struct ep_policy_check *c)
{
    ep_policy_sets_free(c->sets, s->n);
    ep_policy_members_free(c->members, c->n_members);
    ep_policy_bundle_unref(c->bundle);
}

/* The sets know from the first call on which of them are on trial. */
static void arrange(struct ep_server *s, const struct ep_config *config, struct ep_policy_change *change)
{
    set_trials(s, &config->policies, change->members, change->n_members);
    for (unsigned w = 0; w < s->n; w++)
        give_trials(change->sets[w], change->members, change->n_members);
}

/* Of the version in force, or of one `back`. */
static struct ep_policy_totals totals_of(const struct ep_server *s, unsigned back)
{
    struct ep_policy_totals sum = {0};

    for (unsigned i = 0; i < s->n; i++) {
        const struct ep_policy_totals *t = &s->serving[i].totals[(s->serving[i].version + EP_VERSIONS_COUNTED - back) % EP_VERSIONS_COUNTED];
        sum.requests += __atomic_load_n(&t->requests, __ATOMIC_RELAXED);
        sum.denied += __atomic_load_n(&t->denied, __ATOMIC_RELAXED);
        sum.failed += __atomic_load_n(&t->failed, __ATOMIC_RELAXED);
    }
    return sum;
}

/* The version in force went: what it came to is noted with it. */
static void close_version(struct ep_server *s, const struct ep_policy_totals *came)
{
    struct ep_policy_life *l = &s->policies;
    int i = l->bundle ? ep_policy_versions_find(&l->versions, l->bundle->digest) : -1;

    if (i < 0)
        return;
    struct ep_policy_totals *t = &l->versions.v[i].totals;
    t->requests += came->requests;
    t->denied += came->denied;
    t->failed += came->failed;
}

static void arm(struct ep_server *s)
{
    struct ep_policy_life *l = &s->policies;
    uint64_t in = UINT64_MAX, now = ep_clock_wall_ns();

    if (l->bundle && s->config->policies.rollback)
        in = ep_policy_watch_tick(s->config->policies.rollback);
    for (unsigned i = 0; i < l->n_members; i++)
        if (l->members[i].trial_ns)
            in = EP_MIN(in, EP_MIN(l->members[i].trial_ns > now ? l->members[i].trial_ns - now : 0, TRIAL_LOOK_NS));
    ep_worker_timer_stop(&s->main, &l->timer);
    if (in != UINT64_MAX)
        ep_worker_timer(&s->main, &l->timer, EP_MAX(in, EP_MS));
}

static void install(struct ep_server *s, struct ep_policy_change *change)
{
    struct ep_policy_life *l = &s->policies;
    /* With another constitution the version is the same: it is watched on. */
    bool same = l->bundle && strcmp(l->bundle->digest, change->bundle->digest) == 0;
    struct ep_policy_totals before = totals_of(s, 1);
    /* The constitution's policies alone are no version that one could go back to, or be compared with. */
    bool kept = of_directory(s->config);
    bool accepted = kept && strcmp(change->result, "accepted") == 0;
    bool compare = accepted && l->bundle && l->bundle->n_policies > 0;

    if (!same)
        close_version(s, &before);
    ep_policy_bundle_unref(l->bundle);
    ep_policy_members_free(l->members, l->n_members);
    l->bundle = ep_policy_bundle_ref(change->bundle);
    l->members = change->members;
    l->n_members = change->n_members;
    change->members = NULL;
    l->taken_ns = ep_clock_wall_ns();
    memcpy(l->over, change->over, sizeof l->over);
    if (accepted) {
        accept_content(l);
        ep_policy_versions_add(&l->versions, l->bundle, l->taken_ns);
    }
    if (kept)
        ep_policy_versions_set(&l->versions, l->bundle->digest, l->over);
    if (!same)
        ep_policy_watch_begin(&l->watch, s->config->policies.rollback, &before, ep_clock_ns(), compare);
    ep_info("policy", "%u policies %s by %s: version %.12s", l->n_members, change->result, change->by,
            l->bundle->digest);
    ep_stats_add(shard(s), EP_METRIC_POLICY_RELOADS, EP_LABELS(ep_str(change->result)), 1);
}

void ep_policy_life_took(struct ep_server *s, struct ep_policy_change *change)
{
    struct ep_policy_life *l = &s->policies;

    if (change->other && change->bundle) {
        install(s, change);
    } else if (change->other) {
        ep_policy_bundle_unref(l->bundle);
        ep_policy_members_free(l->members, l->n_members);
        l->bundle = NULL;
        l->members = NULL;
        l->n_members = 0;
        accept_content(l);
    } else {
        look_at_trials(s); /* shadow_for may be another */
    }
    free_change(s, change);
    gauges(s);
    arm(s);
}

void ep_policy_life_drop(struct ep_server *s, struct ep_policy_change *change)
{
    free_change(s, change);
}

/* --- what a configuration needs --- */

static bool check_here(struct ep_server *s, const struct ep_config *config, struct ep_policy_bundle *bundle,
                       struct ep_policy_check *c)
{
    *c = (struct ep_policy_check){.config = &config->policies,
                                  .server = s,
                                  .bundle = bundle,
                                  .tests = !bundle && ep_policies_want_tests(&config->policies)};
    ep_policy_check_run(c);
    return c->good;
}

/* What an earlier process had in force goes on: rolled back over what the directory has, or since that is no good. */
static bool take_kept(struct ep_server *s, const struct ep_config *config, struct ep_policy_change *change,
                      const char *over, const char *why)
{
    struct ep_policy_versions *kept = &s->policies.versions;
    int i = kept->n && kept->current[0] ? ep_policy_versions_find(kept, kept->current) : -1;
    struct ep_policy_check c;

    if (i < 0)
        return false;
    if (!check_here(s, config, ep_policy_bundle_ref(kept->v[i].bundle), &c)) {
        ep_warn("policy", "the version that was in force can't be taken: %s", c.err.text);
        free_check(s, &c);
        return false;
    }
    *change = change_of(&c, "kept", "restart");
    change->reason = why;
    snprintf(change->over, sizeof change->over, "%s", over);
    return true;
}

static bool first(struct ep_server *s, const struct ep_config *config, struct ep_policy_change *change,
                  struct ep_error *err)
{
    struct ep_policy_life *l = &s->policies;
    struct ep_policy_check c;
    bool good = check_here(s, config, NULL, &c);

    memcpy(l->seen, c.digest, sizeof l->seen);
    if (c.digest[0] && strcmp(c.digest, l->versions.over) == 0 &&
        take_kept(s, config, change, c.digest, "it was rolled back to")) {
        free_check(s, &c);
        return true;
    }
    if (good) {
        *change = change_of(&c, "accepted", "start");
        return true;
    }
    good = !s->generation && take_kept(s, config, change, "", "the directory's content was refused");
    if (good)
        refuse(s, c.digest, c.err.text);
    else
        ep_error_set(err, "%s", c.err.text);
    free_check(s, &c);
    return good;
}

static bool same_record(const struct ep_policies_record *a, const struct ep_policies_record *b)
{
    return a == b || (a && b && ep_str_eq(a->file, b->file) && a->sample >= b->sample && a->sample <= b->sample &&
                      a->limit == b->limit);
}

static bool same_constitution(const struct ep_policies_config *a, const struct ep_policies_config *b)
{
    return a->charter_mode == b->charter_mode &&
           (a->charter == b->charter || (a->charter && b->charter && ep_str_eq(a->charter->digest, b->charter->digest)));
}

/* What is in force may go on under another configuration: if it asks for tests only now, they must pass, and what is
 * recorded belongs to the sets. */
static bool still_good(struct ep_server *s, const struct ep_config *config, struct ep_policy_change *change,
                       struct ep_error *err)
{
    struct ep_policy_life *l = &s->policies;
    struct ep_policy_check c;

    if (ep_policies_want_tests(&config->policies) && !ep_policies_want_tests(&s->config->policies) &&
        !ep_policy_bundle_tests_pass(&config->policies, l->bundle, err))
        return false;
    if (same_constitution(&config->policies, &s->config->policies) &&
        same_record(config->policies.record, s->config->policies.record) &&
        (!config->policies.record || config->policies.mode == s->config->policies.mode))
        return true;
    if (!check_here(s, config, ep_policy_bundle_ref(l->bundle), &c)) {
        *err = c.err;
        free_check(s, &c);
        return false;
    }
    *change = change_of(&c, "kept", "configuration");
    memcpy(change->over, l->over, sizeof change->over);
    arrange(s, config, change);
    return true;
}

bool ep_policy_life_need(struct ep_server *s, const struct ep_config *config, struct ep_policy_change *change,
                         struct ep_error *err)
{
    struct ep_policy_life *l = &s->policies;
    bool same = s->generation && wanted(s->config) && of_directory(s->config) == of_directory(config) &&
                ep_str_eq(s->config->policies.directory, config->policies.directory);

    *change = (struct ep_policy_change){0};
    if (!wanted(config)) {
        change->other = l->bundle != NULL;
        return true;
    }
    if (same && l->bundle)
        return still_good(s, config, change, err);
    if (!first(s, config, change, err))
        return false;
    arrange(s, config, change);
    return true;
}

/* --- looking at the directory --- */

static bool adopt(struct ep_server *s, struct ep_policy_change *change, struct ep_error *err)
{
    struct ep_config *config = ep_config_ref(s->config);

    arrange(s, config, change);
    if (ep_reload_take(s, config, change, NULL, err))
        return true;
    ep_config_unref(config);
    return false;
}

static void take_result(struct ep_server *s, struct ep_policy_check *c)
{
    struct ep_policy_life *l = &s->policies;
    struct ep_policy_change change;
    struct ep_error err;

    if (c->digest[0])
        memcpy(l->seen, c->digest, sizeof l->seen);
    ep_histogram_record(ep_stats_histogram(shard(s), EP_METRIC_POLICY_CHECK, NULL), c->took_ns);
    if (c->good) {
        change = change_of(c, "accepted", "directory");
        if (!adopt(s, &change, &err))
            refuse(s, c->digest, err.text);
    } else if (c->unchanged) {
        if (strcmp(l->refused_digest, c->digest) != 0) /* it is as it was before it was refused */
            accept_content(l);
        ep_stats_add(shard(s), EP_METRIC_POLICY_RELOADS, EP_LABELS(EP_STR("unchanged")), 1);
        gauges(s);
    } else {
        refuse(s, c->digest, c->err.text);
    }
}

static void on_job(struct ep_mail *m, struct ep_worker *w)
{
    struct ep_policy_job *j = EP_CONTAINER(m, struct ep_policy_job, mail);
    struct ep_server *s = w->owner;
    struct ep_policy_life *l = &s->policies;

    pthread_join(j->thread, NULL);
    l->job = NULL;
    if (s->stage == EP_DRAIN_NOT && of_directory(s->config) &&
        ep_str_eq(j->config->policies.directory, s->config->policies.directory))
        take_result(s, &j->check);
    free_check(s, &j->check);
    ep_config_unref(j->config);
    free(j);
    if (l->again)
        ep_policy_life_look(s, l->again_asked);
}

void ep_policy_life_look(struct ep_server *s, bool asked)
{
    struct ep_policy_life *l = &s->policies;
    struct ep_policy_job *j;

    l->again = l->again_asked = false;
    if (s->stage != EP_DRAIN_NOT || !s->generation || !of_directory(s->config))
        return;
    if (l->job) { /* what it has read may be old already */
        l->again = true;
        l->again_asked = asked;
        return;
    }
    j = ep_calloc(1, sizeof *j);
    j->mail.run = on_job;
    j->config = ep_config_ref(s->config);
    j->check = (struct ep_policy_check){.config = &j->config->policies,
                                        .server = s,
                                        .tests = ep_policies_want_tests(&j->config->policies)};
    if (!(asked && l->refused && !l->over[0]))
        memcpy(j->check.known, l->seen, sizeof l->seen);
    if (ep_policy_job_start(j)) {
        l->job = j;
        return;
    }
    ep_warn("policy", "no thread to look at the policies with");
    ep_config_unref(j->config);
    free(j);
}

/* --- going back --- */

static bool go_to(struct ep_server *s, unsigned i, const char *by, const char *reason, struct ep_error *err)
{
    struct ep_policy_life *l = &s->policies;
    struct ep_policy_change change;
    struct ep_policy_check c;

    if (!check_here(s, s->config, ep_policy_bundle_ref(l->versions.v[i].bundle), &c)) {
        *err = c.err;
        free_check(s, &c);
        return false;
    }
    change = change_of(&c, "rollback", by);
    change.reason = reason;
    if (strcmp(l->seen, change.bundle->digest) != 0)
        memcpy(change.over, l->seen, sizeof change.over);
    if (!adopt(s, &change, err))
        return false;
    ep_stats_add(shard(s), EP_METRIC_POLICY_ROLLBACKS, EP_LABELS(ep_str(reason)), 1);
    ep_warn("policy", "rolled back to version %.12s by %s (%s); it stays until the directory changes", l->bundle->digest,
            by, reason);
    return true;
}

bool ep_server_policies_rollback(struct ep_server *s, unsigned steps, const char *by, struct ep_error *err)
{
    struct ep_policy_life *l = &s->policies;
    int now = l->bundle ? ep_policy_versions_find(&l->versions, l->bundle->digest) : -1;

    if (s->stage != EP_DRAIN_NOT)
        return ep_error_set(err, "the process is ending");
    if (now < 0 || !of_directory(s->config))
        return ep_error_set(err, "no policies of a directory are in force");
    if (steps == 0 || steps > (unsigned)now)
        return ep_error_set(err, now ? "there are %d versions before this one" : "there is no version before this one", now);
    return go_to(s, (unsigned)now - steps, by, "asked", err);
}

/* --- time --- */

static void compare(struct ep_server *s, const struct ep_policies_rollback *limits)
{
    struct ep_policy_life *l = &s->policies;
    struct ep_policy_totals totals = totals_of(s, 0);
    enum ep_policy_jump jump = ep_policy_watch_look(&l->watch, limits, &totals, ep_clock_ns());
    int now = ep_policy_versions_find(&l->versions, l->bundle->digest);
    const char *reason = jump == EP_POLICY_JUMP_ERRORS ? "errors" : "denials";
    struct ep_error err;

    if (jump == EP_POLICY_JUMP_NONE)
        return;
    ep_warn("policy", "version %.12s: %.1f %% errors (%.1f before), %.1f %% denials (%.1f before)", l->bundle->digest,
            l->watch.errors_now * 100, l->watch.errors * 100, l->watch.denials_now * 100, l->watch.denials * 100);
    if (now < 1)
        ep_warn("policy", "there is no version to go back to");
    else if (!go_to(s, (unsigned)now - 1, "automatic", reason, &err))
        ep_fail("policy", "going back failed: %s", err.text);
}

static void on_time(struct ep_timer *t)
{
    struct ep_server *s = EP_CONTAINER(t, struct ep_server, policies.timer);
    struct ep_policy_life *l = &s->policies;

    if (s->stage != EP_DRAIN_NOT || !l->bundle)
        return;
    if (s->config->policies.rollback)
        compare(s, s->config->policies.rollback);
    look_at_trials(s);
    arm(s);
}

/* --- life --- */

void ep_policy_life_init(struct ep_server *s, struct ep_str state)
{
    struct ep_policy_life *l = &s->policies;

    ep_timer_init(&l->timer, on_time);
    ep_policy_versions_init(&l->versions, state);
    ep_policy_trials_init(&l->trials, l->versions.directory);
}

void ep_policy_life_fini(struct ep_server *s)
{
    struct ep_policy_life *l = &s->policies;

    while (l->job) { /* its thread posts a mail last, and that must find us */
        l->again = false;
        ep_worker_turn(&s->main, true);
    }
    ep_worker_timer_stop(&s->main, &l->timer);
    accept_content(l);
    ep_policy_members_free(l->members, l->n_members);
    ep_policy_bundle_unref(l->bundle);
    ep_policy_trials_fini(&l->trials);
    ep_policy_versions_fini(&l->versions);
}
