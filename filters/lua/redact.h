/* Redaction of whole bodies: what `c:redact(what)` and `r:redact(what)` ask for.
 *
 * The action only notes what is to go; it is done once, after the policy has run and did not deny, on the whole body.
 * JSON is walked token by token and only its strings and numbers are changed, with escapes undone for the search, so that
 * the result is JSON again; other text is searched as it is. What can't be searched for sure (compressed, streamed,
 * binary, too large) is never passed as if it had been: it is out of sight, and the policy's `blind` says what then. */
#ifndef EP_LUA_REDACT_H
#define EP_LUA_REDACT_H

#include "lua/sensitive.h"

struct lua_State;
struct ep_call;
struct ep_headers;
struct ep_lua;
struct ep_lua_budget;

#define EP_REDACT_RULES_MAX 32u /* of one policy and call */
#define EP_REDACT_WITH_MAX  64u /* bytes of what takes the place */

/* One thing to take out; in the stream's arena. */
struct ep_redaction {
    struct ep_redaction *next;
    enum ep_sensitive kind; /* EP_SENSITIVE_KINDS: by `pattern` */
    struct ep_str pattern;  /* Lua's */
    struct ep_str with;
    bool with_given;        /* by the policy */
};

/* Reads the arguments of redact(what[, {with = text}]) from index 2 on into a list in the arena, in front of `tail`, but for
 * what is in `tail` already. Raises. */
struct ep_redaction *ep_redact_arguments(struct lua_State *L, struct ep_arena *arena, struct ep_redaction *tail);

enum ep_redact_text {
    EP_REDACT_JSON,
    EP_REDACT_MAYBE_JSON, /* else plain */
    EP_REDACT_PLAIN,
    EP_REDACT_PART, /* plain, and more of it may follow: what could be the beginning of a hit is not in the result */
};

/* A string of JSON that has been looked at already: `raw` begins with its quote, `text` is what it is to be; NULL: as it is. */
struct ep_redact_given {
    struct ep_str raw, text;
};

struct ep_redact_job {
    /* in */
    struct ep_arena *arena;
    const struct ep_redaction *rules;
    struct ep_str text;
    enum ep_redact_text as;
    const struct ep_call *call; /* whose names must stay; NULL: no call */
    size_t bytes_max;           /* of the result */
    const struct ep_redact_given *given; /* of EP_REDACT_JSON */
    unsigned n_given;
    size_t from, tail_max; /* of EP_REDACT_PART: bytes of the text that have gone; most that may wait without a hit */
    bool last;             /* … and nothing follows: none waits */
    /* out */
    struct ep_str result; /* `text` itself when nothing was found */
    unsigned found[EP_SENSITIVE_KINDS + 1], total;
    const char *refused; /* why it can't be done; NULL: it was */
    size_t held;         /* of EP_REDACT_PART: from there on the text waits for more */
    bool changed;        /* the result is another text */
    /* private */
    char *out;
    size_t n, cap, copied;
    char *scratch;
    size_t scratch_cap;
};

/* Does it under a budget of its own that grows with the text. False: an error or an overrun (of a Lua pattern); the
 * message is on the stack of L, as after ep_lua_call. */
bool ep_redact(struct ep_lua *l, struct lua_State *L, struct ep_redact_job *job, const struct ep_lua_budget *b);

/* Undoes the escapes of what stands between the quotes, in memory of the job that the next call reuses. False: one is malformed.
 * A surrogate alone becomes U+FFFD. */
bool ep_redact_unescape(struct ep_redact_job *j, struct ep_str raw, struct ep_str *out);

/* Whether a body under that head can be searched, and how. */
bool ep_redact_readable(const struct ep_headers *h, struct ep_str body, enum ep_redact_text *as);

#endif
