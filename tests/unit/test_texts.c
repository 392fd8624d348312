/* link: ep_filters */
/* What events say, protocol by protocol: the texts, what they go on with, what ends; what can be read in two ways is unsure.
 * And the event that would be made for the rest of a text says just that, in the same channel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "agent/texts.h"

struct row {
    const char *protocol, *method, *data;
    const char *said; /* of each text: kind:index"raw"(tool), '!' for the last; '+' when it goes on; then |group of each end */
};

#define CHAT(choice) "{\"id\":\"c\",\"choices\":[" choice "]}"

static const struct row rows[] = {
    /* chat completions, completions */
    {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}"), "text:0+\"\" "},
    {"openai", "chat/completions", CHAT("{\"index\":1,\"delta\":{\"content\":\"a\\\"b\"},\"finish_reason\":null}"), "text:1+\"a\\\"b\" "},
    {"openai", "chat/completions", CHAT("{\"index\":1,\"delta\":{\"content\":\"z\"},\"finish_reason\":\"stop\"}"), "text:1+\"z\"! |2"},
    {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}"), "|1"},
    {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"refusal\":\"no\",\"reasoning_content\":\"hm\",\"reasoning\":null}}"),
     "text:0+\"no\" reasoning:0+\"hm\" "},
    {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"content\":\"a\"}},{\"index\":1,\"delta\":{\"content\":\"b\"}}"),
     "text:0+\"a\" text:1+\"b\" "},
    {"openai", "chat/completions",
     CHAT("{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"shell\",\"arguments\":\"\"}},"
          "{\"index\":1,\"function\":{\"arguments\":\"{\\\"a\"}}]}}"),
     "arguments:0+\"\"(shell) arguments:0+\"{\\\"a\" "},
    {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"f\"}}]}}"),
     "arguments:0+(f) "},
    {"openai", "completions", CHAT("{\"index\":0,\"text\":\"once\",\"finish_reason\":\"length\"}"), "text:0+\"once\"! |1"},
    {"openai", "chat/completions", CHAT(""), ""},
    {"openai", "chat/completions", "{\"usage\":{\"total_tokens\":5}}", ""},
    {"openai", "chat/completions", "[DONE]", "|all"},
    {"openai", "chat/completions", " [DONE]", "|all"},
    {"openai", "chat/completions", "[DONE] ", ""},
    {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"content\":7}}"), ""},
    /* what can be read in two ways */
    {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"content\":\"a\",\"content\":\"b\"}}"), "text:0+\"b\" [unsure]"},
    {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"c\\u006fntent\":\"a\"}}"), "[unsure]"},
    {"openai", "chat/completions", "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"", "[unsure]"},
    {"openai", "chat/completions", "{\"choices\":[{\"index\":0 \"delta\":{\"content\":\"a\"}}]}", "[unsure]"},
    {"openai", "chat/completions", "{choices:[]}", "[unsure]"},
    {"openai", "chat/completions", "{}" CHAT("{\"index\":0,\"delta\":{\"content\":\"a\"}}"), "[unsure]"},
    {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"content\":\"a\"}}") " \n", "text:0+\"a\" "},
    {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"content\":\"a\"}}") "x", "text:0+\"a\" [unsure]"},
    /* responses */
    {"openai", "responses", "{\"type\":\"response.output_text.delta\",\"output_index\":2,\"content_index\":1,\"delta\":\"a\"}",
     "text:2+\"a\" "},
    {"openai", "responses", "{\"type\":\"response.reasoning_summary_text.delta\",\"output_index\":0,\"delta\":\"a\"}",
     "reasoning:0+\"a\" "},
    {"openai", "responses", "{\"type\":\"response.function_call_arguments.delta\",\"output_index\":1,\"delta\":\"{\"}",
     "arguments:1+\"{\" "},
    {"openai", "responses", "{\"type\":\"response.output_item.added\",\"output_index\":1,\"item\":{\"name\":\"f\"}}",
     "arguments:1+(f) "},
    {"openai", "responses", "{\"type\":\"response.audio.delta\",\"delta\":\"UklGR\"}", ""},
    {"openai", "responses", "{\"type\":\"response.output_text.done\",\"output_index\":2,\"text\":\"a\"}", "|3"},
    {"openai", "responses", "{\"type\":\"response.completed\",\"response\":{}}", "|all"},
    {"openai", "responses", "{\"type\":\"error\",\"message\":\"x\"}", "|all"},
    /* Anthropic */
    {"anthropic", "messages", "{\"type\":\"message_start\",\"message\":{}}", ""},
    {"anthropic", "messages", "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"name\":\"f\"}}",
     "arguments:1+(f) "},
    {"anthropic", "messages", "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}",
     "text:0+\"a\" "},
    {"anthropic", "messages", "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"partial_json\":\"{\"}}", "arguments:1+\"{\" "},
    {"anthropic", "messages", "{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"thinking\":\"hm\"}}", "reasoning:2+\"hm\" "},
    {"anthropic", "messages", "{\"type\":\"content_block_stop\",\"index\":2}", "|3"},
    {"anthropic", "messages", "{\"type\":\"ping\"}", ""},
    {"anthropic", "messages", "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}", "|all"},
    /* MCP: whole */
    {"mcp", "tools/call", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"image\"},"
                          "{\"text\":\"b\"}]}}",
     "text:0\"a\"! text:2\"b\"! "},
    {"mcp", "tools/call", "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}", ""},
    {"mcp", "tools/call", "[{\"result\":{}}]", ""},
    /* Agent2Agent: artifacts that append go on */
    {"a2a", "message/stream", "{\"result\":{\"kind\":\"artifact-update\",\"append\":true,\"artifact\":{\"artifactId\":\"x\",\"parts\":"
                              "[{\"text\":\"a\"}]}}}",
     "text:0+\"a\" "},
    {"a2a", "message/stream", "{\"result\":{\"append\":true,\"lastChunk\":true,\"artifact\":{\"artifactId\":\"x\",\"parts\":[{\"text\":\"a\"}]}}}",
     "text:0+\"a\"! "},
    {"a2a", "message/stream", "{\"result\":{\"artifact\":{\"artifactId\":\"x\",\"parts\":[{\"text\":\"a\"}]}}}", "text:0\"a\" "},
    {"a2a", "message/stream", "{\"artifactUpdate\":{\"append\":true,\"artifact\":{\"artifactId\":\"x\",\"parts\":[{\"text\":\"a\"}]}}}",
     "text:0+\"a\" "},
    {"a2a", "message/stream", "{\"statusUpdate\":{\"status\":{\"message\":{\"parts\":[{\"text\":\"a\"},{\"data\":{}},{\"text\":\"b\"}]}}}}",
     "text:0\"a\"! text:2\"b\"! "},
    {"a2a", "message/stream", "{\"result\":{\"kind\":\"message\",\"parts\":[{\"text\":\"a\"}]}}", "text:0\"a\"! "},
    /* plain events, and JSON that no reader knows */
    {"http", "GET", "tick 5", "text:0tick 5 "},
    {"http", "GET", "{\"a\":\"b\"}", ""},
    {"http", "GET", "\"a\"", ""},
    {"http", "GET", "  ", ""},
};

