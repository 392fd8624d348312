/* Turns of a play's worker until something holds, for at most five seconds. The play has w, the worker, and guard, a timer that
 * sets expired. */
#ifndef EP_TESTS_UNTIL_H
#define EP_TESTS_UNTIL_H

#define UNTIL(p, condition)                                                                                            \
    do {                                                                                                               \
        (p)->expired = false;                                                                                          \
        ep_worker_timer(&(p)->w, &(p)->guard, 5 * EP_S);                                                               \
        while (!(condition) && !(p)->expired)                                                                          \
            ep_worker_turn(&(p)->w, false);                                                                            \
        ep_worker_timer_stop(&(p)->w, &(p)->guard);                                                                    \
        assert_true(condition);                                                                                        \
    } while (0)

#endif
