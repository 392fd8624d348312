/* The reference page of the metrics, from the same table that makes them. */
#include <stdlib.h>

#include "observe/private.h"

char *ep_metrics_reference(void)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram", "counter"};
    struct text t = {0};

    ep_text_z(&t,
              "# Metrics\n\n"
              "Made from `proxy/observe/metrics.def`. Served on the metrics port at `/metrics` as OpenMetrics text. "
              "A family appears with its first series. Times are in seconds, sizes in bytes. A family holds at most ");
    ep_text_printf(&t, "%u", EP_SERIES_MAX);
    ep_text_z(&t, " series a worker; past that, new values of its widest labels are counted as `other`, and "
                  "`ephor_series_folded_total` says so. `process_*` and `ephor_build_info` are always there.\n\n"
                  "| metric | kind | labels | what it counts |\n|---|---|---|---|\n");
    for (unsigned m = 0; m < EP_METRIC_COUNT; m++) {
        const struct metric *metric = &ep_metric_table[m];

        ep_text_printf(&t, "| `%s` | %s | ", metric->name, kinds[metric->kind]);
        for (unsigned i = 0, n = ep_metric_labels((enum ep_metric)m); i < n; i++) {
            struct ep_str label = ep_metric_label((enum ep_metric)m, i);

            ep_text_printf(&t, "%s`%.*s`", i ? ", " : "", EP_STR_ARG(label));
        }
        ep_text_printf(&t, " | %s |\n", metric->help);
    }
    return t.p;
}
