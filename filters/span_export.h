/* Sends a worker's spans to the collector of its view: OTLP over HTTP, binary protobuf (https://opentelemetry.io/docs/specs/otlp/).
 *
 * A batch goes when it is full or its first span is a second old, one at a time, by filters/http_call.c through a cluster of
 * its own: pools, DNS, TLS and mesh identity are as for any other. 429, 502, 503, 504 and no answer at all are tried again,
 * after Retry-After or a time that doubles up to half a minute; any other answer is final. Meanwhile spans wait in the queue
 * (filter/span.h), which forgets its oldest: a collector that is away costs that and one line in the log. */
#ifndef EP_SPAN_EXPORT_H
#define EP_SPAN_EXPORT_H

#include "net/worker.h"

struct ep_span_export;

/* For the worker's life; it does nothing until the worker's view has a collector. */
struct ep_span_export *ep_span_export_new(struct ep_worker *w);
/* The worker's view was changed: spans are made from now on, or not any more. */
void ep_span_export_view(struct ep_span_export *e);
/* For the end of a drain: sends what is left, now. True when that is done, or can't be within two seconds of the first call. */
bool ep_span_export_flush(struct ep_span_export *e);
/* No more is sent, and no span made. Before ep_http_call_end_all: the call of its own is ended by that. */
void ep_span_export_stop(struct ep_span_export *e);
void ep_span_export_free(struct ep_span_export *e); /* after the worker's views are gone; NULL: nothing */

#endif
