/* link: ep_http */
/* The h2 codec: heads that are too large or can't be sent, peers that are slow or stuck, legs that are let go of. */
#include "h2_play.h"

static void test_too_many_headers(void **state)
{
    struct play *p = *state;
    struct ep_leg *l = ep_h2_open(p->client);

    adopt(p, &p->c, l);
    ep_headers_add_id(&p->c.out, EP_HDR_METHOD, EP_STR("GET"));
    ep_headers_add_id(&p->c.out, EP_HDR_SCHEME, EP_STR("http"));
    ep_headers_add_id(&p->c.out, EP_HDR_AUTHORITY, EP_STR("one"));
    ep_headers_add_id(&p->c.out, EP_HDR_PATH, EP_STR("/"));
    for (int i = 0; i < 110; i++)
        ep_headers_add(&p->c.out, EP_STR("x"), EP_STR("y"));
    l->ops->headers(l, &p->c.out, true);
    turns(p, 3);
    assert_int_equal(p->refused, 1);
    assert_true(ep_str_eq(ep_headers_get_id(&p->c.in, EP_HDR_STATUS), EP_STR("431")));
}

/* The owner of a client leg is told when a response is more than we take. */
static void test_response_too_large(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    ep_headers_add_id(&p->s.out, EP_HDR_STATUS, EP_STR("200"));
    for (int i = 0; i < 110; i++)
        ep_headers_add(&p->s.out, EP_STR("x"), EP_STR("y"));
    p->s.leg->ops->headers(p->s.leg, &p->s.out, true);
    turns(p, 3);
    assert_false(p->c.got_head);
    assert_true(p->c.reset);
    assert_int_equal(p->c.why, EP_RESET_PROTOCOL);
    assert_int_equal(ep_h2_streams(p->client), 0);
}

static void test_trailers_too_large(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    respond(p, false);
    for (int i = 0; i < 110; i++)
        ep_headers_add(&p->s.trailers_out, EP_STR("x"), EP_STR("y"));
    p->s.leg->ops->trailers(p->s.leg, &p->s.trailers_out);
    turns(p, 3);
    assert_true(p->c.got_head && p->c.reset && !p->c.got_trailers); /* never a part of them */
}

/* What was taken in can be passed on, however many fields the limits allow. */
static void test_many_headers(void **state)
{
    struct play *p = *state;
    struct ep_leg *l = ep_h2_open(p->client);
    char name[16];

    p->o.max_header_count = 1000;
    adopt(p, &p->c, l);
    ep_headers_add_id(&p->c.out, EP_HDR_METHOD, EP_STR("GET"));
    ep_headers_add_id(&p->c.out, EP_HDR_SCHEME, EP_STR("http"));
    ep_headers_add_id(&p->c.out, EP_HDR_AUTHORITY, EP_STR("one"));
    ep_headers_add_id(&p->c.out, EP_HDR_PATH, EP_STR("/"));
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "x-%d", i);
        ep_headers_add(&p->c.out, ep_str(name), EP_STR("y"));
    }
    l->ops->headers(l, &p->c.out, true);
    turns(p, 3);
    assert_true(p->s.got_head);
    assert_int_equal(p->s.in.n, 304);
    assert_true(ep_headers_get(&p->s.in, EP_STR("x-299")).n == 1);
}

/* A head that can't be said at all ends the stream; the peer isn't left waiting. */
static void test_head_that_cannot_be_sent(void **state)
{
    struct play *p = *state;
    static char long_value[60000];

    memset(long_value, 'v', sizeof long_value);
    request(p, "GET", true);
    turns(p, 2);
    ep_headers_add_id(&p->s.out, EP_HDR_STATUS, EP_STR("200"));
    for (int i = 0; i < 80; i++)
        ep_headers_append(&p->s.out, EP_HDR_OTHER, EP_STR("x"), ep_str_n(long_value, sizeof long_value));
    p->s.leg->ops->headers(p->s.leg, &p->s.out, true);
    drop(&p->s);
    turns(p, 4);
    assert_true(p->c.reset);
    assert_int_equal(p->c.why, EP_RESET_INTERNAL);
    assert_int_equal(p->closed, 0);
    assert_int_equal(ep_h2_streams(p->client), 0);
}

/* One bad request doesn't start a clock that ends the connection of the others. */
static void test_bad_request_among_others(void **state)
{
    struct play *p = *state;
    struct ep_leg *l = ep_h2_open(p->client);

    adopt(p, &p->c, l);
    ep_headers_add_id(&p->c.out, EP_HDR_METHOD, EP_STR("GET"));
    ep_headers_add_id(&p->c.out, EP_HDR_SCHEME, EP_STR("http"));
    ep_headers_add_id(&p->c.out, EP_HDR_AUTHORITY, EP_STR("one"));
    ep_headers_add_id(&p->c.out, EP_HDR_PATH, EP_STR("/"));
    ep_headers_append(&p->c.out, EP_HDR_OTHER, EP_STR("UPPER"), EP_STR("case"));
    l->ops->headers(l, &p->c.out, true);
    turns(p, 3);
    assert_true(p->c.reset);
    assert_int_equal(session_of(p->server)->headers_since_ns, 0);
    drop(&p->c);
    drop(&p->s);
    memset(&p->c, 0, sizeof p->c);
    memset(&p->s, 0, sizeof p->s);
    request(p, "GET", true); /* one that takes its time */
    turns(p, 2);
    for (int i = 0; i < 12; i++)
        later(p, 30 * EP_S);
    assert_int_equal(p->closed, 0);
    respond(p, true);
    turns(p, 3);
    assert_true(p->c.got_end);
}

