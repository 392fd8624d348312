/* link: ep_filters */
/* The data path over HTTP/2 on both sides: streams that end in every way share a connection, and leave its window, its
 * places and its counters as they were. */
#include "proxy_play_h2.h"

#define PIECE 60000u

/* --- uploads --- */

static void test_uploads_leave_no_trace(void **state)
{
    enum { WHOLE, REFUSED_AT_ONCE, REFUSED_IN_BODY, CLIENT_RESETS, ORIGIN_RESETS, ORIGIN_ANSWERS, TOO_LARGE, WAITS, FATES };
    struct exchange x;

    (void)state;
    start();
    for (int round = 0; round < 5 * FATES; round++) {
        int fate = round % FATES;
        size_t n = 4 * PIECE;

        memset(&test_script, 0, sizeof test_script);
        if (fate == REFUSED_AT_ONCE)
            test_script.request = EP_REPLIED;
        if (fate == TOO_LARGE)
            test_script.request = EP_BUFFER;
        if (fate == WAITS)
            test_script.request = EP_WAIT;
        ex_open(&x, "POST", false);
        put(x.leg, PIECE, false);
        switch (fate) {
        case WHOLE:
            put(x.leg, n - PIECE, true);
            UNTIL(&p.s, !ep_list_empty(&origin.held) && held()->leg->recv_ended);
            assert_int_equal(x.sent, n);
            answer(held(), 200);
            UNTIL(&p.s, x.ended);
            assert_int_equal(x.status, 200);
            break;
        case REFUSED_AT_ONCE:
        case TOO_LARGE:
            put(x.leg, n - PIECE, false);
            UNTIL(&p.s, x.ended && x.reset);
            assert_int_equal(x.status, fate == TOO_LARGE ? 413 : 403);
            assert_int_equal(x.why, EP_RESET_NO_ERROR);
            break;
        case REFUSED_IN_BODY:
            UNTIL(&p.s, !ep_list_empty(&origin.held));
            test_script.request_body = EP_REPLIED;
            put(x.leg, n - PIECE, false);
            UNTIL(&p.s, x.ended && x.reset);
            assert_int_equal(x.status, 403);
            break;
        case CLIENT_RESETS:
            put(x.leg, n - PIECE, false);
            UNTIL(&p.s, !ep_list_empty(&origin.held));
            x.leg->ops->reset(x.leg, EP_RESET_CANCEL);
            break;
        case ORIGIN_RESETS:
            put(x.leg, n - PIECE, false);
            held()->leg->ops->reset(held()->leg, EP_RESET_INTERNAL);
            ep_worker_defer(&p.s.w, &held()->task);
            UNTIL(&p.s, x.ended);
            assert_int_equal(x.status, 502);
            break;
        case ORIGIN_ANSWERS: /* before it has read the body, and is not interested in it */
            answer_early(held(), 413);
            UNTIL(&p.s, x.ended);
            assert_int_equal(x.status, 413);
            put(x.leg, n - PIECE, false);
            break;
        case WAITS: /* for ever, until the client has enough */
            put(x.leg, n - PIECE, false);
            UNTIL(&p.s, p.l->n_streams == 1);
            settle(&p.s);
            x.leg->ops->reset(x.leg, EP_RESET_CANCEL);
            break;
        }
        ex_close(&x);
        at_rest();
        assert_non_null(client_conn);
    }
    assert_int_equal(origin.connections, 1);
    finish();
}

/* --- downloads --- */

