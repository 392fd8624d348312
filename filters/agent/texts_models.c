/* What events of language models say: OpenAI's chat completions, completions and responses, and Anthropic's messages.
 * AGENTS.md sections 4 and 5. */
#include <stdio.h>

#include "agent/texts.h"

#define KEY(text) {.key = EP_STR_INIT(text)}

static bool is_set(struct ep_str value)
{
    return value.n && !ep_str_eq(value, EP_STR("null"));
}

/* --- chat completions, completions --- */

/* An event of the same chunk with nothing but this text: what else the choice said is not said twice. */
static void shell(struct ep_event_text *x, struct ep_str data, struct ep_str choices, const char *close, const char *format,
                  uint64_t choice, uint64_t call)
{
    x->head = ep_str_n(data.p, (size_t)(choices.p - data.p));
    x->tail = ep_str_n(choices.p + choices.n, (size_t)(data.p + data.n - (choices.p + choices.n)));
    snprintf(x->open, sizeof x->open, format, (unsigned)choice, (unsigned)call);
    x->close = close;
}

static void calls(struct ep_event_texts *t, struct ep_str data, struct ep_str choices, struct ep_str list, uint64_t choice,
                  bool last)
{
    struct ep_texts_member m[] = {KEY("index"), KEY("function")}, f[] = {KEY("name"), KEY("arguments")};
    struct ep_str call;

    while (ep_texts_element(t, &list, &call)) {
        ep_texts_members(t, call, m, EP_COUNT(m));
        ep_texts_members(t, m[1].value, f, EP_COUNT(f));
        uint64_t number = ep_texts_number(m[0].value);
        struct ep_event_text *x =
            ep_texts_add(t, data, f[1].value, EP_TEXT_ARGUMENTS, ep_texts_channel(EP_STR("call"), choice, number, 0),
                         choice + 1, choice);
        if (!x)
            continue;
        x->last = last;
        x->tool = ep_texts_string(f[0].value);
        if (x->raw.n)
            shell(x, data, choices, "}}]},\"finish_reason\":null}]",
                  "[{\"index\":%u,\"delta\":{\"tool_calls\":[{\"index\":%u,\"function\":{\"arguments\":", choice, number);
    }
}

static void chat(struct ep_event_texts *t, struct ep_str data)
{
    static const struct {
        enum ep_text_kind kind;
        const char *format;
    } plain[] = {
        {EP_TEXT_CONTENT, "[{\"index\":%u,\"delta\":{\"content\":"},
        {EP_TEXT_CONTENT, "[{\"index\":%u,\"delta\":{\"refusal\":"},
        {EP_TEXT_REASONING, "[{\"index\":%u,\"delta\":{\"reasoning_content\":"},
        {EP_TEXT_REASONING, "[{\"index\":%u,\"delta\":{\"reasoning\":"},
    };
    struct ep_texts_member top[] = {KEY("choices")};
    struct ep_texts_member m[] = {KEY("index"), KEY("delta"), KEY("text"), KEY("finish_reason")};
    struct ep_texts_member d[] = {KEY("content"), KEY("refusal"), KEY("reasoning_content"), KEY("reasoning"),
                                  KEY("tool_calls")};
    struct ep_str rest, choice;
    struct ep_event_text *x;

    ep_texts_members(t, data, top, EP_COUNT(top));
    rest = top[0].value;
    while (ep_texts_element(t, &rest, &choice)) {
        ep_texts_members(t, choice, m, EP_COUNT(m));
        ep_texts_members(t, m[1].value, d, EP_COUNT(d));
        uint64_t index = ep_texts_number(m[0].value);
        bool last = is_set(m[3].value);
        for (size_t i = 0; i < EP_COUNT(plain); i++) {
            if (!is_set(d[i].value) ||
                !(x = ep_texts_add(t, data, d[i].value, plain[i].kind, ep_texts_channel(d[i].key, index, 0, 0), index + 1, index)))
                continue;
            x->last = last;
            shell(x, data, top[0].value, "},\"finish_reason\":null}]", plain[i].format, index, 0);
        }
        if (is_set(m[2].value) && (x = ep_texts_add(t, data, m[2].value, EP_TEXT_CONTENT,
                                                    ep_texts_channel(EP_STR("text"), index, 0, 0), index + 1, index))) {
            x->last = last;
            shell(x, data, top[0].value, ",\"finish_reason\":null}]", "[{\"index\":%u,\"text\":", index, 0);
        }
        calls(t, data, top[0].value, d[4].value, index, last);
        if (last)
            ep_texts_end(t, index + 1);
    }
}

