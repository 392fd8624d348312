/* link: ep_filter ep_observe */
/* The walk through the chain, with filters that do as they are told and legs that only remember. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "filter/chain.h"
#include "filter/private.h"

/* --- a leg that remembers --- */

struct memory {
    struct ep_leg leg;
    char text[512]; /* what was sent: "H200;" head, "D" data, "E" end, "T" trailers, "R" reset */
    size_t consumed;
    bool released;
    bool stuck; /* the client reads nothing: what is sent stays where it is */
};

static void note(struct memory *m, const char *what, size_t n)
{
    size_t at = strlen(m->text);

    assert_true(at + n + 1 < sizeof m->text);
    memcpy(m->text + at, what, n);
    m->text[at + n] = 0;
}

static void leg_headers(struct ep_leg *l, struct ep_headers *h, bool end)
{
    struct memory *m = (struct memory *)l;
    struct ep_str status = ep_headers_get_id(h, EP_HDR_STATUS);

    note(m, "H", 1);
    note(m, status.p, status.n);
    note(m, end ? ".;" : ";", end ? 2 : 1);
}

static void leg_informational(struct ep_leg *l, struct ep_headers *h)
{
    struct ep_str status = ep_headers_get_id(h, EP_HDR_STATUS);

    note((struct memory *)l, "I", 1);
    note((struct memory *)l, status.p, status.n);
    note((struct memory *)l, ";", 1);
}

static void leg_data(struct ep_leg *l, struct ep_slice s, bool end)
{
    struct memory *m = (struct memory *)l;

    note(m, (const char *)s.p, s.n);
    if (end)
        note(m, ".", 1);
    if (m->stuck) {
        ep_slice_unref(s);
        return;
    }
    l->events->on_sent(l, s.n);
    ep_slice_unref(s);
    if (end)
        l->events->on_message_sent(l);
}

static void leg_trailers(struct ep_leg *l, struct ep_headers *h)
{
    (void)h;
    note((struct memory *)l, "T.", 2);
    l->events->on_message_sent(l);
}

static void leg_consumed(struct ep_leg *l, size_t n)
{
    ((struct memory *)l)->consumed += n;
}

static void leg_reset(struct ep_leg *l, enum ep_reset why)
{
    (void)why;
    note((struct memory *)l, "R", 1);
}

static void leg_release(struct ep_leg *l)
{
    ((struct memory *)l)->released = true;
}

static const struct ep_leg_ops leg_ops = {"fake", leg_headers, leg_informational, leg_data, leg_trailers, leg_consumed, leg_reset, leg_release};

/* --- filters that do as they are told --- */

enum { A, B, ROUTER, N };

static struct script {
    enum ep_step request[N], response[N], body[N];
    char order[128];
    char seen[256]; /* what the router got */
    char seen_first[256]; /* what the body step of the first filter got */
    unsigned finished;
    struct ep_stream *stream;
} script;

static void refuse(struct ep_stream *s)
{
    ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_POLICY, .policy = EP_STR("test"), .reason = EP_STR("no"),
                                             .code = "test.no", .grpc_status = -1});
}

static enum ep_step do_request(struct ep_stream *s, int who, bool end)
{
    size_t at = strlen(script.order);

    script.stream = s;
    script.order[at] = (char)("abr"[who]);
    script.order[at + 1] = end ? '.' : 0;
    script.order[at + 2] = 0;
    assert_int_equal(ep_filter_self(s)->index, who);
    if (script.request[who] == EP_REPLIED)
        refuse(s);
    return script.request[who];
}

static enum ep_step do_response(struct ep_stream *s, int who)
{
    size_t at = strlen(script.order);

    script.order[at] = (char)("AB"[who]);
    script.order[at + 1] = 0;
    if (script.response[who] == EP_REPLIED)
        refuse(s);
    return script.response[who];
}

