/* link: ep_http */
/* Codecs joined as proxies join them: peer - h1 server = h2 client - h2 server = h1 client - peer. What one peer says in
 * HTTP/1 goes through HTTP/2 and comes out as HTTP/1 at the other: requests, trailers, WebSocket, back-pressure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/h1.h"
#include "http/http.h"

struct relay;

/* A stream between two legs. Events of one are ops of the other. */
struct bridge {
    struct relay *relay;
    struct ep_leg *down, *up;
    struct ep_arena arena;
    bool down_done, up_done, over;
    struct ep_task end;
};

/* One proxy: requests that come in on `server` leave on `client`. */
struct relay {
    struct ep_worker *w;
    struct ep_conn *server, *client;
    bool h2_client;
    unsigned n, closed;
    struct bridge bridges[8];
};

struct play {
    struct ep_worker w;
    struct ep_http_options o;
    struct relay a, b;
    int left, right; /* the peers */
    char got[300000];
};

static struct ep_leg *other(struct ep_leg *l)
{
    struct bridge *b = l->owner;

    return l == b->down ? b->up : b->down;
}

static void run_end(struct ep_task *t)
{
    struct bridge *b = EP_CONTAINER(t, struct bridge, end);

    if (b->up)
        b->up->ops->release(b->up);
    if (b->down)
        b->down->ops->release(b->down);
    b->up = b->down = NULL;
}

static void on_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct bridge *b = l->owner;

    if (l == b->down) {
        b->up = b->relay->h2_client ? ep_h2_open(b->relay->client) : ep_h1_open(b->relay->client);
        assert_non_null(b->up);
        b->up->events = l->events;
        b->up->owner = b;
        b->up->arena = &b->arena;
    }
    other(l)->ops->headers(other(l), h, end);
}

static void on_informational(struct ep_leg *l, struct ep_headers *h)
{
    other(l)->ops->informational(other(l), h);
}

static void on_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    other(l)->ops->data(other(l), ep_slice_ref(s), end);
}

static void on_trailers(struct ep_leg *l, struct ep_headers *h)
{
    other(l)->ops->trailers(other(l), h);
}

static void on_sent(struct ep_leg *l, size_t n)
{
    other(l)->ops->consumed(other(l), n);
}

static void on_message_sent(struct ep_leg *l)
{
    struct bridge *b = l->owner;

    if (l == b->down)
        b->down_done = true;
    else
        b->up_done = true;
    if (b->down_done && b->up_done)
        ep_worker_defer(b->relay->w, &b->end);
}

static void on_reset(struct ep_leg *l, enum ep_reset why)
{
    struct bridge *b = l->owner;

    b->over = true;
    if (other(l))
        other(l)->ops->reset(other(l), why);
    ep_worker_defer(b->relay->w, &b->end);
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

static bool on_request(void *user, struct ep_leg *l)
{
    struct relay *r = user;
    struct bridge *b = &r->bridges[r->n++];

    assert_true(r->n <= 8);
    b->relay = r;
    b->down = l;
    ep_arena_init(&b->arena, &r->w->chunks);
    ep_task_init(&b->end, run_end);
    l->events = &events;
    l->owner = b;
    l->arena = &b->arena;
    return true;
}

static void on_refused(void *user, struct ep_conn *c, unsigned status, const char *reason)
{
    (void)user, (void)c, (void)status;
    fail_msg("refused: %s", reason);
}

static void on_closed(void *user, struct ep_conn *c, enum ep_close why)
{
    struct relay *r = user;

    (void)why;
    r->closed++;
    if (r->server == c)
        r->server = NULL;
    else
        r->client = NULL;
}

static void nothing(void *user, struct ep_conn *c)
{
    (void)user, (void)c;
}

static const struct ep_acceptor acceptor = {on_request, on_refused, on_closed};
static const struct ep_client_events client_events = {nothing, nothing, on_closed};
static const struct ep_conn_handler nobody = {.name = "none"};

static struct ep_conn *conn_of(struct play *p, int fd, bool server)
{
    struct ep_addr nowhere = {.len = sizeof(sa_family_t), .u.sa.sa_family = AF_UNIX};
    struct ep_conn *c = ep_conn_accept(&p->w, fd, &nowhere, &nobody, NULL);

    assert_non_null(c);
    c->is_server = server;
    return c;
}

static void turn(struct play *p)
{
    for (int i = 0; i < 24; i++)
        ep_worker_turn(&p->w, false);
}

static void begin(struct play *p)
{
    struct ep_error err;
    int x[2], y[2], z[2];

    memset(p, 0, sizeof *p);
    assert_true(ep_worker_init(&p->w, 0, &err));
    ep_http_options_preset(&p->o);
    p->o.extended_connect = true;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, x), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, y), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, z), 0);
    p->left = x[0];
    p->right = z[1];
    p->a = (struct relay){.w = &p->w, .server = conn_of(p, x[1], true), .client = conn_of(p, y[0], false), .h2_client = true};
    p->b = (struct relay){.w = &p->w, .server = conn_of(p, y[1], true), .client = conn_of(p, z[0], false)};
    ep_h1_serve(p->a.server, &p->o, &acceptor, &p->a, NULL, NULL, 0);
    ep_h2_client(p->a.client, &p->o, &client_events, &p->a);
    ep_h2_serve(p->b.server, &p->o, &acceptor, &p->b, NULL, NULL, 0);
    ep_h1_client(p->b.client, &p->o, &client_events, &p->b);
    turn(p);
}

