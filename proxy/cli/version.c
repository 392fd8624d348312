/* `ephor version`. */
#include <argp.h>
#include <stdio.h>

#include "cli/cli.h"

static const struct argp argp = {.doc = "Prints the version."};

int ep_cli_version(int argc, char **argv)
{
    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    printf("ephor %s\n", EPHOR_VERSION);
    return EP_EXIT_GOOD;
}
