/* link: ep_observe */
/* Shards and what is made from them: sums, the text of a scrape, rows, folding, and a scrape while others count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "observe/observe.h"

static void cells_are_stable_and_found_again(void **state)
{
    struct ep_stats *s = ep_stats_new();
    uint64_t *first = ep_stats_cell(s, EP_METRIC_STREAMS, EP_LABELS(EP_STR("in")));
    char name[16];

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        int n = snprintf(name, sizeof(name), "l%u", i);

        ep_cell_add(ep_stats_cell(s, EP_METRIC_STREAMS, EP_LABELS(ep_str_n(name, (size_t)n))), i);
    }
    memset(name, 'x', sizeof(name)); /* labels are copied */
    assert_ptr_equal(ep_stats_cell(s, EP_METRIC_STREAMS, EP_LABELS(EP_STR("in"))), first);
    assert_int_equal(*ep_stats_cell(s, EP_METRIC_STREAMS, EP_LABELS(EP_STR("l7"))), 7);
    ep_cell_set(ep_stats_cell(s, EP_METRIC_GENERATION, NULL), 3);
    assert_int_equal(*ep_stats_cell(s, EP_METRIC_GENERATION, NULL), 3);
    assert_string_equal(ep_metric_name(EP_METRIC_RELOADS), "ephor_config_reload_total");
    ep_stats_free(s);
}

static void scrape_adds_the_shards_up(void **state)
{
    struct ep_stats *shards[2] = {ep_stats_new(), ep_stats_new()};
    size_t length;
    char *text;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct ep_histogram *h = ep_stats_histogram(shards[i], EP_METRIC_POLICY_DURATION, EP_LABELS(EP_STR("p")));

        ep_stats_add(shards[i], EP_METRIC_RELOADS, EP_LABELS(EP_STR("accepted")), 2 + i);
        ep_cell_add(ep_stats_cell(shards[i], EP_METRIC_STREAMS, EP_LABELS(EP_STR("a\"b\\c\n\xff"))), 1);
        ep_histogram_record(h, 3 * EP_MS);
        ep_histogram_record(h, 70 * EP_S);
    }
    ep_cell_add(ep_stats_cell(shards[1], EP_METRIC_UPSTREAM_PENDING, EP_LABELS(EP_STR("c"))), (uint64_t)-4);
    text = ep_exposition(shards, 2, &length);
    assert_int_equal(length, strlen(text));
    assert_non_null(strstr(text, "# TYPE ephor_config_reload counter\n# HELP ephor_config_reload Config"));
    assert_non_null(strstr(text, "\nephor_config_reload_total{result=\"accepted\"} 5\n"));
    assert_non_null(strstr(text, "\nephor_streams_active{listener=\"a\\\"b\\\\c\\n\xef\xbf\xbd\"} 2\n"));
    assert_non_null(strstr(text, "\nephor_upstream_pending{cluster=\"c\"} -4\n"));
    assert_non_null(
        strstr(text, "# TYPE ephor_policy_duration_seconds histogram\n# UNIT ephor_policy_duration_seconds seconds\n"));
    assert_non_null(strstr(text, "\nephor_policy_duration_seconds_bucket{policy=\"p\",le=\"0.0025\"} 0\n"
                                 "ephor_policy_duration_seconds_bucket{policy=\"p\",le=\"0.005\"} 2\n"));
    assert_non_null(strstr(text, "{policy=\"p\",le=\"30.0\"} 2\n"));
    assert_non_null(strstr(text, "{policy=\"p\",le=\"+Inf\"} 4\n"));
    assert_non_null(strstr(text, "\nephor_policy_duration_seconds_count{policy=\"p\"} 4\n"));
    assert_non_null(strstr(text, "\nephor_policy_duration_seconds_sum{policy=\"p\"} 140.006000000\n"));
    assert_non_null(strstr(text, "\nprocess_cpu_seconds_total 0."));
    assert_non_null(strstr(text, "\nprocess_start_time_seconds 1"));
    assert_null(strstr(text, "process_open_fds 0\n"));
    assert_null(strstr(text, "process_resident_memory_bytes 0\n"));
    assert_non_null(strstr(text, "\nephor_build_info{version=\""));
    assert_null(strstr(text, "ephor_requests")); /* has no series */
    assert_string_equal(text + length - 6, "# EOF\n");
    free(text);
    ep_stats_free(shards[0]);
    ep_stats_free(shards[1]);
}

