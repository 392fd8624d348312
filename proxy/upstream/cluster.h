/* Private to upstream: the objects behind a cluster and how its parts fit together.
 *
 *   ep_cluster ── ep_endpoint (an address) ── ep_lane (a way of speaking to it) ── ep_upconn (a connection)
 *                                                 └── waiters: requests that have no connection yet
 *
 * A request picks an endpoint (balance.c, members.c), finds the lane that speaks as it needs (lane.c), and takes a leg
 * of a connection that is up (pool_h2.c, pool_h1.c, pool_tcp.c) or waits in the lane, which dials (dial.c). All belongs
 * to one worker, so there is no lock.
 *
 * Life: an endpoint is referenced by its membership in the cluster, its connections, its requests and its probe; a
 * cluster lives until its users let go and its last endpoint is gone. Both are freed by a task at the end of the
 * turn, never inside a callback of one of their connections. */
#ifndef EP_UPSTREAM_CLUSTER_H
#define EP_UPSTREAM_CLUSTER_H

#include "observe/observe.h"
#include "upstream/balance.h"
#include "upstream/breaker.h"
#include "upstream/outlier.h"
#include "upstream/resolver.h"
#include "upstream/retry_budget.h"
#include "upstream/upstream.h"

enum ep_speak { EP_SPEAK_H2, EP_SPEAK_HTTP1, EP_SPEAK_TCP, EP_SPEAK_COUNT };

struct ep_lane;
struct ep_probe;

/* One connection, from dial to close. */
struct ep_upconn {
    struct ep_list node; /* in one list of its lane */
    struct ep_lane *lane;
    struct ep_conn *conn;
    enum { EP_UPCONN_DIALING, EP_UPCONN_READY, EP_UPCONN_IDLE, EP_UPCONN_BUSY } state;
    enum ep_speak speaks;             /* once it isn't dialling any more */
    enum ep_upstream_failure failure; /* why a dial failed, when `refused` */
    bool refused;                     /* by us, after the handshake: wrong peer or protocol */
    bool fresh;                       /* has carried no request yet */
    bool retired;                     /* takes no new request, closes when idle */
    bool counted;                     /* holds a place in the breaker */
    uint64_t bytes_at_ready;
};

/* What requests of one kind share at one endpoint: how to speak, under which TLS, to which server name. */
struct ep_lane {
    struct ep_list node; /* endpoint->lanes */
    struct ep_endpoint *endpoint;
    enum ep_speak want;
    int tls;                /* enum ep_upstream_tls, auto settled */
    struct ep_str sni;      /* owned; part of the key only under simple TLS */
    struct ep_tls_origin *origin; /* of the calls, in place of the cluster's own simple TLS; a reference; NULL: none */
    enum ep_speak speaks;   /* what the last connection turned out to speak; `want` before */
    struct ep_list ready;   /* h2, up */
    struct ep_list idle;    /* http/1.1, latest first */
    struct ep_list others;  /* dialling, busy, retired */
    struct ep_list waiters; /* struct ep_upstream_call, oldest first */
    uint32_t n_conns, n_dialing, n_waiting;
    uint32_t streams; /* h2: how many a connection carries: a guess until the first SETTINGS of this endpoint came */
    bool streams_known;
};

enum ep_result_cell {
    EP_RESULT_1XX,
    EP_RESULT_2XX,
    EP_RESULT_3XX,
    EP_RESULT_4XX,
    EP_RESULT_5XX,
    EP_RESULT_RESET,
    EP_RESULT_COUNT
};

struct ep_endpoint {
    struct ep_load load; /* first: the balancer's view */
    struct ep_cluster *cluster;
    struct ep_addr addr;
    struct ep_list node; /* cluster->endpoints, or cluster->dead */
    struct ep_list lanes;
    uint32_t refs;
    bool member;  /* of the set that requests choose from */
    bool local;   /* this machine: never mTLS by mode auto */
    bool loop;    /* one of our own listeners */
    bool in_mesh; /* its address is in the mesh's cidrs, and not the pod's own */
    bool probed_down;
    bool shown_healthy; /* what the gauge holds */
    uint64_t http1_until_ns; /* it understood no HTTP/2: HTTP/1.1 until then (`protocol: auto`) */
    struct ep_outlier outlier;
    struct ep_probe *probe;
    uint64_t *cells[EP_RESULT_COUNT]; /* made at their first use */
    struct ep_endpoint *hash_next;    /* original destinations */
    uint64_t last_used_ns;
    int name_n;
    char name[128];
};

#define EP_ORIGINAL_BUCKETS 256u
#define EP_ENDPOINTS_MAX    1000u /* of one DNS answer, and of original destinations */
#define EP_LANES_MAX        64u   /* of an endpoint */

