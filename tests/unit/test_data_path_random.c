/* link: ep_filters */
/* The data path under plays that nobody wrote: clients, origins, filters and time do what a seed says, in any order. Every
 * assertion of the proxy holds, and at the end nothing is left. EPHOR_SEEDS=from-to runs others than the usual ones. */
#include "proxy_play_h2.h"

#define EXCHANGES 6
#define WIRES     4
#define STEPS     150

#define UPGRADE                                                                                                        \
    "GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"        \
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

static struct ep_rng rng;
static struct exchange ex[EXCHANGES];
static struct wire wires[WIRES];
static uint64_t ahead_ns;

static unsigned below(unsigned n)
{
    return (unsigned)ep_rng_below(&rng, n);
}

static bool one_in(unsigned n)
{
    return below(n) == 0;
}

static void later(uint64_t ns)
{
    ahead_ns += ns;
    p.s.w.now_ns = ep_clock_ns() + ahead_ns;
    ep_wheel_advance(&p.s.w.wheel, p.s.w.now_ns);
    ep_worker_turn(&p.s.w, false);
}

/* --- what clients do --- */

static void dial_again(void)
{
    if (client_conn)
        return;
    client_ready = false;
    client_conn = ep_conn_connect(&p.s.w, &p.addr, NULL, 0, NULL, (struct ep_str){NULL, 0}, &dialling, NULL);
    for (int i = 0; i < 1000 && client_conn && !client_ready; i++)
        ep_worker_turn(&p.s.w, false);
}

static void client_acts(struct exchange *x)
{
    static const char *const methods[] = {"GET", "POST", "HEAD", "PUT", "CONNECT"};

    if (!x->leg) {
        if (!client_conn || !client_ready || client_conn->handler == &dialling || ep_h2_capacity(client_conn) == 0)
            return;
        const char *method = methods[below(EP_COUNT(methods) - !one_in(4))];
        if (!strcmp(method, "CONNECT")) { /* for a websocket, or it has no path */
            ex_open(x, "GET", false);
            return;
        }
        ex_open(x, method, one_in(2));
        return;
    }
    if (x->leg->over || one_in(12)) {
        ex_close(x);
        return;
    }
    switch (below(6)) {
    case 0:
        x->leg->ops->reset(x->leg, below(2) ? EP_RESET_CANCEL : EP_RESET_INTERNAL);
        break;
    case 1:
        x->hold = !x->hold;
        break;
    case 2:
        if (!x->leg->send_ended && one_in(2)) {
            ep_headers_add(&x->trailers_out, EP_STR("x-t"), EP_STR("1"));
            x->leg->ops->trailers(x->leg, &x->trailers_out);
        }
        break;
    default:
        if (!x->leg->send_ended)
            put(x->leg, 1 + below(one_in(3) ? 300000 : 300), one_in(3));
    }
}

static void wire_acts(struct wire *x)
{
    static const char *const requests[] = {
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
        "CONNECT b:1 HTTP/1.1\r\nhost: b:1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        UPGRADE,
        "5\r\nefghi\r\n", "0\r\n\r\n", "0\r\nx-t: 1\r\n\r\n", "0123456789", "nonsense \r\n", "GE",
    };

    if (x->fd < 0) {
        if (p.l->listener.fd >= 0)
            wire_dial(x, &p.s, &p.addr);
        return;
    }
    switch (below(8)) {
    case 0:
        wire_close(x, one_in(2));
        break;
    case 1:
        shutdown(x->fd, SHUT_WR);
        break;
    default: {
        const char *text = requests[below(EP_COUNT(requests))];
        if (send(x->fd, text, strlen(text), MSG_NOSIGNAL) < 0)
            return;
    }
    }
}

/* --- what the origin does --- */

static struct served *any_held(void)
{
    unsigned n = 0, at;

    EP_LIST_FOREACH(i, &origin.held)
    n++;
    if (n == 0)
        return NULL;
    at = below(n);
    EP_LIST_FOREACH(i, &origin.held) {
        if (at-- == 0)
            return EP_CONTAINER(i, struct served, node);
    }
    return NULL;
}

