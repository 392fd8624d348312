/* Policies that wait: c:delay, c:http, and for another slice of time.
 *
 * A policy is entered on the worker's one thread of policies, as a coroutine. One that never waits leaves it as it found it,
 * at no cost. One that yields takes the thread and its `c` along until it ends, and another pair from the pool takes their
 * place. What is left of its budget goes with it, so waiting buys no more time in Lua; how often and how long it may wait
 * has limits, and so has the number of those who wait. */
#include "filter/chain.h"
#include "http_call.h"
#include "lua/object.h"

static void on_timer(struct ep_timer *t)
{
    struct ep_policy_wait *w = EP_CONTAINER(t, struct ep_policy_wait, timer);

    w->woken(w);
}

static void on_turn(struct ep_lua_pause *p)
{
    struct ep_policy_wait *w = EP_CONTAINER(p, struct ep_policy_wait, pause);

    w->woken(w);
}

/* One more waits, or one fewer. */
static void count(struct ep_lua *l, int n)
{
    l->n_waiting += (unsigned)n;
    if (l->worker->stats)
        ep_stats_add(l->worker->stats, EP_METRIC_POLICY_WAITING, NULL, (uint64_t)(int64_t)n);
}

/* A run of the policy has ended, and it waits. */
static void spend(struct ep_policy_wait *w, uint64_t ns)
{
    struct ep_lua *l = w->set->lua;
    struct ep_lua_owner *owner = &l->owners[w->object->policy->owner];

    w->spent_ns += ns;
    w->held += l->ended_made;
    owner->held += l->ended_made;
    ep_lua_spend(l, &w->left, &w->set->budget, w->object->wait == EP_POLICY_WAIT_TURN, ns);
}

struct ep_policy_wait *ep_policy_wait_new(struct ep_policy_set *set, struct ep_policy_object *o, uint64_t spent_ns)
{
    struct ep_lua *l = set->lua;
    struct ep_policy_wait *w = EP_ARENA_NEW(&o->s->arena, struct ep_policy_wait);
    struct ep_lua_thread next;

    w->set = set;
    w->s = o->s;
    w->object = o;
    w->thread = (struct ep_lua_thread){l->thread, l->thread_ref};
    w->left = set->budget;
    spend(w, spent_ns);
    ep_timer_init(&w->timer, on_timer);
    ep_list_init(&w->pause.node);
    w->pause.go_on = on_turn;
    o->s = NULL; /* nobody else may use it meanwhile */
    o->waiting = w;
    next = ep_lua_thread_take(l);
    l->thread = next.L;
    l->thread_ref = next.ref;
    l->object = ep_policy_object_take(l);
    return w;
}

void ep_policy_wait_start(struct ep_policy_wait *w, void *owner, ep_policy_woken *woken)
{
    w->owner = owner;
    w->woken = woken;
    if (w->object->wait == EP_POLICY_WAIT_TURN)
        ep_lua_pause_add(w->set->lua, &w->pause);
    else
        count(w->set->lua, 1);
    if (w->object->wait == EP_POLICY_WAIT_DELAY)
        ep_worker_timer(w->set->lua->worker, &w->timer, w->object->wait_ns);
}

static void stop(struct ep_policy_wait *w)
{
    ep_worker_timer_stop(w->set->lua->worker, &w->timer);
    ep_lua_pause_drop(w->set->lua, &w->pause);
    if (w->object->wait != EP_POLICY_WAIT_TURN)
        count(w->set->lua, -1);
}

/* The thread and `c` go back to the pools. */
static void give_back(struct ep_policy_wait *w, bool finished)
{
    struct ep_lua *l = w->set->lua;

    l->owners[w->object->policy->owner].held -= w->held;
    ep_policy_object_clear(w->object, l->thread);
    ep_policy_object_give(l, w->object);
    ep_lua_thread_give(l, w->thread, finished);
    w->object = NULL;
}

void ep_policy_wait_drop(struct ep_policy_wait *w)
{
    stop(w);
    if (w->object->http)
        ep_http_call_cancel(w->object->http);
    w->object->http = NULL;
    give_back(w, false);
}

void ep_policy_go_on(struct ep_policy_wait *w, uint64_t *now_ns, struct ep_policy_verdict *v)
{
    struct ep_lua *l = w->set->lua;
    struct ep_policy_object *o = w->object, *spare = l->object;
    enum ep_lua_status status;
    uint64_t start = *now_ns;
    int n_results;

    stop(w);
    *v = (struct ep_policy_verdict){.matched = true, .decision = EP_POLICY_ALLOW};
    o->s = w->s;
    o->wait = EP_POLICY_WAIT_NOT;
    l->object = o;
    ep_lua_charge_to(l, o->policy->owner);
    status = ep_lua_resume(l, w->thread.L, 0, &n_results, &w->left, start);
    l->object = spare;
    *now_ns = ep_clock_ns();
    if (status == EP_LUA_PAUSED)
        o->wait = EP_POLICY_WAIT_TURN;
    if (o->wait && (status == EP_LUA_YIELDED || status == EP_LUA_PAUSED)) {
        spend(w, *now_ns - start);
        o->s = NULL;
        v->wait = w;
        return;
    }
    ep_policy_ended(w->set, o, w->thread.L, status, w->spent_ns + (*now_ns - start), v);
    give_back(w, status == EP_LUA_OK);
}

/* --- what policies call --- */

void ep_policy_wait_check(lua_State *L, const struct ep_policy_object *o, const char *method)
{
    struct ep_lua *l = ep_lua_of(L);

    if (o->phase == EP_POLICY_EVENT)
        luaL_error(L, "%s: an event can't wait, since those behind it would", method);
    if (!ep_lua_is_host_thread(l, L) && !l->test)
        luaL_error(L, "%s can't be called inside a coroutine of your own", method);
    if (!lua_isyieldable(L) && !l->test)
        luaL_error(L, "%s can't be called from inside a function of C", method);
    if (o->waits >= EP_POLICY_WAITS_MAX)
        luaL_error(L, "a policy may wait %d times in one call", EP_POLICY_WAITS_MAX);
    if (l->n_waiting >= EP_POLICY_WAITING_MAX)
        luaL_error(L, "too many policies of this worker wait");
}

int ep_policy_delay(lua_State *L)
{
    struct ep_policy_object *o = ep_policy_object_check(L);
    uint64_t ns = ep_policy_duration(L, 2);

    ep_policy_wait_check(L, o, "delay");
    if (ns > EP_POLICY_DELAY_MAX_NS - o->delayed_ns)
        return luaL_error(L, "a policy may delay a call by 30s in all");
    o->delayed_ns += ns;
    o->waits++;
    if (ep_lua_of(L)->test)
        ep_lua_of(L)->test_wall_ns += ns; /* a test's clock goes on, and nobody waits */
    if (o->shadow || ep_lua_of(L)->test || ns == 0)
        return 0;
    o->wait = EP_POLICY_WAIT_DELAY;
    o->wait_ns = ns;
    return lua_yield(L, 0);
}
