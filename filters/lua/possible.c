/* What calls of each protocol can't have, and what listeners can't carry. possible.h has the reasons. */
#include "lua/possible.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/schema.h"

#define F(field) (1u << EP_POLICY_##field)
#define BUS      (F(PRIORITY) | F(IMPACT) | F(RECIPIENT))
#define ASKED    (F(TOOLS) | F(SERVERS) | F(USER)) /* of a language model */

/* The fields that calls of a protocol never have. A protocol that gets a new field loses it here; test_agent.c looks. */
static const struct {
    const char *name;
    uint32_t never;
} protocols[] = {
    {"mcp", F(MODEL) | F(SERVICE) | BUS | ASKED},
    {"a2a", F(MODEL) | F(URI) | BUS | ASKED},
    {"grpc", F(TOOL) | F(MODEL) | F(URI) | F(PROMPT) | F(ARGUMENTS) | F(BODY) | F(TASK) | BUS | ASKED},
    {"openai", F(URI) | F(SERVICE) | F(TOOL) | F(ARGUMENTS) | F(TASK) | BUS},
    {"anthropic", F(URI) | F(SERVICE) | F(TOOL) | F(ARGUMENTS) | F(TASK) | BUS},
    {"acgs2", ASKED},
    {"http", F(TOOL) | F(MODEL) | F(TASK) | F(SERVICE) | F(URI) | F(PROMPT) | F(ARGUMENTS) | BUS | ASKED},
    {"tcp", F(METHOD) | F(TOOL) | F(MODEL) | F(AGENT) | F(TASK) | F(SESSION) | F(SERVICE) | F(URI) |
                F(PROMPT) | F(ARGUMENTS) | F(BODY) | F(PATH) | BUS | ASKED},
};
#define ALL ((1u << EP_COUNT(protocols)) - 1)
#define MCP 1u
#define A2A 2u
#define NO_EVENTS (1u << 2 | 1u << 7) /* grpc and tcp: their answers are never server-sent events */

bool ep_policy_field_possible(struct ep_str protocol, enum ep_policy_field f)
{
    for (size_t i = 0; i < EP_COUNT(protocols); i++)
        if (ep_str_eq(protocol, ep_str(protocols[i].name)))
            return !(protocols[i].never & (1u << f));
    return true;
}

static const struct ep_policy_rule *rule_of(const struct ep_policy *p, enum ep_policy_field f)
{
    for (unsigned i = 0; i < p->n_rules; i++)
        if (p->rules[i].field == f)
            return &p->rules[i];
    return NULL;
}

static bool fits(const struct ep_policy_pattern *pattern, struct ep_str value)
{
    return pattern->glob ? ep_str_glob(pattern->text, value) : ep_str_eq(pattern->text, value);
}

static bool any_fits(const struct ep_policy_rule *r, struct ep_str value)
{
    for (unsigned i = 0; r && i < r->n; i++)
        if (fits(&r->v[i], value))
            return true;
    return !r;
}

/* Bits of the protocols that `match` lets through. */
static uint32_t protocols_of(const struct ep_policy *p)
{
    const struct ep_policy_rule *r = rule_of(p, EP_POLICY_PROTOCOL);
    uint32_t set = 0;

    for (size_t i = 0; i < EP_COUNT(protocols); i++)
        set |= any_fits(r, ep_str(protocols[i].name)) ? 1u << i : 0;
    return set;
}

static void names_of(uint32_t set, char *out, size_t room)
{
    size_t n = 0;

    out[0] = '\0';
    for (size_t i = 0; i < EP_COUNT(protocols) && n < room; i++)
        if (set & (1u << i))
            n += (size_t)snprintf(out + n, room - n, "%s%s", n ? ", " : "", protocols[i].name);
}

/* Each pattern of match.protocol must name a protocol. */
static bool protocols_known(const struct ep_policy *p, char *text, size_t room)
{
    const struct ep_policy_rule *r = rule_of(p, EP_POLICY_PROTOCOL);
    const char *names[EP_COUNT(protocols)];

    for (unsigned i = 0; r && i < r->n; i++) {
        bool any = false;
        for (size_t k = 0; k < EP_COUNT(protocols); k++) {
            names[k] = protocols[k].name;
            any |= fits(&r->v[i], ep_str(names[k]));
        }
        if (any)
            continue;
        const char *near = ep_nearest(r->v[i].text, names, EP_COUNT(names));
        char all[128];
        names_of(ALL, all, sizeof all);
        snprintf(text, room, "no protocol is '%.*s'%s%s%s: there are %s", EP_STR_ARG(r->v[i].text),
                 near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "", all);
        return false;
    }
    return true;
}

