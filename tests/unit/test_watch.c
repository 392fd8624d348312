/* link: ep_filters */
/* Policies on a stream of events: what goes on of it, byte for byte, however it is cut; where it ends; what is too much. */
#include "lua_fixture.h"

#include "lua/redact.h"
#include "lua/watch.h"

extern const struct ep_filter ep_filter_policies;

#define SAY(choice, text) "data: {\"id\":\"c\",\"choices\":[{\"index\":" #choice ",\"delta\":{\"content\":\"" text "\"}}]}\n\n"
#define MADE(choice, text)                                                                                             \
    "data: {\"id\":\"c\",\"choices\":[{\"index\":" #choice ",\"delta\":{\"content\":\"" text "\"},\"finish_reason\":null}]}\n\n"
#define STOP(choice) "data: {\"id\":\"c\",\"choices\":[{\"index\":" #choice ",\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define DONE         "data: [DONE]\n\n"
#define POLICY(more) "return require 'ephor.policy' { name = 'p', " more " }"
#define JUDGES                                                                                                         \
    POLICY("event = function(e) if e.text and e.text:find('banned', 1, true) then return e:deny('no such word') end end")
#define REDACTS(more) POLICY("reply = function() end" more)

struct watch {
    struct fake_stream f;
    struct ep_policy_watch *w;
    struct ep_policy_verdict v;
    struct ep_policy *who;
    enum ep_policy_watched watched;
    char out[65536];
    size_t n;
};

static const struct ep_redaction ssn = {.kind = EP_SENSITIVE_SSN, .with = EP_STR_INIT("[ssn]")};
static const struct ep_redaction digits = {.kind = EP_SENSITIVE_KINDS, .pattern = EP_STR_INIT("code%-%d+"), .with = EP_STR_INIT("[code]")};

static struct ep_policy_set *load(struct play *p, const char *a, const char *b)
{
    struct ep_error err = {""};

    play_file(p, "a.lua", a);
    if (b)
        play_file(p, "b.lua", b);
    p->listener.max_body_bytes = 32768;
    p->policies.budget.time_ns = 60 * EP_S; /* of a machine that is busy */
    if (!play_load(p, &ep_filter_policies, NULL, &err))
        fail_msg("%s", err.text);
    return p->instance.data;
}

static void begin(struct watch *x, struct play *p, const struct ep_redaction *first, const struct ep_redaction *second)
{
    struct ep_policy_set *set = p->instance.data;

    memset(x, 0, sizeof *x);
    stream_init(&x->f, p);
    x->f.s.call.protocol = EP_STR("openai");
    x->f.s.call.method = EP_STR("chat/completions");
    x->w = ep_policy_watch_new(set, &x->f.s, NULL);
    ep_policy_watch_add(x->w, set->v[0], first);
    if (set->n > 1)
        ep_policy_watch_add(x->w, set->v[1], second);
}

/* Tells so many bytes in pieces; what may go on is added to `out`. */
static void tell(struct watch *x, const char *bytes, size_t n, size_t piece, bool end)
{
    struct ep_slab_pool *slabs = &x->f.s.worker->slabs;
    struct ep_body b;

    ep_body_init(&b);
    for (size_t at = 0; (at < n || (end && n == 0)) && x->watched == EP_POLICY_WATCH_ON; at += piece) {
        size_t some = EP_MIN(piece, n - at);
        if (some)
            ep_body_push_copy(&b, bytes + at, some, slabs);
        x->watched = ep_policy_watch_pass(x->w, &b, end && at + some == n, slabs, &x->who, &x->v);
        struct ep_str passes = ep_body_flatten(&b, &x->f.s.arena);
        assert_true(x->n + passes.n < sizeof x->out);
        if (passes.n)
            memcpy(x->out + x->n, passes.p, passes.n);
        x->n += passes.n;
        ep_body_fini(&b);
        if (n == 0)
            break;
    }
    x->out[x->n] = '\0';
}

static void finish(struct watch *x)
{
    ep_policy_watch_free(x->w);
    stream_fini(&x->f);
}

static void streams(struct play *p, const struct ep_redaction *first, const struct ep_redaction *second, const char *in, const char *out)
{
    static struct watch x;
    size_t pieces[] = {strlen(in), 1, 7, 64};

    for (size_t i = 0; i < EP_COUNT(pieces); i++) {
        begin(&x, p, first, second);
        tell(&x, in, strlen(in), pieces[i], true);
        assert_int_equal(x.watched, EP_POLICY_WATCH_ON);
        assert_string_equal(x.out, out);
        finish(&x);
    }
}

