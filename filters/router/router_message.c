/* The router's smaller parts: bodies, headers towards the upstream, what may be retried. */
#include <stdlib.h>

#include "filter/charter.h"
#include "filter/egress.h"
#include "observe/observe.h"
#include "router/router.h"

void router_send_body(struct router *r)
{
    struct ep_stream *s = r->stream;
    struct ep_leg *up = s->up;
    bool trailers = s->request.has_trailers;

    if (!up || up->over || r->ended_sent)
        return;
    while (r->held.count) {
        struct ep_slice slice = ep_slice_ref(*ep_body_front(&r->held));
        bool last;

        ep_body_drop(&r->held, slice.n);
        last = r->request_ended && r->held.count == 0 && !trailers;
        r->ended_sent |= last;
        up->ops->data(up, slice, last);
    }
    if (!r->request_ended || r->ended_sent)
        return;
    r->ended_sent = true;
    if (trailers)
        up->ops->trailers(up, &s->request.trailers);
    else
        up->ops->data(up, (struct ep_slice){NULL, NULL, 0}, true);
}

static bool idempotent(struct ep_str method) /* RFC 9110 section 9.2.2 */
{
    return ep_str_eq(method, EP_STR("GET")) || ep_str_eq(method, EP_STR("HEAD")) || ep_str_eq(method, EP_STR("OPTIONS")) ||
           ep_str_eq(method, EP_STR("PUT")) || ep_str_eq(method, EP_STR("DELETE")) || ep_str_eq(method, EP_STR("TRACE"));
}

static bool listed(const struct ep_retry_config *c, const char *what)
{
    const struct ep_str *on = c->on.v;

    for (size_t i = 0; i < c->on.n; i++)
        if (ep_str_eq(on[i], ep_str(what)))
            return true;
    return false;
}

static bool status_listed(const struct ep_retry_config *c, unsigned status)
{
    char text[16];

    snprintf(text, sizeof text, "%u", status);
    return listed(c, text) || (status >= 500 && listed(c, "5xx")) ||
           (status >= 502 && status <= 504 && listed(c, "gateway-error"));
}

bool router_may_retry(const struct router *r, enum router_failure why, unsigned status)
{
    const struct ep_retry_config *c = r->route->config->retry;
    bool unsent = why == ROUTER_CONNECT || why == ROUTER_REFUSED; /* the upstream has seen nothing of it */
    int64_t attempts = c ? c->attempts : 1;

    if ((int64_t)r->retries >= attempts)
        return false;
    if (why != ROUTER_CONNECT && !r->replay_whole)
        return false; /* the body is gone */
    if (unsent && (!c || c->on.n == 0))
        return true;
    /* A reused connection that dies before an answer was most likely closed while idle. */
    if (!c || c->on.n == 0)
        return why == ROUTER_RESET && r->unanswered && !r->call.new_connection && idempotent(ep_stream_method(r->stream));
    switch (why) {
    case ROUTER_CONNECT:
        return listed(c, "connect") || listed(c, "connect-failure");
    case ROUTER_REFUSED:
        return listed(c, "refused") || listed(c, "refused-stream") || listed(c, "connect");
    case ROUTER_RESET:
        return listed(c, "reset") && r->unanswered && idempotent(ep_stream_method(r->stream));
    case ROUTER_TIMEOUT:
        return listed(c, "timeout") && idempotent(ep_stream_method(r->stream));
    case ROUTER_STATUS:
        return status_listed(c, status) && idempotent(ep_stream_method(r->stream));
    }
    return false;
}

uint64_t router_backoff_ns(struct router *r)
{
    uint64_t base = r->route->config->retry ? r->route->config->retry->backoff_ns : 25 * EP_MS;
    uint64_t most = base << EP_MIN(r->retries, 6u);

    return base ? 1 + ep_rng_below(&r->stream->worker->rng, most) : 1;
}

void router_count_retry(struct router *r, const char *result)
{
    ep_stats_add(r->stream->worker->stats, EP_METRIC_RETRIES, EP_LABELS(r->stream->cluster_name, ep_str(result)), 1);
}

