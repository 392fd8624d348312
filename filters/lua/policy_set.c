/* A set of policies from its making to its end: made in its worker for tests and where no state is given, or beside the
 * workers (prepare) and handed over whole. policy.h has the picture. */
#include <stdlib.h>

#include "lua/bundle.h"
#include "lua/object.h"
#include "lua/policy.h"
#include "lua/record.h"

void ep_policy_add_statistics(struct ep_policy *p, struct ep_stats *stats)
{
    for (int d = 0; d < EP_POLICY_DECISIONS; d++)
        p->cells[d] = ep_stats_cell(stats, EP_METRIC_POLICY_DECISIONS,
                                    EP_LABELS(p->name, ep_str(ep_policy_decision_name((enum ep_policy_decision)d))));
    p->duration = ep_stats_histogram(stats, EP_METRIC_POLICY_DURATION, EP_LABELS(p->name));
}

static double share_of(const struct ep_policy_set *set, const struct ep_policy *p)
{
    return p->constitutional ? 1.0 : EP_MIN(p->enforced, set->enforced);
}

static void complete(struct ep_policy_set *set)
{
    for (unsigned i = 0; i < set->n; i++) {
        struct ep_policy *p = set->v[i];
        ep_policy_cover_init(set, p);
        p->share = share_of(set, p);
        if (!p->constitutional && set->bundle)
            p->version = ep_str(set->bundle->digest);
        set->replies |= p->reply_ref != LUA_NOREF;
        set->events |= p->event_ref != LUA_NOREF;
        set->reply_bodies |= p->needs_reply_body;
        set->fields |= p->needs;
        for (unsigned r = 0; r < p->n_rules; r++)
            set->fields |= 1u << p->rules[r].field;
        if (set->lua->shared && set->lua->worker->stats) /* else with its first match: the worker's own thread must */
            ep_policy_add_statistics(p, set->lua->worker->stats);
    }
}

static struct ep_lua_budget budget_of(const struct ep_policies_config *c)
{
    struct ep_lua_budget b = ep_lua_budget_call;

    if (c && c->budget.instructions > 0)
        b.instructions = (uint64_t)c->budget.instructions;
    if (c && c->budget.memory)
        b.memory = c->budget.memory;
    if (c && c->budget.time_ns)
        b.time_ns = c->budget.time_ns;
    return b;
}

void ep_policy_set_configure(struct ep_policy_set *set, const struct ep_policies_config *config)
{
    uint64_t slice_ns = set->budget.slice_ns;

    set->budget = set->at_once = budget_of(config);
    set->budget.slice_ns = slice_ns;
    set->lua->kept_max = config && config->kept ? config->kept : EP_LUA_KEPT_MAX;
    set->mode = config ? (enum ep_mode)config->mode : EP_MODE_ENFORCE;
    set->stream_tail = config && config->stream_tail ? config->stream_tail : EP_POLICY_STREAM_TAIL;
    set->enforced = config && config->enforce > 0 ? config->enforce : 1.0;
    for (unsigned i = 0; i < set->n; i++)
        set->v[i]->share = share_of(set, set->v[i]);
}

/* Takes over the reference to the state. */
static struct ep_policy_set *set_new(struct ep_lua *l, const void *key, const struct ep_policies_config *config)
{
    struct ep_policy_set *set = ep_calloc(1, sizeof *set);

    set->lua = l;
    set->bundle = l->bundle ? ep_policy_bundle_ref(l->bundle) : NULL;
    set->key = key;
    set->refs = 1;
    ep_policy_set_configure(set, config);
    ep_chunk_pool_init(&set->chunks, 0);
    ep_arena_init(&set->arena, &set->chunks);
    ep_list_init(&set->defined);
    ep_list_push(&l->policy_sets, &set->node);
    return set;
}

