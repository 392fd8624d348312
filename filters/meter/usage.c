/* Tokens out of answers, while they pass.
 *
 * A JSON answer is looked through for the member "usage" of its outermost object, byte by byte, whatever its size:
 * nothing is held back and nothing kept but that object. Events are cut by a splitter of its own over the same slices,
 * so that the stream itself is not touched. Who says nothing of usage (OpenAI's chat streams without include_usage, a
 * stream that broke off) is counted by its text, which is an estimate and told as one.
 *
 * A stream that ends well over HTTP but without the last event of its API was cut by somebody: it is counted as broken, and
 * nothing is put behind it, since there are servers that end so by habit (of those, chat completions with a finish_reason for
 * each choice count as whole).
 *
 * Usage is cumulative wherever a stream tells it more than once, so the largest number counts. Anthropic's input_tokens
 * leave out what the cache had; OpenAI's don't. AGENTS.md sections 4 and 5. */
#include "meter/meter.h"

#include "observe/json.h"

#define TOKENS_MAX 1000000000000u /* of one number; more is no number of tokens */

static bool number(struct ep_str value, uint64_t *out)
{
    return ep_str_u64(value, out) && *out <= TOKENS_MAX;
}

static void most(uint64_t *at, uint64_t n)
{
    *at = EP_MAX(*at, n);
}

/* A number inside a member: prompt_tokens_details.cached_tokens. */
static void detail(struct ep_str details, const char *name, uint64_t *at)
{
    uint64_t n;

    if (number(ep_json_member(details, name), &n))
        most(at, n);
}

bool ep_usage_take(struct ep_usage *u, struct ep_str json, bool anthropic)
{
    struct ep_str key, value;
    uint64_t n, input = 0, output = 0;
    bool has_input = false, has_output = false;

    if (!json.n || json.p[0] != '{')
        return false;
    while (ep_json_next(&json, &key, &value)) {
        if (ep_str_eq(key, EP_STR("prompt_tokens_details")) || ep_str_eq(key, EP_STR("input_tokens_details"))) {
            detail(value, "cached_tokens", &u->cached);
        } else if (ep_str_eq(key, EP_STR("completion_tokens_details")) ||
                   ep_str_eq(key, EP_STR("output_tokens_details"))) {
            detail(value, "reasoning_tokens", &u->reasoning);
        } else if (!number(value, &n)) {
            continue;
        } else if (ep_str_eq(key, EP_STR("prompt_tokens")) || ep_str_eq(key, EP_STR("input_tokens"))) {
            input = n;
            has_input = true;
        } else if (ep_str_eq(key, EP_STR("completion_tokens")) || ep_str_eq(key, EP_STR("output_tokens"))) {
            output = n;
            has_output = true;
        } else if (ep_str_eq(key, EP_STR("cache_read_input_tokens"))) {
            most(&u->cached, n);
        } else if (ep_str_eq(key, EP_STR("cache_creation_input_tokens"))) {
            most(&u->cache_write, n);
        }
    }
    if (has_input) {
        input += anthropic ? u->cached + u->cache_write : 0;
        u->input = u->input_known ? EP_MAX(u->input, input) : input;
        u->input_known = true;
    }
    if (has_output) {
        u->output = u->output_known ? EP_MAX(u->output, output) : output;
        u->output_known = true;
    } else if (has_input && !anthropic) { /* embeddings write none */
        u->output_known = true;
    }
    return has_input || has_output;
}

/* --- JSON --- */

static void found(struct ep_usage_reader *r)
{
    struct ep_usage_find *f = &r->find;

    f->capturing = false;
    if (!f->lost)
        ep_usage_take(r->usage, ep_str_n(f->value, f->value_n), r->anthropic);
}

static void capture(struct ep_usage_find *f, char c)
{
    if (f->value_n < sizeof f->value)
        f->value[f->value_n++] = c;
    else
        f->lost = true;
}

/* Of the model's name, which counts when its end has come. False: it is longer than any. */
static bool name_byte(struct ep_usage_reader *r, char c)
{
    if (r->find.model_n == sizeof r->usage->model)
        return false;
    r->usage->model[r->find.model_n++] = c;
    return true;
}

