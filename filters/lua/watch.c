/* Policies on a stream of events. watch.h has the picture. */
#include "lua/watch.h"

#include <stdlib.h>

#include "filter/chain.h"
#include "lua/object.h"
#include "lua/redact.h"

#define CHANNELS_MAX 64u
#define HELD_MAX     16384u /* of a hit that has begun */

struct text {
    char *p;
    size_t n, cap;
};

/* A text that goes on from event to event: `seen` bytes of `buffer` have left, the rest waits. */
struct channel {
    uint64_t id, group;
    struct text buffer;
    size_t seen;
    struct text tool;
    struct text before, after, name; /* of the event that would say what waits, when it waits */
};

struct stage {
    struct stage *next;
    struct ep_policy *policy;
    const struct ep_redaction *rules;
    struct channel *channels;
    unsigned n;
    unsigned audited; /* bits of what has been redacted and is on record */
    bool shadow;
    bool judges; /* its `event` is still asked */
    bool blind;  /* said once */
};

struct ep_policy_watch {
    struct ep_policy_set *set;
    struct ep_stream *s;
    struct ep_policy_hearing *hearing;
    struct stage *stages, **last;
    struct ep_events events;
    struct ep_arena arena;    /* of the piece that passes now */
    struct ep_str replacement; /* for the event that passes now */
    bool inserting;            /* … which is one of ours */
    bool stopped;
    struct ep_policy *who;
    struct ep_policy_verdict verdict;
};

/* --- life --- */

struct ep_policy_watch *ep_policy_watch_new(struct ep_policy_set *set, struct ep_stream *s, struct ep_policy_hearing *hearing)
{
    struct ep_policy_watch *w = EP_ARENA_NEW(&s->arena, struct ep_policy_watch);

    w->set = set;
    w->s = s;
    w->hearing = hearing;
    w->last = &w->stages;
    ep_events_init(&w->events, s->chain && s->chain->config ? s->chain->config->max_body_bytes : EP_EVENT_BYTES_MAX);
    return w;
}

void ep_policy_watch_add(struct ep_policy_watch *w, struct ep_policy *p, const struct ep_redaction *rules)
{
    struct stage *x = EP_ARENA_NEW(ep_stream_brief(w->s), struct stage);

    x->policy = p;
    x->rules = rules;
    x->shadow = ep_policy_shadow(w->set, p, w->s);
    x->judges = p->event_ref != LUA_NOREF;
    *w->last = x;
    w->last = &x->next;
}

static void forget(struct channel *c)
{
    struct text *const texts[] = {&c->buffer, &c->tool, &c->before, &c->after, &c->name};

    for (size_t i = 0; i < EP_COUNT(texts); i++)
        free(texts[i]->p);
}

void ep_policy_watch_free(struct ep_policy_watch *w)
{
    if (!w)
        return;
    for (struct stage *x = w->stages; x; x = x->next) {
        for (unsigned i = 0; i < x->n; i++)
            forget(&x->channels[i]);
        free(x->channels);
    }
    ep_events_fini(&w->events);
}

/* --- texts --- */

static void append(struct text *t, struct ep_str s)
{
    if (s.n > t->cap - t->n) {
        t->cap = EP_MAX(2 * t->cap, t->n + s.n + 64);
        t->p = ep_realloc(t->p, t->cap);
    }
    if (s.n)
        memcpy(t->p + t->n, s.p, s.n);
    t->n += s.n;
}

static void set_text(struct text *t, struct ep_str s)
{
    t->n = 0;
    append(t, s);
}

static struct ep_str text_str(const struct text *t)
{
    return ep_str_n(t->p, t->n);
}

static struct channel *find(struct stage *x, uint64_t id)
{
    for (unsigned i = 0; i < x->n; i++)
        if (x->channels[i].id == id)
            return &x->channels[i];
    return NULL;
}

/* The channel of the text; a new one takes the place of one whose text is over. NULL: there are too many. */
static struct channel *channel_of(struct stage *x, const struct ep_event_text *t)
{
    struct channel *c = find(x, t->channel);

    if (c)
        return c;
    if (x->n == CHANNELS_MAX)
        return NULL;
    if (!x->channels)
        x->channels = ep_calloc(CHANNELS_MAX, sizeof *x->channels);
    c = &x->channels[x->n++];
    *c = (struct channel){.id = t->channel, .group = t->group};
    return c;
}

/* What stands between the quotes, escapes undone, in the arena of the piece. False: it is no JSON. */
static bool decode(struct ep_policy_watch *w, const struct ep_event_text *t, struct ep_str *out)
{
    struct ep_redact_job j = {.arena = &w->arena};
    struct ep_str inner = t->plain || !t->raw.n ? t->raw : ep_str_n(t->raw.p + 1, t->raw.n - 2);

    if (t->plain || !memchr(inner.p ? inner.p : "", '\\', inner.n)) {
        *out = inner;
        return true;
    }
    return ep_redact_unescape(&j, inner, out);
}

