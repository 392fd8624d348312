/* The form of an audit record, of its files and of the head; for the audit_*.c only.
 *
 * One line is
 *     {"seq":7,"timestamp":"…","event":"decision",…,"prev":"<64 hex>","hash":"<64 hex>"}
 * with members in the order written, no white space, and SHA-256 over the line without `,"hash":"…"`. prev is the
 * hash of the record before, 64 zeros in the first. Files are audit-YYYY-MM-DD.jsonl; their names in order are the
 * order of the chain.
 *
 * A chain alone can't tell that its end was cut off between two lines, or its oldest file taken away. So beside the
 * files lies `head`, one line that is replaced after each fsync:
 *     {"seq":7,"hash":"…","first":1,"timestamp":"…","sum":"<64 hex>"}
 * It names a record that must be there, and the oldest that must be; sum is SHA-256 over the line without `,"sum":…`.
 * With `audit.sign` the member "signature" follows, Ed25519 over the same text. */
#ifndef EP_OBSERVE_AUDIT_H
#define EP_OBSERVE_AUDIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "observe/observe.h"
#include "observe/signature.h"

#define HASH_HEX         EP_SHA256_HEX
#define FILE_NAME_BYTES  22u /* "audit-2026-11-24.jsonl" */
#define HEAD_NAME        "head"
#define HEAD_BYTES       512u /* more than any head has */
#define LISTENERS_MAX    64u

struct chain {
    uint64_t seq;
    char hash[HASH_HEX];
};

struct head {
    struct chain chain;
    uint64_t first; /* seq of the oldest record that is kept */
    char time[32];
};

struct listener {
    void (*wake)(void *user);
    void *user;
};

struct ep_audit {
    pthread_t thread;     /* this and the next are the owner's, without the lock */
    bool running;
    pthread_mutex_t lock; /* of all that follows but what is the thread's */
    pthread_cond_t due, done;
    bool stop, hurry;
    char *path;
    int directory_fd, lock_fd, fd;
    int old_fd;                     /* yesterday's file, to be synced and closed by the thread; -1: none */
    char name[FILE_NAME_BYTES + 1]; /* of the file in use; empty: none could be opened yet */
    off_t size;                     /* of it, in whole records */
    bool torn;                      /* a write failed in the middle and could not be taken back yet */
    bool dirty, renewed, old;       /* to sync; a file was made; files may be past their time */
    bool required;
    uint64_t retain_ns, sync_ns;
    struct chain chain;             /* the last record that was written */
    uint64_t first;
    struct ep_json json;
    size_t cut;                     /* bytes of a torn line that were cut off at the start and not yet told */
    uint64_t lost, lost_since_ns;   /* records that could not be written, and not yet told */
    uint64_t told_ns, untold;       /* complaints in the log are bounded */
    struct ep_signer *signer;       /* NULL: the head isn't signed */
    struct listener listeners[LISTENERS_MAX];
    unsigned n_listeners;
    /* Read without the lock by who waits. */
    _Atomic uint64_t settled;       /* what became of records up to this one is known … */
    _Atomic uint64_t spoiled;       /* … and an fsync failed for those up to this one */
    _Atomic bool failing;           /* the last record could not be written */
};

/* --- audit_line.c --- */

/* The state before the first record. */
void ep_audit_chain_start(struct chain *c);
/* Reads a line (without newline) whose own hash is right. False with the reason. */
bool ep_audit_parse(struct ep_str line, struct chain *record, char prev[HASH_HEX], const char **why);
/* The head's line, with its newline, and how it is read: it is only good when it is the very text that would be
 * written. `key` NULL: a signature is not looked at; else it must be there and good. */
size_t ep_audit_head_text(const struct head *h, const struct ep_signer *signer, char out[HEAD_BYTES]);
bool ep_audit_head_parse(struct ep_str text, const uint8_t *key, struct head *out, const char **why);

/* --- audit_files.c --- */

/* Names of the audit files of a directory, sorted; freed by ep_audit_names_free. -errno on failure. */
int ep_audit_names(const char *directory, char ***names, size_t *n);
void ep_audit_names_free(char **names, size_t n);
void ep_audit_day_name(uint64_t wall_ns, char name[FILE_NAME_BYTES + 1]);
/* 1 it is there, 0 it is not, -1 it is wrong (the reason in *why). */
int ep_audit_head_read(int directory_fd, const uint8_t *key, struct head *out, const char **why);
int ep_audit_head_write(int directory_fd, const struct head *h, const struct ep_signer *signer); /* 0 or -errno */
/* Opens and locks the directory and takes up the chain where it ended. */
bool ep_audit_open(struct ep_audit *a, struct ep_error *err);
/* Opens the file of that name for appending; the one in use is left to the thread. 0 or -errno. */
int ep_audit_file(struct ep_audit *a, const char *name);
/* Deletes files whose whole day is older than `retain`; never the one in use. Tells the chain and the head first. Of
 * the thread. */
void ep_audit_expire(struct ep_audit *a, uint64_t wall_ns);

/* --- audit_sync.c --- */

bool ep_audit_thread_start(struct ep_audit *a, struct ep_error *err);
void ep_audit_thread_stop(struct ep_audit *a); /* syncs all first */
/* Syncs what was written so far and replaces the head. Of the thread. False when the disk won't. */
bool ep_audit_sync_once(struct ep_audit *a);
/* A line in the log, at most one in ten seconds: with the lock. */
void ep_audit_complain(struct ep_audit *a, const char *what, int rc);

#endif