static bool field_fits(enum ep_policy_field f, bool in_match, uint32_t set, char *text, size_t room)
{
    bool shows = f == EP_POLICY_BODY || f == EP_POLICY_ARGUMENTS;
    uint32_t with = 0;
    char given[128], others[128];

    for (size_t i = 0; i < EP_COUNT(protocols); i++)
        with |= protocols[i].never & (1u << f) ? 0 : 1u << i;
    if (set & with)
        return true;
    names_of(set, given, sizeof given);
    names_of(with, others, sizeof others);
    snprintf(text, room, "%s '%s', which calls of the protocol that it matches (%s) never %s; those of %s may",
             in_match ? "match names" : "needs names", ep_policy_field_name(f), given, shows ? "show" : "have", others);
    return false;
}

/* Of MCP, these belong to methods. */
static bool method_fits(const struct ep_policy *p, uint32_t fields, char *text, size_t room)
{
    static const struct {
        enum ep_policy_field field;
        const char *methods[3];
    } table[] = {
        {EP_POLICY_TOOL, {"tools/call"}},
        {EP_POLICY_PROMPT, {"prompts/get"}},
        {EP_POLICY_URI, {"resources/read", "resources/subscribe", "resources/unsubscribe"}},
    };
    const struct ep_policy_rule *method = rule_of(p, EP_POLICY_METHOD);

    for (size_t i = 0; i < EP_COUNT(table); i++) {
        bool any = !(fields & (1u << table[i].field));
        for (size_t k = 0; !any && k < EP_COUNT(table[i].methods) && table[i].methods[k]; k++)
            any = any_fits(method, ep_str(table[i].methods[k]));
        if (any)
            continue;
        snprintf(text, room, "match.method leaves no call that has '%s': in MCP only %s has it",
                 ep_policy_field_name(table[i].field), table[i].methods[0]);
        return false;
    }
    return true;
}

static bool event_fits(const struct ep_policy *p, uint32_t set, char *text, size_t room)
{
    char names[128];

    if (p->event_ref == LUA_NOREF || (set & ~NO_EVENTS))
        return true;
    names_of(set, names, sizeof names);
    snprintf(text, room, "it has an event, and answers to calls of the protocol that it matches (%s) are never server-sent events", names);
    return false;
}

bool ep_policy_possible(const struct ep_policy *p, char *text, size_t room)
{
    uint32_t set = protocols_of(p), fields = p->needs;

    if (!protocols_known(p, text, room))
        return false;
    for (unsigned i = 0; i < p->n_rules; i++) {
        fields |= 1u << p->rules[i].field;
        if (!field_fits(p->rules[i].field, true, set, text, room))
            return false;
    }
    for (unsigned f = 0; p->needs >> f; f++)
        if ((p->needs & (1u << f)) && !field_fits((enum ep_policy_field)f, false, set, text, room))
            return false;
    return event_fits(p, set, text, room) && (set != MCP || method_fits(p, fields, text, room));
}

/* A2A's calls that are answered by events, or by an error. */
static bool always_streamed(const struct ep_policy *p, uint32_t set)
{
    const struct ep_policy_rule *method = rule_of(p, EP_POLICY_METHOD);
    bool streamed = set == A2A && method;

    for (unsigned i = 0; streamed && i < method->n; i++)
        streamed = ep_str_eq(method->v[i].text, EP_STR("message/stream")) ||
                   ep_str_eq(method->v[i].text, EP_STR("tasks/resubscribe"));
    return streamed;
}

bool ep_policy_half_blind(const struct ep_policy *p, char *text, size_t room)
{
    uint32_t set = protocols_of(p) & ~NO_EVENTS;
    char names[128];

    if (p->event_ref == LUA_NOREF || p->reply_ref != LUA_NOREF || always_streamed(p, set))
        return false;
    names_of(set, names, sizeof names);
    snprintf(text, room, "it has an event and no reply, so it sees nothing of an answer that comes whole, as those of %s may; a "
                         "reply with needs_reply = {'body'} would", names);
    return true;
}

void ep_policy_set_warn(const struct ep_policy_set *set, ep_policy_warn *warn, void *user)
{
    char text[512];
    struct ep_error whole;

    for (unsigned i = 0; i < set->n; i++) {
        const struct ep_policy *p = set->v[i];
        if (p->mode == EP_MODE_OFF || !ep_policy_half_blind(p, text, sizeof text))
            continue;
        ep_error_set(&whole, "%.*s:%d: policy '%.*s': %s", EP_STR_ARG(p->file), p->line, EP_STR_ARG(p->name), text);
        warn(user, whole.text);
    }
}

/* --- listeners --- */

static bool on_place(const struct ep_policy *p, const struct ep_policy_place *place)
{
    struct ep_str direction = place->direction == EP_OUTBOUND ? EP_STR("outbound") : EP_STR("inbound");

    return any_fits(rule_of(p, EP_POLICY_LISTENER), place->listener->name) &&
           any_fits(rule_of(p, EP_POLICY_DIRECTION), direction);
}