static void origin_acts(void)
{
    static const char *const statuses[] = {"200", "200", "200", "204", "304", "500", "503", "404"};
    struct served *x = any_held();
    struct ep_leg *l;

    if (!x || ep_list_linked(&x->task.node))
        return;
    l = x->leg;
    if (l->over || (l->send_ended && l->recv_ended)) {
        ep_worker_defer(&p.s.w, &x->task);
        return;
    }
    if (x->out.n == 0 && one_in(6)) {
        struct ep_headers hints;
        ep_headers_init(&hints, &x->arena);
        ep_headers_add_id(&hints, EP_HDR_STATUS, one_in(2) ? EP_STR("103") : EP_STR("100"));
        l->ops->informational(l, &hints);
        return;
    }
    if (one_in(8)) {
        enum ep_reset why = (enum ep_reset)below(EP_RESET_COUNT);
        l->ops->reset(l, why == EP_RESET_NO_ERROR && !l->send_ended ? EP_RESET_CANCEL : why);
        ep_worker_defer(&p.s.w, &x->task);
        return;
    }
    if (x->out.n == 0) {
        const char *status = statuses[below(EP_COUNT(statuses))];
        bool bodiless = l->head_request || !strcmp(status, "204") || !strcmp(status, "304");
        ep_headers_add_id(&x->out, EP_HDR_STATUS, ep_str(status));
        if (one_in(20)) /* more than is taken */
            for (int i = 0; i < 120; i++)
                ep_headers_add(&x->out, EP_STR("x"), EP_STR("y"));
        l->ops->headers(l, &x->out, bodiless || one_in(3));
        return;
    }
    if (!l->send_ended) {
        if (one_in(5)) {
            struct ep_headers *t = EP_ARENA_NEW(&x->arena, struct ep_headers);
            ep_headers_init(t, &x->arena);
            ep_headers_add_id(t, EP_HDR_GRPC_STATUS, EP_STR("0"));
            l->ops->trailers(l, t);
        } else {
            put(l, 1 + below(one_in(3) ? 300000 : 300), one_in(3));
        }
    }
}

/* --- what filters and others do --- */

static struct ep_stream *any_stream(void)
{
    unsigned at;

    if (p.l->n_streams == 0)
        return NULL;
    at = below(p.l->n_streams);
    EP_LIST_FOREACH(i, &p.l->streams) {
        if (at-- == 0)
            return EP_CONTAINER(i, struct ep_stream, node);
    }
    return NULL;
}

static enum ep_step any_step(bool head)
{
    switch (below(12)) {
    case 0:
        return EP_WAIT;
    case 1:
        return head ? EP_BUFFER : EP_NEXT;
    case 2:
        return EP_REPLIED;
    default:
        return EP_NEXT;
    }
}

static void filters_act(void)
{
    struct ep_stream *s = any_stream();

    test_script.request = any_step(true);
    test_script.response = any_step(true);
    test_script.request_body = any_step(false);
    test_script.response_body = any_step(false);
    if (!s)
        return;
    switch (below(8)) {
    case 0:
    case 1:
        if (s->request_walk.waiting)
            ep_stream_resume_request(s);
        break;
    case 2:
    case 3:
        if (s->response_walk.waiting)
            ep_stream_resume_response(s);
        break;
    case 4:
        if (one_in(3))
            test_step(s, EP_REPLIED);
        break;
    case 5:
        if (one_in(4))
            ep_stream_reply(s, 202, (struct ep_str){NULL, 0}, one_in(2) ? EP_STR("") : EP_STR("of our own"), NULL, 0);
        break;
    case 6:
        if (one_in(6))
            ep_stream_abort(s, EP_RESET_CANCEL);
        break;
    default:
        break;
    }
}

static void others_act(void)
{
    struct ep_list *n = p.s.w.conns.next;

    switch (below(12)) {
    case 0:
        later(below(200) * EP_MS);
        break;
    case 1:
        later(below(20) * EP_S);
        break;
    case 2:
        if (one_in(10))
            ep_server_listener_drain(p.l, below(2) * 100 * EP_MS);
        break;
    case 3:
        if (one_in(5) && client_conn)
            ep_conn_abort(client_conn, EP_CLOSE_LOCAL, one_in(2));
        break;
    case 4:
        if (one_in(5) && origin.last)
            ep_conn_abort(origin.last, EP_CLOSE_LOCAL, one_in(2));
        break;
    case 5:
        if (one_in(5) && origin.last)
            ep_codec_drain(origin.last, 0);
        break;
    case 6: /* any connection at all */
        for (unsigned i = below(p.s.w.n_conns + 1); i && n->next != &p.s.w.conns; i--)
            n = n->next;
        if (one_in(8) && n != &p.s.w.conns)
            ep_conn_close(EP_CONTAINER(n, struct ep_conn, node));
        break;
    case 7:
        if (client_conn)
            (one_in(2) ? ep_conn_pause_read : ep_conn_resume_read)(client_conn);
        break;
    default:
        dial_again();
    }
}

