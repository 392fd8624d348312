/* The process: a main thread with signals, configuration and admin, and N workers that carry the traffic.
 *
 * A configuration is taken over in two rounds: every worker builds its view of it, in its own thread; only when all
 * could does every worker commit, which is a swap of pointers between two events. If one couldn't, all drop what they
 * built and the old configuration stays. Sockets are made by the main thread, one a worker and listener, before either
 * round. DESIGN.md sections 3, 5, 11 and 15. */
#ifndef EP_CONFIG_SERVER_H
#define EP_CONFIG_SERVER_H

#include "config/config.h"

struct ep_server;

/* Takes over the caller's reference to `config`, which was read from `path`. NULL with err: the environment failed. */
struct ep_server *ep_server_new(const char *path, struct ep_config *config, struct ep_error *err);
/* Makes sockets and threads and takes the configuration over. False with err. */
bool ep_server_start(struct ep_server *s, struct ep_error *err);
/* Runs until SIGTERM, SIGINT or ep_server_drain have been obeyed. */
void ep_server_run(struct ep_server *s);
void ep_server_free(struct ep_server *s); /* also after a start that failed */

/* All that follows is for the main thread. */
struct ep_worker *ep_server_main(struct ep_server *s); /* the main thread's own worker, for the admin server */
const struct ep_config *ep_server_config(const struct ep_server *s); /* the one in force */
const char *ep_server_path(const struct ep_server *s);               /* its file */
struct ep_stats *const *ep_server_shards(const struct ep_server *s, size_t *n);

struct ep_server_status {
    bool ready, draining;
    unsigned workers;
    uint64_t generation;
    uint64_t started_wall_ns, accepted_wall_ns;
    uint64_t constitution_wall_ns; /* since when this hash and this text are in force; 0: there is none */
    const char *rejected; /* why the last one was; NULL: the last one was accepted */
    uint64_t rejected_wall_ns;
};
struct ep_server_status ep_server_status(const struct ep_server *s);

/* Reads the file again. False with err: it was rejected and nothing changed. */
bool ep_server_reload(struct ep_server *s, struct ep_error *err);
/* Goes back to the configuration accepted before the present one. */
bool ep_server_rollback(struct ep_server *s, struct ep_error *err);
/* Puts an earlier version of the policies in force, `steps` before the one that is; until the directory changes again.
 * `by` says who asked, for the audit. */
bool ep_server_policies_rollback(struct ep_server *s, unsigned steps, const char *by, struct ep_error *err);
/* Appends members about the version in force, the ones before, and what was refused. */
void ep_server_policies_describe(const struct ep_server *s, struct ep_json *out);
/* Appends members about the CA of egress and the clients that refuse it; once there is a generation. */
void ep_server_egress_describe(const struct ep_server *s, struct ep_json *out);
/* Begins the drain that ends the process; harmless when it has begun. */
void ep_server_drain(struct ep_server *s);

/* Has each worker describe something: appends an array with one object for each, {"worker":0, <what it wrote>}.
 * A worker that doesn't answer in time is {"worker":0,"error":"no answer"}. */
void ep_server_ask(struct ep_server *s, void (*describe)(struct ep_worker *w, struct ep_json *out), uint64_t timeout_ns,
                   struct ep_json *out);

/* For ep_server_ask: "listeners":[…] of a worker. */
void ep_serving_describe(struct ep_worker *w, struct ep_json *out);

#endif