/* One byte outside of strings. */
static void structure(struct ep_usage_reader *r, char c)
{
    struct ep_usage_find *f = &r->find;

    switch (c) {
    case '"':
        f->in_string = true;
        f->is_key = f->depth == 1 && f->key_next;
        f->key_n = f->is_key ? 0 : f->key_n;
        f->is_model = f->model_next;
        f->model_next = false;
        if (f->is_model)
            f->model_n = r->usage->model_n = 0;
        break;
    case '{':
    case '[':
        f->key_next = c == '{' && f->depth == 0;
        f->model_next = false;
        f->depth++;
        break;
    case '}':
    case ']':
        if (f->depth)
            f->depth--;
        if (f->capturing && f->depth == 1)
            found(r);
        break;
    case ',':
        f->key_next = f->depth == 1;
        f->model_next = false;
        break;
    case ':':
        if (f->depth == 1) {
            f->key_next = false;
            f->model_next = f->key_n == 5 && memcmp(f->key, "model", 5) == 0;
            f->capturing = f->key_n == 5 && memcmp(f->key, "usage", 5) == 0;
            f->value_n = 0;
            f->lost = false;
        }
        break;
    default:
        break;
    }
}

static void look_json(struct ep_usage_reader *r, const char *p, size_t n)
{
    struct ep_usage_find *f = &r->find;

    for (const char *end = p + n; p < end; p++) {
        bool inside = f->capturing && (f->depth > 1 || f->value_n || *p == '{');
        if (f->in_string) {
            if (f->escaped) {
                f->escaped = false;
            } else if (*p == '\\') {
                f->escaped = true;
                f->is_model = false; /* no model is called that */
            } else if (*p == '"') {
                r->usage->model_n = f->is_model ? f->model_n : r->usage->model_n;
                f->in_string = f->is_model = false;
            } else if (f->is_key && f->key_n < sizeof f->key) {
                f->key[f->key_n++] = *p;
            } else if (f->is_model) {
                f->is_model = name_byte(r, *p);
            }
            if (inside)
                capture(f, *p);
            continue;
        }
        if (inside)
            capture(f, *p);
        structure(r, *p);
        if (f->capturing && f->depth == 1 && *p == ',') /* "usage": null, … */
            f->capturing = false;
    }
}

/* --- events --- */

static void count_text(struct ep_usage_reader *r, struct ep_str value)
{
    if (value.n >= 2 && value.p[0] == '"')
        ep_text_count_add(&r->text, ep_str_n(value.p + 1, value.n - 2));
}

/* A delta of any protocol: a string, or an object with what was said under one of these names. */
static void count_delta(struct ep_usage_reader *r, struct ep_str delta)
{
    static const char *const said[] = {"content", "text", "partial_json", "thinking", "reasoning_content", "refusal"};
    struct ep_str key, value, calls, call;

    count_text(r, delta);
    if (!delta.n || delta.p[0] != '{')
        return;
    while (ep_json_next(&delta, &key, &value)) {
        for (size_t i = 0; i < EP_COUNT(said); i++)
            if (ep_str_eq(key, ep_str(said[i])))
                count_text(r, value);
        if (!ep_str_eq(key, EP_STR("tool_calls")))
            continue;
        calls = value;
        while (calls.n && calls.p[0] != ']' && ep_json_next(&calls, &key, &call)) {
            count_text(r, ep_json_member(call, "function.name"));
            count_text(r, ep_json_member(call, "function.arguments"));
        }
    }
}

static void count_choices(struct ep_usage_reader *r, struct ep_str choices)
{
    struct ep_str key, choice, reason;
    uint64_t index;

    while (choices.n && choices.p[0] != ']' && ep_json_next(&choices, &key, &choice)) {
        count_delta(r, ep_json_member(choice, "delta"));
        count_text(r, ep_json_member(choice, "text"));
        if (number(ep_json_member(choice, "index"), &index) && index < UINT32_MAX)
            r->choices = EP_MAX(r->choices, (unsigned)index + 1);
        reason = ep_json_member(choice, "finish_reason");
        r->finished += reason.n && reason.p[0] == '"';
    }
}

static bool is_last(struct ep_str type)
{
    static const char *const last[] = {"\"message_stop\"",    "\"response.completed\"", "\"response.incomplete\"",
                                       "\"response.failed\"", "\"response.cancelled\"", "\"error\""};

    for (size_t i = 0; i < EP_COUNT(last); i++)
        if (ep_str_eq(type, ep_str(last[i])))
            return true;
    return false;
}

static void take_model(struct ep_usage *u, struct ep_str value)
{
    if (value.n <= 2 || value.p[0] != '"' || value.n - 2 > sizeof u->model || memchr(value.p, '\\', value.n))
        return;
    u->model_n = (unsigned)value.n - 2;
    memcpy(u->model, value.p + 1, u->model_n);
}

