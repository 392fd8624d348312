/* The splitter of server-sent events. events.h has the picture.
 *
 * All bytes go through `held`; of its front, `passed` bytes are on their way out, behind them lies the event that is being
 * scanned. An event ends at an empty line. Its fields are read only then, where they lie or, when they lie in several slices,
 * in one piece of memory that is used again. */
#include "agent/events.h"

#include <stdlib.h>

enum { WHOLE, JOINED };

void ep_events_init(struct ep_events *e, size_t event_bytes_max)
{
    *e = (struct ep_events){.event_bytes_max = event_bytes_max, .at_start = true, .nothing_out = true};
    ep_body_init(&e->held);
}

void ep_events_fini(struct ep_events *e)
{
    ep_body_fini(&e->held);
    free(e->text[WHOLE]);
    free(e->text[JOINED]);
    e->text[WHOLE] = e->text[JOINED] = NULL;
    e->text_cap[WHOLE] = e->text_cap[JOINED] = 0;
}

static char *room(struct ep_events *e, int which, size_t n)
{
    if (n > e->text_cap[which]) {
        free(e->text[which]);
        e->text_cap[which] = EP_MAX(n, 2 * e->text_cap[which]);
        e->text[which] = ep_malloc(e->text_cap[which]);
    }
    return e->text[which];
}

/* --- lines and fields --- */

/* The first line of the text, without its end, which goes too. */
static struct ep_str next_line(struct ep_str *rest)
{
    const char *lf = memchr(rest->p, '\n', rest->n);
    size_t n = lf ? (size_t)(lf - rest->p) : rest->n, ending = lf ? 1 : 0;
    const char *cr = memchr(rest->p, '\r', n);
    struct ep_str line;

    if (cr) {
        ending = lf && cr + 1 == lf ? 2 : 1;
        n = (size_t)(cr - rest->p);
    }
    line = ep_str_n(rest->p, n);
    *rest = ep_str_n(rest->p + n + ending, rest->n - n - ending);
    return line;
}

/* True when the line is that field. One space behind the colon isn't of the value. */
static bool is_field(struct ep_str line, struct ep_str name, struct ep_str *value)
{
    if (!ep_str_starts(line, name) || (line.n > name.n && line.p[name.n] != ':'))
        return false;
    size_t skip = EP_MIN(line.n, name.n + 1);
    skip += skip < line.n && line.p[skip] == ' ';
    *value = ep_str_n(line.p + skip, line.n - skip);
    return true;
}

static const struct ep_str byte_order_mark = EP_STR_INIT("\xef\xbb\xbf");
static const struct ep_str data_field = EP_STR_INIT("data");

static struct ep_str join(struct ep_events *e, struct ep_str text)
{
    char *p = room(e, JOINED, text.n);
    struct ep_str value;
    size_t n = 0;

    while (text.n) {
        if (!is_field(next_line(&text), data_field, &value))
            continue;
        memcpy(p + n, value.p, value.n);
        n += value.n;
        p[n++] = '\n'; /* there is room: the field's name was longer */
    }
    return ep_str_n(p, n - 1);
}

/* False: no data, so no event. */
static bool read_event(struct ep_events *e, struct ep_str text, struct ep_event *out)
{
    struct ep_str rest = text, value;
    unsigned lines = 0;

    *out = (struct ep_event){.data = {NULL, 0}};
    while (rest.n) {
        struct ep_str line = next_line(&rest);
        if (!line.n)
            continue;
        if (line.p[0] == 'd' && is_field(line, data_field, &value)) {
            out->data = value;
            lines++;
        } else if (line.p[0] == 'e' && is_field(line, EP_STR("event"), &value)) {
            out->name = value;
        } else if (line.p[0] == 'i' && is_field(line, EP_STR("id"), &value) && !memchr(value.p, '\0', value.n)) {
            out->id = value;
            out->has_id = true;
        }
    }
    if (lines > 1)
        out->data = join(e, text);
    return lines > 0;
}