static void describe(const struct ep_event_texts *t, char *out, size_t room)
{
    size_t n = 0;

    out[0] = '\0';
    for (unsigned i = 0; i < t->n; i++) {
        const struct ep_event_text *x = &t->v[i];
        n += (size_t)snprintf(out + n, room - n, "%s:%u%s%.*s", ep_text_kind_name(x->kind), (unsigned)x->index, x->channel ? "+" : "",
                              EP_STR_ARG(x->raw));
        if (x->tool.n)
            n += (size_t)snprintf(out + n, room - n, "(%.*s)", EP_STR_ARG(x->tool));
        n += (size_t)snprintf(out + n, room - n, "%s ", x->last ? "!" : "");
    }
    if (t->ends_all)
        n += (size_t)snprintf(out + n, room - n, "|all");
    for (unsigned i = 0; i < t->n_ends; i++)
        n += (size_t)snprintf(out + n, room - n, "|%u", (unsigned)t->ends[i]);
    if (t->unsure)
        n += (size_t)snprintf(out + n, room - n, "[unsure]");
    assert_true(n < room);
}

static void read_row(const struct row *r, const char *data, struct ep_event_texts *t)
{
    struct ep_event e = {.data = ep_str(data)};

    ep_event_texts(ep_str(r->protocol), ep_str(r->method), &e, t);
}

static void test_what_events_say(void **state)
{
    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_event_texts t;
        char said[512];
        read_row(&rows[i], rows[i].data, &t);
        describe(&t, said, sizeof said);
        if (strcmp(said, rows[i].said) != 0)
            fail_msg("%s\nsays    %s\nand not %s", rows[i].data, said, rows[i].said);
    }
}

