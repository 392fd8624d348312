/* What the policies would say to a call that nobody has made yet: for lists of what may be called (agent/mcp_list.c).
 *
 * The policy runs as it would, in shadow, on a call of which only what names it is known. What it looks at is noted on
 * the way: an answer that hangs on arguments, on what policies remember, or on somebody whom it asks is no answer, and
 * such a call stays possible. So does one whose policy fails here. The call itself will be judged all the same. */
#include "filter/chain.h"
#include "lua/object.h"

struct foreseen {
    uint32_t unknown;
    bool unsure;
};

/* Fields that belong to one call alone. */
static bool is_of_one_call(struct ep_str field)
{
    static const char *const names[] = {"arguments", "body", "request_body", "id"};

    for (size_t i = 0; i < EP_COUNT(names); i++)
        if (ep_str_eq(field, ep_str(names[i])))
            return true;
    return false;
}

static bool is_unknown(uint32_t unknown, struct ep_str field)
{
    for (unsigned f = 0; unknown >> f; f++)
        if ((unknown & (1u << f)) && ep_str_eq(field, ep_str(ep_policy_field_name((enum ep_policy_field)f))))
            return true;
    return false;
}

static void on_read(struct ep_policy_object *o, enum ep_policy_read kind, struct ep_str name)
{
    struct foreseen *f = o->reader;

    switch (kind) {
    case EP_POLICY_READ_FIELD:
        f->unsure |= is_of_one_call(name) || is_unknown(f->unknown, name);
        break;
    case EP_POLICY_READ_HEADER: /* the list's own headers say who asks; these say what is called */
        f->unsure |= ep_str_casestarts(name, EP_STR("mcp-"));
        break;
    case EP_POLICY_READ_HEADERS:
    case EP_POLICY_READ_REQUEST_HEADER: /* there is no reply yet */
    case EP_POLICY_READ_REQUEST_HEADERS:
    case EP_POLICY_READ_ANSWER:
    case EP_POLICY_READ_WORLD:
        f->unsure = true;
        break;
    }
}

static bool denies(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, struct ep_call *c,
                   struct foreseen *f)
{
    struct ep_lua *l = set->lua;
    lua_State *L = l->thread;
    struct ep_policy_object *o = l->object;
    enum ep_lua_status status;
    int n_results;
    bool denied;

    o->s = s;
    o->call = c;
    o->policy = p;
    o->phase = EP_POLICY_CALL;
    o->reply = NULL;
    o->shadow = o->foresee = true;
    o->denied = false;
    o->wait = EP_POLICY_WAIT_NOT;
    o->waits = 0;
    o->delayed_ns = 0;
    o->http = NULL;
    o->hearing = NULL;
    o->redactions = NULL;
    o->on_read = on_read;
    o->reader = f;
    lua_rawgeti(L, LUA_REGISTRYINDEX, p->call_ref);
    lua_rawgeti(L, LUA_REGISTRYINDEX, o->ref);
    ep_lua_charge_to(l, p->owner);
    status = ep_lua_resume(l, L, 1, &n_results, &set->at_once, ep_clock_ns());
    denied = status == EP_LUA_OK && o->denied;
    if (status != EP_LUA_OK)
        ep_lua_thread_reset(l, L);
    o->foresee = false;
    o->on_read = NULL;
    o->reader = NULL;
    ep_policy_object_clear(o, l->thread);
    if (L == l->thread)
        lua_settop(L, 0);
    return denied && !f->unsure;
}

static bool refuses(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, struct ep_call *c,
                    uint32_t unknown)
{
    struct foreseen f = {.unknown = unknown};

    if (p->call_ref == LUA_NOREF || (p->constitutional ? p->mode : EP_MAX(p->mode, set->mode)) == EP_MODE_OFF ||
        ep_policy_shadow(set, p, s))
        return false;
    for (unsigned i = 0; i < p->n_rules; i++)
        if ((unknown & (1u << p->rules[i].field)) || !ep_policy_rule_holds(&p->rules[i], s, c))
            return false;
    return denies(set, p, s, c, &f);
}

static struct ep_policy_set *set_of(const struct ep_stream *s)
{
    for (unsigned i = 0; i < s->chain->n_filters; i++)
        if (ep_str_eq(ep_str(s->chain->filters[i].filter->name), EP_STR("policies")))
            return s->chain->filters[i].data;
    return NULL;
}

bool ep_policies_judge(const struct ep_stream *s)
{
    const struct ep_policy_set *set = set_of(s);

    return set && set->n;
}

bool ep_policies_foresee(struct ep_stream *s, struct ep_call *call, uint32_t unknown, uint64_t *budget_ns)
{
    struct ep_policy_set *set = set_of(s);
    uint64_t start = ep_clock_ns(), spent;
    bool refused = false;

    if (!set || *budget_ns == 0)
        return false;
    for (unsigned i = 0; i < set->n && !refused; i++)
        refused = refuses(set, set->v[i], s, call, unknown);
    spent = ep_clock_ns() - start;
    *budget_ns = spent < *budget_ns ? *budget_ns - spent : 0;
    return refused;
}
