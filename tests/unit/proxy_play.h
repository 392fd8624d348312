/* A stage for the whole data path: a listener with its chain and the real router, a cluster, and peers on both sides that
 * speak bytes. All in one worker, turned by hand until a condition holds. For test_router.c and test_data_path.c. */
#ifndef EP_TESTS_PROXY_PLAY_H
#define EP_TESTS_PROXY_PLAY_H

#include "upstream_play.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>

#include "filter/chain.h"
#include "filter/private.h"

/* --- a peer that speaks bytes --- */

struct wire {
    struct stage *stage;
    struct event event;
    int fd;
    bool ended, reset; /* its other side sent FIN, or a reset */
    bool deaf;         /* reads nothing */
    size_t n, total;
    char got[65536];   /* the last bytes that came, as a string */
};

static inline void on_wire(evutil_socket_t fd, short what, void *arg)
{
    struct wire *x = arg;
    char piece[16384];
    ssize_t n;

    (void)what;
    n = recv(fd, piece, sizeof piece, 0);
    if (n > 0) {
        if (x->n + (size_t)n >= sizeof x->got)
            x->n = 0;
        memcpy(x->got + x->n, piece, (size_t)n);
        x->n += (size_t)n;
        x->total += (size_t)n;
        x->got[x->n] = '\0';
        return;
    }
    if (n < 0 && errno == EAGAIN)
        return;
    x->ended = n == 0;
    x->reset = n < 0;
    event_del(&x->event);
}

static inline void wire_take(struct wire *x, struct stage *s, int fd)
{
    memset(x, 0, sizeof *x);
    x->stage = s;
    x->fd = fd;
    event_assign(&x->event, s->w.base, fd, EV_READ | EV_PERSIST, on_wire, x);
    event_add(&x->event, NULL);
}

static inline void wire_dial(struct wire *x, struct stage *s, const struct ep_addr *to)
{
    int fd = socket(to->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_true(connect(fd, &to->u.sa, to->len) == 0 || errno == EINPROGRESS);
    wire_take(x, s, fd);
}

static inline void wire_close(struct wire *x, bool rst)
{
    struct linger l = {.l_onoff = 1, .l_linger = 0};

    if (x->fd < 0)
        return;
    event_del(&x->event);
    if (rst)
        setsockopt(x->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(x->fd);
    x->fd = -1;
}

static inline void wire_deaf(struct wire *x, bool deaf)
{
    if (deaf)
        event_del(&x->event);
    else
        event_add(&x->event, NULL);
}

/* Says all of it, turning the worker while the socket is full. */
static inline void wire_say_n(struct wire *x, const char *p, size_t n)
{
    x->stage->expired = false;
    ep_worker_timer(&x->stage->w, &x->stage->guard, GUARD_NS);
    while (n && !x->stage->expired) {
        ssize_t sent = send(x->fd, p, n, MSG_NOSIGNAL);

        if (sent < 0 && errno != EAGAIN && errno != ENOTCONN)
            break; /* the other side is gone: what follows will tell */
        if (sent > 0) {
            p += sent;
            n -= (size_t)sent;
        }
        ep_worker_turn(&x->stage->w, false);
    }
    ep_worker_timer_stop(&x->stage->w, &x->stage->guard);
    assert_false(x->stage->expired);
}

static inline void wire_say(struct wire *x, const char *text)
{
    wire_say_n(x, text, strlen(text));
}

static inline bool wire_has(const struct wire *x, const char *text)
{
    return strstr(x->got, text) != NULL;
}

#define HEARS(wire, text) UNTIL((wire)->stage, wire_has(wire, text))

static inline void wire_forget(struct wire *x)
{
    x->n = 0;
    x->got[0] = '\0';
}

/* --- a filter that does as it is told; in front of the router --- */

static struct test_script {
    enum ep_step request, response, request_body, response_body; /* what its steps answer: zero is EP_NEXT */
    unsigned refusals, finished;
    struct ep_stream *stream;
} test_script;

static inline enum ep_step test_step(struct ep_stream *s, enum ep_step step)
{
    test_script.stream = s;
    if (step == EP_REPLIED) {
        test_script.refusals++;
        ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_POLICY, .policy = EP_STR("test"),
                                                 .reason = EP_STR("no"), .code = "test.no", .grpc_status = -1});
    }
    return step;
}

static inline enum ep_step test_request(struct ep_stream *s, void *state, bool end)
{
    (void)state, (void)end;
    return test_step(s, test_script.request);
}

static inline enum ep_step test_request_body(struct ep_stream *s, void *state, struct ep_body *b, bool end)
{
    (void)state, (void)b, (void)end;
    return test_step(s, test_script.request_body);
}

static inline enum ep_step test_response(struct ep_stream *s, void *state, bool end)
{
    (void)state, (void)end;
    return test_step(s, test_script.response);
}

static inline enum ep_step test_response_body(struct ep_stream *s, void *state, struct ep_body *b, bool end)
{
    (void)state, (void)b, (void)end;
    return test_step(s, test_script.response_body);
}

static inline void test_finish(struct ep_stream *s, void *state)
{
    (void)state;
    test_script.finished++;
    if (test_script.stream == s)
        test_script.stream = NULL;
}

static const struct ep_filter test_filter = {.name = "test", .request_headers = test_request,
                                             .request_body = test_request_body, .response_headers = test_response,
                                             .response_body = test_response_body, .finish = test_finish};

extern const struct ep_filter ep_filter_router;

