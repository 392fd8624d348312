/* OpenMetrics text 1.0 (the specification's sections "Text format" and "Exposition"), made from all shards.
 *
 * A family appears when it has a series. A counter's family is its name without _total. Histograms are shown in
 * classic buckets, counted from the fine ones: a value within half a step (1.6 %) of a bound may be on either side. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "observe/private.h"

static const uint64_t bounds_ns[] = {
    100 * EP_US, 250 * EP_US, 500 * EP_US, 1 * EP_MS, 2500 * EP_US,    5 * EP_MS, 10 * EP_MS, 25 * EP_MS, 50 * EP_MS,
    100 * EP_MS, 250 * EP_MS, 500 * EP_MS, 1 * EP_S,  2500ull * EP_MS, 5 * EP_S,  10 * EP_S,  30 * EP_S,
};
/* As canonical numbers, which `le` must be. */
static const char *const bounds_text[] = {
    "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05",
    "0.1",    "0.25",    "0.5",    "1.0",   "2.5",    "5.0",   "10.0", "30.0",
};
#define BOUNDS EP_COUNT(bounds_ns)
static_assert(EP_COUNT(bounds_ns) == EP_COUNT(bounds_text), "each bound has its text");

static void escaped(struct text *t, struct ep_str s)
{
    size_t length;

    for (size_t i = 0; i < s.n; i += length) {
        length = ep_utf8_length(s.p + i, s.n - i);
        if (length == 0) {
            ep_text_z(t, "\xef\xbf\xbd"); /* U+FFFD */
            length = 1;
        } else if (s.p[i] == '\n') {
            ep_text_z(t, "\\n");
        } else {
            if (s.p[i] == '"' || s.p[i] == '\\')
                ep_text_z(t, "\\");
            ep_text_add(t, s.p + i, length);
        }
    }
}

static struct ep_str family_name(const struct metric *m)
{
    struct ep_str name = ep_str(m->name), total = EP_STR("_total");

    if ((m->kind == EP_COUNTER || m->kind == EP_COUNTER_NANO) && ep_str_ends(name, total))
        name.n -= total.n;
    return name;
}

static void header(struct text *t, const struct metric *m)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram", "counter"};
    static const char *const units[] = {"seconds", "bytes"};
    struct ep_str name = family_name(m);

    ep_text_printf(t, "# TYPE %.*s %s\n", EP_STR_ARG(name), kinds[m->kind]);
    for (size_t i = 0; i < EP_COUNT(units); i++) {
        struct ep_str unit = ep_str(units[i]);

        if (ep_str_ends(name, unit) && name.n > unit.n && name.p[name.n - unit.n - 1] == '_')
            ep_text_printf(t, "# UNIT %.*s %s\n", EP_STR_ARG(name), units[i]);
    }
    ep_text_printf(t, "# HELP %.*s ", EP_STR_ARG(name));
    escaped(t, ep_str(m->help));
    ep_text_z(t, "\n");
}

/* `name="value",…` without braces. */
static void labels_text(struct text *t, enum ep_metric m, const struct series *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct ep_str name = ep_metric_label(m, i);

        if (i)
            ep_text_z(t, ",");
        ep_text_add(t, name.p, name.n);
        ep_text_z(t, "=\"");
        escaped(t, s->labels[i]);
        ep_text_z(t, "\"");
    }
}

static void billionths(struct text *t, uint64_t ns)
{
    ep_text_printf(t, "%" PRIu64 ".%09" PRIu64 "\n", (uint64_t)(ns / EP_S), (uint64_t)(ns % EP_S));
}

static void cells(struct text *t, enum ep_metric m, struct series **same, size_t n, unsigned n_labels)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += __atomic_load_n(&same[i]->cell, __ATOMIC_RELAXED);
    ep_text_z(t, ep_metric_table[m].name);
    if (n_labels) {
        ep_text_z(t, "{");
        labels_text(t, m, same[0], n_labels);
        ep_text_z(t, "}");
    }
    if (ep_metric_table[m].kind == EP_COUNTER_NANO) {
        ep_text_z(t, " ");
        billionths(t, sum);
    } else if (ep_metric_table[m].kind == EP_GAUGE)
        ep_text_printf(t, " %" PRId64 "\n", (int64_t)sum);
    else
        ep_text_printf(t, " %" PRIu64 "\n", sum);
}

