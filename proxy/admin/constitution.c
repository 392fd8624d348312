/* /constitution: which one is in force, since when, and what came of comparing with it. The hash itself is no secret to
 * who may read the configuration here. */
#include "admin/private.h"
#include "filter/charter.h"
#include "observe/observe.h"

static void principles(struct ep_json *j, const struct ep_charter *c)
{
    static const char *const severities[] = {"low", "medium", "high", "critical"};

    ep_json_key(j, "principles");
    ep_json_array(j);
    for (size_t i = 0; i < c->n_principles; i++) {
        const struct ep_principle *p = &c->principles[i];
        const struct ep_str *names = p->policies.v;
        ep_json_object(j);
        ep_json_kstr(j, "id", p->id);
        ep_json_kstr(j, "text", p->text);
        ep_json_kstr(j, "severity", ep_str(severities[p->severity]));
        ep_json_key(j, "policies");
        ep_json_array(j);
        for (size_t k = 0; k < p->policies.n; k++)
            ep_json_str(j, names[k]);
        ep_json_array_end(j);
        if (p->tags_json.n) {
            ep_json_key(j, "tags");
            ep_json_raw(j, p->tags_json);
        }
        ep_json_object_end(j);
    }
    ep_json_array_end(j);
}

static void bundle(struct ep_json *j, const struct ep_charter *c)
{
    ep_json_key(j, "bundle");
    ep_json_object(j);
    ep_json_kstr(j, "directory", c->directory);
    ep_json_kstr(j, "version", c->version);
    ep_json_kstr(j, "digest", c->digest);
    if (c->signer.n)
        ep_json_kstr(j, "signed_by", c->signer);
    ep_json_kuint(j, "files", c->n_files);
    principles(j, c);
    ep_json_object_end(j);
}

static void counts(struct ep_exchange *x, struct ep_json *j, const char *key, enum ep_metric metric,
                   const char *const *values, size_t n_values)
{
    struct ep_stats *const *shards;
    size_t n;

    shards = ep_server_shards(x->server, &n);
    ep_json_key(j, key);
    ep_json_object(j);
    for (size_t i = 0; i < n_values; i++)
        ep_json_kuint(j, values[i], ep_stats_total(shards, n, metric, EP_LABELS(ep_str(values[i]))));
    ep_json_object_end(j);
}

void ep_admin_constitution(struct ep_exchange *x)
{
    static const char *const modes[] = {"enforce", "shadow", "off"};
    static const char *const checks[] = {"match", "mismatch", "absent", "stamped", "unreadable"};
    static const char *const peers[] = {"same", "other", "unknown"};
    const struct ep_constitution_config *c = &ep_server_config(x->server)->constitution;
    struct ep_server_status status = ep_server_status(x->server);
    char since[32];
    struct ep_json j;

    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_kbool(&j, "in_force", c->hash.n > 0);
    if (c->hash.n) {
        const struct ep_str *accept = c->accept.v;
        ep_json_kstr(&j, "hash", c->hash);
        ep_json_kstr(&j, "mode", ep_str(modes[c->mode]));
        ep_json_kbool(&j, "strict", c->strict);
        ep_json_key(&j, "accept");
        ep_json_array(&j);
        for (size_t i = 0; i < c->accept.n; i++)
            ep_json_str(&j, accept[i]);
        ep_json_array_end(&j);
        ep_json_kstr(&j, "since", ep_str_n(since, (size_t)ep_time_rfc3339(status.constitution_wall_ns, since)));
        ep_json_kbool(&j, "digest_pinned", c->digest.n > 0);
        if (c->charter)
            bundle(&j, c->charter);
        counts(x, &j, "checks", EP_METRIC_CONSTITUTION_CHECKS, checks, EP_COUNT(checks));
        counts(x, &j, "peers", EP_METRIC_CONSTITUTION_PEERS, peers, EP_COUNT(peers));
    }
    ep_json_object_end(&j);
    ep_admin_reply_json(x, 200, &j);
}
