/* What /policies says about versions. */
#include "config/process.h"

static void ktime(struct ep_json *j, const char *key, uint64_t wall_ns)
{
    char text[32];
    int n = ep_time_rfc3339(wall_ns, text);

    if (wall_ns)
        ep_json_kstr(j, key, ep_str_n(text, (size_t)n));
}

static void versions(const struct ep_policy_life *l, struct ep_json *j)
{
    ep_json_key(j, "versions");
    ep_json_array(j);
    for (unsigned i = l->versions.n; i-- > 0;) {
        const struct ep_policy_version *v = &l->versions.v[i];
        ep_json_object(j);
        ep_json_kuint(j, "number", v->number);
        ep_json_kstr(j, "digest", ep_str(v->bundle->digest));
        ktime(j, "taken", v->taken_ns);
        ep_json_kuint(j, "policies", v->bundle->n_policies);
        ep_json_kuint(j, "requests", v->totals.requests);
        ep_json_kuint(j, "denied", v->totals.denied);
        ep_json_kuint(j, "failed", v->totals.failed);
        ep_json_kbool(j, "in_force", l->bundle && strcmp(l->bundle->digest, v->bundle->digest) == 0);
        ep_json_object_end(j);
    }
    ep_json_array_end(j);
}

void ep_server_policies_describe(const struct ep_server *s, struct ep_json *j)
{
    const struct ep_policy_life *l = &s->policies;

    if (l->bundle) {
        ep_json_kstr(j, "version", ep_str(l->bundle->digest));
        ktime(j, "since", l->taken_ns);
        ep_json_kbool(j, "rolled_back", l->over[0] != 0);
        ep_json_kbool(j, "compared", l->watch.watching);
    }
    ep_json_kbool(j, "checking", l->job != NULL);
    if (l->refused) {
        ep_json_key(j, "refused");
        ep_json_object(j);
        ktime(j, "since", l->refused_ns);
        ep_json_kstr(j, "error", ep_str(l->refused));
        ep_json_kstr(j, "digest", ep_str(l->refused_digest));
        ep_json_object_end(j);
    }
    versions(l, j);
}
