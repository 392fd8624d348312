/* The filter `mcp`: lists of tools, prompts and resources, so that an agent sees what it may call and nothing else; and
 * tools whose definition was pinned (agent/mcp_pins.h): one that isn't what it was is in no list, and isn't called.
 *
 * For each entry it asks what the call itself would be asked: the listener's `authorize`, and the policies as far as
 * they can be judged without arguments (lua/foresee.c). A list is read where it comes: as JSON whole, in events one by
 * one. Where nobody would refuse anything, nothing is read and nothing held. It stands behind `policies`, so that what
 * an upstream said is judged before anything of ours has changed it, and what policies see of a reply is what goes on.
 *
 * A GET whose events begin with one named `endpoint` is a session of 2024-11-05: from there on its stream is MCP's, its
 * lists are read like others, and refusals of what is posted for it are said there (agent/mcp_sessions.h). */
#include "agent/agent.h"
#include "agent/events.h"
#include "agent/mcp.h"
#include "agent/mcp_pins.h"
#include "agent/mcp_sessions.h"
#include "authorize.h"
#include "filter/decision.h"
#include "lua/policy.h"

#include <stdlib.h>

#define FORESEE_BUDGET_NS (20 * EP_MS) /* for all entries of one list; what is left then stays in it */

#define UNREAD_MAX ((size_t)1 << 20) /* bytes that the client of a session has not taken: refusals come by status then */

#define TOLD_MAX 64u /* tools without a pin that are remembered, so that each is told once */

struct mcp {
    struct ep_authorize authorize;
    struct ep_scanner *scanner;       /* made with the first list */
    uint64_t *cells[EP_MCP_LISTS][2]; /* hidden, listed; NULL: none yet */
    uint64_t told[TOLD_MAX];          /* hashes of names */
    unsigned n_told;
};

