/* `ephor test DIR` (proxy/cli). */
#ifndef EP_LUA_POLICY_TEST_H
#define EP_LUA_POLICY_TEST_H

/* argv[0] is "test". 0: all tests pass; 1: one fails, or the policies don't load; 2: wrong usage. */
int ep_policy_test_main(int argc, char **argv);

#endif
