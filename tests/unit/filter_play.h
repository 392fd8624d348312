/* A stage for one filter: a real stream in a real chain of that filter and a router that notes what got through, over a
 * leg that only remembers. For test_agent.c, test_identity.c and test_chaos.c. */
#ifndef EP_TESTS_FILTER_PLAY_H
#define EP_TESTS_FILTER_PLAY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "filter/chain.h"
#include "filter/private.h"

/* The filter under test; the test defines it. */
extern const struct ep_filter *const play_filter;

struct play {
    struct ep_leg leg;      /* first */
    struct ep_worker w;
    struct ep_view view;
    struct ep_filter_use uses[2];
    struct ep_listener_config config;
    struct ep_chain *chain;
    struct ep_server_listener l;
    struct ep_stream *s;
    struct ep_conn conn;
    bool released, passed, body_passed, reset;
    struct ep_task tell;    /* a codec never calls events from inside an op */
    size_t sent;
    bool all_sent;
    unsigned status;
    char head[4096];        /* of the response: "name: value|…" */
    char body[65536];
    size_t body_n;
    char trailers[1024];
};

static inline void play_table(char *out, size_t room, const struct ep_headers *h)
{
    size_t n = 0;

    for (uint32_t i = 0; i < h->n; i++)
        n += (size_t)snprintf(out + n, room - n, "%.*s: %.*s|", EP_STR_ARG(h->v[i].name), EP_STR_ARG(h->v[i].value));
    assert_true(n < room);
}

static void play_tell(struct ep_task *t)
{
    struct play *p = EP_CONTAINER(t, struct play, tell);
    size_t n = p->sent;

    p->sent = 0;
    if (n && !p->released)
        p->leg.events->on_sent(&p->leg, n);
    if (p->all_sent && !p->released && !p->reset)
        p->leg.events->on_message_sent(&p->leg);
    p->all_sent = false;
}

static void play_sent(struct play *p, size_t n, bool end)
{
    p->sent += n;
    p->all_sent |= end;
    ep_worker_defer(&p->w, &p->tell);
}

static void play_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct play *p = (struct play *)l;

    play_table(p->head, sizeof p->head, h);
    p->status = (unsigned)strtoul(ep_headers_get_id(h, EP_HDR_STATUS).p, NULL, 10);
    play_sent(p, 0, end);
}

static void play_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    struct play *p = (struct play *)l;

    assert_true(p->body_n + s.n < sizeof p->body);
    if (s.n)
        memcpy(p->body + p->body_n, s.p, s.n);
    p->body_n += s.n;
    p->body[p->body_n] = 0;
    ep_slice_unref(s);
    play_sent(p, s.n, end);
}

static void play_trailers(struct ep_leg *l, struct ep_headers *h)
{
    struct play *p = (struct play *)l;

    play_table(p->trailers, sizeof p->trailers, h);
    play_sent(p, 0, true);
}

static void play_consumed(struct ep_leg *l, size_t n)
{
    (void)l, (void)n;
}

static void play_reset(struct ep_leg *l, enum ep_reset why)
{
    (void)why;
    ((struct play *)l)->reset = true;
}

static void play_release(struct ep_leg *l)
{
    ((struct play *)l)->released = true;
}

static const struct ep_leg_ops play_ops = {.name = "fake", .headers = play_headers, .data = play_data,
                                           .trailers = play_trailers, .consumed = play_consumed, .reset = play_reset,
                                           .release = play_release};

/* --- the chain --- */

static struct play *play_of(struct ep_stream *s)
{
    return EP_CONTAINER(s->listener, struct play, l);
}

static enum ep_step play_router_headers(struct ep_stream *s, void *state, bool end)
{
    (void)state, (void)end;
    play_of(s)->passed = true;
    return EP_NEXT;
}

static enum ep_step play_router_body(struct ep_stream *s, void *state, struct ep_body *b, bool end)
{
    size_t n = b->bytes;

    (void)state;
    ep_body_drop(b, n);
    s->request.in_flight += n;
    ep_stream_request_sent(s, n);
    play_of(s)->body_passed |= end;
    return EP_NEXT;
}

static const struct ep_filter play_router = {.name = "router", .request_headers = play_router_headers,
                                             .request_body = play_router_body};

static const struct ep_filter play_other = {.name = "other"}; /* stands for any other filter of the chain, and does nothing */

const struct ep_filter *ep_filter_find(struct ep_str name)
{
    if (ep_str_eq(name, EP_STR("router")))
        return &play_router;
    return ep_str_eq(name, ep_str(play_filter->name)) ? play_filter : &play_other;
}

static struct ep_cluster *play_lookup(void *user, struct ep_str name)
{
    (void)name;
    return user;
}

static inline void play_view_free(struct ep_view *v)
{
    (void)v;
}

