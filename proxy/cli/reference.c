/* `ephor reference`: pages that are made from tables, so that they can't be wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/arguments.h"
#include "cli/cli.h"
#include "config/config.h"

static const struct {
    const char *name, *help;
    char *(*make)(void);
} pages[] = {
    {"configuration", "every key of the configuration (docs/reference/configuration.md)", ep_config_reference},
    {"filters", "every filter and its configuration (docs/reference/filters.md)", ep_config_filters_reference},
    {"metrics", "every metric (docs/reference/metrics.md)", ep_metrics_reference},
    {"schema", "a JSON Schema of the configuration, for editors and charts", ep_config_json_schema},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    size_t *which = state->input;
    const char *name = NULL;
    error_t e = ep_cli_one(key, arg, state, &name);

    if (!name)
        return e;
    for (*which = 0; *which < EP_COUNT(pages); ++*which)
        if (strcmp(name, pages[*which].name) == 0)
            return 0;
    argp_error(state, "there is no page '%s'", name);
    return 0;
}

static const struct argp argp = {
    .parser = parse,
    .args_doc = "configuration|filters|metrics|schema",
    .doc = "Prints a reference made from the tables that ephor itself works by.",
};

int ep_cli_reference(int argc, char **argv)
{
    size_t which = 0;
    char *text;

    argp_parse(&argp, argc, argv, 0, NULL, &which);
    text = pages[which].make();
    fputs(text, stdout);
    if (text[0] == '{')
        fputc('\n', stdout);
    free(text);
    return fflush(stdout) == 0 ? EP_EXIT_GOOD : EP_EXIT_ENVIRONMENT;
}
