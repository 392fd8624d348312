/* Server-sent events as WHATWG HTML 9.2.6 says it, a byte at a time and whole: what the splitter is compared with. */
#ifndef EVENTS_MODEL_H
#define EVENTS_MODEL_H

#include <stdlib.h>

#include "agent/events.h"

struct model_event {
    char *name, *data, *id;
    size_t name_n, data_n, id_n;
};

struct model {
    struct model_event *v;
    size_t n;
};

static char *model_copy(const char *p, size_t n)
{
    char *c = malloc(n + 1);

    if (!c)
        abort();
    if (n)
        memcpy(c, p, n);
    c[n] = '\0';
    return c;
}

static void model_add(struct model *m, struct ep_str name, struct ep_str data, struct ep_str id)
{
    struct model_event *v = realloc(m->v, (m->n + 1) * sizeof *v);

    if (!v)
        abort();
    m->v = v;
    v[m->n++] = (struct model_event){model_copy(name.p, name.n), model_copy(data.p, data.n), model_copy(id.p, id.n),
                                     name.n, data.n, id.n};
}

static void model_free(struct model *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->v[i].name);
        free(m->v[i].data);
        free(m->v[i].id);
    }
    free(m->v);
    *m = (struct model){0};
}

/* One line of the event that is being read, taken into it. */
static void model_line(const char *p, size_t n, char *data, size_t *data_n, bool *any, struct ep_str *name, struct ep_str *id)
{
    size_t colon = 0, value;

    while (colon < n && p[colon] != ':')
        colon++;
    value = colon < n ? colon + 1 : n;
    if (value < n && p[value] == ' ')
        value++;
    if (colon == 4 && memcmp(p, "data", 4) == 0) {
        memcpy(data + *data_n, p + value, n - value);
        *data_n += n - value;
        data[(*data_n)++] = '\n';
        *any = true;
    } else if (colon == 5 && memcmp(p, "event", 5) == 0) {
        *name = ep_str_n(p + value, n - value);
    } else if (colon == 2 && memcmp(p, "id", 2) == 0 && !memchr(p + value, '\0', n - value)) {
        *id = ep_str_n(p + value, n - value);
    }
}

/* All events; what stands behind the last blank line counts as one, as it does for the splitter. */
static void model_read(struct model *m, const char *p, size_t n)
{
    char *data = malloc(n + 2);
    size_t at = n >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0 ? 3 : 0, data_n = 0;
    struct ep_str name = EP_STR(""), id = EP_STR("");
    bool any = false;

    if (!data)
        abort();
    while (at < n) {
        size_t from = at;
        while (at < n && p[at] != '\n' && p[at] != '\r')
            at++;
        model_line(p + from, at - from, data, &data_n, &any, &name, &id);
        if (at == from || at == n) {
            if (any)
                model_add(m, name, ep_str_n(data, data_n - 1), id);
            name = id = EP_STR("");
            any = false;
            data_n = 0;
        }
        if (at < n && p[at] == '\r' && at + 1 < n && p[at + 1] == '\n')
            at++;
        at++;
    }
    if (any) /* the last line had an end, and no blank line came */
        model_add(m, name, ep_str_n(data, data_n - 1), id);
    free(data);
}

#endif
