/* The verbs of `ephor audit`. */
#ifndef EP_CLI_AUDIT_H
#define EP_CLI_AUDIT_H

int ep_cli_audit_show(int argc, char **argv);
int ep_cli_audit_export(int argc, char **argv);
/* EP_EXIT_GOOD, or says why not and returns EP_EXIT_ENVIRONMENT. */
int ep_cli_audit_readable(const char *directory);

#endif
