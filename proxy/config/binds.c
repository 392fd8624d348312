/* See binds.h. */
#include "config/binds.h"

#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

bool ep_bind_free(const struct ep_addr *a, struct ep_error *err)
{
    int family = a->u.sa.sa_family, one = 1, off = 0;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool taken;
    char text[128];

    if (fd < 0)
        return true; /* making the real one will say why */
    if (family == AF_UNIX) {
        taken = connect(fd, &a->u.sa, a->len) == 0 || errno == EAGAIN;
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        taken = bind(fd, &a->u.sa, a->len) < 0 && errno == EADDRINUSE;
    }
    close(fd);
    ep_addr_format(a, text);
    return !taken || ep_error_set(err, "bind %s: %s", text, strerror(EADDRINUSE));
}

static bool listens(const struct ep_config *c, const struct ep_addr *a)
{
    const struct ep_listener_config *l = c ? c->listeners.v : NULL;

    for (size_t i = 0; c && i < c->listeners.n; i++)
        if (ep_addr_equal(&l[i].bind, a))
            return true;
    return false;
}

void ep_bind_unlink(const struct ep_config *old, const struct ep_config *now)
{
    const struct ep_listener_config *l = old->listeners.v;

    for (size_t i = 0; i < old->listeners.n; i++)
        if (l[i].bind.u.sa.sa_family == AF_UNIX && l[i].bind.u.un.sun_path[0] && !listens(now, &l[i].bind))
            unlink(l[i].bind.u.un.sun_path);
}
