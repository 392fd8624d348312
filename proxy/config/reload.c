/* Taking a configuration over, or leaving it: from the file, from the history, or just its identity. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/binds.h"
#include "config/process.h"
#include "filter/charter.h"

/* --- telling --- */

static void count(struct ep_server *s, const char *result)
{
    ep_stats_add(s->shards[s->n], EP_METRIC_RELOADS, EP_LABELS(ep_str(result)), 1);
}

void ep_reload_reject(struct ep_server *s, const char *text)
{
    free(s->rejected);
    s->rejected = ep_strdup(text);
    s->rejected_wall_ns = ep_clock_wall_ns();
    count(s, "rejected");
    ep_audit_record(
        s->audit, s->shards[s->n], "configuration",
        (struct ep_audit_field[]){{.key = "result", .value = EP_STR("rejected")}, {.key = "reason", .value = ep_str(text)}},
        2, NULL);
}

static void tell_accepted(struct ep_server *s, const char *result)
{
    char generation[24];

    snprintf(generation, sizeof generation, "%llu", (unsigned long long)s->generation);
    free(s->rejected);
    s->rejected = NULL;
    s->accepted_wall_ns = ep_clock_wall_ns();
    count(s, result);
    ep_info("config", "generation %s %s: %zu listeners, %zu clusters", generation, result, s->config->listeners.n,
            s->config->clusters.n);
}

/* What changes ephor is on record before it does. False: it can't be, and must. */
static bool record(struct ep_server *s, const struct ep_attempt *a, const char *result, struct ep_error *err)
{
    const struct ep_charter *charter = a->config->constitution.charter;
    char generation[24];
    size_t n = (size_t)snprintf(generation, sizeof generation, "%llu", (unsigned long long)a->generation);
    const struct ep_audit_field fields[] = {
        {.key = "result", .value = ep_str(result)},
        {.key = "generation", .value = ep_str_n(generation, n)},
        {.key = "constitutional_hash", .value = a->config->constitution.hash},
        {.key = "constitution_digest", .value = charter ? charter->digest : (struct ep_str){NULL, 0}},
    };

    if (ep_audit_record(a->audit, s->shards[s->n], "configuration", fields, EP_COUNT(fields), NULL) == 0 ||
        !ep_audit_required(a->audit))
        return true;
    return ep_error_set(err, "audit.required: the change can't be recorded");
}

static void tell_expiry(struct ep_server *s)
{
    if (s->identity) {
        char end[32];
        ep_cell_set(ep_stats_cell(s->shards[s->n], EP_METRIC_CERTIFICATE_EXPIRY, EP_LABELS(EP_STR("files"))),
                    (uint64_t)s->identity->expiry);
        if ((uint64_t)s->identity->expiry * EP_S <= ep_clock_wall_ns() &&
            ep_time_rfc3339((uint64_t)s->identity->expiry * EP_S, end))
            ep_warn("config", "the identity's certificate ended at %.19sZ: peers that verify it refuse us", end);
    }
    if (s->egress->ca)
        ep_cell_set(ep_stats_cell(s->shards[s->n], EP_METRIC_CERTIFICATE_EXPIRY, EP_LABELS(EP_STR("egress"))),
                    (uint64_t)ep_ca_expiry(s->egress->ca));
}

/* --- what a configuration is made of, as a number --- */

static uint64_t digest_of(const struct ep_config *c)
{
    char *text = ep_config_print(c, true);
    uint64_t digest = ep_hash(text, strlen(text));

    if (c->constitution.charter)
        digest ^= ep_hash(c->constitution.charter->digest.p, c->constitution.charter->digest.n);
    explicit_bzero(text, strlen(text));
    free(text);
    return digest;
}

/* --- sockets --- */

static bool kept(const struct ep_server *s, const struct ep_listener_config *l)
{
    const struct ep_listener_config *old = s->config ? s->config->listeners.v : NULL;

    for (size_t i = 0; s->generation && i < s->config->listeners.n; i++)
        if (ep_str_eq(old[i].name, l->name) && ep_addr_equal(&old[i].bind, &l->bind) &&
            old[i].intercept == l->intercept)
            return true;
    return false;
}

static void close_sockets(struct ep_attempt *a)
{
    for (size_t i = 0; i < a->config->listeners.n * a->n_workers; i++)
        if (a->fds[i] >= 0)
            close(a->fds[i]);
}

