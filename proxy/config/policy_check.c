/* Reading, compiling and testing a version of the policies, off the data path: in the job's thread, or in the main one at
 * the start. Touches nothing of the workers. */
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "config/process.h"
#include "lua/policy_test.h"

#define NICE 10 /* a worker that wakes goes first */

void ep_policy_members_free(struct ep_policy_member *m, unsigned n)
{
    for (unsigned i = 0; m && i < n; i++)
        free(m[i].name);
    free(m);
}

void ep_policy_sets_free(struct ep_policy_set **sets, unsigned n)
{
    for (unsigned i = 0; sets && i < n; i++)
        if (sets[i])
            ep_policy_set_unref(sets[i]);
    free(sets);
}

static void list_members(struct ep_policy_check *c)
{
    const struct ep_policy_set *set = c->sets[0];

    c->members = ep_calloc(set->n + 1, sizeof *c->members);
    for (unsigned i = 0; i < set->n; i++) {
        const struct ep_policy *p = set->v[i];
        if (p->constitutional)
            continue;
        struct ep_policy_member *m = &c->members[c->n_members++];
        m->name = ep_strndup(p->name.p, p->name.n);
        ep_policy_bundle_digest(c->bundle, ep_policy_bundle_find(c->bundle, p->file), m->digest);
    }
}

/* Without a directory (the constitution's policies alone) an empty one. */
static bool read_directory(struct ep_policy_check *c)
{
    char *directory = ep_strndup(c->config->directory.p, c->config->directory.n);

    c->bundle = c->config->directory.n && c->config->mode != EP_MODE_OFF ? ep_policy_bundle_read(directory, &c->err)
                                                                         : ep_policy_bundle_empty();
    free(directory);
    return c->bundle != NULL;
}

static bool make_sets(struct ep_policy_check *c)
{
    struct ep_server *s = c->server;

    c->sets = ep_calloc(s->n, sizeof(struct ep_policy_set *));
    for (unsigned i = 0; i < s->n; i++) {
        c->sets[i] = ep_policy_set_prepare(&s->serving[i].worker, c->config, c->bundle, &c->err);
        if (!c->sets[i])
            return false;
        c->sets[i]->reaper = &s->main;
    }
    return true;
}

void ep_policy_check_run(struct ep_policy_check *c)
{
    uint64_t start = ep_clock_ns();

    if (c->bundle || read_directory(c)) {
        memcpy(c->digest, c->bundle->digest, sizeof c->digest);
        c->unchanged = strcmp(c->digest, c->known) == 0;
        c->good = !c->unchanged && make_sets(c) &&
                  (!c->tests || ep_policy_bundle_tests_pass(c->config, c->bundle, &c->err));
    }
    if (c->good)
        list_members(c);
    c->took_ns = ep_clock_ns() - start;
}

static void *job_main(void *arg)
{
    struct ep_policy_job *j = arg;
    struct ep_worker *home = &j->check.server->main;

    pthread_setname_np(pthread_self(), "ephor/policies");
    if (setpriority(PRIO_PROCESS, (id_t)gettid(), NICE) < 0)
        ep_debug("policy", "the thread that checks policies has the priority of the others");
    ep_policy_check_run(&j->check);
    ep_worker_post(home, &j->mail);
    return NULL;
}

bool ep_policy_job_start(struct ep_policy_job *j)
{
    return pthread_create(&j->thread, NULL, job_main, j) == 0;
}
