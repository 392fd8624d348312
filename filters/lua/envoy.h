/* Envoy's Lua API (lua_filter.rst): what a script gets as `handle`, and the objects that it gives out.
 *
 * A stream has a handle a direction, with the objects it gives out (headers, body, …) as its user values; both are made
 * once and used again for later streams of the same script, so that a stream costs no allocation in Lua. An object of
 * ours stays good as long as the stream (Envoy's die at each yield); after it, every method says so. Chunks of
 * bodyChunks() are the exception: each is an object of its own, dead when the next one comes.
 *
 * A script that waits is a suspended coroutine; the handle says for what:
 *
 *   waits for   the filter's step answers                         it goes on
 *   body()      EP_BUFFER                                         in the body step, with all of it
 *   a chunk     EP_NEXT: the head goes on                         in each body step; with nil at the end
 *   trailers()  EP_NEXT: the head goes on, the body passes        in the trailers step, or at the end without any
 *   httpCall()  EP_WAIT: flow control holds the body back         when the answer is there, outside of any step
 *
 *   script.c          the filter: loading, handles
 *   script_run.c      running, waiting, going on
 *   envoy.c           the handle
 *   envoy_body.c      body, bodyChunks, trailers
 *   envoy_call.c      httpCall
 *   envoy_headers.c   headers and trailers
 *   envoy_info.c      streamInfo, dynamicMetadata, filterState, connection
 *   envoy_metadata.c  metadata, route, virtualHost, filterContext
 *   envoy_ssl.c       ssl
 *   envoy_crypto.c    importPublicKey, verifySignature, base64Escape
 *   envoy_stats.c     stats */
#ifndef EP_LUA_ENVOY_H
#define EP_LUA_ENVOY_H

#include "filter/filter.h"
#include "http_call.h"
#include "lua/host.h"

#define EP_ENVOY_SCOPE     "object used outside of proper scope"
#define EP_ENVOY_CALLS_MAX 64u /* httpCall() of one stream and script */

enum ep_envoy_class {
    EP_ENVOY_HANDLE = 0x6570686f, /* of the request */
    EP_ENVOY_HEADERS,
    EP_ENVOY_TRAILERS,
    EP_ENVOY_REQUEST_HEADERS, /* read-only, for the response */
    EP_ENVOY_BODY,
    EP_ENVOY_STREAM_INFO,
    EP_ENVOY_CONNECTION_INFO,
    EP_ENVOY_DYNAMIC_METADATA,
    EP_ENVOY_CONNECTION_METADATA,
    EP_ENVOY_FILTER_STATE,
    EP_ENVOY_METADATA,
    EP_ENVOY_ROUTE,
    EP_ENVOY_VIRTUAL_HOST,
    EP_ENVOY_HOST_METADATA,
    EP_ENVOY_CONTEXT,
    EP_ENVOY_CONNECTION,
    EP_ENVOY_SSL,
    EP_ENVOY_SUBJECT,
    EP_ENVOY_STATS,
    EP_ENVOY_CHUNK, /* from here on each is made anew, and is no user value of the handle */
    EP_ENVOY_KEY,
    EP_ENVOY_COUNTER,
    EP_ENVOY_GAUGE,
    EP_ENVOY_HISTOGRAM,
    EP_ENVOY_END
};
#define EP_ENVOY_OBJECTS (EP_ENVOY_CHUNK - EP_ENVOY_HANDLE - 1) /* user values of a handle */

enum ep_envoy_wait {
    EP_ENVOY_RUNS,
    EP_ENVOY_WAITS_BODY,
    EP_ENVOY_WAITS_CHUNK,
    EP_ENVOY_WAITS_TRAILERS,
    EP_ENVOY_WAITS_CALL,
    EP_ENVOY_WAITS_TURN, /* not for the script's sake: it has run for long */
    EP_ENVOY_RESPONDED
};

/* Begins every object. Of a handle it is the handle itself. */
struct ep_envoy_object {
    uint32_t class;
    struct ep_envoy_handle *handle;
};

/* What scripts see of their filter. */
struct ep_envoy_script {
    struct ep_str name;
    struct ep_str context; /* filter_context, as JSON; empty: none */
};

