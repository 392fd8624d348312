/* link: ep_config */
/* Policies on streams of events. The bytes write texts, side by side and in three protocols' events, cut anywhere: texts into
 * deltas, the stream into pieces. What passes must be what the same rules make of each whole text, and a stream is refused
 * exactly when the policy would refuse one of its whole texts; what passed before is then the beginning of that. Everything
 * that leaves is JSON, nothing of a text comes behind its end, and memory doesn't grow with the stream. A second way takes the
 * bytes as a stream of whatever they are: nothing breaks, and a shadow changes nothing. */
#include <sanitizer/allocator_interface.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/agent.h"
#include "events_model.h"
#include "lua/redact.h"
#include "lua/watch.h"

#define CHECK(x) ((x) ? (void)0 : abort())

#define TEXTS     4       /* that go on side by side */
#define TEXT_MAX  4096u   /* bytes of one */
#define GAP       96u     /* in so many bytes there is one that belongs to nothing: no hit is longer than the tail */
#define GROWS_MAX (512u << 10) /* bytes, by whatever stream */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const fragments[] = {
    "hello ", "number ", "123-45-6789", "12", "3", "-", " ", "a.b@c.example", "sk-proj-abcdefghijklmnopqrstuvwx", "4111 1111 1111 1111",
    "DE89 3704 0044 0532 0130 00", "+44 20 7946 0958", "code-4711", "code-", "BANNED", "BAN", "NED", "\xc3\xbc", "\"", "\\", "\n",
    "\x01", "@", ".", "AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghijk", "+",
    "\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----", "-----", "x", "7", "\xf0\x9f\x98\x80",
};

/* A text that is told by and by: what it says since it began, then what has ended. */
struct text {
    char said[TEXT_MAX], past[TEXT_MAX * 2];
    size_t n, told, gap, past_n;
    uint64_t channel; /* 0: nothing was told yet */
};

struct out {
    char p[TEXT_MAX * 4];
    size_t n;
};

struct input {
    const uint8_t *p, *end;
};

static struct {
    struct ep_worker worker;
    struct ep_view view;
    struct ep_chain chain;
    struct ep_listener_config listener;
    struct ep_policies_config config;
    struct ep_policy_set *set;
    struct ep_scanner *scanner;
    struct ep_stream s;
    struct ep_arena arena; /* of the one input */
    /* the play */
    unsigned protocol;
    struct text texts[TEXTS];
    char *stream, *passed; /* what goes in, what came out */
    size_t n, cap, passed_n, passed_cap;
} play;

static const struct {
    const char *protocol, *method, *delta, *end, *close;
} protocols[] = {
    {"openai", "chat/completions", "{\"id\":\"c\",\"choices\":[{\"index\":%u,\"delta\":{\"content\":\"",
     "{\"id\":\"c\",\"choices\":[{\"index\":%u,\"delta\":{},\"finish_reason\":\"stop\"}]}", "\"},\"finish_reason\":null}]}"},
    {"openai", "responses", "{\"type\":\"response.output_text.delta\",\"output_index\":%u,\"delta\":\"",
     "{\"type\":\"response.output_item.done\",\"output_index\":%u}", "\"}"},
    {"anthropic", "messages", "{\"type\":\"content_block_delta\",\"index\":%u,\"delta\":{\"type\":\"text_delta\",\"text\":\"",
     "{\"type\":\"content_block_stop\",\"index\":%u}", "\"}}"},
};

static unsigned next(struct input *in)
{
    return in->p < in->end ? *in->p++ : 0;
}

static void start(void)
{
    struct ep_error err = {""};

    ep_log_set_level(EP_LOG_OFF);
    play.config = (struct ep_policies_config){.directory = EP_STR_INIT(EPHOR_FUZZ_DIR "/watch"),
                                              .budget = {.time_ns = 60 * EP_S}};
    play.listener = (struct ep_listener_config){.name = EP_STR_INIT("in"), .max_body_bytes = 1u << 20};
    play.chain = (struct ep_chain){.config = &play.listener, .view = &play.view};
    play.view.worker = &play.worker;
    ep_slab_pool_init(&play.worker.slabs, 16);
    ep_chunk_pool_init(&play.worker.chunks, 16);
    play.set = ep_policy_set_ref(&play.worker, NULL, &play.config, &err);
    play.scanner = ep_scanner_new(1);
    if (!play.set || play.set->n != 2) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
}

