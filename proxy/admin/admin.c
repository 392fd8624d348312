/* The two listeners and what every request passes: is there such a path, may this caller do that.
 *
 * A web page that someone in the pod looks at must not reach us: its requests carry a foreign Host when its name was
 * rebound to our address, and an Origin when it posts. */
#include "admin/admin.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "admin/private.h"
#include "config/binds.h"

#define CONNECTIONS_MAX 256u
#define BODY_MAX        (64u << 10) /* nothing takes one; what is sent is read and dropped */
#define END_ROUNDS      64

struct port {
    struct ep_listener listener;
    struct ep_admin *admin;
    bool metrics;
};

struct ep_admin {
    struct ep_server *server;
    struct ep_http_options http;
    struct port ports[2];
};

/* --- answering --- */

void ep_admin_reply(struct ep_exchange *x, unsigned status, const char *content_type, struct ep_str body)
{
    struct ep_headers *h = &x->response;
    struct ep_slab *slab;
    char number[24];
    bool head = ep_str_eq(x->method, EP_STR("HEAD"));

    if (x->answered || x->leg->over)
        return;
    x->answered = true;
    ep_headers_init(h, &x->arena);
    snprintf(number, sizeof number, "%u", status);
    ep_headers_add_id(h, EP_HDR_STATUS, ep_str(number));
    ep_headers_add(h, EP_STR("content-type"), ep_str(content_type));
    snprintf(number, sizeof number, "%zu", body.n);
    ep_headers_add(h, EP_STR("content-length"), ep_str(number));
    ep_headers_add(h, EP_STR("cache-control"), EP_STR("no-store"));
    ep_headers_add(h, EP_STR("x-content-type-options"), EP_STR("nosniff"));
    if (head || body.n == 0) {
        x->leg->ops->headers(x->leg, h, true);
        return;
    }
    x->leg->ops->headers(x->leg, h, false);
    slab = ep_slab_new_sized(&ep_server_main(x->server)->slabs, body.n);
    memcpy(slab->data, body.p, body.n);
    x->leg->ops->data(x->leg, (struct ep_slice){slab, slab->data, body.n}, true);
}

void ep_admin_reply_json(struct ep_exchange *x, unsigned status, struct ep_json *json)
{
    char *text = ep_arena_alloc(&x->arena, json->n + 1);

    memcpy(text, json->p, json->n);
    text[json->n] = '\n'; /* for those who read it in a terminal */
    ep_admin_reply(x, status, "application/json", ep_str_n(text, json->n + 1));
    ep_json_fini(json);
}

void ep_admin_say(struct ep_exchange *x, unsigned status, const char *format, ...)
{
    struct ep_error text;
    struct ep_json j;
    va_list ap;

    va_start(ap, format);
    vsnprintf(text.text, sizeof text.text, format, ap);
    va_end(ap);
    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_kstr(&j, status < 400 ? "result" : "error", ep_str(text.text));
    ep_json_object_end(&j);
    ep_admin_reply_json(x, status, &j);
}

struct ep_str ep_admin_query(const struct ep_exchange *x, const char *key)
{
    struct ep_str rest = x->query, part, wanted = ep_str(key);

    while (ep_str_next(&rest, '&', &part))
        if (part.n > wanted.n && part.p[wanted.n] == '=' && ep_str_starts(part, wanted))
            return ep_str_n(part.p + wanted.n + 1, part.n - wanted.n - 1);
    return (struct ep_str){NULL, 0};
}

void ep_admin_caller(const struct ep_exchange *x, char out[128])
{
    char address[128];

    ep_addr_format(&x->leg->conn->peer, address);
    snprintf(out, 128, "admin %.120s", address);
}

/* --- who may --- */

static bool loopback(const struct ep_addr *a)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)&a->u;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)&a->u;

    switch (a->u.sa.sa_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return (ntohl(four->sin_addr.s_addr) >> 24) == 127;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&six->sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr) && six->sin6_addr.s6_addr[12] == 127);
    default:
        return false;
    }
}