/* The listener's configuration may be changed before play_start. */
static inline struct play *play_new(void)
{
    struct play *p = ep_calloc(1, sizeof *p);
    struct ep_error err;

    assert_true(ep_worker_init(&p->w, 0, &err));
    ep_task_init(&p->tell, play_tell);
    p->w.stats = ep_stats_new();
    p->view = (struct ep_view){.refs = 1, .worker = &p->w, .constitution = EP_STR_INIT("cdd01ef066bc6cf2"),
                               .free = play_view_free};
    p->uses[0].name = ep_str(play_filter->name);
    p->config = (struct ep_listener_config){.name = EP_STR_INIT("in"), .cluster = EP_STR_INIT("tools"), .filters = {p->uses, 1},
                                            .max_body_bytes = 4096, .max_streams = 10, .max_header_bytes = 60000,
                                            .max_header_count = 100};
    return p;
}

static inline void play_chain(struct play *p)
{
    struct ep_error err = {""};

    p->chain = ep_chain_new(&p->view, &p->w, &p->config, play_lookup, p, &err);
    if (!p->chain)
        print_error("%s\n", err.text);
    assert_non_null(p->chain);
    p->l = (struct ep_server_listener){.worker = &p->w, .chain = p->chain, .name = EP_STR_INIT("in")};
    ep_list_init(&p->l.streams);
    p->l.cell_streams = ep_stats_cell(p->w.stats, EP_METRIC_STREAMS, EP_LABELS(p->l.name));
}

static inline void play_turn(struct play *p)
{
    ep_worker_turn(&p->w, false);
}

/* A request by its head ("name: value|…" behind method and path); the body follows in pieces of `piece` bytes, or, with 0,
 * as a whole at the very end of its slab. */
static inline void play_request(struct play *p, const char *method, const char *path, const char *headers, const void *body,
                                size_t n, size_t piece)
{
    struct ep_str rest = ep_str(headers), line;
    struct ep_headers h;

    p->leg = (struct ep_leg){.ops = &play_ops, .version = EP_HTTP_2, .server = true, .conn = p->conn.tls ? &p->conn : NULL};
    p->released = p->passed = p->body_passed = p->reset = false;
    p->status = 0;
    p->body_n = 0;
    p->head[0] = p->body[0] = p->trailers[0] = 0;
    p->s = ep_stream_new(&p->l, &p->leg);
    ep_headers_init(&h, &p->s->arena);
    ep_headers_add_id(&h, EP_HDR_METHOD, ep_str(method));
    ep_headers_add_id(&h, EP_HDR_PATH, ep_str(path));
    ep_headers_add_id(&h, EP_HDR_AUTHORITY, EP_STR("tools:80"));
    while (ep_str_next(&rest, '|', &line)) {
        ptrdiff_t colon = ep_str_find(line, ':', 0);
        if (colon > 0)
            ep_headers_add(&h, ep_str_n(line.p, (size_t)colon),
                           ep_str_trim(ep_str_n(line.p + colon + 1, line.n - (size_t)colon - 1)));
    }
    p->leg.events->on_headers(&p->leg, &h, !body);
    for (size_t at = 0; body && at < n;) {
        size_t some = piece ? EP_MIN(piece, n - at) : n;
        struct ep_slab *slab = ep_slab_new_sized(&p->w.slabs, some);
        unsigned char *to = slab->data + (piece ? 0 : slab->size - some);
        memcpy(to, (const char *)body + at, some);
        at += some;
        p->leg.events->on_data(&p->leg, (struct ep_slice){slab, to, some}, at == n);
        ep_slab_unref(slab);
    }
    play_turn(p);
}

/* Lets the request go, and forgets it. */
static inline void play_end(struct play *p)
{
    if (!p->released && p->l.n_streams)
        ep_stream_abort(p->s, EP_RESET_CANCEL);
    play_turn(p);
    assert_int_equal(p->l.n_streams, 0);
    assert_int_equal(p->w.slabs.n_live, 0);
}

static inline void play_free(struct play *p)
{
    play_end(p);
    assert_int_equal(p->view.refs, 1);
    ep_chain_free(p->chain);
    ep_worker_fini(&p->w);
    ep_stats_free(p->w.stats);
    free(p);
}

#define assert_str(slice, text)                                                                                       \
    do {                                                                                                               \
        struct ep_str slice_ = (slice);                                                                                \
        if (!ep_str_eq(slice_, ep_str(text)))                                                                          \
            fail_msg("'%.*s' is not '%s'", EP_STR_ARG(slice_), text);                                                  \
    } while (0)

/* A test's setup and teardown: the state is a play with its chain. */
static inline int play_setup(void **state)
{
    struct play *p = play_new();

    play_chain(p);
    *state = p;
    return 0;
}

static inline int play_teardown(void **state)
{
    play_free(*state);
    return 0;
}

#endif