void router_prepare_headers(struct router *r, const struct ep_tls_info *tls)
{
    struct ep_stream *s = r->stream;
    const struct ep_route_config *c = r->route->config;
    struct ep_headers *h = &s->request.headers;

    if (r->mended)
        return;
    r->mended = true;
    if (c->host_rewrite.n)
        ep_headers_set_id(h, EP_HDR_AUTHORITY, c->host_rewrite);
    if (c->prefix_rewrite.n && c->match.prefix.n) {
        struct ep_str path = ep_stream_path(s);
        if (ep_str_starts(path, c->match.prefix)) {
            struct ep_str rest = ep_str_n(path.p + c->match.prefix.n, path.n - c->match.prefix.n);
            ep_headers_set_id(h, EP_HDR_PATH,
                              ep_arena_printf(&s->arena, "%.*s%.*s", EP_STR_ARG(c->prefix_rewrite), EP_STR_ARG(rest)));
        }
    }
    /* Between ephors everything rides h2: the other end restores what the app spoke (DESIGN.md section 10). */
    if (s->direction == EP_OUTBOUND && tls && tls->peer_id.n && s->down->version != EP_HTTP_2 && s->down->version != EP_HTTP_TCP)
        ep_headers_set_id(h, EP_HDR_X_EPHOR_PROTOCOL, EP_STR("http/1.1"));
    else
        ep_headers_remove_id(h, EP_HDR_X_EPHOR_PROTOCOL);
    if (s->view->constitution_config && s->view->constitution_config->charter) {
        if (s->direction == EP_OUTBOUND && tls && tls->peer_id.n)
            ep_headers_set_id(h, EP_HDR_X_EPHOR_CONSTITUTION, s->view->constitution_config->charter->digest);
        else
            ep_headers_remove_id(h, EP_HDR_X_EPHOR_CONSTITUTION);
    }
}

/* What the client of the first hop spoke: in kind is how `protocol: auto` answers. */
static enum ep_http_version spoken(const struct ep_stream *s)
{
    struct ep_str said = ep_headers_get_id(&s->request.headers, EP_HDR_X_EPHOR_PROTOCOL);

    if (said.n && s->peer_id.n) /* the identity filter strips it from anybody else */
        return EP_HTTP_1_1;
    return s->down->version;
}

void router_fill_call(struct router *r, struct ep_cluster *cluster)
{
    struct ep_stream *s = r->stream;

    memset(&r->call, 0, sizeof r->call);
    r->call.cluster = cluster;
    r->call.downstream_version = spoken(s);
    r->call.tunnel = s->down->version == EP_HTTP_TCP;
    r->call.websocket = s->tunnel && ep_headers_find_id(&s->request.headers, EP_HDR_PROTOCOL);
    r->call.server_name = ep_stream_authority(s);
    r->call.override = s->upstream_override;
    if (s->down->conn && s->down->conn->original.len)
        r->call.original = &s->down->conn->original;
    if (EP_LIKELY(!r->origin))
        return;
    r->call.origin = r->origin;
    r->call.server_name = r->origin_host;
    if (r->origin_address)
        r->call.original = r->origin_address;
}

void router_find_origin(struct router *r)
{
    struct ep_stream *s = r->stream;
    struct ep_tls_origin *origin;
    uint16_t port;

    if (!ep_egress_origin(s, &origin, &r->origin_host, &port))
        return;
    r->origin = ep_tls_origin_ref(origin);
    if (port && s->down->conn && s->down->conn->original.len) {
        struct ep_addr *to = EP_ARENA_NEW(&s->arena, struct ep_addr);
        *to = s->down->conn->original;
        ep_addr_set_port(to, port);
        r->origin_address = to;
    }
}

bool router_is_long(const struct ep_stream *s)
{
    struct ep_str accept = ep_headers_get_id(&s->request.headers, EP_HDR_ACCEPT);

    return s->tunnel || ep_str_casestarts(ep_headers_get_id(&s->request.headers, EP_HDR_CONTENT_TYPE), EP_STR("application/grpc")) ||
           (accept.n && ep_str_search(accept, EP_STR("text/event-stream")) >= 0);
}

void router_server_timing(struct ep_stream *s, struct ep_headers *h)
{
    uint64_t up = s->worker->now_ns - s->time.upstream_sent, total = s->worker->now_ns - s->time.accepted;

    ep_headers_add_id(h, EP_HDR_SERVER_TIMING,
                      ep_arena_printf(&s->arena, "ephor;dur=%.3f", (double)(total > up ? total - up : 0) / 1e6));
}