/* --- what is told --- */

static void put_to(char **to, size_t *at, size_t *cap, const void *p, size_t n)
{
    while (*cap - *at < n) {
        *cap = *cap ? 2 * *cap : 1u << 20;
        *to = realloc(*to, *cap);
        CHECK(*to);
    }
    if (n)
        memcpy(*to + *at, p, n);
    *at += n;
}

static void put(const char *p, size_t n)
{
    put_to(&play.stream, &play.n, &play.cap, p, n);
}

static void put_text(const char *text)
{
    put(text, strlen(text));
}

static void put_string(const char *p, size_t n, bool escaped)
{
    char code[8];

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\' && !escaped) {
            put(p + i, 1);
        } else if (c >= 0x80) {
            put(p + i, 1);
        } else {
            snprintf(code, sizeof code, "\\u%04x", c);
            put_text(code);
        }
    }
}

static void say(struct text *t, const char *p)
{
    size_t n = strlen(p);

    if (t->n + n + 2 > TEXT_MAX || t->past_n + t->n + n + 2 > TEXT_MAX)
        return;
    if (t->gap + n > GAP) {
        memcpy(t->said + t->n, ";\n", 2);
        t->n += 2;
        t->gap = 0;
    }
    memcpy(t->said + t->n, p, n);
    t->n += n;
    t->gap += n;
}

/* So many bytes more of the text, in an event. */
static void tell(struct text *t, size_t n, bool escaped)
{
    char head[160];

    n = EP_MIN(n, t->n - t->told);
    while (t->told + n < t->n && ((unsigned char)t->said[t->told + n] & 0xc0) == 0x80)
        n++;
    snprintf(head, sizeof head, protocols[play.protocol].delta, (unsigned)(t - play.texts));
    put_text(n % 7 == 3 ? "data:\ndata: " : "data: "); /* data may begin with white space */
    put_text(head);
    put_string(t->said + t->told, n, escaped);
    put_text(protocols[play.protocol].close);
    put_text("\n\n");
    t->told += n;
}

static void redact(struct ep_str text, const struct ep_redaction *rules, struct ep_str *out)
{
    struct ep_redact_job j = {.arena = &play.arena, .rules = rules, .text = text, .as = EP_REDACT_PLAIN, .bytes_max = 1u << 20};

    CHECK(ep_redact(play.set->lua, play.set->lua->thread, &j, &play.set->budget) && !j.refused);
    lua_settop(play.set->lua->thread, 0);
    *out = j.result;
}

/* --- the judgement of whole texts --- */

struct stage {
    const struct ep_redaction *rules; /* NULL: it judges */
};

struct rules {
    struct ep_redaction v[9];
    struct stage stages[3];
    unsigned n;
    bool refuses; /* one of the texts */
};

static void make_rules(struct rules *r, unsigned which, unsigned order)
{
    static const unsigned orders[][3] = {{0, 1, 2}, {1, 0, 2}, {1, 2, 2}, {1, 1, 2}, {0, 2, 2}, {1, 1, 0}};
    const struct ep_redaction *first = NULL;

    for (unsigned i = 0; i < EP_COUNT(r->v); i++) {
        if (i < EP_SENSITIVE_KINDS)
            r->v[i] = (struct ep_redaction){.kind = (enum ep_sensitive)i, .with = ep_str(i & 1 ? "[gone]" : "")};
        else
            r->v[i] = (struct ep_redaction){.kind = EP_SENSITIVE_KINDS, .pattern = EP_STR("code%-%d%d%d%d"), .with = EP_STR("N")};
        if (which & 1u << i) {
            r->v[i].next = (struct ep_redaction *)(uintptr_t)first;
            first = &r->v[i];
        }
    }
    for (unsigned i = 0; i < 3 && orders[order][i] < 2; i++)
        if (orders[order][i] == 0 || first)
            r->stages[r->n++].rules = orders[order][i] ? first : NULL;
}

static struct ep_str judged(struct rules *r, struct ep_str text)
{
    for (unsigned i = 0; i < r->n; i++) {
        if (r->stages[i].rules)
            redact(text, r->stages[i].rules, &text);
        else
            r->refuses |= ep_str_search(text, EP_STR("BANNED")) >= 0;
    }
    return text;
}

