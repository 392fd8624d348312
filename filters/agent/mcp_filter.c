/* The filter `mcp`: lists of tools, prompts and resources, so that an agent sees what it may call and nothing else.
 *
 * For each entry it asks what the call itself would be asked: the listener's `authorize`, and the policies as far as
 * they can be judged without arguments (lua/foresee.c). A list is read where it comes: as JSON whole, in events one by
 * one. Where nobody would refuse anything, nothing is read and nothing held. It stands behind `policies`, so that what
 * an upstream said is judged before anything of ours has changed it, and what policies see of a reply is what goes on.
 */
#include "agent/agent.h"
#include "agent/events.h"
#include "agent/mcp.h"
#include "authorize.h"
#include "lua/policy.h"

#include <stdlib.h>

#define FORESEE_BUDGET_NS (20 * EP_MS) /* for all entries of one list; what is left then stays in it */

struct mcp {
    struct ep_authorize authorize;
    struct ep_scanner *scanner;       /* made with the first list */
    uint64_t *cells[EP_MCP_LISTS][2]; /* hidden, listed; NULL: none yet */
};

struct state {
    bool lists;               /* the answer may have lists in it */
    bool whole;               /* its body was asked for */
    struct ep_events *events; /* it is events; NULL: not */
};

static bool load(struct ep_filter_instance *i, struct ep_error *err)
{
    struct mcp *m = ep_calloc(1, sizeof *m);

    (void)err;
    ep_authorize_init(&m->authorize, i->chain->config);
    i->data = m;
    return true;
}

static void unload(struct ep_filter_instance *i)
{
    struct mcp *m = i->data;

    if (m)
        ep_scanner_free(m->scanner);
    free(m);
}

/* --- which entries stay --- */

struct judge {
    struct ep_stream *s;
    struct mcp *mcp;
    uint64_t budget_ns;
};

/* The call that an entry stands for. */
static struct ep_call call_of(const struct ep_stream *s, enum ep_mcp_list list, struct ep_str name)
{
    static const char *const methods[EP_MCP_LISTS] = {
        [EP_MCP_TOOLS] = "tools/call",
        [EP_MCP_PROMPTS] = "prompts/get",
        [EP_MCP_RESOURCES] = "resources/read",
        [EP_MCP_TEMPLATES] = "resources/read",
    };
    const struct ep_call *by = &s->call;

    return (struct ep_call){.protocol = by->protocol,
                            .version = by->version,
                            .method = ep_str(methods[list]),
                            .tool = list == EP_MCP_TOOLS ? name : (struct ep_str){NULL, 0},
                            .prompt_name = list == EP_MCP_PROMPTS ? name : (struct ep_str){NULL, 0},
                            .uri = list == EP_MCP_RESOURCES ? name : (struct ep_str){NULL, 0},
                            .agent = by->agent,
                            .session = by->session,
                            .tenant = by->tenant,
                            .visible = EP_VISIBLE_FULL,
                            .wants_json = by->wants_json,
                            .wants_sse = by->wants_sse};
}

static void count(struct judge *j, enum ep_mcp_list list, bool stays)
{
    uint64_t **cell = &j->mcp->cells[list][stays];

    if (!j->s->worker->stats)
        return;
    if (!*cell)
        *cell = ep_stats_cell(j->s->worker->stats, EP_METRIC_MCP_LIST_ENTRIES,
                              EP_LABELS(j->s->chain->config->name, ep_str(ep_mcp_list_name(list)),
                                        stays ? EP_STR("listed") : EP_STR("hidden")));
    ep_cell_add(*cell, 1);
}

static bool keep(void *user, enum ep_mcp_list list, struct ep_str name, struct ep_str entry)
{
    struct judge *j = user;
    struct ep_call call = call_of(j->s, list, name);
    uint32_t unknown = list == EP_MCP_TEMPLATES ? 1u << EP_POLICY_URI : 0;
    bool stays = true;

    (void)entry;
    if (name.n)
        stays = !(j->mcp->authorize.n && ep_authorize_denies(&j->mcp->authorize, j->s, &call, EP_AUTHORIZE_CALL)) &&
                !ep_policies_foresee(j->s, &call, unknown, &j->budget_ns);
    count(j, list, stays);
    return stays;
}

/* --- the request --- */

static bool is_list(const struct ep_call *c)
{
    static const char *const methods[] = {"tools/list", "prompts/list", "resources/list", "resources/templates/list"};

    for (size_t i = 0; i < EP_COUNT(methods); i++)
        if (ep_str_eq(c->method, ep_str(methods[i])))
            return true;
    return false;
}

/* A GET is the server's own stream: an answer that its client missed comes there again. */
static bool may_have_lists(const struct ep_stream *s)
{
    bool any = !s->call.method.n && s->call.stream;

    for (const struct ep_call *c = &s->call; c && !any; c = c->next)
        any = is_list(c);
    return any;
}

static enum ep_step request_headers(struct ep_stream *s, void *state_, bool end)
{
    const struct mcp *m = ep_filter_data(s);
    struct state *state = state_;

    (void)end;
    if (s->protocol != &ep_agent_mcp.how || !s->chain->config->mcp.filter_lists || !may_have_lists(s) ||
        !(m->authorize.n || ep_policies_judge(s)))
        return EP_NEXT;
    state->lists = true;
    ep_headers_remove_id(&s->request.headers,
                         EP_HDR_ACCEPT_ENCODING); /* what is compressed can't be judged event by event */
    return EP_NEXT;
}

/* --- the response --- */

