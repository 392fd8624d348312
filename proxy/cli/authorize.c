/* `ephor authorize KEY=VALUE…`: may this caller do that, and which rule says so. Of a running ephor, or of a file. */
#include <libfyaml.h>
#include <stdio.h>
#include <stdlib.h>

#include "authorize.h"
#include "cli/arguments.h"
#include "cli/ask.h"
#include "cli/cli.h"
#include "config/config.h"
#include "observe/json.h"

struct options {
    const char *admin, *file;
    bool json;
    char **pairs;
    int n;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 'a':
        o->admin = arg;
        return 0;
    case 'c':
        o->file = arg;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    default:
        return ep_cli_some(key, state, &o->pairs, &o->n);
    }
}

static const struct argp_option argp_options[] = {
    EP_CLI_ADMIN_OPTION,
    {"config", 'c', "FILE", 0, "ask this configuration, not a running ephor", 0},
    {"json", 'j', NULL, 0, "the answer as JSON", 0},
    {0},
};

static const struct argp argp = {
    .options = argp_options,
    .parser = parse,
    .args_doc = "KEY=VALUE...",
    .doc = "Says which authorize rule decides for a call, and why the others don't. Keys: listener, principal, method, host, path, "
           "header.NAME, protocol, tool, model, call (a method of MCP), visible (full, headers, none).\v"
           "Exit status: 0 allowed, 1 denied, 2 wrong usage, 3 there is no answer.",
};

/* The pairs as a query string; what could be taken for its syntax is escaped. malloc'd. */
static char *query_of(const struct options *o)
{
    size_t room = 1, n = 0;
    char *out;

    for (int i = 0; i < o->n; i++)
        room += 3 * strlen(o->pairs[i]) + 1;
    out = ep_malloc(room);
    for (int i = 0; i < o->n; i++) {
        bool name = true;
        if (i)
            out[n++] = '&';
        for (const unsigned char *p = (const unsigned char *)o->pairs[i]; *p; p++) {
            unsigned char l = (unsigned char)ep_lower((char)*p);
            bool plain = (l >= 'a' && l <= 'z') || (l >= '0' && l <= '9') || strchr("-._~/:*@", *p) || (*p == '=' && name);
            name &= *p != '=';
            if (plain)
                out[n++] = (char)*p;
            else
                n += (size_t)snprintf(out + n, 4, "%%%02X", *p);
        }
    }
    out[n] = '\0';
    return out;
}

/* The answer as JSON, malloc'd; NULL when *code says why there is none. */
static char *from_file(const char *path, const char *query, int *code)
{
    struct ep_problems problems;
    struct ep_config *config;
    struct ep_error err;
    struct ep_json j;
    char *text;

    ep_problems_init(&problems);
    config = ep_config_load(path, &problems);
    text = ep_problems_text(&problems, true);
    fputs(text, stderr);
    free(text);
    ep_problems_fini(&problems);
    *code = EP_EXIT_ENVIRONMENT;
    if (!config)
        return NULL;
    ep_json_init(&j);
    text = NULL;
    if (ep_authorize_explain(&config->listeners, path, ep_str(query), &j, &err)) {
        text = ep_strndup(j.p, j.n);
    } else {
        fprintf(stderr, "ephor authorize: %s\n", err.text);
        *code = EP_EXIT_USAGE;
    }
    ep_json_fini(&j);
    ep_config_unref(config);
    return text;
}

static char *from_server(const char *admin, const char *query, int *code)
{
    struct ep_error err;
    unsigned status = 0;
    char *path, *text;

    if (asprintf(&path, "/authorize?%s", query) < 0)
        abort();
    text = ep_cli_ask(admin, "GET", path, &status, &err);
    free(path);
    *code = status == 400 ? EP_EXIT_USAGE : EP_EXIT_ENVIRONMENT;
    if (text && status == 200)
        return text;
    fprintf(stderr, "ephor authorize: %s%s", text ? text : err.text, text ? "" : "\n");
    free(text);
    return NULL;
}

/* --- showing it --- */

static struct ep_str text_of(struct fy_node *map, const char *key)
{
    struct fy_node *n = fy_node_mapping_lookup_by_string(map, key, FY_NT);
    size_t length = 0;
    const char *text = n ? fy_node_get_scalar(n, &length) : NULL;

    return ep_str_n(text ? text : "", text ? length : 0);
}

static int show(const char *text, bool json)
{
    struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET | FYPCF_JSON_FORCE};
    struct fy_document *d = fy_document_build_from_string(&cfg, text, FY_NT);
    struct fy_node *root = d ? fy_document_root(d) : NULL, *rules, *n;
    void *at = NULL;
    int code = EP_EXIT_ENVIRONMENT;

    if (root && fy_node_is_mapping(root)) {
        struct ep_str where = text_of(root, "where");
        code = ep_str_eq(text_of(root, "decision"), EP_STR("allow")) ? EP_EXIT_GOOD : EP_EXIT_BAD;
        if (json) {
            printf("%s%s", text, ep_str_ends(ep_str(text), EP_STR("\n")) ? "" : "\n");
        } else {
            printf("%.*s: %.*s%s%.*s\n", EP_STR_ARG(text_of(root, "decision")), EP_STR_ARG(text_of(root, "because")),
                   where.n ? ": " : "", EP_STR_ARG(where));
            rules = fy_node_mapping_lookup_by_string(root, "rules", FY_NT);
            while (rules && (n = fy_node_sequence_iterate(rules, &at)))
                printf("%s rule %.*s (%.*s, %.*s): %.*s\n", text_of(n, "decides").n ? "=>" : "  ", EP_STR_ARG(text_of(n, "rule")),
                       EP_STR_ARG(text_of(n, "action")), EP_STR_ARG(text_of(n, "where")), EP_STR_ARG(text_of(n, "because")));
        }
    } else {
        fprintf(stderr, "ephor authorize: the answer can't be read\n");
    }
    fy_document_destroy(d);
    return fflush(stdout) == 0 ? code : EP_EXIT_ENVIRONMENT;
}

int ep_cli_authorize(int argc, char **argv)
{
    struct options o = {.admin = EP_CLI_ADMIN};
    char *query, *text;
    int code = EP_EXIT_ENVIRONMENT;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    query = query_of(&o);
    text = o.file ? from_file(o.file, query, &code) : from_server(o.admin, query, &code);
    if (text)
        code = show(text, o.json);
    free(text);
    free(query);
    return code;
}
