/* `ephor check`: every error of each file with its place, or the file with all its defaults. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cli/arguments.h"
#include "cli/cli.h"
#include "config/config.h"
#include "lua/policy_test.h"

struct options {
    bool print, quiet;
    char **files;
    int n;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    (void)arg;
    switch (key) {
    case 'p':
        o->print = true;
        return 0;
    case 'q':
        o->quiet = true;
        return 0;
    default:
        return ep_cli_some(key, state, &o->files, &o->n);
    }
}

static const struct argp_option argp_options[] = {
    {"print", 'p', NULL, 0, "print also when there is more than one file", 0},
    {"quiet", 'q', NULL, 0, "say nothing about a good file, and don't print it", 0},
    {0},
};

static const struct argp argp = {
    .options = argp_options,
    .parser = parse,
    .args_doc = "FILE...",
    .doc = "Says what is wrong with configuration files, and with their policies and scripts. A single good file is "
           "printed with "
           "all its defaults, without its secrets.\v"
           "Exit status: 0 all are good, 1 one is not, 3 one can't be read.",
};

static void tell_warning(void *path, const char *text)
{
    fprintf(stderr, "%s: warning: %s\n", (const char *)path, text);
}

static bool policies_good(const char *path, const struct ep_config *config)
{
    struct ep_error err;
    bool absent;
    bool good = ep_config_policies_possible(config, &absent, tell_warning, (void *)(uintptr_t)path, &err);

    if (absent)
        fprintf(stderr, "%s: warning: there is no %.*s here, so its policies were not looked at\n", path,
                EP_STR_ARG(config->policies.directory));
    if (!good)
        fprintf(stderr, "%s: error: %s\n", path, err.text);
    return good;
}

static int check_file(const char *path, const struct options *o)
{
    struct ep_problems problems;
    struct ep_config *config;
    struct stat st;
    char *text;
    int status;

    ep_problems_init(&problems);
    config = ep_config_load(path, &problems);
    if (config)
        ep_config_load_scripts(config, &problems);
    text = ep_problems_text(&problems, true);
    fputs(text, stderr);
    free(text);
    if (problems.errors) {
        ep_config_unref(config);
        config = NULL;
    }
    struct ep_error untested;
    if (config && ep_policies_want_tests(&config->policies) && !ep_policy_tests_pass(&config->policies, &untested)) {
        fprintf(stderr, "%s: %s\n", path, untested.text);
        problems.errors++;
        ep_config_unref(config);
        config = NULL;
    }
    status = config ? EP_EXIT_GOOD : stat(path, &st) < 0 ? EP_EXIT_ENVIRONMENT : EP_EXIT_BAD;
    if (config && !policies_good(path, config)) {
        ep_config_unref(config);
        ep_problems_fini(&problems);
        return EP_EXIT_BAD;
    }
    if (config && !o->quiet && (o->print || o->n == 1)) {
        text = ep_config_print(config, false);
        fputs(o->n > 1 ? "---\n" : "", stdout);
        fputs(text, stdout);
        free(text);
    }
    if (config && !o->quiet)
        fprintf(stderr, "%s: good: %zu listener%s, %zu cluster%s\n", path, config->listeners.n,
                config->listeners.n == 1 ? "" : "s", config->clusters.n, config->clusters.n == 1 ? "" : "s");
    if (!config) {
        fprintf(stderr, "%s: %zu error%s\n", path, problems.errors, problems.errors == 1 ? "" : "s");
    }
    ep_config_unref(config);
    ep_problems_fini(&problems);
    return status;
}

int ep_cli_check(int argc, char **argv)
{
    struct options o = {0};
    int worst = EP_EXIT_GOOD;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    ep_log_set_level(EP_LOG_WARN); /* what is said of a script that loads is for who runs it */
    for (int i = 0; i < o.n; i++) {
        int status = check_file(o.files[i], &o);
        worst = EP_MAX(worst, status);
    }
    return worst;
}
