/* Binding: a YAML node and a schema table become a struct.
 *
 * It goes on after an error, so that all of them are said at once. Each key's place is noted, for checks that run when
 * the struct is filled. Aliases are followed where they stand; since the tables aren't recursive, neither is the
 * binding, and a limit on the nodes bound keeps a small file with many aliases from becoming a big configuration. */
#include "config/bind.h"

#include <libfyaml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "filter/filter.h"

#define NODES_MAX  200000u
#define FIELDS_MAX 64u

/* --- places --- */

void ep_checker_note(struct ep_checker *c, const void *object, const char *key, struct ep_where where)
{
    if (c->n_places == c->cap_places) {
        c->cap_places = c->cap_places ? c->cap_places * 2 : 64;
        c->places = ep_realloc(c->places, c->cap_places * sizeof *c->places);
    }
    c->places[c->n_places++] = (struct ep_place){object, key, where};
}

/* Of the key, or else of the object. */
struct ep_where ep_checker_place(const struct ep_checker *c, const void *object, const char *key)
{
    struct ep_where found = {0};

    for (size_t i = 0; i < c->n_places; i++) {
        const struct ep_place *p = &c->places[i];
        if (p->object != object)
            continue;
        if (p->key && key && strcmp(p->key, key) == 0)
            return p->where;
        if (!p->key)
            found = p->where;
    }
    return found;
}

static void add_checked(struct ep_checker *c, const void *object, const char *key, bool warning, const char *format,
                        va_list ap)
{
    char *text = NULL;

    if (vasprintf(&text, format, ap) < 0)
        abort();
    ep_problems_add(c->problems, ep_checker_place(c, object, key), warning, "%s%s%s", key ? key : "", key ? ": " : "",
                    text);
    free(text);
}

void ep_check_error(struct ep_checker *c, const void *object, const char *key, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    add_checked(c, object, key, false, format, ap);
    va_end(ap);
}

void ep_check_warning(struct ep_checker *c, const void *object, const char *key, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    add_checked(c, object, key, true, format, ap);
    va_end(ap);
}

/* --- nodes --- */

static bool mark_of(struct fy_node *n, struct ep_where *where)
{
    struct fy_token *token = fy_node_is_scalar(n) ? fy_node_get_scalar_token(n) : NULL;
    const struct fy_mark *mark = token ? fy_token_start_mark(token) : NULL;

    if (!mark)
        return false;
    where->line = mark->line + 1;
    where->column = mark->column + 1;
    return true;
}

/* Where a node begins; of a list or mapping, where its first scalar is; `else_` when it has none. */
struct ep_where ep_bind_place(struct fy_node *n, struct ep_where else_)
{
    struct ep_where where = else_;

    for (int depth = 0; n && depth < 16; depth++) {
        void *prev = NULL;
        if (mark_of(n, &where) || fy_node_is_scalar(n))
            break;
        if (fy_node_is_mapping(n)) {
            struct fy_node_pair *pair = fy_node_mapping_iterate(n, &prev);
            n = pair ? fy_node_pair_key(pair) : NULL;
        } else {
            n = fy_node_sequence_iterate(n, &prev);
        }
    }
    return where;
}

struct fy_node *ep_bind_resolve(struct ep_checker *c, struct fy_node *n, struct ep_where where)
{
    if (++c->nodes > NODES_MAX) {
        if (!c->too_many)
            ep_problems_add(c->problems, where, false, "with its aliases the file has more than %u nodes", NODES_MAX);
        c->too_many = true;
        return NULL;
    }
    for (int i = 0; n && fy_node_is_alias(n); i++) {
        struct fy_node *target = i < 16 ? fy_node_resolve_alias(n) : NULL;
        if (!target)
            ep_problems_add(c->problems, where, false, "there is no anchor for this alias");
        n = target;
    }
    return n;
}