static void rows_merge_the_shards(void **state)
{
    struct ep_stats *shards[2] = {ep_stats_new(), ep_stats_new()};
    struct ep_row *rows;
    size_t n;

    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        ep_histogram_record(
            ep_stats_histogram(shards[i % 2], EP_METRIC_FILTER_DURATION, EP_LABELS(EP_STR("in"), EP_STR("agent"))),
            (i + 1) * EP_MS);
    }
    ep_histogram_record(
        ep_stats_histogram(shards[0], EP_METRIC_FILTER_DURATION, EP_LABELS(EP_STR("in"), EP_STR("lua"))), 5);
    rows = ep_stats_rows(shards, 2, EP_METRIC_FILTER_DURATION, &n);
    assert_int_equal(n, 2);
    assert_true(ep_str_eq(rows[0].labels[1], EP_STR("agent")));
    assert_int_equal(rows[0].count, 200);
    assert_int_equal(rows[0].max_ns, 200 * EP_MS);
    assert_int_equal(rows[0].sum_ns, 20100 * EP_MS);
    assert_in_range(rows[0].p50_ns, 97 * EP_MS, 103 * EP_MS);
    assert_in_range(rows[0].p99_ns, 192 * EP_MS, 200 * EP_MS);
    assert_int_equal(rows[1].count, 1);
    free(rows);
    rows = ep_stats_rows(shards, 2, EP_METRIC_HOP_DURATION, &n);
    assert_int_equal(n, 0);
    free(rows);
    ep_stats_free(shards[0]);
    ep_stats_free(shards[1]);
}

static void a_full_family_folds_its_wide_labels(void **state)
{
    struct ep_stats *s = ep_stats_new();
    uint64_t before;
    char name[400];
    size_t length, lines = 0;
    char *text;

    (void)state;
    for (unsigned i = 0; i < 3 * EP_SERIES_MAX; i++) {
        int n = snprintf(name, sizeof(name), "endpoint%u", i);

        ep_stats_add(s, EP_METRIC_UPSTREAM_REQUESTS,
                     EP_LABELS(EP_STR("c"), ep_str_n(name, (size_t)n), i % 2 ? EP_STR("2xx") : EP_STR("5xx")), 1);
    }
    /* What was there still counts by itself, the rest under other, apart by the narrow label. */
    assert_int_equal(
        *ep_stats_cell(s, EP_METRIC_UPSTREAM_REQUESTS, EP_LABELS(EP_STR("c"), EP_STR("endpoint3"), EP_STR("2xx"))), 1);
    assert_int_equal(
        *ep_stats_cell(s, EP_METRIC_UPSTREAM_REQUESTS, EP_LABELS(EP_STR("c"), EP_STR("other"), EP_STR("2xx"))),
        EP_SERIES_MAX);
    before = *ep_stats_cell(s, EP_METRIC_SERIES_FOLDED, EP_LABELS(EP_STR("ephor_upstream_requests_total")));
    assert_int_equal(before, 2 * EP_SERIES_MAX);
    text = ep_exposition(&s, 1, &length);
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    assert_in_range(lines, EP_SERIES_MAX, EP_SERIES_MAX + 40);
    free(text);

    memset(name, 'x', sizeof(name)); /* an overlong value is cut, and found again */
    assert_ptr_equal(ep_stats_cell(s, EP_METRIC_STREAMS, EP_LABELS(ep_str_n(name, 400))),
                     ep_stats_cell(s, EP_METRIC_STREAMS, EP_LABELS(ep_str_n(name, 300))));
    ep_stats_free(s);
}

struct race {
    struct ep_stats *stats;
    atomic_bool stop;
};

static void *count(void *argument)
{
    struct race *r = argument;
    char name[16];

    for (unsigned i = 0; i < 200000 || !atomic_load(&r->stop); i++) {
        int n = snprintf(name, sizeof(name), "l%u", i % 1500);
        struct ep_str label = ep_str_n(name, (size_t)n);

        ep_cell_add(ep_stats_cell(r->stats, EP_METRIC_STREAMS, EP_LABELS(label)), 1);
        ep_histogram_record(ep_stats_histogram(r->stats, EP_METRIC_POLICY_DURATION, EP_LABELS(label)), i);
    }
    return NULL;
}

static void a_scrape_sees_whole_series_while_others_count(void **state)
{
    struct race r = {.stats = ep_stats_new()};
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, count, &r), 0);
    for (unsigned i = 0; i < 10; i++) {
        size_t length, n;
        char *text = ep_exposition(&r.stats, 1, &length);

        assert_string_equal(text + length - 6, "# EOF\n");
        free(text);
        free(ep_stats_rows(&r.stats, 1, EP_METRIC_POLICY_DURATION, &n));
    }
    atomic_store(&r.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    ep_stats_free(r.stats);
}

static void the_reference_names_every_metric(void **state)
{
    char *text = ep_metrics_reference();

    (void)state;
    for (unsigned m = 0; m < EP_METRIC_COUNT; m++)
        assert_non_null(strstr(text, ep_metric_name((enum ep_metric)m)));
    assert_non_null(strstr(text, "| `ephor_streams_active` | gauge | `listener` | Streams that are open now. |\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_are_stable_and_found_again),
        cmocka_unit_test(scrape_adds_the_shards_up),
        cmocka_unit_test(rows_merge_the_shards),
        cmocka_unit_test(a_full_family_folds_its_wide_labels),
        cmocka_unit_test(a_scrape_sees_whole_series_while_others_count),
        cmocka_unit_test(the_reference_names_every_metric),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
