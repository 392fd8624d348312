/* The endpoints: one row each. */
#include <stdlib.h>

#include "admin/private.h"
#include "filter/chain.h"
#include "upstream/upstream.h"

/* A body that is no JSON: each piece as it stands. */
static void put(struct ep_admin_call *c, struct ep_str s)
{
    c->body.has_member = 0;
    ep_json_raw(&c->body, s);
}

static void text(struct ep_admin_call *c, unsigned status, const char *z)
{
    c->status = status;
    c->type = "text/plain; charset=utf-8";
    put(c, ep_str(z));
}

static void ready(struct ep_admin_call *c)
{
    struct ep_server_status s = ep_server_status(c->server);

    text(c, s.ready && !s.draining ? 200 : 503, s.draining ? "draining\n" : s.ready ? "ready\n" : "starting\n");
}

static void live(struct ep_admin_call *c)
{
    text(c, 200, "live\n");
}

static void metrics(struct ep_admin_call *c)
{
    size_t n, length;
    struct ep_stats *const *shards = ep_server_shards(c->server, &n);
    char *all = ep_exposition(shards, n, &length);

    c->type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    put(c, ep_str_n(all, length));
    free(all);
}

static void when(struct ep_json *j, const char *key, uint64_t wall_ns)
{
    char out[32];

    if (wall_ns)
        ep_json_kstr(j, key, ep_str_n(out, (size_t)ep_time_rfc3339(wall_ns, out)));
}

static void config(struct ep_admin_call *c)
{
    struct ep_server_status s = ep_server_status(c->server);
    struct ep_json *j = &c->body;
    char *yaml = ep_config_print(ep_server_config(c->server), false);

    ep_json_object(j);
    ep_json_kuint(j, "generation", s.generation);
    ep_json_kuint(j, "workers", s.workers);
    when(j, "started", s.started_wall_ns);
    when(j, "accepted", s.accepted_wall_ns);
    ep_json_key(j, "rejected");
    ep_json_z(j, s.rejected);
    when(j, "rejected_at", s.rejected_wall_ns);
    ep_json_kstr(j, "config", ep_str(yaml));
    ep_json_object_end(j);
    free(yaml);
}

static void describe_clusters(struct ep_worker *w, struct ep_json *out)
{
    ep_json_key(out, "clusters");
    ep_json_array(out);
    for (unsigned i = 0; w->view && i < w->view->n_clusters; i++)
        ep_cluster_describe(w->view->clusters[i], out);
    ep_json_array_end(out);
}

static void clusters(struct ep_admin_call *c)
{
    ep_server_ask(c->server, describe_clusters, EP_S, &c->body);
}

static void describe_listeners(struct ep_worker *w, struct ep_json *out)
{
    char addr[128];

    ep_json_key(out, "listeners");
    ep_json_array(out);
    for (unsigned i = 0; w->view && i < w->view->n_chains; i++) {
        const struct ep_chain *chain = w->view->chains[i];
        ep_json_object(out);
        ep_json_kstr(out, "name", chain->config->name);
        ep_json_kstr(out, "bind", ep_str_n(addr, (size_t)ep_addr_format(&chain->config->bind, addr)));
        ep_json_kstr(out, "direction", chain->direction == EP_INBOUND ? EP_STR("inbound") : EP_STR("outbound"));
        ep_json_key(out, "filters");
        ep_json_array(out);
        for (unsigned f = 0; f < chain->n_filters; f++)
            ep_json_z(out, chain->filters[f].filter->name);
        ep_json_array_end(out);
        ep_json_key(out, "routes");
        ep_json_array(out);
        for (unsigned r = 0; r < chain->n_routes; r++) {
            ep_json_object(out);
            ep_json_kstr(out, "name", chain->routes[r].name);
            ep_json_kstr(out, "cluster", chain->routes[r].config->cluster);
            ep_json_object_end(out);
        }
        ep_json_array_end(out);
        ep_json_object_end(out);
    }
    ep_json_array_end(out);
}

static void listeners(struct ep_admin_call *c)
{
    ep_server_ask(c->server, describe_listeners, EP_S, &c->body);
}

static struct ep_str query_value(struct ep_str query, struct ep_str key)
{
    struct ep_str part;

    while (ep_str_next(&query, '&', &part)) {
        ptrdiff_t eq = ep_str_find(part, '=', 0);
        if (eq >= 0 && ep_str_eq(ep_str_n(part.p, (size_t)eq), key))
            return ep_str_n(part.p + eq + 1, part.n - (size_t)eq - 1);
    }
    return (struct ep_str){NULL, 0};
}

static void logging(struct ep_admin_call *c)
{
    struct ep_str given = query_value(c->query, EP_STR("level"));
    enum ep_log_level level;
    char name[16] = "";

    if (c->post) {
        if (given.n < sizeof name && given.n)
            memcpy(name, given.p, given.n);
        if (!ep_log_level_parse(name, &level)) {
            c->status = 400;
            ep_json_object(&c->body);
            ep_json_kstr(&c->body, "error", EP_STR("level is one of trace, debug, info, warn, error, off"));
            ep_json_object_end(&c->body);
            return;
        }
        ep_log_set_level(level);
        ep_info("admin", "the log's level is %s now", ep_log_level_name(level));
    }
    ep_json_object(&c->body);
    ep_json_kstr(&c->body, "level", ep_str(ep_log_level_name(ep_log_get_level())));
    ep_json_object_end(&c->body);
}

static void result(struct ep_admin_call *c, bool good, const struct ep_error *err)
{
    c->status = good ? 200 : 409;
    ep_json_object(&c->body);
    ep_json_kbool(&c->body, "done", good);
    if (!good)
        ep_json_kstr(&c->body, "error", ep_str(err->text));
    ep_json_kuint(&c->body, "generation", ep_server_status(c->server).generation);
    ep_json_object_end(&c->body);
}

