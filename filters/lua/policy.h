/* Policies: what a file of the policies' directory becomes, and how one call is judged by it.
 *
 * policy.c makes a policy out of the table that a file gives to `policy {...}` and loads directories; judge.c decides:
 * does it match (in C), can it see what it judges (blind), and then Lua; object.c is the `c` that Lua gets.
 * A set belongs to one view of one worker and is shared by all its chains. */
#ifndef EP_LUA_POLICY_H
#define EP_LUA_POLICY_H

#include "agent/model.h"
#include "filter/chain.h"
#include "filter/policies_config.h"
#include "lua/host.h"
#include "observe/observe.h"

#define EP_POLICIES_MAX     256u
#define EP_POLICY_STREAM_TAIL 256u /* bytes, when nothing else is said */
#define EP_POLICY_UNHEALTHY 5u /* failures in a row */
#define EP_POLICY_ROUTES    32u /* that coverage tells apart, with number 0: the others, and none */

/* X(id, name, of the call): what `match` may look at and `needs` may name. The last column says that the value comes
 * from the call record, so may be out of sight. */
#define EP_POLICY_FIELDS(X)                                                                                            \
    X(PROTOCOL, "protocol", true)                                                                                      \
    X(METHOD, "method", true)                                                                                          \
    X(TOOL, "tool", true)                                                                                              \
    X(MODEL, "model", true)                                                                                            \
    X(AGENT, "agent", true)                                                                                            \
    X(TASK, "task", true)                                                                                              \
    X(SESSION, "session", true)                                                                                        \
    X(TENANT, "tenant", false)                                                                                         \
    X(SERVICE, "service", true)                                                                                        \
    X(URI, "uri", true)                                                                                                \
    X(TOOLS, "tools", true)                                                                                            \
    X(SERVERS, "servers", true)                                                                                        \
    X(USER, "user", true)                                                                                              \
    X(RECIPIENT, "recipient", true)                                                                                    \
    X(PRIORITY, "priority", true)                                                                                      \
    X(IMPACT, "impact", true)                                                                                          \
    X(PROMPT, "prompt", true)                                                                                          \
    X(ARGUMENTS, "arguments", true)                                                                                    \
    X(BODY, "body", true)                                                                                              \
    X(PATH, "path", false)                                                                                             \
    X(HOST, "host", false)                                                                                             \
    X(LISTENER, "listener", false)                                                                                     \
    X(DIRECTION, "direction", false)                                                                                   \
    X(PEER, "peer", false)

enum ep_policy_field {
#define X(id, name, of_call) EP_POLICY_##id,
    EP_POLICY_FIELDS(X)
#undef X
        EP_POLICY_FIELD_COUNT
};

struct ep_policy_pattern {
    struct ep_str text;
    bool glob;
};

/* One key of `match`: any of the patterns will do. */
struct ep_policy_rule {
    enum ep_policy_field field;
    unsigned n;
    struct ep_policy_pattern *v;
};

struct ep_policy_bundle;

enum ep_policy_blind { EP_POLICY_BLIND_DENY, EP_POLICY_BLIND_ALLOW, EP_POLICY_BLIND_SHADOW };

enum ep_policy_decision {
    EP_POLICY_ALLOW,
    EP_POLICY_DENY,
    EP_POLICY_SHADOW_DENY,
    EP_POLICY_ERROR,
    EP_POLICY_OVERRUN,
    EP_POLICY_DECISIONS
};
const char *ep_policy_decision_name(enum ep_policy_decision d);

/* What a policy saw and did on one route. */
struct ep_policy_cover {
    uint64_t seen, matched, blind, denied, shadow_denied, failed;
};

#define EP_POLICY_METERS_MAX 32u /* of a policy; the last is "other" */

struct ep_policy_meter {
    struct ep_str name;
    char text[64];
    uint64_t *cell;
};

