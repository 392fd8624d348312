/* link: ep_http */
/* The opaque codec as plays, both sides. */
#include "leg_play.h"

static void serve(struct play *p, const char *first)
{
    play_begin(p);
    assert_true(ep_addr_parse(EP_STR("10.1.2.3:443"), &p->conn->original));
    ep_tcp_serve(p->conn, &p->options, &play_acceptor, p, NULL, (const unsigned char *)first, strlen(first));
}

static struct ep_leg *leg(struct play *p)
{
    return p->sides[0].leg;
}

#define HEAD "H[:method: CONNECT|:scheme: tcp|:authority: 10.1.2.3:443] "

static void a_connection_is_a_tunnel(void **state)
{
    static struct play p;

    (void)state;
    serve(&p, "first");
    expect_events(&p, HEAD "D(first) ");
    assert_true(leg(&p)->tunnel && leg(&p)->server && leg(&p)->version == EP_HTTP_TCP);
    send_head(leg(&p), ":status: 200", false);
    send_data(leg(&p), "down", false);
    assert_string_equal(peer_reads(&p), "down");
    peer_says(&p, "up");
    peer_ends(&p);
    expect_events(&p, "s4 D(up) D(). ");
    send_data(leg(&p), "still", false); /* half closed */
    assert_string_equal(peer_reads(&p), "still");
    send_data(leg(&p), "", true);
    assert_string_equal(peer_reads(&p), "<eof>");
    expect_events(&p, "s5 S closed(local) ");
    play_end(&p);
}

static void we_may_end_first(void **state)
{
    static struct play p;

    (void)state;
    serve(&p, "");
    expect_events(&p, HEAD);
    send_head(leg(&p), ":status: 200", false);
    send_data(leg(&p), "all", true);
    assert_string_equal(peer_reads(&p), "all");
    assert_string_equal(peer_reads(&p), "<eof>");
    expect_events(&p, "s3 S ");
    peer_says(&p, "more");
    expect_events(&p, "D(more) ");
    peer_ends(&p);
    release(leg(&p));
    turn(&p);
    expect_events(&p, "D(). closed(local) ");
    play_end(&p);
}

static void refusals_are_resets(void **state)
{
    static struct play p;

    (void)state;
    serve(&p, "x");
    send_head(leg(&p), ":status: 503", true);
    release(leg(&p));
    turn(&p);
    expect_events(&p, HEAD "D(x) closed(local) ");
    play_end(&p);

    play_begin(&p);
    p.refuse = true;
    ep_tcp_serve(p.conn, &p.options, &play_acceptor, &p, NULL, NULL, 0);
    turn(&p);
    expect_events(&p, "closed(limit) ");
    play_end(&p);

    serve(&p, ""); /* the other half of the tunnel failed */
    leg(&p)->ops->reset(leg(&p), EP_RESET_CONNECTION);
    release(leg(&p));
    turn(&p);
    expect_events(&p, HEAD "closed(local) ");
    play_end(&p);

    serve(&p, ""); /* the peer's reset comes through */
    ep_conn_abort(p.conn, EP_CLOSE_RESET, false);
    turn(&p);
    expect_events(&p, HEAD "R(connection) closed(reset) ");
    play_end(&p);
}

static void bytes_that_nobody_takes_stop_the_reading(void **state)
{
    static char bytes[30000];
    static struct play p;

    (void)state;
    serve(&p, "");
    p.options.stream_window = 20000;
    p.consume = false;
    p.counts = true;
    memset(bytes, 'x', sizeof bytes);
    peer_says_n(&p, bytes, sizeof bytes);
    assert_true(p.conn->read_paused);
    leg(&p)->ops->consumed(leg(&p), 25000);
    assert_false(p.conn->read_paused);
    peer_says(&p, "y");
    assert_non_null(strstr(p.log, "D1 "));
    play_end(&p);
}

/* What the sniffer found opaque may not become a request by being cut in two. */
static void a_first_line_that_calls_itself_http_is_reset(void **state)
{
    static const struct {
        const char *pieces[4];
        bool refused;
    } rows[] = {
        {{"G\xc3T / HT", "TP/1.1\r\n"}, true},
        {{"\xff", " HTTP", "/"}, true},
        {{"\r\n\xff ", " HTTP/1.0", "\r\n"}, true},
        {{"\xff", "x\n", "GET / HTTP/1.1\r\n"}, false}, /* the second line is the protocol's own affair */
        {{"\xff", "HTTP/1.1", " HTTP /"}, false},
        {{"", "\xff ", "HTTP/"}, true},
    };
    static struct play p;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        serve(&p, rows[i].pieces[0]);
        ep_tcp_watch(p.conn, (const unsigned char *)rows[i].pieces[0], strlen(rows[i].pieces[0]));
        for (size_t k = 1; k < 4 && rows[i].pieces[k]; k++)
            if (p.conn)
                peer_says(&p, rows[i].pieces[k]);
        turn(&p);
        assert_int_equal(strstr(p.log, "late_http") != NULL, rows[i].refused);
        assert_int_equal(p.conn == NULL, rows[i].refused);
        if (rows[i].refused)
            assert_non_null(strstr(p.log, "R(protocol) closed(limit) "));
        play_end(&p);
    }

    static char line[4000];
    memset(line, 'x', sizeof line - 1); /* no longer a line that anybody would take for a request */
    serve(&p, "\xff");
    ep_tcp_watch(p.conn, (const unsigned char *)"\xff", 1);
    peer_says(&p, line);
    peer_says(&p, " HTTP/1.1");
    assert_null(strstr(p.log, "late_http"));
    play_end(&p);
}

static struct ep_leg *dial(struct play *p)
{
    play_begin(p);
    p->conn->is_server = false;
    ep_tcp_client(p->conn, &p->options, &play_client_events, p);
    return own(p, ep_tcp_open(p->conn));
}

static void a_client_answers_when_it_is_there(void **state)
{
    static struct play p;
    struct ep_leg *l;

    (void)state;
    l = dial(&p);
    assert_null(ep_tcp_open(p.conn));
    send_head(l, ":method: CONNECT|:scheme: tcp|:authority: a:1", false);
    expect_events(&p, ""); /* never from inside the op */
    send_data(l, "hello", false);
    turn(&p);
    expect_events(&p, "H[:status: 200] s5 ");
    assert_string_equal(peer_reads(&p), "hello");
    peer_says(&p, "back");
    peer_ends(&p);
    send_data(l, "", true);
    turn(&p);
    expect_events(&p, "D(back) D(). S closed(local) ");
    play_end(&p);
}

static void a_server_that_speaks_first(void **state)
{
    static struct play p;
    struct ep_leg *l;

    (void)state;
    l = dial(&p);
    peer_says(&p, "220 ready");
    peer_ends(&p);
    expect_events(&p, "");
    send_head(l, ":method: CONNECT|:scheme: tcp|:authority: a:1", false);
    turn(&p);
    turn(&p);
    expect_events(&p, "H[:status: 200] D(220 ready) D(). ");
    play_end(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_is_a_tunnel),
        cmocka_unit_test(we_may_end_first),
        cmocka_unit_test(refusals_are_resets),
        cmocka_unit_test(bytes_that_nobody_takes_stop_the_reading),
        cmocka_unit_test(a_first_line_that_calls_itself_http_is_reset),
        cmocka_unit_test(a_client_answers_when_it_is_there),
        cmocka_unit_test(a_server_that_speaks_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
