/* How MCP says no, in the forms that every client takes without losing its session (tried: AGENTS.md section 2).
 *
 *   tools/call          200, a CallToolResult with isError: the only form whose reason reaches the model
 *   other requests      200, a JSON-RPC error with the HTTP status as its code (403, 429, 503 …)
 *   notifications       202 and nothing: a 4xx on notifications/initialized kills the client
 *   GET and DELETE      405, which clients take for "not offered here"
 *   in 2024-11-05       202, and the answer as an event of the session's stream (agent/mcp_sessions.h); where that isn't known
 *                       403, 429 …: what a POST is answered there is not read, but its status is
 *   malformed           400 with a JSON-RPC error
 *   begun event stream  one more event, then the end
 * The id is the request's own bytes. No mcp-session-id: clients adopt it from a refusal too. Whoever accepts no JSON
 * gets the same as an event. Before the body was read there is no id, and the answer is plain HTTP's. */
#include "agent/agent.h"
#include "agent/mcp.h"
#include "agent/mcp_sessions.h"
#include "observe/json.h"

static void member(struct ep_json *j, const char *key, struct ep_str value)
{
    if (value.n)
        ep_json_kstr(j, key, value);
}

static void facts(struct ep_json *j, const struct ep_refusal *r, struct ep_str decision)
{
    member(j, "policy", r->policy);
    member(j, "principle", r->principle);
    member(j, "principleText", r->principle_text);
    member(j, "code", ep_str(r->code));
    member(j, "decision", decision);
    if (r->retry_after_s)
        ep_json_kuint(j, "retryAfter", r->retry_after_s);
}

/* A text that a model can act on. */
static struct ep_str advice(const struct ep_refusal *r, struct ep_arena *arena)
{
    struct ep_str text = ep_refusal_text(r, arena);

    if (r->retry_after_s)
        return ep_arena_printf(arena, "%.*s. Try again in %u s.", EP_STR_ARG(text), r->retry_after_s);
    if (r->kind == EP_REFUSE_POLICY || r->kind == EP_REFUSE_UNAUTHORIZED)
        return ep_arena_printf(arena, "%.*s. The same call will be refused again.", EP_STR_ARG(text));
    return text;
}

static void tool_result(struct ep_json *j, const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    ep_json_key(j, "result");
    ep_json_object(j);
    ep_json_kstr(j, "resultType", EP_STR("complete"));
    ep_json_key(j, "content");
    ep_json_array(j);
    ep_json_object(j);
    ep_json_kstr(j, "type", EP_STR("text"));
    ep_json_kstr(j, "text", advice(r, arena));
    ep_json_object_end(j);
    ep_json_array_end(j);
    ep_json_kbool(j, "isError", true);
    ep_json_key(j, "_meta");
    ep_json_object(j);
    ep_json_key(j, "ephor.dev/refusal");
    ep_json_object(j);
    facts(j, r, decision);
    ep_json_object_end(j);
    ep_json_object_end(j);
    ep_json_object_end(j);
}

static void rpc_error(struct ep_json *j, const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    ep_json_key(j, "error");
    ep_json_object(j);
    ep_json_kint(j, "code", r->jsonrpc_code ? r->jsonrpc_code : (int)ep_refusal_status(r));
    ep_json_kstr(j, "message", ep_refusal_text(r, arena));
    ep_json_key(j, "data");
    ep_json_object(j);
    facts(j, r, decision);
    ep_json_object_end(j);
    ep_json_object_end(j);
}

/* `midstream`: an error even for tools: the call had begun. */
static void response(struct ep_json *j, const struct ep_call *c, const struct ep_refusal *r, struct ep_str decision,
                     bool midstream, struct ep_arena *arena)
{
    bool result = !midstream && !r->jsonrpc_code && r->kind != EP_REFUSE_BAD_REQUEST &&
                  ep_str_eq(c->method, EP_STR("tools/call"));

    ep_json_object(j);
    ep_json_kstr(j, "jsonrpc", EP_STR("2.0"));
    ep_json_key(j, "id");
    ep_json_raw(j, c->id_raw.n ? c->id_raw : EP_STR("null"));
    if (result)
        tool_result(j, r, decision, arena);
    else
        rpc_error(j, r, decision, arena);
    ep_json_object_end(j);
}

static struct ep_str one(const struct ep_call *c, const struct ep_refusal *r, struct ep_str decision, bool midstream,
                         struct ep_arena *arena)
{
    struct ep_json j;

    ep_json_init(&j);
    response(&j, c, r, decision, midstream, arena);
    return ep_json_take(&j, arena);
}

struct ep_str ep_mcp_error(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                           struct ep_arena *arena)
{
    return one(call, r, decision, true, arena);
}

