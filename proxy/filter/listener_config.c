/* The schema of `listeners:`, of their routes and of `authorize:`, and the checks that a table can't say. Keys are
 * those of DESIGN.md section 5, limits those of section 17. */
#include "filter/listener_config.h"

#include "http/headers.h"

#define LISTENER(member)  offsetof(struct ep_listener_config, member)
#define ROUTE(member)     offsetof(struct ep_route_config, member)
#define MATCH(member)     offsetof(struct ep_match_config, member)
#define RETRY(member)     offsetof(struct ep_retry_config, member)
#define AUTHORIZE(member) offsetof(struct ep_authorize_config, member)

#define DAY (86400.0 * (double)EP_S)

static const char *const direction_names[] = {"auto", "inbound", "outbound", NULL};
static const char *const intercept_names[] = {"none", "redirect", "tproxy", NULL};
static const char *const tls_names[] = {"off", "simple", "permissive", "strict", NULL};
static const char *const protocol_names[] = {"auto", "h2", "http/1.1", "tcp", NULL};
static const char *const action_names[] = {"allow", "deny", NULL};
static const char *const retry_names[] = {"connect", "reset", "refused", "timeout", "5xx", "gateway-error"};

/* --- match --- */

static const struct ep_field match_fields[] = {
    {.key = "host",
     .type = EP_TYPE_STR,
     .offset = MATCH(host),
     .help = "Glob on the authority without its port; without it any."},
    {.key = "prefix",
     .type = EP_TYPE_STR,
     .offset = MATCH(prefix),
     .help = "Beginning of the path, up to a border of a segment: /mcp matches /mcp and /mcp/x, not /mcpx."},
    {.key = "path", .type = EP_TYPE_STR, .offset = MATCH(path), .help = "The whole path, without the query."},
    {.key = "method", .type = EP_TYPE_STR, .offset = MATCH(method), .help = "HTTP method; without it any."},
    {.key = "headers",
     .type = EP_TYPE_MAP,
     .offset = MATCH(headers),
     .help = "Headers that must be there: name to glob of the value."},
};

static void check_match(void *object, struct ep_checker *c)
{
    const struct ep_match_config *m = object;

    if (m->prefix.n && m->prefix.p[0] != '/')
        ep_check_error(c, object, "prefix", "must begin with /");
    if (m->path.n && m->path.p[0] != '/')
        ep_check_error(c, object, "path", "must begin with /");
    if (m->path.n && m->prefix.n)
        ep_check_error(c, object, "path", "give either path or prefix, not both");
    if (ep_str_find(m->host, ':', 0) >= 0 && ep_str_find(m->host, '[', 0) < 0)
        ep_check_error(c, object, "host", "is matched without the port: leave ':' and what follows out");
}

static const struct ep_schema match_schema =
    EP_SCHEMA("route.match", "What a request must look like; everything given must hold.", struct ep_match_config,
              match_fields, .check = check_match);

/* --- retry --- */

static const struct ep_field retry_fields[] = {
    {.key = "attempts",
     .type = EP_TYPE_INT,
     .offset = RETRY(attempts),
     .preset = "1",
     .min = 0,
     .max = 10,
     .help = "Tries after the first; 0: none."},
    {.key = "on",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = RETRY(on),
     .preset = "connect, refused",
     .help =
         "Failures to try again after: connect, reset, refused, timeout, 5xx, gateway-error, or a status such as 503."},
    {.key = "budget",
     .type = EP_TYPE_PERCENT,
     .offset = RETRY(budget),
     .preset = "20%",
     .min = 0,
     .max = 100,
     .help = "Share of the cluster's requests that may be retries; the cluster's own limit holds too."},
    {.key = "backoff",
     .type = EP_TYPE_DURATION,
     .offset = RETRY(backoff_ns),
     .preset = "25ms",
     .min = 0,
     .max = 60.0 * (double)EP_S,
     .help = "Base of the jittered, exponential pause before a retry."},
};

static bool retry_on_good(struct ep_str s)
{
    uint64_t status;

    for (size_t i = 0; i < EP_COUNT(retry_names); i++)
        if (ep_str_eq(s, ep_str(retry_names[i])))
            return true;
    return ep_str_u64(s, &status) && status >= 400 && status <= 599;
}