struct ep_policy_set *ep_policy_set_prepare(struct ep_worker *w, const struct ep_policies_config *config,
                                            struct ep_policy_bundle *bundle, struct ep_error *err)
{
    struct ep_lua *l = ep_lua_new(w, err);
    struct ep_policy_set *set;

    if (l)
        l->bundle = bundle;
    set = l ? set_new(l, NULL, config) : NULL;
    if (set && (!config->directory.n || config->mode == EP_MODE_OFF || ep_policy_set_load(set, config->directory, err)) &&
        ep_policy_set_charter(set, config, err)) {
        complete(set);
        ep_lua_collect_all(l); /* here, so that the worker doesn't */
        return set;
    }
    if (set)
        ep_policy_set_unref(set);
    return NULL;
}

struct ep_policy_set *ep_policy_set_ref(struct ep_worker *w, const void *key, const struct ep_policies_config *config,
                                        struct ep_error *err)
{
    struct ep_lua *l = ep_lua_ref(w, err);
    struct ep_policy_set *set;

    if (!l)
        return NULL;
    EP_LIST_FOREACH(node, &l->policy_sets)
    {
        set = EP_CONTAINER(node, struct ep_policy_set, node);
        if (key && set->key == key) {
            set->refs++;
            ep_lua_unref(l);
            return set;
        }
    }
    set = set_new(l, key, config);
    if ((config && config->directory.n && config->mode != EP_MODE_OFF && !ep_policy_set_load(set, config->directory, err)) ||
        (config && !ep_policy_set_charter(set, config, err))) {
        ep_policy_set_unref(set);
        return NULL;
    }
    if (config && config->record && !(set->recorder = ep_recorder_new(config, w, err))) {
        ep_policy_set_unref(set);
        return NULL;
    }
    complete(set);
    return set;
}

bool ep_policy_set_open(struct ep_policy_set *set, const struct ep_policies_config *config, struct ep_error *err)
{
    if (config->record && !set->recorder)
        set->recorder = ep_recorder_new(config, set->lua->worker, err);
    return !config->record || set->recorder;
}

void ep_policy_set_adopt(struct ep_policy_set *set, struct ep_policy_totals *totals)
{
    ep_lua_attach(set->lua);
    set->budget.slice_ns = EP_LUA_SLICE_NS;
    set->totals = totals;
}

struct ep_policy_set *ep_policy_set_share(struct ep_policy_set *set)
{
    set->refs++;
    return set;
}

static void set_free(struct ep_policy_set *set)
{
    struct ep_lua *l = set->lua;

    if (l->shared) /* else the whole state goes */
        EP_LIST_FOREACH(node, &set->defined)
        {
            struct ep_policy *p = EP_CONTAINER(node, struct ep_policy, node);
            luaL_unref(l->L, LUA_REGISTRYINDEX, p->call_ref);
            luaL_unref(l->L, LUA_REGISTRYINDEX, p->reply_ref);
            luaL_unref(l->L, LUA_REGISTRYINDEX, p->event_ref);
            if (p->owner)
                ep_lua_owner_free(l, p->owner);
        }
    ep_list_remove(&set->node);
    ep_lua_unref(l);
    ep_policy_bundle_unref(set->bundle);
    ep_arena_fini(&set->arena);
    ep_chunk_pool_fini(&set->chunks);
    free(set);
}

static void on_reap(struct ep_mail *m, struct ep_worker *w)
{
    (void)w;
    set_free(EP_CONTAINER(m, struct ep_policy_set, mail));
}

void ep_policy_set_unref(struct ep_policy_set *set)
{
    if (--set->refs > 0)
        return;
    ep_recorder_free(set->recorder); /* it writes what is left, in the worker */
    set->recorder = NULL;
    if (!set->reaper) {
        set_free(set);
        return;
    }
    ep_lua_detach(set->lua); /* closing a state takes milliseconds */
    set->mail.run = on_reap;
    ep_worker_post(set->reaper, &set->mail);
}
