/* How policies watch a response of server-sent events, as it passes.
 *
 * Each policy that looks at events, or redacts them, is one stage; an event goes through the stages in the order of the
 * policies, and a stage sees what the one before made of it. What a stage asks for may span two events: the text of a
 * channel (agent/texts.h) is judged together with the end of what came before, and what could be the beginning of
 * something to redact is held back, in the stage, until more of it is there: it then goes out in the next event of that
 * channel, or, where the text ends, in one that is made for it. Whole events alone leave, in their order, and their JSON
 * stays JSON.
 *
 * Bounds: policies.stream_tail bytes before and behind, unless a hit has begun; HELD_MAX (watch.c) of that; CHANNELS_MAX
 * channels a stage. Beyond, the policy is blind. */
#ifndef EP_LUA_WATCH_H
#define EP_LUA_WATCH_H

#include "agent/events.h"
#include "agent/texts.h"
#include "lua/policy.h"

struct ep_redaction;

/* What a policy sees of one event, or of one text of it. */
struct ep_policy_event {
    const struct ep_event *event;
    const struct ep_event_text *text; /* NULL: the event has none */
    struct ep_str said;               /* the text, with what came before it in its channel */
    struct ep_str delta;              /* the text alone */
    struct ep_str tool;               /* whose arguments they are */
};

enum ep_policy_watched { EP_POLICY_WATCH_ON, EP_POLICY_WATCH_REFUSED };

struct ep_policy_watch;
/* `hearing` hears what is decided of each event; NULL: nobody does. */
struct ep_policy_watch *ep_policy_watch_new(struct ep_policy_set *set, struct ep_stream *s, struct ep_policy_hearing *hearing);
void ep_policy_watch_free(struct ep_policy_watch *w); /* NULL: nothing */
/* One more stage: the policy's `event` where it has one, and what its reply redacts (or NULL). In the order of policies. */
void ep_policy_watch_add(struct ep_policy_watch *w, struct ep_policy *p, const struct ep_redaction *rules);
/* Takes what came; `b` is then what may go on. `end`: nothing follows. REFUSED: by *who and *v; what is in `b` goes on before
 * that is said, and nothing of the stream after it. */
enum ep_policy_watched ep_policy_watch_pass(struct ep_policy_watch *w, struct ep_body *b, bool end,
                                            struct ep_slab_pool *slabs, struct ep_policy **who,
                                            struct ep_policy_verdict *v);
/* Instead: of one event that is a whole of its own, in stream->brief. *data is what may go on of it, there or the event's own. */
struct ep_policy_watch *ep_policy_watch_one(struct ep_policy_set *set, struct ep_stream *s);
enum ep_policy_watched ep_policy_watch_event(struct ep_policy_watch *w, const struct ep_event *e, struct ep_str *data,
                                             struct ep_policy **who, struct ep_policy_verdict *v);

#endif
