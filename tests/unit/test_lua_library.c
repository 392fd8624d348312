/* link: ep_filters */
/* The modules in lua/ephor: their own tests, run by `ephor test` in a directory that has nothing but them. And what the
 * cryptography costs: a policy that can't pay for it is over its budget, not slow. */
#define LUA_FIXTURE_REAL
#include "lua_fixture.h"

#include <dirent.h>
#include <limits.h>

#include "lua/policy.h"
#include "lua/policy_test.h"

extern const struct ep_filter ep_filter_policies;

static unsigned link_tests(const struct play *p)
{
    char path[512], library[PATH_MAX], from[PATH_MAX + 256], to[512];
    unsigned n = 0;

    snprintf(path, sizeof path, "%.*s/lua/ephor",
             (int)(strlen(__FILE__) - strlen("/tests/unit/test_lua_library.c")), __FILE__);
    assert_non_null(realpath(path, library)); /* for the links */
    DIR *d = opendir(library);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) {
        if (!ep_str_ends(ep_str(e->d_name), EP_STR("_test.lua")))
            continue;
        snprintf(from, sizeof from, "%s/%s", library, e->d_name);
        snprintf(to, sizeof to, "%s/%.255s", p->directory, e->d_name);
        assert_int_equal(symlink(from, to), 0);
        n++;
    }
    closedir(d);
    return n;
}

static void test_modules_pass_their_tests(void **state)
{
    struct play *p = *state;
    play_file(p, "_good_config.lua", "return { list = {'b'}, name = 'n' }");
    play_file(p, "_broken_config.lua", "return {");
    play_file(p, "_text_config.lua", "return 'x'");
    play_file(p, "_chain_config.lua", "return require '_missing'");
    assert_true(link_tests(p) >= 10);
    assert_int_equal(ep_policy_test(&(struct ep_policy_test_options){.directory = p->directory, .coverage_minimum = -1}), 0);
    p->instance.filter = NULL;
}

#define HEAD "local policy = require 'ephor.policy'\n"
#define ED25519                                                                                                        \
    "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}"
#define TOKEN                                                                                                          \
    "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhij"       \
    "cNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"

/* Runs `body` as a policy's call; how it was decided. */
static const char *decide(struct play *p, const char *body)
{
    static char decision[80];
    char text[2048];
    struct ep_error err = {""};
    struct fake_stream f;

    snprintf(text, sizeof text,
             HEAD "local jwt, crypto = require 'ephor.jwt', require 'ephor.crypto'\n"
                  "local keys = jwt.keys('" ED25519 "')\nlocal token = '" TOKEN "'\n"
                  "return policy { name = 'p', call = function(c) %s end }",
             body);
    play_file(p, "a.lua", text);
    if (!play_load(p, &ep_filter_policies, NULL, &err))
        fail_msg("%s", err.text);
    stream_init(&f, p);
    ep_filter_policies.request_headers(&f.s, f.state, true);
    stream_fini(&f);
    snprintf(decision, sizeof decision, "%s", p->refusals ? p->code : "allow");
    p->refusals = 0;
    ep_filter_policies.unload(&p->instance);
    p->instance.data = NULL;
    return decision;
}

/* RFC 8037 appendix A.4: its payload is no JSON, so what fails is only what comes after the signature. */
static void test_cryptography_is_charged(void **state)
{
    struct play *p = *state;

    assert_string_equal(decide(p, "local _, why = jwt.verify_signature(token, keys, {'EdDSA'})\n"
                                  "return c:deny(why)"),
                        "policy.denied");
    assert_string_equal(p->reason, "the token's claims are malformed");
    assert_string_equal(decide(p, "for i = 1, 1000 do jwt.verify_signature(token, keys, {'EdDSA'}) end"),
                        "policy.overrun");
    assert_string_equal(decide(p, "for i = 1, 1000 do jwt.keys('" ED25519 "') end"), "policy.overrun");
    assert_string_equal(decide(p, "local s = ('x'):rep(100000) for i = 1, 100 do crypto.sha256(s) end"),
                        "policy.overrun");
    assert_string_equal(decide(p, "local s = ('x'):rep(1000) for i = 1, 10 do crypto.sha256(s) end"), "allow");
}

static void test_keys_are_no_door(void **state)
{
    struct play *p = *state;

    assert_string_equal(decide(p, "local k = keys.list[1].key\n"
                                  "if getmetatable(k) ~= false then return c:deny('metatable') end\n"
                                  "if pcall(function() k.x = 1 end) then return c:deny('assignment') end\n"
                                  "if pcall(k.verify, {}, 'EdDSA', '', '') then return c:deny('self') end\n"
                                  "if pcall(k.verify, io, 'EdDSA', '', '') then return c:deny('nil') end\n"
                                  "if k:verify('none', '', '') or k:verify('', '', '') then return c:deny('alg') end"),
                        "allow");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, play_setup, play_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_modules_pass_their_tests),
        TEST(test_cryptography_is_charged),
        TEST(test_keys_are_no_door),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
