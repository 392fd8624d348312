/* The table of endpoints and what each answers. */
#include <stdio.h>
#include <stdlib.h>

#include "admin/private.h"
#include "authorize.h"
#include "filter/chain.h"
#include "lua/policy.h"

#define ASK_NS EP_S

static void ktime(struct ep_json *j, const char *key, uint64_t wall_ns)
{
    char text[32];

    if (!wall_ns)
        return;
    int n = ep_time_rfc3339(wall_ns, text);
    ep_json_kstr(j, key, ep_str_n(text, (size_t)n));
}

static void ready(struct ep_exchange *x)
{
    struct ep_server_status s = ep_server_status(x->server);
    const char *text = s.draining ? "draining\n" : s.ready ? "ready\n" : "starting\n";

    ep_admin_reply(x, s.ready && !s.draining ? 200 : 503, "text/plain; charset=utf-8", ep_str(text));
}

static void live(struct ep_exchange *x)
{
    ep_admin_reply(x, 200, "text/plain; charset=utf-8", EP_STR("live\n"));
}

static void metrics(struct ep_exchange *x)
{
    size_t n, length;
    struct ep_stats *const *shards = ep_server_shards(x->server, &n);
    char *text = ep_exposition(shards, n, &length);

    ep_admin_reply(x, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8", ep_str_n(text, length));
    free(text);
}

static void config(struct ep_exchange *x)
{
    struct ep_server_status s = ep_server_status(x->server);
    char *text = ep_config_print(ep_server_config(x->server), false);
    struct ep_json j;

    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_kuint(&j, "generation", s.generation);
    ktime(&j, "accepted", s.accepted_wall_ns);
    if (s.rejected) {
        ep_json_key(&j, "rejected");
        ep_json_object(&j);
        ktime(&j, "time", s.rejected_wall_ns);
        ep_json_kstr(&j, "error", ep_str(s.rejected));
        ep_json_object_end(&j);
    }
    ep_json_kstr(&j, "configuration", ep_str(text));
    ep_json_object_end(&j);
    free(text);
    ep_admin_reply_json(x, 200, &j);
}

/* An object for what is known once there is a configuration; before, says so. */
static bool begin(struct ep_exchange *x, struct ep_json *j)
{
    if (!ep_server_status(x->server).generation) {
        ep_admin_say(x, 503, "starting");
        return false;
    }
    ep_json_init(j);
    ep_json_object(j);
    return true;
}

static void ask(struct ep_exchange *x, void (*describe)(struct ep_worker *w, struct ep_json *out))
{
    struct ep_json j;

    if (!begin(x, &j))
        return;
    ep_json_key(&j, "workers");
    ep_server_ask(x->server, describe, ASK_NS, &j);
    ep_json_object_end(&j);
    ep_admin_reply_json(x, 200, &j);
}

static void describe_clusters(struct ep_worker *w, struct ep_json *out)
{
    ep_json_key(out, "clusters");
    ep_json_array(out);
    for (unsigned i = 0; w->view && i < w->view->n_clusters; i++)
        ep_cluster_describe(w->view->clusters[i], out);
    ep_json_array_end(out);
}

static void clusters(struct ep_exchange *x)
{
    ask(x, describe_clusters);
}

static void listeners(struct ep_exchange *x)
{
    ask(x, ep_serving_describe);
}

static void describe_policies(struct ep_worker *w, struct ep_json *out)
{
    ep_json_key(out, "policies");
    ep_policies_json(w, out);
}

static void egress(struct ep_exchange *x)
{
    struct ep_json j;

    if (!begin(x, &j))
        return;
    ep_server_egress_describe(x->server, &j);
    ep_json_object_end(&j);
    ep_admin_reply_json(x, 200, &j);
}

static void policies(struct ep_exchange *x)
{
    struct ep_json j;

    if (!begin(x, &j))
        return;
    ep_server_policies_describe(x->server, &j);
    ep_json_key(&j, "workers");
    ep_server_ask(x->server, describe_policies, ASK_NS, &j);
    ep_json_object_end(&j);
    ep_admin_reply_json(x, 200, &j);
}

static void rollback_policies(struct ep_exchange *x)
{
    struct ep_str given = ep_admin_query(x, "steps");
    uint64_t steps = 1;
    struct ep_error err;
    char by[128];

    if (given.p && (!ep_str_u64(given, &steps) || steps < 1 || steps > 100)) {
        ep_admin_say(x, 400, "steps is how many versions to go back: POST /policies/rollback?steps=1");
        return;
    }
    ep_admin_caller(x, by);
    if (ep_server_policies_rollback(x->server, (unsigned)steps, by, &err))
        ep_admin_say(x, 200, "generation %llu", (unsigned long long)ep_server_status(x->server).generation);
    else
        ep_admin_say(x, 409, "%s", err.text);
}

static void authorize(struct ep_exchange *x)
{
    struct ep_error err;
    struct ep_json j;

    ep_json_init(&j);
    if (ep_authorize_explain(&ep_server_config(x->server)->listeners, ep_server_path(x->server), x->query, &j, &err)) {
        ep_admin_reply_json(x, 200, &j);
    } else {
        ep_json_fini(&j);
        ep_admin_say(x, 400, "%s", err.text);
    }
}

/* One object a series: its labels by name, and what was measured. */
static void rows(struct ep_exchange *x, enum ep_metric m, const char *const *labels, size_t n_labels)
{
    size_t n, n_rows;
    struct ep_stats *const *shards = ep_server_shards(x->server, &n);
    struct ep_row *row = ep_stats_rows(shards, n, m, &n_rows);
    struct ep_json j;

    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_key(&j, "rows");
    ep_json_array(&j);
    for (size_t i = 0; i < n_rows; i++) {
        ep_json_object(&j);
        for (size_t k = 0; k < n_labels; k++)
            ep_json_kstr(&j, labels[k], row[i].labels[k]);
        ep_json_kuint(&j, "count", row[i].count);
        ep_json_kuint(&j, "p50_ns", row[i].p50_ns);
        ep_json_kuint(&j, "p99_ns", row[i].p99_ns);
        ep_json_kuint(&j, "max_ns", row[i].max_ns);
        ep_json_kuint(&j, "sum_ns", row[i].sum_ns);
        ep_json_object_end(&j);
    }
    ep_json_array_end(&j);
    ep_json_object_end(&j);
    free(row);
    ep_admin_reply_json(x, 200, &j);
}

static void hops(struct ep_exchange *x)
{
    static const char *const labels[] = {"direction", "source", "destination", "protocol", "stage"};

    rows(x, EP_METRIC_HOP_DURATION, labels, EP_COUNT(labels));
}

static void logging(struct ep_exchange *x)
{
    struct ep_json j;

    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_kstr(&j, "level", ep_str(ep_log_level_name(ep_log_get_level())));
    ep_json_object_end(&j);
    ep_admin_reply_json(x, 200, &j);
}

static void set_logging(struct ep_exchange *x)
{
    struct ep_str given = ep_admin_query(x, "level");
    char name[16] = "";
    enum ep_log_level level;

    memcpy(name, given.p ? given.p : "", EP_MIN(given.n, sizeof name - 1));
    if (!ep_log_level_parse(name, &level)) {
        ep_admin_say(x, 400, "level is one of trace, debug, info, warn, error, off: POST /logging?level=debug");
        return;
    }
    ep_log_set_level(level);
    logging(x);
}

static void drain(struct ep_exchange *x)
{
    ep_server_drain(x->server);
    ep_admin_say(x, 202, "draining");
}

static void reload(struct ep_exchange *x)
{
    struct ep_error err;

    if (ep_server_reload(x->server, &err))
        ep_admin_say(x, 200, "generation %llu", (unsigned long long)ep_server_status(x->server).generation);
    else
        ep_admin_say(x, 422, "%s", err.text);
}

static void rollback(struct ep_exchange *x)
{
    struct ep_error err;

    if (ep_server_rollback(x->server, &err))
        ep_admin_say(x, 200, "generation %llu", (unsigned long long)ep_server_status(x->server).generation);
    else
        ep_admin_say(x, 409, "%s", err.text);
}

static void page(struct ep_exchange *x)
{
    char *text = ep_admin_page(x->server);

    ep_admin_reply(x, 200, "text/html; charset=utf-8", ep_str(text));
    free(text);
}

/* clang-format off */
const struct ep_endpoint_row ep_admin_endpoints[] = {
    {"/",                "GET",  false, page,        "this page"},
    {"/ready",           "GET",  true,  ready,       "200 when traffic may come, else 503"},
    {"/live",            "GET",  true,  live,        "200 as long as the main thread turns"},
    {"/metrics",         "GET",  true,  metrics,     "OpenMetrics text"},
    {"/config",          "GET",  false, config,      "the configuration in force with all defaults, and why the last one was rejected"},
    {"/listeners",       "GET",  false, listeners,   "listeners by worker: connections, streams, filters"},
    {"/clusters",        "GET",  false, clusters,    "clusters and endpoints by worker: health, load, connections"},
    {"/egress",          "GET",  false, egress,      "the CA for intercepted TLS, and the clients that refuse its certificates"},
    {"/policies",        "GET",  false, policies,    "policies by worker: seen, matched, denied, blind"},
    {"/authorize",       "GET",  false, authorize,   "?listener=…&principal=…&method=…&path=…&tool=…: which rule decides for such a call, and why"},
    {"/constitution",    "GET",  false, ep_admin_constitution, "the constitution in force: hash, text, digest, since when, checks"},
    {"/hops",            "GET",  false, hops,        "where time went, by hop and stage"},
    {"/logging",         "GET",  false, logging,     "the level of the log"},
    {"/logging",         "POST", false, set_logging, "?level=trace|debug|info|warn|error|off"},
    {"/config/reload",   "POST", false, reload,      "read the file again"},
    {"/policies/rollback", "POST", false, rollback_policies, "?steps=1: go back to an earlier version of the policies, until the directory changes"},
    {"/config/rollback", "POST", false, rollback,    "go back to the configuration before this one"},
    {"/drain",           "POST", false, drain,       "drain and end"},
};
/* clang-format on */
const size_t ep_admin_endpoints_n = EP_COUNT(ep_admin_endpoints);
