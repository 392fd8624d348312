/* Writing the audit: a chain of records in a file a day (audit.h has their form).
 *
 * A record is in the file, by one write(2), before ep_audit_write returns: whoever kills ephor loses none. What a
 * power cut may take is what was written since the last fsync, at most `sync` old, or nothing with sync 0. After
 * either, a last line without its end is cut off at the start and a record `recovered` says so; a line that is
 * whole but wrong was changed by someone, and is left as it is: the start is refused, so that the evidence stays.
 *
 * When the day changes (UTC) the next file begins, and the chain goes on in it. Files older than `retain` are
 * deleted then and at the start; the chain is afterwards verified from the first that is left. A clock that goes
 * back doesn't go back to an older file, since the order of the names is the order of the chain.
 *
 * One process writes to a directory: a lock on the file `lock` there sees to it, two would break the chain. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "observe/audit.h"

#define DAY_NS (86400 * EP_S)

struct ep_audit {
    pthread_mutex_t lock;
    char *path;
    int directory_fd, lock_fd, fd;
    char name[FILE_NAME_BYTES + 1]; /* of the file in use */
    off_t size;                     /* of it, in whole records */
    bool torn;                      /* a write failed in the middle and could not be taken back yet */
    bool dirty;
    uint64_t synced_ns, retain_ns, sync_ns;
    struct chain chain;
    struct ep_json json;
};

static const struct ep_field audit_fields[] = {
    {.key = "directory",
     .type = EP_TYPE_STR,
     .offset = offsetof(struct ep_audit_config, directory),
     .help = "Where the audit files are; made with mode 0700. Without it there is no audit."},
    {.key = "retain",
     .type = EP_TYPE_DURATION,
     .offset = offsetof(struct ep_audit_config, retain_ns),
     .preset = "365d",
     .min = (double)DAY_NS,
     .max = 36500.0 * (double)DAY_NS,
     .help = "How long files are kept; the chain is verified from the first that is left."},
    {.key = "sync",
     .type = EP_TYPE_DURATION,
     .offset = offsetof(struct ep_audit_config, sync_ns),
     .preset = "100ms",
     .max = 60.0 * (double)EP_S,
     .help = "What a power cut may cost; 0 syncs each record before the answer. Killing ephor costs nothing."},
    {.key = "required",
     .type = EP_TYPE_BOOL,
     .offset = offsetof(struct ep_audit_config, required),
     .preset = "false",
     .help = "Refuse what can't be audited."},
};
const struct ep_schema ep_audit_schema =
    EP_SCHEMA("audit", "A chained record of each decision that denied, shadow-denied, redacted or changed ephor.",
              struct ep_audit_config, audit_fields, .check = NULL);

static void day_name(uint64_t wall_ns, char name[FILE_NAME_BYTES + 1])
{
    char time[32];

    (void)ep_time_rfc3339(wall_ns, time);
    (void)snprintf(name, FILE_NAME_BYTES + 1, "audit-%.10s.jsonl", time);
}

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

/* Opens the file for appending. 0 or -errno; on failure the file in use stays. */
static int open_file(struct ep_audit *a, const char *name)
{
    int fd = openat(a->directory_fd, name, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat st;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) != 0 || fsync(a->directory_fd) != 0) {
        int rc = -errno;

        (void)close(fd);
        return rc;
    }
    if (a->fd >= 0) {
        (void)fdatasync(a->fd);
        (void)close(a->fd);
    }
    a->fd = fd;
    a->size = st.st_size;
    (void)snprintf(a->name, sizeof(a->name), "%s", name);
    return 0;
}

/* Cuts a last line without its end off the open file; says how many bytes in *cut. Finds the last record's place in
 * the chain. False with err when it is whole but wrong. *found is false when the file has no record. */
static bool read_tail(struct ep_audit *a, size_t *cut, bool *found, struct ep_error *err)
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
        return ep_error_set(err,
                            "%s/%s: last line: %s; run `ephor audit verify`, and move the files away to start anew",
                            a->path, a->name, why);
    if (whole == size)
        return true;
    if (ftruncate(a->fd, (off_t)whole) != 0)
        return ep_error_set(err, "%s/%s: cutting off a torn line: %s", a->path, a->name, strerror(errno));
    *cut += size - whole;
    a->size = (off_t)whole;
    return true;
}

