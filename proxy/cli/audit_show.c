/* `ephor audit show|export DIR`: records by what they say.
 *
 * Both read every line and say on standard error which are not good; what those claim is shown all the same, for it is
 * evidence too, and the exit status is 1. Bytes that could move a terminal's cursor don't reach it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/arguments.h"
#include "cli/audit.h"
#include "cli/cli.h"
#include "observe/observe.h"

enum { OPT_DECISION_ID = 256, OPT_EVENT };

/* Members that can be asked for; a value may have * and ?. */
static const struct {
    int key;
    const char *option, *member;
} filters[] = {
    {'p', "policy", "policy"},     {'d', "decision", "decision"},
    {'t', "tenant", "tenant_id"},  {'a', "agent", "agent_id"},
    {'P', "principle", "principle"}, {OPT_DECISION_ID, "decision-id", "decision_id"},
    {OPT_EVENT, "event", "event"},
};

static const char *const columns[] = {
    "seq",         "timestamp", "event", "decision", "decision_id", "trace_id",     "span_id",
    "agent_id",    "tenant_id", "policy", "policy_version", "principle", "code",    "result",       "by", "reason",
    "protocol",    "method",    "tool",  "model",    "risk_score",  "constitutional_hash", "compliance_tags",
    "metadata",    "hash",
};

struct show {
    const char *directory;
    char since[40], until[40];
    const char *wanted[EP_COUNT(filters)];
    uint64_t last; /* only so many from the end; 0: all */
    bool json, csv, bad, counting;
    uint64_t matched, shown;
};

/* --- options --- */

/* A time (RFC 3339, or the beginning of one), or how long ago. */
static bool moment(const char *text, char out[40])
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddddd";
    size_t n = strlen(text);
    uint64_t ago_ns, now_ns = ep_clock_wall_ns();

    if (ep_parse_duration(ep_str(text), &ago_ns) && ago_ns <= now_ns && strchr(text, '-') == NULL) {
        char time[32];
        (void)ep_time_rfc3339(now_ns - ago_ns, time);
        (void)snprintf(out, 40, "%.26s", time);
        return true;
    }
    if (n && text[n - 1] == 'Z')
        n--; /* so that 12Z is before 12.5Z */
    if (n < 4 || n >= sizeof form)
        return false;
    for (size_t i = 0; i < n; i++)
        if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i])
            return false;
    (void)snprintf(out, 40, "%.*s", (int)n, text);
    return true;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct show *s = state->input;

    for (size_t i = 0; i < EP_COUNT(filters); i++) {
        if (filters[i].key == key) {
            s->wanted[i] = arg;
            return 0;
        }
    }
    switch (key) {
    case 's':
    case 'u':
        if (!moment(arg, key == 's' ? s->since : s->until))
            argp_error(state, "'%s' is no time: 2026-11-24, 2026-11-24T01:52:12Z, or how long ago, 2h", arg);
        return 0;
    case 'n':
        if (!ep_str_u64(ep_str(arg), &s->last) || s->last == 0)
            argp_error(state, "'%s' is no number of records", arg);
        return 0;
    case 'j':
        s->json = true;
        return 0;
    case 'f':
        s->csv = strcmp(arg, "csv") == 0;
        if (!s->csv && strcmp(arg, "jsonl") != 0)
            argp_error(state, "the format is jsonl or csv");
        return 0;
    default:
        return ep_cli_one(key, arg, state, &s->directory);
    }
}

