/* Addresses: text to sockaddr and back, and CIDR ranges. Numeric only; names are upstream's business.
 *
 * An IPv4 peer of a socket bound to [::] arrives as ::ffff:a.b.c.d. It is printed and matched as the IPv4
 * address that it is; otherwise a rule for 10.0.0.0/8 would silently not hold on a dual-stack listener. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

#include "base/base.h"

static struct sockaddr_in *in4(struct ep_addr *a)
{
    return (struct sockaddr_in *)(void *)&a->u.ss;
}

static struct sockaddr_in6 *in6(struct ep_addr *a)
{
    return (struct sockaddr_in6 *)(void *)&a->u.ss;
}

static const struct sockaddr_in *in4_const(const struct ep_addr *a)
{
    return (const struct sockaddr_in *)(const void *)&a->u.ss;
}

static const struct sockaddr_in6 *in6_const(const struct ep_addr *a)
{
    return (const struct sockaddr_in6 *)(const void *)&a->u.ss;
}

/* inet_pton wants a NUL. Returns the family, or AF_UNSPEC. */
static int ip_parse(struct ep_str s, unsigned char bytes[16])
{
    char z[INET6_ADDRSTRLEN];

    if (s.n == 0 || s.n >= sizeof(z) || memchr(s.p, 0, s.n))
        return AF_UNSPEC;
    memcpy(z, s.p, s.n);
    z[s.n] = 0;
    if (inet_pton(AF_INET, z, bytes) == 1)
        return AF_INET;
    return inet_pton(AF_INET6, z, bytes) == 1 ? AF_INET6 : AF_UNSPEC;
}

static bool unix_parse(struct ep_str path, struct ep_addr *out)
{
    bool abstract = path.n && path.p[0] == '@';

    if (path.n < (abstract ? 2u : 1u) || path.n >= sizeof(out->u.un.sun_path) || memchr(path.p, 0, path.n))
        return false;
    out->u.un.sun_family = AF_UNIX;
    memcpy(out->u.un.sun_path, path.p, path.n);
    if (abstract)
        out->u.un.sun_path[0] = 0;
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.n + !abstract);
    return true;
}

bool ep_addr_parse(struct ep_str s, struct ep_addr *out)
{
    struct ep_str host, port_text;
    uint64_t port;
    unsigned char bytes[16];
    size_t colon = s.n;
    int family;

    memset(out, 0, sizeof(*out));
    if (ep_str_starts(s, EP_STR("unix:")))
        return unix_parse(ep_str_n(s.p + 5, s.n - 5), out);
    while (colon > 0 && s.p[colon - 1] != ':')
        colon--;
    if (colon == 0)
        return false;
    host = ep_str_n(s.p, colon - 1);
    port_text = ep_str_n(s.p + colon, s.n - colon);
    if (port_text.n > 5 || !ep_str_u64(port_text, &port) || port > UINT16_MAX)
        return false;
    if (host.n == 0) {
        memset(bytes, 0, sizeof(bytes));
        family = AF_INET6;
    } else if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') {
        family = ip_parse(ep_str_n(host.p + 1, host.n - 2), bytes);
        if (family != AF_INET6)
            return false;
    } else {
        family = ip_parse(host, bytes);
        if (family != AF_INET)
            return false;
    }
    if (family == AF_INET) {
        in4(out)->sin_family = AF_INET;
        in4(out)->sin_port = htons((uint16_t)port);
        memcpy(&in4(out)->sin_addr, bytes, 4);
        out->len = sizeof(struct sockaddr_in);
    } else {
        in6(out)->sin6_family = AF_INET6;
        in6(out)->sin6_port = htons((uint16_t)port);
        memcpy(&in6(out)->sin6_addr, bytes, 16);
        out->len = sizeof(struct sockaddr_in6);
    }
    return true;
}

/* The address alone, IPv4-mapped as IPv4. Returns the family, or AF_UNSPEC for another kind. */
static int ip_bytes(const struct ep_addr *a, const unsigned char **bytes)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    int family = a->len ? a->u.sa.sa_family : AF_UNSPEC;

    if (family == AF_INET) {
        *bytes = (const unsigned char *)&in4_const(a)->sin_addr;
        return AF_INET;
    }
    if (family != AF_INET6)
        return AF_UNSPEC;
    *bytes = in6_const(a)->sin6_addr.s6_addr;
    if (memcmp(*bytes, mapped, sizeof(mapped)) == 0) {
        *bytes += sizeof(mapped);
        return AF_INET;
    }
    return AF_INET6;
}

