/* Private to proxy/cli: the subcommands. Each is one file with one function of main's shape, and each has --help. */
#ifndef EP_CLI_CLI_H
#define EP_CLI_CLI_H

/* Exit codes of all subcommands. */
enum {
    EP_EXIT_GOOD = 0,
    EP_EXIT_BAD = 1, /* what was asked about is bad */
    EP_EXIT_USAGE = 2,
    EP_EXIT_ENVIRONMENT = 3, /* a port, a file, memory: nothing to do with what was asked */
};

/* argv[0] is the name for --help: "ephor run". */
int ep_cli_run(int argc, char **argv);
int ep_cli_check(int argc, char **argv);
int ep_cli_test(int argc, char **argv);
int ep_cli_audit(int argc, char **argv);
int ep_cli_policies(int argc, char **argv);
int ep_cli_authorize(int argc, char **argv);
int ep_cli_constitution(int argc, char **argv);
int ep_cli_mcp(int argc, char **argv);
int ep_cli_reference(int argc, char **argv);
int ep_cli_version(int argc, char **argv);

#endif