static bool is_null(struct fy_node *n)
{
    size_t length;
    const char *p;

    if (!n)
        return true;
    if (!fy_node_is_scalar(n) || fy_node_get_style(n) != FYNS_PLAIN)
        return false;
    p = fy_node_get_scalar(n, &length);
    struct ep_str s = ep_str_n(p, p ? length : 0);
    return s.n == 0 || ep_str_eq(s, EP_STR("~")) || ep_str_eq(s, EP_STR("null"));
}

static const char *shape_of(struct fy_node *n)
{
    return is_null(n)               ? "nothing"
           : fy_node_is_mapping(n)  ? "a mapping"
           : fy_node_is_sequence(n) ? "a list"
                                    : "a single value";
}

/* The text of a scalar with the environment in it. False with a problem. */
static bool scalar_text(struct ep_checker *c, struct fy_node *n, const char *what, const char *wanted,
                        struct ep_where where, struct ep_str *out)
{
    struct ep_error err;
    size_t length = 0;
    const char *p;

    if (!fy_node_is_scalar(n) || is_null(n)) {
        ep_problems_add(c->problems, where, false, "%s: must be %s, not %s", what, wanted, shape_of(n));
        return false;
    }
    p = fy_node_get_scalar(n, &length);
    if (c->literal) {
        *out = ep_arena_str(c->arena, ep_str_n(p ? p : "", p ? length : 0));
        return true;
    }
    if (!ep_expand(c->arena, ep_str_n(p ? p : "", p ? length : 0), out, &err)) {
        ep_problems_add(c->problems, where, false, "%s: %s", what, err.text);
        return false;
    }
    return true;
}

static bool bind_scalar(struct ep_checker *c, const struct ep_field *f, enum ep_type type, void *out, struct fy_node *n,
                        struct ep_where where)
{
    struct ep_error err;
    struct ep_str text;

    if (!scalar_text(c, n, f->key, ep_type_wanted(type), where, &text))
        return false;
    if (ep_scalar_read(c->arena, f, type, text, out, &err))
        return true;
    ep_problems_add(c->problems, where, false, "%s: %s", f->key, err.text);
    return false;
}

/* --- lists, maps, filters --- */

static bool want_list(struct ep_checker *c, const char *key, struct fy_node *n, struct ep_where where)
{
    if (fy_node_is_sequence(n))
        return true;
    if (fy_node_is_scalar(n) && !is_null(n)) {
        size_t length = 0;
        const char *p = fy_node_get_scalar(n, &length);
        ep_problems_add(c->problems, where, false, "%s: must be a list: write [%.*s]", key,
                        (int)EP_MIN(length, (size_t)60), p ? p : "");
    } else {
        ep_problems_add(c->problems, where, false, "%s: must be a list, not %s", key, shape_of(n));
    }
    return false;
}

static void bind_list(struct ep_checker *c, const struct ep_field *f, struct ep_vec *out, struct fy_node *n,
                      struct ep_where where)
{
    size_t size = f->item == EP_TYPE_STRUCT ? f->sub->size : ep_scalar_size(f->item);
    struct fy_node *item;
    void *prev = NULL;
    size_t count;

    if (!want_list(c, f->key, n, where))
        return;
    count = (size_t)fy_node_sequence_item_count(n);
    out->v = ep_arena_zalloc(c->arena, EP_MAX(count, (size_t)1) * size);
    while (out->n < count && (item = fy_node_sequence_iterate(n, &prev))) {
        struct ep_where place = ep_bind_place(item, where);
        void *slot = (char *)out->v + out->n++ * size;
        item = ep_bind_resolve(c, item, place);
        if (!item)
            continue;
        if (f->item == EP_TYPE_STRUCT)
            ep_bind(c, f->sub, slot, item, place);
        else
            bind_scalar(c, f, f->item, slot, item, place);
    }
}

static struct ep_str key_text(struct ep_checker *c, struct fy_node *key, struct ep_where where)
{
    size_t n = 0;
    const char *p = NULL;

