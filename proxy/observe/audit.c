/* Writing the audit: a chain of records in a file a day (audit.h has their form).
 *
 * A record is in the file, by one write(2), before ep_audit_write returns: whoever kills ephor loses none. Any thread
 * may write; a lock makes one chain of all, held for composing, one SHA-256 and the write. What a power cut may take is
 * what was written since the last fsync, at most `sync` old; with `sync: always` who answers waits for it
 * (audit_sync.c).
 *
 * What can't be written is an error to the caller, counted, and said in the log at a bounded rate; the chain goes on
 * where it was, the torn half of a line is cut off, and once the disk has room again a record `lost` says how many are
 * missing and since when. When the day changes (UTC) the next file begins, and the chain goes on in it. A clock that
 * goes back doesn't go back to an older file, since the order of the names is the order of the chain.
 *
 * One process writes to a directory: a lock on the file `lock` there sees to it, two would break the chain. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "observe/audit.h"

static struct ep_audit *make(const struct ep_audit_config *c)
{
    struct ep_audit *a = ep_calloc(1, sizeof(*a));
    pthread_condattr_t attr;

    (void)pthread_mutex_init(&a->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&a->due, &attr);
    (void)pthread_cond_init(&a->done, NULL);
    (void)pthread_condattr_destroy(&attr);
    a->path = ep_strndup(c->directory.p, c->directory.n);
    a->directory_fd = a->lock_fd = a->fd = a->old_fd = -1;
    a->retain_ns = c->retain_ns;
    a->sync_ns = c->sync_ns;
    a->required = c->required;
    ep_json_init(&a->json);
    ep_audit_chain_start(&a->chain);
    return a;
}

static bool load_signer(struct ep_audit *a, struct ep_str path, struct ep_error *err)
{
    if (!path.n)
        return true;
    a->signer = ep_calloc(1, sizeof *a->signer);
    return ep_signer_load(path, a->signer, err) || ep_error_prefix(err, "audit.sign");
}

struct ep_audit *ep_audit_new(const struct ep_audit_config *c, struct ep_error *err)
{
    struct ep_audit *a;

    if (c->directory.n == 0) {
        (void)ep_error_set(err, "audit.directory is empty");
        return NULL;
    }
    a = make(c);
    if (!load_signer(a, c->sign, err) || !ep_audit_open(a, err)) {
        ep_audit_free(a);
        return NULL;
    }
    atomic_store(&a->settled, a->chain.seq);
    a->dirty = a->cut > 0; /* the cut, too, must reach the disk */
    if (a->cut && ep_audit_write(a, NULL, NULL, 0, NULL) != 0 && a->required) {
        (void)ep_error_set(err, "%s/%s: nothing can be written", a->path, a->name);
        ep_audit_free(a);
        return NULL;
    }
    a->old = true;
    if (!ep_audit_thread_start(a, err)) {
        ep_audit_free(a);
        return NULL;
    }
    return a;
}

