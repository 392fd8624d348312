/* observe: counters, gauges, histograms and their exposition; the access log; the audit; a JSON writer.
 *
 * Each worker writes its own shard with plain stores; a scrape reads all shards with relaxed loads and adds
 * them up. A lock is taken only to make a new series and to scrape, never to count. */
#ifndef EP_OBSERVE_OBSERVE_H
#define EP_OBSERVE_OBSERVE_H

#include "base/base.h"
#include "observe/json.h"

enum ep_metric {
#define X(id, name, kind, labels, help) EP_METRIC_##id,
#include "observe/metrics.def"
#undef X
    EP_METRIC_COUNT
};

enum ep_metric_kind { EP_COUNTER, EP_GAUGE, EP_HISTOGRAM, EP_COUNTER_NANO /* counts billionths, shown as whole ones */ };
#define EP_LABELS_MAX 8
#define EP_SERIES_MAX 2000u   /* of one family and shard, before new ones are folded */
#define EP_LABEL_BYTES_MAX 256u /* longer values are cut */

struct ep_stats;     /* one shard */

/* Log-linear: 32 linear steps a power of two, from 1 µs to about 1 h: relative error at most 3 %. One record
 * touches one bucket and the sum. Values are nanoseconds. */
struct ep_histogram;
void ep_histogram_record(struct ep_histogram *h, uint64_t ns);
uint64_t ep_histogram_count(const struct ep_histogram *h);
/* Of several histograms together (the shards); q in 0..1; nanoseconds, 0 when empty. */
uint64_t ep_histogram_quantile(const struct ep_histogram *const *h, size_t n, double q);

struct ep_stats *ep_stats_new(void);
void ep_stats_free(struct ep_stats *s);

/* A shard has one thread that makes series and counts; others only scrape.
 *
 * The cell of a series, made when it is new; keep the pointer (valid as long as the shard) where it is hot.
 * `labels` are the values in the order of metrics.def, copied; NULL for a metric without. Past EP_SERIES_MAX
 * series a family folds new values of its wide labels into "other" and ephor_series_folded_total counts. */
uint64_t *ep_stats_cell(struct ep_stats *s, enum ep_metric m, const struct ep_str *labels);
struct ep_histogram *ep_stats_histogram(struct ep_stats *s, enum ep_metric m, const struct ep_str *labels);

