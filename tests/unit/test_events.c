/* link: ep_filters */
/* Server-sent events: every line end, cut at every place, in single bytes; what is shown, what goes on, what is held back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "agent/events.h"

struct told {
    char text[1024]; /* "name|data|id;" of each event */
    size_t n;
    unsigned count;
    const char *drop, *stop, *replace, *with; /* an event whose data begin like that */
    struct ep_events *insert_into;            /* before what is replaced */
};

static bool begins(struct ep_str data, const char *with)
{
    return with && ep_str_starts(data, ep_str(with));
}

static enum ep_event_verdict tell(void *user, const struct ep_event *e, struct ep_str *replacement)
{
    struct told *t = user;

    t->count++;
    t->n += (size_t)snprintf(t->text + t->n, sizeof t->text - t->n, "%.*s|%.*s|%s%.*s;", EP_STR_ARG(e->name),
                             EP_STR_ARG(e->data), e->has_id ? "#" : "", EP_STR_ARG(e->id));
    assert_true(t->n < sizeof t->text);
    if (begins(e->data, t->drop))
        return EP_EVENT_DROP;
    if (begins(e->data, t->stop))
        return EP_EVENT_STOP;
    if (!begins(e->data, t->replace))
        return EP_EVENT_PASS;
    if (t->insert_into)
        ep_events_insert(t->insert_into, EP_STR("note"), EP_STR("in front"));
    *replacement = ep_str(t->with);
    return t->with ? EP_EVENT_REPLACE : EP_EVENT_PASS;
}

struct play {
    struct ep_slab_pool pool;
    struct ep_events e;
    struct ep_body b, out;
};

static void play_init(struct play *p, size_t max)
{
    ep_slab_pool_init(&p->pool, 8);
    ep_events_init(&p->e, max);
    ep_body_init(&p->b);
    ep_body_init(&p->out);
}

static void play_fini(struct play *p)
{
    ep_events_fini(&p->e);
    ep_body_fini(&p->b);
    ep_body_fini(&p->out);
    assert_int_equal(p->pool.n_live, 0);
    ep_slab_pool_fini(&p->pool);
}

/* Each piece is a slab of its own size, so that a read behind it is seen. */
static enum ep_events_result feed(struct play *p, const char *text, size_t n, bool end, struct told *t)
{
    struct ep_slab *s = ep_slab_new_sized(&p->pool, EP_SLAB_BYTES + n);
    enum ep_events_result r;

    memcpy(s->data + s->size - n, text, n);
    ep_body_push(&p->b, (struct ep_slice){s, s->data + s->size - n, n}, &p->pool);
    r = ep_events_pass(&p->e, &p->b, end, &p->pool, tell, t);
    ep_body_move(&p->out, &p->b, p->b.bytes, &p->pool);
    return r;
}

static void assert_out(struct play *p, struct ep_str expected)
{
    struct ep_chunk_pool chunks;
    struct ep_arena arena;
    struct ep_str text;

    ep_chunk_pool_init(&chunks, 4);
    ep_arena_init(&arena, &chunks);
    text = ep_body_flatten(&p->out, &arena);
    assert_int_equal(text.n, expected.n);
    assert_memory_equal(text.p, expected.p, expected.n);
    ep_arena_fini(&arena);
    ep_chunk_pool_fini(&chunks);
}

static const struct {
    const char *text, *events;
} table[] = {
    {"data: a\n\n", "|a|;"},
    {"data: a\r\n\r\n", "|a|;"},
    {"data: a\r\r", "|a|;"},
    {"data: a\r\n\ndata:b\n\r\ndata:c\r\n\r\n", "|a|;|b|;|c|;"},
    {"\xef\xbb\xbf" "data: bom\n\n", "|bom|;"},
    {"data: a\n\n\xef\xbb\xbf" "data: only in front\n\n", "|a|;"},
    {"event: x\nid: 7\ndata: {\"a\":1}\n\n", "x|{\"a\":1}|#7;"},
    {"data: a\ndata\ndata:  b\n\n", "|a\n\n b|;"},
    {"data\n\n", "||;"},
    {"data:\n\ndata: \n\n", "||;||;"},
    {": keep-alive\n\n: more\n\ndata: a\n: in the middle\n\n", "|a|;"},
    {"event: lonely\n\nid: 3\n\nretry: 5\n\ndata: a\n\n", "|a|;"},
    {"datax: no\nDATA: no\n data: no\ndata : no\ndata: yes\n\n", "|yes|;"},
    {"event: a\nevent: b\nid: 1\nid\ndata: x\n\n", "b|x|#;"},
    {"\n\n\r\r\n\ndata: a\n\n\n\n", "|a|;"},
    {"data: no blank line", "|no blank line|;"},
    {"data: one line end\n", "|one line end|;"},
    {"data: a\r", "|a|;"},
    {"", ""},
    {"\n", ""},
};