static void test_downloads_leave_no_trace(void **state)
{
    enum { WHOLE, TRAILERS, CLIENT_RESETS, CLIENT_HOLDS_AND_RESETS, REFUSED, REFUSED_IN_BODY, TOO_LARGE, ORIGIN_RESETS, FATES };
    struct exchange x;

    (void)state;
    start();
    for (int round = 0; round < 5 * FATES; round++) {
        int fate = round % FATES;
        size_t n = 4 * PIECE;
        struct served *o;

        memset(&test_script, 0, sizeof test_script);
        if (fate == REFUSED)
            test_script.response = EP_REPLIED;
        if (fate == TOO_LARGE)
            test_script.response = EP_BUFFER;
        ex_open(&x, "GET", true);
        x.hold = fate == CLIENT_HOLDS_AND_RESETS;
        o = held();
        begin_answer(o);
        put(o->leg, PIECE, false);
        switch (fate) {
        case WHOLE:
        case TRAILERS:
            put(o->leg, n - PIECE, fate == WHOLE);
            if (fate == TRAILERS) {
                struct ep_headers t;
                ep_headers_init(&t, &o->arena);
                ep_headers_add_id(&t, EP_HDR_GRPC_STATUS, EP_STR("0"));
                o->leg->ops->trailers(o->leg, &t);
                UNTIL(&p.s, x.ended);
            }
            UNTIL(&p.s, x.ended);
            assert_int_equal(x.received, n);
            assert_true(x.trailers == (fate == TRAILERS));
            ep_worker_defer(&p.s.w, &o->task);
            break;
        case CLIENT_RESETS:
        case CLIENT_HOLDS_AND_RESETS:
            put(o->leg, 10 * n, false);
            UNTIL(&p.s, x.received >= n);
            x.leg->ops->reset(x.leg, EP_RESET_CANCEL);
            break;
        case REFUSED:
            put(o->leg, n, false);
            UNTIL(&p.s, x.ended);
            assert_int_equal(x.status, 403);
            break;
        case REFUSED_IN_BODY:
            UNTIL(&p.s, x.received == PIECE);
            test_script.response_body = EP_REPLIED;
            put(o->leg, n, false);
            UNTIL(&p.s, x.reset);
            break;
        case TOO_LARGE:
            put(o->leg, n, false);
            UNTIL(&p.s, x.ended);
            assert_int_equal(x.status, 502);
            break;
        case ORIGIN_RESETS:
            UNTIL(&p.s, x.received == PIECE);
            put(o->leg, n, false);
            o->leg->ops->reset(o->leg, EP_RESET_INTERNAL);
            ep_worker_defer(&p.s.w, &o->task);
            UNTIL(&p.s, x.reset);
            break;
        }
        ex_close(&x);
        at_rest();
        assert_non_null(client_conn);
    }
    assert_int_equal(origin.connections, 1);
    finish();
}

/* --- back-pressure --- */

/* Many streams of which the client takes nothing: what the proxy holds is bounded, and one that is read goes on. */
static void test_held_downloads(void **state)
{
    struct exchange x[8], reader;
    struct served *o;

    (void)state;
    start();
    nghttp2_session_set_local_window_size(((struct ep_h2 *)client_conn->user)->session, NGHTTP2_FLAG_NONE, 0, 1 << 30);
    for (size_t i = 0; i < EP_COUNT(x); i++) {
        ex_open(&x[i], "GET", true);
        x[i].hold = true;
        UNTIL(&p.s, origin.requests == i + 1);
        o = held();
        begin_answer(o);
        put(o->leg, 4u << 20, true);
    }
    for (size_t i = 0; i < EP_COUNT(x); i++)
        UNTIL(&p.s, x[i].received == client_options.stream_window || i >= 3); /* 1 MiB of windows upstream */
    settle(&p.s);
    for (size_t i = 0; i < EP_COUNT(x); i++) {
        x[i].hold = false;
        x[i].leg->ops->consumed(x[i].leg, x[i].received);
    }
    for (size_t i = 0; i < EP_COUNT(x); i++)
        UNTIL(&p.s, x[i].ended && x[i].received == 4u << 20);
    EP_LIST_FOREACH(n, &origin.held)
        ep_worker_defer(&p.s.w, &EP_CONTAINER(n, struct served, node)->task);
    for (size_t i = 0; i < EP_COUNT(x); i++)
        ex_close(&x[i]);
    at_rest();
    ex_open(&reader, "GET", true);
    answer(held(), 204);
    UNTIL(&p.s, reader.ended);
    assert_int_equal(reader.status, 204);
    ex_close(&reader);
    at_rest();
    finish();
}

