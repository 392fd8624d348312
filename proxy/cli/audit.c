/* `ephor audit verify DIR`: is the chain of records whole? */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "observe/observe.h"

static error_t parse(int key, char *arg, struct argp_state *state)
{
    const char **directory = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num == 0 && strcmp(arg, "verify") != 0)
            argp_error(state, "there is no 'audit %s'", arg);
        if (state->arg_num > 1)
            argp_usage(state);
        if (state->arg_num == 1)
            *directory = arg;
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num < 2)
            argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .parser = parse,
    .args_doc = "verify DIR",
    .doc = "Checks every record of an audit directory: its hash, and that it follows the one before.\v"
           "Exit status: 0 whole, 1 a record was changed, removed or reordered, 3 the directory can't be read.",
};

int ep_cli_audit(int argc, char **argv)
{
    const char *directory = NULL;
    struct ep_error err;
    int64_t n;

    argp_parse(&argp, argc, argv, 0, NULL, &directory);
    if (access(directory, R_OK | X_OK) < 0) {
        fprintf(stderr, "%s: %s\n", directory, strerror(errno));
        return EP_EXIT_ENVIRONMENT;
    }
    n = ep_audit_verify(directory, &err);
    if (n < 0) {
        fprintf(stderr, "%s\n", err.text);
        return EP_EXIT_BAD;
    }
    printf("%s: %lld record%s, the chain is whole\n", directory, (long long)n, n == 1 ? "" : "s");
    return EP_EXIT_GOOD;
}