static void histogram(struct text *t, enum ep_metric m, struct series **same, size_t n, unsigned n_labels)
{
    const char *name = ep_metric_table[m].name, *comma = n_labels ? "," : "";
    uint64_t counts[BOUNDS + 1] = {0}, count = 0, sum = 0;
    struct text labels = {0};

    for (size_t i = 0; i < n; i++) {
        ep_histogram_classic(same[i]->histogram, bounds_ns, BOUNDS, counts);
        sum += ep_histogram_sum(same[i]->histogram);
    }
    ep_text_z(&labels, "");
    labels_text(&labels, m, same[0], n_labels);
    for (size_t i = 0; i <= BOUNDS; i++) {
        count += counts[i];
        ep_text_z(t, name);
        ep_text_z(t, "_bucket{");
        ep_text_add(t, labels.p, labels.n);
        ep_text_printf(t, "%sle=\"%s\"} %" PRIu64 "\n", comma, i < BOUNDS ? bounds_text[i] : "+Inf", count);
    }
    for (unsigned k = 0; k < 2; k++) {
        ep_text_printf(t, "%s_%s", name, k ? "sum" : "count");
        if (n_labels) {
            ep_text_z(t, "{");
            ep_text_add(t, labels.p, labels.n);
            ep_text_z(t, "}");
        }
        ep_text_z(t, " ");
        if (k)
            billionths(t, sum);
        else
            ep_text_printf(t, "%" PRIu64 "\n", count);
    }
    free(labels.p);
}

static void family(struct text *t, struct ep_stats *const *shards, size_t n, enum ep_metric m)
{
    size_t count;
    struct series **all = ep_stats_collect(shards, n, m, &count);
    unsigned n_labels = ep_metric_labels(m);

    if (count)
        header(t, &ep_metric_table[m]);
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && ep_series_same(all[i], all[end], n_labels);)
            end++;
        if (ep_metric_table[m].kind == EP_HISTOGRAM)
            histogram(t, m, all + i, end - i, n_labels);
        else
            cells(t, m, all + i, end - i, n_labels);
    }
    free(all);
}

static uint64_t cpu_ns(void)
{
    struct rusage u;

    if (getrusage(RUSAGE_SELF, &u) != 0)
        return 0;
    return (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * EP_S +
           (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * EP_US;
}

/* Pages in memory: the second number of statm. */
static uint64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long pages = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%*u %llu", &pages) != 1)
        pages = 0;
    (void)fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint64_t n = 0;

    if (!d)
        return 0;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    (void)closedir(d);
    return n - 1; /* the one that reads the directory */
}

/* Field 22 of stat is in ticks since boot; the command's name may hold spaces and brackets, so count from behind it. */
static uint64_t start_wall_ns(void)
{
    char line[1024], *p;
    FILE *f = fopen("/proc/self/stat", "re");
    size_t n;
    struct timespec boot;
    unsigned long long ticks;
    uint64_t age;

    if (!f)
        return 0;
    n = fread(line, 1, sizeof(line) - 1, f);
    (void)fclose(f);
    line[n] = 0;
    p = strrchr(line, ')');
    if (!p ||
        sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ticks) != 1)
        return 0;
    if (clock_gettime(CLOCK_BOOTTIME, &boot) != 0)
        return 0;
    age = (uint64_t)boot.tv_sec * EP_S + (uint64_t)boot.tv_nsec - ticks * (EP_S / (uint64_t)sysconf(_SC_CLK_TCK));
    return ep_clock_wall_ns() - age;
}

static void process(struct text *t)
{
    static const struct metric cpu = {"process_cpu_seconds_total", EP_COUNTER, "", "CPU time, user and system."};
    static const struct metric rss = {"process_resident_memory_bytes", EP_GAUGE, "", "Memory that is resident."};
    static const struct metric fds = {"process_open_fds", EP_GAUGE, "", "File descriptors that are open."};
    static const struct metric start = {"process_start_time_seconds", EP_GAUGE, "", "Start, seconds since 1970."};
    static const struct metric build = {"ephor_build_info", EP_GAUGE, "", "What is running."};

    header(t, &cpu);
    ep_text_printf(t, "%s ", cpu.name);
    billionths(t, cpu_ns());
    header(t, &rss);
    ep_text_printf(t, "%s %" PRIu64 "\n", rss.name, resident_bytes());
    header(t, &fds);
    ep_text_printf(t, "%s %" PRIu64 "\n", fds.name, open_fds());
    header(t, &start);
    ep_text_printf(t, "%s ", start.name);
    billionths(t, start_wall_ns());
    header(t, &build);
    ep_text_printf(t, "%s{version=\"%s\"} 1\n", build.name, EPHOR_VERSION);
}

char *ep_exposition(struct ep_stats *const *shards, size_t n, size_t *length)
{
    struct text t = {0};

    for (unsigned m = 0; m < EP_METRIC_COUNT; m++)
        family(&t, shards, n, (enum ep_metric)m);
    process(&t);
    ep_text_z(&t, "# EOF\n");
    if (length)
        *length = t.n;
    return t.p;
}
