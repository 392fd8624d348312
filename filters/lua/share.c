/* A policy that is enforced step by step: for a share of the callers, or not yet. */
#include "lua/policy.h"

#define BUCKETS 10000u /* hundredths of a percent */

static struct ep_str key_of(struct ep_stream *s)
{
    const struct ep_call *c = &s->call;
    const struct ep_str keys[] = {s->peer_id, c->agent, c->session, c->tenant};
    struct ep_str trace = ep_headers_get(&s->request.headers, EP_STR("traceparent"));

    for (size_t i = 0; i < EP_COUNT(keys); i++)
        if (keys[i].n)
            return keys[i];
    return trace.n >= 35 ? ep_str_n(trace.p + 3, 32) : ep_stream_decision(s); /* version-traceid-… */
}

/* The name is mixed in, so that it isn't the same callers who try out every policy. FNV's high bits are its good ones. */
static bool in_share(const struct ep_policy *p, struct ep_stream *s)
{
    struct ep_str key = key_of(s);
    uint64_t h = (ep_hash(p->name.p, p->name.n) ^ ep_hash(key.p, key.n)) * 0x9e3779b97f4a7c15u;

    return (double)((h >> 32) % BUCKETS) < p->share * BUCKETS;
}

bool ep_policy_shadow(const struct ep_policy_set *set, const struct ep_policy *p, struct ep_stream *s)
{
    if (EP_UNLIKELY(p->constitutional)) /* what is the operator's doesn't touch it */
        return p->mode == EP_MODE_SHADOW;
    return set->mode == EP_MODE_SHADOW || p->mode == EP_MODE_SHADOW || p->trial_ns ||
           (EP_UNLIKELY(p->share < 1.0) && !in_share(p, s));
}

void ep_policy_life_json(const struct ep_policy *p, struct ep_json *j)
{
    uint64_t denied = p->count[EP_POLICY_DENY] + p->count[EP_POLICY_SHADOW_DENY];
    char text[32];

    ep_json_key(j, "enforce_percent");
    ep_json_double(j, p->share * 100);
    ep_json_key(j, "would_deny_percent"); /* of what matched, refused or not */
    ep_json_double(j, p->matched ? 100.0 * (double)denied / (double)p->matched : 0);
    if (!p->trial_ns)
        return;
    int n = ep_time_rfc3339(p->trial_ns, text);
    ep_json_kstr(j, "enforces_at", ep_str_n(text, (size_t)n));
}