    if (key && fy_node_is_scalar(key) && !fy_node_is_alias(key))
        p = fy_node_get_scalar(key, &n);
    if (!p || !n || memchr(p, 0, n)) {
        ep_problems_add(c->problems, where, false, "a key must be a plain text");
        return (struct ep_str){NULL, 0};
    }
    return ep_str_n(p, n);
}

static void bind_map(struct ep_checker *c, const struct ep_field *f, struct ep_vec *out, struct fy_node *n,
                     struct ep_where where)
{
    struct fy_node_pair *pair;
    struct ep_pair *v;
    void *prev = NULL;
    size_t count;

    if (!fy_node_is_mapping(n)) {
        ep_problems_add(c->problems, where, false, "%s: must be %s, not %s", f->key, ep_type_wanted(EP_TYPE_MAP),
                        shape_of(n));
        return;
    }
    count = (size_t)fy_node_mapping_item_count(n);
    out->v = v = ep_arena_zalloc(c->arena, EP_MAX(count, (size_t)1) * sizeof *v);
    while (out->n < count && (pair = fy_node_mapping_iterate(n, &prev))) {
        struct ep_where place = ep_bind_place(fy_node_pair_key(pair), where);
        struct ep_str key = key_text(c, fy_node_pair_key(pair), place), text;
        struct fy_node *value = fy_node_pair_value(pair);

        if (!key.p)
            continue;
        for (size_t i = 0; i < out->n; i++)
            if (ep_str_eq(v[i].key, key)) {
                ep_problems_add(c->problems, place, false, "%s: '%.*s' is there twice", f->key, EP_STR_ARG(key));
                break;
            }
        v[out->n].key = ep_arena_str(c->arena, key);
        if (value && !(value = ep_bind_resolve(c, value, place)))
            continue;
        if (value && scalar_text(c, value, v[out->n].key.p, "a text", ep_bind_place(value, place), &text))
            v[out->n].value = ep_arena_str(c->arena, text);
        else if (!value)
            ep_problems_add(c->problems, place, false, "%s: must be a text, not nothing", v[out->n].key.p);
        out->n++;
    }
}

