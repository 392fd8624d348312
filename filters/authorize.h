/* The `authorize` rules of a listener: who may call what. Deny rules go first; then, when there are allow rules, one of
 * them must match.
 *
 * Rules that look at the head alone are judged by `identity`, before a body is read; rules that name protocols, tools or
 * models need the call, and are judged by `agent` once it knows it. Both filters hold one of these. */
#ifndef EP_FILTERS_AUTHORIZE_H
#define EP_FILTERS_AUTHORIZE_H

#include "filter/chain.h"

struct ep_json;

enum ep_authorize_phase {
    EP_AUTHORIZE_HEAD, /* by identity: what only a call can decide is left open */
    EP_AUTHORIZE_CALL, /* by agent: the answer */
};

/* What is judged. */
struct ep_authorize_question {
    struct ep_str principal; /* empty: nobody */
    struct ep_str method, host, path;
    const struct ep_headers *headers;
    const struct ep_call *call;
};

/* Why a rule doesn't match: the first of its keys that doesn't hold, in this order. */
enum ep_authorize_why {
    EP_AUTHORIZE_MATCHES,
    EP_AUTHORIZE_PRINCIPAL,
    EP_AUTHORIZE_METHOD,
    EP_AUTHORIZE_HOST,
    EP_AUTHORIZE_HEADER,
    EP_AUTHORIZE_PATH,
    EP_AUTHORIZE_PROTOCOL,
    EP_AUTHORIZE_TOOL,
    EP_AUTHORIZE_MODEL,
};

struct ep_authorize_verdict {
    bool denied;
    int rule; /* that decided, by its place in the list; -1: none matched, or there is none */
};

struct ep_authorize {
    const struct ep_authorize_config *rules;
    size_t n;
    bool any_allow;
    bool needs_call;            /* a rule names protocols, tools or models */
    uint64_t *allowed, *denied; /* ephor_authorize_total; NULL without statistics */
};

void ep_authorize_load(struct ep_authorize *a, const struct ep_filter_instance *i);
/* The rules alone, without statistics. */
void ep_authorize_init(struct ep_authorize *a, const struct ep_listener_config *c);
/* Whether one rule matches, by itself; `with_call`: also what it says of the call. */
enum ep_authorize_why ep_authorize_rule(const struct ep_authorize_config *r, const struct ep_authorize_question *q,
                                        bool with_call);
/* The verdict, without a stream. */
struct ep_authorize_verdict ep_authorize_judge(const struct ep_authorize *a, const struct ep_authorize_question *q,
                                               enum ep_authorize_phase phase);
/* Whether the rule says anything of the call. */
bool ep_authorize_needs_call(const struct ep_authorize_config *r);
/* The verdict alone, of this call: for tests. True: refused. */
bool ep_authorize_denies(const struct ep_authorize *a, const struct ep_stream *s, const struct ep_call *call,
                         enum ep_authorize_phase phase);
/* Judges the stream, every call of a batch; counts, and refuses with "authorize.denied". False: refused. */
bool ep_authorize_check(struct ep_stream *s, const struct ep_authorize *a, enum ep_authorize_phase phase);
/* Whether filter `name` stands in the listener's chain behind (or is) `first`. */
bool ep_chain_has(const struct ep_listener_config *c, struct ep_str name);


/* --- which rule decides, and why: authorize_explain.c --- */

/* Answers "listener=…&principal=…&method=…&path=…&header.NAME=…&protocol=…&tool=…&model=…" (percent-escapes undone) with a JSON
 * object: decision, rule, where, because, and of each rule in the order of judging whether it matches and why not.
 * `listeners`: of struct ep_listener_config. `file`: of the configuration. False with err: the question is no good. */
bool ep_authorize_explain(const struct ep_vec *listeners, const char *file, struct ep_str query, struct ep_json *out,
                          struct ep_error *err);

#endif
