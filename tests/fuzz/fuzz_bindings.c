/* link: ep_config */
/* The objects that scripts get: any method with any arguments, in any order, on handles of this stream, of another, and of
 * one that is over. The bytes are plays of clients, origins and time over the whole data path, with policies and two scripts
 * for Envoy in the chain; the head of each request carries a program for them, which bindings/policies/_driver.lua runs.
 * Whatever they do, everything ends, nothing is left, and a plain request after it is answered. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/process.h"
#include "filter/memory.h"
#include "lua/host.h"
#include "upstream/cluster.h"
#include "upstream/upstream.h"

#define CLIENTS 3
#define ORIGINS 8

struct input {
    const uint8_t *p, *end;
};

static struct {
    struct ep_serving serving;
    struct ep_attempt attempt;
    struct ep_server_listener *listener;
    struct ep_addr address, own[1];
    int origin; /* listens */
    int clients[CLIENTS], origins[ORIGINS]; /* -1: none */
    bool chunked[CLIENTS];
    uint64_t ahead_ns, played;
} play;

#define W (&play.serving.worker)

static unsigned next(struct input *in)
{
    return in->p < in->end ? *in->p++ : 0;
}

/* --- the proxy, once --- */

static int listen_any(struct ep_addr *out)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    ep_addr_parse(EP_STR("127.0.0.1:0"), out);
    out->len = sizeof out->u;
    assert(bind(fd, &out->u.sa, sizeof(struct sockaddr_in)) == 0 && listen(fd, 64) == 0);
    assert(getsockname(fd, &out->u.sa, &out->len) == 0);
    return fd;
}

static struct ep_config *configuration(uint16_t port)
{
    struct ep_problems problems;
    struct ep_config *config;
    char *text;

    assert(asprintf(&text,
                    "workers: 1\n"
                    "node: {service: fuzz}\n"
                    "policies: {directory: '" EPHOR_FUZZ_DIR "/bindings/policies', budget: {time: 1s}}\n"
                    "listeners:\n"
                    "  - name: in\n"
                    "    bind: 127.0.0.1:1\n"
                    "    max_body: 64KiB\n"
                    "    filters: [agent, policies, {lua: {name: one, file: '" EPHOR_FUZZ_DIR "/bindings/script.lua'}},"
                    " {lua: {name: two, on_error: allow, file: '" EPHOR_FUZZ_DIR "/bindings/script.lua'}}]\n"
                    "    cluster: app\n"
                    "clusters:\n"
                    "  - {name: app, endpoints: ['127.0.0.1:%u'], protocol: http/1.1}\n"
                    "  - {name: other, endpoints: ['127.0.0.1:%u'], protocol: http/1.1}\n",
                    port, port) > 0);
    ep_problems_init(&problems);
    config = ep_config_parse(ep_str(text), "fuzz", &problems);
    if (!config) {
        fputs(ep_problems_text(&problems, true), stderr);
        abort();
    }
    ep_problems_fini(&problems);
    free(text);
    return config;
}

static void start(void)
{
    struct ep_error err = {""};
    struct ep_addr origin;
    int fd = listen_any(&play.address);

    play.origin = listen_any(&origin);
    memset(play.clients, 0xff, sizeof play.clients);
    memset(play.origins, 0xff, sizeof play.origins);
    assert(ep_worker_init(W, 0, &err));
    W->stats = ep_stats_new();
    W->memory = ep_memory_new();
    assert(ep_upstream_worker_init(W, &err));
    ep_list_init(&play.serving.slots);
    play.attempt = (struct ep_attempt){.config = configuration(ep_addr_port(&origin)), .generation = 1, .n_workers = 1,
                                       .own = play.own};
    W->view = ep_view_build(&play.serving, &play.attempt, &err);
    if (!W->view) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    play.listener = ep_server_listener_new(W, W->view->chains[0], fd, &err);
    assert(play.listener);
}

/* --- peers --- */

static void turns(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        ep_worker_turn(W, false);
}

static void later(uint64_t ns)
{
    play.ahead_ns += ns;
    W->now_ns = ep_clock_ns() + play.ahead_ns;
    ep_wheel_advance(&W->wheel, W->now_ns);
    turns(2);
}

static void hang_up(int *fd)
{
    struct linger l = {.l_onoff = 1};

    if (*fd < 0)
        return;
    setsockopt(*fd, SOL_SOCKET, SO_LINGER, &l, sizeof l); /* no port stays behind */
    close(*fd);
    *fd = -1;
}