/* --- responses --- */

#define ARGUMENTS_DELTA "response.function_call_arguments.delta"

static void responses(struct ep_event_texts *t, struct ep_str data)
{
    static const char *const ends[] = {"response.completed", "response.failed", "response.incomplete", "error"};
    struct ep_texts_member m[] = {KEY("type"), KEY("delta"), KEY("output_index"), KEY("content_index"), KEY("summary_index"),
                                  KEY("item")};
    struct ep_texts_member item[] = {KEY("name")};
    struct ep_event_text *x;

    ep_texts_members(t, data, m, EP_COUNT(m));
    struct ep_str type = ep_texts_string(m[0].value);
    uint64_t output = ep_texts_number(m[2].value);
    if (ep_str_ends(type, EP_STR(".delta")) && !ep_str_ends(type, EP_STR("audio.delta"))) {
        bool arguments = ep_str_search(type, EP_STR("arguments")) >= 0 || ep_str_search(type, EP_STR("input")) >= 0;
        bool reasoning = ep_str_search(type, EP_STR("reasoning")) >= 0;
        if (m[1].value.n)
            ep_texts_add(t, data, m[1].value,
                         arguments   ? EP_TEXT_ARGUMENTS
                         : reasoning ? EP_TEXT_REASONING
                                     : EP_TEXT_CONTENT,
                         ep_texts_channel(type, output, ep_texts_number(m[3].value), ep_texts_number(m[4].value)), output + 1,
                         output);
        return;
    }
    if (ep_str_eq(type, EP_STR("response.output_item.added"))) {
        ep_texts_members(t, m[5].value, item, EP_COUNT(item));
        if (is_set(item[0].value) && (x = ep_texts_add(t, data, (struct ep_str){NULL, 0}, EP_TEXT_ARGUMENTS,
                                                       ep_texts_channel(EP_STR(ARGUMENTS_DELTA), output, 0, 0), output + 1, output)))
            x->tool = ep_texts_string(item[0].value);
    }
    if (ep_str_ends(type, EP_STR(".done")))
        ep_texts_end(t, output + 1);
    for (size_t i = 0; i < EP_COUNT(ends); i++)
        t->ends_all |= ep_str_eq(type, ep_str(ends[i]));
}

void ep_texts_openai(struct ep_event_texts *t, struct ep_str method, const struct ep_event *e)
{
    if (ep_str_starts(method, EP_STR("responses")))
        responses(t, e->data);
    else
        chat(t, e->data);
}

/* --- Anthropic --- */

void ep_texts_anthropic(struct ep_event_texts *t, struct ep_str method, const struct ep_event *e)
{
    static const enum ep_text_kind kinds[] = {EP_TEXT_CONTENT, EP_TEXT_ARGUMENTS, EP_TEXT_REASONING};
    struct ep_texts_member m[] = {KEY("type"), KEY("index"), KEY("delta"), KEY("content_block")};
    struct ep_texts_member d[] = {KEY("text"), KEY("partial_json"), KEY("thinking")};
    struct ep_texts_member block[] = {KEY("text"), KEY("name")};
    struct ep_event_text *x;

    (void)method;
    ep_texts_members(t, e->data, m, EP_COUNT(m));
    struct ep_str type = ep_texts_string(m[0].value);
    uint64_t index = ep_texts_number(m[1].value);
    if (ep_str_eq(type, EP_STR("content_block_delta"))) {
        ep_texts_members(t, m[2].value, d, EP_COUNT(d));
        for (size_t i = 0; i < EP_COUNT(d); i++)
            if (is_set(d[i].value))
                ep_texts_add(t, e->data, d[i].value, kinds[i], ep_texts_channel(d[i].key, index, 0, 0), index + 1, index);
    } else if (ep_str_eq(type, EP_STR("content_block_start"))) {
        ep_texts_members(t, m[3].value, block, EP_COUNT(block));
        if (is_set(block[1].value) &&
            (x = ep_texts_add(t, e->data, (struct ep_str){NULL, 0}, EP_TEXT_ARGUMENTS,
                              ep_texts_channel(EP_STR("partial_json"), index, 0, 0), index + 1, index)))
            x->tool = ep_texts_string(block[1].value);
    } else if (ep_str_eq(type, EP_STR("content_block_stop"))) {
        ep_texts_end(t, index + 1);
    } else {
        t->ends_all = !ep_str_eq(type, EP_STR("ping")) && !ep_str_eq(type, EP_STR("message_start"));
    }
}
