/* The audit's thread: everything that waits for a disk.
 *
 * Writers put their record into the file and go on; this thread syncs for all of them together, so that no worker's loop
 * ever stands in an fsync. With `sync: always` it begins as soon as something was written, and what was written while it
 * waits for the disk is the next group; else it lets `sync` pass between two. After each it wakes who waits for the
 * group, and replaces the head (audit.h), at most ten times a second. Files that are past their time are its work too. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "observe/audit.h"

#define HEAD_NS     (100 * EP_MS)
#define COMPLAIN_NS (10 * EP_S)

void ep_audit_complain(struct ep_audit *a, const char *what, int rc)
{
    uint64_t now_ns = ep_clock_ns();

    a->untold++;
    if (a->told_ns && now_ns - a->told_ns < COMPLAIN_NS)
        return;
    ep_fail("audit", "%s/%s: %s: %s (%llu times since the last line about it)", a->path, a->name, what, strerror(-rc),
            (unsigned long long)a->untold);
    a->told_ns = now_ns;
    a->untold = 0;
}

static int sync_files(struct ep_audit *a, int fd, int old_fd, bool renewed)
{
    int rc = 0;

    if (old_fd >= 0) {
        if (fdatasync(old_fd) != 0)
            rc = -errno;
        (void)close(old_fd);
    }
    if (fd >= 0) {
        if (fdatasync(fd) != 0)
            rc = -errno;
        (void)close(fd);
    }
    if (renewed && fsync(a->directory_fd) != 0)
        rc = -errno;
    return rc;
}

static void settle(struct ep_audit *a, uint64_t seq, int rc)
{
    (void)pthread_mutex_lock(&a->lock);
    if (rc != 0) {
        atomic_store(&a->spoiled, seq);
        ep_audit_complain(a, "fsync", rc);
    }
    atomic_store(&a->settled, seq); /* after `spoiled`: who sees the one sees the other */
    for (unsigned i = 0; i < a->n_listeners && a->sync_ns == 0; i++)
        a->listeners[i].wake(a->listeners[i].user);
    (void)pthread_cond_broadcast(&a->done);
    (void)pthread_mutex_unlock(&a->lock);
}

static bool renew_head(struct ep_audit *a, struct head *h)
{
    int rc;

    (void)ep_time_rfc3339(ep_clock_wall_ns(), h->time);
    rc = ep_audit_head_write(a->directory_fd, h, a->signer);
    if (rc == 0)
        return true;
    (void)pthread_mutex_lock(&a->lock);
    ep_audit_complain(a, "the head can't be written", rc);
    (void)pthread_mutex_unlock(&a->lock);
    return false;
}

/* *h: what the head may say afterwards. */
static bool sync_group(struct ep_audit *a, struct head *h)
{
    int fd, old_fd, rc;
    bool renewed;

    (void)pthread_mutex_lock(&a->lock);
    fd = a->fd >= 0 ? dup(a->fd) : -1; /* the file may change while we wait for the disk without the lock */
    old_fd = a->old_fd;
    renewed = a->renewed;
    *h = (struct head){.chain = a->chain, .first = a->first};
    a->old_fd = -1;
    a->dirty = a->renewed = false;
    (void)pthread_mutex_unlock(&a->lock);
    rc = sync_files(a, fd, old_fd, renewed);
    settle(a, h->chain.seq, rc);
    return rc == 0;
}

bool ep_audit_sync_once(struct ep_audit *a)
{
    struct head h;

    return sync_group(a, &h) && renew_head(a, &h);
}

static void wait_until(struct ep_audit *a, uint64_t at_ns)
{
    struct timespec t = {(time_t)(at_ns / EP_S), (long)(at_ns % EP_S)};

    (void)pthread_cond_timedwait(&a->due, &a->lock, &t);
}

