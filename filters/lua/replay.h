/* Private to the replay: what c:http was answered then. */
#ifndef EP_LUA_REPLAY_H
#define EP_LUA_REPLAY_H

#include "lua/record_line.h"
#include "lua/testing.h"

struct ep_http_call_request;
struct ep_http_call_reply;
struct ep_replay_answer;

struct ep_replay_http {
    bool known; /* the record has what was asked, be it nothing */
    struct ep_arena *arena;
    struct ep_replay_answer *answers, *given; /* of the line; and the last one that was given */
    struct ep_str missing; /* the first question of the policy that is asked which has no answer; empty: none */
};

/* Reads "http" of the line at `table`. Raises. */
void ep_replay_http_read(struct ep_replay_http *h, lua_State *L, int table, struct ep_arena *arena);
/* The answer to the same question of the same policy, each once, in the order they came. False: there is none, and `missing`
 * says so. */
bool ep_replay_http_answer(struct ep_replay_http *h, struct ep_str policy, struct ep_str cluster,
                           const struct ep_http_call_request *q, struct ep_http_call_reply *out);
/* Why the body of the last answer is not as it was; empty: it is. */
struct ep_str ep_replay_http_lost_body(const struct ep_replay_http *h);
/* The same of a header of any answer; `name` empty: of all of them. */
struct ep_str ep_replay_http_lost_header(const struct ep_replay_http *h, struct ep_str name);

#endif