/* A head that is begun and not ended has headers_timeout, not the idle time of the connection. */
static void test_slow_head(void **state)
{
    static const unsigned char frame[] = {0, 0, 100, NGHTTP2_HEADERS, 0, 0, 0, 0, 1, 0x82};
    struct play *p = *state;

    ep_conn_write(p->client, frame, sizeof frame);
    turns(p, 2);
    later(p, 9 * EP_S);
    assert_int_equal(p->closed, 0);
    later(p, 2 * EP_S);
    assert_int_equal(p->closed, 2);
    assert_int_equal(p->refused, 1);
}

/* The response came whole while the request's body waits for a window: its trailers are in memory that goes away. */
static void test_release_before_trailers(void **state)
{
    struct play *p = *state;
    static const char zeros[65536];

    p->s.consume = false;
    request(p, "POST", false);
    for (int i = 0; i < 8; i++)
        send_bytes(p, &p->c, zeros, sizeof zeros, false);
    ep_headers_add(&p->c.trailers_out, EP_STR("x-sum"), EP_STR("1"));
    p->c.leg->ops->trailers(p->c.leg, &p->c.trailers_out);
    turns(p, 3);
    respond(p, true);
    turns(p, 3);
    assert_true(p->c.got_end);
    drop(&p->c);
    p->s.leg->ops->consumed(p->s.leg, p->s.body_bytes); /* now there is a window */
    turns(p, 4);
    assert_true(p->s.reset && !p->s.got_trailers);
    assert_int_equal(ep_h2_streams(p->client), 0);
}

/* The same without trailers: it goes on by itself, but not for ever. */
static void test_release_before_the_body_left(void **state)
{
    struct play *p = *state;
    static const char zeros[65536];

    for (int goes_on = 1; goes_on >= 0; goes_on--) {
        memset(&p->c, 0, sizeof p->c);
        memset(&p->s, 0, sizeof p->s);
        p->c.consume = true;
        request(p, "POST", false);
        for (int i = 0; i < 8; i++)
            send_bytes(p, &p->c, zeros, sizeof zeros, i == 7);
        turns(p, 3);
        respond(p, true);
        turns(p, 3);
        assert_true(p->c.got_end && !p->s.got_end);
        drop(&p->c);
        turns(p, 3);
        assert_int_equal(ep_h2_streams(p->client), 1);
        if (goes_on) {
            p->s.consume = true;
            p->s.leg->ops->consumed(p->s.leg, p->s.body_bytes);
            for (int i = 0; i < 50 && !p->s.got_end; i++)
                turns(p, 2);
            assert_int_equal(p->s.body_bytes, 8 * sizeof zeros);
            assert_true(p->s.got_end && !p->s.reset);
        } else {
            for (int i = 0; i < 5 && !p->s.reset; i++)
                later(p, 40 * EP_S);
            assert_true(p->s.reset);
        }
        turns(p, 2);
        assert_int_equal(ep_h2_streams(p->client), 0);
        drop(&p->s);
    }
}

/* A peer that reads nothing is found by its lack of progress, though nothing happens on our side. */
static void test_stuck_peer(void **state)
{
    struct play *p = *state;
    static const char zeros[65536];

    request(p, "GET", true);
    turns(p, 2);
    nghttp2_session_set_local_window_size(session_of(p->client)->session, NGHTTP2_FLAG_NONE, 0, 1 << 24);
    nghttp2_session_set_local_window_size(session_of(p->client)->session, NGHTTP2_FLAG_NONE, 1, 1 << 24);
    ep_conn_want_flush(p->client);
    turns(p, 3);
    ep_conn_pause_read(p->client);
    respond(p, false);
    for (int i = 0; i < 32; i++)
        send_bytes(p, &p->s, zeros, sizeof zeros, false);
    turns(p, 3);
    assert_true(p->server->write_stuck);
    for (int i = 0; i < 5 && p->server; i++)
        later(p, 35 * EP_S);
    assert_null(p->server);
    assert_true(p->s.reset);
    assert_int_equal(p->s.why, EP_RESET_TIMEOUT);
}

/* A leg that is let go of gives back what it held of the connection's window, also while it still sends. */
static void test_window_given_back(void **state)
{
    struct play *p = *state;
    static const char zeros[65536];

    p->s.consume = p->c.consume = false;
    request(p, "POST", false);
    send_bytes(p, &p->c, zeros, sizeof zeros, true);
    turns(p, 3);
    assert_true(p->s.got_end);
    assert_int_equal(nghttp2_session_get_effective_recv_data_length(session_of(p->server)->session), sizeof zeros);
    respond(p, false);
    for (int i = 0; i < 8; i++)
        send_bytes(p, &p->s, zeros, sizeof zeros, i == 7);
    turns(p, 3);
    drop(&p->s);
    turns(p, 3);
    assert_int_equal(ep_h2_streams(p->server), 1); /* it waits for the client's window */
    assert_int_equal(EP_CONTAINER(session_of(p->server)->legs.next, struct ep_h2_leg, node)->unconsumed, 0);
}

int main(void)
{
#define PLAY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_too_many_headers), PLAY(test_response_too_large), PLAY(test_trailers_too_large),
        PLAY(test_many_headers), PLAY(test_head_that_cannot_be_sent), PLAY(test_bad_request_among_others),
        PLAY(test_slow_head), PLAY(test_release_before_trailers), PLAY(test_release_before_the_body_left),
        PLAY(test_stuck_peer), PLAY(test_window_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
