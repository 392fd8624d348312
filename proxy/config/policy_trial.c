/* A line a policy: seconds, digest, name. Beyond the limit the one noted first goes. */
#include "config/policy_trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/files.h"

static void note(struct ep_policy_trials *t, struct ep_str name, const char *digest, uint64_t since_ns)
{
    struct ep_policy_seen *s;

    if (t->n == EP_POLICY_TRIALS_MAX) {
        free(t->v[0].name);
        memmove(&t->v[0], &t->v[1], --t->n * sizeof t->v[0]);
    }
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 16;
        t->v = ep_realloc(t->v, t->cap * sizeof t->v[0]);
    }
    s = &t->v[t->n++];
    *s = (struct ep_policy_seen){.name = ep_strndup(name.p, name.n), .since_ns = since_ns};
    memcpy(s->digest, digest, EP_POLICY_BUNDLE_DIGEST_HEX);
}

static void read_lines(struct ep_policy_trials *t, struct ep_str rest)
{
    struct ep_str line, seconds, digest;
    uint64_t since;

    while (ep_str_next(&rest, '\n', &line)) {
        if (!line.n)
            continue;
        if (ep_str_next(&line, ' ', &seconds) && ep_str_u64(seconds, &since) && ep_str_next(&line, ' ', &digest) &&
            digest.n == EP_POLICY_BUNDLE_DIGEST_HEX && line.n && since < UINT64_MAX / EP_S)
            note(t, line, digest.p, since * EP_S);
        else
            ep_warn("policy", "%s has a damaged line", t->path);
    }
}

void ep_policy_trials_init(struct ep_policy_trials *t, const char *directory)
{
    struct ep_error err;
    struct ep_str text;

    memset(t, 0, sizeof *t);
    if (!directory)
        return;
    if (asprintf(&t->path, "%s/seen", directory) < 0)
        abort();
    if (access(t->path, F_OK) < 0)
        return;
    if (!ep_file_read(ep_str(t->path), 4u << 20, &text, &err)) {
        ep_warn("policy", "%s %s", t->path, err.text);
        return;
    }
    read_lines(t, text);
    ep_file_free(&text, false);
}

void ep_policy_trials_fini(struct ep_policy_trials *t)
{
    for (unsigned i = 0; i < t->n; i++)
        free(t->v[i].name);
    free(t->v);
    free(t->path);
    memset(t, 0, sizeof *t);
}

uint64_t ep_policy_trials_until(struct ep_policy_trials *t, const char *name, const char *digest, uint64_t shadow_for_ns,
                                bool changes, uint64_t now_ns)
{
    struct ep_policy_seen *exact = NULL;
    uint64_t since = UINT64_MAX;

    for (unsigned i = 0; i < t->n; i++) {
        if (strcmp(t->v[i].name, name) != 0)
            continue;
        if (t->v[i].since_ns > now_ns) { /* a clock that was wrong must not make it a shadow for ever */
            t->v[i].since_ns = now_ns;
            t->changed = true;
        }
        bool same = strcmp(t->v[i].digest, digest) == 0;
        if (same)
            exact = &t->v[i];
        if (same || !changes)
            since = EP_MIN(since, t->v[i].since_ns);
    }
    if (!exact) {
        note(t, ep_str(name), digest, shadow_for_ns ? now_ns - now_ns % EP_S : 0);
        t->changed = true;
        since = EP_MIN(since, t->v[t->n - 1].since_ns);
    }
    return since && shadow_for_ns && since + shadow_for_ns > now_ns ? since + shadow_for_ns : 0;
}

void ep_policy_trials_save(struct ep_policy_trials *t)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f;
    int rc;

    if (!t->changed || !t->path)
        return;
    f = open_memstream(&text, &n);
    if (!f)
        abort();
    for (unsigned i = 0; i < t->n; i++)
        fprintf(f, "%llu %s %s\n", (unsigned long long)(t->v[i].since_ns / EP_S), t->v[i].digest, t->v[i].name);
    if (fclose(f) != 0)
        abort();
    rc = ep_file_write(t->path, ep_str_n(text, n), 0600);
    if (rc)
        ep_warn("policy", "%s: %s; policies that are new now will be new again after a restart", t->path, strerror(-rc));
    else
        t->changed = false;
    free(text);
}
