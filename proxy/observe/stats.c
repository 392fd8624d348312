/* Shards: a hash table of series for each metric.
 *
 * The one thread that owns a shard looks up without a lock, since nobody else changes the table; it takes the lock
 * to add a series, so that a scrape (which holds it while it lists them) never sees a half-made one. Values are
 * read with relaxed loads at any time.
 *
 * A family that is full still counts: labels that took many values (a path, a peer) become "other", those with few
 * (direction, stage) keep theirs, so that sums over the family stay right and useful. */
#include <stdlib.h>

#include "observe/private.h"

#define FOLDED_MAX (EP_SERIES_MAX / 4) /* folded series of a family; then everything is "other" */

const struct metric ep_metric_table[EP_METRIC_COUNT] = {
#define X(id, name_, kind_, labels_, help_)                                                                            \
    [EP_METRIC_##id] = {.name = (name_), .kind = (kind_), .labels = (labels_), .help = (help_)},
#include "observe/metrics.def"
#undef X
};

const char *ep_metric_name(enum ep_metric m)
{
    assert(m < EP_METRIC_COUNT);
    return ep_metric_table[m].name;
}

unsigned ep_metric_labels(enum ep_metric m)
{
    const char *labels = ep_metric_table[m].labels;
    unsigned n = *labels != 0;

    for (; *labels; labels++)
        n += *labels == ',';
    assert(n <= EP_LABELS_MAX);
    return n;
}

struct ep_str ep_metric_label(enum ep_metric m, unsigned i)
{
    struct ep_str rest = ep_str(ep_metric_table[m].labels), part = {NULL, 0};

    do {
        bool found = ep_str_next(&rest, ',', &part);

        assert(found);
        (void)found;
    } while (i-- > 0);
    return part;
}

struct ep_stats *ep_stats_new(void)
{
    struct ep_stats *s = ep_calloc(1, sizeof(*s));

    (void)pthread_mutex_init(&s->lock, NULL);
    for (unsigned m = 0; m < EP_METRIC_COUNT; m++)
        s->family[m].n_labels = ep_metric_labels((enum ep_metric)m);
    return s;
}

void ep_stats_free(struct ep_stats *s)
{
    if (!s)
        return;
    for (unsigned m = 0; m < EP_METRIC_COUNT; m++) {
        struct series *series;

        while ((series = s->family[m].first)) {
            s->family[m].first = series->next;
            ep_histogram_free(series->histogram);
            free(series);
        }
        free(s->family[m].buckets);
        free(s->family[m].narrow);
    }
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}

static uint64_t hash_of(const struct ep_str *labels, unsigned n)
{
    uint64_t h = n;

    for (unsigned i = 0; i < n; i++)
        h = (h ^ ep_hash(labels[i].p, labels[i].n)) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 32);
}

static bool same(const struct ep_str *a, const struct ep_str *b, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (!ep_str_eq(a[i], b[i]))
            return false;
    }
    return true;
}

bool ep_series_same(const struct series *a, const struct series *b, unsigned n_labels)
{
    return a->hash == b->hash && same(a->labels, b->labels, n_labels);
}

static struct series *find(const struct family *f, uint64_t hash, const struct ep_str *labels)
{
    struct series *s = f->n_buckets ? f->buckets[hash & (f->n_buckets - 1)] : NULL;

    while (s && !(s->hash == hash && same(s->labels, labels, f->n_labels)))
        s = s->chain;
    return s;
}

static void grow(struct family *f)
{
    unsigned n = f->n_buckets ? f->n_buckets * 2 : 8;
    struct series **buckets = ep_calloc(n, sizeof(struct series *));

    for (struct series *s = f->first; s; s = s->next) {
        s->chain = buckets[s->hash & (n - 1)];
        buckets[s->hash & (n - 1)] = s;
    }
    free(f->buckets);
    f->buckets = buckets;
    f->n_buckets = n;
}

static bool narrow_has(const struct narrow *w, struct ep_str value)
{
    for (unsigned i = 0; i < w->n; i++) {
        if (ep_str_eq(*w->values[i], value))
            return true;
    }
    return false;
}

static void narrow_note(struct narrow *w, const struct ep_str *value)
{
    if (w->wide || narrow_has(w, *value))
        return;
    if (w->n == NARROW_MAX)
        w->wide = true;
    else
        w->values[w->n++] = value;
}

static struct series *add(struct ep_stats *stats, enum ep_metric m, uint64_t hash, const struct ep_str *labels)
{
    struct family *f = &stats->family[m];
    size_t bytes = sizeof(struct series) + f->n_labels * sizeof(struct ep_str), text = 0;
    struct series *s;
    char *p;

