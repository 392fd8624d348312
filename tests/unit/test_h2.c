/* link: ep_http */
/* The h2 codec: exchanges as they go well, are reset, or end with their connection. test_h2_limits.c has what is too much. */
#include "h2_play.h"

static void test_get(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    assert_true(p->s.got_head && p->s.got_end);
    assert_true(ep_str_eq(ep_headers_get_id(&p->s.in, EP_HDR_PATH), EP_STR("/mcp")));
    assert_true(ep_str_eq(ep_headers_get(&p->s.in, EP_STR("x-one")), EP_STR("1")));
    respond(p, true);
    drop(&p->s); /* before the turn's end: the head must still go out */
    turns(p, 3);
    assert_true(p->c.got_head && p->c.got_end && !p->c.reset);
    assert_true(ep_str_eq(ep_headers_get(&p->c.in, EP_STR("x-two")), EP_STR("2")));
    assert_int_equal(ep_h2_streams(p->client), 0);
}

static void test_bodies_and_trailers(void **state)
{
    struct play *p = *state;

    request(p, "POST", false);
    send_bytes(p, &p->c, "hello ", 6, false);
    turns(p, 2);
    assert_int_equal(p->s.body_bytes, 6);
    send_bytes(p, &p->c, "world", 5, true);
    turns(p, 2);
    assert_true(p->s.got_end && p->c.message_sent);
    assert_int_equal(p->c.sent, 11);
    assert_memory_equal(p->s.body, "hello world", 11);
    respond(p, false);
    send_bytes(p, &p->s, "answer", 6, false);
    ep_headers_add_id(&p->s.trailers_out, EP_HDR_GRPC_STATUS, EP_STR("7"));
    p->s.leg->ops->trailers(p->s.leg, &p->s.trailers_out);
    turns(p, 3);
    assert_memory_equal(p->c.body, "answer", 6);
    assert_true(p->c.got_trailers && p->s.message_sent && !p->s.reset && !p->c.reset);
    assert_true(ep_str_eq(ep_headers_get_id(&p->c.trailers_in, EP_HDR_GRPC_STATUS), EP_STR("7")));
}

/* As gRPC does: the messages leave in one turn, the trailers in a later one. */
static void test_late_trailers(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    respond(p, false);
    send_bytes(p, &p->s, "x", 1, false);
    turns(p, 3);
    assert_false(p->s.message_sent);
    ep_headers_add_id(&p->s.trailers_out, EP_HDR_GRPC_STATUS, EP_STR("0"));
    p->s.leg->ops->trailers(p->s.leg, &p->s.trailers_out);
    turns(p, 3);
    assert_true(p->s.message_sent && p->c.got_trailers);
}

static void test_informational(void **state)
{
    struct play *p = *state;
    struct ep_headers hints;

    request(p, "GET", true);
    turns(p, 2);
    ep_headers_init(&hints, &p->s.arena);
    ep_headers_add_id(&hints, EP_HDR_STATUS, EP_STR("103"));
    p->s.leg->ops->informational(p->s.leg, &hints);
    respond(p, true);
    turns(p, 3);
    assert_int_equal(p->c.informational, 1);
    assert_true(p->c.got_head);
}

static void test_back_pressure(void **state)
{
    struct play *p = *state;
    static const char zeros[65536];

    p->s.consume = false;
    request(p, "POST", false);
    for (int i = 0; i < 32; i++) /* 2 MiB, eight times the window */
        send_bytes(p, &p->c, zeros, sizeof zeros, i == 31);
    turns(p, 50);
    assert_int_equal(p->s.body_bytes, p->o.stream_window);
    assert_false(p->c.message_sent);
    for (int i = 0; i < 200 && !p->s.got_end; i++) {
        size_t had = p->s.body_bytes;
        p->s.leg->ops->consumed(p->s.leg, i ? 0 : had);
        p->s.consume = true;
        turns(p, 2);
    }
    assert_true(p->s.got_end);
    assert_int_equal(p->s.body_bytes, 2u << 20);
}

static void test_resets(void **state)
{
    struct play *p = *state;

    request(p, "POST", false);
    turns(p, 2);
    p->c.leg->ops->reset(p->c.leg, EP_RESET_CANCEL);
    turns(p, 2);
    assert_true(p->s.reset);
    assert_int_equal(p->s.why, EP_RESET_CANCEL);
    assert_false(p->c.reset);
    drop(&p->c);
    drop(&p->s);
    turns(p, 2);
    assert_int_equal(ep_h2_streams(p->client), 0);

    memset(&p->c, 0, sizeof p->c);
    p->refuse = true;
    request(p, "GET", true);
    turns(p, 3);
    assert_true(p->c.reset);
    assert_int_equal(p->c.why, EP_RESET_REFUSED);
}

static void test_early_response(void **state)
{
    struct play *p = *state;

    request(p, "POST", false);
    turns(p, 2);
    respond(p, false);
    send_bytes(p, &p->s, "no", 2, true);
    turns(p, 2);
    assert_true(p->s.message_sent);
    p->s.leg->ops->reset(p->s.leg, EP_RESET_NO_ERROR);
    turns(p, 2);
    assert_true(p->c.got_head && p->c.got_end);
    assert_memory_equal(p->c.body, "no", 2);
    assert_true(p->c.reset);
    assert_int_equal(p->c.why, EP_RESET_NO_ERROR);
}

static void test_connection_lost(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    ep_conn_abort(p->server, EP_CLOSE_LOCAL, true);
    turns(p, 3);
    assert_int_equal(p->closed, 2);
    assert_true(p->s.reset && p->c.reset);
    assert_int_equal(p->c.why, EP_RESET_CONNECTION);
    assert_null(p->c.leg->conn);
}

static void test_drain(void **state)
{
    struct play *p = *state;

    request(p, "GET", true);
    turns(p, 2);
    ep_codec_drain(p->server, 0);
    turns(p, 2);
    assert_int_equal(ep_h2_capacity(p->client), 0);
    respond(p, true);
    turns(p, 4);
    assert_true(p->c.got_head && !p->c.reset); /* the stream that was there ended well */
    drop(&p->c);
    drop(&p->s);
    for (int i = 0; i < 100 && p->closed < 2; i++)
        turns(p, 1);
    assert_int_equal(p->closed, 2);
}

static void test_host_mismatch(void **state)
{
    struct play *p = *state;
    struct ep_leg *l = ep_h2_open(p->client);

    adopt(p, &p->c, l);
    ep_headers_add_id(&p->c.out, EP_HDR_METHOD, EP_STR("GET"));
    ep_headers_add_id(&p->c.out, EP_HDR_SCHEME, EP_STR("http"));
    ep_headers_add_id(&p->c.out, EP_HDR_AUTHORITY, EP_STR("one"));
    ep_headers_add_id(&p->c.out, EP_HDR_PATH, EP_STR("/"));
    ep_headers_add_id(&p->c.out, EP_HDR_HOST, EP_STR("two"));
    l->ops->headers(l, &p->c.out, true);
    turns(p, 3);
    assert_int_equal(p->refused, 1);
    assert_false(p->s.got_head);
    assert_true(ep_str_eq(ep_headers_get_id(&p->c.in, EP_HDR_STATUS), EP_STR("400")));
}

int main(void)
{
#define PLAY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_get), PLAY(test_bodies_and_trailers), PLAY(test_late_trailers), PLAY(test_informational),
        PLAY(test_back_pressure), PLAY(test_resets), PLAY(test_early_response), PLAY(test_connection_lost),
        PLAY(test_drain), PLAY(test_host_mismatch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
