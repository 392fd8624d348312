/* A leg: one half of a stream, as its codec sees it: a request and its response on one connection.
 *
 * Every proxied stream has two legs, the downstream one (we are the server) and the upstream one (we are the
 * client). The three codecs (h2, h1, tcp) look the same from here: `ops` is what the owner may ask of the
 * codec, `events` what the codec tells the owner. On a server leg on_headers brings the request and
 * ops->headers sends the response; on a client leg it is the other way round.
 *
 * Rules, the same for all codecs:
 *  - ops never call events from inside themselves; events may call ops. A codec defers where it must.
 *  - Header tables handed to ops stay alive and unchanged until the leg is closed (nghttp2 borrows them).
 *  - Body bytes are slices; ops->data takes over the reference. Nothing is copied.
 *  - Flow control: bytes of on_data count against the peer's window until the owner calls
 *    ops->consumed. The owner does so when they left through the other leg (events->on_sent there), or at
 *    once when it holds them on purpose (a policy that buffers), within its own limit.
 *  - on_reset is the last event of a leg that failed, on_end_both the last of one that went well; after
 *    either, or after ops->reset, no event follows. The owner then calls ops->release once, and the leg is gone.
 *  - A tunnel (CONNECT, WebSocket, opaque TCP) is a leg with `tunnel` set: bytes flow both ways until each
 *    side ends, and headers of the response are sent with end = false. */
#ifndef EP_HTTP_LEG_H
#define EP_HTTP_LEG_H

#include "http/headers.h"
#include "net/net.h"

struct ep_leg;

enum ep_http_version { EP_HTTP_NONE, EP_HTTP_1_0, EP_HTTP_1_1, EP_HTTP_2, EP_HTTP_TCP };

enum ep_reset {
    EP_RESET_CANCEL,      /* the peer or the owner has no more interest (h2 CANCEL) */
    EP_RESET_REFUSED,     /* not processed: safe to retry (REFUSED_STREAM, or beyond the id of a GOAWAY) */
    EP_RESET_PROTOCOL,    /* the peer broke the protocol, or we found that its message is bad */
    EP_RESET_INTERNAL,    /* INTERNAL_ERROR, and all codes without a row of their own */
    EP_RESET_CONNECTION,  /* the connection went away */
    EP_RESET_TIMEOUT,
    EP_RESET_TOO_LARGE,   /* ENHANCE_YOUR_CALM or a limit of ours */
    EP_RESET_NO_ERROR,    /* the server wants no more of the request; its response is whole */
    EP_RESET_COUNT
};
const char *ep_reset_name(enum ep_reset r); /* "cancel", "refused", … for metrics and logs */

struct ep_leg_ops {
    const char *name;     /* "h2", "http/1.1", "tcp" */
    /* Sends the head of the message. `end`: no body and no trailers follow. */
    void (*headers)(struct ep_leg *l, struct ep_headers *h, bool end);
    /* A 1xx response (server legs). 100 and 103 are forwarded, 101 is the h1 codec's own business. */
    void (*informational)(struct ep_leg *l, struct ep_headers *h);
    /* More body; takes the slice's reference. n may be 0 with end. */
    void (*data)(struct ep_leg *l, struct ep_slice s, bool end);
    /* The end of the message with trailers. An h1 server leg with a content-length drops them. */
    void (*trailers)(struct ep_leg *l, struct ep_headers *h);
    /* n bytes of on_data were taken care of: the peer may send as many again. */
    void (*consumed)(struct ep_leg *l, size_t n);
    /* Ends the exchange from our side now: RST_STREAM, or closing an h1 connection. */
    void (*reset)(struct ep_leg *l, enum ep_reset why);
    /* The owner will not touch the leg again. An unfinished exchange is reset first. */
    void (*release)(struct ep_leg *l);
};

struct ep_leg_events {
    /* Head of the message. The table lives in arena given to the leg, until it is released. */
    void (*on_headers)(struct ep_leg *l, struct ep_headers *h, bool end);
    void (*on_informational)(struct ep_leg *l, struct ep_headers *h); /* client legs; may be NULL */
    /* Borrowed slice: take a reference to keep it. n may be 0 with end. */
    void (*on_data)(struct ep_leg *l, struct ep_slice s, bool end);
    void (*on_trailers)(struct ep_leg *l, struct ep_headers *h); /* ends the message */
    /* n body bytes given to ops->data have been handed to the connection. */
    void (*on_sent)(struct ep_leg *l, size_t n);
    /* The message we send is wholly in the kernel's hands, as far as can be told. */
    void (*on_message_sent)(struct ep_leg *l);
    void (*on_reset)(struct ep_leg *l, enum ep_reset why);
};

/* Begins the codec's own struct of an exchange. */
struct ep_leg {
    const struct ep_leg_ops *ops;
    const struct ep_leg_events *events;
    void *owner;
    struct ep_conn *conn;          /* NULL once the connection is gone */
    struct ep_arena *arena;        /* of the owner: headers received are put here */
    enum ep_http_version version;
    bool server;
    bool tunnel;
    bool recv_ended;               /* the peer's message is whole */
    bool send_ended;               /* ours is, as given to ops */
    bool over;                     /* reset or connection gone: ops are no-ops */
    bool head_request;             /* HEAD: the response has no body */
    struct ep_str reason;          /* h1 server legs: the reason phrase, when it isn't the status's own */
    bool unanswered;               /* h1 client legs, valid in on_reset: not one byte of a response came */
    struct ep_body out;            /* body bytes given and not yet on the connection */
};