/* The Host must be a name that only this machine goes by, or the very address that was dialled. */
static bool host_good(const struct ep_exchange *x)
{
    struct ep_str host = x->authority;
    char local[INET6_ADDRSTRLEN + 2] = "";
    const struct ep_addr *a = &x->leg->conn->local;
    bool bracket = host.n && host.p[0] == '[';
    ptrdiff_t colon = ep_str_find(host, ':', bracket ? (size_t)EP_MAX(ep_str_find(host, ']', 0), (ptrdiff_t)0) : 0);

    if (colon >= 0)
        host.n = (size_t)colon;
    if (ep_str_caseeq(host, EP_STR("localhost")) || ep_str_eq(host, EP_STR("127.0.0.1")) ||
        ep_str_eq(host, EP_STR("[::1]")))
        return true;
    if (a->u.sa.sa_family == AF_UNIX)
        return true;
    if (a->u.sa.sa_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)&a->u)->sin_addr, local, sizeof local);
    } else if (a->u.sa.sa_family == AF_INET6) {
        char text[INET6_ADDRSTRLEN] = "";
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)&a->u)->sin6_addr, text, sizeof text);
        snprintf(local, sizeof local, ep_str_starts(ep_str(text), EP_STR("::ffff:")) ? "%s" : "[%s]",
                 ep_str_starts(ep_str(text), EP_STR("::ffff:")) ? text + 7 : text);
    }
    return local[0] && ep_str_eq(host, ep_str(local));
}

static bool may_change(struct ep_exchange *x)
{
    struct ep_str token = ep_server_config(x->server)->admin.token, given = x->authorization;

    if (x->origin.p) {
        ep_admin_say(x, 403, "a browser's page may change nothing here");
        return false;
    }
    if (token.n) {
        if (ep_str_casestarts(given, EP_STR("bearer ")) && ep_str_equal_ct(ep_str_n(given.p + 7, given.n - 7), token))
            return true;
        ep_admin_say(x, 401, "authorization: Bearer with the token of admin.token is needed");
        return false;
    }
    if (loopback(&x->leg->conn->local))
        return true;
    ep_admin_say(x, 403, "without an admin.token changes are taken over loopback only");
    return false;
}

static void answer(struct ep_exchange *x)
{
    bool read = ep_str_eq(x->method, EP_STR("GET")) || ep_str_eq(x->method, EP_STR("HEAD"));
    const char *allowed = NULL;

    if (!x->metrics && !host_good(x)) {
        ep_admin_say(x, 421, "this Host is not ours");
        return;
    }
    for (size_t i = 0; i < ep_admin_endpoints_n; i++) {
        const struct ep_endpoint_row *e = &ep_admin_endpoints[i];
        bool changes = strcmp(e->method, "POST") == 0;
        if (!ep_str_eq(x->path, ep_str(e->path)) || (x->metrics && !e->metrics))
            continue;
        allowed = e->method;
        if (changes ? !ep_str_eq(x->method, EP_STR("POST")) : !read)
            continue;
        if (!changes || may_change(x))
            e->answer(x);
        return;
    }
    if (allowed)
        ep_admin_say(x, 405, "this is for %s", allowed);
    else
        ep_admin_say(x, 404, "there is no such path; / lists them");
}

/* --- the leg --- */

static void on_release(struct ep_task *t)
{
    struct ep_exchange *x = EP_CONTAINER(t, struct ep_exchange, release);

    x->leg->ops->release(x->leg);
    ep_headers_fini(&x->response);
    ep_arena_fini(&x->arena);
    free(x);
}

static void over(struct ep_leg *l)
{
    struct ep_exchange *x = l->owner;

    ep_worker_defer(ep_server_main(x->server), &x->release);
}

static void on_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct ep_exchange *x = l->owner;
    struct ep_str path = ep_headers_get_id(h, EP_HDR_PATH);
    ptrdiff_t mark = ep_str_find(path, '?', 0);

    x->method = ep_headers_get_id(h, EP_HDR_METHOD);
    x->path = mark < 0 ? path : ep_str_n(path.p, (size_t)mark);
    x->query = mark < 0 ? (struct ep_str){NULL, 0} : ep_str_n(path.p + mark + 1, path.n - (size_t)mark - 1);
    x->authority = ep_headers_get_id(h, EP_HDR_AUTHORITY);
    x->authorization = ep_headers_get(h, EP_STR("authorization"));
    x->origin = ep_headers_get(h, EP_STR("origin"));
    if (end)
        answer(x);
}

static void on_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    l->ops->consumed(l, s.n);
    if (end)
        answer(l->owner);
}

static void on_trailers(struct ep_leg *l, struct ep_headers *h)
{
    (void)h;
    answer(l->owner);
}

static void on_sent(struct ep_leg *l, size_t n)
{
    (void)l, (void)n;
}

static void on_reset(struct ep_leg *l, enum ep_reset why)
{
    (void)why;
    over(l);
}

static const struct ep_leg_events leg_events = {
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_sent = on_sent,
    .on_message_sent = over,
    .on_reset = on_reset,
};

