/* The list of what is wrong with a file, and how it is said. */
#include "config/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define PROBLEMS_MAX 200u
#define EXCERPT_MAX  160u

void ep_problems_init(struct ep_problems *p)
{
    memset(p, 0, sizeof *p);
}

void ep_problems_fini(struct ep_problems *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->v[i].text);
    free(p->v);
    free(p->file);
    free(p->source);
    memset(p, 0, sizeof *p);
}

void ep_problems_add(struct ep_problems *p, struct ep_where where, bool warning, const char *format, ...)
{
    char *text = NULL;
    va_list ap;

    p->errors += !warning;
    if (p->n >= PROBLEMS_MAX)
        return;
    if (p->n == p->cap) {
        p->cap = p->cap ? p->cap * 2 : 16;
        p->v = ep_realloc(p->v, p->cap * sizeof *p->v);
    }
    va_start(ap, format);
    if (vasprintf(&text, format, ap) < 0)
        abort();
    va_end(ap);
    p->v[p->n++] = (struct ep_problem){where, warning, text};
}

static int by_place(const void *a, const void *b)
{
    const struct ep_problem *x = a, *y = b;

    if (x->where.line != y->where.line)
        return x->where.line < y->where.line ? -1 : 1;
    if (x->where.column != y->where.column)
        return x->where.column < y->where.column ? -1 : 1;
    return strcmp(x->text, y->text);
}

static struct ep_str source_line(const struct ep_problems *p, int line)
{
    struct ep_str rest = ep_str_n(p->source, p->source ? p->source_n : 0);

    for (; line > 1; line--) {
        ptrdiff_t end = ep_str_find(rest, '\n', 0);
        if (end < 0)
            return (struct ep_str){NULL, 0};
        rest = ep_str_n(rest.p + end + 1, rest.n - (size_t)end - 1);
    }
    ptrdiff_t end = ep_str_find(rest, '\n', 0);
    if (end >= 0)
        rest.n = (size_t)end;
    if (rest.n && rest.p[rest.n - 1] == '\r')
        rest.n--;
    return rest;
}

static void print_excerpt(FILE *f, const struct ep_problems *p, struct ep_where where)
{
    struct ep_str line = source_line(p, where.line);

    if (!line.n || where.line <= 0)
        return;
    line.n = EP_MIN(line.n, (size_t)EXCERPT_MAX);
    fprintf(f, "%6d | ", where.line);
    for (size_t i = 0; i < line.n; i++)
        fputc((unsigned char)line.p[i] < 0x20 ? ' ' : line.p[i], f);
    fprintf(f, "\n       | %*s^\n", EP_MAX(where.column - 1, 0), "");
}

char *ep_problems_text(struct ep_problems *p, bool excerpt)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);

    if (!f)
        abort();
    if (p->n)
        qsort(p->v, p->n, sizeof *p->v, by_place);
    for (size_t i = 0; i < p->n; i++) {
        const struct ep_problem *q = &p->v[i];
        fputs(p->file ? p->file : "configuration", f);
        if (q->where.line > 0)
            fprintf(f, ":%d:%d", q->where.line, q->where.column);
        fprintf(f, ": %s: %s\n", q->warning ? "warning" : "error", q->text);
        if (excerpt)
            print_excerpt(f, p, q->where);
    }
    if (p->n >= PROBLEMS_MAX)
        fprintf(f, "%s: there is more; only the first %u are shown\n", p->file ? p->file : "configuration",
                PROBLEMS_MAX);
    fclose(f);
    return text;
}

void ep_problems_first(struct ep_problems *p, struct ep_error *err)
{
    if (p->n)
        qsort(p->v, p->n, sizeof *p->v, by_place);
    for (size_t i = 0; i < p->n; i++) {
        const struct ep_problem *q = &p->v[i];
        if (q->warning)
            continue;
        if (q->where.line > 0)
            ep_error_set(err, "%s:%d:%d: %s", p->file ? p->file : "configuration", q->where.line, q->where.column,
                         q->text);
        else
            ep_error_set(err, "%s: %s", p->file ? p->file : "configuration", q->text);
        return;
    }
    ep_error_set(err, "no error");
}