/* The text ends: what comes in its place later is another. */
static void ends(struct rules *r, struct text *t)
{
    struct ep_str s = judged(r, ep_str_n(t->said, t->n));

    CHECK(t->past_n + s.n + 1 <= sizeof t->past);
    if (s.n)
        memcpy(t->past + t->past_n, s.p, s.n);
    t->past_n += s.n;
    t->past[t->past_n++] = '\0';
    t->n = t->told = t->gap = 0;
}

/* --- the stream --- */

static void write_stream(struct input *in, struct rules *r)
{
    char end[160];

    while (in->p < in->end) {
        unsigned op = next(in), more = next(in);
        struct text *t = &play.texts[op >> 6];
        if (play.n > (256u << 10))
            break;
        switch (op & 7) {
        case 0:
        case 1:
        case 2:
            say(t, fragments[more % EP_COUNT(fragments)]);
            break;
        case 3:
        case 4:
        case 5:
            tell(t, more & 63, more & 64);
            break;
        case 6:
            if (more & 1) {
                put_text(more & 2 ? ": nothing\n\n" : "data: {\"type\":\"ping\"}\n\n");
                break;
            }
            tell(t, TEXT_MAX, false);
            ends(r, t);
            snprintf(end, sizeof end, protocols[play.protocol].end, op >> 6);
            put_text("data: ");
            put_text(end);
            put_text("\n\n");
            break;
        default:
            for (unsigned i = 0; i < more; i++) {
                say(t, fragments[i % EP_COUNT(fragments)]);
                tell(t, 1 + (more & 7), false);
            }
        }
    }
    for (unsigned i = 0; i < TEXTS; i++) {
        tell(&play.texts[i], TEXT_MAX, false);
        ends(r, &play.texts[i]);
    }
}

static enum ep_policy_watched pass(struct ep_policy_watch *w, const char *p, size_t n, size_t piece)
{
    struct ep_slab_pool *slabs = &play.worker.slabs;
    enum ep_policy_watched watched = EP_POLICY_WATCH_ON;
    struct ep_policy_verdict v;
    struct ep_policy *who;
    struct ep_body b;

    ep_body_init(&b);
    for (size_t at = 0; at < n && watched == EP_POLICY_WATCH_ON; at += piece) {
        size_t some = EP_MIN(piece, n - at);
        struct ep_slab *own = ep_slab_new_sized(slabs, some);
        memcpy(own->data, p + at, some);
        ep_body_push(&b, (struct ep_slice){own, own->data, some}, slabs);
        watched = ep_policy_watch_pass(w, &b, at + some == n, slabs, &who, &v);
        for (uint32_t i = 0; i < b.count; i++)
            put_to(&play.passed, &play.passed_n, &play.passed_cap, ep_body_at(&b, i)->p, ep_body_at(&b, i)->n);
        ep_body_fini(&b);
    }
    CHECK(watched == EP_POLICY_WATCH_ON || v.refuse);
    return watched;
}

/* --- what came out --- */

static void hear(struct ep_event_texts *t, struct out out[])
{
    for (unsigned i = 0; i < t->n; i++) {
        struct ep_redact_job j = {.arena = &play.arena};
        struct ep_str inner, text;
        CHECK(t->v[i].index < TEXTS && t->v[i].raw.n >= 2);
        inner = ep_str_n(t->v[i].raw.p + 1, t->v[i].raw.n - 2);
        CHECK(ep_redact_unescape(&j, inner, &text));
        struct out *o = &out[t->v[i].index];
        CHECK(o->n + text.n < sizeof o->p);
        if (text.n)
            memcpy(o->p + o->n, text.p, text.n);
        o->n += text.n;
    }
    for (unsigned i = 0; i < t->n_ends; i++) {
        CHECK(t->ends[i] >= 1 && t->ends[i] <= TEXTS);
        struct out *o = &out[t->ends[i] - 1];
        CHECK(o->n + 1 < sizeof o->p);
        o->p[o->n++] = '\0';
    }
}

