/* Gathers the lines of a head or a trailer block until its empty line, and refuses line ends that aren't CRLF.
 *
 * When the block came in one read nothing is copied; only a block in pieces is put together. Each byte is looked at
 * once, by memchr, wherever the pieces were cut. */
#include <stdlib.h>

#include "http/h1.h"

#define BLANKS_MAX 2u /* RFC 9112 section 2.2: at least one empty line before a request is to be ignored */

static enum h1_result bad(struct h1_problem *problem, unsigned status, const char *reason)
{
    *problem = (struct h1_problem){status, reason};
    return H1_BAD;
}

/* Looks for the end of the block in p[0..n); *end is the offset behind it. */
static enum h1_result scan(struct h1_gather *g, const struct h1_gather_limits *limits, const char *p, size_t n, size_t *end,
                           struct h1_problem *problem)
{
    const char *lf;

    while (g->line < n && (lf = memchr(p + g->line, '\n', n - g->line))) {
        size_t length = (size_t)(lf - (p + g->line)); /* with the CR */
        bool first = limits->head && g->line == g->start;

        if (length == 0 || lf[-1] != '\r')
            return bad(problem, 400, "bare LF");
        if (first && length - 1 > limits->first_line)
            return bad(problem, limits->request ? 414 : 431, "start line too long");
        if (!first && (p[g->line] == ' ' || p[g->line] == '\t'))
            return bad(problem, 400, "folded line");
        g->line += length + 1;
        if (g->line - g->start > limits->block)
            return bad(problem, 431, "header fields too large");
        if (length > 1)
            continue;
        if (!first) {
            *end = g->line;
            return H1_DONE;
        }
        if (!limits->request || ++g->blanks > BLANKS_MAX)
            return bad(problem, 400, "empty line before the message");
        g->start = g->line;
    }
    if (limits->head && g->line == g->start && n - g->start > limits->first_line + 1)
        return bad(problem, limits->request ? 414 : 431, "start line too long");
    if (n - g->start > limits->block)
        return bad(problem, 431, "header fields too large");
    return H1_MORE;
}

static void append(struct h1_gather *g, const char *p, size_t n)
{
    if (g->n + n > g->cap) {
        size_t cap = g->cap ? g->cap : 1024;

        while (cap < g->n + n)
            cap *= 2;
        g->p = ep_realloc(g->p, cap);
        g->cap = cap;
    }
    memcpy(g->p + g->n, p, n);
    g->n += n;
}

enum h1_result h1_gather(struct h1_gather *g, const struct h1_gather_limits *limits, const char *p, size_t n, size_t *used,
                         struct ep_str *block, struct h1_problem *problem)
{
    size_t had = g->n, end = 0;
    const char *all = p;
    size_t total = n;
    enum h1_result r;

    if (had) { /* at most a read's worth beyond the limit, which the scan then finds */
        append(g, p, n);
        all = g->p;
        total = g->n;
    }
    r = scan(g, limits, all, total, &end, problem);
    if (r == H1_DONE) {
        assert(end > had);
        *used = end - had;
        *block = ep_str_n(all + g->start, end - g->start);
    } else if (r == H1_MORE) {
        if (!had && n)
            append(g, p, n);
        *used = n;
    }
    return r;
}

void h1_gather_reset(struct h1_gather *g)
{
    free(g->p);
    *g = (struct h1_gather){.p = NULL};
}
