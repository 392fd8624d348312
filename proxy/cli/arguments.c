/* What argp's parsers of the subcommands have in common: how they end. */
#include "cli/arguments.h"

error_t ep_cli_one(int key, char *arg, struct argp_state *state, const char **out)
{
    if (key == ARGP_KEY_NO_ARGS || (key == ARGP_KEY_ARG && state->arg_num > 0))
        argp_usage(state);
    if (key == ARGP_KEY_ARG)
        *out = arg;
    return key == ARGP_KEY_ARG || key == ARGP_KEY_NO_ARGS ? 0 : ARGP_ERR_UNKNOWN;
}

error_t ep_cli_some(int key, struct argp_state *state, char ***out, int *n)
{
    if (key == ARGP_KEY_NO_ARGS)
        argp_usage(state);
    if (key != ARGP_KEY_ARGS)
        return ARGP_ERR_UNKNOWN;
    *out = state->argv + state->next;
    *n = state->argc - state->next;
    return 0;
}
