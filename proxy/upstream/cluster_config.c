/* The schema of `clusters:` and `mesh:`, and the checks that a table can't say. Keys are those of DESIGN.md section 5.
 */
#include "upstream/cluster_config.h"

#include "upstream/cluster.h"
#include "upstream/upstream.h"

#define CONFIG            struct ep_cluster_config
#define SUB(part, member) (offsetof(CONFIG, part.member) - offsetof(CONFIG, part))
#define SUB_SIZE(part)    sizeof(((CONFIG *)0)->part)

static const struct ep_field tls_fields[] = {
    {.key = "mode",
     .type = EP_TYPE_ENUM,
     .offset = SUB(tls, mode),
     .preset = "auto",
     .names = ep_cluster_tls_names,
     .help = "auto: mTLS where `mesh` says so, else plain text; simple: TLS as browsers do it; mesh: mTLS with our "
             "identity."},
    {.key = "sni",
     .type = EP_TYPE_STR,
     .offset = SUB(tls, sni),
     .help = "The server's name, for SNI and (simple) to verify; without it the authority of the request."},
    {.key = "roots",
     .type = EP_TYPE_STR,
     .offset = SUB(tls, roots),
     .help = "PEM file of the roots to trust (simple); without it the system's."},
    {.key = "peers",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = SUB(tls, peers),
     .help = "SPIFFE IDs (globs) of which the server must have one (mesh); without it any of the trust domain."},
};

static const struct ep_schema tls_schema = {
    .name = "cluster.tls",
    .help = "TLS towards the endpoints.",
    .size = SUB_SIZE(tls),
    .fields = tls_fields,
    .n_fields = EP_COUNT(tls_fields),
    .short_key = "mode",
};

static const struct ep_field limits_fields[] = {
    {.key = "connections",
     .type = EP_TYPE_INT,
     .offset = SUB(limits, connections),
     .preset = "1024",
     .min = 1,
     .max = 1e6,
     .help = "Connections open at once, of all workers together."},
    {.key = "pending",
     .type = EP_TYPE_INT,
     .offset = SUB(limits, pending),
     .preset = "16384",
     .min = 1,
     .max = 1e6,
     .help = "Requests waiting for a connection."},
    {.key = "requests",
     .type = EP_TYPE_INT,
     .offset = SUB(limits, requests),
     .preset = "65536",
     .min = 1,
     .max = 1e7,
     .help = "Requests at the cluster at once, waiting ones included."},
    {.key = "retries",
     .type = EP_TYPE_PERCENT,
     .offset = SUB(limits, retries),
     .preset = "20%",
     .min = 0,
     .max = 100,
     .help = "Retries, as a share of the requests of the last ten seconds; a route's budget can only be lower."},
    {.key = "requests_per_connection",
     .type = EP_TYPE_INT,
     .offset = SUB(limits, requests_per_connection),
     .preset = "0",
     .min = 0,
     .max = 1e9,
     .help = "Requests after which a connection is replaced; 0: no limit."},
};

static const struct ep_schema limits_schema = {
    .name = "cluster.limits",
    .help = "Circuit breakers: what is over them is refused at once.",
    .size = SUB_SIZE(limits),
    .fields = limits_fields,
    .n_fields = EP_COUNT(limits_fields),
};

static const struct ep_field outlier_fields[] = {
    {.key = "consecutive_5xx",
     .type = EP_TYPE_INT,
     .offset = SUB(outlier, consecutive_5xx),
     .preset = "5",
     .min = 0,
     .max = 1e6,
     .help = "5xx answers, resets and failed connections in a row after which an endpoint is ejected; 0: never."},
    {.key = "ejection",
     .type = EP_TYPE_DURATION,
     .offset = SUB(outlier, ejection_ns),
     .preset = "30s",
     .min = 1e6,
     .max = 3.6e12,
     .help = "How long the first ejection lasts; each further one is longer by as much."},
    {.key = "max_ejected",
     .type = EP_TYPE_PERCENT,
     .offset = SUB(outlier, max_ejected),
     .preset = "50%",
     .min = 0,
     .max = 100,
     .help = "Share of the endpoints that may be ejected at once."},
};

