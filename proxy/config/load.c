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
#include "config/charter.h"
#include "config/files.h"
#include "config/pins.h"

#define FILE_MAX     (4u << 20)
#define NESTING_MAX  64u /* libfyaml recurses */
#define AUTO_WORKERS 2u

/* --- YAML --- */

/* What one look at the bytes finds: what YAML doesn't have, brackets without end (libfyaml recurses), and where the
 * last bracket that is still open stands, which is where a person looks for the mistake. */
struct look {
    int line, column;
    size_t depth;
    struct ep_where open[NESTING_MAX];
};

static bool refuse(struct ep_problems *problems, const struct look *l, const char *what, unsigned number)
{
    ep_problems_add(problems, (struct ep_where){NULL, l->line, l->column}, false, "%s %u", what, number);
    return false;
}

static bool bracket(struct look *l, char c)
{
    if (c == '[' || c == '{') {
        if (l->depth == NESTING_MAX)
            return false;
        l->open[l->depth++] = (struct ep_where){NULL, l->line, l->column};
    } else if ((c == ']' || c == '}') && l->depth) {
        l->depth--;
    }
    return true;
}

static bool look(struct ep_str text, struct look *l, struct ep_problems *problems)
{
    char quote = 0, before = '\n';
    size_t dashes = 0;
    bool start = true, comment = false;

    *l = (struct look){.line = 1, .column = 1};
    for (size_t i = 0, n; i < text.n; i += n) {
        char c = text.p[i];
        n = ep_utf8_length(text.p + i, text.n - i);
        if (n == 0)
            return refuse(problems, l, "this is not UTF-8: byte", (unsigned char)c);
        if (((unsigned char)c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f)
            return refuse(problems, l, "a control character: byte", (unsigned char)c);
        if (quote)
            quote = c == quote && before != '\\' ? 0 : quote;
        else if (comment || (c == '#' && strchr(" \t\n", before)))
            comment = c != '\n';
        else if ((c == '"' || c == '\'') && strchr(" \t\n[{,:-", before))
            quote = c;
        else if (!bracket(l, c))
            return refuse(problems, l, "nested deeper than", NESTING_MAX);
        dashes = c == '\n' ? 0 : dashes + (start && (c == '-' || c == '?'));
        start = c == '\n' || (start && (c == ' ' || c == '-' || c == '?'));
        if (dashes > NESTING_MAX)
            return refuse(problems, l, "nested deeper than", NESTING_MAX);
        l->column = c == '\n' ? 1 : l->column + 1;
        l->line += c == '\n';
        before = before == '\\' && c == '\\' ? ' ' : c;
    }
    return true;
}

/* libfyaml's own complaints, with their places. */
static void take_complaints(struct fy_diag *diag, const struct look *l, struct ep_problems *problems)
{
    struct fy_diag_error *e;
    void *prev = NULL;
    size_t before = problems->errors;

    while ((e = fy_diag_errors_iterate(diag, &prev))) {
        struct ep_where where = {NULL, EP_MAX(e->line, 1), EP_MAX(e->column, 1)};
        const char *text = e->msg && *e->msg ? e->msg : "syntax error";
        if (e->type != FYET_ERROR)
            continue;
        if (strstr(text, "without a closing") && l->depth)
            where = l->open[l->depth - 1];
        ep_problems_add(problems, where, false, "this is not YAML: %s", text);
    }
    if (problems->errors == before)
        ep_problems_add(problems, (struct ep_where){0}, false, "this is not YAML");
}

/* Where each authorize rule stands, for those who ask which one decides. */
static void note_rules(const struct ep_config *config, const struct ep_checker *checker)
{
    struct ep_listener_config *l = config->listeners.v;

    for (size_t i = 0; i < config->listeners.n; i++) {
        struct ep_authorize_config *r = l[i].authorize.v;
        for (size_t k = 0; k < l[i].authorize.n; k++)
            r[k].where = ep_checker_place(checker, &r[k], NULL);
    }
}

static bool bind_document(struct ep_checker *checker, const struct ep_schema *schema, void *object, struct ep_str text,
                          const struct look *l, const char *empty)
{
    struct ep_problems *problems = checker->problems;
    struct fy_diag_cfg diag_config;
    struct fy_parse_cfg parse = {.flags = FYPCF_QUIET | FYPCF_ALLOW_DUPLICATE_KEYS | FYPCF_DISABLE_RECYCLING};
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
        take_complaints(parse.diag, l, problems);
    else if (!root || (fy_node_is_scalar(root) && !fy_node_is_alias(root) && fy_node_get_style(root) == FYNS_PLAIN &&
                       !fy_node_get_scalar0(root)[0]))
        ep_problems_add(problems, (struct ep_where){0}, false, "%s", empty);
    else
    {
        ep_bind(checker, schema, object, root, (struct ep_where){NULL, 1, 1});
        if (schema == &ep_config_schema)
            note_rules(object, checker);
    }
    if (root && !fy_parser_get_stream_error(parser)) {
        second = fy_parse_load_document(parser);
        if (second)
            ep_problems_add(problems, (struct ep_where){0}, false, "the file has more than one document (---)");
        else if (fy_parser_get_stream_error(parser))
            take_complaints(parse.diag, l, problems);
    }
    if (second)
        fy_parse_document_destroy(parser, second);
    if (document)
        fy_parse_document_destroy(parser, document);
    fy_parser_destroy(parser);
    fy_diag_destroy(parse.diag);
    free(checker->places);
    return problems->errors == 0;
}

bool ep_yaml_bind(struct ep_arena *arena, const struct ep_schema *s, void *object, struct ep_str text, bool literal,
                  const char *empty, struct ep_problems *problems)
{
    struct ep_checker checker = {.arena = arena, .problems = problems, .literal = literal};
    struct look l;

    free(problems->source);
    problems->source = ep_strndup(text.n ? text.p : "", text.n);
    problems->source_n = text.n;
    return look(text, &l, problems) && bind_document(&checker, s, object, text, &l, empty);
}

struct ep_config *ep_config_parse(struct ep_str text, const char *name, struct ep_problems *problems)
{
    struct ep_config *c = ep_calloc(1, sizeof *c);

    free(problems->file);
    problems->file = ep_strdup(name);
    ep_chunk_pool_init(&c->chunks, 0);
    ep_arena_init(&c->arena, &c->chunks);
    atomic_init(&c->refs, 1);
    c->text = ep_arena_str(&c->arena, text.n ? text : EP_STR(""));
    if (ep_yaml_bind(&c->arena, &ep_config_schema, c, c->text, false,
                     "the file is empty; it needs at least listeners and clusters", problems))
        return c;
    ep_config_unref(c);
    return NULL;
}

static bool take_pins(const struct ep_config *c, struct ep_error *err)
{
    struct ep_listener_config *l = c->listeners.v;

    for (size_t i = 0; i < c->listeners.n; i++) {
        if (!l[i].mcp.pins_file.n)
            continue;
        l[i].mcp.pins = ep_pins_read(l[i].mcp.pins_file, err);
        if (!l[i].mcp.pins)
            return ep_error_prefix(err, "listener %.*s: mcp.pins", EP_STR_ARG(l[i].name));
    }
    return true;
}

struct ep_config *ep_config_complete(struct ep_config *c, struct ep_problems *problems)
{
    struct ep_error err;

    if (!c)
        return NULL;
    if (ep_charter_take(&c->constitution, &err) && take_pins(c, &err)) {
        c->policies.charter = c->constitution.charter;
        c->policies.charter_mode = c->constitution.mode;
        return c;
    }
    ep_problems_add(problems, (struct ep_where){0}, false, "%s", err.text);
    ep_config_unref(c);
    return NULL;
}

struct ep_config *ep_config_load(const char *path, struct ep_problems *problems)
{
    struct ep_config *config = NULL;
    struct ep_error err;
    struct ep_str text;

    if (ep_file_read(ep_str(path), FILE_MAX, &text, &err)) {
        config = ep_config_complete(ep_config_parse(text, path, problems), problems);
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
    struct ep_listener_config *l = c->listeners.v;
    for (size_t i = 0; i < c->listeners.n; i++)
        ep_pins_free(l[i].mcp.pins);
    ep_charter_free(c->constitution.charter);
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
    int got = 0;

    if (f)
        got = b ? fscanf(f, "%lld %lld", a, b) : fscanf(f, "%lld", a);
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
