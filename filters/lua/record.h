/* Recording what policies were asked and what they said, so that a changed policy can be tried on it.
 *
 * A sample of the requests that reach the filter `policies` becomes one line of JSON each, in a file of mode 0600:
 *     {"v":1,"now":1764072000.25,"request":{...},"lost":{"headers.authorization":"masked"},
 *      "decisions":[{"policy":"no-shell","call":0,"decision":"deny","code":"policy.denied","reason":"..."},
 *                   {"policy":"pii","phase":"reply","decision":"allow"}],
 *      "unmatched":["other"],
 *      "http":[{"policy":"ask","cluster":"c","method":"GET","host":"c","path":"/x","digest":"...","status":200,"headers":[],
 *               "body":"...","lost":{}}],
 *      "reply":{"head":{"status":200,"headers":[],"lost":{}},"body":"...","lost":{"body":"cut"}}}
 * `request` has the fields of t.call (lua/ephor/test.lua), so a line can become a test. What is not as it was is named in
 * `lost`, with why: "masked" (a secret), "cut" (over EP_RECORD_FIELD_MAX, or never seen to its end), "encoding" (no UTF-8). `call`
 * counts the calls of a batch; `"mode":"shadow"` says that all policies were shadows. A policy that is in neither list was not
 * asked, since one before it refused. `http` has what policies asked by c:http and were answered, in that order; `reply` what
 * came back, as it came ("decoded":true: without its content-encoding), null when policies were shown none.
 *
 * The head of a line is made before the first policy can change the request, the rest when the stream ends; lines are gathered
 * and written at the end of the turn. The file grows to `limit` and no further: from then on requests are only counted. */
#ifndef EP_LUA_RECORD_H
#define EP_LUA_RECORD_H

#include "lua/policy.h"

#define EP_RECORD_FIELD_MAX ((size_t)64 << 10) /* bytes of a body or arguments */
#define EP_RECORD_LINE_MAX  ((size_t)1 << 20)  /* longer ones are dropped and counted */

struct ep_recorder;
struct ep_record; /* of one request, in its arena */

/* Of c->record. NULL with err when the file can't be made or opened. */
struct ep_recorder *ep_recorder_new(const struct ep_policies_config *c, struct ep_worker *w, struct ep_error *err);
void ep_recorder_free(struct ep_recorder *r); /* writes what is left; NULL is fine */

/* NULL: this one is not in the sample. */
struct ep_record *ep_record_begin(struct ep_recorder *r, struct ep_stream *s);
/* What is told to it is in the record. */
struct ep_policy_hearing *ep_record_hearing(struct ep_record *rec);
/* The head of the response, before a policy can change it; what comes of its body, likewise (NULL: none will); and in place of
 * that a body which had to be decoded. */
void ep_record_reply(struct ep_record *rec, struct ep_stream *s);
void ep_record_body(struct ep_record *rec, struct ep_body *b, bool end);
void ep_record_decoded(struct ep_record *rec, struct ep_str body);
/* The stream ends. Its arena must still be there; one that never comes here is not recorded. */
void ep_record_end(struct ep_record *rec);

#endif
