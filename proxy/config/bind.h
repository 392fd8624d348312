/* Private to proxy/config: the binder's state, and the readers of scalars that binder and defaults share. */
#ifndef EP_CONFIG_BIND_H
#define EP_CONFIG_BIND_H

#include "config/config.h"

/* Where a key of an object stands in the file. `key` NULL: the object itself. */
struct ep_place {
    const void *object;
    const char *key;
    struct ep_where where;
};

struct ep_checker {
    struct ep_arena *arena;
    struct ep_problems *problems;
    struct ep_place *places;
    size_t n_places, cap_places;
    size_t nodes; /* bound so far: aliases can make a small file big */
    bool too_many;
    bool literal; /* no ${NAME}: the text means the same everywhere */
};

struct ep_where ep_checker_place(const struct ep_checker *c, const void *object, const char *key);
void ep_checker_note(struct ep_checker *c, const void *object, const char *key, struct ep_where where);

/* "a duration such as 30s" */
const char *ep_type_wanted(enum ep_type type);
/* Fills `out` with a scalar of this type. False with the reason, a sentence's end: "must be …". Strings are copied to
 * the arena. */
bool ep_scalar_read(struct ep_arena *arena, const struct ep_field *f, enum ep_type type, struct ep_str text, void *out,
                    struct ep_error *err);
size_t ep_scalar_size(enum ep_type type);
/* The text form of a scalar, as ep_scalar_read reads it. */
struct ep_str ep_scalar_text(struct ep_arena *arena, const struct ep_field *f, enum ep_type type, const void *value);
/* ${NAME}, ${NAME:-default} and $$. False with the reason. */
bool ep_expand(struct ep_arena *arena, struct ep_str text, struct ep_str *out, struct ep_error *err);

/* Parses one YAML document and binds it to the struct of a schema, in the arena. `literal`: nothing of the environment
 * gets in. False with what is wrong in `problems`, whose source is the text. */
bool ep_yaml_bind(struct ep_arena *arena, const struct ep_schema *s, void *object, struct ep_str text, bool literal,
                  const char *empty, struct ep_problems *problems);

struct fy_node;
/* Where a node stands; `else_` when it doesn't say. */
struct ep_where ep_bind_place(struct fy_node *n, struct ep_where else_);
/* What an alias stands for. NULL with a problem. */
struct fy_node *ep_bind_resolve(struct ep_checker *c, struct fy_node *n, struct ep_where where);
/* A node as JSON text (bind_json.c); problems are added. */
void ep_bind_json(struct ep_checker *c, const char *key, struct ep_str *out, struct fy_node *n, struct ep_where where);
/* Binds a node (NULL: nothing was given) to the struct of a schema. */
void ep_bind(struct ep_checker *c, const struct ep_schema *s, void *object, struct fy_node *node,
             struct ep_where where);

#endif
