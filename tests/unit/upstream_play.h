/* A stage for upstream: one worker, servers on loopback that the test scripts, callers who acquire legs and write down
 * what they got. All in one thread, turned by hand until a condition holds. For test_upstream*.c. */
#ifndef EP_TESTS_UPSTREAM_PLAY_H
#define EP_TESTS_UPSTREAM_PLAY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "upstream/cluster.h"
#include "upstream/upstream.h"

#define GUARD_NS (5 * EP_S) /* a condition that doesn't hold by then never will */
#define CALLERS  64

struct stage {
    struct ep_worker w;
    struct ep_upstream_env env;
    struct ep_timer guard;
    bool expired;
};

enum server_speaks { SERVER_H2, SERVER_H1, SERVER_TCP, SERVER_CLOSES };

struct server {
    struct stage *stage;
    struct event event;
    int fd;
    struct ep_addr addr;
    enum server_speaks speaks;
    struct ep_http_options options;
    struct ep_tls_context *tls;
    unsigned status; /* what it answers; 0: it holds the requests */
    unsigned connections, open, requests;
    struct ep_conn *last;
    struct ep_list held; /* served */
};

/* One request at a server. */
struct served {
    struct ep_list node;
    struct ep_task task;
    struct server *server;
    struct ep_leg *leg;
    struct ep_arena arena;
    struct ep_headers out;
};

struct caller {
    struct ep_upstream_call call;
    struct stage *stage;
    struct ep_leg *leg;
    struct ep_arena arena;
    struct ep_headers out;
    bool inside; /* acquire hasn't returned yet */
    bool at_once, failed, fresh, reset, ended, cancel_other;
    enum ep_upstream_failure why;
    struct ep_conn *conn;
    uint64_t status;
    char endpoint[64];
    char body[64];
    size_t body_n;
    struct caller *other;
};

/* --- the stage --- */

static inline void on_guard(struct ep_timer *t)
{
    EP_CONTAINER(t, struct stage, guard)->expired = true;
}

static inline void stage_open(struct stage *s)
{
    struct ep_error err;

    memset(s, 0, sizeof *s);
    ep_log_set_level(EP_LOG_OFF);
    assert_true(ep_worker_init(&s->w, 0, &err));
    s->w.stats = ep_stats_new();
    assert_true(ep_upstream_worker_init(&s->w, &err));
    ep_timer_init(&s->guard, on_guard);
    s->env = (struct ep_upstream_env){.worker = &s->w};
}

#define UNTIL(stage, condition)                                                                                        \
    do {                                                                                                               \
        (stage)->expired = false;                                                                                      \
        ep_worker_timer(&(stage)->w, &(stage)->guard, GUARD_NS);                                                       \
        while (!(condition) && !(stage)->expired)                                                                      \
            ep_worker_turn(&(stage)->w, true);                                                                         \
        ep_worker_timer_stop(&(stage)->w, &(stage)->guard);                                                            \
        assert_true(condition);                                                                                        \
    } while (0)

/* Everything that can happen without time passing. */
static inline void settle(struct stage *s)
{
    for (int i = 0; i < 12; i++)
        ep_worker_turn(&s->w, false);
}

static inline void stage_close(struct stage *s)
{
    settle(s);
    ep_upstream_worker_fini(&s->w);
    ep_worker_fini(&s->w);
    assert_int_equal(s->w.mem.live_bytes, 0);
    ep_stats_free(s->w.stats);
}

/* --- servers --- */

static inline void served_free(struct served *x)
{
    ep_list_remove(&x->node);
    ep_list_remove(&x->task.node);
    if (x->leg)
        x->leg->ops->release(x->leg);
    ep_headers_fini(&x->out);
    ep_arena_fini(&x->arena);
    free(x);
}

static inline void on_served_task(struct ep_task *t)
{
    served_free(EP_CONTAINER(t, struct served, task));
}

static inline void answer(struct served *x, unsigned status)
{
    char text[16];

    snprintf(text, sizeof text, "%u", status);
    ep_headers_add_id(&x->out, EP_HDR_STATUS, ep_str(text));
    x->leg->ops->headers(x->leg, &x->out, true);
    ep_worker_defer(&x->server->stage->w, &x->task);
}

