/* RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-11), lists of structured fields (RFC 9651).
 *
 * A token bucket is told as a quota of one burst in the time that a burst takes to flow in: so `r` is never more than
 * `q`, and the two together are the rate. `t` is the time until the bucket is full again, or, when nothing is left,
 * until something is. Money isn't told: it is no integer, and nobody's business. */
#include "ratelimit/ratelimit.h"

static unsigned long long seconds(uint64_t ns)
{
    return (ns + EP_S - 1) / EP_S;
}

void ep_ratelimit_policy_item(struct ep_arena *arena, const struct ep_ratelimit_limit *l, struct ep_str *list)
{
    static const char *const units[EP_RATELIMIT_KINDS] = {[EP_RATELIMIT_REQUESTS] = "",
                                                          [EP_RATELIMIT_BYTES] = ";qu=\"content-bytes\"",
                                                          [EP_RATELIMIT_TOKENS] = ";qu=\"tokens\""};

    if (l->kind == EP_RATELIMIT_COST)
        return;
    *list = ep_arena_printf(arena, "%.*s%s\"%.*s\";q=%llu%s;w=%llu", EP_STR_ARG(*list), list->n ? ", " : "",
                            EP_STR_ARG(l->name), (unsigned long long)EP_MIN(l->rate.burst, 999999999999999u),
                            units[l->kind], EP_MAX(seconds(ep_limit_time(&l->rate, l->rate.burst)), 1u));
}

void ep_ratelimit_state_item(struct ep_arena *arena, const struct ep_ratelimit_limit *l,
                             const struct ep_limit_state *state, struct ep_str *list)
{
    if (l->kind == EP_RATELIMIT_COST)
        return;
    *list = ep_arena_printf(arena, "%.*s%s\"%.*s\";r=%llu;t=%llu", EP_STR_ARG(*list), list->n ? ", " : "",
                            EP_STR_ARG(l->name), (unsigned long long)EP_MIN(state->left, 999999999999999u),
                            seconds(state->wait_ns ? state->wait_ns : state->full_ns));
}
