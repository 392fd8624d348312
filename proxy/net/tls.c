/* One TLS connection: BoringSSL between the socket's bytes and the handler's.
 *
 * BoringSSL knows no socket: its BIO takes ciphertext from the slab that one recv filled, and appends what it makes to
 * conn->cipher, packed into slabs, which the end of the turn sends. Plain text is read into the worker's read slab,
 * right behind the ciphertext, so that a handler may keep slices of it as of any other bytes; when it kept none the
 * room is used again. On the way out the slices of conn->out are gathered into full records: small ones are copied
 * together, a large one is encrypted where it lies. */
#include "net/tls_private.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>

#define RECORD_MAX     16384u
#define GATHER_BELOW   4096u /* a slice from here on is encrypted in place */
#define PLAIN_ROOM_MIN 4096u
#define HANDSHAKE_MAX  (128u * 1024u) /* bytes a peer may send before it is known */

void ep_conn_update_interest(struct ep_conn *c); /* conn.c */

/* --- the BIO --- */

static int bio_read(BIO *bio, char *out, int n)
{
    struct ep_tls *t = BIO_get_data(bio);
    size_t take = EP_MIN((size_t)n, t->n_in);

    BIO_clear_retry_flags(bio);
    if (take == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(out, t->in, take);
    t->in += take;
    t->n_in -= take;
    return (int)take;
}

static int bio_write(BIO *bio, const char *p, int n)
{
    struct ep_conn *c = ((struct ep_tls *)BIO_get_data(bio))->conn;

    ep_body_push_copy(&c->cipher, p, (size_t)n, &c->worker->slabs);
    return n;
}

static long bio_ctrl(BIO *bio, int command, long n, void *p)
{
    (void)bio;
    (void)n;
    (void)p;
    return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *ep_tls_bio_method(void)
{
    BIO_METHOD *m = BIO_meth_new(0, "ephor");

    if (m) {
        BIO_meth_set_read(m, bio_read);
        BIO_meth_set_write(m, bio_write);
        BIO_meth_set_ctrl(m, bio_ctrl);
    }
    return m;
}

/* --- errors --- */

static const struct {
    int reason;
    const char *text;
} known_reasons[] = {
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, "peer gave no certificate"},
    {SSL_R_HTTP_REQUEST, "peer speaks plain HTTP"},
    {SSL_R_HTTPS_PROXY_REQUEST, "peer speaks plain HTTP"},
    {SSL_R_WRONG_VERSION_NUMBER, "peer does not speak TLS, or not a version we do"},
    {SSL_R_UNSUPPORTED_PROTOCOL, "peer speaks only versions of TLS that we don't"},
    {SSL_R_NO_SHARED_CIPHER, "no cipher suite in common"},
    {SSL_R_NO_SHARED_GROUP, "no key exchange group in common"},
    {SSL_R_EXCESSIVE_MESSAGE_SIZE, "a handshake message is too large"},
};

/* Sets why from BoringSSL's queue of errors, unless a check of ours has said it better. Returns false. */
static bool fail(struct ep_tls *t, const char *doing)
{
    struct ep_conn *c = t->conn;
    uint32_t error = ERR_get_error();
    int reason = error ? ERR_GET_REASON(error) : 0;
    const char *name = error ? ERR_reason_error_string(error) : NULL;
    const char *text = NULL;

    ERR_clear_error();
    t->failed = true;
    if (error && ERR_GET_LIB(error) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET)
        t->info.alert = (uint8_t)(reason - SSL_AD_REASON_OFFSET);
    if (t->explained)
        return false;
    t->explained = true;
    if (!name)
        name = "unexpected end";
    for (size_t i = 0; i < EP_COUNT(known_reasons); i++)
        if (known_reasons[i].reason == reason)
            text = known_reasons[i].text;
    if (t->info.alert)
        snprintf(c->error_text, sizeof c->error_text, "%s: peer refused: %s (%s)", doing, SSL_alert_desc_string_long(t->info.alert),
                 name);
    else if (text)
        snprintf(c->error_text, sizeof c->error_text, "%s: %s (%s)", doing, text, name);
    else
        snprintf(c->error_text, sizeof c->error_text, "%s: %s", doing, name);
    return false;
}

/* A refusal that BoringSSL knows nothing of: the alert is ours to send. */
static bool refuse(struct ep_tls *t, const struct ep_tls_refusal *why)
{
    memcpy(t->conn->error_text, why->text, EP_MIN(sizeof t->conn->error_text, sizeof why->text));
    t->explained = true;
    SSL_send_fatal_alert(t->ssl, why->alert);
    return fail(t, "");
}

/* --- life --- */

struct ep_tls *ep_tls_new(struct ep_conn *c, struct ep_tls_context *ctx, struct ep_str server_name)
{
    struct ep_tls *t = ep_mem_calloc(&c->worker->mem, 1, sizeof *t);
    BIO *bio;

    if (!t)
        return NULL;
    t->conn = c;
    t->context = ep_tls_context_ref(ctx);
    t->started_ns = ep_clock_ns();
    if (server_name.n)
        t->server_name = ep_strndup(server_name.p, server_name.n);
    t->ssl = SSL_new(ctx->ssl_ctx);
    bio = t->ssl ? BIO_new(ctx->bio) : NULL;
    if (!bio) {
        ERR_clear_error();
        ep_tls_free(t);
        return NULL;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_app_data(t->ssl, t);
    SSL_set_shed_handshake_config(t->ssl, 1);
    if (ctx->server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    return t;
}

void ep_tls_free(struct ep_tls *t)
{
    SSL_free(t->ssl);
    ep_tls_context_unref(t->context);
    free(t->server_name);
    free(t->peer_text);
    ep_mem_free(&t->conn->worker->mem, t);
}

const struct ep_tls_info *ep_conn_tls_info(const struct ep_conn *c)
{
    return c->tls ? &c->tls->info : NULL;
}

struct ssl_st *ep_conn_ssl(const struct ep_conn *c)
{
    return c->tls ? c->tls->ssl : NULL;
}

/* --- handshake --- */

static bool is_ip(const char *name)
{
    struct ep_cidr cidr;

    return ep_cidr_parse(ep_str(name), &cidr);
}

static void fill_info(struct ep_tls *t)
{
    struct ep_tls_info *info = &t->info;
    const uint8_t *alpn = NULL;
    unsigned n_alpn = 0;

    info->version = ep_str(SSL_get_version(t->ssl));
    info->cipher = ep_str(SSL_CIPHER_standard_name(SSL_get_current_cipher(t->ssl)));
    SSL_get0_alpn_selected(t->ssl, &alpn, &n_alpn);
    info->alpn = ep_str_n(alpn, n_alpn);
    info->sni =
        t->context->server ? ep_str(SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name)) : ep_str(t->server_name);
    info->resumed = SSL_session_reused(t->ssl);
    info->handshake_ns = ep_clock_ns() - t->started_ns;
}

/* The handshake is done as far as BoringSSL goes. */
static bool finished(struct ep_tls *t)
{
    struct ep_conn *c = t->conn;
    struct ep_tls_refusal why = {.alert = 0};

    fill_info(t);
    /* A resumed handshake shows no certificate and calls no check: the ticket holds what was shown then. */
    if (t->info.resumed && SSL_get0_peer_certificates(t->ssl) && !ep_tls_verify_peer(t, true, &why))
        return refuse(t, &why);
    if (t->context->verify != EP_TLS_VERIFY_NONE && t->context->verify != EP_TLS_VERIFY_REQUEST &&
        !t->info.peer_verified) {
        snprintf(why.text, sizeof why.text, "peer gave no certificate");
        why.alert = SSL_AD_CERTIFICATE_UNKNOWN;
        return refuse(t, &why);
    }
    c->ready = true;
    c->ready_ns = c->worker->now_ns;
    if (!t->context->server)
        ep_worker_timer_stop(c->worker, &c->timer); /* connect and handshake are done; the handler may set its own */
    if (c->handler->on_ready && !c->close_wanted)
        c->handler->on_ready(c);
    return true;
}

static bool handshake(struct ep_tls *t)
{
    int ret = SSL_do_handshake(t->ssl);

    if (ret == 1)
        return finished(t);
    if (SSL_get_error(t->ssl, ret) != SSL_ERROR_WANT_READ)
        return fail(t, "TLS handshake failed");
    if (t->handshake_bytes > HANDSHAKE_MAX) {
        struct ep_tls_refusal why = {.text = "TLS handshake failed: the peer's part is too large",
                                     .alert = SSL_AD_DECODE_ERROR};
        return refuse(t, &why);
    }
    return true;
}

bool ep_tls_start(struct ep_tls *t)
{
    ERR_clear_error();
    if (t->server_name && !is_ip(t->server_name) && !SSL_set_tlsext_host_name(t->ssl, t->server_name))
        return fail(t, "TLS handshake failed");
    ep_tls_session_offer(t);
    return handshake(t);
}

/* --- records in --- */

/* Where plain text goes: behind what lies in the worker's read slab. The caller holds a reference to the slab of the
 * ciphertext, so that slab is not taken for an unused one. */
static unsigned char *plain_room(struct ep_worker *w, size_t *room)
{
    struct ep_slab *slab = w->read_slab;

    if (slab && slab->refs == 1) {
        w->read_offset = 0;
    } else if (slab && slab->size - w->read_offset < PLAIN_ROOM_MIN) {
        ep_slab_unref(slab);
        slab = NULL;
    }
    if (!slab) {
        slab = w->read_slab = ep_slab_new(&w->slabs);
        w->read_offset = 0;
    }
    *room = slab->size - w->read_offset;
    return slab->data + w->read_offset;
}

static void give(struct ep_tls *t, unsigned char *p, size_t n)
{
    struct ep_conn *c = t->conn;
    struct ep_worker *w = c->worker;
    struct ep_slab *slab = w->read_slab;
    uint32_t ours = slab == t->in_slab ? 2 : 1;

    w->read_offset += (uint32_t)n;
    t->info.heard = true;
    c->handler->on_data(c, slab, p, n);
    if (w->read_slab == slab && slab->refs == ours)
        w->read_offset -= (uint32_t)n; /* nobody keeps any of it */
}

static void end_of_input(struct ep_tls *t)
{
    struct ep_conn *c = t->conn;

    t->closed_in = true;
    t->info.close_notify = true;
    c->eof_in = true;
    ep_conn_update_interest(c);
    if (c->handler->on_eof) {
        c->handler->on_eof(c);
        return;
    }
    c->closing_why = EP_CLOSE_EOF;
    ep_conn_close(c);
}

static bool read_plain(struct ep_tls *t)
{
    struct ep_conn *c = t->conn;

    while (!c->closed && !c->close_wanted && !t->closed_in) {
        size_t room;
        unsigned char *p = plain_room(c->worker, &room);
        int n = SSL_read(t->ssl, p, (int)room);

        if (n > 0) {
            give(t, p, (size_t)n);
            continue;
        }
        switch (SSL_get_error(t->ssl, n)) {
        case SSL_ERROR_WANT_READ:
            return true;
        case SSL_ERROR_ZERO_RETURN:
            end_of_input(t);
            return true;
        default:
            return fail(t, "TLS failed");
        }
    }
    return true;
}

/* A fatal alert in the clear. OpenSSL's clients say so that they won't have a certificate of TLS 1.3, since they have no
 * keys of their own yet; BoringSSL takes that for a broken record. */
static uint8_t clear_alert(const unsigned char *p, size_t n)
{
    static const unsigned char head[] = {21, 3, 3, 0, 2, 2};

    return n >= sizeof head + 1 && memcmp(p, head, sizeof head) == 0 ? p[sizeof head] : 0;
}

bool ep_tls_input(struct ep_tls *t, struct ep_slab *slab, const unsigned char *p, size_t n)
{
    struct ep_conn *c = t->conn;
    bool good = true;

    if (t->failed || t->closed_in)
        return true;
    ERR_clear_error();
    ep_slab_ref(slab);
    t->in_slab = slab;
    t->in = p;
    t->n_in = n;
    if (!c->ready) {
        t->handshake_bytes += n;
        t->info.alert = clear_alert(p, n);
        good = handshake(t);
    }
    if (good && c->ready)
        good = read_plain(t);
    t->in_slab = NULL;
    t->in = NULL;
    t->n_in = 0;
    ep_slab_unref(slab);
    return good;
}

/* --- records out --- */

/* Puts the first slices of `b` together, at most a record. */
static size_t gather(struct ep_body *b, unsigned char out[RECORD_MAX])
{
    size_t n = 0;

    for (uint32_t i = 0; i < b->count && n < RECORD_MAX; i++) {
        const struct ep_slice *s = ep_body_at(b, i);
        size_t part = EP_MIN(s->n, RECORD_MAX - n);

        memcpy(out + n, s->p, part);
        n += part;
    }
    return n;
}

bool ep_tls_output(struct ep_tls *t, struct ep_body *cipher, size_t limit)
{
    struct ep_conn *c = t->conn;
    unsigned char together[RECORD_MAX];

    assert(cipher == &c->cipher);
    if (t->failed || t->closed_out)
        ep_body_fini(&c->out); /* can't be said any more; what a failure left in `cipher` is an alert that may still leave */
    if (!c->ready)
        return true;
    ERR_clear_error();
    while (c->out.bytes && cipher->bytes < limit) {
        const struct ep_slice *front = ep_body_front(&c->out);
        const unsigned char *p = front->p;
        size_t n = EP_MIN(front->n, (size_t)RECORD_MAX);
        int written;

        if (n < GATHER_BELOW && c->out.count > 1) {
            n = gather(&c->out, together);
            p = together;
        }
        written = SSL_write(t->ssl, p, (int)n);
        if (written <= 0)
            return fail(t, "TLS failed");
        ep_body_drop(&c->out, (size_t)written);
    }
    return true;
}

bool ep_tls_shutdown(struct ep_tls *t, struct ep_body *cipher)
{
    assert(cipher == &t->conn->cipher);
    if (!t->failed && !t->closed_out && t->conn->ready)
        SSL_shutdown(t->ssl);
    t->closed_out = true;
    ERR_clear_error();
    return true;
}