static inline void served_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct served *x = l->owner;

    (void)h, (void)end;
    x->server->requests++;
    if (l->version == EP_HTTP_TCP) {
        ep_headers_add_id(&x->out, EP_HDR_STATUS, EP_STR("200"));
        l->ops->headers(l, &x->out, false);
    } else if (x->server->status) {
        answer(x, x->server->status);
    }
}

static inline void served_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    struct served *x = l->owner;

    l->ops->consumed(l, s.n);
    if (l->version == EP_HTTP_TCP) /* an echo */
        l->ops->data(l, ep_slice_ref(s), end);
    if (l->version == EP_HTTP_TCP && end)
        ep_worker_defer(&x->server->stage->w, &x->task);
}

static inline void served_trailers(struct ep_leg *l, struct ep_headers *h)
{
    (void)l, (void)h;
}

static inline void served_sent(struct ep_leg *l, size_t n)
{
    (void)l, (void)n;
}

static inline void served_reset(struct ep_leg *l, enum ep_reset why)
{
    struct served *x = l->owner;

    (void)why;
    ep_worker_defer(&x->server->stage->w, &x->task);
}

static const struct ep_leg_events served_events = {
    .on_headers = served_headers,
    .on_data = served_data,
    .on_trailers = served_trailers,
    .on_sent = served_sent,
    .on_reset = served_reset,
};

static inline bool on_request(void *user, struct ep_leg *l)
{
    struct server *s = user;
    struct served *x = ep_calloc(1, sizeof *x);

    x->server = s;
    x->leg = l;
    ep_task_init(&x->task, on_served_task);
    ep_arena_init(&x->arena, &s->stage->w.chunks);
    ep_headers_init(&x->out, &x->arena);
    ep_list_push(&s->held, &x->node);
    l->events = &served_events;
    l->owner = x;
    l->arena = &x->arena;
    return true;
}

static inline void on_refused(void *user, struct ep_conn *c, unsigned status, const char *reason)
{
    (void)user, (void)c, (void)status, (void)reason;
}

static inline void on_server_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    struct server *s = user;

    (void)why;
    s->open--;
    if (s->last == c)
        s->last = NULL;
}

static const struct ep_acceptor acceptor = {on_request, on_refused, on_server_closed};

static inline void serve(struct server *s, struct ep_conn *c)
{
    if (s->speaks == SERVER_H2)
        ep_h2_serve(c, &s->options, &acceptor, s, NULL, NULL, 0);
    else if (s->speaks == SERVER_H1)
        ep_h1_serve(c, &s->options, &acceptor, s, NULL, NULL, 0);
    else
        ep_tcp_serve(c, &s->options, &acceptor, s, NULL, NULL, 0);
}

/* Under TLS: the codec by what was agreed on, as the listener does it. */
static inline void on_tls_ready(struct ep_conn *c)
{
    struct server *s = c->user;
    const struct ep_tls_info *info = ep_conn_tls_info(c);

    if (ep_str_eq(info->alpn, EP_STR("h2")))
        s->speaks = SERVER_H2;
    else if (ep_str_eq(info->alpn, EP_STR("ephor-tcp")))
        s->speaks = SERVER_TCP;
    else
        s->speaks = SERVER_H1;
    serve(s, c);
}

/* The ClientHello came. */
static inline void on_tls_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct server *s = c->user;

    (void)slab;
    if (!c->tls)
        ep_conn_start_tls_server(c, s->tls, p, n);
}

static inline void on_tls_closed(struct ep_conn *c, enum ep_close why)
{
    on_server_closed(c->user, c, why);
}

static const struct ep_conn_handler tls_handler = {
    .name = "test tls", .on_ready = on_tls_ready, .on_data = on_tls_data, .on_closed = on_tls_closed};

