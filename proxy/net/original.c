/* Where an intercepted connection was going before the rules of the pod bent it to us.
 *
 * REDIRECT keeps it in conntrack, asked for by SO_ORIGINAL_DST (the same number for IPv6 by another level); TPROXY
 * keeps it as the local address. A listener on [::] gets IPv4 as v4-mapped addresses: conntrack then knows the
 * connection as IPv4, and so do those whom the address is given to. */
#include <netinet/in.h>
#include <string.h>

#include "net/listener.h"

#define ORIGINAL_DST 80 /* SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST; their headers don't mix with netinet's */

static bool is_mapped(const struct ep_addr *a)
{
    struct sockaddr_in6 in6;

    if (a->u.sa.sa_family != AF_INET6)
        return false;
    memcpy(&in6, &a->u, sizeof in6);
    return IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr);
}

static void unmap(struct ep_addr *a)
{
    struct sockaddr_in6 in6;
    struct sockaddr_in in = {.sin_family = AF_INET};

    if (!is_mapped(a))
        return;
    memcpy(&in6, &a->u, sizeof in6);
    in.sin_port = in6.sin6_port;
    memcpy(&in.sin_addr, in6.sin6_addr.s6_addr + 12, 4);
    memset(a, 0, sizeof *a);
    memcpy(&a->u, &in, sizeof in);
    a->len = sizeof in;
}

bool ep_original_destination(int fd, enum ep_intercept how, struct ep_addr *out)
{
    struct ep_addr local = {.len = sizeof local.u};

    memset(out, 0, sizeof *out);
    if (how == EP_INTERCEPT_NONE || getsockname(fd, &local.u.sa, &local.len) < 0)
        return false;
    if (local.u.sa.sa_family != AF_INET && local.u.sa.sa_family != AF_INET6)
        return false;

    bool v6 = local.u.sa.sa_family == AF_INET6 && !is_mapped(&local);
    unmap(&local);
    if (how == EP_INTERCEPT_TPROXY) {
        *out = local;
        return true;
    }
    out->len = sizeof out->u;
    if (getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, ORIGINAL_DST, &out->u, &out->len) < 0) {
        memset(out, 0, sizeof *out);
        return false;
    }
    if (ep_addr_equal(out, &local)) { /* dialled directly: to follow it would be to call ourselves */
        memset(out, 0, sizeof *out);
        return false;
    }
    return true;
}
