/* Files are policies/0000000007-<digest>, each one bundle, and policies/current with two lines. Each is written beside and
 * renamed, so that a process which is killed leaves the old one or the new one; a damaged one is left out. */
#include "config/policy_versions.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/files.h"

#define NUMBER_DIGITS 10u
#define KEPT_BYTES    (EP_POLICY_BUNDLE_BYTES_MAX + (1u << 20))

static char *path_of(const struct ep_policy_versions *s, const char *name)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s", s->directory, name) < 0)
        abort();
    return path;
}

static char *path_of_version(const struct ep_policy_versions *s, const struct ep_policy_version *v)
{
    char name[NUMBER_DIGITS + EP_POLICY_BUNDLE_DIGEST_HEX + 16];

    snprintf(name, sizeof name, "%010llu-%s", (unsigned long long)v->number, v->bundle->digest);
    return path_of(s, name);
}

static void drop(struct ep_policy_versions *s, unsigned i, bool file)
{
    if (file && s->directory) {
        char *path = path_of_version(s, &s->v[i]);
        unlink(path);
        free(path);
    }
    ep_policy_bundle_unref(s->v[i].bundle);
    s->n--;
    memmove(&s->v[i], &s->v[i + 1], (s->n - i) * sizeof s->v[0]);
}

static int ours(const struct dirent *d)
{
    struct ep_str name = ep_str(d->d_name);
    uint64_t number;

    return name.n == NUMBER_DIGITS + 1 + EP_POLICY_BUNDLE_DIGEST_HEX && name.p[NUMBER_DIGITS] == '-' &&
           ep_str_u64(ep_str_n(name.p, NUMBER_DIGITS), &number);
}

static void read_version(struct ep_policy_versions *s, const char *name)
{
    char *path = path_of(s, name);
    struct ep_policy_version v = {.number = strtoull(name, NULL, 10)};
    struct ep_error err;
    struct ep_str text;
    struct stat st;

    s->next = EP_MAX(s->next, v.number + 1);
    if (ep_file_read(ep_str(path), KEPT_BYTES, &text, &err)) {
        v.bundle = ep_policy_bundle_parse(text, &err);
        ep_file_free(&text, false);
    }
    if (v.bundle && strcmp(v.bundle->digest, name + NUMBER_DIGITS + 1) != 0) {
        ep_policy_bundle_unref(v.bundle);
        v.bundle = NULL;
        ep_error_set(&err, "is damaged");
    }
    if (v.bundle) {
        if (stat(path, &st) == 0)
            v.taken_ns = (uint64_t)st.st_mtim.tv_sec * EP_S + (uint64_t)st.st_mtim.tv_nsec;
        if (s->n == EP_POLICY_VERSIONS)
            drop(s, 0, true);
        s->v[s->n++] = v;
    } else {
        ep_warn("policy", "%s %s", path, err.text);
    }
    free(path);
}

static void read_current(struct ep_policy_versions *s)
{
    char *path = path_of(s, "current");
    struct ep_error err;
    struct ep_str text, rest, line;

    if (access(path, F_OK) == 0 && ep_file_read(ep_str(path), 4096, &text, &err)) {
        rest = text;
        for (int i = 0; i < 2 && ep_str_next(&rest, '\n', &line); i++)
            if (line.n == EP_POLICY_BUNDLE_DIGEST_HEX)
                memcpy(i == 0 ? s->current : s->over, line.p, line.n);
        ep_file_free(&text, false);
    }
    free(path);
}

void ep_policy_versions_init(struct ep_policy_versions *s, struct ep_str directory)
{
    struct dirent **names = NULL;
    int n;

    memset(s, 0, sizeof *s);
    s->next = 1;
    if (!directory.n)
        return;
    if (asprintf(&s->directory, "%.*s/policies", EP_STR_ARG(directory)) < 0)
        abort();
    if (mkdir(s->directory, 0700) < 0 && errno != EEXIST) {
        ep_warn("policy", "state %s: %s; versions of the policies are kept in memory only", s->directory,
                strerror(errno));
        free(s->directory);
        s->directory = NULL;
        return;
    }
    n = scandir(s->directory, &names, ours, alphasort);
    for (int i = 0; i < n; i++) {
        read_version(s, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    read_current(s);
}

void ep_policy_versions_fini(struct ep_policy_versions *s)
{
    while (s->n)
        drop(s, s->n - 1, false);
    free(s->directory);
    memset(s, 0, sizeof *s);
}

int ep_policy_versions_find(const struct ep_policy_versions *s, const char *digest)
{
    for (unsigned i = 0; i < s->n; i++)
        if (strcmp(s->v[i].bundle->digest, digest) == 0)
            return (int)i;
    return -1;
}

static void write_file(char *path, struct ep_str text)
{
    int rc = ep_file_write(path, text, 0600);

    if (rc)
        ep_warn("policy", "%s: %s", path, strerror(-rc));
    free(path);
}

void ep_policy_versions_add(struct ep_policy_versions *s, struct ep_policy_bundle *b, uint64_t now_ns)
{
    int there = ep_policy_versions_find(s, b->digest);
    struct ep_policy_version v = {.number = s->next++, .taken_ns = now_ns, .bundle = ep_policy_bundle_ref(b)};
    size_t n;
    char *text;

    if (there >= 0) {
        v.totals = s->v[there].totals;
        drop(s, (unsigned)there, true);
    }
    if (s->n == EP_POLICY_VERSIONS)
        drop(s, 0, true);
    s->v[s->n++] = v;
    if (!s->directory)
        return;
    text = ep_policy_bundle_print(b, &n);
    write_file(path_of_version(s, &v), ep_str_n(text, n));
    free(text);
}

void ep_policy_versions_set(struct ep_policy_versions *s, const char *current, const char *over)
{
    char text[2 * EP_POLICY_BUNDLE_DIGEST_HEX + 8];
    int n;

    if (strcmp(s->current, current) == 0 && strcmp(s->over, over) == 0)
        return;
    n = snprintf(text, sizeof text, "%s\n%s\n", current, over);
    memcpy(s->current, text, EP_POLICY_BUNDLE_DIGEST_HEX);
    snprintf(s->over, sizeof s->over, "%s", over);
    if (s->directory)
        write_file(path_of(s, "current"), ep_str_n(text, (size_t)n));
}