static int unix_format(const struct ep_addr *a, char out[128])
{
    size_t n = (size_t)a->len - EP_MIN((size_t)a->len, offsetof(struct sockaddr_un, sun_path));
    const char *path = a->u.un.sun_path;

    n = EP_MIN(n, sizeof(a->u.un.sun_path));
    if (n == 0)
        return snprintf(out, 128, "unix:"); /* an unnamed peer */
    if (path[0])
        return snprintf(out, 128, "unix:%.*s", (int)strnlen(path, n), path);
    return snprintf(out, 128, "unix:@%.*s", (int)(n - 1), path + 1);
}

int ep_addr_format(const struct ep_addr *a, char out[128])
{
    char ip[INET6_ADDRSTRLEN];
    const unsigned char *bytes;
    int family = ip_bytes(a, &bytes);

    out[0] = 0;
    if (a->len && a->u.sa.sa_family == AF_UNIX)
        return unix_format(a, out);
    if (family == AF_UNSPEC || !inet_ntop(family, bytes, ip, sizeof(ip)))
        return 0;
    return snprintf(out, 128, family == AF_INET ? "%s:%u" : "[%s]:%u", ip, ep_addr_port(a));
}

bool ep_addr_equal(const struct ep_addr *a, const struct ep_addr *b)
{
    const unsigned char *pa, *pb;
    int family = ip_bytes(a, &pa);

    if (family != ip_bytes(b, &pb))
        return false;
    if (family == AF_UNSPEC)
        return a->len == b->len && (a->len == 0 || memcmp(&a->u, &b->u, a->len) == 0);
    return ep_addr_port(a) == ep_addr_port(b) && memcmp(pa, pb, family == AF_INET ? 4 : 16) == 0;
}

uint16_t ep_addr_port(const struct ep_addr *a)
{
    if (a->len && a->u.sa.sa_family == AF_INET)
        return ntohs(in4_const(a)->sin_port);
    if (a->len && a->u.sa.sa_family == AF_INET6)
        return ntohs(in6_const(a)->sin6_port);
    return 0;
}

void ep_addr_set_port(struct ep_addr *a, uint16_t port)
{
    if (a->len && a->u.sa.sa_family == AF_INET)
        in4(a)->sin_port = htons(port);
    else if (a->len && a->u.sa.sa_family == AF_INET6)
        in6(a)->sin6_port = htons(port);
}

bool ep_cidr_parse(struct ep_str s, struct ep_cidr *out)
{
    ptrdiff_t slash = ep_str_find(s, '/', 0);
    struct ep_str address = slash < 0 ? s : ep_str_n(s.p, (size_t)slash);
    struct ep_cidr c = {0};
    uint64_t bits;

    c.family = ip_parse(address, c.bytes);
    if (c.family == AF_UNSPEC)
        return false;
    c.bits = c.family == AF_INET ? 32 : 128;
    if (slash >= 0) {
        struct ep_str text = ep_str_n(s.p + slash + 1, s.n - (size_t)slash - 1);

        if (text.n > 3 || !ep_str_u64(text, &bits) || bits > c.bits)
            return false;
        c.bits = (unsigned)bits;
    }
    for (unsigned i = 0; i < 16; i++) {
        unsigned kept = c.bits > i * 8 ? EP_MIN(c.bits - i * 8, 8u) : 0;

        c.bytes[i] = (unsigned char)(c.bytes[i] & (0xff00u >> kept));
    }
    *out = c;
    return true;
}

bool ep_cidr_contains(const struct ep_cidr *c, const struct ep_addr *a)
{
    const unsigned char *bytes = NULL;
    unsigned whole = c->bits / 8, rest = c->bits % 8;
    int family = ip_bytes(a, &bytes);

    if (family == AF_UNSPEC || family != c->family)
        return false;
    if (memcmp(bytes, c->bytes, whole) != 0)
        return false;
    return rest == 0 || ((bytes[whole] ^ c->bytes[whole]) & (0xff00u >> rest) & 0xff) == 0;
}
