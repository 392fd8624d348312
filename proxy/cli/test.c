/* `ephor test DIR`: the tests of policies, run by filters/lua. */
#include "cli/cli.h"
#include "lua/policy_test.h"

int ep_cli_test(int argc, char **argv)
{
    char name[] = "test";

    argv[0] = name;
    return ep_policy_test_main(argc, argv);
}
