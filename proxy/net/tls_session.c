/* Resumption: a second handshake with the same peer costs no signature and no chain.
 *
 * Server: tickets, sealed by a key that lives for an hour and opens them for one more. The keys belong to the context,
 * so a rotation of certificates or roots ends all tickets made before it.
 * Client: the last tickets of a context by server name and address, 64 at most, the least recently used leaves first.
 * A ticket of TLS 1.3 is used once (RFC 8446 appendix C.4).
 * A ticket holds the peer's certificates, so a resumed connection knows the same identity: tls_verify.c. */
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>

#include "net/tls_private.h"

#define KEY_LIFE_NS (3600 * EP_S)

void ep_tls_tickets_init(struct ep_tls_tickets *t)
{
    pthread_mutex_init(&t->lock, NULL);
}

void ep_tls_tickets_fini(struct ep_tls_tickets *t)
{
    pthread_mutex_destroy(&t->lock);
    OPENSSL_cleanse(&t->now, sizeof t->now);
    OPENSSL_cleanse(&t->before, sizeof t->before);
}

static void rotate(struct ep_tls_tickets *t, uint64_t now_ns)
{
    struct ep_tls_ticket_key *k = &t->now;

    if (k->born_ns && now_ns - k->born_ns < KEY_LIFE_NS)
        return;
    if (k->born_ns && now_ns - k->born_ns < 2 * KEY_LIFE_NS)
        t->before = *k;
    else
        OPENSSL_cleanse(&t->before, sizeof t->before);
    RAND_bytes(k->name, sizeof k->name);
    RAND_bytes(k->cipher, sizeof k->cipher);
    RAND_bytes(k->mac, sizeof k->mac);
    k->born_ns = EP_MAX(now_ns, 1u);
}

static bool use_key(const struct ep_tls_ticket_key *k, const uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *mac,
                    int encrypt)
{
    return EVP_CipherInit_ex(cipher, EVP_aes_128_cbc(), NULL, k->cipher, iv, encrypt) &&
           HMAC_Init_ex(mac, k->mac, sizeof k->mac, EVP_sha256(), NULL);
}

int ep_tls_ticket_key(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *mac, int encrypt)
{
    struct ep_tls *t = SSL_get_app_data(ssl);
    struct ep_tls_tickets *tickets = &t->context->tickets;
    struct ep_tls_ticket_key key = {.born_ns = 0};
    int verdict = 0; /* unknown key: a full handshake */

    pthread_mutex_lock(&tickets->lock);
    rotate(tickets, t->conn->worker->now_ns);
    if (encrypt || CRYPTO_memcmp(name, tickets->now.name, sizeof key.name) == 0) {
        key = tickets->now;
        verdict = 1;
    } else if (tickets->before.born_ns && CRYPTO_memcmp(name, tickets->before.name, sizeof key.name) == 0) {
        key = tickets->before;
        verdict = 2; /* good, and to be sealed again by the new key */
    }
    pthread_mutex_unlock(&tickets->lock);
    if (verdict == 0)
        return 0;
    if (encrypt) {
        memcpy(name, key.name, sizeof key.name);
        RAND_bytes(iv, 16);
    }
    if (!use_key(&key, iv, cipher, mac, encrypt))
        verdict = -1;
    OPENSSL_cleanse(&key, sizeof key);
    return verdict;
}

/* --- client --- */

void ep_tls_sessions_init(struct ep_tls_sessions *s)
{
    pthread_mutex_init(&s->lock, NULL);
}

static void drop(struct ep_tls_session *s)
{
    free(s->peer);
    SSL_SESSION_free(s->session);
    *s = (struct ep_tls_session){.peer = NULL};
}

void ep_tls_sessions_fini(struct ep_tls_sessions *s)
{
    for (size_t i = 0; i < EP_COUNT(s->v); i++)
        drop(&s->v[i]);
    pthread_mutex_destroy(&s->lock);
}

#define PEER_MAX 512

static void peer_of(const struct ep_tls *t, char out[PEER_MAX])
{
    char addr[128];

    ep_addr_format(&t->conn->peer, addr);
    snprintf(out, PEER_MAX, "%s|%s", t->server_name ? t->server_name : "", addr);
}

int ep_tls_session_new(SSL *ssl, SSL_SESSION *session)
{
    struct ep_tls *t = SSL_get_app_data(ssl);
    struct ep_tls_sessions *s = &t->context->sessions;
    struct ep_tls_session *into = &s->v[0];
    char peer[PEER_MAX];

    peer_of(t, peer);
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < EP_COUNT(s->v) && into->peer; i++)
        if (!s->v[i].peer || s->v[i].used < into->used)
            into = &s->v[i];
    drop(into);
    *into = (struct ep_tls_session){.peer = ep_strdup(peer), .session = session, .used = ++s->clock};
    pthread_mutex_unlock(&s->lock);
    return 1;
}

void ep_tls_session_offer(struct ep_tls *t)
{
    struct ep_tls_sessions *s = &t->context->sessions;
    struct ep_tls_session *best = NULL;
    char peer[PEER_MAX];

    peer_of(t, peer);
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < EP_COUNT(s->v); i++) {
        struct ep_tls_session *one = &s->v[i];
        if (one->peer && (!best || one->used > best->used) && strcmp(one->peer, peer) == 0)
            best = one;
    }
    if (best) {
        SSL_set_session(t->ssl, best->session);
        best->used = ++s->clock;
        if (SSL_SESSION_should_be_single_use(best->session))
            drop(best);
    }
    pthread_mutex_unlock(&s->lock);
}
