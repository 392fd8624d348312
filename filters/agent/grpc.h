/* gRPC's refusals, for the protocols that ride on it. grpc.c. */
#ifndef EP_AGENT_GRPC_H
#define EP_AGENT_GRPC_H

#include "agent/agent.h"
#include "agent/grpc_frame.h"

/* Trailers alone; of gRPC-Web the same as headers. `details`: grpc-status-details-bin, may be empty. */
void ep_grpc_refuse_with(struct ep_stream *s, const struct ep_refusal *r, struct ep_str details);
/* After messages: the trailers say how it ended; of gRPC-Web as a last frame of the body. */
void ep_grpc_refuse_midstream_with(struct ep_stream *s, const struct ep_refusal *r, struct ep_str details);
/* Fills service and method by the path. False: it is no name of a method. */
bool ep_grpc_name(struct ep_stream *s, struct ep_str path);

/* Where a response of gRPC-Web stands, so that a frame of ours can be put behind a whole one. */
struct ep_grpc_web {
    bool text;              /* base64, which may be padded between frames */
    bool broken;            /* it is no gRPC-Web: nothing can be put behind it */
    unsigned char prefix[EP_GRPC_PREFIX_BYTES];
    unsigned n_prefix;      /* of the frame under way */
    uint32_t left;          /* of its payload */
    unsigned char group[4]; /* of base64 */
    unsigned n_group;
};
/* NULL: the response is none, or its length is fixed. */
struct ep_grpc_web *ep_grpc_web_new(struct ep_stream *s);
void ep_grpc_web_pass(struct ep_grpc_web *w, struct ep_body *b);
/* Whether all that has passed is whole frames. */
bool ep_grpc_web_between(const struct ep_grpc_web *w);
/* The last frame, which has the trailers; in base64 if `text`. */
struct ep_str ep_grpc_web_trailers(unsigned status, struct ep_str message, struct ep_str details, bool text,
                                   struct ep_arena *arena);

#endif
