/* The words of a cluster's configuration, for the schema and for /clusters. Apart from the schema (cluster_config.c),
 * so that using clusters doesn't need the configuration's machinery. */
#include "upstream/cluster.h"

const char *const ep_cluster_protocol_names[] = {"auto", "h2", "http/1.1", "tcp", NULL};
const char *const ep_cluster_tls_names[] = {"auto", "off", "simple", "mesh", NULL};
const char *const ep_cluster_balance_names[] = {"round_robin", "least_request", "p2c_ewma", "random", NULL};

/* "name:port" of `dns`. */
bool ep_cluster_dns_parse(struct ep_str dns, struct ep_str *host, uint16_t *port)
{
    uint64_t number;
    size_t colon = dns.n;

    while (colon > 0 && dns.p[colon - 1] != ':')
        colon--;
    if (colon < 2 || !ep_str_u64(ep_str_n(dns.p + colon, dns.n - colon), &number) || number == 0 || number > 65535)
        return false;
    *host = ep_str_n(dns.p, colon - 1);
    *port = (uint16_t)number;
    if (host->n > 2 && host->p[0] == '[' && host->p[host->n - 1] == ']')
        return true; /* a numeric IPv6 address */
    if (host->n > 253)
        return false;
    for (size_t i = 0; i < host->n; i++) {
        char c = ep_lower(host->p[i]);
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.'))
            return false;
    }
    return true;
}