/* --- a play --- */

static void begin(uint64_t seed)
{
    ep_rng_seed(&rng, seed);
    ahead_ns = 0;
    proxy_init(&p);
    server_open(&origin, &p.s, one_in(2) ? SERVER_H2 : SERVER_H1);
    origin.status = 0;
    p.cluster_config.endpoints.v = &origin.addr;
    p.cluster_config.protocol = origin.speaks == SERVER_H2 ? EP_PROTO_H2 : EP_PROTO_HTTP1;
    p.cluster_config.limits.connections = 1 + below(8);
    p.cluster_config.limits.requests = 1 + below(12);
    p.route.idle_timeout_ns = one_in(2) ? 60 * EP_S : 2 * EP_S;
    p.route.timeout_ns = one_in(2) ? 0 : 3 * EP_S;
    p.route.per_try_timeout_ns = one_in(3) ? EP_S : 0;
    if (one_in(2)) {
        static struct ep_str on[] = {EP_STR_INIT("reset"), EP_STR_INIT("5xx"), EP_STR_INIT("timeout"), EP_STR_INIT("refused"),
                                     EP_STR_INIT("connect")};
        p.retry = (struct ep_retry_config){.attempts = 2, .on = {on, EP_COUNT(on)}, .budget = 1, .backoff_ns = EP_MS};
        p.route.retry = &p.retry;
    }
    if (one_in(8))
        p.config.protocol = EP_LISTENER_TCP;
    proxy_start(&p);
    ep_http_options_preset(&client_options);
    client_conn = NULL;
    memset(ex, 0, sizeof ex);
    for (size_t i = 0; i < WIRES; i++)
        wires[i] = (struct wire){.fd = -1};
    dial_again();
}

static void end(void)
{
    uint64_t until;

    for (size_t i = 0; i < EXCHANGES; i++)
        if (ex[i].leg)
            ex_close(&ex[i]);
    for (size_t i = 0; i < WIRES; i++)
        wire_close(&wires[i], one_in(2));
    if (client_conn)
        ep_conn_abort(client_conn, EP_CLOSE_LOCAL, false);
    memset(&test_script, 0, sizeof test_script);
    until = ep_clock_ns() + 5 * EP_S;
    while ((p.l->n_streams || !ep_list_empty(&origin.held)) && ep_clock_ns() < until) {
        EP_LIST_FOREACH(i, &origin.held) {
            struct served *x = EP_CONTAINER(i, struct served, node);
            x->leg->ops->reset(x->leg, EP_RESET_CANCEL);
            ep_worker_defer(&p.s.w, &x->task);
        }
        EP_LIST_FOREACH(i, &p.l->streams) {
            struct ep_stream *s = EP_CONTAINER(i, struct ep_stream, node);
            if (s->request_walk.waiting)
                ep_stream_resume_request(s);
            if (s->response_walk.waiting)
                ep_stream_resume_response(s);
        }
        later(100 * EP_MS);
    }
    if (p.l->n_streams)
        fail_msg("%u streams never ended", p.l->n_streams);
    settle(&p.s);
    server_close(&origin);
    p.s.w.now_ns = ep_clock_ns() + ahead_ns;
    proxy_close(&p);
}

static void play(uint64_t seed)
{
    begin(seed);
    for (int i = 0; i < STEPS; i++) {
        switch (below(8)) {
        case 0:
        case 1:
            client_acts(&ex[below(EXCHANGES)]);
            break;
        case 2:
        case 3:
            wire_acts(&wires[below(WIRES)]);
            break;
        case 4:
        case 5:
            origin_acts();
            break;
        case 6:
            filters_act();
            break;
        default:
            others_act();
        }
        for (unsigned k = below(4); k; k--)
            ep_worker_turn(&p.s.w, false);
    }
    end();
}

static void test_plays(void **state)
{
    const char *seeds = getenv("EPHOR_SEEDS");
    unsigned long from = 1, to = 60;

    (void)state;
    if (seeds && sscanf(seeds, "%lu-%lu", &from, &to) != 2)
        fail_msg("EPHOR_SEEDS is from-to");
    for (unsigned long seed = from; seed <= to; seed++) {
        if (seeds)
            fprintf(stderr, "seed %lu\n", seed);
        play(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plays)};

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