static void *from_arena(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

static void read_back(struct ep_str bytes, struct out out[])
{
    struct model model = {0};
    struct ep_event_texts t;
    struct ep_scan scan;

    model_read(&model, bytes.p, bytes.n);
    for (size_t i = 0; i < model.n; i++) {
        struct ep_event e = {.data = ep_str_n(model.v[i].data, model.v[i].data_n)};
        char *padded = ep_arena_alloc(&play.arena, e.data.n + EP_SCAN_PADDING);
        memcpy(padded, e.data.p, e.data.n);
        memset(padded + e.data.n, ' ', EP_SCAN_PADDING);
        CHECK(ep_scan_json(play.scanner, padded, e.data.n, from_arena, &play.arena, &scan) != EP_SCAN_NOT_JSON);
        ep_event_texts(play.s.call.protocol, play.s.call.method, &e, &t);
        CHECK(!t.unsure);
        hear(&t, out);
    }
    model_free(&model);
}

static void show(const char *what, const char *p, size_t n)
{
    fprintf(stderr, "%s:\n", what);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, p[i] ? "%c" : "<end>", p[i]);
    fputc('\n', stderr);
}

static void compare(const struct rules *r, const struct out out[], bool refused)
{
    for (unsigned i = 0; i < TEXTS; i++) {
        const struct text *t = &play.texts[i];
        size_t n = out[i].n;
        bool begins = n <= t->past_n && memcmp(out[i].p, t->past, n) == 0;
        if (begins && refused == r->refuses && (refused || n + 1 == t->past_n)) /* the last end was not told */
            continue;
        show("in", play.stream, play.n);
        show("passed", out[i].p, n);
        show("should", t->past, t->past_n);
        fprintf(stderr, "refused: %d, should: %d\n", refused, r->refuses);
        abort();
    }
}

static void begin(struct ep_policy_watch **w, const struct rules *r)
{
    play.s = (struct ep_stream){.worker = &play.worker, .chain = &play.chain, .view = &play.view};
    ep_arena_init(&play.s.arena, &play.worker.chunks);
    ep_headers_init(&play.s.request.headers, &play.s.arena);
    ep_headers_init(&play.s.response.headers, &play.s.arena);
    play.s.call.protocol = ep_str(protocols[play.protocol].protocol);
    play.s.call.method = ep_str(protocols[play.protocol].method);
    *w = ep_policy_watch_new(play.set, &play.s, NULL);
    for (unsigned i = 0; i < r->n; i++)
        ep_policy_watch_add(*w, play.set->v[r->stages[i].rules ? 1 : 0], r->stages[i].rules);
}

static void end(struct ep_policy_watch *w)
{
    ep_policy_watch_free(w);
    ep_headers_fini(&play.s.request.headers);
    ep_headers_fini(&play.s.response.headers);
    ep_arena_fini(&play.s.arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct out out[TEXTS];
    struct input in = {data, data + n};
    struct rules rules = {0};
    struct ep_policy_watch *w;
    struct ep_str bytes;
    size_t piece, before;
    unsigned way, which;
    bool refused;

    if (!play.set)
        start();
    if (n < 6 || n > 4096)
        return 0;
    way = next(&in);
    play.protocol = way % 3;
    piece = 1 + next(&in) * 7u;
    which = next(&in);
    which |= (next(&in) & 1u) << 8;
    make_rules(&rules, which, next(&in) % 6);
    ep_arena_init(&play.arena, &play.worker.chunks);
    memset(play.texts, 0, sizeof play.texts);
    memset(out, 0, sizeof out);
    play.n = 0;
    play.set->mode = way & 64 ? EP_MODE_SHADOW : EP_MODE_ENFORCE;
    if (way & 128)
        put((const char *)in.p, (size_t)(in.end - in.p));
    else
        write_stream(&in, &rules);
    begin(&w, &rules);
    play.passed_n = 0;
    before = __sanitizer_get_current_allocated_bytes() - play.passed_cap;
    refused = pass(w, play.stream, play.n, piece) == EP_POLICY_WATCH_REFUSED;
    bytes = ep_str_n(play.passed, play.passed_n);
    CHECK(__sanitizer_get_current_allocated_bytes() - play.passed_cap < before + GROWS_MAX);
    if (way & 64)
        CHECK(!refused && ep_str_eq(bytes, ep_str_n(play.stream, play.n)));
    else if (!(way & 128)) {
        read_back(bytes, out);
        compare(&rules, out, refused);
    }
    end(w);
    ep_arena_fini(&play.arena);
    CHECK(play.worker.slabs.n_live == 0);
    return 0;
}
