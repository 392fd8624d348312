/* Refusals as values: what the answer of a protocol is, before it is sent. Formatters are pure functions that fill
 * one of these; a thin `refuse` gives it to the stream. */
#ifndef EP_FILTER_REFUSAL_H
#define EP_FILTER_REFUSAL_H

#include "filter/stream.h"

#define EP_ANSWER_HEADERS 6

struct ep_answer {
    unsigned status;
    struct ep_str content_type, body;
    struct ep_reply_header extra[EP_ANSWER_HEADERS];
    size_t n_extra;
};

void ep_answer_header(struct ep_answer *a, struct ep_str name, struct ep_str value);
/* x-ephor-decision and, where they are set, Retry-After, RateLimit and RateLimit-Policy: what every protocol over HTTP adds. */
void ep_answer_common(struct ep_answer *a, const struct ep_refusal *r, struct ep_str decision, struct ep_arena *arena);
void ep_answer_send(struct ep_stream *s, const struct ep_answer *a);

/* problem+json (RFC 9457), or plain text for who takes no JSON. */
void ep_http_answer(const struct ep_refusal *r, bool json, struct ep_str decision, struct ep_arena *arena,
                    struct ep_answer *out);

/* Whether an Accept value takes this media type ("application/json"): by name, by wildcard, not with q=0. */
bool ep_accepts(struct ep_str accept, struct ep_str type);
/* Over all Accept headers of the request; true when there is none. */
bool ep_stream_accepts(const struct ep_stream *s, struct ep_str type);

/* One sentence for a person or a model: what happened, by whom, why. */
struct ep_str ep_refusal_text(const struct ep_refusal *r, struct ep_arena *arena);
/* Policies, identity and limits decide; the other kinds are failures. */
bool ep_refusal_is_decision(const struct ep_refusal *r);

struct ep_json;
/* The writer's text, moved to the arena; the writer is finished. */
struct ep_str ep_json_take(struct ep_json *j, struct ep_arena *arena);

#endif
