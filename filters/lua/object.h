/* What a policy gets: `c` in call(c), `r` in reply(r).
 *
 * One userdata a worker, filled before each call and emptied after it, so that a policy costs no allocation. Values
 * become Lua strings when they are asked for. Reading a field that doesn't exist is an error: a rule with a slip of
 * the pen must not silently do nothing. Kept beyond its call, the object says so. */
#ifndef EP_LUA_OBJECT_H
#define EP_LUA_OBJECT_H

#include "lua/policy.h"

/* What a policy looks at, for a replay. */
enum ep_policy_read {
    EP_POLICY_READ_FIELD,   /* name: of the field */
    EP_POLICY_READ_HEADER,  /* name: of the header */
    EP_POLICY_READ_HEADERS, /* all of them */
    EP_POLICY_READ_WORLD,   /* name: of the method whose result hangs on more than the request */
};
struct ep_policy_object;
typedef void ep_policy_read_fn(struct ep_policy_object *o, enum ep_policy_read kind, struct ep_str name);

struct ep_policy_object {
    struct ep_stream *s; /* NULL: no call runs */
    const struct ep_call *call;
    const struct ep_policy *policy;
    enum ep_policy_phase phase;
    bool shadow;  /* nothing it does reaches the message */
    bool decoded; /* the arguments, in user value 1 */
    bool denied;
    struct ep_str reason;
    const char *code;
    unsigned status;
    ep_policy_read_fn *on_read; /* of a replay; NULL in the proxy */
    void *reader;
};

static inline void ep_policy_reads(struct ep_policy_object *o, enum ep_policy_read kind, struct ep_str name)
{
    if (EP_UNLIKELY(o->on_read != NULL))
        o->on_read(o, kind, name);
}

/* Makes the object of the state. In protected mode. */
void ep_policy_object_open(lua_State *L);
/* Pushes the module "ephor.native", of which the modules in lua/ephor are made. */
int ep_policy_native(lua_State *L);

/* policy.c: function policy(table), and its class. */
int ep_policy_define(lua_State *L);
/* policy_test.c: pushes what lua/ephor/test.lua needs. */
int ep_policy_test_native(lua_State *L);

#define EP_TAGS_MAX 128u
/* The stream's tag of that name, set or replaced; value is JSON. All copied into the arena. False: it has too many. */
bool ep_stream_tag(struct ep_stream *s, struct ep_str space, struct ep_str key, struct ep_str value);
const struct ep_tag *ep_stream_tag_find(const struct ep_stream *s, struct ep_str space, struct ep_str key);

#endif
