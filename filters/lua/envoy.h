/* Envoy's Lua API (lua_filter.rst): what a script gets as `handle`, and the objects that it gives out.
 *
 * A stream has a handle a direction, with the objects it gives out (headers, body, …) as its user values; both are made
 * once and used again for later streams of the same script, so that a stream costs no allocation in Lua. An object of
 * ours stays good as long as the stream (Envoy's die at each yield); after it, every method says so.
 *
 *   script.c         the filter: loading, running, waiting for bodies
 *   envoy.c          the handle
 *   envoy_headers.c  headers and trailers
 *   envoy_info.c     streamInfo, dynamicMetadata, metadata, connection, ssl */
#ifndef EP_LUA_ENVOY_H
#define EP_LUA_ENVOY_H

#include "filter/filter.h"
#include "lua/host.h"

#define EP_ENVOY_SCOPE "object used outside of proper scope"

enum ep_envoy_class {
    EP_ENVOY_HANDLE = 0x6570686f,
    EP_ENVOY_HEADERS,
    EP_ENVOY_TRAILERS,
    EP_ENVOY_BODY,
    EP_ENVOY_STREAM_INFO,
    EP_ENVOY_DYNAMIC_METADATA,
    EP_ENVOY_METADATA,
    EP_ENVOY_CONNECTION,
    EP_ENVOY_SSL,
    EP_ENVOY_END
};
#define EP_ENVOY_OBJECTS (EP_ENVOY_END - EP_ENVOY_HANDLE - 1) /* user values of a handle */

enum ep_envoy_wait { EP_ENVOY_RUNS, EP_ENVOY_WAITS_BODY, EP_ENVOY_WAITS_TRAILERS, EP_ENVOY_RESPONDED };

/* Begins every object. Of a handle it is the handle itself. */
struct ep_envoy_object {
    uint32_t class;
    struct ep_envoy_handle *handle;
};

struct ep_envoy_handle {
    struct ep_envoy_object object;
    int ref;                     /* keeps the userdata */
    struct ep_stream *s;         /* NULL: no stream */
    struct ep_lua_thread thread; /* L is NULL: the script is not running */
    enum ep_envoy_wait wait;
    bool request;
    bool whole; /* the body is there, or there is none */
    bool over;  /* the script is done: the head and the body have gone on */
    struct ep_str body;
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
/* Pushes the object of that class, made when it is first asked for; the handle is at `index`, or NULL for the one of
 * the object at 1. */
void ep_envoy_push(lua_State *L, struct ep_envoy_handle *h, enum ep_envoy_class class);

/* One class: its metatable, with the log methods that Envoy has on every object, and methods that only say that they
 * are not here yet. Leaves nothing on the stack. */
void ep_envoy_class(lua_State *L, enum ep_envoy_class class, const luaL_Reg *methods, const char *const *absent,
                    const luaL_Reg *meta);
void ep_envoy_headers_open(lua_State *L);
void ep_envoy_info_open(lua_State *L);

#endif