static void *run(void *audit)
{
    struct ep_audit *a = audit;
    uint64_t synced_ns = 0, head_ns = 0;
    struct head h = {0};
    bool behind = false; /* the head, of what was synced */

    (void)pthread_mutex_lock(&a->lock);
    for (;;) {
        uint64_t now_ns = ep_clock_ns();
        bool in_haste = a->stop || a->hurry;

        if (a->old && !a->stop) {
            (void)pthread_mutex_unlock(&a->lock);
            ep_audit_expire(a, ep_clock_wall_ns());
            (void)pthread_mutex_lock(&a->lock);
            a->old = false;
        } else if (a->dirty && (in_haste || now_ns - synced_ns >= a->sync_ns)) {
            a->hurry = false;
            (void)pthread_mutex_unlock(&a->lock);
            synced_ns = now_ns;
            behind = sync_group(a, &h) || behind;
            (void)pthread_mutex_lock(&a->lock);
        } else if (behind && (in_haste || now_ns - head_ns >= HEAD_NS)) {
            a->hurry = false;
            (void)pthread_mutex_unlock(&a->lock);
            behind = !renew_head(a, &h) && !a->stop;
            head_ns = now_ns;
            (void)pthread_mutex_lock(&a->lock);
        } else if (a->stop) {
            break;
        } else if (a->dirty) {
            wait_until(a, behind ? EP_MIN(synced_ns + a->sync_ns, head_ns + HEAD_NS) : synced_ns + a->sync_ns);
        } else if (behind) {
            wait_until(a, head_ns + HEAD_NS);
        } else {
            a->hurry = false;
            (void)pthread_cond_broadcast(&a->done);
            (void)pthread_cond_wait(&a->due, &a->lock);
        }
    }
    (void)pthread_mutex_unlock(&a->lock);
    return NULL;
}

bool ep_audit_thread_start(struct ep_audit *a, struct ep_error *err)
{
    sigset_t all, before;
    int rc;

    (void)sigfillset(&all); /* signals are the main thread's */
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    rc = pthread_create(&a->thread, NULL, run, a);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0)
        return ep_error_set(err, "audit: no thread: %s", strerror(rc));
    (void)pthread_setname_np(a->thread, "audit");
    a->running = true;
    return true;
}

void ep_audit_thread_stop(struct ep_audit *a)
{
    if (!a->running)
        return;
    (void)pthread_mutex_lock(&a->lock);
    a->stop = true;
    (void)pthread_cond_signal(&a->due);
    (void)pthread_mutex_unlock(&a->lock);
    (void)pthread_join(a->thread, NULL);
    a->running = false;
}

/* --- for those who write --- */

void ep_audit_sync(struct ep_audit *a)
{
    if (!a)
        return;
    (void)pthread_mutex_lock(&a->lock);
    while (a->running && (a->dirty || atomic_load(&a->settled) < a->chain.seq || a->old)) {
        a->hurry = true;
        (void)pthread_cond_signal(&a->due);
        (void)pthread_cond_wait(&a->done, &a->lock);
    }
    (void)pthread_mutex_unlock(&a->lock);
}

enum ep_audit_state ep_audit_state(const struct ep_audit *a, uint64_t seq)
{
    if (atomic_load(&a->settled) < seq)
        return EP_AUDIT_UNSETTLED;
    return seq <= atomic_load(&a->spoiled) ? EP_AUDIT_SPOILED : EP_AUDIT_SETTLED;
}

bool ep_audit_listen(struct ep_audit *a, void (*wake)(void *user), void *user)
{
    bool room;

    (void)pthread_mutex_lock(&a->lock);
    room = a->n_listeners < LISTENERS_MAX;
    if (room)
        a->listeners[a->n_listeners++] = (struct listener){wake, user};
    (void)pthread_mutex_unlock(&a->lock);
    return room;
}

void ep_audit_deafen(struct ep_audit *a, void *user)
{
    (void)pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->n_listeners; i++)
        if (a->listeners[i].user == user)
            a->listeners[i--] = a->listeners[--a->n_listeners];
    (void)pthread_mutex_unlock(&a->lock);
}
