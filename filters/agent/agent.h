/* What the filter `agent` and the protocols it knows share.
 *
 * A protocol is one file with one struct ep_agent_protocol: it looks at the head, at a parsed JSON body if there is
 * one, fills the call record, and says how to refuse. What several need stands in this header. */
#ifndef EP_AGENT_AGENT_H
#define EP_AGENT_AGENT_H

#include "agent/json.h"
#include "filter/filter.h"
#include "filter/refusal.h"
#include "http/decode.h"

/* What the protocols look at in a head, found in one pass over it. */
struct ep_agent_head {
    struct ep_str method, path; /* path without query and without one slash at its end */
    struct ep_str meant;        /* the path as a lenient server may take it (ep_path_meant) */
    struct ep_str content_type;
    struct ep_codings codings; /* of the body */
    struct ep_str mcp_version, mcp_session, mcp_method, mcp_name, a2a_version, anthropic_version;
    bool post, end;             /* end: nothing follows the head */
    bool names_json, names_sse; /* Accept does, not by a wildcard: MCP asks for both */
    bool names_a2a;             /* … application/a2a+json */
    bool coding_unknown;        /* one of the codings, or they are too many */
    bool content_types_differ;  /* two of them, and who knows which one the server takes */
};

enum ep_agent_claim {
    EP_AGENT_NO,
    EP_AGENT_HEAD, /* mine, and the head says all there is to see */
    EP_AGENT_BODY, /* mine, and the body says the rest */
    EP_AGENT_MESSAGE, /* mine, and the body, which is one message of gRPC, says the rest */
};

enum ep_agent_verdict { EP_AGENT_NOT_MINE, EP_AGENT_MINE, EP_AGENT_REFUSED };

struct ep_agent_protocol {
    struct ep_protocol how; /* first: stream->protocol points here */
    enum ep_agent_claim (*head)(struct ep_stream *s, const struct ep_agent_head *h);
    /* A JSON body that was read whole. `claimed`: the head was this protocol's. May refuse. NULL: not JSON. */
    enum ep_agent_verdict (*body)(struct ep_stream *s, const struct ep_agent_head *h, const struct ep_scan *json,
                                  bool claimed);
    /* The message of a body of gRPC, after EP_AGENT_MESSAGE; MINE or REFUSED. */
    enum ep_agent_verdict (*message)(struct ep_stream *s, struct ep_str message, struct ep_scanner *scanner);
};

/* agent.c: the protocol that calls are said to be of; NULL: none of these (plain HTTP, TCP). */
const struct ep_agent_protocol *ep_agent_protocol_find(struct ep_str name);
/* tenant.c: fills call.tenant, `by_route` where a route of the chain says something of it. False: it is named twice, and the
 * stream was refused. */
bool ep_agent_tenant(struct ep_stream *s, bool by_route);
/* What `{tenant}` of the pattern stands for in an ID; empty: it doesn't fit. */
struct ep_str ep_agent_tenant_of(struct ep_str pattern, struct ep_str id);

#define X(symbol) extern const struct ep_agent_protocol ep_agent_##symbol;
#include "agent/protocols.def"
#undef X

static inline struct ep_str ep_agent_str(struct ep_scan_text t)
{
    return ep_str_n(t.p, t.n);
}

/* --- the body, in agent/body.c --- */

/* A copy of the body with EP_SCAN_PADDING bytes behind it. */
struct ep_str ep_agent_copy(struct ep_arena *arena, struct ep_body *b);
/* A request's, likewise: where it lies, when it is one slice with room in its slab, else a copy in the stream's arena. */
struct ep_str ep_agent_body(struct ep_stream *s, struct ep_body *b);
/* The same, decoded; at most max_body of the listener. EP_BLIND_NOT, or why it can't be seen. */
enum ep_blind_reason ep_agent_decoded(struct ep_stream *s, const struct ep_codings *c, struct ep_body *b,
                                      struct ep_str *out);
/* Whether it begins, behind white space and a byte order mark, like an object or an array. */
bool ep_agent_may_be_json(struct ep_body *b);

/* --- responses of events, in agent/live.c --- */

/* Counts and times events on their way to the caller. Where the protocol can end a stream by an event of its own, only whole
 * events go on, so that what was cut upstream never stands in front of it. NULL: they can't be read. */
struct ep_agent_live;
struct ep_agent_live *ep_agent_live_new(struct ep_stream *s);
void ep_agent_live_pass(struct ep_agent_live *l, struct ep_stream *s, struct ep_body *b, bool end);
void ep_agent_live_free(struct ep_agent_live *l); /* NULL: nothing */

/* --- refusing, for the protocols --- */

/* Whether the response under way is server-sent events that an event of ours can end. */
bool ep_agent_midstream_events(const struct ep_stream *s);
/* Ends it with one event; the blank line in front ends an event that was cut. `name` may be empty. */
void ep_agent_end_by_event(struct ep_stream *s, struct ep_str name, struct ep_str json);

/* A refusal of the form of a request: 400 in the protocol's own form; `jsonrpc_code` where that is JSON-RPC's, else 0. */
#define EP_JSONRPC_PARSE_ERROR     (-32700)
#define EP_JSONRPC_INVALID_REQUEST (-32600)
enum ep_agent_verdict ep_agent_bad_request(struct ep_stream *s, const char *code, struct ep_str reason,
                                           int jsonrpc_code);

/* Language models, OpenAI's and Anthropic's: the answer, with the body that `error` makes. */
struct ep_json;
void ep_agent_llm_answer(const struct ep_refusal *r, struct ep_str body, struct ep_str id_header, struct ep_str id,
                         struct ep_arena *arena, struct ep_answer *out);
/* The end of a path, at a border of a segment: "/v1/messages" of "/x/v1/messages". */
bool ep_agent_path_ends(struct ep_str path, struct ep_str suffix);

/* --- answers as values, for tests --- */
void ep_mcp_answer(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                   struct ep_arena *arena, struct ep_answer *out);
struct ep_str ep_mcp_events(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                            struct ep_arena *arena);
/* In place of an answer that had begun: a JSON-RPC error with the call's id. */
struct ep_str ep_mcp_error(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                           struct ep_arena *arena);
/* gRPC's refusals, for protocols over it. */
void ep_grpc_refuse(struct ep_stream *s, const struct ep_refusal *r);
void ep_grpc_refuse_midstream(struct ep_stream *s, const struct ep_refusal *r);
/* What grpc-message says: as text, and percent-encoded as the protocol asks (what is not printable ASCII, and % itself). */
struct ep_str ep_grpc_text(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena);
struct ep_str ep_grpc_message(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena);
struct ep_str ep_openai_error(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena);
struct ep_str ep_anthropic_error(const struct ep_refusal *r, struct ep_str id, struct ep_arena *arena);
/* Undoes =?base64?…?= of an Mcp-Name; anything else is itself. False when it is broken. */
bool ep_mcp_decode_header(struct ep_str value, struct ep_arena *arena, struct ep_str *out);

#endif
