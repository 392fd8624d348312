/* link: ep_http */
/* HTTP/1 connections and tcp tunnels: a peer and an owner who do what the input says, in any order, on a socketpair.
 *
 * First byte: which codec. Then steps: what to do, and for some how much of the rest to take as bytes of the peer. Each
 * leg must get no event after its last one, and all memory must be back at the end. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/http.h"

#define CHECK(x) ((x) ? (void)0 : abort())
#define LEGS_MAX 32

struct side {
    struct play *play;
    struct ep_leg *leg; /* NULL once released */
    struct ep_arena arena;
    struct ep_headers table;
    bool head_sent, over, ended;
};

struct play {
    struct ep_worker w;
    struct ep_http_options o;
    struct ep_conn *conn;
    int peer;
    unsigned n, mood; /* mood: bits of how the owner behaves inside events */
    struct side sides[LEGS_MAX];
};

static void let_go(struct side *s)
{
    struct ep_leg *l = s->leg;

    s->leg = NULL;
    l->ops->release(l);
}

static void reply(struct side *s, unsigned how)
{
    static const struct ep_str lengths[] = {EP_STR_INIT("0"), EP_STR_INIT("3"), EP_STR_INIT("30")};
    static const struct ep_str statuses[] = {EP_STR_INIT("200"), EP_STR_INIT("204"), EP_STR_INIT("403"), EP_STR_INIT("101")};
    struct ep_headers *h = &s->table;

    if (s->head_sent)
        return;
    s->head_sent = true;
    ep_headers_init(h, &s->arena);
    if (s->leg->server) {
        ep_headers_add_id(h, EP_HDR_STATUS, statuses[how & 3]);
    } else {
        ep_headers_add_id(h, EP_HDR_METHOD, how & 2 ? EP_STR("CONNECT") : how & 1 ? EP_STR("HEAD") : EP_STR("POST"));
        ep_headers_add_id(h, EP_HDR_AUTHORITY, EP_STR("a:1"));
        ep_headers_add_id(h, EP_HDR_PATH, EP_STR("/"));
        if ((how & 3) == 3)
            ep_headers_add_id(h, EP_HDR_PROTOCOL, EP_STR("websocket"));
    }
    if (how & 4)
        ep_headers_add_id(h, EP_HDR_CONTENT_LENGTH, lengths[how % 3]);
    s->ended = how & 8;
    s->leg->ops->headers(s->leg, h, s->ended);
}

static void body(struct side *s, unsigned how)
{
    struct ep_slab *slab;
    size_t n = how & 1 ? 3 : 3000;

    if (!s->head_sent || s->ended)
        return;
    s->ended = how & 2;
    slab = ep_slab_new_sized(&s->play->w.slabs, n);
    memset(slab->data, 'x', n);
    if ((how & 6) == 6) {
        ep_slab_unref(slab);
        s->leg->ops->trailers(s->leg, &s->table);
    } else {
        s->leg->ops->data(s->leg, (struct ep_slice){slab, slab->data, n}, s->ended);
    }
}

static void in_event(struct ep_leg *l)
{
    struct side *s = l->owner;
    unsigned mood = s->play->mood;

    CHECK(s->leg == l && !s->over);
    if (mood & 1)
        reply(s, mood >> 3);
    if (mood & 2)
        body(s, mood >> 4);
    if (mood & 4)
        let_go(s);
}

static void on_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    CHECK(h->n > 0 && end == l->recv_ended);
    in_event(l);
}

static void on_informational(struct ep_leg *l, struct ep_headers *h)
{
    CHECK(h->n > 0);
    in_event(l);
}

static void on_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    CHECK(s.n || end);
    if (s.n & 1)
        l->ops->consumed(l, s.n);
    in_event(l);
}

static void on_sent(struct ep_leg *l, size_t n)
{
    CHECK(n > 0);
    in_event(l);
}

static void on_trailers(struct ep_leg *l, struct ep_headers *h)
{
    CHECK(h->n > 0);
    in_event(l);
}

static void on_message_sent(struct ep_leg *l)
{
    in_event(l);
}

static void on_reset(struct ep_leg *l, enum ep_reset why)
{
    struct side *s = l->owner;

    (void)why;
    CHECK(s->leg == l && !s->over);
    s->over = true;
    if (s->play->mood & 4)
        let_go(s);
}

static const struct ep_leg_events events = {
    .on_headers = on_headers,
    .on_informational = on_informational,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_sent = on_sent,
    .on_message_sent = on_message_sent,
    .on_reset = on_reset,
};

static bool own(struct play *p, struct ep_leg *l)
{
    struct side *s;

    if (!l || p->n == LEGS_MAX)
        return false;
    s = &p->sides[p->n++];
    s->play = p;
    s->leg = l;
    ep_arena_init(&s->arena, &p->w.chunks);
    l->events = &events;
    l->owner = s;
    l->arena = &s->arena;
    return true;
}

static bool on_request(void *user, struct ep_leg *l)
{
    return own(user, l);
}