/* --- verdicts --- */

/* True: the stream goes on. */
static bool go_on(struct ep_policy_watch *w, struct stage *x, const struct ep_policy_verdict *v)
{
    ep_policy_heard(w->hearing, x->policy, EP_POLICY_EVENT, 0, v);
    if (!v->refuse)
        return true;
    w->stopped = true;
    w->who = x->policy;
    w->verdict = *v;
    return false;
}

static bool blind(struct ep_policy_watch *w, struct stage *x, enum ep_blind_reason why)
{
    struct ep_policy_verdict v = {.decision = EP_POLICY_ALLOW};

    if (x->blind)
        return true;
    x->blind = true;
    ep_policy_blinded(w->set, x->policy, w->s, why, &v);
    return go_on(w, x, &v);
}

/* Runs the policy's `event` once. */
static bool judge(struct ep_policy_watch *w, struct stage *x, const struct ep_policy_event *e)
{
    struct ep_policy_reply reply = {.event = e, .rules = x->rules};
    struct ep_policy_verdict v;
    uint64_t now = ep_clock_ns();

    ep_policy_judge(w->set, x->policy, w->s, &w->s->call, EP_POLICY_EVENT, &reply, &now, &v);
    if (v.redactions)
        x->rules = v.redactions;
    if (v.decision != EP_POLICY_ALLOW)
        x->judges = false; /* a shadow that said no has said it of the stream */
    return go_on(w, x, &v);
}

/* --- redaction --- */

static bool redact(struct ep_policy_watch *w, struct stage *x, struct ep_redact_job *j, unsigned found[])
{
    lua_State *L = w->set->lua->thread;
    struct ep_policy_verdict v = {.decision = EP_POLICY_ALLOW};

    j->arena = &w->arena;
    j->rules = x->rules;
    j->bytes_max = w->events.event_bytes_max * 2;
    if (!ep_redact(w->set->lua, L, j, &w->set->budget)) {
        ep_policy_failed(w->set, x->policy, w->s, L, &v);
        j->refused = "it failed";
    }
    if (L == w->set->lua->thread)
        lua_settop(L, 0);
    for (int k = 0; k <= EP_SENSITIVE_KINDS; k++)
        found[k] += j->found[k];
    if (v.refuse)
        return go_on(w, x, &v);
    return !j->refused || blind(w, x, EP_BLIND_UNKNOWN);
}

/* What of the channel may go on now, redacted; the rest waits. */
static bool redact_channel(struct ep_policy_watch *w, struct stage *x, struct channel *c, bool last, struct ep_str *out,
                           unsigned found[])
{
    size_t tail_max = w->set->stream_tail, before;
    struct ep_redact_job j = {.text = text_str(&c->buffer),
                              .as = EP_REDACT_PART,
                              .from = c->seen,
                              .tail_max = tail_max,
                              .last = last};

    *out = (struct ep_str){"", 0};
    if (!redact(w, x, &j, found))
        return false;
    if (j.refused) { /* and its `blind` lets it pass */
        j.result = ep_str_n(c->buffer.p + c->seen, c->buffer.n - c->seen);
        j.held = c->buffer.n;
    } else if (c->buffer.n - j.held > HELD_MAX) {
        if (!blind(w, x, EP_BLIND_TOO_LARGE))
            return false;
        j.last = true;
        if (!redact(w, x, &j, found))
            return false;
    }
    *out = j.result;
    c->seen = j.held;
    before = c->seen > tail_max ? c->seen - tail_max : 0;
    if (before) { /* what is too long ago to matter */
        c->buffer.n -= before;
        c->seen -= before;
        memmove(c->buffer.p, c->buffer.p + before, c->buffer.n);
    }
    return true;
}

/* Without redaction nothing waits, and only the end is remembered. */
static void pass_channel(struct ep_policy_watch *w, struct channel *c)
{
    size_t keep = EP_MIN(c->buffer.n, (size_t)w->set->stream_tail);

    if (keep)
        memmove(c->buffer.p, c->buffer.p + c->buffer.n - keep, keep);
    c->buffer.n = c->seen = keep;
}

static enum ep_redact_text kind_of(struct ep_str data)
{
    struct ep_str s = ep_texts_trim(data);

    if (s.n && *s.p == '{')
        return EP_REDACT_JSON;
    return s.n && (*s.p == '[' || *s.p == '"') ? EP_REDACT_MAYBE_JSON : EP_REDACT_PLAIN;
}

