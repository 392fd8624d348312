/* Private to the h2 codec: the connection (h2.c, h2_recv.c) and its legs (h2_leg.c). */
#ifndef EP_HTTP_H2_H
#define EP_HTTP_H2_H

#include <nghttp2/nghttp2.h>

#include "http/leg.h"

struct ep_h2 {
    uint32_t magic;
    struct ep_conn *conn;
    nghttp2_session *session;
    bool server;
    const struct ep_http_options *options;
    const struct ep_acceptor *acceptor;     /* server */
    const struct ep_client_events *client;  /* client */
    void *user;
    struct ep_list legs;
    unsigned n_legs, n_stops;
    uint32_t peer_max_streams;
    uint64_t requests;
    struct ep_h2_leg *filling;              /* whose header block is being received */
    struct ep_slab *slab;                   /* what on_data was called with, while it runs */
    bool goaway_in, draining, broken, capacity_changed;
    uint64_t drain_at_ns;                   /* second GOAWAY of a drain */
    uint64_t last_active_ns, last_input_ns, stuck_since_ns, headers_since_ns;
    uint64_t check_at_ns;                   /* when the connection's timer looks at all of these next */
    uint64_t seen_out;                      /* bytes_out when it looked last */
    bool ping_out;
    int64_t glitches_left, control_left;    /* buckets against floods; see h2_recv.c */
    uint64_t glitches_at_ns, control_at_ns;
};

struct ep_h2_leg {
    struct ep_leg leg; /* first */
    struct ep_worker *worker;
    struct ep_h2 *h2;  /* NULL once the connection is gone */
    struct ep_list node;
    int32_t id;        /* -1: not yet submitted */
    struct ep_headers headers, trailers_in; /* received */
    bool has_head;     /* the final head was received */
    bool filling_trailers;
    bool too_large;
    bool submitted;    /* our head was given to nghttp2 */
    bool deferred;     /* nghttp2 waits for nghttp2_session_resume_data */
    bool closed;       /* by nghttp2, or the connection went away */
    bool released;     /* by the owner */
    bool reset_sent;
    bool counted;      /* in h2->n_legs */
    bool stop_wanted;  /* RST_STREAM(NO_ERROR) once our early response is out (RFC 9113 section 8.1) */
    struct ep_headers *trailers_out;
    bool trailers_given; /* to nghttp2 */
    size_t left_over;  /* of leg.out when it was looked at last, at left_at_ns, after its release */
    uint64_t left_at_ns;
    size_t unconsumed; /* given to the owner and not told consumed; the connection's window waits for it */
};

#define EP_H2_MAGIC 0x65706832u

struct ep_h2_leg *ep_h2_leg_new(struct ep_h2 *h2, int32_t id);
void ep_h2_leg_free(struct ep_h2_leg *l);
/* The stream is closed for nghttp2: tells the owner when that came too early; frees a released leg. */
void ep_h2_leg_closed(struct ep_h2_leg *l, enum ep_reset why, bool clean);
/* Serialises what nghttp2 has to say into the connection's output, up to its high-water mark; with `heads`, all frames
 * but DATA whatever that mark says. */
void ep_h2_pump(struct ep_h2 *h2, bool heads);
void ep_h2_callbacks(nghttp2_session_callbacks *cb);      /* the receiving ones: h2_recv.c */
void ep_h2_leg_callbacks(nghttp2_session_callbacks *cb);  /* the sending ones: h2_leg.c */
enum ep_reset ep_h2_reset_of(uint32_t error_code);
/* Answers a request by the codec itself and lets the owner of the leg know that it is over. */
void ep_h2_refuse(struct ep_h2_leg *l, unsigned status, const char *reason);
void ep_h2_check_capacity(struct ep_h2 *h2);
void ep_h2_look_at(struct ep_h2 *h2, uint64_t at_ns); /* the connection's deadlines are looked at then, or before */
void ep_h2_reset_left_over(struct ep_h2 *h2); /* legs that were released and make no progress */
void ep_h2_stop_legs(struct ep_h2 *h2); /* after a pump: the resets that follow early responses */

#endif
