/* link: ep_http */
/* Bytes of a hostile h2 client, and of a hostile h2 server: the first byte of the input says which. The rest is
 * what it sends, in pieces whose size the second byte gives. Whatever comes, each request is answered or
 * reset, and nothing is left over. */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/http.h"

struct side {
    struct ep_leg *leg;
    struct ep_arena arena;
    struct ep_headers in, trailers, out;
    bool over;
    struct ep_task task;
    struct ep_list node;
};

struct stage {
    struct ep_worker w; /* first */
    struct ep_list sides;
    struct ep_http_options options;
};

static void let_go(struct ep_task *t)
{
    struct side *s = EP_CONTAINER(t, struct side, task);

    s->leg->ops->release(s->leg);
    ep_list_remove(&s->node);
    ep_headers_fini(&s->in);
    ep_headers_fini(&s->trailers);
    ep_headers_fini(&s->out);
    ep_arena_fini(&s->arena);
    free(s);
}

static void on_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct side *s = l->owner;

    s->in = *h;
    *h = (struct ep_headers){.arena = h->arena};
    if (!l->server)
        return;
    ep_headers_add_id(&s->out, EP_HDR_STATUS, EP_STR("200"));
    l->ops->headers(l, &s->out, false);
    if (end)
        l->ops->data(l, (struct ep_slice){NULL, (const unsigned char *)"hi", 2}, true);
}

static void on_data(struct ep_leg *l, struct ep_slice slice, bool end)
{
    l->ops->consumed(l, slice.n);
    if (l->server && !l->send_ended)
        l->ops->data(l, ep_slice_ref(slice), end);
}

static void on_trailers(struct ep_leg *l, struct ep_headers *h)
{
    struct side *s = l->owner;

    s->trailers = *h;
    *h = (struct ep_headers){.arena = h->arena};
    if (l->server && !l->send_ended)
        l->ops->trailers(l, &s->trailers);
}

static void on_sent(struct ep_leg *l, size_t n)
{
    (void)l, (void)n;
}

static void on_message_sent(struct ep_leg *l)
{
    struct side *s = l->owner;

    if (l->server)
        ep_worker_defer(l->conn->worker, &s->task);
}

static void on_reset(struct ep_leg *l, enum ep_reset why)
{
    struct side *s = l->owner;

    (void)why;
    if (s->over)
        abort(); /* twice */
    s->over = true;
    ep_worker_defer(l->conn->worker, &s->task);
}

static const struct ep_leg_events events = {on_headers, NULL, on_data, on_trailers, on_sent, on_message_sent, on_reset};

static struct side *adopt(struct ep_worker *w, struct ep_leg *l)
{
    struct side *s = ep_calloc(1, sizeof *s);

    s->leg = l;
    ep_arena_init(&s->arena, &w->chunks);
    ep_headers_init(&s->out, &s->arena);
    ep_task_init(&s->task, let_go);
    ep_list_push(&((struct stage *)w)->sides, &s->node);
    l->owner = s;
    l->events = &events;
    l->arena = &s->arena;
    return s;
}

static bool on_request(void *user, struct ep_leg *l)
{
    adopt(user, l);
    return true;
}

static void on_refused(void *user, struct ep_conn *c, unsigned status, const char *reason)
{
    (void)user, (void)c, (void)status, (void)reason;
}

static void on_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    (void)user, (void)c, (void)why;
}

static const struct ep_acceptor acceptor = {on_request, on_refused, on_closed};
static const struct ep_client_events client_events = {NULL, NULL, on_closed};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stage stage;
    struct ep_addr peer = {.len = sizeof(sa_family_t), .u.sa.sa_family = AF_UNIX};
    struct ep_conn *c;
    bool server, gone;
    size_t piece;
    int fd[2];

    if (size < 3 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) < 0)
        return 0;
    server = data[0] & 1;
    piece = data[1] ? data[1] : 4096;
    ep_log_set_level(EP_LOG_OFF);
    if (!ep_worker_init(&stage.w, 0, NULL))
        abort();
    ep_list_init(&stage.sides);
    ep_http_options_preset(&stage.options);
    stage.options.extended_connect = true;
    c = ep_conn_accept(&stage.w, fd[0], &peer, NULL, NULL);
    if (server) {
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        struct ep_slab *slab = ep_slab_new(&stage.w.slabs);
        memcpy(slab->data, preface, sizeof preface - 1);
        ep_h2_serve(c, &stage.options, &acceptor, &stage.w, slab, slab->data, sizeof preface - 1);
        ep_slab_unref(slab);
    } else {
        struct ep_leg *l;
        c->is_server = false;
        ep_h2_client(c, &stage.options, &client_events, NULL);
        for (int i = 0; i < 3 && (l = ep_h2_open(c)); i++) {
            struct side *s = adopt(&stage.w, l);
            ep_headers_add_id(&s->out, EP_HDR_METHOD, i ? EP_STR("GET") : EP_STR("POST"));
            ep_headers_add_id(&s->out, EP_HDR_SCHEME, EP_STR("http"));
            ep_headers_add_id(&s->out, EP_HDR_AUTHORITY, EP_STR("a"));
            ep_headers_add_id(&s->out, EP_HDR_PATH, EP_STR("/"));
            l->ops->headers(l, &s->out, i > 0);
        }
    }
    for (size_t at = 2; at < size; at += piece) {
        size_t n = EP_MIN(piece, size - at);
        unsigned char drain[4096];

        if (send(fd[1], data + at, n, MSG_NOSIGNAL) < 0)
            break;
        ep_worker_turn(&stage.w, false);
        while (read(fd[1], drain, sizeof drain) > 0)
            ;
    }
    close(fd[1]);
    for (int i = 0; i < 6; i++)
        ep_worker_turn(&stage.w, false);
    gone = ep_list_empty(&stage.w.conns);
    if (!gone) /* a closed peer ends every connection within a few turns */
        EP_LIST_FOREACH(n, &stage.w.conns)
            ep_conn_abort(EP_CONTAINER(n, struct ep_conn, node), EP_CLOSE_LOCAL, false);
    for (int i = 0; i < 4; i++)
        ep_worker_turn(&stage.w, false);
    EP_LIST_FOREACH(n, &stage.sides) { /* exchanges that ended well are let go by their owner */
        struct side *s = EP_CONTAINER(n, struct side, node);
        ep_list_remove(&s->task.node);
        let_go(&s->task);
    }
    if (stage.w.mem.live_bytes)
        abort(); /* something leaked that the sanitiser would not see behind the pools */
    ep_worker_fini(&stage.w);
    return 0;
}
