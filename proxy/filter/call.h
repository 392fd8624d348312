/* The call record: what an agent asks for, whatever the protocol. Filled once by the `agent` filter, read by
 * policies, metrics, the access log, the audit, `authorize` and chaos. */
#ifndef EP_FILTER_CALL_H
#define EP_FILTER_CALL_H

#include "base/base.h"

struct ep_stream;
struct ep_refusal;
struct ep_model_request; /* agent/model.h */

enum ep_visible { EP_VISIBLE_FULL, EP_VISIBLE_HEADERS, EP_VISIBLE_NONE };
enum ep_blind_reason {
    EP_BLIND_NOT, EP_BLIND_ENCRYPTED, EP_BLIND_ENCODING, EP_BLIND_TOO_LARGE, EP_BLIND_STREAMED,
    EP_BLIND_UNKNOWN, EP_BLIND_REASONS
};
const char *ep_blind_reason_name(enum ep_blind_reason r);

/* What a protocol of several carriers came in; who has one carrier has none. */
enum ep_binding { EP_BINDING_NONE, EP_BINDING_JSONRPC, EP_BINDING_REST, EP_BINDING_GRPC };

struct ep_call {
    struct ep_str protocol;   /* "mcp", "a2a", "grpc", "openai", "anthropic", "acgs2", "http", "tcp" */
    struct ep_str version;    /* of the protocol: "2025-06-18"; empty: unknown */
    struct ep_str method;     /* "tools/call"; gRPC: the method; HTTP: the HTTP method */
    struct ep_str service;    /* gRPC */
    struct ep_str tool;       /* MCP tool, A2A skill */
    struct ep_str uri, prompt_name;
    struct ep_str model, agent, task, session, tenant, id_text;
    struct ep_str id_raw;     /* the JSON-RPC id's bytes, verbatim, quotes included; empty: a notification */
    struct ep_str impact;     /* raw JSON number, 0.0 to 1.0; empty: none */
    struct ep_str arguments;  /* raw JSON; empty: none */
    struct ep_str context;    /* A2A: what the task belongs to */
    struct ep_str parts;      /* A2A: of the message, raw JSON, as its version has them; empty: none */
    struct ep_str parts_text; /* their text, made when it is first asked for */
    enum ep_binding binding;
    struct ep_model_request *to_model; /* what a language model is asked; NULL: this is for none */
    struct ep_str priority;   /* of a message of the agent bus: low, normal, high, critical; empty: none */
    struct ep_str recipient, conversation, hash; /* of such a message: to whom, of what, the constitution it names */
    struct ep_str claimed_tenant; /* … and the tenant that it says it is of: nobody has verified that */
    struct ep_str body;       /* whole body when it was read; empty: not */
    bool notification, batch, stream;
    bool answered_elsewhere;       /* MCP 2024-11-05: answers come on another stream, which a refusal can't reach */
    bool wants_sse, wants_json;    /* what Accept lists */
    enum ep_visible visible;
    enum ep_blind_reason blind;
    struct ep_call *next;     /* further calls of a batch; the first is the one in the stream */
};

/* How one protocol says no. One per protocol, in its own file; plain HTTP is the default. */
struct ep_protocol {
    const char *name;
    /* Answers the stream with the refusal before any response byte was sent (ep_stream_reply and friends). */
    void (*refuse)(struct ep_stream *s, const struct ep_refusal *r);
    /* Ends a response that has begun; NULL: reset. */
    void (*refuse_midstream)(struct ep_stream *s, const struct ep_refusal *r);
};
extern const struct ep_protocol ep_protocol_http, ep_protocol_tcp;

enum ep_refusal_kind {
    EP_REFUSE_POLICY,       /* 403 */
    EP_REFUSE_UNAUTHORIZED, /* 401-like: who are you; on the wire 403, never a login dance for agents */
    EP_REFUSE_LIMIT,        /* 429 */
    EP_REFUSE_TOO_LARGE,    /* 413 */
    EP_REFUSE_BAD_REQUEST,  /* 400 */
    EP_REFUSE_NO_ROUTE,     /* 404 */
    EP_REFUSE_UNAVAILABLE,  /* 503: no endpoint, breaker open, overload */
    EP_REFUSE_UPSTREAM,     /* 502: connect or protocol failure */
    EP_REFUSE_TIMEOUT,      /* 504 */
    EP_REFUSE_FAULT,        /* chaos: `status` says */
    EP_REFUSE_INTERNAL,     /* 500 */
    EP_REFUSE_KINDS
};

struct ep_refusal {
    enum ep_refusal_kind kind;
    struct ep_str policy;       /* who: the policy, or the filter's name */
    struct ep_str policy_version; /* may be empty */
    struct ep_str principle;    /* "P3"; may be empty */
    struct ep_str principle_text; /* what it says; filled by ep_stream_refuse from the bundle */
    struct ep_str reason;       /* for the caller: why, in a sentence; never secrets, never the right hash */
    const char *code;           /* stable, dotted: "constitution.mismatch", "policy.denied", "upstream.connect" */
    unsigned status;            /* HTTP status when the kind's is not the one; 0: the kind's */
    int grpc_status;            /* -1: from the kind */
    uint32_t retry_after_s;     /* 0: none */
    struct ep_str limit, limit_policy; /* of a limit: values of RateLimit and RateLimit-Policy; empty: not told */
    int jsonrpc_code;           /* of the JSON-RPC error, where that is the caller's protocol; 0: the HTTP status */
    const struct ep_call *call; /* of a batch the one that it is about; NULL: the stream's */
};
unsigned ep_refusal_status(const struct ep_refusal *r);
unsigned ep_refusal_grpc_status(const struct ep_refusal *r);

#endif
