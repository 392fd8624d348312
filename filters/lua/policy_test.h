/* `ephor test`: tests of policies, their coverage, and recorded requests judged again. */
#ifndef EP_LUA_POLICY_TEST_H
#define EP_LUA_POLICY_TEST_H

#include "base/base.h"

struct ep_policies_config;

enum ep_test_format { EP_TEST_TAP, EP_TEST_JUNIT };

struct ep_policy_test_options {
    const char *directory;
    const char *output;  /* a file for the report; NULL: standard output */
    const char *pattern; /* of the cases to run: a part of "file: name", or a glob of all of it; NULL: all */
    const char *record;  /* replay this file in place of running tests; NULL: tests */
    int format;          /* enum ep_test_format */
    bool coverage, fail_on_difference;
    double coverage_minimum; /* of each policy, 0 to 1; negative: none */
};

/* 0: good; 1: a test fails, a policy doesn't load, lines are not covered, a decision differs; 3: a file or directory
 * can't be read or written; 4: no decision differs, but some can't be replayed (with fail_on_difference). */
int ep_policy_test(const struct ep_policy_test_options *o);

/* Whether a configuration asks for that. */
bool ep_policies_want_tests(const struct ep_policies_config *config);
/* True when all tests of the directory pass and each policy was judged in a case that passed. Else false with err, which
 * names file and line. Takes as long as the tests do, and has a Lua state of its own: not for a worker's thread. */
bool ep_policy_tests_pass(const struct ep_policies_config *config, struct ep_error *err);
struct ep_policy_bundle;
/* The same of a text that was read before. */
bool ep_policy_bundle_tests_pass(const struct ep_policies_config *config, struct ep_policy_bundle *bundle,
                                 struct ep_error *err);

#endif
