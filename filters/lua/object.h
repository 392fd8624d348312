/* What a policy gets: `c` in call(c), `r` in reply(r).
 *
 * One userdata a worker (and one for each policy that waits), filled before a call and emptied after it, so that a policy
 * costs no allocation. Values
 * become Lua strings when they are asked for. Reading a field that doesn't exist is an error: a rule with a slip of
 * the pen must not silently do nothing. Kept beyond its call, the object says so. */
#ifndef EP_LUA_OBJECT_H
#define EP_LUA_OBJECT_H

#include "lua/policy.h"

/* What a policy looks at, for a replay. */
enum ep_policy_read {
    EP_POLICY_READ_FIELD,   /* name: of the field */
    EP_POLICY_READ_HEADER,  /* name: of the header, of the message that is judged */
    EP_POLICY_READ_HEADERS, /* all of them */
    EP_POLICY_READ_REQUEST_HEADER, /* the same of the request's, while its reply is judged */
    EP_POLICY_READ_REQUEST_HEADERS,
    EP_POLICY_READ_ANSWER, /* name: of a header of an answer to c:http that has none such; empty: all of them */
    EP_POLICY_READ_WORLD,   /* name: of the method whose result hangs on more than the request */
};
struct ep_policy_object;
typedef void ep_policy_read_fn(struct ep_policy_object *o, enum ep_policy_read kind, struct ep_str name);

/* TURN: for another slice of time. */
enum ep_policy_waits_for { EP_POLICY_WAIT_NOT, EP_POLICY_WAIT_DELAY, EP_POLICY_WAIT_HTTP, EP_POLICY_WAIT_TURN };
struct ep_http_call;
struct ep_http_call_reply;

struct ep_policy_object {
    struct ep_stream *s; /* NULL: no call runs */
    struct ep_call *call;
    struct ep_policy *policy;
    struct ep_policy_reply *reply; /* in the phases of replies and events */
    enum ep_policy_phase phase;
    bool shadow;  /* nothing it does reaches the message */
    bool foresee; /* nothing may come of the run: foresee.c */
    bool decoded; /* the arguments, in user value 1 */
    bool denied;
    struct ep_str reason;
    const char *code;
    unsigned status;
    enum ep_policy_waits_for wait; /* why it yielded */
    unsigned waits;
    uint64_t wait_ns, delayed_ns;
    struct ep_policy_wait *waiting;               /* while it waits */
    struct ep_http_call *http;                    /* under way */
    const struct ep_http_call_reply *http_reply; /* while the policy goes on with it */
    struct ep_policy_hearing *hearing; /* NULL: nobody hears */
    void *http_token;                  /* of who hears, for the answer */
    struct ep_redaction *redactions; /* asked for; done when the policy has run */
    int ref;
    struct ep_list node; /* of the host's idle ones */
    ep_policy_read_fn *on_read; /* of a replay and of foresee.c; else NULL */
    void *reader;
};

static inline void ep_policy_reads(struct ep_policy_object *o, enum ep_policy_read kind, struct ep_str name)
{
    if (EP_UNLIKELY(o->on_read != NULL))
        o->on_read(o, kind, name);
}

/* One that is idle, or a new one; and back. */
struct ep_policy_object *ep_policy_object_take(struct ep_lua *l);
void ep_policy_object_give(struct ep_lua *l, struct ep_policy_object *o);
/* Lets go of what it holds of its call. */
void ep_policy_object_clear(struct ep_policy_object *o, lua_State *L);
/* For methods: the object at index 1, which must be the one that runs. */
struct ep_policy_object *ep_policy_object_check(lua_State *L);

/* judge.c: what came of a run that ended. */
void ep_policy_ended(struct ep_policy_set *set, struct ep_policy_object *o, lua_State *L, enum ep_lua_status status,
                     uint64_t spent_ns, struct ep_policy_verdict *v);

/* redaction.c: does what the policy asked for, or says when (v->redactions), and decides. */
void ep_policy_redact(struct ep_policy_set *set, struct ep_policy_object *o, struct ep_policy_verdict *v);

/* wait.c: the policy that runs has yielded; it takes its thread and object along. */
struct ep_policy_wait *ep_policy_wait_new(struct ep_policy_set *set, struct ep_policy_object *o, uint64_t spent_ns);
/* Raises unless the policy may wait here and now. */
void ep_policy_wait_check(lua_State *L, const struct ep_policy_object *o, const char *method);
int ep_policy_delay(lua_State *L);

/* http.c */
int ep_policy_http(lua_State *L);
#define EP_POLICY_TEST_HTTP "ephor.test.http" /* in the registry: the function of t.http */

/* object_message.c: what calls of language models and messages of agents have beside the common fields. */
#define EP_POLICY_MESSAGE_FIELDS(X)                                                                                    \
    X(TOOLS, "tools")                                                                                                  \
    X(SERVERS, "servers")                                                                                              \
    X(MEDIA, "media")                                                                                                  \
    X(STREAM, "stream")                                                                                                \
    X(BACKGROUND, "background")                                                                                        \
    X(MAX_TOKENS, "max_tokens")                                                                                        \
    X(N, "n")                                                                                                          \
    X(PREVIOUS, "previous")                                                                                            \
    X(CONVERSATION, "conversation")                                                                                    \
    X(HASH, "hash")                                                                                                    \
    X(CLAIMED_TENANT, "claimed_tenant")                                                                                \
    X(CONTEXT, "context")                                                                                              \
    X(PARTS, "parts")
enum ep_policy_message_field {
#define X(id, name) EP_POLICY_MESSAGE_##id,
    EP_POLICY_MESSAGE_FIELDS(X)
#undef X
        EP_POLICY_MESSAGE_FIELD_COUNT
};
/* parts.c: Agent2Agent's, one form for all versions: {kind, text, data, name, media_type, url, bytes, metadata}; nil: none. */
void ep_policy_push_parts(lua_State *L, const struct ep_call *c);
void ep_policy_push_message_field(lua_State *L, struct ep_policy_object *o, enum ep_policy_message_field f);
/* The same of a table, as t.call has them. Raises. */
void ep_policy_read_message_fields(lua_State *L, int table, struct ep_call *c, struct ep_arena *arena);

/* True for the fields that only `event` has. */
bool ep_policy_field_of_event(struct ep_str name);

/* actions.c */
int ep_policy_route_to(lua_State *L);
int ep_policy_meter(lua_State *L);
int ep_policy_remember(lua_State *L);
int ep_policy_recall(lua_State *L);
int ep_policy_count(lua_State *L);
int ep_policy_redact_action(lua_State *L);
/* A duration in seconds or as text. Raises. */
uint64_t ep_policy_duration(lua_State *L, int index);

/* Makes the object of the state. In protected mode. */
void ep_policy_object_open(lua_State *L);
/* Pushes the module "ephor.native", of which the modules in lua/ephor are made. */
int ep_policy_native(lua_State *L);

/* policy.c: function policy(table), and its class. */
int ep_policy_define(lua_State *L);

#define EP_TAGS_MAX 128u
/* The stream's tag of that name, set or replaced; value is JSON. All copied into the arena. False: it has too many. */
bool ep_stream_tag(struct ep_stream *s, struct ep_str space, struct ep_str key, struct ep_str value);
const struct ep_tag *ep_stream_tag_find(const struct ep_stream *s, struct ep_str space, struct ep_str key);

#endif
