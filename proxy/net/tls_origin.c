/* How hosts outside the mesh are verified: as browsers do it, by name, against roots that all three contexts share. */
#include <stdlib.h>

#include "net/alpn.h"
#include "net/tls_private.h"

struct ep_tls_origin *ep_tls_origin_new(struct ep_str roots_pem, struct ep_error *err)
{
    static const char *const h2[] = {EP_ALPN_H2, EP_ALPN_HTTP1, NULL}, *const http1[] = {EP_ALPN_HTTP1, NULL};
    static const char *const *const offers[EP_TLS_OFFERS] = {[EP_TLS_OFFER_H2] = h2, [EP_TLS_OFFER_HTTP1] = http1};
    struct ep_tls_origin *o = ep_calloc(1, sizeof *o);

    atomic_init(&o->refs, 1);
    for (size_t i = 0; i < EP_TLS_OFFERS; i++) {
        struct ep_tls_options options = {.verify = EP_TLS_VERIFY_NAME,
                                         .roots_pem = roots_pem,
                                         .roots_of = i ? o->context[0] : NULL,
                                         .alpn = offers[i]};
        o->context[i] = ep_tls_context_new(&options, err);
        if (!o->context[i]) {
            ep_tls_origin_unref(o);
            return NULL;
        }
    }
    return o;
}

struct ep_tls_origin *ep_tls_origin_ref(struct ep_tls_origin *o)
{
    atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
    return o;
}

void ep_tls_origin_unref(struct ep_tls_origin *o)
{
    if (!o || atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < EP_TLS_OFFERS; i++)
        ep_tls_context_unref(o->context[i]);
    free(o);
}
