/* `ephor audit verify|show|export DIR`. The last two are in audit_show.c. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/arguments.h"
#include "cli/audit.h"
#include "cli/cli.h"
#include "observe/observe.h"
#include "observe/signature.h"

struct verify {
    const char *directory;
    uint8_t key[EP_PUBLIC_KEY_BYTES];
    bool keyed;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct verify *v = state->input;

    switch (key) {
    case 'k':
        v->keyed = ep_public_key_parse(ep_str(arg), v->key);
        if (!v->keyed)
            argp_error(state, "a public key is ed25519: and 32 bytes in base64");
        return 0;
    default:
        return ep_cli_one(key, arg, state, &v->directory);
    }
}

static const struct argp_option options[] = {
    {"key", 'k', "ed25519:…", 0, "The head of the chain must be signed by this key", 0},
    {0},
};

static const struct argp argp = {
    .options = options,
    .parser = parse,
    .args_doc = "DIR",
    .doc = "Checks every record of an audit directory: its hash, that it follows the one before, and that none is "
           "missing at either end.\vExit status: 0 whole, 1 a record was changed, removed or reordered, or there is none, 3 the directory "
           "can't be read.",
};

int ep_cli_audit_readable(const char *directory)
{
    struct stat st;

    if (stat(directory, &st) == 0 && !S_ISDIR(st.st_mode))
        errno = ENOTDIR;
    else if (access(directory, R_OK | X_OK) == 0)
        return EP_EXIT_GOOD;
    fprintf(stderr, "%s: %s\n", directory, strerror(errno));
    return EP_EXIT_ENVIRONMENT;
}

static int verify(int argc, char **argv)
{
    struct verify v = {0};
    struct ep_error err;
    int64_t n;

    argp_parse(&argp, argc, argv, 0, NULL, &v);
    if (ep_cli_audit_readable(v.directory) != EP_EXIT_GOOD)
        return EP_EXIT_ENVIRONMENT;
    n = ep_audit_verify(v.directory, v.keyed ? v.key : NULL, &err);
    if (n < 0) {
        fprintf(stderr, "%s\n", err.text);
        return EP_EXIT_BAD;
    }
    if (n == 0) { /* each start writes one */
        fprintf(stderr, "%s: there is no record: this is no audit's directory, or all of it was taken away\n", v.directory);
        return EP_EXIT_BAD;
    }
    printf("%s: %lld record%s, the chain is whole%s\n", v.directory, (long long)n, n == 1 ? "" : "s",
           v.keyed ? ", its head is signed" : "");
    return EP_EXIT_GOOD;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} verbs[] = {
    {"verify", verify, "is the chain of records whole?"},
    {"show", ep_cli_audit_show, "records by time, policy, decision, tenant, agent, principle"},
    {"export", ep_cli_audit_export, "the same as JSON lines or CSV"},
};

static int usage(FILE *to, int status)
{
    fprintf(to, "Usage: ephor audit VERB [OPTION...] DIR\n\n");
    for (size_t i = 0; i < EP_COUNT(verbs); i++)
        fprintf(to, "  %-8s %s\n", verbs[i].name, verbs[i].help);
    fprintf(to, "\nEach has --help.\n");
    return status;
}

int ep_cli_audit(int argc, char **argv)
{
    char name[64];

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0))
        return usage(stdout, EP_EXIT_GOOD);
    for (size_t i = 0; argc > 1 && i < EP_COUNT(verbs); i++) {
        if (strcmp(argv[1], verbs[i].name) != 0)
            continue;
        (void)snprintf(name, sizeof name, "ephor audit %s", verbs[i].name);
        argv[1] = name;
        return verbs[i].run(argc - 1, argv + 1);
    }
    if (argc > 1)
        fprintf(stderr, "ephor audit: there is no '%s'\n", argv[1]);
    return usage(stderr, EP_EXIT_USAGE);
}