/* --- what leaves --- */

static void put(struct ep_events *e, struct ep_str s)
{
    ep_body_push_copy(e->out, s.p, s.n, e->pool);
}

static void put_data(struct ep_events *e, struct ep_str data)
{
    do {
        struct ep_str line = next_line(&data);
        put(e, EP_STR("data: "));
        put(e, line);
        put(e, EP_STR("\n"));
    } while (data.n);
}

static void flush(struct ep_events *e)
{
    ep_body_move(e->out, &e->held, e->passed, e->pool);
    e->passed = 0;
}

/* The event as it came, with other data in the place of the first line of it. */
static void put_replaced(struct ep_events *e, struct ep_str text, struct ep_str data)
{
    struct ep_str value;
    bool done = false;

    while (text.n) {
        struct ep_str line = next_line(&text);
        if (!line.n)
            continue;
        if (!is_field(line, data_field, &value)) {
            put(e, line);
            put(e, EP_STR("\n"));
        } else if (!done) {
            put_data(e, data);
            done = true;
        }
    }
    put(e, EP_STR("\n"));
}

void ep_events_insert(struct ep_events *e, struct ep_str name, struct ep_str data)
{
    flush(e);
    e->nothing_out = false;
    if (name.n) {
        put(e, EP_STR("event: "));
        put(e, name);
        put(e, EP_STR("\n"));
    }
    put_data(e, data);
    put(e, EP_STR("\n"));
}

/* --- scanning --- */

struct place {
    uint32_t slice;
    size_t offset;
};

/* How many bytes of p up to and with the end of the event; 0: it doesn't end here. */
static size_t scan(struct ep_events *e, const unsigned char *p, size_t n)
{
    size_t at = 0;

    while (at < n) {
        if (e->after_cr && p[at] == '\n') { /* the end of a line that has been counted */
            e->after_cr = false;
            at++;
            continue;
        }
        e->after_cr = false;
        const unsigned char *lf = memchr(p + at, '\n', n - at);
        size_t end = lf ? (size_t)(lf - p) : n;
        const unsigned char *cr = memchr(p + at, '\r', end - at);
        if (cr)
            end = (size_t)(cr - p);
        if (end > at) {
            e->has_field |= !e->line_begun && p[at] != ':';
            e->line_begun = true;
        }
        if (end == n)
            return 0;
        e->after_cr = cr != NULL;
        at = end + 1;
        if (!e->line_begun) {
            e->n += e->has_field;
            e->has_field = false;
            if (e->after_cr && at < n && p[at] == '\n') {
                e->after_cr = false;
                at++;
            }
            return at;
        }
        e->line_begun = false;
    }
    return 0;
}

/* The n bytes of the event that begins at `from`, in one piece. */
static struct ep_str in_one_piece(struct ep_events *e, struct place from, size_t n)
{
    const struct ep_slice *s = ep_body_at(&e->held, from.slice);
    size_t part = EP_MIN(s->n - from.offset, n), done = 0;
    char *text;

    if (part == n)
        return ep_str_n(s->p + from.offset, n);
    text = room(e, WHOLE, n);
    for (;;) {
        memcpy(text + done, s->p + from.offset, part);
        done += part;
        if (done == n)
            return ep_str_n(text, n);
        s = ep_body_at(&e->held, ++from.slice);
        from.offset = 0;
        part = EP_MIN(s->n, n - done);
    }
}