/* message_start of Anthropic's: what was read. What it says of the output is the beginning of one. */
static void take_start(struct ep_usage *u, struct ep_str message)
{
    bool before = u->output_known;

    ep_usage_take(u, ep_json_member(message, "usage"), true);
    u->output_known = before;
    take_model(u, ep_json_member(message, "model"));
}

static void take_response(struct ep_usage_reader *r, struct ep_str response)
{
    ep_usage_take(r->usage, ep_json_member(response, "usage"), r->anthropic);
    take_model(r->usage, ep_json_member(response, "model"));
}

static enum ep_event_verdict on_event(void *user, const struct ep_event *e, struct ep_str *replacement)
{
    struct ep_usage_reader *r = user;
    struct ep_str rest = e->data, key, value;

    (void)replacement;
    if (!rest.n || rest.p[0] != '{') {
        r->last_event |= ep_str_eq(ep_str_trim(rest), EP_STR("[DONE]"));
        return EP_EVENT_PASS;
    }
    while (ep_json_next(&rest, &key, &value)) {
        if (ep_str_eq(key, EP_STR("usage")))
            ep_usage_take(r->usage, value, r->anthropic);
        else if (ep_str_eq(key, EP_STR("response")))
            take_response(r, value);
        else if (ep_str_eq(key, EP_STR("message")))
            take_start(r->usage, value);
        else if (ep_str_eq(key, EP_STR("model")))
            take_model(r->usage, value);
        else if (ep_str_eq(key, EP_STR("type")))
            r->last_event |= is_last(value);
        else if (ep_str_eq(key, EP_STR("error")))
            r->last_event |= value.p[0] == '{';
        else if (ep_str_eq(key, EP_STR("choices")))
            count_choices(r, value);
        else if (ep_str_eq(key, EP_STR("delta")))
            count_delta(r, value);
    }
    if (!r->usage->output_known)
        most(&r->usage->output, ep_text_count_tokens(&r->text));
    return EP_EVENT_PASS;
}

/* --- both --- */

static void look(struct ep_usage_reader *r, struct ep_slice piece)
{
    struct ep_body b;

    if (r->form == EP_USAGE_JSON) {
        look_json(r, (const char *)piece.p, piece.n);
        return;
    }
    ep_body_init(&b);
    ep_body_push(&b, ep_slice_ref(piece), r->slabs);
    r->broken |= ep_events_pass(&r->events, &b, false, r->slabs, on_event, r) != EP_EVENTS_GOOD;
    ep_body_fini(&b);
}

static void on_decoded(void *user, const unsigned char *p, size_t n)
{
    struct ep_usage_reader *r = user;
    struct ep_body b;

    if (r->form == EP_USAGE_JSON) {
        look_json(r, (const char *)p, n);
        return;
    }
    ep_body_init(&b);
    ep_body_push_copy(&b, p, n, r->slabs);
    r->broken |= ep_events_pass(&r->events, &b, false, r->slabs, on_event, r) != EP_EVENTS_GOOD;
    ep_body_fini(&b);
}

void ep_usage_reader_init(struct ep_usage_reader *r, struct ep_usage *usage, bool anthropic, enum ep_usage_form form,
                          const struct ep_codings *codings, struct ep_slab_pool *slabs)
{
    memset(r, 0, sizeof *r);
    r->usage = usage;
    r->anthropic = anthropic;
    r->form = form;
    r->slabs = slabs;
    ep_events_init(&r->events, EP_EVENT_BYTES_MAX);
    if (codings->n)
        r->decoder = ep_decoder_new(codings, SIZE_MAX, on_decoded, r);
}

void ep_usage_reader_fini(struct ep_usage_reader *r)
{
    ep_events_fini(&r->events);
    ep_decoder_free(r->decoder);
    r->decoder = NULL;
}

void ep_usage_read(struct ep_usage_reader *r, struct ep_slice piece)
{
    if (r->broken || !piece.n)
        return;
    if (r->decoder)
        r->broken = ep_decoder_feed(r->decoder, piece.p, piece.n) != EP_DECODE_OK;
    else
        look(r, piece);
}

void ep_usage_end(struct ep_usage_reader *r)
{
    struct ep_body b;

    if (r->broken)
        return;
    if (r->decoder)
        (void)ep_decoder_end(r->decoder);
    if (r->form == EP_USAGE_EVENTS) {
        ep_body_init(&b);
        (void)ep_events_pass(&r->events, &b, true, r->slabs, on_event, r);
        ep_body_fini(&b);
    }
}

bool ep_usage_is_whole(const struct ep_usage_reader *r)
{
    return r->form == EP_USAGE_JSON || r->broken || r->last_event || (r->choices && r->finished >= r->choices);
}
