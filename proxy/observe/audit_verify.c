/* The walk over all files of an audit, which `ephor audit verify`, `show` and `export` do. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "observe/audit.h"

struct walk {
    ep_audit_each *each;
    void *user;
    struct chain last;
    uint64_t records, first; /* first: the number of the first record; 0: none yet */
    int there;               /* the head: 1 it is good, 0 it is not there */
    struct head head;
    char *where;             /* of the last line: "dir/file:line" */
    bool stopped;
};

/* What is wrong with where a good record stands; NULL: nothing. */
static const char *misplaced(const struct walk *w, const struct chain *record, const char prev[HASH_HEX])
{
    struct chain start;

    ep_audit_chain_start(&start);
    if (w->first == 0) {
        /* What stood before the oldest was deleted when its time had come, and the head says so. */
        if (w->there && record->seq > w->head.first)
            return "records are missing before it, or the order was changed";
        if (record->seq == 1 && memcmp(prev, start.hash, HASH_HEX) != 0)
            return "it is the first and follows another";
    } else if (record->seq != w->last.seq + 1 || memcmp(prev, w->last.hash, HASH_HEX) != 0) {
        return "a record is missing before it, or the order was changed";
    }
    if (w->there && record->seq == w->head.chain.seq && memcmp(record->hash, w->head.chain.hash, HASH_HEX) != 0)
        return "it is not the record that the head names";
    return NULL;
}

static void take_line(struct walk *w, struct ep_str line)
{
    struct chain record = {0};
    char prev[HASH_HEX];
    const char *why = "the record is cut off";
    bool whole = line.n && line.p[line.n - 1] == '\n';

    line.n -= whole;
    if (whole && ep_audit_parse(line, &record, prev, &why)) {
        why = misplaced(w, &record, prev);
        w->last = record; /* what follows is compared with what is there: each damage is told once */
        if (w->first == 0)
            w->first = record.seq;
        w->records += why == NULL;
    }
    w->stopped = !w->each(w->user, w->where, line, why);
}

static bool read_file(struct walk *w, const char *directory, const char *name, struct ep_error *err)
{
    char *path = NULL, *line = NULL;
    unsigned long long n_lines = 0;
    size_t cap = 0;
    ssize_t n;
    FILE *f;
    bool good;

    if (asprintf(&path, "%s/%s", directory, name) < 0)
        abort();
    f = fopen(path, "re");
    while (f && !w->stopped && (n = getline(&line, &cap, f)) > 0) {
        free(w->where);
        if (asprintf(&w->where, "%s:%llu", path, ++n_lines) < 0)
            abort();
        take_line(w, ep_str_n(line, (size_t)n));
    }
    good = f && !ferror(f);
    if (!good)
        (void)ep_error_set(err, "%s: %s", path, strerror(errno));
    if (f)
        (void)fclose(f);
    free(line);
    free(path);
    return good;
}

static bool read_head(struct walk *w, const char *directory, const uint8_t *key, struct ep_error *err)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const char *why;

    if (fd < 0)
        return ep_error_set(err, "%s: %s", directory, strerror(errno));
    w->there = ep_audit_head_read(fd, key, &w->head, &why);
    (void)close(fd);
    return w->there >= 0 || ep_error_set(err, "%s/" HEAD_NAME ": %s", directory, why);
}

static bool walk(struct walk *w, const char *directory, struct ep_error *err)
{
    char **names;
    size_t n;
    int rc = ep_audit_names(directory, &names, &n);
    bool good = true;

    if (rc < 0)
        return ep_error_set(err, "%s: %s", directory, strerror(-rc));
    ep_audit_chain_start(&w->last);
    for (size_t i = 0; i < n && good && !w->stopped; i++)
        good = read_file(w, directory, names[i], err);
    ep_audit_names_free(names, n);
    return good;
}

bool ep_audit_read(const char *directory, ep_audit_each *each, void *user, struct ep_error *err)
{
    struct walk w = {.each = each, .user = user};
    bool good = walk(&w, directory, err);

    free(w.where);
    return good;
}

static bool stop_at_the_first(void *err, const char *where, struct ep_str record, const char *why)
{
    (void)record;
    if (why)
        (void)ep_error_set(err, "%s: %s", where, why);
    return why == NULL;
}

/* What the chain can't know of: its own end. */
static bool ends_well(const struct walk *w, const char *directory, bool want_head, struct ep_error *err)
{
    if (!w->there && (w->records || want_head))
        return ep_error_set(err, "%s/" HEAD_NAME ": it is missing", directory);
    if (w->there && w->last.seq < w->head.chain.seq)
        return ep_error_set(err, "%s: records %llu to %llu are missing behind it, at the end",
                            w->where ? w->where : directory, (unsigned long long)w->last.seq + 1,
                            (unsigned long long)w->head.chain.seq);
    return true;
}

int64_t ep_audit_verify(const char *directory, const uint8_t *key, struct ep_error *err)
{
    struct walk w = {.each = stop_at_the_first, .user = err};
    bool good = read_head(&w, directory, key, err) && walk(&w, directory, err) && !w.stopped &&
                ends_well(&w, directory, key != NULL, err);

    free(w.where);
    return good ? (int64_t)w.records : -1;
}