/* One socket a worker; of a Unix socket, one for all. */
static bool open_sockets(struct ep_server *s, struct ep_attempt *a, struct ep_error *err)
{
    const struct ep_listener_config *l = a->config->listeners.v;

    for (size_t i = 0; !s->generation && i < a->config->listeners.n; i++)
        if (!ep_bind_free(&l[i].bind, err))
            return ep_error_prefix(err, "listener %.*s", EP_STR_ARG(l[i].name));
    for (size_t i = 0; i < a->config->listeners.n; i++) {
        struct ep_listener_options o = {.bind = l[i].bind, .intercept = (enum ep_intercept)l[i].intercept};
        if (kept(s, &l[i]))
            continue;
        for (unsigned w = 0; w < a->n_workers; w++) {
            int *fd = &a->fds[i * a->n_workers + w];
            if (w > 0 && o.bind.u.sa.sa_family == AF_UNIX)
                *fd = dup(fd[-1]);
            else
                *fd = ep_listener_socket(&o, err);
            if (*fd < 0)
                return ep_error_prefix(err, "listener %.*s", EP_STR_ARG(l[i].name));
        }
    }
    return true;
}

/* --- taking over --- */

static bool build(struct ep_server *s, struct ep_attempt *a, struct ep_error *err)
{
    const struct ep_error *bad = NULL;

    ep_round(s, ep_serving_build, a);
    for (unsigned i = 0; i < s->n && !bad; i++)
        if (!s->serving[i].next)
            bad = &a->errors[i];
    if (!bad)
        return true;
    ep_error_set(err, "%s", bad->text);
    ep_round(s, ep_serving_abort, a);
    return false;
}

static bool same_str(struct ep_str a, struct ep_str b)
{
    return ep_str_eq(a, b);
}

/* The audit stays while its directory does: it holds a lock there, and the chain goes on. */
static bool open_audit(struct ep_server *s, const struct ep_config *config, struct ep_audit **audit,
                       struct ep_error *err)
{
    *audit = s->audit;
    if (s->generation && same_str(s->config->audit.directory, config->audit.directory)) {
        if (s->audit && (s->config->audit.retain_ns != config->audit.retain_ns ||
                         s->config->audit.sync_ns != config->audit.sync_ns ||
                         s->config->audit.required != config->audit.required ||
                         !same_str(s->config->audit.sign, config->audit.sign)))
            ep_warn("config", "audit.retain, sync, required and sign change with a restart only");
        return true;
    }
    *audit = NULL;
    if (!config->audit.directory.n)
        return true;
    *audit = ep_audit_new(&config->audit, err);
    return *audit != NULL;
}

static void warn_of_restart(const struct ep_server *s, const struct ep_config *config)
{
    if (!s->generation)
        return;
    if (ep_config_workers(config) != s->n)
        ep_warn("config", "workers: a change takes a restart");
    if (!ep_addr_equal(&config->admin.bind, &s->config->admin.bind) ||
        !ep_addr_equal(&config->admin.metrics, &s->config->admin.metrics))
        ep_warn("config", "admin.bind and admin.metrics: a change takes a restart");
    if (!same_str(config->state, s->config->state))
        ep_warn("config", "state: a change takes a restart");
}

/* Since when the hash and the text are what they are: over reloads that change neither. */
static void date_constitution(struct ep_server *s, const struct ep_config *old)
{
    const struct ep_constitution_config *c = &s->config->constitution, *before = old ? &old->constitution : NULL;
    struct ep_str none = {NULL, 0};

    if (before && same_str(c->hash, before->hash) &&
        same_str(c->charter ? c->charter->digest : none, before->charter ? before->charter->digest : none))
        return;
    s->constitution_wall_ns = c->hash.n ? ep_clock_wall_ns() : 0;
    if (c->charter)
        ep_info("constitution", "version %.*s is in force: %.*s, %zu principles%s", EP_STR_ARG(c->charter->version),
                EP_STR_ARG(c->charter->digest), c->charter->n_principles, c->charter->signer.n ? ", signed" : "");
}

