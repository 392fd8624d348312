/* link: ep_filters
 * Tokens out of answers: the words of each API, whole and in pieces of one byte, cut off at any byte; estimates;
 * prices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "meter/meter.h"

/* Checks of schemas are tried with whole files: tests/config/broken. */
void ep_check_error(struct ep_checker *c, const void *object, const char *key, const char *format, ...)
{
    (void)c, (void)object, (void)key, (void)format;
}

/* Reads n bytes in pieces; `whole`: and then the end. */
static struct ep_usage read_pieces(const void *bytes, size_t n, size_t piece, bool anthropic, enum ep_usage_form form,
                                   bool gzip, bool whole)
{
    struct ep_codings codings = {.n = gzip, .v = {EP_CODING_GZIP}};
    struct ep_usage usage = {0};
    struct ep_usage_reader r;
    struct ep_slab_pool slabs;

    ep_slab_pool_init(&slabs, 4);
    ep_usage_reader_init(&r, &usage, anthropic, form, &codings, &slabs);
    for (size_t at = 0; at < n;) {
        size_t some = EP_MIN(piece, n - at);
        struct ep_slab *slab = ep_slab_new_sized(&slabs, some);
        memcpy(slab->data, (const char *)bytes + at, some);
        ep_usage_read(&r, (struct ep_slice){slab, slab->data, some});
        ep_slab_unref(slab);
        at += some;
    }
    if (whole)
        ep_usage_end(&r);
    usage.whole = ep_usage_is_whole(&r);
    ep_usage_reader_fini(&r);
    assert_int_equal(slabs.n_live, 0);
    ep_slab_pool_fini(&slabs);
    return usage;
}

static const char chat_json[] =
    "{\"id\":\"c-1\",\"object\":\"chat.completion\",\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"message\":{"
    "\"role\":\"assistant\","
    "\"content\":\"he said \\\"usage\\\": "
    "{\\\"prompt_tokens\\\":9}\",\"usage\":{\"prompt_tokens\":1}},\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":29,\"prompt_tokens_details\":{\"cached_"
    "tokens\":8,"
    "\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":4,\"audio_tokens\":0}},\"system_"
    "fingerprint\":null}";
static const char responses_json[] = "{\n  \"id\": \"resp_1\",\n  \"status\": \"completed\",\n  \"output\": [],\n  "
                                     "\"usage\" : { \"input_tokens\": 36, \"input_tokens_details\": "
                                     "{ \"cached_tokens\": 0 }, \"output_tokens\": 87, \"output_tokens_details\": { "
                                     "\"reasoning_tokens\": 64 }, \"total_tokens\": 123 }\n}";
static const char embeddings_json[] =
    "{\"object\":\"list\",\"data\":[{\"embedding\":[0.1,-0.2e-3],\"index\":0}],\"model\":\"e\","
    "\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}";
static const char messages_json[] = "{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}],\"usage\":"
                                    "{\"input_tokens\":12,\"cache_creation_input_tokens\":100,"
                                    "\"cache_read_input_tokens\":2000,\"cache_creation\":{\"ephemeral_5m_input_"
                                    "tokens\":100},\"output_tokens\":6,\"service_tier\":\"standard\"}}";
static const char chat_events[] =
    "data: "
    "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n"
    ": keep-alive\n\n"
    "data: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello there,\"}}],\"usage\":null}\n\n"
    "data: "
    "{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"look\","
    "\"arguments\":"
    "\"{\\\"q\\\":\"}}]}}],\"usage\":null}\n\n"
    "data: {\"id\":\"1\",\"choices\":[],\"usage\":{\"prompt_tokens\":25,\"completion_tokens\":7,\"total_tokens\":32,"
    "\"prompt_tokens_details\":{\"cached_tokens\":5}}}\n\n"
    "data: [DONE]\n\n";
static const char responses_events[] =
    "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"usage\":null}}\n\n"
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hello there "
    "you\"}\n\n"
    "event: response.output_text.done\ndata: {\"type\":\"response.output_text.done\",\"text\":\"Hello there you\"}\n\n"
    "event: response.completed\ndata: "
    "{\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"output\":[],\"usage\":{\"input_tokens\":11,"
    "\"input_tokens_details\":{\"cached_tokens\":3},\"output_tokens\":9,\"output_tokens_details\":{\"reasoning_"
    "tokens\":2}}}}\n\n";