static void check_retry(void *object, struct ep_checker *c)
{
    const struct ep_retry_config *r = object;
    const struct ep_str *on = r->on.v;

    for (size_t i = 0; i < r->on.n; i++) {
        if (retry_on_good(on[i]))
            continue;
        const char *near = ep_nearest(on[i], retry_names, EP_COUNT(retry_names));
        ep_check_error(c, object, "on",
                       "'%.*s' is none of connect, reset, refused, timeout, 5xx, gateway-error or a "
                       "status from 400 to 599%s%s%s",
                       EP_STR_ARG(on[i]), near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
}

static const struct ep_schema retry_schema =
    EP_SCHEMA("route.retry", "When a request is tried again. Without it: once, where the upstream didn't process it.",
              struct ep_retry_config, retry_fields, .short_key = "attempts", .check = check_retry);

/* --- tenants --- */

static const struct ep_field tenant_fields[] = {
    {.key = "identity",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_tenant_config, identity),
     .preset = "spiffe://*/ns/{tenant}/sa/*",
     .help = "Pattern over the caller's verified SPIFFE ID: {tenant} is what is looked for, * any run; neither goes over a '/'."},
    {.key = "header",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_tenant_config, header),
     .help = "Header that is believed where the identity names no tenant. Without it none is: anybody can write a header."},
};

static void check_tenant(void *object, struct ep_checker *c)
{
    struct ep_tenant_config *t = object;
    const struct ep_str mark = EP_STR("{tenant}");
    ptrdiff_t at = ep_str_search(t->identity, mark), begin = at, end;
    char *lower = (char *)(uintptr_t)t->header.p; /* of the configuration's arena */

    for (size_t i = 0; i < t->header.n; i++)
        if (ep_lower(lower[i]) != lower[i])
            lower[i] = ep_lower(lower[i]);
    if (t->header.n && !ep_header_name_valid(t->header))
        ep_check_error(c, object, "header", "is no name of a header");
    if (!t->identity.n)
        return;
    if (at < 0 || ep_str_search(ep_str_n(t->identity.p + at + 1, t->identity.n - (size_t)at - 1), mark) >= 0) {
        ep_check_error(c, object, "identity", "must have {tenant} in it once");
        return;
    }
    if (!ep_str_starts(t->identity, EP_STR("spiffe://")))
        ep_check_error(c, object, "identity", "must begin with spiffe://");
    while (begin > 0 && t->identity.p[begin - 1] != '/')
        begin--;
    end = ep_str_find(t->identity, '/', (size_t)at);
    end = end < 0 ? (ptrdiff_t)t->identity.n : end;
    if (memchr(t->identity.p + begin, '*', (size_t)(end - begin)))
        ep_check_error(c, object, "identity", "can't have * beside {tenant}, without a '/' between them");
}

static const struct ep_schema tenant_schema = EP_SCHEMA("tenant", "Whose call it is.", struct ep_tenant_config,
                                                        tenant_fields, .check = check_tenant);

static const struct ep_field route_tenant_fields[] = {
    {.key = "identity",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_tenant_config, identity),
     .help = "Pattern over the caller's verified SPIFFE ID, as the listener's; without it the listener's own."},
    {.key = "header",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_tenant_config, header),
     .help = "Header that is believed on this route where the identity names no tenant. Without it none is, whatever the listener says."},
};

static const struct ep_schema route_tenant_schema =
    EP_SCHEMA("route.tenant", "Whose calls of a route they are, in place of what the listener says.", struct ep_tenant_config,
              route_tenant_fields, .check = check_tenant);

/* --- routes --- */