/* The event of n bytes behind what passed. True: it stays where it is, and passes. */
static bool show(struct ep_events *e, struct place from, size_t n, ep_on_event *on_event, void *user)
{
    struct ep_str text, replacement = {NULL, 0};
    enum ep_event_verdict v = EP_EVENT_PASS;
    struct ep_event event;
    size_t before;
    bool mark;

    if (!on_event) {
        e->passed += n;
        return true;
    }
    text = in_one_piece(e, from, n);
    mark = ep_str_starts(text, byte_order_mark);

    if (mark && e->at_start) { /* it passes, whatever becomes of the event */
        text = ep_str_n(text.p + byte_order_mark.n, text.n - byte_order_mark.n);
        n -= byte_order_mark.n;
        e->passed += byte_order_mark.n;
        e->nothing_out = mark = false;
    }
    before = e->passed;
    e->at_start = e->dropped_cr = false;
    if (read_event(e, text, &event))
        v = on_event(user, &event, &replacement);
    if (mark && e->nothing_out && v != EP_EVENT_DROP) { /* in front now, it would be taken for one */
        flush(e);
        put(e, EP_STR("\n"));
    }
    e->nothing_out &= v == EP_EVENT_DROP;
    if (v == EP_EVENT_PASS) {
        e->passed += n;
        return e->passed == before + n; /* nothing was put in front of it */
    }
    flush(e);
    if (v == EP_EVENT_REPLACE)
        put_replaced(e, text, replacement);
    e->stopped = v == EP_EVENT_STOP;
    e->dropped_cr = e->after_cr;
    ep_body_drop(&e->held, n);
    return false;
}

/* Where the byte `offset` lies. */
static struct place find(struct ep_body *b, size_t offset)
{
    struct place at = {0, offset};

    while (at.slice < b->count && at.offset >= ep_body_at(b, at.slice)->n)
        at.offset -= ep_body_at(b, at.slice++)->n;
    return at;
}

enum ep_events_result ep_events_pass(struct ep_events *e, struct ep_body *b, bool end, struct ep_slab_pool *pool,
                                     ep_on_event *on_event, void *user)
{
    size_t begun = e->held.bytes; /* of the event so far */
    struct place from = {0, 0}, at;
    bool too_large;

    e->out = b;
    e->pool = pool;
    ep_body_move(&e->held, b, b->bytes, pool);
    at = find(&e->held, begun);
    while (!e->stopped && at.slice < e->held.count) {
        const struct ep_slice *s = ep_body_at(&e->held, at.slice);
        size_t n;

        if (begun == 0 && e->after_cr && s->p[at.offset] == '\n') { /* of the blank line of the event before */
            e->after_cr = false;
            if (e->dropped_cr)
                ep_body_drop(&e->held, 1);
            else
                e->passed++;
            at = from = find(&e->held, e->passed);
            continue;
        }
        n = scan(e, s->p + at.offset, s->n - at.offset);
        if (n == 0) {
            begun += s->n - at.offset;
            at = (struct place){at.slice + 1, 0};
            continue;
        }
        if (begun + n > e->event_bytes_max)
            break;
        if (show(e, from, begun + n, on_event, user)) {
            at.offset += n;
            if (at.offset == s->n)
                at = (struct place){at.slice + 1, 0};
            from = at;
        } else { /* the front of `held` went */
            at = from = find(&e->held, e->passed);
        }
        begun = 0;
    }
    too_large = !e->stopped && e->held.bytes - e->passed > e->event_bytes_max;
    if (end && !e->stopped && !too_large && begun) {
        e->n += e->has_field;
        show(e, from, begun, on_event, user);
    }
    if (e->stopped)
        ep_body_fini(&e->held);
    else
        flush(e);
    if (too_large)
        return EP_EVENTS_TOO_LARGE;
    return e->stopped ? EP_EVENTS_STOPPED : EP_EVENTS_GOOD;
}

void ep_events_look(struct ep_events *e, struct ep_body *b)
{
    for (uint32_t i = 0; i < b->count; i++) {
        const struct ep_slice *s = ep_body_at(b, i);
        size_t at = 0, n;
        while (at < s->n && (n = scan(e, s->p + at, s->n - at)) != 0)
            at += n;
    }
}

void ep_events_release(struct ep_events *e, struct ep_body *b, struct ep_slab_pool *pool)
{
    ep_body_move(b, &e->held, e->held.bytes, pool);
}
