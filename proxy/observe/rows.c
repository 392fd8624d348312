/* Rows of a histogram family: what people look at in the terminal, merged over the shards. */
#include <stdlib.h>

#include "observe/private.h"

struct ep_row *ep_stats_rows(struct ep_stats *const *shards, size_t n, enum ep_metric m, size_t *rows)
{
    size_t count, used = 0;
    struct series **all;
    struct ep_row *out;
    const struct ep_histogram **together;
    unsigned n_labels = ep_metric_labels(m);

    assert(ep_metric_table[m].kind == EP_HISTOGRAM);
    all = ep_stats_collect(shards, n, m, &count);
    out = ep_calloc(count, sizeof(*out));
    together = ep_calloc(count, sizeof(struct ep_histogram *));
    for (size_t i = 0, end; i < count; i = end) {
        struct ep_row *row = &out[used++];

        for (end = i; end < count && ep_series_same(all[i], all[end], n_labels); end++) {
            const struct ep_histogram *h = all[end]->histogram;

            together[end - i] = h;
            row->count += ep_histogram_count(h);
            row->sum_ns += ep_histogram_sum(h);
            row->max_ns = EP_MAX(row->max_ns, ep_histogram_max(h));
        }
        for (unsigned k = 0; k < n_labels; k++)
            row->labels[k] = all[i]->labels[k];
        row->p50_ns = ep_histogram_quantile(together, end - i, 0.5);
        row->p99_ns = ep_histogram_quantile(together, end - i, 0.99);
    }
    free(together);
    free(all);
    *rows = used;
    return out;
}

uint64_t ep_stats_total(struct ep_stats *const *shards, size_t n, enum ep_metric m, const struct ep_str *labels)
{
    unsigned n_labels = ep_metric_labels(m);
    size_t count;
    struct series **all = ep_stats_collect(shards, n, m, &count);
    uint64_t total = 0;

    for (size_t i = 0; i < count; i++) {
        bool same = true;
        for (unsigned k = 0; k < n_labels; k++)
            same &= ep_str_eq(all[i]->labels[k], labels[k]);
        total += same ? __atomic_load_n(&all[i]->cell, __ATOMIC_RELAXED) : 0;
    }
    free(all);
    return total;
}
