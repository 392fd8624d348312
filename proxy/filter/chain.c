/* Making a chain: the filters of one listener in order, its routes, its limits.
 *
 * The order that DESIGN.md section 1 gives is the default: identity knows who calls, agent what is called, the
 * constitution and the policies judge, chaos breaks what is allowed, the meter counts it, the router sends it on. */
#include "filter/chain.h"

#include <stdlib.h>

#include "filter/private.h"

static const char *const default_filters[] = {"identity", "agent", "constitution", "policies", "mcp", "chaos", "meter"};

static bool add_filter(struct ep_chain *c, const struct ep_filter *f, const void *config, struct ep_error *err)
{
    struct ep_filter_instance *i = &c->filters[c->n_filters];

    *i = (struct ep_filter_instance){.filter = f,
                                     .config = config,
                                     .worker = c->view->worker,
                                     .chain = c,
                                     .view = c->view,
                                     .index = c->n_filters};
    if (f->load && !f->load(i, err))
        return ep_error_prefix(err, "filter %s", f->name);
    uint32_t bit = 1u << c->n_filters++;
    c->request_body_mask |= f->request_body ? bit : 0;
    c->response_headers_mask |= f->response_headers ? bit : 0;
    c->response_body_mask |= f->response_body ? bit : 0;
    c->finish_mask |= f->finish ? bit : 0;
    c->state_bytes += (f->stream_size + 7u) & ~(size_t)7u;
    return true;
}

static bool add_named(struct ep_chain *c, struct ep_str name, const void *config, struct ep_error *err)
{
    const struct ep_filter *f = ep_filter_find(name);

    if (!f)
        return ep_error_set(err, "there is no filter named '%.*s'", EP_STR_ARG(name));
    if (c->n_filters >= EP_STREAM_MAX_FILTERS)
        return ep_error_set(err, "more than %u filters", EP_STREAM_MAX_FILTERS);
    return add_filter(c, f, config, err);
}

static bool add_filters(struct ep_chain *c, struct ep_error *err)
{
    const struct ep_filter_use *use = c->config->filters.v;
    size_t n = c->config->filters.n;

    c->filters = ep_calloc(EP_MAX(n, EP_COUNT(default_filters)) + 1, sizeof *c->filters);
    if (n == 0) {
        for (size_t i = 0; i < EP_COUNT(default_filters); i++)
            if (!add_named(c, ep_str(default_filters[i]), NULL, err))
                return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (ep_str_eq(use[i].name, EP_STR("router")))
            continue; /* implied at the end */
        if (!add_named(c, use[i].name, use[i].config, err))
            return false;
    }
    return add_named(c, EP_STR("router"), NULL, err);
}

/* `cluster: app` on a listener is one route that matches all. */
static const struct ep_route_config *short_route(struct ep_chain *c)
{
    struct ep_route_config *r = ep_calloc(1, sizeof *r);

    r->cluster = c->config->cluster;
    r->timeout_ns = c->config->request_timeout_ns;
    r->idle_timeout_ns = c->config->stream_idle_timeout_ns;
    c->short_route = r;
    return r;
}

static bool add_routes(struct ep_chain *c, ep_cluster_lookup *lookup, void *user, struct ep_error *err)
{
    const struct ep_route_config *config = c->config->routes.v;
    size_t n = c->config->routes.n;

    c->routes = ep_calloc(n + 1, sizeof *c->routes);
    for (size_t i = 0; i < n + (c->config->cluster.n ? 1 : 0); i++) {
        struct ep_route *r = &c->routes[c->n_routes];
        char name[160];

        r->config = i < n ? &config[i] : short_route(c);
        r->chain = c;
        r->number = ++c->view->n_routes;
        r->cluster = lookup(user, r->config->cluster);
        if (!r->cluster)
            return ep_error_set(err, "listener %.*s: there is no cluster '%.*s'", EP_STR_ARG(c->config->name),
                                EP_STR_ARG(r->config->cluster));
        int length = snprintf(name, sizeof name, "%.*s/%zu", (int)EP_MIN(c->config->name.n, 128u), c->config->name.p, i);
        r->name = ep_str_n(ep_strndup(name, (size_t)length), (size_t)length);
        c->n_routes++;
    }
    return true;
}

enum ep_direction ep_listener_direction(const struct ep_listener_config *config)
{
    if (config->direction != EP_DIRECTION_AUTO)
        return config->direction == EP_DIRECTION_OUTBOUND ? EP_OUTBOUND : EP_INBOUND;
    return ep_str_starts(config->name, EP_STR("outbound")) || ep_str_starts(config->name, EP_STR("egress")) ? EP_OUTBOUND
                                                                                                   : EP_INBOUND;
}

struct ep_chain *ep_chain_new(struct ep_view *view, struct ep_worker *w, const struct ep_listener_config *config,
                              ep_cluster_lookup *lookup, void *user, struct ep_error *err)
{
    struct ep_chain *c = ep_calloc(1, sizeof *c);
    struct ep_http_options *o = &c->http;

    assert(view->worker == w);
    c->view = view;
    c->config = config;
    c->direction = ep_listener_direction(config);
    ep_http_options_preset(o);
    o->max_streams = (uint32_t)config->max_streams;
    o->max_header_bytes = (uint32_t)config->max_header_bytes;
    o->max_header_count = (uint32_t)config->max_header_count;
    o->headers_timeout_ns = config->headers_timeout_ns;
    o->idle_timeout_ns = config->idle_timeout_ns;
    o->extended_connect = true;
    if (!add_routes(c, lookup, user, err) || !add_filters(c, err)) {
        ep_chain_free(c);
        return NULL;
    }
    return c;
}

void ep_chain_free(struct ep_chain *c)
{
    if (!c)
        return;
    for (unsigned i = c->n_filters; i-- > 0;)
        if (c->filters[i].filter->unload)
            c->filters[i].filter->unload(&c->filters[i]);
    for (unsigned i = 0; i < c->n_routes; i++)
        free((void *)(uintptr_t)c->routes[i].name.p);
    ep_route_free_derived(c);
    ep_report_free(c);
    free(c->short_route);
    free(c->filters);
    free(c->routes);
    free(c);
}