static inline void ep_cell_add(uint64_t *cell, uint64_t n)
{
    __atomic_store_n(cell, __atomic_load_n(cell, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
static inline void ep_cell_set(uint64_t *cell, uint64_t n) /* gauges are int64 in two's complement */
{
    __atomic_store_n(cell, n, __ATOMIC_RELAXED);
}
/* For what is not hot: find and add in one. */
void ep_stats_add(struct ep_stats *s, enum ep_metric m, const struct ep_str *labels, uint64_t n);
#define EP_LABELS(...) ((const struct ep_str[]){__VA_ARGS__})

/* OpenMetrics text of all shards in sum; gauges too are summed unless they are process-wide (made in one
 * shard only). Returns malloc'd text. Also process_* and build info. */
char *ep_exposition(struct ep_stats *const *shards, size_t n, size_t *length);

/* Rows for the demo's table, `ephor top` and the admin page: one a series of a histogram family. */
struct ep_row {
    struct ep_str labels[EP_LABELS_MAX]; /* point into the shard */
    uint64_t count, p50_ns, p99_ns, max_ns, sum_ns;
};
struct ep_row *ep_stats_rows(struct ep_stats *const *shards, size_t n, enum ep_metric m, size_t *rows); /* malloc'd */
/* The value of one counter over all shards. */
uint64_t ep_stats_total(struct ep_stats *const *shards, size_t n, enum ep_metric m, const struct ep_str *labels);
const char *ep_metric_name(enum ep_metric m);
/* docs/reference/metrics.md, made from metrics.def. malloc'd, NUL-terminated. */
char *ep_metrics_reference(void);

/* --- access log: JSON lines, one write a batch and turn --- */
struct ep_access_log;
struct ep_access_record {
    uint64_t wall_ns;
    struct ep_str listener, direction, protocol, version, method, authority, path, route, cluster, endpoint, peer_id,
        upstream_peer_id,
        call_method, tool, model, tenant, request_id, trace_id, decision_id, denied_by, code, user_agent, downstream;
    const char *flag;
    unsigned status, attempts;
    int grpc_status;
    uint64_t bytes_in, bytes_out;
    bool metered, tokens_estimated, priced; /* a call that used tokens, not all of them reported, with a cost */
    uint64_t tokens_input, tokens_output, cost_nano;
    uint64_t total_ns, self_ns, filter_ns, queue_ns, upstream_ns;
};
struct ep_access_log_config {
    bool enabled;
    struct ep_str path;  /* "-": standard output */
    double sample;       /* of good requests; refused and failed ones are always logged */
    bool query;          /* log the query string too: off, since secrets hide there */
};
extern const struct ep_schema ep_access_log_schema;
struct ep_access_log *ep_access_log_new(const struct ep_access_log_config *c, struct ep_error *err);
void ep_access_log_free(struct ep_access_log *l);
/* Whether a request is to be logged: all that went wrong, a sample of the others. Ask before making a record. */
bool ep_access_log_wants(struct ep_access_log *l, bool wrong, struct ep_rng *rng);
void ep_access_log_record(struct ep_access_log *l, const struct ep_access_record *r);
void ep_access_log_flush(struct ep_access_log *l); /* at the end of a turn; cheap when empty */

/* --- audit: one chained JSON record per decision that denied, shadow-denied, redacted or changed ephor --- */
struct ep_audit;
struct ep_audit_config {
    struct ep_str directory;  /* empty: off */
    uint64_t retain_ns, sync_ns; /* sync 0: always */
    bool required;
    struct ep_str sign; /* a file with the private key for the head; empty: unsigned */
};
extern const struct ep_schema ep_audit_schema;
struct ep_audit_field {
    const char *key;
    struct ep_str value; /* empty: left out */
    bool json;           /* it is JSON already */
};
struct ep_audit *ep_audit_new(const struct ep_audit_config *c, struct ep_error *err);
void ep_audit_free(struct ep_audit *a); /* after all is on the disk */
/* Writes one record to the file before it returns (any thread). 0, or -errno when it can't be written:
 * with `required` the caller then must not let the request pass. *seq is the record's number; may be NULL. */
int ep_audit_write(struct ep_audit *a, const char *event, const struct ep_audit_field *fields, size_t n, uint64_t *seq);
/* The same, counted in ephor_audit_records_total of `stats`, which is of the calling thread. NULL for a: nothing. */
int ep_audit_record(struct ep_audit *a, struct ep_stats *stats, const char *event, const struct ep_audit_field *fields,
                    size_t n, uint64_t *seq);
bool ep_audit_required(const struct ep_audit *a); /* false for NULL, as the next */
bool ep_audit_waits(const struct ep_audit *a);    /* `sync: always`: who answers waits until its record is settled */
enum ep_audit_state { EP_AUDIT_UNSETTLED, EP_AUDIT_SETTLED, EP_AUDIT_SPOILED /* the fsync failed */ };
enum ep_audit_state ep_audit_state(const struct ep_audit *a, uint64_t seq);
/* With `sync: always`, `wake` is called by the audit's thread after each fsync, until it is taken away again; it must not
 * call the audit. False when there are too many. */
bool ep_audit_listen(struct ep_audit *a, void (*wake)(void *user), void *user);
void ep_audit_deafen(struct ep_audit *a, void *user);
void ep_audit_sync(struct ep_audit *a); /* waits until all that was written is on the disk */
struct ep_audit_health {
    bool available;    /* the last record could be written */
    uint64_t unsynced; /* records that a power cut would take now */
};
struct ep_audit_health ep_audit_health(struct ep_audit *a);

/* --- reading it back --- */

/* Checks every file of a directory, and the head; with a key (32 bytes) also that it signed the head. Returns the
 * number of good records, or -1 with err naming file and line. */
int64_t ep_audit_verify(const char *directory, const uint8_t *key, struct ep_error *err);
/* Calls `each` for every line of a directory, in order, until it returns false. `why` is NULL for a record that is
 * good and in its place; `where` is file:line. False with err when a file can't be read. */
typedef bool ep_audit_each(void *user, const char *where, struct ep_str record, const char *why);
bool ep_audit_read(const char *directory, ep_audit_each *each, void *user, struct ep_error *err);

#endif