static void say(int *fd, const char *p, size_t n)
{
    if (*fd >= 0 && send(*fd, p, n, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
        hang_up(fd);
}

/* Hears and forgets; a peer that is gone is gone. */
static void hear(int *fd)
{
    char dump[16384];
    ssize_t n = 1;

    while (*fd >= 0 && (n = recv(*fd, dump, sizeof dump, 0)) > 0)
        continue;
    if (*fd >= 0 && (n == 0 || (errno != EAGAIN && errno != EINTR)))
        hang_up(fd);
}

static void accept_origins(void)
{
    for (int i = 0; i < ORIGINS; i++) {
        if (play.origins[i] < 0)
            play.origins[i] = accept4(play.origin, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        hear(&play.origins[i]);
    }
}

static void dial(int *fd)
{
    hang_up(fd);
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert(*fd >= 0);
    if (connect(*fd, &play.address.u.sa, play.address.len) != 0 && errno != EINPROGRESS)
        hang_up(fd); /* the machine has no port: the proxy can't help that, and a plain request will tell if it can */
}

static size_t hex(char *out, struct input *in, size_t n)
{
    size_t used = 0;

    for (; n > 0 && in->p < in->end; n--)
        used += (size_t)snprintf(out + used, 3, "%02x", next(in));
    out[used] = '\0';
    return used;
}

#define TOOL_CALL                                                                                                      \
    "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":"                                               \
    "{\"name\":\"search\",\"arguments\":{\"q\":\"a@b.cd\"}}}  "

static void ask(struct input *in, unsigned i)
{
    static const char *const starts[] = {
        "POST /mcp HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n",
        "POST /x?y=1 HTTP/1.1\r\nhost: a\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n",
        "POST /s.S/M HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\nte: trailers\r\n",
    };
    static const char *const bodies[] = {
        "transfer-encoding: chunked\r\n\r\n",
        "content-length: 102\r\n\r\n" TOOL_CALL,
        "content-length: 5\r\n\r\nhello",
        "\r\n",
    };
    char first[2 * 256 + 1], second[2 * 64 + 1], head[2048];
    unsigned how = next(in);

    hex(first, in, next(in));
    hex(second, in, next(in) & 63);
    dial(&play.clients[i]);
    int n = snprintf(head, sizeof head, "%sx-twice: a\r\nx-twice: b\r\nx-program: %s\r\nx-second: %s\r\n%s",
                     starts[how & 3], first, second, bodies[how >> 2 & 3]);
    play.chunked[i] = (how >> 2 & 3) == 0;
    say(&play.clients[i], head, (size_t)n);
}

static void answer(struct input *in, unsigned i)
{
    static const char *const heads[] = {
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 500 No\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\n\r\nuntil the end",
        "nonsense\r\n\r\n",
    };
    const char *text = heads[next(in) & 7];

    say(&play.origins[i], text, strlen(text));
}

static void chunk(struct input *in, int *fd)
{
    char text[600];
    unsigned n = next(in);
    int used = snprintf(text, sizeof text, "%x\r\n", n + 1);

    memset(text + used, 'a', n + 1);
    memcpy(text + used + n + 1, "\r\n", 2);
    say(fd, text, (size_t)used + n + 3);
}

static void end_chunks(struct input *in, int *fd)
{
    const char *text = next(in) & 1 ? "0\r\n\r\n" : "0\r\nx-t: 1\r\n\r\n";

    say(fd, text, strlen(text));
}

static void act(struct input *in)
{
    unsigned op = next(in), client = (op >> 4) % CLIENTS, origin = (op >> 4) % ORIGINS;

    switch (op & 15) {
    case 0:
    case 1:
        ask(in, client);
        break;
    case 2:
        if (play.chunked[client])
            chunk(in, &play.clients[client]);
        break;
    case 3:
        if (play.chunked[client])
            end_chunks(in, &play.clients[client]);
        break;
    case 4:
        hang_up(&play.clients[client]);
        break;
    case 5:
        hear(&play.clients[client]);
        break;
    case 6:
    case 7:
    case 8:
        answer(in, origin);
        break;
    case 9:
        chunk(in, &play.origins[origin]);
        break;
    case 10:
        end_chunks(in, &play.origins[origin]);
        break;
    case 11:
        hang_up(&play.origins[origin]);
        break;
    case 12:
        later((next(in) + 1) * 20 * EP_MS);
        break;
    case 13: /* every origin says something whole */
        for (unsigned i = 0; i < ORIGINS; i++)
            say(&play.origins[i], "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 40);
        break;
    default:
        turns(op >> 4);
    }
    turns(3);
    accept_origins();
    turns(2);
}

/* Everybody goes. Then nothing may be left. */
static void end(void)
{
    struct ep_lua *l = W->lua;

    for (unsigned i = 0; i < CLIENTS; i++)
        hang_up(&play.clients[i]);
    for (unsigned i = 0; i < ORIGINS; i++)
        hang_up(&play.origins[i]); /* what they said too much must not answer the next */
    turns(4);
    for (int i = 0; i < 400 && play.listener->n_streams > 0; i++) {
        turns(2);
        accept_origins();
        for (unsigned k = 0; i > 3 && k < ORIGINS; k++)
            hang_up(&play.origins[k]);
        if (i > 10)
            later(5 * EP_S);
    }
    assert(play.listener->n_streams == 0);
    assert(!l->run.active);
    assert(lua_gettop(l->thread) == 0);
}

static void plain_request(void)
{
    static const char request[] = "GET /plain HTTP/1.1\r\nhost: a\r\nx-program: 00\r\nconnection: close\r\n\r\n";
    char got[1024] = "";
    size_t n = 0;

    dial(&play.clients[0]);
    say(&play.clients[0], request, sizeof request - 1);
    for (int i = 0; i < 2000 && n < sizeof got - 1; i++) {
        turns(2);
        for (unsigned k = 0; k < ORIGINS; k++) {
            char dump[4096];
            if (play.origins[k] < 0)
                play.origins[k] = accept4(play.origin, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (play.origins[k] >= 0 && recv(play.origins[k], dump, sizeof dump, 0) > 0)
                say(&play.origins[k], "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 40);
        }
        ssize_t r = recv(play.clients[0], got + n, sizeof got - 1 - n, 0);
        if (r > 0)
            n += (size_t)r;
        else if (r == 0)
            break;
    }
    got[n] = '\0';
    if (!strstr(got, " 200 OK\r\n") || !strstr(got, "ok")) {
        fprintf(stderr, "a plain request was answered by: %s\n", got);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct input in = {data, data + n};

    if (!play.listener) { /* one proxy for the whole run: what one input breaks, the next finds */
        ep_log_set_level(EP_LOG_OFF);
        start();
    }
    for (unsigned i = 0; i < 40 && in.p < in.end; i++)
        act(&in);
    end();
    if (++play.played % 16 == 0) {
        plain_request();
        end();
    }
    return 0;
}