/* Takes up the chain from the newest file that has a record, and leaves the newest file open. */
static bool resume(struct ep_audit *a, size_t *cut, struct ep_error *err)
{
    char **names, today[FILE_NAME_BYTES + 1];
    size_t n;
    int rc = ep_audit_names(a->path, &names, &n);
    bool ok = true, found = false;

    if (rc < 0)
        return ep_error_set(err, "%s: %s", a->path, strerror(-rc));
    for (size_t i = n; ok && !found && i-- > 0;) {
        rc = open_file(a, names[i]);
        ok =
            rc == 0 ? read_tail(a, cut, &found, err) : ep_error_set(err, "%s/%s: %s", a->path, names[i], strerror(-rc));
    }
    day_name(ep_clock_wall_ns(), today);
    if (ok) {
        const char *name = n && strcmp(names[n - 1], today) > 0 ? names[n - 1] : today;

        if (strcmp(name, a->name) != 0 && (rc = open_file(a, name)) != 0)
            ok = ep_error_set(err, "%s/%s: %s", a->path, name, strerror(-rc));
    }
    ep_audit_names_free(names, n);
    return ok;
}

/* Deletes files whose whole day is older than `retain`; never the one in use. */
static void expire(struct ep_audit *a, uint64_t wall_ns)
{
    char **names, oldest[FILE_NAME_BYTES + 1];
    size_t n;

    if (wall_ns < a->retain_ns || ep_audit_names(a->path, &names, &n) != 0)
        return;
    day_name(wall_ns - a->retain_ns, oldest);
    for (size_t i = 0; i < n && strcmp(names[i], oldest) < 0 && strcmp(names[i], a->name) < 0; i++) {
        if (unlinkat(a->directory_fd, names[i], 0) == 0)
            ep_info("audit", "%s is past its time and was deleted", names[i]);
        else
            ep_warn("audit", "%s is past its time: %s", names[i], strerror(errno));
    }
    ep_audit_names_free(names, n);
}

struct ep_audit *ep_audit_new(const struct ep_audit_config *c, struct ep_error *err)
{
    struct ep_audit *a;
    size_t cut = 0;
    bool ok;

    if (c->directory.n == 0) {
        (void)ep_error_set(err, "audit.directory is empty");
        return NULL;
    }
    a = ep_calloc(1, sizeof(*a));
    (void)pthread_mutex_init(&a->lock, NULL);
    a->path = ep_strndup(c->directory.p, c->directory.n);
    a->directory_fd = a->lock_fd = a->fd = -1;
    a->retain_ns = c->retain_ns;
    a->sync_ns = c->sync_ns;
    ep_json_init(&a->json);
    ep_audit_chain_start(&a->chain);
    ok = open_directory(a, err) && resume(a, &cut, err);
    if (ok && cut) {
        char bytes[24];
        struct ep_audit_field field = {"cut_bytes",
                                       ep_str_n(bytes, (size_t)snprintf(bytes, sizeof(bytes), "%zu", cut))};
        int rc = ep_audit_write(a, "recovered", &field, 1);

        ok = rc == 0 || ep_error_set(err, "%s/%s: %s", a->path, a->name, strerror(-rc));
    }
    if (!ok) {
        ep_audit_free(a);
        return NULL;
    }
    expire(a, ep_clock_wall_ns());
    return a;
}

void ep_audit_free(struct ep_audit *a)
{
    if (!a)
        return;
    if (a->fd >= 0) {
        (void)fdatasync(a->fd);
        (void)close(a->fd);
    }
    if (a->lock_fd >= 0)
        (void)close(a->lock_fd);
    if (a->directory_fd >= 0)
        (void)close(a->directory_fd);
    (void)pthread_mutex_destroy(&a->lock);
    ep_json_fini(&a->json);
    free(a->path);
    free(a);
}

