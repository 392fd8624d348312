/* See policy_jump.h. */
#include "config/policy_jump.h"

static struct ep_policy_totals minus(const struct ep_policy_totals *a, const struct ep_policy_totals *b)
{
    return (struct ep_policy_totals){a->requests - b->requests, a->denied - b->denied, a->failed - b->failed};
}

static double share(uint64_t part, uint64_t whole)
{
    return whole ? (double)part / (double)whole : 0;
}

uint64_t ep_policy_watch_tick(const struct ep_policies_rollback *limits)
{
    return EP_MIN(limits->window_ns / EP_POLICY_JUMP_SAMPLES, EP_S);
}

void ep_policy_watch_begin(struct ep_policy_watch *w, const struct ep_policies_rollback *limits,
                           const struct ep_policy_totals *came, uint64_t now_ns, bool compare)
{
    struct ep_policy_totals before = w->n ? minus(came, &w->samples[0].totals) : *came;

    if (limits && before.requests < (uint64_t)limits->minimum)
        before = *came;
    if (limits && before.requests < (uint64_t)limits->minimum)
        before = (struct ep_policy_totals){0};
    *w = (struct ep_policy_watch){
        .watching = compare && limits,
        .since_ns = now_ns,
        .errors = share(before.failed, before.requests),
        .denials = share(before.denied, before.requests),
    };
}

static void sample(struct ep_policy_watch *w, const struct ep_policies_rollback *limits,
                   const struct ep_policy_totals *now, uint64_t now_ns)
{
    if (w->n && now_ns - w->samples[w->n - 1].ns < limits->window_ns / EP_POLICY_JUMP_SAMPLES)
        return;
    if (w->n == EP_POLICY_JUMP_SAMPLES)
        memmove(&w->samples[0], &w->samples[1], --w->n * sizeof w->samples[0]);
    w->samples[w->n].ns = now_ns;
    w->samples[w->n++].totals = *now;
}

enum ep_policy_jump ep_policy_watch_look(struct ep_policy_watch *w, const struct ep_policies_rollback *limits,
                                         const struct ep_policy_totals *now, uint64_t now_ns)
{
    sample(w, limits, now, now_ns);
    w->errors_now = share(now->failed, now->requests);
    w->denials_now = share(now->denied, now->requests);
    if (!w->watching || now->requests < (uint64_t)limits->minimum)
        return EP_POLICY_JUMP_NONE;
    if (now_ns - w->since_ns >= limits->window_ns)
        w->watching = false; /* after this look */
    if (w->errors_now > w->errors + limits->errors) {
        w->watching = false;
        return EP_POLICY_JUMP_ERRORS;
    }
    if (w->denials_now > w->denials + limits->denials) {
        w->watching = false;
        return EP_POLICY_JUMP_DENIALS;
    }
    return EP_POLICY_JUMP_NONE;
}
