/* Runs that pause, and what the collector didn't get done: once a turn the one that waits longest gets a slice, and so does the
 * collector when it is behind. So whatever scripts do, others wait for a slice or two of each turn. host.h has the design. */
#include "lua/host.h"

#define COLLECT_BEHIND ((size_t)1 << 20)

static bool is_behind(const struct ep_lua *l)
{
    return l->bytes > l->collect_at && l->bytes - l->collect_at > COLLECT_BEHIND;
}

static void on_turn(struct ep_task *t)
{
    struct ep_lua *l = EP_CONTAINER(t, struct ep_lua, turn);
    struct ep_list *next = ep_list_pop(&l->paused);

    if (is_behind(l))
        ep_lua_collect(l, 0);
    if (!ep_list_empty(&l->paused) || is_behind(l))
        ep_worker_next_turn(l->worker, &l->turn);
    if (!next)
        return;
    struct ep_lua_pause *p = EP_CONTAINER(next, struct ep_lua_pause, node);
    l->n_paused--;
    p->go_on(p); /* the state may be gone afterwards */
}

void ep_lua_pause_open(struct ep_lua *l)
{
    if (!l->turn.run && l->worker->later.next) /* `ephor test` has a worker without a loop: no turn will come */
        ep_task_init(&l->turn, on_turn);
}

void ep_lua_pause_close(struct ep_lua *l)
{
    assert(ep_list_empty(&l->paused)); /* a stream holds what it waits in */
    if (l->turn.run)
        ep_list_remove(&l->turn.node);
    l->turn.run = NULL;
}

void ep_lua_pause_add(struct ep_lua *l, struct ep_lua_pause *p)
{
    ep_list_push(&l->paused, &p->node);
    l->n_paused++;
    ep_worker_next_turn(l->worker, &l->turn);
}

void ep_lua_pause_drop(struct ep_lua *l, struct ep_lua_pause *p)
{
    if (!ep_list_linked(&p->node))
        return;
    ep_list_remove(&p->node);
    l->n_paused--;
}

void ep_lua_pause_collect(struct ep_lua *l)
{
    if (l->turn.run && is_behind(l))
        ep_worker_next_turn(l->worker, &l->turn);
}

/* Never quite used up: 0 would be none at all. */
void ep_lua_spend(const struct ep_lua *l, struct ep_lua_budget *left, const struct ep_lua_budget *whole, bool paused,
                  uint64_t ns)
{
    int64_t memory = (int64_t)left->memory - l->spent_bytes;

    left->instructions -= EP_MIN(left->instructions - 1, l->spent_instructions);
    left->time_ns -= EP_MIN(left->time_ns - 1, ns);
    left->memory = paused ? EP_MIN((uint64_t)EP_MAX(memory, 1), whole->memory) : whole->memory;
}
