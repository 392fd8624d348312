/* A stream: one request and its response, from the downstream codec through the filters to the upstream one.
 *
 * It owns both legs, both messages, the arena that all of it lives in, and its time line. The chain
 * (chain.c) walks the filters; the router, always the last filter, makes the upstream leg. */
#ifndef EP_FILTER_STREAM_H
#define EP_FILTER_STREAM_H

#include "filter/call.h"
#include "filter/usage.h"
#include "http/http.h"

struct ep_chain;
struct ep_route;
struct ep_server_listener;
struct ep_upstream_override;
struct ep_series; /* observe: the histograms and counters that this stream reports to */

enum ep_direction { EP_INBOUND, EP_OUTBOUND };

/* Whether the sidecar that sent it enforces the text of the constitution that we do (x-ephor-constitution). */
enum ep_peer_constitution { EP_PEER_CONSTITUTION_UNKNOWN, EP_PEER_CONSTITUTION_SAME, EP_PEER_CONSTITUTION_OTHER };

/* The time line, monotonic nanoseconds; 0: didn't happen. */
struct ep_timeline {
    uint64_t accepted;           /* the first byte of the request was there */
    uint64_t headers;            /* its head was parsed */
    uint64_t body_end;           /* its last byte came */
    uint64_t chain_done;         /* the last filter let it pass */
    uint64_t upstream_acquired;  /* a connection was there */
    uint64_t upstream_sent;      /* the request was written to it */
    uint64_t first_byte;         /* head of the response */
    uint64_t response_end;       /* its last byte came */
    uint64_t flushed;            /* and was written downstream */
    uint64_t filter_ns;          /* in filters, request and response, waiting included */
};

struct ep_message {
    struct ep_headers headers, trailers;
    struct ep_body body;         /* what filters hold back or have not let pass yet */
    struct ep_body *later;       /* came while a body step waits: no filter has seen it; NULL: never was needed */
    bool has_headers, has_trailers;
    bool ended;                  /* the last byte was received (or the message was made whole by a filter) */
    size_t owed;                 /* bytes received and not yet told consumed */
    size_t in_flight;            /* bytes given to the other leg that it has not sent yet */
    bool end_given;              /* the end was passed to the other side */
    uint64_t bytes;              /* of body, received */
};

/* Where a walk through the chain stands; one for each direction. Request walks count up, response walks down;
 * `at` is the filter whose turn it is, -1 or n_filters behind the last. */
struct ep_walk {
    int8_t at;
    bool started;                /* the head is there */
    bool headers_passed;         /* … and went through all filters */
    bool waiting;                /* EP_WAIT: until ep_stream_resume_* */
    bool passing, passing_end;   /* bytes are on their way through the body steps; with the end */
    bool buffering;              /* EP_BUFFER: until the whole body is there */
    bool running;                /* a step runs: resuming is for later */
    bool nudged;                 /* body steps are called next, though nothing may have come */
    bool trailers_passed;
    int8_t body_from;            /* body steps of filters before it had the whole body already */
    uint32_t buffered;           /* filters that had the whole body by EP_BUFFER: their body step is done */
    uint64_t waiting_since_ns;
};

/* What policies (c:tag) and scripts (dynamicMetadata) noted of a stream: a JSON value by namespace and key. */
struct ep_tag {
    struct ep_tag *next;
    struct ep_str space, key, value;
    size_t room; /* for the value */
};

#define EP_STREAM_MAX_FILTERS 24