/* The bundle and the folders in it that hold files. */
static void watch_bundle(struct ep_server *s)
{
    const struct ep_constitution_config *c = &s->config->constitution;
    static const char *const pages[] = {EP_CHARTER_YAML, EP_CHARTER_SIGNATURE};
    struct ep_str last = {NULL, 0};

    ep_watch_directory(&s->watch, c->bundle);
    for (size_t i = 0; c->bundle.n && i < EP_COUNT(pages); i++) {
        char *page;
        if (asprintf(&page, "%.*s/%s", EP_STR_ARG(c->bundle), pages[i]) < 0)
            abort();
        ep_watch_file(&s->watch, ep_str(page));
        free(page);
    }
    for (size_t i = 0; c->charter && i < c->charter->n_files; i++) {
        struct ep_str path = c->charter->files[i].path;
        char *folder;
        while (path.n && path.p[path.n - 1] != '/')
            path.n--;
        if (!path.n || ep_str_eq(path, last))
            continue;
        last = path;
        if (asprintf(&folder, "%.*s/%.*s", EP_STR_ARG(c->bundle), (int)path.n - 1, path.p) < 0)
            abort();
        ep_watch_directory(&s->watch, ep_str(folder));
        free(folder);
    }
}

static void watch(struct ep_server *s)
{
    ep_watch_begin(&s->watch);
    ep_watch_file(&s->watch, ep_str(s->path));
    ep_watch_file(&s->watch, s->config->policies.directory); /* it may be a link, go, and come back */
    ep_watch_directory(&s->watch, s->config->policies.directory);
    watch_bundle(s);
    if (s->config->identity) {
        ep_watch_file(&s->watch, s->config->identity->files.certificate);
        ep_watch_file(&s->watch, s->config->identity->files.key);
        ep_watch_file(&s->watch, s->config->identity->files.roots);
    }
    ep_watch_end(&s->watch);
}

/* Everything is made and every worker holds the new view: put it in the place of the old. */
static void settle(struct ep_server *s, struct ep_attempt *a, uint64_t digest, const char *result)
{
    struct ep_config *old = s->generation ? s->config : NULL;

    warn_of_restart(s, a->config);
    if (s->audit && s->audit != a->audit)
        ep_audit_free(s->audit); /* the workers have let go of it */
    s->audit = a->audit;
    ep_memory_limit(s->memory, (uint64_t)a->config->policies.memory.entries, a->config->policies.memory.bytes);
    ep_identity_unref(s->identity);
    s->identity = a->identity;
    ep_egress_unref(s->egress);
    s->egress = a->egress;
    s->config = a->config;
    s->generation = a->generation;
    s->digest = digest;
    date_constitution(s, old);
    if (old)
        ep_bind_unlink(old, s->config);
    ep_config_unref(old);
    ep_history_push(&s->history, s->config->text);
    ep_cell_set(ep_stats_cell(s->shards[s->n], EP_METRIC_GENERATION, NULL), s->generation);
    if (result)
        tell_accepted(s, result);
    tell_expiry(s);
    watch(s);
}

bool ep_reload_take(struct ep_server *s, struct ep_config *config, struct ep_policy_change *change, const char *result,
                    struct ep_error *err)
{
    const struct ep_listener_config *l = config->listeners.v;
    struct ep_policy_change need = change ? *change : (struct ep_policy_change){0};
    struct ep_attempt a = {
        .config = config, .generation = s->generation + 1, .n_workers = s->n, .policies = &need};
    uint64_t digest = digest_of(config);
    bool good = false;

    a.fds = ep_calloc(config->listeners.n * s->n + 1, sizeof *a.fds);
    a.own = ep_calloc(config->listeners.n + 1, sizeof *a.own);
    a.errors = ep_calloc(s->n, sizeof *a.errors);
    for (size_t i = 0; i < config->listeners.n; i++)
        a.own[i] = l[i].bind;
    memset(a.fds, 0xff, config->listeners.n * s->n * sizeof *a.fds);
    a.audit = s->audit;
    if (config->identity) {
        a.identity = ep_identity_load(config->identity, err);
        if (!a.identity)
            goto done;
        if (s->identity && s->identity->digest == a.identity->digest) { /* so that connections needn't be made anew */
            ep_identity_unref(a.identity);
            a.identity = ep_identity_ref(s->identity);
        }
    }
    a.egress = ep_egress_load(config, s->pinned, s->egress, err);
    if (!a.egress)
        goto done;
    if ((!change && !ep_policy_life_need(s, config, &need, err)) || !open_audit(s, config, &a.audit, err) ||
        !open_sockets(s, &a, err) || !build(s, &a, err))
        goto done;
    if (!ep_egress_write_bundle(a.egress, err) || (result && !record(s, &a, result, err)) ||
        !ep_policy_life_record(s, a.audit, &need, err)) {
        ep_round(s, ep_serving_abort, &a);
        goto done;
    }
    ep_round(s, ep_serving_commit, &a);
    settle(s, &a, digest, result);
    ep_policy_life_took(s, &need);
    good = true;
done:
    if (!good) {
        ep_policy_life_drop(s, &need);
        close_sockets(&a);
        ep_identity_unref(a.identity);
        ep_egress_unref(a.egress);
        if (a.audit && a.audit != s->audit)
            ep_audit_free(a.audit);
    }
    free(a.fds);
    free(a.own);
    free(a.errors);
    return good;
}

