/* ephor's command line: a table of subcommands. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/cli.h"

struct command {
    const char *name, *arguments, *help;
    int (*run)(int argc, char **argv);
};

/* clang-format off */
static const struct command commands[] = {
    {"run",       "-c FILE",              "run the proxy",                                           ep_cli_run},
    {"check",     "FILE...",              "say what is wrong with configurations, or print them",    ep_cli_check},
    {"test",      "DIR",                  "run the tests of policies",                               ep_cli_test},
    {"policies",  "[rollback|digest]",    "what each policy of a running ephor saw, decided, was blind to", ep_cli_policies},
    {"authorize", "KEY=VALUE...",         "which authorize rule decides for a call, and why",        ep_cli_authorize},
    {"audit",     "verify|show|export",   "check the chain of the audit's records, or read them",    ep_cli_audit},
    {"constitution", "VERB",              "digest, sign, verify, show the text of a constitution; make keys", ep_cli_constitution},
    {"mcp",       "pin URL",              "pin what an MCP server says of its tools",                ep_cli_mcp},
    {"reference", "WHAT",                 "print a reference: configuration, filters, metrics, schema", ep_cli_reference},
    {"version",   "",                     "print the version",                                       ep_cli_version},
};
/* clang-format on */

static void help(FILE *f)
{
    fputs("Usage: ephor COMMAND [ARGUMENT...]\nA sidecar proxy for the traffic of agents.\n\n", f);
    for (size_t i = 0; i < EP_COUNT(commands); i++)
        fprintf(f, "  %-12s %-19s %s\n", commands[i].name, commands[i].arguments, commands[i].help);
    fputs("\n`ephor COMMAND --help` tells more. Exit status: 0 good, 1 what was asked about is bad, 2 wrong usage,\n"
          "3 the environment failed.\n",
          f);
}

int main(int argc, char **argv)
{
    const char *names[EP_COUNT(commands)];
    const char *given = argc > 1 ? argv[1] : NULL;
    char name[64];

    argp_err_exit_status = EP_EXIT_USAGE;
    if (!given) {
        help(stderr);
        return EP_EXIT_USAGE;
    }
    if (!strcmp(given, "--help") || !strcmp(given, "-h") || !strcmp(given, "help")) {
        help(stdout);
        return EP_EXIT_GOOD;
    }
    if (!strcmp(given, "--version") || !strcmp(given, "-V"))
        given = "version";
    for (size_t i = 0; i < EP_COUNT(commands); i++) {
        names[i] = commands[i].name;
        if (strcmp(given, commands[i].name) != 0)
            continue;
        snprintf(name, sizeof name, "ephor %s", commands[i].name);
        argv[1] = name;
        return commands[i].run(argc - 1, argv + 1);
    }
    const char *near = ep_nearest(ep_str(given), names, EP_COUNT(names));
    fprintf(stderr, "ephor: there is no command '%s'%s%s%s\n", given, near ? "; did you mean '" : "", near ? near : "",
            near ? "'?" : "");
    help(stderr);
    return EP_EXIT_USAGE;
}