static const char messages_events[] =
    "event: message_start\r\ndata: "
    "{\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":25,"
    "\"cache_read_input_tokens\":10,\"output_tokens\":1}}}\r\n\r\n"
    "event: ping\r\ndata: {\"type\": \"ping\"}\r\n\r\n"
    "event: content_block_delta\r\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello there you "
    "\"}}\r\n\r\n"
    "event: content_block_delta\r\ndata: "
    "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{"
    "\\\"a\\\":1}\"}}\r\n\r\n"
    "event: message_delta\r\ndata: "
    "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":15}}\r\n\r\n"
    "event: message_stop\r\ndata: {\"type\":\"message_stop\"}\r\n\r\n";

#define TEXT(t) (t), sizeof(t) - 1
static const struct {
    const char *name, *text;
    size_t n;
    bool anthropic;
    enum ep_usage_form form;
    struct ep_usage want;
} answers[] = {
    {"chat", TEXT(chat_json), false, EP_USAGE_JSON, {.input = 19, .output = 10, .cached = 8, .reasoning = 4}},
    {"responses", TEXT(responses_json), false, EP_USAGE_JSON, {.input = 36, .output = 87, .reasoning = 64}},
    {"embeddings", TEXT(embeddings_json), false, EP_USAGE_JSON, {.input = 8}},
    {"messages",
     TEXT(messages_json),
     true,
     EP_USAGE_JSON,
     {.input = 2112, .output = 6, .cached = 2000, .cache_write = 100}},
    {"chat events", TEXT(chat_events), false, EP_USAGE_EVENTS, {.input = 25, .output = 7, .cached = 5}},
    {"responses events",
     TEXT(responses_events),
     false,
     EP_USAGE_EVENTS,
     {.input = 11, .output = 9, .cached = 3, .reasoning = 2}},
    {"messages events", TEXT(messages_events), true, EP_USAGE_EVENTS, {.input = 35, .output = 15, .cached = 10}},
};

static void compare(const char *name, struct ep_usage got, struct ep_usage want)
{
    if (got.input != want.input || got.output != want.output || got.cached != want.cached ||
        got.cache_write != want.cache_write || got.reasoning != want.reasoning || !got.input_known || !got.output_known)
        fail_msg("%s: input %llu output %llu cached %llu written %llu reasoning %llu known %d %d", name,
                 (unsigned long long)got.input, (unsigned long long)got.output, (unsigned long long)got.cached,
                 (unsigned long long)got.cache_write, (unsigned long long)got.reasoning, got.input_known,
                 got.output_known);
}

static void test_the_words_of_each_api_in_any_pieces(void **context)
{
    static const size_t pieces[] = {1, 2, 3, 7, 64, 100000};

    (void)context;
    for (size_t i = 0; i < EP_COUNT(answers); i++)
        for (size_t k = 0; k < EP_COUNT(pieces); k++)
            compare(answers[i].name,
                    read_pieces(answers[i].text, answers[i].n, pieces[k], answers[i].anthropic, answers[i].form, false,
                                true),
                    answers[i].want);
}

static size_t zip(const char *text, size_t n, unsigned char *out, size_t room)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)text, .avail_in = (uInt)n, .next_out = out, .avail_out = (uInt)room};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    n = z.total_out;
    deflateEnd(&z);
    return n;
}

static void test_compressed_ones_too(void **context)
{
    unsigned char packed[4096];

    (void)context;
    for (size_t i = 0; i < EP_COUNT(answers); i++) {
        size_t n = zip(answers[i].text, answers[i].n, packed, sizeof packed);
        for (size_t piece = 1; piece < 2000; piece += 1998)
            compare(answers[i].name, read_pieces(packed, n, piece, answers[i].anthropic, answers[i].form, true, true),
                    answers[i].want);
        struct ep_usage cut = read_pieces(packed, n / 2, 1, answers[i].anthropic, answers[i].form, true, false);
        assert_true(cut.input <= answers[i].want.input);
    }
}