struct state {
    bool lists;               /* the answer may have lists in it */
    bool filtered;            /* authorize and the policies are asked about them */
    bool whole;               /* its body was asked for */
    bool first;               /* its first event may make a session of it */
    bool expected;            /* the calls are noted in a session */
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
    struct ep_arena *arena;
    bool filtered;
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

/* --- pins --- */

static const char *const pinned_names[] = {
    [EP_MCP_PINNED_SAME] = "same",
    [EP_MCP_PINNED_CHANGED] = "changed",
    [EP_MCP_PINNED_UNKNOWN] = "unknown",
};
static const char *const pinned_codes[] = {
    [EP_MCP_PINNED_CHANGED] = "mcp.pin_changed",
    [EP_MCP_PINNED_UNKNOWN] = "mcp.pin_unknown",
};
static const char *const pinned_reasons[] = {
    [EP_MCP_PINNED_CHANGED] = "the definition of the tool isn't the one that was pinned",
    [EP_MCP_PINNED_UNKNOWN] = "the tool has no pin",
};

static bool is_enforced(const struct ep_stream *s)
{
    return s->chain->config->mcp.on_change == EP_MCP_DENY;
}

static bool told_before(struct mcp *m, struct ep_str name)
{
    uint64_t hash = ep_hash(name.p, name.n);

    for (unsigned i = 0; i < m->n_told; i++)
        if (m->told[i] == hash)
            return true;
    if (m->n_told < TOLD_MAX)
        m->told[m->n_told++] = hash;
    return m->n_told == TOLD_MAX;
}

/* On record, once for each change. */
static void tell(struct judge *j, struct ep_str name, enum ep_mcp_pinned is)
{
    struct ep_call call = call_of(j->s, EP_MCP_TOOLS, name);

    ep_warn("mcp", "listener %.*s: tool '%.*s': %s", EP_STR_ARG(j->s->chain->config->name), EP_STR_ARG(name),
            pinned_reasons[is]);
    if (j->s->worker->audit)
        ep_stream_audit_try(j->s, &(struct ep_decision){.decision = is_enforced(j->s) ? "deny" : "shadow_deny",
                                                        .policy = EP_STR("mcp"),
                                                        .reason = ep_str(pinned_reasons[is]),
                                                        .code = pinned_codes[is],
                                                        .call = &call});
}

/* Whether the tool is what it was, or at least nobody minds. */
static bool is_pinned(struct judge *j, struct ep_str name, struct ep_str entry)
{
    struct ep_mcp_pins *pins = j->s->chain->config->mcp.pins;
    uint8_t digest[EP_MCP_DIGEST_BYTES] = {0};
    enum ep_mcp_pinned is;
    bool news;

    ep_mcp_pin_digest(entry, j->arena, digest); /* one that can't be digested is changed */
    is = ep_mcp_pins_see(pins, name, digest, &news);
    if (j->s->worker->stats)
        ep_stats_add(j->s->worker->stats, EP_METRIC_MCP_PINS,
                     EP_LABELS(j->s->chain->config->name, ep_str(pinned_names[is])), 1);
    if (is == EP_MCP_PINNED_UNKNOWN ? !told_before(j->mcp, name) : is == EP_MCP_PINNED_CHANGED && news)
        tell(j, name, is);
    return is == EP_MCP_PINNED_SAME || !is_enforced(j->s);
}

/* Before a call goes: what is known of its tool. True: it may. */
static bool may_be_called(struct ep_stream *s)
{
    const struct ep_mcp_pins *pins = s->chain->config->mcp.pins;
    enum ep_mcp_pinned is = EP_MCP_PINNED_SAME;
    const char *code = "mcp.pin_blind", *reason = "the call can't be seen, and tools are pinned";

    for (const struct ep_call *c = &s->call; c && is == EP_MCP_PINNED_SAME; c = c->next)
        if (c->tool.n && ep_str_eq(c->protocol, EP_STR("mcp")))
            is = ep_mcp_pins_of(pins, c->tool);
    if (is != EP_MCP_PINNED_SAME) {
        code = pinned_codes[is];
        reason = pinned_reasons[is];
    } else if (s->call.visible == EP_VISIBLE_FULL ||
               !(ep_str_eq(s->call.protocol, EP_STR("mcp")) || ep_str_eq(s->call.protocol, EP_STR("http")))) {
        return true;
    }
    ep_stream_refuse(s, &(struct ep_refusal){.kind = EP_REFUSE_POLICY,
                                             .policy = EP_STR("mcp"),
                                             .reason = ep_str(reason),
                                             .code = code,
                                             .grpc_status = -1});
    return false;
}

static bool keep(void *user, enum ep_mcp_list list, struct ep_str name, struct ep_str entry)
{
    struct judge *j = user;
    struct ep_call call = call_of(j->s, list, name);
    uint32_t unknown = list == EP_MCP_TEMPLATES ? 1u << EP_POLICY_URI : 0;
    bool stays = true;

    if (list == EP_MCP_TOOLS && j->s->chain->config->mcp.pins)
        stays = is_pinned(j, name, entry);
    if (stays && j->filtered && name.n)
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

/* A client that opens a session of 2024-11-05 asks for nothing but events. So do others, who lose nothing but compression. */
static bool may_begin_session(const struct ep_stream *s)
{
    return ep_str_eq(ep_stream_method(s), EP_STR("GET")) &&
           ep_str_caseeq(ep_media_type(ep_headers_get_id(&s->request.headers, EP_HDR_ACCEPT)), EP_STR("text/event-stream"));
}

static enum ep_step request_headers(struct ep_stream *s, void *state_, bool end)
{
    const struct ep_mcp_config *config = &s->chain->config->mcp;
    const struct mcp *m = ep_filter_data(s);
    struct state *state = state_;
    bool listed = s->protocol == &ep_agent_mcp.how && may_have_lists(s), judged;

    (void)end;
    if (config->pins && is_enforced(s) && !may_be_called(s))
        return EP_REPLIED;
    state->expected = ep_mcp_session_expect(s);
    if (!listed && !may_begin_session(s))
        return EP_NEXT;
    judged = m->authorize.n || ep_policies_judge(s);
    state->filtered = config->filter_lists && judged;
    state->lists = listed && (state->filtered || config->pins);
    if (listed ? state->lists : judged || config->pins) /* what is compressed can't be judged event by event */
        ep_headers_remove_id(&s->request.headers, EP_HDR_ACCEPT_ENCODING);
    return EP_NEXT;
}

/* --- the response --- */

static bool must_read(const struct ep_stream *s, const struct state *state)
{
    return state->lists && (state->filtered || is_enforced(s));
}

static void *from_arena(void *user, size_t n)
{
    return ep_arena_alloc(user, n);
}

/* `text` has EP_SCAN_PADDING bytes behind it. */
static enum ep_mcp_edit edit(struct ep_stream *s, const struct state *state, struct ep_str text, struct ep_arena *arena,
                             struct ep_str *out)
{
    struct mcp *m = ep_filter_data(s);
    struct judge judge = {
        .s = s, .mcp = m, .arena = arena, .filtered = state->filtered, .budget_ns = FORESEE_BUDGET_NS};
    struct ep_call call = s->call;
    enum ep_mcp_edit result;
    struct ep_scan json;

    if (!m->scanner)
        m->scanner = ep_scanner_new(ep_rng_u64(&s->worker->rng));
    if (!m->scanner || ep_scan_json(m->scanner, text.p, text.n, from_arena, arena, &json) != EP_SCAN_OK)
        return EP_MCP_UNREADABLE;
    s->brief = arena;
    if (s->mcp_session) /* what is asked of an entry is asked of the POST that would call it */
        ep_mcp_session_exchange(s, &call);
    result = ep_mcp_list_edit(text, &json, keep, &judge, arena, out);
    if (s->mcp_session)
        ep_mcp_session_exchange(s, &call);
    s->brief = NULL;
    return result;
}

/* Nobody can say what is in it, so nobody shall see it, unless nothing would be taken out anyway. */
static enum ep_step unreadable(struct ep_stream *s, const struct state *state)
{
    if (!must_read(s, state))
        return EP_NEXT;
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
    struct ep_str type;

    state->first = s->live && ep_str_eq(ep_stream_method(s), EP_STR("GET")) && ep_stream_response_is_events(s);
    if (EP_LIKELY(!state->lists && !state->first) || end || s->local_reply || s->status != 200) {
        ep_stream_leave_response_body(s);
        return EP_NEXT;
    }
    type = ep_media_type(ep_headers_get_id(&s->response.headers, EP_HDR_CONTENT_TYPE));
    if (ep_str_caseeq(type, EP_STR("text/event-stream"))) {
        if (!ep_stream_response_is_events(s))
            return unreadable(s, state); /* compressed, unasked */
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

/* --- sessions of 2024-11-05 --- */

static bool hear(void *user, struct ep_str events)
{
    struct ep_stream *s = user;

    if (events.n && !s->ending) {
        ep_body_push_copy(&s->mcp_session->say, events.p, events.n, &s->worker->slabs);
        ep_stream_nudge_response(s);
    }
    return s->response.in_flight + s->mcp_session->say.bytes <= UNREAD_MAX;
}

static void close_session(struct ep_stream *s)
{
    if (s->mcp_session->session)
        ep_mcp_session_close(s->mcp_session->session);
    s->mcp_session->session = NULL;
}

static void begin_session(struct ep_stream *s, struct state *state, struct ep_str endpoint)
{
    struct ep_mcp_stream *m = s->mcp_session = EP_ARENA_NEW(&s->arena, struct ep_mcp_stream);
    struct ep_str place = ep_mcp_endpoint(ep_stream_authority(s), ep_stream_path(s), endpoint, &s->arena);
    ptrdiff_t path = ep_str_find(place, '\0', 0);

    ep_body_init(&m->say);
    m->error = ep_mcp_error;
    m->method = EP_STR("POST");
    if (path >= 0)
        m->target = ep_str_n(place.p + path + 1, place.n - (size_t)path - 1);
    m->session = ep_mcp_session_open(s, place, hear, s);
    if (!m->session)
        ep_warn("mcp", "a session isn't known: refusals of it come by status: %.*s", EP_STR_ARG(endpoint));
    s->protocol = &ep_agent_mcp.how;
    s->call.protocol = ep_str(ep_agent_mcp.how.name);
    s->call.method = (struct ep_str){NULL, 0};
    s->call.stream = true;
    state->lists = state->filtered || s->chain->config->mcp.pins;
}

/* --- events --- */

struct shown {
    struct ep_stream *s;
    struct state *state;
    struct ep_arena arena; /* for one event: a stream may live for days */
};

static enum ep_event_verdict on_event(void *user, const struct ep_event *e, struct ep_str *replacement)
{
    struct shown *shown = user;
    struct state *state = shown->state;
    struct ep_str text, edited;
    bool first = state->first;
    char *padded;

    state->first = false;
    if (first && ep_str_eq(e->name, EP_STR("endpoint"))) {
        begin_session(shown->s, state, e->data);
        return EP_EVENT_PASS;
    }
    if (!state->lists || ep_mcp_is_blank(e->data)) /* a blank one primes a client for a resumption */
        return EP_EVENT_PASS;
    ep_arena_fini(&shown->arena);
    ep_arena_init(&shown->arena, &shown->s->worker->chunks);
    padded = ep_arena_alloc(&shown->arena, e->data.n + EP_SCAN_PADDING);
    memcpy(padded, e->data.p, e->data.n);
    memset(padded + e->data.n, 0, EP_SCAN_PADDING);
    text = ep_str_n(padded, e->data.n);
    switch (edit(shown->s, state, text, &shown->arena, &edited)) {
    case EP_MCP_SAME:
        return EP_EVENT_PASS;
    case EP_MCP_EDITED:
        *replacement = edited;
        return EP_EVENT_REPLACE;
    case EP_MCP_UNREADABLE:
        break;
    }
    /* Clients read no message from events of another name. */
    return (e->name.n && !ep_str_eq(e->name, EP_STR("message"))) || !must_read(shown->s, state) ? EP_EVENT_PASS
                                                                                                : EP_EVENT_STOP;
}

/* Nobody looks at the events any more. */
static void leave_events(struct ep_stream *s, struct state *state, struct ep_body *b)
{
    ep_events_release(state->events, b, &s->worker->slabs);
    ep_events_fini(state->events);
    state->events = NULL;
    ep_stream_leave_response_body(s);
}

static enum ep_step events_pass(struct ep_stream *s, struct state *state, struct ep_body *b, bool end)
{
    struct shown shown = {.s = s, .state = state};
    enum ep_events_result result;

    ep_arena_init(&shown.arena, &s->worker->chunks);
    result = ep_events_pass(state->events, b, end, &s->worker->slabs, on_event, &shown);
    ep_arena_fini(&shown.arena);
    if (result == EP_EVENTS_GOOD && !state->first && !state->lists && !s->mcp_session)
        leave_events(s, state, b);
    if (result == EP_EVENTS_TOO_LARGE && !must_read(s, state)) {
        if (s->mcp_session) /* nobody knows any more where an event ends */
            close_session(s);
        leave_events(s, state, b);
        return EP_NEXT;
    }
    return result == EP_EVENTS_GOOD ? EP_NEXT : unreadable(s, state);
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
        return unreadable(s, state);
    if (!codings.n)
        text = ep_agent_copy(&s->arena, b);
    switch (edit(s, state, text, &s->arena, &edited)) {
    case EP_MCP_UNREADABLE:
        return unreadable(s, state);
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

    if (state->events)
        ep_events_fini(state->events);
    if (EP_UNLIKELY(s->mcp_session != NULL)) {
        close_session(s);
        ep_body_fini(&s->mcp_session->say);
    }
    if (EP_UNLIKELY(state->expected) && (!s->time.upstream_acquired || (s->status >= 400 && !s->local_reply)))
        ep_mcp_session_unexpect(s);
}

const struct ep_filter ep_filter_mcp = {
    .name = "mcp",
    .help = "MCP's lists: what the caller may not call is taken out of them. Tools that aren't what was pinned are "
            "refused.",
    .load = load,
    .unload = unload,
    .stream_size = sizeof(struct state),
    .request_headers = request_headers,
    .response_headers = response_headers,
    .response_body = response_body,
    .finish = finish,
};
