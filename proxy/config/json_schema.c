/* A JSON Schema (2020-12) of the configuration, for editors and for the chart. Values may hold ${ENV}, so a scalar is
 * described by a pattern only where no text from the environment could be meant. */
#include <stdlib.h>

#include "config/bind.h"
#include "filter/filter.h"

static void schema_object(struct ep_json *j, const struct ep_schema *s);

static void kz(struct ep_json *j, const char *key, const char *value)
{
    ep_json_key(j, key);
    ep_json_z(j, value);
}

static void types(struct ep_json *j, const char *const *names)
{
    ep_json_key(j, "type");
    ep_json_array(j);
    for (; *names; names++)
        ep_json_z(j, *names);
    ep_json_array_end(j);
}

static void reference(struct ep_json *j, const char *name)
{
    struct ep_error path;

    ep_error_set(&path, "#/$defs/%s", name);
    kz(j, "$ref", path.text);
}

/* Members of a scalar's schema; the caller has begun the object. */
static void scalar(struct ep_json *j, const struct ep_field *f, enum ep_type type)
{
    static const char *const text[] = {"string", "number", "boolean", NULL};
    static const char *const number[] = {"integer", "string", NULL};
    static const char *const real[] = {"number", "string", NULL};

    switch (type) {
    case EP_TYPE_BOOL:
        types(j, (const char *const[]){"boolean", "string", NULL});
        break;
    case EP_TYPE_INT:
        types(j, number);
        break;
    case EP_TYPE_NUMBER:
    case EP_TYPE_PERCENT:
        types(j, real);
        break;
    case EP_TYPE_ENUM:
        ep_json_key(j, "anyOf");
        ep_json_array(j);
        ep_json_object(j);
        ep_json_key(j, "enum");
        ep_json_array(j);
        for (size_t i = 0; f->names[i]; i++) {
            if (ep_str_eq(ep_str(f->names[i]), EP_STR("off"))) /* YAML 1.1 tools read off as false */
                ep_json_bool(j, false);
            ep_json_z(j, f->names[i]);
        }
        ep_json_array_end(j);
        ep_json_object_end(j);
        ep_json_object(j);
        kz(j, "type", "string");
        kz(j, "pattern", "\\$\\{");
        ep_json_object_end(j);
        ep_json_array_end(j);
        break;
    default:
        types(j, text);
    }
    if ((type == EP_TYPE_INT || type == EP_TYPE_NUMBER) && (f->min != 0 || f->max != 0)) {
        ep_json_key(j, "minimum");
        ep_json_double(j, f->min);
        ep_json_key(j, "maximum");
        ep_json_double(j, f->max);
    }
}

static void filters(struct ep_json *j)
{
    size_t n;
    const struct ep_filter *const *all = ep_filter_all(&n);

    kz(j, "type", "array");
    ep_json_key(j, "items");
    ep_json_object(j);
    ep_json_key(j, "anyOf");
    ep_json_array(j);
    for (size_t i = 0; i < n; i++) {
        ep_json_object(j);
        kz(j, "const", all[i]->name);
        ep_json_object_end(j);
        if (!all[i]->schema)
            continue;
        ep_json_object(j);
        kz(j, "type", "object");
        ep_json_key(j, "properties");
        ep_json_object(j);
        ep_json_key(j, all[i]->name);
        schema_object(j, all[i]->schema);
        ep_json_object_end(j);
        ep_json_kbool(j, "additionalProperties", false);
        ep_json_key(j, "required");
        ep_json_array(j);
        ep_json_z(j, all[i]->name);
        ep_json_array_end(j);
        ep_json_object_end(j);
    }
    ep_json_array_end(j);
    ep_json_object_end(j);
}