static const struct ep_field route_fields[] = {
    {.key = "match",
     .type = EP_TYPE_STRUCT,
     .offset = ROUTE(match),
     .sub = &match_schema,
     .help = "Which requests; without it all."},
    {.key = "cluster", .type = EP_TYPE_STR, .offset = ROUTE(cluster), .required = true, .help = "Where they go."},
    {.key = "timeout",
     .type = EP_TYPE_DURATION,
     .offset = ROUTE(timeout_ns),
     .preset = "0s",
     .max = DAY,
     .help = "Time for the whole request, to the end of the response; 0: none. Not for tunnels, and not for "
             "server-sent events once they have begun."},
    {.key = "idle_timeout",
     .type = EP_TYPE_DURATION,
     .offset = ROUTE(idle_timeout_ns),
     .preset = "5m",
     .max = DAY,
     .help = "Time without a byte either way on a stream; 0: none. Not for server-sent events."},
    {.key = "event_timeout",
     .type = EP_TYPE_DURATION,
     .offset = ROUTE(event_timeout_ns),
     .preset = "0s",
     .max = DAY,
     .help = "Time without a byte of a response that is server-sent events, before it is ended with an error; 0: none."},
    {.key = "per_try_timeout",
     .type = EP_TYPE_DURATION,
     .offset = ROUTE(per_try_timeout_ns),
     .preset = "0s",
     .max = DAY,
     .help = "Time of one try to the head of the response; 0: none."},
    {.key = "retry",
     .type = EP_TYPE_OPTIONAL,
     .offset = ROUTE(retry),
     .sub = &retry_schema,
     .help = "When a request is tried again."},
    {.key = "host_rewrite",
     .type = EP_TYPE_STR,
     .offset = ROUTE(host_rewrite),
     .help = "The authority that the upstream sees."},
    {.key = "prefix_rewrite",
     .type = EP_TYPE_STR,
     .offset = ROUTE(prefix_rewrite),
     .help = "What takes the place of match.prefix in the path."},
    {.key = "trust_headers",
     .type = EP_TYPE_BOOL,
     .offset = ROUTE(trust_headers),
     .preset = "false",
     .help =
         "Let policies go by Mcp-Method and the like without looking into the body; only for peers that are trusted."},
    {.key = "metadata",
     .type = EP_TYPE_JSON,
     .offset = ROUTE(metadata),
     .help = "What scripts read by metadata(): a mapping for each name of a lua filter, or for envoy.filters.http.lua."},
    {.key = "scripts",
     .type = EP_TYPE_MAP,
     .offset = ROUTE(scripts),
     .help = "Name of a lua filter to the name of the source that it runs on this route, or off."},
    {.key = "tenant",
     .type = EP_TYPE_OPTIONAL,
     .sub = &route_tenant_schema,
     .offset = ROUTE(tenant),
     .help = "Whose calls they are, where that is not what the listener says."},
};

static void check_route(void *object, struct ep_checker *c)
{
    const struct ep_route_config *r = object;

    if (r->prefix_rewrite.n && !r->match.prefix.n)
        ep_check_error(c, object, "prefix_rewrite", "needs match.prefix");
    if (r->prefix_rewrite.n && r->prefix_rewrite.p[0] != '/')
        ep_check_error(c, object, "prefix_rewrite", "must begin with /");
    if (r->timeout_ns && r->per_try_timeout_ns > r->timeout_ns)
        ep_check_warning(c, object, "per_try_timeout", "is longer than the timeout of the whole request");
}

const struct ep_schema ep_route_schema = EP_SCHEMA("route", "The first route that matches takes the request.",
                                                   struct ep_route_config, route_fields, .check = check_route);

/* --- authorize --- */

static const struct ep_field authorize_fields[] = {
    {.key = "action",
     .type = EP_TYPE_ENUM,
     .offset = AUTHORIZE(action),
     .preset = "allow",
     .names = action_names,
     .help = "deny rules are looked at first, then allow rules; where there is an allow rule, what none of them matches is refused."},
    {.key = "principals",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = AUTHORIZE(principals),
     .help = "SPIFFE IDs (globs) of callers, verified by mTLS; without it anybody."},
    {.key = "methods",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = AUTHORIZE(methods),
     .help = "HTTP methods (globs)."},
    {.key = "paths",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = AUTHORIZE(paths),
     .help = "Paths without query (globs)."},
    {.key = "hosts",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = AUTHORIZE(hosts),
     .help = "Authorities without port (globs)."},
    {.key = "headers",
     .type = EP_TYPE_MAP,
     .offset = AUTHORIZE(headers),
     .help = "Headers: name to glob of the value."},
    {.key = "protocols",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = AUTHORIZE(protocols),
     .help = "Protocols of the call (globs): mcp, a2a, grpc, http…"},
    {.key = "tools",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = AUTHORIZE(tools),
     .help = "Tools of the call (globs)."},
    {.key = "models",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = AUTHORIZE(models),
     .help = "Language models that the call asks (globs)."},
};

