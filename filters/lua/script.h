/* Private to the filter `lua`: script.c loads, script_run.c runs. */
#ifndef EP_LUA_SCRIPT_H
#define EP_LUA_SCRIPT_H

#include "lua/envoy.h"
#include "observe/observe.h"

#define EP_SCRIPT_IDLE_HANDLES 32

enum { EP_SCRIPT_DENY, EP_SCRIPT_ALLOW };
enum ep_script_decision {
    EP_SCRIPT_ALLOWED,
    EP_SCRIPT_DENIED,
    EP_SCRIPT_ERROR,
    EP_SCRIPT_OVERRUN,
    EP_SCRIPT_DECISIONS
};

struct script_config;

/* One source: the filter's own, or one of those that routes choose from. */
struct ep_script_source {
    struct ep_str name; /* empty: the filter's own */
    int request_ref, response_ref;
};

struct ep_script {
    struct ep_envoy_script seen; /* first: what scripts see of their filter */
    struct ep_lua *lua;
    const struct script_config *config;
    uint32_t owner; /* of what it makes in Lua */
    int on_error;
    struct ep_lua_budget budget;
    struct ep_script_source *sources; /* the filter's own is the first */
    size_t n_sources;
    bool by_route; /* some route chooses */
    struct ep_envoy_handle *idle[EP_SCRIPT_IDLE_HANDLES];
    unsigned n_idle, failures;
    uint64_t *cells[EP_SCRIPT_DECISIONS]; /* NULL without statistics */
    struct ep_histogram *duration;
};

/* Of a stream. */
struct ep_script_state {
    struct ep_envoy_handle *request, *response;
    const struct ep_script_source *source;
    bool chosen;  /* `source` is what the route wants; NULL: nothing */
    bool dropped; /* it failed and may: no more of it runs for this stream */
};

/* The filter's steps. */
enum ep_step ep_script_request_headers(struct ep_stream *s, void *state, bool end);
enum ep_step ep_script_request_body(struct ep_stream *s, void *state, struct ep_body *b, bool end);
enum ep_step ep_script_request_trailers(struct ep_stream *s, void *state);
enum ep_step ep_script_response_headers(struct ep_stream *s, void *state, bool end);
enum ep_step ep_script_response_body(struct ep_stream *s, void *state, struct ep_body *b, bool end);
enum ep_step ep_script_response_trailers(struct ep_stream *s, void *state);
void ep_script_finish(struct ep_stream *s, void *state);

#endif
