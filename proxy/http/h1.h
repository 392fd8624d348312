/* HTTP/1 inside: the pure parts (heads, chunks, writing; no socket, no clock) and the connection around them.
 *
 * A head is gathered until its empty line has come, then read in one piece: the start line by us (h1_head.c), the
 * fields by llhttp, with each of its spans checked once more for what llhttp 8.1 lets pass. Only then is a
 * stream made, and the block copied once, into its arena. Bodies are framed by us: llhttp takes bare LF in chunk
 * lines. Sources: RFC 9110, RFC 9112, RFC 6455, RFC 8441; DESIGN.md section 17. */
#ifndef EP_HTTP_H1_H
#define EP_HTTP_H1_H

#include "http/leg.h"

/* --- pure: gathering a block of lines until its empty line (h1_gather.c) --- */

enum h1_result { H1_MORE, H1_DONE, H1_BAD };

/* What is wrong, and how a server says so. */
struct h1_problem {
    unsigned status;
    const char *reason; /* constant: for the reply, metrics and logs */
};

struct h1_gather {
    char *p;         /* what came before this read; NULL when nothing did */
    size_t n, cap;
    size_t start;    /* of the block: after the empty lines that may stand before a request */
    size_t line;     /* start of the line that isn't whole yet */
    uint8_t blanks;
};

struct h1_gather_limits {
    size_t first_line, block; /* bytes */
    bool head;                /* has a start line (a trailer block has none, and may be only the empty line) */
    bool request;
};

/* Takes bytes; *used says how many of n. When H1_DONE, *block is the lines with the empty line, valid until the
 * bytes go or h1_gather_reset. */
enum h1_result h1_gather(struct h1_gather *g, const struct h1_gather_limits *limits, const char *p, size_t n, size_t *used,
                         struct ep_str *block, struct h1_problem *problem);
void h1_gather_reset(struct h1_gather *g);

/* --- pure: heads (h1_head.c, h1_check.c) --- */

#define H1_FIELDS_MAX 256u

enum h1_framing {
    H1_EMPTY,   /* no body */
    H1_LENGTH,
    H1_CHUNKED,
    H1_CLOSE,   /* until the connection ends */
    H1_TUNNEL,  /* another protocol follows */
};

struct h1_field {
    uint16_t id;
    struct ep_str name, value; /* name as it came, in any case */
};

struct h1_head {
    struct ep_str block;
    struct ep_str method, target;        /* request */
    struct ep_str scheme, authority, path; /* slices of target or of the Host field; scheme empty but in absolute form */
    unsigned status;                     /* response */
    struct ep_str status_text;           /* its three digits */
    unsigned minor;                      /* HTTP/1.minor */
    enum h1_framing framing;
    uint64_t length;
    bool keep_alive;
    bool head, connect;                  /* methods that change framing */
    bool expect_continue;
    bool websocket;                      /* request: a good upgrade; response: 101 to one */
    struct ep_str websocket_key;         /* request: sec-websocket-key; response: sec-websocket-accept */
    bool nominates;                      /* Connection names fields beyond the usual */
    unsigned n;
    struct h1_field v[H1_FIELDS_MAX];
};

bool h1_parse_request(struct h1_head *h, struct ep_str block, const struct ep_http_options *o, struct h1_problem *problem);
/* What the response is to matters for its framing. */
struct h1_asked {
    bool head, connect, websocket;
};
bool h1_parse_response(struct h1_head *h, struct ep_str block, struct h1_asked asked, const struct ep_http_options *o,
                       struct h1_problem *problem);
bool h1_parse_trailers(struct h1_head *h, struct ep_str block, const struct ep_http_options *o, struct h1_problem *problem);

/* Used among the parsers: fields of the block after its start line; the checks on them. */
bool h1_parse_fields(struct h1_head *h, struct ep_str fields, bool request, const struct ep_http_options *o,
                     struct h1_problem *problem);
bool h1_check_request(struct h1_head *h, struct h1_problem *problem);
bool h1_check_response(struct h1_head *h, struct h1_asked asked, struct h1_problem *problem);
bool h1_target_good(struct ep_str target); /* visible ASCII without '#' */
bool h1_authority_good(struct ep_str authority);

