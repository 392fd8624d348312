/* The agent bus's message as protobuf, walked by hand: nothing is copied, nothing recurses by the sender's will (content and
 * payload nest as deep as they like, and are stepped over), and a string keeps its length, so that none is read up to a NUL
 * only. Source: protobuf's encoding (protobuf.dev/programming-guides/encoding). */
#include "agent/bus.h"

#include "agent/grpc_frame.h"

bool ep_bus_is_grpc(const struct ep_call *c)
{
    return ep_str_eq(c->service, EP_STR(EP_BUS_SERVICE)) &&
           (ep_str_eq(c->protocol, EP_STR("grpc")) || ep_str_eq(c->protocol, EP_STR("acgs2")));
}

/* --- every hash --- */

static enum ep_bus_result hashes(struct ep_str text, uint64_t hash, uint64_t routing, ep_bus_hash *each, void *user)
{
    enum ep_bus_result r = EP_BUS_OK;
    struct ep_proto_field f;

    while (r == EP_BUS_OK && text.n) {
        if (!ep_proto_next(&text, &f))
            return EP_BUS_MALFORMED;
        if (f.number == hash && f.wire == EP_PROTO_BYTES && f.bytes.n) /* an empty string is what absence looks like in proto3 */
            r = each(user, f.bytes) ? EP_BUS_OK : EP_BUS_STOPPED;
        else if (routing && f.number == routing && f.wire == EP_PROTO_BYTES)
            r = hashes(f.bytes, EP_BUS_ROUTING_CONSTITUTIONAL_HASH, 0, each, user);
        else if (f.number == hash && f.wire != EP_PROTO_BYTES)
            return EP_BUS_MALFORMED;
    }
    return r;
}

enum ep_bus_result ep_bus_proto(struct ep_str text, ep_bus_hash *each, void *user)
{
    return hashes(text, EP_BUS_MESSAGE_CONSTITUTIONAL_HASH, EP_BUS_MESSAGE_ROUTING, each, user);
}

/* --- what a policy wants to know --- */

struct wanted {
    uint64_t number;
    unsigned wire;
    size_t offset;
};

#define AT(member) offsetof(struct ep_bus_message, member)

static const struct wanted of_message[] = {
    {EP_BUS_MESSAGE_MESSAGE_ID, EP_PROTO_BYTES, AT(message_id)},
    {EP_BUS_MESSAGE_CONVERSATION_ID, EP_PROTO_BYTES, AT(conversation_id)},
    {EP_BUS_MESSAGE_FROM_AGENT, EP_PROTO_BYTES, AT(from_agent)},
    {EP_BUS_MESSAGE_TO_AGENT, EP_PROTO_BYTES, AT(to_agent)},
    {EP_BUS_MESSAGE_SENDER_ID, EP_PROTO_BYTES, AT(sender_id)},
    {EP_BUS_MESSAGE_MESSAGE_TYPE, EP_PROTO_VARINT, AT(message_type)},
    {EP_BUS_MESSAGE_TENANT_ID, EP_PROTO_BYTES, AT(tenant_id)},
    {EP_BUS_MESSAGE_PRIORITY, EP_PROTO_VARINT, AT(priority)},
    {EP_BUS_MESSAGE_CONSTITUTIONAL_HASH, EP_PROTO_BYTES, AT(constitutional_hash)},
    {EP_BUS_MESSAGE_IMPACT_SCORE, EP_PROTO_FIXED64, AT(impact_score)},
};
static const struct wanted of_routing[] = {
    {EP_BUS_ROUTING_SOURCE_AGENT_ID, EP_PROTO_BYTES, AT(source_agent_id)},
    {EP_BUS_ROUTING_TARGET_AGENT_ID, EP_PROTO_BYTES, AT(target_agent_id)},
    {EP_BUS_ROUTING_CONSTITUTIONAL_HASH, EP_PROTO_BYTES, AT(routing_hash)},
};

static bool is_utf8(struct ep_str s)
{
    for (size_t i = 0, n; i < s.n; i += n)
        if ((n = ep_utf8_length(s.p + i, s.n - i)) == 0)
            return false;
    return true;
}

/* Field `f` where it is wanted. The last of several counts, as protobuf says. */
static bool keep(struct ep_bus_message *m, const struct wanted *w, const struct ep_proto_field *f)
{
    char *to = (char *)m + w->offset;

    if (f->wire != w->wire)
        return false;
    if (w->wire == EP_PROTO_VARINT) {
        memcpy(to, &(uint32_t){(uint32_t)f->varint}, sizeof(uint32_t));
    } else if (w->wire == EP_PROTO_FIXED64) {
        double d = ep_proto_double(f->bytes);
        m->has_impact = true;
        memcpy(to, &d, sizeof d);
        return d - d == 0; /* neither infinite nor none */
    } else {
        memcpy(to, &f->bytes, sizeof f->bytes);
        return is_utf8(f->bytes);
    }
    return true;
}

static bool read_fields(struct ep_str text, const struct wanted *wanted, size_t n, uint64_t routing, struct ep_bus_message *m)
{
    struct ep_proto_field f;

    while (text.n) {
        if (!ep_proto_next(&text, &f))
            return false;
        for (size_t i = 0; i < n; i++)
            if (wanted[i].number == f.number && !keep(m, &wanted[i], &f))
                return false;
        if (routing && f.number == routing &&
            (f.wire != EP_PROTO_BYTES || !read_fields(f.bytes, of_routing, EP_COUNT(of_routing), 0, m)))
            return false;
    }
    return true;
}

bool ep_bus_decode(struct ep_str text, struct ep_bus_message *m)
{
    *m = (struct ep_bus_message){.has_impact = false};
    return read_fields(text, of_message, EP_COUNT(of_message), EP_BUS_MESSAGE_ROUTING, m);
}
