/* config: what the file says, bound to structs, checked, printed and documented from the same schema tables.
 *
 * ep_config_parse reads YAML (libfyaml), binds it by ep_config_schema and the tables below it, checks what a table
 * can't say, and collects every problem with its place. A configuration is one arena, immutable, counted atomically:
 * views of all workers share it. DESIGN.md section 5. */
#ifndef EP_CONFIG_CONFIG_H
#define EP_CONFIG_CONFIG_H

#include <stdatomic.h>

#include "filter/chaos_config.h"
#include "filter/constitution_config.h"
#include "filter/egress_config.h"
#include "filter/listener_config.h"
#include "filter/policies_config.h"
#include "filter/trace.h"
#include "observe/observe.h"
#include "upstream/upstream.h"

struct ep_node_config {
    struct ep_str service, namespace_, cluster;
};

struct ep_admin_config {
    struct ep_addr bind, metrics;
    struct ep_str token; /* of what changes state; empty: none */
};

struct ep_identity_files {
    struct ep_str certificate, key, roots; /* paths; roots may be empty */
};

struct ep_identity_config {
    struct ep_identity_files files;
    struct ep_str trust_domain;
};

struct ep_drain_config {
    uint64_t accept_ns;  /* goes on accepting for so long after SIGTERM */
    uint64_t timeout_ns; /* then waits for streams, at most so long */
};

struct ep_config {
    struct ep_node_config node;
    struct ep_admin_config admin;
    struct ep_str workers;               /* "auto" or a number */
    struct ep_identity_config *identity; /* NULL: none */
    struct ep_mesh_config mesh;
    struct ep_constitution_config constitution;
    struct ep_policies_config policies;
    struct ep_vec listeners; /* of ep_listener_config */
    struct ep_vec clusters;  /* of ep_cluster_config */
    struct ep_vec egress;    /* of ep_egress_config */
    struct ep_egress_tls_config egress_tls;
    struct ep_audit_config audit;
    struct ep_access_log_config access_log;
    struct ep_tracing_config tracing;
    struct ep_chaos_config chaos;
    struct ep_drain_config drain;
    struct ep_str state; /* directory for what outlives the process; empty: none */
    /* not of the file */
    struct ep_cluster_config collector; /* made of tracing.otlp; its name is empty when there is none */
    struct ep_str text; /* the file's, as it was read */
    struct ep_chunk_pool chunks;
    struct ep_arena arena;
    atomic_uint refs;
};

extern const struct ep_schema ep_config_schema;

/* One thing that is wrong (or, as a warning, unwise). `line` 0: the file as a whole. */
struct ep_problem {
    struct ep_where where;
    bool warning;
    char *text;
};

struct ep_problems {
    char *file;   /* its name, for messages */
    char *source; /* its text, for excerpts; NULL: none */
    size_t source_n;
    struct ep_problem *v;
    size_t n, cap, errors;
};

void ep_problems_init(struct ep_problems *p);
void ep_problems_fini(struct ep_problems *p);
void ep_problems_add(struct ep_problems *p, struct ep_where where, bool warning, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* "ephor.yaml:12:5: error: …", and with `excerpt` the line and a caret. In the order of the file. malloc'd. */
char *ep_problems_text(struct ep_problems *p, bool excerpt);
/* The first error as one line, for a log or /config. */
void ep_problems_first(struct ep_problems *p, struct ep_error *err);

/* refs is 1. NULL when there is an error in `problems` (warnings alone are none). `name` is for messages. */
struct ep_config *ep_config_parse(struct ep_str text, const char *name, struct ep_problems *problems);
/* Reads the file, at most 4 MiB. A file that can't be read is a problem like any other. */
struct ep_config *ep_config_load(const char *path, struct ep_problems *problems);
/* Loads the policies and asks whether they can meet what they are about on the listeners. False with err, which names
 * file and line. *absent: the directory isn't there (on this machine), and nothing was asked. `warn` is told what is not
 * wrong and yet to be looked at. */
typedef void ep_policy_warn(void *user, const char *text);
bool ep_config_policies_possible(const struct ep_config *config, bool *absent, ep_policy_warn *warn, void *user,
                                 struct ep_error *err);
/* Reads what a parsed configuration names and is judged with: the constitution's text. Takes the reference; NULL when
 * there is an error in `problems`. */
struct ep_config *ep_config_complete(struct ep_config *c, struct ep_problems *problems);
/* Loads each script of the filters `lua`, and asks whether routes choose sources that it has. One whose file isn't there (on
 * this machine) is a warning. */
void ep_config_load_scripts(const struct ep_config *config, struct ep_problems *problems);
struct ep_config *ep_config_ref(struct ep_config *c);
void ep_config_unref(struct ep_config *c); /* any thread */

/* What `workers` comes to on this machine: for auto, the CPUs that the cgroup and the affinity grant, at most 2. */
unsigned ep_config_workers(const struct ep_config *c);
/* What tracing.otlp comes to as a cluster, in `arena`; collector.c. */
void ep_config_collector(const struct ep_tracing_config *t, struct ep_cluster_config *out, struct ep_arena *arena);
/* Of the clusters of a view, in their order: those of the file, then the collector. NULL past the last. */
const struct ep_cluster_config *ep_config_cluster_at(const struct ep_config *c, size_t i);
const struct ep_cluster_config *ep_config_cluster(const struct ep_config *c, struct ep_str name);

/* The whole configuration with all defaults, as YAML that reads back the same; secrets as "***" unless asked for.
 * malloc'd, NUL-terminated. */
char *ep_config_print(const struct ep_config *c, bool secrets);

/* References made from the tables: malloc'd, NUL-terminated. */
char *ep_config_reference(void);         /* docs/reference/configuration.md */
char *ep_config_filters_reference(void); /* docs/reference/filters.md */
char *ep_config_json_schema(void);       /* JSON Schema, 2020-12 */

#endif
