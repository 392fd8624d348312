/* Traces: the ids that join what several hops say of one request, and which requests are traced. */
#ifndef EP_FILTER_TRACE_H
#define EP_FILTER_TRACE_H

#include "filter/stream.h"

enum ep_trace_decisions { EP_TRACE_DECISIONS_ALWAYS, EP_TRACE_DECISIONS_SAMPLED };

struct ep_tracing_config {
    struct ep_str otlp;  /* URL of the collector; empty: no spans are made */
    struct ep_str roots; /* PEM file, for https; empty: the system's */
    double sample;       /* 0 … 1: of the requests without a traceparent, how many get one */
    int decisions;       /* enum ep_trace_decisions: what was decided or went wrong */
};
extern const struct ep_schema ep_tracing_schema;

#define EP_COLLECTOR_PATH_MAX 256u

/* The parts of a collector's URL. Slices of it. */
struct ep_collector {
    bool https;
    struct ep_str host;      /* without the port and the brackets of IPv6 */
    struct ep_str authority; /* "otel-collector:4318": as in the URL */
    struct ep_str path;      /* in front of /v1/traces; without a slash at the end, so often empty */
    uint16_t port;
};
/* False: this is no http or https URL of a host, or it has a user, a query or a fragment. */
bool ep_collector_parse(struct ep_str url, struct ep_collector *out);

/* The header `traceparent`. Slices of it. */
struct ep_traceparent {
    struct ep_str trace_id, parent_id; /* 32 and 16 hex digits */
    uint8_t flags;                     /* 1: sampled */
};
/* Of version 00, and of later ones what version 00 has (W3C Trace Context section 3.2.4). False: start a new trace. */
bool ep_traceparent_parse(struct ep_str value, struct ep_traceparent *out);

/* The trace id, 32 hex digits: of the request's traceparent, else one made now. Empty for opaque TCP, unless spans are made. */
struct ep_str ep_stream_trace(struct ep_stream *s);
/* The id of this hop's span, made now if need be; 16 hex digits. */
struct ep_str ep_stream_span(struct ep_stream *s);
/* The span that what is recorded of this stream belongs to: this hop's where spans are made, else the caller's, if any. */
struct ep_str ep_stream_span_on_record(struct ep_stream *s);
/* Whether this hop's span is exported and told to the upstream: as the caller decided, else by chance. Decided once. */
bool ep_stream_traced(struct ep_stream *s);

/* Before the request goes on: a traceparent that is none is dropped, and where the stream is traced, one that names our span
 * takes its place. */
void ep_trace_pass(struct ep_stream *s);

#endif
