/* What the files of observe share: the table of metrics, series, and a growing text. */
#ifndef EP_OBSERVE_PRIVATE_H
#define EP_OBSERVE_PRIVATE_H

#include <pthread.h>

#include "observe/observe.h"

struct metric {
    const char *name;
    enum ep_metric_kind kind;
    const char *labels; /* comma-separated */
    const char *help;
};
extern const struct metric ep_metric_table[EP_METRIC_COUNT];

/* Immutable once it is in its family, but for the value. Lives as long as its shard. */
struct series {
    struct series *chain; /* of the hash bucket */
    struct series *next;  /* of all of the family */
    uint64_t hash;
    uint64_t cell;
    struct ep_histogram *histogram;
    struct ep_str labels[];
};

/* A label with more values than this is wide: only such labels are folded into "other". */
#define NARROW_MAX 32u

struct narrow {
    const struct ep_str *values[NARROW_MAX]; /* labels of the series that brought them */
    unsigned n;
    bool wide;
};

struct family {
    struct series *first, **buckets;
    unsigned n, n_buckets, n_labels;
    struct narrow *narrow; /* n_labels of them, made with the first series */
};

struct ep_stats {
    pthread_mutex_t lock; /* held to add a series and to list them */
    struct family family[EP_METRIC_COUNT];
};

unsigned ep_metric_labels(enum ep_metric m);
/* The i-th label's name. */
struct ep_str ep_metric_label(enum ep_metric m, unsigned i);

/* All series of one family, those with the same labels next to each other, in order of labels. malloc'd. */
struct series **ep_stats_collect(struct ep_stats *const *shards, size_t n, enum ep_metric m, size_t *count);
bool ep_series_same(const struct series *a, const struct series *b, unsigned n_labels);

struct ep_histogram *ep_histogram_new(void);
void ep_histogram_free(struct ep_histogram *h);
uint64_t ep_histogram_sum(const struct ep_histogram *h);
uint64_t ep_histogram_max(const struct ep_histogram *h);
/* Adds to counts[i] what is at or below bounds[i] and above bounds[i-1]; the rest goes to counts[n]. */
void ep_histogram_classic(const struct ep_histogram *h, const uint64_t *bounds_ns, size_t n, uint64_t *counts);

struct text {
    char *p;
    size_t n, cap;
};
void ep_text_add(struct text *t, const void *p, size_t n);
void ep_text_z(struct text *t, const char *z);
void ep_text_printf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
