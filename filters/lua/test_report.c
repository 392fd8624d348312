/* What came out, for people and machines: TAP 13 and JUnit's XML, with coverage where it was asked for. */
#include "lua/testing.h"

void ep_test_report_coverage(FILE *f, const struct ep_test_covered *c)
{
    fprintf(f, "coverage %.*s (%.*s): %u of %u lines, %.1f%%", EP_STR_ARG(c->policy), EP_STR_ARG(c->file), c->lines.hit,
            c->lines.n, 100 * ep_test_covered_share(c));
    if (c->lines.missing[0])
        fprintf(f, "; not run: %s", c->lines.missing);
    fputc('\n', f);
}

/* --- TAP --- */

static void comment(FILE *f, struct ep_str text)
{
    struct ep_str line;

    while (ep_str_next(&text, '\n', &line))
        fprintf(f, "# %.*s\n", EP_STR_ARG(line));
}

static void tap_name(FILE *f, struct ep_str name)
{
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] == '#')
            fputc('\\', f);
        fputc((unsigned char)name.p[i] < ' ' ? ' ' : name.p[i], f);
    }
    fputc('\n', f);
}

void ep_test_report_tap(FILE *f, const struct ep_tests *t)
{
    struct ep_str file = {NULL, 0};

    fputs("TAP version 13\n", f);
    for (size_t i = 0; i < t->n_results; i++) {
        const struct ep_test_result *r = &t->results[i];
        if (!ep_str_eq(r->file, file))
            fprintf(f, "# %.*s\n", EP_STR_ARG(r->file));
        file = r->file;
        fprintf(f, "%sok %zu - ", r->failed || r->broken ? "not " : "", i + 1);
        tap_name(f, r->name);
        comment(f, r->error);
    }
    fprintf(f, "1..%zu\n", t->n_results);
    for (size_t i = 0; i < t->n_covered; i++) {
        fputs("# ", f);
        ep_test_report_coverage(f, &t->covered[i]);
    }
    fprintf(f, "# %u policies, %zu tests, %zu failed\n", t->set ? t->set->n : 0, t->n_results, t->n_bad);
}

/* --- JUnit --- */

/* XML has no way to say most control characters; bytes that are no UTF-8 would make it unreadable. */
static void xml(FILE *f, struct ep_str s)
{
    for (size_t i = 0, n; i < s.n; i += n) {
        unsigned char c = (unsigned char)s.p[i];
        n = ep_utf8_length(s.p + i, s.n - i);
        if (n == 0 || (c < ' ' && c != '\n' && c != '\t')) {
            n = 1;
            fputs("\xef\xbf\xbd", f);
        } else if (c == '&') {
            fputs("&amp;", f);
        } else if (c == '<') {
            fputs("&lt;", f);
        } else if (c == '>') {
            fputs("&gt;", f);
        } else if (c == '"') {
            fputs("&quot;", f);
        } else if (c == '\n') {
            fputs("&#10;", f);
        } else {
            fwrite(s.p + i, 1, n, f);
        }
    }
}

static void attribute(FILE *f, const char *name, struct ep_str value)
{
    fprintf(f, " %s=\"", name);
    xml(f, value);
    fputc('"', f);
}

static void testcase(FILE *f, const struct ep_test_result *r)
{
    const char *kind = r->failed ? "failure" : "error";
    struct ep_str class = r->file;

    if (ep_str_ends(class, EP_STR(".lua")))
        class.n -= 4;
    fputs("    <testcase", f);
    attribute(f, "classname", class);
    attribute(f, "name", r->name);
    attribute(f, "file", r->file);
    fprintf(f, " time=\"%.6f\"", (double)r->ns / 1e9);
    if (!r->failed && !r->broken) {
        fputs("/>\n", f);
        return;
    }
    fprintf(f, ">\n      <%s", kind);
    attribute(f, "message", r->error);
    fputc('>', f);
    xml(f, r->error);
    fprintf(f, "</%s>\n    </testcase>\n", kind);
}

static void suite(FILE *f, const struct ep_test_result *r, size_t n)
{
    size_t failures = 0, errors = 0;
    uint64_t ns = 0;

    for (size_t i = 0; i < n; i++) {
        failures += r[i].failed;
        errors += r[i].broken;
        ns += r[i].ns;
    }
    fputs("  <testsuite", f);
    attribute(f, "name", r->file);
    fprintf(f, " tests=\"%zu\" failures=\"%zu\" errors=\"%zu\" skipped=\"0\" time=\"%.6f\">\n", n, failures, errors,
            (double)ns / 1e9);
    for (size_t i = 0; i < n; i++)
        testcase(f, &r[i]);
    fputs("  </testsuite>\n", f);
}

void ep_test_report_junit(FILE *f, const struct ep_tests *t)
{
    size_t failures = 0, errors = 0, n;

    for (size_t i = 0; i < t->n_results; i++) {
        failures += t->results[i].failed;
        errors += t->results[i].broken;
    }
    fprintf(f,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<testsuites name=\"ephor test\" tests=\"%zu\" failures=\"%zu\" errors=\"%zu\">\n",
            t->n_results, failures, errors);
    for (size_t i = 0; i < t->n_results; i += n) {
        for (n = 1; i + n < t->n_results && ep_str_eq(t->results[i + n].file, t->results[i].file);)
            n++;
        suite(f, &t->results[i], n);
    }
    fputs("</testsuites>\n", f);
}
