/* Making what egress needs, off the data path: see egress_load.h. */
#include "config/egress_load.h"

#include <stdlib.h>

#include "config/files.h"
#include "filter/pinned.h"
#include "net/alpn.h"
#include "observe/json.h"

#define PEM_MAX   (1u << 20)
#define ROOTS_MAX (16u << 20)

static bool read_file(struct ep_str path, size_t max, struct ep_str *out, struct ep_error *err)
{
    return ep_file_read(path, max, out, err) || ep_error_prefix(err, "%.*s", EP_STR_ARG(path));
}

/* --- roots --- */

static struct ep_tls_origin *known(const struct ep_egress *e, uint64_t digest)
{
    for (size_t i = 0; e && i < e->n_rules; i++)
        if (e->rules[i].origin && e->rules[i].roots_digest == digest)
            return ep_tls_origin_ref(e->rules[i].origin);
    return NULL;
}

static bool load_rule(struct ep_egress *e, struct ep_egress_rule *r, const struct ep_egress *before, struct ep_error *err)
{
    const char *system = ep_tls_system_roots();
    struct ep_str path = r->config->roots.n ? r->config->roots : ep_str(system), pem;

    if (r->config->tls == EP_EGRESS_PASSTHROUGH)
        return true;
    if (!path.n)
        return ep_error_set(err, "roots: none given, and the system has no file of them (SSL_CERT_FILE may name one)");
    if (!read_file(path, ROOTS_MAX, &pem, err))
        return ep_error_prefix(err, "roots");
    r->roots_digest = ep_hash(pem.p, pem.n) ^ pem.n;
    r->origin = known(e, r->roots_digest);
    if (!r->origin)
        r->origin = known(before, r->roots_digest);
    if (!r->origin) {
        r->origin = ep_tls_origin_new(pem, err);
        if (!r->origin)
            ep_error_prefix(err, "%.*s", EP_STR_ARG(path));
    }
    ep_file_free(&pem, false);
    return r->origin != NULL;
}

/* --- the CA --- */

static bool load_ca(struct ep_egress *e, const struct ep_egress *before, struct ep_error *err)
{
    struct ep_str certificate = {NULL, 0}, key = {NULL, 0};
    bool good = read_file(e->config->certificate, PEM_MAX, &certificate, err) &&
                read_file(e->config->key, PEM_MAX, &key, err);

    if (good) {
        e->ca_digest = (ep_hash(certificate.p, certificate.n) * 3 ^ ep_hash(key.p, key.n) * 5) | 1;
        if (before && before->ca && before->ca_digest == e->ca_digest)
            e->ca = ep_ca_ref(before->ca);
        else
            e->ca = ep_ca_load(certificate, key, err);
        good = e->ca || ep_error_prefix(err, "%.*s, %.*s", EP_STR_ARG(e->config->certificate), EP_STR_ARG(e->config->key));
    }
    ep_file_free(&certificate, false);
    ep_file_free(&key, true);
    return good;
}

/* One of our own is kept even while nothing is intercepted: apps that run trust it, and would trust no other. */
static bool take_ca(struct ep_egress *e, struct ep_str name, bool wanted, const struct ep_egress *before, struct ep_error *err)
{
    static const char *const alpn[] = {EP_ALPN_H2, EP_ALPN_HTTP1, NULL};
    struct ep_tls_options o = {.server = true, .verify = EP_TLS_VERIFY_NONE, .alpn = alpn};

    if (e->config->certificate.n) {
        if (!load_ca(e, before, err))
            return false;
    } else if (before && before->ca && before->ca_digest == 0) {
        e->ca = ep_ca_ref(before->ca);
    } else if (wanted) {
        e->ca = ep_ca_new(name, err);
        if (!e->ca)
            return false;
    }
    if (!e->ca)
        return true;
    if (before && before->ca == e->ca) {
        e->server = ep_tls_context_ref(before->server);
        return true;
    }
    o.ca = e->ca;
    e->server = ep_tls_context_new(&o, err);
    return e->server != NULL;
}

