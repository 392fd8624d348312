/* Reading certificate, key and roots, and making the contexts. Key bytes are overwritten as soon as BoringSSL has them.
 */
#include "config/identity.h"

#include <stdlib.h>

#include "config/files.h"
#include "net/tls.h"
#include "net/alpn.h"

#define PEM_MAX (1u << 20)

struct pems {
    struct ep_str certificate, key, roots;
};

static bool read_pem(struct ep_str path, struct ep_str *out, struct ep_error *err)
{
    if (!path.n)
        return true;
    return ep_file_read(path, PEM_MAX, out, err) || ep_error_prefix(err, "%.*s", EP_STR_ARG(path));
}

static struct ep_tls_context *context(const struct ep_identity_config *c, const struct pems *p, bool server,
                                      enum ep_tls_verify verify, const char *const *alpn, struct ep_error *err)
{
    struct ep_tls_options o = {
        .server = server,
        .verify = verify,
        .certificate_pem = p->certificate,
        .key_pem = p->key,
        .roots_pem = p->roots,
        .trust_domain = c->trust_domain,
        .alpn = alpn,
        .min_version = EP_STR("1.2"),
    };
    struct ep_tls_context *made = ep_tls_context_new(&o, err);

    if (!made)
        ep_error_prefix(err, "identity (%.*s, %.*s%s%.*s)", EP_STR_ARG(c->files.certificate), EP_STR_ARG(c->files.key),
                        c->files.roots.n ? ", " : "", EP_STR_ARG(c->files.roots));
    return made;
}

static bool make_contexts(struct ep_identity *i, const struct ep_identity_config *c, const struct pems *p,
                          struct ep_error *err)
{
    static const char *const server_alpn[] = {EP_ALPN_H2, EP_ALPN_HTTP1, EP_ALPN_TCP, NULL};
    static const char *const http_alpn[] = {EP_ALPN_H2, EP_ALPN_HTTP1, NULL};
    static const char *const tcp_alpn[] = {EP_ALPN_TCP, NULL};

    i->server[EP_TLS_SIMPLE] = context(c, p, true, EP_TLS_VERIFY_NONE, server_alpn, err);
    if (!i->server[EP_TLS_SIMPLE] || !p->roots.n)
        return i->server[EP_TLS_SIMPLE] != NULL;
    i->server[EP_TLS_PERMISSIVE] = context(c, p, true, EP_TLS_VERIFY_REQUEST, server_alpn, err);
    i->server[EP_TLS_STRICT] =
        i->server[EP_TLS_PERMISSIVE] ? context(c, p, true, EP_TLS_VERIFY_MESH, server_alpn, err) : NULL;
    i->mesh = i->server[EP_TLS_STRICT] ? context(c, p, false, EP_TLS_VERIFY_MESH, http_alpn, err) : NULL;
    i->mesh_tcp = i->mesh ? context(c, p, false, EP_TLS_VERIFY_MESH, tcp_alpn, err) : NULL;
    return i->mesh_tcp != NULL;
}

struct ep_identity *ep_identity_load(const struct ep_identity_config *c, struct ep_error *err)
{
    struct ep_identity *i = ep_calloc(1, sizeof *i);
    struct pems p = {0};
    bool good;

    atomic_init(&i->refs, 1);
    good = read_pem(c->files.certificate, &p.certificate, err) && read_pem(c->files.key, &p.key, err) &&
           read_pem(c->files.roots, &p.roots, err) && make_contexts(i, c, &p, err);
    if (good) {
        i->expiry = ep_tls_context_expiry(i->server[EP_TLS_SIMPLE]);
        i->digest = ep_hash(p.certificate.p, p.certificate.n) * 3 ^ ep_hash(p.key.p, p.key.n) * 5 ^
                    ep_hash(p.roots.n ? p.roots.p : "", p.roots.n) * 7 ^ ep_hash(c->trust_domain.p, c->trust_domain.n);
    }
    ep_file_free(&p.certificate, false);
    ep_file_free(&p.key, true);
    ep_file_free(&p.roots, false);
    if (good)
        return i;
    ep_identity_unref(i);
    return NULL;
}

struct ep_identity *ep_identity_ref(struct ep_identity *i)
{
    atomic_fetch_add_explicit(&i->refs, 1, memory_order_relaxed);
    return i;
}

void ep_identity_unref(struct ep_identity *i)
{
    if (!i || atomic_fetch_sub_explicit(&i->refs, 1, memory_order_acq_rel) != 1)
        return;
    struct ep_tls_context *all[] = {i->server[EP_TLS_SIMPLE], i->server[EP_TLS_PERMISSIVE], i->server[EP_TLS_STRICT],
                                    i->mesh, i->mesh_tcp};
    for (size_t k = 0; k < EP_COUNT(all); k++)
        if (all[k])
            ep_tls_context_unref(all[k]);
    free(i);
}