static void on_refused(void *user, struct ep_conn *c, unsigned status, const char *reason)
{
    (void)user, (void)c;
    CHECK(reason && status != 1);
}

static void on_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    (void)c, (void)why;
    ((struct play *)user)->conn = NULL;
}

static void on_idle(void *user, struct ep_conn *c)
{
    struct play *p = user;

    if (p->mood & 8 && p->n < LEGS_MAX)
        own(p, ep_h1_open(c));
}

static const struct ep_acceptor acceptor = {on_request, on_refused, on_closed};
static const struct ep_client_events client_events = {NULL, on_idle, on_closed};
static const struct ep_conn_handler nobody = {.name = "none"};

enum codec { H1_SERVER, H1_CLIENT, TCP_SERVER, TCP_CLIENT };

static bool begin(struct play *p, enum codec codec)
{
    struct ep_addr nowhere = {.len = sizeof(sa_family_t), .u.sa.sa_family = AF_UNIX};
    struct ep_error err;
    int fds[2];

    if (!ep_worker_init(&p->w, 0, &err))
        return false;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    p->peer = fds[1];
    ep_http_options_preset(&p->o);
    p->o.stream_window = 2000;
    p->o.max_requests = LEGS_MAX - 2;
    p->conn = ep_conn_accept(&p->w, fds[0], &nowhere, &nobody, NULL);
    p->conn->is_server = codec == H1_SERVER || codec == TCP_SERVER;
    if (codec == H1_SERVER)
        ep_h1_serve(p->conn, &p->o, &acceptor, p, NULL, NULL, 0);
    else if (codec == H1_CLIENT)
        ep_h1_client(p->conn, &p->o, &client_events, p);
    else if (codec == TCP_SERVER)
        ep_tcp_serve(p->conn, &p->o, &acceptor, p, NULL, (const unsigned char *)"first", 5);
    else
        ep_tcp_client(p->conn, &p->o, &client_events, p);
    return true;
}

static void end(struct play *p)
{
    char sink[4096];

    while (recv(p->peer, sink, sizeof sink, 0) > 0)
        ;
    close(p->peer);
    ep_worker_turn(&p->w, false);
    if (p->conn)
        ep_conn_abort(p->conn, EP_CLOSE_LOCAL, false);
    ep_worker_turn(&p->w, false);
    CHECK(!p->conn);
    for (unsigned i = 0; i < p->n; i++) {
        if (p->sides[i].leg)
            let_go(&p->sides[i]);
        ep_arena_fini(&p->sides[i].arena);
    }
    CHECK(p->w.mem.live_bytes == 0);
    ep_worker_fini(&p->w);
}

static void open_leg(struct play *p, enum codec codec)
{
    if (!p->conn || p->n == LEGS_MAX)
        return;
    if (codec == H1_CLIENT)
        own(p, ep_h1_open(p->conn));
    else if (codec == TCP_CLIENT)
        own(p, ep_tcp_open(p->conn));
}

/* One step; the number of further bytes of the input that it took. */
static size_t step(struct play *p, enum codec codec, unsigned what, const uint8_t *rest, size_t n)
{
    struct side *s = p->n ? &p->sides[p->n - 1] : NULL;
    struct ep_leg *l = s ? s->leg : NULL;
    size_t take = EP_MIN(n, (size_t)(what >> 3) * 4);

    switch (what & 7) {
    case 0: /* the peer speaks */
    case 1:
        send(p->peer, rest, take, MSG_NOSIGNAL);
        ep_worker_turn(&p->w, false);
        return take;
    case 2:
        if (l)
            reply(s, what >> 3);
        else
            open_leg(p, codec);
        break;
    case 3:
        if (l)
            body(s, what >> 3);
        break;
    case 4:
        if (l && what & 8)
            l->ops->reset(l, EP_RESET_CANCEL);
        if (l)
            let_go(s);
        break;
    case 5:
        p->mood = what >> 3;
        break;
    case 6:
        if (what & 8)
            shutdown(p->peer, SHUT_WR);
        if (what & 16 && p->conn)
            ep_codec_drain(p->conn, EP_S);
        if (what & 32 && l)
            l->ops->consumed(l, 5000);
        break;
    default:
        if (what & 8) {
            p->w.now_ns += (uint64_t)(what >> 4) * 20 * EP_S;
            ep_wheel_advance(&p->w.wheel, p->w.now_ns);
        }
        break;
    }
    ep_worker_turn(&p->w, false);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct play p;
    enum codec codec;
    size_t at = 1;

    if (size < 2)
        return 0;
    ep_log_set_level(EP_LOG_OFF);
    codec = (enum codec)(data[0] & 3);
    memset(&p, 0, sizeof p);
    if (!begin(&p, codec))
        return 0;
    while (at < size && p.conn) {
        unsigned what = data[at++];

        at += step(&p, codec, what, data + at, size - at);
    }
    end(&p);
    return 0;
}