/* The tables, in the arena, with one copy of the block. */
struct ep_headers *h1_build_request(const struct h1_head *h, struct ep_arena *arena, bool tls);
struct ep_headers *h1_build_response(const struct h1_head *h, struct ep_arena *arena);
struct ep_headers *h1_build_trailers(const struct h1_head *h, struct ep_arena *arena);

/* --- pure: chunks (h1_chunk.c) --- */

#define H1_CHUNK_EXTENSION_MAX 256u

struct h1_chunk {
    uint8_t state;
    uint8_t digits;
    uint16_t extension;
    uint64_t left;
};

/* Takes bytes; *data is what of them is body. H1_DONE: the last chunk's line was read, trailers follow. */
enum h1_result h1_chunk_feed(struct h1_chunk *k, const unsigned char *p, size_t n, size_t *used, struct ep_str *data);

/* --- pure: writing (h1_write.c) --- */

enum h1_connection_header { H1_CONNECTION_NONE, H1_CONNECTION_CLOSE, H1_CONNECTION_KEEP_ALIVE };

struct h1_write {
    const struct ep_headers *headers;
    enum h1_framing framing;
    bool zero_length;                /* say content-length: 0 */
    bool drop_length;                /* a content-length in the table is left out */
    enum h1_connection_header connection;
    struct ep_str reason;            /* response: in place of the status's own; empty: that */
    struct ep_str websocket_key;     /* request: the key; response: the accept value; empty: no upgrade */
};

/* An upper bound of what the head takes. */
size_t h1_write_bound(const struct h1_write *w);
/* Both return the length, or 0 when the table can't be said in HTTP/1 (bad bytes, no method, a bad path). */
size_t h1_write_request(const struct h1_write *w, char *out);
size_t h1_write_response(const struct h1_write *w, unsigned status, char *out);
size_t h1_write_trailers(const struct ep_headers *h, char *out); /* with the last chunk and the empty line */
#define H1_CHUNK_LINE_MAX 20u
size_t h1_write_chunk_line(uint64_t n, char *out);

/* --- pure: RFC 6455 section 4 (h1_websocket.c) --- */

#define H1_KEY_BYTES 24u
#define H1_ACCEPT_BYTES 28u
bool h1_websocket_key_good(struct ep_str key);
void h1_websocket_new_key(char out[H1_KEY_BYTES]);
void h1_websocket_accept(struct ep_str key, char out[H1_ACCEPT_BYTES]);

/* --- the connection (h1_conn.c for both sides, h1_leg.c sending, h1_server.c, h1_client.c) --- */

enum h1_in {
    H1_IN_HEAD,
    H1_IN_LENGTH,
    H1_IN_CHUNKED,
    H1_IN_TRAILERS,
    H1_IN_CLOSE,
    H1_IN_HELD,     /* server: a tunnel was asked for and not granted yet; bytes wait */
    H1_IN_TUNNEL,
    H1_IN_WHOLE,    /* the message is whole; what follows is the next one's */
};

enum h1_phase { H1_PHASE_IDLE, H1_PHASE_HEAD, H1_PHASE_BUSY };

struct h1_conn;

struct h1_leg {
    struct ep_leg leg;
    struct ep_worker *worker;
    struct h1_conn *h;              /* NULL once the connection is gone */
    size_t unconsumed;              /* bytes given by on_data and not yet consumed */
    size_t swallowed;               /* bytes of ops->data that this message has no place for; to be told as sent */
    enum h1_framing framing;        /* of what we send */
    uint64_t send_left;             /* H1_LENGTH */
    const struct ep_headers *trailers;
    bool head_sent;
    bool live;                      /* server: the head that was sent says server-sent events */
    bool continued;                 /* 100 was sent */
    bool expects;                   /* the client waits for 100 */
    bool tail_sent;                 /* the last byte of our message was given to the connection */
    bool told_sent;                 /* on_message_sent was called */
    bool released;
    bool failed;                    /* on_reset(fail_why) comes with the close */
    enum ep_reset fail_why;
    bool websocket;
    bool hold_out;                  /* client: data waits until the tunnel is granted */
    char accept[H1_ACCEPT_BYTES];   /* server: our answer; client: what we expect */
    bool connect;
    bool answered;                  /* client: a byte of the response came */
    uint8_t informationals;         /* client: 1xx so far */
};

