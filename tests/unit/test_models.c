/* link: ep_filters */
/* Language models: what is asked of them, whichever API says it, and what two readers could read as two requests. */
#include "agent/agent.h"
#include "agent/model.h"
#include "filter_play.h"

extern const struct ep_filter ep_filter_agent;
const struct ep_filter *const play_filter = &ep_filter_agent;

#define JSON      "content-type: application/json"
#define ANTHROPIC JSON "|anthropic-version: 2023-06-01"

static void post(struct play *p, const char *path, const char *headers, const char *body)
{
    play_request(p, "POST", path, headers, body, strlen(body), 100000);
}

/* The prompt, its lines divided by '|', behind it what is no text. */
static const char *said(struct play *p)
{
    static char out[4096];
    struct ep_model_request *r = p->s->call.to_model;
    struct ep_str text = ep_model_prompt(r, &p->s->arena);
    const unsigned *media = ep_model_media(r, &p->s->arena);
    size_t n = (size_t)snprintf(out, sizeof out, "%.*s", EP_STR_ARG(text));

    for (size_t i = 0; i < n; i++)
        out[i] = out[i] == '\n' ? '|' : out[i];
    for (int m = 0; m < EP_MODEL_MEDIA; m++)
        if (media[m])
            n += (size_t)snprintf(out + n, sizeof out - n, " +%u %s", media[m], ep_model_media_name((enum ep_model_media)m));
    return out;
}

