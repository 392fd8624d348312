/* Connections: see conn.h for the contract. Reading and the life of a connection are here, writing is in
 * conn_write.c. */
#include "net/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/conn_turn.h"
#include "net/tls.h"

#define MAGIC 0x636f6e6eu
#define READS_PER_EVENT 4 /* full reads in a row; then others have their turn */
#define READ_ROOM_MIN 4096u
#define LINGER_NS (2 * EP_S)
#define CLOSE_NS (10 * EP_S) /* for output that makes no progress while the connection closes */

const char *ep_close_name(enum ep_close why)
{
    static const char *const names[] = {
        [EP_CLOSE_LOCAL] = "local", [EP_CLOSE_EOF] = "eof",         [EP_CLOSE_RESET] = "reset", [EP_CLOSE_CONNECT] = "connect",
        [EP_CLOSE_TLS] = "tls",     [EP_CLOSE_TIMEOUT] = "timeout", [EP_CLOSE_LIMIT] = "limit", [EP_CLOSE_NOT_H2] = "not_h2",
    };
    return names[why];
}

static void on_event(evutil_socket_t fd, short what, void *arg);

static void set_interest(struct ep_conn *c)
{
    short want = EV_PERSIST;

    if (c->closed)
        return;
    if (!c->connecting && !c->eof_in && (!c->read_paused || c->lingering))
        want |= EV_READ;
    if (c->connecting || c->write_stuck)
        want |= EV_WRITE;
    if (want == c->interest)
        return;
    if (c->interest & (EV_READ | EV_WRITE))
        event_del(&c->event);
    c->interest = want;
    if (want & (EV_READ | EV_WRITE)) {
        event_assign(&c->event, c->worker->base, c->fd, want, on_event, c);
        event_add(&c->event, NULL);
    }
}

void ep_conn_update_interest(struct ep_conn *c)
{
    set_interest(c);
}

static void on_deadline(struct ep_timer *t)
{
    struct ep_conn *c = EP_CONTAINER(t, struct ep_conn, timer);

    if (c->close_wanted && !c->lingering && c->bytes_out != c->close_seen_out) { /* slow, but it reads */
        c->close_seen_out = c->bytes_out;
        ep_conn_deadline(c, CLOSE_NS);
        return;
    }
    ep_conn_abort(c, c->lingering ? c->closing_why : EP_CLOSE_TIMEOUT, false);
}

static struct ep_conn *conn_new(struct ep_worker *w, int fd, const struct ep_conn_handler *h, void *user)
{
    struct ep_conn *c = ep_mem_calloc(&w->mem, 1, sizeof *c);

    if (!c)
        return NULL;
    c->magic = MAGIC;
    c->worker = w;
    c->fd = fd;
    c->handler = h;
    c->user = user;
    c->opened_ns = w->now_ns;
    ep_body_init(&c->out);
    ep_body_init(&c->cipher);
    ep_list_init(&c->flush_node);
    ep_list_init(&c->doomed_node);
    ep_timer_init(&c->timer, on_deadline);
    ep_list_push(&w->conns, &c->node);
    w->n_conns++;
    return c;
}

