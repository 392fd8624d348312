/* The writing half of a connection: what is queued during a turn leaves by one send at its end. */
#include <errno.h>
#include <sys/uio.h>

#include "net/conn.h"
#include "net/conn_turn.h"
#include "net/tls.h"

#define IOV_MAX_OURS 64
#define CIPHER_HIGH (64u * 1024u)  /* records made ahead of the socket */
#define WRITES_PER_FLUSH 4
#define SMALL_SLICE 512u           /* below it a copy beside its neighbours is cheaper than an iovec of its own */

void ep_conn_update_interest(struct ep_conn *c);
void ep_conn_finish_close(struct ep_conn *c);

/* Makes room for n bytes in the slab of small writes. What lies there is referenced by slices of c->out. */
unsigned char *ep_conn_reserve(struct ep_conn *c, size_t n)
{
    assert(n <= EP_SLAB_BYTES);
    if (c->out_slab && c->out.count == 0 && c->out_slab->refs == 1)
        c->out_used = 0;
    if (!c->out_slab || c->out_slab->size - c->out_used < n) {
        if (c->out_slab)
            ep_slab_unref(c->out_slab);
        c->out_slab = ep_slab_new(&c->worker->slabs);
        c->out_used = 0;
    }
    return c->out_slab->data + c->out_used;
}

void ep_conn_commit(struct ep_conn *c, size_t n)
{
    struct ep_slab *slab = c->out_slab;
    const unsigned char *p = slab->data + c->out_used;

    if (n == 0)
        return;
    c->out_used += (uint32_t)n;
    assert(c->out_used <= slab->size);
    if (c->out.count) {
        struct ep_slice *last = ep_body_at(&c->out, c->out.count - 1);
        if (last->slab == slab && last->p + last->n == p) { /* it goes on where the last one ended */
            last->n += n;
            c->out.bytes += n;
            ep_conn_want_flush(c);
            return;
        }
    }
    ep_body_push(&c->out, (struct ep_slice){ep_slab_ref(slab), p, n}, &c->worker->slabs);
    ep_conn_want_flush(c);
}

void ep_conn_write(struct ep_conn *c, const void *p, size_t n)
{
    const unsigned char *from = p;

    if (c->closed)
        return;
    while (n) {
        size_t part = EP_MIN(n, (size_t)EP_SLAB_BYTES);

        if (c->out_slab && c->out_slab->refs > 1 && c->out_used < c->out_slab->size)
            part = EP_MIN(part, (size_t)(c->out_slab->size - c->out_used));
        memcpy(ep_conn_reserve(c, part), from, part);
        ep_conn_commit(c, part);
        from += part;
        n -= part;
    }
}

void ep_conn_write_slice(struct ep_conn *c, struct ep_slice s)
{
    if (c->closed || s.n == 0) {
        ep_slice_unref(s);
        return;
    }
    if (s.n <= SMALL_SLICE) {
        ep_conn_write(c, s.p, s.n);
        ep_slice_unref(s);
        return;
    }
    ep_body_push(&c->out, s, &c->worker->slabs);
    ep_conn_want_flush(c);
}

/* The socket takes nothing any more. A server that answered early and closed is read to its end first: its answer may lie
 * in the receive buffer still, and the next read finds out what else is wrong. */
static void write_failed(struct ep_conn *c, int error)
{
    c->error = error;
    snprintf(c->error_text, sizeof c->error_text, "%s", strerror(error));
    if ((error != EPIPE && error != ECONNRESET) || c->eof_in || c->shut_out || c->close_wanted) {
        ep_conn_abort(c, EP_CLOSE_RESET, false);
        return;
    }
    c->write_failed = true;
    ep_body_fini(&c->out);
    ep_body_fini(&c->cipher);
}

/* One send of what `b` holds. Returns false when the socket takes no more now or the connection failed. */
static bool send_body(struct ep_conn *c, struct ep_body *b)
{
    struct iovec iov[IOV_MAX_OURS];
    struct msghdr m = {.msg_iov = iov};
    size_t offered = 0;
    ssize_t n;

    for (uint32_t i = 0; i < b->count && i < IOV_MAX_OURS; i++) {
        struct ep_slice *s = ep_body_at(b, i);
        iov[i] = (struct iovec){(void *)(uintptr_t)s->p, s->n};
        offered += s->n;
        m.msg_iovlen++;
    }
    if (m.msg_iovlen == 1)
        n = send(c->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL);
    else
        n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) {
            c->write_stuck = true;
            return false;
        }
        write_failed(c, errno);
        return false;
    }
    c->bytes_out += (uint64_t)n;
    ep_body_drop(b, (size_t)n);
    if ((size_t)n < offered)
        c->write_stuck = true; /* a short write: the buffer is full */
    return !c->write_stuck;
}

static bool encrypt(struct ep_conn *c)
{
    if (c->cipher.bytes >= CIPHER_HIGH)
        return true;
    if (ep_tls_output(c->tls, &c->cipher, CIPHER_HIGH))
        return true;
    ep_conn_abort(c, EP_CLOSE_TLS, false);
    return false;
}

static void write_out(struct ep_conn *c)
{
    bool had = ep_conn_pending(c) > EP_CONN_OUT_LOW;

    if (EP_UNLIKELY(c->write_failed)) {
        ep_body_fini(&c->out);
        return;
    }
    for (int i = 0; i < WRITES_PER_FLUSH; i++) {
        if (c->tls && !encrypt(c))
            return;
        struct ep_body *b = c->tls ? &c->cipher : &c->out;
        if (b->count == 0 || !send_body(c, b))
            break;
    }
    if (c->closed)
        return;
    if (c->out.count == 0 && c->out_slab) { /* an idle connection holds no slab */
        ep_slab_unref(c->out_slab);
        c->out_slab = NULL;
    }
    if (!c->write_stuck && ep_conn_pending(c) && (!c->tls || c->ready || c->cipher.bytes))
        ep_conn_want_flush(c); /* more than one flush may send: next turn */
    if (had && ep_conn_pending(c) <= EP_CONN_OUT_LOW && c->handler->on_drained && !c->close_wanted)
        c->handler->on_drained(c);
}

/* close_notify, once; false while it waits for the socket. */
static bool say_goodbye(struct ep_conn *c)
{
    if (!c->tls || !c->ready || c->shut_out || c->write_failed)
        return true;
    ep_tls_shutdown(c->tls, &c->cipher);
    if (c->cipher.count)
        send_body(c, &c->cipher);
    if (c->closed || c->cipher.count == 0)
        return !c->closed;
    ep_conn_update_interest(c);
    return false;
}

void ep_conn_turn_flush(struct ep_conn *c)
{
    bool was_stuck = c->interest & EV_WRITE;

    if (c->closed || c->connecting)
        return;
    if (c->handler->on_flush && c->ready && !c->lingering)
        c->handler->on_flush(c);
    if (c->closed)
        return;
    if (!c->write_stuck && (c->out.count || c->cipher.count || c->tls))
        write_out(c);
    if (c->closed)
        return;
    if (was_stuck != c->write_stuck)
        ep_conn_update_interest(c);
    if (ep_conn_pending(c) && !(c->tls && !c->ready && c->close_wanted && !c->cipher.bytes))
        return;
    if ((c->shut_out_wanted || c->close_wanted) && !say_goodbye(c))
        return;
    if (c->shut_out_wanted && !c->shut_out) {
        c->shut_out = true;
        shutdown(c->fd, SHUT_WR);
    }
    if (c->close_wanted)
        ep_conn_finish_close(c);
}
