/* Messages of the agent bus over gRPC (proto/agent_bus.proto). A unary Send is held until its message is whole, and is then
 * the same call as the bus's JSON: method is the message's type. A client stream has as many messages as its client likes,
 * which none of the calls' judges can wait for: what they say is out of sight, and `blind` says `streamed`; the filter
 * `constitution` looks at each as it comes. Messages in JSON (application/grpc+json), which nobody is known to send, are not
 * read: `visible` is `headers`. Refused as gRPC is. */
#include "agent/agent.h"
#include "agent/bus.h"
#include "agent/grpc_frame.h"

#include <stdlib.h>

static enum ep_agent_claim head(struct ep_stream *s, const struct ep_agent_head *h)
{
    struct ep_call *c = &s->call;
    struct ep_str service = EP_STR("/" EP_BUS_SERVICE "/"), method;
    bool text, is_json;

    if (!h->post || (!ep_grpc_is_type(h->content_type) && !ep_grpc_is_web_type(h->content_type, &text)) ||
        !ep_str_starts(h->path, service))
        return EP_AGENT_NO;
    is_json = ep_grpc_is_json_type(h->content_type);
    method = ep_str_n(h->path.p + service.n, h->path.n - service.n);
    c->service = EP_STR(EP_BUS_SERVICE);
    c->method = (struct ep_str){NULL, 0};
    if (ep_str_eq(method, EP_STR("Send")) && !is_json)
        return EP_AGENT_MESSAGE;
    c->visible = is_json ? EP_VISIBLE_HEADERS : EP_VISIBLE_FULL;
    c->blind = is_json ? EP_BLIND_UNKNOWN : EP_BLIND_STREAMED;
    return EP_AGENT_HEAD;
}

static struct ep_str either(struct ep_str a, struct ep_str b)
{
    return a.n ? a : b;
}

static struct ep_str name_or_number(struct ep_str name, uint32_t n, struct ep_arena *arena)
{
    return name.n ? name : ep_arena_printf(arena, "%u", n);
}

/* The shortest of the two that reads as the same number. */
static struct ep_str number(double d, struct ep_arena *arena)
{
    struct ep_str text = ep_arena_printf(arena, "%.15g", d);

    return strtod(text.p, NULL) == d ? text : ep_arena_printf(arena, "%.17g", d);
}

static enum ep_agent_verdict message(struct ep_stream *s, struct ep_str text, struct ep_scanner *scanner)
{
    struct ep_arena *arena = &s->arena;
    struct ep_call *c = &s->call;
    struct ep_bus_message m;

    (void)scanner;
    if (!ep_bus_decode(text, &m))
        return ep_agent_bad_request(s, "agent.malformed", EP_STR("this is no message of the agent bus"), 0);
    c->method = name_or_number(ep_bus_type(m.message_type), m.message_type, arena);
    c->priority = name_or_number(ep_bus_priority(m.priority), m.priority, arena);
    c->agent = either(either(m.from_agent, m.sender_id), m.source_agent_id);
    c->recipient = either(m.to_agent, m.target_agent_id);
    c->id_text = m.message_id;
    c->conversation = m.conversation_id;
    c->claimed_tenant = m.tenant_id;
    c->hash = either(m.constitutional_hash, m.routing_hash);
    if (m.has_impact)
        c->impact = number(m.impact_score, arena);
    ep_bus_count(s, c);
    return EP_AGENT_MINE;
}

const struct ep_agent_protocol ep_agent_bus_grpc = {
    .how = {.name = "acgs2", .refuse = ep_grpc_refuse, .refuse_midstream = ep_grpc_refuse_midstream},
    .head = head,
    .message = message,
};