/* An end of HTTP's is none of the API's: what says so is each API's own last event, or an error. */
static void test_whether_a_stream_is_whole(void **context)
{
#define CHUNK(index, reason) "data: {\"choices\":[{\"index\":" index ",\"delta\":{},\"finish_reason\":" reason "}]}\n\n"
    static const struct {
        const char *text;
        bool whole;
    } rows[] = {
        {"", false},
        {": ping\n\n", false},
        {CHUNK("0", "null"), false},
        {CHUNK("0", "null") "data: [DONE]\n\n", true},
        {CHUNK("0", "null") "data:[DONE]", true},
        {CHUNK("0", "\"stop\""), true}, /* a server that sends no [DONE] */
        {CHUNK("0", "\"stop\"") CHUNK("1", "null"), false},
        {CHUNK("0", "\"stop\"") CHUNK("1", "null") CHUNK("1", "\"length\""), true},
        {"data: {\"error\":{\"message\":\"no\"}}\n\n", true},
        {"data: {\"error\":null,\"choices\":[]}\n\n", false},
        {"data: {\"type\":\"response.output_text.done\"}\n\n", false},
        {"data: {\"type\":\"response.incomplete\",\"response\":{}}\n\n", true},
        {"data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n", false},
        {"data: {\"type\":\"message_stop\"}\n\n", true},
        {"event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n", true},
    };

    (void)context;
    for (size_t i = 0; i < EP_COUNT(rows); i++)
        for (size_t piece = 1; piece < 200; piece += 100)
            if (read_pieces(rows[i].text, strlen(rows[i].text), piece, false, EP_USAGE_EVENTS, false, true).whole !=
                rows[i].whole)
                fail_msg("row %zu", i);
    for (size_t i = 0; i < EP_COUNT(answers); i++)
        assert_true(read_pieces(answers[i].text, answers[i].n, 7, false, answers[i].form, false, true).whole);
}

static void test_the_model_that_answers(void **context)
{
    static const struct {
        const char *text, *model;
        enum ep_usage_form form;
    } rows[] = {
        {"{\"model\":\"gpt-5-2026\",\"choices\":[{\"model\":\"x\"}]}", "gpt-5-2026", EP_USAGE_JSON},
        {"{\"a\":[\"model\",{\"model\":\"x\"}],\"model\" : \"e\"}", "e", EP_USAGE_JSON},
        {"{\"model\":null,\"x\":\"y\"}", "", EP_USAGE_JSON},
        {"{\"model\":{\"x\":\"y\"}}", "", EP_USAGE_JSON},
        {"{\"model\":[\"y\"]}", "", EP_USAGE_JSON},
        {"{\"model\":\"a\\u0041\"}", "", EP_USAGE_JSON},
        {"{\"model\":\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456\"}",
         "", EP_USAGE_JSON},
        {"data: {\"model\":\"gpt-5\",\"choices\":[]}\n\n", "gpt-5", EP_USAGE_EVENTS},
        {"data: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-x\"}}\n\n", "claude-x", EP_USAGE_EVENTS},
        {"data: {\"type\":\"response.created\",\"response\":{\"model\":\"o9\"}}\n\n", "o9", EP_USAGE_EVENTS},
        {"data: {\"model\":\"a\\\"\"}\n\n", "", EP_USAGE_EVENTS},
    };

    (void)context;
    for (size_t i = 0; i < EP_COUNT(rows); i++)
        for (size_t piece = 1; piece < 200; piece += 100) {
            struct ep_usage u =
                read_pieces(rows[i].text, strlen(rows[i].text), piece, false, rows[i].form, false, true);
            if (!ep_str_eq(ep_str_n(u.model, u.model_n), ep_str(rows[i].model)))
                fail_msg("row %zu: %.*s", i, (int)u.model_n, u.model);
        }
}