struct ep_cluster {
    struct ep_worker *worker;
    struct ep_cluster_config config; /* our own copy, in `arena` */
    struct ep_arena arena;
    struct ep_chunk_pool chunks; /* of the arena: it lives as long as we */
    uint64_t digest;
    uint32_t refs;    /* of users */
    uint32_t n_calls; /* between acquire and done */
    bool dying;
    struct ep_list all; /* of the worker's clusters */

    /* of the environment, copied: the view it came from may be gone before us */
    struct ep_mesh_config mesh;
    struct ep_arena mesh_arena;
    struct ep_tls_context *(*mesh_context)(void *user);
    struct ep_tls_context *(*mesh_tcp_context)(void *user);
    void *mesh_user;
    struct ep_addr *own;
    size_t n_own;
    bool dns_in_mesh;

    struct ep_list endpoints; /* all that are alive, members or not */
    struct ep_list dead;      /* refs 0: freed by `reap` */
    struct ep_endpoint **members;
    struct ep_load **usable; /* members that are healthy, or all in a panic */
    uint32_t n_members, n_usable, n_ejected;
    bool panicking;
    struct ep_endpoint **by_address; /* original destinations: EP_ORIGINAL_BUCKETS, or NULL */
    uint32_t n_original;
    struct ep_balancer balancer;
    struct ep_breaker breaker;
    struct ep_retry_budget budget;
    struct ep_outlier_rules outlier;
    struct ep_http_options http;
    struct ep_tls_context *simple[EP_SPEAK_COUNT + 1]; /* by what is offered; the last: h2 or http/1.1 */
    struct ep_str roots_pem;
    struct ep_task reap;
    struct ep_timer eject_timer, sweep_timer, dns_timer;

    struct ep_lookup lookup;
    struct ep_list unresolved; /* calls that wait for the first answer */
    uint32_t n_unresolved;
    uint64_t dns_backoff_ns, dns_answered_ns, dns_ttl_ns;
    bool dns_failing;
    uint64_t warned_ns;

    uint64_t nowhere; /* cell of a worker without statistics */
    uint64_t *cell_active, *cell_pending, *cell_streams;
    uint64_t *cell_connect[4]; /* by enum ep_dial_result */
    uint64_t *cell_overflow[EP_BREAKER_COUNT];
    uint64_t *cell_failure[EP_UPSTREAM_FAILURES];
};

enum ep_call_state { EP_CALL_NEW, EP_CALL_UNRESOLVED, EP_CALL_WAITING, EP_CALL_ACTIVE, EP_CALL_ENDED, EP_CALL_FAILING };

/* --- config_text.c --- */
extern const char *const ep_cluster_protocol_names[], *const ep_cluster_tls_names[], *const ep_cluster_balance_names[];
bool ep_cluster_dns_parse(struct ep_str dns, struct ep_str *host, uint16_t *port);

/* --- copy.c: deep copies and the digest --- */
void ep_cluster_config_copy(struct ep_cluster_config *to, const struct ep_cluster_config *from, struct ep_arena *arena);
void ep_mesh_config_copy(struct ep_mesh_config *to, const struct ep_mesh_config *from, struct ep_arena *arena);
uint64_t ep_cluster_digest(const struct ep_cluster_config *c, struct ep_str roots_pem);

/* --- cluster.c --- */
uint64_t *ep_cluster_cell(struct ep_cluster *cl, enum ep_metric m, const struct ep_str *labels);
void ep_cluster_reap_later(struct ep_cluster *cl);
/* At most one line a second a cluster: what fails does so for every request. */
bool ep_cluster_may_warn(struct ep_cluster *cl);

/* --- call.c --- */
void ep_call_place(struct ep_upstream_call *c); /* to an endpoint, a lane, a leg or a wait */
void ep_call_fail(struct ep_upstream_call *c, enum ep_upstream_failure why); /* by a task; out of every queue */
/* The leg is the call's: on_leg. The call is in no queue any more. */
void ep_call_give(struct ep_upstream_call *c, struct ep_upconn *u, struct ep_leg *leg);
void ep_call_dequeue(struct ep_upstream_call *c); /* from the lane's or the cluster's waiters */
void ep_call_count_overflow(struct ep_cluster *cl, enum ep_breaker_limit l);
/* What an exchange or a dial says about the endpoint. */
void ep_endpoint_judge(struct ep_endpoint *e, bool failed);

