/* How many tokens a text is, about.
 *
 * Tokenisers differ by model and are not public for all, so this is a rule of thumb: four bytes of ASCII are a token,
 * any other character is one. It is used before a call, to reserve, and where the answer doesn't say: never in place of
 * what it says. */
#include "meter/meter.h"

#include "agent/model.h"

#define BASE64_RUN    1024u /* so many bytes of a string without a space are no text */
#define BASE64_TOKENS 1000u /* a picture, a file: what providers take for a middling one */

void ep_text_count_add(struct ep_text_count *c, struct ep_str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char b = (unsigned char)s.p[i];

        if (b == '\\' && i + 1 < s.n) {
            bool unicode = s.p[++i] == 'u';
            c->ascii += !unicode;
            c->other += unicode;
            i += unicode ? 4 : 0;
        } else if (b < 0x80) {
            c->ascii++;
        } else {
            c->other += (b & 0xc0) != 0x80; /* the first byte of a character */
        }
    }
}

uint64_t ep_text_count_tokens(const struct ep_text_count *c)
{
    return (c->ascii + 3) / 4 + c->other;
}

static bool breaks(char c)
{
    return c == ' ' || c == '"' || c == '\\' || c == ',' || (unsigned char)c < 0x20;
}

uint64_t ep_estimate_json(struct ep_str json)
{
    struct ep_text_count text = {0};
    uint64_t pieces = 0;
    size_t run;

    for (size_t i = 0; i < json.n; i += run + 1) {
        for (run = 0; i + run < json.n && !breaks(json.p[i + run]); run++)
            ;
        if (run >= BASE64_RUN)
            pieces++;
        else
            ep_text_count_add(&text, ep_str_n(json.p + i, run));
        text.ascii++;
    }
    return ep_text_count_tokens(&text) + pieces * BASE64_TOKENS;
}

bool ep_call_uses_tokens(const struct ep_call *c)
{
    return (ep_str_eq(c->protocol, EP_STR("openai")) || ep_str_eq(c->protocol, EP_STR("anthropic"))) &&
           !ep_str_eq(c->method, EP_STR("messages/count_tokens"));
}

uint64_t ep_estimate_input(const struct ep_stream *s, const struct ep_call *c)
{
    const struct ep_model_request *r = c->to_model;
    uint64_t tokens = 0, bytes;

    if (!r) /* the body couldn't be read: as if it were all text */
        return ep_str_u64(ep_headers_get_id(&s->request.headers, EP_HDR_CONTENT_LENGTH), &bytes) ? bytes / 4 + 1 : 1;
    for (unsigned i = 0; i < EP_MODEL_PARTS; i++)
        tokens += ep_estimate_json(r->raw[i]);
    return EP_MAX(tokens, 1u);
}

uint64_t ep_estimate_output(const struct ep_call *c, uint64_t otherwise)
{
    const struct ep_model_request *r = c->to_model;
    uint64_t each = otherwise, choices = 1;

    if (ep_str_eq(c->method, EP_STR("embeddings")))
        return 0;
    if (r && !ep_str_u64(r->max_tokens, &each))
        each = otherwise;
    if (r && !ep_str_u64(r->choices, &choices))
        choices = 1;
    return EP_MIN(each, 1000000000u) * EP_MIN(EP_MAX(choices, 1u), 1000u);
}
