/* A worker: one thread, one event_base, and everything its connections allocate from.
 *
 * A turn is: wait for events, run their callbacks, run the tasks they and the turn before left, flush each connection that has
 * something to write (one send each), free what asked to be freed. Workers share nothing that is written on
 * the hot path; other threads reach a worker by its mailbox only. */
#ifndef EP_NET_WORKER_H
#define EP_NET_WORKER_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/base.h"
#include "net/timer.h"

struct ep_view;  /* a worker's instance of a configuration (filter/view.h) */
struct ep_stats; /* observe/stats.h: this worker's shard */
struct ep_worker;

/* Something to do at the end of the turn, after all event callbacks. May be queued again when it runs. */
struct ep_task {
    struct ep_list node;
    void (*run)(struct ep_task *t);
};

/* A message from another thread. `run` is called in the worker; it frees the message. */
struct ep_mail {
    struct ep_mail *next;
    void (*run)(struct ep_mail *m, struct ep_worker *w);
};

struct ep_worker {
    unsigned index;
    struct event_base *base;
    uint64_t now_ns;               /* monotonic, taken after the wait of this turn; good for timers */
    struct ep_chunk_pool chunks;
    struct ep_slab_pool slabs;
    struct ep_mem mem;
    struct ep_rng rng;
    struct ep_wheel wheel;
    struct ep_list tasks;
    struct ep_list later;          /* tasks of the next turn */
    struct ep_list flushes;        /* connections, by flush_node */
    struct ep_list doomed;         /* connections to free at the end of the turn */
    struct ep_list conns;          /* all open connections of this worker */
    unsigned n_conns, max_conns;
    struct ep_slab *read_slab;     /* shared by the reads of all connections, one at a time */
    uint32_t read_offset;
    struct ep_stats *stats;
    struct ep_view *view;          /* the current one; streams hold references to theirs */
    void *lua;                     /* the Lua state of this worker; owned by filters/lua */
    void *http_calls;              /* requests that filters make by themselves; owned by filters/http_call.c */
    void *resolver;                /* upstream's DNS of this worker */
    void *limiter;                 /* struct ep_limiter of the process (filter/limiter.h); shared, by atomics */
    void *compiled;                /* Lua's compiled chunks of the process (lua/compiled.h); shared and locked inside; NULL: none */
    void *mcp_sessions;            /* struct ep_mcp_sessions of the process (agent/mcp_sessions.h); shared and locked inside; NULL: none */
    void *memory;                  /* struct ep_memory of the process (filter/memory.h); shared and locked inside */
    void *audit;                   /* observe's audit of the process; shared and locked inside */
    struct ep_list unsettled;      /* streams whose audit record is on its way to the disk (filter/decision.h) */
    void *access_log;              /* struct ep_access_log of this worker; NULL: none */
    void *spans;                   /* struct ep_span_queue (filter/span.h); NULL: no spans are made */
    void *owner;                   /* struct ep_server of the process (proxy/config or cli), for listeners */
    bool draining;
    bool clocked;                  /* now_ns was taken in this turn */
    uint64_t memory_limit;         /* bytes of slabs; past it new streams are refused, then connections */

    struct event wheel_event, mail_event;
    uint64_t wheel_armed_ns;       /* absolute; 0: not armed */
    int mail_fd;
    _Atomic(struct ep_mail *) mail;
    atomic_bool stop;
    pthread_t thread;
};

/* Errors: false with err when the event base or the eventfd can't be made. */
bool ep_worker_init(struct ep_worker *w, unsigned index, struct ep_error *err);
void ep_worker_fini(struct ep_worker *w); /* after its loop ended; frees pools */
/* Runs turns until ep_worker_stop. */
void ep_worker_run(struct ep_worker *w);
/* One turn; waits at most until something happens. For tests and for the loop. */
void ep_worker_turn(struct ep_worker *w, bool wait);
void ep_worker_stop(struct ep_worker *w);                        /* any thread */
void ep_worker_post(struct ep_worker *w, struct ep_mail *m);     /* any thread; order kept per sender */

/* Refreshes now_ns and returns it: for measuring inside a turn. */
static inline uint64_t ep_worker_clock(struct ep_worker *w)
{
    return w->now_ns = ep_clock_ns();
}

/* First thing in each event callback: takes the time once a turn. */
static inline void ep_worker_wake(struct ep_worker *w)
{
    if (!w->clocked) {
        w->clocked = true;
        w->now_ns = ep_clock_ns();
    }
}

static inline void ep_task_init(struct ep_task *t, void (*run)(struct ep_task *))
{
    ep_list_init(&t->node);
    t->run = run;
}

static inline void ep_worker_defer(struct ep_worker *w, struct ep_task *t) /* harmless when queued */
{
    if (!ep_list_linked(&t->node))
        ep_list_push(&w->tasks, &t->node);
}

/* In the next turn, which doesn't wait for events: others are served in between. */
static inline void ep_worker_next_turn(struct ep_worker *w, struct ep_task *t) /* harmless when queued */
{
    if (!ep_list_linked(&t->node))
        ep_list_push(&w->later, &t->node);
}

static inline void ep_worker_timer(struct ep_worker *w, struct ep_timer *t, uint64_t delay_ns)
{
    ep_wheel_start(&w->wheel, t, w->now_ns, delay_ns);
}

static inline void ep_worker_timer_stop(struct ep_worker *w, struct ep_timer *t)
{
    ep_wheel_stop(&w->wheel, t);
}

#endif
