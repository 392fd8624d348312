/* link: ep_filters */
/* The agent bus's message, as protobuf and as JSON: nothing is read past the end, each hash told lies in the message, and
 * none that stands in a well-formed JSON object at its top goes untold. */
#include <stdlib.h>

#include "agent/bus.h"

#define CHECK(x) ((x) ? (void)0 : abort())

struct seen {
    struct ep_str text;
    unsigned n;
};

static bool in_place(void *user, struct ep_str given)
{
    struct seen *s = user;

    CHECK(given.p >= s->text.p && given.p + given.n <= s->text.p + s->text.n);
    return ++s->n < 100;
}

static bool told(void *user, struct ep_str given)
{
    struct seen *s = user;
    unsigned sum = 0;

    for (size_t i = 0; i < given.n; i++)
        sum += (unsigned char)given.p[i];
    return ++s->n < 100 || sum == 0;
}

/* What was decoded lies in the message, and whoever looks for hashes can follow it too and is told them. */
static void decode(struct ep_str text)
{
    struct ep_bus_message m;
    struct seen s = {text, 0};

    if (!ep_bus_decode(text, &m))
        return;
    const struct ep_str all[] = {m.message_id, m.conversation_id,     m.from_agent,      m.to_agent,       m.sender_id,
                                 m.tenant_id,  m.constitutional_hash, m.source_agent_id, m.target_agent_id, m.routing_hash};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        CHECK(!all[i].n || (all[i].p >= text.p && all[i].p + all[i].n <= text.p + text.n));
    CHECK(m.impact_score - m.impact_score == 0);
    CHECK(ep_bus_proto(text, in_place, &s) != EP_BUS_MALFORMED);
    CHECK((!m.constitutional_hash.n && !m.routing_hash.n) || s.n > 0);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    char *exact = n ? malloc(n) : NULL;
    struct ep_str impact = {NULL, 0};
    bool unnamed;
    struct seen s = {ep_str_n(exact, n), 0};

    if (!exact)
        return 0;
    memcpy(exact, data, n);
    (void)ep_bus_proto(s.text, in_place, &s);
    s.n = 0;
    decode(s.text);
    if (ep_bus_may_be(s.text))
        (void)ep_bus_json(s.text, told, &s, &impact, &unnamed);
    CHECK(!impact.n || (impact.p >= s.text.p && impact.p + impact.n <= s.text.p + s.text.n));
    free(exact);
    return 0;
}
