/* Between accept and codec: PROXY v2, original destination, sniffing, TLS, sniffing inside TLS.
 *
 * The layers, in the order a connection passes them:
 *   proxy      the header of PROXY protocol v2, where the listener expects one
 *   outer      the first bytes: TLS (end it here, or pass it on), HTTP, or opaque
 *   handshake  TLS ended here
 *   inner      ALPN names the protocol; without one the first decrypted bytes do
 * A client that says nothing may be waiting for a server that speaks first (MySQL, SMTP): after SILENT_NS the
 * owner is asked to find out. */
#include "net/sniffer.h"

#include <stdlib.h>

#include "net/alpn.h"
#include "net/tls.h"

#define SILENT_NS (5 * EP_MS)
#define SILENT_ROUNDS 8
#define CLIENT_HELLO 22 /* the type of its record */
#define SNIFF_MAX (20u * 1024u) /* a ClientHello with post-quantum keys and long tickets is under 17 KiB */

enum phase { PHASE_PROXY, PHASE_OUTER, PHASE_HANDSHAKE, PHASE_INNER };

struct sniffer {
    struct ep_listener *listener;
    struct ep_conn *conn;
    enum phase phase;
    struct ep_timer silent;
    unsigned silent_rounds;
    unsigned char *held; /* bytes that were too few to decide */
    size_t n_held;
};

static void sniffer_free(struct sniffer *s)
{
    ep_worker_timer_stop(s->listener->worker, &s->silent);
    free(s->held);
    ep_mem_free(&s->listener->worker->mem, s);
}

static void refuse(struct sniffer *s, const char *reason)
{
    s->listener->refused++;
    s->listener->ops->on_refused(s->listener, reason);
    ep_conn_abort(s->conn, EP_CLOSE_LIMIT, false);
}

/* Gives the connection and the bytes read so far to the codec. The sniffer is gone afterwards. */
static void hand_on(struct sniffer *s, enum ep_sniff what, const unsigned char *p, size_t n)
{
    struct ep_listener *l = s->listener;
    struct ep_conn *c = s->conn;
    struct ep_slab *slab = NULL;

    if (n) { /* a copy, once a connection: what was read may lie in two places */
        slab = ep_slab_new_sized(&c->worker->slabs, n);
        memcpy(slab->data, p, n);
    }
    sniffer_free(s);
    ep_conn_deadline(c, 0);
    l->ops->on_protocol(l, c, what, slab, slab ? slab->data : NULL, n);
    if (slab)
        ep_slab_unref(slab);
}

static void hold(struct sniffer *s, const unsigned char *p, size_t n)
{
    assert(!s->held);
    s->held = ep_malloc(n ? n : 1);
    memcpy(s->held, p, n);
    s->n_held = n;
}

static void start_tls(struct sniffer *s, struct ep_tls_context *ctx, const unsigned char *p, size_t n)
{
    struct ep_conn *c = s->conn;
    s->phase = PHASE_HANDSHAKE;
    ep_conn_deadline(c, s->listener->options.handshake_timeout_ns);
    ep_conn_start_tls_server(c, ctx, p, n); /* may hand the connection on: the sniffer is gone then */
}

/* Nothing has to be known of the bytes to come. */
static bool opaque_at_once(const struct sniffer *s)
{
    const struct ep_listener *l = s->listener;
    const struct ep_client_hello none = {.ech = false};

    return l->options.opaque && !l->ops->tls_context(s->listener, s->conn, &none) &&
           l->ops->plaintext_allowed(s->listener, s->conn);
}

/* Before the first byte of what is sniffed. */
static void await_first(struct sniffer *s)
{
    if (opaque_at_once(s))
        hand_on(s, EP_SNIFF_OPAQUE, NULL, 0);
    else if (s->listener->ops->on_silent)
        ep_worker_timer(s->listener->worker, &s->silent, SILENT_NS);
}

static void outer(struct sniffer *s, const unsigned char *p, size_t n)
{
    struct ep_listener *l = s->listener;
    enum ep_sniff what = ep_sniff_bytes(p, n);

    if (l->options.opaque && what == EP_SNIFF_MORE && p[0] != CLIENT_HELLO)
        what = EP_SNIFF_OPAQUE;

    if (what == EP_SNIFF_TLS) {
        struct ep_client_hello hello;
        int whole = ep_client_hello_parse(p, n, &hello);
        if (whole == 0 && n < SNIFF_MAX) {
            hold(s, p, n);
            return;
        }
        struct ep_tls_context *ctx = whole == 1 ? l->ops->tls_context(l, s->conn, &hello) : NULL;
        if (ctx) {
            start_tls(s, ctx, p, n);
            return;
        }
    }
    if (what == EP_SNIFF_MORE && n < SNIFF_MAX) {
        hold(s, p, n);
        return;
    }
    if (!l->ops->plaintext_allowed(l, s->conn)) {
        refuse(s, "plaintext");
        return;
    }
    hand_on(s, what == EP_SNIFF_MORE ? EP_SNIFF_OPAQUE : what, p, n);
}

static void inner(struct sniffer *s, const unsigned char *p, size_t n)
{
    enum ep_sniff what = ep_sniff_bytes(p, n);

    if (what == EP_SNIFF_MORE && n < SNIFF_MAX)
        hold(s, p, n);
    else
        hand_on(s, what == EP_SNIFF_TLS || what == EP_SNIFF_MORE ? EP_SNIFF_OPAQUE : what, p, n);
}

