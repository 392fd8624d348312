/* The admin server: see admin.h. */
#include "admin/admin.h"

#include <stdlib.h>

#include "admin/private.h"
#include "http/http.h"

struct door { /* one address */
    struct ep_listener listener; /* first */
    struct ep_admin *admin;
    bool metrics_only;
    bool open;
};

struct ep_admin {
    struct ep_server *server;
    struct ep_worker *worker;
    struct ep_http_options http;
    struct door doors[2];
};

struct exchange {
    struct ep_leg *leg;
    struct door *door;
    struct ep_arena arena;
    struct ep_headers in, trailers, out;
    struct ep_task task;
    bool answered;
};

/* --- who may --- */

static struct ep_str host_only(struct ep_str authority)
{
    ptrdiff_t end = authority.n && authority.p[0] == '[' ? ep_str_find(authority, ']', 0) : -1;
    ptrdiff_t colon = ep_str_find(authority, ':', end > 0 ? (size_t)end : 0);

    return colon >= 0 ? ep_str_n(authority.p, (size_t)colon) : authority;
}

static bool is_loopback(const struct ep_addr *a)
{
    struct ep_cidr v4, v6;

    ep_cidr_parse(EP_STR("127.0.0.0/8"), &v4);
    ep_cidr_parse(EP_STR("::1"), &v6);
    return a->u.sa.sa_family == AF_UNIX || ep_cidr_contains(&v4, a) || ep_cidr_contains(&v6, a);
}

/* A page in a browser that had its own name resolve to us sends that name as Host. Addresses can't be rebound. */
static bool host_allowed(struct ep_str authority)
{
    struct ep_str host = host_only(authority);
    struct ep_cidr number;

    if (host.n >= 2 && host.p[0] == '[')
        host = ep_str_n(host.p + 1, host.n - 2);
    return ep_str_caseeq(host, EP_STR("localhost")) || ep_cidr_parse(host, &number);
}

static bool may_change(const struct exchange *x)
{
    const struct ep_admin_config *config = &ep_server_config(x->door->admin->server)->admin;
    struct ep_str given = ep_headers_get(&x->in, EP_STR("authorization"));

    if (!config->token.n)
        return x->leg->conn && is_loopback(&x->leg->conn->local);
    return ep_str_casestarts(given, EP_STR("Bearer ")) &&
           ep_str_equal_ct(ep_str_trim(ep_str_n(given.p + 7, given.n - 7)), config->token);
}

/* --- answering --- */

static void send_answer(struct exchange *x, unsigned status, const char *type, struct ep_str body)
{
    struct ep_leg *l = x->leg;
    bool none = l->head_request || body.n == 0;

    x->answered = true;
    ep_headers_init(&x->out, &x->arena);
    ep_headers_append(&x->out, EP_HDR_STATUS, EP_STR(":status"), ep_arena_printf(&x->arena, "%03u", status));
    ep_headers_add_id(&x->out, EP_HDR_CONTENT_TYPE, ep_str(type));
    ep_headers_add_id(&x->out, EP_HDR_CONTENT_LENGTH, ep_arena_printf(&x->arena, "%zu", body.n));
    ep_headers_add_id(&x->out, EP_HDR_CACHE_CONTROL, EP_STR("no-store"));
    ep_headers_add(&x->out, EP_STR("x-content-type-options"), EP_STR("nosniff"));
    l->ops->headers(l, &x->out, none);
    if (none) {
        ep_worker_defer(x->door->admin->worker, &x->task);
        return;
    }
    struct ep_slab *slab = ep_slab_new_sized(&x->door->admin->worker->slabs, body.n);
    memcpy(slab->data, body.p, body.n);
    l->ops->data(l, (struct ep_slice){slab, slab->data, body.n}, true);
}

static void answer_error(struct exchange *x, unsigned status, const char *why)
{
    struct ep_json j;

    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_kstr(&j, "error", ep_str(why));
    ep_json_object_end(&j);
    send_answer(x, status, "application/json", ep_json_text(&j));
    ep_json_fini(&j);
}

static void answer(struct exchange *x)
{
    struct ep_str target = ep_headers_get_id(&x->in, EP_HDR_PATH), method = ep_headers_get_id(&x->in, EP_HDR_METHOD);
    ptrdiff_t mark = ep_str_find(target, '?', 0);
    struct ep_admin_call call = {
        .server = x->door->admin->server,
        .path = mark >= 0 ? ep_str_n(target.p, (size_t)mark) : target,
        .query = mark >= 0 ? ep_str_n(target.p + mark + 1, target.n - (size_t)mark - 1) : (struct ep_str){NULL, 0},
        .post = ep_str_eq(method, EP_STR("POST")),
        .status = 200,
        .type = "application/json",
    };
    const struct ep_endpoint_row *row = NULL;

    if (x->answered)
        return;
    if (!x->door->metrics_only && !host_allowed(ep_headers_get_id(&x->in, EP_HDR_AUTHORITY))) {
        answer_error(x, 403, "the Host header names neither an address nor localhost");
        return;
    }
    for (size_t i = 0; i < ep_admin_n_endpoints; i++)
        if (ep_str_eq(call.path, ep_str(ep_admin_endpoints[i].path)) &&
            (!x->door->metrics_only || ep_admin_endpoints[i].on_metrics))
            row = &ep_admin_endpoints[i];
    if (!row) {
        answer_error(x, 404, "no such endpoint; GET / lists them");
        return;
    }
    if (call.post ? !row->post : !row->get || !(ep_str_eq(method, EP_STR("GET")) || ep_str_eq(method, EP_STR("HEAD")))) {
        answer_error(x, 405, row->post && !row->get ? "this changes something: use POST" : "use GET");
        return;
    }
    if (call.post && !may_change(x)) {
        answer_error(x, 403, "this changes something: it needs 'authorization: Bearer <admin.token>'");
        return;
    }
    ep_json_init(&call.body);
    row->handle(&call);
    send_answer(x, call.status, call.type, ep_json_text(&call.body));
    ep_json_fini(&call.body);
}