struct ep_policy {
    struct ep_list node; /* of the set, while it is loaded */
    struct ep_policy_set *set;
    struct ep_str text;  /* of its file */
    uint32_t owner;      /* of what it makes in Lua */
    struct ep_str name, principle, file;
    struct ep_str version;  /* for the audit: of the constitution that it is of, else the digest of the set's text */
    bool constitutional;    /* it carries out a principle: no mode of the operator's makes a shadow of it */
    int line;
    enum ep_mode mode;
    enum ep_policy_blind blind;
    uint32_t needs; /* bit: enum ep_policy_field */
    bool needs_reply_body;
    unsigned n_rules;
    struct ep_policy_rule *rules;
    int call_ref, reply_ref, event_ref;   /* functions; LUA_NOREF: none */
    uint64_t *cells[EP_POLICY_DECISIONS]; /* NULL without statistics */
    struct ep_histogram *duration;
    double enforced;    /* share of the callers for whom it is enforced, 0 to 1; for the rest it is a shadow */
    double share;       /* the same, with the configuration's */
    uint64_t trial_ns;  /* it runs in shadow until then (wall clock); 0: it doesn't */
    uint64_t seen, matched, blinded, count[EP_POLICY_DECISIONS];
    uint64_t blind_by[EP_BLIND_REASONS];
    struct ep_policy_cover *cover; /* by route */
    unsigned failures; /* errors and overruns in a row */
    struct ep_policy_meter *meters; /* room for EP_POLICY_METERS_MAX */
    unsigned n_meters;
};

/* What a worker's requests came to, for the one who compares versions: written by the worker, read by the main thread. */
struct ep_policy_totals {
    uint64_t requests; /* that were judged */
    uint64_t denied;   /* of them refused by a decision */
    uint64_t failed;   /* of them with an error or an overrun, in shadow too */
};

struct ep_policy_set {
    struct ep_list node; /* of the host */
    struct ep_lua *lua;
    struct ep_policy_bundle *bundle;        /* where its text is from; NULL: the disk, and the state is shared */
    struct ep_policy_totals *totals; /* NULL: nobody compares */
    struct ep_worker *reaper;        /* who frees it; NULL: who lets it go last */
    struct ep_mail mail;             /* to the reaper */
    const void *key; /* the view that shares it; NULL: nobody */
    unsigned refs;
    struct ep_lua_budget budget, at_once; /* the same, but without a pause */
    enum ep_mode mode;
    double enforced; /* policies.enforce */
    struct ep_chunk_pool chunks;
    struct ep_arena arena;  /* of all strings and rules */
    struct ep_list defined; /* struct ep_policy, in the order of definition */
    struct ep_policy *v[EP_POLICIES_MAX];
    unsigned n;
    const char *directory; /* where `require` looks when there is no bundle */
    const char *file; /* being loaded */
    struct ep_str text; /* of that file; as long as the set */
    bool replies;     /* some policy has a `reply` */
    bool reply_bodies; /* … that needs the body */
    bool events;      /* some policy has an `event` */
    uint64_t stream_tail; /* policies.stream_tail */
    uint32_t fields;  /* bit: some `match` or `needs` names it */
    uint64_t covered[EP_POLICY_ROUTES]; /* hashes of the names of the routes that coverage is of */
    struct ep_recorder *recorder; /* record.h; NULL: nothing is recorded */
    struct ep_policy_hearing *hearing; /* of the stream that is judged now; a test or a replay gives its own before a stream's first step */
};

/* --- coverage: coverage.c --- */

/* Where policy `p` counts what it does on this stream, whose route is known by then. */
static inline struct ep_policy_cover *ep_policy_cover(const struct ep_policy *p, const struct ep_stream *s)
{
    unsigned number = s->route ? s->route->number : 0;

    return &p->cover[number < EP_POLICY_ROUTES ? number : 0];
}
/* Makes the counters of a policy. */
void ep_policy_cover_init(struct ep_policy_set *set, struct ep_policy *p);
/* A chain will be judged by the set: counts of other routes that had the same numbers are forgotten. */
void ep_policy_cover_chain(struct ep_policy_set *set, const struct ep_chain *c);
/* Members "blind_by" and "routes" of a policy's object. */
void ep_policy_cover_json(const struct ep_policy *p, const struct ep_view *view, struct ep_json *j);