const struct ep_schema ep_authorize_schema =
    EP_SCHEMA("authorize", "A rule on who may call what; everything given must hold.", struct ep_authorize_config,
              authorize_fields, .check = NULL);

/* --- listeners --- */

static const struct ep_field listener_fields[] = {
    {.key = "name",
     .type = EP_TYPE_STR,
     .offset = LISTENER(name),
     .required = true,
     .help = "What metrics, logs and policies call it."},
    {.key = "bind",
     .type = EP_TYPE_ADDR,
     .offset = LISTENER(bind),
     .required = true,
     .help = "Numeric address with port, or unix:/path."},
    {.key = "direction",
     .type = EP_TYPE_ENUM,
     .offset = LISTENER(direction),
     .preset = "auto",
     .names = direction_names,
     .help = "inbound: to the app beside us; outbound: from it. auto: outbound when the name begins with outbound or "
             "egress."},
    {.key = "intercept",
     .type = EP_TYPE_ENUM,
     .offset = LISTENER(intercept),
     .preset = "none",
     .names = intercept_names,
     .help = "How connections are brought here against their will, so that the original destination is known."},
    {.key = "tls",
     .type = EP_TYPE_ENUM,
     .offset = LISTENER(tls),
     .preset = "off",
     .names = tls_names,
     .help = "off; simple: a server certificate only; permissive: plain text or mTLS; strict: mTLS only."},
    {.key = "protocol",
     .type = EP_TYPE_ENUM,
     .offset = LISTENER(protocol),
     .preset = "auto",
     .names = protocol_names,
     .help = "auto: by the first bytes; tcp: opaque, without looking."},
    {.key = "proxy_protocol",
     .type = EP_TYPE_BOOL,
     .offset = LISTENER(proxy_protocol),
     .preset = "false",
     .help = "Each connection begins with a PROXY v2 header."},
    {.key = "cluster",
     .type = EP_TYPE_STR,
     .offset = LISTENER(cluster),
     .help = "Short for one route that takes everything; comes after `routes`."},
    {.key = "routes",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STRUCT,
     .sub = &ep_route_schema,
     .offset = LISTENER(routes),
     .help = "Where requests go; the first that matches."},
    {.key = "authorize",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STRUCT,
     .sub = &ep_authorize_schema,
     .offset = LISTENER(authorize),
     .help = "Who may call; without rules everybody who gets in."},
    {.key = "tenant",
     .type = EP_TYPE_STRUCT,
     .sub = &tenant_schema,
     .offset = LISTENER(tenant),
     .help = "Whose calls they are: by the caller's identity, and by a header only where it is named here."},
    {.key = "mcp",
     .type = EP_TYPE_STRUCT,
     .sub = &ep_mcp_schema,
     .offset = LISTENER(mcp),
     .help = "Model Context Protocol: lists of tools, and pins of their definitions."},
    {.key = "filters",
     .type = EP_TYPE_FILTERS,
     .offset = LISTENER(filters),
     .help =
         "The filters in order, the router is implied; without it: identity, agent, constitution, policies, mcp, "
         "chaos, meter."},
    {.key = "headers_timeout",
     .type = EP_TYPE_DURATION,
     .offset = LISTENER(headers_timeout_ns),
     .preset = "10s",
     .min = (double)EP_MS,
     .max = DAY,
     .help = "Time for the whole head of a request."},
    {.key = "idle_timeout",
     .type = EP_TYPE_DURATION,
     .offset = LISTENER(idle_timeout_ns),
     .preset = "5m",
     .min = (double)EP_MS,
     .max = DAY,
     .help = "Time after which a connection without a stream is closed."},
    {.key = "handshake_timeout",
     .type = EP_TYPE_DURATION,
     .offset = LISTENER(handshake_timeout_ns),
     .preset = "5s",
     .min = (double)EP_MS,
     .max = DAY,
     .help = "Time for the TLS handshake."},
    {.key = "sniff_timeout",
     .type = EP_TYPE_DURATION,
     .offset = LISTENER(sniff_timeout_ns),
     .preset = "10s",
     .min = (double)EP_MS,
     .max = DAY,
     .help = "Time for the first bytes, by which the protocol is known."},
    {.key = "stream_idle_timeout",
     .type = EP_TYPE_DURATION,
     .offset = LISTENER(stream_idle_timeout_ns),
     .preset = "5m",
     .max = DAY,
     .help = "Time without a byte on a stream, for `cluster:`; routes have their own. 0: none."},
    {.key = "request_timeout",
     .type = EP_TYPE_DURATION,
     .offset = LISTENER(request_timeout_ns),
     .preset = "0s",
     .max = DAY,
     .help = "Time for a whole request, for `cluster:`; routes have their own. 0: none."},
    {.key = "max_body",
     .type = EP_TYPE_SIZE,
     .offset = LISTENER(max_body_bytes),
     .preset = "1MiB",
     .max = 1u << 30,
     .help = "What filters may hold of a body; a longer one is refused where they need it whole. Others pass in any "
             "length."},
    {.key = "max_connections",
     .type = EP_TYPE_INT,
     .offset = LISTENER(max_connections),
     .preset = "50000",
     .min = 1,
     .max = 1e6,
     .help = "Connections open at once, for each worker."},
    {.key = "max_streams",
     .type = EP_TYPE_INT,
     .offset = LISTENER(max_streams),
     .preset = "256",
     .min = 1,
     .max = 1e6,
     .help = "HTTP/2 streams open at once on a connection."},
    {.key = "max_header_bytes",
     .type = EP_TYPE_SIZE,
     .offset = LISTENER(max_header_bytes),
     .preset = "64KiB",
     .min = 1024,
     .max = 1u << 20,
     .help = "All headers of a message together."},
    {.key = "max_header_count",
     .type = EP_TYPE_INT,
     .offset = LISTENER(max_header_count),
     .preset = "100",
     .min = 8,
     .max = 10000,
     .help = "Headers of a message."},
    {.key = "server_timing",
     .type = EP_TYPE_BOOL,
     .offset = LISTENER(server_timing),
     .preset = "false",
     .help = "Answer with server-timing: ephor;dur=…"},
};