static bool on_request(void *user, struct ep_leg *l)
{
    struct port *p = user;
    struct ep_exchange *x = ep_calloc(1, sizeof *x);

    x->admin = p->admin;
    x->server = p->admin->server;
    x->metrics = p->metrics;
    x->leg = l;
    ep_arena_init(&x->arena, &ep_server_main(x->server)->chunks);
    ep_task_init(&x->release, on_release);
    l->events = &leg_events;
    l->owner = x;
    l->arena = &x->arena;
    return true;
}

static void on_refused(void *user, struct ep_conn *c, unsigned status, const char *reason)
{
    (void)user, (void)c;
    ep_debug("admin", "refused: %u %s", status, reason);
}

static void on_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    struct port *p = user;

    (void)c, (void)why;
    p->listener.n_connections--;
}

static const struct ep_acceptor acceptor = {.on_request = on_request, .on_refused = on_refused, .on_closed = on_closed};

/* --- the listeners --- */

static struct ep_tls_context *no_tls(struct ep_listener *l, struct ep_conn *c, const struct ep_client_hello *hello)
{
    (void)l, (void)c, (void)hello;
    return NULL;
}

static bool plain(struct ep_listener *l, struct ep_conn *c)
{
    (void)l, (void)c;
    return true;
}

static void not_http_closed(struct ep_conn *c, enum ep_close why)
{
    struct port *p = c->user;

    (void)why;
    p->listener.n_connections--;
}

static void drop_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    (void)c, (void)slab, (void)p, (void)n;
}

static const struct ep_conn_handler not_http = {.name = "not-http", .on_data = drop_data, .on_closed = not_http_closed};

static void on_protocol(struct ep_listener *l, struct ep_conn *c, enum ep_sniff what, struct ep_slab *slab,
                        const unsigned char *first, size_t n)
{
    struct port *p = EP_CONTAINER(l, struct port, listener);

    if (what == EP_SNIFF_HTTP1) {
        ep_h1_serve(c, &p->admin->http, &acceptor, p, slab, first, n);
        return;
    }
    ep_conn_set_handler(c, &not_http, p);
    ep_conn_abort(c, EP_CLOSE_LOCAL, false);
}

static void on_listener_refused(struct ep_listener *l, const char *reason)
{
    (void)l;
    ep_debug("admin", "connection refused: %s", reason);
}

static const struct ep_listener_ops listener_ops = {
    .tls_context = no_tls,
    .plaintext_allowed = plain,
    .on_protocol = on_protocol,
    .on_refused = on_listener_refused,
};

static bool open_port(struct ep_admin *a, struct port *p, const struct ep_addr *bind, bool metrics,
                      struct ep_error *err)
{
    struct ep_listener_options o = {
        .bind = *bind,
        .max_connections = CONNECTIONS_MAX,
        .sniff_timeout_ns = 10 * EP_S,
        .handshake_timeout_ns = 5 * EP_S,
    };

    p->admin = a;
    p->metrics = metrics;
    p->listener.fd = -1;
    if (ep_bind_free(bind, err) &&
        ep_listener_init(&p->listener, ep_server_main(a->server), &o, &listener_ops, p, -1, err))
        return true;
    return ep_error_prefix(err, metrics ? "admin.metrics" : "admin.bind");
}

struct ep_admin *ep_admin_new(struct ep_server *server, struct ep_error *err)
{
    const struct ep_admin_config *c = &ep_server_config(server)->admin;
    struct ep_admin *a = ep_calloc(1, sizeof *a);

    a->server = server;
    ep_http_options_preset(&a->http);
    a->ports[1].listener.fd = -1;
    if (!open_port(a, &a->ports[0], &c->bind, false, err) || !open_port(a, &a->ports[1], &c->metrics, true, err)) {
        ep_admin_free(a);
        return NULL;
    }
    if (!c->token.n && !loopback(&c->bind))
        ep_warn("admin",
                "admin.bind is not on loopback and there is no admin.token: changes are refused from elsewhere");
    return a;
}

void ep_admin_free(struct ep_admin *a)
{
    struct ep_worker *w;

    if (!a)
        return;
    w = ep_server_main(a->server);
    for (size_t i = 0; i < EP_COUNT(a->ports); i++)
        if (a->ports[i].listener.fd >= 0)
            ep_listener_stop(&a->ports[i].listener);
    /* Everything that is connected to the main thread came through us. */
    for (int round = 0; round < END_ROUNDS && !ep_list_empty(&w->conns); round++) {
        EP_LIST_FOREACH (n, &w->conns)
            ep_conn_abort(EP_CONTAINER(n, struct ep_conn, node), EP_CLOSE_LOCAL, false);
        ep_worker_turn(w, false);
    }
    ep_worker_turn(w, false); /* releases */
    free(a);
}