static void proxy(struct sniffer *s, const unsigned char *p, size_t n)
{
    struct ep_addr src = {0}, dst = {0};
    int used = ep_proxy_v2_parse(p, n, &src, &dst);

    if (used < 0) {
        refuse(s, "proxy");
        return;
    }
    if (used == 0) {
        hold(s, p, n);
        return;
    }
    if (src.len)
        s->conn->peer = src;
    if (dst.len)
        s->conn->original = dst;
    s->phase = PHASE_OUTER;
    if ((size_t)used < n)
        outer(s, p + used, n - (size_t)used);
    else
        await_first(s);
}

static void on_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct sniffer *s = c->user;
    unsigned char *joined = NULL;

    (void)slab;
    ep_worker_timer_stop(c->worker, &s->silent);
    if (s->n_held) {
        joined = ep_malloc(s->n_held + n);
        memcpy(joined, s->held, s->n_held);
        memcpy(joined + s->n_held, p, n);
        p = joined;
        n += s->n_held;
        free(s->held);
        s->held = NULL;
        s->n_held = 0;
    }
    switch (s->phase) {
    case PHASE_PROXY:
        proxy(s, p, n);
        break;
    case PHASE_OUTER:
        outer(s, p, n);
        break;
    case PHASE_HANDSHAKE:
    case PHASE_INNER:
        inner(s, p, n);
        break;
    }
    free(joined);
}

/* The handshake is done: ALPN says what follows, or the first bytes will. */
static void on_ready(struct ep_conn *c)
{
    struct sniffer *s = c->user;
    const struct ep_tls_info *tls = ep_conn_tls_info(c);

    s->phase = PHASE_INNER;
    ep_conn_deadline(c, s->listener->options.sniff_timeout_ns);
    if (ep_str_eq(tls->alpn, EP_STR("h2")))
        hand_on(s, EP_SNIFF_H2, NULL, 0);
    else if (ep_str_eq(tls->alpn, EP_STR("http/1.1")))
        hand_on(s, EP_SNIFF_HTTP1, NULL, 0);
    else if (ep_str_eq(tls->alpn, EP_STR(EP_ALPN_TCP)) || s->listener->options.opaque)
        hand_on(s, EP_SNIFF_OPAQUE, NULL, 0);
}

/* What was too little to decide is all that the client says: it is judged as a whole line. It may wait for an answer. */
static void on_eof(struct ep_conn *c)
{
    struct sniffer *s = c->user;
    unsigned char *held = s->held;
    size_t n = s->n_held;
    enum ep_sniff what;

    if (n == 0 || s->phase == PHASE_PROXY || held[0] == CLIENT_HELLO ||
        (s->phase == PHASE_OUTER && !s->listener->ops->plaintext_allowed(s->listener, c))) {
        ep_conn_abort(c, EP_CLOSE_EOF, false);
        return;
    }
    s->held = NULL;
    held = ep_realloc(held, n + 1);
    held[n] = '\n';
    what = ep_sniff_bytes(held, n + 1);
    hand_on(s, what == EP_SNIFF_HTTP1 ? what : EP_SNIFF_OPAQUE, held, n);
    free(held);
    if (!c->closed && !c->close_wanted && c->handler->on_eof)
        c->handler->on_eof(c);
}

static void on_closed(struct ep_conn *c, enum ep_close why)
{
    struct sniffer *s = c->user;
    struct ep_listener *l = s->listener;

    if (l->ops->on_closed)
        l->ops->on_closed(l, c, why);
    if (why == EP_CLOSE_TIMEOUT && !c->drained_early)
        l->ops->on_refused(l, "sniff_timeout");
    else if (why == EP_CLOSE_TLS) {
        l->ops->on_refused(l, "tls");
        ep_debug("net", "TLS refused: %s", c->error_text);
    }
    l->n_connections--;
    sniffer_free(s);
}

static const struct ep_conn_handler handler = {
    .name = "sniffer",
    .on_ready = on_ready,
    .on_data = on_data,
    .on_eof = on_eof,
    .on_closed = on_closed,
};

static void on_silent(struct ep_timer *t)
{
    struct sniffer *s = EP_CONTAINER(t, struct sniffer, silent);
    struct ep_listener *l = s->listener;

    if (s->conn->closed || s->conn->close_wanted)
        return; /* drained, or past its deadline */
    if (l->ops->on_silent(l, s->conn))
        hand_on(s, EP_SNIFF_OPAQUE, NULL, 0);
    else if (++s->silent_rounds < SILENT_ROUNDS) /* the owner may be finding out */
        ep_worker_timer(l->worker, &s->silent, SILENT_NS << s->silent_rounds);
}

void ep_sniffer_start(struct ep_listener *l, int fd, const struct ep_addr *peer)
{
    struct ep_worker *w = l->worker;
    struct sniffer *s = ep_mem_calloc(&w->mem, 1, sizeof *s);
    struct ep_conn *c;

    assert(s);
    s->listener = l;
    ep_timer_init(&s->silent, on_silent);
    c = ep_conn_accept(w, fd, peer, &handler, s);
    if (!c) {
        ep_mem_free(&w->mem, s);
        return;
    }
    s->conn = c;
    c->user_listener = l;
    l->n_connections++;
    if (l->options.intercept != EP_INTERCEPT_NONE && !ep_original_destination(fd, l->options.intercept, &c->original))
        c->original.len = 0;
    ep_conn_deadline(c, l->options.sniff_timeout_ns);
    s->phase = l->options.proxy_protocol ? PHASE_PROXY : PHASE_OUTER;
    if (s->phase == PHASE_OUTER)
        await_first(s);
}
