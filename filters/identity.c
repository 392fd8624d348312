/* The filter `identity`: who calls.
 *
 * The verified SPIFFE ID of the peer becomes the stream's peer_id; headers by which only a trusted peer may speak
 * (x-forwarded-client-cert, x-ephor-*) are taken from everybody else; the app gets the certificate that was verified
 * in a x-forwarded-client-cert of ours, in Envoy's form. Then the listener's `authorize` rules that need no more than
 * the head. DESIGN.md section 11. */
#include "authorize.h"

#include "net/tls.h"

#include <stdlib.h>

#define FAULT_SPACE "ephor.chaos" /* tag by which chaos says what it did */

struct identity {
    struct ep_authorize authorize;
    struct ep_str own; /* our own SPIFFE ID; empty: none */
};

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    struct identity *id = ep_calloc(1, sizeof *id);

    ep_authorize_load(&id->authorize, i);
    i->data = id;
    if (id->authorize.needs_call && !ep_chain_has(i->chain->config, EP_STR("agent"))) {
        free(id);
        i->data = NULL;
        return ep_error_set(err, "listener %.*s: authorize rules on protocols or tools need the filter 'agent'",
                            EP_STR_ARG(i->chain->config->name));
    }
    return true;
}

static void unload(struct ep_filter_instance *i)
{
    free(i->data);
}

/* --- headers --- */

static bool is_ours(const struct ep_header *h)
{
    return h->id == EP_HDR_X_FORWARDED_CLIENT_CERT || ep_str_starts(h->name, EP_STR("x-ephor-"));
}

static void strip(struct ep_headers *h)
{
    for (uint32_t i = 0; i < h->n;) {
        if (!is_ours(&h->v[i])) {
            i++;
            continue;
        }
        if (h->v[i].id)
            ep_headers_remove_id(h, h->v[i].id);
        else
            ep_headers_remove(h, h->v[i].name);
        i = 0; /* rare: what was behind has moved up */
    }
}

static size_t put(char *out, size_t at, struct ep_str s)
{
    memcpy(out + at, s.p, s.n);
    return at + s.n;
}

/* By=<ours>;Hash=<sha256>;Subject="<name>";URI=<theirs> */
static void forward_certificate(struct ep_stream *s, struct ep_str own, const struct ep_tls_info *tls)
{
    size_t room = own.n + tls->peer_sha256.n + 2 * tls->peer_subject.n + tls->peer_id.n + 32, n = 0;
    char *out = ep_arena_alloc(&s->arena, room);

    if (own.n) {
        n = put(out, n, EP_STR("By="));
        n = put(out, n, own);
        out[n++] = ';';
    }
    n = put(out, n, EP_STR("Hash="));
    n = put(out, n, tls->peer_sha256);
    n = put(out, n, EP_STR(";Subject=\""));
    for (size_t i = 0; i < tls->peer_subject.n; i++) {
        char c = tls->peer_subject.p[i];
        if (c == '"' || c == '\\')
            out[n++] = '\\';
        out[n++] = (unsigned char)c < 0x20 || c == 0x7f ? '?' : c;
    }
    n = put(out, n, EP_STR("\";URI="));
    n = put(out, n, tls->peer_id);
    assert(n <= room);
    ep_headers_append(&s->request.headers, EP_HDR_X_FORWARDED_CLIENT_CERT, EP_STR("x-forwarded-client-cert"),
                      ep_str_n(out, n));
}

static enum ep_step request_headers(struct ep_stream *s, void *state, bool end)
{
    const struct identity *id = ep_filter_data(s);
    const struct ep_tls_info *tls = s->down->conn ? ep_conn_tls_info(s->down->conn) : NULL;
    bool verified = tls && tls->peer_verified && tls->peer_id.n;

    (void)state;
    (void)end;
    if (verified)
        s->peer_id = ep_arena_str(&s->arena, tls->peer_id); /* the connection may be gone before the report */
    else
        strip(&s->request.headers);
    if (s->direction == EP_INBOUND && verified) {
        struct ep_str own = s->chain->tls ? ep_tls_context_identity(s->chain->tls) : (struct ep_str){NULL, 0};
        ep_headers_remove_id(&s->request.headers, EP_HDR_X_FORWARDED_CLIENT_CERT);
        forward_certificate(s, own, tls);
    }
    return ep_authorize_check(s, &id->authorize, EP_AUTHORIZE_HEAD) ? EP_NEXT : EP_REPLIED;
}

/* An injected fault is named to peers that are trusted, so that nobody hunts it as a bug, and to nobody else. */
static enum ep_step response_headers(struct ep_stream *s, void *state, bool end)
{
    (void)state;
    (void)end;
    if (EP_LIKELY(!s->fault_injected) || !s->peer_id.n)
        return EP_NEXT;
    for (const struct ep_tag *t = s->tags; t; t = t->next)
        if (ep_str_eq(t->space, EP_STR(FAULT_SPACE)))
            ep_headers_set_id(&s->response.headers, EP_HDR_X_EPHOR_FAULT, t->key);
    return EP_NEXT;
}

const struct ep_filter ep_filter_identity = {
    .name = "identity",
    .help = "Who calls: the peer's SPIFFE ID, forwarded headers made trustworthy, the listener's authorize rules.",
    .load = load,
    .unload = unload,
    .request_headers = request_headers,
    .response_headers = response_headers,
};
