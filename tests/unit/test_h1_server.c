/* link: ep_http */
/* The server side of HTTP/1 as plays: a peer that speaks bytes, an owner that writes down its events. */
#include "leg_play.h"

static void serve(struct play *p)
{
    play_begin(p);
    ep_h1_serve(p->conn, &p->options, &play_acceptor, p, NULL, NULL, 0);
}

static struct ep_leg *leg(struct play *p)
{
    assert_true(p->n_sides > 0);
    return p->sides[p->n_sides - 1].leg;
}

#define GET "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define GET_EVENT "H[:method: GET|:scheme: http|:authority: a|:path: /]. "
#define OK "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

static void a_request_and_its_answer_then_another(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    p.reply = true;
    for (int i = 0; i < 3; i++) {
        peer_says(&p, GET);
        expect_events(&p, GET_EVENT "s2 S ");
        assert_string_equal(peer_reads(&p), OK);
    }
    peer_ends(&p);
    expect_events(&p, "closed(eof) ");
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);
}

static void first_bytes_are_fed(void **state)
{
    static struct play p;

    (void)state;
    play_begin(&p);
    p.reply = true;
    ep_h1_serve(p.conn, &p.options, &play_acceptor, &p, NULL, (const unsigned char *)GET "GET /2", sizeof GET - 1 + 6);
    turn(&p);
    peer_says(&p, " HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_string_equal(peer_reads(&p), OK OK);
    play_end(&p);
}

static void byte_by_byte(void **state)
{
    static const char request[] = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    static struct play p;

    (void)state;
    serve(&p);
    p.reply = true;
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < sizeof request - 1; i++)
            peer_says_n(&p, request + i, 1);
        expect_events(&p, "H[:method: POST|:scheme: http|:authority: a|:path: /] D(a) D(b) D(c) T[x: y] s2 S ");
    }
    assert_string_equal(peer_reads(&p), OK OK);
    play_end(&p);
}