/* The rest of the event: what doesn't go on from event to event. */
static bool redact_event(struct ep_policy_watch *w, struct stage *x, struct ep_str *data, const struct ep_redact_given *given,
                         unsigned n_given, unsigned found[])
{
    struct ep_redact_job j = {.text = *data, .as = kind_of(*data), .given = given, .n_given = n_given};

    if (!redact(w, x, &j, found))
        return false;
    if (!j.refused && j.changed && !x->shadow)
        *data = j.result;
    return true;
}

static bool tell(struct ep_policy_watch *w, struct stage *x, const unsigned found[])
{
    struct ep_policy_verdict v = {.code = "audit.unavailable", .refuse = true};

    return ep_policy_redacted(w->s, x->policy, found, x->shadow, "policy.redacted_reply", &x->audited) || go_on(w, x, &v);
}

/* --- through the stages --- */

static bool through(struct ep_policy_watch *w, struct stage *x, const struct ep_event *e);

/* What waits in the channel goes out in an event of its own. */
static bool flush(struct ep_policy_watch *w, struct stage *x, struct channel *c, unsigned found[])
{
    struct ep_event e = {.name = text_str(&c->name)};
    struct ep_redact_given given;
    struct ep_str rest;
    bool inserting = w->inserting, good;
    char *p;

    if (c->seen == c->buffer.n)
        return true;
    if (!redact_channel(w, x, c, true, &rest, found))
        return false;
    if (x->shadow)
        return true;
    p = ep_arena_alloc(&w->arena, c->before.n + 2 + c->after.n);
    memcpy(p, c->before.p, c->before.n); /* an object: neither is empty */
    memcpy(p + c->before.n, "\"\"", 2);
    memcpy(p + c->before.n + 2, c->after.p, c->after.n);
    e.data = ep_str_n(p, c->before.n + 2 + c->after.n);
    given = (struct ep_redact_given){.raw = ep_str_n(p + c->before.n, 2), .text = rest};
    if (!redact_event(w, x, &e.data, &given, 1, found))
        return false;
    w->inserting = true;
    good = through(w, x->next, &e);
    w->inserting = inserting;
    return good;
}

static bool ends(const struct ep_event_texts *t, uint64_t group)
{
    bool over = t->ends_all;

    for (unsigned i = 0; i < t->n_ends && !over; i++)
        over = t->ends[i] == group;
    return over;
}

static bool said_here(const struct ep_event_texts *t, uint64_t channel)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->v[i].channel == channel && t->v[i].raw.n)
            return true;
    return false;
}

static bool flush_ended(struct ep_policy_watch *w, struct stage *x, const struct ep_event_texts *t, unsigned found[])
{
    for (unsigned i = 0; i < x->n; i++)
        if (ends(t, x->channels[i].group) && !said_here(t, x->channels[i].id) && !flush(w, x, &x->channels[i], found))
            return false;
    return true;
}

/* Texts that are over give their channels to others. */
static void drop_ended(struct stage *x, const struct ep_event_texts *t)
{
    for (unsigned i = 0; i < x->n;) {
        if (!ends(t, x->channels[i].group)) {
            i++;
            continue;
        }
        forget(&x->channels[i]);
        x->channels[i] = x->channels[--x->n];
    }
}

static void remember_shell(struct channel *c, const struct ep_event *e, const struct ep_event_text *t)
{
    set_text(&c->before, t->head);
    append(&c->before, ep_str(t->open));
    set_text(&c->after, ep_str(t->close));
    append(&c->after, t->tail);
    set_text(&c->name, e->name);
}

/* One text of the event: judged, and what of it may go on in `given`. */
static bool one_text(struct ep_policy_watch *w, struct stage *x, const struct ep_event *e, const struct ep_event_text *t,
                     struct ep_redact_given *given, unsigned *n_given, unsigned found[])
{
    struct ep_policy_event shown = {.event = e, .text = t};
    struct channel *c = t->channel ? channel_of(x, t) : NULL;
    struct ep_str out;

    if (t->channel && !c)
        return blind(w, x, EP_BLIND_TOO_LARGE);
    if (!decode(w, t, &shown.delta))
        return blind(w, x, EP_BLIND_UNKNOWN);
    shown.said = shown.delta;
    if (c) {
        if (t->tool.n && t->tool.n <= 256)
            set_text(&c->tool, t->tool);
        append(&c->buffer, shown.delta);
        shown.said = text_str(&c->buffer);
        shown.tool = text_str(&c->tool);
    }
    if (x->judges && !judge(w, x, &shown))
        return false;
    if (!c || !t->raw.n)
        return true;
    if (!x->rules) {
        pass_channel(w, c);
        return true;
    }
    if (!redact_channel(w, x, c, t->last, &out, found))
        return false;
    if (c->seen < c->buffer.n)
        remember_shell(c, e, t);
    given[*n_given] = (struct ep_redact_given){.raw = t->raw, .text = out};
    if (x->shadow || ep_str_eq(out, shown.delta))
        given[*n_given].text = (struct ep_str){NULL, 0}; /* it stays as it is */
    ++*n_given;
    return true;
}