/* Wherever it breaks off: never more than was used, what is said to be known is, and more bytes are never less. */
static void test_streams_that_break_off_at_any_byte(void **context)
{
    (void)context;
    for (size_t i = 0; i < EP_COUNT(answers); i++) {
        uint64_t before = 0;
        for (size_t n = 0; n < answers[i].n; n++) {
            struct ep_usage u = read_pieces(answers[i].text, n, 9, answers[i].anthropic, answers[i].form, false, false);
            if (u.output_known)
                assert_int_equal(u.output, answers[i].want.output);
            if (u.input_known)
                assert_int_equal(u.input, answers[i].want.input);
            assert_true(u.output <= answers[i].want.output && u.input + u.output >= before);
            before = u.input + u.output;
        }
    }
    /* what was said of the text so far: 16 bytes of text and 7 of arguments are 6 tokens; message_start's 1 is no end
     */
    const char *stop = strstr(messages_events, "event: message_delta");
    struct ep_usage u =
        read_pieces(messages_events, (size_t)(stop - messages_events), 1, true, EP_USAGE_EVENTS, false, false);
    assert_true(u.input_known && u.input == 35 && !u.output_known && u.output == 6);
    stop = strstr(chat_events, "data: {\"id\":\"1\",\"choices\":[],");
    u = read_pieces(chat_events, (size_t)(stop - chat_events), 1, false, EP_USAGE_EVENTS, false, false);
    assert_true(!u.input_known && !u.output_known && u.output == (12 + 4 + 5 + 3) / 4);
    stop = strstr(responses_events, "event: response.completed");
    u = read_pieces(responses_events, (size_t)(stop - responses_events), 1, false, EP_USAGE_EVENTS, false, false);
    assert_true(!u.output_known && u.output == 4); /* said once, though told twice */
}

static void test_what_is_no_usage(void **context)
{
    static const char *const texts[] = {
        "{}",
        "[]",
        "",
        "{",
        "null",
        "\xff\xfe",
        "{\"usage\":null}",
        "{\"usage\":[{\"prompt_tokens\":5}",
        "{\"usage\":\"prompt_tokens\"}",
        "{\"usage\":{\"prompt_tokens\":-5}}",
        "{\"usage\":{\"prompt_tokens\":1e3}}",
        "{\"usage\":{\"prompt_tokens\":99999999999999999999}}",
        "{\"usage\":{\"prompt_tokens\":1000000000001}}",
        "{\"a\":{\"usage\":{\"prompt_tokens\":5}}}",
        "[{\"usage\":{\"prompt_tokens\":5}}]",
        "{\"a\":\"usage\",\"b\":{\"prompt_tokens\":5}}",
        "{\"usages\":{\"prompt_tokens\":5}}",
        "{\"x\\\"usage\":{\"prompt_tokens\":5}}",
        "{\"usage\":7,\"b\":{\"prompt_tokens\":5}}",
        "}}}}{\"usage\"",
        "{\"usage\":{\"x\":{\"y\":[[[[",
    };

    (void)context;
    for (size_t i = 0; i < EP_COUNT(texts); i++)
        for (size_t piece = 1; piece < 100; piece += 98) {
            struct ep_usage u = read_pieces(texts[i], strlen(texts[i]), piece, false, EP_USAGE_JSON, false, true);
            if (u.input_known || u.output_known || u.input || u.output)
                fail_msg("%s", texts[i]);
        }
}

static void test_a_usage_that_is_too_long_is_left_alone(void **context)
{
    char text[3 * EP_USAGE_BYTES];
    size_t n = (size_t)snprintf(text, sizeof text, "{\"usage\":{\"prompt_tokens\":5,\"x\":\"");
    struct ep_usage u;

    (void)context;
    memset(text + n, 'x', 2 * EP_USAGE_BYTES);
    n += 2 * EP_USAGE_BYTES;
    n += (size_t)snprintf(text + n, sizeof text - n, "\"}}");
    u = read_pieces(text, n, 10, false, EP_USAGE_JSON, false, true);
    assert_false(u.input_known);
}

