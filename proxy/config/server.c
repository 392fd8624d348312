/* The process: how it starts, what it waits for, how it ends. */
#include "config/server.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/mcp_sessions.h"
#include "config/binds.h"
#include "config/process.h"
#include "filter/pinned.h"
#include "lua/compiled.h"

#define GAUGES_NS (100 * EP_MS)

/* --- signals: blocked in all threads, read by the main one --- */

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    struct ep_server *s = arg;
    struct signalfd_siginfo info;
    struct ep_error err;

    (void)what;
    ep_worker_wake(&s->main);
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP)
            ep_reload(s, EP_RELOAD_ASKED, &err);
        else
            ep_drain_begin(s);
    }
}

static bool take_signals(struct ep_server *s, struct ep_error *err)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->signal_fd < 0)
        return ep_error_set(err, "signalfd: %s", strerror(errno));
    event_assign(&s->signal_event, s->main.base, s->signal_fd, EV_READ | EV_PERSIST, on_signal, s);
    event_add(&s->signal_event, NULL);
    return true;
}

static void raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        ep_warn("server", "the limit of descriptors stays: %s", strerror(errno));
}

/* --- events of the main thread --- */

static void on_change(struct ep_watch *w)
{
    struct ep_server *s = EP_CONTAINER(w, struct ep_server, watch);
    struct ep_error err;

    if (s->stage == EP_DRAIN_NOT)
        ep_reload(s, EP_RELOAD_SEEN, &err);
}

/* Gauges of what belongs to no worker. */
static void on_gauges(struct ep_timer *t)
{
    struct ep_server *s = EP_CONTAINER(t, struct ep_server, gauges_timer);
    struct ep_stats *stats = s->shards[s->n];

    ep_cell_set(ep_stats_cell(stats, EP_METRIC_RATELIMIT_BUCKETS, NULL), ep_limiter_used(s->limiter));
    if (s->audit) {
        struct ep_audit_health h = ep_audit_health(s->audit);
        ep_cell_set(ep_stats_cell(stats, EP_METRIC_AUDIT_AVAILABLE, NULL), h.available);
        ep_cell_set(ep_stats_cell(stats, EP_METRIC_AUDIT_UNSYNCED, NULL), h.unsynced);
    }
    ep_worker_timer(&s->main, t, GAUGES_NS);
}

/* --- life --- */

struct ep_server *ep_server_new(const char *path, struct ep_config *config, struct ep_error *err)
{
    struct ep_server *s = ep_calloc(1, sizeof *s);

    s->path = ep_strdup(path);
    s->config = config;
    s->memory = ep_memory_new();
    s->compiled = ep_lua_compiled_new();
    s->limiter = ep_limiter_new(EP_LIMITER_SLOTS);
    s->mcp_sessions = ep_mcp_sessions_new();
    s->pinned = ep_pinned_new();
    s->signal_fd = -1;
    s->started_wall_ns = ep_clock_wall_ns();
    s->n = ep_config_workers(config);
    s->serving = ep_calloc(s->n, sizeof *s->serving);
    s->shards = ep_calloc(s->n + 1, sizeof(struct ep_stats *));
    for (unsigned i = 0; i <= s->n; i++)
        s->shards[i] = ep_stats_new();
    ep_timer_init(&s->drain_timer, on_gauges);
    ep_timer_init(&s->gauges_timer, on_gauges);
    raise_descriptors();
    if (!ep_worker_init(&s->main, s->n, err)) {
        ep_server_free(s);
        return NULL;
    }
    s->main_inited = true;
    s->main.stats = s->shards[s->n];
    s->main.owner = s;
    if (!take_signals(s, err)) {
        ep_server_free(s);
        return NULL;
    }
    ep_history_init(&s->history, config->state);
    ep_policy_life_init(s, config->state);
    ep_watch_init(&s->watch, &s->main, on_change);
    return s;
}

bool ep_server_start(struct ep_server *s, struct ep_error *err)
{
    struct ep_config *config = s->config;

    for (unsigned i = 0; i < s->n; i++)
        if (!ep_serving_init(&s->serving[i], s, i, err))
            return false;
    for (unsigned i = 0; i < s->n; i++)
        if (!ep_serving_start(&s->serving[i], err))
            return false;
    if (!ep_reload_take(s, config, NULL, "accepted", err))
        return false;
    ep_worker_timer(&s->main, &s->gauges_timer, GAUGES_NS);
    s->ready = true;
    return true;
}

void ep_server_run(struct ep_server *s)
{
    ep_worker_run(&s->main);
    ep_info("server", "ended");
}

void ep_server_free(struct ep_server *s)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->serving[i].running)
            ep_worker_stop(&s->serving[i].worker);
    for (unsigned i = 0; i < s->n; i++)
        ep_serving_join(&s->serving[i]);
    if (s->main_inited) {
        ep_watch_fini(&s->watch);
        if (s->signal_fd >= 0) {
            event_del(&s->signal_event);
            close(s->signal_fd);
        }
        ep_worker_timer_stop(&s->main, &s->drain_timer);
        ep_worker_timer_stop(&s->main, &s->gauges_timer);
        ep_policy_life_fini(s);
        ep_worker_turn(&s->main, false); /* sets that the workers sent to be freed */
        ep_worker_fini(&s->main);
    }
    if (s->generation)
        ep_bind_unlink(s->config, NULL);
    if (s->audit)
        ep_audit_free(s->audit);
    ep_memory_free(s->memory);
    ep_lua_compiled_free(s->compiled);
    ep_limiter_free(s->limiter);
    ep_mcp_sessions_free(s->mcp_sessions);
    ep_identity_unref(s->identity);
    ep_egress_unref(s->egress); /* with the last view: the CA's key is overwritten */
    ep_pinned_free(s->pinned);
    ep_config_unref(s->config);
    ep_history_fini(&s->history);
    for (unsigned i = 0; i <= s->n; i++)
        ep_stats_free(s->shards[i]);
    free(s->shards);
    free(s->serving);
    free(s->rejected);
    free(s->path);
    free(s);
}

/* --- for the admin server --- */

struct ep_worker *ep_server_main(struct ep_server *s)
{
    return &s->main;
}

const struct ep_config *ep_server_config(const struct ep_server *s)
{
    return s->config;
}

const char *ep_server_path(const struct ep_server *s)
{
    return s->path;
}

struct ep_stats *const *ep_server_shards(const struct ep_server *s, size_t *n)
{
    *n = s->n + 1;
    return s->shards;
}

struct ep_server_status ep_server_status(const struct ep_server *s)
{
    return (struct ep_server_status){
        .ready = s->ready,
        .draining = s->stage != EP_DRAIN_NOT,
        .constitution_wall_ns = s->constitution_wall_ns,
        .workers = s->n,
        .generation = s->generation,
        .started_wall_ns = s->started_wall_ns,
        .accepted_wall_ns = s->accepted_wall_ns,
        .rejected = s->rejected,
        .rejected_wall_ns = s->rejected_wall_ns,
    };
}

bool ep_server_reload(struct ep_server *s, struct ep_error *err)
{
    return ep_reload(s, EP_RELOAD_ASKED, err);
}

void ep_server_egress_describe(const struct ep_server *s, struct ep_json *out)
{
    ep_egress_describe(s->egress, s->main.now_ns, out);
}

void ep_server_drain(struct ep_server *s)
{
    if (s->stage == EP_DRAIN_NOT)
        ep_drain_begin(s);
}