/* The line of the next record, in a->json; its hash in hex. */
static void compose(struct ep_audit *a, uint64_t wall_ns, const char *event, const struct ep_audit_field *fields,
                    size_t n, char hex[HASH_HEX])
{
    struct ep_json *j = &a->json;
    char time[32];

    ep_json_reset(j);
    ep_json_object(j);
    ep_json_kuint(j, "seq", a->chain.seq + 1);
    ep_json_kstr(j, "time", ep_str_n(time, (size_t)ep_time_rfc3339(wall_ns, time)));
    ep_json_kstr(j, "event", ep_str(event));
    for (size_t i = 0; i < n; i++) {
        if (fields[i].value.n)
            ep_json_kstr(j, fields[i].key, fields[i].value);
    }
    ep_json_kstr(j, "prev", ep_str_n(a->chain.hash, HASH_HEX));
    ep_json_object_end(j);
    ep_audit_hash(ep_json_text(j), hex);

    j->n--; /* the brace goes behind the hash */
    j->depth++;
    ep_json_kstr(j, "hash", ep_str_n(hex, HASH_HEX));
    ep_json_object_end(j);
    j->has_member = 0;
    ep_json_raw(j, EP_STR("\n"));
}

/* Takes back what a failed write left of a record. */
static int mend(struct ep_audit *a)
{
    if (!a->torn)
        return 0;
    if (ftruncate(a->fd, a->size) != 0)
        return -errno;
    a->torn = false;
    return 0;
}

static int append(struct ep_audit *a, const char *p, size_t n)
{
    int rc = mend(a);
    size_t done = 0;

    while (rc == 0 && done < n) {
        ssize_t written = write(a->fd, p + done, n - done);

        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            rc = -errno;
        else
            done += (size_t)written; /* short when the disk is all but full; the next write says so */
    }
    if (rc == 0 && a->sync_ns == 0 && fdatasync(a->fd) != 0)
        rc = -errno;
    if (rc == 0) {
        a->size += (off_t)n;
        a->dirty = a->sync_ns != 0;
        return 0;
    }
    a->torn = a->torn || done > 0;
    (void)mend(a);
    return rc;
}

int ep_audit_write(struct ep_audit *a, const char *event, const struct ep_audit_field *fields, size_t n)
{
    char name[FILE_NAME_BYTES + 1], hex[HASH_HEX];
    uint64_t wall_ns;
    int rc = 0;

    if (!a)
        return 0;
    (void)pthread_mutex_lock(&a->lock);
    wall_ns = ep_clock_wall_ns();
    day_name(wall_ns, name);
    if (strcmp(name, a->name) > 0) {
        rc = mend(a);
        if (rc == 0)
            rc = open_file(a, name);
        if (rc == 0)
            expire(a, wall_ns);
    }
    if (rc == 0) {
        compose(a, wall_ns, event, fields, n, hex);
        rc = append(a, a->json.p, a->json.n);
    }
    if (rc == 0) {
        a->chain.seq++;
        memcpy(a->chain.hash, hex, sizeof(hex));
    }
    (void)pthread_mutex_unlock(&a->lock);
    if (rc != 0)
        ep_fail("audit", "%s/%s: a record (%s) can't be written: %s", a->path, name, event, strerror(-rc));
    return rc;
}

void ep_audit_sync(struct ep_audit *a)
{
    uint64_t now_ns = ep_clock_ns();
    int fd = -1;

    if (!a)
        return;
    (void)pthread_mutex_lock(&a->lock);
    if (a->dirty && now_ns - a->synced_ns >= a->sync_ns) {
        fd = dup(a->fd); /* the file may change while we wait for the disk without the lock */
        a->dirty = fd < 0;
        a->synced_ns = now_ns;
    }
    (void)pthread_mutex_unlock(&a->lock);
    if (fd < 0)
        return;
    if (fdatasync(fd) != 0)
        ep_fail("audit", "%s: fsync: %s", a->path, strerror(errno));
    (void)close(fd);
}

int ep_audit_record(struct ep_audit *a, struct ep_stats *stats, const char *event, const struct ep_audit_field *fields, size_t n)
{
    int result;

    if (!a)
        return 0;
    result = ep_audit_write(a, event, fields, n);
    if (stats)
        ep_stats_add(stats, EP_METRIC_AUDIT_RECORDS, EP_LABELS(result == 0 ? EP_STR("written") : EP_STR("failed")), 1);
    return result;
}
