/* The audit's directory: which files there are, taking up the chain at the start, the head, and what is past its time.
 *
 * At the start a last line without its end is cut off, and a record `recovered` says so. A line that is whole but wrong,
 * an end that is not what the head names, a head that is gone: someone changed it, and the start is refused, so that
 * the evidence stays as it is. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "observe/audit.h"

#define HEAD_NEW  "head.new"
#define LOOK_INTO "run `ephor audit verify`, and move the files away to start anew"

void ep_audit_day_name(uint64_t wall_ns, char name[FILE_NAME_BYTES + 1])
{
    char time[32];

    (void)ep_time_rfc3339(wall_ns, time);
    (void)snprintf(name, FILE_NAME_BYTES + 1, "audit-%.10s.jsonl", time);
}

static int is_audit_file(const struct dirent *e)
{
    struct ep_str name = ep_str(e->d_name);

    return name.n == FILE_NAME_BYTES && ep_str_starts(name, EP_STR("audit-")) && ep_str_ends(name, EP_STR(".jsonl"));
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* alphasort asks the locale */
}

int ep_audit_names(const char *directory, char ***names, size_t *n)
{
    struct dirent **entries;
    int count = scandir(directory, &entries, is_audit_file, by_name);

    if (count < 0)
        return -errno;
    *n = (size_t)count;
    *names = ep_calloc((size_t)count, sizeof(char *));
    for (int i = 0; i < count; i++) {
        (*names)[i] = ep_strdup(entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return 0;
}

void ep_audit_names_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

/* --- the head --- */

int ep_audit_head_read(int directory_fd, const uint8_t *key, struct head *out, const char **why)
{
    int fd = openat(directory_fd, HEAD_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    char text[HEAD_BYTES];
    ssize_t n;

    if (fd < 0) {
        *why = strerror(errno);
        return errno == ENOENT ? 0 : -1;
    }
    n = read(fd, text, sizeof text);
    *why = n < 0 ? strerror(errno) : "";
    (void)close(fd);
    return n >= 0 && ep_audit_head_parse(ep_str_n(text, (size_t)n), key, out, why) ? 1 : -1;
}

int ep_audit_head_write(int directory_fd, const struct head *h, const struct ep_signer *signer)
{
    int fd = openat(directory_fd, HEAD_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), rc = 0;
    char text[HEAD_BYTES];
    size_t n = ep_audit_head_text(h, signer, text);
    ssize_t written;

    if (fd < 0)
        return -errno;
    written = write(fd, text, n);
    if (written != (ssize_t)n)
        rc = written < 0 ? -errno : -ENOSPC;
    if (rc == 0 && fdatasync(fd) != 0)
        rc = -errno;
    (void)close(fd);
    if (rc == 0 && renameat(directory_fd, HEAD_NEW, directory_fd, HEAD_NAME) != 0)
        rc = -errno;
    return rc;
}

/* --- the start --- */

static bool open_directory(struct ep_audit *a, struct ep_error *err)
{
    if (mkdir(a->path, 0700) != 0 && errno != EEXIST)
        return ep_error_set(err, "audit directory %s: %s", a->path, strerror(errno));
    a->directory_fd = open(a->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (a->directory_fd < 0)
        return ep_error_set(err, "audit directory %s: %s", a->path, strerror(errno));
    a->lock_fd = openat(a->directory_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (a->lock_fd < 0)
        return ep_error_set(err, "audit lock %s/lock: %s", a->path, strerror(errno));
    if (flock(a->lock_fd, LOCK_EX | LOCK_NB) != 0)
        return ep_error_set(err, "audit directory %s: another process writes there", a->path);
    return true;
}

int ep_audit_file(struct ep_audit *a, const char *name)
{
    int fd = openat(a->directory_fd, name, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat st;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) != 0) {
        int rc = -errno;

        (void)close(fd);
        return rc;
    }
    if (a->old_fd >= 0) { /* two new files before the thread came by: not in a day's time */
        (void)fdatasync(a->old_fd);
        (void)close(a->old_fd);
    }
    a->old_fd = a->fd;
    a->fd = fd;
    a->size = st.st_size;
    a->renewed = a->dirty = a->old = true;
    (void)snprintf(a->name, sizeof(a->name), "%s", name);
    return 0;
}

/* Cuts a last line without its end off the open file. Finds the last record's place in the chain. False with err when
 * it is whole but wrong. *found is false when the file has no record. */
static bool read_tail(struct ep_audit *a, bool *found, struct ep_error *err)
{
    size_t size = (size_t)a->size, whole = 0, start = 0;
    const char *newline, *why = NULL, *p;
    char prev[HASH_HEX];
    bool good = true;

    *found = false;
    if (size == 0)
        return true;
    p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, a->fd, 0);
    if (p == MAP_FAILED)
        return ep_error_set(err, "%s/%s: %s", a->path, a->name, strerror(errno));
    newline = memrchr(p, '\n', size);
    if (newline) {
        whole = (size_t)(newline - p) + 1;
        newline = memrchr(p, '\n', whole - 1);
        start = newline ? (size_t)(newline - p) + 1 : 0;
        *found = true;
        good = ep_audit_parse(ep_str_n(p + start, whole - start - 1), &a->chain, prev, &why);
    }
    (void)munmap((void *)(uintptr_t)p, size);
    if (!good)
        return ep_error_set(err, "%s/%s: last line: %s; " LOOK_INTO, a->path, a->name, why);
    if (whole == size)
        return true;
    if (ftruncate(a->fd, (off_t)whole) != 0)
        return ep_error_set(err, "%s/%s: cutting off a torn line: %s", a->path, a->name, strerror(errno));
    a->cut += size - whole;
    a->size = (off_t)whole;
    return true;
}

/* Takes up the chain from the newest file that has a record, and leaves the newest file open. */
static bool resume(struct ep_audit *a, bool *found, struct ep_error *err)
{
    char **names, today[FILE_NAME_BYTES + 1];
    size_t n;
    int rc = ep_audit_names(a->path, &names, &n);
    bool ok = true;

    if (rc < 0)
        return ep_error_set(err, "%s: %s", a->path, strerror(-rc));
    for (size_t i = n; ok && !*found && i-- > 0;) {
        rc = ep_audit_file(a, names[i]);
        ok = rc == 0 ? read_tail(a, found, err) : ep_error_set(err, "%s/%s: %s", a->path, names[i], strerror(-rc));
    }
    ep_audit_day_name(ep_clock_wall_ns(), today);
    if (ok) {
        const char *name = n && strcmp(names[n - 1], today) > 0 ? names[n - 1] : today;

        if (strcmp(name, a->name) != 0 && (rc = ep_audit_file(a, name)) != 0) {
            if (a->required || (rc != -ENOSPC && rc != -EDQUOT))
                ok = ep_error_set(err, "%s/%s: %s", a->path, name, strerror(-rc));
            else
                ep_audit_complain(a, "a file can't be made", rc); /* tried again with each record */
        }
    }
    ep_audit_names_free(names, n);
    return ok;
}

/* The end of the files and the head must agree. Whoever is killed has written more than the head says, never less. */
static bool take_head(struct ep_audit *a, bool found, struct ep_error *err)
{
    struct head h = {.chain = a->chain};
    const char *why;
    int there = ep_audit_head_read(a->directory_fd, NULL, &h, &why);

    if (there < 0)
        return ep_error_set(err, "%s/" HEAD_NAME ": %s; " LOOK_INTO, a->path, why);
    if (there == 0 && found)
        return ep_error_set(err, "%s/" HEAD_NAME " is missing beside records; " LOOK_INTO, a->path);
    if (there && h.chain.seq > a->chain.seq)
        return ep_error_set(err, "%s: records %llu to %llu are missing at the end; " LOOK_INTO, a->path,
                            (unsigned long long)a->chain.seq + 1, (unsigned long long)h.chain.seq);
    if (there && h.chain.seq == a->chain.seq && memcmp(h.chain.hash, a->chain.hash, HASH_HEX) != 0)
        return ep_error_set(err, "%s: the last record is not the one that the head names; " LOOK_INTO, a->path);
    a->first = there ? h.first : 1;
    return true;
}

bool ep_audit_open(struct ep_audit *a, struct ep_error *err)
{
    bool found = false;
    struct head h;
    int rc;

    if (!open_directory(a, err) || !resume(a, &found, err) || !take_head(a, found, err))
        return false;
    h = (struct head){.chain = a->chain, .first = a->first};
    (void)ep_time_rfc3339(ep_clock_wall_ns(), h.time);
    rc = ep_audit_head_write(a->directory_fd, &h, a->signer);
    if (rc == 0)
        return true;
    if (a->required || (rc != -ENOSPC && rc != -EDQUOT))
        return ep_error_set(err, "%s/" HEAD_NAME ": %s", a->path, strerror(-rc));
    ep_audit_complain(a, "the head can't be written", rc);
    return true;
}

/* --- what is past its time --- */

/* The number of a file's first record; 0: it has none. */
static uint64_t first_of(int directory_fd, const char *name)
{
    int fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    const struct ep_str start = EP_STR("{\"seq\":");
    char text[64];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    struct ep_str s = ep_str_n(text, n < 0 ? 0 : (size_t)n);
    ptrdiff_t comma = ep_str_find(s, ',', 0);
    uint64_t seq = 0;

    if (fd >= 0)
        (void)close(fd);
    if (comma > 0 && ep_str_starts(s, start))
        (void)ep_str_u64(ep_str_n(text + start.n, (size_t)comma - start.n), &seq);
    return seq;
}

/* The chain and the head say what will be missing before it is. */
static bool announce(struct ep_audit *a, char **names, size_t n_old, size_t n)
{
    uint64_t first = 0;
    char number[24];

    for (size_t i = n_old; i < n && first == 0; i++)
        first = first_of(a->directory_fd, names[i]);
    if (first == 0)
        return false; /* nothing but empty files behind them: they hold the end of the chain */
    (void)snprintf(number, sizeof number, "%llu", (unsigned long long)first);
    if (ep_audit_write(a, "expired",
                       (struct ep_audit_field[]){{.key = "file", .value = ep_str(names[n_old - 1])},
                                                 {.key = "first_kept", .value = ep_str(number)}},
                       2, NULL) != 0)
        return false;
    (void)pthread_mutex_lock(&a->lock);
    a->first = EP_MAX(a->first, first);
    (void)pthread_mutex_unlock(&a->lock);
    return ep_audit_sync_once(a);
}

void ep_audit_expire(struct ep_audit *a, uint64_t wall_ns)
{
    char **names, oldest[FILE_NAME_BYTES + 1], in_use[FILE_NAME_BYTES + 1];
    size_t n, n_old = 0;

    if (wall_ns < a->retain_ns || ep_audit_names(a->path, &names, &n) != 0)
        return;
    (void)pthread_mutex_lock(&a->lock);
    memcpy(in_use, a->name, sizeof in_use);
    (void)pthread_mutex_unlock(&a->lock);
    ep_audit_day_name(wall_ns - a->retain_ns, oldest);
    while (n_old < n && strcmp(names[n_old], oldest) < 0 && strcmp(names[n_old], in_use) < 0)
        n_old++;
    if (n_old && announce(a, names, n_old, n)) {
        for (size_t i = 0; i < n_old; i++) {
            if (unlinkat(a->directory_fd, names[i], 0) == 0)
                ep_info("audit", "%s is past its time and was deleted", names[i]);
            else
                ep_warn("audit", "%s is past its time: %s", names[i], strerror(errno));
        }
    }
    ep_audit_names_free(names, n);
}
