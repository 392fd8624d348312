/* `ephor test`: the tests of policies and their replay, done by filters/lua. */
#include <argp.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "cli/cli.h"
#include "lua/policy_test.h"

enum { FORMAT = 256, OUTPUT, RUN, COVERAGE, MINIMUM, RECORD, FAIL };

static int format_of(const char *name, struct argp_state *state)
{
    if (!strcmp(name, "tap"))
        return EP_TEST_TAP;
    if (strcmp(name, "junit") != 0)
        argp_error(state, "--format is tap or junit, not '%s'", name);
    return EP_TEST_JUNIT;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct ep_policy_test_options *o = state->input;

    switch (key) {
    case FORMAT:
        o->format = format_of(arg, state);
        return 0;
    case OUTPUT:
        o->output = arg;
        return 0;
    case RUN:
        o->pattern = arg;
        return 0;
    case COVERAGE:
        o->coverage = true;
        return 0;
    case MINIMUM:
        o->coverage = true;
        if (!ep_parse_percent(ep_str(arg), &o->coverage_minimum) || o->coverage_minimum > 1)
            argp_error(state, "--coverage-minimum is a share like 80%%, not '%s'", arg);
        return 0;
    case RECORD:
        o->record = arg;
        return 0;
    case FAIL:
        o->fail_on_difference = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->directory)
            argp_error(state, "one directory");
        o->directory = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->directory)
            argp_error(state, "a directory is missing");
        if (o->fail_on_difference && !o->record)
            argp_error(state, "--fail-on-difference goes with --record");
        if (o->record && (o->coverage || o->pattern || o->format != EP_TEST_TAP))
            argp_error(state, "--record runs no tests: --run, --coverage and --format don't go with it");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option argp_options[] = {
    {"format", FORMAT, "tap|junit", 0, "form of the report (tap)", 0},
    {"output", OUTPUT, "FILE", 0, "write the report there and a line about it to standard output", 0},
    {"run", RUN, "PATTERN", 0, "only the cases whose 'file: name' has PATTERN in it, or fits it as a glob", 0},
    {"coverage", COVERAGE, NULL, 0, "say for each policy which of its lines no test ran", 0},
    {"coverage-minimum", MINIMUM, "N%", 0, "fail when a policy is covered less", 0},
    {"record", RECORD, "FILE", 0,
     "run no tests: judge the requests of FILE (policies.record) anew and say which decisions differ", 0},
    {"fail-on-difference", FAIL, NULL, 0, "with --record: status 1 when one differs, 4 when none does and some can't be replayed", 0},
    {0},
};

static const struct argp argp = {
    .options = argp_options,
    .parser = parse,
    .args_doc = "DIR",
    .doc = "Runs the *_test.lua beside the policies in DIR.\v"
           "Exit status: 0 all pass, 1 a test fails or a policy doesn't load, 2 wrong usage, 3 a file or directory can't "
           "be read or written, 4 nothing differs and something can't be replayed.",
};

int ep_cli_test(int argc, char **argv)
{
    struct ep_policy_test_options o = {.coverage_minimum = -1};

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    return ep_policy_test(&o);
}