/* Adds the policies of the directory, from the set's bundle when it has one. False with err, which names file and line. */
bool ep_policy_set_load(struct ep_policy_set *set, struct ep_str path, struct ep_error *err);
/* Adds the constitution's policies, from the text that was hashed: policy_charter.c. False with err. */
bool ep_policy_set_charter(struct ep_policy_set *set, const struct ep_policies_config *config, struct ep_error *err);
/* Runs `load`, which ends with ep_policy_take, with the one argument: as the loading of `file`. False with err. */
bool ep_policy_load_one(struct ep_policy_set *set, const char *file, lua_CFunction load, void *argument,
                        struct ep_error *err);
/* In Lua, of who loads: runs set->text in an environment of its own, and leaves what it returns. `directory` as in
 * ep_lua_env_push. */
void ep_policy_run_text(lua_State *L, const struct ep_policy_set *set, const char *directory);
/* In Lua, of who loads: takes the value on top for a policy of the set. */
int ep_policy_take(lua_State *L, struct ep_policy_set *set);
/* What a policy file returned, at `index`; NULL: something else. */
struct ep_policy *ep_policy_check(lua_State *L, int index);
/* renew.c: runs the policy's file anew and lets go of what it had; an ep_lua_renew. */
void ep_policy_renew(void *policy);
/* Loads a directory, or takes the set that `key` shares. NULL with err, which names file and line. */
struct ep_policy_set *ep_policy_set_ref(struct ep_worker *w, const void *key, const struct ep_policies_config *config,
                                        struct ep_error *err);
void ep_policy_set_unref(struct ep_policy_set *set);
struct ep_policy_set *ep_policy_set_share(struct ep_policy_set *set); /* one more reference */

/* The way of the process: a set is made of a bundle, with a state of its own, by any thread that isn't a worker's; the
 * worker adopts it, which takes microseconds; when nothing holds it any more it is freed by the thread of its
 * `reaper`. NULL with err, which names file and line. */
struct ep_policy_set *ep_policy_set_prepare(struct ep_worker *w, const struct ep_policies_config *config,
                                            struct ep_policy_bundle *bundle, struct ep_error *err);
/* In the worker, before it is adopted: opens what it writes to. False with err. */
bool ep_policy_set_open(struct ep_policy_set *set, const struct ep_policies_config *config, struct ep_error *err);
void ep_policy_set_adopt(struct ep_policy_set *set, struct ep_policy_totals *totals);
/* Mode and budget of a configuration, for a set that stays. */
void ep_policy_set_configure(struct ep_policy_set *set, const struct ep_policies_config *config);
/* In the worker: from here on what the policy decides is counted. */
void ep_policy_add_statistics(struct ep_policy *p, struct ep_stats *stats);

struct ep_policy_wait;
struct ep_redaction;
struct ep_http_call_request;
struct ep_http_call_reply;

enum ep_policy_phase { EP_POLICY_CALL, EP_POLICY_REPLY, EP_POLICY_EVENT };

struct ep_policy_verdict {
    bool matched, blind;
    enum ep_policy_decision decision; /* of what matched */
    bool refuse;                      /* the request must be refused */
    struct ep_str reason;             /* for the caller; in the stream's arena or constant */
    const char *code;
    unsigned status;     /* 0: the kind's */
    struct ep_str error; /* what Lua said; in the stream's arena */
    struct ep_policy_wait *wait;           /* nothing is decided yet: ep_policy_wait_start, and later ep_policy_go_on */
    struct ep_redaction *redactions; /* of a reply whose body isn't there yet, ep_policy_redact_reply; or of events */
};

