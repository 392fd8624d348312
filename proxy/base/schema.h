/* Schema tables: one table a configuration struct, from which come the binder, the checks, the normalised
 * print, the reference page and the JSON Schema (proxy/config does all of that; modules only declare tables).
 *
 * A struct that a schema fills is plain memory owned by the configuration's arena: strings, lists and
 * sub-structs are freed with it. Zero is never a hidden default: the table says the default as text. */
#ifndef EP_BASE_SCHEMA_H
#define EP_BASE_SCHEMA_H

#include "base/arena.h"
#include "base/parse.h"
#include "base/str.h"

enum ep_type {
    EP_TYPE_STR,      /* struct ep_str; {NULL,0} when absent and without a default */
    EP_TYPE_BOOL,     /* bool */
    EP_TYPE_INT,      /* int64_t */
    EP_TYPE_DURATION, /* uint64_t, nanoseconds */
    EP_TYPE_SIZE,     /* uint64_t, bytes */
    EP_TYPE_PERCENT,  /* double, 0.0 to 1.0 (min and max in percent) */
    EP_TYPE_NUMBER,   /* double */
    EP_TYPE_ENUM,     /* int: index into `names` */
    EP_TYPE_ADDR,     /* struct ep_addr; numeric address with port, or unix:… */
    EP_TYPE_CIDR,     /* struct ep_cidr */
    EP_TYPE_STRUCT,   /* the sub-struct, in place; `sub` */
    EP_TYPE_OPTIONAL, /* pointer to a sub-struct; NULL when absent; `sub` */
    EP_TYPE_LIST,     /* struct ep_vec of `item` (STR, INT, ADDR, CIDR, ENUM, or STRUCT with `sub`) */
    EP_TYPE_MAP,      /* struct ep_vec of struct ep_pair: free-form string to string, in order */
    EP_TYPE_JSON,     /* struct ep_str: a mapping of anything, as JSON text; {NULL,0} when absent */
    EP_TYPE_FILTERS,  /* struct ep_vec of struct ep_filter_use: a name, or {name: {its configuration}} */
};

struct ep_vec {
    void *v;
    size_t n;
};

struct ep_pair {
    struct ep_str key, value;
};

/* Where in a file something was said; for errors that are found after parsing. file is NULL when unknown. */
struct ep_where {
    const char *file;
    int line, column; /* from 1 */
};

/* One entry of a `filters:` list. `config` is a struct of the filter's schema, NULL for a filter without. */
struct ep_filter_use {
    struct ep_str name;
    const void *filter; /* const struct ep_filter * */
    void *config;
    struct ep_where where;
};

struct ep_schema;

struct ep_field {
    const char *key;
    enum ep_type type;
    size_t offset;
    const char *preset;            /* default, in the text form a user would write; NULL: none */
    double min, max;               /* of numbers, durations (ns), sizes; both 0: no range */
    const char *zero;              /* DURATION: a word for 0 ("always"); NULL: none */
    const struct ep_schema *sub;   /* STRUCT, OPTIONAL, LIST of STRUCT */
    const char *const *names;      /* ENUM, LIST of ENUM: NULL-terminated */
    enum ep_type item;             /* LIST */
    bool required;
    bool secret;                   /* printed as "***" */
    const char *help;              /* one sentence; unit where it isn't in the value */
};

/* What a check hook may say. Errors are collected, all of them; they carry the place of the field. */
struct ep_checker;
void ep_check_error(struct ep_checker *c, const void *object, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void ep_check_warning(struct ep_checker *c, const void *object, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

struct ep_schema {
    const char *name;              /* "cluster": the heading in the reference */
    const char *help;
    size_t size;                   /* of the struct */
    const struct ep_field *fields;
    size_t n_fields;
    /* A scalar in place of the map is short for {short_key: scalar}; NULL: not allowed. */
    const char *short_key;
    /* Looks at the filled struct and reports what the table can't say; may be NULL. */
    void (*check)(void *object, struct ep_checker *c);
};

#define EP_SCHEMA(n_, help_, struct_, fields_, ...)                                                  \
    {.name = (n_), .help = (help_), .size = sizeof(struct_), .fields = (fields_),                    \
     .n_fields = sizeof(fields_) / sizeof((fields_)[0]), __VA_ARGS__}

#endif