static inline size_t ep_leg_pending(const struct ep_leg *l)
{
    return l->out.bytes;
}

/* Whoever accepts requests: called by a server codec when a request begins. It must set leg->events,
 * leg->owner and leg->arena; false refuses the stream (503 or REFUSED_STREAM by the codec). `user` is what the
 * codec was started with. */
struct ep_acceptor {
    bool (*on_request)(void *user, struct ep_leg *l);
    /* A request that never became one: bad bytes, over a limit. The codec has answered by itself
     * (status, or 0 when the connection or stream was just reset). For counting, logging and audit. */
    void (*on_refused)(void *user, struct ep_conn *c, unsigned status, const char *reason);
    void (*on_closed)(void *user, struct ep_conn *c, enum ep_close why); /* the connection is gone */
};

/* Limits and timers of a codec, from the listener or the cluster. Values of 0 are never "none": fill with
 * ep_http_options_preset first. */
struct ep_http_options {
    uint32_t max_streams;             /* h2 concurrent streams of the peer: 256 */
    uint32_t max_header_bytes;        /* 64 KiB */
    uint32_t max_header_count;        /* 100 */
    uint32_t max_request_line;        /* 16 KiB */
    uint32_t stream_window;           /* h2 receive window a stream: 256 KiB; also h1's and tcp's credit */
    uint32_t connection_window;       /* 1 MiB */
    uint64_t headers_timeout_ns;      /* 10 s: whole head */
    uint64_t idle_timeout_ns;         /* 5 min without a stream */
    uint64_t flush_timeout_ns;        /* 60 s: output that makes no progress */
    uint64_t ping_interval_ns;        /* h2 keep-alive; 0: none */
    uint64_t max_requests;            /* a connection; 0: no limit */
    bool extended_connect;            /* RFC 8441 */
};
void ep_http_options_preset(struct ep_http_options *o);

/* --- server side: takes over a connection, feeds `first`, makes legs. The options outlive the connection. */
void ep_h2_serve(struct ep_conn *c, const struct ep_http_options *o, const struct ep_acceptor *a, void *user,
                 struct ep_slab *slab, const unsigned char *first, size_t n);
void ep_h1_serve(struct ep_conn *c, const struct ep_http_options *o, const struct ep_acceptor *a, void *user,
                 struct ep_slab *slab, const unsigned char *first, size_t n);
void ep_tcp_serve(struct ep_conn *c, const struct ep_http_options *o, const struct ep_acceptor *a, void *user,
                  struct ep_slab *slab, const unsigned char *first, size_t n);
/* After ep_tcp_serve of a connection that was found opaque by its first bytes, not declared so: should its first line,
 * whole, call itself HTTP after all, the connection is reset (on_refused "late_http"). */
void ep_tcp_watch(struct ep_conn *c, const unsigned char *first, size_t n);
/* Begins the drain of a connection: h2 GOAWAY with the highest id, then with the last one after `grace_ns`;
 * h1 `connection: close` on the next response, idle ones closed. */
void ep_codec_drain(struct ep_conn *c, uint64_t grace_ns);
/* How a codec finds itself behind a connection's handler: one more vtable, beside ep_conn_handler. */
struct ep_codec {
    struct ep_conn_handler handler;   /* first: conn->handler points here */
    void (*drain)(struct ep_conn *c, uint64_t grace_ns);
    bool is_codec;
};

/* --- client side: a connection that is ready (or still connecting: requests wait in the codec for on_ready)
 * and can carry legs. The pool owns it through `user`. */
struct ep_client_events {
    /* The number of streams that can be opened changed, or became 0 for good (GOAWAY, close). */
    void (*on_capacity)(void *user, struct ep_conn *c);
    /* h1: the connection is idle again and may carry another request. */
    void (*on_idle)(void *user, struct ep_conn *c);
    void (*on_closed)(void *user, struct ep_conn *c, enum ep_close why);
};
void ep_h2_client(struct ep_conn *c, const struct ep_http_options *o, const struct ep_client_events *e, void *user);
void ep_h1_client(struct ep_conn *c, const struct ep_http_options *o, const struct ep_client_events *e, void *user);
void ep_tcp_client(struct ep_conn *c, const struct ep_http_options *o, const struct ep_client_events *e, void *user);

/* A new leg on a client connection of that codec; NULL when it can't carry another now. The caller sets
 * events, owner and arena at once. */
struct ep_leg *ep_h2_open(struct ep_conn *c);
struct ep_leg *ep_h1_open(struct ep_conn *c);
struct ep_leg *ep_tcp_open(struct ep_conn *c);
/* How many more legs can be opened now. */
unsigned ep_h2_capacity(struct ep_conn *c);
unsigned ep_h2_streams(struct ep_conn *c); /* open now */
unsigned ep_h2_peer_limit(struct ep_conn *c); /* SETTINGS_MAX_CONCURRENT_STREAMS of the peer; 100 before they came */
bool ep_h2_extended_connect(struct ep_conn *c); /* the peer allows RFC 8441 */

#endif
