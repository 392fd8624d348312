/* link: ep_filters */
/* Server-sent events: in whatever pieces the bytes come, the splitter shows the events that the specification's own reading
 * of the whole gives; when all pass the bytes are the same; dropped and replaced ones are dropped and replaced for a reader
 * of what comes out. The first byte is the size of a piece, the second chooses the verdicts. */
#include "events_model.h"

#define CHECK(x) ((x) ? (void)0 : abort())
#define WITH     "{\"other\":1}"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct run {
    struct model shown, expected;
    unsigned choice;
    bool stopped;
};

static enum ep_event_verdict on_event(void *user, const struct ep_event *e, struct ep_str *replacement)
{
    struct run *r = user;
    unsigned which = r->choice ? (unsigned)(r->shown.n * 7 + r->choice) % 8 : 0;

    CHECK(!r->stopped);
    model_add(&r->shown, e->name, e->data, e->id);
    if (which == 3)
        return EP_EVENT_DROP;
    if (which == 5) {
        *replacement = EP_STR(WITH);
        model_add(&r->expected, e->name, *replacement, e->id);
        return EP_EVENT_REPLACE;
    }
    if (which == 6 && r->shown.n > 20) {
        r->stopped = true;
        return EP_EVENT_STOP;
    }
    model_add(&r->expected, e->name, e->data, e->id);
    return EP_EVENT_PASS;
}

static bool same(const struct model *a, const struct model *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!ep_str_eq(ep_str_n(a->v[i].name, a->v[i].name_n), ep_str_n(b->v[i].name, b->v[i].name_n)) ||
            !ep_str_eq(ep_str_n(a->v[i].data, a->v[i].data_n), ep_str_n(b->v[i].data, b->v[i].data_n)) ||
            !ep_str_eq(ep_str_n(a->v[i].id, a->v[i].id_n), ep_str_n(b->v[i].id, b->v[i].id_n)))
            return false;
    return true;
}

static void pass(struct run *r, const uint8_t *data, size_t n, size_t piece, struct ep_slab_pool *pool, struct ep_body *out)
{
    struct ep_events e;
    struct ep_body b;

    ep_events_init(&e, EP_EVENT_BYTES_MAX);
    ep_body_init(&b);
    for (size_t at = 0; at < n; at += piece) {
        size_t some = EP_MIN(piece, n - at);
        struct ep_slab *own = ep_slab_new_sized(pool, some);
        memcpy(own->data, data + at, some);
        ep_body_push(&b, (struct ep_slice){own, own->data, some}, pool);
        CHECK(ep_events_pass(&e, &b, at + some == n, pool, on_event, r) ==
              (r->stopped ? EP_EVENTS_STOPPED : EP_EVENTS_GOOD));
        ep_body_move(out, &b, b.bytes, pool);
    }
    CHECK(ep_events_held(&e) == 0);
    ep_events_fini(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct ep_slab_pool pool;
    struct ep_chunk_pool chunks;
    struct ep_arena arena;
    struct ep_body out;
    struct model model = {0}, read = {0};
    struct run r = {0};
    struct ep_str text;

    if (n < 3 || n > (64u << 10))
        return 0;
    ep_slab_pool_init(&pool, 16);
    ep_chunk_pool_init(&chunks, 16);
    ep_arena_init(&arena, &chunks);
    ep_body_init(&out);
    r.choice = data[1] & 7;
    model_read(&model, (const char *)data + 2, n - 2);
    pass(&r, data + 2, n - 2, data[0] ? data[0] : n, &pool, &out);
    text = ep_body_flatten(&out, &arena);
    model_read(&read, text.p, text.n);
    CHECK(r.stopped || same(&r.shown, &model));
    CHECK(same(&read, &r.expected));
    CHECK(r.choice || ep_str_eq(text, ep_str_n(data + 2, n - 2)));
    model_free(&model);
    model_free(&read);
    model_free(&r.shown);
    model_free(&r.expected);
    ep_body_fini(&out);
    ep_arena_fini(&arena);
    CHECK(pool.n_live == 0);
    ep_slab_pool_fini(&pool);
    ep_chunk_pool_fini(&chunks);
    return 0;
}