static void pipelined_requests_wait_their_turn(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    peer_says(&p, GET "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" GET);
    expect_events(&p, GET_EVENT);
    assert_true(p.conn->read_paused);
    send_head(leg(&p), ":status: 204", true);
    turn(&p);
    expect_events(&p, "S H[:method: POST|:scheme: http|:authority: a|:path: /2|content-length: 3] D(abc). ");
    send_head(leg(&p), ":status: 200", false);
    send_data(leg(&p), "x", false);
    send_trailers(leg(&p), "a: b");
    turn(&p);
    expect_events(&p, "s1 S " GET_EVENT);
    assert_false(p.conn->read_paused);
    assert_string_equal(peer_reads(&p), "HTTP/1.1 204 No Content\r\n\r\n"
                                        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\na: b\r\n\r\n");
    play_end(&p);
}

static const struct {
    const char *request, *response;
} versions[] = {
    {"GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab"},
    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab"},
    {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nab\r\n0\r\n\r\n"},
};

static void connections_that_end_after_the_answer(void **state)
{
    static struct play p;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(versions); i++) {
        serve(&p);
        peer_says(&p, versions[i].request);
        send_head(leg(&p), ":status: 200", false);
        send_data(leg(&p), "a", false);
        send_data(leg(&p), "b", true);
        assert_string_equal(peer_reads(&p), versions[i].response);
        assert_string_equal(peer_reads(&p), "<eof>");
        play_end(&p);
    }
}

static void old_clients_keep_the_connection_when_they_ask(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    p.reply = true;
    for (int i = 0; i < 2; i++) {
        peer_says(&p, "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        assert_string_equal(peer_reads(&p), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok");
    }
    play_end(&p);
}

static void head_and_bodiless_statuses(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    peer_says(&p, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(leg(&p)->head_request);
    send_head(leg(&p), ":status: 200|content-length: 5", true);
    assert_string_equal(peer_reads(&p), "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    peer_says(&p, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    p.log_n = 0;
    send_head(leg(&p), ":status: 200", false);
    send_data(leg(&p), "swallowed", true);
    turn(&p);
    expect_events(&p, "s9 S ");
    assert_string_equal(peer_reads(&p), "HTTP/1.1 200 OK\r\n\r\n");
    peer_says(&p, GET);
    send_head(leg(&p), ":status: 304|content-length: 9", true);
    assert_string_equal(peer_reads(&p), "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n");
    peer_says(&p, GET);
    send_head(leg(&p), ":status: 404|connection: close", true);
    assert_string_equal(peer_reads(&p), "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);
}

static void expectation_is_answered_here(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    p.reply = true;
    peer_says(&p, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_string_equal(peer_reads(&p), "HTTP/1.1 100 Continue\r\n\r\n");
    send_informational(leg(&p), ":status: 100"); /* said already */
    send_informational(leg(&p), ":status: 103|link: x");
    assert_string_equal(peer_reads(&p), "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
    peer_says(&p, "abc");
    assert_string_equal(peer_reads(&p), OK);
    expect_events(&p, "H[:method: POST|:scheme: http|:authority: a|:path: /|content-length: 3] D(abc). s2 S ");
    play_end(&p);
}

static void early_answers(void **state)
{
    static struct play p;

    (void)state;
    serve(&p); /* a short rest is read and dropped; the connection goes on */
    peer_says(&p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    send_head(leg(&p), ":status: 403", true);
    turn(&p);
    release(leg(&p));
    assert_string_equal(peer_reads(&p), "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    p.reply = true;
    peer_says(&p, "cde" GET);
    assert_string_equal(peer_reads(&p), OK);
    play_end(&p);

    serve(&p); /* a long one is not waited for */
    peer_says(&p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\nab");
    send_head(leg(&p), ":status: 403", true);
    turn(&p);
    release(leg(&p));
    assert_string_equal(peer_reads(&p), "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    peer_says(&p, "cde" GET); /* lingers: read and dropped, no reset */
    assert_string_equal(peer_reads(&p), "<eof>");
    assert_int_equal(p.n_sides, 1);
    play_end(&p);
}

static void refusals(void **state)
{
    static const struct {
        const char *request;
        unsigned status;
    } rows[] = {
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1\nHost: a\n\n", 400},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" GET, 400},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
        {"POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417},
    };
    static struct play p;
    char start[64];

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        serve(&p);
        peer_says(&p, rows[i].request);
        snprintf(start, sizeof start, "HTTP/1.1 %u ", rows[i].status);
        assert_true(ep_str_starts(ep_str(peer_reads(&p)), ep_str(start)));
        assert_true(ep_str_search(ep_str(p.got), EP_STR("connection: close\r\n")) > 0);
        assert_string_equal(peer_reads(&p), "<eof>");
        assert_int_equal(p.n_sides, 0);
        assert_true(ep_str_starts(ep_str(p.log), EP_STR("refused(")));
        play_end(&p);
    }
    serve(&p);
    p.refuse = true;
    peer_says(&p, GET);
    assert_true(ep_str_starts(ep_str(peer_reads(&p)), EP_STR("HTTP/1.1 503 ")));
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);
}

static void a_bad_body_breaks_the_exchange(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    peer_says(&p, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nzz\r\n");
    assert_true(ep_str_starts(ep_str(peer_reads(&p)), EP_STR("HTTP/1.1 400 ")));
    assert_non_null(strstr(p.log, "D(a) R(protocol) "));
    play_end(&p);

    serve(&p); /* after the answer began there is nothing to say */
    peer_says(&p, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    send_head(leg(&p), ":status: 200", false);
    assert_true(ep_str_starts(ep_str(peer_reads(&p)), EP_STR("HTTP/1.1 200 ")));
    peer_says(&p, "1\nb");
    assert_string_equal(peer_reads(&p), "<eof>");
    assert_non_null(strstr(p.log, "R(protocol) "));
    play_end(&p);

    serve(&p); /* the peer goes in the middle */
    peer_says(&p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    peer_ends(&p);
    assert_non_null(strstr(p.log, "D(ab) R(connection) "));
    play_end(&p);
}

static void a_half_closed_client_gets_its_answers(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    peer_says(&p, GET GET);
    peer_ends(&p);
    assert_non_null(p.conn);
    send_head(leg(&p), ":status: 204", true);
    turn(&p);
    send_head(leg(&p), ":status: 204", true);
    assert_string_equal(peer_reads(&p), "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
    assert_string_equal(peer_reads(&p), "<eof>");
    assert_int_equal(p.n_sides, 2);
    play_end(&p);
}

static void who_closes_amid_events_is_gone(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    peer_says(&p, GET);
    send_head(leg(&p), ":status: 200|content-type: text/event-stream", false);
    send_data(leg(&p), "data: 1\n\n", false);
    turn(&p);
    peer_ends(&p);
    assert_non_null(strstr(p.log, "R(connection) "));
    assert_null(p.conn);
    play_end(&p);
}

static void events_that_were_whole_leave_after_a_half_close(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    peer_says(&p, GET);
    peer_ends(&p);
    send_head(leg(&p), ":status: 200|content-type: text/event-stream", false);
    send_data(leg(&p), "data: 1\n\n", true);
    turn(&p);
    assert_non_null(strstr(peer_reads(&p), "data: 1\n\n"));
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);
}

static void unread_bodies_stop_the_reading(void **state)
{
    static char body[40000];
    static struct play p;

    (void)state;
    serve(&p);
    p.options.stream_window = 20000;
    p.consume = false;
    p.counts = true;
    memset(body, 'x', sizeof body);
    peer_says(&p, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 80000\r\n\r\n");
    peer_says_n(&p, body, sizeof body);
    assert_true(p.conn->read_paused);
    uint64_t in = p.conn->bytes_in;
    peer_says_n(&p, body, sizeof body);
    assert_int_equal(p.conn->bytes_in, in);
    leg(&p)->ops->consumed(leg(&p), 1000);
    assert_true(p.conn->read_paused);
    p.consume = true;
    leg(&p)->ops->consumed(leg(&p), 40000);
    assert_false(p.conn->read_paused);
    turn(&p);
    assert_true(leg(&p)->recv_ended);
    play_end(&p);
}

static void a_slow_reader_holds_back_the_body(void **state)
{
    static char body[100001];
    static struct play p;

    (void)state;
    serve(&p);
    memset(body, 'x', sizeof body - 1);
    peer_says(&p, GET);
    send_head(leg(&p), ":status: 200|content-length: 1000000", false);
    for (int i = 0; i < 10; i++) {
        send_data(leg(&p), body, i == 9);
        turn(&p);
    }
    assert_true(ep_leg_pending(leg(&p)) > 0);
    assert_true(ep_conn_pending(p.conn) < EP_CONN_OUT_HIGH + sizeof body);
    size_t total = 0;
    for (const char *got; (got = peer_reads(&p))[0] && total < 1000000;)
        total += strlen(got);
    assert_int_equal(total, 1000000 + strlen("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"));
    assert_non_null(strstr(p.log, " S "));
    play_end(&p);
}

static void a_wrong_length_ends_the_connection(void **state)
{
    static struct play p;

    (void)state;
    for (int more = 0; more < 2; more++) {
        serve(&p);
        peer_says(&p, GET GET);
        send_head(leg(&p), ":status: 200|content-length: 3", false);
        send_data(leg(&p), more ? "abcd" : "ab", true);
        turn(&p);
        assert_non_null(strstr(p.log, "R(internal) closed(local) "));
        assert_int_equal(p.n_sides, 1);
        play_end(&p);
    }
    serve(&p); /* and a header that would be another message never leaves */
    peer_says(&p, GET);
    p.sides[0].reset = false;
    send_head(leg(&p), ":status: 200|x: a\r\n\r\nHTTP/1.1 200", true);
    turn(&p);
    assert_non_null(strstr(p.log, "R(internal) closed(local) "));
    play_end(&p);
}

static void resets(void **state)
{
    static struct play p;

    (void)state;
    serve(&p); /* in the middle of chunks: closed without the last one */
    peer_says(&p, GET);
    send_head(leg(&p), ":status: 200", false);
    send_data(leg(&p), "a", false);
    turn(&p);
    p.log_n = 0;
    leg(&p)->ops->reset(leg(&p), EP_RESET_INTERNAL);
    release(leg(&p));
    assert_string_equal(peer_reads(&p), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n");
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);

    serve(&p); /* before anything was said */
    peer_says(&p, GET);
    release(leg(&p));
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);

    serve(&p); /* the connection goes first, the owner lets go later */
    p.keep = true;
    peer_says(&p, GET);
    close(p.peer);
    p.peer = -1;
    ep_conn_abort(p.conn, EP_CLOSE_RESET, false);
    turn(&p);
    expect_events(&p, GET_EVENT "R(connection) closed(reset) ");
    assert_true(leg(&p)->over);
    assert_null(leg(&p)->conn);
    send_head(leg(&p), ":status: 200", true);
    play_end(&p);
}

static void drains(void **state)
{
    static struct play p;

    (void)state;
    serve(&p); /* idle, and just opened: the first request may be on its way */
    ep_codec_drain(p.conn, EP_S);
    assert_string_equal(peer_reads(&p), "");
    later(&p, 2 * EP_S);
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);

    serve(&p); /* idle after a request */
    p.reply = true;
    peer_says(&p, GET);
    assert_non_null(strstr(peer_reads(&p), "200 OK"));
    ep_codec_drain(p.conn, EP_S);
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);

    serve(&p); /* busy */
    p.reply = false;
    peer_says(&p, GET);
    ep_codec_drain(p.conn, EP_S);
    send_head(leg(&p), ":status: 200", true);
    assert_string_equal(peer_reads(&p), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);

    serve(&p); /* as many requests as a connection may carry */
    p.options.max_requests = 2;
    p.reply = true;
    peer_says(&p, GET GET GET);
    assert_string_equal(peer_reads(&p), OK "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    play_end(&p);
}

static void timers(void **state)
{
    static struct play p;

    (void)state;
    serve(&p); /* a slow head */
    peer_says(&p, "GET / HT");
    later(&p, 11 * EP_S);
    assert_true(ep_str_starts(ep_str(peer_reads(&p)), EP_STR("HTTP/1.1 408 ")));
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);

    serve(&p); /* idle */
    p.reply = true;
    peer_says(&p, GET);
    assert_string_equal(peer_reads(&p), OK);
    later(&p, 31 * EP_S);
    assert_non_null(p.conn);
    p.w.now_ns += 40 * EP_S;
    later(&p, 301 * EP_S);
    assert_string_equal(peer_reads(&p), "<eof>");
    play_end(&p);
}

static void stuck_output_times_out(void **state)
{
    static char body[200001];
    static struct play p;

    (void)state;
    serve(&p);
    memset(body, 'x', sizeof body - 1);
    peer_says(&p, GET);
    send_head(leg(&p), ":status: 200", false);
    for (int i = 0; i < 5; i++)
        send_data(leg(&p), body, false);
    turn(&p);
    assert_true(ep_conn_pending(p.conn) > 0);
    for (int i = 0; i < 3 && p.conn; i++) {
        p.w.now_ns += (unsigned)i * 31 * EP_S;
        later(&p, 31 * EP_S);
    }
    assert_non_null(strstr(p.log, "R(timeout) "));
    assert_null(p.conn);
    play_end(&p);
}

static const char upgrade[] = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nearly";

static void websocket(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    peer_says(&p, upgrade);
    expect_events(&p, "H[:method: CONNECT|:protocol: websocket|:scheme: http|:authority: a|:path: /chat|"
                      "sec-websocket-version: 13] ");
    assert_true(leg(&p)->tunnel);
    send_head(leg(&p), ":status: 200|sec-websocket-protocol: x", false);
    assert_string_equal(peer_reads(&p), "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: x\r\n"
                                        "connection: upgrade\r\nupgrade: websocket\r\n"
                                        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
    expect_events(&p, "D(early) ");
    send_data(leg(&p), "down", false);
    assert_string_equal(peer_reads(&p), "down");
    peer_says(&p, "up");
    peer_ends(&p);
    expect_events(&p, "s4 D(up) D(). ");
    send_data(leg(&p), "last", true);
    assert_string_equal(peer_reads(&p), "last");
    assert_string_equal(peer_reads(&p), "<eof>");
    expect_events(&p, "s4 S closed(local) ");
    play_end(&p);

    serve(&p); /* refused */
    peer_says(&p, upgrade);
    send_head(leg(&p), ":status: 403", true);
    assert_string_equal(peer_reads(&p), "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_string_equal(peer_reads(&p), "<eof>");
    assert_int_equal(p.n_sides, 1);
    play_end(&p);
}

static void connect_tunnel(void **state)
{
    static struct play p;

    (void)state;
    serve(&p);
    peer_says(&p, "CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\nhello");
    expect_events(&p, "H[:method: CONNECT|:authority: b:443] ");
    send_head(leg(&p), ":status: 200", false);
    assert_string_equal(peer_reads(&p), "HTTP/1.1 200 OK\r\n\r\n");
    expect_events(&p, "D(hello) ");
    leg(&p)->ops->reset(leg(&p), EP_RESET_CANCEL);
    release(leg(&p));
    turn(&p);
    assert_null(p.conn);
    play_end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_and_its_answer_then_another),
        cmocka_unit_test(first_bytes_are_fed),
        cmocka_unit_test(byte_by_byte),
        cmocka_unit_test(pipelined_requests_wait_their_turn),
        cmocka_unit_test(connections_that_end_after_the_answer),
        cmocka_unit_test(old_clients_keep_the_connection_when_they_ask),
        cmocka_unit_test(head_and_bodiless_statuses),
        cmocka_unit_test(expectation_is_answered_here),
        cmocka_unit_test(early_answers),
        cmocka_unit_test(refusals),
        cmocka_unit_test(a_bad_body_breaks_the_exchange),
        cmocka_unit_test(a_half_closed_client_gets_its_answers),
        cmocka_unit_test(who_closes_amid_events_is_gone),
        cmocka_unit_test(events_that_were_whole_leave_after_a_half_close),
        cmocka_unit_test(unread_bodies_stop_the_reading),
        cmocka_unit_test(a_slow_reader_holds_back_the_body),
        cmocka_unit_test(a_wrong_length_ends_the_connection),
        cmocka_unit_test(resets),
        cmocka_unit_test(drains),
        cmocka_unit_test(timers),
        cmocka_unit_test(stuck_output_times_out),
        cmocka_unit_test(websocket),
        cmocka_unit_test(connect_tunnel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