static const struct ep_schema outlier_schema = {
    .name = "cluster.outlier",
    .help = "Ejection of endpoints that fail.",
    .size = SUB_SIZE(outlier),
    .fields = outlier_fields,
    .n_fields = EP_COUNT(outlier_fields),
};

static const struct ep_field probe_fields[] = {
    {.key = "path",
     .type = EP_TYPE_STR,
     .offset = SUB(probe, path),
     .help = "GET of this path must answer 2xx or 3xx, over HTTP/1.1 unless `protocol` is h2 or the mesh is called; "
             "without it and without `tcp` nothing is probed."},
    {.key = "tcp",
     .type = EP_TYPE_BOOL,
     .offset = SUB(probe, tcp),
     .preset = "false",
     .help = "A connection that opens (with TLS: whose handshake succeeds) is enough."},
    {.key = "interval",
     .type = EP_TYPE_DURATION,
     .offset = SUB(probe, interval_ns),
     .preset = "10s",
     .min = 1e7,
     .max = 3.6e12,
     .help = "Time between two probes of an endpoint, by each worker."},
    {.key = "timeout",
     .type = EP_TYPE_DURATION,
     .offset = SUB(probe, timeout_ns),
     .preset = "2s",
     .min = 1e6,
     .max = 3.6e12,
     .help = "Time that a probe may take."},
    {.key = "healthy",
     .type = EP_TYPE_INT,
     .offset = SUB(probe, healthy),
     .preset = "2",
     .min = 1,
     .max = 1000,
     .help = "Good probes in a row that bring an endpoint back."},
    {.key = "unhealthy",
     .type = EP_TYPE_INT,
     .offset = SUB(probe, unhealthy),
     .preset = "3",
     .min = 1,
     .max = 1000,
     .help = "Bad probes in a row that take an endpoint out."},
};

static void check_probe(void *object, struct ep_checker *c)
{
    struct ep_cluster_config *whole = (CONFIG *)(void *)((char *)object - offsetof(CONFIG, probe));

    if (whole->probe.path.n && whole->probe.path.p[0] != '/')
        ep_check_error(c, object, "path", "must begin with /");
    if (whole->probe.path.n && whole->probe.tcp)
        ep_check_error(c, object, "tcp", "a probe is either HTTP (path) or TCP (tcp), not both");
}

static const struct ep_schema probe_schema = {
    .name = "cluster.probe",
    .help = "Active health checks.",
    .size = SUB_SIZE(probe),
    .fields = probe_fields,
    .n_fields = EP_COUNT(probe_fields),
    .short_key = "path",
    .check = check_probe,
};

