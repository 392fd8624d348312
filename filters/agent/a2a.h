/* Agent2Agent, in what its files share. a2a.c recognises it and fills the call; a2a_refuse.c says no; a2a_proto.c reads its
 * messages of gRPC; a2a_parts.c reads the parts of a message for policies. */
#ifndef EP_AGENT_A2A_H
#define EP_AGENT_A2A_H

#include "agent/agent.h"

/* The methods have one name for all versions and bindings: that of 0.3's JSON-RPC. */
struct ep_a2a_method {
    struct ep_str name;   /* message/send … */
    struct ep_str one;    /* of 1.0, in JSON-RPC and gRPC: SendMessage; empty: none */
    struct ep_str grpc03; /* of 0.3's gRPC, where it is another; empty: the same */
    bool stream;        /* answered by events */
    bool shared;        /* MCP has one of this name */
};
/* By a name of JSON-RPC, or of a service of gRPC. NULL: there is none. */
const struct ep_a2a_method *ep_a2a_by_name(struct ep_str name);
const struct ep_a2a_method *ep_a2a_by_rpc(struct ep_str rpc);

/* A2A's services of gRPC. *old: 0.3's. */
bool ep_a2a_is_service(struct ep_str service, bool *old);

/* A message of gRPC as the JSON that protobuf makes of it (proto3's JSON mapping), with EP_SCAN_PADDING bytes behind it:
 * {"params": …}. Empty: malformed, or a single field came twice, which two readers could take for two requests. */
struct ep_str ep_a2a_json(bool old, const struct ep_a2a_method *m, struct ep_str message, struct ep_arena *arena);

/* How it says no. ep_a2a_answer: before a response, in JSON-RPC and REST. */
void ep_a2a_refuse(struct ep_stream *s, const struct ep_refusal *r);
void ep_a2a_refuse_midstream(struct ep_stream *s, const struct ep_refusal *r);
void ep_a2a_answer(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                   struct ep_arena *arena, struct ep_answer *out);
/* The one JSON that REST sends, as a body and in `event: error`; and the JSON-RPC error of one call. */
struct ep_str ep_a2a_rest_error(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena);
struct ep_str ep_a2a_rpc_error(const struct ep_call *c, const struct ep_refusal *r, struct ep_str decision,
                               struct ep_arena *arena);
/* google.rpc.Status with an ErrorInfo, in base64 without padding: grpc-status-details-bin. */
struct ep_str ep_a2a_grpc_details(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena);

#endif
