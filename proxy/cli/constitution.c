/* `ephor constitution digest|show|sign|verify|keygen`: the text of a constitution, for who writes and who pins it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/arguments.h"
#include "cli/cli.h"
#include "config/charter.h"
#include "config/files.h"

struct options {
    const char *path, *key, *digest;
    bool listing, public_only;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 'k':
        o->key = arg;
        return 0;
    case 'd':
        o->digest = arg;
        return 0;
    case 'l':
        o->listing = true;
        return 0;
    case 'p':
        o->public_only = true;
        return 0;
    default:
        return ep_cli_one(key, arg, state, &o->path);
    }
}

#define EXITS "\vExit status: 0 good, 1 the text is not good or not the one asked for, 3 a file can't be read or written."

static const struct argp_option digest_options[] = {
    {"listing", 'l', NULL, 0, "Print the canonical listing that the digest is of", 0}, {0}};
static const struct argp_option sign_options[] = {{"key", 'k', "FILE", 0, "The private key (PEM)", 0}, {0}};
static const struct argp_option verify_options[] = {
    {"key", 'k', "ed25519:…", 0, "The public key that must have signed it", 0},
    {"digest", 'd', "sha256:…", 0, "The digest that it must have", 0},
    {0},
};
static const struct argp_option keygen_options[] = {
    {"public", 'p', NULL, 0, "Print the public key of a private key that is there", 0}, {0}};

static struct ep_charter *read_text(const struct options *o)
{
    struct ep_error err;
    struct ep_charter *c = ep_charter_read(ep_str(o->path), &err);

    if (!c)
        fprintf(stderr, "%s\n", err.text);
    return c;
}

static int unreadable(const struct options *o)
{
    return access(o->path, R_OK | X_OK) == 0 ? EP_EXIT_BAD : EP_EXIT_ENVIRONMENT;
}

static int digest(const struct options *o)
{
    struct ep_charter *c = read_text(o);

    if (!c)
        return unreadable(o);
    if (o->listing)
        fwrite(c->listing.p, 1, c->listing.n, stdout);
    else
        printf("%.*s\n", EP_STR_ARG(c->digest));
    ep_charter_free(c);
    return EP_EXIT_GOOD;
}

static int show(const struct options *o)
{
    static const char *const severities[] = {"low", "medium", "high", "critical"};
    struct ep_charter *c = read_text(o);

    if (!c)
        return unreadable(o);
    printf("hash     %.*s\nversion  %.*s\ndigest   %.*s\nsigned   %s\nfiles    %zu\n\n", EP_STR_ARG(c->hash),
           EP_STR_ARG(c->version), EP_STR_ARG(c->digest), c->signature.n ? "yes; verify says by whom" : "no", c->n_files);
    for (size_t i = 0; i < c->n_principles; i++) {
        const struct ep_principle *p = &c->principles[i];
        const struct ep_str *names = p->policies.v;
        printf("%.*s (%s) %.*s\n", EP_STR_ARG(p->id), severities[p->severity], EP_STR_ARG(p->text));
        for (size_t k = 0; k < p->policies.n; k++)
            printf("    %.*s\n", EP_STR_ARG(names[k]));
    }
    ep_charter_free(c);
    return EP_EXIT_GOOD;
}

static int sign(const struct options *o)
{
    char text[EP_CHARTER_SIGNATURE_TEXT], *path = NULL;
    struct ep_signer signer;
    struct ep_charter *c;
    struct ep_error err;
    size_t n;
    int rc;

    if (!o->key) {
        fprintf(stderr, "ephor constitution sign: --key is missing\n");
        return EP_EXIT_USAGE;
    }
    c = read_text(o);
    if (!c)
        return unreadable(o);
    if (!ep_signer_load(ep_str(o->key), &signer, &err)) {
        fprintf(stderr, "%s\n", err.text);
        ep_charter_free(c);
        return EP_EXIT_ENVIRONMENT;
    }
    n = ep_charter_sign(c, &signer, text);
    ep_signer_forget(&signer);
    if (asprintf(&path, "%s/" EP_CHARTER_SIGNATURE, o->path) < 0)
        abort();
    rc = ep_file_write(path, ep_str_n(text, n), 0600);
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", path, strerror(-rc));
    else
        printf("%.*s\n", EP_STR_ARG(c->digest));
    free(path);
    ep_charter_free(c);
    return rc < 0 ? EP_EXIT_ENVIRONMENT : EP_EXIT_GOOD;
}

static int verify(const struct options *o)
{
    uint8_t key[EP_PUBLIC_KEY_BYTES];
    struct ep_charter *c;
    struct ep_error err;
    bool good;

    if (o->key && !ep_public_key_parse(ep_str(o->key), key)) {
        fprintf(stderr, "ephor constitution verify: a public key is ed25519: and 32 bytes in base64\n");
        return EP_EXIT_USAGE;
    }
    if (!o->key && !o->digest) {
        fprintf(stderr, "ephor constitution verify: by what? --key or --digest\n");
        return EP_EXIT_USAGE;
    }
    c = read_text(o);
    if (!c)
        return unreadable(o);
    good = !o->digest || ep_str_eq(c->digest, ep_str(o->digest)) ||
           ep_error_set(&err, "this is another text: its digest is %.*s", EP_STR_ARG(c->digest));
    good = good && (!o->key || ep_charter_signed(c, key, &err));
    if (good)
        printf("%s: version %.*s, %.*s: good\n", o->path, EP_STR_ARG(c->version), EP_STR_ARG(c->digest));
    else
        fprintf(stderr, "%s: %s\n", o->path, err.text);
    ep_charter_free(c);
    return good ? EP_EXIT_GOOD : EP_EXIT_BAD;
}

static bool write_key(const char *path, const struct ep_signer *s, struct ep_error *err)
{
    char pem[EP_PRIVATE_PEM_BYTES];
    size_t n = ep_signer_pem(s, pem);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600); /* a key that is there is not written over */
    bool good = fd >= 0 && write(fd, pem, n) == (ssize_t)n && fsync(fd) == 0;

    explicit_bzero(pem, sizeof pem);
    if (!good)
        (void)ep_error_set(err, "%s: %s", path, strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    return good;
}

