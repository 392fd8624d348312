/* `ephor run`: the proxy. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "admin/admin.h"
#include "cli/cli.h"

struct options {
    const char *file;
    enum ep_log_level level;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 'c':
        o->file = arg;
        return 0;
    case 'l':
        if (!ep_log_level_parse(arg, &o->level))
            argp_error(state, "'%s' is none of trace, debug, info, warn, error, off", arg);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "the configuration is given as -c %s", arg);
        return 0;
    case ARGP_KEY_END:
        if (!o->file)
            argp_error(state, "-c FILE is needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option argp_options[] = {
    {"config", 'c', "FILE", 0, "the configuration; watched, and read again on SIGHUP", 0},
    {"log-level", 'l', "LEVEL", 0, "trace, debug, info (default), warn, error or off", 0},
    {0},
};

static const struct argp argp = {
    .options = argp_options,
    .parser = parse,
    .doc = "Runs the proxy until SIGTERM or SIGINT, then drains it; a second signal cuts the draining short.\v"
           "Exit status: 0 ended as asked, 1 the configuration is wrong, 3 the environment failed (a port, a file).",
};

static struct ep_config *load(const char *path, int *status)
{
    struct ep_problems problems;
    struct ep_config *config;
    struct stat st;
    char *text;

    ep_problems_init(&problems);
    config = ep_config_load(path, &problems);
    text = ep_problems_text(&problems, true);
    fputs(text, stderr);
    free(text);
    ep_problems_fini(&problems);
    *status = config ? EP_EXIT_GOOD : stat(path, &st) < 0 ? EP_EXIT_ENVIRONMENT : EP_EXIT_BAD;
    return config;
}

int ep_cli_run(int argc, char **argv)
{
    struct options o = {.level = EP_LOG_INFO};
    struct ep_server *server = NULL;
    struct ep_admin *admin = NULL;
    struct ep_config *config;
    struct ep_error err;
    int status;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    ep_log_set_level(o.level);
    config = load(o.file, &status);
    if (!config)
        return status;
    server = ep_server_new(o.file, config, &err);
    admin = server ? ep_admin_new(server, &err) : NULL;
    if (admin && ep_server_start(server, &err)) {
        ep_server_run(server);
    } else {
        ep_fail("server", "%s", err.text);
        status = EP_EXIT_ENVIRONMENT;
    }
    ep_admin_free(admin);
    if (server)
        ep_server_free(server);
    return status;
}
