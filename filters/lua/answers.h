/* Policies on the stream of a session of MCP 2024-11-05, where answers to many calls pass (agent/mcp_sessions.h).
 *
 * Each answer is judged as of the call it belongs to, which is known by its id: by the policies that match that call,
 * their `reply` first, as of a stream of one event, then their `event`. One that is refused becomes a JSON-RPC error,
 * and the stream goes on. An answer whose call isn't known is out of sight: policies that may be meant are blind to it.
 * What is no answer belongs to the stream itself. */
#ifndef EP_LUA_ANSWERS_H
#define EP_LUA_ANSWERS_H

#include "lua/watch.h"

struct ep_policy_answers;
struct ep_policy_answers *ep_policy_answers_new(struct ep_policy_set *set, struct ep_stream *s);
void ep_policy_answers_free(struct ep_policy_answers *a); /* NULL: nothing */
/* Takes what came; `b` is then what may go on. False: an event is longer than may be read, and the stream was refused.
 */
bool ep_policy_answers_pass(struct ep_policy_answers *a, struct ep_body *b, bool end);
/* Whether the policy has something to say to answers. */
bool ep_policy_judges_answers(const struct ep_policy_set *set, const struct ep_policy *p);

#endif