struct ep_policy_event;

/* What of a reply is there for policies. */
struct ep_policy_reply {
    bool events; /* it is a stream of events that can be watched: what is to be redacted of it will be, as it passes */
    const struct ep_policy_event *event; /* in the phase of that name */
    const struct ep_redaction *rules;    /* … what is redacted so far */
    bool whole;                /* its body: `body`, which may be empty */
    struct ep_str body;
    enum ep_blind_reason why;  /* not whole: why it can't be had. EP_BLIND_NOT: it can, but nobody asked yet */
};

/* Who hears how the policies judge one stream: a record, a test, a replay. Called after each run, of calls also of policies
 * that didn't match. `call` is the number of the call in its batch, from 0; of an event 0. */
struct ep_policy_hearing {
    void (*decided)(struct ep_policy_hearing *h, const struct ep_policy *p, enum ep_policy_phase phase, unsigned call,
                    const struct ep_policy_verdict *v);
    /* A policy asks by c:http, and is answered: `token` is what asked() returned. Each may be NULL. */
    void *(*asked)(struct ep_policy_hearing *h, struct ep_str cluster, const struct ep_http_call_request *q);
    void (*answered)(struct ep_policy_hearing *h, void *token, const struct ep_policy *p, const struct ep_http_call_reply *reply);
    /* Of a replay: answers in the network's place. False: it can't, and the policy fails. */
    bool (*answer)(struct ep_policy_hearing *h, const struct ep_policy *p, struct ep_str cluster,
                   const struct ep_http_call_request *q, struct ep_http_call_reply *out);
};
static inline void ep_policy_heard(struct ep_policy_hearing *h, const struct ep_policy *p, enum ep_policy_phase phase,
                                   unsigned call, const struct ep_policy_verdict *v)
{
    if (EP_UNLIKELY(h != NULL))
        h->decided(h, p, phase, call, v);
}

/* Judges one call. *now_ns is when it starts, and afterwards when it ended. `reply` is for the phase of that name. */
void ep_policy_judge(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, struct ep_call *call,
                     enum ep_policy_phase phase, struct ep_policy_reply *reply, uint64_t *now_ns,
                     struct ep_policy_verdict *v);
/* judge.c's for redaction.c: nothing stands against it. */
void ep_policy_allowed(struct ep_policy *p, struct ep_policy_verdict *v);
/* Lua failed outside of the policy's own function; the message is on L. */
void ep_policy_failed(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, lua_State *L,
                      struct ep_policy_verdict *v);
/* Takes out of a reply what the policy asked for when the body was not there yet. */
void ep_policy_redact_reply(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s,
                            const struct ep_redaction *rules, struct ep_policy_reply *reply, struct ep_policy_verdict *v);
/* What was taken out, by kind (EP_SENSITIVE_KINDS: by a pattern): counted and audited. With `audited` only what it hasn't
 * got yet is audited, by bits of the kinds. False: it must be audited and can't; the stream was refused for that. */
bool ep_policy_redacted(struct ep_stream *s, struct ep_policy *p, const unsigned found[], bool shadow, const char *code,
                        unsigned *audited);
/* The policy can't see what it judges: counted and audited, and its `blind` decides. */
void ep_policy_blinded(struct ep_policy_set *set, struct ep_policy *p, struct ep_stream *s, enum ep_blind_reason why,
                       struct ep_policy_verdict *v);

/* --- wait.c: policies that wait --- */
#define EP_POLICY_WAITS_MAX    16   /* of one call of a policy */
#define EP_POLICY_WAITING_MAX  1024u /* of a worker, at once */
#define EP_POLICY_DELAY_MAX_NS (30 * EP_S) /* of one call of a policy, in all */

typedef void ep_policy_woken(struct ep_policy_wait *w);