static void reload(struct ep_admin_call *c)
{
    struct ep_error err = {""};
    bool good = ep_server_reload(c->server, &err);

    result(c, good, &err);
}

static void rollback(struct ep_admin_call *c)
{
    struct ep_error err = {""};
    bool good = ep_server_rollback(c->server, &err);

    result(c, good, &err);
}

static void drain(struct ep_admin_call *c)
{
    struct ep_error err = {""};

    ep_server_drain(c->server);
    result(c, true, &err);
}

/* Rows of a histogram family: labels by name, count, quantiles in microseconds. */
static void rows(struct ep_admin_call *c, enum ep_metric m, const char *const *labels)
{
    size_t n, count;
    struct ep_stats *const *shards = ep_server_shards(c->server, &n);
    struct ep_row *r = ep_stats_rows(shards, n, m, &count);
    struct ep_json *j = &c->body;

    ep_json_array(j);
    for (size_t i = 0; i < count; i++) {
        ep_json_object(j);
        for (size_t l = 0; labels[l]; l++)
            ep_json_kstr(j, labels[l], r[i].labels[l]);
        ep_json_kuint(j, "count", r[i].count);
        ep_json_key(j, "p50_us");
        ep_json_double(j, (double)r[i].p50_ns / 1e3);
        ep_json_key(j, "p99_us");
        ep_json_double(j, (double)r[i].p99_ns / 1e3);
        ep_json_key(j, "max_us");
        ep_json_double(j, (double)r[i].max_ns / 1e3);
        ep_json_key(j, "sum_us");
        ep_json_double(j, (double)r[i].sum_ns / 1e3);
        ep_json_object_end(j);
    }
    ep_json_array_end(j);
    free(r);
}

static void hops(struct ep_admin_call *c)
{
    static const char *const labels[] = {"direction", "source", "destination", "protocol", "stage", NULL};

    rows(c, EP_METRIC_HOP_DURATION, labels);
}

static void filters(struct ep_admin_call *c)
{
    static const char *const labels[] = {"listener", "filter", NULL};

    rows(c, EP_METRIC_FILTER_DURATION, labels);
}

static void policies(struct ep_admin_call *c)
{
    static const char *const labels[] = {"policy", NULL};

    rows(c, EP_METRIC_POLICY_DURATION, labels);
}

static void constitution(struct ep_admin_call *c)
{
    const struct ep_constitution_config *k = &ep_server_config(c->server)->constitution;
    static const char *const modes[] = {"enforce", "shadow", "off"};

    ep_json_object(&c->body);
    ep_json_kstr(&c->body, "hash", k->hash);
    ep_json_kstr(&c->body, "mode", ep_str(modes[k->mode]));
    ep_json_kbool(&c->body, "strict", k->strict);
    ep_json_object_end(&c->body);
}

static void index_page(struct ep_admin_call *c);

const struct ep_endpoint_row ep_admin_endpoints[] = {
    /* path             metrics  get    post   handle        help */
    {"/",               false,   true,  false, index_page,   "this page"},
    {"/ready",          true,    true,  false, ready,        "200 when requests may come, 503 while starting and draining"},
    {"/live",           true,    true,  false, live,         "200 while the main thread runs"},
    {"/metrics",        true,    true,  false, metrics,      "OpenMetrics text for Prometheus"},
    {"/hops",           false,   true,  false, hops,         "latency by hop and stage, as JSON"},
    {"/filters",        false,   true,  false, filters,      "time in each filter (one request of sixteen is measured)"},
    {"/policies",       false,   true,  false, policies,     "calls and time of each policy"},
    {"/constitution",   false,   true,  false, constitution, "the constitution that is held to"},
    {"/config",         false,   true,  false, config,       "the configuration in force with all defaults; why the last one was rejected"},
    {"/config/reload",  false,   false, true,  reload,       "read the file again"},
    {"/config/rollback", false,  false, true,  rollback,     "back to the configuration before"},
    {"/clusters",       false,   true,  false, clusters,     "clusters and endpoints, by worker"},
    {"/listeners",      false,   true,  false, listeners,    "listeners, their filters and routes, by worker"},
    {"/logging",        false,   true,  true,  logging,      "the log's level; POST ?level=debug sets it"},
    {"/drain",          false,   false, true,  drain,        "begin to drain; the process ends when all is done"},
};
const size_t ep_admin_n_endpoints = EP_COUNT(ep_admin_endpoints);

static void index_page(struct ep_admin_call *c)
{
    c->type = "text/html; charset=utf-8";
    put(c, EP_STR("<!doctype html><meta charset=utf-8><title>ephor</title><style>body{font:15px sans-serif;margin:2em}"
                          "td{padding:.2em 1em .2em 0}</style><h1>ephor " EPHOR_VERSION "</h1><table>"));
    for (size_t i = 0; i < ep_admin_n_endpoints; i++) {
        const struct ep_endpoint_row *r = &ep_admin_endpoints[i];
        put(c, EP_STR("<tr><td>"));
        put(c, r->get && r->post ? EP_STR("GET, POST") : r->get ? EP_STR("GET") : EP_STR("POST"));
        put(c, EP_STR("<td>"));
        if (r->get) {
            put(c, EP_STR("<a href=\""));
            put(c, ep_str(r->path));
            put(c, EP_STR("\">"));
        }
        put(c, ep_str(r->path));
        put(c, r->get ? EP_STR("</a><td>") : EP_STR("<td>"));
        put(c, ep_str(r->help));
    }
    put(c, EP_STR("</table>\n"));
}
