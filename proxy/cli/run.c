/* `ephor run`: the proxy, until SIGTERM. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>

#include "admin/admin.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/server.h"

struct options {
    const char *file;
    const char *level;
};

static const struct argp_option argp_options[] = {
    {"config", 'c', "FILE", 0, "the configuration (required)", 0},
    {"log-level", 'l', "LEVEL", 0, "trace, debug, info (default), warn, error or off", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 'c':
        o->file = arg;
        return 0;
    case 'l':
        o->level = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "what is '%s'? The file goes behind -c", arg);
        return 0;
    case ARGP_KEY_END:
        if (!o->file)
            argp_error(state, "which configuration? -c FILE");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = argp_options,
    .parser = parse,
    .doc = "Runs the proxy.\vSIGTERM drains and ends it, SIGHUP reads the configuration again; a change of the file, of the policies or of "
           "the certificates is noticed by itself.",
};

static int serve(struct ep_server *s)
{
    struct ep_error err = {""};
    struct ep_admin *admin = NULL;

    if (!ep_server_start(s, &err) || !(admin = ep_admin_new(s, &err))) {
        fprintf(stderr, "ephor: %s\n", err.text);
        return EP_EXIT_ENVIRONMENT;
    }
    ep_server_run(s);
    ep_admin_free(admin);
    return EP_EXIT_GOOD;
}

int ep_cli_run(int argc, char **argv)
{
    struct options o = {0};
    struct ep_problems problems;
    struct ep_config *config;
    struct ep_server *server = NULL;
    struct ep_error err = {""};
    enum ep_log_level level;
    int code = EP_EXIT_ENVIRONMENT;
    char *text;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (o.level && !ep_log_level_parse(o.level, &level)) {
        fprintf(stderr, "ephor: '%s' is no log level\n", o.level);
        return EP_EXIT_USAGE;
    }
    if (o.level)
        ep_log_set_level(level);
    ep_problems_init(&problems);
    config = ep_config_load(o.file, &problems);
    if (problems.n) { /* warnings too */
        text = ep_problems_text(&problems, true);
        fputs(text, stderr);
        free(text);
    }
    ep_problems_fini(&problems);
    if (!config)
        return EP_EXIT_BAD;
    server = ep_server_new(o.file, config, &err);
    if (!server)
        fprintf(stderr, "ephor: %s\n", err.text);
    else
        code = serve(server);
    if (server)
        ep_server_free(server);
    return code;
}