static int keygen(const struct options *o)
{
    uint8_t key[EP_PUBLIC_KEY_BYTES];
    char text[EP_PUBLIC_KEY_TEXT];
    struct ep_signer signer;
    struct ep_error err;
    bool good = o->public_only ? ep_signer_load(ep_str(o->path), &signer, &err)
                               : ep_signer_generate(&signer, &err) && write_key(o->path, &signer, &err);

    if (!good) {
        fprintf(stderr, "%s\n", err.text);
        return EP_EXIT_ENVIRONMENT;
    }
    ep_signer_public(&signer, key);
    ep_signer_forget(&signer);
    ep_public_key_text(key, text);
    printf("%s\n", text);
    return EP_EXIT_GOOD;
}

static const struct {
    const char *name, *help;
    int (*run)(const struct options *o);
    struct argp argp;
} verbs[] = {
    {"digest", "the digest to pin", digest,
     {.options = digest_options, .parser = parse, .args_doc = "DIR", .doc = "Prints the digest of a constitution's text." EXITS}},
    {"show", "hash, version, digest, principles", show,
     {.parser = parse, .args_doc = "DIR", .doc = "Prints what a constitution says of itself." EXITS}},
    {"sign", "write " EP_CHARTER_SIGNATURE " beside the text", sign,
     {.options = sign_options, .parser = parse, .args_doc = "DIR", .doc = "Signs a constitution's text." EXITS}},
    {"verify", "is it this text, signed by this key?", verify,
     {.options = verify_options, .parser = parse, .args_doc = "DIR", .doc = "Checks digest and signature." EXITS}},
    {"keygen", "make a private key; print its public key", keygen,
     {.options = keygen_options, .parser = parse, .args_doc = "FILE",
      .doc = "Makes an Ed25519 key in a new FILE and prints its public key." EXITS}},
};

static int usage(FILE *to, int status)
{
    fprintf(to, "Usage: ephor constitution VERB [OPTION...] DIR\n\n");
    for (size_t i = 0; i < EP_COUNT(verbs); i++)
        fprintf(to, "  %-8s %s\n", verbs[i].name, verbs[i].help);
    fprintf(to, "\nEach has --help.\n");
    return status;
}

int ep_cli_constitution(int argc, char **argv)
{
    struct options o = {0};
    char name[64];

    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0))
        return usage(stdout, EP_EXIT_GOOD);
    for (size_t i = 0; argc > 1 && i < EP_COUNT(verbs); i++) {
        if (strcmp(argv[1], verbs[i].name) != 0)
            continue;
        (void)snprintf(name, sizeof name, "ephor constitution %s", verbs[i].name);
        argv[1] = name;
        argp_parse(&verbs[i].argp, argc - 1, argv + 1, 0, NULL, &o);
        return verbs[i].run(&o);
    }
    if (argc > 1)
        fprintf(stderr, "ephor constitution: there is no '%s'\n", argv[1]);
    return usage(stderr, EP_EXIT_USAGE);
}
