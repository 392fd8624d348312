/* Sessions of MCP's transport of 2024-11-05: event streams, opened by GET, that told their clients where to post.
 *
 * What a POST asks is answered on the stream, which is another request and perhaps another worker's. Whoever refuses
 * the POST gives the answer to this table; the stream's worker is told by mail, and says it between two events
 * (agent/mcp_filter.c).
 *
 * One table of the process with one lock, bounded. An entry is there as long as its stream, whatever configuration that
 * began with. The lock is taken when such a stream begins or ends and for POSTs that may belong to one; while there is
 * none, by nobody. A session that two streams have, or another process, is not known here. */
#ifndef EP_AGENT_MCP_SESSIONS_H
#define EP_AGENT_MCP_SESSIONS_H

#include "filter/stream.h"

#define EP_MCP_SESSIONS_MAX  65536u
#define EP_MCP_SAID_MAX      ((size_t)256 << 10) /* bytes that wait for the worker of one stream */
#define EP_MCP_ENDPOINT_MAX  4096u               /* bytes of a URI to post to */
#define EP_MCP_ARGUMENTS_MAX 4096u               /* bytes of a call's arguments that are kept for its answer */
#define EP_MCP_CALLS_MAX     ((size_t)64 << 10)  /* bytes that are kept of the calls of one session */

struct ep_mcp_sessions;
struct ep_mcp_session;

struct ep_mcp_sessions *ep_mcp_sessions_new(void);
/* When no worker runs any more. NULL: nothing. */
void ep_mcp_sessions_free(struct ep_mcp_sessions *t);

/* Whole events to say, in the worker of the stream; valid during the call. False: it is told no more before some of it
 * is read; `events` were taken all the same. May be empty: only asks whether that is so. */
typedef bool ep_mcp_hear(void *user, struct ep_str events);

/* Where the client of the stream `s` posts to, whose first event said `endpoint`: "authority\0path?query" (RFC 3986
 * section 5.2, without dots to resolve). In the arena; empty: nowhere by HTTP. */
struct ep_str ep_mcp_endpoint(struct ep_str authority, struct ep_str path, struct ep_str endpoint,
                              struct ep_arena *arena);
/* Enters a stream by what ep_mcp_endpoint gave. NULL: there is no table, no place, or no room. */
struct ep_mcp_session *ep_mcp_session_open(struct ep_stream *s, struct ep_str place, ep_mcp_hear *hear, void *user);
/* In the same worker. What was not heard yet is dropped. */
void ep_mcp_session_close(struct ep_mcp_session *session);

/* Of a POST, in any worker: whether its target is a session's. */
bool ep_mcp_session_is_known(struct ep_stream *post);
/* Says whole events on the stream that the POST belongs to. False: there is none here, or its client doesn't read. */
bool ep_mcp_session_say(struct ep_stream *post, struct ep_str events);

/* Of any POST that goes on: its calls, so that their answers are known on the stream; true: ep_mcp_session_unexpect may
 * follow. A client that could choose whose answer it gets would choose what is done to it. So an id under which two
 * calls wait is nobody's until both are answered, none is forgotten to make room, and after one for which there was
 * none, or that couldn't be seen, no answer of the session is known any more. */
bool ep_mcp_session_expect(struct ep_stream *post);
/* It won't be answered: it never went. */
void ep_mcp_session_unexpect(struct ep_stream *post);
/* In the worker of the stream: the call that an answer belongs to, in the arena. Its body isn't kept, nor are arguments
 * that are too long, which it is then blind to. False: it isn't known. */
bool ep_mcp_session_answered(struct ep_mcp_session *session, struct ep_str id_raw, struct ep_arena *arena,
                             struct ep_call *out);

/* What a stream that has become a session keeps of it: stream->mcp_session, made by the filter `mcp`, in the stream's
 * arena. */
struct ep_mcp_stream {
    struct ep_mcp_session *session; /* NULL: the table was full */
    struct ep_body say;             /* whole events of ours: `agent` puts them behind what passes next */
    /* A JSON-RPC error in place of an answer: the protocol's. */
    struct ep_str (*error)(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                           struct ep_arena *arena);
    struct ep_str method, target;   /* POST, path and query of what is posted; target empty: not by way of us */
};
/* Between two calls of it, the stream is the POST of `call` to who asks for its method, path and call. */
void ep_mcp_session_exchange(struct ep_stream *s, struct ep_call *call);

#endif
