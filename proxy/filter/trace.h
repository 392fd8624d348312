/* Traces: the id that joins what several hops say of one request. */
#ifndef EP_FILTER_TRACE_H
#define EP_FILTER_TRACE_H

#include "filter/stream.h"

struct ep_tracing_config {
    double sample; /* 0 … 1: of the requests without a traceparent, how many get one */
};
extern const struct ep_schema ep_tracing_schema;

/* The trace id, 32 hex digits: of the request's traceparent, else one made now. Empty for opaque TCP. */
struct ep_str ep_stream_trace(struct ep_stream *s);

/* Before the request goes on: a traceparent that is none is dropped, and one is made for a share of those without. */
void ep_trace_pass(struct ep_stream *s);

#endif