static struct ep_str all(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                         struct ep_arena *arena)
{
    struct ep_json j;

    if (!call->batch)
        return one(call, r, decision, false, arena);
    ep_json_init(&j);
    ep_json_array(&j);
    for (const struct ep_call *c = call; c; c = c->next)
        if (c->id_raw.n)
            response(&j, c, r, decision, false, arena);
    ep_json_array_end(&j);
    return ep_json_take(&j, arena);
}

/* Joined by one allocation: a batch may have many calls with long ids. */
static struct ep_str events(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision, bool midstream,
                            struct ep_arena *arena)
{
    struct ep_str open = EP_STR("event: message\ndata: "), close = EP_STR("\n\n"), json[EP_SCAN_BATCH_MAX];
    size_t n = 0, bytes = 0, at = 0;
    char *out;

    for (const struct ep_call *c = call; c && n < EP_COUNT(json); c = c->next) {
        if (!c->id_raw.n)
            continue;
        json[n] = one(c, r, decision, midstream, arena);
        bytes += open.n + json[n++].n + close.n;
    }
    out = ep_arena_alloc(arena, bytes + 1);
    for (size_t i = 0; i < n; i++) {
        const struct ep_str parts[] = {open, json[i], close};
        for (size_t k = 0; k < EP_COUNT(parts); k++) {
            memcpy(out + at, parts[k].p, parts[k].n);
            at += parts[k].n;
        }
    }
    return ep_str_n(out, at);
}

struct ep_str ep_mcp_events(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                            struct ep_arena *arena)
{
    return events(call, r, decision, true, arena);
}

static bool has_id(const struct ep_call *call)
{
    for (const struct ep_call *c = call; c; c = c->next)
        if (c->id_raw.n)
            return true;
    return false;
}

void ep_mcp_answer(const struct ep_call *call, const struct ep_refusal *r, struct ep_str decision,
                   struct ep_arena *arena, struct ep_answer *out)
{
    bool posted = call->notification || call->batch || call->id_raw.n, decided = ep_refusal_is_decision(r);
    bool bad = r->kind == EP_REFUSE_BAD_REQUEST;

    *out = (struct ep_answer){.status = bad ? 400 : 200};
    if (!posted && decided && call->visible == EP_VISIBLE_FULL) {
        out->status = 405;
        ep_answer_header(out, EP_STR("allow"), EP_STR("POST"));
        ep_answer_common(out, r, decision, arena);
        return;
    }
    if (posted && !has_id(call) && decided) {
        out->status = 202;
        ep_answer_common(out, r, decision, arena);
        return;
    }
    /* No id to answer to; or a fault that plays an HTTP failure. */
    if ((!has_id(call) && !bad) || (r->kind == EP_REFUSE_FAULT && !r->jsonrpc_code)) {
        ep_http_answer(r, call->wants_json, decision, arena, out);
        return;
    }
    if (!call->wants_json && call->wants_sse && !call->batch && !bad) {
        struct ep_str json = all(call, r, decision, arena);
        out->content_type = EP_STR("text/event-stream");
        out->body = ep_arena_printf(arena, "event: message\ndata: %.*s\n\n", EP_STR_ARG(json));
    } else {
        out->content_type = EP_STR("application/json");
        out->body = has_id(call) ? all(call, r, decision, arena) : one(call, r, decision, false, arena);
        if (call->answered_elsewhere)
            out->status = ep_refusal_status(r);
    }
    ep_answer_common(out, r, decision, arena);
}

/* In 2024-11-05 the client waits on its event stream for what it posted. A fault that plays an HTTP failure is one. */
static bool said_elsewhere(struct ep_stream *s, const struct ep_refusal *r)
{
    if (!s->call.answered_elsewhere || !has_id(&s->call) || (r->kind == EP_REFUSE_FAULT && !r->jsonrpc_code))
        return false;
    return ep_mcp_session_say(s, events(&s->call, r, s->decision_id, false, &s->arena));
}

void ep_mcp_refuse(struct ep_stream *s, const struct ep_refusal *r)
{
    struct ep_answer a = {.status = 202};

    if (said_elsewhere(s, r))
        ep_answer_common(&a, r, s->decision_id, &s->arena);
    else
        ep_mcp_answer(&s->call, r, s->decision_id, &s->arena, &a);
    ep_answer_send(s, &a);
}

void ep_mcp_refuse_midstream(struct ep_stream *s, const struct ep_refusal *r)
{
    struct ep_str last;

    if (!ep_agent_midstream_events(s))
        return;
    last = ep_mcp_events(&s->call, r, s->decision_id, &s->arena);
    ep_stream_end_midway(s, ep_arena_printf(&s->arena, "\n\n%.*s", EP_STR_ARG(last)));
}