struct ep_envoy_handle {
    struct ep_envoy_object object;
    int ref;             /* keeps the userdata */
    struct ep_stream *s; /* NULL: no stream */
    const struct ep_envoy_script *script;
    struct ep_lua_thread thread; /* L is NULL: the script is not running */
    enum ep_envoy_wait wait;
    unsigned index; /* of the filter in the chain */
    bool request;
    bool whole;            /* the end of the message was seen */
    bool over;             /* the script is done: the head and the body have gone on */
    bool continued;        /* the head has gone on */
    bool has_body;         /* body() was called */
    bool has_chunks;       /* bodyChunks() was called */
    bool in_head;          /* what waits is the headers step */
    bool pass_end;         /* the body step that waits had the end */
    bool local;            /* of a response: it was ephor's own when the script began */
    uint32_t n_chunks;     /* a chunk knows by it whether it is the current one; never reset */
    struct ep_body *chunk; /* the current chunk; NULL: none */
    unsigned n_calls;
    struct ep_http_call *call;               /* that the script waits for */
    const struct ep_http_call_reply *answer; /* while it is told */
    struct ep_lua_pause pause;
    struct ep_lua_budget left; /* after a pause */
    size_t held;               /* made so far, and perhaps still there */
};

/* Makes the classes, once a state. In protected mode. */
void ep_envoy_open(lua_State *L);
/* Pushes a new handle without a stream. In protected mode. */
struct ep_envoy_handle *ep_envoy_handle_new(lua_State *L);
static inline struct ep_message *ep_envoy_message(struct ep_envoy_handle *h)
{
    return h->request ? &h->s->request : &h->s->response;
}

/* The handle of the object of that class at index 1, with a live stream; raises else. */
struct ep_envoy_handle *ep_envoy_check(lua_State *L, enum ep_envoy_class class);
/* The object itself, for those that are longer than ep_envoy_object. */
void *ep_envoy_check_object(lua_State *L, enum ep_envoy_class class);
/* Pushes the object of that class, made when it is first asked for. */
void ep_envoy_push(lua_State *L, struct ep_envoy_handle *h, enum ep_envoy_class class);
/* Pushes a new object of `bytes` bytes that keeps its handle. */
void *ep_envoy_push_new(lua_State *L, struct ep_envoy_handle *h, enum ep_envoy_class class, size_t bytes);
/* Defines a method that gives out the handle's object of another class. */
#define EP_ENVOY_GIVES(function, of, class_)                                                                           \
    static int function(lua_State *L)                                                                                  \
    {                                                                                                                  \
        ep_envoy_push(L, ep_envoy_check(L, of), class_);                                                               \
        return 1;                                                                                                      \
    }

/* Suspends the script until `what` happened; it goes on in `then`. Raises inside a coroutine of the script's own. */
int ep_envoy_suspend(lua_State *L, struct ep_envoy_handle *h, enum ep_envoy_wait what, const char *method,
                     lua_KContext extra, lua_KFunction then);

/* One class: its metatable, with the log methods that Envoy has on every object. Leaves nothing on the stack. */
void ep_envoy_class(lua_State *L, enum ep_envoy_class class, const luaL_Reg *methods, const luaL_Reg *meta);
void ep_envoy_body_open(lua_State *L);
void ep_envoy_crypto_open(lua_State *L);
void ep_envoy_headers_open(lua_State *L);
void ep_envoy_info_open(lua_State *L);
void ep_envoy_metadata_open(lua_State *L);
void ep_envoy_ssl_open(lua_State *L);
void ep_envoy_stats_open(lua_State *L);

/* Methods of the handle that live elsewhere. */
int ep_envoy_body(lua_State *L);
int ep_envoy_body_chunks(lua_State *L);
int ep_envoy_trailers(lua_State *L);
int ep_envoy_http_call(lua_State *L);
int ep_envoy_base64_escape(lua_State *L);
int ep_envoy_import_public_key(lua_State *L);
int ep_envoy_verify_signature(lua_State *L);

/* Pushes the metatable of a class. */
void ep_envoy_push_metatable(lua_State *L, enum ep_envoy_class class);
/* `next` of what a __pairs gives: pushes the global function next. */
void ep_envoy_push_next(lua_State *L);
/* One name and value of headers that a script gives as a table (respond, httpCall): a string or number, or a list of
 * them. `take` is called with each value on top of the stack. */
void ep_envoy_each_header(lua_State *L, int table, void (*take)(lua_State *L, void *user, struct ep_str name),
                          void *user);

/* --- script_run.c: between the filter and the walk --- */

/* The answer of a call came: goes on with the script, and with the stream. */
void ep_script_answered(void *handle, const struct ep_http_call_reply *reply);

/* Where the script of such a filter's configuration is; empty: inline, or nowhere. NULL is fine. */
struct ep_str ep_script_file(const void *config);

#endif