    for (unsigned i = 0; i < f->n_labels; i++)
        text += labels[i].n;
    s = ep_malloc(bytes + text);
    *s = (struct series){.hash = hash};
    p = (char *)s + bytes;
    for (unsigned i = 0; i < f->n_labels; i++) {
        if (labels[i].n)
            memcpy(p, labels[i].p, labels[i].n);
        s->labels[i] = ep_str_n(p, labels[i].n);
        p += labels[i].n;
    }
    if (ep_metric_table[m].kind == EP_HISTOGRAM)
        s->histogram = ep_histogram_new();
    if (!f->narrow)
        f->narrow = ep_calloc(f->n_labels, sizeof(*f->narrow));
    for (unsigned i = 0; i < f->n_labels; i++)
        narrow_note(&f->narrow[i], &s->labels[i]);

    (void)pthread_mutex_lock(&stats->lock);
    if (f->n >= f->n_buckets)
        grow(f);
    s->next = f->first;
    f->first = s;
    s->chain = f->buckets[hash & (f->n_buckets - 1)];
    f->buckets[hash & (f->n_buckets - 1)] = s;
    f->n++;
    (void)pthread_mutex_unlock(&stats->lock);
    return s;
}

static struct series *folded(struct ep_stats *stats, enum ep_metric m, struct ep_str *labels)
{
    struct family *f = &stats->family[m];
    struct series *s;
    uint64_t hash;

    for (unsigned i = 0; i < f->n_labels; i++) {
        if (f->narrow[i].wide || !narrow_has(&f->narrow[i], labels[i]))
            labels[i] = EP_STR("other");
    }
    ep_stats_add(stats, EP_METRIC_SERIES_FOLDED, EP_LABELS(ep_str(ep_metric_name(m))), 1);
    hash = hash_of(labels, f->n_labels);
    s = find(f, hash, labels);
    if (s)
        return s;
    if (f->n >= EP_SERIES_MAX + FOLDED_MAX) {
        for (unsigned i = 0; i < f->n_labels; i++)
            labels[i] = EP_STR("other");
        hash = hash_of(labels, f->n_labels);
        s = find(f, hash, labels);
    }
    return s ? s : add(stats, m, hash, labels);
}

static struct series *series_of(struct ep_stats *stats, enum ep_metric m, const struct ep_str *given)
{
    struct family *f;
    struct ep_str labels[EP_LABELS_MAX];
    struct series *s;
    uint64_t hash;

    assert(m < EP_METRIC_COUNT);
    f = &stats->family[m];
    for (unsigned i = 0; i < f->n_labels; i++)
        labels[i] = ep_str_n(given[i].p, EP_MIN(given[i].n, (size_t)EP_LABEL_BYTES_MAX));
    hash = hash_of(labels, f->n_labels);
    s = find(f, hash, labels);
    if (s)
        return s;
    return f->n >= EP_SERIES_MAX ? folded(stats, m, labels) : add(stats, m, hash, labels);
}

uint64_t *ep_stats_cell(struct ep_stats *s, enum ep_metric m, const struct ep_str *labels)
{
    assert(ep_metric_table[m].kind != EP_HISTOGRAM);
    return &series_of(s, m, labels)->cell;
}

struct ep_histogram *ep_stats_histogram(struct ep_stats *s, enum ep_metric m, const struct ep_str *labels)
{
    assert(ep_metric_table[m].kind == EP_HISTOGRAM);
    return series_of(s, m, labels)->histogram;
}

void ep_stats_add(struct ep_stats *s, enum ep_metric m, const struct ep_str *labels, uint64_t n)
{
    ep_cell_add(ep_stats_cell(s, m, labels), n);
}

static int compare(const void *a, const void *b, void *n_labels)
{
    const struct series *x = *(struct series *const *)a, *y = *(struct series *const *)b;

    for (unsigned i = 0; i < *(unsigned *)n_labels; i++) {
        size_t n = EP_MIN(x->labels[i].n, y->labels[i].n);
        int order = n ? memcmp(x->labels[i].p, y->labels[i].p, n) : 0;

        if (order == 0)
            order = (x->labels[i].n > y->labels[i].n) - (x->labels[i].n < y->labels[i].n);
        if (order)
            return order;
    }
    return 0;
}

struct series **ep_stats_collect(struct ep_stats *const *shards, size_t n, enum ep_metric m, size_t *count)
{
    struct series **all = NULL;
    size_t used = 0;
    unsigned n_labels = ep_metric_labels(m);

    for (size_t i = 0; i < n; i++) {
        const struct family *f = &shards[i]->family[m];

        (void)pthread_mutex_lock(&shards[i]->lock);
        if (f->n)
            all = ep_realloc(all, (used + f->n) * sizeof(struct series *));
        for (struct series *s = f->first; s; s = s->next)
            all[used++] = s;
        (void)pthread_mutex_unlock(&shards[i]->lock);
    }
    if (used)
        qsort_r(all, used, sizeof(struct series *), compare, &n_labels);
    *count = used;
    return all;
}
