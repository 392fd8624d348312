/* Private to the process's part of proxy/config: what its files share. */
#ifndef EP_CONFIG_PROCESS_H
#define EP_CONFIG_PROCESS_H

#include "config/egress_load.h"
#include "config/history.h"
#include "config/identity.h"
#include "config/policy_life.h"
#include "config/server.h"
#include "config/watch.h"
#include "filter/chain.h"
#include "filter/decision.h"
#include "filter/limiter.h"
#include "filter/memory.h"

#define EP_VERSIONS_COUNTED 4u

struct ep_lua_compiled;

/* One worker and what it serves. Owned by its thread, from start to join. */
struct ep_serving {
    struct ep_worker worker;
    struct ep_server *server;
    bool inited, running; /* of the main thread */
    struct ep_identity *identity;
    struct ep_view *next; /* built, not committed */
    struct ep_access_log *next_log;
    struct ep_audit_ear *ear;
    struct ep_span_export *spans;
    struct ep_policy_set *policies, *next_policies; /* of `worker.view` and `next`; NULL: none */
    /* By version of the operator's policies, the present one at `version`: what still runs in an older one counts there.
     * Read by the main thread, which alone starts what changes them. */
    struct ep_policy_totals totals[EP_VERSIONS_COUNTED];
    unsigned version;
    struct ep_list slots;
    struct ep_timer sweep;
    atomic_int stage_done; /* enum ep_drain_stage */
    int stage;
    uint64_t stage_ns;
};

enum ep_drain_stage { EP_DRAIN_NOT, EP_DRAIN_ACCEPTING, EP_DRAIN_INBOUND, EP_DRAIN_ALL, EP_DRAIN_OVER };

/* What is about to be taken over. Lives on the main thread's stack. */
struct ep_attempt {
    struct ep_config *config;
    uint64_t generation;
    struct ep_identity *identity; /* NULL: none */
    struct ep_egress *egress;
    struct ep_audit *audit;
    struct ep_policy_change *policies;
    int *fds; /* [listener * n_workers + worker]; -1: the listener has its socket */
    unsigned n_workers;
    struct ep_addr *own;
    struct ep_error *errors; /* one a worker; empty: it could */
};

struct ep_server {
    char *path;
    struct ep_worker main;
    bool main_inited, ready, forced;
    struct ep_serving *serving;
    unsigned n;
    struct ep_stats **shards; /* of the workers, then the main thread's */
    struct ep_config *config;
    struct ep_identity *identity;
    struct ep_egress *egress;
    struct ep_pinned *pinned;
    struct ep_audit *audit;
    struct ep_mcp_sessions *mcp_sessions; /* agent/mcp_sessions.h; outlives configurations */
    struct ep_limiter *limiter; /* buckets of the filter ratelimit; outlives configurations */
    struct ep_lua_compiled *compiled;
    struct ep_memory *memory; /* what policies remember; outlives configurations */
    uint64_t generation, digest;
    uint64_t started_wall_ns, accepted_wall_ns, rejected_wall_ns, constitution_wall_ns;
    char *rejected;
    struct ep_history history;
    struct ep_policy_life policies;
    struct ep_watch watch;
    int signal_fd;
    struct event signal_event;
    struct ep_timer drain_timer, gauges_timer;
    enum ep_drain_stage stage;
    uint64_t stage_ns, drain_deadline_ns;
};

/* serving.c: the worker's side. */
bool ep_serving_init(struct ep_serving *v, struct ep_server *s, unsigned index, struct ep_error *err);
bool ep_serving_start(struct ep_serving *v, struct ep_error *err);
void ep_serving_join(struct ep_serving *v); /* after ep_worker_stop; or of one that never ran */
void ep_serving_build(struct ep_serving *v, void *attempt, unsigned index);
void ep_serving_commit(struct ep_serving *v, void *attempt, unsigned index);
void ep_serving_abort(struct ep_serving *v, void *attempt, unsigned index);
void ep_serving_rotate(struct ep_serving *v, void *identity, unsigned index);
void ep_serving_drain(struct ep_serving *v, void *stage, unsigned index);

/* view.c */
struct ep_view *ep_view_build(struct ep_serving *v, const struct ep_attempt *a, struct ep_error *err);
void ep_view_set_identity(struct ep_view *view, const struct ep_identity *identity);
/* The clusters of the view in force get back the surroundings that a build that came to nothing gave them. */
void ep_view_restore(struct ep_serving *v, const struct ep_attempt *a);

/* round.c: runs a function in every worker and waits until all have. */
typedef void ep_round_fn(struct ep_serving *v, void *arg, unsigned index);
void ep_round(struct ep_server *s, ep_round_fn *fn, void *arg);

/* reload.c */
enum ep_reload_why { EP_RELOAD_START, EP_RELOAD_ASKED, EP_RELOAD_SEEN };
bool ep_reload(struct ep_server *s, enum ep_reload_why why, struct ep_error *err);
/* `change`: what happens to the policies, owned from here; NULL: what the configuration needs. `result`: for metrics and
 * log; NULL: it is only the policies. */
bool ep_reload_take(struct ep_server *s, struct ep_config *config, struct ep_policy_change *change, const char *result,
                    struct ep_error *err);
void ep_reload_reject(struct ep_server *s, const char *text);

/* drain.c */
void ep_drain_begin(struct ep_server *s);

#endif
