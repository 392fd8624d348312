/* otlp: spans as OpenTelemetry's collectors read them: opentelemetry/proto/trace/v1/trace.proto in protobuf's wire format.
 *
 * Written by hand, field by field, into one buffer: what protobuf-c needs is a tree of messages with an allocation for each
 * attribute, built to be walked once; this is a tenth of its code and takes none. Only what ephor says is here. */
#ifndef EP_OBSERVE_OTLP_H
#define EP_OBSERVE_OTLP_H

#include "base/base.h"

#define EP_OTLP_VALUE_MAX 1024u /* bytes of one string; longer ones are cut */

/* Bytes that grow. Zeroed: empty. */
struct ep_otlp {
    char *p;
    size_t n, cap;
};
void ep_otlp_fini(struct ep_otlp *o);
void ep_otlp_append(struct ep_otlp *o, const struct ep_otlp *more); /* bytes that are written already */

/* Field numbers of trace.proto, common.proto and resource.proto. */
enum {
    EP_OTLP_REQUEST_RESOURCE_SPANS = 1,
    EP_OTLP_RESOURCE_SPANS_RESOURCE = 1,
    EP_OTLP_RESOURCE_SPANS_SCOPE_SPANS = 2,
    EP_OTLP_RESOURCE_ATTRIBUTES = 1,
    EP_OTLP_SCOPE_SPANS_SCOPE = 1,
    EP_OTLP_SCOPE_SPANS_SPANS = 2,
    EP_OTLP_SCOPE_NAME = 1,
    EP_OTLP_SCOPE_VERSION = 2,
    EP_OTLP_SPAN_TRACE_ID = 1,
    EP_OTLP_SPAN_ID = 2,
    EP_OTLP_SPAN_TRACE_STATE = 3,
    EP_OTLP_SPAN_PARENT_ID = 4,
    EP_OTLP_SPAN_NAME = 5,
    EP_OTLP_SPAN_KIND = 6,
    EP_OTLP_SPAN_START = 7,
    EP_OTLP_SPAN_END = 8,
    EP_OTLP_SPAN_ATTRIBUTES = 9,
    EP_OTLP_SPAN_EVENTS = 11,
    EP_OTLP_SPAN_STATUS = 15,
    EP_OTLP_SPAN_FLAGS = 16,
    EP_OTLP_EVENT_TIME = 1,
    EP_OTLP_EVENT_NAME = 2,
    EP_OTLP_EVENT_ATTRIBUTES = 3,
    EP_OTLP_STATUS_MESSAGE = 2,
    EP_OTLP_STATUS_CODE = 3,
};
enum { EP_OTLP_KIND_SERVER = 2, EP_OTLP_KIND_CLIENT = 3 };
enum { EP_OTLP_STATUS_ERROR = 2 };
/* Of a span's flags, beside those of the traceparent: whether its parent is of another process is known, and is so. */
#define EP_OTLP_PARENT_IS_REMOTE 0x300u

/* A message in a field: what is written until close is in it. Returns where it began. */
size_t ep_otlp_open(struct ep_otlp *o, unsigned field);
void ep_otlp_close(struct ep_otlp *o, size_t at);

void ep_otlp_varint(struct ep_otlp *o, unsigned field, uint64_t v);
void ep_otlp_fixed32(struct ep_otlp *o, unsigned field, uint32_t v);
void ep_otlp_fixed64(struct ep_otlp *o, unsigned field, uint64_t v);
/* Bytes of any kind, given as hex digits (an id): two digits a byte, only such, an even number of them. */
void ep_otlp_hex(struct ep_otlp *o, unsigned field, struct ep_str digits);
/* Text, if there is any: cut to EP_OTLP_VALUE_MAX; bytes that are no UTF-8 become '?', since readers refuse the whole message for one. */
void ep_otlp_text(struct ep_otlp *o, unsigned field, struct ep_str s);

/* Attributes (KeyValue); keys have less than 128 bytes, fields are below 16. An empty text is left out. */
void ep_otlp_attribute(struct ep_otlp *o, unsigned field, struct ep_str key, struct ep_str value);
void ep_otlp_attribute_int(struct ep_otlp *o, unsigned field, struct ep_str key, int64_t value);
void ep_otlp_attribute_double(struct ep_otlp *o, unsigned field, struct ep_str key, double value);
void ep_otlp_attribute_bool(struct ep_otlp *o, unsigned field, struct ep_str key, bool value);

/* What stands before the spans of a request (ExportTraceServiceRequest): its one ResourceSpans with the attributes in
 * `resource` and ephor's scope, whose spans are the `spans_n` bytes that follow. */
void ep_otlp_envelope(struct ep_otlp *o, const struct ep_otlp *resource, struct ep_str version, size_t spans_n);

/* How many spans an ExportTraceServiceResponse says were rejected; *why: its message, a slice of `body`. 0 for what can't be
 * read: the collector has said 200. */
uint64_t ep_otlp_rejected(struct ep_str body, struct ep_str *why);

#endif
