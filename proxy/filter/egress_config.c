/* The schema of `egress:` and `egress_tls:`. */
#include "filter/egress_config.h"

#include "net/tls.h"

#define RULE(member) offsetof(struct ep_egress_config, member)
#define TLS(member)  offsetof(struct ep_egress_tls_config, member)

static const char *const hows[] = {"passthrough", "intercept", "originate", NULL};
static const char *const verdicts[] = {"deny", "passthrough", NULL};

static const struct ep_field rule_fields[] = {
    {.key = "hosts",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = RULE(hosts),
     .required = true,
     .help = "Names (globs) of the hosts this is about: by the SNI of a ClientHello, by the authority of a plain request. "
             "*.x.com is all below x.com, not x.com itself."},
    {.key = "tls",
     .type = EP_TYPE_ENUM,
     .offset = RULE(tls),
     .preset = "passthrough",
     .names = hows,
     .help = "passthrough: only the name is seen; intercept: the TLS ends here, under the pod's own CA, and begins anew to the "
             "host; originate: plain requests go out over TLS."},
    {.key = "on_pinned",
     .type = EP_TYPE_ENUM,
     .offset = RULE(on_pinned),
     .preset = "deny",
     .names = verdicts,
     .help = "Clients that refuse our certificate: deny goes on refusing them; passthrough lets them by unseen for "
             "egress_tls.pinned_for."},
    {.key = "roots",
     .type = EP_TYPE_STR,
     .offset = RULE(roots),
     .help = "PEM file of the roots that the hosts' certificates are checked against; without it the system's."},
    {.key = "ports",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_INT,
     .offset = RULE(ports),
     .help = "Ports of the original destination that this is about; without it any."},
    {.key = "origin_port",
     .type = EP_TYPE_INT,
     .offset = RULE(origin_port),
     .preset = "443",
     .min = 1,
     .max = 65535,
     .help = "The port that originate calls in place of the original destination's; a cluster with endpoints has its own."},
};

static bool is_pattern_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("-_.*?", c) != NULL;
}

/* Names are compared in lower case and without a dot at the end, so patterns are kept so. */
static void check_host(struct ep_egress_config *r, struct ep_str *host, struct ep_checker *c)
{
    char *p = (char *)(uintptr_t)host->p; /* of the configuration's arena */
    char name[EP_HOST_MAX + 1];
    bool good = host->n > 0 && host->n <= EP_HOST_MAX, glob = false;

    for (size_t i = 0; i < host->n && good; i++) {
        p[i] = ep_lower(p[i]);
        good = p[i] && is_pattern_char(p[i]);
        glob |= p[i] == '*' || p[i] == '?';
    }
    if (good && host->n > 1 && host->p[host->n - 1] == '.')
        host->n--;
    if (!good || (!glob && !ep_host_normalise(*host, name)))
        ep_check_error(c, r, "hosts", "\"%.*s\" is no name of a host, such as api.openai.com or *.openai.com (no port, no address)",
                       EP_STR_ARG(*host));
}

static void check_rule(void *object, struct ep_checker *c)
{
    struct ep_egress_config *r = object;
    const int64_t *port = r->ports.v;
    struct ep_str *host = r->hosts.v;

    if (r->hosts.n == 0)
        ep_check_error(c, r, "hosts", "name at least one; \"*\" is all");
    for (size_t i = 0; i < r->hosts.n; i++)
        check_host(r, &host[i], c);
    for (size_t i = 0; i < r->ports.n; i++)
        if (port[i] < 1 || port[i] > 65535)
            ep_check_error(c, r, "ports", "%lld is no port", (long long)port[i]);
    if (r->tls == EP_EGRESS_PASSTHROUGH && r->roots.n)
        ep_check_error(c, r, "roots", "is for intercept and originate; what passes through is verified by the app");
    if (r->tls != EP_EGRESS_INTERCEPT && r->on_pinned != EP_EGRESS_DENY)
        ep_check_error(c, r, "on_pinned", "is for intercept");
    if (r->tls != EP_EGRESS_ORIGINATE && r->origin_port != 443)
        ep_check_error(c, r, "origin_port", "is for originate");
}

const struct ep_schema ep_egress_schema =
    EP_SCHEMA("egress", "TLS to hosts outside the mesh, on outbound listeners; the first entry that names the host. Without one it "
                        "passes through.",
              struct ep_egress_config, rule_fields, .check = check_rule);

static const struct ep_field tls_fields[] = {
    {.key = "bundle",
     .type = EP_TYPE_STR,
     .offset = TLS(bundle),
     .help = "File that apps read their roots from, on a volume they share: written with the pod's CA and the system's roots."},
    {.key = "certificate",
     .type = EP_TYPE_STR,
     .offset = TLS(certificate),
     .help = "PEM file of a CA to sign with, and those above it; without it one is made at the start and dies with the process."},
    {.key = "key", .type = EP_TYPE_STR, .offset = TLS(key), .help = "PEM file of its key."},
    {.key = "unnamed",
     .type = EP_TYPE_ENUM,
     .offset = TLS(unnamed),
     .preset = "passthrough",
     .names = verdicts,
     .help = "TLS to no host that can be told, on outbound listeners: no SNI, none that is a name, or one that Encrypted Client "
             "Hello may hide."},
    {.key = "pinned_for",
     .type = EP_TYPE_DURATION,
     .offset = TLS(pinned_for_ns),
     .preset = "10m",
     .min = (double)EP_S,
     .max = 86400.0 * (double)EP_S,
     .help = "How long on_pinned: passthrough lets a client by."},
};

static void check_tls(void *object, struct ep_checker *c)
{
    const struct ep_egress_tls_config *t = object;

    if (!t->certificate.n != !t->key.n)
        ep_check_error(c, object, t->key.n ? "key" : "certificate", "certificate and key come together");
}

const struct ep_schema ep_egress_tls_schema =
    EP_SCHEMA("egress_tls", "What holds for all of `egress`.", struct ep_egress_tls_config, tls_fields, .check = check_tls);