const struct ep_filter *ep_filter_find(struct ep_str name)
{
    const struct ep_filter *const all[] = {&test_filter, &ep_filter_router};

    for (size_t i = 0; i < EP_COUNT(all); i++)
        if (ep_str_eq(name, ep_str(all[i]->name)))
            return all[i];
    return NULL;
}

/* --- the proxy --- */

struct proxy {
    struct stage s;
    struct ep_cluster_config cluster_config;
    struct ep_cluster *cluster;
    struct ep_view view;
    struct ep_route_config route;
    struct ep_retry_config retry;
    struct ep_filter_use use;
    struct ep_listener_config config;
    struct ep_chain *chain;
    struct ep_server_listener *l;
    struct ep_addr addr;           /* of its listener */
    int upstream;                  /* where raw upstreams are accepted; -1: none */
    struct ep_addr upstream_addr;
};

static inline struct ep_cluster *proxy_lookup(void *user, struct ep_str name)
{
    (void)name;
    return ((struct proxy *)user)->cluster;
}

static inline void proxy_view_free(struct ep_view *v)
{
    (void)v;
}

static inline int listen_any(struct ep_addr *out)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(ep_addr_parse(EP_STR("127.0.0.1:0"), out));
    assert_int_equal(bind(fd, &out->u.sa, out->len), 0);
    assert_int_equal(listen(fd, 64), 0);
    out->len = sizeof out->u;
    assert_int_equal(getsockname(fd, &out->u.sa, &out->len), 0);
    return fd;
}

/* Sets the defaults; change them, then proxy_start. */
static inline void proxy_init(struct proxy *p)
{
    memset(p, 0, sizeof *p);
    memset(&test_script, 0, sizeof test_script);
    stage_open(&p->s);
    p->upstream = listen_any(&p->upstream_addr);
    p->cluster_config = config_of("c", &p->upstream_addr, 1);
    p->use.name = EP_STR("test");
    p->route = (struct ep_route_config){.cluster = EP_STR_INIT("c"), .idle_timeout_ns = 60 * EP_S};
    p->config = (struct ep_listener_config){
        .name = EP_STR_INIT("in"), .routes = {&p->route, 1}, .filters = {&p->use, 1}, .max_body_bytes = 65536,
        .max_streams = 100, .max_header_bytes = 65536, .max_header_count = 100, .max_connections = 100,
        .headers_timeout_ns = 10 * EP_S, .idle_timeout_ns = 60 * EP_S, .sniff_timeout_ns = 10 * EP_S,
        .handshake_timeout_ns = 5 * EP_S, .stream_idle_timeout_ns = 60 * EP_S,
    };
    p->view = (struct ep_view){.refs = 1, .worker = &p->s.w, .free = proxy_view_free};
}

static inline void proxy_start(struct proxy *p)
{
    struct ep_error err = {{0}};
    int fd = listen_any(&p->addr);

    p->config.bind = p->addr;
    p->cluster = cluster_of(&p->s, &p->cluster_config);
    p->chain = ep_chain_new(&p->view, &p->s.w, &p->config, proxy_lookup, p, &err);
    if (!p->chain)
        fail_msg("%s", err.text);
    p->chain->opaque = p->config.protocol == EP_LISTENER_TCP; /* as proxy/config does */
    p->l = ep_server_listener_new(&p->s.w, p->chain, fd, &err);
    assert_non_null(p->l);
}

static inline void proxy_open(struct proxy *p)
{
    proxy_init(p);
    proxy_start(p);
}

static inline bool upstream_try(struct proxy *p, struct wire *x)
{
    int fd = accept4(p->upstream, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return false;
    wire_take(x, &p->s, fd);
    return true;
}

/* The next connection that the proxy dials. */
static inline void upstream_accept(struct proxy *p, struct wire *x)
{
    bool got = false;

    p->s.expired = false;
    ep_worker_timer(&p->s.w, &p->s.guard, GUARD_NS);
    while (!p->s.expired && !(got = upstream_try(p, x)))
        ep_worker_turn(&p->s.w, false);
    ep_worker_timer_stop(&p->s.w, &p->s.guard);
    assert_true(got);
}

/* Everything is let go of, and nothing is left. Close the wires first. */
static inline void proxy_close(struct proxy *p)
{
    UNTIL(&p->s, p->l->n_streams == 0);
    EP_LIST_FOREACH(n, &p->s.w.conns) {
        struct ep_conn *c = EP_CONTAINER(n, struct ep_conn, node);
        if (c->is_server)
            ep_conn_abort(c, EP_CLOSE_LOCAL, false);
    }
    settle(&p->s);
    assert_int_equal(p->l->n_streams, 0);
    assert_int_equal(p->l->listener.n_connections, 0);
    assert_int_equal(*p->l->cell_connections, 0);
    assert_int_equal(*p->l->cell_streams, 0);
    assert_int_equal(p->view.refs, 1);
    assert_int_equal(cell(&p->s, EP_METRIC_UPSTREAM_STREAMS, EP_LABELS(EP_STR("c"))), 0);
    assert_int_equal(cell(&p->s, EP_METRIC_UPSTREAM_PENDING, EP_LABELS(EP_STR("c"))), 0);
    ep_server_listener_free(p->l);
    ep_chain_free(p->chain);
    ep_cluster_unref(p->cluster);
    if (p->upstream >= 0)
        close(p->upstream);
    stage_close(&p->s);
    assert_int_equal(p->s.w.slabs.n_live, 0);
}

#endif