static void field(struct ep_json *j, const struct ep_field *f)
{
    ep_json_object(j);
    switch (f->type) {
    case EP_TYPE_STRUCT:
    case EP_TYPE_OPTIONAL:
        reference(j, f->sub->name);
        break;
    case EP_TYPE_LIST:
        kz(j, "type", "array");
        ep_json_key(j, "items");
        ep_json_object(j);
        if (f->item == EP_TYPE_STRUCT)
            reference(j, f->sub->name);
        else
            scalar(j, f, f->item);
        ep_json_object_end(j);
        break;
    case EP_TYPE_MAP:
        kz(j, "type", "object");
        ep_json_key(j, "additionalProperties");
        ep_json_object(j);
        types(j, (const char *const[]){"string", "number", "boolean", NULL});
        ep_json_object_end(j);
        break;
    case EP_TYPE_JSON:
        kz(j, "type", "object");
        break;
    case EP_TYPE_FILTERS:
        filters(j);
        break;
    default:
        scalar(j, f, f->type);
    }
    if (f->help)
        kz(j, "description", f->help);
    if (f->preset && f->type != EP_TYPE_LIST)
        kz(j, "default", f->preset);
    ep_json_object_end(j);
}

/* One struct, in place. */
static void schema_mapping(struct ep_json *j, const struct ep_schema *s)
{
    bool required = false;

    kz(j, "type", "object");
    ep_json_kbool(j, "additionalProperties", false);
    ep_json_key(j, "properties");
    ep_json_object(j);
    for (size_t i = 0; i < s->n_fields; i++) {
        ep_json_key(j, s->fields[i].key);
        field(j, &s->fields[i]);
        required |= s->fields[i].required;
    }
    ep_json_object_end(j);
    if (!required)
        return;
    ep_json_key(j, "required");
    ep_json_array(j);
    for (size_t i = 0; i < s->n_fields; i++)
        if (s->fields[i].required)
            ep_json_z(j, s->fields[i].key);
    ep_json_array_end(j);
}

static void schema_object(struct ep_json *j, const struct ep_schema *s)
{
    ep_json_object(j);
    kz(j, "description", s->help);
    if (s->short_key) {
        ep_json_key(j, "anyOf");
        ep_json_array(j);
        for (size_t i = 0; i < s->n_fields; i++)
            if (strcmp(s->fields[i].key, s->short_key) == 0) {
                ep_json_object(j);
                scalar(j, &s->fields[i], s->fields[i].type);
                ep_json_object_end(j);
            }
        ep_json_object(j);
        schema_mapping(j, s);
        ep_json_object_end(j);
        ep_json_array_end(j);
    } else {
        schema_mapping(j, s);
    }
    ep_json_object_end(j);
}

struct seen {
    const struct ep_schema *v[128];
    size_t n;
};

/* Every schema that is referred to, each once. */
static void collect(struct seen *seen, const struct ep_schema *s)
{
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct ep_schema *sub = s->fields[i].sub;
        bool known = !sub;
        for (size_t k = 0; k < seen->n && !known; k++)
            known = seen->v[k] == sub;
        if (known)
            continue;
        assert(seen->n < EP_COUNT(seen->v));
        seen->v[seen->n++] = sub;
        collect(seen, sub);
    }
}

char *ep_config_json_schema(void)
{
    struct seen seen = {.n = 0};
    size_t n;
    const struct ep_filter *const *all = ep_filter_all(&n);
    struct ep_json j;
    char *text;

    collect(&seen, &ep_config_schema);
    for (size_t i = 0; i < n; i++)
        if (all[i]->schema)
            collect(&seen, all[i]->schema);
    ep_json_init(&j);
    ep_json_object(&j);
    kz(&j, "$schema", "https://json-schema.org/draft/2020-12/schema");
    kz(&j, "title", "ephor's configuration");
    schema_mapping(&j, &ep_config_schema);
    ep_json_key(&j, "$defs");
    ep_json_object(&j);
    for (size_t i = 0; i < seen.n; i++) {
        ep_json_key(&j, seen.v[i]->name);
        schema_object(&j, seen.v[i]);
    }
    ep_json_object_end(&j);
    ep_json_object_end(&j);
    text = ep_strndup(j.p, j.n);
    ep_json_fini(&j);
    return text;
}