void ep_audit_free(struct ep_audit *a)
{
    if (!a)
        return;
    ep_audit_thread_stop(a);
    const int fds[] = {a->fd, a->old_fd, a->lock_fd, a->directory_fd};
    for (size_t i = 0; i < EP_COUNT(fds); i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    if (a->signer)
        ep_signer_forget(a->signer);
    free(a->signer);
    (void)pthread_cond_destroy(&a->due);
    (void)pthread_cond_destroy(&a->done);
    (void)pthread_mutex_destroy(&a->lock);
    ep_json_fini(&a->json);
    free(a->path);
    free(a);
}

/* --- a record --- */

static void field(struct ep_json *j, const struct ep_audit_field *f)
{
    if (f->value.n == 0)
        return;
    ep_json_key(j, f->key);
    if (f->json)
        ep_json_raw(j, f->value);
    else
        ep_json_str(j, f->value);
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
    ep_json_kstr(j, "timestamp", ep_str_n(time, (size_t)ep_time_rfc3339(wall_ns, time)));
    ep_json_kstr(j, "event", ep_str(event));
    for (size_t i = 0; i < n; i++)
        field(j, &fields[i]);
    ep_json_kstr(j, "prev", ep_str_n(a->chain.hash, HASH_HEX));
    ep_json_object_end(j);
    ep_sha256_hex(ep_json_text(j), hex);

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
    if (rc == 0) {
        a->size += (off_t)n;
        return 0;
    }
    a->torn = a->torn || done > 0;
    (void)mend(a);
    return rc;
}

static int put(struct ep_audit *a, uint64_t wall_ns, const char *event, const struct ep_audit_field *fields, size_t n)
{
    char hex[HASH_HEX];
    int rc;

    compose(a, wall_ns, event, fields, n, hex);
    rc = append(a, a->json.p, a->json.n);
    if (rc != 0)
        return rc;
    a->chain.seq++;
    memcpy(a->chain.hash, hex, sizeof(hex));
    if (!a->dirty) {
        a->dirty = true;
        (void)pthread_cond_signal(&a->due);
    }
    return 0;
}

/* The file of the day. One that can't be made leaves the one before in use: the chain is the same. */
static int today(struct ep_audit *a, uint64_t wall_ns)
{
    char name[FILE_NAME_BYTES + 1];
    int rc;

    ep_audit_day_name(wall_ns, name);
    if (EP_LIKELY(strcmp(name, a->name) <= 0))
        return 0;
    rc = mend(a);
    if (rc == 0)
        rc = ep_audit_file(a, name);
    if (rc != 0 && a->fd >= 0) {
        ep_audit_complain(a, "the day's file can't be made", rc);
        rc = mend(a);
    }
    return rc;
}

/* What the chain has to say about itself before it goes on. */
static int confess(struct ep_audit *a, uint64_t wall_ns)
{
    char number[24], since[32];
    int rc = 0;

    if (a->cut) {
        (void)snprintf(number, sizeof number, "%zu", a->cut);
        rc = put(a, wall_ns, "recovered", &(struct ep_audit_field){.key = "cut_bytes", .value = ep_str(number)}, 1);
        a->cut = rc == 0 ? 0 : a->cut;
    }
    if (rc == 0 && a->lost) {
        (void)snprintf(number, sizeof number, "%llu", (unsigned long long)a->lost);
        (void)ep_time_rfc3339(a->lost_since_ns, since);
        rc = put(a, wall_ns, "lost", (struct ep_audit_field[]){{.key = "records", .value = ep_str(number)},
                                                               {.key = "since", .value = ep_str(since)}}, 2);
        a->lost = rc == 0 ? 0 : a->lost;
    }
    return rc;
}

int ep_audit_write(struct ep_audit *a, const char *event, const struct ep_audit_field *fields, size_t n, uint64_t *seq)
{
    uint64_t wall_ns;
    int rc;

    if (!a)
        return 0;
    (void)pthread_mutex_lock(&a->lock);
    wall_ns = ep_clock_wall_ns();
    rc = today(a, wall_ns);
    if (rc == 0 && EP_UNLIKELY(a->cut || a->lost))
        rc = confess(a, wall_ns);
    if (rc == 0 && event)
        rc = put(a, wall_ns, event, fields, n);
    if (rc != 0 && event) {
        if (a->lost++ == 0)
            a->lost_since_ns = wall_ns;
        ep_audit_complain(a, "a record can't be written", rc);
    }
    atomic_store_explicit(&a->failing, rc != 0, memory_order_relaxed);
    if (seq)
        *seq = a->chain.seq;
    (void)pthread_mutex_unlock(&a->lock);
    return rc;
}

int ep_audit_record(struct ep_audit *a, struct ep_stats *stats, const char *event, const struct ep_audit_field *fields,
                    size_t n, uint64_t *seq)
{
    int result;

    if (!a)
        return 0;
    result = ep_audit_write(a, event, fields, n, seq);
    if (stats)
        ep_stats_add(stats, EP_METRIC_AUDIT_RECORDS, EP_LABELS(result == 0 ? EP_STR("written") : EP_STR("failed")), 1);
    return result;
}

bool ep_audit_required(const struct ep_audit *a)
{
    return a && a->required;
}

bool ep_audit_waits(const struct ep_audit *a)
{
    return a && a->sync_ns == 0;
}

struct ep_audit_health ep_audit_health(struct ep_audit *a)
{
    struct ep_audit_health h;

    (void)pthread_mutex_lock(&a->lock);
    h.unsynced = a->chain.seq - EP_MIN(a->chain.seq, atomic_load(&a->settled));
    (void)pthread_mutex_unlock(&a->lock);
    h.available = !atomic_load_explicit(&a->failing, memory_order_relaxed);
    return h;
}
