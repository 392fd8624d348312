/* gRPC's messages on the wire, and protobuf's fields, as far as ephor reads them itself: pure walks over the bytes of
 * strangers, bounded, without memory of their own. What they can't follow is malformed.
 * Sources: gRPC over HTTP/2 (PROTOCOL-HTTP2), gRPC-Web (PROTOCOL-WEB), protobuf's encoding
 * (protobuf.dev/programming-guides/encoding). */
#ifndef EP_AGENT_GRPC_FRAME_H
#define EP_AGENT_GRPC_FRAME_H

#include "filter/call.h"
#include "http/headers.h"

#define EP_GRPC_PREFIX_BYTES 5u /* a byte of flags, four of length */
#define EP_GRPC_COMPRESSED   0x01u
#define EP_GRPC_TRAILERS     0x80u /* gRPC-Web's last frame */

/* "application/grpc", then nothing, "+…" or ";…"; application/grpc-web is another. */
bool ep_grpc_is_type(struct ep_str content_type);
/* "application/grpc-web", "application/grpc-web-text", each alone, with "+…" or ";…". *text: it is base64. */
bool ep_grpc_is_web_type(struct ep_str content_type, bool *text);

/* "…+json": messages are JSON (proto3's mapping), to servers that look at it. */
bool ep_grpc_is_json_type(struct ep_str content_type);

/* A body of application/grpc-web-text: base64 (RFC 4648 section 4) in pieces, each of which may be padded; decoded into the
 * arena. False: malformed; so are bits that a decoder would throw away. */
bool ep_grpc_from_text(struct ep_str body, struct ep_arena *arena, struct ep_str *out);

struct ep_grpc_frame {
    bool compressed;
    struct ep_str payload; /* lies in what was read */
};
enum ep_grpc_result { EP_GRPC_FRAME, EP_GRPC_END, EP_GRPC_CUT, EP_GRPC_MALFORMED };
/* Takes the next message off the front of `rest`, and leaves `rest` as it is unless there is a whole one. MALFORMED: a
 * byte of flags that gRPC doesn't know, or more than max_bytes. */
enum ep_grpc_result ep_grpc_next(struct ep_str *rest, size_t max_bytes, struct ep_grpc_frame *out);

/* The message of a frame: its payload, or that decoded by grpc-encoding (gzip, deflate, identity) into the arena, of at most
 * max_bytes. EP_BLIND_NOT, or why it can't be read. */
enum ep_blind_reason ep_grpc_plain(const struct ep_headers *h, const struct ep_grpc_frame *f, size_t max_bytes,
                                   struct ep_arena *arena, struct ep_str *out);
/* A body that was read whole and must be one message. *malformed: it is none, or more than one. */
enum ep_blind_reason ep_grpc_single(const struct ep_headers *h, struct ep_str body, size_t max_bytes,
                                    struct ep_arena *arena, struct ep_str *out, bool *malformed);

enum ep_proto_wire { EP_PROTO_VARINT = 0, EP_PROTO_FIXED64 = 1, EP_PROTO_BYTES = 2, EP_PROTO_FIXED32 = 5 };
struct ep_proto_field {
    uint64_t number;
    enum ep_proto_wire wire;
    uint64_t varint;    /* of EP_PROTO_VARINT */
    struct ep_str bytes; /* of the others */
};
/* Takes the next field off `rest`, which is not empty. False: malformed. Groups are: proto3 has none. */
bool ep_proto_next(struct ep_str *rest, struct ep_proto_field *out);
/* The number that the 8 bytes of an EP_PROTO_FIXED64 are. */
double ep_proto_double(struct ep_str bytes);

#endif
