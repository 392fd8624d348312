/* ACGS-2's agent bus: its message as JSON and as protobuf (proto/agent_bus.proto), as far as ephor reads it.
 *
 * All walks are for bytes of strangers: bounded, without memory of their own, and what they can't follow is malformed. */
#ifndef EP_AGENT_BUS_H
#define EP_AGENT_BUS_H

#include "filter/refusal.h"

/* Numbers of proto/agent_bus.proto; tests/repository compares. */
#define EP_BUS_SERVICE                     "acgs2.agent_bus.v1.AgentBus"
#define EP_BUS_MESSAGE_MESSAGE_ID          1u
#define EP_BUS_MESSAGE_CONVERSATION_ID     2u
#define EP_BUS_MESSAGE_FROM_AGENT          5u
#define EP_BUS_MESSAGE_TO_AGENT            6u
#define EP_BUS_MESSAGE_SENDER_ID           7u
#define EP_BUS_MESSAGE_MESSAGE_TYPE        8u
#define EP_BUS_MESSAGE_ROUTING             9u
#define EP_BUS_MESSAGE_TENANT_ID           11u
#define EP_BUS_MESSAGE_PRIORITY            13u
#define EP_BUS_MESSAGE_CONSTITUTIONAL_HASH 15u
#define EP_BUS_MESSAGE_IMPACT_SCORE        24u
#define EP_BUS_ROUTING_SOURCE_AGENT_ID     1u
#define EP_BUS_ROUTING_TARGET_AGENT_ID     2u
#define EP_BUS_ROUTING_CONSTITUTIONAL_HASH 8u

/* Whether a gRPC call is one of the bus. */
bool ep_bus_is_grpc(const struct ep_call *c);

/* Called for each constitutional_hash that a message names; false ends the walk. */
typedef bool ep_bus_hash(void *user, struct ep_str given);

enum ep_bus_result { EP_BUS_OK, EP_BUS_STOPPED, EP_BUS_MALFORMED };

/* Whether a body begins like one: what doesn't is no JSON to anybody. */
bool ep_bus_may_be(struct ep_str text);
/* A JSON text that the scanner has accepted (RFC 8259, no key twice): an object, or an array of them. A key counts whatever
 * its case and its escapes, since there are readers that take it. null names nothing. *impact is the raw impact_score of
 * a single message, when it has one; *unnamed is set when a message of an array names no hash. */
enum ep_bus_result ep_bus_json(struct ep_str text, ep_bus_hash *each, void *user, struct ep_str *impact, bool *unnamed);
/* One AgentMessage, whole. A field that comes twice is told twice. */
enum ep_bus_result ep_bus_proto(struct ep_str message, ep_bus_hash *each, void *user);

/* What an AgentMessage says; strings are slices of it, empty: not said. */
struct ep_bus_message {
    struct ep_str message_id, conversation_id, from_agent, to_agent, sender_id, tenant_id, constitutional_hash;
    struct ep_str source_agent_id, target_agent_id, routing_hash; /* of routing */
    uint32_t message_type, priority;                /* enum MessageType, Priority */
    bool has_impact;
    double impact_score; /* finite */
};
/* Reads one AgentMessage, whole; of a field that comes twice the last counts. False: malformed, a known field of another
 * type, a string that is no UTF-8, an impact that is no number. */
bool ep_bus_decode(struct ep_str message, struct ep_bus_message *out);

/* Counts a message that was read, which is a call of the stream: ephor_bus_messages_total. */
void ep_bus_count(const struct ep_stream *s, const struct ep_call *c);

/* "command" … "audit_log"; "low", "normal", "high", "critical"; empty: there is none of that number. */
struct ep_str ep_bus_type(uint64_t n);
struct ep_str ep_bus_priority(uint64_t n);

/* The bus's ValidationResult that refuses, with its API's error in the same object; of a batch it is one, that names the
 * message which was refused. */
void ep_bus_answer(const struct ep_refusal *r, struct ep_str decision, uint64_t wall_ns, struct ep_arena *arena,
                   struct ep_answer *out);

#endif
