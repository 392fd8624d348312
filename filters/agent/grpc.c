/* gRPC and gRPC-Web: known by the content type, named by its path, by which servers go too: so the call is fully visible. Messages
 * are protobuf and not looked into: `blind` says so. Refused by trailers alone, which every client takes as the status
 * of the call; gRPC-Web has them as headers, and behind messages as a last frame of the body (grpc_web.c). Sources: gRPC over
 * HTTP/2 (PROTOCOL-HTTP2), PROTOCOL-WEB, AGENTS.md section 6. */
#include "agent/grpc.h"

#define MESSAGE_MAX 1024u

bool ep_grpc_name(struct ep_stream *s, struct ep_str path)
{
    ptrdiff_t slash = path.n ? ep_str_find(path, '/', 1) : -1;

    s->call.service = slash > 0 ? ep_str_n(path.p + 1, (size_t)slash - 1) : (struct ep_str){NULL, 0};
    s->call.method = slash > 0 ? ep_str_n(path.p + slash + 1, path.n - (size_t)slash - 1) : path;
    return slash > 0;
}

static enum ep_agent_claim head(struct ep_stream *s, const struct ep_agent_head *h)
{
    bool text;

    if (!h->post || (!ep_grpc_is_type(h->content_type) && !ep_grpc_is_web_type(h->content_type, &text)))
        return EP_AGENT_NO;
    /* "/mcp" is no name of a method */
    s->call.visible = ep_grpc_name(s, h->path) ? EP_VISIBLE_FULL : EP_VISIBLE_HEADERS;
    s->call.blind = EP_BLIND_UNKNOWN;
    return EP_AGENT_HEAD;
}

struct ep_str ep_grpc_text(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    struct ep_str text = ep_refusal_text(r, arena);

    if (decision.n)
        text = ep_arena_printf(arena, "%.*s [decision %.*s]", (int)EP_MIN(text.n, MESSAGE_MAX), text.p,
                               EP_STR_ARG(decision));
    return text;
}

struct ep_str ep_grpc_message(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    return ep_grpc_encode(arena, ep_grpc_text(r, decision, arena));
}

/* The caller's type, if that is gRPC-Web's; empty: it is gRPC's own. */
static struct ep_str web_type(const struct ep_stream *s)
{
    struct ep_str type = ep_headers_get_id(&s->request.headers, EP_HDR_CONTENT_TYPE);
    bool text;

    return ep_grpc_is_web_type(type, &text) ? type : (struct ep_str){NULL, 0};
}

void ep_grpc_refuse_with(struct ep_stream *s, const struct ep_refusal *r, struct ep_str details)
{
    struct ep_str web = web_type(s), status = ep_arena_printf(&s->arena, "%u", ep_refusal_grpc_status(r));
    struct ep_answer a = {.status = 200, .content_type = web.n ? web : EP_STR("application/grpc")};

    ep_answer_header(&a, EP_STR("grpc-status"), status);
    ep_answer_header(&a, EP_STR("grpc-message"), ep_grpc_message(r, s->decision_id, &s->arena));
    ep_answer_header(&a, EP_STR("x-ephor-decision"), s->decision_id);
    if (details.n)
        ep_answer_header(&a, EP_STR("grpc-status-details-bin"), details);
    s->grpc_status = (int)ep_refusal_grpc_status(r);
    ep_answer_send(s, &a);
}

/* A message that was cut is dropped by the client. */
static void end_by_trailers(struct ep_stream *s, unsigned status, struct ep_str message, struct ep_str details)
{
    struct ep_message *m = &s->response;

    s->local_reply = s->request_done = true;
    ep_body_fini(&m->body);
    ep_headers_fini(&m->trailers);
    ep_headers_init(&m->trailers, &s->arena);
    ep_headers_append(&m->trailers, EP_HDR_GRPC_STATUS, EP_STR("grpc-status"),
                      ep_arena_printf(&s->arena, "%u", status));
    ep_headers_append(&m->trailers, EP_HDR_GRPC_MESSAGE, EP_STR("grpc-message"), message);
    if (details.n)
        ep_headers_add(&m->trailers, EP_STR("grpc-status-details-bin"), details);
    m->has_trailers = m->ended = m->end_given = true;
    s->down->ops->trailers(s->down, &m->trailers);
}

void ep_grpc_refuse_midstream_with(struct ep_stream *s, const struct ep_refusal *r, struct ep_str details)
{
    struct ep_str message = ep_grpc_message(r, s->decision_id, &s->arena);
    unsigned status = ep_refusal_grpc_status(r);
    bool web = web_type(s).n > 0;

    if (s->ending || s->response.end_given || ep_headers_find_id(&s->response.headers, EP_HDR_CONTENT_LENGTH) ||
        (web && (!s->grpc_web || !ep_grpc_web_between(s->grpc_web))))
        return;
    s->grpc_status = (int)status;
    if (web)
        ep_stream_end_midway(s, ep_grpc_web_trailers(status, message, details, s->grpc_web->text, &s->arena));
    else
        end_by_trailers(s, status, message, details);
}

void ep_grpc_refuse(struct ep_stream *s, const struct ep_refusal *r)
{
    ep_grpc_refuse_with(s, r, (struct ep_str){NULL, 0});
}

void ep_grpc_refuse_midstream(struct ep_stream *s, const struct ep_refusal *r)
{
    ep_grpc_refuse_midstream_with(s, r, (struct ep_str){NULL, 0});
}

const struct ep_agent_protocol ep_agent_grpc = {
    .how = {.name = "grpc", .refuse = ep_grpc_refuse, .refuse_midstream = ep_grpc_refuse_midstream},
    .head = head,
};