/* A name that is written out must be there; a glob may be for the listeners of other pods. */
static bool listener_known(const struct ep_policy *p, const struct ep_policy_place *v, size_t n, char *text, size_t room)
{
    const struct ep_policy_rule *r = rule_of(p, EP_POLICY_LISTENER);
    const char **names = ep_calloc(n + 1, sizeof *names), *near = NULL;
    bool known = true;

    for (size_t k = 0; k < n; k++)
        names[k] = ep_strndup(v[k].listener->name.p, v[k].listener->name.n);
    for (unsigned i = 0; r && known && i < r->n; i++) {
        if (r->v[i].glob)
            continue;
        known = false;
        for (size_t k = 0; k < n; k++)
            known |= ep_str_eq(v[k].listener->name, r->v[i].text);
        near = ep_nearest(r->v[i].text, names, n);
        if (!known)
            snprintf(text, room, "no listener with policies is called '%.*s'%s%s%s", EP_STR_ARG(r->v[i].text),
                     near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    for (size_t k = 0; k < n; k++)
        free((void *)(uintptr_t)names[k]);
    free(names);
    return known;
}

static bool places_fit(const struct ep_policy *p, const struct ep_policy_place *v, size_t n, char *text, size_t room)
{
    const uint32_t of_tcp = protocols[EP_COUNT(protocols) - 1].never;
    uint32_t fields = p->needs;
    bool any = false, tcp_only = true;

    for (unsigned i = 0; i < p->n_rules; i++)
        fields |= 1u << p->rules[i].field;
    for (size_t i = 0; i < n; i++) {
        if (!on_place(p, &v[i]))
            continue;
        any = true;
        tcp_only &= v[i].opaque;
    }
    if (!any || !tcp_only)
        return true;
    if (!any_fits(rule_of(p, EP_POLICY_PROTOCOL), EP_STR("tcp"))) {
        snprintf(text, room, "match.protocol leaves nothing to judge: the listeners it is for carry opaque TCP alone "
                             "(protocol: tcp, or all clusters of their routes are), which is protocol 'tcp'");
        return false;
    }
    for (unsigned f = 0; f < EP_POLICY_FIELD_COUNT; f++)
        if (fields & of_tcp & (1u << f)) {
            snprintf(text, room, "it speaks of '%s', and the listeners it is for carry opaque TCP alone (protocol: tcp, or all "
                                 "clusters of their routes are), of which nobody knows more than 'peer' and 'host'",
                     ep_policy_field_name((enum ep_policy_field)f));
            return false;
        }
    return true;
}

bool ep_policy_set_possible(const struct ep_policy_set *set, const struct ep_policy_place *v, size_t n,
                            struct ep_error *err)
{
    char text[512];

    for (unsigned i = 0; i < set->n; i++) {
        const struct ep_policy *p = set->v[i];
        if (p->mode == EP_MODE_OFF)
            continue;
        if (!listener_known(p, v, n, text, sizeof text) || !places_fit(p, v, n, text, sizeof text))
            return ep_error_set(err, "%.*s:%d: policy '%.*s': %s", EP_STR_ARG(p->file), p->line, EP_STR_ARG(p->name), text);
    }
    return true;
}

static void log_warning(void *user, const char *text)
{
    (void)user;
    ep_warn("policy", "%s", text);
}

bool ep_policy_view_possible(const struct ep_view *view, struct ep_error *err)
{
    struct ep_policy_place *v = ep_calloc(view->n_chains + 1, sizeof *v);
    const struct ep_policy_set *set = NULL;
    size_t n = 0;
    bool good;

    for (unsigned i = 0; i < view->n_chains; i++) {
        const struct ep_chain *c = view->chains[i];
        for (unsigned k = 0; k < c->n_filters; k++) {
            if (strcmp(c->filters[k].filter->name, "policies") != 0 || !c->filters[k].data)
                continue;
            set = c->filters[k].data;
            v[n++] = (struct ep_policy_place){c->config, c->direction, c->opaque};
            break;
        }
    }
    good = !set || ep_policy_set_possible(set, v, n, err) || ep_error_prefix(err, "policies");
    if (good && set && view->worker->index == 0) /* the others have the same */
        ep_policy_set_warn(set, log_warning, NULL);
    free(v);
    return good;
}

bool ep_policy_directory_possible(const struct ep_policies_config *config, const struct ep_policy_place *v, size_t n,
                                  ep_policy_warn *warn, void *user, struct ep_error *err)
{
    struct ep_worker *w = ep_calloc(1, sizeof *w);
    struct ep_policy_set *set;
    bool good;

    ep_chunk_pool_init(&w->chunks, 64);
    ep_rng_seed_random(&w->rng);
    set = ep_policy_set_ref(w, NULL, config, err);
    good = set && ep_policy_set_possible(set, v, n, err);
    if (good)
        ep_policy_set_warn(set, warn, user);
    if (set)
        ep_policy_set_unref(set);
    ep_chunk_pool_fini(&w->chunks);
    free(w);
    return good;
}