static void refused(struct play *p, const struct ep_redaction *first, const struct ep_redaction *second, const char *in, const char *out,
                    const char *code, const char *reason)
{
    static struct watch x;
    size_t pieces[] = {strlen(in), 1, 11};

    for (size_t i = 0; i < EP_COUNT(pieces); i++) {
        begin(&x, p, first, second);
        tell(&x, in, strlen(in), pieces[i], true);
        assert_int_equal(x.watched, EP_POLICY_WATCH_REFUSED);
        assert_string_equal(x.out, out);
        assert_string_equal(x.v.code, code);
        assert_str_equal(x.v.reason, reason);
        assert_true(x.v.refuse && x.who);
        finish(&x);
    }
}

static void test_what_two_events_share_is_redacted(void **state)
{
    struct play *p = *state;

    load(p, REDACTS(""), NULL);
    streams(p, &ssn, NULL, SAY(0, "it is 123-4") SAY(0, "5-6789, ok") STOP(0) DONE, SAY(0, "it is ") SAY(0, "[ssn], ok") STOP(0) DONE);
    /* what could have begun goes out before the end of its text, or with the end of the stream */
    streams(p, &ssn, NULL, SAY(0, "it is 123-4") STOP(0) DONE, SAY(0, "it is ") MADE(0, "123-4") STOP(0) DONE);
    streams(p, &ssn, NULL, SAY(0, "it is 123-4") DONE, SAY(0, "it is ") MADE(0, "123-4") DONE);
    streams(p, &ssn, NULL, SAY(0, "it is 123-45-6789"), SAY(0, "it is ") MADE(0, "[ssn]"));
    /* texts side by side don't make one */
    streams(p, &ssn, NULL, SAY(0, "123-45") SAY(1, "-6789 x") SAY(0, " x") SAY(1, "") STOP(0) STOP(1),
            SAY(0, "") SAY(1, "-6789 x") SAY(0, "123-45 x") SAY(1, "") STOP(0) STOP(1));
    /* the same place is another text after its end */
    streams(p, &ssn, NULL, SAY(0, "123-45") STOP(0) SAY(0, "-6789 x") STOP(0), SAY(0, "") MADE(0, "123-45") STOP(0) SAY(0, "-6789 x") STOP(0));
    /* and the rest of the event is looked at whole */
    streams(p, &ssn, NULL, "data: {\"choices\":[],\"note\":\"123-45-6789\"}\n\n: 123-45-6789\n\n",
            "data: {\"choices\":[],\"note\":\"[ssn]\"}\n\n: 123-45-6789\n\n");
    /* white space in front of JSON, of a data field that is empty, makes no plain text of it */
    streams(p, &ssn, NULL, "data:\n" SAY(0, "it is 123-4") "data: \n" SAY(0, "5-6789, ok"),
            "data: \n" SAY(0, "it is ") "data: \n" SAY(0, "[ssn], ok"));
    assert_true(*ep_stats_cell(p->worker.stats, EP_METRIC_POLICY_REDACTIONS, EP_LABELS(EP_STR("p"), EP_STR("ssn"), EP_STR("enforce"))) > 0);
}

static void test_a_pattern_holds_the_tail_back(void **state)
{
    struct play *p = *state;

    p->policies.stream_tail = 8;
    load(p, REDACTS(""), NULL);
    streams(p, &digits, NULL, SAY(0, "0123456789 the co") SAY(0, "de-47") SAY(0, "11 is") STOP(0),
            SAY(0, "012345678") SAY(0, "9 the") SAY(0, " ") MADE(0, "[code] is") STOP(0));
}

static void test_a_word_ends_the_stream(void **state)
{
    struct play *p = *state;

    load(p, JUDGES, NULL);
    streams(p, NULL, NULL, SAY(0, "ban") SAY(1, "ned") STOP(0) DONE, SAY(0, "ban") SAY(1, "ned") STOP(0) DONE);
    refused(p, NULL, NULL, SAY(0, "a ban") SAY(0, "ned b") SAY(0, "c") DONE, SAY(0, "a ban"), "policy.denied", "no such word");
}