static inline void on_accept(evutil_socket_t fd, short what, void *arg)
{
    struct server *s = arg;
    struct ep_addr peer = {.len = sizeof peer.u};
    int got = accept4(fd, &peer.u.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct ep_conn *c;

    (void)what;
    assert_true(got >= 0);
    s->connections++;
    if (s->speaks == SERVER_CLOSES) {
        close(got);
        return;
    }
    c = ep_conn_accept(&s->stage->w, got, &peer, &tls_handler, s);
    assert_non_null(c);
    s->open++;
    s->last = c;
    if (!s->tls)
        serve(s, c);
}

static inline void server_open(struct server *s, struct stage *stage, enum server_speaks speaks)
{
    struct ep_addr any;

    memset(s, 0, sizeof *s);
    s->stage = stage;
    s->speaks = speaks;
    s->status = 200;
    ep_list_init(&s->held);
    ep_http_options_preset(&s->options);
    assert_true(ep_addr_parse(EP_STR("127.0.0.1:0"), &any));
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->fd, &any.u.sa, any.len), 0);
    assert_int_equal(listen(s->fd, 64), 0);
    s->addr.len = sizeof s->addr.u;
    assert_int_equal(getsockname(s->fd, &s->addr.u.sa, &s->addr.len), 0);
    event_assign(&s->event, stage->w.base, s->fd, EV_READ | EV_PERSIST, on_accept, s);
    event_add(&s->event, NULL);
}

/* Answers what it holds. */
static inline void server_answer(struct server *s, unsigned status, unsigned n)
{
    EP_LIST_FOREACH(at, &s->held)
    {
        struct served *x = EP_CONTAINER(at, struct served, node);
        if (n == 0)
            return;
        if (ep_list_linked(&x->task.node))
            continue;
        answer(x, status);
        n--;
    }
}

static inline void server_stop_listening(struct server *s)
{
    if (s->fd < 0)
        return;
    event_del(&s->event);
    close(s->fd);
    s->fd = -1;
}

static inline void server_close(struct server *s)
{
    server_stop_listening(s);
    settle(s->stage);
    EP_LIST_FOREACH(n, &s->held)
    served_free(EP_CONTAINER(n, struct served, node));
    EP_LIST_FOREACH(n, &s->stage->w.conns)
    {
        struct ep_conn *c = EP_CONTAINER(n, struct ep_conn, node);
        if (c->is_server)
            ep_conn_abort(c, EP_CLOSE_LOCAL, false);
    }
    settle(s->stage);
    if (s->tls)
        ep_tls_context_unref(s->tls);
}

/* --- clusters --- */

static inline struct ep_cluster_config config_of(const char *name, struct ep_addr *endpoints, size_t n)
{
    return (struct ep_cluster_config){
        .name = ep_str(name),
        .endpoints = {endpoints, n},
        .balance = EP_BALANCE_P2C_EWMA,
        .limits = {.connections = 100, .pending = 100, .requests = 100, .retries = 0.2},
        .outlier = {.consecutive_5xx = 5, .ejection_ns = 30 * EP_S, .max_ejected = 0.5},
        .probe = {.interval_ns = 10 * EP_S, .timeout_ns = 2 * EP_S, .healthy = 2, .unhealthy = 3},
        .connect_timeout_ns = 5 * EP_S,
        .queue_timeout_ns = 10 * EP_S,
        .idle_timeout_ns = 300 * EP_S,
        .panic = 0.5,
    };
}

static inline struct ep_cluster *cluster_of(struct stage *s, const struct ep_cluster_config *c)
{
    struct ep_error err = {{0}};
    struct ep_cluster *cl = ep_cluster_new(&s->env, c, NULL, &err);

    if (!cl)
        fail_msg("%s", err.text);
    return cl;
}

/* --- callers --- */

static inline void caller_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct caller *c = l->owner;

    ep_str_u64(ep_headers_get_id(h, EP_HDR_STATUS), &c->status);
    c->ended |= end;
    ep_headers_fini(h);
}

static inline void caller_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    struct caller *c = l->owner;

    for (size_t i = 0; i < s.n && c->body_n < sizeof c->body; i++)
        c->body[c->body_n++] = (char)s.p[i];
    l->ops->consumed(l, s.n);
    c->ended |= end;
}