struct h1_conn {
    uint32_t magic;
    struct ep_conn *conn;
    const struct ep_http_options *options;
    const struct ep_acceptor *acceptor;      /* server */
    const struct ep_client_events *events;   /* client */
    void *user;
    struct h1_leg *leg;
    enum h1_in in;
    uint64_t left;                  /* H1_IN_LENGTH */
    struct h1_chunk chunk;
    struct h1_gather gather;
    struct ep_body unread;          /* came and can't be taken yet */
    unsigned depth;                 /* inside a callback of the connection */
    uint64_t requests;
    bool keep_alive;                /* of the exchange at hand */
    bool draining;
    bool idle_due;                  /* client: on_idle is to be called */
    enum h1_phase phase;
    uint64_t since_ns, armed_ns;
    uint64_t seen_out;              /* bytes_out when output was found pending; UINT64_MAX: it wasn't */
};

static inline struct h1_conn *h1_of(struct ep_conn *c)
{
    return c->user;
}

static inline bool h1_dead(const struct h1_conn *h)
{
    return h->conn->closed || h->conn->close_wanted;
}

struct h1_conn *h1_conn_new(struct ep_conn *c, const struct ep_http_options *o, void *user);
void h1_conn_start(struct h1_conn *h); /* the connection is ready: timers run from now on */
void h1_set_phase(struct h1_conn *h, enum h1_phase phase);
/* Feeds bytes and does what follows from them. */
void h1_input(struct h1_conn *h, struct ep_slab *slab, const unsigned char *p, size_t n);
/* Gives body bytes to the leg, if there is one that wants them. */
void h1_deliver(struct h1_conn *h, struct ep_slice s, bool end);
void h1_update_reading(struct h1_conn *h);
/* Breaks the exchange off: on_reset to the leg, the connection aborted. Not from inside an op. */
void h1_break(struct h1_conn *h, enum ep_reset why, enum ep_close close, bool rst);
/* Starts to read a body with this framing; with H1_EMPTY the message is whole. */
void h1_begin_body(struct h1_conn *h, enum h1_framing framing, uint64_t length);

/* The handlers of struct ep_conn_handler that both sides share. */
void h1_on_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n);
void h1_on_eof(struct ep_conn *c);
void h1_on_flush(struct ep_conn *c);
void h1_on_closed(struct ep_conn *c, enum ep_close why);

struct h1_leg *h1_leg_new(struct h1_conn *h, enum ep_http_version version);
void h1_leg_free(struct h1_leg *l);
/* Sends what may be sent and tells the owner. */
void h1_pump(struct h1_conn *h);
/* For ops: the exchange can't go on; on_reset follows when the connection is freed. */
void h1_leg_fail(struct h1_leg *l, enum ep_reset why);
/* Writes a head into the connection's output; false when the table can't be said. */
bool h1_send_head(struct h1_conn *h, const struct h1_write *w, unsigned status);
/* Reads the table's content-length: 1 found, 0 none, -1 bad. */
int h1_table_length(const struct ep_headers *h, uint64_t *length);

/* What differs: called by the shared part. `server` side first. */
void h1_server_head(struct h1_conn *h, struct ep_str block);
void h1_server_problem(struct h1_conn *h, struct h1_problem problem);
void h1_server_headers(struct h1_leg *l, struct ep_headers *headers, bool end);
void h1_server_eof(struct h1_conn *h);
void h1_server_finish(struct h1_conn *h);   /* the leg was released: go on or close */
void h1_client_head(struct h1_conn *h, struct ep_str block);
void h1_client_problem(struct h1_conn *h, struct h1_problem problem);
void h1_client_headers(struct h1_leg *l, struct ep_headers *headers, bool end);
void h1_client_eof(struct h1_conn *h);
void h1_client_finish(struct h1_conn *h);

#endif