/* --- endpoint.c --- */
struct ep_endpoint *ep_endpoint_new(struct ep_cluster *cl, const struct ep_addr *addr);
void ep_endpoint_unref(struct ep_endpoint *e);
static inline struct ep_endpoint *ep_endpoint_ref(struct ep_endpoint *e)
{
    e->refs++;
    return e;
}
void ep_endpoint_free(struct ep_endpoint *e);        /* refs 0; by the reaper */
void ep_endpoint_retire(struct ep_endpoint *e);      /* its connections take no new request */
void ep_endpoint_situate(struct ep_endpoint *e);     /* local, loop, in_mesh: by the environment */
void ep_endpoint_show_health(struct ep_endpoint *e); /* the gauge */
void ep_endpoint_count(struct ep_endpoint *e, enum ep_result_cell r);
static inline bool ep_endpoint_healthy(const struct ep_endpoint *e)
{
    return !e->probed_down && !e->outlier.ejected;
}

/* --- members.c: which endpoints there are and may be chosen --- */
void ep_members_set(struct ep_cluster *cl, const struct ep_addr *v, size_t n);
void ep_members_drop_all(struct ep_cluster *cl);
void ep_members_changed(struct ep_cluster *cl); /* health: who is usable */
void ep_members_eject(struct ep_cluster *cl, struct ep_endpoint *e);
void ep_members_on_eject_timer(struct ep_timer *t);
struct ep_endpoint *ep_members_original(struct ep_cluster *cl, const struct ep_addr *addr); /* NULL: too many */
void ep_members_on_sweep(struct ep_timer *t);

/* --- names.c: DNS of a cluster --- */
void ep_names_start(struct ep_cluster *cl);
void ep_names_on_timer(struct ep_timer *t);

/* --- lane.c --- */
/* The lane for this call; NULL when there are too many. */
struct ep_lane *ep_lane_for(struct ep_endpoint *e, const struct ep_upstream_call *c);
/* A leg at once, or NULL. */
struct ep_leg *ep_lane_open(struct ep_lane *l, const struct ep_upstream_call *c, struct ep_upconn **out);
void ep_lane_pump(struct ep_lane *l);                       /* dials what the waiters need */
void ep_lane_serve(struct ep_lane *l, struct ep_upconn *u); /* gives legs of u to waiters */
void ep_lane_fail_waiters(struct ep_lane *l, enum ep_upstream_failure why, bool all);
void ep_lane_unused(struct ep_lane *l); /* frees it when nothing holds it */
void ep_lane_retire(struct ep_lane *l);
void ep_upconn_retire(struct ep_upconn *u);
/* Makes place for a connection by closing one that is idle. */
bool ep_lane_evict(struct ep_cluster *cl);
void ep_lane_free(struct ep_lane *l);
/* TLS mode of a call at an endpoint, by the cluster. */
int ep_lane_tls(const struct ep_endpoint *e, struct ep_str server_name);

/* --- dial.c --- */
bool ep_dial(struct ep_lane *l);          /* false: the breaker or the TLS identity forbids it */
void ep_upconn_gone(struct ep_upconn *u); /* its connection is closed */
extern const struct ep_client_events ep_dial_client_events;
/* The client context for what is offered; NULL when there is none, with the reason logged. */
struct ep_tls_context *ep_dial_context(struct ep_cluster *cl, enum ep_speak want, int tls);
/* What a connection that is ready speaks, by its ALPN, and whether its peer may be trusted. False with *why. */
bool ep_dial_accept(struct ep_cluster *cl, struct ep_conn *conn, enum ep_speak want, int tls, enum ep_speak *speaks,
                    enum ep_upstream_failure *why);
bool ep_dial_simple_context(struct ep_cluster *cl, struct ep_error *err); /* the first one, at creation */
enum ep_upstream_failure ep_dial_failure(enum ep_close why);

/* --- pool_h2.c, pool_h1.c, pool_tcp.c --- */
struct ep_leg *ep_pool_h2_open(struct ep_lane *l, const struct ep_upstream_call *c, struct ep_upconn **out);
void ep_pool_h2_start(struct ep_upconn *u);
void ep_pool_h2_serve(struct ep_upconn *u);
void ep_pool_h2_on_capacity(struct ep_upconn *u);
uint32_t ep_pool_h2_coming(const struct ep_lane *l); /* connections that will have room by themselves soon */
struct ep_leg *ep_pool_h1_open(struct ep_lane *l, struct ep_upconn **out);
void ep_pool_h1_start(struct ep_upconn *u);
void ep_pool_h1_serve(struct ep_upconn *u);
void ep_pool_tcp_start(struct ep_upconn *u);

/* --- probe.c --- */
void ep_probe_start(struct ep_endpoint *e);
void ep_probe_stop(struct ep_endpoint *e); /* frees it, perhaps later */

/* --- upworker.c: what the clusters of a worker share --- */
struct ep_upworker {
    struct ep_list clusters;
    struct ep_resolver *resolver;
    struct ep_addr *addresses; /* of this machine */
    size_t n_addresses;
    uint64_t addresses_ns; /* when they were read */
};
bool ep_upworker_is_local(struct ep_worker *w, const struct ep_addr *a);

#endif
