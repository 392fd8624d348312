/* MCP over Streamable HTTP, in the revisions 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25 and 2026-07-28: recognised,
 * and the call record filled.
 *
 * Who calls what is read from the body; Mcp-Method and Mcp-Name are only compared with it, since a server may run what
 * the body says. A message that two parsers could read as two calls (a key twice, or twice but for case) is refused. A
 * batch becomes a list of calls, each judged. Sources: the specification of 2026-07-28, and what was tried with real
 * clients and servers: AGENTS.md sections 2 and 8. mcp_headers.c compares, mcp_refuse.c has the answers. */
#include "agent/agent.h"
#include "agent/mcp.h"
#include "agent/mcp_sessions.h"

#define ID_MAX_BYTES    16384u
#define HEADER_MISMATCH (-32020)

static bool is(const struct ep_scan_value *v, struct ep_str text)
{
    return v->kind == EP_SCAN_STRING && ep_str_eq(ep_agent_str(v->text), text);
}

static struct ep_str text_of(const struct ep_scan_value *v)
{
    return v->kind == EP_SCAN_STRING ? ep_agent_str(v->text) : (struct ep_str){NULL, 0};
}

/* --- whose is it --- */

static enum ep_agent_claim head(struct ep_stream *s, const struct ep_agent_head *h)
{
    bool get = ep_str_eq(h->method, EP_STR("GET")), delete = ep_str_eq(h->method, EP_STR("DELETE"));
    struct ep_call *c = &s->call;

    if (!h->mcp_session.p && !h->mcp_version.p && !h->mcp_method.p)
        return EP_AGENT_NO;
    if (!h->post && h->end && !(get && c->wants_sse) && !(delete && h->mcp_session.p))
        return EP_AGENT_NO;
    c->method = (struct ep_str){NULL, 0}; /* not the HTTP method: only the body can tell */
    c->version = h->mcp_version;
    if (h->mcp_session.p)
        c->session = h->mcp_session;
    c->stream = get; /* GET: the server's own events. DELETE: the end of the session */
    if (h->post || !h->end)
        return EP_AGENT_BODY;
    c->visible = EP_VISIBLE_FULL;
    return EP_AGENT_HEAD;
}

bool ep_mcp_is_method(struct ep_str method)
{
    static const char *const families[] = {"tools/",       "prompts/",       "resources/",    "completion/",
                                           "logging/",     "notifications/", "roots/",        "sampling/",
                                           "elicitation/", "server/",        "subscriptions/"};

    if (ep_str_eq(method, EP_STR("initialize")) || ep_str_eq(method, EP_STR("ping")))
        return true;
    for (size_t i = 0; i < EP_COUNT(families); i++)
        if (ep_str_starts(method, ep_str(families[i])))
            return true;
    return false;
}

/* message/send, agent/…, and SendMessage of 1.0: Agent2Agent's, though it may come with the same Accept. */
static bool is_a2a(struct ep_str method)
{
    return method.n && (ep_str_starts(method, EP_STR("message/")) || ep_str_starts(method, EP_STR("agent/")) ||
                        (method.p[0] >= 'A' && method.p[0] <= 'Z'));
}

static bool is_mcp(const struct ep_scan_message *m, const struct ep_agent_head *h)
{
    struct ep_str method = text_of(&m->method);

    if (!m->is_object)
        return false;
    if (ep_mcp_is_method(method) || (ep_str_starts(method, EP_STR("tasks/")) && m->task_id.kind)) /* A2A has tasks too */
        return true;
    return is(&m->jsonrpc, EP_STR("2.0")) && h->names_json && h->names_sse && !is_a2a(method) &&
           (method.n || m->result.kind || m->error.kind);
}

static bool any_mcp(const struct ep_scan *json, const struct ep_agent_head *h)
{
    for (const struct ep_scan_message *m = json->first; m; m = m->next)
        if (is_mcp(m, h))
            return true;
    return false;
}

/* --- the call record --- */

enum ep_mcp_names ep_mcp_names_of(struct ep_str method)
{
    static const struct {
        const char *method;
        enum ep_mcp_names names;
    } table[] = {
        {"tools/call", EP_MCP_NAMES_TOOL},           {"prompts/get", EP_MCP_NAMES_PROMPT},
        {"resources/read", EP_MCP_NAMES_URI},        {"resources/subscribe", EP_MCP_NAMES_URI},
        {"resources/unsubscribe", EP_MCP_NAMES_URI},
    };

    for (size_t i = 0; i < EP_COUNT(table); i++)
        if (ep_str_eq(method, ep_str(table[i].method)))
            return table[i].names;
    return EP_MCP_NAMES_NOTHING;
}

static void unseen(struct ep_call *c)
{
    c->visible = EP_VISIBLE_HEADERS;
    c->blind = EP_BLIND_UNKNOWN;
}

static bool is_subscription(struct ep_str method)
{
    return ep_str_eq(method, EP_STR("resources/subscribe")) || ep_str_eq(method, EP_STR("resources/unsubscribe"));
}

/* They are an object, or there are none; a text that holds JSON is read by some servers all the same. */
static bool arguments_are_known(const struct ep_scan_value *v)
{
    return v->kind == EP_SCAN_ABSENT || v->kind == EP_SCAN_NULL || v->kind == EP_SCAN_OBJECT;
}

