/* A connection: a socket, or TLS over a socket, with one corked write a turn.
 *
 * Below it stands a transport (plain or TLS), above it a handler (a codec, the sniffer, the prober).
 * Reading: on_data gets bytes that lie in a slab of the worker; who wants to keep them takes a reference.
 * Writing: ep_conn_write copies small things into the connection's own slab, ep_conn_write_slice queues a
 * reference; nothing reaches the socket before the end of the turn, when on_flush has asked the codec for
 * what it still has to say. A connection is never freed inside its own callback: ep_conn_close marks it,
 * and the end of the turn frees it, after on_closed, which is the last call that a handler gets. */
#ifndef EP_NET_CONN_H
#define EP_NET_CONN_H

#include <event2/event_struct.h>

#include "net/worker.h"

struct ep_conn;
struct ep_tls;         /* net/tls.h: state of one TLS connection */
struct ep_tls_context; /* net/tls.h: certificates and rules, shared */
struct ep_tls_origin;  /* net/tls.h: how a host outside is verified, shared */

enum ep_close {
    EP_CLOSE_LOCAL,     /* we asked for it, all was flushed */
    EP_CLOSE_EOF,       /* the peer ended both directions or sent FIN when we had nothing left to do */
    EP_CLOSE_RESET,     /* ECONNRESET, EPIPE and the like */
    EP_CLOSE_CONNECT,   /* connect failed; see error */
    EP_CLOSE_TLS,       /* handshake or record failure; see error text */
    EP_CLOSE_TIMEOUT,   /* a timer of the connection */
    EP_CLOSE_LIMIT,     /* a limit of ours */
    EP_CLOSE_NOT_H2,    /* asked in HTTP/2, the peer answered in something else: it has processed nothing */
};
const char *ep_close_name(enum ep_close why);

struct ep_conn_handler {
    const char *name;
    /* A client connection is ready: connected, and with TLS, handshake done and ALPN known. For a server
     * connection with TLS: handshake done. Not called for a plain server connection. May be NULL. */
    void (*on_ready)(struct ep_conn *c);
    /* n > 0 bytes at p, inside slab. Take a reference (ep_slab_ref) to keep them. */
    void (*on_data)(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n);
    /* The peer will send no more. The handler decides whether to close; NULL: close. */
    void (*on_eof)(struct ep_conn *c);
    /* End of turn: put what is left to say into the output. Called when ep_conn_want_flush was. May be NULL. */
    void (*on_flush)(struct ep_conn *c);
    /* All output has reached the kernel after it was stuck, or fell below the low-water mark. May be NULL. */
    void (*on_drained)(struct ep_conn *c);
    /* The last call. `c` is valid until it returns. */
    void (*on_closed)(struct ep_conn *c, enum ep_close why);
};

#define EP_CONN_OUT_HIGH (256u * 1024u) /* codecs stop adding body bytes above this */
#define EP_CONN_OUT_LOW (64u * 1024u)   /* on_drained comes below this */

struct ep_conn {
    uint32_t magic;
    struct ep_worker *worker;
    int fd;
    struct event event;           /* EV_READ | EV_PERSIST, with EV_WRITE only while output is stuck */
    short interest;               /* what is set in the kernel now */
    const struct ep_conn_handler *handler;
    void *user;                   /* of the handler */
    struct ep_tls *tls;           /* NULL: plain */
    struct ep_body out;           /* what waits for the socket (plain text under TLS) */
    struct ep_body cipher;        /* under TLS: records that wait for the socket */
    struct ep_slab *out_slab;     /* small writes are packed here */
    uint32_t out_used;
    struct ep_list node;          /* worker->conns */
    struct ep_list flush_node;    /* worker->flushes */
    struct ep_list doomed_node;
    struct ep_timer timer;        /* one deadline: connect, handshake, headers, idle, flush: the phase says */
    enum ep_close closing_why;
    bool is_server, connecting, ready;
    bool read_paused;             /* by ep_conn_pause_read */
    bool write_stuck;             /* waiting for EV_WRITE */
    bool eof_in, shut_out;        /* peer's FIN seen; we sent ours */
    bool shut_out_wanted;         /* after the output is flushed */
    bool close_wanted, closed;    /* after the output is flushed; doomed */
    bool silent_probed;           /* who speaks first was looked into for it */
    bool drained_early;           /* told to go before its protocol was known */
    bool sealed;                  /* TLS that isn't ended here: its bytes are passed on as they are */
    bool name_hidden;             /* its ClientHello has ECH: server_name may not be the true one */
    char *server_name;            /* the host that its ClientHello asked for (ep_host_normalise); owned; NULL: none */
    struct ep_tls_origin *origin; /* its TLS is ended here in the place of that host; a reference; NULL: it isn't */
    void *user_listener;          /* the listener that accepted it; NULL on the client side */
    bool lingering;               /* we sent FIN and read on, so that unread bytes don't turn into a reset */
    bool write_failed;            /* the peer takes no more; what it said before is still read */
    uint64_t close_seen_out;      /* bytes_out at the last look of a close that waits for its output */
    int error;                    /* errno of what failed, 0 if none */
    char error_text[128];         /* for logs: "certificate verify failed: …" */
    struct ep_addr peer, local;
    struct ep_addr original;      /* original destination (SO_ORIGINAL_DST, TPROXY or PROXY v2); len 0: none */
    uint64_t opened_ns, ready_ns; /* monotonic */
    uint64_t bytes_in, bytes_out;
};

