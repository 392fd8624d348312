/* Responses of events on their way to the caller. agent.h has the contract.
 *
 * Nothing is read of them here: an empty line ends an event, and that is all that is looked for. What policies judge they
 * split for themselves, before. */
#include "agent/agent.h"
#include "agent/events.h"

struct ep_agent_live {
    struct ep_events events;
    bool whole; /* only whole events go on */
    unsigned told;
};

struct ep_agent_live *ep_agent_live_new(struct ep_stream *s)
{
    struct ep_agent_live *l;

    if (!ep_stream_response_is_events(s))
        return NULL;
    l = EP_ARENA_NEW(&s->arena, struct ep_agent_live);
    ep_events_init(&l->events, EP_EVENT_BYTES_MAX);
    l->whole = s->protocol->refuse_midstream != NULL;
    return l;
}

void ep_agent_live_pass(struct ep_agent_live *l, struct ep_stream *s, struct ep_body *b, bool end)
{
    if (!l->whole) {
        ep_events_look(&l->events, b);
    } else if (ep_events_pass(&l->events, b, end && !s->midway, &s->worker->slabs, NULL, NULL) == EP_EVENTS_TOO_LARGE) {
        ep_events_release(&l->events, b, &s->worker->slabs); /* so long an event is no reason to break the stream */
        l->whole = false;
    }
    if (l->events.n != l->told)
        ep_stream_events_passed(s, l->events.n - l->told);
    l->told = l->events.n;
}

void ep_agent_live_free(struct ep_agent_live *l)
{
    if (l)
        ep_events_fini(&l->events);
}
