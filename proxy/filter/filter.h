/* filter: the stream, the chain that walks it through the filters, and what a filter is.
 *
 * To add a filter: one file in filters/, one line in filters/filters.def, one test, one page (DESIGN.md 6).
 *
 * A step is called with the stream and the filter's own zeroed state. It answers:
 *   EP_NEXT     go on with the next filter;
 *   EP_WAIT     stop here until ep_stream_resume_*: then the walk goes on BEHIND this filter for the phase
 *               that waited (the filter did its work before it resumed). Headers, body and trailers steps may wait;
 *   EP_BUFFER   from a headers step: hold the message until its whole body is there, then call the body step
 *               once with all of it (end = true); past the limit of the chain the message is refused (413, 502), or the
 *               filter's request_too_large or response_too_large decides;
 *   EP_REPLIED  the filter answered (ep_stream_refuse, ep_stream_reply): request filters behind it don't run.
 * Request steps run in the order of the list, response steps in the reverse. A response made by a filter
 * passes the response steps of the filters in front of it (nearer to the downstream) only.
 * body steps get the bytes that pass now; they may take, change or add slices in `b`. */
#ifndef EP_FILTER_FILTER_H
#define EP_FILTER_FILTER_H

#include "filter/stream.h"

enum ep_step { EP_NEXT, EP_WAIT, EP_BUFFER, EP_REPLIED };

struct ep_view;
struct ep_filter_instance;

struct ep_filter {
    const char *name;
    const char *help;               /* one line for the reference */
    const struct ep_schema *schema; /* its configuration; NULL: takes none */
    /* Once for each configuration and worker. instance->config is the bound struct; what load makes goes to
     * instance->data. False with err: the configuration is refused. May be NULL. */
    bool (*load)(struct ep_filter_instance *i, struct ep_error *err);
    void (*unload)(struct ep_filter_instance *i);
    size_t stream_size;             /* of the zeroed state in the stream's arena */
    enum ep_step (*request_headers)(struct ep_stream *s, void *state, bool end);
    enum ep_step (*request_body)(struct ep_stream *s, void *state, struct ep_body *b, bool end);
    /* In place of the body step that EP_BUFFER asked for: the body is longer than max_body. EP_NEXT: the request goes
     * on, and its body passes through the body step in pieces. NULL: it is refused. */
    enum ep_step (*request_too_large)(struct ep_stream *s, void *state);
    enum ep_step (*request_trailers)(struct ep_stream *s, void *state);
    enum ep_step (*response_headers)(struct ep_stream *s, void *state, bool end);
    enum ep_step (*response_body)(struct ep_stream *s, void *state, struct ep_body *b, bool end);
    enum ep_step (*response_too_large)(struct ep_stream *s, void *state); /* likewise; NULL: 502 */
    enum ep_step (*response_trailers)(struct ep_stream *s, void *state);
    /* Always called once for a stream whose request reached this filter's chain, whatever happened. */
    void (*finish)(struct ep_stream *s, void *state);
};

/* A filter in one chain of one worker. */
struct ep_filter_instance {
    const struct ep_filter *filter;
    const void *config;             /* struct of filter->schema, owned by the configuration */
    void *data;                     /* of load */
    struct ep_worker *worker;
    struct ep_chain *chain;
    struct ep_view *view;
    unsigned index;                 /* in the chain */
};

/* The instance whose state this is, inside a step: the chain keeps it while a step runs. */
struct ep_filter_instance *ep_filter_self(struct ep_stream *s);
#define ep_filter_config(s) (ep_filter_self(s)->config)
#define ep_filter_data(s) (ep_filter_self(s)->data)

/* All filters, from filters.def; NULL when there is none of that name. Defined in filters/registry.c. */
const struct ep_filter *ep_filter_find(struct ep_str name);
const struct ep_filter *const *ep_filter_all(size_t *n);

#endif
