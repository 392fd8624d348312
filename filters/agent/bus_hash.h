/* ACGS-2's agent bus: its message as JSON and as protobuf (proto/agent_bus.proto), as far as ephor reads it.
 *
 * Both walks are for bytes of strangers: bounded, without memory of their own, and what they can't follow is malformed. */
#ifndef EP_AGENT_BUS_HASH_H
#define EP_AGENT_BUS_HASH_H

#include "filter/call.h"

/* Numbers of proto/agent_bus.proto; tests/repository compares. */
#define EP_BUS_SERVICE                     "acgs2.agent_bus.v1.AgentBus"
#define EP_BUS_MESSAGE_ROUTING             9u
#define EP_BUS_MESSAGE_CONSTITUTIONAL_HASH 15u
#define EP_BUS_ROUTING_CONSTITUTIONAL_HASH 8u

/* Whether a gRPC call is one of the bus. */
bool ep_bus_is_grpc(const struct ep_call *c);

/* Called for each constitutional_hash that a message names; false ends the walk. */
typedef bool ep_bus_hash(void *user, struct ep_str given);

enum ep_bus_result { EP_BUS_OK, EP_BUS_STOPPED, EP_BUS_MALFORMED };

/* A JSON text that the scanner has accepted (RFC 8259, no key twice): an object, or an array of them. A key counts whatever
 * its case and its escapes, since there are readers that take it. null names nothing. *impact is the raw impact_score of
 * a single message, when it has one. */
/* Whether a body begins like one: what doesn't is no JSON to anybody. */
bool ep_bus_may_be(struct ep_str text);
enum ep_bus_result ep_bus_json(struct ep_str text, ep_bus_hash *each, void *user, struct ep_str *impact);
/* One AgentMessage, whole. A field that comes twice is told twice. */
enum ep_bus_result ep_bus_proto(struct ep_str message, ep_bus_hash *each, void *user);

#endif