/* Takes over a connected descriptor of an accept. Non-blocking, TCP_NODELAY set. NULL when memory or the
 * event can't be had; the descriptor is then closed. With tls != NULL the handshake starts at once
 * (`first` bytes that were read before are fed to it) and on_ready follows. */
struct ep_conn *ep_conn_accept(struct ep_worker *w, int fd, const struct ep_addr *peer,
                               const struct ep_conn_handler *h, void *user);
/* Dials. `on_ready` or `on_closed(EP_CLOSE_CONNECT | _TLS | _TIMEOUT)` follows, never from inside this call.
 * tls may be NULL; `server_name` is the SNI and, unless the context checks SPIFFE IDs, the name verified.
 * `bind` may be NULL. */
struct ep_conn *ep_conn_connect(struct ep_worker *w, const struct ep_addr *to, const struct ep_addr *bind,
                                uint64_t timeout_ns, struct ep_tls_context *tls, struct ep_str server_name,
                                const struct ep_conn_handler *h, void *user);
/* Starts TLS as a server on a plain connection whose first bytes (a ClientHello) were already read. */
bool ep_conn_start_tls_server(struct ep_conn *c, struct ep_tls_context *ctx, const void *first, size_t n);

/* Hands the connection to another handler; what was read and not consumed is given by the caller. */
void ep_conn_set_handler(struct ep_conn *c, const struct ep_conn_handler *h, void *user);
/* The same for a codec: true when the connection is ready, so that it can start; else the deadline of the dial or the
 * handshake goes on, and the handler's on_ready follows. */
bool ep_conn_adopt(struct ep_conn *c, const struct ep_conn_handler *h, void *user);

void ep_conn_write(struct ep_conn *c, const void *p, size_t n);        /* copies */
unsigned char *ep_conn_reserve(struct ep_conn *c, size_t n);           /* n <= 4096: room to write in place … */
void ep_conn_commit(struct ep_conn *c, size_t n);                      /* … and how much was used */
void ep_conn_write_slice(struct ep_conn *c, struct ep_slice s);        /* takes the reference */
static inline size_t ep_conn_pending(const struct ep_conn *c)          /* bytes not yet taken by the kernel */
{
    return c->out.bytes + c->cipher.bytes;
}
/* Asks for on_flush and a write at the end of this turn. Every write asks by itself. */
static inline void ep_conn_want_flush(struct ep_conn *c)
{
    if (!ep_list_linked(&c->flush_node))
        ep_list_push(&c->worker->flushes, &c->flush_node);
}

/* Lets the system probe a peer that is silent for a minute: one that is gone is found within two. */
void ep_conn_keep_alive(struct ep_conn *c);

void ep_conn_pause_read(struct ep_conn *c);
void ep_conn_resume_read(struct ep_conn *c);

/* Closes when the output is flushed, or makes no progress for ten seconds. No on_data follows. */
void ep_conn_close(struct ep_conn *c);
/* FIN (close_notify with TLS) after the output; reading goes on. */
void ep_conn_shutdown(struct ep_conn *c);
/* Closes now, dropping the output; with `rst`, by a TCP reset (SO_LINGER 0). on_closed comes at the end of
 * the turn. */
void ep_conn_abort(struct ep_conn *c, enum ep_close why, bool rst);

/* The single deadline of the connection: past it the connection is aborted with EP_CLOSE_TIMEOUT,
 * unless the handler set `fire` itself. 0 stops it. */
void ep_conn_deadline(struct ep_conn *c, uint64_t after_ns);

#endif
