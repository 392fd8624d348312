/* Anthropic's messages API: known by the header anthropic-version, or by its path. Refused by its error object under
 * the status; in a stream by an event named error, without whose name the SDKs skip it. AGENTS.md section 5. */
#include "agent/agent.h"

#include "agent/model.h"
#include "observe/json.h"

static const struct {
    struct ep_str suffix, method;
} paths[] = {
    {EP_STR_INIT("/v1/messages"), EP_STR_INIT("messages")},
    {EP_STR_INIT("/v1/messages/count_tokens"), EP_STR_INIT("messages/count_tokens")},
    {EP_STR_INIT("/v1/messages/batches"), EP_STR_INIT("messages/batches")},
};

static enum ep_agent_claim head(struct ep_stream *s, const struct ep_agent_head *h)
{
    if (h->end && !h->post)
        return EP_AGENT_NO;
    for (size_t i = 0; i < EP_COUNT(paths); i++) {
        if (ep_agent_path_ends(h->path, paths[i].suffix) || ep_agent_path_ends(h->meant, paths[i].suffix)) {
            s->call.method = paths[i].method;
            s->call.version = h->anthropic_version;
            return EP_AGENT_BODY;
        }
    }
    return EP_AGENT_NO;
}

static enum ep_agent_verdict batch(struct ep_stream *s, struct ep_str requests)
{
    bool too_many;

    if (ep_model_fill_batch(&s->call, requests, &s->arena, &too_many))
        return EP_AGENT_MINE;
    if (!too_many)
        return ep_agent_bad_request(s, "agent.malformed", EP_STR("a request of the batch can't be read"), 0);
    s->call.visible = EP_VISIBLE_HEADERS;
    s->call.blind = EP_BLIND_TOO_LARGE;
    s->call.next = NULL;
    return EP_AGENT_MINE;
}

static enum ep_agent_verdict body(struct ep_stream *s, const struct ep_agent_head *h, const struct ep_scan *json,
                                  bool claimed)
{
    const struct ep_scan_message *m = json->first;
    bool is_batch = ep_str_eq(s->call.method, EP_STR("messages/batches")) && m && m->requests.kind == EP_SCAN_ARRAY;

    if (!claimed || json->batch ||
        (m->model.kind != EP_SCAN_STRING && !h->anthropic_version.n && !is_batch && !m->ambiguous_model && !json->duplicate))
        return EP_AGENT_NOT_MINE;
    if (json->duplicate)
        return ep_agent_bad_request(s, "agent.duplicate_key", EP_STR("duplicate key"), 0);
    if (m->ambiguous_model)
        return ep_agent_bad_request(s, "agent.malformed", EP_STR("a key in another case than the API's"), 0);
    if (is_batch)
        return batch(s, ep_agent_str(m->requests.raw));
    ep_model_fill(&s->call, m, &s->arena);
    return EP_AGENT_MINE;
}

static const char *type_of(unsigned status)
{
    static const struct {
        unsigned status;
        const char *type;
    } types[] = {
        {400, "invalid_request_error"}, {401, "authentication_error"}, {402, "billing_error"},
        {403, "permission_error"},      {404, "not_found_error"},      {413, "request_too_large"},
        {429, "rate_limit_error"},      {504, "timeout_error"},        {529, "overloaded_error"},
    };

    for (size_t i = 0; i < EP_COUNT(types); i++)
        if (types[i].status == status)
            return types[i].type;
    return status >= 500 ? "api_error" : "invalid_request_error";
}

struct ep_str ep_anthropic_error(const struct ep_refusal *r, struct ep_str id, struct ep_arena *arena)
{
    struct ep_json j;

    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_kstr(&j, "type", EP_STR("error"));
    ep_json_key(&j, "error");
    ep_json_object(&j);
    ep_json_kstr(&j, "type", ep_str(type_of(ep_refusal_status(r))));
    ep_json_kstr(&j, "message", ep_refusal_text(r, arena));
    ep_json_object_end(&j);
    if (id.n)
        ep_json_kstr(&j, "request_id", id);
    ep_json_object_end(&j);
    return ep_json_take(&j, arena);
}

static void refuse(struct ep_stream *s, const struct ep_refusal *r)
{
    struct ep_answer a;

    ep_agent_llm_answer(r, ep_anthropic_error(r, s->decision_id, &s->arena), EP_STR("request-id"), s->decision_id,
                        &s->arena, &a);
    ep_answer_send(s, &a);
}

static void refuse_midstream(struct ep_stream *s, const struct ep_refusal *r)
{
    if (ep_agent_midstream_events(s))
        ep_agent_end_by_event(s, EP_STR("error"), ep_anthropic_error(r, s->decision_id, &s->arena));
}

const struct ep_agent_protocol ep_agent_anthropic = {
    .how = {.name = "anthropic", .refuse = refuse, .refuse_midstream = refuse_midstream},
    .head = head,
    .body = body,
};