static void test_estimates(void **context)
{
    static const struct {
        const char *json;
        uint64_t tokens;
    } rows[] = {
        {"", 0},
        {"\"four\"", 2},
        {"\"\xe6\xbc\xa2\xe5\xad\x97\"", 3}, /* two characters, and the quotes */
        {"[{\"role\":\"user\",\"content\":\"What is the weather?\"}]", 13},
    };
    struct ep_text_count c = {0};
    char big[20000];

    (void)context;
    for (size_t i = 0; i < EP_COUNT(rows); i++)
        assert_int_equal(ep_estimate_json(ep_str(rows[i].json)), rows[i].tokens);
    memset(big, 'A', sizeof big); /* a picture */
    big[0] = big[sizeof big - 1] = '"';
    assert_in_range(ep_estimate_json(ep_str_n(big, sizeof big)), 1000, 1010);
    ep_text_count_add(&c, EP_STR("a\\nb\\\"c\\u00e9\\ud83d\\ude00")); /* five of ASCII, three units of UTF-16 */
    assert_int_equal(ep_text_count_tokens(&c), 2 + 3);
    ep_text_count_add(&c, EP_STR("\\"));
    ep_text_count_add(&c, EP_STR("\\u12"));
    assert_true(ep_text_count_tokens(&c) >= 5);
}

static void test_prices(void **context)
{
    struct ep_price list[] = {
        {.model = EP_STR_INIT("gpt-4o-mini*"),
         .input = 150000000,
         .output = 600000000,
         .cached = 75000000,
         .cache_write = 150000000,
         .per = 1000000},
        {.model = EP_STR_INIT("gpt-4*"),
         .input = 2500000000,
         .output = 10000000000,
         .cached = 1250000000,
         .cache_write = 2500000000,
         .per = 1000000},
    };
    const struct ep_meter_config config = {.prices = {list, 2}};
    const struct ep_usage u = {.input = 1000, .output = 100, .cached = 400, .cache_write = 100};
    uint64_t n;

    (void)context;
    assert_ptr_equal(ep_price_of(&config, EP_STR("gpt-4o-mini-2024")), &list[0]);
    assert_ptr_equal(ep_price_of(&config, EP_STR("gpt-4o")), &list[1]);
    assert_null(ep_price_of(&config, EP_STR("claude")));
    assert_null(ep_price_of(NULL, EP_STR("gpt-4o")));
    /* 500 × 2.50 + 400 × 1.25 + 100 × 2.50 + 100 × 10.00, a million each: 0.003 */
    assert_int_equal(ep_price_cost(&list[1], &u), 3000000);
    assert_int_equal(ep_price_cost(&list[0], &(struct ep_usage){.input = 1}), 150);
    list[0].per = 1000000000;
    assert_int_equal(ep_price_cost(&list[0], &(struct ep_usage){.input = 1}), 1); /* never nothing */
    list[0].per = 1;
    assert_true(ep_price_cost(&list[0], &(struct ep_usage){.input = UINT64_MAX}) == UINT64_MAX);
    assert_int_equal(ep_price_cost(&list[1], &(struct ep_usage){.cached = 50, .cache_write = 50}),
                     0); /* parts of nothing */
    assert_true(ep_parse_nano(EP_STR("2.50"), &n) && n == 2500000000);
    assert_true(ep_parse_nano(EP_STR("0.000000001"), &n) && n == 1);
    assert_true(ep_parse_nano(EP_STR("18446744073.709551615"), &n) && n == UINT64_MAX);
    const char *const bad[] = {"",    ".",    "1.", ".5", "-1", "1e3", "0.0000000001", "18446744073.709551616",
                               "1,5", "1.5.5"};
    for (size_t i = 0; i < EP_COUNT(bad); i++)
        if (ep_parse_nano(ep_str(bad[i]), &n))
            fail_msg("%s", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_words_of_each_api_in_any_pieces),
        cmocka_unit_test(test_compressed_ones_too),
        cmocka_unit_test(test_whether_a_stream_is_whole),
        cmocka_unit_test(test_the_model_that_answers),
        cmocka_unit_test(test_streams_that_break_off_at_any_byte),
        cmocka_unit_test(test_what_is_no_usage),
        cmocka_unit_test(test_a_usage_that_is_too_long_is_left_alone),
        cmocka_unit_test(test_estimates),
        cmocka_unit_test(test_prices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
