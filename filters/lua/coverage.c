/* Coverage: what each policy saw, matched, denied and was blind to, by route. A rule that silently does nothing shows
 * here: it matched nothing, or could not see what it judges.
 *
 * Routes go by their number in the view, so that counting is an index. A set may outlive the view that it was made for;
 * what it counted of other routes is then forgotten. */
#include "lua/policy.h"

void ep_policy_cover_init(struct ep_policy_set *set, struct ep_policy *p)
{
    p->cover = ep_arena_zalloc(&set->arena, EP_POLICY_ROUTES * sizeof *p->cover);
}

void ep_policy_cover_chain(struct ep_policy_set *set, const struct ep_chain *c)
{
    for (unsigned i = 0; i < c->n_routes; i++) {
        const struct ep_route *r = &c->routes[i];
        uint64_t name = ep_hash(r->name.p, r->name.n);
        if (r->number >= EP_POLICY_ROUTES || set->covered[r->number] == name)
            continue;
        set->covered[r->number] = name;
        for (unsigned k = 0; k < set->n; k++)
            set->v[k]->cover[r->number] = (struct ep_policy_cover){0};
    }
}

static void row(const struct ep_policy_cover *k, struct ep_str name, struct ep_json *j)
{
    if (!k->seen && !k->denied && !k->shadow_denied && !k->failed)
        return;
    ep_json_object(j);
    ep_json_kstr(j, "route", name);
    ep_json_kuint(j, "seen", k->seen);
    ep_json_kuint(j, "matched", k->matched);
    ep_json_kuint(j, "deny", k->denied);
    ep_json_kuint(j, "shadow_deny", k->shadow_denied);
    ep_json_kuint(j, "failed", k->failed);
    ep_json_kuint(j, "blind", k->blind);
    ep_json_object_end(j);
}

void ep_policy_cover_json(const struct ep_policy *p, const struct ep_view *view, struct ep_json *j)
{
    ep_json_key(j, "blind_by");
    ep_json_object(j);
    for (int r = EP_BLIND_NOT + 1; r < EP_BLIND_REASONS; r++)
        if (p->blind_by[r])
            ep_json_kuint(j, ep_blind_reason_name((enum ep_blind_reason)r), p->blind_by[r]);
    ep_json_object_end(j);
    ep_json_key(j, "routes");
    ep_json_array(j);
    for (unsigned c = 0; view && c < view->n_chains; c++)
        for (unsigned i = 0; i < view->chains[c]->n_routes; i++)
            if (view->chains[c]->routes[i].number < EP_POLICY_ROUTES)
                row(&p->cover[view->chains[c]->routes[i].number], view->chains[c]->routes[i].name, j);
    row(&p->cover[0], EP_STR("other"), j);
    ep_json_array_end(j);
}
