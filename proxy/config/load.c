/* From a file to a configuration: reading, parsing by libfyaml, binding; and the configuration's life. */
#include <errno.h>
#include <fcntl.h>
#include <libfyaml.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/bind.h"
#include "config/files.h"

#define FILE_MAX     (4u << 20)
#define NESTING_MAX  64u /* libfyaml recurses */
#define AUTO_WORKERS 2u

/* --- YAML --- */

/* libfyaml's own complaints, with their places. */
static void take_complaints(struct fy_diag *diag, struct ep_problems *problems)
{
    struct fy_diag_error *e;
    void *prev = NULL;
    size_t before = problems->errors;

    while ((e = fy_diag_errors_iterate(diag, &prev))) {
        if (e->type != FYET_ERROR)
            continue;
        ep_problems_add(problems, (struct ep_where){NULL, e->line > 0 ? e->line : 1, e->column > 0 ? e->column : 1}, false,
                        "this is not YAML: %s", e->msg && *e->msg ? e->msg : "syntax error");
    }
    if (problems->errors == before)
        ep_problems_add(problems, (struct ep_where){0}, false, "this is not YAML");
}

/* What would make the parser itself suffer: bytes that YAML doesn't have, and brackets without end. */
static bool sane(struct ep_str text, struct ep_problems *problems)
{
    size_t open = 0, indent_max = 0, indent = 0;
    int line = 1, column = 1;
    bool at_start = true;

    for (size_t i = 0; i < text.n;) {
        size_t n = ep_utf8_length(text.p + i, text.n - i);
        unsigned char byte = (unsigned char)text.p[i];
        if (n == 0 || (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7f) {
            ep_problems_add(problems, (struct ep_where){NULL, line, column}, false,
                            n ? "a control character (byte 0x%02x)" : "byte 0x%02x is not UTF-8", byte);
            return false;
        }
        open += byte == '[' || byte == '{';
        open -= open && (byte == ']' || byte == '}');
        indent = byte == '\n' ? 0 : indent + (at_start && (byte == '-' || byte == '?'));
        at_start = byte == '\n' || (at_start && (byte == ' ' || byte == '-' || byte == '?'));
        indent_max = EP_MAX(indent_max, indent);
        if (open > NESTING_MAX || indent_max > NESTING_MAX) {
            ep_problems_add(problems, (struct ep_where){NULL, line, column}, false, "nested more than %u deep", NESTING_MAX);
            return false;
        }
        line += byte == '\n';
        column = byte == '\n' ? 1 : column + 1;
        i += n;
    }
    return true;
}

static bool bind_document(struct ep_config *config, struct ep_str text, struct ep_problems *problems)
{
    struct fy_diag_cfg diag_config;
    struct fy_parse_cfg parse = {.flags = FYPCF_QUIET | FYPCF_ALLOW_DUPLICATE_KEYS | FYPCF_DISABLE_RECYCLING};
    struct ep_checker checker = {.arena = &config->arena, .problems = problems};
    struct fy_parser *parser = NULL;
    struct fy_document *document = NULL, *second = NULL;
    struct fy_node *root;

    fy_diag_cfg_default(&diag_config);
    diag_config.fp = NULL;
    diag_config.colorize = false;
    parse.diag = fy_diag_create(&diag_config);
    if (!parse.diag)
        abort();
    fy_diag_set_collect_errors(parse.diag, true);
    parser = fy_parser_create(&parse);
    if (!parser || fy_parser_set_string(parser, text.p, text.n) != 0)
        abort();
    document = fy_parse_load_document(parser);
    root = document ? fy_document_root(document) : NULL;
    if (fy_parser_get_stream_error(parser))
        take_complaints(parse.diag, problems);
    else if (!root || (fy_node_is_scalar(root) && !fy_node_is_alias(root) && fy_node_get_style(root) == FYNS_PLAIN &&
                       !fy_node_get_scalar0(root)[0]))
        ep_problems_add(problems, (struct ep_where){0}, false, "the file is empty; it needs at least listeners and clusters");
    else
        ep_bind(&checker, &ep_config_schema, config, root, (struct ep_where){NULL, 1, 1});
    if (root && !fy_parser_get_stream_error(parser)) {
        second = fy_parse_load_document(parser);
        if (second)
            ep_problems_add(problems, (struct ep_where){0}, false, "the file has more than one document (---)");
        else if (fy_parser_get_stream_error(parser))
            take_complaints(parse.diag, problems);
    }
    if (second)
        fy_parse_document_destroy(parser, second);
    if (document)
        fy_parse_document_destroy(parser, document);
    fy_parser_destroy(parser);
    fy_diag_destroy(parse.diag);
    free(checker.places);
    return problems->errors == 0;
}

struct ep_config *ep_config_parse(struct ep_str text, const char *name, struct ep_problems *problems)
{
    struct ep_config *c = ep_calloc(1, sizeof *c);

    free(problems->file);
    free(problems->source);
    problems->file = ep_strdup(name);
    problems->source = ep_strndup(text.n ? text.p : "", text.n);
    problems->source_n = text.n;
    ep_chunk_pool_init(&c->chunks, 0);
    ep_arena_init(&c->arena, &c->chunks);
    atomic_init(&c->refs, 1);
    c->text = ep_arena_str(&c->arena, text.n ? text : EP_STR(""));
    if (sane(c->text, problems) && bind_document(c, c->text, problems))
        return c;
    ep_config_unref(c);
    return NULL;
}

struct ep_config *ep_config_load(const char *path, struct ep_problems *problems)
{
    struct ep_config *config = NULL;
    struct ep_error err;
    struct ep_str text;

    if (ep_file_read(ep_str(path), FILE_MAX, &text, &err)) {
        config = ep_config_parse(text, path, problems);
        ep_file_free(&text, false);
    } else {
        free(problems->file);
        problems->file = ep_strdup(path);
        ep_problems_add(problems, (struct ep_where){0}, false, "%s", err.text);
    }
    return config;
}

struct ep_config *ep_config_ref(struct ep_config *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void ep_config_unref(struct ep_config *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    ep_arena_fini(&c->arena);
    ep_chunk_pool_fini(&c->chunks);
    free(c);
}

/* --- what it means here --- */

const struct ep_cluster_config *ep_config_cluster(const struct ep_config *c, struct ep_str name)
{
    const struct ep_cluster_config *k = c->clusters.v;

    for (size_t i = 0; i < c->clusters.n; i++)
        if (ep_str_eq(k[i].name, name))
            return &k[i];
    return NULL;
}

static bool read_numbers(const char *path, long long *a, long long *b)
{
    FILE *f = fopen(path, "re");
    int got = f ? fscanf(f, b ? "%lld %lld" : "%lld", a, b) : 0;

    if (f)
        fclose(f);
    return got == (b ? 2 : 1);
}

/* CPUs that the cgroup's quota comes to, rounded up; 0: no quota. */
static unsigned quota_cpus(void)
{
    long long quota, period;

    if (!read_numbers("/sys/fs/cgroup/cpu.max", &quota, &period) &&
        !(read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", &quota, NULL) &&
          read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_period_us", &period, NULL)))
        return 0;
    return quota > 0 && period > 0 ? (unsigned)EP_MIN((quota + period - 1) / period, 1024ll) : 0;
}

unsigned ep_config_workers(const struct ep_config *c)
{
    unsigned cpus = AUTO_WORKERS, quota = quota_cpus();
    uint64_t n;
    cpu_set_t set;

    if (ep_str_u64(c->workers, &n))
        return (unsigned)n;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        cpus = (unsigned)EP_MAX(CPU_COUNT(&set), 1);
    if (quota)
        cpus = EP_MIN(cpus, quota);
    return EP_MIN(cpus, AUTO_WORKERS);
}
