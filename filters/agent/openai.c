/* OpenAI's API and all that speak it: known by the end of the path, and by a body that names a model or asks something.
 *
 * A refusal is 403 with the error object, also when a stream was asked for: 200 with an error is taken for an answer.
 * What SDKs would retry carries x-should-retry: false. The decision's id is a member of our own beside `code`: SDKs keep
 * the object whole (error.error, e.body). AGENTS.md section 4. */
#include "agent/agent.h"

#include "agent/model.h"
#include "observe/json.h"

static const struct {
    struct ep_str suffix, method;
} paths[] = {
    {EP_STR_INIT("/chat/completions"), EP_STR_INIT("chat/completions")},
    {EP_STR_INIT("/responses"), EP_STR_INIT("responses")},
    {EP_STR_INIT("/responses/compact"), EP_STR_INIT("responses/compact")},
    {EP_STR_INIT("/responses/input_tokens"), EP_STR_INIT("responses/input_tokens")},
    {EP_STR_INIT("/embeddings"), EP_STR_INIT("embeddings")},
    {EP_STR_INIT("/completions"), EP_STR_INIT("completions")},
};

static enum ep_agent_claim head(struct ep_stream *s, const struct ep_agent_head *h)
{
    if (h->end && !h->post)
        return EP_AGENT_NO;
    for (size_t i = 0; i < EP_COUNT(paths); i++) {
        if (ep_agent_path_ends(h->path, paths[i].suffix) || ep_agent_path_ends(h->meant, paths[i].suffix)) {
            s->call.method = paths[i].method;
            return EP_AGENT_BODY;
        }
    }
    return EP_AGENT_NO;
}

/* Azure: /openai/deployments/NAME/chat/completions, where NAME is the model whatever the body says. */
static struct ep_str deployment(struct ep_str path)
{
    struct ep_str mark = EP_STR("/openai/deployments/"), name = {NULL, 0};
    ptrdiff_t at = ep_str_search(path, mark), slash;

    if (at < 0)
        return name;
    name = ep_str_n(path.p + at + mark.n, path.n - (size_t)at - mark.n);
    slash = ep_str_find(name, '/', 0);
    return slash < 0 ? (struct ep_str){NULL, 0} : ep_str_n(name.p, (size_t)slash);
}

/* It asks something: a stored prompt or an earlier response brings its own model. */
static bool asks(const struct ep_scan_message *m)
{
    return m->model.kind == EP_SCAN_STRING || m->messages.kind == EP_SCAN_ARRAY || m->input.kind > EP_SCAN_NULL ||
           m->prompt.kind > EP_SCAN_NULL || m->previous_response_id.kind == EP_SCAN_STRING;
}

static enum ep_agent_verdict body(struct ep_stream *s, const struct ep_agent_head *h, const struct ep_scan *json,
                                  bool claimed)
{
    const struct ep_scan_message *m = json->first;
    struct ep_str name = deployment(h->meant);

    if (!claimed || json->batch || (!asks(m) && !m->ambiguous_model && !json->duplicate))
        return EP_AGENT_NOT_MINE;
    if (json->duplicate)
        return ep_agent_bad_request(s, "agent.duplicate_key", EP_STR("duplicate key"), 0);
    if (m->ambiguous_model)
        return ep_agent_bad_request(s, "agent.malformed", EP_STR("a key in another case than the API's"), 0);
    ep_model_fill(&s->call, m, &s->arena);
    if (name.n)
        s->call.model = name;
    return EP_AGENT_MINE;
}

struct ep_str ep_openai_error(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    unsigned status = ep_refusal_status(r);
    struct ep_json j;

    ep_json_init(&j);
    ep_json_object(&j);
    ep_json_key(&j, "error");
    ep_json_object(&j);
    ep_json_kstr(&j, "message", ep_refusal_text(r, arena));
    ep_json_kstr(&j, "type",
                 status == 429   ? EP_STR("rate_limit_error")
                 : status >= 500 ? EP_STR("server_error")
                                 : EP_STR("invalid_request_error"));
    ep_json_key(&j, "param");
    ep_json_null(&j);
    ep_json_kstr(&j, "code", ep_str(r->code));
    if (decision.n)
        ep_json_kstr(&j, "decision", decision);
    ep_json_object_end(&j);
    ep_json_object_end(&j);
    return ep_json_take(&j, arena);
}

/* SDKs retry these by themselves; a decision stays the same. Failures and injected faults may be retried. */
static bool retried(unsigned status)
{
    return status == 408 || status == 409 || status == 429 || status >= 500;
}

void ep_agent_llm_answer(const struct ep_refusal *r, struct ep_str text, struct ep_str id_header, struct ep_str id,
                         struct ep_arena *arena, struct ep_answer *out)
{
    *out = (struct ep_answer){.status = ep_refusal_status(r), .content_type = EP_STR("application/json"), .body = text};
    ep_answer_common(out, r, id, arena);
    if (id.n)
        ep_answer_header(out, id_header, id);
    if (ep_refusal_is_decision(r) && retried(out->status))
        ep_answer_header(out, EP_STR("x-should-retry"), EP_STR("false"));
}

static void refuse(struct ep_stream *s, const struct ep_refusal *r)
{
    struct ep_answer a;

    ep_agent_llm_answer(r, ep_openai_error(r, s->decision_id, &s->arena), EP_STR("x-request-id"), s->decision_id, &s->arena, &a);
    ep_answer_send(s, &a);
}

static void refuse_midstream(struct ep_stream *s, const struct ep_refusal *r)
{
    if (ep_agent_midstream_events(s))
        ep_agent_end_by_event(s, EP_STR("error"), ep_openai_error(r, s->decision_id, &s->arena));
}

const struct ep_agent_protocol ep_agent_openai = {
    .how = {.name = "openai", .refuse = refuse, .refuse_midstream = refuse_midstream},
    .head = head,
    .body = body,
};