/* Lives in its stream's arena; exactly one of go_on and drop ends it, but that go_on may say that it waits once more. */
struct ep_policy_wait {
    struct ep_policy_set *set;
    struct ep_stream *s;
    struct ep_policy_object *object;
    struct ep_lua_thread thread;
    struct ep_lua_budget left;
    uint64_t spent_ns;
    size_t held; /* made so far, and perhaps still there */
    struct ep_timer timer;
    struct ep_lua_pause pause;
    void *owner;
    ep_policy_woken *woken; /* it may go on; from a timer or a task */
};

void ep_policy_wait_start(struct ep_policy_wait *w, void *owner, ep_policy_woken *woken);
/* Goes on, and decides or waits again. *now_ns as in ep_policy_judge. */
void ep_policy_go_on(struct ep_policy_wait *w, uint64_t *now_ns, struct ep_policy_verdict *v);
/* Nobody wants it any more. */
void ep_policy_wait_drop(struct ep_policy_wait *w);

/* share.c: whether the policy is a shadow for this stream: by its mode, the set's, its trial, or since the caller isn't among
 * the share for whom it is enforced. The same caller always gets the same answer from the same policy: by the verified
 * identity, else the agent, session or tenant of the call, else the trace. */
bool ep_policy_shadow(const struct ep_policy_set *set, const struct ep_policy *p, struct ep_stream *s);
/* Appends members: enforced, would_deny, enforces_at. */
void ep_policy_life_json(const struct ep_policy *p, struct ep_json *j);
/* What a verdict that refuses says; as long as its slices. */
struct ep_refusal ep_policy_refusal(const struct ep_policy *p, const struct ep_policy_verdict *v);
/* Refuses by a verdict that does; `call`: of a batch the one that was judged, NULL: no certain one. */
void ep_policy_refuse(struct ep_stream *s, const struct ep_policy *p, const struct ep_call *call,
                      const struct ep_policy_verdict *v);

/* The value of a field, of a list its first; empty when absent. */
struct ep_str ep_policy_field_value(enum ep_policy_field f, const struct ep_stream *s, struct ep_call *call);
const char *ep_policy_field_name(enum ep_policy_field f);
/* What a language model is offered: of EP_POLICY_TOOLS and _SERVERS; NULL: this field is no list, or the call has none. */
const struct ep_model_names *ep_policy_field_list(enum ep_policy_field f, const struct ep_stream *s, const struct ep_call *call);
/* False when the value may be there and can't be seen. */
bool ep_policy_field_visible(enum ep_policy_field f, const struct ep_call *call);

/* Whether the call is one of the policy's, and all that it needs of it is there. UNSEEN: what is out of sight may be it. */
enum ep_policy_match { EP_POLICY_NO_MATCH, EP_POLICY_UNSEEN, EP_POLICY_MATCHES };
enum ep_policy_match ep_policy_matches(const struct ep_policy *p, const struct ep_stream *s, struct ep_call *call);
/* One key of `match`, of what can be seen. */
bool ep_policy_rule_holds(const struct ep_policy_rule *r, const struct ep_stream *s, struct ep_call *call);

/* foresee.c: whether the stream's policies would refuse a call that its caller hasn't made yet, for lists of what may be
 * called. Nothing comes of asking: no count, no record, no header, no wait. True only when a policy refuses it whatever
 * the rest of the call says: an answer that hangs on arguments, body or id, on fields in `unknown` (bit: enum
 * ep_policy_field), or on what policies remember or ask is no answer. *budget_ns: time that may be spent yet; at 0 all is false. */
bool ep_policies_foresee(struct ep_stream *s, struct ep_call *call, uint32_t unknown, uint64_t *budget_ns);
/* Whether there are policies to ask. */
bool ep_policies_judge(const struct ep_stream *s);

/* For /policies: an array of all policies of this worker; called in the worker. */
void ep_policies_json(struct ep_worker *w, struct ep_json *j);

#endif
