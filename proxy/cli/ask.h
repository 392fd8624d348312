/* Asking a running ephor by its admin server: for the subcommands that show or change it. */
#ifndef EP_CLI_ASK_H
#define EP_CLI_ASK_H

#include "base/base.h"

#define EP_CLI_ADMIN "127.0.0.1:15000" /* admin.bind when the configuration says nothing */
/* For argp. */
#define EP_CLI_ADMIN_OPTION {"admin", 'a', "ADDR", 0, "the admin server (" EP_CLI_ADMIN "); unix:/path too", 0}

/* One request on a connection of its own, 5 s at most for each step. The body of the answer, malloc'd and with a NUL
 * behind it, and its status; NULL with err when there is no answer. `admin` is "ADDRESS:PORT" or "unix:/path". */
char *ep_cli_ask(const char *admin, const char *method, const char *path, unsigned *status, struct ep_error *err);
/* The same with the bearer token of admin.token; NULL: none. */
char *ep_cli_ask_as(const char *token, const char *admin, const char *method, const char *path, unsigned *status,
                    struct ep_error *err);

#endif