/* --- ends of connections --- */

static void test_client_vanishes(void **state)
{
    struct exchange x[6];

    (void)state;
    start();
    for (size_t i = 0; i < EP_COUNT(x); i++) {
        ex_open(&x[i], "POST", false);
        put(x[i].leg, PIECE, i % 2);
    }
    UNTIL(&p.s, origin.requests == EP_COUNT(x));
    begin_answer(held());
    put(held()->leg, PIECE, false);
    ep_conn_abort(client_conn, EP_CLOSE_LOCAL, true);
    UNTIL(&p.s, !client_conn);
    for (size_t i = 0; i < EP_COUNT(x); i++) {
        assert_true(x[i].reset);
        ex_close(&x[i]);
    }
    at_rest();
    finish();
}

static void test_origin_vanishes(void **state)
{
    struct exchange x[4];

    (void)state;
    start();
    for (size_t i = 0; i < EP_COUNT(x); i++) {
        ex_open(&x[i], i == 0 ? "GET" : "POST", i == 0);
        if (i)
            put(x[i].leg, PIECE, true);
    }
    UNTIL(&p.s, origin.requests == EP_COUNT(x));
    begin_answer(held()); /* to the last of them */
    put(held()->leg, PIECE, false);
    UNTIL(&p.s, x[3].received == PIECE);
    ep_conn_abort(origin.last, EP_CLOSE_LOCAL, true);
    UNTIL(&p.s, x[1].ended && x[2].ended && x[3].reset);
    assert_int_equal(x[1].status, 502);
    /* the first is tried again on another connection: a GET of which nothing was heard. It was a new one, so it isn't */
    UNTIL(&p.s, x[0].ended);
    assert_int_equal(x[0].status, 502);
    for (size_t i = 0; i < EP_COUNT(x); i++)
        ex_close(&x[i]);
    at_rest();
    finish();
}

/* GOAWAY in two steps: streams that are there end well, those that come too late are refused and may be tried again. */
static void test_drain(void **state)
{
    struct exchange x, late;

    (void)state;
    start();
    ex_open(&x, "GET", true);
    UNTIL(&p.s, origin.requests == 1);
    ep_server_listener_drain(p.l, 100 * EP_MS);
    ep_server_listener_drain(p.l, 100 * EP_MS);
    ex_open(&late, "GET", true); /* crosses the first GOAWAY */
    UNTIL(&p.s, origin.requests == 2);
    server_answer(&origin, 200, 2);
    UNTIL(&p.s, x.ended && late.ended);
    assert_int_equal(x.status, 200);
    assert_int_equal(late.status, 200);
    ex_close(&x);
    ex_close(&late);
    UNTIL(&p.s, !client_conn);
    UNTIL(&p.s, p.l->listener.n_connections == 0);
    finish();
}

/* An idle connection that is drained: what crosses the first GOAWAY is served still. */
static void test_drain_of_an_idle_connection(void **state)
{
    struct exchange late;

    (void)state;
    start();
    settle(&p.s);
    ep_server_listener_drain(p.l, 100 * EP_MS);
    ex_open(&late, "GET", true);
    UNTIL(&p.s, origin.requests == 1);
    server_answer(&origin, 200, 1);
    UNTIL(&p.s, late.ended);
    assert_int_equal(late.status, 200);
    ex_close(&late);
    UNTIL(&p.s, !client_conn);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uploads_leave_no_trace),
        cmocka_unit_test(test_downloads_leave_no_trace),
        cmocka_unit_test(test_held_downloads),
        cmocka_unit_test(test_client_vanishes),
        cmocka_unit_test(test_origin_vanishes),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_drain_of_an_idle_connection),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