static bool uses(const struct ep_listener_config *l, const char *filter)
{
    const struct ep_filter_use *v = l->filters.v;

    for (size_t i = 0; i < l->filters.n; i++)
        if (ep_str_eq(v[i].name, ep_str(filter)))
            return true;
    return false;
}

static void check_listener(void *object, struct ep_checker *c)
{
    const struct ep_listener_config *l = object;
    struct ep_route_config *r = l->routes.v;

    if (l->name.n == 0 || l->name.n > 64)
        ep_check_error(c, object, "name", "a name has 1 to 64 bytes");
    if (!l->cluster.n && !l->routes.n)
        ep_check_error(c, object, "cluster", "say where requests go: cluster, or routes");
    if (l->bind.u.sa.sa_family == AF_UNIX && (l->intercept != EP_INTERCEPT_NONE || l->proxy_protocol))
        ep_check_error(c, object, l->proxy_protocol ? "proxy_protocol" : "intercept", "is not for a Unix socket");
    if (l->intercept != EP_INTERCEPT_NONE && l->proxy_protocol)
        ep_check_error(c, object, "proxy_protocol", "an intercepted connection has no PROXY header");
    if (l->authorize.n && l->filters.n && !uses(l, "identity") && !uses(l, "agent"))
        ep_check_error(c, object, "authorize", "the filters of this listener judge nobody: add identity, or agent");
    for (size_t i = 0; i < l->routes.n; i++) {
        if (r[i].scripts.n && !uses(l, "lua"))
            ep_check_error(c, &r[i], "scripts", "the listener has no filter 'lua' whose scripts a route could choose");
        if (r[i].tenant && l->filters.n && !uses(l, "agent"))
            ep_check_error(c, &r[i], "tenant", "the listener has no filter 'agent', which finds it");
    }
    if (l->protocol == EP_LISTENER_TCP && l->authorize.n)
        ep_check_warning(c, object, "protocol", "of opaque bytes only the principal is seen by authorize");
}

const struct ep_schema ep_listener_schema =
    EP_SCHEMA("listener", "A port that ephor accepts on, and what happens to what comes.", struct ep_listener_config,
              listener_fields, .check = check_listener);