static const struct ep_filter *find_filter(struct ep_checker *c, struct ep_str name, struct ep_where where)
{
    const struct ep_filter *found = ep_filter_find(name);
    const char *names[64];
    const char *near;
    size_t n;

    if (found)
        return found;
    const struct ep_filter *const *all = ep_filter_all(&n);
    n = EP_MIN(n, EP_COUNT(names));
    for (size_t i = 0; i < n; i++)
        names[i] = all[i]->name;
    near = ep_nearest(name, names, n);
    ep_problems_add(c->problems, where, false, "there is no filter '%.*s'%s%s%s", (int)EP_MIN(name.n, (size_t)80),
                    name.p, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return NULL;
}

/* "name" or {name: {its configuration}}. */
static void bind_filter(struct ep_checker *c, struct ep_filter_use *use, struct fy_node *n, struct ep_where where)
{
    struct fy_node *config = NULL;
    const struct ep_filter *filter;
    struct ep_str name;

    use->where = where;
    if (fy_node_is_mapping(n) && fy_node_mapping_item_count(n) == 1) {
        void *prev = NULL;
        struct fy_node_pair *pair = fy_node_mapping_iterate(n, &prev);
        name = key_text(c, fy_node_pair_key(pair), where);
        config = fy_node_pair_value(pair);
        if (!name.p || (config && !(config = ep_bind_resolve(c, config, where))))
            return;
    } else if (fy_node_is_mapping(n) || !scalar_text(c, n, "filters", "a name, or {name: {…}}", where, &name)) {
        if (fy_node_is_mapping(n))
            ep_problems_add(c->problems, where, false,
                            "filters: a filter is a name, or a mapping with that one key: {name: {…}}");
        return;
    }
    filter = find_filter(c, name, where);
    if (!filter)
        return;
    use->filter = filter;
    use->name = ep_str(filter->name);
    if (is_null(config))
        config = NULL;
    if (config && !filter->schema) {
        ep_problems_add(c->problems, where, false, "the filter '%s' takes no configuration of its own", filter->name);
        return;
    }
    if (filter->schema) {
        use->config = ep_arena_zalloc(c->arena, filter->schema->size);
        ep_bind(c, filter->schema, use->config, config, where);
    }
}

static void bind_filters(struct ep_checker *c, const struct ep_field *f, struct ep_vec *out, struct fy_node *n,
                         struct ep_where where)
{
    struct ep_filter_use *v;
    struct fy_node *item;
    void *prev = NULL;
    size_t count;

    if (!want_list(c, f->key, n, where))
        return;
    count = (size_t)fy_node_sequence_item_count(n);
    if (count > EP_STREAM_MAX_FILTERS - 1) {
        ep_problems_add(c->problems, where, false, "%s: at most %d", f->key, EP_STREAM_MAX_FILTERS - 1);
        return;
    }
    out->v = v = ep_arena_zalloc(c->arena, EP_MAX(count, (size_t)1) * sizeof *v);
    while (out->n < count && (item = fy_node_sequence_iterate(n, &prev))) {
        struct ep_where place = ep_bind_place(item, where);
        struct ep_filter_use *use = &v[out->n++];
        item = ep_bind_resolve(c, item, place);
        if (!item)
            continue;
        bind_filter(c, use, item, place);
        for (const struct ep_filter_use *other = v; other < use && use->name.n; other++)
            if (ep_str_eq(other->name, use->name) && !((const struct ep_filter *)use->filter)->schema) {
                ep_problems_add(c->problems, place, false, "filters: '%.*s' is there twice", EP_STR_ARG(use->name));
                break;
            }
    }
}

/* --- structs --- */

/* What a field is when the file says nothing of it. */
static void preset(struct ep_checker *c, const struct ep_field *f, void *out, struct ep_where where)
{
    struct ep_error err;
    struct ep_vec *list = out;

    if (f->type == EP_TYPE_STRUCT) {
        ep_bind(c, f->sub, out, NULL, where);
    } else if (f->preset && f->type == EP_TYPE_LIST) {
        struct ep_str rest = ep_str(f->preset), part;
        size_t size = ep_scalar_size(f->item), n = 1;
        for (const char *p = f->preset; *p; p++)
            n += *p == ',';
        list->v = ep_arena_zalloc(c->arena, n * size);
        while (ep_str_next(&rest, ',', &part)) {
            bool good = ep_scalar_read(c->arena, f, f->item, part, (char *)list->v + list->n++ * size, &err);
            assert(good);
            (void)good;
        }
    } else if (f->preset) {
        bool good = ep_scalar_read(c->arena, f, f->type, ep_str(f->preset), out, &err);
        assert(good); /* a default in a table is ours */
        (void)good;
    }
}

static bool bind_field(struct ep_checker *c, const struct ep_field *f, void *out, struct fy_node *n,
                       struct ep_where where)
{
    switch (f->type) {
    case EP_TYPE_STRUCT:
        ep_bind(c, f->sub, out, n, where);
        return true;
    case EP_TYPE_OPTIONAL:
        *(void **)out = ep_arena_zalloc(c->arena, f->sub->size);
        ep_bind(c, f->sub, *(void **)out, n, where);
        return true;
    case EP_TYPE_LIST:
        bind_list(c, f, out, n, where);
        return true;
    case EP_TYPE_MAP:
        bind_map(c, f, out, n, where);
        return true;
    case EP_TYPE_JSON:
        ep_bind_json(c, f->key, out, n, where);
        return true;
    case EP_TYPE_FILTERS:
        bind_filters(c, f, out, n, where);
        return true;
    default:
        if (bind_scalar(c, f, f->type, out, n, where))
            return true;
        preset(c, f, out, where); /* something sound, for the checks */
        return false;
    }
}

static void unknown_key(struct ep_checker *c, const struct ep_schema *s, struct ep_str key, struct ep_where where)
{
    const char *names[FIELDS_MAX];
    const char *near;

    for (size_t i = 0; i < s->n_fields; i++)
        names[i] = s->fields[i].key;
    near = ep_nearest(key, names, s->n_fields);
    if (near) {
        ep_problems_add(c->problems, where, false, "unknown key '%.*s' in %s; did you mean '%s'?",
                        (int)EP_MIN(key.n, (size_t)80), key.p, s->name, near);
        return;
    }
    char list[600] = "";
    size_t used = 0;
    for (size_t i = 0; i < s->n_fields && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    ep_problems_add(c->problems, where, false, "unknown key '%.*s' in %s; there are: %s",
                    (int)EP_MIN(key.n, (size_t)80), key.p, s->name, list);
}

static bool take_key(struct ep_checker *c, const struct ep_schema *s, struct ep_str key, struct fy_node *value,
                     void *object, struct ep_where where, uint64_t *seen)
{
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct ep_field *f = &s->fields[i];
        if (!ep_str_eq(key, ep_str(f->key)))
            continue;
        if (*seen & 1ull << i) {
            ep_problems_add(c->problems, where, false, "'%s' is there twice in this %s; the first is on line %d",
                            f->key, s->name, ep_checker_place(c, object, f->key).line);
            return true;
        }
        *seen |= 1ull << i;
        ep_checker_note(c, object, f->key, where);
        if (value && !(value = ep_bind_resolve(c, value, where)))
            return false;
        if (is_null(value)) {
            ep_problems_add(c->problems, where, false, "'%s' has no value: give it one or leave it out", f->key);
            preset(c, f, (char *)object + f->offset, where);
            return false;
        }
        return bind_field(c, f, (char *)object + f->offset, value, ep_bind_place(value, where));
    }
    unknown_key(c, s, key, where);
    return false; /* what it was meant to be may be missed by the check */
}

static bool take_mapping(struct ep_checker *c, const struct ep_schema *s, void *object, struct fy_node *n,
                         struct ep_where where, uint64_t *seen)
{
    struct fy_node_pair *pair;
    void *prev = NULL;
    bool good = true;

    while ((pair = fy_node_mapping_iterate(n, &prev))) {
        struct ep_where place = ep_bind_place(fy_node_pair_key(pair), where);
        struct ep_str key = key_text(c, fy_node_pair_key(pair), place);
        if (key.p)
            good &= take_key(c, s, key, fy_node_pair_value(pair), object, place, seen);
    }
    return good;
}

void ep_bind(struct ep_checker *c, const struct ep_schema *s, void *object, struct fy_node *n, struct ep_where where)
{
    uint64_t seen = 0;
    bool good = true;

    assert(s->n_fields <= FIELDS_MAX);
    ep_checker_note(c, object, NULL, where);
    if (n && fy_node_is_mapping(n)) {
        good = take_mapping(c, s, object, n, where, &seen);
    } else if (n && fy_node_is_scalar(n) && !is_null(n) && s->short_key) {
        good = take_key(c, s, ep_str(s->short_key), n, object, where, &seen);
    } else if (n) {
        ep_problems_add(c->problems, where, false, "%s: must be a mapping, not %s", s->name, shape_of(n));
        good = false;
    }
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct ep_field *f = &s->fields[i];
        if (seen & 1ull << i)
            continue;
        if (f->required && (!n || fy_node_is_mapping(n) || seen)) {
            ep_problems_add(c->problems, where, false, "'%s' is missing in this %s", f->key, s->name);
            good = false;
        } else {
            preset(c, f, (char *)object + f->offset, where);
        }
    }
    if (good && s->check)
        s->check(object, c);
}