#define FILTER_OPTIONS                                                                                                 \
    {"since", 's', "TIME", 0, "From this time on (2026-11-24T01:52:12Z), or how long ago (2h)", 0},                    \
        {"until", 'u', "TIME", 0, "Before this time", 0}, {"policy", 'p', "GLOB", 0, "By the policy's name", 1},        \
        {"decision", 'd', "GLOB", 0, "By what was decided: deny, shadow_deny, redact, inject", 1},                     \
        {"tenant", 't', "GLOB", 0, "By the tenant", 1}, {"agent", 'a', "GLOB", 0, "By the caller's SPIFFE ID", 1},     \
        {"principle", 'P', "GLOB", 0, "By the principle", 1}, {"event", OPT_EVENT, "GLOB", 0, "By the event", 1},       \
    {                                                                                                                  \
        "decision-id", OPT_DECISION_ID, "ID", 0, "By the id that the caller was given", 1                              \
    }

static const struct argp_option show_options[] = {
    FILTER_OPTIONS,
    {"last", 'n', "N", 0, "Only the last N of them", 2},
    {"json", 'j', NULL, 0, "Whole records, as they are in the file", 2},
    {0},
};
static const struct argp_option export_options[] = {
    FILTER_OPTIONS,
    {"format", 'f', "jsonl|csv", 0, "jsonl (default) or csv", 2},
    {0},
};
#define EXITS "Exit status: 0, 1 some records are not good (named on standard error), 3 the directory can't be read."
static const struct argp show_argp = {
    .options = show_options, .parser = parse, .args_doc = "DIR", .doc = "Shows records of the audit.\v" EXITS};
static const struct argp export_argp = {
    .options = export_options, .parser = parse, .args_doc = "DIR", .doc = "Writes records to standard output.\v" EXITS};

/* --- which --- */

static struct ep_str plain(struct ep_str record, const char *member, char *out, size_t room)
{
    return ep_str_n(out, ep_json_plain(ep_json_member(record, member), out, room));
}

static bool wanted(const struct show *s, struct ep_str record)
{
    char value[1024];

    if (s->since[0] || s->until[0]) {
        struct ep_str time = plain(record, "timestamp", value, sizeof value - 1);
        value[time.n] = '\0';
        if ((s->since[0] && strcmp(value, s->since) < 0) || (s->until[0] && strcmp(value, s->until) >= 0))
            return false;
    }
    for (size_t i = 0; i < EP_COUNT(filters); i++)
        if (s->wanted[i] &&
            !ep_str_glob(ep_str(s->wanted[i]), plain(record, filters[i].member, value, sizeof value)))
            return false;
    return true;
}

/* --- how --- */

static void cell(struct ep_str text, int width)
{
    int n = 0;

    for (size_t i = 0; i < text.n;) {
        size_t bytes = ep_utf8_length(text.p + i, text.n - i);
        unsigned char c = (unsigned char)text.p[i];
        if (width && n == width - 1 && text.n - i > EP_MAX(bytes, 1u)) {
            fputs("…", stdout);
            n++;
            break;
        }
        if (bytes == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text.p[i + 1] < 0xa0)) {
            putchar('?'); /* C0, DEL and C1 move cursors */
            bytes = EP_MAX(bytes, 1u);
        } else {
            fwrite(text.p + i, 1, bytes, stdout);
        }
        i += bytes;
        n++;
    }
    for (; n < width; n++)
        putchar(' ');
    if (width)
        fputs("  ", stdout);
}

static const struct {
    const char *title, *member, *other; /* other: where there is none of the first */
    int width;
} table[] = {
    {"TIME", "timestamp", NULL, 19},        {"DECISION", "decision", "event", 13},
    {"POLICY", "policy", "experiment", 20}, {"PRINCIPLE", "principle", NULL, 10},
    {"AGENT", "agent_id", NULL, 36},        {"TENANT", "tenant_id", NULL, 12},
    {"CALL", "tool", "method", 20},         {"REASON", "reason", NULL, 0},
};

/* Of a change of ephor itself: what came of it, and by whom. */
static void outcome(struct ep_str record, bool more)
{
    char value[256];
    struct ep_str result = plain(record, "result", value, sizeof value);

    if (!result.n)
        return;
    cell(result, 0);
    struct ep_str by = plain(record, "by", value, sizeof value);
    if (by.n) {
        fputs(" by ", stdout);
        cell(by, 0);
    }
    if (more)
        fputs(": ", stdout);
}

