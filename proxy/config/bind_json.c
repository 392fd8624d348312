/* EP_TYPE_JSON: any value of the file, as JSON text. For what others understand and ephor only hands on: the metadata
 * of routes, the context of scripts. Plain scalars are null, booleans and numbers where they look like it, as in
 * YAML 1.2's core schema; nothing of the environment is looked at. */
#include <libfyaml.h>
#include <string.h>

#include "config/bind.h"
#include "observe/json.h"

#define DEPTH_MAX 16
#define BYTES_MAX (64u * 1024)

struct writer {
    struct ep_checker *c;
    const char *key;
    struct ep_json json;
    bool good;
};

static void bad(struct writer *w, struct ep_where where, const char *what)
{
    if (w->good)
        ep_problems_add(w->c->problems, where, false, "%s: %s", w->key, what);
    w->good = false;
}

/* RFC 8259 section 6. */
static bool is_number(struct ep_str s)
{
    size_t i = s.n && s.p[0] == '-', digits = i;

    while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
        i++;
    if (i == digits || i - digits > 18 || (s.p[digits] == '0' && i - digits > 1))
        return false;
    if (i < s.n && s.p[i] == '.') {
        digits = ++i;
        while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
            i++;
        if (i == digits)
            return false;
    }
    if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
        i++;
        if (i < s.n && (s.p[i] == '+' || s.p[i] == '-'))
            i++;
        digits = i;
        while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
            i++;
        if (i == digits || i - digits > 3)
            return false;
    }
    return i == s.n;
}

static void write_scalar(struct writer *w, struct fy_node *n)
{
    size_t length = 0;
    const char *p = fy_node_get_scalar(n, &length);
    struct ep_str s = ep_str_n(p ? p : "", p ? length : 0);

    if (fy_node_get_style(n) != FYNS_PLAIN)
        ep_json_str(&w->json, s);
    else if (s.n == 0 || ep_str_eq(s, EP_STR("~")) || ep_str_eq(s, EP_STR("null")))
        ep_json_null(&w->json);
    else if (ep_str_eq(s, EP_STR("true")) || ep_str_eq(s, EP_STR("false")))
        ep_json_bool(&w->json, s.n == 4);
    else if (is_number(s))
        ep_json_raw(&w->json, s);
    else
        ep_json_str(&w->json, s);
}

static void write_node(struct writer *w, struct fy_node *n, struct ep_where where, int depth);

static void write_mapping(struct writer *w, struct fy_node *n, struct ep_where where, int depth)
{
    struct fy_node_pair *pair;
    void *prev = NULL;

    ep_json_object(&w->json);
    while (w->good && (pair = fy_node_mapping_iterate(n, &prev))) {
        struct fy_node *key = fy_node_pair_key(pair);
        size_t length = 0;
        const char *p =
            key && fy_node_is_scalar(key) && !fy_node_is_alias(key) ? fy_node_get_scalar(key, &length) : NULL;
        struct ep_str name;

        if (!p || !length || memchr(p, 0, length)) {
            bad(w, where, "a key must be a plain text");
            return;
        }
        name = ep_arena_str(w->c->arena, ep_str_n(p, length));
        ep_json_key(&w->json, name.p);
        if (fy_node_pair_value(pair))
            write_node(w, fy_node_pair_value(pair), where, depth);
        else
            ep_json_null(&w->json);
    }
    ep_json_object_end(&w->json);
}

static void write_node(struct writer *w, struct fy_node *n, struct ep_where where, int depth)
{
    void *prev = NULL;
    struct fy_node *item;

    where = ep_bind_place(n, where);
    n = ep_bind_resolve(w->c, n, where);
    if (!n) {
        w->good = false;
        return;
    }
    if (depth > DEPTH_MAX || w->json.n > BYTES_MAX) {
        bad(w, where, "is nested deeper than 16, or longer than 64 KiB");
        return;
    }
    if (fy_node_is_mapping(n)) {
        write_mapping(w, n, where, depth + 1);
    } else if (fy_node_is_sequence(n)) {
        ep_json_array(&w->json);
        while (w->good && (item = fy_node_sequence_iterate(n, &prev)))
            write_node(w, item, where, depth + 1);
        ep_json_array_end(&w->json);
    } else {
        write_scalar(w, n);
    }
}

void ep_bind_json(struct ep_checker *c, const char *key, struct ep_str *out, struct fy_node *n, struct ep_where where)
{
    struct writer w = {.c = c, .key = key, .good = true};

    ep_json_init(&w.json);
    write_node(&w, n, where, 0);
    if (w.good && w.json.n && w.json.p[0] != '{')
        bad(&w, where, "must be a mapping");
    if (w.good)
        *out = ep_arena_str(c->arena, ep_json_text(&w.json));
    ep_json_fini(&w.json);
}
