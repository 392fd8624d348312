/* link: ep_net */
/* The wheel against a plain model: whatever is started, stopped and advanced, each timer fires once, in the first
 * advance at or after its deadline, and never before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "net/timer.h"

#define ORIGIN UINT64_C(123456789)

struct probe {
    struct ep_timer timer;
    struct ep_wheel *wheel;
    struct probe *other;
    unsigned fired;
    uint64_t due_ns, again_ns, *now_ns;
};

static void fire(struct ep_timer *t)
{
    struct probe *p = EP_CONTAINER(t, struct probe, timer);

    p->fired++;
    if (p->now_ns)
        assert_true(*p->now_ns >= p->due_ns);
}

static void fires_after_its_deadline_and_once(void **state)
{
    static const uint64_t delays[] = {0,
                                      1,
                                      EP_MS - 1,
                                      EP_MS,
                                      EP_MS + 1,
                                      63 * EP_MS,
                                      64 * EP_MS,
                                      65 * EP_MS,
                                      4095 * EP_MS,
                                      4096 * EP_MS,
                                      EP_S,
                                      60 * EP_S,
                                      3600 * EP_S,
                                      86400 * EP_S,
                                      12 * 86400 * EP_S,
                                      13 * 86400 * EP_S,
                                      40 * 86400 * EP_S,
                                      400 * 86400 * EP_S};
    static const uint64_t starts[] = {0, 1, 999999, EP_MS, 63 * EP_MS + 5, 64 * EP_MS, 3600 * EP_S + 1};

    (void)state;
    for (size_t i = 0; i < EP_COUNT(delays); i++) {
        for (size_t j = 0; j < EP_COUNT(starts); j++) {
            struct ep_wheel w;
            struct probe p = {0}, idle = {0};
            uint64_t now = ORIGIN, due;

            ep_wheel_init(&w, now);
            ep_timer_init(&p.timer, fire);
            ep_timer_init(&idle.timer, fire);
            ep_wheel_start(&w, &idle.timer, now, 1000 * 86400 * EP_S); /* keeps the wheel from leaping ahead */
            now += starts[j];
            ep_wheel_advance(&w, now);
            due = now + delays[i];
            ep_wheel_start(&w, &p.timer, now, delays[i]);
            assert_true(ep_timer_running(&p.timer));
            /* Follow its own advice, as the worker does; it must never miss by more than a tick. */
            for (unsigned steps = 0; !p.fired; steps++) {
                uint64_t wait = ep_wheel_next(&w, now);

                assert_true(steps < 1000);
                now += wait;
                assert_true(now <= due + 2 * EP_MS);
                ep_wheel_advance(&w, now);
                assert_true(!p.fired || now >= due);
                if (wait == 0 && !p.fired)
                    now += EP_MS;
            }
            assert_false(ep_timer_running(&p.timer));
            assert_int_equal(p.fired, 1);
            assert_int_equal(w.running, 1);
        }
    }
}

static void random_runs_agree_with_a_model(void **state)
{
    enum { N = 200, STEPS = 20000 };
    struct probe *p = calloc(N, sizeof(*p));
    struct ep_wheel w;
    struct ep_rng rng;
    uint64_t now = ORIGIN;
    bool running[N] = {false};
    size_t fired_in_all = 0;

    (void)state;
    ep_rng_seed(&rng, 7);
    ep_wheel_init(&w, now);
    for (unsigned i = 0; i < N; i++) {
        ep_timer_init(&p[i].timer, fire);
        p[i].now_ns = &now;
    }
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)ep_rng_below(&rng, N);

        switch (ep_rng_below(&rng, 4)) {
        case 0:
        case 1: {
            uint64_t delay = ep_rng_u64(&rng) >> (18 + ep_rng_below(&rng, 40));

            ep_wheel_start(&w, &p[i].timer, now, delay);
            p[i].due_ns = now + delay;
            running[i] = true;
            break;
        }
        case 2:
            ep_wheel_stop(&w, &p[i].timer);
            running[i] = false;
            break;
        default:
            now += ep_rng_u64(&rng) >> (24 + ep_rng_below(&rng, 38));
            ep_wheel_advance(&w, now);
            for (unsigned k = 0; k < N; k++) {
                if (running[k] && !ep_timer_running(&p[k].timer)) {
                    assert_int_equal(p[k].fired, 1);
                    running[k] = false;
                    fired_in_all++;
                } else {
                    assert_int_equal(p[k].fired, 0);
                    /* What still runs isn't overdue by more than the rounding up to a tick, and one tick. */
                    assert_true(!running[k] || p[k].due_ns + 2 * EP_MS > now);
                }
                p[k].fired = 0;
            }
        }
        for (unsigned k = 0; k < N && step % 100 == 0; k++)
            assert_int_equal(running[k], ep_timer_running(&p[k].timer));
    }
    assert_true(fired_in_all > 1000);
    free(p);
}

