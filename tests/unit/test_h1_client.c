/* link: ep_http */
/* The client side of HTTP/1 as plays: a peer that is the server and speaks bytes. */
#include "leg_play.h"

#include "http/h1.h"

static void dial(struct play *p)
{
    play_begin(p);
    p->conn->is_server = false;
    ep_h1_client(p->conn, &p->options, &play_client_events, p);
}

static struct ep_leg *ask(struct play *p, const char *table, bool end)
{
    struct ep_leg *l = ep_h1_open(p->conn);

    assert_non_null(l);
    own(p, l);
    send_head(l, table, end);
    turn(p);
    return l;
}

/* The client's owner lets go when both messages are whole, whichever comes last. */
static void let_go(struct play *p)
{
    struct play_side *s = &p->sides[p->n_sides - 1];

    turn(p);
    if (s->leg)
        release(s->leg);
    turn(p);
}

#define GET ":method: GET|:scheme: http|:authority: a|:path: /"
#define GET_BYTES "GET / HTTP/1.1\r\nhost: a\r\n\r\n"
#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define OK_EVENTS "H[:status: 200|content-length: 2] D(ok). "

static void one_request_after_another(void **state)
{
    static struct play p;

    (void)state;
    dial(&p);
    for (int i = 0; i < 3; i++) {
        ask(&p, GET, true);
        assert_null(ep_h1_open(p.conn));
        assert_string_equal(peer_reads(&p), GET_BYTES);
        peer_says(&p, OK);
        let_go(&p);
        expect_events(&p, "S " OK_EVENTS "idle ");
    }
    play_end(&p);
}

static const struct {
    const char *table, *written;
} bodies[] = {
    {":method: POST|:path: /|:authority: a|content-length: 4", "content-length: 4\r\n\r\nabcd"},
    {":method: POST|:path: /|:authority: a", "transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"},
};