static void end(struct play *p)
{
    struct relay *relays[] = {&p->a, &p->b};

    close(p->left);
    close(p->right);
    turn(p);
    for (int i = 0; i < 2; i++) {
        struct relay *r = relays[i];

        if (r->server)
            ep_conn_abort(r->server, EP_CLOSE_LOCAL, false);
        if (r->client)
            ep_conn_abort(r->client, EP_CLOSE_LOCAL, false);
    }
    turn(p);
    for (int i = 0; i < 2; i++) {
        for (unsigned k = 0; k < relays[i]->n; k++) {
            run_end(&relays[i]->bridges[k].end);
            ep_arena_fini(&relays[i]->bridges[k].arena);
        }
    }
    assert_int_equal(p->w.mem.live_bytes, 0);
    ep_worker_fini(&p->w);
}

static void says(struct play *p, int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    turn(p);
}

static const char *reads(struct play *p, int fd)
{
    size_t n = 0;
    ssize_t r;

    turn(p);
    while ((r = recv(fd, p->got + n, sizeof p->got - 1 - n, 0)) > 0) {
        n += (size_t)r;
        turn(p);
    }
    p->got[n] = '\0';
    return p->got;
}

static void requests_go_through(void **state)
{
    static struct play p;

    (void)state;
    begin(&p);
    for (int i = 0; i < 3; i++) {
        says(&p, p.left, "POST /x HTTP/1.1\r\nHost: h\r\nCookie: a=1; b=2\r\nTE: trailers\r\nConnection: keep-alive\r\n"
                         "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n");
        const char *got = reads(&p, p.right);
        assert_true(ep_str_starts(ep_str(got), EP_STR("POST /x HTTP/1.1\r\nhost: h\r\n")));
        assert_non_null(strstr(got, "cookie: a=1; b=2\r\n"));
        assert_non_null(strstr(got, "te: trailers\r\n"));
        assert_non_null(strstr(got, "transfer-encoding: chunked\r\n"));
        assert_non_null(strstr(got, "\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"));
        says(&p, p.right, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n"
                          "Trailer: Grpc-Status\r\nKeep-Alive: timeout=5\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\n\r\n");
        assert_string_equal(reads(&p, p.left),
                            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 201 Created\r\ntrailer: Grpc-Status\r\n"
                            "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n");
    }
    says(&p, p.left, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_string_equal(reads(&p, p.right), "HEAD / HTTP/1.1\r\nhost: h\r\n\r\n");
    says(&p, p.right, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
    assert_string_equal(reads(&p, p.left), "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n");
    assert_int_equal(p.a.closed + p.b.closed, 0);
    end(&p);
}

static void websocket_goes_through(void **state)
{
    static struct play p;
    char accept[H1_ACCEPT_BYTES + 1] = "", answer[512];
    const char *got, *key;

    (void)state;
    begin(&p);
    says(&p, p.left, "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Protocol: v1\r\n\r\n");
    got = reads(&p, p.right);
    assert_true(ep_str_starts(ep_str(got), EP_STR("GET /chat HTTP/1.1\r\nhost: h\r\n")));
    assert_non_null(strstr(got, "upgrade: websocket\r\n"));
    assert_non_null(strstr(got, "sec-websocket-protocol: v1\r\n"));
    assert_null(strstr(got, "dGhlIHNhbXBsZSBub25jZQ==")); /* each connection has a key of its own */
    key = strstr(got, "sec-websocket-key: ");
    assert_non_null(key);
    h1_websocket_accept(ep_str_n(key + 19, H1_KEY_BYTES), accept);
    snprintf(answer, sizeof answer, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                    "Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: v1\r\n\r\nhi", accept);
    says(&p, p.right, answer);
    assert_string_equal(reads(&p, p.left),
                        "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: v1\r\nconnection: upgrade\r\n"
                        "upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhi");
    says(&p, p.left, "to the right");
    assert_string_equal(reads(&p, p.right), "to the right");
    says(&p, p.right, "to the left");
    assert_string_equal(reads(&p, p.left), "to the left");
    shutdown(p.left, SHUT_WR);
    turn(&p);
    says(&p, p.right, "last words");
    assert_string_equal(reads(&p, p.left), "last words");
    shutdown(p.right, SHUT_WR);
    turn(&p);
    assert_true(recv(p.left, p.got, 1, 0) == 0);
    assert_true(recv(p.right, p.got, 1, 0) == 0);
    end(&p);
}

/* Nobody reads on the right: the left is stopped before much is held, and all of it comes when it is asked for. */
static void back_pressure_goes_through(void **state)
{
    static char body[64 * 1024];
    static struct play p;
    size_t total = 8u << 20, sent = 0, received = 0;
    uint32_t most = 0;

    (void)state;
    begin(&p);
    memset(body, 'x', sizeof body);
    says(&p, p.left, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8388608\r\n\r\n");
    for (int stalled = 0; stalled < 3;) {
        ssize_t n = send(p.left, body, EP_MIN(sizeof body, total - sent), MSG_NOSIGNAL);

        stalled = n > 0 ? 0 : stalled + 1;
        sent += n > 0 ? (size_t)n : 0;
        turn(&p);
    }
    assert_true(sent < 6u << 20);
    most = p.w.slabs.n_live;
    assert_true((size_t)most * EP_SLAB_BYTES < 4u << 20);
    while (received < total) {
        size_t before = received + sent;
        ssize_t n = sent < total ? send(p.left, body, EP_MIN(sizeof body, total - sent), MSG_NOSIGNAL) : 0;

        sent += n > 0 ? (size_t)n : 0;
        turn(&p);
        while ((n = recv(p.right, p.got, sizeof p.got, 0)) > 0)
            received += (size_t)n;
        turn(&p);
        assert_true(received + sent > before);
    }
    assert_int_equal(received - total, strlen("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 8388608\r\n\r\n"));
    end(&p);
}

static void a_lost_server_reaches_the_client(void **state)
{
    static struct play p;

    (void)state;
    begin(&p);
    says(&p, p.left, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    reads(&p, p.right);
    says(&p, p.right, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
    assert_string_equal(reads(&p, p.left), "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart");
    shutdown(p.right, SHUT_RDWR);
    turn(&p);
    assert_true(recv(p.left, p.got, 1, 0) == 0); /* an end before the 100 bytes, and no more */
    end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_go_through),
        cmocka_unit_test(websocket_goes_through),
        cmocka_unit_test(back_pressure_goes_through),
        cmocka_unit_test(a_lost_server_reaches_the_client),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
