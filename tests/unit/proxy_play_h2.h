/* A client and an origin that speak HTTP/2, around the proxy of proxy_play.h: exchanges on one connection, made and ended
 * by hand. For test_data_path_h2.c and test_data_path_random.c. */
#ifndef EP_TESTS_PROXY_PLAY_H2_H
#define EP_TESTS_PROXY_PLAY_H2_H

#include "proxy_play.h"

#include "http/h2.h"

static struct proxy p;
static struct server origin;
static struct ep_http_options client_options;
static struct ep_conn *client_conn;
static bool client_ready;

/* --- a client that speaks HTTP/2 --- */

struct exchange {
    struct ep_leg *leg;
    struct ep_arena arena;
    struct ep_headers out, in, trailers_in, trailers_out;
    unsigned status;
    size_t received, sent;
    bool ended, reset, trailers, hold; /* hold: it takes nothing of the response */
    enum ep_reset why;
};

static inline void ex_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct exchange *x = l->owner;
    uint64_t status = 0;

    x->in = *h;
    *h = (struct ep_headers){.arena = h->arena};
    ep_str_u64(ep_headers_get_id(&x->in, EP_HDR_STATUS), &status);
    x->status = (unsigned)status;
    x->ended |= end;
}

static inline void ex_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    struct exchange *x = l->owner;

    x->received += s.n;
    x->ended |= end;
    if (!x->hold)
        l->ops->consumed(l, s.n);
}

static inline void ex_trailers(struct ep_leg *l, struct ep_headers *h)
{
    struct exchange *x = l->owner;

    x->trailers_in = *h;
    *h = (struct ep_headers){.arena = h->arena};
    x->trailers = x->ended = true;
}

static inline void ex_sent(struct ep_leg *l, size_t n)
{
    ((struct exchange *)l->owner)->sent += n;
}

static inline void ex_reset(struct ep_leg *l, enum ep_reset why)
{
    struct exchange *x = l->owner;

    x->reset = true;
    x->why = why;
}

static const struct ep_leg_events ex_events = {
    .on_headers = ex_headers, .on_data = ex_data, .on_trailers = ex_trailers, .on_sent = ex_sent, .on_reset = ex_reset};

static inline void client_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    (void)user, (void)c, (void)why;
    client_conn = NULL;
}

static const struct ep_client_events client_events = {.on_closed = client_closed};

static inline void dial_ready(struct ep_conn *c)
{
    ep_h2_client(c, &client_options, &client_events, NULL);
    client_ready = true;
}

static inline void dial_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *bytes, size_t n)
{
    (void)c, (void)slab, (void)bytes, (void)n;
}

static inline void dial_closed(struct ep_conn *c, enum ep_close why)
{
    (void)c, (void)why;
    client_conn = NULL;
}

static const struct ep_conn_handler dialling = {
    .name = "dialling", .on_ready = dial_ready, .on_data = dial_data, .on_closed = dial_closed};

static inline void ex_open(struct exchange *x, const char *method, bool end)
{
    memset(x, 0, sizeof *x);
    x->leg = ep_h2_open(client_conn);
    assert_non_null(x->leg);
    ep_arena_init(&x->arena, &p.s.w.chunks);
    x->leg->owner = x;
    x->leg->events = &ex_events;
    x->leg->arena = &x->arena;
    ep_headers_init(&x->out, &x->arena);
    ep_headers_init(&x->trailers_out, &x->arena);
    ep_headers_add_id(&x->out, EP_HDR_METHOD, ep_str(method));
    ep_headers_add_id(&x->out, EP_HDR_SCHEME, EP_STR("http"));
    ep_headers_add_id(&x->out, EP_HDR_AUTHORITY, EP_STR("a"));
    ep_headers_add_id(&x->out, EP_HDR_PATH, EP_STR("/"));
    x->leg->ops->headers(x->leg, &x->out, end);
}

static inline void put(struct ep_leg *l, size_t n, bool end)
{
    while (n) {
        size_t part = EP_MIN(n, (size_t)16384);
        struct ep_slab *slab = ep_slab_new(&p.s.w.slabs);

        memset(slab->data, 'x', part);
        n -= part;
        l->ops->data(l, (struct ep_slice){slab, slab->data, part}, end && n == 0);
    }
}

static inline void ex_close(struct exchange *x)
{
    x->leg->ops->release(x->leg);
    ep_headers_fini(&x->in);
    ep_headers_fini(&x->trailers_in);
    ep_headers_fini(&x->out);
    ep_headers_fini(&x->trailers_out);
    ep_arena_fini(&x->arena);
    x->leg = NULL;
}

/* --- the stage --- */

static inline void start(void)
{
    proxy_init(&p);
    server_open(&origin, &p.s, SERVER_H2);
    origin.status = 0; /* it holds what is asked */
    p.cluster_config.endpoints.v = &origin.addr;
    p.cluster_config.protocol = EP_PROTO_H2;
    proxy_start(&p);
    ep_http_options_preset(&client_options);
    client_ready = false;
    client_conn = ep_conn_connect(&p.s.w, &p.addr, NULL, EP_S, NULL, (struct ep_str){NULL, 0}, &dialling, NULL);
    UNTIL(&p.s, client_ready);
}

static inline void finish(void)
{
    if (client_conn)
        ep_conn_abort(client_conn, EP_CLOSE_LOCAL, false);
    UNTIL(&p.s, p.l->n_streams == 0);
    settle(&p.s);
    assert_true(ep_list_empty(&origin.held));
    server_close(&origin);
    proxy_close(&p);
}

static inline struct served *held(void)
{
    UNTIL(&p.s, !ep_list_empty(&origin.held));
    return EP_CONTAINER(origin.held.prev, struct served, node);
}

static inline void begin_answer(struct served *x)
{
    ep_headers_add_id(&x->out, EP_HDR_STATUS, EP_STR("200"));
    x->leg->ops->headers(x->leg, &x->out, false);
}

/* Whole before the request is, as RFC 9113 section 8.1 has it. */
static inline void answer_early(struct served *x, unsigned status)
{
    answer(x, status);
    x->leg->ops->reset(x->leg, EP_RESET_NO_ERROR);
}

/* The other end of the proxy's connection to the origin, and of the client's to the proxy. */
static inline unsigned streams_of(bool upstream)
{
    EP_LIST_FOREACH(n, &p.s.w.conns) {
        struct ep_conn *c = EP_CONTAINER(n, struct ep_conn, node);
        bool to_origin = !c->is_server && c != client_conn;
        bool from_client = c->is_server && c->user_listener == &p.l->listener;

        if (upstream ? to_origin : from_client)
            return ep_h2_streams(c);
    }
    return 0;
}

static inline void at_rest(void)
{
    UNTIL(&p.s, p.l->n_streams == 0);
    UNTIL(&p.s, ep_list_empty(&origin.held));
    UNTIL(&p.s, streams_of(true) == 0 && streams_of(false) == 0);
}

#endif
