/* Reading and writing small files: configurations, certificates, keys. */
#include "config/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Reads until the end or `max`; the size that stat says is a hint only, since a file may grow. */
static bool read_all(int fd, size_t max, struct ep_str *out, struct ep_error *err)
{
    size_t n = 0, cap = 4096;
    char *p = ep_malloc(cap);

    for (;;) {
        ssize_t got = read(fd, p + n, cap - n - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 || n > max) {
            bool good = got == 0 && n <= max;
            p[n] = 0;
            *out = ep_str_n(p, n);
            if (!good) {
                if (got < 0)
                    ep_error_set(err, "cannot be read: %s", strerror(errno));
                else
                    ep_error_set(err, "is longer than %zu bytes", max);
                ep_file_free(out, true);
            }
            return good;
        }
        n += (size_t)got;
        if (cap - n < 2) {
            char *wider = ep_malloc(cap * 2);
            memcpy(wider, p, n);
            explicit_bzero(p, n);
            free(p);
            p = wider;
            cap *= 2;
        }
    }
}

bool ep_file_read(struct ep_str path, size_t max, struct ep_str *out, struct ep_error *err)
{
    char *name = ep_strndup(path.p, path.n);
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    bool good;

    *out = (struct ep_str){NULL, 0};
    free(name);
    if (fd < 0)
        return ep_error_set(err, "cannot be opened: %s", strerror(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        good = ep_error_set(err, "is not a regular file");
    else
        good = read_all(fd, max, out, err);
    close(fd);
    return good;
}

void ep_file_free(struct ep_str *text, bool secret)
{
    char *p = (char *)(uintptr_t)text->p;

    if (p && secret)
        explicit_bzero(p, text->n);
    free(p);
    *text = (struct ep_str){NULL, 0};
}

int ep_file_write(const char *path, struct ep_str text, unsigned mode)
{
    char *temporary = NULL;
    int fd, rc = 0;

    if (asprintf(&temporary, "%s.new", path) < 0)
        return -ENOMEM;
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fchmod(fd, (mode_t)mode) < 0) /* whatever the umask is */
        rc = -errno;
    for (size_t n = 0; rc == 0 && n < text.n;) {
        ssize_t wrote = write(fd, text.p + n, text.n - n);
        if (wrote < 0 && errno != EINTR)
            rc = -errno;
        n += wrote > 0 ? (size_t)wrote : 0;
    }
    if (rc == 0 && fsync(fd) < 0)
        rc = -errno;
    if (fd >= 0)
        close(fd);
    if (rc == 0 && rename(temporary, path) < 0)
        rc = -errno;
    if (rc && fd >= 0)
        unlink(temporary);
    free(temporary);
    return rc;
}