static void no_delay(int fd, int family)
{
    int one = 1;

    if (family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

void ep_conn_keep_alive(struct ep_conn *c)
{
    int one = 1, idle_s = 60, interval_s = 15, probes = 4;

    if (c->closed || c->peer.u.sa.sa_family == AF_UNIX)
        return;
    setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

struct ep_conn *ep_conn_accept(struct ep_worker *w, int fd, const struct ep_addr *peer, const struct ep_conn_handler *h,
                               void *user)
{
    struct ep_conn *c = conn_new(w, fd, h, user);

    if (!c) {
        close(fd);
        return NULL;
    }
    c->is_server = true;
    c->ready = true;
    c->ready_ns = w->now_ns;
    c->peer = *peer;
    c->local.len = sizeof c->local.u;
    if (getsockname(fd, &c->local.u.sa, &c->local.len) < 0)
        c->local.len = 0;
    no_delay(fd, peer->u.sa.sa_family);
    set_interest(c);
    return c;
}

struct ep_conn *ep_conn_connect(struct ep_worker *w, const struct ep_addr *to, const struct ep_addr *bind_to, uint64_t timeout_ns,
                                struct ep_tls_context *tls, struct ep_str server_name, const struct ep_conn_handler *h, void *user)
{
    int family = to->u.sa.sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error = fd < 0 ? errno : 0;
    struct ep_conn *c = conn_new(w, fd, h, user);

    assert(c);
    c->peer = *to;
    c->connecting = true;
    if (!error && bind_to && bind_to->len && bind(fd, &bind_to->u.sa, bind_to->len) < 0)
        error = errno;
    if (!error) {
        no_delay(fd, family);
        if (connect(fd, &to->u.sa, to->len) < 0 && errno != EINPROGRESS)
            error = errno;
    }
    if (!error && tls) {
        c->tls = ep_tls_new(c, tls, server_name);
        if (!c->tls)
            error = ENOMEM;
    }
    if (error) {
        c->error = error;
        snprintf(c->error_text, sizeof c->error_text, "%s", strerror(error));
        ep_conn_abort(c, EP_CLOSE_CONNECT, false);
        return c;
    }
    set_interest(c);
    if (timeout_ns)
        ep_conn_deadline(c, timeout_ns);
    return c;
}

bool ep_conn_start_tls_server(struct ep_conn *c, struct ep_tls_context *ctx, const void *first, size_t n)
{
    struct ep_slab *slab;
    bool good;

    assert(!c->tls);
    c->ready = false;
    c->tls = ep_tls_new(c, ctx, (struct ep_str){NULL, 0});
    if (!c->tls) {
        ep_conn_abort(c, EP_CLOSE_TLS, false);
        return false;
    }
    slab = ep_slab_new_sized(&c->worker->slabs, n);
    memcpy(slab->data, first, n);
    good = ep_tls_input(c->tls, slab, slab->data, n);
    ep_slab_unref(slab);
    if (c->closed)
        return false;
    ep_conn_want_flush(c);
    if (!good) {
        c->closing_why = EP_CLOSE_TLS;
        ep_conn_close(c);
    }
    return good;
}

void ep_conn_set_handler(struct ep_conn *c, const struct ep_conn_handler *h, void *user)
{
    c->handler = h;
    c->user = user;
    c->timer.fire = on_deadline;
    ep_worker_timer_stop(c->worker, &c->timer);
}

bool ep_conn_adopt(struct ep_conn *c, const struct ep_conn_handler *h, void *user)
{
    if (c->ready) {
        ep_conn_set_handler(c, h, user);
        return true;
    }
    c->handler = h;
    c->user = user;
    return false;
}

static void finish_connect(struct ep_conn *c)
{
    int error = 0;
    socklen_t len = sizeof error;

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error) {
        c->error = error;
        snprintf(c->error_text, sizeof c->error_text, "%s", strerror(error));
        ep_conn_abort(c, EP_CLOSE_CONNECT, false);
        return;
    }
    c->connecting = false;
    c->local.len = sizeof c->local.u;
    if (getsockname(c->fd, &c->local.u.sa, &c->local.len) < 0)
        c->local.len = 0;
    set_interest(c);
    if (c->tls) {
        if (!ep_tls_start(c->tls))
            ep_conn_abort(c, EP_CLOSE_TLS, false);
        else
            ep_conn_want_flush(c);
        return;
    }
    c->ready = true;
    c->ready_ns = c->worker->now_ns;
    ep_worker_timer_stop(c->worker, &c->timer);
    if (c->handler->on_ready)
        c->handler->on_ready(c);
    if (!c->closed)
        ep_conn_want_flush(c);
}

static void give_data(struct ep_conn *c, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    if (!c->tls) {
        if (!c->close_wanted)
            c->handler->on_data(c, slab, p, n);
        return;
    }
    if (!ep_tls_input(c->tls, slab, p, n)) {
        if (c->closed)
            return;
        c->closing_why = EP_CLOSE_TLS;
        ep_conn_close(c); /* an alert may wait in the output */
    }
    if (!c->closed)
        ep_conn_want_flush(c);
}

static void give_eof(struct ep_conn *c)
{
    c->eof_in = true;
    set_interest(c);
    if (c->lingering || c->close_wanted) {
        if (c->lingering || !ep_conn_pending(c))
            ep_conn_abort(c, c->closing_why, false);
        return;
    }
    if (!c->ready) { /* in the middle of a handshake */
        snprintf(c->error_text, sizeof c->error_text, "closed during the TLS handshake");
        ep_conn_abort(c, EP_CLOSE_TLS, false);
    } else if (c->handler->on_eof) {
        c->handler->on_eof(c);
    } else {
        c->closing_why = EP_CLOSE_EOF;
        ep_conn_close(c);
    }
}

static void read_some(struct ep_conn *c)
{
    struct ep_worker *w = c->worker;

    for (int i = 0; i < READS_PER_EVENT; i++) {
        struct ep_slab *slab = w->read_slab;
        size_t room;
        ssize_t n;

        if (slab && slab->refs == 1)
            w->read_offset = 0;
        else if (slab && slab->size - w->read_offset < READ_ROOM_MIN) {
            ep_slab_unref(slab);
            slab = NULL;
        }
        if (!slab) {
            slab = w->read_slab = ep_slab_new(&w->slabs);
            w->read_offset = 0;
        }
        room = slab->size - w->read_offset;
        n = recv(c->fd, slab->data + w->read_offset, room, 0);
        if (n < 0) {
            if (errno == EAGAIN || errno == EINTR)
                return;
            c->error = errno;
            if (c->lingering) { /* we had ended it: why is known */
                ep_conn_abort(c, c->closing_why, false);
                return;
            }
            snprintf(c->error_text, sizeof c->error_text, "%s", strerror(errno));
            ep_conn_abort(c, EP_CLOSE_RESET, false);
            return;
        }
        if (n == 0 && c->write_failed) { /* that was all that it said */
            ep_conn_abort(c, EP_CLOSE_RESET, false);
            return;
        }
        if (n == 0) {
            give_eof(c);
            return;
        }
        c->bytes_in += (uint64_t)n;
        if (c->lingering)
            continue;
        const unsigned char *p = slab->data + w->read_offset;
        w->read_offset += (uint32_t)n;
        give_data(c, slab, p, (size_t)n);
        if (c->closed || c->read_paused || c->eof_in || (size_t)n < room)
            return;
    }
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct ep_conn *c = arg;

    (void)fd;
    assert(c->magic == MAGIC);
    ep_worker_wake(c->worker);
    if (c->closed)
        return;
    if (c->connecting) {
        finish_connect(c);
        return;
    }
    if (what & EV_WRITE) {
        c->write_stuck = false;
        ep_conn_want_flush(c);
        set_interest(c);
    }
    if (what & EV_READ)
        read_some(c);
}

void ep_conn_pause_read(struct ep_conn *c)
{
    c->read_paused = true;
    set_interest(c);
}

void ep_conn_resume_read(struct ep_conn *c)
{
    c->read_paused = false;
    set_interest(c);
}

void ep_conn_close(struct ep_conn *c)
{
    if (c->closed || c->close_wanted)
        return;
    c->close_wanted = true;
    c->close_seen_out = c->bytes_out;
    ep_conn_deadline(c, CLOSE_NS); /* for the flush; shorter once only the FIN is missing */
    c->timer.fire = on_deadline;
    if (c->connecting)
        ep_conn_abort(c, c->closing_why, false);
    else
        ep_conn_want_flush(c);
}

/* All was flushed: ends the connection so that the peer can read the last bytes (RFC 9112 section 9.6). */
void ep_conn_finish_close(struct ep_conn *c)
{
    if (!c->is_server || c->eof_in || c->lingering) {
        ep_conn_abort(c, c->closing_why, false);
        return;
    }
    c->lingering = true;
    shutdown(c->fd, SHUT_WR);
    c->shut_out = true;
    ep_conn_deadline(c, LINGER_NS);
    set_interest(c);
}

void ep_conn_shutdown(struct ep_conn *c)
{
    if (c->closed || c->shut_out)
        return;
    c->shut_out_wanted = true;
    ep_conn_want_flush(c);
}

void ep_conn_abort(struct ep_conn *c, enum ep_close why, bool rst)
{
    if (c->closed)
        return;
    c->closed = true;
    c->closing_why = why;
    if (rst && c->fd >= 0) {
        struct linger l = {.l_onoff = 1, .l_linger = 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    }
    if (c->interest & (EV_READ | EV_WRITE))
        event_del(&c->event);
    c->interest = 0;
    ep_worker_timer_stop(c->worker, &c->timer);
    ep_list_remove(&c->flush_node);
    ep_list_push(&c->worker->doomed, &c->doomed_node);
}

void ep_conn_turn_free(struct ep_conn *c)
{
    struct ep_worker *w = c->worker;

    assert(c->magic == MAGIC && c->closed);
    c->handler->on_closed(c, c->closing_why);
    ep_list_remove(&c->flush_node);
    ep_worker_timer_stop(w, &c->timer);
    if (c->tls)
        ep_tls_free(c->tls);
    ep_tls_origin_unref(c->origin);
    free(c->server_name);
    ep_body_fini(&c->out);
    ep_body_fini(&c->cipher);
    if (c->out_slab)
        ep_slab_unref(c->out_slab);
    if (c->fd >= 0)
        close(c->fd);
    ep_list_remove(&c->node);
    w->n_conns--;
    c->magic = 0;
    ep_mem_free(&w->mem, c);
}

void ep_conn_deadline(struct ep_conn *c, uint64_t after_ns)
{
    if (after_ns)
        ep_worker_timer(c->worker, &c->timer, after_ns);
    else
        ep_worker_timer_stop(c->worker, &c->timer);
}
