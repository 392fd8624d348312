/* Judging `authorize`: filters/authorize.h has the picture.
 *
 * A rule that can't be told for sure never widens what is allowed: a deny rule matches a path as it is written and as
 * it is meant (escapes undone, dots resolved), an allow rule only one that matches both ways; a call that couldn't be
 * seen matches every deny rule about tools and no allow rule. An allow rule about tools lets through what a client must
 * say to use any tool at all: initialize, ping, tools/list, notifications and the like. */
#include "authorize.h"

#include "observe/observe.h"

#define PATH_MAX_BYTES 2048u /* longer ones are matched as they are written, and allowed by no rule on paths */

bool ep_authorize_needs_call(const struct ep_authorize_config *r)
{
    return r->protocols.n || r->tools.n || r->models.n;
}

void ep_authorize_init(struct ep_authorize *a, const struct ep_listener_config *c)
{
    *a = (struct ep_authorize){.rules = c->authorize.v, .n = c->authorize.n};
    for (size_t k = 0; k < a->n; k++) {
        a->any_allow |= a->rules[k].action == 0;
        a->needs_call |= ep_authorize_needs_call(&a->rules[k]);
    }
}

void ep_authorize_load(struct ep_authorize *a, const struct ep_filter_instance *i)
{
    const struct ep_listener_config *c = i->chain->config;

    ep_authorize_init(a, c);
    if (a->n && i->worker->stats) {
        a->allowed = ep_stats_cell(i->worker->stats, EP_METRIC_AUTHORIZE, EP_LABELS(c->name, EP_STR("allow")));
        a->denied = ep_stats_cell(i->worker->stats, EP_METRIC_AUTHORIZE, EP_LABELS(c->name, EP_STR("deny")));
    }
}

bool ep_chain_has(const struct ep_listener_config *c, struct ep_str name)
{
    const struct ep_filter_use *use = c->filters.v;

    if (c->filters.n == 0)
        return true; /* the default chain has all that ask this */
    for (size_t i = 0; i < c->filters.n; i++)
        if (ep_str_eq(use[i].name, name))
            return true;
    return false;
}

/* --- what a rule looks at --- */

static bool any_glob(const struct ep_vec *globs, struct ep_str value)
{
    const struct ep_str *g = globs->v;

    for (size_t i = 0; i < globs->n; i++)
        if (ep_str_glob(g[i], value))
            return true;
    return false;
}

static bool path_hits(const struct ep_authorize_config *r, struct ep_str path)
{
    ptrdiff_t query = ep_str_find(path, '?', 0);
    bool deny = r->action == 1;
    char buffer[PATH_MAX_BYTES];

    if (query >= 0)
        path.n = (size_t)query;
    bool written = any_glob(&r->paths, path);
    if (path.n > sizeof buffer)
        return deny ? true : false;
    if (written == deny)
        return written;
    return any_glob(&r->paths, ep_str_n(buffer, ep_path_meant(path, buffer)));
}

static bool host_hits(const struct ep_authorize_config *r, struct ep_str host)
{
    ptrdiff_t close = host.n && host.p[0] == '[' ? ep_str_find(host, ']', 0) : 0;
    ptrdiff_t colon = ep_str_find(host, ':', close > 0 ? (size_t)close : 0);
    char lower[256];

    if (colon >= 0)
        host.n = (size_t)colon;
    if (host.n > sizeof lower)
        return r->action == 1;
    for (size_t i = 0; i < host.n; i++)
        lower[i] = ep_lower(host.p[i]);
    return any_glob(&r->hosts, ep_str_n(lower, host.n));
}

/* A header given twice: a deny rule takes any of the values, an allow rule wants all. */
static bool headers_hit(const struct ep_authorize_config *r, const struct ep_headers *h)
{
    const struct ep_pair *wanted = r->headers.v;

    for (size_t k = 0; k < r->headers.n; k++) {
        bool any = false, all = true;
        for (uint32_t i = 0; i < h->n; i++) {
            if (!ep_str_caseeq(h->v[i].name, wanted[k].key))
                continue;
            bool hit = ep_str_glob(wanted[k].value, h->v[i].value);
            any |= hit;
            all &= hit;
        }
        if (!any || (!all && r->action == 0))
            return false;
    }
    return true;
}

static enum ep_authorize_why head_why(const struct ep_authorize_config *r, const struct ep_authorize_question *q)
{
    if (r->principals.n && (!q->principal.n || !any_glob(&r->principals, q->principal)))
        return EP_AUTHORIZE_PRINCIPAL; /* nobody is no principal, not even of "*" */
    if (r->methods.n && !any_glob(&r->methods, q->method))
        return EP_AUTHORIZE_METHOD;
    if (r->hosts.n && !host_hits(r, q->host))
        return EP_AUTHORIZE_HOST;
    if (r->headers.n && !headers_hit(r, q->headers))
        return EP_AUTHORIZE_HEADER;
    return r->paths.n && !path_hits(r, q->path) ? EP_AUTHORIZE_PATH : EP_AUTHORIZE_MATCHES;
}

static bool is_lifecycle(const struct ep_call *c)
{
    static const char *const methods[] = {"initialize", "ping", "tools/list", "server/discover"};

    if (!ep_str_eq(c->protocol, EP_STR("mcp")) || c->visible != EP_VISIBLE_FULL)
        return false;
    if (!c->method.n || ep_str_starts(c->method, EP_STR("notifications/")))
        return true; /* the stream and the end of a session, replies to the server */
    for (size_t i = 0; i < EP_COUNT(methods); i++)
        if (ep_str_eq(c->method, ep_str(methods[i])))
            return true;
    return false;
}