static void row(struct ep_str record)
{
    char value[4096];

    for (size_t i = 0; i < EP_COUNT(table); i++) {
        struct ep_str text = plain(record, table[i].member, value, sizeof value);
        if (text.n == 0 && table[i].other)
            text = plain(record, table[i].other, value, sizeof value);
        if (i + 1 == EP_COUNT(table))
            outcome(record, text.n > 0);
        cell(ep_str_n(text.p, i == 0 ? EP_MIN(text.n, 19u) : text.n), table[i].width);
    }
    putchar('\n');
}

/* RFC 4180: what has a comma, a quote or a line end stands in quotes. Callers choose some of the texts, and spreadsheets
 * run what begins like a formula: that has an apostrophe in front. */
static void csv(struct ep_str record)
{
    char *value = ep_malloc(record.n + 1);

    for (size_t i = 0; i < EP_COUNT(columns); i++) {
        struct ep_str text = plain(record, columns[i], value, record.n);
        bool quoted = false;
        for (size_t k = 0; k < text.n; k++)
            quoted |= text.p[k] == ',' || text.p[k] == '"' || text.p[k] == '\n' || text.p[k] == '\r';
        fputs(i ? "," : "", stdout);
        fputs(quoted ? "\"" : "", stdout);
        if (text.n && strchr("=+-@\t\r", text.p[0]))
            putchar('\'');
        for (size_t k = 0; k < text.n; k++) {
            if (text.p[k] == '"')
                putchar('"');
            putchar(text.p[k]);
        }
        fputs(quoted ? "\"" : "", stdout);
    }
    fputs("\r\n", stdout);
    free(value);
}

static bool each(void *user, const char *where, struct ep_str record, const char *why)
{
    struct show *s = user;

    if (why && !s->counting) {
        fprintf(stderr, "%s: %s\n", where, why);
        s->bad = true;
    }
    if (!record.n || record.p[0] != '{' || !wanted(s, record))
        return true;
    if (s->counting) {
        s->matched++;
        return true;
    }
    if (s->last && s->shown++ + s->last < s->matched)
        return true;
    if (s->csv) {
        csv(record);
    } else if (s->json) {
        fwrite(record.p, 1, record.n, stdout);
        putchar('\n');
    } else {
        row(record);
    }
    return !ferror(stdout);
}

static int run(struct show *s)
{
    struct ep_error err;

    if (ep_cli_audit_readable(s->directory) != EP_EXIT_GOOD)
        return EP_EXIT_ENVIRONMENT;
    s->counting = s->last > 0;
    if (s->counting && !ep_audit_read(s->directory, each, s, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return EP_EXIT_ENVIRONMENT;
    }
    s->counting = false;
    if (s->csv) {
        for (size_t i = 0; i < EP_COUNT(columns); i++)
            printf("%s%s", i ? "," : "", columns[i]);
        fputs("\r\n", stdout);
    } else if (!s->json) {
        for (size_t i = 0; i < EP_COUNT(table); i++)
            cell(ep_str(table[i].title), table[i].width);
        putchar('\n');
    }
    if (!ep_audit_read(s->directory, each, s, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return EP_EXIT_ENVIRONMENT;
    }
    if (fflush(stdout) != 0) {
        perror("ephor audit");
        return EP_EXIT_ENVIRONMENT;
    }
    return s->bad ? EP_EXIT_BAD : EP_EXIT_GOOD;
}

int ep_cli_audit_show(int argc, char **argv)
{
    struct show s = {0};

    argp_parse(&show_argp, argc, argv, 0, NULL, &s);
    return run(&s);
}

int ep_cli_audit_export(int argc, char **argv)
{
    struct show s = {.json = true};

    argp_parse(&export_argp, argc, argv, 0, NULL, &s);
    return run(&s);
}