static void test_the_same_events_wherever_it_is_cut(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < EP_COUNT(table); i++) {
        struct ep_str text = ep_str(table[i].text);
        for (size_t cut = 0; cut <= text.n; cut++) {
            for (size_t second = cut; second <= text.n; second++) {
                struct told t = {0};
                struct play p;
                play_init(&p, 1024);
                assert_int_equal(feed(&p, text.p, cut, false, &t), EP_EVENTS_GOOD);
                assert_int_equal(feed(&p, text.p + cut, second - cut, false, &t), EP_EVENTS_GOOD);
                assert_int_equal(feed(&p, text.p + second, text.n - second, true, &t), EP_EVENTS_GOOD);
                assert_string_equal(t.text, table[i].events);
                assert_out(&p, text);
                assert_int_equal(ep_events_held(&p.e), 0);
                play_fini(&p);
            }
        }
    }
}

static void test_single_bytes(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < EP_COUNT(table); i++) {
        struct ep_str text = ep_str(table[i].text);
        struct told t = {0};
        struct play p;
        play_init(&p, 1024);
        for (size_t k = 0; k < text.n; k++)
            assert_int_equal(feed(&p, text.p + k, 1, k + 1 == text.n, &t), EP_EVENTS_GOOD);
        assert_string_equal(t.text, table[i].events);
        assert_out(&p, text);
        play_fini(&p);
    }
}

static void test_whole_events_alone_leave(void **unused)
{
    struct told t = {0};
    struct play p;

    (void)unused;
    play_init(&p, 1024);
    feed(&p, "data: a\n\ndata: b", 16, false, &t);
    assert_out(&p, EP_STR("data: a\n\n"));
    assert_int_equal(ep_events_held(&p.e), 7);
    feed(&p, "c\n", 2, false, &t);
    assert_int_equal(t.count, 1);
    feed(&p, "\nda", 3, false, &t);
    assert_out(&p, EP_STR("data: a\n\ndata: bc\n\n"));
    assert_int_equal(ep_events_held(&p.e), 2);
    play_fini(&p);
}

static void test_what_passes_is_not_copied(void **unused)
{
    const char text[] = "data: a\n\ndata: b\n\n";
    struct told t = {0};
    struct ep_slab *s;
    struct play p;

    (void)unused;
    play_init(&p, 1024);
    s = ep_slab_new(&p.pool);
    memcpy(s->data, text, sizeof text - 1);
    ep_body_push(&p.b, (struct ep_slice){s, s->data, sizeof text - 1}, &p.pool);
    assert_int_equal(ep_events_pass(&p.e, &p.b, false, &p.pool, tell, &t), EP_EVENTS_GOOD);
    assert_int_equal(p.b.count, 1);
    assert_ptr_equal(ep_body_front(&p.b)->p, s->data);
    assert_null(p.e.text[0]);
    play_fini(&p);
}

/* X(text, changes, out) */
static const struct {
    const char *text;
    struct told asked;
    const char *out;
} changes[] = {
    {"data: a\n\ndata: b\n\ndata: c\n\n", {.drop = "b"}, "data: a\n\ndata: c\n\n"},
    {"data: a\r\n\r\ndata: b\r\n\r\ndata: c\r\n\r\n", {.drop = "b"}, "data: a\r\n\r\ndata: c\r\n\r\n"},
    {"data: a\n\nid: 4\nevent: x\n: note\ndata: b\ndata: bb\nretry: 3\n\ndata: c\n\n",
     {.replace = "b", .with = "new"},
     "data: a\n\nid: 4\nevent: x\n: note\ndata: new\nretry: 3\n\ndata: c\n\n"},
    {"data: b\r\n\r\ndata: c\r\n\r\n", {.replace = "b", .with = "1\n2"}, "data: 1\ndata: 2\n\ndata: c\r\n\r\n"},
    {"data: b\n\n", {.replace = "b", .with = ""}, "data: \n\n"},
    {"data: a\n\ndata: b\n\ndata: c\n\n", {.stop = "b"}, "data: a\n\n"},
    {"data: b", {.drop = "b"}, ""},
    {"data: b", {.replace = "b", .with = "c"}, "data: c\n\n"},
};