static void bodies_are_framed(void **state)
{
    static struct play p;
    char expected[256];

    (void)state;
    dial(&p);
    for (size_t i = 0; i < EP_COUNT(bodies); i++) {
        struct ep_leg *l = ask(&p, bodies[i].table, false);

        send_data(l, "ab", false);
        send_data(l, "cd", true);
        snprintf(expected, sizeof expected, "POST / HTTP/1.1\r\nhost: a\r\n%s", bodies[i].written);
        assert_string_equal(peer_reads(&p), expected);
        peer_says(&p, OK);
        let_go(&p);
        expect_events(&p, "s4 S " OK_EVENTS "idle ");
    }
    struct ep_leg *l = ask(&p, ":method: PUT|:path: /|:authority: a", false);
    send_data(l, "x", false);
    send_trailers(l, "a: b");
    assert_string_equal(peer_reads(&p), "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\na: b\r\n\r\n");
    peer_says(&p, OK);
    let_go(&p);
    ask(&p, ":method: POST|:path: /|:authority: a", true);
    assert_string_equal(peer_reads(&p), "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    play_end(&p);
}

static const struct {
    const char *request, *response, *events;
    bool eof; /* the peer ends its side */
    bool again;
} answers[] = {
    {GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nGrpc-Status: 0\r\n\r\n",
     "H[:status: 200] D(a) T[grpc-status: 0] ", false, true},
    {GET, "HTTP/1.1 200 OK\r\n\r\nabc", "H[:status: 200] D(abc) D(). ", true, false},
    {GET, "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "H[:status: 204]. ", false, true},
    {":method: HEAD|:path: /|:authority: a", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
     "H[:status: 200|content-length: 9]. ", false, true},
    {GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "H[:status: 304|content-length: 9]. ", false, true},
    {GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", OK_EVENTS, false, false},
    {GET, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", OK_EVENTS, false, false},
    {GET, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", OK_EVENTS, false, true},
    {GET, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" OK,
     "I[:status: 100] I[:status: 103|link: x] " OK_EVENTS, false, true},
    {GET, OK "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", OK_EVENTS, false, false}, /* unasked for */
    {GET, OK "\r\n", OK_EVENTS, false, false},
};

static void answers_are_read(void **state)
{
    static struct play p;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(answers); i++) {
        char expected[512];

        dial(&p);
        ask(&p, answers[i].request, true);
        peer_reads(&p);
        peer_says(&p, answers[i].response);
        if (answers[i].eof)
            peer_ends(&p);
        let_go(&p);
        snprintf(expected, sizeof expected, "S %s%s", answers[i].events,
                 answers[i].again ? "idle " : "closed(local) ");
        expect_events(&p, expected);
        play_end(&p);
    }
}

static const char *const bad[] = {
    "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
    "HTTP/2 200\r\n\r\n",
    "\r\nHTTP/1.1 200 OK\r\n\r\n",
    "SSH-2.0-OpenSSH_9.2\r\n",
};

static void bad_answers_break(void **state)
{
    static struct play p;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(bad); i++) {
        dial(&p);
        ask(&p, GET, true);
        peer_reads(&p);
        peer_says(&p, bad[i]);
        if (i + 1 == EP_COUNT(bad))
            peer_says(&p, "\r\n");
        expect_events(&p, "S R(protocol) closed(local) ");
        play_end(&p);
    }
    dial(&p); /* in the body */
    ask(&p, GET, true);
    peer_says(&p, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naX");
    expect_events(&p, "S H[:status: 200] D(a) R(protocol) closed(local) ");
    play_end(&p);
    dial(&p); /* without end */
    ask(&p, GET, true);
    for (int i = 0; i < 20 && p.conn; i++)
        peer_says(&p, "HTTP/1.1 103 Early Hints\r\n\r\n");
    assert_non_null(strstr(p.log, "R(too_large) "));
    play_end(&p);
}

static void connections_that_go_away(void **state)
{
    static struct play p;

    (void)state;
    dial(&p); /* nothing of a response came: may be tried again */
    ask(&p, GET, true);
    turn(&p);
    peer_ends(&p);
    expect_events(&p, "S R(connection,unanswered) closed(eof) ");
    play_end(&p);

    dial(&p); /* some of it came */
    ask(&p, GET, true);
    peer_says(&p, "HTTP");
    peer_ends(&p);
    expect_events(&p, "S R(connection) closed(eof) ");
    play_end(&p);

    dial(&p); /* cut in the body */
    ask(&p, GET, true);
    peer_says(&p, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok");
    peer_ends(&p);
    expect_events(&p, "S H[:status: 200|content-length: 5] D(ok) R(connection) closed(eof) ");
    play_end(&p);

    dial(&p); /* idle */
    peer_ends(&p);
    expect_events(&p, "closed(eof) ");
    play_end(&p);

    dial(&p); /* idle, and bytes come */
    peer_says(&p, OK);
    expect_events(&p, "closed(local) ");
    play_end(&p);

    dial(&p); /* bytes come before the request */
    own(&p, ep_h1_open(p.conn));
    peer_says(&p, OK);
    expect_events(&p, "R(connection,unanswered) closed(local) ");
    play_end(&p);

    dial(&p); /* idle for too long */
    later(&p, 301 * EP_S);
    expect_events(&p, "closed(timeout) ");
    play_end(&p);
}

static void early_answers(void **state)
{
    static struct play p;

    (void)state;
    dial(&p); /* the owner goes on to its end: both are whole, the connection is good */
    struct ep_leg *l = ask(&p, ":method: POST|:path: /|:authority: a|content-length: 4", false);
    send_data(l, "ab", false);
    turn(&p);
    peer_says(&p, OK);
    expect_events(&p, "s2 " OK_EVENTS);
    send_data(l, "cd", true);
    turn(&p);
    expect_events(&p, "s2 S idle ");
    play_end(&p);

    dial(&p); /* the owner lets go: it isn't */
    l = ask(&p, ":method: POST|:path: /|:authority: a|content-length: 4", false);
    send_data(l, "ab", false);
    turn(&p);
    peer_says(&p, OK);
    let_go(&p);
    expect_events(&p, "s2 " OK_EVENTS "closed(local) ");
    play_end(&p);

    dial(&p); /* the server closes */
    l = ask(&p, ":method: POST|:path: /|:authority: a|content-length: 4", false);
    turn(&p);
    peer_says(&p, OK);
    peer_ends(&p);
    expect_events(&p, OK_EVENTS "R(no_error) closed(eof) ");
    play_end(&p);
}

static void what_cannot_be_said(void **state)
{
    static const char *const tables[] = {
        ":method: GET|:path: /a b|:authority: a",
        ":method: GET|:path: /|:authority: a\r\nx",
        ":method: GET|:path: /|:authority: a|content-length: 1, 1",
        ":method: GET|:path: /|:authority: a|content-length: 5",
        ":method: CONNECT|:protocol: webtransport|:path: /|:authority: a",
    };
    static struct play p;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(tables); i++) {
        dial(&p);
        ask(&p, tables[i], true);
        turn(&p);
        expect_events(&p, "R(internal,unanswered) closed(local) ");
        assert_int_equal(recv(p.peer, p.got, sizeof p.got, 0) > 0, 0);
        play_end(&p);
    }
}

static void cancels_and_drains(void **state)
{
    static struct play p;

    (void)state;
    dial(&p);
    struct ep_leg *l = ask(&p, GET, true);
    turn(&p);
    release(l);
    turn(&p);
    expect_events(&p, "S closed(local) ");
    play_end(&p);

    dial(&p); /* draining: what is under way is finished */
    ask(&p, GET, true);
    ep_codec_drain(p.conn, EP_S);
    peer_says(&p, OK);
    let_go(&p);
    expect_events(&p, "S " OK_EVENTS "closed(local) ");
    play_end(&p);

    dial(&p);
    ep_codec_drain(p.conn, EP_S);
    turn(&p);
    expect_events(&p, "closed(local) ");
    play_end(&p);
}

#define WEBSOCKET ":method: CONNECT|:protocol: websocket|:scheme: http|:authority: a|:path: /chat"

/* Reads the upgrade and makes the answer's accept value of its key. */
static void accept_value(struct play *p, char out[64])
{
    const char *got = peer_reads(p), *key = strstr(got, "sec-websocket-key: ");

    assert_true(ep_str_starts(ep_str(got), EP_STR("GET /chat HTTP/1.1\r\nhost: a\r\n"
                                                  "connection: upgrade\r\nupgrade: websocket\r\n")));
    assert_non_null(key);
    assert_non_null(strstr(got, "sec-websocket-version: 13\r\n"));
    h1_websocket_accept(ep_str_n(key + 19, H1_KEY_BYTES), out);
    out[H1_ACCEPT_BYTES] = '\0';
}

static void websocket(void **state)
{
    static struct play p;
    char accept[64], answer[256];

    (void)state;
    dial(&p);
    struct ep_leg *l = ask(&p, WEBSOCKET, false);
    send_data(l, "early", false); /* waits for the 101 */
    accept_value(&p, accept);
    snprintf(answer, sizeof answer,
             "HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nX: y\r\n\r\nhello", accept);
    peer_says(&p, answer);
    expect_events(&p, "H[:status: 200|x: y] D(hello) s5 ");
    assert_true(l->tunnel);
    assert_string_equal(peer_reads(&p), "early");
    send_data(l, "bye", true);
    assert_string_equal(peer_reads(&p), "bye");
    peer_says(&p, "more");
    peer_ends(&p);
    let_go(&p);
    expect_events(&p, "s3 S D(more) D(). closed(local) ");
    play_end(&p);

    dial(&p); /* a wrong answer */
    ask(&p, WEBSOCKET, false);
    accept_value(&p, accept);
    accept[0] ^= 1;
    snprintf(answer, sizeof answer,
             "HTTP/1.1 101 Up\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
    peer_says(&p, answer);
    expect_events(&p, "R(protocol) closed(local) ");
    play_end(&p);

    dial(&p); /* refused: an answer like any other */
    l = ask(&p, WEBSOCKET, false);
    send_data(l, "early", false);
    peer_says(&p, "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
    expect_events(&p, "H[:status: 403|content-length: 2] D(no). s5 S closed(local) ");
    play_end(&p);

    dial(&p); /* a server that doesn't know it and answers 200 must not look like a tunnel */
    ask(&p, WEBSOCKET, false);
    peer_says(&p, OK);
    expect_events(&p, "R(protocol) closed(local) ");
    play_end(&p);
}

static void connect_tunnel(void **state)
{
    static struct play p;

    (void)state;
    dial(&p);
    struct ep_leg *l = ask(&p, ":method: CONNECT|:authority: b:443", false);
    assert_string_equal(peer_reads(&p), "CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\n");
    peer_says(&p, "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\n\r\nabc");
    expect_events(&p, "H[:status: 200] D(abc) ");
    send_data(l, "x", true);
    assert_string_equal(peer_reads(&p), "x");
    play_end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_request_after_another),
        cmocka_unit_test(bodies_are_framed),
        cmocka_unit_test(answers_are_read),
        cmocka_unit_test(bad_answers_break),
        cmocka_unit_test(connections_that_go_away),
        cmocka_unit_test(early_answers),
        cmocka_unit_test(what_cannot_be_said),
        cmocka_unit_test(cancels_and_drains),
        cmocka_unit_test(websocket),
        cmocka_unit_test(connect_tunnel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