/* --- the leg --- */

static void on_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct exchange *x = l->owner;

    x->in = *h;
    *h = (struct ep_headers){.arena = h->arena};
    if (end)
        answer(x);
}

static void on_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    l->ops->consumed(l, s.n); /* no endpoint reads a body */
    if (end)
        answer(l->owner);
}

static void on_trailers(struct ep_leg *l, struct ep_headers *h)
{
    struct exchange *x = l->owner;

    x->trailers = *h;
    *h = (struct ep_headers){.arena = h->arena};
    answer(x);
}

static void on_sent(struct ep_leg *l, size_t n)
{
    (void)l, (void)n;
}

static void let_go(struct ep_leg *l)
{
    struct exchange *x = l->owner;

    ep_worker_defer(x->door->admin->worker, &x->task);
}

static void on_reset(struct ep_leg *l, enum ep_reset why)
{
    (void)why;
    let_go(l);
}

static const struct ep_leg_events events = {
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_sent = on_sent,
    .on_message_sent = let_go,
    .on_reset = on_reset,
};

static void on_task(struct ep_task *t)
{
    struct exchange *x = EP_CONTAINER(t, struct exchange, task);

    x->leg->ops->release(x->leg);
    ep_headers_fini(&x->in);
    ep_headers_fini(&x->trailers);
    ep_headers_fini(&x->out);
    ep_arena_fini(&x->arena);
    free(x);
}

static bool on_request(void *user, struct ep_leg *l)
{
    struct door *door = user;
    struct exchange *x = ep_calloc(1, sizeof *x);

    x->leg = l;
    x->door = door;
    ep_arena_init(&x->arena, &door->admin->worker->chunks);
    ep_task_init(&x->task, on_task);
    l->owner = x;
    l->events = &events;
    l->arena = &x->arena;
    return true;
}

static void on_bad_request(void *user, struct ep_conn *c, unsigned status, const char *reason)
{
    (void)user, (void)c, (void)status, (void)reason;
}

static void on_conn_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    struct door *door = user;

    (void)c, (void)why;
    door->listener.n_connections--;
}

static const struct ep_acceptor acceptor = {on_request, on_bad_request, on_conn_closed};

/* --- the listener --- */

static struct ep_tls_context *no_tls(struct ep_listener *l, struct ep_conn *c, struct ep_str sni, struct ep_str alpn)
{
    (void)l, (void)c, (void)sni, (void)alpn;
    return NULL;
}

static bool plaintext(struct ep_listener *l, struct ep_conn *c)
{
    (void)l, (void)c;
    return true;
}

static void on_protocol(struct ep_listener *l, struct ep_conn *c, enum ep_sniff what, struct ep_slab *slab,
                        const unsigned char *first, size_t n)
{
    struct door *door = (struct door *)l;

    if (what == EP_SNIFF_H2)
        ep_h2_serve(c, &door->admin->http, &acceptor, door, slab, first, n);
    else /* bytes that are no HTTP get the codec's 400 */
        ep_h1_serve(c, &door->admin->http, &acceptor, door, slab, first, n);
}

static void on_refused(struct ep_listener *l, const char *reason)
{
    (void)l, (void)reason;
}

static const struct ep_listener_ops listener_ops = {
    .tls_context = no_tls,
    .plaintext_allowed = plaintext,
    .on_protocol = on_protocol,
    .on_refused = on_refused,
};

static bool open_door(struct ep_admin *a, struct door *door, const struct ep_addr *bind, bool metrics_only, struct ep_error *err)
{
    struct ep_listener_options o = {
        .bind = *bind,
        .max_connections = 256,
        .sniff_timeout_ns = 10 * EP_S,
        .handshake_timeout_ns = 5 * EP_S,
    };

    door->admin = a;
    door->metrics_only = metrics_only;
    if (!ep_listener_init(&door->listener, a->worker, &o, &listener_ops, door, -1, err))
        return ep_error_prefix(err, metrics_only ? "admin.metrics" : "admin.bind");
    return door->open = true;
}

struct ep_admin *ep_admin_new(struct ep_server *s, struct ep_error *err)
{
    const struct ep_admin_config *config = &ep_server_config(s)->admin;
    struct ep_admin *a = ep_calloc(1, sizeof *a);

    a->server = s;
    a->worker = ep_server_main(s);
    ep_http_options_preset(&a->http);
    a->http.max_streams = 32;
    if (!open_door(a, &a->doors[0], &config->bind, false, err) || !open_door(a, &a->doors[1], &config->metrics, true, err)) {
        ep_admin_free(a);
        return NULL;
    }
    return a;
}

void ep_admin_free(struct ep_admin *a)
{
    for (size_t i = 0; a && i < EP_COUNT(a->doors); i++) {
        if (!a->doors[i].open)
            continue;
        EP_LIST_FOREACH(n, &a->worker->conns) {
            struct ep_conn *c = EP_CONTAINER(n, struct ep_conn, node);
            if (c->user_listener == &a->doors[i].listener)
                ep_conn_abort(c, EP_CLOSE_LOCAL, false);
        }
        ep_listener_stop(&a->doors[i].listener);
    }
    if (a) { /* connections and exchanges refer to us: they end within two turns */
        ep_worker_turn(a->worker, false);
        ep_worker_turn(a->worker, false);
    }
    free(a);
}