struct ep_grpc_web;
struct ep_mcp_stream;
struct ep_stream {
    uint32_t magic;
    struct ep_worker *worker;
    struct ep_arena arena;
    struct ep_view *view;               /* the configuration it started with; one reference */
    struct ep_chain *chain;
    struct ep_server_listener *listener;
    enum ep_direction direction;
    struct ep_leg *down;                /* NULL once released */
    struct ep_leg *up;                  /* the router's; NULL when there is none */
    struct ep_message request, response;
    struct ep_walk request_walk, response_walk;
    void **filter_state;                /* one a filter of the chain */
    uint64_t *filter_ns;                /* likewise, when `timed` */
    struct ep_call call;
    struct ep_slab *call_slab;          /* that call's slices may point into: the report reads them last of all; or NULL */
    struct ep_usage *usage;             /* of a language model; made by `meter`, in the arena; NULL: none */
    const struct ep_protocol *protocol; /* how to refuse; never NULL */
    struct ep_str peer_id;              /* verified SPIFFE ID of the caller, else empty */
    const struct ep_route *route;       /* found lazily: ep_stream_route() */
    bool route_known;
    const struct ep_upstream_override *upstream_override; /* upstream.h: where it should go; NULL: by balancing */
    struct ep_cluster *routed_to;       /* by ep_stream_route_to; NULL: the route says */
    struct ep_str routed_to_name;
    struct ep_str endpoint;             /* where it went: "127.0.0.1:8080"; empty: nowhere yet */
    struct ep_str cluster_name;
    struct ep_str upstream_peer_id;     /* SPIFFE ID of the server when mTLS went out; else empty */
    struct ep_str trace_id, parent_id;  /* ep_stream_trace(): empty until somebody asked; the latter of a traceparent that came */
    struct ep_str span_id;              /* ep_stream_span(): ours; empty until somebody asked */
    struct ep_str request_id;
    struct ep_timeline time;
    unsigned status;                    /* of the response; 0: none yet */
    int grpc_status;                    /* -1: none */
    unsigned attempts;                  /* upstream tries */
    struct ep_tag *tags;                /* in the arena; each space and key once */
    struct ep_str decision_id;          /* set when something decided: in the reply, the log and the audit */
    struct ep_str denied_by, denied_code; /* of the refusal */
    const struct ep_call *denied_call;  /* of a batch the one that it is about; NULL: it is about all */
    const char *decision;               /* the first that was noted: "deny", "shadow_deny" …; NULL: none (decision.c) */
    struct ep_str decision_policy, decision_principle;
    unsigned denied_status;             /* its own, whatever the protocol made of it on the wire; 0: none */
    enum ep_peer_constitution peer_constitution;
    struct ep_list audit_node;          /* worker->unsettled: its record is on the way to the disk */
    uint64_t audit_seq;                 /* of that record */
    struct ep_refusal *refusal_waits;   /* for it; NULL: none */
    const char *response_flag;          /* "UF", "UT", "UO", "NR", "DC", "DI", "FI" …; NULL: none */
    bool refused;                       /* ep_stream_refuse was called */
    bool local_reply;                   /* the response is ours, not the upstream's */
    bool request_whole;                 /* the request's end left through the upstream leg */
    int8_t reply_from;                  /* the first filter whose response steps the pending reply passes */
    bool response_started;              /* head sent downstream */
    bool finished;                      /* both sides are done; finish() of the filters was called */
    bool fault_injected;
    bool tunnel;
    bool reply_pending;                 /* a reply of ours waits for the end of the turn */
    bool request_done;                  /* no more of the request is wanted */
    bool response_sent;                 /* our message downstream is whole and on its way */
    bool ending;                        /* the end is queued; events are ignored */
    bool down_over;                     /* the downstream leg gave up */
    bool timed;                         /* this stream's filters are measured one by one */
    bool live;                          /* the response is server-sent events: no request or idle time ends it */
    struct ep_arena *brief;             /* for what is said of one event of a stream that may live for days; NULL: the arena */
    struct ep_mcp_stream *mcp_session;  /* the response is the events of a session of MCP 2024-11-05 (agent/mcp_sessions.h); NULL: no */
    struct ep_grpc_web *grpc_web;       /* where such a response stands (agent/grpc.h); NULL: it is none */
    bool midway;                        /* the response ends by last_words, behind what has passed */
    struct ep_str last_words;
    uint64_t event_ns;                  /* when the last event passed; 0: none yet */
    bool trace_known, traced;           /* ep_stream_traced() */
    uint8_t trace_flags;                /* of traceparent */
    uint8_t current;                    /* filter whose step runs */
    uint64_t walk_clock_ns;             /* when it began, when `timed` */
    struct ep_task task;                /* deferred replies and the end */
    struct ep_timer timer;              /* the one timer: request deadline and idle time, whichever is next */
    uint64_t deadline_ns;               /* of the whole request; 0: none */
    uint64_t idle_limit_ns;             /* no byte either way; 0: none */
    uint64_t last_active_ns;
    void (*on_timeout)(struct ep_stream *s); /* the router's; NULL: refuse with 504 */
    struct ep_list node;                /* listener->streams */
    struct ep_str reply_body;
};

/* --- what filters may do --- */

struct ep_worker;
static inline struct ep_worker *ep_stream_worker(struct ep_stream *s) { return s->worker; }

/* Goes on after EP_WAIT; from a timer, a task or a callback of another connection, never from a step. */
void ep_stream_resume_request(struct ep_stream *s);
void ep_stream_resume_response(struct ep_stream *s);
/* The same, but the headers step that waited is called once more: for a filter that needs the whole body (EP_BUFFER)
 * after all. */
void ep_stream_again_request(struct ep_stream *s);
void ep_stream_again_response(struct ep_stream *s);

/* A filter has something of its own to say in the body of the response: the body steps are called, as soon as may be, with what
 * has come or with nothing. From a timer, a task or mail. */
void ep_stream_nudge_response(struct ep_stream *s);