static void *from_arena(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

/* `text` has EP_SCAN_PADDING bytes behind it. */
static enum ep_mcp_edit edit(struct ep_stream *s, struct ep_str text, struct ep_arena *arena, struct ep_str *out)
{
    struct mcp *m = ep_filter_data(s);
    struct judge judge = {.s = s, .mcp = m, .budget_ns = FORESEE_BUDGET_NS};
    struct ep_scan json;

    if (!m->scanner)
        m->scanner = ep_scanner_new(ep_rng_u64(&s->worker->rng));
    if (!m->scanner || ep_scan_json(m->scanner, text.p, text.n, from_arena, arena, &json) != EP_SCAN_OK)
        return EP_MCP_UNREADABLE;
    return ep_mcp_list_edit(text, &json, keep, &judge, arena, out);
}

/* Nobody can say what is in it, so nobody shall see it. */
static enum ep_step unreadable(struct ep_stream *s)
{
    ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_UPSTREAM,
                                             .policy = EP_STR("mcp"),
                                             .reason = EP_STR("the server's list can't be read"),
                                             .code = "mcp.list_unreadable",
                                             .grpc_status = -1});
    return EP_REPLIED;
}

static enum ep_step response_headers(struct ep_stream *s, void *state_, bool end)
{
    struct state *state = state_;
    struct ep_str type = ep_media_type(ep_headers_get_id(&s->response.headers, EP_HDR_CONTENT_TYPE));

    if (EP_LIKELY(!state->lists) || end || s->local_reply || s->status != 200)
        return EP_NEXT;
    if (ep_str_caseeq(type, EP_STR("text/event-stream"))) {
        if (!ep_stream_response_is_events(s))
            return unreadable(s); /* compressed, unasked */
        state->events = EP_ARENA_NEW(&s->arena, struct ep_events);
        ep_events_init(state->events, EP_MAX(s->chain->config->max_body_bytes, EP_EVENT_BYTES_MAX));
        ep_headers_remove_id(&s->response.headers, EP_HDR_CONTENT_LENGTH);
        return EP_NEXT;
    }
    if (!ep_str_caseeq(type, EP_STR("application/json")))
        return EP_NEXT;
    state->whole = true;
    return EP_BUFFER;
}

/* --- events --- */

struct shown {
    struct ep_stream *s;
    struct ep_arena arena; /* for one event: a stream may live for days */
};

static bool is_blank(struct ep_str text)
{
    return ep_str_trim(text).n == 0;
}

static enum ep_event_verdict on_event(void *user, const struct ep_event *e, struct ep_str *replacement)
{
    struct shown *shown = user;
    struct ep_str text, edited;
    char *padded;

    if (is_blank(e->data)) /* primes a client for a resumption */
        return EP_EVENT_PASS;
    ep_arena_fini(&shown->arena);
    ep_arena_init(&shown->arena, &shown->s->worker->chunks);
    padded = ep_arena_alloc(&shown->arena, e->data.n + EP_SCAN_PADDING);
    memcpy(padded, e->data.p, e->data.n);
    memset(padded + e->data.n, 0, EP_SCAN_PADDING);
    text = ep_str_n(padded, e->data.n);
    switch (edit(shown->s, text, &shown->arena, &edited)) {
    case EP_MCP_SAME:
        return EP_EVENT_PASS;
    case EP_MCP_EDITED:
        *replacement = edited;
        return EP_EVENT_REPLACE;
    case EP_MCP_UNREADABLE:
        break;
    }
    /* Clients read no message from events of another name. */
    return e->name.n && !ep_str_eq(e->name, EP_STR("message")) ? EP_EVENT_PASS : EP_EVENT_STOP;
}

static enum ep_step events_pass(struct ep_stream *s, struct state *state, struct ep_body *b, bool end)
{
    struct shown shown = {.s = s};
    enum ep_events_result result;

    ep_arena_init(&shown.arena, &s->worker->chunks);
    result = ep_events_pass(state->events, b, end, &s->worker->slabs, on_event, &shown);
    ep_arena_fini(&shown.arena);
    return result == EP_EVENTS_GOOD ? EP_NEXT : unreadable(s);
}

static enum ep_step response_body(struct ep_stream *s, void *state_, struct ep_body *b, bool end)
{
    struct state *state = state_;
    struct ep_codings codings = {0};
    struct ep_str text, edited;

    if (state->events)
        return events_pass(s, state, b, end);
    if (EP_LIKELY(!state->whole) || !end)
        return EP_NEXT;
    state->whole = false;
    if (b->bytes == 0)
        return EP_NEXT;
    if (!ep_codings_of(&s->response.headers, &codings) ||
        (codings.n && ep_agent_decoded(s, &codings, b, &text) != EP_BLIND_NOT))
        return unreadable(s);
    if (!codings.n)
        text = ep_agent_copy(&s->arena, b);
    switch (edit(s, text, &s->arena, &edited)) {
    case EP_MCP_UNREADABLE:
        return unreadable(s);
    case EP_MCP_EDITED:
        ep_headers_body_changed(&s->response.headers);
        ep_stream_set_response_body(s, edited);
        break;
    case EP_MCP_SAME:
        break;
    }
    return EP_NEXT;
}

static void finish(struct ep_stream *s, void *state_)
{
    struct state *state = state_;

    (void)s;
    if (state->events)
        ep_events_fini(state->events);
}

const struct ep_filter ep_filter_mcp = {
    .name = "mcp",
    .help = "MCP's lists: what the caller may not call is taken out of them.",
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .response_headers = response_headers,
    .response_body = response_body,
    .finish = finish,
};