/* Each sees what the one before made of it. */
static void test_stages(void **state)
{
    static const struct ep_redaction makes = {.kind = EP_SENSITIVE_SSN, .with = EP_STR_INIT("banned")};
    struct play *p = *state;

    load(p, REDACTS(""), "return require 'ephor.policy' { name = 'q', event = function(e)\n"
                         "if e.text and e.text:find('banned', 1, true) then return e:deny('no such word') end end }");
    refused(p, &makes, NULL, SAY(0, "it is 123-4") SAY(0, "5-6789, ok") DONE, SAY(0, "it is "), "policy.denied", "no such word");
    /* what is made for the rest is judged too */
    refused(p, &makes, NULL, SAY(0, "it is 123-45-6789") DONE, SAY(0, "it is "), "policy.denied", "no such word");
    refused(p, &makes, NULL, SAY(0, "it is 123-45-6789"), SAY(0, "it is "), "policy.denied", "no such word");
    streams(p, &ssn, &digits, SAY(0, "123-45-6789 and code-1 ") SAY(0, "x") STOP(0), SAY(0, "") SAY(0, "") MADE(0, "[ssn] and [code] x") STOP(0));
}

static void test_what_a_policy_is_shown(void **state)
{
    struct play *p = *state;

    p->policies.stream_tail = 4;
    load(p, POLICY("event = function(e)\n"
                   "if e.text then return e:deny(('%s|%s|%s|%d|%s|%s'):format(e.text, e.delta, e.kind, e.index, e.called or '-', e.name)) end\n"
                   "assert(e.data:find('role') and e.json.choices and e.event_id == nil) end"),
         NULL);
    refused(p, NULL, NULL, "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n" SAY(2, "a\\u00fcb"),
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n", "policy.denied", "aüb|aüb|text|2|-|message");
    p->instance.filter->unload(&p->instance);
    load(p, POLICY("event = function(e) if e.delta and e.delta:find('!') then return e:deny(e.text .. '|' .. e.delta) end end"), NULL);
    refused(p, NULL, NULL, SAY(0, "0123456789") SAY(0, "a!"), SAY(0, "0123456789"), "policy.denied", "6789a!|a!");
    p->instance.filter->unload(&p->instance);
    load(p, POLICY("event = function(e) if e.delta == '{' then return e:deny(e.kind .. ' of ' .. e.called) end end"), NULL);
#define CALL(function) "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{" function "}}]}}]}\n\n"
    refused(p, NULL, NULL, CALL("\"name\":\"shell\"") CALL("\"arguments\":\"{\""), CALL("\"name\":\"shell\""), "policy.denied",
            "arguments of shell");
}

static void test_an_event_asks_for_redaction_from_there_on(void **state)
{
    struct play *p = *state;

    load(p, POLICY("event = function(e) if e.delta == 'now' then e:redact('ssn') end end"), NULL);
    streams(p, NULL, NULL, SAY(0, "123-45-6789 ") SAY(0, "now") SAY(0, " 123-45-6789 x") STOP(0),
            SAY(0, "123-45-6789 ") SAY(0, "now") SAY(0, " [ssn] x") STOP(0));
}

static void test_a_shadow_changes_nothing(void **state)
{
    static const char stream[] = SAY(0, "a banned 123-4") SAY(0, "5-6789") STOP(0) DONE;
    struct play *p = *state;

    load(p, POLICY("mode = 'shadow', event = function(e) if e.text and e.text:find('banned') then return e:deny('x') end end"), NULL);
    streams(p, &ssn, NULL, stream, stream);
    assert_int_equal(*ep_stats_cell(p->worker.stats, EP_METRIC_POLICY_DECISIONS, EP_LABELS(EP_STR("p"), EP_STR("shadow_deny"))), 4);
    assert_int_equal(*ep_stats_cell(p->worker.stats, EP_METRIC_POLICY_REDACTIONS, EP_LABELS(EP_STR("p"), EP_STR("ssn"), EP_STR("shadow"))), 4);
}

/* --- too much --- */

static void test_more_texts_than_can_be_followed(void **state)
{
    struct play *p = *state;
    static char in[16384];
    size_t n = 0, before = 0;

    for (unsigned i = 0; i <= 64; i++) {
        before = n;
        n += (size_t)snprintf(in + n, sizeof in - n, "data: {\"choices\":[{\"index\":%u,\"delta\":{\"content\":\"x\"}}]}\n\n", i);
    }
    load(p, JUDGES, NULL);
    char *passes = ep_strndup(in, before);
    refused(p, NULL, NULL, in, passes, "policy.blind", "the policy can't see what it judges (too_large)");
    free(passes);
    p->instance.filter->unload(&p->instance);
    load(p, REDACTS(", blind = 'allow'"), NULL);
    streams(p, &ssn, NULL, in, in);
    /* a text that has ended gives its place to another */
    n = 0;
    for (unsigned i = 0; i < 100; i++)
        n += (size_t)snprintf(in + n, sizeof in - n, "data: {\"choices\":[{\"index\":%u,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n",
                              i);
    p->instance.filter->unload(&p->instance);
    load(p, JUDGES, NULL);
    streams(p, NULL, NULL, in, in);
}

/* A hit that has begun waits, up to 16 KiB. */
static void test_a_hit_without_an_end(void **state)
{
    static struct watch x;
    struct play *p = *state;
    char event[600], seventy[501];

    memset(seventy, '7', sizeof seventy - 1);
    seventy[sizeof seventy - 1] = '\0';
    (void)snprintf(event, sizeof event, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"}}]}\n\n", seventy);
    for (int allowed = 0; allowed < 2; allowed++) {
        load(p, allowed ? REDACTS(", blind = 'allow'") : REDACTS(""), NULL);
        begin(&x, p, &digits, NULL);
        tell(&x, SAY(0, "code-1"), strlen(SAY(0, "code-1")), 1000, false);
        for (unsigned i = 0; i < 32; i++)
            tell(&x, event, strlen(event), 1000, false);
        assert_int_equal(x.watched, EP_POLICY_WATCH_ON);
        assert_null(strchr(x.out, '7')); /* all of it waits */
        tell(&x, event, strlen(event), 1000, false);
        assert_int_equal(x.watched, allowed ? EP_POLICY_WATCH_ON : EP_POLICY_WATCH_REFUSED);
        if (allowed)
            assert_non_null(strstr(x.out, "[code]"));
        else
            assert_string_equal(x.v.code, "policy.blind");
        assert_null(strchr(x.out, '7'));
        finish(&x);
        p->instance.filter->unload(&p->instance);
        p->instance.data = NULL;
    }
}

static void test_an_event_larger_than_may_be(void **state)
{
    static struct watch x;
    struct play *p = *state;
    static char in[40000];

    memset(in, 'x', sizeof in);
    memcpy(in, "data: ", 6);
    memcpy(in + sizeof in - 17, " 123-45-6789\n\ny\n\n", 17);
    for (int allowed = 0; allowed < 2; allowed++) {
        load(p, allowed ? REDACTS(", blind = 'allow'") : REDACTS(""), NULL);
        begin(&x, p, &ssn, NULL);
        tell(&x, in, sizeof in, 1000, true);
        assert_int_equal(x.watched, allowed ? EP_POLICY_WATCH_ON : EP_POLICY_WATCH_REFUSED);
        assert_int_equal(x.n, allowed ? sizeof in : 0);
        assert_memory_equal(x.out, in, x.n);
        finish(&x);
        p->instance.filter->unload(&p->instance);
        p->instance.data = NULL;
    }
}

static void test_what_can_be_read_in_two_ways(void **state)
{
    struct play *p = *state;

    load(p, REDACTS(""), NULL);
    refused(p, &ssn, NULL, SAY(0, "a") "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\",\"content\":\"b\"}}]}\n\n", SAY(0, "a"),
            "policy.blind", "the policy can't see what it judges (unknown)");
    refused(p, &ssn, NULL, SAY(0, "a\\q"), "", "policy.blind", "the policy can't see what it judges (unknown)");
}

static void test_nobody_watches(void **state)
{
    static struct watch x;
    struct play *p = *state;

    load(p, REDACTS(""), NULL);
    memset(&x, 0, sizeof x);
    stream_init(&x.f, p);
    x.w = ep_policy_watch_new(p->instance.data, &x.f.s, NULL);
    tell(&x, "data: half", 10, 3, true);
    assert_string_equal(x.out, "data: half");
    finish(&x);
    ep_policy_watch_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, play_setup, play_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_two_events_share_is_redacted),
        TEST(test_a_pattern_holds_the_tail_back),
        TEST(test_a_word_ends_the_stream),
        TEST(test_stages),
        TEST(test_what_a_policy_is_shown),
        TEST(test_an_event_asks_for_redaction_from_there_on),
        TEST(test_a_shadow_changes_nothing),
        TEST(test_more_texts_than_can_be_followed),
        TEST(test_a_hit_without_an_end),
        TEST(test_an_event_larger_than_may_be),
        TEST(test_what_can_be_read_in_two_ways),
        TEST(test_nobody_watches),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