static enum ep_step do_body(struct ep_stream *s, int who, struct ep_body *b, bool end)
{
    if (who == A) {
        for (uint32_t i = 0; i < b->count; i++)
            strncat(script.seen_first, (const char *)ep_body_at(b, i)->p, ep_body_at(b, i)->n);
        script.seen_first[strlen(script.seen_first)] = end ? '.' : '|'; /* zeros follow */
    }
    if (who == ROUTER) {
        while (b->count) {
            struct ep_slice *front = ep_body_front(b);
            size_t at = strlen(script.seen);
            memcpy(script.seen + at, front->p, front->n);
            script.seen[at + front->n] = 0;
            s->request.in_flight += front->n;
            ep_stream_request_sent(s, front->n);
            ep_body_drop(b, front->n);
        }
        if (end)
            script.seen[strlen(script.seen)] = '.';
    }
    if (script.body[who] == EP_REPLIED)
        refuse(s);
    return script.body[who];
}

#define FILTER(name_, who_)                                                                                            \
    static enum ep_step name_##_rq(struct ep_stream *s, void *st, bool end) { (void)st; return do_request(s, who_, end); } \
    static enum ep_step name_##_rp(struct ep_stream *s, void *st, bool end) { (void)st, (void)end; return do_response(s, who_); } \
    static enum ep_step name_##_bd(struct ep_stream *s, void *st, struct ep_body *b, bool end) { (void)st; return do_body(s, who_, b, end); } \
    static void name_##_fi(struct ep_stream *s, void *st) { (void)s, (void)st; script.finished++; }                    \
    static const struct ep_filter name_ = {.name = #name_, .stream_size = 8, .request_headers = name_##_rq,            \
                                           .request_body = name_##_bd, .response_headers = name_##_rp, .finish = name_##_fi}
FILTER(one, A);
FILTER(two, B);
static enum ep_step router_rq(struct ep_stream *s, void *st, bool end)
{
    (void)st;
    return do_request(s, ROUTER, end);
}
static enum ep_step router_bd(struct ep_stream *s, void *st, struct ep_body *b, bool end)
{
    (void)st;
    return do_body(s, ROUTER, b, end);
}
static const struct ep_filter router = {.name = "router", .request_headers = router_rq, .request_body = router_bd};

const struct ep_filter *ep_filter_find(struct ep_str name)
{
    const struct ep_filter *const all[] = {&one, &two, &router};

    for (size_t i = 0; i < EP_COUNT(all); i++)
        if (ep_str_eq(name, ep_str(all[i]->name)))
            return all[i];
    return NULL;
}

static struct ep_cluster *lookup(void *user, struct ep_str name)
{
    (void)name;
    return user;
}

/* --- the stage --- */

struct play {
    struct ep_worker w;
    struct ep_view view;
    struct ep_filter_use uses[2];
    struct ep_listener_config config;
    struct ep_chain *chain;
    struct ep_server_listener l;
    struct memory down;
    struct ep_stream *s;
    struct ep_headers head;
    uint64_t ahead_ns;
};

static void view_free(struct ep_view *v)
{
    (void)v;
}

static int setup(void **state)
{
    struct play *p = ep_calloc(1, sizeof *p);
    struct ep_error err;

    memset(&script, 0, sizeof script);
    assert_true(ep_worker_init(&p->w, 0, &err));
    p->w.stats = ep_stats_new();
    p->view = (struct ep_view){.refs = 1, .worker = &p->w, .free = view_free};
    p->uses[0].name = EP_STR("one");
    p->uses[1].name = EP_STR("two");
    p->config = (struct ep_listener_config){.name = EP_STR_INIT("in"), .cluster = EP_STR_INIT("c"), .filters = {p->uses, 2},
                                            .max_body_bytes = 16, .stream_idle_timeout_ns = 5 * EP_S, .max_streams = 10, .max_header_bytes = 1000,
                                            .max_header_count = 10};
    p->chain = ep_chain_new(&p->view, &p->w, &p->config, lookup, p, &err);
    assert_non_null(p->chain);
    p->l = (struct ep_server_listener){.worker = &p->w, .chain = p->chain, .name = EP_STR_INIT("in")};
    ep_list_init(&p->l.streams);
    p->l.cell_streams = ep_stats_cell(p->w.stats, EP_METRIC_STREAMS, EP_LABELS(p->l.name));
    p->down.leg = (struct ep_leg){.ops = &leg_ops, .version = EP_HTTP_1_1, .server = true};
    p->s = ep_stream_new(&p->l, &p->down.leg);
    ep_headers_init(&p->head, &p->s->arena);
    ep_headers_add_id(&p->head, EP_HDR_METHOD, EP_STR("POST"));
    ep_headers_add_id(&p->head, EP_HDR_PATH, EP_STR("/"));
    *state = p;
    return 0;
}

static void turn(struct play *p)
{
    ep_worker_turn(&p->w, false);
}

static int teardown(void **state)
{
    struct play *p = *state;

    if (!p->down.released)
        ep_stream_abort(p->s, EP_RESET_CANCEL);
    turn(p);
    assert_true(p->down.released);
    assert_int_equal(p->l.n_streams, 0);
    assert_int_equal(p->view.refs, 1);
    assert_int_equal(script.finished, 2);
    ep_chain_free(p->chain);
    assert_int_equal(p->w.slabs.n_live, 0);
    ep_worker_fini(&p->w);
    ep_stats_free(p->w.stats);
    free(p);
    return 0;
}

static void request(struct play *p, bool end)
{
    p->down.leg.events->on_headers(&p->down.leg, &p->head, end);
}

static void body(struct play *p, const char *text, bool end)
{
    struct ep_slab *slab = ep_slab_new_sized(&p->w.slabs, strlen(text));

    memcpy(slab->data, text, strlen(text));
    p->down.leg.events->on_data(&p->down.leg, (struct ep_slice){slab, slab->data, strlen(text)}, end);
    ep_slab_unref(slab);
}

static void respond(struct play *p, bool end)
{
    struct ep_headers h;

    ep_headers_init(&h, &p->s->arena);
    ep_headers_add_id(&h, EP_HDR_STATUS, EP_STR("200"));
    ep_stream_response_headers(p->s, &h, end);
}

static void test_through(void **state)
{
    struct play *p = *state;

    request(p, true);
    assert_string_equal(script.order, "a.b.r.");
    respond(p, true);
    assert_string_equal(script.order, "a.b.r.BA");
    assert_string_equal(p->down.text, "H200.;");
    turn(p);
    assert_true(p->down.released);
}

static void test_body_flows(void **state)
{
    struct play *p = *state;

    request(p, false);
    body(p, "hello ", false);
    body(p, "world", true);
    assert_string_equal(script.seen, "hello world.");
    assert_int_equal(p->down.consumed, 11);
    respond(p, false);
    ep_stream_response_data(p->s, (struct ep_slice){NULL, (const unsigned char *)"ok", 2}, true);
    assert_string_equal(p->down.text, "H200;ok.");
}

static void test_wait(void **state)
{
    struct play *p = *state;

    script.request[A] = EP_WAIT;
    request(p, false);
    body(p, "early", true);
    assert_string_equal(script.order, "a");
    assert_int_equal(p->down.consumed, 0); /* held back by flow control, not swallowed */
    ep_stream_resume_request(p->s);
    assert_string_equal(script.order, "abr");
    assert_string_equal(script.seen, "early.");
    assert_int_equal(p->down.consumed, 5);
    respond(p, true);
}

static void test_buffer(void **state)
{
    struct play *p = *state;

    script.request[B] = EP_BUFFER;
    request(p, false);
    body(p, "12345", false);
    assert_string_equal(script.order, "ab");
    assert_int_equal(p->down.consumed, 5); /* a filter that holds the body lets the sender go on */
    body(p, "6789", true);
    assert_string_equal(script.order, "abr");
    assert_string_equal(script.seen, "123456789.");
    respond(p, true);
}

/* A client of HTTP/2 that waits for a 100 would wait for ever: the upstream isn't asked before the body is there. */
static void test_buffer_and_continue(void **state)
{
    struct play *p = *state;

    p->down.leg.version = EP_HTTP_2;
    ep_headers_add_id(&p->head, EP_HDR_EXPECT, EP_STR("100-continue"));
    script.request[A] = script.request[B] = EP_BUFFER;
    request(p, false);
    assert_string_equal(p->down.text, "I100;");
    body(p, "1", true);
    assert_string_equal(script.order, "abr");
    assert_string_equal(p->down.text, "I100;");
    assert_null(ep_headers_find_id(&p->s->request.headers, EP_HDR_EXPECT)); /* it was answered */
    respond(p, true);
}

static void test_buffer_too_large(void **state)
{
    struct play *p = *state;

    script.request[B] = EP_BUFFER;
    request(p, false);
    body(p, "0123456789", false);
    body(p, "0123456789", false);
    turn(p);
    assert_memory_equal(p->down.text, "H413;", 5);
}

static void test_refuse(void **state)
{
    struct play *p = *state;

    script.request[B] = EP_REPLIED;
    request(p, true);
    assert_string_equal(p->down.text, ""); /* not from inside the step */
    turn(p);
    assert_memory_equal(p->down.text, "H403;", 5);
    assert_string_equal(script.order, "a.b.A"); /* the reply passes the filter in front */
    assert_true(p->down.released);
}

static void test_refuse_with_body_coming(void **state)
{
    struct play *p = *state;

    script.request[A] = EP_REPLIED;
    request(p, false);
    turn(p);
    assert_memory_equal(p->down.text, "H403;", 5);
    assert_int_equal(p->down.text[strlen(p->down.text) - 1], 'R'); /* the rest of the request isn't wanted */
}

static void test_upstream_dies_midway(void **state)
{
    struct play *p = *state;

    request(p, true);
    respond(p, false);
    ep_stream_response_data(p->s, (struct ep_slice){NULL, (const unsigned char *)"half", 4}, false);
    ep_stream_response_reset(p->s, EP_RESET_CONNECTION);
    turn(p);
    assert_string_equal(p->down.text, "H200;halfR");
}

static void test_client_leaves(void **state)
{
    struct play *p = *state;

    request(p, false);
    p->down.leg.events->on_reset(&p->down.leg, EP_RESET_CANCEL);
    turn(p);
    assert_true(p->down.released);
    assert_string_equal(p->down.text, "");
}

static void test_response_wait(void **state)
{
    struct play *p = *state;

    script.response[B] = EP_WAIT;
    request(p, true);
    respond(p, true);
    assert_string_equal(script.order, "a.b.r.B");
    assert_string_equal(p->down.text, "");
    ep_stream_resume_response(p->s);
    assert_string_equal(script.order, "a.b.r.BA");
    assert_string_equal(p->down.text, "H200.;");
}

/* The reply is the end at once, and made by the task that then ends the stream. */
static void test_refuse_head(void **state)
{
    struct play *p = *state;

    p->down.leg.head_request = true;
    script.request[A] = EP_REPLIED;
    request(p, true);
    turn(p);
    assert_string_equal(p->down.text, "H403.;");
    assert_true(p->down.released);
    turn(p); /* nothing of the stream is left in the worker's lists */
}

static void test_tunnel_server_ends_first(void **state)
{
    struct play *p = *state;

    p->down.leg.tunnel = true;
    request(p, false);
    respond(p, false);
    ep_stream_response_data(p->s, (struct ep_slice){NULL, (const unsigned char *)"bye", 3}, true);
    turn(p);
    assert_string_equal(p->down.text, "H200;bye.");
    assert_false(p->down.released); /* the client may go on */
    body(p, "thanks", true);
    turn(p);
    assert_false(p->down.released); /* and what it says has to reach the server */
    assert_string_equal(script.seen, "thanks.");
    ep_stream_request_whole(p->s);
    turn(p);
    assert_true(p->down.released);
}

static void test_tunnel_client_ends_first(void **state)
{
    struct play *p = *state;

    p->down.leg.tunnel = true;
    request(p, false);
    body(p, "hi", true);
    ep_stream_request_whole(p->s);
    respond(p, false);
    turn(p);
    assert_false(p->down.released);
    ep_stream_response_data(p->s, (struct ep_slice){NULL, (const unsigned char *)"bye", 3}, true);
    turn(p);
    assert_true(p->down.released);
}

/* While a body step waits, what comes is not let pass behind its back. */
static void test_wait_in_body(void **state)
{
    struct play *p = *state;

    script.body[A] = EP_WAIT;
    request(p, false);
    body(p, "one", false);
    body(p, "two", false);
    body(p, "three", true);
    assert_string_equal(script.seen_first, "one|");
    assert_string_equal(script.seen, "");
    assert_int_equal(p->down.consumed, 0);
    script.body[A] = EP_NEXT;
    ep_stream_resume_request(p->s);
    assert_string_equal(script.seen_first, "one|twothree.");
    assert_string_equal(script.seen, "onetwothree.");
    assert_int_equal(p->down.consumed, 11);
}

static void test_response_refused(void **state)
{
    struct play *p = *state;

    script.response[B] = EP_REPLIED;
    request(p, true);
    respond(p, true);
    assert_string_equal(p->down.text, "");
    turn(p);
    assert_memory_equal(p->down.text, "H403;", 5);
    assert_string_equal(script.order, "a.b.r.BA"); /* the reply passes the filters in front, not the one that refused */
    assert_true(p->down.released);
}

/* A refusal that the next filter would refuse too is sent all the same. */
static void test_refusal_refused(void **state)
{
    struct play *p = *state;

    script.response[A] = script.response[B] = EP_REPLIED;
    request(p, true);
    respond(p, true);
    turn(p);
    assert_memory_equal(p->down.text, "H403;", 5);
    assert_true(p->down.released);
}

static void later(struct play *p, uint64_t ns)
{
    p->ahead_ns += ns; /* of the clock, which a turn reads again */
    p->w.now_ns = ep_clock_ns() + p->ahead_ns;
    ep_wheel_advance(&p->w.wheel, p->w.now_ns);
    ep_worker_turn(&p->w, false);
    turn(p);
}

/* A client that begins a body and never ends it, while a filter waits for the whole. */
static void test_client_stalls_before_the_router(void **state)
{
    struct play *p = *state;

    script.request[A] = EP_BUFFER;
    request(p, false);
    body(p, "123", false);
    later(p, 4 * EP_S);
    assert_string_equal(p->down.text, "");
    later(p, 2 * EP_S);
    assert_memory_equal(p->down.text, "H504;", 5);
    assert_true(p->down.released);
}

static void test_client_takes_no_refusal(void **state)
{
    struct play *p = *state;

    p->down.stuck = true;
    script.request[A] = EP_REPLIED;
    request(p, false);
    turn(p);
    assert_memory_equal(p->down.text, "H403;", 5);
    assert_false(p->down.released);
    body(p, "and it talks on", false);
    assert_int_equal(p->down.consumed, 15);
    for (int i = 0; i < 5 && !p->down.released; i++)
        later(p, 6 * EP_S);
    assert_true(p->down.released);
    assert_int_equal(p->down.text[strlen(p->down.text) - 1], 'R');
}

static void say_nothing(struct ep_stream *s, const struct ep_refusal *r)
{
    (void)r;
    assert_true(s->response.end_given);
}

/* An upstream that answers before it heard the request: what a filter then refuses must not look answered. */
static void test_a_no_behind_a_whole_answer(void **state)
{
    static const struct ep_protocol talks = {.name = "talks", .refuse_midstream = say_nothing};
    struct play *p = *state;

    p->down.stuck = true;
    p->s->protocol = &talks;
    request(p, false);
    respond(p, false);
    ep_stream_response_data(p->s, (struct ep_slice){NULL, (const unsigned char *)"yes", 3}, true);
    assert_string_equal(p->down.text, "H200;yes.");
    script.body[A] = EP_REPLIED;
    body(p, "something bad", true);
    turn(p);
    assert_string_equal(p->down.text, "H200;yes.R");
    assert_string_equal(script.seen, "");
    assert_true(p->down.released);
}

int main(void)
{
#define PLAY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PLAY(test_through), PLAY(test_body_flows), PLAY(test_wait), PLAY(test_buffer), PLAY(test_buffer_too_large),
        PLAY(test_buffer_and_continue),
        PLAY(test_refuse), PLAY(test_refuse_with_body_coming), PLAY(test_upstream_dies_midway), PLAY(test_client_leaves),
        PLAY(test_response_wait), PLAY(test_refuse_head), PLAY(test_tunnel_server_ends_first),
        PLAY(test_tunnel_client_ends_first), PLAY(test_wait_in_body), PLAY(test_response_refused),
        PLAY(test_refusal_refused), PLAY(test_client_stalls_before_the_router), PLAY(test_client_takes_no_refusal),
        PLAY(test_a_no_behind_a_whole_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
