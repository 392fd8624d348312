/* The normalised print: every value, defaults included, as YAML that reads back to the same configuration. */
#include <stdio.h>
#include <stdlib.h>

#include "config/bind.h"
#include "filter/filter.h"

struct printer {
    FILE *f;
    struct ep_chunk_pool chunks;
    struct ep_arena arena;
    bool secrets;
};

/* May the text stand without quotes, and still be read as that text? Also by tools that know YAML 1.1 only, for which
 * `off` is a boolean. */
static bool plain(struct ep_str s)
{
    static const char *const words[] = {"null", "~",   "-",   "---", "...", "true", "false",
                                        "on",   "off", "yes", "no",  "y",   "n"};

    if (s.n == 0 || s.n > 200)
        return false;
    for (size_t i = 0; i < EP_COUNT(words); i++)
        if (ep_str_caseeq(s, ep_str(words[i])))
            return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '/';
        bool inner = c == '.' || c == '-' || c == '+' || c == '%' || (c == ':' && i + 1 < s.n);
        if (!word && !(inner && i > 0))
            return false;
    }
    return true;
}

static void print_quoted(FILE *f, struct ep_str s)
{
    fputc('"', f);
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", f);
        else if (c == '\t')
            fputs("\\t", f);
        else if (c < 0x20 || c == 0x7f)
            fprintf(f, "\\x%02x", c);
        else if (c == '$')
            fputs("$$", f); /* or the environment would be looked at */
        else
            fputc(c, f);
    }
    fputc('"', f);
}

static void print_text(FILE *f, struct ep_str s)
{
    if (plain(s))
        fwrite(s.p, 1, s.n, f);
    else
        print_quoted(f, s);
}

static void print_scalar(struct printer *p, const struct ep_field *f, enum ep_type type, const void *value)
{
    if (f->secret && !p->secrets)
        fputs("\"***\"", p->f);
    else if (type == EP_TYPE_BOOL)
        fputs(*(const bool *)value ? "true" : "false", p->f);
    else
        print_text(p->f, ep_scalar_text(&p->arena, f, type, value));
}

static void indent(FILE *f, int depth)
{
    fprintf(f, "%*s", depth * 2, "");
}

static void print_struct(struct printer *p, const struct ep_schema *s, const void *object, int depth,
                         bool first_inline);

/* A list element or key is printed where the cursor is: behind "- " the first key needs no indent. */
static void print_list(struct printer *p, const struct ep_field *f, const struct ep_vec *list, int depth)
{
    size_t size = f->item == EP_TYPE_STRUCT ? f->sub->size : ep_scalar_size(f->item);

    if (list->n == 0) {
        fputs(" []\n", p->f);
        return;
    }
    if (f->item != EP_TYPE_STRUCT) {
        fputs(" [", p->f);
        for (size_t i = 0; i < list->n; i++) {
            const void *v = (const char *)list->v + i * size;
            fputs(i ? ", " : "", p->f);
            print_scalar(p, f, f->item, v);
        }
        fputs("]\n", p->f);
        return;
    }
    fputc('\n', p->f);
    for (size_t i = 0; i < list->n; i++) {
        indent(p->f, depth + 1);
        fputs("- ", p->f);
        print_struct(p, f->sub, (const char *)list->v + i * size, depth + 2, true);
    }
}

static void print_map(struct printer *p, const struct ep_vec *map, bool secret, int depth)
{
    const struct ep_pair *v = map->v;

    fputs(map->n ? "\n" : " {}\n", p->f);
    for (size_t i = 0; i < map->n; i++) {
        indent(p->f, depth + 1);
        if (plain(v[i].key))
            print_text(p->f, v[i].key);
        else { /* keys are not expanded, so a dollar sign stands for itself */
            struct ep_json j;
            ep_json_init(&j);
            ep_json_str(&j, v[i].key);
            fwrite(j.p, 1, j.n, p->f);
            ep_json_fini(&j);
        }
        fputs(": ", p->f);
        print_text(p->f, secret && !p->secrets ? EP_STR("***") : v[i].value);
        fputc('\n', p->f);
    }
}

static void print_filters(struct printer *p, const struct ep_vec *list, int depth)
{
    const struct ep_filter_use *v = list->v;

    fputs(list->n ? "\n" : " []\n", p->f);
    for (size_t i = 0; i < list->n; i++) {
        const struct ep_filter *filter = v[i].filter;
        indent(p->f, depth + 1);
        if (!filter->schema) {
            fprintf(p->f, "- %s\n", filter->name);
            continue;
        }
        fprintf(p->f, "- %s:\n", filter->name);
        print_struct(p, filter->schema, v[i].config, depth + 3, false);
    }
}

/* An absent value, which is printed as no key at all. */
static bool absent(const struct ep_field *f, const void *value)
{
    switch (f->type) {
    case EP_TYPE_STR:
    case EP_TYPE_JSON:
        return !((const struct ep_str *)value)->p;
    case EP_TYPE_ADDR:
        return !((const struct ep_addr *)value)->len;
    case EP_TYPE_CIDR:
        return !((const struct ep_cidr *)value)->family;
    case EP_TYPE_OPTIONAL:
        return !*(void *const *)value;
    case EP_TYPE_FILTERS: /* no list is the default chain, an empty one would be too: leave it out */
        return ((const struct ep_vec *)value)->n == 0;
    default:
        return false;
    }
}

static void print_field(struct printer *p, const struct ep_field *f, const void *value, int depth)
{
    fprintf(p->f, "%s:", f->key);
    switch (f->type) {
    case EP_TYPE_STRUCT:
    case EP_TYPE_OPTIONAL:
        if (f->sub->n_fields == 0) {
            fputs(" {}\n", p->f);
            break;
        }
        fputc('\n', p->f);
        print_struct(p, f->sub, f->type == EP_TYPE_OPTIONAL ? *(void *const *)value : value, depth + 1, false);
        break;
    case EP_TYPE_LIST:
        print_list(p, f, value, depth);
        break;
    case EP_TYPE_MAP:
        print_map(p, value, f->secret, depth);
        break;
    case EP_TYPE_JSON: /* YAML has JSON in it */
        fprintf(p->f, " %.*s\n", EP_STR_ARG(*(const struct ep_str *)value));
        break;
    case EP_TYPE_FILTERS:
        print_filters(p, value, depth);
        break;
    default:
        fputc(' ', p->f);
        print_scalar(p, f, f->type, value);
        fputc('\n', p->f);
    }
}

static void print_struct(struct printer *p, const struct ep_schema *s, const void *object, int depth, bool first_inline)
{
    bool any = false;

    for (size_t i = 0; i < s->n_fields; i++) {
        const struct ep_field *f = &s->fields[i];
        const void *value = (const char *)object + f->offset;
        if (absent(f, value))
            continue;
        if (any || !first_inline)
            indent(p->f, depth);
        print_field(p, f, value, depth);
        any = true;
    }
    if (!any) { /* nothing to say: an empty mapping, on a line of its own */
        if (!first_inline)
            indent(p->f, depth);
        fputs("{}\n", p->f);
    }
}

char *ep_config_print(const struct ep_config *c, bool secrets)
{
    struct printer p = {.secrets = secrets};
    char *text = NULL;
    size_t n;

    ep_chunk_pool_init(&p.chunks, 0);
    ep_arena_init(&p.arena, &p.chunks);
    p.f = open_memstream(&text, &n);
    if (!p.f)
        abort();
    print_struct(&p, &ep_config_schema, c, 0, false);
    fclose(p.f);
    ep_arena_fini(&p.arena);
    ep_chunk_pool_fini(&p.chunks);
    return text;
}
