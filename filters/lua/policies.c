/* The filter `policies`: every policy of the directory, in the order of the files' names.
 *
 * Request: each policy judges each call of the request (a JSON-RPC batch has several); the first refusal ends it.
 * Reply: the policies that matched the request and have a `reply` see the head of the response. Replies that ephor
 * made itself are not judged. */
#include "filter/chain.h"
#include "lua/policy.h"
#include "lua/record.h"

struct state {
    uint64_t matched[EP_POLICIES_MAX / 64];
};

/* Fields of the call record are filled by `agent`. Without it in front, a rule about them would do nothing. */
static bool agent_in_front(const struct ep_filter_instance *i)
{
    const struct ep_vec *filters = &i->chain->config->filters;
    const struct ep_filter_use *use = filters->v;

    if (filters->n == 0)
        return true; /* the default chain has it */
    for (size_t k = 0; k < filters->n; k++) {
        if (ep_str_eq(use[k].name, EP_STR("agent")))
            return true;
        if (ep_str_eq(use[k].name, EP_STR("policies")))
            return false;
    }
    return false;
}

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    /* `method` and `protocol` have an answer of plain HTTP without the agent filter. */
    static const uint32_t of_agent = 1u << EP_POLICY_TOOL | 1u << EP_POLICY_MODEL | 1u << EP_POLICY_AGENT |
                                     1u << EP_POLICY_TASK | 1u << EP_POLICY_SESSION | 1u << EP_POLICY_SERVICE |
                                     1u << EP_POLICY_URI | 1u << EP_POLICY_PROMPT | 1u << EP_POLICY_ARGUMENTS |
                                     1u << EP_POLICY_BODY;
    const struct ep_policies_config *config = i->view ? i->view->policies_config : NULL;
    struct ep_policy_set *set;

    if (!config || !config->directory.n || config->mode == EP_MODE_OFF)
        return true; /* and no Lua state is made for nothing */
    set = ep_policy_set_ref(i->worker, i->view, config, err);
    if (!set)
        return false;
    i->data = set;
    if (i->chain)
        ep_policy_cover_chain(set, i->chain);
    if ((set->fields & of_agent) && i->chain && i->chain->config && !agent_in_front(i)) {
        ep_policy_set_unref(set);
        i->data = NULL;
        return ep_error_set(err,
                            "policies look at tools or other fields of a call, and the listener '%.*s' has no "
                            "filter 'agent' in front of 'policies' to find them",
                            EP_STR_ARG(i->chain->config->name));
    }
    return true;
}

static void unload(struct ep_filter_instance *i)
{
    if (i->data)
        ep_policy_set_unref(i->data);
}

static enum ep_step request_headers(struct ep_stream *s, void *state_, bool end)
{
    struct ep_policy_set *set = ep_filter_data(s);
    struct state *state = state_;
    struct ep_record *record = NULL;
    struct ep_policy_verdict v;
    uint64_t now;

    (void)end;
    if (!set || set->n == 0)
        return EP_NEXT;
    if (EP_UNLIKELY(set->recorder != NULL))
        record = ep_record_begin(set->recorder, s);
    now = ep_clock_ns();
    for (unsigned i = 0; i < set->n; i++) {
        unsigned number = 0;
        for (const struct ep_call *c = &s->call; c; c = c->next, number++) {
            ep_policy_judge(set, set->v[i], s, c, EP_POLICY_CALL, &now, &v);
            if (EP_UNLIKELY(record != NULL))
                ep_record_decision(record, set->v[i], number, &v);
            if (v.matched)
                state->matched[i / 64] |= 1ull << (i % 64);
            if (v.refuse) {
                if (record)
                    ep_record_end(set->recorder, record);
                ep_policy_refuse(s, set->v[i], &v);
                return EP_REPLIED;
            }
        }
    }
    if (record)
        ep_record_end(set->recorder, record);
    return EP_NEXT;
}

static enum ep_step response_headers(struct ep_stream *s, void *state_, bool end)
{
    struct ep_policy_set *set = ep_filter_data(s);
    const struct state *state = state_;
    struct ep_policy_verdict v;
    uint64_t now;

    (void)end;
    if (!set || !set->replies || s->local_reply || s->refused)
        return EP_NEXT;
    now = ep_clock_ns();
    for (unsigned i = 0; i < set->n; i++) {
        if (set->v[i]->reply_ref == LUA_NOREF || !(state->matched[i / 64] & (1ull << (i % 64))))
            continue;
        ep_policy_judge(set, set->v[i], s, &s->call, EP_POLICY_REPLY, &now, &v);
        if (v.refuse) {
            ep_policy_refuse(s, set->v[i], &v);
            return EP_REPLIED;
        }
    }
    return EP_NEXT;
}

const struct ep_filter ep_filter_policies = {
    .name = "policies",
    .help = "Judges each request by the policies in Lua of the configured directory.",
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .response_headers = response_headers,
};
