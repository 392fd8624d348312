/* The worker's loop: one turn is wait, events, timers, tasks, flushes, frees. See worker.h. */
#include "net/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "net/conn_turn.h"

#define TASK_ROUNDS 64   /* a task that queues itself again waits for the next turn after so many */
#define FLUSH_ROUNDS 3   /* flushing one connection may give another something to say */
#define MAX_FREE_CHUNKS 1024u
#define MAX_FREE_SLABS 64u
#define MAX_FREE_MEM 512u

static void on_mail(evutil_socket_t fd, short what, void *arg)
{
    struct ep_worker *w = arg;
    struct ep_mail *m, *order = NULL;
    uint64_t count;

    (void)what;
    ep_worker_wake(w);
    if (read(fd, &count, sizeof count) < 0 && errno != EAGAIN)
        return;
    m = atomic_exchange(&w->mail, NULL);
    while (m) { /* the stack is in reverse order */
        struct ep_mail *next = m->next;
        m->next = order;
        order = m;
        m = next;
    }
    while (order) {
        struct ep_mail *next = order->next;
        order->run(order, w);
        order = next;
    }
}

static void on_wheel(evutil_socket_t fd, short what, void *arg)
{
    struct ep_worker *w = arg;

    (void)fd, (void)what;
    ep_worker_wake(w);
    w->wheel_armed_ns = 0;
}

bool ep_worker_init(struct ep_worker *w, unsigned index, struct ep_error *err)
{
    struct event_config *config = event_config_new();

    memset(w, 0, sizeof *w);
    w->index = index;
    w->mail_fd = -1;
    if (config) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
        w->base = event_base_new_with_config(config);
        event_config_free(config);
    }
    if (!w->base)
        return ep_error_set(err, "cannot make an event base");
    w->mail_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->mail_fd < 0) {
        event_base_free(w->base);
        return ep_error_set(err, "eventfd: %s", strerror(errno));
    }
    w->now_ns = ep_clock_ns();
    ep_chunk_pool_init(&w->chunks, MAX_FREE_CHUNKS);
    ep_slab_pool_init(&w->slabs, MAX_FREE_SLABS);
    ep_mem_init(&w->mem, MAX_FREE_MEM);
    ep_rng_seed_random(&w->rng);
    ep_wheel_init(&w->wheel, w->now_ns);
    ep_list_init(&w->tasks);
    ep_list_init(&w->later);
    ep_list_init(&w->flushes);
    ep_list_init(&w->doomed);
    ep_list_init(&w->conns);
    ep_list_init(&w->unsettled);
    w->max_conns = 50000;
    w->memory_limit = 512ull << 20;
    atomic_init(&w->mail, NULL);
    atomic_init(&w->stop, false);
    event_assign(&w->mail_event, w->base, w->mail_fd, EV_READ | EV_PERSIST, on_mail, w);
    event_add(&w->mail_event, NULL);
    evtimer_assign(&w->wheel_event, w->base, on_wheel, w);
    return true;
}

void ep_worker_fini(struct ep_worker *w)
{
    /* What is still open is closed, so that its owners see on_closed and free what they hold. */
    for (int round = 0; round < 8 && !ep_list_empty(&w->conns); round++) {
        EP_LIST_FOREACH(n, &w->conns)
            ep_conn_abort(EP_CONTAINER(n, struct ep_conn, node), EP_CLOSE_LOCAL, false);
        ep_worker_turn(w, false);
    }
    event_del(&w->mail_event);
    event_del(&w->wheel_event);
    if (w->read_slab)
        ep_slab_unref(w->read_slab);
    close(w->mail_fd);
    event_base_free(w->base);
    ep_mem_fini(&w->mem);
    ep_slab_pool_fini(&w->slabs);
    ep_chunk_pool_fini(&w->chunks);
}

static void arm_wheel(struct ep_worker *w)
{
    uint64_t in = ep_wheel_next(&w->wheel, w->now_ns);
    uint64_t at;

    if (in == UINT64_MAX)
        return; /* an armed event that fires for nothing is harmless */
    at = w->now_ns + in;
    if (w->wheel_armed_ns && w->wheel_armed_ns <= at)
        return;
    w->wheel_armed_ns = at;
    in = EP_MIN(in, 3600 * EP_S);
    struct timeval tv = {.tv_sec = (time_t)(in / EP_S), .tv_usec = (suseconds_t)(in % EP_S / 1000) + 1};
    if (tv.tv_usec >= 1000000) {
        tv.tv_sec++;
        tv.tv_usec -= 1000000;
    }
    evtimer_add(&w->wheel_event, &tv);
}

static void run_tasks(struct ep_worker *w)
{
    for (int round = 0; round < TASK_ROUNDS && !ep_list_empty(&w->tasks); round++) {
        struct ep_list batch;

        ep_list_init(&batch);
        ep_list_splice(&batch, &w->tasks);
        for (struct ep_list *n; (n = ep_list_pop(&batch));) {
            struct ep_task *t = EP_CONTAINER(n, struct ep_task, node);
            t->run(t);
        }
    }
}

void ep_worker_turn(struct ep_worker *w, bool wait)
{
    bool idle = ep_list_empty(&w->tasks) && ep_list_empty(&w->later) && ep_list_empty(&w->flushes) &&
                ep_list_empty(&w->doomed);

    if (wait && idle)
        arm_wheel(w);
    w->clocked = false;
    event_base_loop(w->base, EVLOOP_ONCE | (wait && idle ? 0 : EVLOOP_NONBLOCK));
    ep_worker_wake(w);
    ep_wheel_advance(&w->wheel, w->now_ns);
    ep_list_splice(&w->tasks, &w->later);
    for (int round = 0; round < FLUSH_ROUNDS; round++) {
        struct ep_list batch;

        run_tasks(w);
        if (ep_list_empty(&w->flushes))
            break;
        if (round == 0)
            ep_worker_clock(w); /* what is sent now is sent later than what was read */
        ep_list_init(&batch);
        ep_list_splice(&batch, &w->flushes);
        for (struct ep_list *n; (n = ep_list_pop(&batch));)
            ep_conn_turn_flush(EP_CONTAINER(n, struct ep_conn, flush_node));
    }
    for (struct ep_list *n; (n = ep_list_pop(&w->doomed));)
        ep_conn_turn_free(EP_CONTAINER(n, struct ep_conn, doomed_node));
}

void ep_worker_run(struct ep_worker *w)
{
    while (!atomic_load_explicit(&w->stop, memory_order_relaxed))
        ep_worker_turn(w, true);
}

static void wake(struct ep_worker *w)
{
    uint64_t one = 1;
    ssize_t n;

    do
        n = write(w->mail_fd, &one, sizeof one);
    while (n < 0 && errno == EINTR); /* EAGAIN: the counter is full, so the worker is awake */
}

void ep_worker_stop(struct ep_worker *w)
{
    atomic_store(&w->stop, true);
    wake(w);
}

void ep_worker_post(struct ep_worker *w, struct ep_mail *m)
{
    m->next = atomic_load(&w->mail);
    while (!atomic_compare_exchange_weak(&w->mail, &m->next, m))
        ;
    wake(w);
}
