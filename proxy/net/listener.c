/* Accepting, and surviving when descriptors run out. What follows an accept is in sniffer.c. */
#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/sniffer.h"

#define ACCEPTS_PER_EVENT 32
#define RETRY_NS (20 * EP_MS)
#define REST_ROUNDS 256

int ep_listener_socket(const struct ep_listener_options *o, struct ep_error *err)
{
    int family = o->bind.u.sa.sa_family, one = 1, off = 0;
    char text[128];
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    ep_addr_format(&o->bind, text);
    if (fd < 0) {
        ep_error_set(err, "socket for %s: %s", text, strerror(errno));
        return -1;
    }
    if (family == AF_UNIX) {
        struct stat st;
        const char *path = o->bind.u.un.sun_path;
        if (path[0] && stat(path, &st) == 0 && S_ISSOCK(st.st_mode))
            unlink(path); /* left by a process that was killed */
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
        if (family == AF_INET6)
            setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    if (o->intercept == EP_INTERCEPT_TPROXY &&
        (setsockopt(fd, SOL_IP, IP_TRANSPARENT, &one, sizeof one) < 0 ||
         (family == AF_INET6 && setsockopt(fd, SOL_IPV6, IPV6_TRANSPARENT, &one, sizeof one) < 0))) {
        ep_error_set(err, "IP_TRANSPARENT on %s: %s (tproxy needs CAP_NET_ADMIN)", text, strerror(errno));
        close(fd);
        return -1;
    }
    if (bind(fd, &o->bind.u.sa, o->bind.len) < 0) {
        ep_error_set(err, "bind %s: %s", text, strerror(errno));
        close(fd);
        return -1;
    }
    if (listen(fd, o->backlog > 0 ? o->backlog : 4096) < 0) {
        ep_error_set(err, "listen on %s: %s", text, strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

static void on_retry(struct ep_timer *t)
{
    struct ep_listener *l = EP_CONTAINER(t, struct ep_listener, retry);

    if (l->spare_fd < 0)
        l->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (l->fd >= 0 && l->paused) {
        l->paused = false;
        event_add(&l->event, NULL);
    }
}

static void pause_accept(struct ep_listener *l)
{
    if (l->paused)
        return;
    l->paused = true;
    event_del(&l->event);
    ep_worker_timer(l->worker, &l->retry, RETRY_NS);
}

/* No descriptor is left: gives up the spare one, so that the caller at the head of the queue is told by a
 * close and not left hanging, and rests a little. */
static void out_of_descriptors(struct ep_listener *l)
{
    if (l->spare_fd >= 0) {
        close(l->spare_fd);
        l->spare_fd = -1;
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            close(fd);
        l->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    l->refused++;
    l->ops->on_refused(l, "descriptors");
    pause_accept(l);
}

/* False when the queue is empty, or nothing more can be taken now. */
static bool accept_some(struct ep_listener *l)
{
    struct ep_worker *w = l->worker;

    for (int i = 0; i < ACCEPTS_PER_EVENT; i++) {
        struct ep_addr peer = {.len = sizeof peer.u};
        int fd = accept4(l->fd, &peer.u.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                out_of_descriptors(l);
            else if (errno == EINTR || errno == ECONNABORTED)
                continue;
            return false;
        }
        l->accepted++;
        if (l->n_connections >= l->options.max_connections || w->n_conns >= w->max_conns ||
            (w->memory_limit && (uint64_t)w->slabs.n_live * EP_SLAB_BYTES > w->memory_limit)) {
            l->refused++;
            l->ops->on_refused(l, "limit");
            close(fd);
            continue;
        }
        ep_sniffer_start(l, fd, &peer);
        if (l->fd < 0 || l->paused)
            return false;
    }
    return true;
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    struct ep_listener *l = arg;

    (void)fd, (void)what;
    ep_worker_wake(l->worker);
    accept_some(l);
}

bool ep_listener_init(struct ep_listener *l, struct ep_worker *w, const struct ep_listener_options *o,
                      const struct ep_listener_ops *ops, void *user, int fd, struct ep_error *err)
{
    memset(l, 0, sizeof *l);
    l->worker = w;
    l->options = *o;
    l->ops = ops;
    l->user = user;
    l->fd = fd >= 0 ? fd : ep_listener_socket(o, err);
    if (l->fd < 0)
        return false;
    l->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    ep_timer_init(&l->retry, on_retry);
    event_assign(&l->event, w->base, l->fd, EV_READ | EV_PERSIST, on_accept, l);
    event_add(&l->event, NULL);
    return true;
}

void ep_listener_take_rest(struct ep_listener *l)
{
    for (int i = 0; i < REST_ROUNDS && l->fd >= 0 && !l->paused && accept_some(l); i++)
        ;
}

void ep_listener_stop(struct ep_listener *l)
{
    if (l->fd < 0)
        return;
    ep_worker_timer_stop(l->worker, &l->retry);
    if (!l->paused)
        event_del(&l->event);
    close(l->fd);
    l->fd = -1;
    if (l->spare_fd >= 0)
        close(l->spare_fd);
    l->spare_fd = -1;
}