/* Refuses in the caller's protocol, and stops the request chain: the step then returns EP_REPLIED. Counted,
 * logged and audited once. Before the response has begun the whole reply is the protocol's; in the middle of
 * one it ends the stream as the protocol can. Copies what it is given. */
void ep_stream_refuse(struct ep_stream *s, const struct ep_refusal *r);

/* Refuses one part of a response that goes on, in words that are the caller's to say: counted and audited, principle and decision
 * filled. What can't be audited and must be is refused for that. */
void ep_stream_refuse_part(struct ep_stream *s, struct ep_refusal *r);

/* A whole reply of our own: pseudo-headers are added; headers given are copied. For formatters and filters
 * that answer by themselves. `extra` may be NULL. With HEAD the body is left out. */
struct ep_reply_header { struct ep_str name, value; };
void ep_stream_reply(struct ep_stream *s, unsigned status, struct ep_str content_type, struct ep_str body,
                     const struct ep_reply_header *extra, size_t n_extra);
/* Trailers-only reply of gRPC: one HEADERS frame with END_STREAM. */
void ep_stream_reply_grpc(struct ep_stream *s, unsigned grpc_status, struct ep_str message);
/* Ends a response in the middle: sends `tail` as the last body bytes (or none) and ends the message. From a body step, what
 * that step lets pass goes out in front of it; what no filter has let pass is dropped. `tail` lives as long as the stream. */
void ep_stream_end_midway(struct ep_stream *s, struct ep_str tail);

/* Puts other bytes in place of the whole buffered body (after EP_BUFFER); content-length is mended. */
void ep_stream_set_request_body(struct ep_stream *s, struct ep_str body);
void ep_stream_set_response_body(struct ep_stream *s, struct ep_str body);

/* The route for the headers as they are now; NULL: none. ep_stream_clear_route after a header changed. */
const struct ep_route *ep_stream_route(struct ep_stream *s);
void ep_stream_clear_route(struct ep_stream *s);
/* The cluster in place of the route's own, whatever route it is in the end; of this view. False: no route matches now. */
struct ep_cluster;
bool ep_stream_route_to(struct ep_stream *s, struct ep_cluster *cluster, struct ep_str name);

/* Where what is needed for a moment goes: ep_stream.brief. */
static inline struct ep_arena *ep_stream_brief(struct ep_stream *s) { return s->brief ? s->brief : &s->arena; }

/* Shorthands. Slices are valid as long as the stream unless a filter changes the header. */
struct ep_str ep_stream_method(const struct ep_stream *s);
struct ep_str ep_stream_path(const struct ep_stream *s);      /* with the query */
struct ep_str ep_stream_authority(const struct ep_stream *s);
/* The caller in a label: "agents/planner" of spiffe://td/ns/agents/sa/planner, any other ID as it is, or "unknown". */
struct ep_str ep_stream_peer_label(struct ep_stream *s);

/* n events have passed to the downstream: counted and timed (ephor_events_…). */
void ep_stream_events_passed(struct ep_stream *s, unsigned n);
/* The process ends and the stream is still alive: events end by the protocol's error, plain ones by their end. */
void ep_stream_end_live(struct ep_stream *s);

/* From a response_headers step: the filter wants none of the body, and its body step isn't called. */
static inline void ep_stream_leave_response_body(struct ep_stream *s)
{
    s->response_walk.buffered |= 1u << s->current;
}

/* An id for the decision (uuid-like, made once a stream): decision_id. */
struct ep_str ep_stream_decision(struct ep_stream *s);

/* Starts or changes the stream's timer: a deadline from now for the whole request (0: none) and a limit of
 * silence (0: none). */
void ep_stream_set_timeouts(struct ep_stream *s, uint64_t request_ns, uint64_t idle_ns);

/* --- between the chain and the router (filters/router) --- */

/* The upstream leg's events arrive at the router, which passes them on by these. */
void ep_stream_response_headers(struct ep_stream *s, struct ep_headers *h, bool end);
void ep_stream_response_informational(struct ep_stream *s, struct ep_headers *h);
void ep_stream_response_data(struct ep_stream *s, struct ep_slice slice, bool end);
void ep_stream_response_trailers(struct ep_stream *s, struct ep_headers *h);
/* The upstream failed after the response began: the downstream is ended as the protocol can. */
void ep_stream_response_reset(struct ep_stream *s, enum ep_reset why);
/* n request bytes left through the upstream leg: the downstream's window may open. */
void ep_stream_request_sent(struct ep_stream *s, size_t n);
/* The request's end left too: the last thing that a tunnel whose server has ended waits for. */
void ep_stream_request_whole(struct ep_stream *s);
/* The downstream gave up or the stream ends: told to the router by its finish().
 * Aborts the whole stream: both legs reset, filters finished, freed at the end of the turn. */
void ep_stream_abort(struct ep_stream *s, enum ep_reset why);

#endif