static void test_events_are_dropped_replaced_and_stopped(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < EP_COUNT(changes); i++) {
        struct ep_str text = ep_str(changes[i].text);
        for (size_t cut = 0; cut <= text.n; cut++) {
            struct told t = changes[i].asked;
            enum ep_events_result expected = t.stop ? EP_EVENTS_STOPPED : EP_EVENTS_GOOD;
            struct play p;
            play_init(&p, 1024);
            feed(&p, text.p, cut, false, &t);
            assert_int_equal(feed(&p, text.p + cut, text.n - cut, true, &t), expected);
            assert_out(&p, ep_str(changes[i].out));
            play_fini(&p);
        }
    }
}

static void test_an_event_is_put_in_front(void **unused)
{
    const char text[] = "data: a\n\ndata: b\n\ndata: c\n\n";

    (void)unused;
    for (size_t cut = 0; cut < sizeof text; cut++) {
        for (int passes = 0; passes < 2; passes++) {
            struct told t = {.replace = "b", .with = passes ? NULL : "new"};
            struct play p;
            play_init(&p, 1024);
            t.insert_into = &p.e;
            feed(&p, text, cut, false, &t);
            feed(&p, text + cut, sizeof text - 1 - cut, true, &t);
            assert_int_equal(t.count, 3);
            assert_out(&p, passes ? EP_STR("data: a\n\nevent: note\ndata: in front\n\ndata: b\n\ndata: c\n\n")
                                  : EP_STR("data: a\n\nevent: note\ndata: in front\n\ndata: new\n\ndata: c\n\n"));
            play_fini(&p);
        }
    }
}

static void test_an_event_that_is_too_long(void **unused)
{
    const char text[] = "data: a\n\ndata: 0123456789\n\n";

    (void)unused;
    for (size_t cut = 0; cut < sizeof text; cut++) {
        struct told t = {0};
        struct play p;
        enum ep_events_result r;
        play_init(&p, 16);
        r = feed(&p, text, cut, false, &t);
        if (r == EP_EVENTS_GOOD)
            r = feed(&p, text + cut, sizeof text - 1 - cut, false, &t);
        assert_int_equal(r, EP_EVENTS_TOO_LARGE);
        assert_string_equal(t.text, "|a|;");
        assert_out(&p, EP_STR("data: a\n\n"));
        ep_events_release(&p.e, &p.out, &p.pool);
        assert_int_equal(ep_events_held(&p.e), 0);
        play_fini(&p);
    }
}

static void test_release_gives_back_what_was_held(void **unused)
{
    struct told t = {0};
    struct play p;

    (void)unused;
    play_init(&p, 1024);
    feed(&p, "data: a\n\ndata: b", 16, false, &t);
    ep_events_release(&p.e, &p.out, &p.pool);
    assert_out(&p, EP_STR("data: a\n\ndata: b"));
    play_fini(&p);
}

static void test_a_long_event_in_single_bytes_is_one_event(void **unused)
{
    struct told t = {0};
    struct play p;

    (void)unused;
    play_init(&p, EP_EVENT_BYTES_MAX);
    feed(&p, ": ", 2, false, &t);
    for (int i = 0; i < 40000; i++)
        feed(&p, "x", 1, false, &t);
    feed(&p, "\ndata: end\n", 11, false, &t);
    assert_int_equal(p.out.bytes, 0);
    feed(&p, "\n", 1, false, &t);
    assert_string_equal(t.text, "|end|;");
    assert_int_equal(p.out.bytes, 40014);
    play_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_events_wherever_it_is_cut),
        cmocka_unit_test(test_single_bytes),
        cmocka_unit_test(test_whole_events_alone_leave),
        cmocka_unit_test(test_what_passes_is_not_copied),
        cmocka_unit_test(test_events_are_dropped_replaced_and_stopped),
        cmocka_unit_test(test_an_event_is_put_in_front),
        cmocka_unit_test(test_an_event_that_is_too_long),
        cmocka_unit_test(test_release_gives_back_what_was_held),
        cmocka_unit_test(test_a_long_event_in_single_bytes_is_one_event),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
