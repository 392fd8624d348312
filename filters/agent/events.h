/* Server-sent events as they pass (WHATWG HTML, section 9.2): the bytes of a stream cut into whole events.
 *
 * Who looks at the events of a response keeps one struct ep_events for it and gives it each piece of the body. Whole events
 * are shown one by one and go back into the body; an event that isn't whole yet stays here, so what leaves are whole
 * events only. Nothing is copied but an event whose bytes lie in several slices, and data of several lines, which are
 * joined. Lines end in LF, CR or CRLF, a byte order mark may stand first. Blocks without data (comments, a bare id) pass
 * and are not shown: no client makes an event of them.
 *
 * Pure: no stream, no clock. The same bytes in other pieces are the same events, and when all pass the same bytes. */
#ifndef EP_AGENT_EVENTS_H
#define EP_AGENT_EVENTS_H

#include "base/base.h"

#define EP_EVENT_BYTES_MAX ((size_t)1 << 20) /* of one event, when nothing else is said */

/* Valid during the call that shows it. */
struct ep_event {
    struct ep_str name; /* of the last "event" field; empty: none, which means "message" */
    struct ep_str data; /* all "data" fields, joined by LF */
    struct ep_str id;   /* of the last "id" field without a NUL */
    bool has_id;
};

enum ep_event_verdict {
    EP_EVENT_PASS,
    EP_EVENT_DROP,
    EP_EVENT_REPLACE, /* the data, by *replacement; the other fields and comments stay */
    EP_EVENT_STOP,    /* neither this event nor anything behind it */
};

/* Shown one event. *replacement is read when the verdict is EP_EVENT_REPLACE, right after the return. */
typedef enum ep_event_verdict ep_on_event(void *user, const struct ep_event *e, struct ep_str *replacement);

enum ep_events_result {
    EP_EVENTS_GOOD,
    EP_EVENTS_TOO_LARGE, /* an event is longer than it may be: ep_events_release, or refuse */
    EP_EVENTS_STOPPED,   /* by EP_EVENT_STOP: what passed before it is in the body, the rest is gone */
};

struct ep_events {
    struct ep_body held;          /* of the event that isn't whole yet, all of it scanned */
    size_t event_bytes_max;
    unsigned n;                   /* events so far: blocks that have another line than comments */
    bool line_begun;              /* the line that is being scanned has a byte */
    bool has_field;               /* the event that is being scanned has such a line */
    bool after_cr;                /* the byte before was a CR: an LF now belongs to it */
    bool at_start;                /* no event has been read: a byte order mark may come */
    bool nothing_out;             /* all events so far were dropped */
    bool dropped_cr;              /* … and that CR was of an event that didn't pass */
    bool stopped;
    struct ep_body *out;          /* during ep_events_pass */
    struct ep_slab_pool *pool;
    size_t passed;                /* bytes at the front of `held` that pass and are not in `out` yet */
    char *text[2];                /* an event in one piece; data in one piece */
    size_t text_cap[2];
};

void ep_events_init(struct ep_events *e, size_t event_bytes_max);
void ep_events_fini(struct ep_events *e);
/* Takes all of `b` and shows what is whole; `b` is then what may go on. `end`: nothing follows, so what is left counts as an
 * event too (some clients take one without its blank line). on_event NULL: all pass, and none is read. */
enum ep_events_result ep_events_pass(struct ep_events *e, struct ep_body *b, bool end, struct ep_slab_pool *pool,
                                     ep_on_event *on_event, void *user);
/* Only counts the events that end in `b`; nothing is held back. Not together with ep_events_pass. */
void ep_events_look(struct ep_events *e, struct ep_body *b);
/* Right after ep_events_pass: what is held back follows what passed, in `b`. Nobody looks any more. */
void ep_events_release(struct ep_events *e, struct ep_body *b, struct ep_slab_pool *pool);
/* Whether the response is events that can be read: by its media type, and without a content-encoding. */
struct ep_stream;
bool ep_stream_response_is_events(const struct ep_stream *s);
/* In on_event: puts an event of our own in front of the one that is shown. `name` may be empty. */
void ep_events_insert(struct ep_events *e, struct ep_str name, struct ep_str data);
/* Bytes of an event that isn't whole. */
static inline size_t ep_events_held(const struct ep_events *e)
{
    return e->held.bytes;
}

#endif
