/* The ends of argp parsers, for `default:`. Both print the usage and exit when there is no argument. */
#ifndef EP_CLI_ARGUMENTS_H
#define EP_CLI_ARGUMENTS_H

#include <argp.h>

/* Takes exactly one argument, into *out. ARGP_ERR_UNKNOWN for any other key. */
error_t ep_cli_one(int key, char *arg, struct argp_state *state, const char **out);
/* Takes one or more, which stay in argv. */
error_t ep_cli_some(int key, struct argp_state *state, char ***out, int *n);

#endif
