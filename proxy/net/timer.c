/* The wheel: five levels of 64 slots. Level 0 holds single ticks, a slot of level n spans 64^n of them.
 *
 * A timer sits in the level of the highest group of six bits in which its deadline differs from the current
 * tick, so a slot of a level is never the one that the current tick lies in, and all timers of a level are due
 * before those of the next. Entering a slot of a higher level moves its timers down (each timer at most four
 * times in its life). The top level is circular; a deadline beyond it (12 days) waits in its farthest slot and
 * is placed again from there. Advancing hops from one used slot to the next, so that a leap of hours costs as
 * much as there are timers to move. */
#include "net/timer.h"

#define BITS 6u
#define MASK ((uint64_t)EP_WHEEL_SLOTS - 1)
#define TOP  (EP_WHEEL_LEVELS - 1u)

static_assert(EP_WHEEL_SLOTS == 1u << BITS, "a slot index is a group of bits");

static uint64_t index_at(uint64_t tick, unsigned level)
{
    return tick >> (BITS * level);
}

static void place(struct ep_wheel *w, struct ep_timer *t)
{
    uint64_t differ = t->deadline_tick ^ w->tick;
    unsigned level = differ ? (63u - (unsigned)__builtin_clzll(differ)) / BITS : 0;
    uint64_t slot;

    assert(t->deadline_tick >= w->tick);
    if (level < TOP) {
        slot = index_at(t->deadline_tick, level) & MASK;
    } else {
        uint64_t ahead = index_at(t->deadline_tick, TOP) - index_at(w->tick, TOP);

        level = TOP;
        slot = (index_at(w->tick, TOP) + EP_MIN(ahead, MASK)) & MASK;
    }
    ep_list_push(&w->slot[level][slot], &t->node);
    w->used[level] |= UINT64_C(1) << slot;
}

static void cascade(struct ep_wheel *w, unsigned level)
{
    uint64_t slot = index_at(w->tick, level) & MASK;
    struct ep_list moving;
    struct ep_list *node;

    if (!(w->used[level] & UINT64_C(1) << slot))
        return;
    w->used[level] &= ~(UINT64_C(1) << slot);
    ep_list_init(&moving);
    ep_list_splice(&moving, &w->slot[level][slot]);
    while ((node = ep_list_pop(&moving)))
        place(w, EP_CONTAINER(node, struct ep_timer, node));
}

/* Moves the current tick. No used slot may lie between the old and the new one. */
static void set_tick(struct ep_wheel *w, uint64_t tick)
{
    uint64_t old = w->tick;

    assert(tick >= old);
    w->tick = tick;
    for (unsigned level = TOP; level > 0; level--) {
        if (index_at(old, level) != index_at(tick, level))
            cascade(w, level);
    }
}

/* The start of the first used slot: a deadline on level 0, a time to cascade above. False: nothing runs. Bits of
 * slots that were emptied by stops are passed over. */
static bool first_used(const struct ep_wheel *w, uint64_t *tick, unsigned *level)
{
    for (unsigned l = 0; l < EP_WHEEL_LEVELS; l++) {
        uint64_t current = index_at(w->tick, l), here = current & MASK;
        /* Rotated so that bit 0 is the current slot; only the top level has bits that wrap. */
        uint64_t bits = here ? w->used[l] >> here | w->used[l] << (EP_WHEEL_SLOTS - here) : w->used[l];

        for (; bits; bits &= bits - 1) {
            uint64_t ahead = (uint64_t)__builtin_ctzll(bits);

            if (ep_list_empty(&w->slot[l][(here + ahead) & MASK]))
                continue;
            *tick = (current + ahead) << (BITS * l);
            *level = l;
            return true;
        }
    }
    return false;
}

void ep_wheel_init(struct ep_wheel *w, uint64_t now_ns)
{
    w->tick = 0;
    w->origin_ns = now_ns;
    w->running = 0;
    for (unsigned l = 0; l < EP_WHEEL_LEVELS; l++) {
        w->used[l] = 0;
        for (unsigned i = 0; i < EP_WHEEL_SLOTS; i++)
            ep_list_init(&w->slot[l][i]);
    }
}

static uint64_t since_origin(const struct ep_wheel *w, uint64_t now_ns)
{
    return now_ns > w->origin_ns ? now_ns - w->origin_ns : 0;
}

void ep_wheel_advance(struct ep_wheel *w, uint64_t now_ns)
{
    uint64_t target = since_origin(w, now_ns) / EP_MS, tick;
    unsigned level;

    while (w->running && first_used(w, &tick, &level) && tick <= target) {
        struct ep_list due, *node;

        if (level > 0) {
            set_tick(w, tick);
            continue;
        }
        ep_list_init(&due);
        ep_list_splice(&due, &w->slot[0][tick & MASK]);
        w->used[0] &= ~(UINT64_C(1) << (tick & MASK));
        set_tick(w, tick + 1); /* before the callbacks: what they start is due later */
        while ((node = ep_list_pop(&due))) {
            struct ep_timer *t = EP_CONTAINER(node, struct ep_timer, node);

            w->running--;
            t->fire(t);
        }
    }
    if (w->tick <= target)
        set_tick(w, target + 1);
}

uint64_t ep_wheel_next(const struct ep_wheel *w, uint64_t now_ns)
{
    uint64_t tick, due, now = since_origin(w, now_ns);
    unsigned level;

    if (w->running == 0 || !first_used(w, &tick, &level))
        return UINT64_MAX;
    if (__builtin_mul_overflow(tick, (uint64_t)EP_MS, &due))
        due = UINT64_MAX;
    return due > now ? due - now : 0;
}

void ep_timer_init(struct ep_timer *t, ep_timer_fn *fire)
{
    ep_list_init(&t->node);
    t->deadline_tick = 0;
    t->fire = fire;
}

void ep_wheel_start(struct ep_wheel *w, struct ep_timer *t, uint64_t now_ns, uint64_t delay_ns)
{
    uint64_t now = since_origin(w, now_ns), deadline;

    assert(t->fire);
    ep_wheel_stop(w, t);
    if (w->running == 0 && w->tick < now / EP_MS)
        w->tick = now / EP_MS; /* an idle wheel needs no hops to catch up; its slots are empty, so no cascade */
    if (__builtin_add_overflow(now, delay_ns, &deadline))
        deadline = UINT64_MAX;
    deadline = deadline / EP_MS + (deadline % EP_MS != 0);
    t->deadline_tick = EP_MAX(deadline, w->tick);
    w->running++;
    place(w, t);
}

void ep_wheel_stop(struct ep_wheel *w, struct ep_timer *t)
{
    if (!ep_timer_running(t))
        return;
    assert(w->running > 0);
    ep_list_remove(&t->node);
    w->running--;
}