static bool through(struct ep_policy_watch *w, struct stage *x, const struct ep_event *e)
{
    struct ep_redact_given given[EP_EVENT_TEXTS_MAX];
    unsigned found[EP_SENSITIVE_KINDS + 1] = {0}, n_given = 0;
    struct ep_policy_event shown = {.event = e};
    struct ep_event_texts t;
    struct ep_event next = *e;

    if (!x) {
        if (w->inserting)
            ep_events_insert(&w->events, e->name, e->data);
        else
            w->replacement = e->data;
        return true;
    }
    ep_event_texts(w->s->call.protocol, w->s->call.method, e, &t);
    if (t.unsure && !blind(w, x, EP_BLIND_UNKNOWN))
        return false;
    for (unsigned i = 0; i < t.n; i++)
        if (!one_text(w, x, e, &t.v[i], given, &n_given, found))
            return false;
    if (x->judges && t.n == 0 && !judge(w, x, &shown))
        return false;
    if (x->rules && (!flush_ended(w, x, &t, found) || !redact_event(w, x, &next.data, given, n_given, found) ||
                     !tell(w, x, found)))
        return false;
    drop_ended(x, &t);
    return through(w, x->next, &next);
}

static enum ep_event_verdict on_event(void *user, const struct ep_event *e, struct ep_str *replacement)
{
    struct ep_policy_watch *w = user;

    w->replacement = e->data;
    if (!through(w, w->stages, e))
        return EP_EVENT_STOP;
    *replacement = w->replacement;
    return w->replacement.p == e->data.p ? EP_EVENT_PASS : EP_EVENT_REPLACE;
}

/* The stream ends, and not every text was ended before. */
static void flush_all(struct ep_policy_watch *w)
{
    for (struct stage *x = w->stages; x && !w->stopped; x = x->next) {
        unsigned found[EP_SENSITIVE_KINDS + 1] = {0};
        bool good = true;
        for (unsigned i = 0; i < x->n && good; i++)
            good = flush(w, x, &x->channels[i], found);
        if (good)
            tell(w, x, found);
    }
}

static bool blind_all(struct ep_policy_watch *w)
{
    for (struct stage *x = w->stages; x; x = x->next)
        if (!blind(w, x, EP_BLIND_TOO_LARGE))
            return false;
    return true;
}

enum ep_policy_watched ep_policy_watch_pass(struct ep_policy_watch *w, struct ep_body *b, bool end,
                                            struct ep_slab_pool *slabs, struct ep_policy **who, struct ep_policy_verdict *v)
{
    enum ep_events_result r;

    if (!w->stages)
        return EP_POLICY_WATCH_ON;
    ep_arena_init(&w->arena, &w->s->worker->chunks);
    r = ep_events_pass(&w->events, b, end, slabs, on_event, w);
    if (r == EP_EVENTS_TOO_LARGE && blind_all(w)) { /* whatever comes, they don't see it */
        ep_events_release(&w->events, b, slabs);
        w->stages = NULL;
    }
    if (r == EP_EVENTS_GOOD && end)
        flush_all(w);
    ep_arena_fini(&w->arena);
    if (!w->stopped)
        return EP_POLICY_WATCH_ON;
    *who = w->who;
    *v = w->verdict;
    return EP_POLICY_WATCH_REFUSED;
}

struct ep_policy_watch *ep_policy_watch_one(struct ep_policy_set *set, struct ep_stream *s)
{
    struct ep_policy_watch *w = EP_ARENA_NEW(ep_stream_brief(s), struct ep_policy_watch);

    w->set = set;
    w->s = s;
    w->last = &w->stages;
    ep_events_init(&w->events, s->chain->config->max_body_bytes);
    return w;
}

enum ep_policy_watched ep_policy_watch_event(struct ep_policy_watch *w, const struct ep_event *e, struct ep_str *data,
                                             struct ep_policy **who, struct ep_policy_verdict *v)
{
    bool good;

    ep_arena_init(&w->arena, &w->s->worker->chunks);
    w->replacement = e->data;
    good = through(w, w->stages, e);
    *data = w->replacement.p == e->data.p ? e->data : ep_arena_str(ep_stream_brief(w->s), w->replacement);
    ep_arena_fini(&w->arena);
    if (good)
        return EP_POLICY_WATCH_ON;
    *who = w->who;
    *v = w->verdict;
    return EP_POLICY_WATCH_REFUSED;
}
