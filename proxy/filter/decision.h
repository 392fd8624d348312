/* What is decided about a stream, on record: before anything comes of it, the audit has it.
 *
 * The record is in the file when ep_stream_audit returns. With `audit.sync: always` the stream then says nothing
 * downstream until it has reached the disk too: it stands in its worker's list, and is woken by the audit's thread. */
#ifndef EP_FILTER_DECISION_H
#define EP_FILTER_DECISION_H

#include "filter/stream.h"
#include "observe/observe.h"

struct ep_decision {
    const char *event;    /* "decision" when NULL */
    const char *decision; /* "deny", "shadow_deny", "redact", "inject" … */
    struct ep_str policy, policy_version, principle, reason;
    const char *code;
    const struct ep_call *call; /* of a batch; NULL: the stream's */
    struct ep_audit_field more; /* one member of its own */
};

/* Writes the record, with what is known of the stream beside it. False: it can't be written and must be
 * (`audit.required`): the stream was refused for that, and a step returns EP_REPLIED. */
bool ep_stream_audit(struct ep_stream *s, const struct ep_decision *d);
/* The same without the refusal: for who refuses anyway. */
bool ep_stream_audit_try(struct ep_stream *s, const struct ep_decision *d);

/* Whether what was recorded of this stream is still on its way to the disk. */
bool ep_stream_unsettled(struct ep_stream *s);

/* The worker's end of it. Of proxy/config: gives the worker another audit (NULL: none), between two events. */
struct ep_audit_ear;
struct ep_audit_ear *ep_audit_ear_new(struct ep_worker *w);
void ep_audit_ear_set(struct ep_audit_ear *e, struct ep_audit *a);
void ep_audit_ear_free(struct ep_audit_ear *e); /* when the worker's loop has ended; NULL: nothing */

#endif
