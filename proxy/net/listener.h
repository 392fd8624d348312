/* Listeners and what happens between accept and the codec: PROXY v2, original destination, sniffing, TLS.
 *
 * A listener is a bound socket a worker (SO_REUSEPORT). What to do with a connection is a vtable of the
 * owner (filter/server.c binds it to codecs), so that net knows nothing of HTTP. */
#ifndef EP_NET_LISTENER_H
#define EP_NET_LISTENER_H

#include "net/conn.h"

enum ep_intercept { EP_INTERCEPT_NONE, EP_INTERCEPT_REDIRECT, EP_INTERCEPT_TPROXY };
enum ep_tls_mode { EP_TLS_OFF, EP_TLS_SIMPLE, EP_TLS_PERMISSIVE, EP_TLS_STRICT };

/* What the first bytes say. */
enum ep_sniff {
    EP_SNIFF_MORE,   /* not enough bytes yet */
    EP_SNIFF_TLS,
    EP_SNIFF_H2,     /* the client preface of RFC 9113 section 3.4 */
    EP_SNIFF_HTTP1,  /* a method token and a space, then a path */
    EP_SNIFF_OPAQUE,
};
/* Pure: decides from the first n bytes. A verdict stays as more bytes come, but for one: bytes that are opaque are HTTP/1
 * when their first line, once it is there, calls itself HTTP. The owner of an opaque connection goes on looking. */
enum ep_sniff ep_sniff_bytes(const unsigned char *p, size_t n);

/* PROXY protocol v2 (haproxy proxy-protocol.txt section 2.2). Returns the length of the header when whole, 0
 * when more is needed, -1 when it is none. Fills src/dst when the command is PROXY and the family is IP. */
int ep_proxy_v2_parse(const unsigned char *p, size_t n, struct ep_addr *src, struct ep_addr *dst);

struct ep_listener_options {
    struct ep_addr bind;
    enum ep_intercept intercept;
    bool proxy_protocol;
    bool opaque; /* what is inside isn't looked at: no byte is waited for, but of a ClientHello where TLS may end */
    int backlog;
    unsigned max_connections;
    uint64_t sniff_timeout_ns, handshake_timeout_ns;
};

struct ep_listener;
struct ep_client_hello; /* net/tls.h */

/* The owner's part. All are called in the listener's worker. */
struct ep_listener_ops {
    /* The TLS context for this ClientHello; NULL: TLS isn't ended here (opaque). */
    struct ep_tls_context *(*tls_context)(struct ep_listener *l, struct ep_conn *c, const struct ep_client_hello *hello);
    /* Whether plain text may come in; false closes a connection that isn't TLS (strict). */
    bool (*plaintext_allowed)(struct ep_listener *l, struct ep_conn *c);
    /* The connection is understood: give it a handler. `first` bytes (n may be 0) were read and are to be
     * fed to the new handler by the callee. `what` is H2, HTTP1, TLS (to be passed on unopened) or OPAQUE. */
    void (*on_protocol)(struct ep_listener *l, struct ep_conn *c, enum ep_sniff what, struct ep_slab *slab,
                        const unsigned char *first, size_t n);
    /* No byte came for a while: the server may be the one that speaks first. True when the owner knows that it
     * is: the connection is then opaque at once. May be NULL, and may be false now and true for the next. */
    bool (*on_silent)(struct ep_listener *l, struct ep_conn *c);
    /* A connection ended before its protocol was known. May be NULL. */
    void (*on_closed)(struct ep_listener *l, struct ep_conn *c, enum ep_close why);
    /* Counting: refused connections by reason ("limit", "loop", "plaintext", "sniff_timeout", "proxy"). */
    void (*on_refused)(struct ep_listener *l, const char *reason);
};

struct ep_listener {
    struct ep_worker *worker;
    struct ep_listener_options options;
    const struct ep_listener_ops *ops;
    void *user;
    int fd;
    struct event event;
    struct ep_timer retry;        /* after EMFILE */
    unsigned n_connections;       /* open now, of this worker; the owner's on_closed counts down */
    uint64_t accepted, refused;
    bool paused;
    int spare_fd;                 /* given up to accept and close when descriptors run out */
};

/* Makes the socket; err says "bind 0.0.0.0:8443: Address already in use". With fd >= 0 an inherited,
 * bound socket is taken. */
bool ep_listener_init(struct ep_listener *l, struct ep_worker *w, const struct ep_listener_options *o,
                      const struct ep_listener_ops *ops, void *user, int fd, struct ep_error *err);
void ep_listener_stop(struct ep_listener *l); /* accepts no more; the socket is closed */
/* Before a stop: takes who is in the kernel's queue. They are connected, and the stop would reset them. */
void ep_listener_take_rest(struct ep_listener *l);
/* Makes a bound socket with SO_REUSEPORT and the rest; for all workers before they start. -1 with err. */
int ep_listener_socket(const struct ep_listener_options *o, struct ep_error *err);

/* Original destination of an intercepted connection: SO_ORIGINAL_DST or the local address with TPROXY.
 * False when there is none. */
bool ep_original_destination(int fd, enum ep_intercept how, struct ep_addr *out);

#endif