static bool is_unknown(const struct ep_call *c)
{
    return c->visible != EP_VISIBLE_FULL && (!c->protocol.n || ep_str_eq(c->protocol, EP_STR("http")));
}

static bool is_of_models(const struct ep_call *c)
{
    return ep_str_eq(c->protocol, EP_STR("openai")) || ep_str_eq(c->protocol, EP_STR("anthropic"));
}

/* A stored prompt brings a model that nobody sees here. */
static enum ep_authorize_why model_why(const struct ep_authorize_config *r, const struct ep_call *c)
{
    bool hidden = is_of_models(c) || (c->visible != EP_VISIBLE_FULL && is_unknown(c));

    if (c->model.n && c->visible == EP_VISIBLE_FULL)
        return any_glob(&r->models, c->model) ? EP_AUTHORIZE_MATCHES : EP_AUTHORIZE_MODEL;
    return hidden && r->action == 1 ? EP_AUTHORIZE_MATCHES : EP_AUTHORIZE_MODEL;
}

static enum ep_authorize_why tool_why(const struct ep_authorize_config *r, const struct ep_call *c)
{
    bool deny = r->action == 1;

    if (c->tool.n)
        return any_glob(&r->tools, c->tool) ? EP_AUTHORIZE_MATCHES : EP_AUTHORIZE_TOOL;
    /* gRPC and the like are known to name no tool; of an MCP or unknown body that wasn't read nobody knows. */
    if (c->visible != EP_VISIBLE_FULL && (is_unknown(c) || ep_str_eq(c->protocol, EP_STR("mcp"))))
        return deny ? EP_AUTHORIZE_MATCHES : EP_AUTHORIZE_TOOL;
    return !deny && is_lifecycle(c) ? EP_AUTHORIZE_MATCHES : EP_AUTHORIZE_TOOL;
}

static enum ep_authorize_why call_why(const struct ep_authorize_config *r, const struct ep_call *c)
{
    bool deny = r->action == 1;

    if (r->protocols.n) {
        if (is_unknown(c))
            return deny ? EP_AUTHORIZE_MATCHES : EP_AUTHORIZE_PROTOCOL;
        if (!any_glob(&r->protocols, c->protocol))
            return EP_AUTHORIZE_PROTOCOL;
    }
    if (r->tools.n && tool_why(r, c) != EP_AUTHORIZE_MATCHES)
        return EP_AUTHORIZE_TOOL;
    return r->models.n ? model_why(r, c) : EP_AUTHORIZE_MATCHES;
}

/* --- the verdict --- */

enum ep_authorize_why ep_authorize_rule(const struct ep_authorize_config *r, const struct ep_authorize_question *q,
                                        bool with_call)
{
    enum ep_authorize_why why = head_why(r, q);

    return why || !with_call || !ep_authorize_needs_call(r) ? why : call_why(r, q->call);
}

struct ep_authorize_verdict ep_authorize_judge(const struct ep_authorize *a, const struct ep_authorize_question *q,
                                               enum ep_authorize_phase phase)
{
    bool with_call = phase == EP_AUTHORIZE_CALL;

    for (size_t i = 0; i < a->n; i++) {
        const struct ep_authorize_config *r = &a->rules[i];
        if (r->action == 1 && (with_call || !ep_authorize_needs_call(r)) && ep_authorize_rule(r, q, with_call) == EP_AUTHORIZE_MATCHES)
            return (struct ep_authorize_verdict){true, (int)i};
    }
    if (!a->any_allow)
        return (struct ep_authorize_verdict){false, -1};
    for (size_t i = 0; i < a->n; i++) {
        const struct ep_authorize_config *r = &a->rules[i];
        if (r->action == 0 && ep_authorize_rule(r, q, with_call) == EP_AUTHORIZE_MATCHES)
            return (struct ep_authorize_verdict){false, (int)i};
    }
    return (struct ep_authorize_verdict){true, -1};
}

bool ep_authorize_denies(const struct ep_authorize *a, const struct ep_stream *s, const struct ep_call *call,
                         enum ep_authorize_phase phase)
{
    const struct ep_authorize_question q = {
        .principal = s->peer_id,
        .method = ep_stream_method(s),
        .host = ep_stream_authority(s),
        .path = ep_stream_path(s),
        .headers = &s->request.headers,
        .call = call,
    };

    return ep_authorize_judge(a, &q, phase).denied;
}

bool ep_authorize_check(struct ep_stream *s, const struct ep_authorize *a, enum ep_authorize_phase phase)
{
    bool last = phase == EP_AUTHORIZE_CALL || !a->needs_call, denied = false;
    const struct ep_call *c = &s->call, *asked;

    if (a->n == 0 || (phase == EP_AUTHORIZE_CALL && !a->needs_call))
        return true;
    do {
        denied = ep_authorize_denies(a, s, c, phase);
        asked = c;
        c = c->next;
    } while (!denied && c && phase == EP_AUTHORIZE_CALL);
    if (denied && a->denied)
        ep_cell_add(a->denied, 1);
    if (!denied && last && a->allowed)
        ep_cell_add(a->allowed, 1);
    if (denied)
        ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_UNAUTHORIZED,
                                                 .policy = EP_STR("authorize"),
                                                 .reason = s->peer_id.n
                                                               ? EP_STR("no rule allows this to the caller")
                                                               : EP_STR("no rule allows this to an unknown caller"),
                                                 .code = "authorize.denied",
                                                 .grpc_status = -1,
                                                 .call = phase == EP_AUTHORIZE_CALL ? asked : NULL});
    return !denied;
}