/* The rest of a text in an event of its own: in the same channel, and nothing else that goes on. */
static void test_an_event_for_the_rest(void **state)
{
    unsigned n = 0;

    (void)state;
    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        struct ep_event_texts t, again;
        char text[1024];
        read_row(&rows[i], rows[i].data, &t);
        for (unsigned k = 0; k < t.n && !t.unsure; k++) {
            const struct ep_event_text *x = &t.v[k];
            bool found = false;
            if (!x->channel || !x->raw.n)
                continue;
            (void)snprintf(text, sizeof text, "%.*s%s\"rest\"%s%.*s", EP_STR_ARG(x->head), x->open, x->close, EP_STR_ARG(x->tail));
            read_row(&rows[i], text, &again);
            assert_false(again.unsure);
            for (unsigned j = 0; j < again.n; j++)
                found |= again.v[j].channel == x->channel && ep_str_eq(again.v[j].raw, EP_STR("\"rest\""));
            if (!found)
                fail_msg("%s\nsays nothing in the channel of\n%s", text, rows[i].data);
            if (x->open[0]) /* made anew: neither the other texts nor the end are said once more */
                assert_true(again.n == 1 && again.n_ends == 0 && !again.v[0].last);
            n++;
        }
    }
    assert_true(n > 15);
}

static uint64_t channel_of(const struct row *r)
{
    struct ep_event_texts t;

    read_row(r, r->data, &t);
    assert_int_equal(t.n, 1);
    assert_true(t.v[0].channel != 0);
    return t.v[0].channel;
}

/* Two texts that go on side by side are never one; a tool's name and its arguments are. */
static void test_channels(void **state)
{
    static const struct row apart[] = {
        {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"content\":\"a\"}}"), NULL},
        {"openai", "chat/completions", CHAT("{\"index\":1,\"delta\":{\"content\":\"a\"}}"), NULL},
        {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"refusal\":\"a\"}}"), NULL},
        {"openai", "chat/completions", CHAT("{\"index\":0,\"text\":\"a\"}"), NULL},
        {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"a\"}}]}}"), NULL},
        {"openai", "chat/completions", CHAT("{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"a\"}}]}}"), NULL},
        {"openai", "responses", "{\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,\"delta\":\"a\"}", NULL},
        {"openai", "responses", "{\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":1,\"delta\":\"a\"}", NULL},
        {"openai", "responses", "{\"type\":\"response.refusal.delta\",\"output_index\":0,\"content_index\":0,\"delta\":\"a\"}", NULL},
    };
    static const struct row same[][2] = {
        {{"openai", "responses", "{\"type\":\"response.output_item.added\",\"output_index\":3,\"item\":{\"name\":\"f\"}}", NULL},
         {"openai", "responses", "{\"type\":\"response.function_call_arguments.delta\",\"output_index\":3,\"delta\":\"{\"}", NULL}},
        {{"anthropic", "messages", "{\"type\":\"content_block_start\",\"index\":3,\"content_block\":{\"name\":\"f\"}}", NULL},
         {"anthropic", "messages", "{\"type\":\"content_block_delta\",\"index\":3,\"delta\":{\"partial_json\":\"{\"}}", NULL}},
    };

    (void)state;
    for (size_t i = 0; i < EP_COUNT(apart); i++)
        for (size_t k = 0; k < i; k++)
            assert_true(channel_of(&apart[i]) != channel_of(&apart[k]));
    for (size_t i = 0; i < EP_COUNT(same); i++)
        assert_true(channel_of(&same[i][0]) == channel_of(&same[i][1]));
}

/* More than fits is never passed over in silence. */
static void test_more_than_fits(void **state)
{
    struct row r = {"mcp", "tools/call", NULL, NULL}, chat = {"openai", "chat/completions", NULL, NULL};
    struct ep_event_texts t;
    char text[4096];
    size_t n;

    (void)state;
    for (unsigned wanted = EP_EVENT_TEXTS_MAX; wanted <= EP_EVENT_TEXTS_MAX + 1; wanted++) {
        n = (size_t)snprintf(text, sizeof text, "{\"result\":{\"content\":[");
        for (unsigned i = 0; i < wanted; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s{\"text\":\"%u\"}", i ? "," : "", i);
        (void)snprintf(text + n, sizeof text - n, "]}}");
        read_row(&r, text, &t);
        assert_int_equal(t.n, EP_EVENT_TEXTS_MAX);
        assert_int_equal(t.unsure, wanted > EP_EVENT_TEXTS_MAX);
    }
    for (unsigned wanted = EP_EVENT_ENDS_MAX; wanted <= EP_EVENT_ENDS_MAX + 1; wanted++) {
        n = (size_t)snprintf(text, sizeof text, "{\"choices\":[");
        for (unsigned i = 0; i < wanted; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s{\"index\":%u,\"finish_reason\":\"stop\"}", i ? "," : "", i);
        (void)snprintf(text + n, sizeof text - n, "]}");
        read_row(&chat, text, &t);
        assert_int_equal(t.n_ends, EP_EVENT_ENDS_MAX);
        assert_int_equal(t.ends_all, wanted > EP_EVENT_ENDS_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_events_say),
        cmocka_unit_test(test_an_event_for_the_rest),
        cmocka_unit_test(test_channels),
        cmocka_unit_test(test_more_than_fits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
