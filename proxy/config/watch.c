/* See watch.h. A name that nobody asked about is dropped before anything is read. */
#include "config/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define SETTLE_NS     (100 * EP_MS)
#define SETTLE_MAX_NS EP_S /* a file written to without end is looked at all the same */
#define MASK                                                                                                           \
    (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

static bool interesting(const struct ep_watch *w, const struct inotify_event *e)
{
    struct ep_str name = ep_str(e->len ? e->name : "");
    bool known = ep_str_eq(name, EP_STR("..data"));

    if (e->mask & (IN_Q_OVERFLOW | IN_DELETE_SELF | IN_MOVE_SELF))
        return true;
    for (unsigned i = 0; i < w->n_names && !known; i++)
        known = strcmp(w->names[i], name.p) == 0;
    if (!known && !ep_str_ends(name, EP_STR(".lua")))
        return false;
    if (!(e->mask & IN_CREATE) || (e->mask & IN_ISDIR))
        return true;
    for (unsigned i = 0; i < w->n; i++) /* a new file is told again when it is written; a new link isn't */
        if (w->v[i].wd == e->wd) {
            struct stat st;
            int fd = open(w->v[i].path, O_PATH | O_DIRECTORY | O_CLOEXEC);
            bool link = fd >= 0 && fstatat(fd, name.p, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
            if (fd >= 0)
                close(fd);
            return link;
        }
    return false;
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct ep_watch *w = arg;
    _Alignas(struct inotify_event) char buffer[4096];
    bool seen = false;
    ssize_t n;

    (void)what;
    ep_worker_wake(w->worker);
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        for (char *p = buffer; p < buffer + n;) {
            const struct inotify_event *e = (const struct inotify_event *)(const void *)p;
            seen |= interesting(w, e);
            p += sizeof *e + e->len;
        }
    if (!seen)
        return;
    if (!w->since_ns)
        w->since_ns = w->worker->now_ns;
    if (!ep_timer_running(&w->settle) || w->worker->now_ns - w->since_ns < SETTLE_MAX_NS)
        ep_worker_timer(w->worker, &w->settle, SETTLE_NS);
}

static void on_settled(struct ep_timer *t)
{
    struct ep_watch *w = EP_CONTAINER(t, struct ep_watch, settle);

    w->since_ns = 0;
    w->on_change(w);
}

void ep_watch_init(struct ep_watch *w, struct ep_worker *worker, void (*on_change)(struct ep_watch *w))
{
    memset(w, 0, sizeof *w);
    w->worker = worker;
    w->on_change = on_change;
    ep_timer_init(&w->settle, on_settled);
    w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (w->fd < 0) {
        ep_warn("config", "files are not watched: inotify: %s", strerror(errno));
        return;
    }
    event_assign(&w->event, worker->base, w->fd, EV_READ | EV_PERSIST, on_event, w);
    event_add(&w->event, NULL);
}

static void forget_names(struct ep_watch *w)
{
    while (w->n_names)
        free(w->names[--w->n_names]);
}

void ep_watch_fini(struct ep_watch *w)
{
    if (!w->worker || w->fd < 0)
        return;
    ep_worker_timer_stop(w->worker, &w->settle);
    event_del(&w->event);
    close(w->fd);
    w->fd = -1;
    while (w->n)
        free(w->v[--w->n].path);
    forget_names(w);
}

void ep_watch_begin(struct ep_watch *w)
{
    forget_names(w);
    for (unsigned i = 0; i < w->n; i++)
        w->v[i].wanted = false;
}

static void add_directory(struct ep_watch *w, const char *path)
{
    int wd = w->fd < 0 ? -1 : inotify_add_watch(w->fd, path, MASK);

    if (wd < 0) {
        if (w->fd >= 0)
            ep_warn("config", "%s is not watched: %s", path, strerror(errno));
        return;
    }
    for (unsigned i = 0; i < w->n; i++)
        if (w->v[i].wd == wd) {
            w->v[i].wanted = true;
            return;
        }
    if (w->n == EP_WATCH_MAX) {
        ep_warn("config", "%s is not watched: there are %u directories already", path, EP_WATCH_MAX);
        inotify_rm_watch(w->fd, wd);
        return;
    }
    w->v[w->n].wd = wd;
    w->v[w->n].path = ep_strdup(path);
    w->v[w->n++].wanted = true;
}

static void add_file(struct ep_watch *w, const char *path)
{
    char *for_name = ep_strdup(path), *for_directory = ep_strdup(path);

    if (w->n_names < EP_WATCH_MAX)
        w->names[w->n_names++] = ep_strdup(basename(for_name));
    add_directory(w, dirname(for_directory));
    free(for_name);
    free(for_directory);
}

void ep_watch_file(struct ep_watch *w, struct ep_str path)
{
    char *given = ep_strndup(path.p, path.n);
    char *real = path.n ? realpath(given, NULL) : NULL;

    if (path.n)
        add_file(w, given);
    if (real && strcmp(real, given) != 0)
        add_file(w, real);
    free(real);
    free(given);
}

void ep_watch_directory(struct ep_watch *w, struct ep_str path)
{
    char *given = ep_strndup(path.p, path.n);

    if (path.n)
        add_directory(w, given);
    free(given);
}

void ep_watch_end(struct ep_watch *w)
{
    for (unsigned i = w->n; i-- > 0;) {
        if (w->v[i].wanted)
            continue;
        inotify_rm_watch(w->fd, w->v[i].wd); /* fails when the directory is gone, and so is its watch */
        free(w->v[i].path);
        w->v[i] = w->v[--w->n];
    }
}