static void restart(struct ep_timer *t)
{
    struct probe *p = EP_CONTAINER(t, struct probe, timer);

    p->fired++;
    ep_wheel_start(p->wheel, t, *p->now_ns, p->again_ns);
}

static void a_callback_may_restart_itself_without_an_endless_loop(void **state)
{
    struct ep_wheel w;
    uint64_t now = 0;
    struct probe p = {.wheel = &w, .now_ns = &now};

    (void)state;
    ep_wheel_init(&w, 0);
    ep_timer_init(&p.timer, restart);
    ep_wheel_start(&w, &p.timer, now, 0);
    for (unsigned i = 0; i < 100; i++) {
        now += EP_MS;
        ep_wheel_advance(&w, now);
        assert_true(p.fired <= 2 * (i + 1));
    }
    assert_true(p.fired >= 99);
    now += 1000000 * EP_S; /* a leap: one more, not one for each tick that was slept through */
    p.fired = 0;
    p.again_ns = EP_MS;
    ep_wheel_advance(&w, now);
    assert_in_range(p.fired, 1, 2);
    ep_wheel_stop(&w, &p.timer);
    assert_int_equal(ep_wheel_next(&w, now), UINT64_MAX);
}

static void stop_other(struct ep_timer *t)
{
    struct probe *p = EP_CONTAINER(t, struct probe, timer);

    p->fired++;
    ep_wheel_stop(p->wheel, &p->other->timer);
}

static void a_callback_may_stop_one_that_is_due_too(void **state)
{
    struct ep_wheel w;
    struct probe a = {.wheel = &w}, b = {.wheel = &w};

    (void)state;
    a.other = &b;
    b.other = &a;
    ep_wheel_init(&w, 0);
    ep_timer_init(&a.timer, stop_other);
    ep_timer_init(&b.timer, stop_other);
    ep_wheel_start(&w, &a.timer, 0, 5 * EP_MS);
    ep_wheel_start(&w, &b.timer, 0, 5 * EP_MS);
    ep_wheel_advance(&w, 10 * EP_MS);
    assert_int_equal(a.fired + b.fired, 1);
    assert_int_equal(w.running, 0);
}

static void starting_late_on_a_lagging_wheel_is_still_exact(void **state)
{
    struct ep_wheel w;
    struct probe a = {0}, b = {0};

    (void)state;
    ep_wheel_init(&w, 0);
    ep_timer_init(&a.timer, fire);
    ep_timer_init(&b.timer, fire);
    ep_wheel_start(&w, &a.timer, 0, 5000 * EP_S);
    ep_wheel_start(&w, &b.timer, 4000 * EP_S, EP_S); /* the wheel has not advanced since 0 */
    ep_wheel_advance(&w, 4001 * EP_S - 1);
    assert_int_equal(b.fired, 0);
    ep_wheel_advance(&w, 4001 * EP_S);
    assert_int_equal(b.fired, 1);
    assert_int_equal(a.fired, 0);
    ep_wheel_advance(&w, 3000 * EP_S); /* time that goes back does nothing */
    ep_wheel_advance(&w, 5001 * EP_S);
    assert_int_equal(a.fired, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fires_after_its_deadline_and_once),
        cmocka_unit_test(random_runs_agree_with_a_model),
        cmocka_unit_test(a_callback_may_restart_itself_without_an_endless_loop),
        cmocka_unit_test(a_callback_may_stop_one_that_is_due_too),
        cmocka_unit_test(starting_late_on_a_lagging_wheel_is_still_exact),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
