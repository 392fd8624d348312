/* Messages of the ACGS-2 agent bus in JSON, as far as the call record needs them: an object with a message_type. They come under
 * plain HTTP, so they are refused as that is. ACGS2.md has their fields. */
#include "agent/agent.h"

static struct ep_str text_of(const struct ep_scan_value *v)
{
    return v->kind == EP_SCAN_STRING ? ep_agent_str(v->text) : (struct ep_str){NULL, 0};
}

static struct ep_str first_of(const struct ep_scan_value *a, const struct ep_scan_value *b, const struct ep_scan_value *c)
{
    struct ep_str s = text_of(a);

    if (!s.n)
        s = text_of(b);
    return s.n ? s : text_of(c);
}

/* The bus's API says low, normal, high, critical; its messages 0 to 3, of which 1 is called medium. */
static struct ep_str priority_of(const struct ep_scan_value *v)
{
    static const char *const names[] = {"low", "normal", "high", "critical"};
    struct ep_str s = ep_agent_str(v->text);
    uint64_t n;

    if (v->kind == EP_SCAN_NUMBER)
        return ep_str_u64(s, &n) && n < EP_COUNT(names) ? ep_str(names[n]) : s;
    if (v->kind != EP_SCAN_STRING)
        return (struct ep_str){NULL, 0};
    if (ep_str_caseeq(s, EP_STR("medium")))
        return ep_str(names[1]);
    for (size_t i = 0; i < EP_COUNT(names); i++)
        if (ep_str_caseeq(s, ep_str(names[i])))
            return ep_str(names[i]);
    return s;
}

bool ep_agent_bus_message(struct ep_call *c, const struct ep_scan *json)
{
    const struct ep_scan_message *m = json->first;

    if (json->batch || !m || !m->is_object || m->message_type.kind != EP_SCAN_STRING || m->jsonrpc.kind)
        return false;
    c->protocol = EP_STR("acgs2");
    c->method = text_of(&m->message_type);
    c->agent = first_of(&m->from_agent, &m->sender_id, &m->sender);
    c->priority = priority_of(&m->priority);
    c->impact = m->impact_score.kind == EP_SCAN_NUMBER ? ep_agent_str(m->impact_score.raw) : (struct ep_str){NULL, 0};
    return true;
}
