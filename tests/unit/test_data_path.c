/* link: ep_filters */
/* The whole data path against peers that speak bytes: every way for a message to end, and nothing left afterwards. */
#include "proxy_play.h"

#define GET(path) "GET " path " HTTP/1.1\r\nhost: a\r\n\r\n"

static struct proxy p;

static void ask(struct wire *client, struct wire *up, const char *request, const char *seen)
{
    wire_dial(client, &p.s, &p.addr);
    wire_say(client, request);
    upstream_accept(&p, up);
    HEARS(up, seen);
}

static void done(struct wire *a, struct wire *b)
{
    wire_close(a, false);
    if (b)
        wire_close(b, false);
    proxy_close(&p);
}

/* --- responses that come early, or in odd shapes --- */

static void test_bodiless_responses(void **state)
{
    static const struct {
        const char *request, *response, *seen;
    } rows[] = {
        {"HEAD /1 HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "content-length: 100\r\n"},
        {GET("/2"), "HTTP/1.1 204 No Content\r\n\r\n", "204 No Content"},
        {GET("/3"), "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", "304 Not Modified"},
        {GET("/4"), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "200 OK"},
        {GET("/5"), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "0\r\n\r\n"},
        {GET("/6"), "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "\r\n\r\nok"},
        {"HEAD /7 HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "200 OK"},
        {GET("/8"), "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast", "last"},
    };
    struct wire client, up;

    (void)state;
    proxy_open(&p);
    wire_dial(&client, &p.s, &p.addr);
    for (size_t i = 0; i < EP_COUNT(rows); i++) { /* over one connection on either side: none of them leaves it astray */
        wire_say(&client, rows[i].request);
        if (i == 0)
            upstream_accept(&p, &up);
        HEARS(&up, " HTTP/1.1");
        wire_forget(&up);
        wire_say(&up, rows[i].response);
        HEARS(&client, rows[i].seen);
        UNTIL(&p.s, p.l->n_streams == 0);
        settle(&p.s);
        wire_forget(&client);
        assert_false(client.ended || up.ended);
    }
    done(&client, &up);
}

/* The server has enough, says so, and closes without reading the rest. */
static void test_answer_before_the_body_is_read(void **state)
{
    struct wire client, up;
    static char body[4u << 20];

    (void)state;
    proxy_open(&p);
    ask(&client, &up, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4194304\r\n\r\n", "POST / ");
    wire_deaf(&up, true);
    while (send(client.fd, body, sizeof body, MSG_NOSIGNAL) > 0) /* as much as fits between here and there */
        settle(&p.s);
    wire_say(&up, "HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig");
    close(up.fd); /* with much unread: a reset */
    HEARS(&client, "\r\n\r\nbig");
    assert_true(wire_has(&client, "413"));
    UNTIL(&p.s, p.l->n_streams == 0);
    done(&client, NULL);
}

static void test_upstream_dies(void **state)
{
    static const struct {
        const char *response, *seen;
        bool rst;
    } rows[] = {
        {"", "502 Bad Gateway", true},
        {"", "502 Bad Gateway", false},
        {"HTTP/1.1 200 O", "502 Bad Gateway", true},
        {"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "half", true},
        {"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "half", false},
        {"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", "half", false},
        {"HTTP/1.1 200 OK\r\n\r\nhalf", "half", true}, /* without a length its end is the connection's, and a reset is none */
    };
    struct wire client, up;

    (void)state;
    proxy_open(&p);
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        ask(&client, &up, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx", "x");
        wire_say(&up, rows[i].response);
        if (!strcmp(rows[i].seen, "half"))
            HEARS(&client, "half");
        wire_close(&up, rows[i].rst);
        HEARS(&client, rows[i].seen);
        if (!strcmp(rows[i].seen, "half"))
            UNTIL(&p.s, client.ended || client.reset);
        assert_false(wire_has(&client, "\r\n0\r\n\r\n")); /* never an end that wasn't there */
        UNTIL(&p.s, p.l->n_streams == 0);
        wire_close(&client, false);
    }
    proxy_close(&p);
}

/* --- clients that leave --- */

static void test_client_leaves(void **state)
{
    struct wire client, up;

    (void)state;
    proxy_open(&p);
    for (int rst = 0; rst < 2; rst++) {
        /* while its body comes */
        ask(&client, &up, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf", "half");
        wire_close(&client, rst);
        UNTIL(&p.s, p.l->n_streams == 0 && (up.ended || up.reset));
        wire_close(&up, false);
        /* while a filter holds it */
        test_script.request = EP_BUFFER;
        wire_dial(&client, &p.s, &p.addr);
        wire_say(&client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf");
        UNTIL(&p.s, p.l->n_streams == 1);
        wire_close(&client, rst);
        UNTIL(&p.s, p.l->n_streams == 0);
        /* while a filter waits */
        test_script.request = EP_WAIT;
        wire_dial(&client, &p.s, &p.addr);
        wire_say(&client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf");
        UNTIL(&p.s, p.l->n_streams == 1);
        wire_close(&client, rst);
        UNTIL(&p.s, p.l->n_streams == 0);
        assert_null(test_script.stream); /* finish was called: nobody resumes it now */
        test_script.request = EP_NEXT;
        /* while a large response comes, of which it reads nothing */
        ask(&client, &up, GET("/"), "GET / ");
        wire_deaf(&client, true);
        wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n");
        for (int i = 0; i < 100; i++) {
            static char body[65536];
            while (send(up.fd, body, sizeof body, MSG_NOSIGNAL) > 0)
                ;
            settle(&p.s);
        }
        assert_int_equal(p.l->n_streams, 1);
        assert_true(p.s.w.slabs.n_live < 100); /* what is held of it is bounded */
        close(client.fd);
        UNTIL(&p.s, p.l->n_streams == 0 && (up.ended || up.reset));
        wire_close(&up, false);
    }
    proxy_close(&p);
}

/* --- refusals --- */

static void test_refused_while_the_body_comes(void **state)
{
    struct wire client;
    static char body[1u << 20];

    (void)state;
    proxy_open(&p);
    test_script.request = EP_REPLIED;
    wire_dial(&client, &p.s, &p.addr);
    wire_say(&client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\n\r\n");
    HEARS(&client, "403 Forbidden");
    wire_say_n(&client, body, sizeof body); /* it goes on for a while */
    UNTIL(&p.s, p.l->n_streams == 0);
    wire_close(&client, false);
    wire_dial(&client, &p.s, &p.addr); /* a short rest is read, and the connection used again */
    wire_say(&client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab");
    HEARS(&client, "403 Forbidden");
    wire_say(&client, "cde");
    wire_forget(&client);
    wire_say(&client, GET("/again"));
    HEARS(&client, "403 Forbidden");
    assert_int_equal(test_script.refusals, 3);
    done(&client, NULL);
}

static void test_response_refused(void **state)
{
    struct wire client, up;

    (void)state;
    proxy_open(&p);
    test_script.response = EP_REPLIED;
    ask(&client, &up, GET("/"), "GET / ");
    wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret");
    HEARS(&client, "403 Forbidden");
    UNTIL(&p.s, p.l->n_streams == 0);
    assert_false(wire_has(&client, "secret"));
    assert_int_equal(test_script.refusals, 1);
    test_script.response = EP_NEXT;
    wire_close(&up, false);
    wire_forget(&client);
    wire_say(&client, GET("/2")); /* the client's connection is as good as before */
    upstream_accept(&p, &up);
    HEARS(&up, "GET /2");
    wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    HEARS(&client, "\r\n\r\nok");
    done(&client, &up);
}

static void test_response_body_refused(void **state)
{
    struct wire client, up;

    (void)state;
    proxy_open(&p);
    test_script.response = EP_BUFFER;
    test_script.response_body = EP_REPLIED;
    ask(&client, &up, GET("/"), "GET / ");
    wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret");
    HEARS(&client, "403 Forbidden"); /* the head was held with it */
    UNTIL(&p.s, p.l->n_streams == 0);
    assert_false(wire_has(&client, "secret"));
    wire_close(&client, false);
    wire_close(&up, false);
    test_script.response = EP_NEXT; /* in the middle: cut, and seen to be cut */
    ask(&client, &up, GET("/"), "GET / ");
    wire_say(&up, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nsecret\r\n");
    UNTIL(&p.s, client.ended || client.reset);
    UNTIL(&p.s, p.l->n_streams == 0);
    assert_false(wire_has(&client, "secret"));
    assert_false(wire_has(&client, "\r\n0\r\n\r\n"));
    done(&client, &up);
}

static void test_buffered_response_too_large(void **state)
{
    struct wire client, up;
    static char body[100000];

    (void)state;
    proxy_open(&p); /* max_body is 64 KiB */
    test_script.response = EP_BUFFER;
    ask(&client, &up, GET("/"), "GET / ");
    wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
    wire_say_n(&up, body, sizeof body);
    HEARS(&client, "502 Bad Gateway");
    UNTIL(&p.s, p.l->n_streams == 0);
    done(&client, &up);
}

/* A client that sends half of what a filter waits for, and then nothing. */
static void test_stalled_before_the_router(void **state)
{
    struct wire client;

    (void)state;
    proxy_init(&p);
    p.config.stream_idle_timeout_ns = 50 * EP_MS;
    proxy_start(&p);
    test_script.request = EP_BUFFER;
    wire_dial(&client, &p.s, &p.addr);
    wire_say(&client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf");
    HEARS(&client, "504 Gateway Timeout");
    UNTIL(&p.s, p.l->n_streams == 0);
    done(&client, NULL);
}

/* An upstream that takes the request and says nothing; one that reads nothing of it. */
static void test_upstream_silent(void **state)
{
    struct wire client, up;
    static char body[1u << 20];

    (void)state;
    proxy_init(&p);
    p.route.idle_timeout_ns = 100 * EP_MS;
    proxy_start(&p);
    ask(&client, &up, GET("/"), "GET / ");
    HEARS(&client, "504 Gateway Timeout");
    UNTIL(&p.s, p.l->n_streams == 0 && (up.ended || up.reset));
    wire_close(&client, false);
    wire_close(&up, false);
    ask(&client, &up, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n", "POST / ");
    wire_deaf(&up, true);
    for (int i = 0; i < 30; i++) {
        while (send(client.fd, body, sizeof body, MSG_NOSIGNAL) > 0)
            ;
        settle(&p.s);
    }
    assert_true(p.s.w.slabs.n_live < 100);
    HEARS(&client, "504 Gateway Timeout");
    UNTIL(&p.s, p.l->n_streams == 0);
    wire_close(&client, false);
    close(up.fd);
    proxy_close(&p);
}

/* --- tunnels --- */

#define CONNECT "CONNECT b:1 HTTP/1.1\r\nhost: b:1\r\n\r\n"

/* How a tunnel is opened: by CONNECT through HTTP/1, or opaque bytes. */
static void tunnel(struct wire *client, struct wire *up, bool opaque)
{
    proxy_init(&p);
    if (opaque)
        p.config.protocol = EP_LISTENER_TCP;
    proxy_start(&p);
    wire_dial(client, &p.s, &p.addr);
    if (opaque) {
        wire_say(client, "hello");
        upstream_accept(&p, up);
    } else {
        wire_say(client, CONNECT);
        upstream_accept(&p, up);
        HEARS(up, "CONNECT b:1");
        wire_say(up, "HTTP/1.1 200 OK\r\n\r\n");
        HEARS(client, "200 OK");
        wire_say(client, "hello");
    }
    HEARS(up, "hello");
    wire_say(up, "welcome");
    HEARS(client, "welcome");
}

static void test_tunnel_ends(void **state)
{
    enum { CLIENT_FIRST, SERVER_FIRST, CLIENT_RESETS, SERVER_RESETS, CLIENT_LEAVES, SERVER_LEAVES, ENDS };
    struct wire client, up;

    (void)state;
    for (int opaque = 0; opaque < 2; opaque++) {
        for (int how = 0; how < ENDS; how++) {
            tunnel(&client, &up, opaque);
            switch (how) {
            case CLIENT_FIRST:
            case SERVER_FIRST: {
                struct wire *first = how == CLIENT_FIRST ? &client : &up, *then = how == CLIENT_FIRST ? &up : &client;

                wire_say(first, "bye");
                shutdown(first->fd, SHUT_WR);
                HEARS(then, "bye");
                UNTIL(&p.s, then->ended);
                assert_int_equal(p.l->n_streams, 1);
                wire_say(then, "and some more");
                HEARS(first, "and some more");
                wire_say(then, ", bye");
                shutdown(then->fd, SHUT_WR);
                HEARS(first, "more, bye");
                UNTIL(&p.s, first->ended);
                break;
            }
            case CLIENT_RESETS:
            case SERVER_RESETS:
                wire_close(how == CLIENT_RESETS ? &client : &up, true);
                if (how == CLIENT_RESETS)
                    UNTIL(&p.s, up.ended || up.reset);
                else
                    UNTIL(&p.s, client.ended || client.reset);
                break;
            default: /* a close looks like a half close, until there is something to tell it */
                wire_close(how == CLIENT_LEAVES ? &client : &up, false);
                if (how == CLIENT_LEAVES)
                    UNTIL(&p.s, up.ended);
                else
                    UNTIL(&p.s, client.ended);
                for (int i = 0; i < 100 && p.l->n_streams; i++)
                    wire_say(how == CLIENT_LEAVES ? &up : &client, "anybody?");
            }
            UNTIL(&p.s, p.l->n_streams == 0);
            done(&client, &up);
        }
    }
}

/* Much in both directions at once, with both sides ending at different times: not a byte is lost. */
static void test_tunnel_moves_all(void **state)
{
    static char piece[65536];
    struct wire client, up;

    (void)state;
    for (int opaque = 0; opaque < 2; opaque++) {
        size_t from_client = 0, from_server = 0, want_client = 20u << 20, want_server = 10u << 20, had_up, had_client;
        bool ended_client = false, ended_server = false;

        tunnel(&client, &up, opaque);
        had_up = up.total;
        had_client = client.total;
        p.s.expired = false;
        ep_worker_timer(&p.s.w, &p.s.guard, 20 * EP_S);
        while (!p.s.expired && !(up.ended && client.ended)) {
            ssize_t n = send(client.fd, piece, EP_MIN(sizeof piece, want_client - from_client), MSG_NOSIGNAL);
            from_client += n > 0 ? (size_t)n : 0;
            n = send(up.fd, piece, EP_MIN(sizeof piece, want_server - from_server), MSG_NOSIGNAL);
            from_server += n > 0 ? (size_t)n : 0;
            if (from_client == want_client && !ended_client)
                ended_client = shutdown(client.fd, SHUT_WR) == 0;
            if (from_server == want_server && !ended_server)
                ended_server = shutdown(up.fd, SHUT_WR) == 0;
            ep_worker_turn(&p.s.w, false);
        }
        ep_worker_timer_stop(&p.s.w, &p.s.guard);
        assert_int_equal(up.total - had_up, want_client);
        assert_int_equal(client.total - had_client, want_server);
        UNTIL(&p.s, p.l->n_streams == 0);
        done(&client, &up);
    }
}

static void test_tunnel_refused(void **state)
{
    struct wire client, up;

    (void)state;
    proxy_open(&p);
    ask(&client, &up, CONNECT, "CONNECT b:1");
    wire_say(&up, "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
    HEARS(&client, "\r\n\r\nno");
    UNTIL(&p.s, p.l->n_streams == 0);
    done(&client, &up);
    proxy_init(&p); /* nobody there: a reset is all that can be said to opaque bytes */
    p.config.protocol = EP_LISTENER_TCP;
    proxy_start(&p);
    close(p.upstream);
    p.upstream = -1;
    wire_dial(&client, &p.s, &p.addr);
    wire_say(&client, "hello");
    UNTIL(&p.s, client.reset || client.ended);
    UNTIL(&p.s, p.l->n_streams == 0);
    done(&client, NULL);
}

/* --- draining --- */

static void test_drain(void **state)
{
    struct wire idle, busy, up, sniffed, fresh, queued;

    (void)state;
    proxy_open(&p);
    ask(&idle, &up, GET("/idle"), "GET /idle");
    wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    HEARS(&idle, "\r\n\r\nok");
    wire_dial(&busy, &p.s, &p.addr);
    wire_say(&busy, GET("/busy"));
    HEARS(&up, "GET /busy");
    wire_dial(&sniffed, &p.s, &p.addr);
    wire_say(&sniffed, "GE");
    wire_dial(&fresh, &p.s, &p.addr);
    UNTIL(&p.s, p.l->listener.n_connections == 4);
    wire_dial(&queued, &p.s, &p.addr); /* in the kernel's queue */
    ep_server_listener_drain(p.l, 50 * EP_MS);
    ep_listener_stop(&p.l->listener);
    ep_server_listener_drain(p.l, 50 * EP_MS);
    assert_int_equal(p.l->listener.n_connections, 5);
    UNTIL(&p.s, idle.ended);
    assert_false(busy.ended || sniffed.ended || fresh.ended || queued.ended);
    wire_say(&sniffed, "T /sniffed HTTP/1.1\r\nhost: a\r\n\r\n"); /* requests on their way are served … */
    wire_say(&queued, GET("/queued"));
    for (int i = 0; i < 2; i++) {
        struct wire more;
        upstream_accept(&p, &more);
        HEARS(&more, "GET /");
        wire_say(&more, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlast");
        UNTIL(&p.s, (unsigned)wire_has(&queued, "last") + wire_has(&sniffed, "last") == (unsigned)i + 1);
        wire_close(&more, false);
    }
    assert_true(wire_has(&sniffed, "connection: close") && wire_has(&queued, "connection: close"));
    UNTIL(&p.s, sniffed.ended && queued.ended && fresh.ended); /* … and who says nothing goes */
    wire_say(&up, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    HEARS(&busy, "\r\n\r\nok");
    assert_true(wire_has(&busy, "connection: close"));
    UNTIL(&p.s, busy.ended);
    wire_close(&busy, false);
    wire_close(&idle, false);
    wire_close(&sniffed, false);
    wire_close(&fresh, false);
    wire_close(&queued, false);
    UNTIL(&p.s, p.l->listener.n_connections == 0);
    wire_close(&up, false);
    proxy_close(&p);
}

/* --- who speaks first --- */

/* A silent client's destination is asked once whether it speaks first; when it doesn't, the probe isn't left open. */
static void test_probe_ends(void **state)
{
    static const unsigned char header[] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11,
                                           0x00, 0x0c, 127,  0,    0,    1,    127,  0,    0,    1,    0x30, 0x39};
    struct wire client, probe;
    char bytes[28];

    (void)state;
    proxy_init(&p);
    p.config.proxy_protocol = true;
    proxy_start(&p);
    memcpy(bytes, header, sizeof header);
    bytes[26] = (char)(ep_addr_port(&p.upstream_addr) >> 8);
    bytes[27] = (char)ep_addr_port(&p.upstream_addr);
    wire_dial(&client, &p.s, &p.addr);
    wire_say_n(&client, bytes, sizeof bytes);
    upstream_accept(&p, &probe);
    UNTIL(&p.s, probe.ended); /* after two seconds */
    assert_int_equal(probe.total, 0);
    wire_say(&client, GET("/")); /* and the client is heard all the same */
    wire_close(&probe, false);
    upstream_accept(&p, &probe);
    HEARS(&probe, "GET / ");
    wire_say(&probe, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    HEARS(&client, "\r\n\r\nok");
    done(&client, &probe);
}

static void test_server_speaks_first(void **state)
{
    static const unsigned char header[] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11,
                                           0x00, 0x0c, 127,  0,    0,    1,    127,  0,    0,    1,    0x30, 0x39};
    struct wire client, up;
    char bytes[28];

    (void)state;
    proxy_init(&p);
    p.config.proxy_protocol = true;
    proxy_start(&p);
    memcpy(bytes, header, sizeof header);
    bytes[26] = (char)(ep_addr_port(&p.upstream_addr) >> 8);
    bytes[27] = (char)ep_addr_port(&p.upstream_addr);
    for (int i = 0; i < 3; i++) { /* the second and third are known */
        wire_dial(&client, &p.s, &p.addr);
        wire_say_n(&client, bytes, sizeof bytes);
        upstream_accept(&p, &up);
        wire_say(&up, "220 hello\r\n");
        if (i == 0) { /* that was the probe */
            UNTIL(&p.s, up.ended || up.reset);
            wire_close(&up, false);
            upstream_accept(&p, &up);
            wire_say(&up, "220 hello\r\n");
        }
        HEARS(&client, "220 hello");
        wire_say(&client, "QUIT\r\n");
        HEARS(&up, "QUIT");
        wire_close(&client, true);
        UNTIL(&p.s, up.ended || up.reset);
        wire_close(&up, false);
        UNTIL(&p.s, p.l->n_streams == 0);
    }
    proxy_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodiless_responses),
        cmocka_unit_test(test_answer_before_the_body_is_read),
        cmocka_unit_test(test_upstream_dies),
        cmocka_unit_test(test_client_leaves),
        cmocka_unit_test(test_refused_while_the_body_comes),
        cmocka_unit_test(test_response_refused),
        cmocka_unit_test(test_response_body_refused),
        cmocka_unit_test(test_buffered_response_too_large),
        cmocka_unit_test(test_stalled_before_the_router),
        cmocka_unit_test(test_upstream_silent),
        cmocka_unit_test(test_tunnel_ends),
        cmocka_unit_test(test_tunnel_moves_all),
        cmocka_unit_test(test_tunnel_refused),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_probe_ends),
        cmocka_unit_test(test_server_speaks_first),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
