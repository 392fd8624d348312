/* The reference pages and the JSON Schema, made from the tables that bind the file. */
#include <stdio.h>
#include <stdlib.h>

#include "config/bind.h"
#include "filter/filter.h"

static const char *const short_types[] = {
    [EP_TYPE_STR] = "text",
    [EP_TYPE_BOOL] = "true, false",
    [EP_TYPE_INT] = "number",
    [EP_TYPE_DURATION] = "duration",
    [EP_TYPE_SIZE] = "size",
    [EP_TYPE_PERCENT] = "percentage",
    [EP_TYPE_NUMBER] = "number",
    [EP_TYPE_ENUM] = "",
    [EP_TYPE_ADDR] = "address",
    [EP_TYPE_CIDR] = "network",
    [EP_TYPE_STRUCT] = "mapping",
    [EP_TYPE_OPTIONAL] = "mapping",
    [EP_TYPE_LIST] = "list",
    [EP_TYPE_MAP] = "mapping of names to texts",
    [EP_TYPE_JSON] = "mapping of anything",
    [EP_TYPE_FILTERS] = "list of filters",
};

static void anchor(FILE *f, const char *name)
{
    for (; *name; name++)
        if (*name != '.')
            fputc(*name, f);
}

static void type_text(FILE *f, const struct ep_field *field, enum ep_type type)
{
    if (type == EP_TYPE_ENUM) {
        for (size_t i = 0; field->names[i]; i++)
            fprintf(f, "%s`%s`", i ? ", " : "", field->names[i]);
    } else if (type == EP_TYPE_LIST) {
        fputs("list of ", f);
        type_text(f, field, field->item);
    } else if ((type == EP_TYPE_STRUCT || type == EP_TYPE_OPTIONAL) && field->sub) {
        fprintf(f, "[%s](#", field->sub->name);
        anchor(f, field->sub->name);
        fputc(')', f);
    } else {
        fputs(short_types[type], f);
    }
}

static void range_text(FILE *f, const struct ep_field *field)
{
    char low[32], high[32];

    if (field->min == 0 && field->max == 0)
        return;
    if (field->type == EP_TYPE_DURATION) {
        ep_format_duration((uint64_t)field->min, low);
        ep_format_duration((uint64_t)field->max, high);
    } else if (field->type == EP_TYPE_SIZE) {
        ep_format_size((uint64_t)field->min, low);
        ep_format_size((uint64_t)field->max, high);
    } else {
        const char *unit = field->type == EP_TYPE_PERCENT ? "%" : "";
        snprintf(low, sizeof low, "%.10g%s", field->min, unit);
        snprintf(high, sizeof high, "%.10g%s", field->max, unit);
    }
    fprintf(f, ", %s to %s", low, high);
}

static void cell(FILE *f, const char *text) /* a bar would end the cell */
{
    for (; *text; text++)
        fprintf(f, *text == '|' ? "\\%c" : "%c", *text);
}

static void fields_table(FILE *f, const struct ep_schema *s)
{
    fputs("| key | type | default | what it is |\n|---|---|---|---|\n", f);
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct ep_field *field = &s->fields[i];
        fprintf(f, "| `%s` | ", field->key);
        type_text(f, field, field->type);
        range_text(f, field);
        fputs(" | ", f);
        if (field->required)
            fputs("required", f);
        else if (field->preset)
            fprintf(f, "`%s`", field->preset);
        fputs(" | ", f);
        cell(f, field->help ? field->help : "");
        fputs(field->secret ? " Never printed. |\n" : " |\n", f);
    }
    fputc('\n', f);
}

struct seen {
    const struct ep_schema *v[128];
    size_t n;
};

static bool note(struct seen *seen, const struct ep_schema *s)
{
    for (size_t i = 0; i < seen->n; i++)
        if (seen->v[i] == s)
            return false;
    assert(seen->n < EP_COUNT(seen->v));
    seen->v[seen->n++] = s;
    return true;
}

static void section(FILE *f, const struct ep_schema *s, struct seen *seen)
{
    if (!note(seen, s))
        return;
    fprintf(f, "## %s\n%s", s->name, s->help);
    if (s->short_key)
        fprintf(f, " A single value is short for `{%s: …}`.", s->short_key);
    fputs("\n\n", f);
    fields_table(f, s);
    for (size_t i = 0; i < s->n_fields; i++)
        if (s->fields[i].sub)
            section(f, s->fields[i].sub, seen);
}

static FILE *begin(char **text, size_t *n)
{
    FILE *f = open_memstream(text, n);

    if (!f)
        abort();
    return f;
}

char *ep_config_reference(void)
{
    struct seen seen = {.n = 0};
    char *text = NULL;
    size_t n;
    FILE *f = begin(&text, &n);

    fputs(
        "# Configuration\n\n"
        "Made by `ephor reference configuration` from the tables that read the file, so it says what is so. One YAML "
        "document; unknown keys, wrong types, values out of range and names that lead nowhere are errors, and "
        "`ephor check FILE` shows all of them with their places. `ephor check --print FILE` shows a file with all its "
        "defaults. Filters have a page of their own: [filters](filters.md).\n\n"
        "- **Durations** are `250us`, `5ms`, `30s`, `2m`, `1h`, `7d`; **sizes** `512B`, `64KiB`, `1MB`; "
        "**percentages** "
        "`20%`; **addresses** `127.0.0.1:80`, `[::1]:80`, `:80` (all addresses), `unix:/path`, `unix:@abstract`; "
        "**networks** `10.0.0.0/8`. In **globs** `*` is any run of bytes and `?` one byte.\n"
        "- `${NAME}` in a value is taken from the environment, `${NAME:-default}` with a default; `$$` is a dollar "
        "sign. A "
        "name that the environment lacks is an error.\n"
        "- The file, the policies' directory and the identity's files are watched. A new configuration that is wrong "
        "is reported and counted (`ephor_config_reload_total`), and the old one stays.\n\n",
        f);
    section(f, &ep_config_schema, &seen);
    fclose(f);
    return text;
}

char *ep_config_filters_reference(void)
{
    struct seen seen = {.n = 0};
    char *text = NULL;
    size_t n, size;
    const struct ep_filter *const *all = ep_filter_all(&n);
    FILE *f = begin(&text, &size);

    fputs("# Filters\n\n"
          "Made by `ephor reference filters`. A listener's `filters:` lists them in order, by name or as "
          "`{name: {…}}` with a configuration; the router is always the last and needs no mention.\n\n",
          f);
    for (size_t i = 0; i < n; i++) {
        fprintf(f, "## `%s`\n%s\n\n", all[i]->name, all[i]->help ? all[i]->help : "");
        if (!all[i]->schema)
            continue;
        if (all[i]->schema->short_key)
            fprintf(f, "A single value is short for `{%s: …}`.\n\n", all[i]->schema->short_key);
        fields_table(f, all[i]->schema);
        for (size_t j = 0; j < all[i]->schema->n_fields; j++)
            if (all[i]->schema->fields[j].sub)
                section(f, all[i]->schema->fields[j].sub, &seen);
    }
    fclose(f);
    return text;
}
