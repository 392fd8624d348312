/* The constitution's policies: they run with the operator's, from the text whose digest was checked.
 *
 * They come first, since what they say holds whatever else does. `policies.mode` is the operator's and doesn't touch them;
 * `constitution.mode` does. A policy that names no principle gets the one whose list names the policy. They may require
 * ephor.* and nothing else: a library of theirs would be text of the disk. */
#include "filter/charter.h"
#include "lua/policy.h"

struct loading {
    struct ep_policy_set *set;
    const struct ep_charter_file *file;
};

static int load_text(lua_State *L)
{
    const struct loading *l = lua_touserdata(L, 1);

    l->set->text = ep_arena_str(&l->set->arena, l->file->text); /* a set outlives its configuration */
    ep_policy_run_text(L, l->set, NULL);
    return ep_policy_take(L, l->set);
}

static bool load_one(struct ep_policy_set *set, const struct ep_charter_file *file, struct ep_error *err)
{
    struct loading loading = {set, file};

    return ep_policy_load_one(set, file->path.p, load_text, &loading, err) ||
           ep_error_prefix(err, "the constitution's policies");
}

static const struct ep_str deciders[] = {EP_STR_INIT("constitution"), EP_STR_INIT("authorize"), EP_STR_INIT("agent"),
                                         EP_STR_INIT("audit")};

/* A policy, or what else names itself in a refusal. */
static bool is_there(const struct ep_policy_set *set, struct ep_str name)
{
    for (unsigned i = 0; i < set->n; i++)
        if (ep_str_eq(set->v[i]->name, name))
            return true;
    for (size_t i = 0; i < EP_COUNT(deciders); i++)
        if (ep_str_eq(deciders[i], name))
            return true;
    return false;
}

/* Those from `first` on to the front. */
static void move_up(struct ep_policy_set *set, unsigned first)
{
    struct ep_policy *own[EP_POLICIES_MAX];
    unsigned n = set->n - first;

    memcpy(own, set->v + first, n * sizeof *own);
    memmove(set->v + n, set->v, first * sizeof *own);
    memcpy(set->v, own, n * sizeof *own);
}

bool ep_policy_set_charter(struct ep_policy_set *set, const struct ep_policies_config *config, struct ep_error *err)
{
    const struct ep_charter *charter = config->charter;
    unsigned first = set->n;

    if (!charter || config->charter_mode == EP_MODE_OFF)
        return true;

    for (size_t i = 0; i < charter->n_files; i++)
        if (ep_charter_is_policy(charter->files[i].path) && !load_one(set, &charter->files[i], err))
            return false;
    for (unsigned i = first; i < set->n; i++) {
        struct ep_policy *p = set->v[i];
        p->constitutional = true;
        p->mode = EP_MAX(p->mode, (enum ep_mode)config->charter_mode);
        p->version = ep_arena_str(&set->arena, charter->version); /* a set outlives the configuration that it was made for */
        if (!p->principle.n)
            p->principle = ep_arena_str(&set->arena, ep_charter_principle_of(charter, p->name));
    }
    for (size_t i = 0; i < charter->n_principles; i++) {
        const struct ep_str *names = charter->principles[i].policies.v;
        for (size_t k = 0; k < charter->principles[i].policies.n; k++)
            if (!is_there(set, names[k]))
                ep_warn("constitution", "principle %.*s: there is no policy '%.*s'",
                        EP_STR_ARG(charter->principles[i].id), EP_STR_ARG(names[k]));
    }
    move_up(set, first);
    return true;
}