/* The files changed and the configuration didn't: new contexts under the same view. */
static void rotate(struct ep_server *s)
{
    struct ep_identity *fresh;
    struct ep_error err;

    if (!s->config->identity)
        return;
    fresh = ep_identity_load(s->config->identity, &err);
    if (!fresh) { /* certificate and key are two files: between their writing they don't fit */
        ep_warn("config", "the identity stays as it was: %s", err.text);
        return;
    }
    if (s->identity && s->identity->digest == fresh->digest) {
        ep_identity_unref(fresh);
        return;
    }
    ep_round(s, ep_serving_rotate, fresh);
    ep_identity_unref(s->identity);
    s->identity = fresh;
    tell_expiry(s);
    ep_info("config", "the identity was rotated");
}

static void log_problems(struct ep_problems *p)
{
    char *text = ep_problems_text(p, false);
    struct ep_str rest = ep_str(text), line;

    while (ep_str_next(&rest, '\n', &line))
        if (line.n)
            ep_log(p->errors ? EP_LOG_ERROR : EP_LOG_WARN, "config", "%.*s", EP_STR_ARG(line));
    free(text);
}

static bool reload(struct ep_server *s, enum ep_reload_why why, struct ep_error *err)
{
    struct ep_problems problems;
    struct ep_config *config;
    bool good;

    if (s->stage != EP_DRAIN_NOT)
        return ep_error_set(err, "the process is ending");
    if (why == EP_RELOAD_SEEN && access(s->path, F_OK) < 0) {
        /* Being replaced, or gone: then this process goes on, but the next start would fail. */
        ep_warn("config", "%s: %s; generation %llu stays", s->path, strerror(errno), (unsigned long long)s->generation);
        return true;
    }
    ep_problems_init(&problems);
    config = ep_config_load(s->path, &problems);
    log_problems(&problems);
    if (!config) {
        ep_problems_first(&problems, err);
        good = false;
    } else if (why == EP_RELOAD_SEEN && digest_of(config) == s->digest) {
        rotate(s);
        watch(s);
        count(s, "unchanged");
        free(s->rejected); /* what was wrong was taken back */
        s->rejected = NULL;
        ep_config_unref(config);
        ep_problems_fini(&problems);
        return true;
    } else {
        good = ep_reload_take(s, config, NULL, "accepted", err);
        if (!good) {
            ep_fail("config", "%s", err->text);
            ep_config_unref(config);
        }
    }
    ep_problems_fini(&problems);
    if (good)
        return true;
    ep_reload_reject(s, err->text);
    ep_warn("config", "the configuration was rejected; generation %llu stays", (unsigned long long)s->generation);
    return false;
}

bool ep_reload(struct ep_server *s, enum ep_reload_why why, struct ep_error *err)
{
    bool good = reload(s, why, err);

    ep_policy_life_look(s, why == EP_RELOAD_ASKED); /* whatever became of the configuration */
    return good;
}

bool ep_server_rollback(struct ep_server *s, struct ep_error *err)
{
    struct ep_str text = ep_history_previous(&s->history);
    struct ep_problems problems;
    struct ep_config *config;
    bool good;

    if (s->stage != EP_DRAIN_NOT)
        return ep_error_set(err, "the process is ending");
    if (!text.p)
        return ep_error_set(err, "there is no configuration before this one");
    ep_problems_init(&problems);
    config = ep_config_complete(ep_config_parse(text, "the previous configuration", &problems), &problems);
    if (config) {
        ep_history_pop(&s->history);
        good = ep_reload_take(s, config, NULL, "rollback", err);
        if (!good) {
            ep_history_push(&s->history, s->config->text);
            ep_config_unref(config);
        }
    } else {
        ep_problems_first(&problems, err);
        good = false;
    }
    ep_problems_fini(&problems);
    if (!good)
        ep_reload_reject(s, err->text);
    return good;
}
