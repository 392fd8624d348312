/* Spans: what a stream tells the collector of traces when it ends, and the queue of a worker where they wait.
 *
 * One span a hop: kind server for what came in, client for what goes out; docs/tracing.md has its attributes. It is encoded
 * at once, so nothing of the stream is kept; who sends (filters/span_export.c) only sees bytes. The queue holds the newest
 * EP_SPAN_BATCHES batches: when all are full the oldest goes, and is counted. */
#ifndef EP_FILTER_SPAN_H
#define EP_FILTER_SPAN_H

#include "filter/stream.h"
#include "observe/otlp.h"

#define EP_SPAN_BATCHES     16u
#define EP_SPAN_BATCH_BYTES (128u * 1024) /* a batch with so much is full */

struct ep_span_batch {
    struct ep_otlp bytes; /* spans, each as the field of ScopeSpans */
    unsigned n;
};

struct ep_span_queue {
    struct ep_span_batch batch[EP_SPAN_BATCHES]; /* a ring: the last one is filled */
    unsigned first, n;
    uint64_t wall_ns;        /* what makes a wall clock of the monotonic one; taken with each batch's first span */
    uint64_t *dropped;       /* cell: spans that went before they were taken */
    /* The first span came into an empty queue; or (`full`) a batch became full. */
    void (*ready)(struct ep_span_queue *q, bool full);
};

/* The oldest batch, owned by the caller from here. False: there is none. */
bool ep_span_queue_take(struct ep_span_queue *q, struct ep_span_batch *out);
void ep_span_batch_free(struct ep_span_batch *b);
void ep_span_queue_clear(struct ep_span_queue *q); /* what is in it counts as dropped */

/* Where a hop's time went, nanoseconds. */
struct ep_span_times {
    uint64_t self, filter, queue, upstream;
};
/* At the end of a stream, when the worker has a queue: encodes its span if it is to have one. */
void ep_span_record(struct ep_stream *s, const struct ep_span_times *t);

#endif