static void test_prompts(void **state)
{
    static const struct {
        const char *path, *body, *said;
    } rows[] = {
        {"/v1/chat/completions", "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"be good\"},"
                                 "{\"role\":\"user\",\"name\":\"bob\",\"content\":\"hi\"}]}", "be good|bob|hi"},
        {"/v1/chat/completions", "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\\nb\"},"
                                 "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,AAAA\",\"detail\":\"low\"}},"
                                 "{\"type\":\"image_url\",\"image_url\":{\"url\":\"http://x/?q=secret\"}},"
                                 "{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"AAAA\",\"format\":\"wav\"}},"
                                 "{\"type\":\"file\",\"file\":{\"file_data\":\"data:x;base64,AA\",\"filename\":\"a.pdf\"}}]}]}",
         "a|b|http://x/?q=secret|a.pdf +2 image +1 audio +1 file"},
        {"/v1/chat/completions", "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c1\","
                                 "\"type\":\"function\",\"function\":{\"name\":\"get\",\"arguments\":\"{\\\"a\\\":1}\"}}]},"
                                 "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":[{\"type\":\"text\",\"text\":\"deep\"}]}]}",
         "get|{\"a\":1}|deep"},
        {"/v1/responses", "{\"model\":\"m\",\"instructions\":\"be\",\"input\":\"ask\"}", "be|ask"},
        {"/v1/responses", "{\"model\":\"m\",\"previous_response_id\":\"resp_1\",\"input\":[{\"type\":\"message\",\"role\":\"user\","
                          "\"content\":[{\"type\":\"input_text\",\"text\":\"x\"},{\"type\":\"input_image\",\"file_id\":\"f\"}]},"
                          "{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":[{\"type\":\"input_text\",\"text\":\"y\"}]},"
                          "{\"type\":\"local_shell_call\",\"action\":{\"type\":\"exec\",\"command\":[\"ls\",\"-l\"]}},"
                          "{\"type\":\"reasoning\",\"summary\":[{\"type\":\"summary_text\",\"text\":\"z\"}],\"encrypted_content\":\"QQ\"},"
                          "{\"type\":\"item_reference\",\"id\":\"i\"},{\"type\":\"something_new\",\"words\":[[\"deeper\"]]}]}",
         "x|y|ls|-l|z|deeper +1 image +2 reference"},
        {"/v1/responses", "{\"prompt\":{\"id\":\"pmpt_1\",\"variables\":{\"name\":\"evil\",\"n\":41}}}", "name|evil|n|41 +1 reference"},
        {"/v1/responses", "{\"model\":\"m\",\"conversation\":{\"id\":\"conv_1\"},\"input\":\"x\"}", "x +1 reference"},
        {"/v1/embeddings", "{\"model\":\"m\",\"input\":[\"a\",\"b\\u0021\"]}", "a|b!"},
        {"/v1/embeddings", "{\"model\":\"m\",\"input\":[[1,2],[3]]}", " +3 tokens"},
        {"/v1/completions", "{\"model\":\"m\",\"prompt\":\"once\",\"messages\":[{\"content\":\"hidden\"}],\"input\":\"too\"}",
         "hidden|too|once"}, /* nobody knows which of them this server reads */
        {"/v1/messages", "{\"model\":\"m\",\"system\":[{\"type\":\"text\",\"text\":\"sys\",\"cache_control\":{\"type\":\"ephemeral\"}}],"
                         "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t\",\"content\":"
                         "[{\"type\":\"text\",\"text\":\"nested\"},{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":"
                         "\"image/png\",\"data\":\"AAAA\"}}]}]}]}", "sys|nested +1 image"},
        {"/v1/messages", "{\"model\":\"m\",\"system\":\"sys\",\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\","
                         "\"id\":\"t\",\"name\":\"pay\",\"input\":{\"type\":\"card\",\"number\":4111,\"list\":[{\"id\":\"in\"}]}}]}]}",
         "sys|pay|type|card|number|4111|list|id|in"},
        {"/v1/messages", "{\"model\":\"m\",\"messages\":[{\"content\":[{\"type\":\"document\",\"title\":\"t\",\"source\":{\"data\":\"plain\","
                         "\"media_type\":\"text/plain\",\"type\":\"text\"}},{\"type\":\"document\",\"source\":{\"data\":\"AA\",\"type\":"
                         "\"base64\"}},{\"type\":\"redacted_thinking\",\"data\":\"AA\"},{\"type\":\"thinking\",\"thinking\":\"hm\","
                         "\"signature\":\"AA\"},{\"type\":\"document\",\"source\":{\"type\":\"content\",\"content\":[{\"type\":\"text\","
                         "\"text\":\"inner\"}]}}]}]}", "t|plain|hm|inner +3 file"},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        post(p, rows[i].path, ANTHROPIC, rows[i].body);
        assert_true(p->passed && p->s->call.to_model);
        if (strcmp(said(p), rows[i].said) != 0)
            fail_msg("row %zu: %s", i, said(p));
        play_end(p);
    }
}

static const char *names(const struct ep_model_names *v)
{
    static char out[1024];
    size_t n = 0;

    out[0] = '\0';
    for (unsigned i = 0; i < v->n; i++)
        n += (size_t)snprintf(out + n, sizeof out - n, "%s%.*s", i ? "|" : "", EP_STR_ARG(v->v[i]));
    return out;
}

static void test_what_is_offered(void **state)
{
    static const struct {
        const char *path, *body, *tools, *servers;
    } rows[] = {
        {"/v1/chat/completions", "{\"model\":\"m\",\"messages\":[],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a\","
                                 "\"parameters\":{\"properties\":{\"name\":{\"type\":\"string\"}}}}},{\"type\":\"custom\",\"custom\":"
                                 "{\"name\":\"b\"}}],\"functions\":[{\"n\\u0061me\":\"sh\\u0065ll\"}]}", "a|b|shell", ""},
        {"/v1/responses", "{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"function\",\"name\":\"a\"},{\"type\":\"web_search\"},"
                          "{\"type\":\"mcp\",\"server_label\":\"wiki\",\"server_url\":\"https://x/mcp\"},{\"type\":\"mcp\",\"server_label\":"
                          "\"drop\",\"connector_id\":\"connector_dropbox\"},{\"type\":\"namespace\",\"name\":\"crm\",\"tools\":[{\"type\":"
                          "\"function\",\"name\":\"inner\"}]}]}", "a|web_search|wiki|drop|crm|inner", "https://x/mcp|connector_dropbox"},
        {"/v1/responses", "{\"model\":\"m\",\"input\":\"x\",\"tools\":[{\"type\":\"function\",\"name\":\"safe\",\"function\":{\"name\":"
                          "\"shell\"}}]}", "safe|shell", ""}, /* one reads this name, the other that */
        {"/v1/messages", "{\"model\":\"m\",\"messages\":[],\"tools\":[{\"name\":\"a\",\"input_schema\":{\"type\":\"object\"}},{\"type\":"
                         "\"bash_20250124\",\"name\":\"bash\"},{\"type\":\"mcp_toolset\",\"mcp_server_name\":\"wiki\"}],\"mcp_servers\":"
                         "[{\"type\":\"url\",\"name\":\"wiki\",\"url\":\"https://y\"}]}", "a|bash_20250124|bash|wiki|wiki", "https://y"},
        {"/v1/messages", "{\"model\":\"m\",\"messages\":[]}", "", ""},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        post(p, rows[i].path, ANTHROPIC, rows[i].body);
        struct ep_model_request *r = p->s->call.to_model;
        assert_string_equal(names(ep_model_tools(r, &p->s->arena)), rows[i].tools);
        assert_string_equal(names(ep_model_servers(r, &p->s->arena)), rows[i].servers);
        play_end(p);
    }
}

static void test_the_other_fields(void **state)
{
    struct play *p = *state;
    struct ep_model_request *r;

    post(p, "/v1/responses", JSON, "{\"model\":\"m\",\"input\":\"x\",\"stream\":true,\"background\":true,\"max_output_tokens\":9,"
                                   "\"max_tokens\":70,\"previous_response_id\":\"resp_1\",\"safety_identifier\":\"u\"}");
    r = p->s->call.to_model;
    assert_true(p->s->call.stream && r->background);
    assert_str(r->max_tokens, "70");
    assert_str(r->previous, "resp_1");
    assert_str(r->user, "u");
    play_end(p);
    post(p, "/v1/chat/completions", JSON, "{\"model\":\"m\",\"messages\":[],\"n\":3,\"user\":\"bob\",\"stream\":false,"
                                          "\"max_completion_tokens\":5}");
    r = p->s->call.to_model;
    assert_true(!p->s->call.stream && !r->background);
    assert_str(r->choices, "3");
    assert_str(r->max_tokens, "5");
    assert_str(r->user, "bob");
    play_end(p);
    post(p, "/v1/messages?beta=true", ANTHROPIC, "{\"model\":\"m\",\"messages\":[],\"max_tokens\":1,\"metadata\":{\"user\\u005fid\":\"bob\"}}");
    assert_str(p->s->call.to_model->user, "bob");
    assert_str(p->s->call.method, "messages");
}

/* --- whose it is --- */

static void test_paths(void **state)
{
    static const char ask[] = "{\"model\":\"m\",\"messages\":[],\"input\":\"x\"}";
    static const struct {
        const char *path, *body, *protocol, *method, *model;
    } rows[] = {
        {"/v1/responses/compact", ask, "openai", "responses/compact", "m"},
        {"/v1/responses/input_tokens", ask, "openai", "responses/input_tokens", "m"},
        {"/v1/chat/complet%69ons", ask, "openai", "chat/completions", "m"}, /* servers that route by what it means */
        {"/v1//chat/./x/../completions/", ask, "openai", "chat/completions", "m"},
        {"/v1%2fchat%2Fcompletions", ask, "openai", "chat/completions", "m"},
        {"/openai/deployments/gpt%2d4o/chat/completions?api-version=1", ask, "openai", "chat/completions", "gpt-4o"},
        {"/openai/deployments/d/embeddings", "{\"input\":\"x\"}", "openai", "embeddings", "d"},
        {"/v1/messages/count_tokens", ask, "anthropic", "messages/count_tokens", "m"},
        {"/v1/responses", "{\"previous_response_id\":\"r\"}", "openai", "responses", ""},
        {"/v1/responses", "{\"answers\":[]}", "http", "POST", ""},
        {"/v1/chat/completions/x", ask, "http", "POST", ""},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        post(p, rows[i].path, JSON, rows[i].body);
        const struct ep_call *c = &p->s->call;
        if (!ep_str_eq(c->protocol, ep_str(rows[i].protocol)) || !ep_str_eq(c->method, ep_str(rows[i].method)) ||
            !ep_str_eq(c->model, ep_str(rows[i].model)))
            fail_msg("row %zu: %.*s %.*s %.*s", i, EP_STR_ARG(c->protocol), EP_STR_ARG(c->method), EP_STR_ARG(c->model));
        assert_true(p->passed);
        play_end(p);
    }
}

static void test_what_two_would_read_differently_is_refused(void **state)
{
    static const struct {
        const char *path, *body, *part;
    } rows[] = {
        {"/v1/chat/completions", "{\"model\":\"a\",\"messages\":[{\"content\":\"x\",\"content\":\"y\"}]}", "duplicate key"},
        {"/v1/chat/completions", "{\"model\":\"a\",\"mod\\u0065l\":\"b\",\"messages\":[]}", "duplicate key"},
        {"/v1/chat/completions", "{\"model\":\"a\",\"Model\":\"b\",\"messages\":[]}", "another case"}, /* Go takes the last */
        {"/v1/chat/completions", "{\"MODEL\":\"b\",\"Messages\":[]}", "another case"},
        {"/v1/messages", "{\"model\":\"a\",\"\xc5\xbfystem\":\"b\",\"messages\":[]}", "another case"},
        {"/v1/messages/batches", "{\"requests\":[{\"custom_id\":\"1\",\"params\":{\"model\":\"a\",\"MODEL\":\"b\"}}]}", "can't be read"},
        {"/v1/messages/batches", "{\"requests\":[{\"params\":{},\"Params\":{}}]}", "can't be read"},
        {"/v1/messages/batches", "{\"requests\":[7]}", "can't be read"},
    };
    struct play *p = *state;

    for (size_t i = 0; i < EP_COUNT(rows); i++) {
        post(p, rows[i].path, JSON, rows[i].body);
        if (p->passed || p->status != 400 || !strstr(p->body, rows[i].part) || !strstr(p->body, "\"type\":\"invalid_request_error\""))
            fail_msg("row %zu: %u %s", i, p->status, p->body);
        play_end(p);
    }
}

static void test_a_body_that_is_no_json_is_refused(void **state)
{
    static const char *const rows[] = {"{\"model\":\"a\xff\"}", "{\"model\":\"a\"", "{\"model\":\"a\",\"messages\":[1,]}",
                                       " {'model':'a'}", "{\"model\":1,\"model\":1}"};
    static const char *const paths[] = {"/v1/chat/completions", "/v1/messages"};
    struct play *p = *state;
    char deep[200];

    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    for (size_t i = 0; i <= EP_COUNT(rows); i++) {
        for (size_t k = 0; k < EP_COUNT(paths); k++) {
            post(p, paths[k], JSON, i < EP_COUNT(rows) ? rows[i] : deep);
            if (p->passed || p->status != 400 || !strstr(p->body, "\"type\":\"invalid_request_error\"") ||
                !strstr(p->body, k ? "{\"type\":\"error\"" : "{\"error\":"))
                fail_msg("row %zu: %u %s", i, p->status, p->body);
            play_end(p);
        }
    }
    post(p, "/survey/responses", JSON, "7"); /* a path, and nothing that anybody takes for a call */
    assert_true(p->passed && p->s->call.visible == EP_VISIBLE_HEADERS && p->s->call.blind == EP_BLIND_UNKNOWN);
}

/* --- batches --- */

static void test_each_request_of_a_batch_is_a_call(void **state)
{
    struct play *p = *state;
    const struct ep_call *c;
    const size_t room = 40000;
    char *many = ep_malloc(room);
    size_t n;

    post(p, "/v1/messages/batches", ANTHROPIC,
         "{\"requests\":[{\"custom_id\":\"one\",\"params\":{\"model\":\"a\",\"messages\":[{\"content\":\"x\"}]}},"
         "{\"params\":{\"m\\u006fdel\":\"b\",\"system\":\"y\",\"tools\":[{\"name\":\"shell\"}]},\"custom_id\":\"two\"}]}");
    c = &p->s->call;
    assert_str(c->id_text, "one");
    assert_str(c->model, "a");
    assert_true(c->batch && c->visible == EP_VISIBLE_FULL);
    assert_str(ep_model_prompt(c->to_model, &p->s->arena), "x");
    c = c->next;
    assert_str(c->id_text, "two");
    assert_str(c->model, "b");
    assert_str(c->method, "messages/batches");
    assert_str(ep_model_prompt(c->to_model, &p->s->arena), "y");
    assert_string_equal(names(ep_model_tools(c->to_model, &p->s->arena)), "shell");
    assert_null(c->next);
    play_end(p);
    n = (size_t)snprintf(many, room, "{\"requests\":[");
    for (unsigned i = 0; i <= EP_MODEL_BATCH_MAX; i++)
        n += (size_t)snprintf(many + n, room - n, "%s{\"params\":{}}", i ? "," : "");
    snprintf(many + n, room - n, "]}");
    p->config.max_body_bytes = 1 << 20;
    post(p, "/v1/messages/batches", ANTHROPIC, many);
    assert_true(p->passed && p->s->call.visible == EP_VISIBLE_HEADERS && p->s->call.blind == EP_BLIND_TOO_LARGE);
    free(many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, play_setup, play_teardown)
        T(test_prompts), T(test_what_is_offered), T(test_the_other_fields), T(test_paths),
        T(test_what_two_would_read_differently_is_refused), T(test_a_body_that_is_no_json_is_refused),
        T(test_each_request_of_a_batch_is_a_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