/* Fills `c` from one message. What the server would refuse as malformed is passed on unseen: some servers don't. */
static void fill(struct ep_call *c, const struct ep_scan_message *m)
{
    struct ep_str method = text_of(&m->method), version = text_of(&m->meta_version);
    enum ep_mcp_names names = ep_mcp_names_of(method);
    struct ep_str named = text_of(names == EP_MCP_NAMES_URI ? &m->uri : &m->name);

    c->method = method;
    c->notification = m->id.kind == EP_SCAN_ABSENT || (!m->method.kind && (m->result.kind || m->error.kind));
    if (version.n)
        c->version = version;
    else if (!c->version.n)
        c->version = text_of(&m->protocol_version);
    if (!c->notification) {
        c->id_raw = ep_agent_str(m->id.raw);
        c->id_text = ep_agent_str(m->id.text);
    }
    c->tool = names == EP_MCP_NAMES_TOOL ? named : (struct ep_str){NULL, 0};
    c->prompt_name = names == EP_MCP_NAMES_PROMPT ? named : (struct ep_str){NULL, 0};
    c->uri = names == EP_MCP_NAMES_URI ? named : (struct ep_str){NULL, 0};
    if (m->arguments.kind)
        c->arguments = ep_agent_str(m->arguments.raw);
    c->task = text_of(&m->task_id);
    c->stream = ep_str_eq(method, EP_STR("subscriptions/listen"));
    if (ep_mcp_is_stateless(c->version) && is_subscription(method) && !m->uri.kind)
        names = EP_MCP_NAMES_NOTHING; /* gone from these revisions: no server looks for a URI */
    if (!m->is_object || (!method.n && !m->result.kind && !m->error.kind) || (names && !named.n) ||
        (m->method.kind && !method.n) || (names && !arguments_are_known(&m->arguments)))
        unseen(c);
}

static void fill_all(struct ep_stream *s, const struct ep_scan *json)
{
    struct ep_call *c = &s->call, common;
    bool seen = true;

    c->protocol = ep_str(ep_agent_mcp.how.name);
    c->visible = EP_VISIBLE_FULL;
    c->blind = EP_BLIND_NOT;
    c->batch = json->batch;
    common = *c;
    for (const struct ep_scan_message *m = json->first; m; m = m->next) {
        if (m != json->first) {
            c = c->next = ep_arena_alloc(&s->arena, sizeof *c);
            *c = common;
        }
        fill(c, m);
        seen &= c->visible == EP_VISIBLE_FULL;
    }
    if (!json->first)
        unseen(&s->call);
    /* A batch with one bad element is refused by good servers as a whole; what others do with the rest is open. */
    for (c = &s->call; c && !seen; c = c->next)
        unseen(c);
}

/* --- what is refused for its form --- */

static const char *malformed(const struct ep_scan *json)
{
    if (json->duplicate)
        return "duplicate key";
    for (const struct ep_scan_message *m = json->first; m; m = m->next) {
        if (m->ambiguous || (m->ambiguous_params && ep_mcp_names_of(text_of(&m->method))))
            return "ambiguous key: it differs from one of the protocol by case only";
        if (m->id.kind == EP_SCAN_BOOL || m->id.kind == EP_SCAN_ARRAY || m->id.kind == EP_SCAN_OBJECT)
            return "the id must be a string or a number";
        if (m->id.raw.n > ID_MAX_BYTES)
            return "the id is too long";
    }
    return NULL;
}

/* The transport of 2024-11-05: a POST to where the server's own event stream said, which asks for no events, as every later
 * client must. Where that stream isn't known here, it has the session in its query, as the SDKs' servers do. */
static bool is_answered_elsewhere(struct ep_stream *s, const struct ep_agent_head *h)
{
    struct ep_str path = ep_stream_path(s);
    ptrdiff_t query = ep_str_find(path, '?', 0);

    if (h->names_sse || h->mcp_session.p)
        return false;
    if (ep_mcp_session_is_known(s))
        return true;
    path = query < 0 ? (struct ep_str){NULL, 0} : ep_str_n(path.p + query, path.n - (size_t)query);
    return ep_str_search(path, EP_STR("sessionId=")) >= 0 || ep_str_search(path, EP_STR("session_id=")) >= 0;
}

static enum ep_agent_verdict body(struct ep_stream *s, const struct ep_agent_head *h, const struct ep_scan *json,
                                  bool claimed)
{
    const char *why;

    if (!claimed && !any_mcp(json, h))
        return EP_AGENT_NOT_MINE;
    s->call.version = h->mcp_version;
    s->call.answered_elsewhere = is_answered_elsewhere(s, h);
    if (h->mcp_session.p)
        s->call.session = h->mcp_session;
    fill_all(s, json);
    why = malformed(json);
    if (why)
        return ep_agent_bad_request(s, json->duplicate ? "agent.duplicate_key" : "agent.malformed", ep_str(why),
                                    EP_JSONRPC_INVALID_REQUEST);
    for (const struct ep_scan_message *m = json->first; m; m = m->next) {
        why = ep_mcp_header_mismatch(s, h, m);
        if (why)
            return ep_agent_bad_request(s, "mcp.header_mismatch", ep_str(why), HEADER_MISMATCH);
    }
    return EP_AGENT_MINE;
}

const struct ep_agent_protocol ep_agent_mcp = {
    .how = {.name = "mcp", .refuse = ep_mcp_refuse, .refuse_midstream = ep_mcp_refuse_midstream},
    .head = head,
    .body = body,
};