static const struct ep_field fields[] = {
    {.key = "name",
     .type = EP_TYPE_STR,
     .offset = offsetof(CONFIG, name),
     .required = true,
     .help = "What routes call it."},
    {.key = "endpoints",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_ADDR,
     .offset = offsetof(CONFIG, endpoints),
     .help = "Numeric addresses with ports, or unix:/path."},
    {.key = "dns",
     .type = EP_TYPE_STR,
     .offset = offsetof(CONFIG, dns),
     .help =
         "A name with a port (tools.agents.svc:8080): all its addresses are endpoints, looked up again by their TTL."},
    {.key = "original_destination",
     .type = EP_TYPE_BOOL,
     .offset = offsetof(CONFIG, original_destination),
     .preset = "false",
     .help = "Go where the intercepted connection wanted to go."},
    {.key = "protocol",
     .type = EP_TYPE_ENUM,
     .offset = offsetof(CONFIG, protocol),
     .preset = "auto",
     .names = ep_cluster_protocol_names,
     .help = "auto: what the caller speaks (HTTP/1.1 where HTTP/2 is not understood), or by ALPN under TLS; to the mesh always h2."},
    {.key = "tls",
     .type = EP_TYPE_STRUCT,
     .offset = offsetof(CONFIG, tls),
     .sub = &tls_schema,
     .help = "TLS to the endpoints."},
    {.key = "balance",
     .type = EP_TYPE_ENUM,
     .offset = offsetof(CONFIG, balance),
     .preset = "p2c_ewma",
     .names = ep_cluster_balance_names,
     .help = "How an endpoint is chosen: p2c_ewma takes the better of two by latency and load."},
    {.key = "limits",
     .type = EP_TYPE_STRUCT,
     .offset = offsetof(CONFIG, limits),
     .sub = &limits_schema,
     .help = "Circuit breakers."},
    {.key = "outlier",
     .type = EP_TYPE_STRUCT,
     .offset = offsetof(CONFIG, outlier),
     .sub = &outlier_schema,
     .help = "Ejection of endpoints that fail."},
    {.key = "probe",
     .type = EP_TYPE_STRUCT,
     .offset = offsetof(CONFIG, probe),
     .sub = &probe_schema,
     .help = "Active health checks."},
    {.key = "connect_timeout",
     .type = EP_TYPE_DURATION,
     .offset = offsetof(CONFIG, connect_timeout_ns),
     .preset = "5s",
     .min = 1e6,
     .max = 3.6e12,
     .help = "Time for a connection to open, TLS included."},
    {.key = "queue_timeout",
     .type = EP_TYPE_DURATION,
     .offset = offsetof(CONFIG, queue_timeout_ns),
     .preset = "10s",
     .min = 1e6,
     .max = 3.6e12,
     .help = "Time that a request waits for a connection."},
    {.key = "idle_timeout",
     .type = EP_TYPE_DURATION,
     .offset = offsetof(CONFIG, idle_timeout_ns),
     .preset = "5m",
     .min = 1e6,
     .max = 8.64e13,
     .help = "Time after which an unused connection is closed."},
    {.key = "panic",
     .type = EP_TYPE_PERCENT,
     .offset = offsetof(CONFIG, panic),
     .preset = "50%",
     .min = 0,
     .max = 100,
     .help = "Below this share of healthy endpoints all are used; 0%: never."},
};

static void check(void *object, struct ep_checker *c)
{
    struct ep_cluster_config *k = object;
    int ways = (k->endpoints.n > 0) + (k->dns.n > 0) + k->original_destination;
    struct ep_str host;
    uint16_t port;

    if (k->name.n == 0)
        ep_check_error(c, object, "name", "must not be empty");
    if (ways == 0)
        ep_check_error(c, object, "endpoints", "say where to: one of endpoints, dns, or original_destination: true");
    if (ways > 1)
        ep_check_error(c, object, k->dns.n ? "dns" : "original_destination",
                       "give just one of endpoints, dns and original_destination");
    if (k->dns.n && !ep_cluster_dns_parse(k->dns, &host, &port))
        ep_check_error(c, object, "dns", "\"%.*s\" isn't a name with a port, such as tools.agents.svc:8080",
                       EP_STR_ARG(k->dns));
    if (k->tls.roots.n && k->tls.mode != EP_UPTLS_SIMPLE)
        ep_check_error(c, &k->tls, "roots", "is for mode: simple; the mesh trusts the identity's roots");
    if (k->tls.peers.n && k->tls.mode != EP_UPTLS_MESH && k->tls.mode != EP_UPTLS_AUTO)
        ep_check_error(c, &k->tls, "peers", "is for mode: mesh (or auto)");
    if (k->original_destination && (k->probe.path.n || k->probe.tcp))
        ep_check_error(c, object, "probe",
                       "endpoints of original_destination can't be probed: they come and go with requests");
}

const struct ep_schema ep_cluster_schema =
    EP_SCHEMA("cluster", "Where requests go: endpoints, and how to reach them.", CONFIG, fields, .check = check);

static const struct ep_field mesh_fields[] = {
    {.key = "hosts",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_STR,
     .offset = offsetof(struct ep_mesh_config, hosts),
     .help = "Names (globs) that must be reached by mTLS."},
    {.key = "cidrs",
     .type = EP_TYPE_LIST,
     .item = EP_TYPE_CIDR,
     .offset = offsetof(struct ep_mesh_config, cidrs),
     .help = "Addresses that must be reached by mTLS."},
};

const struct ep_schema ep_mesh_schema =
    EP_SCHEMA("mesh", "Which destinations are inside the mesh: to them mTLS is a must, to others it is never started.",
              struct ep_mesh_config, mesh_fields, .check = NULL);
