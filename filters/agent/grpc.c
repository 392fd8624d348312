/* gRPC: known by its content type, named by its path, by which servers go too: so the call is fully visible. Messages
 * are protobuf and not looked into: `blind` says so. Refused by trailers alone, which every client takes as the status
 * of the call. Sources: gRPC over HTTP/2 (PROTOCOL-HTTP2), AGENTS.md section 6. */
#include "agent/agent.h"
#include "agent/grpc_frame.h"

#define MESSAGE_MAX 1024u

static enum ep_agent_claim head(struct ep_stream *s, const struct ep_agent_head *h)
{
    ptrdiff_t slash;

    if (!h->post || !ep_grpc_is_type(h->content_type))
        return EP_AGENT_NO;
    slash = h->path.n ? ep_str_find(h->path, '/', 1) : -1;
    s->call.service = slash > 0 ? ep_str_n(h->path.p + 1, (size_t)slash - 1) : (struct ep_str){NULL, 0};
    s->call.method = slash > 0 ? ep_str_n(h->path.p + slash + 1, h->path.n - (size_t)slash - 1) : h->path;
    s->call.visible = slash > 0 ? EP_VISIBLE_FULL : EP_VISIBLE_HEADERS; /* "/mcp" is no name of a method */
    s->call.blind = EP_BLIND_UNKNOWN;
    return EP_AGENT_HEAD;
}

/* Percent-encoded as the protocol asks: what is not printable ASCII, and % itself. */
struct ep_str ep_grpc_message(const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena)
{
    struct ep_str text = ep_refusal_text(r, arena);

    if (decision.n)
        text = ep_arena_printf(arena, "%.*s [decision %.*s]", (int)EP_MIN(text.n, MESSAGE_MAX), text.p,
                               EP_STR_ARG(decision));
    return ep_grpc_encode(arena, text);
}

void ep_grpc_refuse(struct ep_stream *s, const struct ep_refusal *r)
{
    ep_stream_reply_grpc(s, ep_refusal_grpc_status(r), ep_grpc_message(r, s->decision_id, &s->arena));
}

/* After messages: the trailers say how it ended; a message that was cut is dropped by the client. */
void ep_grpc_refuse_midstream(struct ep_stream *s, const struct ep_refusal *r)
{
    struct ep_message *m = &s->response;
    unsigned status = ep_refusal_grpc_status(r);

    if (s->ending || m->end_given || ep_headers_find_id(&m->headers, EP_HDR_CONTENT_LENGTH))
        return;
    s->local_reply = s->request_done = true;
    s->grpc_status = (int)status;
    ep_body_fini(&m->body);
    ep_headers_fini(&m->trailers);
    ep_headers_init(&m->trailers, &s->arena);
    ep_headers_append(&m->trailers, EP_HDR_GRPC_STATUS, EP_STR("grpc-status"),
                      ep_arena_printf(&s->arena, "%u", status));
    ep_headers_append(&m->trailers, EP_HDR_GRPC_MESSAGE, EP_STR("grpc-message"),
                      ep_grpc_message(r, s->decision_id, &s->arena));
    m->has_trailers = m->ended = m->end_given = true;
    s->down->ops->trailers(s->down, &m->trailers);
}

const struct ep_agent_protocol ep_agent_grpc = {
    .how = {.name = "grpc", .refuse = ep_grpc_refuse, .refuse_midstream = ep_grpc_refuse_midstream},
    .head = head,
};