static inline void caller_reset(struct ep_leg *l, enum ep_reset why)
{
    (void)why;
    ((struct caller *)l->owner)->reset = true;
}

static const struct ep_leg_events caller_events = {
    .on_headers = caller_headers,
    .on_data = caller_data,
    .on_trailers = served_trailers,
    .on_sent = served_sent,
    .on_reset = caller_reset,
};

static inline void on_leg(struct ep_upstream_call *call, struct ep_leg *leg)
{
    struct caller *c = EP_CONTAINER(call, struct caller, call);
    struct ep_str name = ep_endpoint_name(call->endpoint);

    assert_null(c->leg);
    assert_false(c->failed);
    c->at_once = c->inside;
    c->leg = leg;
    c->conn = call->conn;
    c->fresh = call->new_connection;
    snprintf(c->endpoint, sizeof c->endpoint, "%.*s", EP_STR_ARG(name));
    leg->events = &caller_events;
    leg->owner = c;
    leg->arena = &c->arena;
    ep_headers_add_id(&c->out, EP_HDR_METHOD, call->tunnel ? EP_STR("CONNECT") : EP_STR("GET"));
    if (!call->tunnel) {
        ep_headers_add_id(&c->out, EP_HDR_SCHEME, EP_STR("http"));
        ep_headers_add_id(&c->out, EP_HDR_PATH, EP_STR("/"));
    }
    ep_headers_add_id(&c->out, EP_HDR_AUTHORITY, EP_STR("tools"));
    leg->ops->headers(leg, &c->out, !call->tunnel);
    if (c->other) {
        ep_upstream_cancel(&c->other->call);
        c->other = NULL;
    }
}

static inline void on_failure(struct ep_upstream_call *call, enum ep_upstream_failure why)
{
    struct caller *c = EP_CONTAINER(call, struct caller, call);

    assert_false(c->inside);
    assert_null(c->leg);
    assert_false(c->failed);
    c->failed = true;
    c->why = why;
}

static inline void caller_init(struct caller *c, struct stage *s, struct ep_cluster *cl, enum ep_http_version version)
{
    memset(c, 0, sizeof *c);
    c->stage = s;
    c->call.cluster = cl;
    c->call.downstream_version = version;
    c->call.on_leg = on_leg;
    c->call.on_failure = on_failure;
    ep_arena_init(&c->arena, &s->w.chunks);
    ep_headers_init(&c->out, &c->arena);
}

static inline void caller_go(struct caller *c)
{
    c->inside = true;
    ep_upstream_acquire(&c->call);
    c->inside = false;
}

static inline void call(struct caller *c, struct stage *s, struct ep_cluster *cl, enum ep_http_version version)
{
    caller_init(c, s, cl, version);
    caller_go(c);
}

/* The exchange is over, as the router would say it. */
static inline void caller_done(struct caller *c)
{
    if (c->leg) {
        struct ep_upstream_outcome o = {
            .answered = c->status != 0,
            .status = (unsigned)c->status,
            .reset = EP_RESET_CONNECTION,
            .local = !c->status && !c->reset,
            .latency_ns = EP_MS,
        };
        ep_upstream_done(&c->call, &o);
        c->leg->ops->release(c->leg);
        c->leg = NULL;
    } else {
        ep_upstream_cancel(&c->call); /* harmless when it has failed */
    }
    ep_headers_fini(&c->out);
    ep_arena_fini(&c->arena);
}

/* A whole exchange; its status, 0 when it failed or was reset. */
static inline unsigned exchange(struct stage *s, struct ep_cluster *cl, enum ep_http_version version,
                                struct caller *out)
{
    struct caller own, *c = out ? out : &own;

    call(c, s, cl, version);
    UNTIL(s, c->failed || c->reset || c->ended);
    caller_done(c);
    settle(s);
    return (unsigned)c->status;
}

static inline uint64_t cell(struct stage *s, enum ep_metric m, const struct ep_str *labels)
{
    return *ep_stats_cell(s->w.stats, m, labels);
}

#endif
