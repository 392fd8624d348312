/* The end of the process, in stages (DESIGN.md section 15):
 *   accepting  not ready any more, but everything is still accepted while endpoints elsewhere list the pod;
 *   inbound    inbound listeners close, their connections are told to go, their requests end;
 *   all        then the outbound ones;
 *   over       the workers stop.
 * `drain.timeout` bounds what comes after accepting. A second signal ends all waiting. */
#include "config/process.h"

#define TICK_NS (5 * EP_MS)

static void enter(struct ep_server *s, enum ep_drain_stage stage)
{
    int told = (int)stage;

    s->stage = stage;
    s->stage_ns = s->main.now_ns;
    if (stage == EP_DRAIN_INBOUND)
        s->drain_deadline_ns = s->main.now_ns + s->config->drain.timeout_ns;
    if (stage == EP_DRAIN_INBOUND || stage == EP_DRAIN_ALL)
        ep_round(s, ep_serving_drain, &told);
    if (stage == EP_DRAIN_OVER)
        ep_worker_stop(&s->main);
}

static bool all_done(const struct ep_server *s)
{
    for (unsigned i = 0; i < s->n; i++)
        if (atomic_load(&s->serving[i].stage_done) != (int)s->stage)
            return false;
    return true;
}

static bool stage_over(const struct ep_server *s)
{
    if (s->stage == EP_DRAIN_ACCEPTING)
        return s->main.now_ns - s->stage_ns >= s->config->drain.accept_ns;
    return all_done(s);
}

static void on_tick(struct ep_timer *t)
{
    struct ep_server *s = EP_CONTAINER(t, struct ep_server, drain_timer);

    if (s->forced || (s->stage > EP_DRAIN_ACCEPTING && s->main.now_ns >= s->drain_deadline_ns)) {
        ep_warn("server", "%s: what is left is cut off", s->forced ? "told twice to end" : "drain.timeout is over");
        enter(s, EP_DRAIN_OVER);
        return;
    }
    while (s->stage < EP_DRAIN_OVER && stage_over(s))
        enter(s, s->stage + 1);
    if (s->stage < EP_DRAIN_OVER)
        ep_worker_timer(&s->main, &s->drain_timer, TICK_NS);
}

void ep_drain_begin(struct ep_server *s)
{
    if (s->stage != EP_DRAIN_NOT) {
        s->forced = true;
        return;
    }
    ep_info("server", "draining: accepting for %llu ms more, then waiting for requests to end",
            (unsigned long long)(s->config->drain.accept_ns / EP_MS));
    s->ready = false;
    s->stage = EP_DRAIN_ACCEPTING;
    s->stage_ns = s->main.now_ns;
    ep_timer_init(&s->drain_timer, on_tick);
    ep_worker_timer(&s->main, &s->drain_timer, 0);
}