struct ep_egress *ep_egress_load(const struct ep_config *c, struct ep_pinned *pinned, const struct ep_egress *before,
                                 struct ep_error *err)
{
    const struct ep_egress_config *rules = c->egress.v;
    struct ep_egress *e = ep_calloc(1, sizeof *e);
    bool intercepts = false, good = true;

    atomic_init(&e->refs, 1);
    e->config = &c->egress_tls;
    e->pinned = pinned;
    e->rules = ep_calloc(c->egress.n + 1, sizeof *e->rules);
    for (size_t i = 0; i < c->egress.n && good; i++) {
        e->rules[i].config = &rules[i];
        e->n_rules = i + 1;
        intercepts |= rules[i].tls == EP_EGRESS_INTERCEPT;
        e->any_originate |= rules[i].tls == EP_EGRESS_ORIGINATE;
        good = load_rule(e, &e->rules[i], before, err) || ep_error_prefix(err, "egress, entry %zu", i + 1);
    }
    if (good && take_ca(e, c->node.service, intercepts, before, err))
        return e;
    if (good)
        ep_error_prefix(err, "egress_tls");
    ep_egress_unref(e);
    return NULL;
}

/* --- what apps trust --- */

/* Our CA's certificate, then the system's roots. malloc'd. */
static bool compose(const struct ep_egress *e, struct ep_str *out, struct ep_error *err)
{
    const char *path = ep_tls_system_roots();
    struct ep_str own = ep_ca_pem(e->ca), roots = {NULL, 0};
    char *text;

    if (path && ep_str_eq(ep_str(path), e->config->bundle))
        return ep_error_set(err, "egress_tls.bundle: SSL_CERT_FILE of ephor itself names it; it would be made of itself");
    if (!path)
        ep_warn("egress", "the system has no file of roots: the bundle has our CA alone");
    else if (!read_file(ep_str(path), ROOTS_MAX, &roots, err))
        return false;
    text = ep_malloc(own.n + roots.n + 1);
    memcpy(text, own.p, own.n);
    if (roots.n)
        memcpy(text + own.n, roots.p, roots.n);
    *out = ep_str_n(text, own.n + roots.n);
    ep_file_free(&roots, false);
    return true;
}

bool ep_egress_write_bundle(const struct ep_egress *e, struct ep_error *err)
{
    struct ep_str path = e->config->bundle, wanted, there = {NULL, 0};
    bool good = true;

    if (!path.n || !e->ca)
        return true;
    if (!compose(e, &wanted, err))
        return false;
    if (!ep_file_read(path, ROOTS_MAX, &there, NULL) || !ep_str_eq(there, wanted)) {
        char *name = ep_strndup(path.p, path.n);
        int rc = ep_file_write(name, wanted, 0644);
        free(name);
        good = rc == 0 || ep_error_set(err, "egress_tls.bundle %.*s: %s", EP_STR_ARG(path), strerror(-rc));
        if (good)
            ep_info("egress", "%.*s: CA %.*s and the system's roots", EP_STR_ARG(path), EP_STR_ARG(ep_ca_sha256(e->ca)));
    }
    ep_file_free(&there, false);
    ep_file_free(&wanted, false);
    return good;
}

/* --- for people --- */

void ep_egress_describe(const struct ep_egress *e, uint64_t now_ns, struct ep_json *out)
{
    size_t kept;
    uint64_t made;
    char end[32];

    if (e->ca) {
        ep_ca_counts(e->ca, &kept, &made);
        ep_json_key(out, "ca");
        ep_json_object(out);
        ep_json_kstr(out, "sha256", ep_ca_sha256(e->ca));
        ep_json_kbool(out, "mounted", e->ca_digest != 0);
        ep_json_kstr(out, "ends", ep_str_n(end, (size_t)ep_time_rfc3339((uint64_t)ep_ca_expiry(e->ca) * EP_S, end)));
        if (e->config->bundle.n)
            ep_json_kstr(out, "bundle", e->config->bundle);
        ep_json_kuint(out, "certificates_kept", kept);
        ep_json_kuint(out, "certificates_made", made);
        ep_json_object_end(out);
    }
    ep_json_kuint(out, "rules", e->n_rules);
    ep_json_key(out, "pinned");
    ep_pinned_json(e->pinned, now_ns, out);
}
